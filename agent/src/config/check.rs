//! Whether a configuration can be used: what types cannot say.

use std::net::SocketAddr;

use settings::SettingsError;

use super::{Config, UNIX};
use crate::{
    catalog::MAX_DATABASES,
    facts::poolers,
    trust::{Place, TLS},
};

/// What the agent needs beside the queue at the least.
const BESIDE_QUEUE_LEAST_MIB: u64 = 64;

/// The most processes, or connections, that the kernel side can be asked to keep.
const KEPT_MOST: u32 = 1 << 20;

/// Variables that are looked for at the most, each through every environment.
const RUN_VARIABLES: usize = 64;

/// Collectors that an agent knows: each is looked up and renews its certificates by itself.
const COLLECTORS: usize = 8;

type Checked = Result<(), SettingsError>;

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// Names the key and what it must be.
    pub fn check(&self) -> Checked {
        self.check_names()?;
        self.check_poolers()?;
        self.check_sizes()?;
        self.check_times()?;
        self.check_catalog()?;
        let exposed = self.metrics.listen.filter(|address| !address.ip().is_loopback());
        if let Some(address) = exposed.filter(|_| !self.metrics.insecure) {
            let expected = "there is no authentication, so only a loopback address (127.0.0.1, ::1) is allowed, unless \
                            metrics.insecure = true says that whoever reaches it may read the counters";
            return refuse("metrics.listen", address.to_string(), expected);
        }
        self.check_within()?;
        self.check_delivery()
    }

    fn check_names(&self) -> Checked {
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
        Ok(())
    }

    fn check_poolers(&self) -> Checked {
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
        Ok(())
    }

    fn check_sizes(&self) -> Checked {
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
        Ok(())
    }

    fn check_times(&self) -> Checked {
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
        Ok(())
    }

    fn check_catalog(&self) -> Checked {
        if let Some((value, expected)) = self.catalog.iter().find_map(|catalog| catalog.check().err()) {
            return refuse("catalog", value, expected);
        }
        let databases: usize = self.catalog.iter().map(|catalog| catalog.databases.len()).sum();
        if databases > MAX_DATABASES {
            let expected = "it must have 64 databases at the most: each takes a connection";
            return refuse("catalog", format!("{databases} databases"), expected);
        }
        Ok(())
    }

    fn check_within(&self) -> Checked {
        let Some(path) = &self.tap.within else {
            return Ok(());
        };
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
        Ok(())
    }

    fn check_delivery(&self) -> Checked {
        let collectors = &self.delivery.collectors;
        if collectors.len() > COLLECTORS {
            let expected = "it must be 8 collectors at the most";
            return refuse("delivery.collectors", collectors.len().to_string(), expected);
        }
        for (nth, url) in collectors.iter().enumerate() {
            if collectors.iter().take(nth).any(|before| before == url) {
                return refuse("delivery.collectors", format!("{url:?} twice"), "once is enough");
            }
            check_collector(url)?;
        }
        let given = self.delivery.tls.files().count();
        if given != 0 && (given != 3 || !collectors.iter().any(|url| url.starts_with(TLS))) {
            let expected = "delivery.tls.authorities, .certificate and .key go together, and with a collector at https://";
            return refuse("delivery.tls", format!("{given} of 3 files"), expected);
        }
        Ok(())
    }
}

fn check_collector(url: &str) -> Checked {
    let wrong = |expected| refuse("delivery.collectors", format!("{url:?}"), expected);
    if let Some(path) = url.strip_prefix(UNIX) {
        return match path.starts_with('/') {
            true => Ok(()),
            false => wrong("behind unix: there must be an absolute path"),
        };
    }
    if url.starts_with(TLS) {
        return match Place::of(url) {
            Some(_) => Ok(()),
            None => wrong(
                "it must be https://, the collector's name or address, and its port, as in https://collector.example:7433",
            ),
        };
    }
    let host = url.strip_prefix("http://").unwrap_or_default();
    let address = host.strip_suffix('/').unwrap_or(host).parse::<SocketAddr>();
    match address.is_ok_and(|address| address.ip().is_loopback() && address.port() != 0) {
        true => Ok(()),
        false => wrong(
            "it must be https:// and a place that this host is enrolled at, as in https://collector.example:7433, or, on \
             the collector's own host, http:// and a loopback address with a port, as in http://127.0.0.1:7433, or \
             unix: and the path of its socket",
        ),
    }
}

fn refuse(key: &'static str, value: String, expected: &'static str) -> Checked {
    Err(SettingsError::Value { key, value, expected })
}
