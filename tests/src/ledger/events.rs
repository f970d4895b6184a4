//! The record as the ledger needs it: each session with its requests and its gaps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{SLACK_NS, number_in};
use crate::record::query_folder_page;
use crate::tap::Tap;

/// Everything recorded.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// By their id.
    pub sessions: BTreeMap<String, Seen>,
    /// Events of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Gaps of no session, by their reason.
    pub other_gaps: BTreeMap<String, u64>,
    /// The same, with their times.
    pub host_gaps: Vec<Gap>,
    /// The last counters that a heartbeat or the agent's end told.
    pub counters: BTreeMap<String, u64>,
}

/// One session as recorded. Texts are empty where nothing is known.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of its backend.
    pub pid: u32,
    /// When its first event ended: by then it had begun. A gap may begin before the session that it is told of.
    pub first_ns: i64,
    /// The login role, as last told.
    pub role: String,
    /// The database.
    pub database: String,
    /// `none`, `tls`, `gss`
    pub encryption: String,
    /// `TLSv1.3`
    pub tls_version: String,
    /// `TLS_AES_256_GCM_SHA384`
    pub tls_cipher: String,
    /// The subject of the client's certificate.
    pub client_certificate: String,
    /// Whether it is older than the agent.
    pub opened_before_attach: bool,
    /// Why it cannot be read, and since when.
    pub opaque: Option<(String, i64)>,
    /// Its execution requests.
    pub requests: Vec<Request>,
    /// When the first of them was sent.
    pub first_request_ns: Option<i64>,
    /// Its gaps.
    pub gaps: Vec<Gap>,
}

/// One execution request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// That tells it from all others.
    pub number: Option<u64>,
    /// Its text, if that is known.
    pub text: Option<String>,
    /// Whether the text is cut.
    pub truncated: bool,
    /// `ok`, `error`, `unknown`, …
    pub outcome: String,
    /// Returned to the client.
    pub rows: Option<u64>,
    /// Whose it is.
    pub principal: Option<String>,
}

/// One gap.
#[derive(Clone, Debug, Default)]
pub struct Gap {
    /// `missed`, `agent_restart`, …
    pub reason: String,
    /// `frontend`, `backend`, or neither.
    pub direction: Option<String>,
    /// Its beginning.
    pub from_ns: i64,
    /// Its end.
    pub to_ns: i64,
    /// How many bytes were not seen, if that is known; of a gap that tells of bytes which were seen and not understood,
    /// these.
    pub bytes: Option<u64>,
}

impl Seen {
    /// What `opaque_session` says, as a gap: from then on, until something is read.
    pub(super) fn opaque(&self) -> Option<Gap> {
        let (_, from_ns) = self.opaque.as_ref()?;
        Some(Gap {
            reason: "opaque_session".to_owned(),
            direction: None,
            from_ns: *from_ns,
            to_ns: self.first_request_ns.unwrap_or(i64::MAX),
            bytes: None,
        })
    }
}

impl Gap {
    /// Whether a request could have been in it: what the server sent hides none.
    #[must_use]
    pub fn hides_requests(&self) -> bool {
        self.direction.as_deref() != Some("backend")
    }

    pub(super) fn covers(&self, at_ns: i64) -> bool {
        self.hides_requests() && self.distance(at_ns) <= SLACK_NS
    }

    pub(super) fn distance(&self, at_ns: i64) -> i64 {
        self.from_ns
            .saturating_sub(at_ns)
            .max(at_ns.saturating_sub(self.to_ns))
            .max(0)
    }
}

/// Reads the stopped collector's folder.
///
/// # Errors
/// When the collector refuses, or an event is not of the documented form.
pub fn read(tap: &Tap) -> Result<Record> {
    let (mut record, mut last) = (Record::default(), 0_u64);
    loop {
        let sql = format!("SELECT seq, event FROM events WHERE seq > {last} ORDER BY seq LIMIT {PAGE}");
        let rows = query_folder_page(tap.collector_binary(), &tap.collector_data(), &sql)?;
        if rows.is_empty() {
            return Ok(record);
        }
        for row in rows {
            last = row.get("seq").and_then(Value::as_u64).context("seq")?;
            let text = row.get("event").and_then(Value::as_str).context("event")?;
            let event: Value = serde_json::from_str(text).context("an event")?;
            record.take(&event).with_context(|| format!("the event {text}"))?;
        }
    }
}

impl Record {
    fn take(&mut self, event: &Value) -> Result<()> {
        let text = |path: &str| {
            event
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let kind = text("/kind");
        *self.kinds.entry(kind.clone()).or_default() += 1;
        for path in ["/heartbeat/counters", "/agent_stop/counters"] {
            let counters = event
                .pointer(path)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            for (name, count) in counters {
                self.counters
                    .insert(name.clone(), count.as_u64().unwrap_or_default());
            }
        }
        let id = text("/session/id");
        let from_ns = nanoseconds(&text("/ts_start"))?;
        let to_ns = match text("/ts_end") {
            end if end.is_empty() => from_ns,
            end => nanoseconds(&end)?,
        };
        let gap = || -> Result<Gap> {
            Ok(Gap {
                reason: text("/loss/reason"),
                direction: event
                    .pointer("/loss/direction")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                from_ns,
                to_ns,
                bytes: match event.pointer("/loss/bytes_missing").and_then(Value::as_u64) {
                    Some(0) => not_understood(&text("/loss/detail")).or(Some(0)),
                    missing => missing,
                },
            })
        };
        if id.is_empty() {
            if kind == "gap" {
                *self.other_gaps.entry(text("/loss/reason")).or_default() += 1;
                self.host_gaps.push(gap()?);
            }
            return Ok(());
        }
        let seen = self.sessions.entry(id).or_insert_with(|| Seen {
            pid: event
                .pointer("/session/backend_pid")
                .and_then(Value::as_u64)
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or_default(),
            first_ns: to_ns,
            ..Seen::default()
        });
        for (field, path) in [
            (&mut seen.role, "/session/login_role"),
            (&mut seen.database, "/session/database"),
            (&mut seen.encryption, "/session/encryption"),
            (&mut seen.tls_version, "/session/tls_version"),
            (&mut seen.tls_cipher, "/session/tls_cipher"),
            (&mut seen.client_certificate, "/session/client_certificate"),
        ] {
            let told = text(path);
            if !told.is_empty() {
                *field = told;
            }
        }
        let before = event
            .pointer("/session/opened_before_attach")
            .and_then(Value::as_bool);
        seen.opened_before_attach |= before.unwrap_or_default();
        match kind.as_str() {
            "query" => {
                seen.first_request_ns.get_or_insert(from_ns);
                seen.requests.push(request(event));
            }
            "gap" => seen.gaps.push(gap()?),
            "opaque_session" => seen.opaque = Some((text("/opaque_session/reason"), from_ns)),
            _ => {}
        }
        Ok(())
    }
}

/// `123 bytes were seen but could not be understood`
fn not_understood(detail: &str) -> Option<u64> {
    let (front, _) = detail.split_once(" bytes were seen")?;
    front.rsplit(' ').next()?.parse().ok()
}

fn request(event: &Value) -> Request {
    let text = event.pointer("/statement/text").and_then(Value::as_str);
    let values = event.pointer("/params").and_then(Value::as_array);
    let values = values.into_iter().flatten();
    let mut values = values.filter_map(|param| param.get("value").and_then(Value::as_str));
    Request {
        number: text.and_then(number_in).or_else(|| values.find_map(number_in)),
        text: text.map(str::to_owned),
        truncated: event
            .pointer("/statement/truncated")
            .and_then(Value::as_bool)
            .unwrap_or_default(),
        outcome: event
            .pointer("/result/outcome")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        rows: event.pointer("/result/rows").and_then(Value::as_u64),
        principal: event
            .pointer("/attribution/principal")
            .and_then(Value::as_str)
            .map(str::to_owned),
    }
}

fn nanoseconds(text: &str) -> Result<i64> {
    let time: jiff::Timestamp = text.parse().context("a time")?;
    i64::try_from(time.as_nanosecond()).context("a time")
}

/// Rows a question. The collector cuts an answer at 32 MiB; the next page begins where it was cut.
const PAGE: usize = 8_000;
