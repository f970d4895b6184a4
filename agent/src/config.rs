//! The agent's configuration: defaults, then a TOML file, then `PGWITNESS_AGENT__SECTION__KEY`, then flags.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use settings::SettingsError;
use tap_core::{Named, Names};

use crate::{
    capture::{AtReturn, Sizes, Tier},
    catalog::{CatalogConfig, MAX_DATABASES},
    facts::poolers::{self, Poolers},
    limits,
    trust::{Place, TLS},
};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder for the agent's key and state.
    pub state_dir: PathBuf,
    /// Who the agent is.
    pub agent: AgentConfig,
    /// Which servers are tapped, and how much memory that may take.
    pub tap: TapConfig,
    /// What is recorded of statements.
    pub events: EventsConfig,
    /// How much of it.
    pub volume: VolumeConfig,
    /// What is recorded of clients.
    pub identity: IdentityConfig,
    /// Whose records statements touch.
    pub subjects: SubjectsConfig,
    /// Servers whose catalogs are looked at, so that names are theirs; none if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catalog: Vec<CatalogConfig>,
    /// Where events go.
    pub delivery: DeliveryConfig,
    /// What waits on disk until it is there.
    pub spool: SpoolConfig,
    /// Prometheus metrics.
    pub metrics: MetricsConfig,
    /// What the agent may take of the host.
    pub limits: LimitsConfig,
    /// The socket of `status`, `pause` and `resume`.
    pub control: ControlConfig,
}

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
    /// The collector's URL; without one, events are only printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<String>,
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
    /// Bytes of sealed batches that wait for the collector on disk, in the state folder, 64 KiB to 1 TiB. When they are there, no
    /// more is sealed, and what comes waits in memory (`delivery.queue_mib`).
    pub max_bytes: u64,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Loopback only, because there is no authentication; not served if it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
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

/// Where the state is by default.
const STATE_FOLDER: &str = "/var/lib/pgwitness-agent";

/// Where the agent with the default state folder is asked.
const CONTROL_SOCKET: &str = "/run/pgwitness-agent/control.sock";

/// What the agent needs beside the queue at the least, and what it gets if nothing is set.
const BESIDE_QUEUE_LEAST_MIB: u64 = 64;
const BESIDE_QUEUE_MIB: u64 = 448;

/// Processes and connections that the kernel side keeps at once, and the most that can be asked for: some 200 bytes each,
/// taken at the start.
const KEPT: u32 = 65_536;
const KEPT_MOST: u32 = 1 << 20;

/// Bytes of the ring for what poolers do with their sockets: 52,000 calls, half a second of a pooler that is busy on one
/// processor.
const TRANSFERS: u32 = 4 << 20;

/// Where poolers are not followed: a page, the least that a ring can be.
const NO_TRANSFERS: u32 = 4096;

/// Variables that are looked for at the most, each through every environment.
const RUN_VARIABLES: usize = 64;

/// What a collector's place begins with if it is a Unix socket; its path follows.
pub const UNIX: &str = "unix:";

/// Prefix of the variables.
pub const ENVIRONMENT: &str = "PGWITNESS_AGENT__";

impl Default for Config {
    fn default() -> Self {
        let names = Names::default();
        Self {
            state_dir: STATE_FOLDER.into(),
            agent: AgentConfig {
                id: None,
                host: None,
                trust_domain: "pgwitness.local".to_owned(),
            },
            tap: TapConfig {
                data_directories: Vec::new(),
                within: None,
                flows: true,
                poolers: true,
                pooler_programs: Vec::new(),
                tier: TierConfig::Auto,
                uretprobes: AtReturn::Auto,
                ring_mib: None,
            },
            events: EventsConfig {
                redaction: RedactionConfig::Literals,
                heartbeat_s: 10,
                asserted_settings: names.settings.into_iter().map(AssertedName::from).collect(),
                asserted_comments: names.comments.into_iter().map(|named| named.name).collect(),
            },
            volume: VolumeConfig {
                policy: None,
                window_s: 10,
            },
            identity: IdentityConfig {
                run_variables: attribution::DEFAULT_VARIABLES
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect(),
                fleet_key: None,
            },
            subjects: SubjectsConfig::default(),
            catalog: Vec::new(),
            delivery: DeliveryConfig {
                collector: None,
                tls: TlsConfig::default(),
                queue_mib: 64,
            },
            spool: SpoolConfig { max_bytes: 1 << 30 },
            metrics: MetricsConfig { listen: None },
            limits: LimitsConfig::default(),
            control: ControlConfig::default(),
        }
    }
}

impl Config {
    /// Mebibytes of the agent's own memory.
    pub fn memory_mib(&self) -> u64 {
        let default = self.delivery.queue_mib + BESIDE_QUEUE_MIB;
        self.limits.memory_mib.unwrap_or(default)
    }

    /// Bytes of the ring for payload.
    pub fn ring_bytes(&self) -> u32 {
        let mib = self.tap.ring_mib.unwrap_or_else(limits::ring_mib_here);
        (mib << 20).next_power_of_two()
    }

    /// What is handed to the kernel side: sizes of rings and maps. `facts` are the bytes of the ring for facts.
    pub fn sizes(&self, facts: u32) -> Sizes {
        Sizes {
            segments: self.ring_bytes(),
            facts,
            processes: self.limits.server_processes.unwrap_or(KEPT),
            connections: self.limits.client_connections.unwrap_or(KEPT),
            transfers: if self.tap.poolers { TRANSFERS } else { NO_TRANSFERS },
        }
    }

    /// Which programs are followed as poolers.
    pub fn poolers(&self) -> Poolers {
        let known = attribution::pooler_programs().map(str::to_owned);
        let programs = known.chain(self.tap.pooler_programs.iter().cloned());
        Poolers {
            programs: programs.filter(|_| self.tap.poolers).collect(),
            within: self.tap.within.clone(),
        }
    }

    /// Where the agent is asked and steered: as set, else one known place, else, for an agent with a state folder of its
    /// own, in there. Two agents never share a state folder, so that they do not share a socket either.
    pub fn control_socket(&self) -> PathBuf {
        match &self.control.socket {
            Some(path) => path.clone(),
            None if self.state_dir == Path::new(STATE_FOLDER) => CONTROL_SOCKET.into(),
            None => self.state_dir.join("control.sock"),
        }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// Names the key and what it must be.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key, value: String, expected| Err(SettingsError::Value { key, value, expected });
        let is_name = |name: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
            (1..=64).contains(&name.len()) && name.bytes().all(allowed)
        };
        const NAME: &str = "it must be 1 to 64 characters of [a-z0-9.-]";
        let names = [
            ("agent.id", self.agent.id.as_deref()),
            ("agent.host", self.agent.host.as_deref()),
            ("agent.trust_domain", Some(self.agent.trust_domain.as_str())),
        ];
        for (key, name) in names {
            if let Some(name) = name.filter(|name| !is_name(name)) {
                return refuse(key, format!("{name:?}"), NAME);
            }
        }
        let is_variable = |name: &String| {
            (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let variables = &self.identity.run_variables;
        if let Some(name) = variables.iter().find(|name| !is_variable(name)) {
            let expected = "it must be names of variables, 1 to 64 characters of [A-Za-z0-9_]";
            return refuse("identity.run_variables", format!("{name:?}"), expected);
        }
        if variables.len() > RUN_VARIABLES {
            let expected = "it must be 64 names at the most";
            return refuse("identity.run_variables", variables.len().to_string(), expected);
        }
        let programs = &self.tap.pooler_programs;
        if let Some(name) = programs.iter().find(|name| !poolers::is_program(name)) {
            let expected =
                "it must be names of executables without their folder, 1 to 64 printable characters";
            return refuse("tap.pooler_programs", format!("{name:?}"), expected);
        }
        if programs.len() > poolers::PROGRAMS {
            let expected = "it must be 32 names at the most";
            return refuse("tap.pooler_programs", programs.len().to_string(), expected);
        }
        if let Some(mib) = self.tap.ring_mib.filter(|mib| !(1..=1024).contains(mib)) {
            return refuse("tap.ring_mib", mib.to_string(), "it must be 1 to 1024");
        }
        if !(1..=65_536).contains(&self.delivery.queue_mib) {
            return refuse(
                "delivery.queue_mib",
                self.delivery.queue_mib.to_string(),
                "it must be 1 to 65536",
            );
        }
        let spool = self.spool.max_bytes;
        if !(1 << 16..=1 << 40).contains(&spool) {
            let expected = "it must be 65536 to 1099511627776 (1 TiB)";
            return refuse("spool.max_bytes", spool.to_string(), expected);
        }
        let memory = self.limits.memory_mib;
        let allowed = self.delivery.queue_mib + BESIDE_QUEUE_LEAST_MIB..=1_048_576;
        if let Some(mib) = memory.filter(|mib| !allowed.contains(mib)) {
            return refuse(
                "limits.memory_mib",
                mib.to_string(),
                "it must be at least 64 more than delivery.queue_mib, and at most 1048576",
            );
        }
        if let Some(percent) = self.limits.cpu_percent.filter(|p| !(1..=10_000).contains(p)) {
            return refuse(
                "limits.cpu_percent",
                percent.to_string(),
                "it must be 1 to 10000 (percent of one processor)",
            );
        }
        let kept = [
            ("limits.server_processes", self.limits.server_processes),
            ("limits.client_connections", self.limits.client_connections),
        ];
        for (key, count) in kept {
            if let Some(count) = count.filter(|count| !(1..=KEPT_MOST).contains(count)) {
                return refuse(key, count.to_string(), "it must be 1 to 1048576");
            }
        }
        if !(1..=3600).contains(&self.events.heartbeat_s) {
            return refuse(
                "events.heartbeat_s",
                self.events.heartbeat_s.to_string(),
                "it must be 1 to 3600",
            );
        }
        if !(1..=300).contains(&self.volume.window_s) {
            return refuse(
                "volume.window_s",
                self.volume.window_s.to_string(),
                "it must be 1 to 300",
            );
        }
        if let Some((value, expected)) = self.catalog.iter().find_map(|catalog| catalog.check().err()) {
            return refuse("catalog", value, expected);
        }
        let databases: usize = self.catalog.iter().map(|catalog| catalog.databases.len()).sum();
        if databases > MAX_DATABASES {
            let expected = "it must have 64 databases at the most: each takes a connection";
            return refuse("catalog", format!("{databases} databases"), expected);
        }
        if let Some(address) = self.metrics.listen.filter(|address| !address.ip().is_loopback()) {
            let expected =
                "there is no authentication, so only a loopback address (127.0.0.1, ::1) is allowed";
            return refuse("metrics.listen", address.to_string(), expected);
        }
        if let Some(path) = &self.tap.within {
            let components = path.strip_prefix('/').map(|below| below.split('/'));
            let is_plain = |part: &str| !["", ".", ".."].contains(&part);
            if !components.is_some_and(|mut parts| parts.all(is_plain)) {
                let expected =
                    "it must be the path of a cgroup from the root of its hierarchy, as in /kind/node-1";
                return refuse("tap.within", format!("{path:?}"), expected);
            }
            if self.agent.host.is_none() {
                let expected = "it takes a host's name of its own in agent.host, because principals of two such agents \
                                must differ";
                return refuse("tap.within", format!("{path:?}"), expected);
            }
        }
        let at_socket = self
            .delivery
            .collector
            .as_deref()
            .and_then(|place| place.strip_prefix(UNIX));
        if let Some(path) = at_socket.filter(|path| !path.starts_with('/')) {
            let expected = "behind unix: there must be an absolute path";
            return refuse("delivery.collector", format!("{UNIX}{path}"), expected);
        }
        let given = self.delivery.tls.files().count();
        let over_tls = self
            .delivery
            .collector
            .as_ref()
            .filter(|url| url.starts_with(TLS));
        if given != 0 && (given != 3 || over_tls.is_none()) {
            let expected = "delivery.tls.authorities, .certificate and .key go together, and with a collector at https://";
            return refuse("delivery.tls", format!("{given} of 3 files"), expected);
        }
        if let Some(url) = over_tls.filter(|url| Place::of(url).is_none()) {
            let expected = "it must be https://, the collector's name or address, and its port, as in https://collector.example:7433";
            return refuse("delivery.collector", format!("{url:?}"), expected);
        }
        let in_the_clear = self
            .delivery
            .collector
            .as_ref()
            .filter(|_| at_socket.is_none() && over_tls.is_none());
        if let Some(url) = in_the_clear {
            let host = url.strip_prefix("http://").unwrap_or_default();
            let host = host.strip_suffix('/').unwrap_or(host);
            if !host
                .parse::<SocketAddr>()
                .is_ok_and(|address| address.ip().is_loopback() && address.port() != 0)
            {
                let expected = "it must be https:// and a place that this host is enrolled at, as in https://collector.example:7433, or, on \
                                the collector's own host, http:// and a loopback address with a port, as in http://127.0.0.1:7433, or \
                                unix: and the path of its socket";
                return refuse("delivery.collector", format!("{url:?}"), expected);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
