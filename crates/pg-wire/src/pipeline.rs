//! Matches requests with answers: the queue of what the client asked, walked by what the server says. It
//! applies the server's own rules — what an error skips, what a copy swallows, what a name means at that
//! moment — and stops with an error where the two sides do not fit, instead of guessing.

mod abandon;
mod asked;
mod failure;
mod rows;
mod statement;

use std::collections::VecDeque;
use std::ops::Range;

pub use asked::Weigh;
pub use statement::Split;

use crate::Nanos;
use crate::answer::{Answer, Bounds, Rows};
use crate::backend::{self, kind};
use crate::capture::Capture;
use crate::copied::CopyOf;
use crate::exchange::{Columns, ExchangeKind, Outcome, Phase, ServerError, StatementResult};
use crate::finished::{Finished, conclude, exchange};
use crate::framing::Frame;
use crate::frontend;
use crate::limits::Limits;
use crate::prepared::{Prepared, columns_bytes, no_columns};
use crate::request::{self, Ask, Request, Target, Unit};
use crate::rows::RowsOf;

/// An answer that nothing asked for.
#[derive(Debug)]
pub(crate) struct Unexpected(pub(crate) &'static str);

/// More requests under way than can be remembered.
#[derive(Debug)]
pub(crate) struct Overflow;

pub(crate) struct Pipeline {
    bounds: Bounds,
    max_requests: usize,
    max_bytes: usize,
    /// Requests in the order of the frontend stream; the answer under way is that of the first.
    queue: VecDeque<Request>,
    /// Text kept in `queue`.
    queue_bytes: usize,
    answer: Answer,
    unit: Unit,
    /// The server reads and ignores everything up to the next Sync, because of an error.
    skipping: bool,
    /// Those described last for a query string: the next one often has the same.
    columns: Columns,
    /// Takes query strings apart.
    pub(crate) split: Option<Split>,
    /// Says how much it matters that a text was asked for.
    pub(crate) weigh: Option<Weigh>,
    /// The most that it said since that was last taken.
    pub(crate) asked: u8,
    /// Statements of the query string at the head of the queue, once they were needed.
    parts: Option<Vec<Range<usize>>>,
    /// The request at the head of the queue began a stream in both directions: where it began itself.
    stream_began: Option<u64>,
    pub(crate) finished: Finished,
    prepared: Prepared,
    /// Which columns of results are wanted, if any ever are.
    pub(crate) rows_of: Option<RowsOf>,
    /// And what is wanted of copied data.
    pub(crate) copy_of: Option<CopyOf>,
    /// Room for values of rows, and how much of it was used since the last ReadyForQuery.
    rows_room: usize,
    rows_used: usize,
}

impl Pipeline {
    pub(crate) fn new(limits: &Limits, blind: bool) -> Self {
        Self {
            bounds: Bounds {
                results: limits.results.max(1),
                columns: limits.columns,
            },
            max_requests: limits.pipeline,
            max_bytes: limits.pipeline_bytes,
            queue: VecDeque::new(),
            queue_bytes: 0,
            answer: Answer::default(),
            unit: Unit::default(),
            skipping: false,
            columns: no_columns(),
            split: None,
            weigh: None,
            asked: 0,
            parts: None,
            stream_began: None,
            finished: Finished::new(limits.pipeline, limits.pipeline_bytes),
            prepared: Prepared::new(limits.prepared, limits.prepared_bytes, blind),
            rows_of: None,
            copy_of: None,
            rows_room: limits.rows_bytes,
            rows_used: 0,
        }
    }

    /// A message of the client.
    pub(crate) fn request(&mut self, frame: &Frame, capture: &Capture) -> Result<(), Overflow> {
        if frame.kind == frontend::kind::COPY_DATA {
            if !self.skipping {
                self.answer.receive(frame);
            }
            return Ok(());
        }
        let copy_ends = matches!(frame.kind, frontend::kind::COPY_DONE | frontend::kind::COPY_FAIL);
        // The end of a copy belongs to the request that began it, not to the next one.
        let (began, range) = if copy_ends {
            (frame.began, frame.start..frame.end)
        } else {
            self.unit.extend(frame)
        };
        if self.skipping {
            if frame.kind != frontend::kind::SYNC {
                return Ok(());
            }
            self.skipping = false;
        }
        let ask = if copy_ends {
            Ask::CopyEnd(self.answer.take_incoming())
        } else {
            let room = self.max_bytes.saturating_sub(self.queue_bytes);
            let Some(ask) = request::decode(frame, capture, room, &self.prepared) else {
                return Ok(());
            };
            ask
        };
        if matches!(ask, Ask::Query(_) | Ask::Execute { .. }) && !self.answer.copying_in {
            // Left over from a copy that failed, or from none.
            self.answer.take_incoming();
        }
        if self.queue.len() >= self.max_requests {
            return Err(Overflow);
        }
        if let Some(weigh) = self.weigh {
            self.asked = self.asked.max(self.weight(&ask, weigh));
        }
        let request = Request { ask, began, range };
        self.queue_bytes += request.kept_bytes();
        self.queue.push_back(request);
        self.swallow_copy();
        Ok(())
    }

    /// A message of the server, other than those that can come at any time. Gives the error back that
    /// answers no request.
    pub(crate) fn answer(
        &mut self,
        at: Nanos,
        frame: &Frame,
        capture: &Capture,
    ) -> Result<Option<ServerError>, Unexpected> {
        self.drop_idle_copy_ends();
        match frame.kind {
            kind::DATA_ROW => {
                self.open(frame, "a query or an Execute")?.rows += 1;
                if self.rows_of.is_some() {
                    self.keep_row(capture.row());
                }
            }
            kind::COPY_DATA => {
                let result = self.open(frame, "a query or an Execute")?;
                *result.copy_bytes.get_or_insert(0) += frame.body;
            }
            kind::COPY_OUT | kind::COPY_DONE => {
                self.open(frame, "a query or an Execute")?
                    .copy_bytes
                    .get_or_insert(0);
            }
            kind::COPY_IN | kind::COPY_BOTH => {
                self.open(frame, "a query or an Execute")?
                    .copy_bytes
                    .get_or_insert(0);
                self.answer.copying_in = true;
                self.swallow_copy();
                if frame.kind == kind::COPY_BOTH {
                    self.stream_begins(frame);
                }
            }
            kind::COMMAND_COMPLETE => {
                self.open(frame, "a query or an Execute")?.tag = Some(backend::tag(capture.bytes()));
                let change = self.name_change();
                // A portal that drops itself (DISCARD ALL) has still to be reported by its text.
                self.end(at, frame, Outcome::Ok, Phase::Complete);
                if let Some((change, text)) = change {
                    change.apply(text, &mut self.prepared);
                }
            }
            kind::EMPTY_QUERY => {
                self.open(frame, "a query or an Execute")?;
                self.end(at, frame, Outcome::EmptyQuery, Phase::Complete);
            }
            kind::PORTAL_SUSPENDED => {
                self.open(frame, "an Execute")?;
                self.end(at, frame, Outcome::Suspended, Phase::Execute);
            }
            kind::FUNCTION_RESULT => match self.queue.front() {
                Some(Request {
                    ask: Ask::FunctionCall { .. },
                    ..
                }) => {
                    self.extend(frame);
                    self.end(at, frame, Outcome::Ok, Phase::Complete);
                }
                _ => return Err(Unexpected("a FunctionCall")),
            },
            kind::PARSE_COMPLETE => match self.pop_if(|ask| matches!(ask, Ask::Parse { .. })) {
                Some(Request {
                    ask:
                        Ask::Parse {
                            statement,
                            text,
                            types,
                        },
                    ..
                }) => self.prepared.parsed(statement, *text, types),
                _ => return Err(Unexpected("a Parse")),
            },
            kind::BIND_COMPLETE => match self.pop_if(|ask| matches!(ask, Ask::Bind { .. })) {
                Some(Request {
                    ask:
                        Ask::Bind {
                            portal,
                            statement,
                            given,
                        },
                    ..
                }) => self.prepared.bound(portal, statement, given),
                _ => return Err(Unexpected("a Bind")),
            },
            kind::CLOSE_COMPLETE => match self.pop_if(|ask| matches!(ask, Ask::Close(_))) {
                Some(Request {
                    ask: Ask::Close(target),
                    ..
                }) => self.prepared.closed(&target),
                _ => return Err(Unexpected("a Close")),
            },
            kind::PARAMETER_DESCRIPTION => match self.queue.front() {
                Some(Request {
                    ask: Ask::Describe(Target::Statement(name)),
                    ..
                }) => self.prepared.typed(name, request::types(capture, self.max_bytes)),
                _ => return Err(Unexpected("a Describe of a statement")),
            },
            kind::NO_DATA => {
                self.pop_if(|ask| matches!(ask, Ask::Describe(_)))
                    .ok_or(Unexpected("a Describe"))?;
            }
            kind::ROW_DESCRIPTION => self.described(frame, capture)?,
            kind::ERROR => return Ok(self.failed(at, frame, backend::error(capture.bytes()))),
            kind::READY => self.ready(at, frame, capture.bytes().first().copied())?,
            _ => return Err(Unexpected("an answer")),
        }
        Ok(None)
    }

    /// Whether any request awaits its answer.
    pub(crate) fn has_requests(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Drops requests that can never have run (the session was refused).
    pub(crate) fn forget(&mut self) {
        self.queue.clear();
        self.queue_bytes = 0;
        self.answer = Answer::default();
        self.unit = Unit::default();
        self.skipping = false;
        self.stream_began = None;
        self.parts = None;
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.finished.is_empty()
    }

    /// Whether nothing is under way, and nothing was begun that a later message would belong to.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_idle() && !self.skipping && self.unit.is_empty()
    }

    /// Gives memory back that only a busy connection needs.
    pub(crate) fn rest(&mut self) {
        self.queue.shrink_to(0);
        self.columns = no_columns();
        self.finished.rest();
        self.answer.rest();
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Request>()
            + self.queue.iter().map(Request::retained_bytes).sum::<usize>()
            + self.finished.retained_bytes()
            + self.answer.retained_bytes()
            + self.prepared.retained_bytes()
            + columns_bytes(&self.columns)
            + self
                .parts
                .as_ref()
                .map_or(0, |parts| parts.capacity() * size_of::<Range<usize>>())
    }

    /// The result at the head of the queue, which must be one that can have rows.
    fn open(&mut self, frame: &Frame, expected: &'static str) -> Result<&mut StatementResult, Unexpected> {
        match self.queue.front() {
            Some(Request {
                ask: Ask::Execute { .. },
                ..
            }) => {}
            Some(Request {
                ask: Ask::Query(_), ..
            }) if frame.kind != kind::PORTAL_SUSPENDED => {}
            _ => return Err(Unexpected(expected)),
        }
        Ok(self.extend(frame))
    }

    fn extend(&mut self, frame: &Frame) -> &mut StatementResult {
        let bytes_in = self.queue.front().map_or(0, Request::wire_bytes);
        self.answer.extend(frame, bytes_in)
    }

    /// Ends the open result; an Execute has but this one.
    fn end(&mut self, at: Nanos, frame: &Frame, outcome: Outcome, phase: Phase) {
        if let Some(source) = self.source() {
            self.answer.set_source(source);
        }
        self.answer.end(at, outcome, phase, None, self.bounds);
        if let Some(request) = self.pop_if(|ask| matches!(ask, Ask::Execute { .. })) {
            self.finish_answer(request, at, Some(frame.end));
        }
    }

    fn described(&mut self, frame: &Frame, capture: &Capture) -> Result<(), Unexpected> {
        let body = capture.bytes();
        match self.pop_if(|ask| matches!(ask, Ask::Describe(_))) {
            Some(Request {
                ask: Ask::Describe(target),
                ..
            }) => {
                let known = self.prepared.columns(&target);
                if !known.is_some_and(|known| backend::describes(body, known)) {
                    self.prepared.described(&target, backend::columns(body));
                }
            }
            _ => {
                if !backend::describes(body, &self.columns) {
                    self.columns = backend::columns(body);
                }
                let columns = self.columns.clone();
                self.open(frame, "a query, an Execute or a Describe")?.columns = columns;
                self.answer.rows = Rows::Undecided;
            }
        }
        Ok(())
    }

    /// The server ignores what comes before the next Sync (manual section "Extended Query").
    fn skip_to_sync(&mut self) {
        while let Some(request) = self.queue.front() {
            if matches!(request.ask, Ask::Sync) {
                return;
            }
            self.pop();
        }
        self.skipping = true;
    }

    fn ready(&mut self, at: Nanos, frame: &Frame, status: Option<u8>) -> Result<(), Unexpected> {
        let closes = |ask: &Ask| matches!(ask, Ask::Sync | Ask::Query(_) | Ask::FunctionCall { .. });
        let request = self
            .pop_if(closes)
            .ok_or(Unexpected("a query, a FunctionCall or a Sync"))?;
        if !matches!(request.ask, Ask::Sync) {
            if let Ask::Query(_) = request.ask {
                self.prepared.queried();
            }
            self.answer.abandon(
                at,
                Outcome::Unknown,
                Phase::Execute,
                request.wire_bytes(),
                self.bounds,
            );
            self.finish_answer(request, at, Some(frame.end));
        }
        self.finished.release(status, frame.end);
        self.rows_used = 0;
        if status == Some(IDLE) {
            self.prepared.transaction_ended();
        }
        Ok(())
    }

    /// Makes an exchange of a request and the results collected for it.
    fn finish_answer(&mut self, request: Request, at: Nanos, response_to: Option<u64>) {
        let (results, omitted) = self.answer.take();
        self.parts = None;
        let kind = match request.ask {
            Ask::Query(_) => ExchangeKind::Simple,
            Ask::FunctionCall { .. } => ExchangeKind::FunctionCall,
            _ => ExchangeKind::Execute,
        };
        let mut exchange = exchange(kind, &request, None);
        exchange.response_to = response_to.unwrap_or(0);
        exchange.results_omitted = omitted;
        exchange.results = results;
        match request.ask {
            Ask::Query(text) => text.describe(&mut exchange),
            Ask::FunctionCall { oid, given } => {
                exchange.function_oid = oid;
                exchange.param_count = given.count;
                exchange.params = given.params;
            }
            Ask::Execute { portal } => {
                self.prepared
                    .executed(portal, request.range.start, self.bounds.columns, &mut exchange);
                let error = exchange.results.first().and_then(|result| result.error.as_ref());
                exchange.preparsed &= !error.is_some_and(ServerError::names_nothing);
            }
            _ => {}
        }
        exchange.continues = exchange.continues.or(self.stream_began.take());
        exchange.ended = exchange.results.last().map_or(at, |result| result.ended);
        self.finished.push(exchange);
    }

    /// A stream in both directions may last for weeks: that it began is reported now, its volume at its end.
    fn stream_begins(&mut self, frame: &Frame) {
        let Some(request) = self.queue.front() else {
            return;
        };
        let mut begun = exchange(ExchangeKind::Simple, request, Some(frame));
        if let Ask::Query(text) = &request.ask {
            text.describe(&mut begun);
        }
        conclude(&mut begun, frame.began, Outcome::Suspended, Phase::Execute, None);
        begun.last_of_unit = true;
        self.stream_began = Some(request.range.start);
        self.finished.report(begun);
    }

    /// While it reads copied data the server ignores Sync, up to the end of the data. So clients of the
    /// extended protocol send a second one.
    fn swallow_copy(&mut self) {
        while self.answer.copying_in {
            match self.queue.get(1).map(|request| &request.ask) {
                Some(Ask::Sync) => {}
                Some(&Ask::CopyEnd(copied)) => {
                    self.answer.copied(copied);
                    self.answer.copying_in = false;
                }
                _ => return,
            }
            self.queue.remove(1);
        }
    }

    /// The end of a copy that had failed already: the server ignores it.
    fn drop_idle_copy_ends(&mut self) {
        while let Some(Request {
            ask: Ask::CopyEnd(_), ..
        }) = self.queue.front()
        {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.queue.pop_front()?;
        self.queue_bytes = self.queue_bytes.saturating_sub(request.kept_bytes());
        Some(request)
    }

    fn pop_if(&mut self, wanted: impl FnOnce(&Ask) -> bool) -> Option<Request> {
        if self.queue.front().is_some_and(|request| wanted(&request.ask)) {
            self.pop()
        } else {
            None
        }
    }
}

/// Status byte of a ReadyForQuery outside of a transaction.
const IDLE: u8 = b'I';
