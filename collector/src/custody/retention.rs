//! Payloads that are old enough to go: whole segments, the oldest first.
//!
//! Owns how far that reaches: up to the first segment in which something is newer than the horizon, or a hold is on something.
//! Headers and tree stay, so that the log still verifies from its first entry on. Holds in force are said again with each removal,
//! which may take the batch that said them first.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use evidence::Frontier;
use prost::Message;
use proto::v1::{self, BatchHeader, event::Body};
use serde::{Deserialize, Serialize};

use super::{Acts, Asker, Custodian, hold};
use crate::{
    log::{self, Bundles, SegmentHeads},
    store::erase::Gone,
};

/// What became of a removal, or would become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Removed {
    /// Payload segments.
    pub segments: u64,
    /// Entries of the log whose payloads they hold.
    pub entries: u64,
    /// Events in those.
    pub events: u64,
    /// Why not more of what is old enough goes.
    pub held: Option<String>,
    /// The event that says so.
    pub said: Option<String>,
}

/// How far a removal reaches.
pub(super) struct Reach {
    first: u64,
    pub(super) end: u64,
    pub(super) removed: Removed,
}

impl Custodian {
    /// Removes the oldest segments in which everything had ended before `before_ns`; or says which would go.
    ///
    /// # Errors
    ///
    /// When something cannot be read or written.
    pub(crate) async fn retain(
        self: &Arc<Self>,
        before_ns: u64,
        asker: &Asker,
        dry_run: bool,
    ) -> anyhow::Result<Removed> {
        let mut acts = self.acts.lock().await;
        acts.is_ready()?;
        if !dry_run {
            self.log.rotate().await?;
        }
        let holds: Vec<v1::Hold> = acts.in_force().cloned().collect();
        let here = Arc::clone(self);
        let reach = tokio::task::spawn_blocking(move || here.reach(before_ns, &holds)).await??;
        if dry_run || reach.removed.segments == 0 {
            return Ok(reach.removed);
        }
        acts.unfinished = true;
        let done = self.remove(&acts, reach, before_ns, asker).await;
        let done =
            done.context("the removal is not finished: restart the collector, which goes on where the log says that it began")?;
        acts.unfinished = false;
        Ok(done)
    }

    async fn remove(
        &self,
        acts: &Acts,
        reach: Reach,
        before_ns: u64,
        asker: &Asker,
    ) -> anyhow::Result<Removed> {
        let Reach {
            first,
            end,
            mut removed,
        } = reach;
        let evidence = self.folder.evidence();
        let root = tokio::task::spawn_blocking(move || root_before(&evidence, end)).await??;
        let retention = v1::Retention {
            reason: asker.reason.clone(),
            by: asker.by.clone(),
            first_entry: first,
            end_entry: end,
            events: removed.events,
            root: root.to_vec(),
            before_ns,
        };
        let holds = acts.in_force().cloned().map(Body::Hold);
        let bodies = std::iter::once(Body::Retention(retention)).chain(holds).collect();
        let (act, said) = self.say(bodies).await?;
        // A copy up to the newest checkpoint has the word with what it is of.
        self.log.checkpoint().await?;
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || log::remove_below(&folder, end)).await??;
        let gone = Gone {
            below: end,
            ..Gone::default()
        };
        self.store.erase(&gone, act).await?;
        tracing::info!(
            entries = removed.entries,
            event = said,
            "payloads were removed by retention"
        );
        removed.said = Some(said);
        Ok(removed)
    }

    /// How far everything is old enough, and free. The newest segment stays: it is empty, or being written.
    pub(super) fn reach(&self, before_ns: u64, holds: &[v1::Hold]) -> anyhow::Result<Reach> {
        let segments = log::segments(&self.folder.evidence())?;
        let first = segments.first().map_or(0, |(first, _)| *first);
        let mut reach = Reach {
            first,
            end: first,
            removed: Removed::default(),
        };
        for pair in segments.windows(2) {
            let [(first, path), (end, _)] = pair else { break };
            let mut heads = SegmentHeads::open(path)?;
            let (mut events, mut newest, mut may_be_held) = (0, 0, false);
            while let Some(header) = heads.next_header()? {
                events += u64::from(header.event_count);
                newest = newest.max(header.last_ns);
                may_be_held |= holds.iter().any(|on| hold::may_be_on(on, &header));
            }
            if newest >= before_ns {
                break;
            }
            if may_be_held && let Some(held) = self.held_between(*first, *end, holds)? {
                reach.removed.held = Some(held);
                break;
            }
            reach.end = *end;
            reach.removed.segments += 1;
            reach.removed.events += events;
        }
        reach.removed.entries = reach.end - reach.first;
        Ok(reach)
    }

    /// The first hold that is on something in these entries.
    fn held_between(&self, first: u64, end: u64, holds: &[v1::Hold]) -> anyhow::Result<Option<String>> {
        for entry in first..end {
            let opened = self.places.read(entry)?;
            let numbered = (opened.header.first_event_seq..).zip(&opened.events).enumerate();
            for (_, (seq, encoded)) in numbered.filter(|(place, _)| !opened.is_event_erased(*place)) {
                let event = proto::whole::event(seq, encoded, &opened.definitions)
                    .map_err(|refused| anyhow::anyhow!("entry {entry} of the log: event {seq} {refused}"))?;
                if let Some(held) = self.held(holds, &opened.header.agent_id, &event) {
                    return Ok(Some(held));
                }
            }
        }
        Ok(None)
    }

    /// Removes what is older than so many days, now and once a day; that closes a segment each day, so that it can go.
    pub(crate) async fn keep(self: Arc<Self>, days: u32) {
        let asker = Asker {
            by: "policy".to_owned(),
            reason: format!("retention.keep_days = {days}"),
        };
        loop {
            let horizon = log::unix_ns().saturating_sub(u64::from(days) * DAY.as_nanos() as u64);
            if let Err(error) = self.retain(horizon, &asker, false).await {
                tracing::error!(
                    error = format!("{error:#}"),
                    "what is too old could not be removed"
                );
            }
            tokio::time::sleep(DAY).await;
        }
    }
}

/// Root of the tree over the entries before `end`.
pub(super) fn root_before(evidence: &std::path::Path, end: u64) -> anyhow::Result<evidence::Hash> {
    let (mut bundles, mut tree) = (Bundles::new(evidence), Frontier::default());
    while tree.size() < end {
        tree.push(evidence::leaf_hash(&bundles.next_entry()?.0));
    }
    Ok(tree.root())
}

impl SegmentHeads {
    /// The next record's header; `None` where no whole head is.
    fn next_header(&mut self) -> anyhow::Result<Option<BatchHeader>> {
        let Some((entry, _)) = self.next_head()? else {
            return Ok(None);
        };
        let batch = v1::SignedBatch::decode(entry.as_slice())?;
        let header = BatchHeader::decode(batch.header)?;
        ensure!(!header.agent_id.is_empty(), "a header without an agent");
        Ok(Some(header))
    }
}

/// How often the policy is looked at, and a segment closed.
const DAY: Duration = Duration::from_secs(86_400);
