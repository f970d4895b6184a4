//! The columns of `events`: one table that says what each is called, what type it has and where its value is taken.
//!
//! Owns the Arrow schema and the way from records to rows; both come from [`COLUMNS`], so they cannot differ.
//! Refuses to fill gaps: what an event does not know is NULL. Numbers are signed 64-bit, because that is what SQL
//! arithmetic expects; a larger one (none that is honest) is cut off at the largest.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
        TimestampNanosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use proto::{
    json,
    v1::{self, event::Body},
};

use crate::live::Record;

/// The schema of `events`; every column may be NULL.
pub(crate) fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The rows of one log entry. `json` holds the records' JSON forms, in the same order.
pub(crate) fn rows(log_index: u64, records: &[Record], json: &[String]) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<Row<'_>> = records
        .iter()
        .zip(json)
        .map(|(record, json)| Row::new(log_index, record, json))
        .collect();
    let columns = COLUMNS.iter().map(|(_, column)| column.build(&rows)).collect();
    RecordBatch::try_new(schema(), columns)
}

/// How a column is filled.
enum Column {
    Time(fn(&Row<'_>) -> Option<u64>),
    Number(fn(&Row<'_>) -> Option<u64>),
    Flag(fn(&Row<'_>) -> Option<bool>),
    /// Text that the record holds.
    Text(for<'a> fn(&Row<'a>) -> Option<&'a str>),
    /// Text that is made for the column.
    Made(fn(&Row<'_>) -> Option<String>),
    List(fn(&Row<'_>) -> Option<Vec<String>>),
}

/// A record, with the parts that columns ask for most.
struct Row<'a> {
    log_index: u64,
    json: &'a str,
    record: &'a Record,
    event: &'a v1::Event,
    session: Option<&'a v1::Session>,
    attribution: Option<&'a v1::Attribution>,
    process: Option<&'a v1::Process>,
    query: Option<&'a v1::Query>,
    statement: Option<&'a v1::Statement>,
    meaning: Option<&'a v1::Meaning>,
    result: Option<&'a v1::Result>,
}

impl<'a> Row<'a> {
    fn new(log_index: u64, record: &'a Record, json: &'a str) -> Self {
        let event = &record.event;
        let query = match &event.body {
            Some(Body::Query(query)) => Some(query),
            _ => None,
        };
        let attribution = event.attribution.as_ref();
        Self {
            log_index,
            json,
            record,
            event,
            session: event.session.as_ref(),
            attribution,
            process: attribution.and_then(|a| a.process.as_ref()),
            query,
            statement: query.and_then(|q| q.statement.as_ref()),
            meaning: query.and_then(|q| q.meaning.as_ref()),
            result: query.and_then(|q| q.result.as_ref()),
        }
    }

    fn bytes(
        &self,
        of_result: fn(&v1::Result) -> u64,
        of_close: fn(&v1::SessionClose) -> u64,
    ) -> Option<u64> {
        match &self.event.body {
            Some(Body::SessionClose(close)) => Some(of_close(close)),
            _ => self.result.map(of_result),
        }
    }

    /// Number of the transaction that it is about, and how that ended.
    fn transaction(&self) -> Option<(u64, i32)> {
        match &self.event.body {
            Some(Body::Transaction(end)) => Some((end.seq, end.r#final)),
            Some(Body::Query(query)) => query.transaction.as_ref().map(|t| (t.seq, t.r#final)),
            _ => None,
        }
    }

    fn gap(&self) -> Option<&'a v1::Gap> {
        match &self.event.body {
            Some(Body::Gap(gap)) => Some(gap),
            _ => None,
        }
    }
}

impl Column {
    fn data_type(&self) -> DataType {
        match self {
            // Written as an offset, which needs no table of time zones.
            Self::Time(_) => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Self::Number(_) => DataType::Int64,
            Self::Flag(_) => DataType::Boolean,
            Self::Text(_) | Self::Made(_) => DataType::Utf8,
            Self::List(_) => DataType::new_list(DataType::Utf8, true),
        }
    }

    fn build(&self, rows: &[Row<'_>]) -> ArrayRef {
        match self {
            Self::Time(get) => {
                let times: TimestampNanosecondArray = rows.iter().map(|r| get(r).map(signed)).collect();
                Arc::new(times.with_timezone(UTC))
            }
            Self::Number(get) => Arc::new(rows.iter().map(|r| get(r).map(signed)).collect::<Int64Array>()),
            Self::Flag(get) => Arc::new(rows.iter().map(get).collect::<BooleanArray>()),
            Self::Text(get) => Arc::new(rows.iter().map(get).collect::<StringArray>()),
            Self::Made(get) => Arc::new(rows.iter().map(get).collect::<StringArray>()),
            Self::List(get) => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for row in rows {
                    let list = get(row);
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

fn duration(row: &Row<'_>) -> Option<u64> {
    row.event.ts_end_ns.checked_sub(known(row.event.ts_start_ns)?)
}

fn sqlstate<'a>(row: &Row<'a>) -> Option<&'a str> {
    match &row.event.body {
        Some(Body::AuthFailure(failure)) => text(&failure.sqlstate),
        Some(Body::SessionError(error)) => text(&error.sqlstate),
        _ => row.result.and_then(|r| text(&r.sqlstate)),
    }
}

fn gap_reason<'a>(row: &Row<'a>) -> Option<&'a str> {
    match &row.event.body {
        Some(Body::Gap(gap)) => text(&gap.reason),
        Some(Body::OpaqueSession(session)) => text(&session.reason),
        _ => None,
    }
}

fn encryption(row: &Row<'_>) -> Option<String> {
    let number = match &row.event.body {
        Some(Body::OpaqueSession(opaque)) => opaque.encryption,
        _ => row.session?.encryption,
    };
    let full = v1::Encryption::try_from(number).ok();
    json::enum_name(number, full.map(|e| e.as_str_name()), "ENCRYPTION_")
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

fn objects(row: &Row<'_>, of: fn(&v1::Object) -> String) -> Option<Vec<String>> {
    row.meaning.map(|m| m.objects.iter().map(of).collect())
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
const COLUMNS: &[(&str, Column)] = &[
    ("ts_start", Column::Time(|r| known(r.event.ts_start_ns))),
    ("ts_end", Column::Time(|r| known(r.event.ts_end_ns))),
    ("kind", Column::Made(|r| Some(json::kind(r.event).to_owned()))),
    (
        "event_id",
        Column::Made(|r| Some(json::event_id(&r.record.agent, r.event.seq))),
    ),
    ("agent", Column::Text(|r| Some(&r.record.agent))),
    ("seq", Column::Number(|r| Some(r.event.seq))),
    (
        "batch_sequence",
        Column::Number(|r| Some(r.record.batch_sequence)),
    ),
    ("log_index", Column::Number(|r| Some(r.log_index))),
    ("session_id", Column::Text(|r| text(&r.session?.id))),
    (
        "backend_pid",
        Column::Number(|r| known(r.session?.backend_pid.into())),
    ),
    ("login_role", Column::Text(|r| text(&r.session?.login_role))),
    ("database", Column::Text(|r| text(&r.session?.database))),
    (
        "application_name",
        Column::Text(|r| text(&r.session?.application_name)),
    ),
    (
        "transport",
        Column::Made(|r| {
            let number = r.session?.transport;
            let full = v1::Transport::try_from(number).ok();
            json::enum_name(number, full.map(|e| e.as_str_name()), "TRANSPORT_")
        }),
    ),
    ("encryption", Column::Made(encryption)),
    (
        "opened_before_attach",
        Column::Flag(|r| Some(r.session?.opened_before_attach)),
    ),
    ("client_addr", Column::Text(|r| owned(r.session?.client.as_ref()))),
    (
        "client_port",
        Column::Number(|r| known(r.session?.client.as_ref()?.port.into())),
    ),
    ("server_addr", Column::Text(|r| owned(r.session?.server.as_ref()))),
    (
        "server_port",
        Column::Number(|r| known(r.session?.server.as_ref()?.port.into())),
    ),
    ("principal", Column::Text(|r| text(&r.attribution?.principal))),
    (
        "principal_kind",
        Column::Made(|r| {
            let number = r.attribution?.kind;
            let full = v1::PrincipalKind::try_from(number).ok();
            json::enum_name(number, full.map(|e| e.as_str_name()), "PRINCIPAL_KIND_")
        }),
    ),
    (
        "confidence",
        Column::Made(|r| Some(json::confidence(r.attribution?.confidence))),
    ),
    ("method", Column::Text(|r| text(&r.attribution?.method))),
    ("reason", Column::Text(|r| text(&r.attribution?.reason))),
    ("pid", Column::Number(|r| known(r.process?.pid.into()))),
    ("exe", Column::Text(|r| text(&r.process?.exe))),
    ("uid", Column::Number(|r| Some(r.process?.uid.into()))),
    ("user", Column::Text(|r| text(&r.process?.user))),
    ("unit", Column::Text(|r| text(&r.process?.unit))),
    ("cgroup", Column::Text(|r| text(&r.process?.cgroup_path))),
    (
        "command_line",
        Column::Made(|r| {
            let words = &r.process?.command_line;
            (!words.is_empty()).then(|| words.join(" "))
        }),
    ),
    ("class", Column::Made(|r| json::class(r.meaning?.class))),
    ("command", Column::Text(|r| text(&r.meaning?.command))),
    ("tag", Column::Text(|r| text(&r.meaning?.tag))),
    ("parsed", Column::Flag(|r| Some(r.meaning?.parsed))),
    (
        "statement",
        Column::Text(|r| {
            let statement = r.statement?;
            if statement.text_known {
                Some(&statement.text)
            } else {
                text(&statement.text)
            }
        }),
    ),
    ("text_known", Column::Flag(|r| Some(r.statement?.text_known))),
    ("truncated", Column::Flag(|r| Some(r.statement?.truncated))),
    ("fingerprint", Column::Text(|r| text(&r.statement?.fingerprint))),
    ("objects", Column::List(|r| objects(r, object_name))),
    ("object_access", Column::List(|r| objects(r, access))),
    (
        "protocol",
        Column::Made(|r| {
            let number = r.query?.protocol;
            let full = v1::Protocol::try_from(number).ok();
            json::enum_name(number, full.map(|e| e.as_str_name()), "PROTOCOL_")
        }),
    ),
    ("statement_name", Column::Text(|r| text(&r.statement?.name))),
    (
        "statement_index",
        Column::Number(|r| Some(r.statement?.index.into())),
    ),
    (
        "phase",
        Column::Made(|r| {
            let number = r.result?.phase;
            let full = v1::Phase::try_from(number).ok();
            json::enum_name(number, full.map(|e| e.as_str_name()), "PHASE_")
        }),
    ),
    (
        "outcome",
        Column::Made(|r| {
            let number = r.result?.outcome;
            let full = v1::Outcome::try_from(number).ok();
            let name = json::enum_name(number, full.map(|e| e.as_str_name()), "OUTCOME_");
            Some(name.unwrap_or_else(|| "unknown".to_owned()))
        }),
    ),
    ("rows", Column::Number(|r| r.result?.rows)),
    ("rows_affected", Column::Number(|r| r.result?.rows_affected)),
    (
        "bytes_in",
        Column::Number(|r| r.bytes(|q| q.bytes_in, |c| c.bytes_in)),
    ),
    (
        "bytes_out",
        Column::Number(|r| r.bytes(|q| q.bytes_out, |c| c.bytes_out)),
    ),
    ("duration_ns", Column::Number(duration)),
    ("sqlstate", Column::Text(sqlstate)),
    (
        "tx_status",
        Column::Text(|r| text(&r.query?.transaction.as_ref()?.status)),
    ),
    ("tx_seq", Column::Number(|r| known(r.transaction()?.0))),
    ("tx_final", Column::Made(|r| json::final_name(r.transaction()?.1))),
    ("gap_reason", Column::Text(gap_reason)),
    ("bytes_missing", Column::Number(|r| r.gap()?.bytes_missing)),
    ("events_missing", Column::Number(|r| r.gap()?.events_missing)),
    ("event", Column::Text(|r| Some(r.json))),
];
