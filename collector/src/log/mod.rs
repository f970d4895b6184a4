//! The evidence log: what was acknowledged, in the order in which it was stored, so that nobody can change it unseen.
//!
//! Owns `<data>/evidence` and `<data>/aside`. Knows agents, batches and the tree; knows nothing of queries. One thread
//! (`writer`) owns all state, so that no lock orders anything; everybody else talks to it through `Log`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow};
use ed25519_dalek::{SigningKey, VerifyingKey};
use evidence::{Limits, OpenedBatch, Seal, Tip, WitnessKey};
use proto::v1::{BatchHeader, Counters, SignedBatch};
use tokio::sync::{mpsc, oneshot, watch};

use crate::metrics::Metrics;
use record::{Decoder, Records};

mod bundles;
mod checkpoints;
mod folder;
mod frame;
mod identity;
mod keys;
mod originator;
mod place;
mod recovery;
mod rewrite;
mod scan;
mod tiles;
mod tree;
mod writer;

pub(crate) use bundles::Bundles;
pub(crate) use checkpoints::folder_checkpoint;
pub(crate) use folder::{Folder, segments};
pub use identity::AgentRecord;
pub(crate) use identity::{Origin, adopt, agent_record, read_agents};
pub use keys::AgentKeys;
pub use originator::Originator;
pub(crate) use originator::originator;
pub(crate) use place::{Places, SegmentHeads, entry_of};
pub(crate) use rewrite::{discard, put_in_place, remove_below, stage};
pub(crate) use scan::{
    Ask, Contents, Depth, Link, Removals, Scanned, State, covered, hold_again, processors, scan,
};
pub use scan::{Elsewhere, Kept, Progress, Restored, Wrong};

pub(crate) use tree::TreeFiles;

/// What the log says of itself; renewed with every checkpoint and at least every second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// `pgwitness/<name>`.
    pub origin: String,
    /// Entries under the newest checkpoint.
    pub tree_size: u64,
    /// Root of the newest checkpoint, base64 as checkpoints write it.
    pub root_hash: String,
    /// When the newest checkpoint was written, nanoseconds since the Unix epoch.
    pub checkpoint_unix_ns: u64,
    /// All agents that the log knows, by id.
    pub agents: Vec<AgentStatus>,
    /// Durable batches, those beyond the checkpoint too.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Batches that did not verify and lie in `<data>/aside`.
    pub aside: u64,
    /// Entries under the newest checkpoint that witnesses cosigned; 0: none is.
    pub cosigned_size: u64,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentStatus {
    /// The agent's id.
    pub agent_id: String,
    /// Sequence of its newest batch; 0 if it sent none yet.
    pub last_sequence: u64,
    /// When it last said anything, nanoseconds since the Unix epoch by the collector's clock; since a restart in which
    /// it has not spoken yet, the last capture time in its newest batch.
    pub last_seen_ns: u64,
    /// Its counters as of its newest batch.
    pub counters: Counters,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Name behind `pgwitness/` in the origin; made up where a new log gets none.
    pub name: Option<String>,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// A segment is closed when it is this long.
    pub segment_bytes: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Durable now, as this entry of the log.
    Stored(u64),
    /// Durable since earlier.
    Duplicate,
    /// Kept aside, for this reason.
    Refused(String),
    /// Not looked at, because an earlier one of the same stream was refused.
    Abandoned,
}

/// A batch that has become durable, in log order.
#[derive(Clone, Debug)]
pub struct Durable {
    /// Its entry in the log, from 0.
    pub log_index: u64,
    /// What its agent signed.
    pub header: BatchHeader,
    /// Its events, decoded.
    pub events: Records,
}

/// A batch on its way into the log; its seal and leaves were checked.
#[derive(Debug)]
pub struct Candidate {
    /// As received.
    pub batch: SignedBatch,
    /// Its header.
    pub seal: Seal,
    /// Its events, decoded.
    pub events: Records,
    /// Set by the log when it refuses a batch of the stream, so that those already behind it are left alone.
    pub stream_refused: Arc<AtomicBool>,
}

/// By what an agent introduces itself.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Its id.
    pub agent_id: String,
    /// The key that it has by now.
    pub key: VerifyingKey,
    /// The one before it, of an agent that may be changing its key: one of both must be its own.
    pub former: Option<VerifyingKey>,
    /// Everything up to there is durable at some collector, or was given up: what this log does not have of it does not come any more,
    /// so that the chain may leap up to there.
    pub acknowledged: u64,
    /// Batches without payload that announced keys, the oldest first, of those up to there.
    pub key_changes: Vec<SignedBatch>,
}

impl Greeting {
    /// Of an agent whose chain lies in this log alone.
    #[must_use]
    pub fn new(agent_id: impl Into<String>, key: VerifyingKey) -> Self {
        Self {
            agent_id: agent_id.into(),
            key,
            former: None,
            acknowledged: 0,
            key_changes: Vec::new(),
        }
    }
}

/// The handle to an open log.
#[derive(Debug)]
pub struct Log {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    /// The log's own key, for what its collector itself has to say.
    key: SigningKey,
}

/// What comes with an open log.
pub struct Opened {
    /// The handle.
    pub log: Arc<Log>,
    /// Batches as they become durable. The log waits for whoever reads this: it must be read, or dropped.
    pub durable: mpsc::Receiver<Durable>,
    /// Resolves when the log has ended: by `close`, or because it could not write.
    pub ended: oneshot::Receiver<anyhow::Result<()>>,
    /// What is gone by the collector's word, and what must stay, as it was found.
    pub(crate) removals: Removals,
}

enum Command {
    Hello {
        greeting: Box<Greeting>,
        reply: oneshot::Sender<Result<(Tip, AgentKeys), String>>,
    },
    Append {
        candidate: Box<Candidate>,
        reply: oneshot::Sender<Appended>,
    },
    SetAside {
        agent_id: String,
        batch: SignedBatch,
        reason: String,
    },
    Cosigned {
        note: Vec<u8>,
        witnesses: Vec<WitnessKey>,
    },
    Checkpoint {
        /// Whether the newest segment is closed, too.
        closes: bool,
        reply: oneshot::Sender<()>,
    },
    Tick,
    Close,
}

/// Commands that wait for the log's thread. Each may hold a batch at its caps, so this bounds memory.
const QUEUED_COMMANDS: usize = 16;

/// Durable batches that wait for the store.
const QUEUED_DURABLE: usize = 16;

impl Log {
    /// Opens the log in the data folder, or makes a new one; recovers from a crash, and refuses a log that does not
    /// hold. Blocks while it reads all of it.
    pub fn open(data: &Path, options: LogOptions, metrics: Arc<Metrics>) -> anyhow::Result<Opened> {
        let (commands, received) = mpsc::channel(QUEUED_COMMANDS);
        let (feed, durable) = mpsc::channel(QUEUED_DURABLE);
        let interval = options.checkpoint_interval;
        let (writer, status, removals) = recovery::open(data, options, metrics, feed)?;
        let key = writer.key().clone();
        let (result, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("evidence-log".to_owned())
            .spawn(move || _ = result.send(writer.run(received)))
            .context("cannot start the log's thread")?;
        let ticks = commands.downgrade();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(commands) = ticks.upgrade() else { break };
                if commands.send(Command::Tick).await.is_err() {
                    break;
                }
            }
        });
        Ok(Opened {
            log: Arc::new(Self {
                commands,
                status,
                key,
            }),
            durable,
            ended,
            removals,
        })
    }

    /// What the log says of itself.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Enrols an agent at first contact, checks its key at every later one, and says where its chain stands. The inner
    /// error is for the agent.
    pub async fn hello(&self, agent_id: String, key: VerifyingKey) -> anyhow::Result<Result<Tip, String>> {
        let met = self.meet(Greeting::new(agent_id, key)).await?;
        Ok(met.map(|(tip, _)| tip))
    }

    /// The same of an agent that has been elsewhere, or changes its key. With all keys that it has had.
    pub async fn meet(&self, greeting: Greeting) -> anyhow::Result<Result<(Tip, AgentKeys), String>> {
        let (reply, answer) = oneshot::channel();
        let greeting = Box::new(greeting);
        self.send(Command::Hello { greeting, reply }).await?;
        answer.await.map_err(|_| ended())
    }

    /// Hands a batch over, in the order of the calls; the answer comes when it is durable.
    pub async fn append(&self, candidate: Candidate) -> anyhow::Result<oneshot::Receiver<Appended>> {
        let (reply, answer) = oneshot::channel();
        let candidate = Box::new(candidate);
        self.send(Command::Append { candidate, reply }).await?;
        Ok(answer)
    }

    /// Keeps a batch that does not verify, and raises the alarm.
    pub async fn set_aside(
        &self,
        agent_id: String,
        batch: SignedBatch,
        reason: String,
    ) -> anyhow::Result<()> {
        self.send(Command::SetAside {
            agent_id,
            batch,
            reason,
        })
        .await
    }

    /// Keeps a checkpoint of this log that witnesses cosigned, in place of the one before.
    pub async fn cosigned(&self, note: Vec<u8>, witnesses: Vec<WitnessKey>) -> anyhow::Result<()> {
        self.send(Command::Cosigned { note, witnesses }).await
    }

    /// Closes the newest payload segment, if anything is in it, and writes a checkpoint: when this returns, nothing is added any more
    /// to the segments that there are, and all that is in them is in the tiles, too.
    pub(crate) async fn rotate(&self) -> anyhow::Result<()> {
        self.checkpointed(true).await
    }

    /// Writes a checkpoint over everything that is durable.
    pub(crate) async fn checkpoint(&self) -> anyhow::Result<()> {
        self.checkpointed(false).await
    }

    async fn checkpointed(&self, closes: bool) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Checkpoint { closes, reply }).await?;
        answer.await.map_err(|_| ended())
    }

    /// Ends the log with a last checkpoint; `Opened::ended` says when.
    pub async fn close(&self) {
        _ = self.commands.send(Command::Close).await;
    }

    async fn send(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(command).await.map_err(|_| ended())
    }
}

/// Reads batches back from entry `from_index` on and checks each again; ends at the first error. Beginning late in a
/// long log skips whole segments.
pub fn read_batches(
    evidence_dir: &Path,
    from_index: u64,
) -> impl Iterator<Item = anyhow::Result<(u64, OpenedBatch)>> + use<> {
    recovery::ReadBack::new(evidence_dir, from_index)
}

/// The entry that the newest segments begin at which together take at most `bytes`; at least the newest one counts.
pub(crate) fn newest_from(evidence_dir: &Path, bytes: u64) -> anyhow::Result<u64> {
    let mut from = 0;
    let mut taken = 0_u64;
    for (nth, (first, path)) in segments(evidence_dir)?.into_iter().rev().enumerate() {
        taken = taken.saturating_add(std::fs::metadata(path)?.len());
        if nth > 0 && taken > bytes {
            break;
        }
        from = first;
    }
    Ok(from)
}

/// The evidence folder of a data folder, for commands that only read it.
pub(crate) fn evidence_in(data: &Path) -> anyhow::Result<PathBuf> {
    let evidence = data.join("evidence");
    std::fs::read_dir(&evidence).with_context(|| {
        format!(
            "no evidence log can be read in {}: name the data folder of a collector with --data",
            data.display()
        )
    })?;
    Ok(evidence)
}

/// The name of the log in a data folder: `pgwitness/<name>`.
pub(crate) fn origin_of(data: &Path) -> anyhow::Result<String> {
    Ok(Origin::read(&data.join("evidence"))?.origin)
}

/// The key that an agent signs by now, as the record has it.
pub(crate) fn key_of(data: &Path, agent_id: &str) -> anyhow::Result<VerifyingKey> {
    let agents = read_agents(&evidence_in(data)?)?;
    let keys = agents.get(agent_id);
    keys.map(|keys| *keys.newest())
        .with_context(|| format!("no agent {agent_id:?} has delivered anything here"))
}

/// Decodes a batch's events, as [`Decoder::decode`] does.
pub fn decode_events(opened: &OpenedBatch) -> Result<Records, String> {
    Decoder::default().decode(opened)
}

/// Limits on batches; the same ones for the stream and for reading back.
#[must_use]
pub fn limits() -> Limits {
    Limits::default()
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn ended() -> anyhow::Error {
    anyhow!("the evidence log has ended")
}
