//! pgwitness under measurement: its programs, each in a cgroup of its own, and what they say about themselves.
//!
//! The agent is started for each measurement and ended behind it, because only then is nothing attached in the others'
//! turns. The collector lives through all of them, as it does with its users, so that what it does now and then counts
//! too; in the others' turns it is stopped (SIGSTOP) and uses nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use pgwitness_tests::{cluster::free_port, process::Process, record::query_live};
use serde_json::Value;
use tempfile::TempDir;

use super::account::{Account, Parties};

/// The programs to measure.
#[derive(clap::Args)]
pub(crate) struct Programs {
    /// The agent's program
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// The collector's program
    #[arg(long, value_name = "FILE")]
    collector: PathBuf,
}

/// A collector, and the folder that agents keep their state in.
pub(crate) struct Watch {
    collector: Process,
    agent_program: PathBuf,
    folder: TempDir,
    grpc_port: u16,
    http_port: u16,
    pub(crate) agent_account: Account,
    pub(crate) collector_account: Account,
}

/// An agent that taps one server.
pub(crate) struct Attached {
    pub(crate) process: Process,
    log: PathBuf,
    metrics_port: u16,
}

/// Counters and gauges by their names without `pgwitness_agent_` and `_total`.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// Counters that are zero unless something was lost.
const LOSSES: [&str; 15] = [
    "ring_full",
    "copy_fault",
    "unsupported_call",
    "call_cap",
    "facts_lost",
    "targets_full",
    "owners_full",
    "flows_full",
    "plaintext_unplaced",
    "program_missed",
    "probe_missed",
    "malformed",
    "queue_dropped",
    "memory_limit_bytes",
    "paused_bytes",
];

const READY_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long what was recorded may take to be delivered; a flood of minutes leaves no more than a queue's worth.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

impl Watch {
    /// Starts the collector.
    pub(crate) async fn begin(parties: &Parties, programs: &Programs) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-watch-")?;
        let (grpc_port, http_port) = (free_port()?, free_port()?);
        let collector_account = parties.watcher("collector")?;
        let mut command = collector_account.command(&programs.collector);
        command
            .arg("serve")
            .arg("--data")
            .arg(folder.path().join("collector"))
            .args(["--grpc", &format!("127.0.0.1:{grpc_port}")])
            .args(["--http", &format!("127.0.0.1:{http_port}")]);
        let log = folder.path().join("collector.log");
        let mut collector = start("pgwitness-collector", command, &log)?;
        let deadline = Instant::now() + READY_PATIENCE;
        for port in [grpc_port, http_port] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                if collector.ended()?.is_some() || Instant::now() > deadline {
                    bail!("the collector is not ready:\n{}", fs::read_to_string(&log)?);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(Self {
            collector,
            agent_program: programs.agent.clone(),
            folder,
            grpc_port,
            http_port,
            agent_account: parties.watcher("agent")?,
            collector_account,
        })
    }

    /// Keeps the collector from doing anything in the others' turns.
    pub(crate) fn halt(&mut self) -> Result<()> {
        self.collector.signal(Signal::SIGSTOP)
    }

    /// Starts an agent that taps the server with this data folder, and waits until it does.
    pub(crate) async fn attach(&mut self, server: &Path, ring_mib: Option<u32>) -> Result<Attached> {
        self.collector.signal(Signal::SIGCONT)?;
        let metrics_port = free_port()?;
        let mut command = self.agent_account.command(&self.agent_program);
        command
            .arg("run")
            .args(["--collector", &format!("http://127.0.0.1:{}", self.grpc_port)])
            .args(["--metrics", &format!("127.0.0.1:{metrics_port}")])
            .arg("--data-dir")
            .arg(server)
            .arg("--state-dir")
            .arg(self.folder.path().join("agent"))
            .env_clear();
        if let Some(ring_mib) = ring_mib {
            command.env("PGWITNESS_AGENT__TAP__RING_MIB", ring_mib.to_string());
        }
        let log = self.folder.path().join("agent.log");
        let mut process = start("pgwitness-agent", command, &log)?;
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let said = fs::read_to_string(&log)?;
            if said.contains("ready:") && said.contains("connected to the collector") {
                break;
            }
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("the agent is not ready:\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Attached {
            process,
            log,
            metrics_port,
        })
    }

    /// Rows of one question to the collector.
    pub(crate) fn ask(&self, sql: &str) -> Result<Vec<Value>> {
        query_live(self.http_port, sql)
    }

    /// Ends the collector.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.collector.signal(Signal::SIGCONT)?;
        let status = self.collector.stop(Signal::SIGTERM, STOP_PATIENCE).await?;
        ensure!(status.success(), "the collector ended with {status}");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A stopped process does not hear that it should end.
        let _ = self.collector.signal(Signal::SIGCONT);
    }
}

impl Attached {
    /// What the agent counts.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.metrics_port)).context("asking for the agent's metrics")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(metrics(&text))
    }

    /// Waits until everything that was captured is acknowledged, and returns the counters then.
    pub(crate) async fn drained(&self) -> Result<Metrics> {
        let deadline = Instant::now() + DRAIN_PATIENCE;
        let (mut last, mut quiet) = (self.metrics()?, 0);
        while quiet < 4 {
            ensure!(
                Instant::now() < deadline,
                "the agent does not come to rest: {last:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.metrics()?;
            let of = |metrics: &Metrics, name: &str| metrics.get(name).copied().unwrap_or(0.0);
            let rests = of(&now, "queue_events") == 0.0
                && of(&now, "batches_waiting") == 0.0
                && of(&now, "events") == of(&last, "events");
            quiet = if rests { quiet + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// Memory that both its processes hold now, the mapped rings included, in MiB. Each page counts once: the kernel maps the data
    /// of a ring twice, and both processes run the same program.
    pub(crate) fn resident_mib(&self) -> Option<f64> {
        let resident = |pid: u32| {
            let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = maps.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
        };
        let broker = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{broker}/task/{broker}/children")).ok()?;
        let parser = children.split_whitespace().next()?.parse().ok()?;
        Some(resident(broker)? + resident(parser)?)
    }

    /// Ends it; the kernel side is detached behind this.
    pub(crate) async fn end(mut self) -> Result<()> {
        let status = self.process.stop(Signal::SIGTERM, STOP_PATIENCE).await?;
        ensure!(
            status.success(),
            "the agent ended with {status}:\n{}",
            fs::read_to_string(&self.log)?
        );
        Ok(())
    }
}

/// What was lost, by reason; nothing if nothing was.
pub(crate) fn losses(metrics: &Metrics) -> BTreeMap<String, u64> {
    LOSSES
        .iter()
        .filter_map(|name| Some((*name, *metrics.get(*name)? as u64)))
        .filter(|(_, value)| *value > 0)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn metrics(text: &str) -> Metrics {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("pgwitness_agent_")?.split_once(' ')?;
            Some((name.trim_end_matches("_total").to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn start(name: &str, mut command: std::process::Command, log: &Path) -> Result<Process> {
    let log = File::create(log).with_context(|| format!("opening the log of {name}"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Process::start(name, &mut command, Signal::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_from_the_text_form() {
        let text = "# HELP pgwitness_agent_ring_full Segments.\n# TYPE pgwitness_agent_ring_full counter\n\
                    pgwitness_agent_ring_full_total 3\npgwitness_agent_segments_total 12\n\
                    pgwitness_agent_malformed_total 0\npgwitness_agent_queue_events 2\n";
        let metrics = metrics(text);
        assert_eq!(metrics.get("queue_events"), Some(&2.0));
        assert_eq!(losses(&metrics), BTreeMap::from([("ring_full".to_owned(), 3)]));
    }
}
