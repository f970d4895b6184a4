//! What one session may keep. Each number is a bound on memory that the peer would otherwise control.
//! Separate so that the sum of all bounds can be read, and tested, in one place.

use crate::backend::ROW_DESCRIPTION_BYTES;
use crate::capture::BUSY_BUFFER_BYTES;
use crate::exchange::{Column, Exchange, Param, StatementResult};
use crate::names::ENTRY_BYTES;
use crate::request::Request;
use crate::startup::STARTUP_BYTES;

/// Text kept of one statement: generated SQL of bulk loaders reaches hundreds of KiB; more is data.
const STATEMENT_BYTES: usize = 1 << 20;
/// Bytes of a statement or portal name that count. The server itself compares 63 (`NAMEDATALEN` - 1 in its
/// hash tables for prepared statements and portals), so that longer names are equal when these are.
const NAMES_BYTES: usize = 63;
/// Named statements, and as many portals: drivers cache hundreds; programs that leak names reach more.
const PREPARED: usize = 10_000;
/// Text and columns kept for named statements, and as much for portals: 10,000 statements of 1.6 KiB.
const PREPARED_BYTES: usize = 16 << 20;
/// Bytes kept of all values of one Bind, if any are kept at all: as much as of a statement's text.
const VALUES_BYTES: usize = 1 << 20;
/// Parameters of one Bind: their count has 16 bits. Types are declared by the same count.
const PARAMS: usize = u16::MAX as usize;
/// Bytes kept of a value of a chosen column: what identifies is short; a longer one is said to be missing.
const ROW_VALUE_BYTES: usize = 1_024;
/// Kept of all rows between two ReadyForQuery messages: 40,000 numbers.
const ROWS_BYTES: usize = 2 << 20;
/// Requests awaiting their answer: ten times the 5-byte messages that fit in the server's 8 KiB
/// receive buffer, because beside a pooler more can be under way.
const PIPELINE: usize = 16_384;
/// Statement text kept for requests and answers under way; a pipeline of longer text is cut and says so.
const PIPELINE_BYTES: usize = 16 << 20;
/// Results kept of one query string; more are counted only.
const RESULTS: usize = 4_096;
/// Columns kept over all results of one exchange: ten results of the server's widest (1,664 columns).
const COLUMNS: usize = 16_640;

/// Bounds of one [`Session`](crate::Session). Whatever is cut is marked in the exchange that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes kept of one statement's text.
    pub statement_bytes: usize,
    /// Bytes of a statement or portal name that count.
    pub names_bytes: usize,
    /// Bytes kept of one parameter value. 0, the default: none, only their lengths.
    pub value_bytes: usize,
    /// The same for sessions that have sent a statement of which values are wanted, see
    /// [`Session::with_values_of`](crate::Session::with_values_of).
    pub wanted_value_bytes: usize,
    /// Bytes kept of all values of one Bind.
    pub values_bytes: usize,
    /// Bytes kept of one value of a chosen column, see [`Session::with_rows_of`](crate::Session::with_rows_of).
    pub row_value_bytes: usize,
    /// Bytes kept of all chosen values of the answers between two ReadyForQuery messages, and what their places take.
    pub rows_bytes: usize,
    /// Named statements remembered, and as many portals; the oldest is forgotten first.
    pub prepared: usize,
    /// Bytes of text and columns remembered for named statements, and as many for portals.
    pub prepared_bytes: usize,
    /// Requests that await an answer, and answered ones that await their ReadyForQuery.
    pub pipeline: usize,
    /// Bytes of text kept for requests that await an answer, and for answered ones that await theirs.
    pub pipeline_bytes: usize,
    /// Results kept of one simple query.
    pub results: usize,
    /// Columns kept over all results of one exchange.
    pub columns: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_bytes: STATEMENT_BYTES,
            names_bytes: NAMES_BYTES,
            value_bytes: 0,
            wanted_value_bytes: 0,
            values_bytes: VALUES_BYTES,
            row_value_bytes: ROW_VALUE_BYTES,
            rows_bytes: ROWS_BYTES,
            prepared: PREPARED,
            prepared_bytes: PREPARED_BYTES,
            pipeline: PIPELINE,
            pipeline_bytes: PIPELINE_BYTES,
            results: RESULTS,
            columns: COLUMNS,
        }
    }
}

impl Limits {
    /// The most that [`Session::retained_bytes`](crate::Session::retained_bytes) can reach under these limits, provided that outputs
    /// are polled after every call.
    pub fn retained_bound(&self) -> usize {
        // A growing Vec at worst doubles, whence the twos.
        let column = size_of::<Column>() + self.names_bytes.max(64) + 18;
        let buffers = 2
            * (self.statement_bytes + 2 * self.names_bytes + STARTUP_BYTES + ROW_DESCRIPTION_BYTES)
            + 8 * BUSY_BUFFER_BYTES;
        // What one Bind can hold, and one Parse of types.
        let values = self
            .values_bytes
            .min(PARAMS * self.value_bytes.max(self.wanted_value_bytes))
            + PARAMS * size_of::<Param>()
            + 4 * PARAMS;
        let unnamed = 2 * (self.statement_bytes + ROW_DESCRIPTION_BYTES * 5 + ENTRY_BYTES) + 8 * values;
        let prepared = 2 * (self.prepared_bytes + (self.prepared + 1) * (ENTRY_BYTES + 3 * self.names_bytes));
        let pipeline =
            (self.pipeline + 1) * (2 * size_of::<Request>() + 2 * self.names_bytes) + self.pipeline_bytes;
        let done = (self.pipeline + 1)
            * (2 * size_of::<Exchange>() + size_of::<StatementResult>() + 256 + 2 * self.names_bytes)
            + self.pipeline_bytes
            + self.statement_bytes
            + 2 * ROW_DESCRIPTION_BYTES * 5;
        let results =
            (self.results + 2) * (2 * size_of::<StatementResult>() + 256) + (self.columns + 1_664) * column;
        // Of a row under way, and of all that are kept; as much of copied data.
        let rows = 2 * (1_664 * (self.row_value_bytes + 64) + 2 * self.rows_bytes);
        rows + buffers + unnamed + prepared + pipeline + done + results
    }
}
