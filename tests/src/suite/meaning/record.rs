//! What pgwitness recorded of each request: text, class, command, objects.
//!
//! Owns the reading of whole events, page by page, and their grouping into requests.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::judge::{Meant, Named};
use crate::record::query_folder_page;

/// One recorded session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) pid: u32,
    pub(super) role: String,
    pub(super) began_ns: i64,
    pub(super) requests: Vec<Vec<Event>>,
}

/// One `query` event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    ts_start: String,
    session: SessionFields,
    protocol: String,
    statement: Statement,
    meaning: Meaning,
    result: Answer,
    stream: Stream,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SessionFields {
    id: String,
    backend_pid: u32,
    login_role: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Statement {
    text: Option<String>,
    index: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Meaning {
    class: String,
    command: String,
    objects: Vec<Object>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    schema: Option<String>,
    name: String,
    kind: String,
    access: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    outcome: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stream {
    request_from: u64,
}

impl Event {
    pub(super) fn text(&self) -> &str {
        self.statement.text.as_deref().unwrap_or_default()
    }

    pub(super) fn is_extended(&self) -> bool {
        self.protocol == "extended"
    }

    pub(super) fn failed(&self) -> bool {
        self.result.outcome != "ok"
    }

    pub(super) fn meant(&self) -> Meant {
        let named = |object: &Object| Named {
            schema: object.schema.clone().filter(|schema| !schema.is_empty()),
            name: object.name.clone(),
            kind: object.kind.clone(),
            access: object.access.clone(),
        };
        Meant {
            class: self.meaning.class.clone(),
            command: self.meaning.command.clone(),
            objects: self.meaning.objects.iter().map(named).collect(),
        }
    }
}

/// Reads a stopped collector's folder.
///
/// # Errors
/// When the collector refuses, or an event is not of the documented form.
pub(super) fn read(collector: &Path, data: &Path) -> Result<Vec<Session>> {
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    let mut last = 0_u64;
    loop {
        let sql = format!(
            "SELECT seq, event FROM events WHERE kind = 'query' AND seq > {last} ORDER BY seq LIMIT {PAGE}"
        );
        let rows = query_folder_page(collector, data, &sql)?;
        if rows.is_empty() {
            return Ok(sessions.into_values().collect());
        }
        for row in rows {
            last = row.get("seq").and_then(Value::as_u64).context("seq")?;
            let text = row.get("event").and_then(Value::as_str).context("event")?;
            let event: Event = serde_json::from_str(text).with_context(|| format!("the event {text}"))?;
            take(&mut sessions, event)?;
        }
    }
}

fn take(sessions: &mut BTreeMap<String, Session>, event: Event) -> Result<()> {
    let began: jiff::Timestamp = event.ts_start.parse().context("ts_start")?;
    let began_ns = i64::try_from(began.as_nanosecond()).context("ts_start")?;
    let session = sessions
        .entry(event.session.id.clone())
        .or_insert_with(|| Session {
            pid: event.session.backend_pid,
            role: event.session.login_role.clone(),
            began_ns,
            requests: Vec::new(),
        });
    let same = |request: &&mut Vec<Event>| {
        request.first().is_some_and(|first| {
            !event.is_extended()
                && event.statement.index > 0
                && first.stream.request_from == event.stream.request_from
        })
    };
    match session.requests.last_mut().filter(same) {
        Some(request) => request.push(event),
        None => session.requests.push(vec![event]),
    }
    Ok(())
}

/// Rows a question. The collector cuts an answer at 32 MiB; the next page begins where it was cut.
const PAGE: usize = 8_000;
