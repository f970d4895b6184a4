//! What the pipeline tells: plain data.

use std::{net::IpAddr, ops::Range, sync::Arc};

use bytes::Bytes;
use pg_wire::{Direction, EncryptionKind, ExchangeKind, Nanos, Outcome, Params, Phase, ServerError, Tag};
use sql_meaning::Statement;

use crate::{
    assertions::{Asserted, EffectiveRole},
    relations::Object,
    subjects::Touched,
};

/// One fact about a session, in capture time.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub times: Times,
    /// In which session, as known at that moment.
    pub session: Arc<SessionFacts>,
    /// What.
    pub body: Body,
}

/// Capture times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// First byte of the request.
    pub start: Nanos,
    /// First byte of the answer.
    pub first_response: Option<Nanos>,
    /// End of the answer.
    pub end: Nanos,
}

/// How a connection reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// IPv4 or IPv6.
    Tcp,
    /// A Unix socket.
    Unix,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Address and port.
    Inet(IpAddr, u16),
    /// Path of the server's socket; for the client's end empty.
    Unix(String),
}

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Process id of the backend, as the host sees it.
    pub backend_pid: u32,
    /// Process id of the postmaster.
    pub server_pid: u32,
    /// TCP or Unix.
    pub transport: Transport,
    /// The kernel counts its bytes: not those of Unix sockets, nor of MPTCP.
    pub is_counted: bool,
    /// The client's end.
    pub client: Endpoint,
    /// The server's end.
    pub server: Endpoint,
    /// Inode number of the network namespace of the server's end.
    pub netns: u32,
    /// The connection is older than the tap on it.
    pub opened_before_attach: bool,
    /// First sequence numbers of both ends' data, the client's in the upper 32 bits: equal at both ends, whatever
    /// translates addresses between them. `None`: not known, or no TCP.
    pub fingerprint: Option<u64>,
    /// Role that logged in; `None` if the startup packet was not seen.
    pub login_role: Option<String>,
    /// Database; the server takes the role's name where the client named none.
    pub database: Option<String>,
    /// As the server last reported it.
    pub application_name: Option<String>,
    /// As the server reported it.
    pub server_version: Option<String>,
    /// What the server asked for; "none" where it let the client in without asking.
    pub auth_method: Option<&'static str>,
    /// Encryption that was agreed on; `None` if none was, or if that was not seen.
    pub encryption: Option<EncryptionKind>,
    /// Version of TLS, as in "TLSv1.3".
    pub tls_version: Option<&'static str>,
    /// Cipher suite by its name in IANA's registry.
    pub tls_cipher: Option<&'static str>,
}

/// What an event says.
#[derive(Clone, Debug)]
pub enum Body {
    /// A client was let in. Told when the server is about to be ready; the time is that of the accepted credentials.
    SessionOpen,
    /// The connection is over.
    SessionClose {
        /// "terminate" (the client said goodbye), "closed", or "backend-exit".
        reason: &'static str,
        /// Bytes of the frontend stream.
        bytes_in: u64,
        /// Bytes of the backend stream.
        bytes_out: u64,
        /// Execution requests reported.
        statements: u64,
    },
    /// The server refused the client.
    AuthFailure(ServerError),
    /// An execution request and its answer.
    Query(Box<Query>),
    /// An error that answers no request.
    SessionError(ServerError),
    /// A connection made only to cancel what another backend runs.
    Cancel {
        /// That backend, by the number that the server gave its client.
        victim: u32,
        /// Cookie of its session, if it is known by that number.
        session: Option<u64>,
    },
    /// A transaction ended that had begun before the statements told last. How the others ended stands with their
    /// statements.
    Transaction(TransactionEnd),
    /// A session's bytes cannot be read.
    Opaque {
        /// With what it is encrypted.
        kind: EncryptionKind,
        /// Why.
        reason: Unreadable,
    },
    /// Something was not seen or not understood.
    Gap(Gap),
}

/// Why a session is opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The server's encryption functions were not probed when the session began.
    NotProbed,
    /// They were, and yet no plaintext came, though encrypted bytes went by.
    NoPlaintext,
    /// They were, and the session ended before anything was said in it.
    NothingSaid,
}

/// Something was not seen or not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Short name of the reason. Bytes are missing: "missed" (they went by unseen), "copy_fault", "unsupported_call",
    /// "call_cap", "unknown" (the kernel side saw the call and could not take them), "ring_full" (it could not hand them
    /// over), "probe_missed" (encrypted bytes went by outside of the probed functions). All bytes came, but: "malformed"
    /// (they are not the protocol), "resync" and "opened_before_attach" (what they belong to is not known), "result_cap"
    /// (more answers than [`pg_wire::Limits::results`]).
    pub reason: &'static str,
    /// In which stream.
    pub direction: Direction,
    /// `None`: nobody knows how many.
    pub bytes_missing: Option<u64>,
    /// What was expected and found; never content.
    pub detail: String,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Final {
    /// Its work stands.
    Committed,
    /// Its work is undone.
    RolledBack,
    /// It was prepared for a commit in two phases, which another transaction decides.
    Prepared,
    /// Its end was not seen.
    Unknown,
}

/// A transaction that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Its number in the session.
    pub number: u64,
    /// How it ended.
    pub how: Final,
    /// Execution requests in it.
    pub statements: u64,
}

/// One execution request.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its number in the session, from 1.
    pub number: u64,
    /// What the client had said about itself when it began; `None` if nothing is known of that.
    pub asserted: Option<Arc<Asserted>>,
    /// The role that it ran as; `None` if that is not known.
    pub effective_role: Option<EffectiveRole>,
    /// Which kind of request.
    pub kind: ExchangeKind,
    /// Text to be recorded: redacted, unless the settings say otherwise. `None` if the text is not known.
    pub text: Option<Arc<str>>,
    /// Meaning, fingerprint and redacted text.
    pub statement: Option<Arc<Statement>>,
    /// What an SQL-level EXECUTE, FETCH or MOVE runs, redacted like `text`.
    pub source: Option<Arc<str>>,
    /// Meaning of `source`.
    pub source_statement: Option<Arc<Statement>>,
    /// What its statement and its source touch, where more is known of that than their texts say.
    pub objects: Option<Arc<[Object]>>,
    /// A command of the replication protocol.
    pub replication: bool,
    /// Oid of the function of a FunctionCall.
    pub function_oid: Option<u32>,
    /// Length of the text as sent.
    pub original_bytes: u64,
    /// SHA-256 of the text as sent, if it is truncated and all of it was seen.
    pub digest: Option<Box<[u8; 32]>>,
    /// The text is not whole.
    pub truncated: bool,
    /// The text is that of a whole query string, which several statements answered that could not be told apart in it.
    pub text_is_shared: bool,
    /// Prepared statement.
    pub statement_name: Bytes,
    /// Portal.
    pub portal: Bytes,
    /// Position in a simple query string.
    pub index: u32,
    /// Parameters bound.
    pub param_count: u16,
    /// The parameters, with values only where the text is recorded in the clear, or the classification of a column says so.
    pub params: Params,
    /// Whose records it touched, and what is told of parameters beyond that; `None`: nothing that is classified.
    pub touched: Option<Box<Touched>>,
    /// How far it got.
    pub phase: Phase,
    /// How it ended.
    pub outcome: Outcome,
    /// The server's command tag.
    pub tag: Option<Tag>,
    /// Rows returned; copied ones by the tag.
    pub rows: u64,
    /// Rows changed, by the tag.
    pub rows_affected: Option<u64>,
    /// Bytes of the request.
    pub bytes_in: u64,
    /// Bytes of the answer.
    pub bytes_out: u64,
    /// Bytes copied.
    pub copy_bytes: Option<u64>,
    /// The error.
    pub error: Option<ServerError>,
    /// Result columns: name, table oid, column number.
    pub columns: pg_wire::Columns,
    /// Status byte of the ReadyForQuery behind it.
    pub transaction_status: Option<u8>,
    /// Number of the transaction in its session, from 1.
    pub transaction: u64,
    /// How the transaction ended, if that is known already.
    pub transaction_final: Option<Final>,
    /// Of an Execute that continues a suspended portal, or of the end of a replication stream: where the request of the
    /// first one began.
    pub continues: Option<u64>,
    /// Where the request stands in the frontend stream.
    pub request: Range<u64>,
    /// Where the answer ends in the backend stream.
    pub response_to: u64,
    /// Where the request stands in the stream of the client that a pooler passed it on for; filled by whoever knows leases.
    pub client: Option<Range<u64>>,
}

impl Query {
    /// Whether the recorded text is all of this statement's, and nothing else's.
    #[must_use]
    pub fn text_is_whole(&self) -> bool {
        self.text.is_some() && !self.truncated && !self.text_is_shared
    }
}
