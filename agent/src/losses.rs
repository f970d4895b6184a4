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

/// Reason of the gap after which this host is looked at anew.
pub const FACTS_LOST: &str = "facts_lost";

/// Reason of the gap after which connections that the kernel does not count are in doubt.
pub const PROGRAM_MISSED: &str = "program_missed";

const KINDS: [Kind; 5] = [
    (
        FACTS_LOST,
        |c| c.facts_lost,
        "facts about processes or sockets found their ring full: connections may be missing or without a name",
    ),
    (
        "targets_full",
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

#[cfg(test)]
mod tests {
    use super::*;

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
