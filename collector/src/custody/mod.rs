//! What must stay in the record, and what may go: legal holds, erasure, retention.
//!
//! Owns the order of an act, one act at a time. What goes is written to wait beside the log first; then the collector's own chain
//! says that it goes, and why; only when that is durable is anything removed: from the payloads, then from the store. A crash at any
//! moment leaves either nothing done, or something said that the next start carries out. Refuses whatever a hold is on.

pub(crate) mod commands;
mod control;
mod hold;
mod plan;
mod retention;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use proto::v1::{self, event::Body};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub use commands::{EraseArgs, HoldArgs, RetainArgs, erase, hold, retain};
pub(crate) use control::Control;
pub use retention::Removed;

use crate::{
    log::{self, Folder, Log, Originator, Places, Removals, hold_again, unix_ns},
    store::{
        Store,
        erase::{Events, Gone, Selected},
    },
};

/// Whoever decides what may go.
pub(crate) struct Custodian {
    folder: Folder,
    log: Arc<Log>,
    store: Arc<Store>,
    places: Places,
    originator: Arc<Mutex<Originator>>,
    /// The collector's own chain.
    own: String,
    acts: Mutex<Acts>,
}

/// What one act after the other changes.
#[derive(Default)]
struct Acts {
    holds: Vec<v1::Hold>,
    /// Something was said that could not be carried out: nothing more is until the next start has finished it.
    unfinished: bool,
}

/// Who asks, and why.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// The login, by the kernel's word.
    pub(crate) by: String,
    pub(crate) reason: String,
}

/// What became of an erasure, or would become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Erased {
    /// Events.
    pub events: u64,
    /// Definitions that nothing else in their batches named.
    pub definitions: u64,
    /// Batches that they were in.
    pub batches: u64,
    /// Payload segments that were written anew.
    pub segments: u64,
    /// Events that were meant and are not erased: the collector's own word on removals and names that it took back.
    pub kept: u64,
    /// The events that say so.
    pub said: Vec<String>,
    /// More events are meant than go at once: the same again erases the next ones.
    pub more: bool,
    /// Batches that lie aside, which nothing is erased from.
    pub aside: u64,
}

/// An act that waits for the log to say so.
struct Staged {
    batches: Vec<v1::ErasedBatch>,
    gone: Events,
    segments: BTreeSet<u64>,
    sums: Erased,
}

impl Custodian {
    pub(crate) fn new(
        data: &Path,
        log: &Arc<Log>,
        store: &Arc<Store>,
        (own, originator): (&str, &Arc<Mutex<Originator>>),
        removals: Removals,
    ) -> Self {
        let folder = Folder::new(data);
        Self {
            places: Places::new(&folder.evidence()),
            folder,
            log: Arc::clone(log),
            store: Arc::clone(store),
            originator: Arc::clone(originator),
            own: own.to_owned(),
            acts: Mutex::new(Acts {
                holds: removals.holds,
                unfinished: false,
            }),
        }
    }

    /// Erases the events that are meant; or says what would go.
    ///
    /// # Errors
    ///
    /// When a hold is on one of them, which is named; or when something cannot be read or written.
    pub(crate) async fn erase(
        self: &Arc<Self>,
        selected: Selected,
        asker: &Asker,
        dry_run: bool,
    ) -> anyhow::Result<Erased> {
        let mut acts = self.acts.lock().await;
        acts.is_ready()?;
        let (mut meant, more) = self.store.select(&selected).await?;
        self.store.amendments().with_their_like(&mut meant);
        let mut sums = Erased {
            more,
            aside: self.log.status().borrow().aside,
            ..Erased::default()
        };
        if dry_run || acts.in_force().next().is_some() {
            let looked_at = self
                .blocking(&acts, &meant, |here, holds, meant| here.look(holds, &meant))
                .await?;
            if dry_run {
                sums.add(looked_at);
                return Ok(sums);
            }
        }
        let name = selected.name();
        while !meant.is_empty() {
            let some = first_of(&mut meant);
            let staged = self.stage(&acts, &some).await?;
            let Some(staged) = staged else { continue };
            acts.unfinished = true;
            // Where it fails, it may be said all the same.
            let done = self.carry_out(staged, name, asker).await;
            sums.add(done.context("the erasure is not finished: restart the collector, which goes on where the log says that it began")?);
            acts.unfinished = false;
        }
        Ok(sums)
    }

    /// Puts everything on disk that has to be there before the log says anything; nothing where nothing is to go.
    async fn stage(self: &Arc<Self>, acts: &Acts, meant: &Events) -> anyhow::Result<Option<Staged>> {
        self.log.rotate().await?;
        let staged = self
            .blocking(acts, meant, |here, holds, meant| here.write(holds, &meant))
            .await;
        match staged {
            Ok(staged) if staged.batches.is_empty() => Ok(None),
            Ok(staged) => Ok(Some(staged)),
            Err(error) => {
                // What is left there counts for nothing.
                _ = log::discard(&self.folder);
                Err(error)
            }
        }
    }

    /// Says that it goes, and has it go.
    async fn carry_out(&self, staged: Staged, selected_by: &str, asker: &Asker) -> anyhow::Result<Erased> {
        let Staged {
            batches,
            gone,
            segments,
            mut sums,
        } = staged;
        let body = Body::Erasure(v1::Erasure {
            reason: asker.reason.clone(),
            by: asker.by.clone(),
            selected_by: selected_by.to_owned(),
            events: sums.events,
            batches,
        });
        let (act, said) = self.say(vec![body]).await?;
        // A copy up to the newest checkpoint has the word with what it is of.
        self.log.checkpoint().await?;
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || {
            segments
                .iter()
                .try_for_each(|first| log::put_in_place(&folder, *first))
        })
        .await??;
        let gone = Gone {
            events: gone,
            below: 0,
        };
        self.store.erase(&gone, act).await?;
        tracing::info!(events = sums.events, event = said, "erased");
        sums.said.push(said);
        Ok(sums)
    }

    /// Says something now, in a batch of its own: its entry in the log, and the id of its first event.
    async fn say(&self, bodies: Vec<Body>) -> anyhow::Result<(u64, String)> {
        let now = unix_ns();
        let event = |body| v1::Event {
            ts_start_ns: now,
            ts_end_ns: now,
            body: Some(body),
            ..v1::Event::default()
        };
        let mut originator = self.originator.lock().await;
        let id = proto::json::event_id(&self.own, originator.next_event());
        let entry = originator.say(bodies.into_iter().map(event).collect()).await?;
        Ok((entry, id))
    }

    /// Runs what reads and writes files.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        acts: &Acts,
        meant: &Events,
        work: impl FnOnce(&Self, &[v1::Hold], Events) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (here, meant) = (Arc::clone(self), meant.clone());
        let holds: Vec<v1::Hold> = acts.in_force().cloned().collect();
        tokio::task::spawn_blocking(move || work(&here, &holds, meant)).await?
    }

    /// What would go.
    fn look(&self, holds: &[v1::Hold], meant: &Events) -> anyhow::Result<Erased> {
        let mut sums = Erased::default();
        let segments: Vec<u64> = self.segments()?;
        let mut touched: BTreeSet<u64> = BTreeSet::new();
        for (entry, seqs) in meant {
            let plan = self.plan(*entry, seqs, holds)?;
            if !plan.places.is_empty() {
                touched.extend(segments.iter().rfind(|first| *first <= entry));
            }
            sums.count(&plan);
        }
        sums.segments = touched.len() as u64;
        Ok(sums)
    }

    /// Writes the segments that lose something to where they wait.
    fn write(&self, holds: &[v1::Hold], meant: &Events) -> anyhow::Result<Staged> {
        log::discard(&self.folder)?;
        let mut staged = Staged {
            batches: Vec::new(),
            gone: Events::new(),
            segments: BTreeSet::new(),
            sums: Erased::default(),
        };
        let segments = self.segments()?;
        for (nth, first) in segments.iter().enumerate() {
            let end = segments.get(nth + 1).copied().unwrap_or(u64::MAX);
            let mut payloads = BTreeMap::new();
            for (entry, seqs) in meant.range(*first..end) {
                let plan = self.plan(*entry, seqs, holds)?;
                staged.sums.count(&plan);
                if plan.places.is_empty() {
                    continue;
                }
                let batch = plan.erased(*entry, &log::limits())?;
                staged.gone.insert(*entry, plan.gone);
                payloads.insert(*entry, batch.1);
                staged.batches.push(batch.0);
            }
            if !payloads.is_empty() {
                log::stage(&self.folder, *first, &payloads)?;
                staged.segments.insert(*first);
            }
        }
        staged.sums.segments = staged.segments.len() as u64;
        Ok(staged)
    }

    fn plan(&self, entry: u64, seqs: &BTreeSet<u64>, holds: &[v1::Hold]) -> anyhow::Result<plan::Plan> {
        let (batch, opened) = self.places.read_with(entry)?;
        let is_own = opened.header.agent_id == self.own;
        let held = |event: &v1::Event| self.held(holds, &opened.header.agent_id, event);
        plan::Plan::of(batch.payload, &opened, seqs, is_own, held)
            .with_context(|| format!("entry {entry} of the log"))
    }

    /// Which of the holds is on an event, in words.
    fn held(&self, holds: &[v1::Hold], agent: &str, event: &v1::Event) -> Option<String> {
        let amended = || self.store.amended_principal(agent, event);
        let on = holds.iter().find(|on| hold::is_on(on, event, &amended))?;
        let id = proto::json::event_id(agent, event.seq);
        Some(format!("the hold {} is on event {id}: {}", on.id, on.reason))
    }

    /// The entries that payload segments begin at.
    fn segments(&self) -> anyhow::Result<Vec<u64>> {
        let segments = log::segments(&self.folder.evidence())?;
        Ok(segments.into_iter().map(|(first, _)| first).collect())
    }

    /// Puts a hold on what it fits; its id.
    ///
    /// # Errors
    ///
    /// When it cannot be said.
    pub(crate) async fn hold(&self, hold: v1::Hold) -> anyhow::Result<String> {
        let mut acts = self.acts.lock().await;
        ensure!(
            acts.in_force().count() < MAX_HOLDS,
            "there are {MAX_HOLDS} holds already: release one"
        );
        // Each is said by an event behind that number, so that no two have the same.
        let id = format!("h{}", self.originator.lock().await.next_event());
        let hold = v1::Hold {
            id: id.clone(),
            ..hold
        };
        self.say(vec![Body::Hold(hold.clone())]).await?;
        hold_again(&mut acts.holds, hold);
        Ok(id)
    }

    /// Takes a hold back.
    ///
    /// # Errors
    ///
    /// When there is no such hold, or it cannot be said.
    pub(crate) async fn release(&self, id: &str, asker: &Asker) -> anyhow::Result<()> {
        let mut acts = self.acts.lock().await;
        let known = acts.in_force().find(|hold| hold.id == id).cloned();
        let Some(known) = known else {
            bail!("there is no hold {id} in force: hold list shows them")
        };
        let released = v1::Hold {
            released: true,
            reason: asker.reason.clone(),
            by: asker.by.clone(),
            ..known
        };
        self.say(vec![Body::Hold(released.clone())]).await?;
        hold_again(&mut acts.holds, released);
        Ok(())
    }

    /// The holds in force.
    pub(crate) async fn holds(&self) -> Vec<v1::Hold> {
        self.acts.lock().await.in_force().cloned().collect()
    }

    /// By which rules an object's values became tokens.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

impl Acts {
    fn is_ready(&self) -> anyhow::Result<()> {
        ensure!(
            !self.unfinished,
            "an erasure was said and is not finished: restart the collector, which goes on with it"
        );
        Ok(())
    }

    fn in_force(&self) -> impl Iterator<Item = &v1::Hold> {
        self.holds.iter().filter(|hold| !hold.released)
    }
}

impl Selected {
    /// As an erasure says it: never what it was.
    fn name(&self) -> &'static str {
        match self {
            Self::Ids(_) => "event",
            Self::Record { .. } => "record",
            Self::Principal(_) => "principal",
            Self::Before(_) => "before",
        }
    }
}

impl Erased {
    fn count(&mut self, plan: &plan::Plan) {
        self.kept += plan.kept;
        if !plan.places.is_empty() {
            self.batches += 1;
            self.events += plan.gone.len() as u64;
            self.definitions += (plan.places.len() - plan.gone.len()) as u64;
        }
    }

    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.definitions += other.definitions;
        self.batches += other.batches;
        self.segments += other.segments;
        self.kept += other.kept;
        self.said.extend(other.said);
    }
}

/// Has the store follow where a crash came before it had lost what the evidence has lost.
///
/// # Errors
///
/// As [`Store::erase`].
pub(crate) async fn finish(store: &Store, removals: &Removals) -> anyhow::Result<()> {
    let retention = removals.retention.as_ref();
    let newest = removals.newest_erasure.max(retention.map(|(act, _)| *act));
    match newest.filter(|act| !store.has_erased(*act)) {
        Some(act) => {
            let gone = Gone {
                events: removals.events(),
                below: retention.map_or(0, |(_, retention)| retention.end_entry),
            };
            store.erase(&gone, act).await
        }
        None => Ok(()),
    }
}

/// Takes as many as one act may be of.
fn first_of(meant: &mut Events) -> Events {
    let behind = meant.keys().nth(MAX_BATCHES).copied();
    let rest = behind.map_or_else(Events::new, |behind| meant.split_off(&behind));
    std::mem::replace(meant, rest)
}

/// Batches of one act: what it says of each takes some 80 bytes, and an event has to fit into a batch of its own.
const MAX_BATCHES: usize = 20_000;

/// Holds at once: each is compared with every event that is to go.
const MAX_HOLDS: usize = 1000;

#[cfg(test)]
pub(crate) mod tests;
