//! What somebody may: each role may what the one before it may, and more.

use std::fmt;

use serde::{Deserialize, Serialize};

/// From the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees the page, figures, events and principals as they come.
    Viewer,
    /// Asks questions, SQL included.
    Analyst,
    /// Takes reports and exports along.
    Auditor,
    /// Administrates over HTTP. Nothing does yet: it opens what `auditor` opens.
    Admin,
}

impl Role {
    /// As in settings and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
