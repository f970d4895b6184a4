//! The log's one thread: decides on every batch, makes it durable, and writes checkpoints.
//!
//! Owns all changing state. Batches that arrive together share one fsync. An error while writing ends the log: after a
//! failed fsync nobody knows what the disk holds, and only reading it again can tell.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context;
use ed25519_dalek::SigningKey;
use evidence::{Checkpoint, MAX_ENTRY_BYTES, Tile, Tiling, Tip, WitnessKey, log_entry};
use prost::Message;
use proto::v1::SignedBatch;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    AgentStatus, Appended, Candidate, Command, Durable, Greeting, LogOptions, Status, checkpoints,
    folder::{self, Folder, Lock},
    frame,
    identity::{self, AgentRecord, Origin},
    keys::{self, AgentKeys},
    scan::{AgentState, Scanned},
    tiles, unix_ns,
};
use crate::metrics::{Alarm, Metrics};

/// Most agents that one log takes in: each costs a file and memory, and on first contact anybody may ask.
const MAX_AGENTS: usize = 10_000;

/// Most bytes kept in `aside`: a peer that sends nothing but bad batches must not fill the disk. Beyond it they are
/// counted and logged only.
const MAX_ASIDE_BYTES: u64 = 256 << 20;

/// Commands handled under one fsync.
const MAX_GROUP: usize = 64;

pub(crate) struct Writer {
    folder: Folder,
    _lock: Lock,
    key: SigningKey,
    keys: HashMap<String, AgentKeys>,
    agents: HashMap<String, AgentState>,
    last_seen: HashMap<String, u64>,
    /// How far an agent's chain is acknowledged elsewhere or given up, where that is further than here.
    acknowledged: HashMap<String, u64>,
    tiling: Tiling,
    unwritten: Vec<Tile>,
    /// Open at its end; nothing behind `segment_bytes` is in it.
    segment: File,
    segment_bytes: u64,
    aside_bytes: u64,
    options: LogOptions,
    metrics: Arc<Metrics>,
    feed: mpsc::Sender<Durable>,
    current: Status,
    published: watch::Sender<Status>,
}

/// What is answered when the group is durable.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    answers: Vec<(oneshot::Sender<Appended>, Appended)>,
    durable: Vec<Durable>,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "called once, with what recovery found")]
    pub(crate) fn new(
        folder: Folder,
        lock: Lock,
        key: SigningKey,
        scanned: Scanned,
        (segment, segment_bytes): (File, u64),
        options: LogOptions,
        metrics: Arc<Metrics>,
        feed: mpsc::Sender<Durable>,
    ) -> anyhow::Result<Self> {
        let Scanned {
            checkpoint,
            keys,
            agents,
            tiling,
            unwritten,
            events,
            cosigned,
            ..
        } = scanned;
        let mut aside = (0, 0);
        for file in fs::read_dir(folder.aside())? {
            aside = (aside.0 + 1, aside.1 + file?.metadata()?.len());
        }
        let current = Status {
            origin: checkpoint.origin.clone(),
            tree_size: checkpoint.size,
            root_hash: checkpoint.root_base64(),
            checkpoint_unix_ns: unix_ns(),
            agents: Vec::new(),
            batches: tiling.size(),
            events,
            aside: aside.0,
            cosigned_size: cosigned.map_or(0, |(size, _)| size),
        };
        let last_seen = agents
            .iter()
            .map(|(id, agent)| (id.clone(), agent.newest.last_ns))
            .collect();
        let published = watch::Sender::new(current.clone());
        let mut writer = Self {
            folder,
            _lock: lock,
            key,
            keys: keys.into_iter().collect(),
            agents,
            last_seen,
            acknowledged: HashMap::new(),
            tiling,
            unwritten,
            segment,
            segment_bytes,
            aside_bytes: aside.1,
            options,
            metrics,
            feed,
            current,
            published,
        };
        for (agent_id, keys) in &writer.keys {
            if keys.rotations() > 0 {
                // A crash may have come between a batch that announced a key and this.
                identity::write_keys(&writer.folder, agent_id, keys, &writer.key)?;
            }
        }
        writer.checkpoint()?;
        writer.publish();
        Ok(writer)
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.published.subscribe()
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Works until the log is closed or every handle is gone; leaves a checkpoint over everything.
    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        let mut open = true;
        while open && let Some(first) = commands.blocking_recv() {
            let mut group = Group::default();
            let mut next = Some(first);
            let mut tick = false;
            let (mut closes_segment, mut waiting) = (false, Vec::new());
            for _ in 0..MAX_GROUP {
                // Taken from the queue only where it is handled, too: what is left there is the next group's.
                match next.take().or_else(|| commands.try_recv().ok()) {
                    None => break,
                    Some(Command::Append { candidate, reply }) => {
                        self.append(&mut group, *candidate, reply)?;
                    }
                    Some(Command::Hello { greeting, reply }) => {
                        _ = reply.send(self.hello(*greeting)?);
                    }
                    Some(Command::SetAside {
                        agent_id,
                        batch,
                        reason,
                    }) => {
                        self.set_aside(&agent_id, &batch, &reason)?;
                    }
                    Some(Command::Cosigned { note, witnesses }) => self.cosigned(&note, &witnesses)?,
                    Some(Command::Checkpoint { closes, reply }) => {
                        tick = true;
                        closes_segment |= closes;
                        waiting.push(reply);
                    }
                    Some(Command::Tick) => tick = true,
                    Some(Command::Close) => {
                        open = false;
                        break;
                    }
                }
            }
            self.commit(group)?;
            if closes_segment && self.segment_bytes > 0 {
                self.begin_segment(self.tiling.size())?;
            }
            if tick {
                self.checkpoint()?;
                self.publish();
            }
            for reply in waiting {
                // Whoever asked may have gone.
                _ = reply.send(());
            }
        }
        self.checkpoint()?;
        self.publish();
        Ok(())
    }

    fn hello(&mut self, greeting: Greeting) -> anyhow::Result<Result<(Tip, AgentKeys), String>> {
        let agent_id = greeting.agent_id.clone();
        let tip = self
            .agents
            .get(&agent_id)
            .map(|agent| agent.tip)
            .unwrap_or_default();
        let keys = match self.keys.get(&agent_id) {
            Some(known) => match keys::keys_by(known, &tip, &greeting) {
                Ok(keys) => keys,
                Err(reason) => {
                    let detail = "an agent with this id and another key was turned away";
                    self.metrics.alarm(Alarm::OtherKey, &agent_id, detail);
                    return Ok(Err(reason));
                }
            },
            None if self.keys.len() >= MAX_AGENTS => {
                return Ok(Err(format!("this collector has its {MAX_AGENTS} agents")));
            }
            None => {
                // What announces the newer one comes yet, or the agent would not speak of the former.
                let key = greeting.former.unwrap_or(greeting.key);
                AgentRecord::new(&agent_id, &key, unix_ns(), &self.key).write(&self.folder)?;
                tracing::info!(agent = agent_id, "enrolled at first contact");
                AgentKeys::new(key)
            }
        };
        if self.keys.get(&agent_id) != Some(&keys) {
            // Before the first batch that holds by it: else nobody could check that one.
            identity::write_keys(&self.folder, &agent_id, &keys, &self.key)?;
            self.keys.insert(agent_id.clone(), keys.clone());
        }
        if greeting.acknowledged > tip.sequence {
            let known = self.acknowledged.insert(agent_id.clone(), greeting.acknowledged);
            if known.is_none_or(|known| known <= tip.sequence) {
                tracing::warn!(
                    agent = agent_id,
                    from = tip.sequence + 1,
                    to = greeting.acknowledged,
                    "batches of an agent are not in this log: another collector has them, the agent gave them up, or a restored log \
                     lost them"
                );
            }
        }
        self.last_seen.insert(agent_id, unix_ns());
        Ok(Ok((tip, keys)))
    }

    /// Decides on a batch and puts it into the group; the answer follows when the group is durable.
    fn append(
        &mut self,
        group: &mut Group,
        candidate: Candidate,
        reply: oneshot::Sender<Appended>,
    ) -> anyhow::Result<()> {
        let Candidate {
            batch,
            seal,
            events,
            stream_refused,
        } = candidate;
        if stream_refused.load(Ordering::Relaxed) {
            group.answers.push((reply, Appended::Abandoned));
            return Ok(());
        }
        let id = seal.header.agent_id.clone();
        let entry = log_entry(&batch);
        let agent = self.agents.entry(id.clone()).or_default();
        let repeats = seal.header.sequence <= agent.tip.sequence;
        let answer = if repeats && agent.recent.contains(&seal.header_hash) {
            self.metrics.duplicates.inc();
            Appended::Duplicate
        } else if repeats {
            Appended::Refused(format!(
                "batch {} differs from the one stored under this number",
                seal.header.sequence
            ))
        } else if entry.len() > MAX_ENTRY_BYTES {
            Appended::Refused(format!(
                "the header takes {} bytes, too many for a log entry",
                entry.len()
            ))
        } else {
            // Only as far as the agent said: anything else that is left out is a hole.
            let leaps = seal.header.sequence > agent.tip.sequence.saturating_add(1)
                && self
                    .acknowledged
                    .get(&id)
                    .is_some_and(|behind| seal.header.sequence <= behind.saturating_add(1));
            let follows = match leaps {
                true => agent.tip.follow_or_leap(&seal.header, seal.header_hash),
                false => agent.tip.follow(&seal.header, seal.header_hash),
            };
            let follows = follows.map_err(|broken| broken.to_string()).and_then(|tip| {
                match self.keys.get_mut(&id) {
                    Some(keys) => keys.follow(&seal.header)?,
                    None => false,
                };
                Ok(tip)
            });
            match follows {
                Err(broken) => Appended::Refused(broken),
                Ok(tip) => {
                    agent.advance(tip, seal.header.clone());
                    let log_index = self.tiling.size();
                    self.tiling.push(&entry, &mut self.unwritten)?;
                    group.bytes.extend(frame::encode(&batch));
                    self.metrics.batches.inc();
                    self.metrics.events.inc_by(events.records.len() as u64);
                    self.metrics.bytes.inc_by(batch.encoded_len() as u64);
                    self.current.batches += 1;
                    self.current.events += events.records.len() as u64;
                    group.durable.push(Durable {
                        log_index,
                        header: seal.header,
                        events,
                    });
                    Appended::Stored(log_index)
                }
            }
        };
        if let Appended::Refused(reason) = &answer {
            stream_refused.store(true, Ordering::Relaxed);
            self.set_aside(&id, &batch, reason)?;
        }
        self.last_seen.insert(id, unix_ns());
        group.answers.push((reply, answer));
        Ok(())
    }

    /// Makes the group durable, answers, and hands it on. A repeated batch of the same group is durable then too.
    fn commit(&mut self, group: Group) -> anyhow::Result<()> {
        if !group.bytes.is_empty() {
            let first = group.durable.first().map_or(0, |durable| durable.log_index);
            self.rotate(first)?;
            self.segment
                .write_all(&group.bytes)
                .context("cannot append to the evidence log")?;
            self.segment
                .sync_data()
                .context("cannot fsync the evidence log")?;
            self.metrics.fsyncs.inc();
            self.segment_bytes += group.bytes.len() as u64;
        }
        for (reply, answer) in group.answers {
            // The stream may have ended meanwhile; the batch is stored all the same.
            _ = reply.send(answer);
        }
        for durable in group.durable {
            let id = &durable.header.agent_id;
            if !durable.header.next_key.is_empty()
                && let Some(keys) = self.keys.get(id)
            {
                identity::write_keys(&self.folder, id, keys, &self.key)?;
                tracing::info!(agent = id, "goes on with another key");
            }
            // Nobody reads where only the log is open.
            _ = self.feed.blocking_send(durable);
        }
        Ok(())
    }

    /// Begins a new segment at entry `first` where the current one is long enough.
    fn rotate(&mut self, first: u64) -> anyhow::Result<()> {
        match self.segment_bytes < self.options.segment_bytes {
            true => Ok(()),
            false => self.begin_segment(first),
        }
    }

    fn begin_segment(&mut self, first: u64) -> anyhow::Result<()> {
        let path: PathBuf = self.folder.segment(first);
        self.segment = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        folder::sync_folder(&self.folder.payload())?;
        self.segment_bytes = 0;
        Ok(())
    }

    /// Writes tiles and checkpoint over everything that is durable.
    fn checkpoint(&mut self) -> anyhow::Result<()> {
        let checkpoint = Checkpoint {
            origin: self.current.origin.clone(),
            size: self.tiling.size(),
            root: self.tiling.root(),
        };
        if checkpoint.size == self.current.tree_size {
            return Ok(());
        }
        tiles::write(&self.folder, self.unwritten.iter().chain(&self.tiling.partial()))?;
        self.folder.write(
            &self.folder.evidence().join("checkpoint"),
            &checkpoint.sign(&self.key)?,
        )?;
        for full in self.unwritten.drain(..) {
            tiles::remove_partial(&self.folder, &full)
                .with_context(|| format!("cannot remove the partial tiles of {}", full.base))?;
        }
        self.metrics.checkpoints.inc();
        self.current.tree_size = checkpoint.size;
        self.current.root_hash = checkpoint.root_base64();
        self.current.checkpoint_unix_ns = unix_ns();
        Ok(())
    }

    /// Keeps a cosigned checkpoint; one that does not hold is not kept.
    fn cosigned(&mut self, note: &[u8], witnesses: &[WitnessKey]) -> anyhow::Result<()> {
        let evidence = self.folder.evidence();
        let origin = Origin::read(&evidence).context("origin")?;
        let mut known = checkpoints::read_witnesses(&evidence, &origin).context("witnesses")?;
        let new: Vec<WitnessKey> = witnesses
            .iter()
            .filter(|key| !known.contains(key))
            .cloned()
            .collect();
        let fresh = !new.is_empty();
        known.extend(new);
        let opened = Checkpoint::open_cosigned(note, &origin.verifier_key, &known);
        let checkpoint = match opened {
            Ok((checkpoint, by)) if !by.is_empty() && checkpoint.size <= self.current.tree_size => checkpoint,
            other => {
                tracing::error!(
                    ?other,
                    "a cosigned checkpoint was not kept, because it does not hold"
                );
                return Ok(());
            }
        };
        // The list first: whoever reads the note finds the keys.
        if fresh {
            checkpoints::write_witnesses(&self.folder, &self.key, &known)?;
        }
        self.folder.write(&evidence.join("cosigned"), note)?;
        self.current.cosigned_size = checkpoint.size;
        Ok(())
    }

    fn publish(&mut self) {
        let own = self.key.verifying_key();
        let agents = self.keys.iter().filter(|(_, keys)| *keys.newest() != own);
        let mut agents: Vec<AgentStatus> = agents
            .map(|(id, _)| {
                let agent = self.agents.get(id);
                AgentStatus {
                    agent_id: id.clone(),
                    last_sequence: agent.map_or(0, |agent| agent.tip.sequence),
                    last_seen_ns: self.last_seen.get(id).copied().unwrap_or(0),
                    counters: agent.and_then(|agent| agent.newest.counters).unwrap_or_default(),
                }
            })
            .collect();
        agents.sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
        self.current.agents = agents;
        self.published.send_replace(self.current.clone());
    }

    /// Keeps a batch under a name made of what it is, so that sending it again keeps it once.
    fn set_aside(&mut self, agent_id: &str, batch: &SignedBatch, reason: &str) -> anyhow::Result<()> {
        let bytes = batch.encode_to_vec();
        let digest = hex::encode(Sha256::digest(&bytes));
        let path = self.folder.aside().join(format!("{agent_id}-{digest}.batch"));
        let (length, kept) = (bytes.len() as u64, path.exists());
        let room = self.aside_bytes.saturating_add(length) <= MAX_ASIDE_BYTES;
        if !kept && room {
            self.folder.write(&path, &bytes)?;
            self.aside_bytes += length;
            self.current.aside += 1;
        }
        self.metrics.refused.inc();
        let kept = if kept || room {
            "kept"
        } else {
            "not kept: there is no room"
        };
        let detail = format!(
            "a batch was refused, and {kept} aside as {}: {reason}",
            file_name(&path)
        );
        self.metrics.alarm(Alarm::RefusedBatch, agent_id, detail);
        Ok(())
    }
}

fn file_name(path: &std::path::Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}
