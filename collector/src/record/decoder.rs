//! From encoded events to records.
//!
//! Owns what is decoded once and shared. An event of the ordinary form (a query, each part at most once, in any order)
//! is read field by field; any other is prost's, so that what counts as malformed is decided in one place.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::HashMap;
use prost::Message;
use proto::v1::{self, BatchHeader};

use super::{
    Body, Execution, Outcome, Record, Records, Transaction,
    wire::{Value, walk},
};

/// Decodes the events of one stream of batches.
#[derive(Debug, Default)]
pub struct Decoder {
    sessions: Shared<v1::Session>,
    attributions: Shared<v1::Attribution>,
    statements: Shared<v1::Statement>,
    meanings: Shared<v1::Meaning>,
}

impl Decoder {
    /// The events of a batch; they must carry the sequence numbers that its header promises.
    ///
    /// # Errors
    ///
    /// With what is wrong with which event.
    pub fn decode(&mut self, header: &BatchHeader, events: Vec<Bytes>) -> Result<Records, String> {
        let mut records = Vec::with_capacity(events.len());
        for (seq, event) in (header.first_event_seq..).zip(&events) {
            let record = match self.ordinary(event) {
                Some(record) => record,
                None => v1::Event::decode(event.clone())
                    .map_err(|_| format!("event {seq} is malformed"))?
                    .into(),
            };
            if record.seq != seq {
                return Err(format!("event {seq} calls itself {}", record.seq));
            }
            records.push(record);
        }
        Ok(Records {
            agent: header.agent_id.as_str().into(),
            batch_sequence: header.sequence,
            records,
            encoded: events,
        })
    }

    /// The record of an event of the ordinary form.
    fn ordinary(&mut self, event: &[u8]) -> Option<Record> {
        let mut record = Record::default();
        walk(event, |field, value| {
            match (field, value) {
                (1, Value::Number(seq)) => record.seq = seq,
                (2, Value::Number(at)) => record.ts_start_ns = at,
                (3, Value::Number(_)) => {}
                (4, Value::Number(at)) => record.ts_end_ns = at,
                (5, Value::Bytes(session)) => once(&mut record.session, self.sessions.get(session)?)?,
                (6, Value::Bytes(attribution)) => {
                    once(&mut record.attribution, self.attributions.get(attribution)?)?;
                }
                (10, Value::Bytes(query)) if matches!(record.body, Body::Unknown) => {
                    record.body = Body::Query(self.query(query)?);
                }
                _ => return None,
            }
            Some(())
        })?;
        Some(record)
    }

    fn query(&mut self, query: &[u8]) -> Option<Execution> {
        let mut execution = Execution::default();
        walk(query, |field, value| {
            match (field, value) {
                (1, Value::Number(protocol)) => execution.protocol = protocol as i32,
                (2, Value::Bytes(statement)) => {
                    once(&mut execution.statement, self.statements.get(statement)?)?;
                }
                (3, Value::Bytes(meaning)) => once(&mut execution.meaning, self.meanings.get(meaning)?)?,
                (4, Value::Bytes(result)) => once(&mut execution.result, outcome(result)?)?,
                (5, Value::Bytes(of)) => once(&mut execution.transaction, transaction(of)?)?,
                (6, Value::Bytes(stream)) => walk(stream, |field, value| match (field, value) {
                    (1..=4, Value::Number(_)) => Some(()),
                    _ => None,
                })?,
                (7 | 9, Value::Number(_)) => {}
                (8, Value::Bytes(param)) => walk(param, |field, value| match (field, value) {
                    (1..=4 | 6..=7, Value::Number(_)) => Some(()),
                    (5, Value::Bytes(value)) => text(value).map(drop),
                    _ => None,
                })?,
                _ => return None,
            }
            Some(())
        })?;
        Some(execution)
    }
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

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

/// Protobuf merges a message that comes twice; nobody sends that, and it is left to prost.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Messages by their encoding.
#[derive(Debug)]
struct Shared<M> {
    known: HashMap<Box<[u8]>, Arc<M>>,
    /// Of the keys.
    bytes: usize,
}

impl<M> Default for Shared<M> {
    fn default() -> Self {
        Self {
            known: HashMap::default(),
            bytes: 0,
        }
    }
}

impl<M: Message + Default> Shared<M> {
    /// The message; `None` if it is malformed.
    fn get(&mut self, encoded: &[u8]) -> Option<Arc<M>> {
        if let Some(message) = self.known.get(encoded) {
            return Some(Arc::clone(message));
        }
        let message = Arc::new(M::decode(encoded).ok()?);
        if encoded.len() <= MAX_SHARED_BYTES / 16 {
            if self.bytes + encoded.len() > MAX_SHARED_BYTES {
                self.known.clear();
                self.bytes = 0;
            }
            self.bytes += encoded.len();
            self.known.insert(encoded.into(), Arc::clone(&message));
        }
        Some(message)
    }
}

/// Encoded messages of one sort that a stream has at hand: thousands of sessions. Beyond it all are forgotten, which
/// costs decoding them once more and is little work beside a table of who was used when.
const MAX_SHARED_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> v1::Event {
        v1::Event {
            seq: 7,
            ts_start_ns: 1 << 60,
            ts_first_response_ns: 5,
            ts_end_ns: 1 << 61,
            session: Some(v1::Session {
                id: "boot-1".into(),
                client: Some(v1::Endpoint {
                    addr: "::1".into(),
                    port: 40_000,
                }),
                ..Default::default()
            }),
            attribution: Some(v1::Attribution {
                principal: "spiffe://td/x".into(),
                evidence: vec!["é".into()],
                ..Default::default()
            }),
            body: Some(v1::event::Body::Query(v1::Query {
                protocol: 2,
                statement: Some(v1::Statement {
                    text: "SELECT $1".into(),
                    ..Default::default()
                }),
                meaning: Some(v1::Meaning {
                    class: 1,
                    tag: "SELECT 1".into(),
                    ..Default::default()
                }),
                result: Some(v1::Result {
                    phase: 4,
                    outcome: 2,
                    rows: Some(0),
                    rows_affected: Some(300),
                    bytes_in: 1,
                    bytes_out: 2,
                    copy_bytes: Some(9),
                    sqlstate: "22012".into(),
                    severity: "ERROR".into(),
                    columns: vec![v1::ResultColumn {
                        name: "ä".into(),
                        table_oid: 1,
                        attnum: 2,
                    }],
                }),
                transaction: Some(v1::Transaction {
                    status: "T".into(),
                    seq: 3,
                    r#final: 1,
                }),
                stream: Some(v1::StreamRange {
                    request_from: 1,
                    request_to: 2,
                    response_to: 3,
                    continues: Some(1),
                }),
                param_count: 1,
                params: vec![v1::Param {
                    oid: 23,
                    format: 1,
                    null: true,
                    bytes: 4,
                    value: Some("ö".into()),
                    truncated: true,
                    raw: true,
                }],
                function_oid: Some(8),
            })),
        }
    }

    fn header() -> BatchHeader {
        BatchHeader {
            agent_id: "a".into(),
            sequence: 1,
            first_event_seq: 7,
            ..Default::default()
        }
    }

    #[test]
    fn what_the_agent_sends_is_ordinary_and_shares_what_repeats() {
        let encoded = query().encode_to_vec();
        let mut decoder = Decoder::default();
        let one = decoder.ordinary(&encoded).expect("every field is known");
        assert_eq!(one, query().into());
        let two = decoder.ordinary(&encoded).unwrap();
        assert!(Arc::ptr_eq(
            one.session.as_ref().unwrap(),
            two.session.as_ref().unwrap()
        ));
        assert!(Arc::ptr_eq(one.meaning().unwrap(), two.meaning().unwrap()));
    }

    #[test]
    fn the_ordinary_way_never_differs_from_prost() {
        let encoded = query().encode_to_vec();
        let mut decoder = Decoder::default();
        let (mut ordinary, mut refused) = (0, 0);
        let mut compare = |bytes: &[u8]| match (decoder.ordinary(bytes), v1::Event::decode(bytes)) {
            (Some(found), Ok(event)) => {
                assert_eq!(found, Record::from(event), "{bytes:?}");
                ordinary += 1;
            }
            (Some(found), Err(error)) => panic!("{error}, but {found:?} of {bytes:?}"),
            (None, Err(_)) => refused += 1,
            (None, Ok(_)) => {}
        };
        for length in 0..encoded.len() {
            compare(&encoded[..length]);
        }
        for place in 0..encoded.len() {
            for byte in 0..=255 {
                let mut changed = encoded.clone();
                changed[place] = byte;
                compare(&changed);
            }
        }
        compare(&[encoded.clone(), encoded.clone()].concat());
        assert!(ordinary > 1000 && refused > 1000, "{ordinary} {refused}");
    }

    #[test]
    fn other_kinds_are_prosts_and_what_it_refuses_is_malformed() {
        let gap = v1::Event {
            seq: 7,
            body: Some(v1::event::Body::Gap(v1::Gap::default())),
            ..Default::default()
        };
        let mut decoder = Decoder::default();
        let records = decoder
            .decode(&header(), vec![gap.encode_to_vec().into()])
            .unwrap();
        assert_eq!(records.records, [Record::from(gap)]);
        assert_eq!(records.records[0].kind(), "gap");
        let mut malformed = query().encode_to_vec();
        malformed.push(0xff);
        let error = decoder.decode(&header(), vec![malformed.into()]).unwrap_err();
        assert_eq!(error, "event 7 is malformed");
        let error = decoder
            .decode(&header(), vec![Bytes::from_static(&[8, 9])])
            .unwrap_err();
        assert_eq!(error, "event 7 calls itself 9");
    }

    #[test]
    fn what_is_at_hand_is_bounded() {
        let mut shared = Shared::<v1::Statement>::default();
        for n in 0..3000_u32 {
            let statement = v1::Statement {
                text: format!("{n} {}", "x".repeat(1000)),
                ..Default::default()
            };
            assert!(shared.get(&statement.encode_to_vec()).is_some());
            assert!(shared.bytes <= MAX_SHARED_BYTES);
        }
        assert!(shared.known.len() < 1100);
        let huge = v1::Statement {
            text: "x".repeat(MAX_SHARED_BYTES),
            ..Default::default()
        };
        let before = shared.known.len();
        assert!(shared.get(&huge.encode_to_vec()).is_some());
        assert_eq!(shared.known.len(), before);
    }
}
