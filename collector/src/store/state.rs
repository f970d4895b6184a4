//! What the store has at a moment: the files that count, and the tail behind them.
//!
//! Owns how entries become rows of the tail, and how these leave it when they are sealed. Refuses to leave an entry out: behind one that is missing
//! it takes no more.

use std::{sync::Arc, time::Instant};

use record::Records;

use super::{
    chunk::{Chunk, Entry},
    compact::{Reading, Retired},
    manifest::{Manifest, SealedFile, UsesFile},
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) manifest: Manifest,
    /// Held by those who read the files that the manifest names now.
    pub(super) reading: Arc<Reading>,
    pub(super) retired: Retired,
    /// Rows of the entries `manifest.entries..next`, but for those in `open`.
    pub(super) chunks: Vec<Arc<Chunk>>,
    /// The newest entries, not in columns yet.
    pub(super) open: Vec<Entry>,
    pub(super) open_rows: usize,
    /// As the agents encoded them.
    pub(super) open_bytes: usize,
    /// `open` in columns, made for a question and good until the next entry.
    pub(super) shown: Option<Arc<Chunk>>,
    pub(super) next: u64,
    pub(super) rows: usize,
    /// Of `chunks`.
    pub(super) bytes: usize,
    /// When the oldest row of the tail came.
    pub(super) since: Option<Instant>,
    pub(super) behind_from: Option<u64>,
}

/// What the store holds at one moment.
pub(super) struct Snapshot {
    /// Paths of the events' files.
    pub(super) files: Vec<String>,
    /// Of the subjects'.
    pub(super) subjects: Vec<String>,
    /// What is put together of some of the events' files.
    pub(super) uses: Vec<UsesFile>,
    /// Keeps them there.
    pub(super) reading: Arc<Reading>,
    pub(super) chunks: Vec<Arc<Chunk>>,
}

impl State {
    /// With nothing but what is sealed.
    pub(super) fn of(manifest: Manifest) -> Self {
        Self {
            next: manifest.entries,
            manifest,
            reading: Arc::default(),
            retired: Retired::default(),
            chunks: Vec::new(),
            open: Vec::new(),
            open_rows: 0,
            open_bytes: 0,
            shown: None,
            rows: 0,
            bytes: 0,
            since: None,
            behind_from: None,
        }
    }

    pub(super) fn take(&mut self, log_index: u64, records: Records) {
        if self.behind_from.is_some() {
            return;
        }
        if log_index != self.next || self.bytes > MAX_TAIL_BYTES {
            return self.fall_behind(log_index);
        }
        self.next += 1;
        let rows = records.records.len();
        if rows == 0 {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.rows += rows;
        self.open_rows += rows;
        self.open_bytes += records.encoded.iter().map(bytes::Bytes::len).sum::<usize>();
        self.open.push(Entry::new(log_index, records));
        self.shown = None;
        if self.open_rows >= CHUNK_ROWS || self.open_bytes >= CHUNK_BYTES {
            self.close();
        }
    }

    /// The open entries in columns, which stay open.
    pub(super) fn shown(&mut self) -> Option<Arc<Chunk>> {
        if self.shown.is_none() && !self.open.is_empty() {
            self.shown = Some(Arc::new(Chunk::of(self.open.iter())));
        }
        self.shown.clone()
    }

    /// Puts the open entries into columns for good.
    pub(super) fn close(&mut self) {
        if let Some(chunk) = self.shown() {
            self.bytes += chunk.bytes();
            self.chunks.push(chunk);
        }
        self.shown = None;
        self.open.clear();
        self.open_rows = 0;
        self.open_bytes = 0;
    }

    /// The first `count` chunks are in files.
    pub(super) fn sealed(&mut self, manifest: Manifest, count: usize) {
        self.manifest = manifest;
        // New ones were only added behind them.
        self.chunks.drain(..count);
        self.rows = self.open_rows + self.chunks.iter().map(|chunk| chunk.rows).sum::<usize>();
        self.bytes = self.chunks.iter().map(|chunk| chunk.bytes()).sum();
        self.since = (self.rows > 0).then(Instant::now);
    }

    /// These files count no more, and the manifest is another one.
    pub(super) fn replaced(&mut self, manifest: Manifest, files: Vec<SealedFile>) {
        self.manifest = manifest;
        let readers = std::mem::take(&mut self.reading);
        self.retired.add(files, &readers);
    }

    fn fall_behind(&mut self, log_index: u64) {
        if self.behind_from.is_none() {
            tracing::error!(
                log_index,
                expected = self.next,
                "the store fell behind the log; a restart refills it"
            );
            self.behind_from = Some(self.next);
        }
    }
}

/// A tail of this size has not been sealed for long (a full disk, say): it grows no further.
const MAX_TAIL_BYTES: usize = 1024 * 1024 * 1024;

/// Rows that are put into columns together (DataFusion works on 8192 rows at a time).
const CHUNK_ROWS: usize = 8192;

/// The same by their encoded size: what repeats is spelt out for a question, and Arrow's text columns are limited to
/// 2 GiB each.
const CHUNK_BYTES: usize = 64 * 1024 * 1024;
