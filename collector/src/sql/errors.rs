//! What clients are told when something is refused or fails: a code that programs know, and words that people can use.
//!
//! Codes are PostgreSQL's own: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use datafusion::{common::SchemaError, error::DataFusionError, sql::sqlparser::parser::ParserError};
use datafusion_postgres::pgwire::{
    api::{ClientInfo, ErrorHandler},
    error::{ErrorInfo, PgWireError},
};

use super::answer::Unfit;
use crate::{access::Refused, store::page::in_one_line};

pub(super) const CANNOT_CONNECT_NOW: &str = "57P03";
pub(super) const FEATURE_NOT_SUPPORTED: &str = "0A000";
pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
pub(super) const INVALID_AUTHORIZATION: &str = "28000";
pub(super) const INVALID_PASSWORD: &str = "28P01";
pub(super) const OUT_OF_MEMORY: &str = "53200";
pub(super) const PROGRAM_LIMIT: &str = "54000";
pub(super) const READ_ONLY: &str = "25006";
pub(super) const SYNTAX: &str = "42601";
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";
const INTERNAL: &str = "XX000";
const QUERY_CANCELED: &str = "57014";
const UNDEFINED_COLUMN: &str = "42703";
const UNDEFINED_FUNCTION: &str = "42883";
const UNDEFINED_TABLE: &str = "42P01";
const DATA_EXCEPTION: &str = "22000";

/// The statement failed; the connection stays.
pub(super) fn error(code: &str, message: impl Into<String>) -> PgWireError {
    of("ERROR", code, message.into())
}

/// The connection ends.
pub(super) fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    of("FATAL", code, message.into())
}

fn of(severity: &str, code: &str, message: String) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new(
        severity.to_owned(),
        code.to_owned(),
        message,
    )))
}

/// What the engine says, in PostgreSQL's terms.
pub(super) fn engine(error: &DataFusionError) -> PgWireError {
    let text = in_one_line(error);
    let code = match error.find_root() {
        DataFusionError::SQL(..) => SYNTAX,
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { .. } => UNDEFINED_COLUMN,
            _ => SYNTAX,
        },
        DataFusionError::Plan(text) if text.contains("not found") && text.contains("table") => {
            UNDEFINED_TABLE
        }
        DataFusionError::Plan(text) if text.contains("unction") => UNDEFINED_FUNCTION,
        DataFusionError::Plan(text) if text.contains("not supported") => READ_ONLY,
        DataFusionError::Plan(_) => SYNTAX,
        DataFusionError::NotImplemented(_) => FEATURE_NOT_SUPPORTED,
        DataFusionError::ResourcesExhausted(_) => OUT_OF_MEMORY,
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => DATA_EXCEPTION,
        _ => INTERNAL,
    };
    self::error(code, text)
}

/// No answer, or none in time.
pub(super) fn answer(failed: &anyhow::Error) -> PgWireError {
    if let Some(refused) = failed.downcast_ref() {
        return self::refused(refused);
    }
    if let Some(unfit) = failed.downcast_ref::<Unfit>() {
        let code = match unfit {
            Unfit::TooLarge => PROGRAM_LIMIT,
            Unfit::NoRoom => OUT_OF_MEMORY,
        };
        return error(code, unfit.to_string());
    }
    match failed.downcast_ref() {
        Some(failed) => engine(failed),
        None => error(INTERNAL, format!("{failed:#}")),
    }
}

/// It was not this one's turn, or the turn is over.
pub(super) fn refused(refused: &Refused) -> PgWireError {
    let code = match refused {
        Refused::TooLong(_) => QUERY_CANCELED,
        Refused::Busy { .. } | Refused::TooMany { .. } => TOO_MANY_CONNECTIONS,
    };
    error(code, refused.to_string())
}

/// Says what went wrong on the way of the libraries, too.
pub(super) struct Errors;

impl ErrorHandler for Errors {
    fn on_error<C: ClientInfo>(&self, client: &C, failed: &mut PgWireError) {
        let told = match &*failed {
            PgWireError::ApiError(cause) => match (cause.downcast_ref(), cause.downcast_ref()) {
                (Some(cause), _) => Some(engine(cause)),
                (_, Some(cause)) => Some(syntax(cause)),
                _ => None,
            },
            _ => None,
        };
        if let Some(told) = told {
            *failed = told;
        }
        tracing::debug!(address = %client.socket_addr(), error = %failed, "a statement was not answered");
    }
}

/// It is no SQL.
pub(super) fn syntax(failed: &ParserError) -> PgWireError {
    error(SYNTAX, failed.to_string())
}
