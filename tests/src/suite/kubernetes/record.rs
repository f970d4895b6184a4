//! What was recorded of the clients' statements, and when their names came.
//!
//! Owns the reading of the stopped tap's folder through the collector's own command.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::truth::word;
use crate::record::query_folder_page;
use crate::tap::Tap;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By their marks.
    pub(super) statements: HashMap<String, Vec<Statement>>,
    /// What amended anything, by the events' ids.
    pub(super) amendments: HashMap<String, Amendment>,
    /// For what was amended, in order: when that was, and to which principal.
    pub(super) names: HashMap<String, Vec<(i64, String)>>,
}

/// One statement, as it is shown at last.
#[derive(Clone, Debug, Default)]
pub(super) struct Statement {
    pub(super) at_ns: i64,
    pub(super) attribution: Attribution,
}

/// An event that amends.
#[derive(Clone, Debug, Default)]
pub(super) struct Amendment {
    /// What is amended: an agent's session, or statements of it.
    pub(super) of: String,
    pub(super) at_ns: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Attribution {
    pub(super) principal: String,
    pub(super) kind: String,
    pub(super) confidence: String,
    pub(super) method: String,
    pub(super) reason: String,
    pub(super) pod: Pod,
    pub(super) put_in: bool,
    pub(super) amended_by: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) node: String,
    pub(super) owners: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    kind: String,
    event_id: String,
    ts_start: String,
    statement: Text,
    attribution: Attribution,
    amends: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Text {
    text: String,
}

/// Everything that the suite looks at.
///
/// # Errors
/// When the collector's command fails, or says something that it does not say.
pub(super) fn read(tap: &Tap) -> Result<Record> {
    let mut record = Record::default();
    let mut last = (String::new(), 0_u64);
    loop {
        let sql = format!(
            "SELECT agent, seq, event FROM events WHERE (kind = 'attribution' OR kind = 'query' AND login_role = 'postgres') \
             AND (agent > '{0}' OR (agent = '{0}' AND seq > {1})) ORDER BY agent, seq LIMIT {PAGE}",
            last.0, last.1
        );
        let rows = query_folder_page(tap.collector_binary(), &tap.collector_data(), &sql)?;
        if rows.is_empty() {
            return Ok(record);
        }
        for row in rows {
            let agent = row.get("agent").and_then(Value::as_str).context("agent")?;
            let seq = row.get("seq").and_then(Value::as_u64).context("seq")?;
            last = (agent.to_owned(), seq);
            let text = row.get("event").and_then(Value::as_str).context("event")?;
            let event: Event = serde_json::from_str(text).with_context(|| format!("the event {text}"))?;
            record.take(event)?;
        }
    }
}

impl Record {
    fn take(&mut self, event: Event) -> Result<()> {
        let at: jiff::Timestamp = event.ts_start.parse().context("ts_start")?;
        let at_ns = i64::try_from(at.as_nanosecond()).context("ts_start")?;
        if event.kind == "attribution" {
            let part = |key: &str| event.amends.get(key).map(Value::to_string).unwrap_or_default();
            let of = ["agent", "session", "events"].map(part).join(" ");
            let names = self.names.entry(of.clone()).or_default();
            names.push((at_ns, event.attribution.principal));
            self.amendments.insert(event.event_id, Amendment { of, at_ns });
        } else if let Some(mark) = word(&event.statement.text, "mark") {
            let statement = Statement {
                at_ns,
                attribution: event.attribution,
            };
            self.statements
                .entry(mark.to_owned())
                .or_default()
                .push(statement);
        }
        Ok(())
    }

    /// Every name that what a statement is shown with was ever given.
    pub(super) fn names_of(&self, statement: &Statement) -> impl Iterator<Item = &str> {
        let amendment = self.amendments.get(&statement.attribution.amended_by);
        let names = amendment.and_then(|amendment| self.names.get(&amendment.of));
        names
            .into_iter()
            .flatten()
            .map(|(_, principal)| principal.as_str())
    }

    /// When the name that a statement is shown with stood first.
    pub(super) fn named_at(&self, statement: &Statement) -> Option<i64> {
        let amendment = self.amendments.get(&statement.attribution.amended_by)?;
        let names = self.names.get(&amendment.of).into_iter().flatten();
        let same = names.filter(|(_, principal)| *principal == statement.attribution.principal);
        let first = same.map(|(at, _)| *at).min();
        Some(first.unwrap_or(amendment.at_ns))
    }
}

/// Rows a question; the collector's own cap is 10,000 rows and 32 MiB, and whole events take several KiB.
const PAGE: usize = 4_000;
