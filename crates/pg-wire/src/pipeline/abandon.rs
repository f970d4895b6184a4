//! Giving up on what is under way, because it was not seen to its end. Separate because nothing of it is an answer.

use bytes::Bytes;

use super::Pipeline;
use crate::Nanos;
use crate::exchange::{ExchangeKind, Outcome, Phase, StatementResult};
use crate::finished::{conclude, exchange};
use crate::prepared::Prepared;
use crate::request::{Ask, Target};
use crate::sql_names;

impl Pipeline {
    /// Gives up on all that is under way: it was not seen to its end. Requests whose text was seen are
    /// reported with this outcome, the others are gone. If all requests were seen, a name means what it did, unless one
    /// of them may have changed that; if not, all names are forgotten.
    pub(crate) fn abandon(&mut self, at: Nanos, outcome: Outcome, all_requests_seen: bool) {
        self.drop_idle_copy_ends();
        let mut parse = None;
        let mut doubt = Doubt::default();
        // How far the server is known to be: up to the first request that it has not answered.
        let mut phase = None;
        while let Some(request) = self.pop() {
            let here = phase.get_or_insert(request.ask.phase());
            match &request.ask {
                Ask::Query(_) | Ask::FunctionCall { .. } | Ask::Execute { .. } => {
                    if let Ask::Execute { .. } = request.ask {
                        parse = None;
                    }
                    doubt.all |= self.may_change_names(&request.ask);
                    let ends_unit = matches!(request.ask, Ask::Query(_));
                    self.answer
                        .abandon(at, outcome, *here, request.wire_bytes(), self.bounds);
                    self.finish_answer(request, at, None);
                    phase = None;
                    if ends_unit {
                        doubt.settle(&mut self.prepared);
                    }
                }
                Ask::Parse {
                    statement,
                    text,
                    types,
                } => {
                    let mut exchange = exchange(ExchangeKind::Parse, &request, None);
                    text.describe(&mut exchange);
                    exchange.statement_name = statement.clone();
                    exchange.results = vec![StatementResult::begun(None, request.wire_bytes())];
                    conclude(&mut exchange, at, outcome, Phase::Parse, None);
                    if let Some(earlier) = parse.replace(exchange) {
                        self.finished.push(earlier);
                    }
                    self.prepared
                        .parsed(statement.clone(), (**text).clone(), types.clone());
                    doubt.names.push(statement.clone());
                }
                Ask::Bind {
                    portal,
                    statement,
                    given,
                } => {
                    self.prepared
                        .bound(portal.clone(), statement.clone(), given.clone());
                }
                Ask::Close(target) => {
                    self.prepared.closed(target);
                    if let Target::Statement(name) = target {
                        doubt.names.push(name.clone());
                    }
                }
                Ask::Describe(_) | Ask::CopyEnd(_) => {}
                Ask::Sync => {
                    if let Some(unused) = parse.take() {
                        self.finished.push(unused);
                    }
                    phase = None;
                    doubt.settle(&mut self.prepared);
                }
            }
        }
        doubt.settle(&mut self.prepared);
        if let Some(unused) = parse {
            self.finished.push(unused);
        }
        self.finished.release(None, 0);
        self.forget();
        if all_requests_seen {
            self.prepared.lose_portals();
        } else {
            self.prepared.lose();
        }
    }

    /// Whether a statement may change what the names of statements mean. One whose text is not known may.
    fn may_change_names(&self, ask: &Ask) -> bool {
        let text = match ask {
            Ask::Query(text) => Some(text),
            Ask::Execute { portal } => self.prepared.text(portal),
            _ => return false,
        };
        text.filter(|text| !text.truncated)
            .and_then(|text| text.sql.as_deref())
            .is_none_or(sql_names::may_name)
    }
}

/// Names of statements of which nobody knows what they mean after requests whose answers were not seen. Up to the end
/// of its unit a Parse can be relied on: if it failed, the server skipped what follows.
#[derive(Default)]
struct Doubt {
    names: Vec<Bytes>,
    all: bool,
}

impl Doubt {
    fn settle(&mut self, prepared: &mut Prepared) {
        if std::mem::take(&mut self.all) {
            prepared.deallocated(None);
        }
        for name in self.names.drain(..) {
            prepared.doubt(&name);
        }
    }
}
