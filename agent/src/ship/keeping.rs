//! The spool's side of sealing: when a batch is written, synced, read again, and let go.

use std::{sync::atomic::Ordering, time::Duration};

use prost::Message as _;
use proto::v1;
use spool::{AppendError, ReadError, Spool};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::sealer::Sealer;

/// How long a batch may wait for its acknowledgement before it is synced, and so the least time between two syncs: they take turns
/// with those of the database on the same disk.
const SYNC: Duration = Duration::from_secs(1);

/// Bytes that are not synced at the most: they are kept in memory, too.
const UNSYNCED_BYTES: u64 = 8 << 20;

/// Pause before the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Sealer {
    /// Moves batches to the spool, oldest first, as far as it takes them.
    pub(super) fn store(&mut self) {
        // While the disk is tried again, later batches wait behind the first.
        if self.spool.is_none() || self.retry.is_some_and(|retry| retry > Instant::now()) {
            return;
        }
        while let (Some(frame), Some(spool)) = (self.unspooled.front(), &mut self.spool) {
            match spool.append(frame) {
                Ok(()) => {
                    self.unspooled.pop_front();
                    if self.retry.take().is_some() {
                        info!("batches are written to the spool again");
                    }
                }
                Err(AppendError::Full { .. }) if self.give_up_oldest() => {}
                Err(problem) => {
                    if self.retry.is_none() {
                        self.with.metrics.spool_refused.fetch_add(1, Ordering::Relaxed);
                        refused(&problem);
                    }
                    self.retry = Some(Instant::now() + RETRY);
                    break;
                }
            }
        }
        if self
            .spool
            .as_ref()
            .is_some_and(|spool| spool.unsynced_bytes() > UNSYNCED_BYTES)
        {
            self.sync_now();
        }
        self.told();
        self.plan();
    }

    /// Reads a batch, from memory or disk.
    pub(super) fn read(&mut self, sequence: u64) -> Result<v1::SignedBatch, ReadError> {
        let unspooled = self.unspooled.iter().find(|frame| frame.sequence() == sequence);
        let body = match (unspooled, &mut self.spool) {
            (Some(frame), _) => frame.body(),
            (None, Some(spool)) => spool.read(sequence)?,
            (None, None) => return Err(ReadError::Missing(sequence)),
        };
        v1::SignedBatch::decode(body).map_err(|_| ReadError::Missing(sequence))
    }

    /// Everything up to there is durable at a collector.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        if sequence <= self.acknowledged {
            return;
        }
        self.with
            .metrics
            .batches_acknowledged
            .fetch_add(sequence - self.acknowledged, Ordering::Relaxed);
        self.holes.acknowledged(sequence);
        self.let_go(sequence);
        self.store();
    }

    /// Nothing up to this batch is needed any more.
    pub(super) fn let_go(&mut self, sequence: u64) {
        self.acknowledged = sequence;
        if self.with.keyring.changes_by(sequence) {
            // A run that knows the new key alone must not think of batches of the old one as still to be delivered.
            self.memory.write();
        }
        if let Err(problem) = self.with.keyring.acknowledged(sequence) {
            error!("{problem:#}");
        }
        while self
            .unspooled
            .pop_front_if(|frame| frame.sequence() <= sequence)
            .is_some()
        {}
        if let Some(spool) = &mut self.spool {
            spool.acknowledge(sequence);
        }
        self.told();
        while self
            .waiting
            .pop_front_if(|waiting| waiting.sequence <= sequence)
            .is_some()
        {}
    }

    /// What is acknowledged or written survives the end of this process, and counts as delivered.
    fn told(&self) {
        let written = self
            .spool
            .as_ref()
            .map_or(0, Spool::newest)
            .max(self.acknowledged);
        let told = self
            .waiting
            .partition_point(|waiting| waiting.sequence <= written);
        if let Some(newest) = told.checked_sub(1).and_then(|index| self.waiting.get(index)) {
            self.with.progress.delivered(newest.taken);
        }
    }

    /// Decides when the spool is synced next.
    fn plan(&mut self) {
        let Some(spool) = &self.spool else { return };
        let next = spool.synced().max(self.acknowledged) + 1;
        let goes = spool.newest() < next;
        match self.sync {
            _ if !spool.wants_sync() => self.sync = None,
            // What it was for is acknowledged; the next one has not waited yet.
            Some((sequence, _)) if sequence <= self.acknowledged && !goes => self.sync = None,
            _ => {}
        }
        if self.sync.is_none() && spool.wants_sync() {
            // To let acknowledged files go, no acknowledgement is waited for.
            let sequence = if goes { u64::MAX } else { next };
            self.sync = Some((sequence, Instant::now() + SYNC));
        }
    }

    fn sync_now(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        self.sync = None;
        match spool.sync() {
            Ok(()) => self.sync_fails = false,
            // Once, however often it is tried.
            Err(problem) if !self.sync_fails => {
                self.sync_fails = true;
                warn!("the spool cannot be synced, and is tried again: {problem}");
            }
            Err(_) => {}
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let memory = self.memory.due().map(Instant::from_std);
        let sync = self.sync.map(|(_, at)| at);
        // With nothing to write there is nothing to try.
        let retry = self.retry.filter(|_| !self.unspooled.is_empty());
        [memory, sync, retry].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if self.memory.due().is_some_and(|due| due <= now.into_std()) {
            self.memory.write();
        }
        if self.sync.is_some_and(|(_, at)| at <= now) {
            self.sync_now();
        }
        self.store();
    }

    /// Batches have other places in the chain from here on: `moved` says from where to where.
    pub(super) fn moved(&mut self, moved: &[(u64, u64)]) {
        self.waiting.retain_mut(|waiting| {
            let to = moved.binary_search_by_key(&waiting.sequence, |(from, _)| *from);
            let to = to.ok().and_then(|index| moved.get(index));
            if let Some((_, to)) = to {
                waiting.sequence = *to;
            }
            to.is_some()
        });
        self.sync = None;
        self.told();
        self.plan();
    }
}

fn refused(problem: &AppendError) {
    let hint = match problem {
        AppendError::Full { .. } => "the collector was away for longer than spool.max_bytes holds",
        _ => "is the disk full?",
    };
    warn!("batches are not written to the spool, and wait in memory ({hint}): {problem}");
}
