//! The workloads: what the clients do, and how fast it went by their own account.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use pgwitness_tests::route::Route;
use tempfile::TempDir;

use super::{
    account::Account,
    server::{Access, Server},
};

/// A kind of load. All are over TCP on loopback, with four clients where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// pgbench -S: one row by its key, simple protocol
    Simple,
    /// pgbench -S -M prepared: as fast as a server gets
    Prepared,
    /// The same through TLS
    TlsPrepared,
    /// pgbench's own transactions: five writing statements, BEGIN and END
    Tpcb,
    /// 20 rows of 200 columns, 50 kB an answer, prepared
    Wide,
    /// COPY out and in of 20,000 rows, 2 MB, with one client
    Copy,
    /// pgbench -S -M prepared with a hundred clients
    Connections100,
}

/// What the clients told of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Statements by the clients' count.
    pub(crate) statements: u64,
    /// Transactions a second (for `copy`: statements), connecting not counted.
    pub(crate) per_second: f64,
    /// 99th percentile of a transaction's latency, of a sample of them.
    pub(crate) p99_us: Option<f64>,
}

/// Of each hundred transactions, those whose latency pgbench writes down: writing all would be a part of the load.
const SAMPLED: &str = "0.2";

/// Scripts, journals, and the clients' cgroup.
pub(crate) struct Clients {
    pub(crate) account: Account,
    /// Connections of pgbench, where it is not the workload that says how many.
    pub(crate) connections: Option<u16>,
    folder: TempDir,
}

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    pub(crate) fn route(self) -> Route {
        match self {
            Self::TlsPrepared => Route::Tls,
            _ => Route::Tcp,
        }
    }

    /// Statements of one transaction.
    fn statements(self) -> u64 {
        if self == Self::Tpcb { 7 } else { 1 }
    }

    fn pgbench(self) -> &'static [&'static str] {
        match self {
            Self::Simple => &["-c", "4", "-j", "2", "-b", "select-only", "-M", "simple"],
            Self::Prepared | Self::TlsPrepared => {
                &["-c", "4", "-j", "2", "-b", "select-only", "-M", "prepared"]
            }
            Self::Tpcb => &["-c", "4", "-j", "2", "-b", "tpcb-like", "-M", "simple"],
            Self::Wide => &["-c", "4", "-j", "2", "-f", "wide.sql", "-M", "prepared"],
            Self::Connections100 => &["-c", "100", "-j", "2", "-b", "select-only", "-M", "prepared"],
            Self::Copy => &[],
        }
    }
}

impl Clients {
    pub(crate) fn new(account: Account) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-clients-")?;
        fs::write(
            folder.path().join("wide.sql"),
            "\\set id random(1, 980)\nSELECT * FROM wide WHERE id BETWEEN :id AND :id + 19;\n",
        )?;
        Ok(Self {
            account,
            connections: None,
            folder,
        })
    }

    /// Runs a workload for about so many seconds.
    pub(crate) async fn run(
        &self,
        workload: Workload,
        seconds: u64,
        server: &Server,
        access: Access<'_>,
    ) -> Result<Told> {
        match workload {
            Workload::Copy => self.copy(seconds, server, access).await,
            _ => self.pgbench(workload, seconds, server, access).await,
        }
    }

    async fn pgbench(
        &self,
        workload: Workload,
        seconds: u64,
        server: &Server,
        access: Access<'_>,
    ) -> Result<Told> {
        let journal = TempDir::with_prefix_in("journal-", self.folder.path())?;
        let prefix = journal.path().join("pgbench");
        let seconds = seconds.to_string();
        let mut arguments = vec!["-n", "-T", &seconds, "--log", "--sampling-rate", SAMPLED];
        arguments.extend(workload.pgbench());
        let connections = self.connections.map(|connections| connections.to_string());
        // The last one counts.
        arguments.extend(connections.iter().flat_map(|connections| ["-c", connections]));
        let prefix = format!("--log-prefix={}", prefix.display());
        arguments.push(&prefix);
        let said = self.client("pgbench", &arguments, server, access).await?;
        let number = |key: &str| {
            said.lines()
                .rfind(|line| line.starts_with(key))
                .and_then(|line| {
                    line.strip_prefix(key)?
                        .split([' ', '/'])
                        .next()?
                        .parse::<f64>()
                        .ok()
                })
                .with_context(|| format!("pgbench did not say `{key}`:\n{said}"))
        };
        Ok(Told {
            statements: number("number of transactions actually processed: ")? as u64 * workload.statements(),
            per_second: number("tps = ")?,
            p99_us: p99(journal.path())?,
        })
    }

    /// As many rounds of out and in as fit, ten at a time, each ten by a psql of its own.
    async fn copy(&self, seconds: u64, server: &Server, access: Access<'_>) -> Result<Told> {
        const PAIRS: u64 = 10;
        let file = self.folder.path().join("sheet");
        let pair = format!(
            "\\copy sheet to '{file}'\nTRUNCATE sink;\n\\copy sink from '{file}'\n",
            file = file.display()
        );
        let script = self.folder.path().join("copy.sql");
        fs::write(&script, pair.repeat(PAIRS as usize))?;
        let script = script.display().to_string();
        let (begin, mut statements) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(seconds) {
            let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &script];
            self.client("psql", &arguments, server, access).await?;
            statements += 3 * PAIRS;
        }
        Ok(Told {
            statements,
            per_second: statements as f64 / begin.elapsed().as_secs_f64(),
            p99_us: None,
        })
    }

    /// A client program to its end; what it printed.
    async fn client(
        &self,
        program: &str,
        arguments: &[&str],
        server: &Server,
        access: Access<'_>,
    ) -> Result<String> {
        let binary: PathBuf = server.cluster().client_binary(program);
        let mut command = self.account.command(&binary);
        server.environment(&mut command, access);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await?;
        ensure!(
            output.status.success(),
            "{program} failed with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Of pgbench's journals: client, transaction, latency in microseconds, … (manual, pgbench).
fn p99(folder: &Path) -> Result<Option<f64>> {
    let mut latencies = Vec::<u64>::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        latencies.extend(
            text.lines()
                .filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()),
        );
    }
    latencies.sort_unstable();
    Ok(latencies
        .get(latencies.len() * 99 / 100)
        .map(|latency| *latency as f64))
}
