//! The words that an event is described with, which few others differ from.
//!
//! Owns which words of an event go into columns that many events share. Refuses numbers and times, which are each
//! event's own.

use compact_str::CompactString;
use proto::v1::event;

use super::ways;
use record::{Body, Record};

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
    /// As [`ways::of`] tells them.
    pub(super) subject_ways: Box<[CompactString]>,
    /// What an amendment is of.
    pub(super) amends: Option<Box<Amends>>,
}

/// What an amendment is of.
#[derive(Debug, Default, Hash, PartialEq, Eq)]
pub(super) struct Amends {
    pub(super) agent: CompactString,
    /// Empty if it is of statements.
    pub(super) session: CompactString,
    /// As in `Amendment.events`.
    pub(super) events: Box<[u64]>,
    /// Names of the session's statements are taken back.
    pub(super) takes_back: bool,
    /// It gives the name of a pod, by its uid.
    pub(super) names_pod: bool,
}

impl Manner {
    pub(super) fn of(record: &Record) -> Self {
        let mut manner = Self {
            kind: record.kind(),
            encryption: record
                .party
                .as_ref()
                .and_then(|party| party.session.as_ref())
                .map_or(0, |session| session.encryption),
            subject_ways: ways::of(&record.subjects),
            ..Self::default()
        };
        if let Some(query) = record.execution() {
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
        match &record.body {
            Body::Other(body) => match body.as_ref() {
                event::Body::AuthFailure(failure) => manner.sqlstate = failure.sqlstate.as_str().into(),
                event::Body::SessionError(error) => manner.sqlstate = error.sqlstate.as_str().into(),
                event::Body::Transaction(end) => manner.tx_final = Some(end.r#final),
                event::Body::Gap(gap) => manner.gap_reason = gap.reason.as_str().into(),
                event::Body::OpaqueSession(opaque) => {
                    manner.encryption = opaque.encryption;
                    manner.gap_reason = opaque.reason.as_str().into();
                }
                event::Body::Amendment(of) => {
                    manner.amends = Some(Box::new(Amends {
                        agent: of.agent_id.as_str().into(),
                        session: of.session.as_str().into(),
                        events: of.events.as_slice().into(),
                        takes_back: of.r#match == attribution::POOLERS,
                        names_pod: of.r#match == attribution::POD_UID,
                    }));
                }
                _ => {}
            },
            Body::Query(_) | Body::Rollup(_) | Body::Unknown => {}
        }
        manner
    }
}
