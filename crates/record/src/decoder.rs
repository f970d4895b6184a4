//! From the events and definitions of a batch to records.
//!
//! Owns what is decoded once and shared: the definitions of a batch, and those of the batches before. An event of the
//! ordinary form (an execution that names a party and a template) is read field by field; any other is
//! `proto::whole`'s, so that what counts as malformed is decided in one place.

use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use evidence::OpenedBatch;
use hashbrown::HashMap;
use prost::Message;
use proto::{
    v1::{self, definition::Kind},
    whole::{self, Refused},
};

use super::{
    Body, Execution, Outcome, Place, Record, Records, Transaction, Weighed, named, shared, take_tag,
    wire::{Value, walk},
};

/// Decodes the batches of one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    known: HashMap<Bytes, Defined>,
    /// Of the keys.
    bytes: usize,
}

/// What a definition gives to the events that name it.
#[derive(Clone, Debug)]
enum Defined {
    /// Nothing: no event that is left names it.
    Erased,
    Party(Arc<Weighed<v1::Party>>),
    Template {
        query: Arc<Weighed<v1::Query>>,
        /// The tag of those that say no other.
        tag: CompactString,
        /// It says nothing of what differs from execution to execution, so that nothing has to be merged.
        plain: bool,
    },
}

impl Decoder {
    /// The events of a batch, but for those that were erased. Every place that they name must hold a definition of the right kind,
    /// and none may call itself by another number than the header promises.
    ///
    /// # Errors
    ///
    /// With what is wrong with which event or definition.
    pub fn decode(&mut self, opened: &OpenedBatch) -> Result<Records, String> {
        let header = &opened.header;
        let mut records = Vec::with_capacity(opened.events.len());
        self.each(opened, |record| records.push(std::mem::take(record)))?;
        Ok(Records {
            agent: header.agent_id.as_str().into(),
            batch_sequence: header.sequence,
            records,
            encoded: left(opened).map(|(_, event)| event.clone()).collect(),
            definitions: opened.definitions.as_slice().into(),
        })
    }

    /// Whether [`Decoder::decode`] would succeed. Keeps nothing of the events.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&mut self, opened: &OpenedBatch) -> Result<(), String> {
        self.each(opened, |_| ())
    }

    /// Shows one record after the other, all in the same place unless that is taken.
    fn each(&mut self, opened: &OpenedBatch, mut take: impl FnMut(&mut Record)) -> Result<(), String> {
        let defined = opened.definitions.iter().enumerate().map(|(place, definition)| {
            if opened.is_definition_erased(place) {
                return Ok(Defined::Erased);
            }
            self.defined(definition)
                .ok_or_else(|| format!("definition {place} is malformed"))
        });
        let defined = defined.collect::<Result<Vec<_>, _>>()?;
        let mut record = Record::default();
        for (seq, event) in left(opened) {
            if ordinary(seq, event, &defined, &mut record).is_none() {
                record = other(seq, event, &opened.definitions, &defined)
                    .map_err(|refused| format!("event {seq} {refused}"))?;
            }
            take(&mut record);
        }
        Ok(())
    }

    /// What a definition gives; `None` if it is malformed.
    fn defined(&mut self, encoded: &Bytes) -> Option<Defined> {
        if let Some(defined) = self.known.get(encoded) {
            return Some(defined.clone());
        }
        let defined = match v1::Definition::decode(encoded.clone()).ok()?.kind? {
            Kind::Party(party) => Defined::Party(Arc::new(party.into())),
            Kind::Template(mut query) => {
                let columns = query.result.take().map(|mut result| {
                    result.columns.clear();
                    result
                });
                Defined::Template {
                    tag: take_tag(&mut query),
                    plain: columns.unwrap_or_default() == v1::Result::default()
                        && query.transaction.is_none()
                        && query.subjects.is_empty(),
                    query: Arc::new(shared(query).into()),
                }
            }
        };
        if encoded.len() <= MAX_KNOWN_BYTES / 16 {
            if self.bytes + encoded.len() > MAX_KNOWN_BYTES {
                self.known.clear();
                self.bytes = 0;
            }
            self.bytes += encoded.len();
            // A copy: the original keeps its whole batch.
            self.known
                .insert(Bytes::copy_from_slice(encoded), defined.clone());
        }
        Some(defined)
    }
}

/// The events that were not erased, with their numbers.
fn left(opened: &OpenedBatch) -> impl Iterator<Item = (u64, &Bytes)> {
    let numbered = (opened.header.first_event_seq..).zip(&opened.events);
    let left = numbered.enumerate();
    left.filter(|(place, _)| !opened.is_event_erased(*place))
        .map(|(_, event)| event)
}

/// Definitions of one stream that are at hand: thousands of sessions. Beyond it all are forgotten, which costs decoding
/// them once more and is little work beside a table of who was used when.
const MAX_KNOWN_BYTES: usize = 4 << 20;

/// Makes `record` that of an event of the ordinary form; of any other, nothing that is to be used.
fn ordinary(seq: u64, event: &[u8], defined: &[Defined], record: &mut Record) -> Option<()> {
    let (mut started, mut ended, mut ended_after) = (0, 0, None);
    let (mut party, mut template, mut query) = (None, None, None);
    let mut responded = (false, false);
    walk(event, |field, value| {
        match (field, value) {
            (2, Value::Number(at)) => started = at,
            (3, Value::Number(at)) => responded.0 = at != 0,
            (4, Value::Number(at)) => ended = at,
            (7, Value::Number(_)) => responded.1 = true,
            (8, Value::Number(after)) => ended_after = Some(after),
            (10, Value::Bytes(own)) => once(&mut query, own)?,
            (30, Value::Number(place)) => party = Some(place),
            (31, Value::Number(place)) => template = Some(place),
            _ => return None,
        }
        Some(())
    })?;
    if let Some(after) = ended_after {
        if ended != 0 {
            return None;
        }
        ended = started.saturating_add(after);
    }
    if responded == (true, true) {
        return None;
    }
    let defined = |place: u64| defined.get(usize::try_from(place).ok()?);
    let party = match party.map(defined) {
        None => None,
        Some(Some(Defined::Party(party))) => Some(party),
        Some(_) => return None,
    };
    let Defined::Template {
        query: template,
        tag,
        plain: true,
    } = defined(template?)?
    else {
        return None;
    };
    (record.seq, record.ts_start_ns, record.ts_end_ns) = (seq, started, ended);
    share(&mut record.party, party);
    record.subjects.clear();
    if let Body::Query(execution) = &mut record.body {
        begin(execution, template, tag);
        return fill(query?, execution, &mut record.subjects);
    }
    let mut execution = Execution {
        template: Arc::clone(template),
        tag: tag.clone(),
        result: None,
        transaction: None,
        end_user: None,
        place: Place::default(),
        executions: 1,
    };
    fill(query?, &mut execution, &mut record.subjects)?;
    record.body = Body::Query(execution);
    Some(())
}

/// Names the party of an event: often the one of the event before.
fn share(place: &mut Option<Arc<Weighed<v1::Party>>>, party: Option<&Arc<Weighed<v1::Party>>>) {
    let same = match (&place, party) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    };
    if !same {
        *place = party.cloned();
    }
}

/// Makes an execution one of which nothing is known but its template.
fn begin(execution: &mut Execution, template: &Arc<Weighed<v1::Query>>, tag: &CompactString) {
    if !Arc::ptr_eq(&execution.template, template) {
        execution.template = Arc::clone(template);
    }
    execution.tag.clone_from(tag);
    (execution.result, execution.transaction, execution.end_user) = (None, None, None);
    (execution.place, execution.executions) = (Place::default(), 1);
}

/// The record of any other event.
fn other(seq: u64, event: &Bytes, definitions: &[Bytes], defined: &[Defined]) -> Result<Record, Refused> {
    let own = v1::Event::decode(event.clone()).map_err(|_| Refused::Malformed)?;
    let place = own.party.and_then(|place| usize::try_from(place).ok());
    let Some(Defined::Party(party)) = place.and_then(|place| defined.get(place)) else {
        return Ok(Record::from(whole::event(seq, event, definitions)?));
    };
    // Whose it is was decoded already.
    let record = if own.template.is_none() {
        whole::check(seq, &own)?;
        Record::from(whole::alone(seq, own))
    } else {
        Record::from(whole::event(seq, event, definitions)?)
    };
    Ok(Record {
        party: Some(Arc::clone(party)),
        ..record
    })
}

/// What a query says itself, on top of what its template says.
fn fill(query: &[u8], execution: &mut Execution, subjects: &mut Vec<v1::Subject>) -> Option<()> {
    walk(query, |field, value| {
        match (field, value) {
            (2, Value::Bytes(statement)) => walk(statement, |field, value| match (field, value) {
                (8, Value::Number(_)) | (9, Value::Bytes(_)) => Some(()),
                _ => None,
            })?,
            (3, Value::Bytes(meaning)) => walk(meaning, |field, value| match (field, value) {
                (3, Value::Bytes(tag)) => {
                    execution.tag = text(tag)?.into();
                    Some(())
                }
                _ => None,
            })?,
            (4, Value::Bytes(result)) => once(&mut execution.result, outcome(result)?)?,
            (5, Value::Bytes(of)) => once(&mut execution.transaction, transaction(of)?)?,
            (6, Value::Bytes(stream)) => walk(stream, |field, value| {
                match (field, value) {
                    (1, Value::Number(from)) => execution.place.request_from = from,
                    (2, Value::Number(to)) => execution.place.request_to = to,
                    (3, Value::Number(to)) => execution.place.response_to = to,
                    (4..=6, Value::Number(_)) => {}
                    _ => return None,
                }
                Some(())
            })?,
            (8, Value::Bytes(param)) => walk(param, |field, value| match (field, value) {
                (1..=4 | 6..=7 | 9, Value::Number(_)) => Some(()),
                (5, Value::Bytes(value)) => text(value).map(drop),
                (8, Value::Bytes(_)) => Some(()),
                _ => None,
            })?,
            (10, Value::Bytes(asserted)) => once(&mut execution.end_user, end_user(asserted)?)?,
            (13, Value::Bytes(subject)) => subjects.push(v1::Subject::decode(subject).ok()?),
            _ => return None,
        }
        Some(())
    })
}

fn outcome(result: &[u8]) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    walk(result, |field, value| {
        match (field, value) {
            (1, Value::Number(phase)) => outcome.phase = phase as i32,
            (2, Value::Number(of)) => outcome.outcome = of as i32,
            (3, Value::Number(rows)) => outcome.rows = Some(rows),
            (4, Value::Number(rows)) => outcome.rows_affected = Some(rows),
            (5, Value::Number(bytes)) => outcome.bytes_in = bytes,
            (6, Value::Number(bytes)) => outcome.bytes_out = bytes,
            (7, Value::Number(_)) => {}
            (8, Value::Bytes(sqlstate)) => outcome.sqlstate = text(sqlstate)?.into(),
            (9, Value::Bytes(severity)) => _ = text(severity)?,
            (10, Value::Bytes(column)) => walk(column, |field, value| match (field, value) {
                (1, Value::Bytes(name)) => text(name).map(drop),
                (2 | 3, Value::Number(_)) => Some(()),
                _ => None,
            })?,
            _ => return None,
        }
        Some(())
    })?;
    Some(outcome)
}

fn transaction(message: &[u8]) -> Option<Transaction> {
    let mut transaction = Transaction::default();
    walk(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(status)) => transaction.status = text(status)?.into(),
            (2, Value::Number(seq)) => transaction.seq = seq,
            (3, Value::Number(end)) => transaction.end = end as i32,
            _ => return None,
        }
        Some(())
    })?;
    Some(transaction)
}

/// The end user that the client named, or nothing.
fn end_user(asserted: &[u8]) -> Option<CompactString> {
    let asserted = v1::Asserted::decode(asserted).ok()?;
    Some(named(&asserted).into())
}

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

/// Protobuf merges a message that comes twice; nobody sends that, and it is left to prost.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests;
