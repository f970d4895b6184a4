//! Whether a batch follows another one of the same agent.
//!
//! Owns the rule alone: the collector asks it before it stores, the offline check asks it again over the whole log.

use proto::v1::BatchHeader;
use thiserror::Error;

use crate::batch::Hash;

/// The newest batch of an agent. The default is the state before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tip {
    /// Its sequence, from 1; 0 before the first.
    pub sequence: u64,
    /// Hash of its header; zeros before the first.
    pub header_hash: Hash,
    /// `seq` of its last event; 0 before the first.
    pub event_seq: u64,
}

/// Why a batch does not follow.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ChainBreak {
    /// Not the next sequence.
    #[error("expected batch {expected}, found {found}")]
    Sequence {
        /// The sequence that would follow.
        expected: u64,
        /// The header's.
        found: u64,
    },
    /// The right sequence, behind another history.
    #[error("batch {sequence} names another predecessor than the one stored")]
    Previous {
        /// The header's sequence.
        sequence: u64,
    },
    /// The right batch sequence, with events missing or counted twice.
    #[error("batch {sequence} begins at event {found}, expected {expected}")]
    EventSeq {
        /// The header's sequence.
        sequence: u64,
        /// The `seq` that would follow.
        expected: u64,
        /// The header's `first_event_seq`.
        found: u64,
    },
}

impl Tip {
    /// The tip after `header`, which hashes to `header_hash`, or why it does not follow.
    pub fn follow(&self, header: &BatchHeader, header_hash: Hash) -> Result<Self, ChainBreak> {
        let expected = self.sequence.saturating_add(1);
        if header.sequence != expected {
            return Err(ChainBreak::Sequence {
                expected,
                found: header.sequence,
            });
        }
        if header.previous != self.header_hash {
            return Err(ChainBreak::Previous {
                sequence: header.sequence,
            });
        }
        let next_event = self.event_seq.saturating_add(1);
        if header.event_count > 0 && header.first_event_seq != next_event {
            let (expected, found) = (next_event, header.first_event_seq);
            return Err(ChainBreak::EventSeq {
                sequence: header.sequence,
                expected,
                found,
            });
        }
        let event_seq = self.event_seq.saturating_add(u64::from(header.event_count));
        Ok(Self {
            sequence: header.sequence,
            header_hash,
            event_seq,
        })
    }
}

impl Tip {
    /// The same as [`Tip::follow`], or the tip after a header that stands further on in the chain: what is between is not in
    /// the log that this tip is of. Whether that may be is for its reader to decide, who has to say it: the signed chain
    /// alone cannot hold what another log holds, or what a restored one has lost.
    pub fn follow_or_leap(&self, header: &BatchHeader, header_hash: Hash) -> Result<Self, ChainBreak> {
        let expected = self.sequence.saturating_add(1);
        if header.sequence <= expected {
            return self.follow(header, header_hash);
        }
        let next_event = self.event_seq.saturating_add(1);
        let found = header.first_event_seq;
        if header.event_count > 0 && found < next_event {
            return Err(ChainBreak::EventSeq {
                sequence: header.sequence,
                expected: next_event,
                found,
            });
        }
        let last = found
            .saturating_sub(1)
            .saturating_add(u64::from(header.event_count));
        Ok(Self {
            sequence: header.sequence,
            header_hash,
            event_seq: self.event_seq.max(last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u64, previous: Hash, first_event_seq: u64, event_count: u32) -> BatchHeader {
        BatchHeader {
            sequence,
            previous: previous.to_vec(),
            first_event_seq,
            event_count,
            ..Default::default()
        }
    }

    #[test]
    fn leaps_only_forward() {
        let tip = Tip::default().follow(&header(1, [0; 32], 1, 3), [1; 32]).unwrap();
        let leapt = tip.follow_or_leap(&header(7, [6; 32], 20, 2), [7; 32]).unwrap();
        assert_eq!((leapt.sequence, leapt.event_seq), (7, 21));
        let empty = tip.follow_or_leap(&header(7, [6; 32], 20, 0), [7; 32]).unwrap();
        assert_eq!((empty.sequence, empty.event_seq), (7, 19));
        assert!(empty.follow(&header(8, [7; 32], 20, 1), [8; 32]).is_ok());
        assert!(tip.follow_or_leap(&header(7, [6; 32], 3, 2), [7; 32]).is_err());
        assert!(tip.follow_or_leap(&header(1, [0; 32], 1, 3), [1; 32]).is_err());
        assert!(tip.follow_or_leap(&header(2, [9; 32], 4, 1), [2; 32]).is_err());
        assert!(tip.follow_or_leap(&header(2, [1; 32], 4, 1), [2; 32]).is_ok());
    }

    #[test]
    fn follows_only_without_holes() {
        let tip = Tip::default().follow(&header(1, [0; 32], 1, 3), [1; 32]).unwrap();
        assert_eq!(
            tip,
            Tip {
                sequence: 1,
                header_hash: [1; 32],
                event_seq: 3
            }
        );
        assert!(tip.follow(&header(2, [1; 32], 4, 1), [2; 32]).is_ok());
        assert!(
            tip.follow(&header(2, [1; 32], 0, 0), [2; 32]).is_ok(),
            "a batch may hold no event"
        );
        assert_eq!(
            tip.follow(&header(3, [1; 32], 4, 1), [2; 32]),
            Err(ChainBreak::Sequence {
                expected: 2,
                found: 3
            })
        );
        assert_eq!(
            tip.follow(&header(2, [9; 32], 4, 1), [2; 32]),
            Err(ChainBreak::Previous { sequence: 2 })
        );
        assert_eq!(
            tip.follow(&header(2, [1; 32], 5, 1), [2; 32]),
            Err(ChainBreak::EventSeq {
                sequence: 2,
                expected: 4,
                found: 5
            })
        );
    }
}
