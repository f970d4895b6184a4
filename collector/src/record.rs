//! Events as the store takes them in: what its columns say, with everything that repeats kept once.
//!
//! Owns the way from an encoded event to a [`Record`]. A session, its attribution and a prepared statement are
//! byte for byte the same in each of their events, so that they are decoded once and shared. Refuses to be the whole
//! event: what no column shows (parameters, result columns, places in the stream) is checked and left in the evidence
//! log, where the JSON form of an event is made from.

mod decoder;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use proto::v1::{self, event};

pub use decoder::Decoder;

/// The events of one batch.
#[derive(Clone, Debug)]
pub struct Records {
    /// The agent that recorded them.
    pub agent: Arc<str>,
    /// The batch that carried them.
    pub batch_sequence: u64,
    /// One for each event.
    pub records: Vec<Record>,
    /// The events as the agent hashed them, in the same order.
    pub encoded: Vec<Bytes>,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Its place among its agent's events.
    pub seq: u64,
    /// Nanoseconds since the Unix epoch; 0: not known.
    pub ts_start_ns: u64,
    /// The same of its end.
    pub ts_end_ns: u64,
    /// The session that it belongs to.
    pub session: Option<Arc<v1::Session>>,
    /// Whose it is.
    pub attribution: Option<Arc<v1::Attribution>>,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    /// A statement was executed.
    Query(Execution),
    /// Anything else; rare beside queries.
    Other(Box<event::Body>),
    /// A kind that this version does not know.
    #[default]
    Unknown,
}

/// The columns' part of a `Query`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Execution {
    /// A `Protocol`.
    pub protocol: i32,
    /// What was executed.
    pub statement: Option<Arc<v1::Statement>>,
    /// What that means.
    pub meaning: Option<Arc<v1::Meaning>>,
    /// How it ended.
    pub result: Option<Outcome>,
    /// The transaction around it.
    pub transaction: Option<Transaction>,
}

/// The columns' part of a `Result`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// A `Phase`.
    pub phase: i32,
    /// An `Outcome`.
    pub outcome: i32,
    /// Rows returned.
    pub rows: Option<u64>,
    /// Rows changed.
    pub rows_affected: Option<u64>,
    /// Bytes of the request.
    pub bytes_in: u64,
    /// Bytes of the answer.
    pub bytes_out: u64,
    /// Of the error; empty without one.
    pub sqlstate: CompactString,
}

/// A statement's transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// `I`, `T`, `E` or empty.
    pub status: CompactString,
    /// Its number in the session.
    pub seq: u64,
    /// A `Final`.
    pub end: i32,
}

impl Record {
    /// The kind's name, as in the JSON form.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.body {
            Body::Query(_) => "query",
            Body::Other(body) => proto::json::kind_of(body),
            Body::Unknown => "unknown",
        }
    }

    /// The statement's meaning, where it is one.
    #[must_use]
    pub fn meaning(&self) -> Option<&Arc<v1::Meaning>> {
        match &self.body {
            Body::Query(query) => query.meaning.as_ref(),
            _ => None,
        }
    }
}

impl From<v1::Event> for Record {
    fn from(event: v1::Event) -> Self {
        Self {
            seq: event.seq,
            ts_start_ns: event.ts_start_ns,
            ts_end_ns: event.ts_end_ns,
            session: event.session.map(Arc::new),
            attribution: event.attribution.map(Arc::new),
            body: match event.body {
                Some(event::Body::Query(query)) => Body::Query(query.into()),
                Some(other) => Body::Other(Box::new(other)),
                None => Body::Unknown,
            },
        }
    }
}

impl From<v1::Query> for Execution {
    fn from(query: v1::Query) -> Self {
        Self {
            protocol: query.protocol,
            statement: query.statement.map(Arc::new),
            meaning: query.meaning.map(Arc::new),
            result: query.result.map(|result| Outcome {
                phase: result.phase,
                outcome: result.outcome,
                rows: result.rows,
                rows_affected: result.rows_affected,
                bytes_in: result.bytes_in,
                bytes_out: result.bytes_out,
                sqlstate: result.sqlstate.into(),
            }),
            transaction: query.transaction.map(|transaction| Transaction {
                status: transaction.status.into(),
                seq: transaction.seq,
                end: transaction.r#final,
            }),
        }
    }
}

#[cfg(test)]
impl Records {
    /// The records of `events`, as an agent would have sent them.
    pub(crate) fn of(agent: &str, batch_sequence: u64, events: Vec<v1::Event>) -> Self {
        Self {
            agent: agent.into(),
            batch_sequence,
            encoded: events
                .iter()
                .map(|event| prost::Message::encode_to_vec(event).into())
                .collect(),
            records: events.into_iter().map(Record::from).collect(),
        }
    }
}
