//! What the clients wrote down about themselves, and what was recorded of them.
//!
//! Owns the reading of both; the join is in `judge`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::APP_ROLE;
use crate::record::query_folder_page;
use crate::tap::Tap;

/// One line: one connection, or why there was none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    /// What it is, as the suite calls it.
    pub(super) case: String,
    /// In each of its statements.
    pub(super) mark: String,
    /// As the server named it; 0 if the client did not wait for that.
    pub(super) backend: u32,
    /// Statements answered.
    pub(super) said: u32,
    /// From the start of its program to the line.
    pub(super) life_us: u64,
    /// What connected, at that moment.
    pub(super) client: Facts,
    /// What spoke last.
    pub(super) speaker: Facts,
    /// Why there was no connection.
    pub(super) error: Option<String>,
}

/// What a process is, by the host's `/proc`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Facts {
    /// On the host.
    pub(super) pid: u32,
    /// Start, in hundredths of a second since boot.
    pub(super) ticks: u64,
    pub(super) exe: String,
    pub(super) uid: u32,
    /// `u32::MAX` if there is none.
    pub(super) login_uid: u32,
    pub(super) cgroup: String,
    /// As the process itself knows it.
    pub(super) own_pid: u32,
}

/// What is recorded of one statement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Recorded {
    pub(super) attribution: Attribution,
    session: Session,
    statement: Statement,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    backend_pid: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Statement {
    text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Attribution {
    pub(super) principal: String,
    pub(super) confidence: String,
    pub(super) method: String,
    pub(super) reason: String,
    pub(super) evidence: Vec<String>,
    pub(super) process: Option<Process>,
    pub(super) amended_by: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) start_ns: u64,
    pub(super) exe: String,
    pub(super) uid: u32,
    pub(super) login_uid: Option<u32>,
    pub(super) cgroup_path: String,
}

impl Recorded {
    pub(super) fn backend(&self) -> u32 {
        self.session.backend_pid
    }

    fn mark(&self) -> Option<&str> {
        let (_, rest) = self.statement.text.split_once("/* mark=")?;
        Some(rest.split_once(" */")?.0)
    }
}

/// The lines so far.
pub(super) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).context("reading the journal")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a line of the journal: {line}")))
        .collect()
}

/// Everything recorded of the stopped tap's clients, by the mark in their statements.
pub(super) fn recorded(tap: &Tap) -> Result<HashMap<String, Vec<Recorded>>> {
    let (mut found, mut last): (HashMap<String, Vec<Recorded>>, (String, u64)) = Default::default();
    loop {
        let sql = format!(
            "SELECT agent, seq, event FROM events WHERE kind = 'query' AND login_role = '{APP_ROLE}' \
             AND (agent > '{0}' OR (agent = '{0}' AND seq > {1})) ORDER BY agent, seq LIMIT {PAGE}",
            last.0, last.1
        );
        let rows = query_folder_page(tap.collector_binary(), &tap.collector_data(), &sql)?;
        if rows.is_empty() {
            return Ok(found);
        }
        for row in rows {
            let agent = row.get("agent").and_then(Value::as_str).context("agent")?;
            last = (
                agent.to_owned(),
                row.get("seq").and_then(Value::as_u64).context("seq")?,
            );
            let text = row.get("event").and_then(Value::as_str).context("event")?;
            let event: Recorded = serde_json::from_str(text).with_context(|| format!("the event {text}"))?;
            if let Some(mark) = event.mark() {
                found.entry(mark.to_owned()).or_default().push(event);
            }
        }
    }
}

/// Rows a question; the collector's own cap is 10,000 rows and 32 MiB, and whole events take several KiB.
const PAGE: usize = 4_000;
