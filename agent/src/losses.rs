//! Loss that only a counter knows, told as gaps of the agent itself.
//!
//! Owns which counters these are and what has been told of them. What is lost of a known session is told there, by the
//! pipeline; here is what cannot be put down to a session: facts, marks, skipped programs.

use proto::v1;

/// What was told so far.
#[derive(Debug, Default)]
pub struct Losses {
    told: [u64; KINDS.len()],
}

/// A counter, the reason of its gaps, and what one of it is.
type Kind = (&'static str, fn(&v1::Counters) -> u64, &'static str);

/// Reason of the gap after which processes are not followed until there is room.
pub const TARGETS_FULL: &str = "targets_full";

/// Reason of the gap after which this host is looked at anew.
pub const FACTS_LOST: &str = "facts_lost";

/// Reason of the gap after which what poolers pass on is in doubt.
pub const TRANSFERS_LOST: &str = "transfers_lost";

/// Reason of the gap after which connections that the kernel does not count are in doubt.
pub const PROGRAM_MISSED: &str = "program_missed";

const KINDS: [Kind; 7] = [
    (
        FACTS_LOST,
        |c| c.facts_lost,
        "facts about processes or sockets found their ring full: connections may be missing or without a name",
    ),
    (
        TARGETS_FULL,
        |c| c.targets_full,
        "processes of servers could not be marked, because too many are: nothing of them is seen",
    ),
    (
        PROGRAM_MISSED,
        |c| c.program_missed,
        "calls of the tap's programs were skipped by the kernel",
    ),
    (
        "owners_full",
        |c| c.owners_full,
        "connecting sockets could not be remembered: their clients may be unknown",
    ),
    (
        "flows_full",
        |c| c.flows_full,
        "connections to servers elsewhere were not told, because too many waited: their clients are addresses there",
    ),
    (
        TRANSFERS_LOST,
        |c| c.transfers_lost,
        "calls of poolers on their sockets could not be told: statements that passed through them may be unknown",
    ),
    (
        "plaintext_unplaced",
        |c| c.plaintext_unplaced,
        "calls of the server's encryption functions could not be put down to a connection",
    ),
];

impl Losses {
    /// What was lost since this was last asked, one gap for each reason.
    pub fn since(&mut self, counters: &v1::Counters) -> Vec<v1::Gap> {
        let mut gaps = Vec::new();
        for ((reason, count, what), told) in KINDS.iter().zip(&mut self.told) {
            let total = count(counters);
            let lost = total.saturating_sub(*told);
            if lost > 0 {
                *told = total;
                gaps.push(v1::Gap {
                    reason: (*reason).to_owned(),
                    detail: format!("{lost} {what}"),
                    ..v1::Gap::default()
                });
            }
        }
        gaps
    }
}

/// Processes of servers that could not be marked: nothing of them is seen until they are, or are over, so that the time of
/// the gap that told of them is not all.
#[derive(Debug, Default)]
pub struct Unmarked {
    /// Until when it has been told; `None` while all are marked.
    told_to: Option<u64>,
    tried: u64,
}

/// How often it is tried to mark them: each time reads all of `/proc`.
const TRY_NS: u64 = 1_000_000_000;

/// How often it is told that some are unmarked still.
const TELL_NS: u64 = 10_000_000_000;

impl Unmarked {
    /// There are some, and up to now they were told.
    pub fn begin(&mut self, now: u64) {
        self.told_to.get_or_insert(now);
    }

    /// Tries again with `mark_all` if it is time, and returns since when there is something to tell: at the `last` look
    /// in any case.
    pub fn look(&mut self, now: u64, last: bool, mark_all: impl FnOnce() -> bool) -> Option<u64> {
        let told_to = self.told_to?;
        if !last && now.saturating_sub(self.tried) < TRY_NS {
            return None;
        }
        self.tried = now;
        let over = last || mark_all();
        if !over && now.saturating_sub(told_to) < TELL_NS {
            return None;
        }
        self.told_to = (!over).then_some(now);
        Some(told_to)
    }

    /// The gap that [`Self::look`] asks for.
    pub fn gap() -> v1::Gap {
        v1::Gap {
            reason: TARGETS_FULL.to_owned(),
            detail: "processes of servers were not followed, because too many are".to_owned(),
            ..v1::Gap::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_followed_is_told_for_as_long_as_it_lasts() {
        const S: u64 = 1_000_000_000;
        let mut unmarked = Unmarked::default();
        assert_eq!(unmarked.look(5 * S, true, || panic!("all are marked")), None);
        unmarked.begin(10 * S);
        assert_eq!(unmarked.look(10 * S, false, || false), None);
        assert_eq!(unmarked.look(10 * S + 1, false, || panic!("too early")), None);
        unmarked.begin(12 * S);
        assert_eq!(unmarked.look(13 * S, false, || false), None, "not so often");
        assert_eq!(unmarked.look(20 * S, false, || false), Some(10 * S));
        assert_eq!(unmarked.look(24 * S, false, || true), Some(20 * S));
        assert_eq!(unmarked.look(98 * S, false, || panic!("all are marked")), None);
        unmarked.begin(99 * S);
        assert_eq!(
            unmarked.look(99 * S + 2, true, || panic!("it ends")),
            Some(99 * S)
        );
    }

    #[test]
    fn each_loss_is_told_once() {
        let mut losses = Losses::default();
        let mut counters = v1::Counters {
            ring_full: 9,
            ..v1::Counters::default()
        };
        assert_eq!(losses.since(&counters), [], "told by the sessions");
        counters.facts_lost = 3;
        counters.program_missed = 1;
        let told = losses.since(&counters);
        let reasons: Vec<&str> = told.iter().map(|gap| gap.reason.as_str()).collect();
        assert_eq!(reasons, ["facts_lost", "program_missed"]);
        assert!(told[0].detail.starts_with("3 facts"), "{}", told[0].detail);
        assert_eq!(losses.since(&counters), []);
        counters.facts_lost = 5;
        assert!(losses.since(&counters)[0].detail.starts_with("2 facts"));
    }
}
