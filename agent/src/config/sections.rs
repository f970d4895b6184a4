//! The sections of the configuration file, each key with its meaning and bounds.

use std::{net::SocketAddr, path::PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tap_core::{Named, Names};

use crate::capture::{AtReturn, Tier};

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// 1 to 64 characters of `[a-z0-9.-]`; made from the host's name and the key if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the host in principals; the host's own if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Trust domain of principals.
    pub trust_domain: String,
}

/// The tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapConfig {
    /// Only servers with one of these data directories; empty: all that run on this host.
    pub data_directories: Vec<PathBuf>,
    /// Only servers and clients in this cgroup or below it: whatever else this kernel runs is as if it were on another host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Whether it is told whose connections lead from this host to servers elsewhere.
    pub flows: bool,
    /// Whether poolers of this host are followed, so that what they pass on is their clients'.
    pub poolers: bool,
    /// Names of executables that are poolers, too, beside the known ones.
    pub pooler_programs: Vec<String>,
    /// `auto`, `a` or `b`: how sockets are tapped.
    pub tier: TierConfig,
    /// `auto`, `always` or `unconfined`: which servers may be probed at the return of a function, without which encrypted
    /// sessions are not read.
    pub uretprobes: AtReturn,
    /// Mebibytes of the ring for payload, 1 to 1024; rounded up to a power of two. By processors and memory of the host if
    /// it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_mib: Option<u32>,
}

/// Events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsConfig {
    /// `literals` or `clear`.
    pub redaction: RedactionConfig,
    /// Seconds between heartbeats, 1 to 3600.
    pub heartbeat_s: u64,
    /// Settings of a session by which clients name who is behind it, the most trusted first: none
    /// at all if it is empty.
    pub asserted_settings: Vec<AssertedName>,
    /// Keys in comments that say such things.
    pub asserted_comments: Vec<String>,
}

/// How much is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// The file that says which statements are put together with their equals, and which are counted only; without one, each
    /// is recorded in full. Read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// Seconds for which equal statements are put together, 1 to 300.
    pub window_s: u64,
}

/// A setting by which clients say something about themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertedName {
    /// The setting: `app.end_user`.
    pub name: String,
    /// Its value is a JSON object, and this member of it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Under which key it stands in events: `end_user`, `tenant`, …
    pub says: String,
}

/// Clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Variables of a client's environment that say which run it belongs to (a CI job, a batch, an agent's task): their
    /// values are recorded, cut to 256 bytes; no other variable is. Empty: environments are not looked at.
    pub run_variables: Vec<String>,
    /// File with the key that all agents share whose hosts' connections are to be joined: it hides their sequence numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet_key: Option<PathBuf>,
}

/// Sensitive columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectsConfig {
    /// File that says which columns are sensitive; none are, and values are looked at nowhere, if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<PathBuf>,
    /// File with the key by which their values become tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_key: Option<PathBuf>,
}

/// What of a statement's text is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RedactionConfig {
    /// Literals are replaced, comments dropped.
    Literals,
    /// The text as it was sent, passwords masked: for forensics and tests.
    Clear,
}

/// How sockets are tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TierConfig {
    /// The best way that this kernel has.
    Auto,
    /// Behind the kernel's own socket functions (Linux 6.3 and later): only socket calls pay.
    A,
    /// Behind every system call (Linux 5.8 and later).
    B,
}

impl TierConfig {
    /// The tier to insist on.
    pub fn wished(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::A => Some(Tier::A),
            Self::B => Some(Tier::B),
        }
    }
}

impl From<Named> for AssertedName {
    fn from(named: Named) -> Self {
        Self {
            name: named.name,
            member: named.member,
            says: named.says,
        }
    }
}

impl EventsConfig {
    /// What clients may say about themselves.
    pub fn names(&self) -> Names {
        Names {
            settings: self
                .asserted_settings
                .iter()
                .map(|named| Named {
                    name: named.name.clone(),
                    member: named.member.clone(),
                    says: named.says.clone(),
                })
                .collect(),
            comments: self
                .asserted_comments
                .iter()
                .map(|key| Named::comment(key))
                .collect(),
        }
    }
}

impl From<RedactionConfig> for tap_core::Redaction {
    fn from(config: RedactionConfig) -> Self {
        match config {
            RedactionConfig::Literals => Self::Literals,
            RedactionConfig::Clear => Self::Clear,
        }
    }
}

/// Delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryConfig {
    /// The collectors' URLs, the preferred first: batches go to one at a time. Without any, events are only printed.
    pub collectors: Vec<String>,
    /// An operator's certificates, in place of those that enrolling gives.
    #[serde(default, skip_serializing_if = "TlsConfig::is_empty")]
    pub tls: TlsConfig,
    /// Mebibytes of events that wait for the collector in memory; what is beyond is dropped, counted and told.
    pub queue_mib: u64,
}

/// An operator's certificates, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The authorities of the collector's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// The agent's certificate, which names its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl TlsConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The files that are set.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.authorities, &self.certificate, &self.key]
            .into_iter()
            .flatten()
    }
}

/// The spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// Bytes of sealed batches that wait for a collector on disk, in the state folder, 64 KiB to 1 TiB.
    pub max_bytes: u64,
    /// What is done when they are there.
    pub when_full: WhenFull,
}

/// What a full spool keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// What is there: no more is sealed, and what comes waits in memory (`delivery.queue_mib`), until that is full, too, and new events
    /// are dropped.
    KeepOldest,
    /// What comes: the oldest batches that are not acknowledged are dropped, about an eighth of the spool at a time.
    DropOldest,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Not served if it is not set. Another address than loopback takes `insecure`, because there is no authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Whoever reaches that address reads the counters: for a network that says by itself who does.
    pub insecure: bool,
}

/// What the agent may take of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Mebibytes of the agent's own memory, without the rings; beyond, payload is discarded, counted and told. 448 more than
    /// the queue if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Processor time in percent of one processor, 1 to 10000; no limit if it is not set. Beyond, the agent rests, and what
    /// the rings cannot hold meanwhile is lost, counted and told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Processes of servers that are followed at once, 1 to 1048576; 65536 if it is not set. Beyond, processes are not seen,
    /// counted and told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_processes: Option<u32>,
    /// Connections of this host's own clients whose opener is remembered at once, 1 to 1048576; 65536 if it is not set.
    /// Beyond, clients stay without a name, counted and told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_connections: Option<u32>,
}

/// The control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Its place; [`Config::control_socket`] if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}
