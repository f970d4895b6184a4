//! Whose a statement is that a pooler passed on: the decision, from what is known of the pooler's connection to the server.
//!
//! Owns what such knowledge is ([`Traffic`]), how it is handed on in portions, and the pure function from it to a client.
//! The host of the pooler gathers it from socket calls (`tap_core::lease`); who decides may be another host, later, and
//! again: the same traffic gives the same answer. Refuses names, clocks and the protocol.

mod coded;
mod decision;
mod traffic;

pub use coded::Coded;
pub use decision::{Asked, By, Decision, Leased, decide};
pub use traffic::{PIECES, Passed, Piece, Portion, Receiver, Source, Traffic};

/// What is known of how a pooler works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// One thread; sends from the buffer into which it received (`libusual`'s mbuf, `sbuf.c`); from 1.21 on it writes anew what
    /// clients prepare.
    PgBouncer,
    /// A process for each client at a time, which copies.
    Pgpool,
    /// Nothing.
    #[default]
    Other,
}

impl Kind {
    /// As it stands in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PgBouncer => "pgbouncer",
            Self::Pgpool => "pgpool",
            Self::Other => "other",
        }
    }

    /// The one of that name; nothing is known of how any other works.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "pgbouncer" => Self::PgBouncer,
            "pgpool" => Self::Pgpool,
            _ => Self::Other,
        }
    }
}
