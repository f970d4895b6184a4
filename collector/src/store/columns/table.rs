//! Each column's name and where its values are taken.
//!
//! Owns the names that SQL sees. Refuses to know types and arrays: those follow from how a column is filled.

use proto::{
    json,
    v1::{self, event},
};

use super::{super::ways, Column, Get};
use record::{Body, Execution, Record, Transaction};

/// Name and filling of each column, in the order of `SELECT *`.
pub(in crate::store) const COLUMNS: &[(&str, Column)] = &[
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
        "pooler",
        Column::Party(Get::Text(|p| {
            let hop = attribution(p)?.hops.last().filter(|hop| !hop.session.is_empty());
            hop.and_then(|hop| text(&hop.name))
        })),
    ),
    (
        "client_session",
        Column::Party(Get::Text(|p| {
            attribution(p).and_then(::attribution::client_session)
        })),
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
        "columns_read",
        Column::Template(Get::List(|q| {
            meaning(q).map(|m| of_objects(m, |o| if writes(o) { &[] } else { &o.columns }))
        })),
    ),
    (
        "columns_written",
        Column::Template(Get::List(|q| {
            meaning(q).map(|m| of_objects(m, |o| if writes(o) { &o.columns } else { &[] }))
        })),
    ),
    (
        "columns_filtered",
        Column::Template(Get::List(|q| meaning(q).map(|m| of_objects(m, |o| &o.filtered)))),
    ),
    (
        "columns_exact",
        Column::Template(Get::Flag(|q| {
            let rows = |o: &&v1::Object| [v1::Access::Read, v1::Access::Write].contains(&o.access());
            let mut of = meaning(q)?.objects.iter().filter(rows).peekable();
            of.peek()?;
            Some(of.all(|object| object.columns_exact))
        })),
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
    ("executions", Column::Number(|r| Some(query(r)?.executions))),
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
    (
        ways::NAME,
        Column::Manner(Get::List(|m| {
            let ways = m.subject_ways.iter().map(ToString::to_string);
            (!m.subject_ways.is_empty()).then(|| ways.collect())
        })),
    ),
    ("gap_reason", Column::Manner(Get::Text(|m| text(&m.gap_reason)))),
    ("bytes_missing", Column::Number(|r| gap(r)?.bytes_missing)),
    ("events_missing", Column::Number(|r| gap(r)?.events_missing)),
    ("left_out", Column::Number(left_out)),
    (
        "amends_agent",
        Column::Manner(Get::Text(|m| m.amends.as_ref().and_then(|of| text(&of.agent)))),
    ),
    (
        "amends_session",
        Column::Manner(Get::Text(|m| m.amends.as_ref().and_then(|of| text(&of.session)))),
    ),
];

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

pub(in crate::store) fn query(record: &Record) -> Option<&Execution> {
    record.execution()
}

fn bytes(
    record: &Record,
    of_result: fn(&record::Outcome) -> u64,
    of_close: fn(&v1::SessionClose) -> u64,
) -> Option<u64> {
    match &record.body {
        Body::Other(body) => match body.as_ref() {
            event::Body::SessionClose(close) => Some(of_close(close)),
            _ => None,
        },
        _ => query(record)?.result.as_ref().map(of_result),
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
        Body::Query(_) | Body::Rollup(_) | Body::Unknown => None,
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

/// Statements of which nothing is kept, as a heartbeat counts them.
fn left_out(record: &Record) -> Option<u64> {
    match &record.body {
        Body::Other(body) => match body.as_ref() {
            event::Body::Heartbeat(beat) => known(beat.counters.as_ref()?.left_out),
            _ => None,
        },
        _ => None,
    }
}

/// A roll-up's times are those of many, and its durations are in the event.
fn duration(record: &Record) -> Option<u64> {
    if let Body::Rollup(_) = record.body {
        return None;
    }
    record.ts_end_ns.checked_sub(known(record.ts_start_ns)?)
}

fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

fn known(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
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

fn writes(object: &v1::Object) -> bool {
    object.access() == v1::Access::Write
}

/// `schema.name.column` of columns of the objects.
fn of_objects(meaning: &v1::Meaning, columns: fn(&v1::Object) -> &[String]) -> Vec<String> {
    let named = |object| {
        let columns = columns(object).iter();
        columns.map(move |column| format!("{}.{column}", object_name(object)))
    };
    meaning.objects.iter().flat_map(named).collect()
}

fn objects(meaning: &v1::Meaning, of: fn(&v1::Object) -> String) -> Option<Vec<String>> {
    Some(meaning.objects.iter().map(of).collect())
}
