//! The suites: each brings up what it needs, does its work, compares, and returns its figures.
//!
//! Owns the figures' common form (measures: the last line of `--json` is one object) and what happens while a
//! recording is completed. Each suite is a file of its own.

pub mod demo;
pub mod evasion;
pub mod evidence;
pub mod identity;
pub mod kernels;
pub mod kubernetes;
pub mod local;
pub mod loss;
pub mod meaning;
pub mod pooled;
pub mod pooler;
pub mod survive;
pub mod volume;
pub mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::cluster::APP_ROLE;
use crate::csvlog::{self, LoggedSession};
use crate::record::{Recorded, queries, query_folder, query_live};
use crate::tap::Tap;

/// What a suite found: figures under their fixed names, and whether those that must be zero are.
#[derive(Debug)]
pub struct Outcome {
    /// One JSON object.
    pub figures: Map<String, Value>,
    /// False makes the program exit non-zero.
    pub passed: bool,
}

/// Waits until every session of the shared role has its end in the server's log, and returns the log.
///
/// # Errors
/// When the log cannot be read.
pub async fn complete_log(path: &std::path::Path) -> Result<Vec<LoggedSession>> {
    let deadline = Instant::now() + LOG_PATIENCE;
    loop {
        let sessions = csvlog::read(path)?;
        if sessions.iter().filter(|s| s.role == APP_ROLE).all(|s| s.closed) || Instant::now() > deadline {
            return Ok(sessions);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the running collector has as many events as the log has statements and no more come: a simple query
/// string is one line of the log and one event a statement, so the first alone would be too early.
pub async fn await_delivery(tap: &Tap, expected: u64) {
    let deadline = Instant::now() + DELIVERY_PATIENCE;
    let (mut last, mut since) = (0, Instant::now());
    while Instant::now() < deadline {
        let count = recorded_count(tap).unwrap_or(0);
        if count != last {
            (last, since) = (count, Instant::now());
        }
        let settled = if count >= expected { SETTLED } else { STABLE };
        if since.elapsed() > settled {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until nothing more arrives at the collector.
///
/// # Errors
/// When the collector does not answer.
pub async fn settle(tap: &Tap) -> Result<()> {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    let (mut last, mut since) = (0, Instant::now());
    while Instant::now() < deadline && since.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let sql = "SELECT count(*) AS n FROM events WHERE kind <> 'heartbeat'";
        let rows = query_live(tap.http_port(), sql)?;
        let count = rows
            .first()
            .and_then(|row| row.get("n"))
            .and_then(Value::as_u64)
            .context("no count")?;
        if count != last {
            (last, since) = (count, Instant::now());
        }
    }
    Ok(())
}

/// How many execution requests of the shared role the running collector answers with.
///
/// # Errors
/// When it does not answer.
pub fn recorded_count(tap: &Tap) -> Result<u64> {
    let sql = format!("SELECT count(*) AS n FROM events WHERE kind = 'query' AND login_role = '{APP_ROLE}'");
    let rows = query_live(tap.http_port(), &sql)?;
    let first = rows.first().context("no row")?;
    first
        .get("n")
        .or_else(|| first.get(0))
        .and_then(Value::as_u64)
        .context("no count")
}

/// Everything recorded of the shared role, read from the stopped collector's folder.
///
/// # Errors
/// When it cannot be read.
pub fn recorded(tap: &Tap) -> Result<Vec<Recorded>> {
    let rows = query_folder(tap.collector_binary(), &tap.collector_data(), &queries(APP_ROLE))?;
    rows.into_iter().map(Recorded::from_row).collect()
}

/// Takes a value apart into figures.
///
/// # Errors
/// When it is not a JSON object.
pub fn figures(value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(figures) => Ok(figures),
        _ => anyhow::bail!("figures are an object"),
    }
}

const LOG_PATIENCE: Duration = Duration::from_secs(10);
const DELIVERY_PATIENCE: Duration = Duration::from_secs(45);
/// Longer than a batch waits to be filled.
const SETTLED: Duration = Duration::from_millis(1500);
/// So long that whatever is not here by then will not come.
const STABLE: Duration = Duration::from_secs(6);
/// Longer than a batch waits to be filled, and than the query engine takes.
const QUIET: Duration = Duration::from_millis(1500);
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
