//! What is done when batches cannot be kept: by policy the oldest are dropped, and what cannot be read is passed over.
//!
//! Owns the decision. Either way the chain leaps, and the record says so: `holes` sees to that. Without the policy nothing is dropped.

use std::{ops::RangeInclusive, sync::atomic::Ordering};

use anyhow::{Context as _, bail};
use spool::{ReadError, Spool};
use tracing::{error, warn};

use super::{
    holes::Hole,
    sealer::{Sealer, end_of},
};
use crate::config::WhenFull;

/// Reasons of the gaps.
const DROPPED: &str = "spool_dropped";
const DAMAGED: &str = "spool_damaged";

impl Sealer {
    /// Drops the spool's oldest file, if that is the policy and there is a later one. Whether there may be room now.
    pub(super) fn give_up_oldest(&mut self) -> bool {
        if self.with.when_full != WhenFull::DropOldest {
            return false;
        }
        let Some((batches, bytes)) = self.spool.as_ref().and_then(Spool::oldest_file) else {
            return false;
        };
        let mut hole = Hole::new(DROPPED, &batches);
        hole.bytes = bytes;
        if let (Ok(first), Ok(last)) = (self.header(*batches.start()), self.header(*batches.end())) {
            (hole.first_ns, hole.last_ns) = (first.first_ns, last.last_ns);
            hole.events = (end_of(&last) + 1).checked_sub(first.first_event_seq);
        }
        let events = hole.events.unwrap_or(0);
        let done = self.give_up(&batches, hole);
        if done {
            self.with
                .metrics
                .spool_dropped
                .fetch_add(events, Ordering::Relaxed);
            warn!(
                "the spool is full: batches {} to {}, the oldest, were dropped with {events} events (spool.when_full)",
                batches.start(),
                batches.end()
            );
        }
        done
    }

    /// Passes over batches from this one on that cannot be read.
    ///
    /// # Errors
    ///
    /// If there are any: the collector has to be told before it gets what is behind them.
    pub(super) fn pass_over_unreadable(&mut self, from: u64) -> anyhow::Result<()> {
        let mut next = from;
        while next <= self.tip.sequence {
            match self.header(next) {
                Ok(_) => break,
                Err(ReadError::Io(problem)) => return Err(problem).context("the spool cannot be read"),
                Err(_) => next += 1,
            }
        }
        if next == from {
            return Ok(());
        }
        let batches = from..=next - 1;
        error!(
            "batches {from} to {} cannot be read from the spool: what they held is lost",
            next - 1
        );
        let mut hole = Hole::new(DAMAGED, &batches);
        if let Ok(behind) = self.header(next) {
            hole.last_ns = behind.first_ns;
        }
        hole.first_ns = hole.last_ns;
        if !self.give_up(&batches, hole) {
            bail!("that batches cannot be read cannot be noted: is the disk full?");
        }
        bail!(
            "batches {from} to {} cannot be read, and are passed over",
            next - 1
        )
    }

    /// These batches are the oldest that are not acknowledged, and exist no more from here on. Whether that could be noted.
    fn give_up(&mut self, batches: &RangeInclusive<u64>, hole: Hole) -> bool {
        if let Err(problem) = self.holes.add(hole) {
            warn!("what is given up cannot be noted, so nothing is: {problem}");
            return false;
        }
        self.let_go(*batches.end());
        true
    }
}
