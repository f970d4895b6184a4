//! What an ErrorResponse means to the requests under way: which one it ends, and which ones the server then skips.

use super::Pipeline;
use crate::Nanos;
use crate::exchange::{ExchangeKind, Outcome, Phase, ServerError, Source};
use crate::finished::{conclude, exchange};
use crate::framing::Frame;
use crate::request::{Ask, Request, Target};

impl Pipeline {
    /// Applies an error. Gives it back if it answers no request.
    pub(super) fn failed(&mut self, at: Nanos, frame: &Frame, error: ServerError) -> Option<ServerError> {
        let fatal = error.ends_session();
        match self.queue.front().map(|request| &request.ask) {
            None | Some(Ask::CopyEnd(_)) => {
                if fatal {
                    self.finished.release(None, 0);
                }
                return Some(error);
            }
            Some(Ask::Query(_) | Ask::FunctionCall { .. }) => {
                self.extend(frame);
                if let Some(source) = self.source_of_failure(&error) {
                    self.answer.set_source(source);
                }
                self.answer
                    .end(at, Outcome::Error, Phase::Execute, Some(error), self.bounds);
            }
            Some(Ask::Sync) => {
                if let Some(sync) = self.queue.front() {
                    let mut exchange = exchange(ExchangeKind::Sync, sync, Some(frame));
                    conclude(&mut exchange, at, Outcome::Error, Phase::Execute, Some(error));
                    self.finished.push(exchange);
                }
            }
            Some(_) => {
                let source = self.source_of_failure(&error);
                if let Some(request) = self.pop() {
                    self.fail_step(at, frame, request, error, source);
                }
                self.skip_to_sync();
            }
        }
        if fatal {
            // Nothing behind it will run, and no ReadyForQuery will come.
            if let Some(request) = self.pop_if(|ask| matches!(ask, Ask::Query(_) | Ask::FunctionCall { .. }))
            {
                self.finish_answer(request, at, Some(frame.end));
            }
            self.finished.release(None, 0);
            self.forget();
        }
        None
    }

    /// What the statement that failed would have run. Where the server knows nothing by a name, what was known of it is
    /// gone; and a string of several statements that it could not parse was never taken apart.
    fn source_of_failure(&mut self, error: &ServerError) -> Option<Box<Source>> {
        if error.names_nothing() || (error.is_syntax() && self.is_first_of_several()) {
            return None;
        }
        self.source()
    }

    /// A message of the extended protocol failed.
    fn fail_step(
        &mut self,
        at: Nanos,
        frame: &Frame,
        request: Request,
        error: ServerError,
        source: Option<Box<Source>>,
    ) {
        let kind = match &request.ask {
            Ask::Execute { .. } => {
                let bytes_in = request.wire_bytes();
                self.answer.extend(frame, bytes_in);
                if let Some(source) = source {
                    self.answer.set_source(source);
                }
                self.answer
                    .end(at, Outcome::Error, Phase::Execute, Some(error), self.bounds);
                return self.finish_answer(request, at, Some(frame.end));
            }
            Ask::Parse { .. } => ExchangeKind::Parse,
            Ask::Bind { .. } => ExchangeKind::Bind,
            Ask::Describe(_) => ExchangeKind::Describe,
            _ => ExchangeKind::Close,
        };
        let phase = request.ask.phase();
        let mut exchange = exchange(kind, &request, Some(frame));
        match request.ask {
            Ask::Parse { statement, text, .. } => {
                text.describe(&mut exchange);
                self.prepared.parse_failed(&statement);
                exchange.statement_name = statement;
            }
            Ask::Bind {
                portal,
                statement,
                given,
            } => {
                self.prepared
                    .describe(&Target::Statement(statement), &mut exchange);
                exchange.portal_name = portal;
                exchange.param_count = given.count;
                exchange.params = self.prepared.typed_as(&exchange.statement_name, given).params;
            }
            Ask::Describe(target) | Ask::Close(target) => self.prepared.describe(&target, &mut exchange),
            _ => {}
        }
        if kind != ExchangeKind::Parse && error.names_nothing() {
            exchange.forget_name();
        }
        conclude(&mut exchange, at, Outcome::Error, phase, Some(error));
        self.finished.push(exchange);
    }
}
