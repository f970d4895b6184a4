//! Where each batch of the log lies, to read one back by its number.
//!
//! Owns an index that grows as it is asked: the answers' JSON form of an event is made from the evidence itself, and
//! every batch that is read here is checked again (signature, digest, leaves).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, bail};
use ed25519_dalek::VerifyingKey;
use evidence::{BatchError, OpenedBatch};
use prost::Message;
use proto::v1::{BatchHeader, SignedBatch};

use super::{
    folder,
    frame::{Next, SegmentReader},
    identity,
    keys::AgentKeys,
};

/// The batches of an evidence folder, which a collector may be writing.
#[derive(Debug)]
pub(crate) struct Places {
    evidence: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    keys: BTreeMap<String, AgentKeys>,
    /// By the entry that each begins at.
    segments: BTreeMap<u64, Segment>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// Of the file that was looked at: one that lost events has another.
    inode: u64,
    /// Where its records begin, as far as they were looked for.
    offsets: Vec<u64>,
    /// Where to go on looking.
    end: u64,
}

impl Places {
    pub(crate) fn new(evidence: &Path) -> Self {
        Self {
            evidence: evidence.to_owned(),
            known: Mutex::default(),
        }
    }

    /// Reads batch `log_index` and checks it.
    pub(crate) fn read(&self, log_index: u64) -> anyhow::Result<OpenedBatch> {
        self.read_with(log_index).map(|(_, opened)| opened)
    }

    /// The same, with the batch as it was received.
    pub(crate) fn read_with(&self, log_index: u64) -> anyhow::Result<(SignedBatch, OpenedBatch)> {
        let Some((path, mut reader)) = self.reader_at(log_index)? else {
            bail!("entry {log_index} is not in the evidence log");
        };
        let offset = reader.offset;
        let place = || format!("{} at byte {offset}", path.display());
        let Next::Record { batch } = reader.read().with_context(place)? else {
            bail!("{}: no whole record is there", place());
        };
        let header = BatchHeader::decode(batch.header.clone())?;
        let open = |anew| -> anyhow::Result<_> {
            let key = self.key(&header, anew)?;
            Ok(evidence::open_kept(&batch, &key, &super::limits()))
        };
        let opened = match open(false)? {
            // The agent may have gone on with another key since the keys were read.
            Err(BatchError::Signature) => open(true)?,
            opened => opened,
        };
        let opened = opened.with_context(place)?;
        Ok((batch, opened))
    }

    /// A reader where the entry begins.
    fn reader_at(&self, log_index: u64) -> anyhow::Result<Option<(PathBuf, SegmentReader)>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.find(log_index)? {
            return Ok(Some(found));
        }
        for (first, path) in folder::segments(&self.evidence)? {
            known.segments.entry(first).or_insert(Segment {
                path,
                inode: 0,
                offsets: Vec::new(),
                end: 0,
            });
        }
        known.find(log_index)
    }

    fn key(&self, header: &BatchHeader, anew: bool) -> anyhow::Result<VerifyingKey> {
        let agent_id = &header.agent_id;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if anew || !known.keys.contains_key(agent_id) {
            known.keys = identity::read_agents(&self.evidence)?;
        }
        let key = known.keys.get(agent_id).map(|keys| *keys.of(header.sequence));
        key.with_context(|| format!("no key of agent {agent_id:?} is in agents/"))
    }
}

/// The entry that holds an agent's event, by the headers alone.
pub(crate) fn entry_of(evidence: &Path, agent: &str, seq: u64) -> anyhow::Result<Option<u64>> {
    for (first, path) in folder::segments(evidence)? {
        let mut reader = SegmentReader::open(&path).with_context(|| path.display().to_string())?;
        let mut entry = first;
        while let Next::Record { batch } = reader.read_head().with_context(|| path.display().to_string())? {
            let header = BatchHeader::decode(batch.header)
                .with_context(|| format!("{}: the header of entry {entry} is malformed", path.display()))?;
            let events = header.first_event_seq..header.first_event_seq + u64::from(header.event_count);
            if header.agent_id == agent && events.contains(&seq) {
                return Ok(Some(entry));
            }
            entry += 1;
        }
    }
    Ok(None)
}

/// The records of one segment, of which only the heads are read.
pub(crate) struct SegmentHeads {
    reader: SegmentReader,
    path: PathBuf,
}

impl SegmentHeads {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let reader = SegmentReader::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let path = path.to_owned();
        Ok(Self { reader, path })
    }

    /// The next record's entry in the log, and where it ends; `None` where no whole head is.
    pub(crate) fn next_head(&mut self) -> anyhow::Result<Option<(Vec<u8>, u64)>> {
        let place = format!("{} at byte {}", self.path.display(), self.reader.offset);
        match self.reader.read_head().with_context(|| place.clone())? {
            Next::Record { batch } => Ok(Some((evidence::log_entry(&batch), self.reader.offset))),
            Next::Damaged(what) => bail!("{place}: {what}"),
            Next::End | Next::Torn => Ok(None),
        }
    }
}

impl Known {
    /// Looks in the segment that the entry must be in, if that is known.
    fn find(&mut self, log_index: u64) -> anyhow::Result<Option<(PathBuf, SegmentReader)>> {
        let Some((first, segment)) = self.segments.range_mut(..=log_index).next_back() else {
            return Ok(None);
        };
        let nth = usize::try_from(log_index - first)?;
        let reader = segment
            .look_for(nth)
            .with_context(|| format!("cannot read {}", segment.path.display()))?;
        Ok(reader.map(|reader| (segment.path.clone(), reader)))
    }
}

impl Segment {
    fn look_for(&mut self, nth: usize) -> std::io::Result<Option<SegmentReader>> {
        let mut reader = SegmentReader::open(&self.path)?;
        let inode = reader.inode()?;
        if inode != self.inode {
            (self.inode, self.end) = (inode, 0);
            self.offsets.clear();
        }
        if nth >= self.offsets.len() {
            reader.go_to(self.end)?;
        }
        while self.offsets.len() <= nth {
            let begins = reader.offset;
            if !reader.skip()? {
                break;
            }
            self.offsets.push(begins);
            self.end = reader.offset;
        }
        let Some(offset) = self.offsets.get(nth) else {
            return Ok(None);
        };
        reader.go_to(*offset)?;
        Ok(Some(reader))
    }
}
