//! What pgwitness recorded, as requests in the order of their sessions.
//!
//! Owns the reading of whole events (column `event`) page by page, and their grouping into requests: the statements of
//! one simple query string together, everything else alone. It keeps only what the suite compares.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::text;
use crate::record::query_folder_page;

/// Everything recorded that the suite looks at.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) sessions: Vec<Session>,
    /// Gaps and sessions that could not be read.
    pub(super) gaps: Vec<Gap>,
    pub(super) events: u64,
}

/// Something that was not seen or not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Empty where the session is not known.
    pub(super) role: String,
    pub(super) reason: String,
    /// For people.
    pub(super) told: String,
}

/// One recorded session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) pid: u32,
    pub(super) role: String,
    pub(super) began_ns: i64,
    pub(super) requests: Vec<Request>,
}

/// One request: several events only for a simple query string of several statements.
pub(super) type Request = Vec<Event>;

/// One `query` event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    ts_start: String,
    session: SessionFields,
    pub(super) protocol: String,
    pub(super) statement: Statement,
    pub(super) params: Vec<Param>,
    pub(super) function_oid: Option<u32>,
    pub(super) meaning: Meaning,
    pub(super) result: Answer,
    pub(super) stream: Stream,
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
pub(super) struct Statement {
    pub(super) text: Option<String>,
    pub(super) text_known: bool,
    pub(super) name: String,
    pub(super) portal: String,
    pub(super) index: u32,
    pub(super) truncated: bool,
    pub(super) original_bytes: Option<u64>,
    pub(super) sha256: Option<String>,
    pub(super) source: Option<String>,
}

/// A bound parameter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Param {
    pub(super) oid: u32,
    pub(super) format: String,
    pub(super) null: bool,
    /// Length as sent.
    pub(super) bytes: u64,
    pub(super) value: Option<String>,
    pub(super) truncated: bool,
    pub(super) raw: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Meaning {
    pub(super) tag: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) phase: String,
    pub(super) outcome: String,
    pub(super) rows: Option<u64>,
    pub(super) rows_affected: Option<u64>,
    pub(super) copy_bytes: Option<u64>,
    pub(super) sqlstate: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stream {
    pub(super) request_from: u64,
    pub(super) continues: Option<u64>,
}

impl Event {
    /// The text; empty where there is an empty one, `None` where it is not known.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.statement.text {
            Some(text) => Some(text),
            None => self.statement.text_known.then_some(""),
        }
    }

    pub(super) fn is_extended(&self) -> bool {
        self.protocol == "extended"
    }

    /// Whether its text declares a cursor: an Execute of a named portal with such a text runs the cursor itself.
    pub(super) fn is_cursor(&self) -> bool {
        self.text()
            .is_some_and(|text| text::begins_with_word(text, "declare"))
    }

    /// The last number of the command tag.
    pub(super) fn tag_count(&self) -> Option<u64> {
        self.meaning.tag.as_deref()?.rsplit(' ').next()?.parse().ok()
    }
}

/// Reads a stopped collector's folder.
///
/// # Errors
/// When the collector refuses, or an event is not of the documented form.
pub(super) fn read(collector: &Path, data: &Path) -> Result<Record> {
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    let (mut order, mut record, mut last) = (Vec::new(), Record::default(), 0_u64);
    loop {
        let sql = format!(
            "SELECT seq, event FROM events WHERE kind IN ({KINDS}) AND seq > {last} ORDER BY seq LIMIT {PAGE}"
        );
        let rows = query_folder_page(collector, data, &sql)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            last = row.get("seq").and_then(Value::as_u64).context("seq")?;
            let text = row.get("event").and_then(Value::as_str).context("event")?;
            let kind: Kind<'_> = serde_json::from_str(text).context("an event")?;
            if kind.kind != "query" {
                record.gaps.push(gap(text)?);
                continue;
            }
            let event: Event = serde_json::from_str(text).with_context(|| format!("the event {text}"))?;
            record.events += 1;
            let id = event.session.id.clone();
            if !sessions.contains_key(&id) {
                order.push(id.clone());
            }
            take(&mut sessions, id, event)?;
        }
    }
    record.sessions = order.iter().filter_map(|id| sessions.remove(id)).collect();
    Ok(record)
}

fn take(sessions: &mut BTreeMap<String, Session>, id: String, event: Event) -> Result<()> {
    let began: jiff::Timestamp = event.ts_start.parse().context("ts_start")?;
    let began_ns = i64::try_from(began.as_nanosecond()).context("ts_start")?;
    let session = sessions.entry(id).or_insert_with(|| Session {
        pid: event.session.backend_pid,
        role: event.session.login_role.clone(),
        began_ns,
        requests: Vec::new(),
    });
    let same_string = |request: &Request| {
        let first = request.first();
        first.is_some_and(|first| {
            first.protocol == "simple"
                && event.protocol == "simple"
                && event.statement.index > 0
                && first.stream.request_from == event.stream.request_from
        })
    };
    match session.requests.last_mut().filter(|request| same_string(request)) {
        Some(request) => request.push(event),
        None => session.requests.push(vec![event]),
    }
    Ok(())
}

#[derive(Deserialize)]
struct Kind<'a> {
    kind: &'a str,
}

fn gap(text: &str) -> Result<Gap> {
    let event: Value = serde_json::from_str(text)?;
    let of = |path: &str| event.pointer(path).cloned().unwrap_or_default();
    let text = |path: &str| of(path).as_str().unwrap_or_default().to_owned();
    let reason = match of("/loss/reason") {
        Value::String(reason) => reason,
        _ => text("/kind"),
    };
    Ok(Gap {
        role: text("/session/login_role"),
        reason,
        told: format!(
            "{} of backend {}: {} {}",
            text("/kind"),
            of("/session/backend_pid"),
            of("/loss"),
            of("/opaque_session")
        ),
    })
}

/// What the suite looks at.
const KINDS: &str = "'query', 'gap', 'opaque_session'";
/// Rows a question. The collector cuts an answer at 32 MiB; the next page begins where it was cut.
const PAGE: usize = 8_000;
