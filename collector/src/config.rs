//! The collector's configuration: defaults, then a TOML file, then `PGWITNESS_COLLECTOR__SECTION__KEY`, then flags.
//!
//! Owns names, defaults and bounds. How they are read, and what an error says, is `settings`, shared with the agent.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

mod access;
mod kubernetes;
mod metrics;
mod service_account;
mod store;

pub use access::{AccessConfig, HttpConfig, OidcConfig, ReadersTls, SqlConfig};
pub use kubernetes::KubernetesConfig;
pub use metrics::MetricsConfig;
use serde::{Deserialize, Serialize};
pub use service_account::ServiceAccountConfig;
pub(crate) use service_account::is_name;
pub use settings::SettingsError as ConfigError;
pub use store::StoreConfig;

use crate::{log::LogOptions, place::Place};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder for evidence and store.
    pub data: PathBuf,
    /// The file that says who is expected to do what; without one, nothing is marked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<PathBuf>,
    /// Where agents deliver.
    pub grpc: Listen<Place>,
    /// Where people and programs ask.
    pub http: HttpConfig,
    /// Where the views are asked over PostgreSQL's protocol.
    pub sql: SqlConfig,
    /// Who may ask.
    pub access: AccessConfig,
    /// Who may deliver.
    pub trust: TrustConfig,
    /// Metrics and health by themselves.
    pub metrics: MetricsConfig,
    /// The evidence log.
    pub log: LogConfig,
    /// Who is shown its checkpoints.
    pub publish: PublishConfig,
    /// How long payloads are kept.
    pub retention: RetentionConfig,
    /// Where the store lies.
    pub store: StoreConfig,
    /// Whose pods are named.
    pub kubernetes: KubernetesConfig,
}

/// How long payloads are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Days, 1 to 36,500, after which payload segments are removed; without it, none are. A hold is stronger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
}

/// Who is shown the log's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    /// Milliseconds between two rounds, 100 to 3,600,000.
    pub interval_ms: u64,
    /// Who is asked for a cosignature (<https://c2sp.org/tlog-witness>).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witness: Vec<WitnessConfig>,
    /// Where checkpoints are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<PushConfig>,
}

/// A witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its submission prefix, `http://…`.
    pub url: String,
    /// `<name>+<key id>+<key>`.
    pub key: String,
}

/// A place for checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushConfig {
    /// `file:///folder`, `http://host/path`, or `s3+http://host/bucket/prefix`.
    pub url: String,
    /// For S3: the region [default: us-east-1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// For S3: days for which an object cannot be deleted (object lock, compliance mode).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_days: Option<u32>,
    /// For S3: a file with the access key's id and the secret, a line each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
}

/// Who may deliver, and how agent and collector know each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// Whether agents deliver over mutual TLS; if it is not set, they do unless `grpc.listen` is loopback or a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Everybody may deliver, from other hosts, too, and nothing is encrypted.
    pub insecure: bool,
    /// Seconds for which an agent's certificate is good, 10 to 31,536,000.
    pub lifetime_s: u64,
    /// An operator's certificate for this collector, in PEM, in place of the collector's own authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The authorities of agents' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// Pods of this account of Kubernetes enrol themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountConfig>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen<P> {
    /// An address, or a socket.
    pub listen: P,
}

/// The evidence log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The log's origin is `pgwitness/<name>`; a new log without one gets eight random hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Milliseconds between checkpoints, 10 to 60,000.
    pub checkpoint_interval_ms: u64,
    /// Mebibytes after which a payload segment is closed, 1 to 4096.
    pub segment_mib: u64,
}

/// Flags that override file and environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--inventory`
    pub inventory: Option<PathBuf>,
    /// `--grpc`
    pub grpc: Option<Place>,
    /// `--http`
    pub http: Option<SocketAddr>,
    /// `--sql`
    pub sql: Option<SocketAddr>,
    /// `--insecure`
    pub insecure: bool,
}

/// Prefix of the variables; two underscores separate sections.
const ENVIRONMENT: &str = "PGWITNESS_COLLECTOR__";

impl Default for Config {
    fn default() -> Self {
        let data = if nix::unistd::geteuid().is_root() {
            "/var/lib/pgwitness-collector"
        } else {
            "./pgwitness-data"
        };
        Self {
            data: data.into(),
            inventory: None,
            grpc: Listen {
                listen: Place::Tcp(([127, 0, 0, 1], 7433).into()),
            },
            http: HttpConfig {
                listen: ([127, 0, 0, 1], 7480).into(),
                names: Vec::new(),
                tls: None,
            },
            sql: SqlConfig::default(),
            access: AccessConfig::default(),
            trust: TrustConfig {
                tls: None,
                insecure: false,
                lifetime_s: 30 * 86_400,
                certificate: None,
                key: None,
                authorities: None,
                service_account: None,
            },
            metrics: MetricsConfig::default(),
            log: LogConfig {
                name: None,
                checkpoint_interval_ms: 1000,
                segment_mib: 64,
            },
            publish: PublishConfig {
                interval_ms: 10_000,
                witness: Vec::new(),
                push: Vec::new(),
            },
            retention: RetentionConfig::default(),
            store: StoreConfig::default(),
            kubernetes: KubernetesConfig::default(),
        }
    }
}

impl Config {
    /// Reads and checks everything.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = settings::load(Self::default(), file, ENVIRONMENT)?;
        config.data = overrides.data.unwrap_or(config.data);
        config.inventory = overrides.inventory.or(config.inventory);
        config.grpc.listen = overrides.grpc.unwrap_or(config.grpc.listen);
        config.http.listen = overrides.http.unwrap_or(config.http.listen);
        config.sql.listen = overrides.sql.or(config.sql.listen);
        config.trust.insecure |= overrides.insecure;
        config.check()?;
        Ok(config)
    }

    /// Whether agents deliver over mutual TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        let elsewhere = match self.grpc.listen {
            Place::Tcp(address) => !address.ip().is_loopback(),
            Place::Unix(_) => false,
        };
        self.trust.tls.unwrap_or(elsewhere && !self.trust.insecure)
    }

    /// Whether others than this host can ask.
    #[must_use]
    pub fn exposed(&self) -> bool {
        self.http.exposed() || self.sql.exposed()
    }

    /// As a TOML file that says the same.
    #[must_use]
    pub fn effective(&self) -> String {
        let name = self.log.name.as_ref().map_or_else(
            || "# name is made up when the log is created\n".to_owned(),
            |name| format!("name = {name:?}\n"),
        );
        let inventory = self.inventory.as_ref().map_or_else(
            || "# no inventory: nothing is marked\n".to_owned(),
            |file| format!("inventory = {:?}\n", file.display().to_string()),
        );
        let (publish, store) = (self.publish.effective(), self.store.effective());
        let kubernetes = self.kubernetes.effective();
        let retention = match self.retention.keep_days {
            Some(days) => format!("keep_days = {days}\n"),
            None => "# without keep_days, payloads are kept for good\n".to_owned(),
        };
        let mut trust = format!(
            "insecure = {}\nlifetime_s = {}\n",
            self.trust.insecure, self.trust.lifetime_s
        );
        match self.trust.tls {
            Some(tls) => trust += &format!("tls = {tls}\n"),
            None => trust += &format!("# tls is {} by the address\n", self.tls()),
        }
        let files = [
            ("certificate", &self.trust.certificate),
            ("key", &self.trust.key),
            ("authorities", &self.trust.authorities),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                trust += &format!("{name} = {:?}\n", file.display().to_string());
            }
        }
        if let Some(account) = &self.trust.service_account {
            trust += &account.effective();
        }
        let http = self.http.effective()
            + &self.sql.effective()
            + &self.access.effective()
            + &self.metrics.effective();
        format!(
            "data = {:?}\n{inventory}\n[grpc]\nlisten = {:?}\n{http}\n[trust]\n{trust}\n[log]\n{name}checkpoint_interval_ms = {}\nsegment_mib = {}\n\n[retention]\n{retention}{store}{kubernetes}{publish}",
            self.data.display().to_string(),
            self.grpc.listen.to_string(),
            self.log.checkpoint_interval_ms,
            self.log.segment_mib
        )
    }

    /// How the log is to be kept.
    #[must_use]
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            name: self.log.name.clone(),
            checkpoint_interval: Duration::from_millis(self.log.checkpoint_interval_ms),
            segment_bytes: self.log.segment_mib << 20,
        }
    }

    /// Certificates are given out by the collector's own authority alone.
    fn check_service_account(&self) -> Result<(), ConfigError> {
        let Some(account) = &self.trust.service_account else {
            return Ok(());
        };
        if self.trust.certificate.is_some() || !self.tls() {
            return Err(ConfigError::Value {
                key: "trust.service_account.name",
                value: format!("{:?}", account.name),
                expected: "who enrols gets a certificate of the collector's own authority: it goes with TLS, and without trust.certificate",
            });
        }
        account.check()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, expected| Err(ConfigError::Value { key, value, expected });
        match self.grpc.listen {
            Place::Tcp(address) if !address.ip().is_loopback() && !self.tls() && !self.trust.insecure => {
                let expected = "on another address than loopback agents deliver over TLS: leave out trust.tls = false, or say \
                                --insecure if anybody who reaches this port may deliver, and read what others do";
                return refuse("grpc.listen", address.to_string(), expected);
            }
            Place::Unix(_) if self.tls() => {
                return refuse(
                    "trust.tls",
                    "true".to_owned(),
                    "a Unix socket has no TLS: its mode says who may deliver",
                );
            }
            _ => {}
        }
        if self.trust.insecure && self.trust.tls == Some(true) {
            return refuse("trust.insecure", "true".to_owned(), "with TLS it cannot be said");
        }
        self.http.check()?;
        self.sql.check(&self.http)?;
        self.access.check(self.exposed())?;
        self.store.check()?;
        self.kubernetes.check()?;
        self.metrics.check()?;
        self.check_service_account()?;
        if !(10..=31_536_000).contains(&self.trust.lifetime_s) {
            let value = self.trust.lifetime_s.to_string();
            return refuse("trust.lifetime_s", value, "it must be 10 to 31536000");
        }
        let given = [&self.trust.certificate, &self.trust.key, &self.trust.authorities];
        if given.iter().any(|file| file.is_some()) && given.iter().any(|file| file.is_none()) {
            let expected = "trust.certificate, trust.key and trust.authorities go together: all of them are the operator's, or none";
            return refuse("trust.certificate", "alone".to_owned(), expected);
        }
        if !(10..=60_000).contains(&self.log.checkpoint_interval_ms) {
            let value = self.log.checkpoint_interval_ms.to_string();
            return Err(ConfigError::Value {
                key: "log.checkpoint_interval_ms",
                value,
                expected: "it must be 10 to 60000",
            });
        }
        if !(1..=4096).contains(&self.log.segment_mib) {
            let value = self.log.segment_mib.to_string();
            return Err(ConfigError::Value {
                key: "log.segment_mib",
                value,
                expected: "it must be 1 to 4096",
            });
        }
        if let Some(days) = self
            .retention
            .keep_days
            .filter(|days| !(1..=36_500).contains(days))
        {
            let value = days.to_string();
            return refuse("retention.keep_days", value, "it must be 1 to 36500");
        }
        if !(100..=3_600_000).contains(&self.publish.interval_ms) {
            return Err(ConfigError::Value {
                key: "publish.interval_ms",
                value: self.publish.interval_ms.to_string(),
                expected: "it must be 100 to 3600000",
            });
        }
        if let Some(name) = self.log.name.as_ref().filter(|name| !evidence::is_agent_id(name)) {
            let expected = "it must be 1 to 64 characters of [a-z0-9.-]";
            return Err(ConfigError::Value {
                key: "log.name",
                value: format!("{name:?}"),
                expected,
            });
        }
        Ok(())
    }
}

impl PublishConfig {
    fn effective(&self) -> String {
        let mut text = format!("\n[publish]\ninterval_ms = {}\n", self.interval_ms);
        for witness in &self.witness {
            text += &format!(
                "\n[[publish.witness]]\nurl = {:?}\nkey = {:?}\n",
                witness.url, witness.key
            );
        }
        for push in &self.push {
            text += &format!("\n[[publish.push]]\nurl = {:?}\n", push.url);
            if let Some(region) = &push.region {
                text += &format!("region = {region:?}\n");
            }
            if let Some(days) = push.lock_days {
                text += &format!("lock_days = {days}\n");
            }
            if let Some(file) = &push.credentials {
                text += &format!("credentials = {:?}\n", file.display().to_string());
            }
        }
        text
    }
}
