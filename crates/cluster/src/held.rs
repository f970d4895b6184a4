//! When a pod had an address.

use std::net::IpAddr;

/// An address of a pod, and when that had it. Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) address: IpAddr,
    /// The pod may have had it from then on.
    pub(crate) maybe: u64,
    /// It surely had it from then on.
    pub(crate) from: u64,
    /// It has not got it any more.
    pub(crate) over: Option<Over>,
}

/// The end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// It surely had it until then; not at all, where that is before it had it.
    pub(crate) sure: u64,
    /// It surely had it no more from then on.
    pub(crate) latest: u64,
}

/// Whether a pod had an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Had {
    No,
    /// By the clocks of several hosts nobody can say.
    Perhaps,
    Yes,
}

impl Held {
    pub(crate) fn at(&self, at: u64) -> Had {
        let latest = self.over.map_or(u64::MAX, |over| over.latest);
        if self.from <= at && self.over.is_none_or(|over| at < over.sure) {
            Had::Yes
        } else if (self.maybe.saturating_sub(SLACK_NS)..=latest.saturating_add(SLACK_NS)).contains(&at) {
            Had::Perhaps
        } else {
            Had::No
        }
    }

    /// The pod has it no more; what was known before about its end stays.
    pub(crate) fn end(&mut self, sure: u64, latest: u64) {
        self.over.get_or_insert(Over {
            sure,
            latest: latest.max(sure).max(self.maybe),
        });
    }
}

/// What clocks of nodes, API server and collector may differ by, and seconds that times of pods are cut to.
pub const SLACK_NS: u64 = 2_000_000_000;

/// How long a pod's deletion may come behind the end of its network, which its node takes away first. Where its containers' ends are told,
/// those count.
pub(crate) const ENDING_NS: u64 = 4_000_000_000;

/// How late words may be before it is noticed that they are (nothing was heard: a break), and how long they may go on to be behind one.
/// Whoever asks about an address has waited for that long since.
pub const LATE_NS: u64 = 30_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_where_nobody_can_say() {
        let second = 1_000_000_000;
        let mut held = Held {
            address: [10, 0, 0, 1].into(),
            maybe: 90 * second,
            from: 100 * second,
            over: None,
        };
        assert_eq!(held.at(87 * second), Had::No);
        assert_eq!(held.at(89 * second), Had::Perhaps);
        assert_eq!(held.at(99 * second), Had::Perhaps);
        assert_eq!(held.at(100 * second), Had::Yes);
        assert_eq!(held.at(u64::MAX), Had::Yes);
        held.end(200 * second, 300 * second);
        held.end(1, 1);
        assert_eq!(held.at(199 * second), Had::Yes);
        assert_eq!(
            held.at(200 * second),
            Had::Perhaps,
            "another may have it from then on"
        );
        assert_eq!(held.at(301 * second), Had::Perhaps);
        assert_eq!(held.at(303 * second), Had::No);
    }
}
