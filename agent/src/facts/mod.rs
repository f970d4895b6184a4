//! What the agent knows of this host: processes, cgroups, who opened a connection, which servers run.
//!
//! Owns look-ups and their caches. Facts are taken early and joined late: what is recorded here at the moment of an
//! event is handed to `attribution`, which decides.

pub mod cgroups;
pub mod connections;
pub mod processes;
pub mod servers;

use ebpf_abi::{CgroupFact, CloseFact, ExecFact, FactKind, OwnerFact, Record as _, SocketFact, TaskFact};

/// A record of the fact ring.
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    /// A process was forked.
    Fork(TaskFact),
    /// A process runs another program.
    Exec(ExecFact),
    /// A process ended.
    Exit(TaskFact),
    /// A TCP connection was opened.
    Owner(OwnerFact),
    /// A server process used a socket for the first time.
    Socket(SocketFact),
    /// A server's TCP socket was closed.
    Close(CloseFact),
    /// A cgroup was made.
    Cgroup(CgroupFact),
}

impl Fact {
    /// Reads a record; `None` if it is of no known kind or cut short.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(match FactKind::of(bytes)? {
            FactKind::Fork => Self::Fork(TaskFact::read(bytes)?),
            FactKind::Exec => Self::Exec(ExecFact::read(bytes)?),
            FactKind::Exit => Self::Exit(TaskFact::read(bytes)?),
            FactKind::Owner => Self::Owner(OwnerFact::read(bytes)?),
            FactKind::Socket => Self::Socket(SocketFact::read(bytes)?),
            FactKind::Close => Self::Close(CloseFact::read(bytes)?),
            FactKind::Cgroup => Self::Cgroup(CgroupFact::read(bytes)?),
        })
    }
}
