//! What is where in a log.
//!
//! Owns the way from an event's id to the entry that holds it, by headers alone.

use std::collections::HashMap;

use ed25519_dalek::VerifyingKey;
use evidence::Hash;
use proto::v1::{BatchHeader, GivenUp};

/// Where an event is found, and which batches of the collector's own amend something.
#[derive(Default)]
pub(crate) struct Contents {
    /// By agent, in order: a batch's first event, and its log entry.
    batches: HashMap<String, Vec<(u64, u64)>>,
    /// Of the chains whose word counts, once the walk is over.
    pub(crate) amending: Vec<u64>,
    /// The same with the chain, of all that may be a collector's.
    pub(super) may_amend: Vec<(u64, String)>,
    /// By agent, in order; empty unless asked for.
    pub(crate) links: HashMap<String, Vec<Link>>,
    /// By agent: the batches that it says to have given up.
    pub(crate) given_up: HashMap<String, Vec<GivenUp>>,
}

/// A batch in its agent's chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) sequence: u64,
    pub(crate) previous: Hash,
    pub(crate) hash: Hash,
    pub(crate) first_event_seq: u64,
    pub(crate) event_count: u32,
    pub(crate) entry: u64,
    /// The key that signed it.
    pub(crate) key: VerifyingKey,
    /// The one that it announces.
    pub(crate) next_key: Option<VerifyingKey>,
}

impl Contents {
    /// The entry that holds an agent's event.
    pub(crate) fn entry(&self, agent: &str, seq: u64) -> Option<u64> {
        let batches = self.batches.get(agent)?;
        let behind = batches.partition_point(|(first, _)| *first <= seq);
        batches.get(behind.checked_sub(1)?).map(|(_, entry)| *entry)
    }

    /// Adds a batch that follows in its agent's chain.
    pub(super) fn add(&mut self, entry: u64, header: &BatchHeader, amends: bool) {
        if header.event_count > 0 {
            let batches = match self.batches.get_mut(&header.agent_id) {
                Some(batches) => batches,
                None => self.batches.entry(header.agent_id.clone()).or_default(),
            };
            batches.push((header.first_event_seq, entry));
        }
        if !header.given_up.is_empty() {
            let given_up = self.given_up.entry(header.agent_id.clone()).or_default();
            given_up.extend_from_slice(&header.given_up);
        }
        if amends {
            self.may_amend.push((entry, header.agent_id.clone()));
        }
    }

    /// Keeps what these chains amend.
    pub(super) fn believe(&mut self, own: &[String]) {
        let amending = self.may_amend.iter().filter(|(_, agent)| own.contains(agent));
        self.amending = amending.map(|(entry, _)| *entry).collect();
    }

    /// Whether all of these batches were given up, by the agent's word in this log.
    pub(crate) fn gave_up(&self, agent: &str, from: u64, to: u64) -> bool {
        let given_up = self.given_up.get(agent).map_or(&[][..], Vec::as_slice);
        covered(given_up, from, to)
    }

    pub(super) fn link(&mut self, entry: u64, header: &BatchHeader, hash: Hash, key: VerifyingKey) {
        let links = self.links.entry(header.agent_id.clone()).or_default();
        links.push(Link {
            sequence: header.sequence,
            previous: header.previous.as_slice().try_into().unwrap_or_default(),
            hash,
            first_event_seq: header.first_event_seq,
            event_count: header.event_count,
            entry,
            key,
            next_key: VerifyingKey::try_from(header.next_key.as_slice()).ok(),
        });
    }
}

/// Whether these batches are all among those that were given up.
pub(crate) fn covered(given_up: &[GivenUp], from: u64, to: u64) -> bool {
    let mut next = from;
    while next <= to {
        let holding = given_up.iter().filter(|one| (one.from..=one.to).contains(&next));
        match holding.map(|one| one.to).max() {
            Some(last) => next = last.saturating_add(1),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_holes_cover_what_is_missing_only_without_a_rest() {
        let hole = |from, to| GivenUp { from, to, events: 1 };
        let holes = [hole(61, 70), hole(71, 75), hole(5, u64::MAX - 5)];
        assert!(covered(&holes[..2], 61, 75) && covered(&holes[..2], 65, 72));
        assert!(!covered(&holes[..2], 60, 61) && !covered(&holes[..2], 75, 76));
        assert!(!covered(&[], 1, 1) && covered(&holes, 5, 70));
        assert!(!covered(&holes, 5, u64::MAX));
    }
}
