//! What a finished exchange looks like: one request for execution and what the server answered. Plain
//! data, separate from the matching that produces it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::Nanos;
use crate::prepared::no_columns;
use crate::rows::KeptRows;

/// The columns of a result. Shared: a prepared statement is described once and executed often.
pub type Columns = Arc<[Column]>;

/// A command tag, as in CommandComplete. Kept in place, because nearly all have fewer than 24 bytes.
pub type Tag = compact_str::CompactString;

/// Bound parameters. Shared between the Executes of one portal.
pub type Params = Arc<[Param]>;

/// How a value is written on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// As the type's input function reads it.
    #[default]
    Text,
    /// As the type's receive function reads it.
    Binary,
}

/// A parameter of a Bind or FunctionCall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Type: as the server described it, else as the client declared it; 0 if neither was seen.
    pub type_oid: u32,
    /// How it is written.
    pub format: Format,
    /// Length as sent; `None` is NULL.
    pub bytes: Option<u32>,
    /// Its head, up to [`Limits::value_bytes`](crate::Limits::value_bytes).
    pub kept: Bytes,
}

impl Param {
    /// Whether `kept` is not the whole value.
    pub fn truncated(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes as usize > self.kept.len())
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// A query string; it may hold several statements.
    Simple,
    /// An Execute of the extended protocol.
    Execute,
    /// A Parse that failed, or one without Execute whose answer was not seen.
    Parse,
    /// A Bind that failed. One that succeeded and was never executed is not reported.
    Bind,
    /// A Describe that failed.
    Describe,
    /// A Close that failed (the server's own never does).
    Close,
    /// A Sync that failed: the commit that it implies was refused, by a deferred constraint for instance.
    /// What the pipeline did before it is reported as `Ok`, and undone.
    Sync,
    /// A function called by its oid.
    FunctionCall,
}

/// One request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What was asked for.
    pub kind: ExchangeKind,
    /// Statement text as sent, up to the limit. `None`: it was prepared out of sight (before attaching or in
    /// a gap, then `preparsed`; by SQL `PREPARE` or `DECLARE`), forgotten at a limit (then `truncated`), or
    /// there is none (FunctionCall, Sync, an unknown name).
    pub sql: Option<Bytes>,
    /// Offset in the frontend stream of the message that brought the text: what it means depends on the client's
    /// encoding at that place.
    pub sql_at: u64,
    /// Whole length of the text as sent, in bytes. With a gap inside the text of a Parse it may count a few too many.
    pub sql_bytes: u64,
    /// `sql` is not the whole text.
    pub truncated: bool,
    /// SHA-256 of the whole text, if `truncated` and all of it was seen.
    pub digest: Option<Box<[u8; 32]>>,
    /// Name of the prepared statement, empty for the unnamed one, cut to the limit.
    pub statement_name: Bytes,
    /// Name of the portal, empty for the unnamed one, cut to the limit.
    pub portal_name: Bytes,
    /// Parameters given by Bind or FunctionCall.
    pub param_count: u16,
    /// The parameters themselves; none if a gap or a limit hides them while `param_count` says that there are some.
    pub params: Params,
    /// Oid of the function of a FunctionCall.
    pub function_oid: Option<u32>,
    /// First byte of the request.
    pub started: Nanos,
    /// End of the last result.
    pub ended: Nanos,
    /// Stream offsets of the request in the frontend stream. In the extended protocol it reaches from behind
    /// the previous Execute, Sync, Flush or Query to the end of this Execute, so that ranges never overlap;
    /// copied data is not included.
    pub request: Range<u64>,
    /// Offset in the backend stream behind the last message of the answer: the ReadyForQuery for `Simple`
    /// and `FunctionCall`, the last answer to the request itself for the others. 0 if it was not seen.
    pub response_to: u64,
    /// Offset in the backend stream behind the ReadyForQuery that tells `transaction_status`; 0 if that was not seen.
    pub ready_to: u64,
    /// Whether it is the last one of those that this ReadyForQuery (or the loss of it) ends.
    pub last_of_unit: bool,
    /// An Execute that continues a suspended portal: where the request of its first Execute began. Also the end of a
    /// stream in both directions (replication), whose beginning was reported as [`Outcome::Suspended`].
    pub continues: Option<u64>,
    /// `Simple`: one for each statement that answered, in order; an error is the last one. If no
    /// ReadyForQuery came (`transaction_status` is `None`), statements may have run that are not here.
    /// Others: exactly one. Never empty.
    pub results: Vec<StatementResult>,
    /// Results beyond the limit, which were counted and not kept.
    pub results_omitted: u64,
    /// Status byte of the ReadyForQuery that closed it: `I` idle, `T` in a transaction, `E` in a failed one.
    pub transaction_status: Option<u8>,
    /// The text is not known because it was prepared before attaching, or in a gap.
    pub preparsed: bool,
}

/// How one statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The server reported completion.
    Ok,
    /// The server reported an error.
    Error,
    /// The row limit of the Execute was reached, and the portal can be continued; or a stream in both directions
    /// began, whose end will be told.
    Suspended,
    /// The statement was empty.
    EmptyQuery,
    /// The connection ended before the answer. Whether it ran is not known.
    Unanswered,
    /// The answer was not seen, because bytes were lost. Whether it ran is not known.
    Unknown,
}

/// How far a statement got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It was being parsed.
    Parse,
    /// It was being bound (and planned).
    Bind,
    /// It was being executed. A simple query does not tell its phases apart: all failures are here.
    Execute,
    /// It ended.
    Complete,
}

/// The answer to one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementResult {
    /// How it ended.
    pub outcome: Outcome,
    /// How far it got.
    pub phase: Phase,
    /// The server's command tag, for instance `INSERT 0 5`.
    pub tag: Option<Tag>,
    /// DataRow messages.
    pub rows: u64,
    /// Columns, if they were described; empty beyond the limit for one exchange.
    pub columns: Columns,
    /// Bytes of copied data, both directions, without message headers; `None` if nothing was copied.
    pub copy_bytes: Option<u64>,
    /// Bytes from the client: the request (with the first result of a query string) and copied data.
    pub bytes_in: u64,
    /// Bytes from the server that answer this statement, message headers included.
    pub bytes_out: u64,
    /// First byte of the answer.
    pub first_response: Option<Nanos>,
    /// When its end was seen.
    pub ended: Nanos,
    /// The error that ended it.
    pub error: Option<ServerError>,
    /// What an SQL-level EXECUTE, FETCH or MOVE runs.
    pub source: Option<Box<Source>>,
    /// Values of the chosen columns; `None` if none was chosen.
    pub kept: Option<Box<KeptRows>>,
}

/// The text that prepared a statement or declared a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The text, up to the limit.
    pub sql: Bytes,
    /// As [`Exchange::sql_at`].
    pub sql_at: u64,
}

/// A column of a result, as in RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name shown to the client.
    pub name: Bytes,
    /// Table that it comes from; 0 if it is computed.
    pub table_oid: u32,
    /// Number of the column in that table; 0 if it is computed, negative for system columns.
    pub attnum: i16,
    /// Its type; of a domain the type that it is made of.
    pub type_oid: u32,
    /// How values are written, as described. A statement is described before anybody asked for a format: then text.
    pub format: Format,
}

/// An error of the server. Its message is never kept: it can hold data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`; in the server's language if it is older than 9.6.
    pub severity: String,
    /// Five characters (manual appendix "PostgreSQL Error Codes").
    pub sqlstate: String,
}

impl ServerError {
    /// Whether the server closes the connection after it.
    pub fn ends_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// The text could not be parsed.
    pub(crate) fn is_syntax(&self) -> bool {
        self.sqlstate == SYNTAX_ERROR
    }

    /// There is no statement or portal of the name that the request gave: what was known under it is gone.
    pub(crate) fn names_nothing(&self) -> bool {
        matches!(self.sqlstate.as_str(), UNDEFINED_STATEMENT | UNDEFINED_CURSOR)
    }
}

/// `syntax_error`, `invalid_sql_statement_name` and `invalid_cursor_name` (manual appendix "PostgreSQL Error Codes").
const SYNTAX_ERROR: &str = "42601";
const UNDEFINED_STATEMENT: &str = "26000";
const UNDEFINED_CURSOR: &str = "34000";

impl Exchange {
    /// Takes back what a name was thought to mean: the server knows nothing by that name.
    pub(crate) fn forget_name(&mut self) {
        self.sql = None;
        (self.sql_bytes, self.truncated, self.digest) = (0, false, None);
        self.preparsed = false;
    }
}

impl StatementResult {
    /// One of which nothing was seen.
    pub fn unseen() -> Self {
        Self::begun(None, 0)
    }

    pub(crate) fn begun(first_response: Option<Nanos>, bytes_in: u64) -> Self {
        Self {
            outcome: Outcome::Unknown,
            phase: Phase::Execute,
            tag: None,
            rows: 0,
            columns: no_columns(),
            copy_bytes: None,
            bytes_in,
            bytes_out: 0,
            first_response,
            ended: 0,
            error: None,
            source: None,
            kept: None,
        }
    }
}
