//! What goes of one batch.
//!
//! Owns which leaves an erasure takes: the events that are meant, and the definitions that no event that is left names. Refuses
//! what a hold is on, and what the collector itself said of removals: without that, nobody could tell an erasure from a forgery.

use std::collections::BTreeSet;

use anyhow::{anyhow, bail};
use attribution::{POOLERS, TAKEN_BACK};
use bytes::Bytes;
use evidence::{Limits, OpenedBatch};
use prost::Message;
use proto::{
    v1::{self, event::Body},
    whole,
};
use sha2::{Digest, Sha256};

/// What goes of a batch.
pub(super) struct Plan {
    payload: Bytes,
    /// Leaves, ascending: events, and definitions counted on behind them.
    pub(super) places: Vec<u32>,
    /// The events' numbers.
    pub(super) gone: BTreeSet<u64>,
    /// Events that were meant, and have to stay.
    pub(super) kept: u64,
}

impl Plan {
    /// What goes, if the events with these numbers are meant. `held` says why one must not go.
    pub(super) fn of(
        payload: Bytes,
        opened: &OpenedBatch,
        seqs: &BTreeSet<u64>,
        is_own: bool,
        held: impl Fn(&v1::Event) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let mut plan = Self {
            payload,
            places: Vec::new(),
            gone: BTreeSet::new(),
            kept: 0,
        };
        let mut named = BTreeSet::new();
        let numbered = (opened.header.first_event_seq..).zip(&opened.events);
        for (place, (seq, encoded)) in (0_u32..).zip(numbered) {
            if opened.is_event_erased(place as usize) {
                continue;
            }
            if seqs.contains(&seq) {
                let event = whole::event(seq, encoded, &opened.definitions)
                    .map_err(|refused| anyhow!("event {seq} {refused}"))?;
                if let Some(why) = held(&event) {
                    bail!("{why}; nothing is erased");
                }
                if !is_own || may_go(event.body.as_ref()) {
                    plan.places.push(place);
                    plan.gone.insert(seq);
                    continue;
                }
                plan.kept += 1;
            }
            let event = v1::Event::decode(encoded.clone())?;
            named.extend(event.party.into_iter().chain(event.template));
        }
        if !plan.places.is_empty() {
            let definitions = (0_u32..).zip(&opened.definitions).map(|(place, _)| place);
            let unnamed = definitions
                .filter(|place| !named.contains(place) && !opened.is_definition_erased(*place as usize));
            plan.places
                .extend(unnamed.map(|place| opened.header.event_count + place));
        }
        Ok(plan)
    }

    /// What is said of it, and the payload that is left.
    pub(super) fn erased(&self, entry: u64, limits: &Limits) -> anyhow::Result<(v1::ErasedBatch, Bytes)> {
        let left = evidence::erase(&self.payload, &self.places, limits)?;
        let said = v1::ErasedBatch {
            entry,
            former_digest: Sha256::digest(&self.payload).to_vec(),
            digest: Sha256::digest(&left).to_vec(),
            places: self.places.clone(),
        };
        Ok((said, left.into()))
    }
}

/// Whether something that the collector itself said may go.
fn may_go(body: Option<&Body>) -> bool {
    match body {
        Some(Body::Erasure(_) | Body::Hold(_) | Body::Retention(_) | Body::LogRestored(_)) => false,
        // A name that was taken back must not stand again.
        Some(Body::Amendment(of)) => of.r#match != TAKEN_BACK && of.r#match != POOLERS,
        _ => true,
    }
}
