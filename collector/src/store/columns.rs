//! The columns of `events`: one table that says what each is called, what type it has and where its value is taken.
//!
//! Owns the Arrow schema and the way from records to columns; both come from [`COLUMNS`], so they cannot differ. What
//! repeats (batch, party, template, manner) is a *part*, whose columns are filled once for
//! each distinct one; `chunk` puts the two together. Refuses to fill gaps: what an event does not know is NULL.
//! Numbers are signed 64-bit, because that is what SQL arithmetic expects; a larger one (none that is honest) is cut
//! off at the largest. `event_id` and `event`, which follow from others, are made by `session` when asked for, and so is
//! what a file says of parties and templates (`parts`).

use std::sync::{Arc, LazyLock};

use compact_str::CompactString;
use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder, TimestampNanosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use proto::{
    json,
    v1::{self, event},
};

use crate::record::{Body, Execution, Record, Transaction};

/// The schema of `events` as it is stored; every column may be NULL.
pub(crate) fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Looked for one value at a time, of very many: a file has these columns of its own; what else it says of parties,
/// templates and manners is read out of them when it is asked for.
pub(super) const SOUGHT: &[&str] = &["principal", "fingerprint", "session_id"];

/// Of little variety within a row group, so that their range alone says whether it can hold an answer: the same. Keeping the
/// range of any other text costs more at each seal than it saves.
pub(super) const NARROWING: &[&str] = &["kind", "agent", "login_role", "database"];

/// How a column is filled.
pub(super) enum Column {
    /// Of each event.
    Time(fn(&Record) -> Option<u64>),
    /// Of each event.
    Number(fn(&Record) -> Option<u64>),
    /// Of each batch.
    Batch(Get<Batch>),
    /// Of each session as it was known, with whose it is.
    Party(Get<v1::Party>),
    /// Of each statement.
    Template(Get<v1::Query>),
    /// Of each way in which events went.
    Manner(Get<Manner>),
}

/// Where a part's column takes its values.
pub(super) enum Get<T> {
    Number(fn(&T) -> Option<u64>),
    Flag(fn(&T) -> Option<bool>),
    /// Text that the part holds.
    Text(for<'a> fn(&'a T) -> Option<&'a str>),
    /// Text that is made for the column.
    Made(fn(&T) -> Option<String>),
    List(fn(&T) -> Option<Vec<String>>),
}

/// What is the same for all events of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) log_index: u64,
    pub(super) agent: Arc<str>,
    pub(super) sequence: u64,
}

/// The words that an event is described with: few combinations, which most events share.
#[derive(Debug, Default, Hash, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) kind: &'static str,
    pub(super) encryption: i32,
    pub(super) tag: CompactString,
    pub(super) phase: Option<i32>,
    pub(super) outcome: Option<i32>,
    pub(super) sqlstate: CompactString,
    pub(super) tx_status: CompactString,
    pub(super) tx_final: Option<i32>,
    pub(super) gap_reason: CompactString,
    pub(super) end_user: CompactString,
}

impl Manner {
    pub(super) fn of(record: &Record) -> Self {
        let mut manner = Self {
            kind: record.kind(),
            encryption: record
                .party
                .as_ref()
                .and_then(|party| session(party))
                .map_or(0, |session| session.encryption),
            ..Self::default()
        };
        match &record.body {
            Body::Query(query) => {
                manner.tag = query.tag.clone();
                manner.end_user = query.end_user.clone().unwrap_or_default();
                if let Some(result) = &query.result {
                    manner.phase = Some(result.phase);
                    manner.outcome = Some(result.outcome);
                    manner.sqlstate = result.sqlstate.clone();
                }
                if let Some(transaction) = &query.transaction {
                    manner.tx_status = transaction.status.clone();
                    manner.tx_final = Some(transaction.end);
                }
            }
            Body::Other(body) => match body.as_ref() {
                event::Body::AuthFailure(failure) => manner.sqlstate = failure.sqlstate.as_str().into(),
                event::Body::SessionError(error) => manner.sqlstate = error.sqlstate.as_str().into(),
                event::Body::Transaction(end) => manner.tx_final = Some(end.r#final),
                event::Body::Gap(gap) => manner.gap_reason = gap.reason.as_str().into(),
                event::Body::OpaqueSession(opaque) => {
                    manner.encryption = opaque.encryption;
                    manner.gap_reason = opaque.reason.as_str().into();
                }
                _ => {}
            },
            Body::Unknown => {}
        }
        manner
    }
}

impl Column {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            // Written as an offset, which needs no table of time zones.
            Self::Time(_) => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Self::Number(_) => DataType::Int64,
            Self::Batch(get) => get.data_type(),
            Self::Party(get) => get.data_type(),
            Self::Template(get) => get.data_type(),
            Self::Manner(get) => get.data_type(),
        }
    }
}

impl<T> Get<T> {
    fn data_type(&self) -> DataType {
        match self {
            Self::Number(_) => DataType::Int64,
            Self::Flag(_) => DataType::Boolean,
            Self::Text(_) | Self::Made(_) => DataType::Utf8,
            Self::List(_) => DataType::new_list(DataType::Utf8, true),
        }
    }

    /// The column's value of each part.
    pub(super) fn values(&self, parts: &[&T]) -> ArrayRef {
        let parts = parts.iter().copied();
        match self {
            Self::Number(get) => Arc::new(parts.map(|p| get(p).map(signed)).collect::<Int64Array>()),
            Self::Flag(get) => Arc::new(parts.map(get).collect::<BooleanArray>()),
            Self::Text(get) => Arc::new(parts.map(get).collect::<StringArray>()),
            Self::Made(get) => Arc::new(parts.map(get).collect::<StringArray>()),
            Self::List(get) => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for part in parts {
                    let list = get(part);
                    for value in list.iter().flatten() {
                        lists.values().append_value(value);
                    }
                    lists.append(list.is_some());
                }
                Arc::new(lists.finish())
            }
        }
    }
}

pub(super) fn times<'a>(
    records: impl Iterator<Item = &'a Record>,
    get: fn(&Record) -> Option<u64>,
) -> ArrayRef {
    let times: TimestampNanosecondArray = records.map(|record| get(record).map(signed)).collect();
    Arc::new(times.with_timezone(UTC))
}

pub(super) fn numbers<'a>(
    records: impl Iterator<Item = &'a Record>,
    get: fn(&Record) -> Option<u64>,
) -> ArrayRef {
    Arc::new(
        records
            .map(|record| get(record).map(signed))
            .collect::<Int64Array>(),
    )
}

fn session(party: &v1::Party) -> Option<&v1::Session> {
    party.session.as_ref()
}

fn attribution(party: &v1::Party) -> Option<&v1::Attribution> {
    party.attribution.as_ref()
}

fn statement(template: &v1::Query) -> Option<&v1::Statement> {
    template.statement.as_ref()
}

fn meaning(template: &v1::Query) -> Option<&v1::Meaning> {
    template.meaning.as_ref()
}

pub(super) fn query(record: &Record) -> Option<&Execution> {
    match &record.body {
        Body::Query(query) => Some(query),
        _ => None,
    }
}

fn bytes(
    record: &Record,
    of_result: fn(&crate::record::Outcome) -> u64,
    of_close: fn(&v1::SessionClose) -> u64,
) -> Option<u64> {
    match &record.body {
        Body::Query(query) => query.result.as_ref().map(of_result),
        Body::Other(body) => match body.as_ref() {
            event::Body::SessionClose(close) => Some(of_close(close)),
            _ => None,
        },
        Body::Unknown => None,
    }
}

/// Number of the transaction that the event is about.
fn transaction(record: &Record) -> Option<u64> {
    match &record.body {
        Body::Query(Execution {
            transaction: Some(Transaction { seq, .. }),
            ..
        }) => Some(*seq),
        Body::Other(body) => match body.as_ref() {
            event::Body::Transaction(end) => Some(end.seq),
            _ => None,
        },
        _ => None,
    }
}

fn gap(record: &Record) -> Option<&v1::Gap> {
    match &record.body {
        Body::Other(body) => match body.as_ref() {
            event::Body::Gap(gap) => Some(gap),
            _ => None,
        },
        _ => None,
    }
}

fn duration(record: &Record) -> Option<u64> {
    record.ts_end_ns.checked_sub(known(record.ts_start_ns)?)
}

fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

fn known(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn owned(address: Option<&v1::Endpoint>) -> Option<&str> {
    address.and_then(|e| text(&e.addr))
}

/// `schema.name`, or the name alone where no schema was said.
fn object_name(object: &v1::Object) -> String {
    if object.schema.is_empty() {
        object.name.clone()
    } else {
        format!("{}.{}", object.schema, object.name)
    }
}

/// For each of `objects`, how it was used; "unknown" keeps the two lists of equal length.
fn access(object: &v1::Object) -> String {
    let full = v1::Access::try_from(object.access).ok();
    json::enum_name(object.access, full.map(|a| a.as_str_name()), "ACCESS_")
        .unwrap_or_else(|| "unknown".into())
}

fn objects(meaning: &v1::Meaning, of: fn(&v1::Object) -> String) -> Option<Vec<String>> {
    Some(meaning.objects.iter().map(of).collect())
}

const UTC: &str = "+00:00";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<Field> = COLUMNS
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type(), true))
        .collect();
    Arc::new(Schema::new(fields))
});

/// Name and filling of each column, in the order of `SELECT *`.
pub(super) const COLUMNS: &[(&str, Column)] = &[
    ("ts_start", Column::Time(|r| known(r.ts_start_ns))),
    ("ts_end", Column::Time(|r| known(r.ts_end_ns))),
    ("kind", Column::Manner(Get::Text(|m| Some(m.kind)))),
    ("agent", Column::Batch(Get::Text(|b| Some(&b.agent)))),
    ("seq", Column::Number(|r| Some(r.seq))),
    ("batch_sequence", Column::Batch(Get::Number(|b| Some(b.sequence)))),
    ("log_index", Column::Batch(Get::Number(|b| Some(b.log_index)))),
    (
        "session_id",
        Column::Party(Get::Text(|p| session(p).and_then(|s| text(&s.id)))),
    ),
    (
        "backend_pid",
        Column::Party(Get::Number(|p| {
            session(p).and_then(|s| known(s.backend_pid.into()))
        })),
    ),
    (
        "login_role",
        Column::Party(Get::Text(|p| session(p).and_then(|s| text(&s.login_role)))),
    ),
    (
        "effective_role",
        Column::Template(Get::Text(|q| text(&q.effective_role))),
    ),
    ("end_user", Column::Manner(Get::Text(|m| text(&m.end_user)))),
    (
        "database",
        Column::Party(Get::Text(|p| session(p).and_then(|s| text(&s.database)))),
    ),
    (
        "application_name",
        Column::Party(Get::Text(|p| session(p).and_then(|s| text(&s.application_name)))),
    ),
    (
        "transport",
        Column::Party(Get::Made(|p| {
            session(p).and_then(|s| {
                let full = v1::Transport::try_from(s.transport).ok();
                json::enum_name(s.transport, full.map(|e| e.as_str_name()), "TRANSPORT_")
            })
        })),
    ),
    (
        "encryption",
        Column::Manner(Get::Made(|m| {
            let full = v1::Encryption::try_from(m.encryption).ok();
            json::enum_name(m.encryption, full.map(|e| e.as_str_name()), "ENCRYPTION_")
        })),
    ),
    (
        "opened_before_attach",
        Column::Party(Get::Flag(|p| session(p).map(|s| s.opened_before_attach))),
    ),
    (
        "client_addr",
        Column::Party(Get::Text(|p| session(p).and_then(|s| owned(s.client.as_ref())))),
    ),
    (
        "client_port",
        Column::Party(Get::Number(|p| {
            session(p).and_then(|s| known(s.client.as_ref()?.port.into()))
        })),
    ),
    (
        "server_addr",
        Column::Party(Get::Text(|p| session(p).and_then(|s| owned(s.server.as_ref())))),
    ),
    (
        "server_port",
        Column::Party(Get::Number(|p| {
            session(p).and_then(|s| known(s.server.as_ref()?.port.into()))
        })),
    ),
    (
        "principal",
        Column::Party(Get::Text(|p| attribution(p).and_then(|a| text(&a.principal)))),
    ),
    (
        "principal_kind",
        Column::Party(Get::Made(|p| {
            attribution(p).and_then(|a| {
                let full = v1::PrincipalKind::try_from(a.kind).ok();
                json::enum_name(a.kind, full.map(|e| e.as_str_name()), "PRINCIPAL_KIND_")
            })
        })),
    ),
    (
        "confidence",
        Column::Party(Get::Made(|p| {
            attribution(p).map(|a| json::confidence(a.confidence))
        })),
    ),
    (
        "method",
        Column::Party(Get::Text(|p| attribution(p).and_then(|a| text(&a.method)))),
    ),
    (
        "reason",
        Column::Party(Get::Text(|p| attribution(p).and_then(|a| text(&a.reason)))),
    ),
    (
        "pid",
        Column::Party(Get::Number(|p| {
            attribution(p).and_then(|a| known(a.process.as_ref()?.pid.into()))
        })),
    ),
    (
        "exe",
        Column::Party(Get::Text(|p| {
            attribution(p).and_then(|a| text(&a.process.as_ref()?.exe))
        })),
    ),
    (
        "uid",
        Column::Party(Get::Number(|p| {
            attribution(p).and_then(|a| Some(a.process.as_ref()?.uid.into()))
        })),
    ),
    (
        "user",
        Column::Party(Get::Text(|p| {
            attribution(p).and_then(|a| text(&a.process.as_ref()?.user))
        })),
    ),
    (
        "unit",
        Column::Party(Get::Text(|p| {
            attribution(p).and_then(|a| text(&a.process.as_ref()?.unit))
        })),
    ),
    (
        "cgroup",
        Column::Party(Get::Text(|p| {
            attribution(p).and_then(|a| text(&a.process.as_ref()?.cgroup_path))
        })),
    ),
    (
        "command_line",
        Column::Party(Get::Made(|p| {
            attribution(p).and_then(|a| {
                let words = &a.process.as_ref()?.command_line;
                (!words.is_empty()).then(|| words.join(" "))
            })
        })),
    ),
    (
        "class",
        Column::Template(Get::Made(|q| meaning(q).and_then(|m| json::class(m.class)))),
    ),
    (
        "command",
        Column::Template(Get::Text(|q| meaning(q).and_then(|m| text(&m.command)))),
    ),
    ("tag", Column::Manner(Get::Text(|m| text(&m.tag)))),
    (
        "parsed",
        Column::Template(Get::Flag(|q| meaning(q).map(|m| m.parsed))),
    ),
    (
        "statement",
        Column::Template(Get::Text(|q| {
            statement(q).and_then(|s| {
                if s.text_known {
                    Some(s.text.as_str())
                } else {
                    text(&s.text)
                }
            })
        })),
    ),
    (
        "text_known",
        Column::Template(Get::Flag(|q| statement(q).map(|s| s.text_known))),
    ),
    (
        "truncated",
        Column::Template(Get::Flag(|q| statement(q).map(|s| s.truncated))),
    ),
    (
        "fingerprint",
        Column::Template(Get::Text(|q| statement(q).and_then(|s| text(&s.fingerprint)))),
    ),
    (
        "objects",
        Column::Template(Get::List(|q| meaning(q).and_then(|m| objects(m, object_name)))),
    ),
    (
        "object_access",
        Column::Template(Get::List(|q| meaning(q).and_then(|m| objects(m, access)))),
    ),
    (
        "protocol",
        Column::Template(Get::Made(|q| {
            let full = v1::Protocol::try_from(q.protocol).ok();
            json::enum_name(q.protocol, full.map(|e| e.as_str_name()), "PROTOCOL_")
        })),
    ),
    (
        "statement_name",
        Column::Template(Get::Text(|q| statement(q).and_then(|s| text(&s.name)))),
    ),
    (
        "statement_index",
        Column::Template(Get::Number(|q| statement(q).map(|s| s.index.into()))),
    ),
    (
        "phase",
        Column::Manner(Get::Made(|m| {
            let full = v1::Phase::try_from(m.phase?).ok();
            json::enum_name(m.phase?, full.map(|e| e.as_str_name()), "PHASE_")
        })),
    ),
    (
        "outcome",
        Column::Manner(Get::Made(|m| {
            let full = v1::Outcome::try_from(m.outcome?).ok();
            let name = json::enum_name(m.outcome?, full.map(|e| e.as_str_name()), "OUTCOME_");
            Some(name.unwrap_or_else(|| "unknown".to_owned()))
        })),
    ),
    ("rows", Column::Number(|r| query(r)?.result.as_ref()?.rows)),
    (
        "rows_affected",
        Column::Number(|r| query(r)?.result.as_ref()?.rows_affected),
    ),
    (
        "bytes_in",
        Column::Number(|r| bytes(r, |q| q.bytes_in, |c| c.bytes_in)),
    ),
    (
        "bytes_out",
        Column::Number(|r| bytes(r, |q| q.bytes_out, |c| c.bytes_out)),
    ),
    ("duration_ns", Column::Number(duration)),
    ("sqlstate", Column::Manner(Get::Text(|m| text(&m.sqlstate)))),
    ("tx_status", Column::Manner(Get::Text(|m| text(&m.tx_status)))),
    ("tx_seq", Column::Number(|r| known(transaction(r)?))),
    (
        "tx_final",
        Column::Manner(Get::Made(|m| json::final_name(m.tx_final?))),
    ),
    ("gap_reason", Column::Manner(Get::Text(|m| text(&m.gap_reason)))),
    ("bytes_missing", Column::Number(|r| gap(r)?.bytes_missing)),
    ("events_missing", Column::Number(|r| gap(r)?.events_missing)),
];
