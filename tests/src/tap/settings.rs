//! How an agent is started.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;

/// Whether literals stay in the recorded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// The product's default: literals are replaced.
    Default,
    /// Text as sent, for comparison with the server's log.
    Clear,
}

/// Which of the agent's ways into the kernel is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// The agent's own choice.
    #[default]
    Auto,
    /// Tracepoints of socket calls.
    A,
    /// System call exits, for kernels without these.
    B,
}

impl Tier {
    /// As in the name of a part: `a`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether literals stay in the recorded text.
    pub redaction: Redaction,
    /// Which way into the kernel.
    pub tier: Tier,
    /// Mebibytes of the ring for payload; the agent's default if there is none.
    pub ring_mib: Option<u32>,
    /// Mebibytes of events that wait for the collector; the agent's default if there is none.
    pub queue_mib: Option<u32>,
    /// Folder for the agent's state; one of the tap's own if there is none.
    pub state: Option<PathBuf>,
    /// The capabilities that the agent may have, as in `CAP_BPF`, and no new privileges; all, if nothing is said.
    pub capabilities: Option<Vec<String>>,
    /// Further keys of the configuration, as in `("LIMITS__MEMORY_MIB", "65")`.
    pub keys: Vec<(&'static str, String)>,
    /// Further arguments.
    pub arguments: Vec<&'static str>,
    /// Data directory of a second server that may be tapped.
    pub another: Option<PathBuf>,
    /// Events are delivered over a Unix socket.
    pub at_socket: bool,
    /// What starts the agent elsewhere: a program and its arguments, which become what follows them. Nothing, if it runs here.
    pub through: Vec<OsString>,
    /// The bundle of the agent's image that it is started from under runc; then it is what the DaemonSet makes of it, and events are
    /// delivered over a Unix socket. Its program on this machine, if there is none.
    pub contained: Option<PathBuf>,
}

impl From<Redaction> for Settings {
    fn from(redaction: Redaction) -> Self {
        Self {
            redaction,
            tier: Tier::Auto,
            ring_mib: None,
            queue_mib: None,
            state: None,
            capabilities: None,
            keys: Vec::new(),
            arguments: Vec::new(),
            another: None,
            at_socket: false,
            through: Vec::new(),
            contained: None,
        }
    }
}

impl Settings {
    /// In the clear, by one way into the kernel.
    #[must_use]
    pub fn clear(tier: Tier) -> Self {
        Self {
            tier,
            ..Redaction::Clear.into()
        }
    }
}
