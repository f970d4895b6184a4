//! Reading the whole evidence folder and checking it against itself.
//!
//! Owns the walk that starting, `verify` and reading back share: every file, every record, in log order, against agent
//! keys, chains, tree and checkpoint. Refuses to repair anything: it says what is wrong first, and where.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use ed25519_dalek::VerifyingKey;
use evidence::{Checkpoint, Limits, Seal, Tile, Tiling, Tip, check_leaves, check_seal, log_entry};
use proto::v1::{BatchHeader, SignedBatch, event};
use serde::Serialize;

use super::{
    folder,
    frame::{Next, SegmentReader},
    identity::{self, Origin},
    originator::own_among,
    tiles::TileFiles,
};
use crate::record::{Body, Decoder, Record, Records};

/// The first thing that is wrong in an evidence folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Path below the evidence folder.
    pub file: String,
    /// Where in the file: the byte, or the record around it, where that is known.
    pub offset: Option<u64>,
    /// What was expected and found.
    pub what: String,
}

/// How much to recompute below the checkpoint, whose tree covers all headers anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Payload digests, chains, tree, tiles; signatures and events only beyond the checkpoint.
    Digests,
    /// Everything.
    Events,
}

/// A record cut short at the end of the newest segment: a crash, before it was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Torn {
    pub(crate) path: PathBuf,
    /// Where it begins, which is where the whole records end.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What is known of an agent from its batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentState {
    pub(crate) tip: Tip,
    pub(crate) newest: BatchHeader,
    /// Header hashes of the newest batches, the tip's last, to tell a repeated batch from a different one.
    pub(crate) recent: VecDeque<evidence::Hash>,
}

/// Header hashes kept for each agent: an agent resumes from what it is told, so repeats are only ever recent.
pub(crate) const RECENT_BATCHES: usize = 4096;

/// A folder in which everything holds.
pub(crate) struct Scanned {
    pub(crate) origin: Origin,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) keys: BTreeMap<String, VerifyingKey>,
    pub(crate) agents: HashMap<String, AgentState>,
    /// The tree over all whole records, those beyond the checkpoint too.
    pub(crate) tiling: Tiling,
    /// Full tiles that were completed beyond the checkpoint, so that their files may be missing.
    pub(crate) unwritten: Vec<Tile>,
    pub(crate) events: u64,
    pub(crate) torn: Option<Torn>,
    /// The newest segment, and where its whole records end.
    pub(crate) newest_segment: Option<(PathBuf, u64)>,
    /// Where to find what; empty unless all events were read.
    pub(crate) contents: Contents,
}

/// Where an event is found, and which batches of the collector's own amend something.
#[derive(Default)]
pub(crate) struct Contents {
    /// By agent, in order: a batch's first event, and its log entry.
    batches: HashMap<String, Vec<(u64, u64)>>,
    pub(crate) amending: Vec<u64>,
}

impl Contents {
    /// The entry that holds an agent's event.
    pub(crate) fn entry(&self, agent: &str, seq: u64) -> Option<u64> {
        let batches = self.batches.get(agent)?;
        let behind = batches.partition_point(|(first, _)| *first <= seq);
        batches.get(behind.checked_sub(1)?).map(|(_, entry)| *entry)
    }

    fn add(&mut self, own: Option<&str>, entry: u64, first_event_seq: u64, records: &Records) {
        let batches = match self.batches.get_mut(&*records.agent) {
            Some(batches) => batches,
            None => self.batches.entry(records.agent.to_string()).or_default(),
        };
        if !records.records.is_empty() {
            batches.push((first_event_seq, entry));
        }
        let amends = |record: &Record| match &record.body {
            Body::Other(body) => matches!(**body, event::Body::Amendment(_)),
            _ => false,
        };
        if own == Some(&*records.agent) && records.records.iter().any(amends) {
            self.amending.push(entry);
        }
    }
}

impl Wrong {
    pub(crate) fn new(
        file: impl Into<String>,
        offset: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            offset: offset.into(),
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

impl std::error::Error for Wrong {}

impl AgentState {
    pub(crate) fn advance(&mut self, tip: Tip, header: BatchHeader) {
        self.tip = tip;
        self.newest = header;
        self.recent.push_back(tip.header_hash);
        if self.recent.len() > RECENT_BATCHES {
            self.recent.pop_front();
        }
    }
}

/// Walks the folder. `kept` is an older checkpoint of the same log, from elsewhere, that the log must contain.
pub(crate) fn scan(evidence: &Path, depth: Depth, kept: Option<&[u8]>) -> Result<Scanned, Wrong> {
    let origin = Origin::read(evidence).map_err(|error| Wrong::new("origin", None, format!("{error:#}")))?;
    let note = identity::read_small(&evidence.join("checkpoint"))
        .map_err(|error| Wrong::new("checkpoint", None, format!("{error:#}")))?;
    let checkpoint = Checkpoint::open(&note, &origin.verifier_key)
        .map_err(|error| Wrong::new("checkpoint", None, error.to_string()))?;
    let kept = kept
        .map(|note| Checkpoint::open(note, &origin.verifier_key))
        .transpose();
    let kept = kept.map_err(|error| {
        Wrong::new(
            "checkpoint",
            None,
            format!("the one kept elsewhere does not fit: {error}"),
        )
    })?;
    let keys = identity::read_agents(evidence).map_err(|error| {
        let file = error.to_string();
        Wrong::new(
            file,
            None,
            error
                .chain()
                .skip(1)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": "),
        )
    })?;
    only_known_names(evidence)?;
    let own = own_among(&origin, &keys).map_err(|error| Wrong::new("origin", None, format!("{error:#}")))?;
    let mut walk = Walk {
        depth,
        own,
        limits: Limits::default(),
        tiles: TileFiles::list(evidence)?,
        kept,
        decoder: Decoder::default(),
        compared: 0,
        done: Scanned {
            origin,
            checkpoint,
            keys,
            agents: HashMap::new(),
            tiling: Tiling::default(),
            unwritten: Vec::new(),
            events: 0,
            torn: None,
            newest_segment: None,
            contents: Contents::default(),
        },
    };
    walk.at_size()?;
    walk.segments(evidence)?;
    walk.finish()
}

struct Walk {
    depth: Depth,
    /// The collector's own chain.
    own: Option<String>,
    limits: Limits,
    tiles: TileFiles,
    kept: Option<Checkpoint>,
    /// Says whether each event stands on definitions that its batch has.
    decoder: Decoder,
    /// How many of `done.unwritten` were compared with their files.
    compared: usize,
    done: Scanned,
}

impl Walk {
    fn segments(&mut self, evidence: &Path) -> Result<(), Wrong> {
        let segments =
            folder::segments(evidence).map_err(|error| Wrong::new("payload", None, format!("{error:#}")))?;
        let count = segments.len();
        for (nth, (first, path)) in segments.into_iter().enumerate() {
            let name = format!("payload/{}", folder::segment_name(first));
            let size = self.done.tiling.size();
            if first != size {
                return Err(Wrong::new(
                    name,
                    None,
                    format!("expected the segment that begins at entry {size}"),
                ));
            }
            self.segment(&name, &path, nth + 1 == count)?;
        }
        Ok(())
    }

    fn segment(&mut self, name: &str, path: &Path, newest: bool) -> Result<(), Wrong> {
        let broken = |offset, what: String| Wrong::new(name, offset, what);
        let mut reader = SegmentReader::open(path).map_err(|error| broken(None, error.to_string()))?;
        loop {
            let at = reader.offset;
            match reader
                .read()
                .map_err(|error| broken(Some(at), error.to_string()))?
            {
                Next::Record { batch } => {
                    self.record(&batch).map_err(|what| broken(Some(at), what))?;
                    self.completed_tiles()?;
                    self.at_size()?;
                }
                Next::End => break,
                Next::Torn if newest && self.done.tiling.size() >= self.done.checkpoint.size => {
                    let length = fs::metadata(path)
                        .map_err(|error| broken(Some(at), error.to_string()))?
                        .len();
                    self.done.torn = Some(Torn {
                        path: path.to_owned(),
                        offset: at,
                        bytes: length - at,
                    });
                    break;
                }
                Next::Torn => return Err(broken(Some(at), "the file ends inside a record".to_owned())),
                Next::Damaged(what) => return Err(broken(Some(at), what.to_owned())),
            }
        }
        self.done.newest_segment = Some((path.to_owned(), reader.offset));
        Ok(())
    }

    /// Checks one batch and adds it to chain and tree.
    fn record(&mut self, batch: &SignedBatch) -> Result<(), String> {
        let seal = self.seal(batch)?;
        let agent = self.done.agents.entry(seal.header.agent_id.clone()).or_default();
        let tip = agent
            .tip
            .follow(&seal.header, seal.header_hash)
            .map_err(|error| error.to_string())?;
        agent.advance(tip, seal.header.clone());
        self.done.events += u64::from(seal.header.event_count);
        if self.thorough() {
            let first = seal.header.first_event_seq;
            let opened = check_leaves(batch, seal, &self.limits).map_err(|error| error.to_string())?;
            let records = self.decoder.decode(&opened)?;
            if self.depth == Depth::Events {
                let (own, entry) = (self.own.as_deref(), self.done.tiling.size());
                self.done.contents.add(own, entry, first, &records);
            }
        }
        let Scanned {
            tiling, unwritten, ..
        } = &mut self.done;
        tiling
            .push(&log_entry(batch), unwritten)
            .map_err(|error| error.to_string())
    }

    /// Compares the tiles that the newest record completed with their files.
    fn completed_tiles(&mut self) -> Result<(), Wrong> {
        let below = self.done.tiling.size() <= self.done.checkpoint.size;
        let completed = self.done.unwritten.len() - self.compared;
        for tile in self.done.unwritten.iter().rev().take(completed) {
            self.tiles.full(tile, below)?;
        }
        if below {
            self.done.unwritten.clear();
        }
        self.compared = self.done.unwritten.len();
        Ok(())
    }

    fn seal(&self, batch: &SignedBatch) -> Result<Seal, String> {
        let claimed = <BatchHeader as prost::Message>::decode(batch.header.clone())
            .map_err(|_| "the header is malformed".to_owned())?;
        let key = self.done.keys.get(&claimed.agent_id);
        let key = key.ok_or_else(|| format!("no key of agent {:?} is in agents/", claimed.agent_id))?;
        if self.thorough() {
            return check_seal(batch, key, &self.limits).map_err(|error| error.to_string());
        }
        use sha2::{Digest, Sha256};
        if Sha256::digest(&batch.payload).as_slice() != claimed.payload_digest {
            return Err(evidence::BatchError::Digest.to_string());
        }
        Ok(Seal {
            header_hash: evidence::header_hash(&batch.header),
            header: claimed,
        })
    }

    /// Whether the next record is checked in full.
    fn thorough(&self) -> bool {
        self.depth == Depth::Events || self.done.tiling.size() >= self.done.checkpoint.size
    }

    /// Compares the tree with the checkpoints that are of its size.
    fn at_size(&mut self) -> Result<(), Wrong> {
        let (tiling, checkpoint) = (&self.done.tiling, &self.done.checkpoint);
        if tiling.size() == checkpoint.size {
            if tiling.root() != checkpoint.root {
                return Err(Wrong::new(
                    "checkpoint",
                    None,
                    "its root is not the one of the batches in payload/",
                ));
            }
            self.tiles.require(&tiling.partial())?;
        }
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.size == tiling.size())
            && kept.root != tiling.root()
        {
            let what = format!(
                "the log's first {} entries are not those of the checkpoint kept elsewhere",
                kept.size
            );
            return Err(Wrong::new("payload", None, what));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Scanned, Wrong> {
        let (size, expected) = (self.done.tiling.size(), self.done.checkpoint.size);
        if size < expected {
            return Err(Wrong::new(
                "payload",
                None,
                format!("{size} batches are there, the checkpoint has {expected}"),
            ));
        }
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.size > size) {
            let what = format!(
                "rolled back: {size} batches are there, the checkpoint kept elsewhere has {}",
                kept.size
            );
            return Err(Wrong::new("payload", None, what));
        }
        self.tiles.finish(&self.done.tiling.partial())?;
        Ok(self.done)
    }
}

/// The log is these files and nothing else.
fn only_known_names(evidence: &Path) -> Result<(), Wrong> {
    let wrong = |error: std::io::Error| Wrong::new(".", None, error.to_string());
    for file in fs::read_dir(evidence).map_err(wrong)? {
        let file = file.map_err(wrong)?;
        let (name, kind) = (
            file.file_name().to_string_lossy().into_owned(),
            file.file_type().map_err(wrong)?,
        );
        let known = match name.as_str() {
            "origin" | "checkpoint" => kind.is_file(),
            "agents" | "payload" | "tile" => kind.is_dir(),
            _ => false,
        };
        if !known {
            return Err(Wrong::new(name, None, "not part of a log"));
        }
    }
    for folder in ["agents", "payload"] {
        for file in fs::read_dir(evidence.join(folder)).map_err(wrong)? {
            let file = file.map_err(wrong)?;
            if !file.file_type().map_err(wrong)?.is_file() {
                let name = format!("{folder}/{}", file.file_name().to_string_lossy());
                return Err(Wrong::new(name, None, "not a file"));
            }
        }
    }
    Ok(())
}
