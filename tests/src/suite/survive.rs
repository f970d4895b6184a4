//! The tapped database is sacred: the agent is killed under load, and no client may notice.
//!
//! Two equal runs of pgbench, one with nothing else on the machine, one with an agent that is killed in the middle
//! and started again. Compared are client errors and statements slower than a second, from pgbench's own journal.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use super::{Outcome, figures};
use crate::cluster::{Cluster, Witness};
use crate::program::{Program, Route};
use crate::screen::progress;
use crate::tap::{Redaction, Tap};

/// Runs the suite.
///
/// # Errors
/// When something cannot be started; a client that fails is a figure.
pub async fn run() -> Result<Outcome> {
    let mut cluster = Cluster::init(Witness::Silent)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let slice = format!("pgwitness-survive-{}", std::process::id());

    progress(&format!(
        "{}: {RUN_SECONDS} s without pgwitness",
        cluster.version()
    ));
    let without = load(&slice, "without", &cluster, async { Ok(()) }).await?;

    let mut tap = Tap::start(&cluster.data(), Redaction::Default).await?;
    progress(&format!(
        "{RUN_SECONDS} s with pgwitness; its agent is killed after {KILL_AFTER_SECONDS} s"
    ));
    let mut killed = 0;
    let with = load(&slice, "with", &cluster, async {
        tokio::time::sleep(Duration::from_secs(KILL_AFTER_SECONDS)).await;
        tap.kill_agent().await?;
        killed += 1;
        progress("killed (SIGKILL); starting it again");
        tokio::time::sleep(Duration::from_secs(1)).await;
        tap.start_agent().await
    })
    .await?;
    tap.stop().await?;
    cluster.stop().await?;

    let errors = without.errors + with.errors;
    let passed = errors == 0 && with.slow <= without.slow && killed == 1 && with.transactions > 0;
    let figures = figures(json!({
        "clients": CLIENTS,
        "transactions": without.transactions + with.transactions,
        "errors": errors,
        "slow_without": without.slow,
        "slow_with": with.slow,
        "killed": killed,
        "transactions_without": without.transactions,
        "transactions_with": with.transactions,
        "worst_ms_without": without.worst_us / 1000,
        "worst_ms_with": with.worst_us / 1000,
    }))?;
    Ok(Outcome { figures, passed })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Load {
    transactions: u64,
    errors: u64,
    slow: u64,
    worst_us: u64,
}

/// One run of pgbench while `meanwhile` happens.
async fn load(
    slice: &str,
    name: &str,
    cluster: &Cluster,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Load> {
    let program = Program::new(slice, name, cluster, Route::Tcp)?;
    let journal = TempDir::with_prefix("pgwitness-journal-")?;
    let script = format!(
        "\\set id random(1, 1000)\nSELECT id, email FROM customers {tag} WHERE id = :id;\n\
         UPDATE customers {tag} SET region = 'south' WHERE id = :id;\n",
        tag = program.tag()
    );
    let (seconds, clients) = (RUN_SECONDS.to_string(), CLIENTS.to_string());
    let log_prefix = format!("--log-prefix={}", journal.path().join("pgbench").display());
    let arguments = [
        "-M",
        "simple",
        "-c",
        &clients,
        "-T",
        &seconds,
        "--log",
        &log_prefix,
    ];
    let mut bench = program.start(program.pgbench(&script, &arguments)?)?;
    meanwhile.await?;
    let status = bench.wait(Duration::from_secs(RUN_SECONDS + 30)).await;
    let mut load = read_journal(journal.path())?;
    // pgbench ends a client at its first error and says so with its exit status.
    if let Err(said) = &status {
        progress(&format!("pgbench did not end: {said:#}"));
    }
    load.errors += u64::from(!status.is_ok_and(|status| status.success()));
    Ok(load)
}

/// Reads `--log` files: client, transaction, latency in microseconds or `failed`, script, time (manual, pgbench).
fn read_journal(folder: &Path) -> Result<Load> {
    let mut load = Load::default();
    for entry in std::fs::read_dir(folder)? {
        let text = std::fs::read_to_string(entry?.path())?;
        for line in text.lines() {
            load.take(line.split(' ').nth(2).context("a line of pgbench's journal")?);
        }
    }
    Ok(load)
}

impl Load {
    fn take(&mut self, latency: &str) {
        let Ok(latency_us) = latency.parse::<u64>() else {
            self.errors += 1;
            return;
        };
        self.transactions += 1;
        self.slow += u64::from(latency_us > SLOW_US);
        self.worst_us = self.worst_us.max(latency_us);
    }
}

const RUN_SECONDS: u64 = 10;
const KILL_AFTER_SECONDS: u64 = 4;
const CLIENTS: u32 = 4;
const SLOW_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_counts_slow_and_failed() {
        let folder = TempDir::new().unwrap();
        std::fs::write(
            folder.path().join("pgbench.1"),
            "0 1 900 0 1 2\n1 1 1000001 0 1 2\n0 2 failed 0 1 2\n",
        )
        .unwrap();
        let load = read_journal(folder.path()).unwrap();
        assert_eq!(
            load,
            Load {
                transactions: 2,
                errors: 1,
                slow: 1,
                worst_us: 1_000_001
            }
        );
    }
}
