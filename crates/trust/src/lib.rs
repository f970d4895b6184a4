//! How agents and collectors know each other: an authority of the collector's own, certificates that name agents, the
//! operator's token that leads to the first one, and what TLS is set to.
//!
//! Owns forms and checks, for both programs alike. Refuses files, sockets and clocks: those are the programs', and time comes
//! in as seconds since the Unix epoch.

mod authority;
mod certificate;
mod enrolment;
mod node;
mod tls;
mod token;

pub use authority::{Authority, request};
pub use certificate::{Facts, Requested, facts, from_pem, requested, to_pem};
pub use enrolment::{ProofError, check_proof, proof};
pub use node::{agent_of, is_agent_of};
pub use rustls;
pub use tls::{COLLECTOR_NAME, Identity, Presented, asking, client, pinned, readers, server};
pub use token::{Token, TokenError};

/// Why something cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TrustError(pub String);

impl TrustError {
    fn new(what: &str, problem: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {problem}"))
    }
}

/// A SHA-256 value.
pub type Digest = [u8; 32];

/// SHA-256 of these bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
