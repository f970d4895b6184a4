//! What a session reports.

use bytes::Bytes;

use crate::exchange::{Exchange, ServerError};
use crate::{Direction, Nanos};

/// One thing that a session has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The client's startup packet.
    Startup {
        /// When it was complete.
        at: Nanos,
        /// Protocol version, major and minor.
        version: (u16, u16),
        /// Names and values as sent: user, database, application_name, options, replication, …
        parameters: Vec<(Bytes, Bytes)>,
    },
    /// Encryption was asked for and answered. Once accepted the session is opaque: what follows is counted only.
    Encryption {
        /// When the answer was seen.
        at: Nanos,
        /// Which one.
        kind: EncryptionKind,
        /// Whether the server agreed.
        accepted: bool,
    },
    /// The server asked for credentials. Without this before [`Output::AuthOk`] it asked for none: `trust`, `peer` or `cert`.
    AuthRequested {
        /// When.
        at: Nanos,
        /// `password`, `md5`, `scram-sha-256`, `gss`, `sspi`, `oauth`, `sasl`, `kerberos-v5` or `scm-credential`.
        method: &'static str,
    },
    /// The server accepted the client.
    AuthOk {
        /// When.
        at: Nanos,
    },
    /// The process that serves the session. The cancel secret is dropped.
    BackendKey {
        /// Process id as the server tells it.
        pid: u32,
    },
    /// A setting as the server reports it.
    Parameter {
        /// Name of the setting.
        name: Bytes,
        /// Its value, cut at 4 KiB.
        value: Bytes,
    },
    /// The server refused the session, before it was ever ready for a query.
    AuthFailed {
        /// When.
        at: Nanos,
        /// Why.
        error: ServerError,
    },
    /// A request and its answer.
    Exchange(Box<Exchange>),
    /// The connection was opened only to cancel what another one runs. The key is dropped.
    Cancel {
        /// When.
        at: Nanos,
        /// Process whose query is to be cancelled.
        pid: u32,
    },
    /// An error that answers no request: idle timeout, termination, shutdown.
    SessionError {
        /// When.
        at: Nanos,
        /// Which.
        error: ServerError,
    },
    /// The client said goodbye.
    Terminate {
        /// When.
        at: Nanos,
    },
    /// Bytes that are not the protocol, or not where it has them. The session waits for the next sure boundary.
    Malformed {
        /// When.
        at: Nanos,
        /// In which stream.
        direction: Direction,
        /// Stream offset of the message.
        offset: u64,
        /// What should have been there.
        expected: &'static str,
        /// What was there: message type and length, never content.
        found: String,
    },
    /// Something was hidden in this direction. Told when the session is in step again, or over.
    Lost {
        /// Since when.
        since: Nanos,
        /// Until when.
        at: Nanos,
        /// In which stream.
        direction: Direction,
        /// Bytes never seen; `None` if nobody knows how many.
        missing: Option<u64>,
        /// Bytes seen and not understood, for want of what came before.
        skipped: u64,
        /// Whether that is all: the session is in step again, or over. If not, more will be told.
        over: bool,
    },
}

/// Which encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncryptionKind {
    /// TLS.
    Tls,
    /// GSSAPI.
    Gss,
}
