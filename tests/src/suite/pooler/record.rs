//! What pgwitness recorded of the pooled statements.
//!
//! Owns the question to the collector and the pairing of what was recorded with the server's sessions. It reads columns
//! only, not the whole events: there are half a million of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::server_log::Session;
use crate::cluster::APP_ROLE;
use crate::record::query_folder_page;
use crate::tap::Tap;

/// One recorded statement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Recorded {
    /// Nanoseconds since the Unix epoch.
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) session_id: Option<String>,
    pub(super) backend_pid: Option<u32>,
    pub(super) principal: Option<String>,
    pub(super) confidence: Option<String>,
    pub(super) method: Option<String>,
    pub(super) reason: Option<String>,
    /// Of the client's process.
    pub(super) pid: Option<u32>,
    /// Whom the client says it speaks for.
    pub(super) end_user: Option<String>,
    pub(super) statement: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) statement_index: Option<u32>,
}

/// Something that was told to be missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Gap {
    /// Of the session's backend; none of the agent itself.
    pub(super) backend_pid: Option<u32>,
    pub(super) from_ns: i64,
    pub(super) to_ns: Option<i64>,
}

impl Gap {
    /// Whether it may be about what this backend was sent.
    pub(super) fn is_of(&self, backend: u32) -> bool {
        self.backend_pid.is_none_or(|pid| pid == backend)
    }

    pub(super) fn covers(&self, at_ns: i64) -> bool {
        let to_ns = self.to_ns.unwrap_or(self.from_ns);
        (self.from_ns.saturating_sub(SLACK_NS)..=to_ns.saturating_add(SLACK_NS)).contains(&at_ns)
    }
}

/// As in the ledger: the server's log has milliseconds, and is written a moment after the request was read.
const SLACK_NS: i64 = 50_000_000;

/// What one request of a session became: the statements of a string, or one Execute.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) statements: Vec<Recorded>,
}

impl Request {
    /// Whether it is what the server logged: of a string of several, its first statement begins it.
    pub(super) fn is(&self, text: &str) -> bool {
        let Some(first) = self.statements.first().and_then(|one| one.statement.as_deref()) else {
            return false;
        };
        match self.statements.len() {
            1 => first.trim() == text.trim(),
            _ => text.trim_start().starts_with(first.trim()),
        }
    }

    pub(super) fn text(&self) -> &str {
        self.statements
            .first()
            .and_then(|one| one.statement.as_deref())
            .unwrap_or_default()
    }
}

/// Everything recorded under the shared role in the stopped tap's folder, in the order of the record.
pub(super) fn read(tap: &Tap) -> Result<Vec<Recorded>> {
    let (mut found, mut last) = (Vec::new(), (String::new(), 0));
    loop {
        let sql = format!(
            "SELECT agent, seq, CAST(ts_start AS BIGINT) AS start_ns, CAST(ts_end AS BIGINT) AS end_ns, \
             session_id, backend_pid, principal, confidence, method, reason, pid, end_user, statement, protocol, \
             statement_index FROM events WHERE kind = 'query' AND login_role = '{APP_ROLE}' \
             AND (agent > '{0}' OR (agent = '{0}' AND seq > {1})) ORDER BY agent, seq LIMIT {PAGE}",
            last.0, last.1
        );
        let rows = query_folder_page(tap.collector_binary(), &tap.collector_data(), &sql)?;
        let Some(newest) = rows.last() else {
            return Ok(found);
        };
        let agent = newest.get("agent").and_then(Value::as_str).context("agent")?;
        last = (
            agent.to_owned(),
            newest.get("seq").and_then(Value::as_u64).context("seq")?,
        );
        for row in rows {
            found.push(serde_json::from_value(row).context("a row of `events`")?);
        }
    }
}

/// All gaps behind which requests may be.
pub(super) fn gaps(tap: &Tap) -> Result<Vec<Gap>> {
    let (mut found, mut last) = (Vec::new(), (String::new(), 0));
    loop {
        let sql = format!(
            "SELECT agent, seq, backend_pid, CAST(ts_start AS BIGINT) AS from_ns, CAST(ts_end AS BIGINT) AS to_ns, event \
             FROM gaps WHERE (agent > '{0}' OR (agent = '{0}' AND seq > {1})) ORDER BY agent, seq LIMIT {PAGE}",
            last.0, last.1
        );
        let rows = query_folder_page(tap.collector_binary(), &tap.collector_data(), &sql)?;
        let Some(newest) = rows.last() else {
            return Ok(found);
        };
        let agent = newest.get("agent").and_then(Value::as_str).context("agent")?;
        last = (
            agent.to_owned(),
            newest.get("seq").and_then(Value::as_u64).context("seq")?,
        );
        for row in rows {
            // What the server sent hides no request.
            let event = row.get("event").and_then(Value::as_str).context("event")?;
            if !event.contains(r#""direction":"backend""#) {
                found.push(serde_json::from_value(row).context("a row of `gaps`")?);
            }
        }
    }
}

/// The requests of each session of the server's log, and how many are of none.
pub(super) fn by_session(recorded: Vec<Recorded>, sessions: &[Session]) -> (Vec<Vec<Request>>, u64) {
    let mut own: BTreeMap<(String, u32), Vec<Recorded>> = BTreeMap::new();
    for one in recorded {
        let key = (
            one.session_id.clone().unwrap_or_default(),
            one.backend_pid.unwrap_or_default(),
        );
        own.entry(key).or_default().push(one);
    }
    let mut found: Vec<Vec<Request>> = vec![Vec::new(); sessions.len()];
    let mut of_none = 0;
    for ((_, pid), events) in own {
        let began = events
            .first()
            .map_or(0, |one| i64::try_from(one.start_ns).unwrap_or_default());
        // Process ids are used again: the session that began nearest to it.
        let all = sessions
            .iter()
            .enumerate()
            .filter(|(_, session)| session.pid == pid);
        let nearest = all.min_by_key(|(_, session)| began.abs_diff(session.started_ns));
        match nearest.and_then(|(index, _)| found.get_mut(index)) {
            Some(requests) => requests.extend(self::requests(events)),
            None => of_none += events.len() as u64,
        }
    }
    (found, of_none)
}

fn requests(events: Vec<Recorded>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for event in events {
        let follows =
            event.statement_index.unwrap_or_default() > 0 && event.protocol.as_deref() == Some("simple");
        match requests.last_mut() {
            Some(request) if follows => request.statements.push(event),
            _ => requests.push(Request {
                statements: vec![event],
            }),
        }
    }
    requests
}

#[cfg(test)]
impl Recorded {
    /// A made-up one.
    pub(super) fn made_up(text: &str, principal: &str, confidence: &str) -> Self {
        Self {
            principal: Some(principal.to_owned()),
            confidence: Some(confidence.to_owned()),
            method: Some("lease".to_owned()),
            statement: Some(text.to_owned()),
            protocol: Some("simple".to_owned()),
            ..Self::default()
        }
    }
}

/// Rows a question: below the collector's 10,000 and, with texts of up to 30,000 bytes now and then, 32 MiB.
const PAGE: usize = 9_000;
