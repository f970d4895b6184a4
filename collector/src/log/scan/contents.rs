//! What is where in a log.
//!
//! Owns the way from an event's id to the entry that holds it, by headers alone.

use std::collections::HashMap;

use evidence::Hash;
use proto::v1::BatchHeader;

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
}

/// A batch in its agent's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) sequence: u64,
    pub(crate) previous: Hash,
    pub(crate) hash: Hash,
    pub(crate) first_event_seq: u64,
    pub(crate) event_count: u32,
    pub(crate) entry: u64,
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
        if amends {
            self.may_amend.push((entry, header.agent_id.clone()));
        }
    }

    /// Keeps what these chains amend.
    pub(super) fn believe(&mut self, own: &[String]) {
        let amending = self.may_amend.iter().filter(|(_, agent)| own.contains(agent));
        self.amending = amending.map(|(entry, _)| *entry).collect();
    }

    pub(super) fn link(&mut self, entry: u64, header: &BatchHeader, hash: Hash) {
        let links = self.links.entry(header.agent_id.clone()).or_default();
        links.push(Link {
            sequence: header.sequence,
            previous: header.previous.as_slice().try_into().unwrap_or_default(),
            hash,
            first_event_seq: header.first_event_seq,
            event_count: header.event_count,
            entry,
        });
    }
}
