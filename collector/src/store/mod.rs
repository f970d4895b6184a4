//! The answers' copy of the evidence log: Parquet by the hour, and the newest rows in memory.
//!
//! Owns which log entries can be asked about, each exactly once: `0..sealed` in files, the rest in the tail. Refuses
//! to be the truth: it can be deleted at any time and is refilled from the log, and whatever it doubts it throws away.
//! Ingest that is faster than a seal at work waits for it, but never for a disk to get space: a tail that cannot be
//! sealed stops growing, says so in the status, and is refilled at the next start. The JSON form of an event is not in it: that is made from the log, of
//! the events that an answer shows.

mod amended;
mod amendments;
mod background;
mod bucket;
mod chunk;
mod columns;
mod compact;
mod decoded;
mod dictionary;
pub mod edges;
pub mod erase;
mod events;
mod every;
mod holding;
mod manifest;
mod manner;
mod marks;
mod merge;
mod near;
pub mod overview;
pub mod page;
mod parts;
pub mod question;
mod seal;
mod sealed;
pub mod selection;
pub(crate) mod session;
mod site;
mod state;
mod subjects;
pub mod timeline;
mod touching;
pub mod unattributed;
mod unsealed;
mod uses;
mod ways;
pub mod what;
pub mod who;
mod whole;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use anyhow::Context;
use datafusion::execution::{
    memory_pool::FairSpillPool,
    object_store::ObjectStoreUrl,
    runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
};
use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};
use tokio::sync::{Notify, watch};

use crate::{
    expectations::{Expectations, Judge},
    live::Live,
};
pub use amendments::Amendments;
pub use events::Batches;
pub(crate) use events::{Amends, Shown, schema_in_json};
use manifest::{Manifest, SealedFile};
use record::Records;
pub(crate) use site::Site;
use state::{Snapshot, State};
use uses::Uses;
use whole::Whole;

/// When the tail becomes a file, and small files become large ones.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Rows in the tail.
    pub seal_rows: usize,
    /// Age of the tail's oldest row.
    pub seal_after: Duration,
    /// Bytes of the tail at which new entries wait for a seal.
    pub wait_bytes: usize,
    /// Files of about one size that become one, of an hour to which events are still added.
    pub compact_files: usize,
    /// How often that is looked at.
    pub compact_every: Duration,
    /// How long files that became others are kept for who reads the folder beside this process.
    pub keep_retired: Duration,
    /// How long nothing was added to a day before its statements are put together.
    pub uses_after: Duration,
    /// The time, by which hours and days are over.
    pub now: fn() -> jiff::Timestamp,
}

impl StoreOptions {
    /// The hour since the epoch of which, and of later ones, events may still come: the one before this.
    fn open_from(&self) -> i64 {
        (self.now)().as_second().div_euclid(3600) - 1
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            seal_rows: 100_000,
            seal_after: Duration::from_secs(300),
            wait_bytes: 2 * SEAL_BYTES,
            compact_files: 8,
            compact_every: Duration::from_secs(5),
            keep_retired: Duration::from_secs(180),
            uses_after: Duration::from_secs(60),
            now: jiff::Timestamp::now,
        }
    }
}

/// The store. One writer (whoever calls [`Store::append`]), any number of readers.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    runtime: Arc<RuntimeEnv>,
    options: StoreOptions,
    live: Live,
    /// What sessions are called by now.
    amendments: Arc<Amendments>,
    /// Where the JSON form of events is made from.
    batches: OnceLock<Arc<dyn Batches>>,
    /// What events are judged by.
    expectations: OnceLock<Arc<Expectations>>,
    state: Mutex<State>,
    uses: Mutex<Uses>,
    /// One seal, or other change of the manifest, at a time.
    sealing: tokio::sync::Mutex<()>,
    /// One compaction at a time, and no erasure beside it. Taken before `sealing`.
    compacting: tokio::sync::Mutex<()>,
    /// Wakes the sealer before its time.
    full: Notify,
    /// Whether the last seal worked, so that it is worth waiting for the next; told after each.
    seals: watch::Sender<bool>,
    /// Cleared for a reader beside a running collector.
    writable: bool,
}

/// What the store holds, for status pages.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StoreStatus {
    /// Log entries that can be asked about.
    pub entries: u64,
    /// Log entries in Parquet files.
    pub sealed_entries: u64,
    /// Parquet files.
    pub sealed_files: usize,
    /// Their bytes.
    pub sealed_bytes: u64,
    /// Events in Parquet files.
    pub sealed_rows: u64,
    /// Rows of the table `subjects` in Parquet files.
    pub sealed_subjects: u64,
    /// Events in Parquet files that are put together by the day.
    pub rows_in_uses: u64,
    /// Rows in memory.
    pub tail_rows: usize,
    /// The first log entry that was not taken in, where the store fell behind: a restart refills it.
    pub behind_from: Option<u64>,
}

impl Store {
    /// Opens or creates the store in the folder `root`, and seals on its own from then on, as `options` say.
    ///
    /// The tail is empty: append the log's entries from [`Store::resume_point`] on.
    pub async fn open(root: &Path, options: StoreOptions) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(root).with_context(|| {
            format!(
                "cannot create {}: name a folder that this user may write",
                root.display()
            )
        })?;
        Self::over(Arc::new(LocalFileSystem::new_with_prefix(root)?), options).await
    }

    /// The same over any object store.
    pub async fn over(objects: Arc<dyn ObjectStore>, options: StoreOptions) -> anyhow::Result<Arc<Self>> {
        let manifest = Manifest::open(&objects).await?;
        let uses = Uses::open(&objects, &manifest).await;
        let store = Self::with(objects, manifest, uses, options, true)?;
        tokio::spawn(seal_when_due(Arc::downgrade(&store)));
        tokio::spawn(compact::when_due(Arc::downgrade(&store)));
        Ok(store)
    }

    /// Opens the store in the folder `root`, if it is there, without ever writing to it: a collector may be using it.
    pub async fn open_read_only(root: &Path) -> anyhow::Result<Arc<Self>> {
        let objects: Arc<dyn ObjectStore> = match LocalFileSystem::new_with_prefix(root) {
            Ok(folder) => Arc::new(folder),
            Err(_) => Arc::new(InMemory::new()),
        };
        Self::reading_from(objects).await
    }

    /// The same over any object store.
    async fn reading_from(objects: Arc<dyn ObjectStore>) -> anyhow::Result<Arc<Self>> {
        let manifest = Manifest::read(&objects).await?;
        let uses = Uses::open(&objects, &manifest).await;
        Self::with(objects, manifest, uses, StoreOptions::default(), false)
    }

    fn with(
        objects: Arc<dyn ObjectStore>,
        manifest: Manifest,
        uses: Uses,
        options: StoreOptions,
        writable: bool,
    ) -> anyhow::Result<Arc<Self>> {
        let pool = Arc::new(FairSpillPool::new(MAX_QUERY_MEMORY));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        let read = Arc::new(Whole(Arc::clone(&objects)));
        runtime.register_object_store(ObjectStoreUrl::parse(sealed::ROOT)?.as_ref(), read);
        let state = State::of(manifest);
        Ok(Arc::new(Self {
            objects,
            runtime,
            options,
            live: Live::default(),
            amendments: Arc::default(),
            batches: OnceLock::new(),
            expectations: OnceLock::new(),
            state: Mutex::new(state),
            uses: Mutex::new(uses),
            sealing: tokio::sync::Mutex::new(()),
            compacting: tokio::sync::Mutex::new(()),
            full: Notify::new(),
            seals: watch::Sender::new(writable),
            writable,
        }))
    }

    /// From now on, answers show the JSON form of events, made from `batches`; before, that is NULL.
    pub fn show_events_of(&self, batches: Arc<dyn Batches>) {
        // The first one stays.
        _ = self.batches.set(batches);
    }

    /// From now on, events are marked by what these expect; before, they have no mark.
    pub fn expect(&self, expectations: Arc<Expectations>) {
        // The first ones stay.
        _ = self.expectations.set(expectations);
    }

    /// What events are marked by, if there is anything.
    pub fn expectations(&self) -> Option<&Expectations> {
        self.expectations.get().map(AsRef::as_ref)
    }

    fn judge(&self) -> Option<Arc<Judge>> {
        self.expectations().map(Expectations::judge)
    }

    /// Says that the log's payloads begin at this entry: there is nothing before it that could be appended.
    pub(crate) fn begin_at(&self, entry: u64) {
        let mut state = self.state();
        if state.manifest.entries < entry && state.next == state.manifest.entries {
            state.manifest.entries = entry;
            state.next = entry;
        }
    }

    /// How many log entries are sealed: the index of the first one to append. `None`: none is.
    pub fn resume_point(&self) -> Option<u64> {
        let entries = self.state().manifest.entries;
        (entries != 0).then_some(entries)
    }

    /// Takes in the log entry `log_index` (from 0) and shows its events to live watchers.
    ///
    /// An entry that the store already has is ignored. One that leaves others out is too, with all that follow, so
    /// that what is sealed never has a hole; see [`StoreStatus::behind_from`]. Waits for a seal where the tail has grown
    /// faster than it is sealed, as long as seals work.
    pub async fn append(&self, log_index: u64, records: Records) {
        {
            let state = self.state();
            if log_index < state.next {
                return;
            }
        }
        // First, so that no answer has a new name beside sums with the old one.
        self.uses().named(log_index, &self.amendments.named_in(&records));
        self.amendments.take(log_index, &records);
        self.live.publish(&records, || self.shown());
        let full = {
            let mut state = self.state();
            state.take(log_index, records);
            state.rows >= self.options.seal_rows || state.bytes >= SEAL_BYTES
        };
        if full {
            self.full.notify_one();
            self.seal_at_work().await;
        }
    }

    /// Waits until the tail has room, or sealing is known not to work.
    async fn seal_at_work(&self) {
        let mut seals = self.seals.subscribe();
        while *seals.borrow_and_update() && self.state().bytes >= self.options.wait_bytes {
            if tokio::time::timeout(MAX_WAIT, seals.changed()).await.is_err() {
                tracing::warn!("a seal takes very long: events are no longer held back for it");
                self.seals.send_replace(false);
            }
        }
    }

    /// Whether more waits to be sealed than half of what makes new entries wait.
    fn is_pressed(&self) -> bool {
        let state = self.state();
        state.bytes + state.open_bytes > self.options.wait_bytes / 2
    }

    /// Writes the tail to Parquet. On an error the tail stays as it is, and the files count for nothing.
    pub async fn seal(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.writable, "the store was opened for reading");
        let _one = self.sealing.lock().await;
        let (mut manifest, chunks, next) = {
            let mut state = self.state();
            state.close();
            (state.manifest.clone(), state.chunks.clone(), state.next)
        };
        if next == manifest.entries {
            return Ok(());
        }
        let count = chunks.len();
        let written = async {
            let entries = (manifest.entries, next);
            seal::write(
                &self.objects,
                chunks,
                entries,
                self.options.open_from(),
                &mut manifest,
            )
            .await?;
            manifest.entries = next;
            manifest.write(&self.objects).await
        }
        .await;
        if written.is_ok() {
            let before = self.state().manifest.files.len();
            self.uses()
                .changed(manifest.files.get(before..).unwrap_or_default());
            self.state().sealed(manifest, count);
        }
        self.seals.send_replace(written.is_ok());
        written
    }

    /// What sessions are called by now.
    pub fn amendments(&self) -> &Arc<Amendments> {
        &self.amendments
    }

    /// What events are shown with at this moment.
    pub(crate) fn shown(&self) -> Shown {
        Shown::new(self.batches.get().cloned(), self.amendments.view(), self.judge())
    }

    /// Events as they are appended.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// What the store holds now.
    pub fn status(&self) -> StoreStatus {
        let state = self.state();
        let holding = self.uses().holding(&state.manifest);
        let covered: HashSet<&str> = holding
            .iter()
            .flat_map(|uses| &uses.of)
            .map(String::as_str)
            .collect();
        let files = state.manifest.files.iter();
        StoreStatus {
            rows_in_uses: files
                .filter(|file| covered.contains(file.path.as_str()))
                .map(|file| file.rows)
                .sum(),
            entries: state.next,
            sealed_entries: state.manifest.entries,
            sealed_files: state.manifest.all().count(),
            sealed_bytes: state.manifest.all().map(|f| f.bytes).sum(),
            sealed_rows: state.manifest.files.iter().map(|f| f.rows).sum(),
            sealed_subjects: state.manifest.subjects.iter().map(|f| f.rows).sum(),
            tail_rows: state.rows,
            behind_from: state.behind_from,
        }
    }

    /// Everything at one moment.
    fn snapshot(&self) -> Snapshot {
        let mut state = self.state();
        let open = state.shown();
        let paths = |files: &[SealedFile]| files.iter().map(|file| file.path.clone()).collect();
        Snapshot {
            files: paths(&state.manifest.files),
            subjects: paths(&state.manifest.subjects),
            uses: self.uses().holding(&state.manifest),
            reading: Arc::clone(&state.reading),
            chunks: state.chunks.iter().cloned().chain(open).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be locked behind the state, where both are.
    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals beside ingest, which the log waits for, and ends with the store.
async fn seal_when_due(store: Weak<Store>) {
    loop {
        let Some(here) = store.upgrade() else { return };
        let woken = tokio::time::timeout(AGE_CHECK, here.full.notified())
            .await
            .is_ok();
        let old = here
            .state()
            .since
            .is_some_and(|since| since.elapsed() >= here.options.seal_after);
        if (woken || old)
            && let Err(error) = here.seal().await
        {
            tracing::error!(error = format!("{error:#}"), "sealing failed; it is tried again");
            drop(here);
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Memory that all queries may use together; what needs more fails with an error that says so.
const MAX_QUERY_MEMORY: usize = 512 * 1024 * 1024;

/// The tail is sealed at this size whatever its rows: Arrow's text columns are limited to 2 GiB each.
const SEAL_BYTES: usize = 256 * 1024 * 1024;

/// How long a seal at work may hold events back: far longer than one takes.
const MAX_WAIT: Duration = Duration::from_secs(60);

const AGE_CHECK: Duration = Duration::from_secs(1);

/// After a seal that failed, a disk gets some time.
const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(crate) mod tests;
