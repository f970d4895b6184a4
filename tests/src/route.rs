//! How a client reaches a server: which socket, and what encrypts it.
//!
//! Owns the four ways and their names. It refuses to know certificates and tickets: the cluster that offers a way says
//! what a client needs for it.

use clap::ValueEnum;
use serde::Serialize;

/// One way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// The socket in the cluster's folder.
    Unix,
    /// 127.0.0.1, in plain text.
    Tcp,
    /// 127.0.0.1, encrypted by TLS; the client verifies the server and shows a certificate of its own.
    Tls,
    /// 127.0.0.1, encrypted by GSSAPI (manual, 21.6).
    Gss,
}

impl Route {
    /// As in the name of a part: `tls`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Gss => "gss",
        }
    }

    /// Whether the wire has no plain text.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Gss)
    }
}

/// All of them.
pub const ROUTES: [Route; 4] = [Route::Unix, Route::Tcp, Route::Tls, Route::Gss];
