//! Exchanges on their way out: answered ones wait for the ReadyForQuery that tells how their transaction
//! stands. Separate from matching, which only ever adds at the end.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Nanos;
use crate::answer::result_bytes;
use crate::exchange::{Exchange, ExchangeKind, Outcome, Phase, ServerError, StatementResult};
use crate::framing::Frame;
use crate::request::{Request, no_params, params_bytes};

pub(crate) struct Finished {
    max_waiting: usize,
    max_bytes: usize,
    #[expect(
        clippy::vec_box,
        reason = "an exchange is large, and handed on from list to list"
    )]
    waiting: Vec<Box<Exchange>>,
    /// What `waiting` keeps alive.
    bytes: usize,
    ready: VecDeque<Box<Exchange>>,
}

impl Finished {
    pub(crate) fn new(max_waiting: usize, max_bytes: usize) -> Self {
        Self {
            max_waiting,
            max_bytes,
            waiting: Vec::new(),
            bytes: 0,
            ready: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, exchange: Box<Exchange>) {
        self.bytes += exchange_bytes(&exchange);
        self.waiting.push(exchange);
        // A client may go on without Sync for ever.
        if self.waiting.len() >= self.max_waiting || self.bytes > self.max_bytes {
            self.release(None, 0);
        }
    }

    /// Lets go of all that wait, with this transaction status, told by a message that ends at `ready_to`.
    pub(crate) fn release(&mut self, status: Option<u8>, ready_to: u64) {
        self.bytes = 0;
        if let Some(last) = self.waiting.last_mut() {
            last.last_of_unit = true;
        }
        for mut exchange in self.waiting.drain(..) {
            exchange.transaction_status = status;
            exchange.ready_to = ready_to;
            self.ready.push_back(exchange);
        }
    }

    /// Reports at once what will not be followed by a ReadyForQuery for a long time.
    pub(crate) fn report(&mut self, exchange: Box<Exchange>) {
        self.ready.push_back(exchange);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty()
    }

    /// Gives memory back that only a busy connection needs.
    pub(crate) fn rest(&mut self) {
        self.waiting.shrink_to(0);
        self.ready.shrink_to(0);
    }

    /// The next one that is ready, if there is one: most messages finish nothing.
    pub(crate) fn next(&mut self) -> Option<Box<Exchange>> {
        self.ready.pop_front()
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        (self.waiting.capacity() + self.ready.capacity()) * size_of::<usize>()
            + self.waiting.len() * size_of::<Exchange>()
            + self.bytes
    }
}

/// An exchange of this request with what its one answering message tells, or without a result yet.
pub(crate) fn exchange(kind: ExchangeKind, request: &Request, answer: Option<&Frame>) -> Box<Exchange> {
    Box::new(Exchange {
        kind,
        sql: None,
        sql_at: 0,
        sql_bytes: 0,
        truncated: false,
        digest: None,
        statement_name: Bytes::new(),
        portal_name: Bytes::new(),
        param_count: 0,
        params: no_params(),
        function_oid: None,
        started: request.began,
        ended: request.began,
        request: request.range.clone(),
        response_to: answer.map_or(0, |frame| frame.end),
        ready_to: 0,
        last_of_unit: false,
        continues: None,
        results: match answer {
            Some(frame) => {
                let mut result = StatementResult::begun(Some(frame.began), request.wire_bytes());
                result.bytes_out = frame.wire_bytes();
                vec![result]
            }
            None => Vec::new(),
        },
        results_omitted: 0,
        transaction_status: None,
        preparsed: false,
    })
}

/// Ends an exchange of one result.
pub(crate) fn conclude(
    exchange: &mut Exchange,
    at: Nanos,
    outcome: Outcome,
    phase: Phase,
    error: Option<ServerError>,
) {
    exchange.ended = at;
    if let Some(result) = exchange.results.first_mut() {
        (result.outcome, result.phase, result.error, result.ended) = (outcome, phase, error, at);
    }
}

fn exchange_bytes(exchange: &Exchange) -> usize {
    exchange.sql.as_ref().map_or(0, Bytes::len)
        + exchange.statement_name.len()
        + exchange.portal_name.len()
        + params_bytes(&exchange.params)
        + exchange
            .results
            .iter()
            .map(|result| size_of::<StatementResult>() + result_bytes(result))
            .sum::<usize>()
}
