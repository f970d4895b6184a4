//! From the pipeline's events to their encoded form.
//!
//! What [`super::event`] makes is the rule, and a test holds the two equal. This way there is no tree of strings between:
//! session and attribution are encoded when they change, statement and meaning when a statement is new, and what is left
//! goes straight from the pipeline into the buffer.

mod template;

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use proto::v1::{self, definition::Kind};
use tap_core::{Body, ByCookie, Column, Event, Query, SessionFacts};
use volume::Rolled;

use self::template::{Template, Templates};
use super::{
    encoded::{Definition, Encoded},
    query::{asserted, format, how, outcome, param, param_told, phase, subject},
    session,
    writer::Writer,
};
use crate::clock::Clock;

// Numbers of the fields in event.proto.
const TS_START: u32 = 2;
const TS_FIRST_RESPONSE: u32 = 3;
const TS_END: u32 = 4;
const FIRST_RESPONSE_AFTER: u32 = 7;
const ENDED_AFTER: u32 = 8;
const QUERY: u32 = 10;
const ROLLUP: u32 = 28;

/// Encodes the events of connections.
#[derive(Default)]
pub struct Encoder {
    heads: ByCookie<Head>,
    /// Parties of all heads beyond the newest of each.
    more: usize,
    templates: Templates,
    out: Encoded,
}

/// What is kept of a connection.
#[derive(Default)]
struct Head {
    /// Who speaks, the newest first: one, until that changes; behind a pooler as many as speak in turn.
    parties: VecDeque<Party>,
    /// What its newest query began as, and its columns.
    newest: Option<(Rc<Template>, Arc<[Column]>)>,
}

/// What is in every event of a connection and a client.
struct Party {
    session: Arc<SessionFacts>,
    attribution: Option<Arc<v1::Attribution>>,
    definition: Rc<Definition>,
}

/// Clients of one server connection whose parties are kept: with more in turn, some are encoded anew.
const PARTIES: usize = 64;

/// Parties of all connections beyond their newest: each has one or two KiB.
const PARTIES_IN_ALL: usize = 4_096;

impl Encoder {
    /// Encodes an event of a connection.
    pub fn encode(
        &mut self,
        event: &Event,
        attribution: Option<&Arc<v1::Attribution>>,
        clock: Clock,
        boot: &str,
    ) -> &Encoded {
        if self.more > PARTIES_IN_ALL {
            self.forget_parties();
        }
        let head = self.heads.entry(event.session.cookie).or_default();
        let encoded = &mut self.out;
        let before = head.more();
        encoded.party = Some(head.party(&event.session, attribution, boot));
        self.more = self.more + head.more() - before;
        encoded.template = None;
        let mut out = Writer {
            bytes: std::mem::take(&mut encoded.bytes),
        };
        out.bytes.clear();
        write_times(&mut out, event, clock, encoded);
        match &event.body {
            Body::Query(query) => {
                let template = match head.newest.take() {
                    // A prepared statement's columns are one and the same each time.
                    Some((template, columns))
                        if Arc::ptr_eq(&columns, &query.columns) && template.is_of_all_but_columns(query) =>
                    {
                        template
                    }
                    Some((template, _)) if template.is_of(query) => template,
                    _ => self.templates.of(query),
                };
                encoded.template = Some(Rc::clone(&template.definition));
                out.message(QUERY, |out| write_query(out, query, &template));
                head.newest = Some((template, Arc::clone(&query.columns)));
            }
            body => super::body(body, boot).encode(&mut out.bytes),
        }
        encoded.bytes = out.bytes;
        encoded
    }

    /// Encodes several executions as one.
    pub fn encode_rollup(&mut self, roll: &Rolled, rule: &str, clock: Clock, boot: &str) -> &Encoded {
        let Body::Query(query) = &roll.event.body else {
            // Nothing else is put together.
            return self.encode(&roll.event, roll.attribution.as_ref(), clock, boot);
        };
        let head = self.heads.entry(roll.event.session.cookie).or_default();
        let encoded = &mut self.out;
        let before = head.more();
        encoded.party = Some(head.party(&roll.event.session, roll.attribution.as_ref(), boot));
        self.more = self.more + head.more() - before;
        let template = self.templates.of(query);
        encoded.template = Some(Rc::clone(&template.definition));
        let mut out = Writer {
            bytes: std::mem::take(&mut encoded.bytes),
        };
        out.bytes.clear();
        write_times(&mut out, &roll.event, clock, encoded);
        out.message(ROLLUP, |out| {
            out.message(1, |out| write_common(out, query, &template));
            let ends = roll.ends;
            for (field, number) in [
                (2, roll.executions),
                (3, roll.transactions),
                (4, ends.committed),
                (5, ends.rolled_back),
                (6, ends.prepared),
                (7, ends.unknown),
                (8, roll.open),
                (9, roll.open_transaction),
                (10, roll.duration_ns),
            ] {
                out.number(field, number);
            }
            let (first, counts) = roll.durations.counts();
            out.number(11, first.into());
            if !counts.is_empty() {
                out.message(12, |out| counts.iter().for_each(|count| out.packed(*count)));
            }
            out.text(13, rule);
        });
        encoded.bytes = out.bytes;
        encoded
    }

    /// A connection is over.
    pub fn forget(&mut self, cookie: u64) {
        if let Some(head) = self.heads.remove(&cookie) {
            self.more -= head.more();
        }
    }

    fn forget_parties(&mut self) {
        for head in self.heads.values_mut() {
            head.parties.truncate(1);
        }
        self.more = 0;
    }

    /// Memory is short: what can be made anew is forgotten.
    pub fn forget_statements(&mut self) {
        self.templates = Templates::default();
        self.forget_parties();
        for head in self.heads.values_mut() {
            head.newest = None;
        }
    }
}

impl Head {
    /// Parties beyond the newest.
    fn more(&self) -> usize {
        self.parties.len().saturating_sub(1)
    }

    /// Who speaks now.
    fn party(
        &mut self,
        facts: &Arc<SessionFacts>,
        attribution: Option<&Arc<v1::Attribution>>,
        boot: &str,
    ) -> Rc<Definition> {
        if let Some(newest) = self.parties.front()
            && newest.is_of(attribution)
            && Arc::ptr_eq(&newest.session, facts)
        {
            return Rc::clone(&newest.definition);
        }
        let known = self
            .parties
            .iter()
            .position(|party| party.is_of(attribution) && party.session == *facts);
        let party = match known.and_then(|place| self.parties.remove(place)) {
            Some(known) => known,
            None => {
                // What is known of a session changes; where one client alone speaks in it, what it was is past.
                if self.parties.iter().all(|party| party.is_of(attribution)) {
                    self.parties.clear();
                }
                Party::new(facts, attribution, boot)
            }
        };
        let definition = Rc::clone(&party.definition);
        self.parties.truncate(PARTIES - 1);
        self.parties.push_front(party);
        definition
    }
}

impl Party {
    fn new(facts: &Arc<SessionFacts>, attribution: Option<&Arc<v1::Attribution>>, boot: &str) -> Self {
        let party = v1::Party {
            session: Some(session(facts, boot)),
            attribution: attribution.map(|attribution| v1::Attribution::clone(attribution)),
        };
        Self {
            session: Arc::clone(facts),
            attribution: attribution.cloned(),
            definition: Definition::new(&v1::Definition {
                kind: Some(Kind::Party(party)),
            }),
        }
    }

    /// The reference held here keeps what it points to from being changed in place.
    fn is_of(&self, attribution: Option<&Arc<v1::Attribution>>) -> bool {
        match (&self.attribution, attribution) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (None, None) => true,
            _ => false,
        }
    }
}

fn write_times(out: &mut Writer, event: &Event, clock: Clock, encoded: &mut Encoded) {
    let (first, last) = (clock.utc(event.times.start), clock.utc(event.times.end));
    (encoded.first_ns, encoded.last_ns) = (first, last);
    out.number(TS_START, first);
    let response = event.times.first_response.map(|at| clock.utc(at));
    // As differences, which are short; what is not behind the start is told as it is.
    let (mut differences, mut count) = ([(0, 0); 2], 0);
    for (absolute, relative, at) in [
        (TS_FIRST_RESPONSE, FIRST_RESPONSE_AFTER, response),
        (TS_END, ENDED_AFTER, Some(last)),
    ] {
        let Some(at) = at else { continue };
        match (at.checked_sub(first), differences.get_mut(count)) {
            (Some(after), Some(place)) => {
                *place = (relative, after);
                count += 1;
            }
            _ => out.number(absolute, at),
        }
    }
    for (field, after) in differences.into_iter().take(count) {
        out.present(field, after);
    }
}

/// What a query's template does not say of it, where it stands for several executions.
fn write_common(out: &mut Writer, query: &Query, template: &Template) {
    if query.original_bytes != template.original_bytes {
        out.message(2, |out| out.present(8, query.original_bytes));
    }
    write_tag(out, query, template);
    out.message(4, |out| write_result(out, query));
    out.message(6, |out| write_stream(out, query));
    if let Some(told) = &query.asserted {
        prost::encoding::message::encode(10, &asserted(told), &mut out.bytes);
    }
    write_subjects(out, query);
}

fn write_subjects(out: &mut Writer, query: &Query) {
    for told in query.touched.iter().flat_map(|touched| &touched.subjects) {
        prost::encoding::message::encode(13, &subject(told), &mut out.bytes);
    }
}

fn write_tag(out: &mut Writer, query: &Query, template: &Template) {
    if query.tag != template.tag {
        let tag = query.tag.as_deref().unwrap_or_default();
        out.message(3, |out| out.element(3, tag.as_bytes()));
    }
}

fn write_stream(out: &mut Writer, query: &Query) {
    out.number(1, query.request.start);
    out.number(2, query.request.end);
    out.number(3, query.response_to);
    if let Some(continues) = query.continues {
        out.present(4, continues);
    }
    if let Some(range) = &query.client {
        out.present(5, range.start);
        out.present(6, range.end);
    }
}

/// What a query's template does not say of it.
fn write_query(out: &mut Writer, query: &Query, template: &Template) {
    let other_length = query.original_bytes != template.original_bytes;
    if other_length || query.digest.is_some() {
        out.message(2, |out| {
            if other_length {
                out.present(8, query.original_bytes);
            }
            if let Some(digest) = &query.digest {
                out.blob(9, digest.as_slice());
            }
        });
    }
    write_tag(out, query, template);
    out.message(4, |out| write_result(out, query));
    out.message(5, |out| {
        if let Some(status) = query.transaction_status {
            let mut room = [0; 4];
            out.text(1, char::from(status).encode_utf8(&mut room));
        }
        out.number(2, query.transaction);
        out.choice(3, query.transaction_final.map_or(v1::Final::Unknown, how));
    });
    out.message(6, |out| write_stream(out, query));
    let is_classified = query
        .touched
        .as_deref()
        .is_some_and(|touched| !touched.params.is_empty());
    for (index, told) in (0..).zip(query.params.iter()) {
        if is_classified {
            prost::encoding::message::encode(8, &param_told(query, index, told), &mut out.bytes);
            continue;
        }
        // Values are there only where the pipeline was told to keep them.
        if told.kept.is_empty() && told.bytes != Some(0) {
            out.message(8, |out| {
                out.number(1, u64::from(told.type_oid));
                out.choice(2, format(told.format));
                out.flag(3, told.bytes.is_none());
                out.number(4, told.bytes.map_or(0, u64::from));
            });
        } else {
            prost::encoding::message::encode(8, &param(told), &mut out.bytes);
        }
    }
    if let Some(told) = &query.asserted {
        prost::encoding::message::encode(10, &asserted(told), &mut out.bytes);
    }
    write_subjects(out, query);
}

fn write_result(out: &mut Writer, query: &Query) {
    out.choice(1, phase(query.phase));
    out.choice(2, outcome(query));
    out.present(3, query.rows);
    if let Some(affected) = query.rows_affected {
        out.present(4, affected);
    }
    out.number(5, query.bytes_in);
    out.number(6, query.bytes_out);
    if let Some(copied) = query.copy_bytes {
        out.present(7, copied);
    }
    if let Some(error) = &query.error {
        out.text(8, &error.sqlstate);
        out.text(9, &error.severity);
    }
}

#[cfg(test)]
mod tests;
