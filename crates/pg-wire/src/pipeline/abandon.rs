//! Giving up on what is under way, because it was not seen to its end. Separate because nothing of it is an answer.

use super::Pipeline;
use crate::Nanos;
use crate::exchange::{ExchangeKind, Outcome, Phase, StatementResult};
use crate::finished::{conclude, exchange};
use crate::request::Ask;

impl Pipeline {
    /// Gives up on all that is under way: it was not seen to its end. Requests whose text was seen are
    /// reported with this outcome, the others are gone. All names are forgotten with `blind`.
    pub(crate) fn abandon(&mut self, at: Nanos, outcome: Outcome, blind: bool) {
        self.drop_idle_copy_ends();
        let mut parse = None;
        // How far the server is known to be: up to the first request that it has not answered.
        let mut phase = None;
        while let Some(request) = self.pop() {
            let here = phase.get_or_insert(request.ask.phase());
            match &request.ask {
                Ask::Query(_) | Ask::FunctionCall { .. } | Ask::Execute { .. } => {
                    if let Ask::Execute { .. } = request.ask {
                        parse = None;
                    }
                    self.answer
                        .abandon(at, outcome, *here, request.wire_bytes(), self.bounds);
                    self.finish_answer(request, at, None);
                    phase = None;
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
                        .parsed(statement.clone(), text.clone(), types.clone());
                }
                Ask::Bind {
                    portal,
                    statement,
                    given,
                } => {
                    self.prepared
                        .bound(portal.clone(), statement.clone(), given.clone());
                }
                Ask::Close(target) => self.prepared.closed(target),
                Ask::Describe(_) | Ask::CopyEnd(_) => {}
                Ask::Sync => {
                    if let Some(unused) = parse.take() {
                        self.finished.push(unused);
                    }
                    phase = None;
                }
            }
        }
        if let Some(unused) = parse {
            self.finished.push(unused);
        }
        self.finished.release(None, 0);
        self.forget();
        if blind {
            self.prepared.lose();
        }
    }
}
