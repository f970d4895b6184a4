//! What a client says about who is behind it, and the role that the server acts as: session variables, startup
//! options, comments, `SET ROLE`. It stands beside what was observed and never takes its place.
//!
//! Owns what an event shows of it. How it is followed is in `session`; which names count is in `names`.

mod given;
mod names;
mod session;
mod stacked;
mod startup;

use std::{fmt, sync::Arc};

pub(crate) use names::Tracked;
pub use names::{END_USER, Named, Names};
pub(crate) use session::{Assertions, GAP, Words};

/// What a client had said about itself when a statement began. Shared by all events between two changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asserted {
    /// What the statement's own comment says, then what its session's settings say, the most trusted first.
    pub claims: Vec<Claim>,
    /// Why nobody knows whether a setting names an end user: "opened_before_attach", "gap", "text" (it was changed by a
    /// statement that cannot be read), "expression" (to what the server computed), "encoding", "too_long"; behind a pooler "foreign" (another client named one).
    pub unknown: Option<&'static str>,
    /// What settings say that another client of a pooler made, by [`Claim::says`]; filled by whoever knows leases.
    pub foreign: Vec<Arc<str>>,
}

/// One thing that a client says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it says: [`END_USER`], `tenant`, `traceparent`, …
    pub says: Arc<str>,
    /// The value.
    pub value: Arc<str>,
    /// Where it says so.
    pub source: Source,
    /// The statement that set it. `None`: the statement itself, the startup packet, or nobody saw which.
    pub set_by: Option<SetBy>,
    /// Since it was set, code ran that nobody sees and that may have changed it.
    pub possibly_stale: bool,
}

/// Where a claim comes from. Displayed as in events: `set app.end_user`, `set_config app.end_user`,
/// `startup app.end_user`, `reported application_name`, `sqlcommenter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `SET` or `RESET` of this setting.
    Set(Arc<str>),
    /// `set_config`.
    SetConfig(Arc<str>),
    /// The startup packet.
    Startup(Arc<str>),
    /// The server reported another value than was seen to be set.
    Reported(Arc<str>),
    /// The statement's own comment.
    Comment,
}

/// A statement of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetBy {
    /// Its number in the session, as in [`Query::number`](crate::Query::number).
    pub statement: u64,
    /// Where its request begins in the frontend stream, and its position in it: with the session these name its event.
    pub request_from: u64,
    /// As [`Query::index`](crate::Query::index).
    pub index: u32,
    /// Which lease of a pooler's server connection it ran in, where leases are known.
    pub lease: Option<u64>,
}

/// The role whose rights a statement has, before any function takes others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveRole {
    /// Its name.
    pub name: Arc<str>,
    /// Since it was set, code ran that nobody sees and that may have changed it.
    pub possibly_stale: bool,
}

impl Asserted {
    /// Who the client says is behind it.
    #[must_use]
    pub fn end_user(&self) -> Option<&Claim> {
        self.claim(END_USER)
    }

    /// The claim under a key that counts.
    #[must_use]
    pub fn claim(&self, says: &str) -> Option<&Claim> {
        self.claims.iter().find(|claim| &*claim.says == says)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(name) => write!(f, "set {name}"),
            Self::SetConfig(name) => write!(f, "set_config {name}"),
            Self::Startup(name) => write!(f, "startup {name}"),
            Self::Reported(name) => write!(f, "reported {name}"),
            Self::Comment => f.write_str("sqlcommenter"),
        }
    }
}
