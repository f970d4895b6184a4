//! Asking and steering a running agent: a Unix socket, one line of JSON there, one line back.
//!
//! Owns the messages. Only root and the agent's own user are heard, by the kernel's word on who is at the other end.
//! `server` listens, `client` is the commands `status`, `pause` and `resume`; the main loop does what is ordered, so that an
//! answer also proves that it runs.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Bytes of one line at the most: a reason, and room for JSON around it.
const LINE_BYTES: usize = 4096;

/// Characters of a reason that are kept: it is an event's field, for people.
const REASON_CHARS: usize = 500;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How it stands.
    Status,
    /// Discard what comes from here on.
    Pause {
        /// Why, in the person's words.
        #[serde(default)]
        reason: String,
    },
    /// Record again.
    Resume {
        /// Why, in the person's words.
        #[serde(default)]
        reason: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How it stands.
    Status(Box<Status>),
    /// It is paused now.
    Paused(Paused),
    /// It records again.
    Resumed(Resumed),
    /// Nothing was done, and why.
    Error(String),
}

/// How a running agent stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process id of the one that was started; it started the other.
    pub pid: u32,
    /// Both, and what each may do.
    pub processes: Vec<ProcessStatus>,
    /// Names it in the record.
    pub agent_id: String,
    /// Seconds since it was attached.
    pub uptime_s: u64,
    /// How it is attached: "A" or "B".
    pub tier: String,
    /// Who paused it, if it is.
    pub paused: Option<Paused>,
    /// What the host was found to be: "server", "client", "server and client", by what was seen of it.
    pub role: String,
    /// Servers that are tapped.
    pub servers: Vec<ServerStatus>,
    /// Poolers that are followed.
    pub poolers: Vec<PoolerStatus>,
    /// Sessions that are open.
    pub sessions_open: u64,
    /// The ring for payload.
    pub ring: Fill,
    /// Events that wait for the collector.
    pub queue: Fill,
    /// The number of them.
    pub queue_events: u64,
    /// Batches on disk that wait for the collector.
    #[serde(default)]
    pub spool: Fill,
    /// Batches that wait and are in memory alone, because the disk did not take them.
    #[serde(default)]
    pub batches_unspooled: u64,
    /// Seconds that the oldest batch waits.
    #[serde(default)]
    pub oldest_waiting_s: u64,
    /// The agent's own memory.
    pub memory: Fill,
    /// Whether payload is discarded because of that memory.
    pub memory_sheds: bool,
    /// Processor time taken, in milliseconds.
    pub cpu_ms: u64,
    /// Limit of it, in percent of one processor.
    pub cpu_percent_limit: Option<u32>,
    /// Where events go.
    pub collector: Option<CollectorStatus>,
    /// Everything that is counted, by name.
    pub counters: serde_json::Map<String, serde_json::Value>,
}

/// One of the agent's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Process id.
    pub pid: u32,
    /// What it does.
    pub role: String,
    /// The capabilities that it holds.
    pub capabilities: Vec<String>,
    /// What else it can do or not.
    pub confined: String,
}

/// A tapped server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Process id of the postmaster.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// Its data directory, where that is known.
    pub data_directory: Option<String>,
    /// How its encrypted sessions are read, or why not.
    pub encryption: String,
}

/// A pooler that is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolerStatus {
    /// Process id.
    pub pid: u32,
    /// Name of its executable.
    pub program: String,
    /// How its encrypted connections are read, or why not.
    pub encryption: String,
}

/// How full something is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// In use.
    pub used: u64,
    /// At the most.
    pub limit: u64,
}

/// The way to the collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorStatus {
    /// Where it is: the one that is connected, or was last, or is preferred.
    pub url: String,
    /// Its place in the list of collectors, from 1.
    #[serde(default)]
    pub place: u64,
    /// How many there are.
    #[serde(default)]
    pub of: u64,
    /// Whether a stream is open.
    pub connected: bool,
    /// For how many seconds.
    #[serde(default)]
    pub connected_s: u64,
    /// Times that another collector was connected than before.
    #[serde(default)]
    pub changes: u64,
    /// Batches without acknowledgement.
    pub batches_waiting: u64,
    /// Batches that collectors made durable.
    pub batches_acknowledged: u64,
}

/// A pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when, RFC 3339.
    pub since: String,
    /// Who: user id.
    pub uid: u32,
    /// Who: name of the login.
    pub login: String,
    /// Why.
    pub reason: String,
    /// Payload bytes discarded until now.
    pub bytes_discarded: u64,
}

/// The end of a pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// How long it was.
    pub paused_ms: u64,
    /// Payload bytes discarded in it.
    pub bytes_discarded: u64,
}

/// Who is at the other end of the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// User id, by the kernel.
    pub uid: u32,
    /// Name of the audit login; where there is none, of the user id.
    pub login: String,
}

/// What the main loop is told to do, and where the answer goes.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub request: Request,
    /// By whom.
    pub who: Who,
    /// To whom.
    pub answer: oneshot::Sender<Answer>,
}
