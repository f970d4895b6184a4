//! Opening a log that was left behind, however it was left, and reading batches back from it.
//!
//! Owns what is repaired: a record cut short at the very end, which nobody was told of, and nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::OpenOptions,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use evidence::{Checkpoint, OpenedBatch, Tiling};
use prost::Message;
use proto::v1::BatchHeader;
use tokio::sync::{mpsc, watch};

use super::{
    Durable, LogOptions, Status,
    folder::{self, Folder},
    frame::{Next, SegmentReader},
    identity,
    keys::AgentKeys,
    rewrite,
    scan::{Ask, Depth, Removals, Scanned, processors, scan},
    writer::Writer,
};
use crate::metrics::Metrics;

pub(crate) fn open(
    data: &Path,
    options: LogOptions,
    metrics: Arc<Metrics>,
    feed: mpsc::Sender<Durable>,
) -> anyhow::Result<(Writer, watch::Receiver<Status>, Removals)> {
    let folder = Folder::new(data);
    folder.create()?;
    let lock = folder.lock()?;
    let (key, origin) = identity::read_or_create(&folder, options.name.as_deref())?;
    let evidence = folder.evidence();
    let has_batches = !folder::segments(&evidence)?.is_empty();
    if !has_batches && !evidence.join("checkpoint").exists() {
        let empty = Checkpoint {
            origin: origin.origin,
            size: 0,
            root: Tiling::default().root(),
        };
        folder.write(&evidence.join("checkpoint"), &empty.sign(&key)?)?;
    }
    let ask = Ask {
        depth: Depth::Digests,
        kept: &[],
        threads: processors(),
        state: None,
        links: false,
        finishes: true,
        told: &mut |progress, _| {
            // A log that is read at once is not worth a line.
            if progress.began.elapsed() >= Duration::from_secs(2) {
                tracing::info!("reading the evidence log: {progress}");
            }
            ControlFlow::Continue(())
        },
    };
    let mut scanned = scan(&evidence, ask).map_err(|wrong| {
        anyhow!(
            "the evidence in {} does not verify, so nothing is added to it: {wrong}. \
             Keep this folder as it is for inspection, and start with an empty one or a verified copy",
            evidence.display()
        )
    })?;
    rewrite::finish(&folder, &mut scanned.removals)?;
    let removals = std::mem::take(&mut scanned.removals);
    let (segment, segment_bytes) = open_segment(&folder, &scanned)?;
    let writer = Writer::new(
        folder,
        lock,
        key,
        scanned,
        (segment, segment_bytes),
        options,
        metrics,
        feed,
    )?;
    let status = writer.status();
    Ok((writer, status, removals))
}

/// Opens the newest segment behind its last whole record, or makes the first one.
fn open_segment(folder: &Folder, scanned: &Scanned) -> anyhow::Result<(std::fs::File, u64)> {
    let (path, whole) = scanned
        .newest_segment
        .clone()
        .unwrap_or_else(|| (folder.segment(0), 0));
    let open = || -> std::io::Result<std::fs::File> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        if let Some(torn) = &scanned.torn {
            tracing::warn!(
                segment = %torn.path.display(), offset = torn.offset, bytes = torn.bytes,
                "cut off an unfinished record, which was never acknowledged"
            );
            file.set_len(torn.offset)?;
        }
        file.sync_all()?;
        folder::sync_folder(&folder.payload())?;
        Ok(file)
    };
    Ok((
        open().with_context(|| format!("cannot write {}", path.display()))?,
        whole,
    ))
}

/// The iterator behind `read_batches`.
pub(crate) struct ReadBack {
    evidence: PathBuf,
    from: u64,
    state: State,
}

enum State {
    Start,
    Reading {
        keys: BTreeMap<String, AgentKeys>,
        segments: VecDeque<(u64, PathBuf)>,
        open: Option<Segment>,
    },
    End,
}

struct Segment {
    reader: SegmentReader,
    path: PathBuf,
    next: u64,
}

impl ReadBack {
    pub(crate) fn new(evidence: &Path, from: u64) -> Self {
        Self {
            evidence: evidence.to_owned(),
            from,
            state: State::Start,
        }
    }

    fn start(&self) -> anyhow::Result<State> {
        let keys = identity::read_agents(&self.evidence)?;
        let mut segments = VecDeque::from(folder::segments(&self.evidence)?);
        while segments.get(1).is_some_and(|(first, _)| *first <= self.from) {
            segments.pop_front();
        }
        Ok(State::Reading {
            keys,
            segments,
            open: None,
        })
    }

    fn advance(&mut self) -> anyhow::Result<Option<(u64, OpenedBatch)>> {
        if matches!(self.state, State::Start) {
            self.state = self.start()?;
        }
        let State::Reading { keys, segments, open } = &mut self.state else {
            return Ok(None);
        };
        loop {
            let segment = match open {
                Some(segment) => segment,
                None => {
                    let Some((next, path)) = segments.pop_front() else {
                        return Ok(None);
                    };
                    let reader = SegmentReader::open(&path)
                        .with_context(|| format!("cannot read {}", path.display()))?;
                    open.insert(Segment { reader, path, next })
                }
            };
            let place = format!("{} at byte {}", segment.path.display(), segment.reader.offset);
            match segment.reader.read().with_context(|| place.clone())? {
                Next::End => *open = None,
                // What is being written right now, or was when the power went: not part of the log yet.
                Next::Torn if segments.is_empty() => return Ok(None),
                Next::Torn => return Err(anyhow!("{place}: the file ends inside a record")),
                Next::Damaged(what) => return Err(anyhow!("{place}: {what}")),
                Next::Record { batch } => {
                    let index = segment.next;
                    segment.next += 1;
                    if index < self.from {
                        continue;
                    }
                    let header = BatchHeader::decode(batch.header.clone()).unwrap_or_default();
                    let key = keys.get(&header.agent_id).map(|keys| keys.of(header.sequence));
                    let key =
                        key.ok_or_else(|| anyhow!("{place}: no key of the batch's agent is in agents/"))?;
                    let opened =
                        evidence::open_kept(&batch, key, &super::limits()).with_context(|| place.clone())?;
                    if let Some(keys) = keys.get_mut(&header.agent_id) {
                        // The log may be ahead of the keys as they were read.
                        keys.follow(&header).map_err(|what| anyhow!("{place}: {what}"))?;
                    }
                    return Ok(Some((index, opened)));
                }
            }
        }
    }
}

impl Iterator for ReadBack {
    type Item = anyhow::Result<(u64, OpenedBatch)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.state = State::End;
        }
        next
    }
}
