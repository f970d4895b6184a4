//! The PostgreSQL frontend/backend protocol (version 3) as a listener sees it: the bytes of both
//! directions of one connection go in, exchanges (a request matched to its answer) come out.
//!
//! It owns framing, login, pipelines, prepared names and what to do after a loss. It refuses sockets,
//! clocks and SQL: time is an opaque number given by the caller, statement text stays bytes. Passwords,
//! SASL data, cancel keys and the text of errors are never kept; parameter values only if the limits allow any, and of rows
//! the values of columns that the caller chose.
//!
//! ```text
//! bytes > framing + capture > frontend / backend / startup > pipeline (prepared, answer) > Output
//!                                     session drives all of it; resync finds the way back after a gap
//! ```
//!
//! Source of the rules: PostgreSQL manual, chapter "Frontend/Backend Protocol", and where that is silent
//! the server's `tcop/postgres.c`, `tcop/backend_startup.c` and `commands/copyfromparse.c`.

mod answer;
mod backend;
mod capture;
mod copied;
mod cursor;
mod exchange;
mod finished;
mod framing;
mod frontend;
mod fuzz;
mod limits;
mod name_change;
mod names;
mod output;
mod pipeline;
mod prepared;
mod request;
mod resync;
mod rows;
mod session;
mod sql_names;
mod startup;
mod value;
mod values;

pub use copied::{Copied, CopyForm, CopyOf};
pub use exchange::{
    Column, Columns, Exchange, ExchangeKind, Format, Outcome, Param, Params, Phase, ServerError, Source,
    StatementResult, Tag,
};
#[doc(hidden)]
pub use fuzz::{fuzz_backend, fuzz_frontend, fuzz_session, fuzz_startup};
pub use limits::Limits;
pub use output::{EncryptionKind, Output};
pub use pipeline::{Split, Weigh};
pub use rows::{KeptColumn, KeptRows, RowsOf};
pub use session::{Session, Wanted};
pub use sql_names::is_single;
#[doc(hidden)]
pub use value::fuzz_value;
pub use value::{ValueText, text_of, text_of_start};

/// Capture time in nanoseconds. Opaque here: it is copied, never compared.
pub type Nanos = u64;

/// Which way bytes travel on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Client to server.
    Frontend,
    /// Server to client.
    Backend,
}
