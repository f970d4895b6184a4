//! How far each open connection has been delivered, kept on disk, so that the next run of the agent can say exactly what
//! it missed.
//!
//! Owns one file of fixed slots, `progress` in the state folder: the first says which boot and run it is of, each other
//! one is a connection. A slot is written with one call when what it says was acknowledged (or printed, where there is no
//! collector), and is not synced: a killed agent leaves the page cache whole, and after a restart of the host no
//! connection is left. Whatever cannot be read counts as not there, which makes the next run tell of more missing, never
//! of less. Refuses to decide what a gap is: that is the pipeline's.
//!
//! Between the tap and the file notes wait for their events: a note made when `n` events had been queued holds as soon as
//! event `n` is acknowledged.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prost::Message;
use tap_core::{Places, Told};
use tracing::warn;

/// Bytes of a slot: a connection with both names and a socket's path of the greatest length.
const SLOT: usize = 512;

/// Checksum and length before the message in a slot.
const FRONT: usize = 8;

/// Connections that are kept: as many as processes can be tapped. The file has 32 MiB then.
const SLOTS: u64 = 65_536;

/// Longest role or database that is kept (`NAMEDATALEN` is 64); with a longer one the slot would not hold the rest.
const NAME: usize = 128;

/// Notes of one round are kept apart from those of the next, up to this many rounds: when no acknowledgement comes, the
/// newest are joined, and memory stays bounded by the number of connections.
const ROUNDS: usize = 16;

/// Which run the file is of.
#[derive(Clone, PartialEq, Message)]
pub struct Run {
    /// Boot of the host.
    #[prost(string, tag = "1")]
    pub boot_id: String,
    /// When it began to tap, in nanoseconds since boot.
    #[prost(uint64, tag = "2")]
    pub began: u64,
    /// Up to then everything was delivered of all connections, but for those whose slot is not settled and later ones.
    #[prost(uint64, tag = "3")]
    pub delivered: u64,
    /// When the first run of this boot ended that had another behind it: connections of which no run heard since may have
    /// spoken between any two of them. 0: there was none.
    #[prost(uint64, tag = "4")]
    pub unheard_since: u64,
}

/// A connection, and how far it was delivered.
#[derive(Clone, PartialEq, Message)]
pub struct Kept {
    /// The kernel's socket cookie.
    #[prost(fixed64, tag = "1")]
    pub cookie: u64,
    /// Where its events end in the frontend stream.
    #[prost(uint64, tag = "2")]
    pub frontend: u64,
    /// Where they end in the backend stream.
    #[prost(uint64, tag = "3")]
    pub backend: u64,
    /// The `ebpf_abi::Channel` that these offsets count.
    #[prost(uint32, tag = "4")]
    pub channel: u32,
    /// Nothing had been seen behind them.
    #[prost(bool, tag = "5")]
    pub settled: bool,
    /// When it was last heard of, in nanoseconds since boot.
    #[prost(uint64, tag = "6")]
    pub at: u64,
    /// And nothing was under way.
    #[prost(bool, tag = "8")]
    pub between_requests: bool,
    /// What else is known of it.
    #[prost(message, optional, tag = "7")]
    pub session: Option<KeptSession>,
}

/// What is known of a connection, and stays true as long as it is open.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeptSession {
    /// Process id of the backend.
    #[prost(uint32, tag = "1")]
    pub backend_pid: u32,
    /// When the backend began, in clock ticks since boot (proc(5), `starttime`).
    #[prost(uint64, tag = "2")]
    pub backend_start: u64,
    /// Process id of the postmaster.
    #[prost(uint32, tag = "3")]
    pub server_pid: u32,
    /// Inode number of the network namespace.
    #[prost(uint32, tag = "4")]
    pub netns: u32,
    /// Address of the client in 4 or 16 bytes; empty for a Unix socket.
    #[prost(bytes = "vec", tag = "5")]
    pub client: Vec<u8>,
    /// Port of the client.
    #[prost(uint32, tag = "6")]
    pub client_port: u32,
    /// Address of the server, as above.
    #[prost(bytes = "vec", tag = "7")]
    pub server: Vec<u8>,
    /// Port of the server.
    #[prost(uint32, tag = "8")]
    pub server_port: u32,
    /// Path of a Unix socket.
    #[prost(string, tag = "9")]
    pub path: String,
    /// Role that logged in.
    #[prost(string, optional, tag = "10")]
    pub login_role: Option<String>,
    /// Database.
    #[prost(string, optional, tag = "11")]
    pub database: Option<String>,
    /// Who the kernel saw connect.
    #[prost(message, optional, tag = "12")]
    pub owner: Option<KeptOwner>,
    /// It is a pooler's with a client, and no backend's: nothing is told of it.
    #[prost(bool, tag = "13")]
    pub of_pooler: bool,
}

/// The process that the kernel saw connect over TCP.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct KeptOwner {
    /// Process id.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Start in nanoseconds since boot.
    #[prost(uint64, tag = "2")]
    pub start: u64,
    /// Cgroup at that moment.
    #[prost(uint64, tag = "3")]
    pub cgroup_id: u64,
    /// User id.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Network namespace.
    #[prost(uint32, tag = "5")]
    pub netns: u32,
    /// Audit login uid at that moment.
    #[prost(uint32, optional, tag = "6")]
    pub login_uid: Option<u32>,
}

impl Run {
    /// From when on a connection that no slot names may have spoken unseen.
    fn unheard(&self) -> u64 {
        match self.unheard_since {
            0 => self.delivered.max(self.began),
            since => since,
        }
    }
}

impl Kept {
    /// A connection as it stands now.
    pub fn new(cookie: u64, told: &Told, session: KeptSession) -> Self {
        Self {
            cookie,
            frontend: told.places.frontend,
            backend: told.places.backend,
            channel: told.places.channel.into(),
            settled: told.settled,
            at: told.at,
            between_requests: told.between_requests,
            session: Some(session),
        }
    }

    /// The run that saw it silent is over: from where that one came to, nobody knows. Returns whether that changes it. A
    /// later run that does not hear of it either must not take its own word for it.
    fn outlive(&mut self, run: &Run) -> bool {
        let changes = std::mem::replace(&mut self.settled, false);
        if changes {
            self.at = self.at.max(run.delivered);
        }
        changes
    }

    /// Where its events end.
    pub fn places(&self) -> Places {
        Places {
            frontend: self.frontend,
            backend: self.backend,
            channel: u8::try_from(self.channel).unwrap_or(u8::MAX),
        }
    }
}

/// What a former run of the same boot left.
#[derive(Debug, Default)]
pub struct Former {
    /// The run; `None` if there was none, or nothing is left of it.
    pub run: Option<Run>,
    /// The connections that were open.
    pub connections: HashMap<u64, Kept>,
    /// Slots that could not be read.
    pub damaged: usize,
}

/// Something to be noted once all events so far are delivered.
#[derive(Clone, Debug)]
pub enum Note {
    /// A connection came this far.
    Open(Box<Kept>),
    /// A connection is over.
    Closed(u64),
}

/// The file, and the notes that wait.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None`: progress is not kept.
    file: Option<File>,
    run: Run,
    slots: HashMap<u64, u64>,
    /// Slots below `used` that hold nothing.
    free: Vec<u64>,
    used: u64,
    /// Events delivered.
    delivered: u64,
    waiting: VecDeque<Round>,
}

/// Notes that hold as soon as that many events are delivered.
#[derive(Debug)]
struct Round {
    events: u64,
    /// Everything that had been captured until then was noted; 0: not known.
    complete_at: u64,
    notes: BTreeMap<u64, Note>,
}

impl Progress {
    /// Reads what the former run left in the state folder, and goes on from there. Where the file cannot be used, progress
    /// is not kept, with a warning: recording is worth more than knowing how much a restart missed.
    pub fn open(state_folder: &Path, boot_id: &str, now: u64) -> (Self, Former) {
        let mut state = State {
            file: None,
            run: Run {
                boot_id: boot_id.to_owned(),
                began: now,
                delivered: 0,
                unheard_since: 0,
            },
            slots: HashMap::new(),
            free: Vec::new(),
            used: 1,
            delivered: 0,
            waiting: VecDeque::new(),
        };
        let former = state
            .open(&state_folder.join("progress"))
            .unwrap_or_else(|problem| {
                state.give_up(&problem);
                Former::default()
            });
        (Self(Mutex::new(state)), former)
    }

    /// Notes what holds once `events` events in all are delivered. `complete_at`: everything captured until then has been
    /// noted, in nanoseconds since boot; 0 if that is not known.
    pub fn note(&self, events: u64, complete_at: u64, notes: impl Iterator<Item = Note>) {
        let mut state = self.lock();
        if state.file.is_none() {
            return;
        }
        if state.waiting.len() < ROUNDS {
            state.waiting.push_back(Round {
                events,
                complete_at,
                notes: BTreeMap::new(),
            });
        }
        let Some(round) = state.waiting.back_mut() else {
            return;
        };
        round.events = events;
        round.complete_at = complete_at.max(round.complete_at);
        for note in notes {
            round.notes.insert(note.cookie(), note);
        }
        // Nothing is under way: it holds already.
        if events <= state.delivered {
            state.settle();
        }
    }

    /// So many events in all are delivered.
    pub fn delivered(&self, events: u64) {
        let mut state = self.lock();
        state.delivered = state.delivered.max(events);
        state.settle();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at the worst a note unwritten.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Note {
    fn cookie(&self) -> u64 {
        match self {
            Self::Open(kept) => kept.cookie,
            Self::Closed(cookie) => *cookie,
        }
    }
}

impl State {
    fn open(&mut self, path: &Path) -> io::Result<Former> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut former = Former::default();
        let mut bytes = [0; SLOT];
        let slots = file.metadata()?.len() / SLOT as u64;
        let run = read_slot(&file, 0, &mut bytes).and_then(|message| Run::decode(message).ok());
        match run {
            Some(run) if run.boot_id == self.run.boot_id => {
                for slot in 1..slots.min(SLOTS) {
                    let kept =
                        read_slot(&file, slot, &mut bytes).and_then(|message| Kept::decode(message).ok());
                    self.used = slot + 1;
                    match kept.filter(|kept| kept.session.is_some() && !self.slots.contains_key(&kept.cookie))
                    {
                        Some(mut kept) => {
                            if kept.outlive(&run) {
                                write_slot(&file, slot, &kept)?;
                            }
                            self.slots.insert(kept.cookie, slot);
                            former.connections.insert(kept.cookie, kept);
                        }
                        None => {
                            former.damaged += usize::from(bytes.iter().any(|byte| *byte != 0));
                            self.free.push(slot);
                        }
                    }
                }
                self.run.unheard_since = run.unheard();
                former.run = Some(Run {
                    unheard_since: run.unheard(),
                    ..run
                });
            }
            // Of another boot, or nothing that could be of use.
            _ => file.set_len(0)?,
        }
        self.file = Some(file);
        // Until something is delivered, the former run's word holds.
        if let Some(run) = &former.run {
            self.run.delivered = run.delivered;
        }
        self.write_run()?;
        Ok(former)
    }

    /// Writes all notes that hold.
    fn settle(&mut self) {
        if let Err(problem) = self.try_settle() {
            self.give_up(&problem);
        }
    }

    fn try_settle(&mut self) -> io::Result<()> {
        let mut complete_at = 0;
        let delivered = self.delivered;
        // Of each connection the newest, whatever it was in rounds before.
        let mut notes = BTreeMap::new();
        while let Some(round) = self.waiting.pop_front_if(|round| round.events <= delivered) {
            complete_at = round.complete_at.max(complete_at);
            notes.extend(round.notes);
        }
        for note in notes.values() {
            self.write(note)?;
        }
        // Behind the slots: it speaks for all of them.
        if complete_at > self.run.delivered {
            self.run.delivered = complete_at;
            self.write_run()?;
        }
        Ok(())
    }

    fn write(&mut self, note: &Note) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        match note {
            Note::Open(kept) => {
                let slot = match self.slots.get(&kept.cookie) {
                    Some(slot) => *slot,
                    None => {
                        let slot = match self.free.pop() {
                            Some(slot) => slot,
                            // Without a slot the next run does not know how far this connection came, and says so.
                            None if self.used >= SLOTS => return Ok(()),
                            None => {
                                self.used += 1;
                                self.used - 1
                            }
                        };
                        self.slots.insert(kept.cookie, slot);
                        slot
                    }
                };
                write_slot(file, slot, kept.as_ref())
            }
            Note::Closed(cookie) => {
                let Some(slot) = self.slots.remove(cookie) else {
                    return Ok(());
                };
                self.free.push(slot);
                file.write_all_at(&[0; SLOT], slot * SLOT as u64)
            }
        }
    }

    fn write_run(&self) -> io::Result<()> {
        self.file
            .as_ref()
            .map_or(Ok(()), |file| write_slot(file, 0, &self.run))
    }

    /// What stands in the file stays: it is too little, never too much.
    fn give_up(&mut self, problem: &io::Error) {
        warn!(
            "how far sessions are delivered is no longer kept ({problem}): after a restart of the agent, gaps will be told \
             larger than they are"
        );
        self.file = None;
        self.waiting.clear();
    }
}

/// The message in a slot; `None` if there is none or its checksum is wrong. `bytes` holds the slot then, or zeros.
fn read_slot<'a>(file: &File, slot: u64, bytes: &'a mut [u8; SLOT]) -> Option<&'a [u8]> {
    bytes.fill(0);
    file.read_exact_at(bytes, slot * SLOT as u64).ok()?;
    let (front, rest) = bytes.split_first_chunk::<FRONT>()?;
    let [a, b, c, d, e, f, g, h] = *front;
    let (sum, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let message = rest.get(..usize::try_from(length).ok()?)?;
    (length > 0 && crc32fast::hash(message) == sum).then_some(message)
}

fn write_slot(file: &File, slot: u64, message: &impl Message) -> io::Result<()> {
    let encoded = message.encode_to_vec();
    let length = u32::try_from(encoded.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(SLOT);
    bytes.extend_from_slice(&crc32fast::hash(&encoded).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&encoded);
    if bytes.len() > SLOT {
        return Err(io::Error::other("a connection does not fit its slot"));
    }
    bytes.resize(SLOT, 0);
    file.write_all_at(&bytes, slot * SLOT as u64)
}

/// A name, if it is short enough to be kept.
pub fn kept_name(name: Option<&String>) -> Option<String> {
    name.filter(|name| name.len() <= NAME).cloned()
}

#[cfg(test)]
mod tests;
