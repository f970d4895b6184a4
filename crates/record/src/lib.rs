//! Events as the store takes them in: what its columns say, with everything that repeats kept once.
//!
//! Owns the way from an encoded event to a [`Record`]. What a batch defines once is decoded once and shared. Refuses to
//! be the whole event: what no column shows (parameters, result columns) is checked and left in
//! the evidence log, where the JSON form of an event is made from.

mod decoder;
mod weighed;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use proto::v1::{self, event};

pub use decoder::Decoder;
pub use weighed::Weighed;

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
    /// What they name, as the agent hashed it.
    pub definitions: Arc<[Bytes]>,
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
    /// The session that it belongs to, and whose it is.
    pub party: Option<Arc<Weighed<v1::Party>>>,
    /// What happened.
    pub body: Body,
    /// Whose records it touched.
    pub subjects: Vec<v1::Subject>,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    /// A statement was executed.
    Query(Execution),
    /// Several executions that are alike, told as one. Rows and bytes are sums.
    Rollup(Box<Execution>),
    /// Anything else; rare beside queries.
    Other(Box<event::Body>),
    /// A kind that this version does not know.
    #[default]
    Unknown,
}

/// The columns' part of a `Query`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Execution {
    /// What was executed, and what that means; shared by many executions, so that nothing in it is of one alone.
    pub template: Arc<Weighed<v1::Query>>,
    /// The server's command tag.
    pub tag: CompactString,
    /// How it ended.
    pub result: Option<Outcome>,
    /// The transaction around it.
    pub transaction: Option<Transaction>,
    /// Who the client said is behind it; `None` or empty if it named nobody.
    pub end_user: Option<CompactString>,
    /// Where it stands; no column shows it.
    pub place: Place,
    /// How often: 1, but for a roll-up.
    pub executions: u64,
}

/// Where a statement stands in the connection's two streams; all zero where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where the request begins.
    pub request_from: u64,
    /// Where it ends.
    pub request_to: u64,
    /// Where the answer ends; 0: there was none.
    pub response_to: u64,
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
            Body::Rollup(_) => "rollup",
            Body::Other(body) => proto::json::kind_of(body),
            Body::Unknown => "unknown",
        }
    }

    /// The statement's meaning, where it is one.
    #[must_use]
    pub fn meaning(&self) -> Option<&v1::Meaning> {
        self.execution()?.template.meaning.as_ref()
    }

    /// The execution that it is of, or those.
    #[must_use]
    pub fn execution(&self) -> Option<&Execution> {
        match &self.body {
            Body::Query(query) => Some(query),
            Body::Rollup(all) => Some(all),
            Body::Other(_) | Body::Unknown => None,
        }
    }
}

impl From<v1::Event> for Record {
    fn from(mut event: v1::Event) -> Self {
        Self {
            subjects: match &mut event.body {
                Some(event::Body::Query(query)) => std::mem::take(&mut query.subjects),
                Some(event::Body::Rollup(rollup)) => match &mut rollup.query {
                    Some(query) => std::mem::take(&mut query.subjects),
                    None => Vec::new(),
                },
                _ => Vec::new(),
            },
            seq: event.seq,
            ts_start_ns: event.ts_start_ns,
            ts_end_ns: event.ts_end_ns,
            party: (event.session.is_some() || event.attribution.is_some()).then(|| {
                let party = v1::Party {
                    session: event.session,
                    attribution: event.attribution,
                };
                Arc::new(party.into())
            }),
            body: match event.body {
                Some(event::Body::Query(query)) => Body::Query(query.into()),
                Some(event::Body::Rollup(rollup)) => Body::Rollup(Box::new(Execution {
                    executions: rollup.executions,
                    ..rollup.query.unwrap_or_default().into()
                })),
                Some(other) => Body::Other(Box::new(other)),
                None => Body::Unknown,
            },
        }
    }
}

impl From<v1::Query> for Execution {
    fn from(mut query: v1::Query) -> Self {
        Self {
            tag: take_tag(&mut query),
            result: query.result.take().map(|result| Outcome {
                phase: result.phase,
                outcome: result.outcome,
                rows: result.rows,
                rows_affected: result.rows_affected,
                bytes_in: result.bytes_in,
                bytes_out: result.bytes_out,
                sqlstate: result.sqlstate.into(),
            }),
            transaction: query.transaction.take().map(|transaction| Transaction {
                status: transaction.status.into(),
                seq: transaction.seq,
                end: transaction.r#final,
            }),
            end_user: query.asserted.take().map(|asserted| named(&asserted).into()),
            place: query.stream.take().map_or_else(Place::default, |stream| Place {
                request_from: stream.request_from,
                request_to: stream.request_to,
                response_to: stream.response_to,
            }),
            template: Arc::new(shared(query).into()),
            executions: 1,
        }
    }
}

/// What the columns say of all executions alike.
fn shared(query: v1::Query) -> v1::Query {
    v1::Query {
        protocol: query.protocol,
        statement: query.statement.map(|statement| v1::Statement {
            original_bytes: 0,
            sha256: Vec::new(),
            ..statement
        }),
        meaning: query.meaning,
        effective_role: query.effective_role,
        ..v1::Query::default()
    }
}

/// The end user among the claims, or nothing.
fn named(asserted: &v1::Asserted) -> &str {
    let mut claims = asserted.claims.iter();
    claims
        .find(|claim| claim.says == proto::json::END_USER)
        .map_or("", |claim| &claim.value)
}

/// Takes the command tag, which is each execution's own.
fn take_tag(query: &mut v1::Query) -> CompactString {
    query
        .meaning
        .as_mut()
        .map(|meaning| std::mem::take(&mut meaning.tag).into())
        .unwrap_or_default()
}

impl Records {
    /// The records of events that stand on no definitions.
    #[must_use]
    pub fn of(agent: &str, batch_sequence: u64, events: Vec<v1::Event>) -> Self {
        Self {
            agent: agent.into(),
            batch_sequence,
            encoded: events
                .iter()
                .map(|event| prost::Message::encode_to_vec(event).into())
                .collect(),
            records: events.into_iter().map(Record::from).collect(),
            definitions: Arc::default(),
        }
    }
}
