//! The agent's configuration: defaults, then a TOML file, then `PGWITNESS_AGENT__SECTION__KEY`, then flags.
//!
//! Owns the defaults and what follows from several keys. The sections are in `sections`, what their values must be in `check`.

mod check;
mod sections;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use sections::{
    AgentConfig, AssertedName, ControlConfig, DeliveryConfig, EventsConfig, IdentityConfig, LimitsConfig,
    MetricsConfig, RedactionConfig, SpoolConfig, SubjectsConfig, TapConfig, TierConfig, TlsConfig,
    VolumeConfig, WhenFull,
};
use serde::{Deserialize, Serialize};
use tap_core::Names;

use crate::{
    capture::{AtReturn, Sizes},
    catalog::CatalogConfig,
    facts::poolers::Poolers,
    limits,
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

/// Where the state is by default.
const STATE_FOLDER: &str = "/var/lib/pgwitness-agent";

/// Where the agent with the default state folder is asked.
const CONTROL_SOCKET: &str = "/run/pgwitness-agent/control.sock";

/// What the agent gets beside the queue if nothing is set.
const BESIDE_QUEUE_MIB: u64 = 448;

/// Processes and connections that the kernel side keeps at once: some 200 bytes each, taken at the start.
const KEPT: u32 = 65_536;

/// Bytes of the ring for what poolers do with their sockets: 52,000 calls, half a second of a pooler that is busy on one
/// processor.
const TRANSFERS: u32 = 4 << 20;

/// Where poolers are not followed: a page, the least that a ring can be.
const NO_TRANSFERS: u32 = 4096;

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
                collectors: Vec::new(),
                tls: TlsConfig::default(),
                queue_mib: 64,
            },
            spool: SpoolConfig {
                max_bytes: 1 << 30,
                when_full: WhenFull::KeepOldest,
            },
            metrics: MetricsConfig {
                listen: None,
                insecure: false,
            },
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
}
