//! Reading the whole evidence folder and checking it against itself.
//!
//! Owns what a log is made of, and how much of it is checked. `walk` goes through every file and record, in log order,
//! against agent keys, chains, tree and checkpoints; what one batch needs nobody else for is done by `workers` meanwhile.
//! Starting and `verify` share both, so that the program that writes and the one that verifies cannot disagree about what a
//! log is. Refuses to repair anything: it says what is wrong first, and where.

mod contents;
mod known;
mod progress;
mod removed;
mod state;
mod walk;
mod workers;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    num::NonZero,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use evidence::{Checkpoint, Cosigned, Hash, Tile, Tiling, Tip, WitnessKey};
use proto::v1::BatchHeader;
use serde::{Deserialize, Serialize};

use super::{
    checkpoints,
    identity::{self, Origin},
    keys::AgentKeys,
    originator::own_among,
    tiles::TileFiles,
};
pub(crate) use contents::{Contents, Link, covered};
use known::Known;
pub use progress::Progress;
pub(crate) use removed::{Removals, hold_again};
pub(crate) use state::State;
use walk::Walk;

/// The first thing that is wrong in an evidence folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Path below the evidence folder.
    pub file: String,
    /// Where in the file: the byte, or the record around it, where that is known.
    pub offset: Option<u64>,
    /// The entry of the log, from 0, where it is about one.
    pub entry: Option<u64>,
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

/// A checkpoint of this log that was kept elsewhere.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What to call it: a file.
    pub name: String,
    /// The signed note.
    pub note: Vec<u8>,
}

/// What is asked of a walk.
pub(crate) struct Ask<'a> {
    pub(crate) depth: Depth,
    pub(crate) kept: &'a [Kept],
    /// Threads that check batches. One: nothing is started.
    pub(crate) threads: usize,
    /// An earlier run's: below it, only headers are read.
    pub(crate) state: Option<State>,
    /// Whether `Contents` is to know every header's hash.
    pub(crate) links: bool,
    /// Whether what was said to be erased may still be there: a start finishes what a crash cut short.
    pub(crate) finishes: bool,
    /// Told every now and then, and at the end. What it breaks is given up.
    pub(crate) told: &'a mut dyn FnMut(&Progress, &State) -> ControlFlow<()>,
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
    pub(crate) recent: VecDeque<Hash>,
}

/// Header hashes kept for each agent: an agent resumes from what it is told, so repeats are only ever recent.
pub(crate) const RECENT_BATCHES: usize = 4096;

/// Batches of an agent that this log does not have, though it has later ones: another collector has them, or nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// Whose.
    pub agent_id: String,
    /// The first that is not here.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The entry of the batch behind them.
    pub entry: u64,
    /// The agent says, signed and in this log, that it deleted all of them before a collector had acknowledged them.
    pub given_up: bool,
}

/// A log that this one was made of, by a backup of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The collector's chain that says so.
    pub by: String,
    /// The own chain of that log's collector, if it had one: its word counts.
    pub own: Option<String>,
    /// `pgwitness/<name>` of that log.
    pub origin: String,
    /// Its key.
    pub verifier_key: String,
    /// Its entries in the backup, which are the first ones here.
    pub tree_size: u64,
}

/// A folder in which everything holds.
pub(crate) struct Scanned {
    pub(crate) origin: Origin,
    pub(crate) checkpoint: Checkpoint,
    /// As the log has them: what it announces last may not be in the records yet.
    pub(crate) keys: BTreeMap<String, AgentKeys>,
    pub(crate) agents: HashMap<String, AgentState>,
    /// The tree over all whole records, those beyond the checkpoint too.
    pub(crate) tiling: Tiling,
    /// Full tiles that were completed beyond the checkpoint, so that their files may be missing.
    pub(crate) unwritten: Vec<Tile>,
    pub(crate) events: u64,
    pub(crate) torn: Option<Torn>,
    /// The newest segment, and where its whole records end.
    pub(crate) newest_segment: Option<(PathBuf, u64)>,
    /// Where to find what; of the batches that amend something only if all events were read.
    pub(crate) contents: Contents,
    pub(crate) elsewhere: Vec<Elsewhere>,
    pub(crate) restored: Vec<Restored>,
    /// Who cosigned the newest checkpoint that is cosigned at all, and its size.
    pub(crate) cosigned: Option<(u64, Vec<Cosigned>)>,
    /// Entries whose payload an earlier run had read.
    pub(crate) checked_earlier: u64,
    /// What is gone by the collector's word, and what must stay.
    pub(crate) removals: Removals,
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
            entry: None,
            what: what.into(),
        }
    }

    /// The same, about an entry of the log.
    pub(crate) fn of_entry(self, entry: u64) -> Self {
        let entry = Some(entry);
        Self { entry, ..self }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        write!(f, ": {}", self.what)
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

/// As many threads as the machine has processors.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Walks the folder.
pub(crate) fn scan(evidence: &Path, ask: Ask<'_>) -> Result<Scanned, Wrong> {
    let origin = Origin::read(evidence).map_err(|error| Wrong::new("origin", None, format!("{error:#}")))?;
    let note = identity::read_small(&evidence.join("checkpoint"))
        .map_err(|error| Wrong::new("checkpoint", None, format!("{error:#}")))?;
    let checkpoint = Checkpoint::open(&note, &origin.verifier_key)
        .map_err(|error| Wrong::new("checkpoint", None, error.to_string()))?;
    let witnesses = checkpoints::read_witnesses(evidence, &origin)
        .map_err(|error| Wrong::new("witnesses", None, format!("{error:#}")))?;
    let mut known = Vec::new();
    let cosigned = read_cosigned(evidence, &origin, &witnesses)?;
    let cosigned = cosigned.map(|(checkpoint, cosigned)| {
        let size = checkpoint.size;
        known.push(Known::new(COSIGNED, checkpoint));
        (size, cosigned)
    });
    for kept in ask.kept {
        known.push(Known::of(kept, &origin)?);
    }
    let keys = identity::read_agents(evidence).map_err(|error| {
        let chain: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        Wrong::new(error.to_string(), None, chain.join(": "))
    })?;
    only_known_names(evidence)?;
    let own = own_among(&origin, &keys).map_err(|error| Wrong::new("origin", None, format!("{error:#}")))?;
    let tiles = TileFiles::list(evidence)?;
    let done = Scanned {
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
        elsewhere: Vec::new(),
        restored: Vec::new(),
        cosigned,
        checked_earlier: 0,
        removals: Removals::default(),
    };
    std::thread::scope(|scope| Walk::new(ask, own, tiles, known, done, scope).run(evidence))
}

/// The file of the newest checkpoint that witnesses cosigned.
const COSIGNED: &str = "cosigned";

/// The newest checkpoint that witnesses cosigned, if there is one.
fn read_cosigned(
    evidence: &Path,
    origin: &Origin,
    witnesses: &[WitnessKey],
) -> Result<Option<(Checkpoint, Vec<Cosigned>)>, Wrong> {
    let path = evidence.join(COSIGNED);
    if !path.exists() {
        return Ok(None);
    }
    let wrong = |what: String| Wrong::new(COSIGNED, None, what);
    let note = identity::read_small(&path).map_err(|error| wrong(format!("{error:#}")))?;
    let opened = Checkpoint::open_cosigned(&note, &origin.verifier_key, witnesses);
    opened.map(Some).map_err(|error| wrong(error.to_string()))
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
            "origin" | "checkpoint" | "cosigned" | "witnesses" => kind.is_file(),
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
