//! Events in the form in which they are signed and sent, written once and in one go.
//!
//! What [`super::event`] makes and prost encodes is the rule, and a test holds the two equal byte for byte. This way
//! there is no tree of strings between: session and attribution, which repeat in every event of a connection, are
//! encoded when they change, and a statement's fields go straight from the pipeline into the buffer.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use proto::v1;
use tap_core::{Body, Event, Query, SessionFacts};

use super::{class, class_of, outcome, param, phase, protocol, session};
use crate::clock::Clock;

/// An event that lacks nothing but its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// All fields behind `seq`.
    bytes: Vec<u8>,
    /// `ts_start_ns`.
    pub first_ns: u64,
    /// `ts_end_ns`.
    pub last_ns: u64,
}

impl Encoded {
    /// Of any event; its number is dropped.
    pub fn of(event: &v1::Event) -> Self {
        let event = v1::Event {
            seq: 0,
            ..event.clone()
        };
        Self {
            bytes: event.encode_to_vec(),
            first_ns: event.ts_start_ns,
            last_ns: event.ts_end_ns,
        }
    }

    /// An event of the agent itself.
    pub fn own(at_boot_ns: u64, clock: Clock, body: v1::event::Body) -> Self {
        Self::of(&super::own_event(at_boot_ns, clock, body))
    }

    /// An event of the agent itself, of all the time since `from_boot_ns`.
    pub fn own_since(from_boot_ns: u64, to_boot_ns: u64, clock: Clock, body: v1::event::Body) -> Self {
        let event = super::own_event(to_boot_ns, clock, body);
        Self::of(&v1::Event {
            ts_start_ns: clock.utc(from_boot_ns),
            ..event
        })
    }

    /// The whole event.
    pub fn numbered(&self, number: u64) -> Bytes {
        let mut whole = Vec::with_capacity(self.bytes.len() + NUMBER_BYTES);
        prost::encoding::uint64::encode(SEQ, &number, &mut whole);
        whole.extend_from_slice(&self.bytes);
        whole.into()
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

/// Key and longest varint.
const NUMBER_BYTES: usize = 11;

// Numbers of the fields in event.proto.
const SEQ: u32 = 1;
const TS_START: u32 = 2;
const TS_FIRST_RESPONSE: u32 = 3;
const TS_END: u32 = 4;
const SESSION: u32 = 5;
const ATTRIBUTION: u32 = 6;
const QUERY: u32 = 10;

/// Encodes the events of connections.
#[derive(Default)]
pub struct Encoder {
    heads: HashMap<u64, Head>,
}

/// What is in every event of a connection, until it changes.
struct Head {
    session: Arc<SessionFacts>,
    attribution: Option<Arc<v1::Attribution>>,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Encodes an event of a connection.
    pub fn encode(
        &mut self,
        event: &Event,
        attribution: Option<&Arc<v1::Attribution>>,
        clock: Clock,
        boot: &str,
    ) -> Encoded {
        let (first_ns, last_ns) = (clock.utc(event.times.start), clock.utc(event.times.end));
        let first_response = event.times.first_response.map_or(0, |at| clock.utc(at));
        let head = self.head(&event.session, attribution, boot);
        let mut out = Writer {
            bytes: Vec::with_capacity(head.len() + 256),
        };
        out.number(TS_START, first_ns);
        out.number(TS_FIRST_RESPONSE, first_response);
        out.number(TS_END, last_ns);
        out.bytes.extend_from_slice(head);
        match &event.body {
            Body::Query(query) => out.message(QUERY, |out| write_query(out, query)),
            body => super::body(body, boot).encode(&mut out.bytes),
        }
        Encoded {
            bytes: out.bytes,
            first_ns,
            last_ns,
        }
    }

    /// A connection is over.
    pub fn forget(&mut self, cookie: u64) {
        self.heads.remove(&cookie);
    }

    fn head(
        &mut self,
        facts: &Arc<SessionFacts>,
        attribution: Option<&Arc<v1::Attribution>>,
        boot: &str,
    ) -> &[u8] {
        let made = || {
            let mut bytes = Vec::new();
            prost::encoding::message::encode(SESSION, &session(facts, boot), &mut bytes);
            if let Some(attribution) = attribution {
                prost::encoding::message::encode(ATTRIBUTION, &**attribution, &mut bytes);
            }
            Head {
                session: Arc::clone(facts),
                attribution: attribution.cloned(),
                bytes,
            }
        };
        let head = self.heads.entry(facts.cookie).or_insert_with(made);
        // The reference held here keeps what it points to from being changed in place.
        let same_attribution = match (&head.attribution, attribution) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (None, None) => true,
            _ => false,
        };
        if !Arc::ptr_eq(&head.session, facts) || !same_attribution {
            *head = made();
        }
        &head.bytes
    }
}

/// Appends fields in the canonical form: in the order of their numbers, defaults left out.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.present(field, value);
        }
    }

    /// Of an optional field: zero is a value, too.
    fn present(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::Varint, &mut self.bytes);
        encode_varint(value, &mut self.bytes);
    }

    fn flag(&mut self, field: u32, value: bool) {
        self.number(field, u64::from(value));
    }

    /// Enumerations of this schema have no negative numbers.
    fn choice(&mut self, field: u32, value: impl Into<i32>) {
        self.number(field, u64::try_from(value.into()).unwrap_or(0));
    }

    fn text(&mut self, field: u32, text: &str) {
        self.blob(field, text.as_bytes());
    }

    /// Text of a peer, which need not be UTF-8.
    fn foreign(&mut self, field: u32, text: &[u8]) {
        match std::str::from_utf8(text) {
            Ok(text) => self.text(field, text),
            Err(_) => self.text(field, &String::from_utf8_lossy(text)),
        }
    }

    fn blob(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.element(field, bytes);
        }
    }

    /// Of a repeated field: empty is a value, too.
    fn element(&mut self, field: u32, bytes: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        let place = self.bytes.len();
        // Most are shorter than 128 bytes: one byte of length.
        self.bytes.push(0);
        fill(self);
        let length = (self.bytes.len() - place).saturating_sub(1) as u64;
        if let (Ok(short @ 0..128), Some(byte)) = (u8::try_from(length), self.bytes.get_mut(place)) {
            *byte = short;
            return;
        }
        let mut varint = Vec::with_capacity(NUMBER_BYTES);
        encode_varint(length, &mut varint);
        self.bytes.splice(place..=place, varint);
    }
}

fn write_query(out: &mut Writer, query: &Query) {
    out.choice(1, protocol(query));
    out.message(2, |out| write_statement(out, query));
    out.message(3, |out| write_meaning(out, query));
    out.message(4, |out| write_result(out, query));
    out.message(5, |out| {
        if let Some(status) = query.transaction_status {
            let mut room = [0; 4];
            out.text(1, char::from(status).encode_utf8(&mut room));
        }
        out.number(2, query.transaction);
        out.choice(3, query.transaction_final.map_or(v1::Final::Unknown, super::how));
    });
    out.message(6, |out| {
        out.number(1, query.request.start);
        out.number(2, query.request.end);
        out.number(3, query.response_to);
        if let Some(continues) = query.continues {
            out.present(4, continues);
        }
    });
    out.number(7, u64::from(query.param_count));
    for told in query.params.iter() {
        prost::encoding::message::encode(8, &param(told), &mut out.bytes);
    }
    if let Some(oid) = query.function_oid {
        out.present(9, u64::from(oid));
    }
}

fn write_statement(out: &mut Writer, query: &Query) {
    out.text(1, query.text.as_deref().unwrap_or_default());
    if let Some(statement) = &query.statement {
        let mut hexadecimal = [0; 16];
        if hex::encode_to_slice(statement.fingerprint, &mut hexadecimal).is_ok() {
            out.blob(2, &hexadecimal);
        }
    }
    out.foreign(3, &query.statement_name);
    out.foreign(4, &query.portal);
    out.number(5, u64::from(query.index));
    out.flag(6, query.text.is_some());
    out.flag(7, query.truncated);
    out.number(8, query.original_bytes);
    if let Some(digest) = &query.digest {
        out.blob(9, digest.as_slice());
    }
    out.text(10, query.source.as_deref().unwrap_or_default());
}

fn write_meaning(out: &mut Writer, query: &Query) {
    let tag = query.tag.as_deref().unwrap_or_default();
    let (known, statement) = class_of(query, tag);
    out.choice(1, class(known));
    let Some(statement) = statement else {
        out.text(2, super::command_of(tag));
        out.text(3, tag);
        return;
    };
    out.text(2, &statement.command);
    out.text(3, tag);
    out.flag(4, statement.parsed);
    for object in super::objects(query, statement) {
        out.message(5, |out| {
            out.text(1, object.schema.as_deref().unwrap_or_default());
            out.text(2, &object.name);
            out.text(3, object.kind);
            out.choice(4, super::access(object.access));
            for column in &object.columns {
                out.element(5, column.as_bytes());
            }
            out.text(6, super::FROM_SQL);
        });
    }
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
    for column in query.columns.iter() {
        out.message(10, |out| {
            out.foreign(1, &column.name);
            out.number(2, u64::from(column.table_oid));
            out.number(3, super::attribute_number(column));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{event, tests::answered};

    fn facts(cookie: u64) -> Arc<SessionFacts> {
        Arc::new(SessionFacts {
            cookie,
            backend_pid: 7,
            server_pid: 1,
            transport: tap_core::Transport::Tcp,
            client: tap_core::Endpoint::Inet([10, 0, 0, 5].into(), 51_234),
            server: tap_core::Endpoint::Inet([10, 0, 0, 1].into(), 5432),
            netns: 1,
            opened_before_attach: false,
            login_role: Some("app_user".to_owned()),
            database: None,
            application_name: None,
            server_version: Some("15.18".to_owned()),
            auth_method: Some("none"),
            encryption: None,
            tls_version: None,
            tls_cipher: None,
        })
    }

    fn of(session: &Arc<SessionFacts>, body: Body) -> Event {
        Event {
            times: tap_core::Times {
                start: 5,
                first_response: Some(6),
                end: 7,
            },
            session: Arc::clone(session),
            body,
        }
    }

    /// Queries that have every field at once, each alone, and none.
    fn queries() -> Vec<Query> {
        let plain = || {
            answered(
                "select id, email from customers c join orders o using (id)",
                "SELECT 3",
            )
        };
        let mut changed: Vec<Query> = Vec::new();
        let mut change = |by: fn(&mut Query)| {
            let mut query = plain();
            by(&mut query);
            changed.push(query);
        };
        change(|_| {});
        change(|query| query.text = None);
        change(|query| {
            query.truncated = true;
            query.digest = Some(Box::new([9; 32]));
            query.original_bytes = 1 << 40;
        });
        change(|query| query.statement_name = Bytes::from_static(b"S_\xff1"));
        change(|query| query.portal = Bytes::from_static(b"C_1"));
        change(|query| query.source = Some("x".repeat(5000).into()));
        change(|query| {
            query.error = Some(tap_core::ServerError {
                severity: "ERROR".to_owned(),
                sqlstate: "57014".to_owned(),
            });
            query.outcome = tap_core::Outcome::Error;
            query.tag = None;
        });
        change(|query| {
            query.transaction_status = Some(b'T');
            query.transaction_final = Some(tap_core::Final::Committed);
            query.continues = Some(0);
            query.request = 10..300;
            query.function_oid = Some(0);
            query.rows_affected = Some(0);
            query.copy_bytes = Some(0);
        });
        change(|query| {
            query.param_count = 2;
            query.params = [
                tap_core::Param {
                    type_oid: 23,
                    format: tap_core::Format::Binary,
                    bytes: Some(4),
                    kept: vec![0, 0, 0, 1].into(),
                },
                tap_core::Param {
                    type_oid: 0,
                    format: tap_core::Format::Text,
                    bytes: None,
                    kept: Default::default(),
                },
            ]
            .into();
        });
        changed
    }

    #[test]
    fn bytes_are_those_that_the_slow_way_gives() {
        let attribution = Arc::new(v1::Attribution {
            principal: "spiffe://x/host/y".to_owned(),
            ..v1::Attribution::default()
        });
        let session = facts(3);
        let mut encoder = Encoder::default();
        let clock = Clock::now();
        let mut bodies: Vec<Body> = queries()
            .into_iter()
            .map(|query| Body::Query(Box::new(query)))
            .collect();
        bodies.push(Body::SessionOpen);
        bodies.push(Body::Opaque {
            kind: tap_core::EncryptionKind::Tls,
            reason: tap_core::Unreadable::NotProbed,
        });
        for body in bodies {
            for known in [Some(&attribution), None] {
                let event_of = of(&session, body.clone());
                let mut slow = event(&event_of, known.map(AsRef::as_ref), clock, "boot");
                let fast = encoder.encode(&event_of, known, clock, "boot");
                assert_eq!(fast, Encoded::of(&slow), "{slow:?}");
                slow.seq = 300;
                assert_eq!(fast.numbered(300), slow.encode_to_vec());
            }
        }
    }

    #[test]
    fn what_changes_in_a_session_is_in_its_next_event() {
        let mut session = facts(3);
        let mut encoder = Encoder::default();
        let clock = Clock::now();
        let mut role = |session: &Arc<SessionFacts>| {
            let encoded = encoder.encode(&of(session, Body::SessionOpen), None, clock, "boot");
            let event = v1::Event::decode(encoded.numbered(1)).expect("an event");
            event.session.expect("its session").login_role
        };
        assert_eq!(role(&session), "app_user");
        Arc::make_mut(&mut session).login_role = Some("other".to_owned());
        assert_eq!(role(&session), "other");
    }
}
