//! One tapped connection: two streams, one protocol session, and what it has told of itself.

use std::{collections::VecDeque, sync::Arc};

use ebpf_abi::{MissingReason, SegmentHeader};
use pg_wire::{Direction, Limits, Nanos, Output, Session};
use sql_meaning::Interpreter;

use crate::{
    event::{Body, Event, Gap, SessionFacts, Times},
    query::{self, Redaction},
    stream::ByteStream,
};

/// Settings reported by the server that a session keeps.
const APPLICATION_NAME: &[u8] = b"application_name";
const SERVER_VERSION: &[u8] = b"server_version";

/// A connection and everything that is known of it.
pub(crate) struct Connection {
    facts: Arc<SessionFacts>,
    session: Session,
    frontend: ByteStream,
    backend: ByteStream,
    statements: u64,
    transaction: u64,
    asked_for_credentials: bool,
    let_in: bool,
    terminated: bool,
}

impl Connection {
    pub(crate) fn new(facts: SessionFacts, limits: Limits) -> Self {
        let mid_stream = facts.opened_before_attach;
        let stream = if mid_stream {
            ByteStream::mid_stream
        } else {
            ByteStream::from_start
        };
        Self {
            facts: Arc::new(facts),
            session: if mid_stream {
                Session::mid_stream(limits)
            } else {
                Session::new(limits)
            },
            frontend: stream(),
            backend: stream(),
            statements: 0,
            transaction: 1,
            asked_for_credentials: false,
            let_in: mid_stream,
            terminated: false,
        }
    }

    pub(crate) fn facts(&self) -> &Arc<SessionFacts> {
        &self.facts
    }

    /// Takes a segment: what is missing before it, its bytes, what is missing behind them.
    pub(crate) fn handle_segment(
        &mut self,
        header: &SegmentHeader,
        bytes: &[u8],
        events: &mut VecDeque<Event>,
    ) {
        let direction = direction(header);
        let stream = self.stream(direction);
        let fit = stream.take(header.offset, bytes.len() as u64);
        if fit.missing > 0 {
            self.missing(direction, header.at, header.offset, fit.missing, "missed", events);
        }
        let fresh = bytes.get(fit.repeated..).unwrap_or_default();
        if !fresh.is_empty() {
            let offset = header.offset + fit.repeated as u64;
            self.session.handle_bytes(direction, header.at, offset, fresh);
        }
        if header.missing > 0 {
            let from = header.offset + bytes.len() as u64;
            let missing = u64::from(header.missing);
            self.stream(direction).take(from, missing);
            self.missing(
                direction,
                header.at,
                from + missing,
                missing,
                reason(header.reason),
                events,
            );
        }
    }

    /// The streams ended at these positions, by the kernel's count.
    pub(crate) fn handle_end(&mut self, at: Nanos, received: u64, sent: u64, events: &mut VecDeque<Event>) {
        for (direction, end) in [(Direction::Frontend, received), (Direction::Backend, sent)] {
            let fit = self.stream(direction).take(end, 0);
            if fit.missing > 0 {
                self.missing(direction, at, end, fit.missing, "missed", events);
            }
        }
    }

    pub(crate) fn handle_close(&mut self, at: Nanos) {
        self.session.handle_close(at);
    }

    /// The last event of a connection.
    pub(crate) fn closed(&self, at: Nanos, reason: &'static str) -> Event {
        let reason = if self.terminated { "terminate" } else { reason };
        self.event(
            at,
            Body::SessionClose {
                reason,
                bytes_in: self.frontend.position(),
                bytes_out: self.backend.position(),
                statements: self.statements,
            },
        )
    }

    /// Whether a client was let in, so that opening and closing it is worth an event.
    pub(crate) fn was_let_in(&self) -> bool {
        self.let_in
    }

    /// Turns what the session has to tell into events.
    pub(crate) fn poll(
        &mut self,
        interpreter: &mut Interpreter,
        redaction: Redaction,
        events: &mut VecDeque<Event>,
    ) {
        while let Some(output) = self.session.poll() {
            self.handle_output(output, interpreter, redaction, events);
        }
    }

    fn handle_output(
        &mut self,
        output: Output,
        interpreter: &mut Interpreter,
        redaction: Redaction,
        events: &mut VecDeque<Event>,
    ) {
        match output {
            Output::Startup { parameters, .. } => self.startup(&parameters),
            Output::AuthRequested { method, .. } => {
                self.asked_for_credentials = true;
                Arc::make_mut(&mut self.facts).auth_method = Some(method);
            }
            Output::AuthOk { at } => {
                if !self.asked_for_credentials {
                    Arc::make_mut(&mut self.facts).auth_method = Some("none");
                }
                self.let_in = true;
                events.push_back(self.event(at, Body::SessionOpen));
            }
            // The kernel's process id is the one that this host knows; the server's may be of a namespace.
            Output::BackendKey { .. } => {}
            Output::Parameter { name, value } => {
                let value = || Some(String::from_utf8_lossy(&value).into_owned());
                if name.as_ref() == APPLICATION_NAME {
                    Arc::make_mut(&mut self.facts).application_name = value();
                } else if name.as_ref() == SERVER_VERSION {
                    Arc::make_mut(&mut self.facts).server_version = value();
                }
            }
            Output::AuthFailed { at, error } => events.push_back(self.event(at, Body::AuthFailure(error))),
            Output::SessionError { at, error } => events.push_back(self.event(at, Body::SessionError(error))),
            Output::Cancel { at, pid } => events.push_back(self.event(at, Body::Cancel { victim: pid })),
            Output::Terminate { .. } => self.terminated = true,
            Output::Encryption { at, kind, accepted } => {
                if accepted {
                    Arc::make_mut(&mut self.facts).encryption = Some(kind);
                    events.push_back(self.event(at, Body::Opaque(kind)));
                }
            }
            Output::Exchange(exchange) => {
                for (times, query) in query::queries(&exchange, self.transaction, interpreter, redaction) {
                    self.statements += 1;
                    let session = Arc::clone(&self.facts);
                    events.push_back(Event {
                        times,
                        session,
                        body: Body::Query(Box::new(query)),
                    });
                }
                if exchange.transaction_status == Some(b'I') {
                    self.transaction += 1;
                }
            }
            Output::Malformed {
                at,
                direction,
                offset,
                expected,
                found,
            } => {
                let detail = format!("expected {expected} at byte {offset}, found {found}");
                let gap = Gap {
                    reason: "malformed",
                    direction,
                    bytes_missing: Some(0),
                    detail,
                };
                events.push_back(self.event(at, Body::Gap(gap)));
            }
            Output::Lost {
                at,
                direction,
                skipped,
                ..
            } => {
                // The missing bytes themselves were told when they were found missing.
                if skipped > 0 {
                    let reason = if self.facts.opened_before_attach {
                        "opened_before_attach"
                    } else {
                        "resync"
                    };
                    let detail = format!("{skipped} bytes were seen but could not be understood");
                    let gap = Gap {
                        reason,
                        direction,
                        bytes_missing: Some(0),
                        detail,
                    };
                    events.push_back(self.event(at, Body::Gap(gap)));
                }
            }
        }
    }

    fn startup(&mut self, parameters: &[(bytes::Bytes, bytes::Bytes)]) {
        let facts = Arc::make_mut(&mut self.facts);
        for (name, value) in parameters {
            let value = || Some(String::from_utf8_lossy(value).into_owned());
            match name.as_ref() {
                b"user" => facts.login_role = value(),
                b"database" => facts.database = value(),
                APPLICATION_NAME => facts.application_name = value(),
                _ => {}
            }
        }
        // Manual, "Frontend/Backend Protocol", StartupMessage: the database defaults to the user's name.
        if facts.database.as_deref().unwrap_or_default().is_empty() {
            facts.database.clone_from(&facts.login_role);
        }
    }

    fn missing(
        &mut self,
        direction: Direction,
        at: Nanos,
        offset_after: u64,
        missing: u64,
        reason: &'static str,
        events: &mut VecDeque<Event>,
    ) {
        self.session
            .handle_gap(direction, at, offset_after, Some(missing));
        let gap = Gap {
            reason,
            direction,
            bytes_missing: Some(missing),
            detail: String::new(),
        };
        events.push_back(self.event(at, Body::Gap(gap)));
    }

    fn stream(&mut self, direction: Direction) -> &mut ByteStream {
        match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        }
    }

    fn event(&self, at: Nanos, body: Body) -> Event {
        let times = Times {
            start: at,
            first_response: None,
            end: at,
        };
        Event {
            times,
            session: Arc::clone(&self.facts),
            body,
        }
    }
}

/// The tapped process is the server: what it receives is the frontend's.
fn direction(header: &SegmentHeader) -> Direction {
    if header.direction == ebpf_abi::Direction::Received as u8 {
        Direction::Frontend
    } else {
        Direction::Backend
    }
}

fn reason(code: u8) -> &'static str {
    match code {
        code if code == MissingReason::CopyFault as u8 => "copy_fault",
        code if code == MissingReason::UnsupportedCall as u8 => "unsupported_call",
        code if code == MissingReason::CallCap as u8 => "call_cap",
        _ => "unknown",
    }
}
