//! What is known of a process.

use std::sync::Arc;

use crate::Placement;

/// A process of this host at the moment that counts. Never named by its pid alone: pids are reused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Start, in nanoseconds since boot.
    pub start_ns: u64,
    /// Full path of the executable; `None` if it could not be learnt.
    pub exe: Option<String>,
    /// Name of the task as the kernel keeps it.
    pub comm: String,
    /// Arguments, secrets masked.
    pub command_line: Vec<String>,
    /// Real user id.
    pub uid: u32,
    /// Name of that user, if the host knows one.
    pub user: Option<String>,
    /// Audit login uid.
    pub login_uid: Option<u32>,
    /// Name of that user, if the host knows one.
    pub login_user: Option<String>,
    /// Id of its cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Path of that cgroup; `None` if it was gone before it could be learnt.
    pub cgroup_path: Option<String>,
    /// From the parent upwards.
    pub ancestry: Vec<Arc<Ancestor>>,
}

/// A process that a process descends from, as it was when the child was forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Start, in nanoseconds since boot.
    pub start_ns: u64,
    /// Full path of the executable, else the name of the task.
    pub exe: String,
}

impl Process {
    /// What its cgroup says; nothing if the path is not known.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.cgroup_path
            .as_deref()
            .map(crate::placement)
            .unwrap_or_default()
    }
}
