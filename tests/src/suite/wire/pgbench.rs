//! pgbench: bulk, in each of its protocols, in pipelines, and with transactions that fail and are tried again.

use anyhow::Result;

use super::site::{Ran, Site};
use crate::program::Route;

/// One way to run it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Simple,
    Extended,
    Prepared,
    /// Prepared statements in pipelines.
    Pipeline,
    /// Serializable transactions that get in each other's way.
    Retries,
}

pub(super) async fn run(site: &Site<'_>, mode: Mode) -> Result<Ran> {
    let route = match mode {
        Mode::Simple | Mode::Prepared => Route::Tcp,
        Mode::Extended | Mode::Pipeline | Mode::Retries => Route::Unix,
    };
    let mut tables = site.client("pgbench", Route::Tcp);
    tables.args(["-i", "-q", "-s", "1"]);
    site.succeed(tables).await?;
    let mut bench = site.client("pgbench", route);
    let transactions = (if site.plan.full { FULL } else { SHORT }).to_string();
    bench.args(["-n", "-c", CLIENTS, "-t", &transactions, "-R", RATE]);
    match mode {
        Mode::Simple => bench.args(["-M", "simple"]),
        Mode::Extended => bench.args(["-M", "extended"]),
        Mode::Prepared => bench.args(["-M", "prepared"]),
        Mode::Pipeline => bench
            .args(["-M", "prepared", "-f"])
            .arg(site.file("pipeline.sql", PIPELINE.as_bytes())?),
        Mode::Retries => bench
            .args(["-M", "prepared", "--max-tries", "5"])
            .env("PGOPTIONS", "-c default_transaction_isolation=serializable"),
    };
    site.succeed(bench).await?;
    Ok(Ran::Done)
}

/// Several statements to a Sync, transactions over several pipelines, and a parameter of each kind.
const PIPELINE: &str = "\\set aid random(1, 100000)\n\\set bid 1\n\\set delta random(-5000, 5000)\n\\startpipeline\n\
    SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
    UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n\
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, :bid, :aid, :delta, CURRENT_TIMESTAMP);\n\
    \\endpipeline\nBEGIN;\n\\startpipeline\n\
    UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = 1 + :aid % 10;\n\
    SELECT g FROM generate_series(1, 20) g WHERE g > :bid;\nCOMMIT;\n\\endpipeline\n";
const CLIENTS: &str = "4";
/// Transactions of each client.
const SHORT: u32 = 60;
const FULL: u32 = 375;
/// Transactions per second: some 1,500 statements, well below what a debug build of agent and collector takes.
const RATE: &str = "200";
