//! What a connection's protocol session tells, as events: logins, exchanges gathered to units, what was hidden.
//! Separate from where its bytes come from.

use std::sync::Arc;

use pg_wire::{Direction, Exchange, ExchangeKind, Output};

use super::{Connection, Recorder, naming::Learnt};
use crate::{
    assertions::GAP,
    event::{Body, Event, Gap},
    query::{self, Answered, Context},
};

/// Settings reported by the server that a session keeps.
const CLIENT_ENCODING: &[u8] = b"client_encoding";
const APPLICATION_NAME: &[u8] = b"application_name";
const SERVER_VERSION: &[u8] = b"server_version";

impl Connection {
    /// Turns what the session has to tell into events.
    pub(crate) fn poll(&mut self, recorder: &mut Recorder) {
        while let Some(output) = self.session.poll() {
            self.handle_output(output, recorder);
        }
    }

    fn handle_output(&mut self, output: Output, recorder: &mut Recorder) {
        let events = &mut recorder.events;
        match output {
            Output::Startup { parameters, .. } => {
                self.assertions.start(&parameters, &recorder.names);
                self.startup(&parameters);
            }
            Output::AuthRequested { method, .. } => {
                self.asked_for_credentials = true;
                Arc::make_mut(&mut self.facts).auth_method = Some(method);
            }
            Output::AuthOk { at } => {
                if !self.asked_for_credentials {
                    Arc::make_mut(&mut self.facts).auth_method = Some("none");
                }
                self.authenticated = Some(at);
            }
            // The last thing that a server tells before it is ready. Its process id serves cancel requests only: the
            // kernel's is the one that this host knows, the server's may be of a namespace.
            Output::BackendKey { pid } => {
                self.key = Some((pid, true));
                self.open(recorder);
            }
            Output::Parameter { name, value } => {
                if name.as_ref() == CLIENT_ENCODING {
                    self.encodings.report(&value, !self.let_in);
                }
                self.assertions
                    .report(&name, &value, !self.let_in, &recorder.names);
                let value = || Some(String::from_utf8_lossy(&value).into_owned());
                if name.as_ref() == APPLICATION_NAME {
                    Arc::make_mut(&mut self.facts).application_name = value();
                } else if name.as_ref() == SERVER_VERSION {
                    Arc::make_mut(&mut self.facts).server_version = value();
                }
            }
            Output::AuthFailed { at, error } => {
                self.authenticated = None;
                events.push_back(self.event(at, Body::AuthFailure(error)));
            }
            Output::SessionError { at, error } => events.push_back(self.event(at, Body::SessionError(error))),
            Output::Cancel { at, pid } => {
                let cancel = Body::Cancel {
                    victim: pid,
                    session: None,
                };
                events.push_back(self.event(at, cancel));
            }
            Output::Terminate { .. } => self.terminated = true,
            Output::Encryption { at, kind, accepted } if accepted => self.encryption(at, kind, recorder),
            Output::Encryption { .. } => {}
            Output::Exchange(exchange) => self.exchange(exchange, recorder),
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
                since,
                at,
                direction,
                skipped,
                over,
                ..
            } => {
                self.assertions.lose(GAP);
                self.definer.lose();
                if let Some(end) = self.transactions.lose() {
                    events.push_back(self.event(at, Body::Transaction(end)));
                }
                // The missing bytes themselves were told when they were found missing.
                if skipped > 0 {
                    let reason = if self.joining {
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
                    events.push_back(self.event_since(since, at, Body::Gap(gap)));
                }
                // The backend's side comes last, and no session gets into step without having skipped some of it.
                self.joining &= !over || direction != Direction::Backend;
            }
        }
    }

    fn exchange(&mut self, exchange: Box<Exchange>, recorder: &mut Recorder) {
        self.open(recorder);
        // Whoever is answered was let in, even if that was not seen.
        self.let_in |= exchange
            .results
            .iter()
            .any(|result| result.first_response.is_some());
        let is_last = exchange.last_of_unit;
        self.unit.push(exchange);
        if is_last {
            self.end_unit(recorder);
        }
    }

    /// All that one ReadyForQuery ended: how its transactions ended is known only now.
    fn end_unit(&mut self, recorder: &mut Recorder) {
        // Its memory serves again and again.
        let mut told = std::mem::take(&mut recorder.told);
        let (mut status, mut omitted, mut at) = (None, 0, 0);
        if let (Some(first), Some(last)) = (self.unit.first(), self.unit.last()) {
            self.past
                .unit_told(last.request.end, last.ready_to, self.encrypted.channel);
            let single = self.unit.len() == 1 && first.kind == ExchangeKind::Simple;
            self.encodings
                .answered(first.request.start, last.request.end, single);
        }
        let since = self.unit.first().map_or(0, |first| first.started);
        let mut naming = match &mut recorder.catalog {
            Some(catalog) => Some(Self::naming(
                &self.facts,
                &mut self.assertions,
                &mut self.looks,
                &self.definer,
                (catalog, &recorder.names),
                since,
            )),
            None => None,
        };
        let mut streams = false;
        let plain = self.encodings.is_plain();
        let backslash = self.assertions.backslash();
        for mut exchange in self.unit.drain(..) {
            if !plain {
                self.encodings.convert(&mut exchange);
            }
            let mut context = Context {
                meanings: &mut recorder.meanings,
                watch: recorder.watch.as_mut(),
                naming: naming.as_mut(),
                database: self.facts.database.as_deref(),
                redaction: recorder.redaction,
                replication: self.replication,
                plain,
                backslash,
            };
            query::queries(&exchange, &mut context, &mut told);
            streams |= Learnt::streams(&exchange);
            status = exchange.transaction_status;
            omitted += exchange.results_omitted;
            at = exchange.ended;
        }
        let mut learnt = naming.map(|naming| naming.learnt).unwrap_or_default();
        learnt.streams = streams;
        let ends = self.transactions.number(&mut told, status, omitted > 0);
        let count = told.len();
        for (index, answered) in told.drain(..).enumerate() {
            let Answered {
                times,
                mut query,
                words,
                resolution,
            } = answered;
            self.statements += 1;
            let alone = status.filter(|_| index + 1 == count);
            let names = &recorder.names;
            self.assertions
                .follow(&mut query, words, self.statements, alone, names);
            query.objects = recorder.relations.know(&self.facts, &query, resolution.as_ref());
            recorder.events.push_back(Event {
                times,
                session: Arc::clone(&self.facts),
                body: Body::Query(query),
            });
        }
        recorder.told = told;
        self.assertions.end_unit(status, &recorder.names);
        self.defined(learnt, status, at.max(self.now), recorder);
        for end in ends {
            recorder.events.push_back(self.event(at, Body::Transaction(end)));
        }
        if omitted > 0 {
            let gap = Gap {
                reason: "result_cap",
                direction: Direction::Backend,
                bytes_missing: Some(0),
                detail: format!("{omitted} answers to one query string were counted, not kept"),
            };
            recorder.events.push_back(self.event(at, Body::Gap(gap)));
        }
    }

    /// By what postmaster and number clients name this connection's backend.
    pub(crate) fn key(&self) -> Option<(u32, u32)> {
        self.key.map(|(pid, _)| (self.facts.server_pid, pid))
    }

    /// The same, once.
    pub(crate) fn take_new_key(&mut self) -> Option<(u32, u32)> {
        let (_, new) = self.key.as_mut()?;
        if std::mem::take(new) { self.key() } else { None }
    }

    /// Tells that a client was let in: not before the server is about to be ready, because a database that does not
    /// exist, a role without `CONNECT` or a full server are refused only after authentication. If the connection ends
    /// with neither seen, the accepted credentials stand.
    pub(super) fn open(&mut self, recorder: &mut Recorder) {
        if let Some(at) = self.authenticated.take() {
            self.let_in = true;
            recorder.events.push_back(self.event(at, Body::SessionOpen));
        }
    }

    fn startup(&mut self, parameters: &[(bytes::Bytes, bytes::Bytes)]) {
        let facts = Arc::make_mut(&mut self.facts);
        let text = |value: &[u8]| Some(String::from_utf8_lossy(value).into_owned());
        for (name, value) in parameters {
            match name.as_ref() {
                b"user" => facts.login_role = text(value),
                b"database" => facts.database = text(value),
                APPLICATION_NAME => facts.application_name = text(value),
                // Anything but a false Boolean (`walsender` in the server's backend_startup.c).
                b"replication" => self.replication = !is_false(value),
                _ => {}
            }
        }
        // Manual, "Frontend/Backend Protocol", StartupMessage: the database defaults to the user's name.
        if facts.database.as_deref().unwrap_or_default().is_empty() {
            facts.database.clone_from(&facts.login_role);
        }
    }
}

/// Whether the server takes a setting for false (`parse_bool` in its utils/adt/bool.c): any unique beginning.
fn is_false(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    !value.is_empty()
        && (b"false".starts_with(&value)
            || b"no".starts_with(&value)
            || value == b"0"
            || (value.len() > 1 && b"off".starts_with(&value)))
}
