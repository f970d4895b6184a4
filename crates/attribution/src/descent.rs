//! What a process descends from, and whether the first process of its pid namespace is among that.

use std::sync::Arc;

use crate::CgroupPath;

/// Where a process comes from, as it was when it was forked. Whether that leads through the first process of its pid
/// namespace is found out once, here, and holds for as long as this does: there is no other way to make one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descent {
    ancestry: Arc<[Arc<Ancestor>]>,
    first: Option<Arc<First>>,
    avoids_first: bool,
}

/// A process that a process descends from, as it was when the child was forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Start, in nanoseconds since boot.
    pub start_ns: u64,
    /// Full path of the executable, else the name of the task.
    pub exe: Arc<str>,
}

/// The first process of a pid namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Path of its cgroup.
    pub cgroup_path: CgroupPath,
}

impl Descent {
    /// `ancestry` is from the parent upwards, and empty if it is not known. `first`: the first process of its pid namespace, if
    /// that is not the host's.
    #[must_use]
    pub fn new(ancestry: Arc<[Arc<Ancestor>]>, first: Option<Arc<First>>) -> Self {
        let avoids = |first: &Arc<First>| {
            !ancestry.is_empty() && !ancestry.iter().any(|ancestor| ancestor.pid == first.pid)
        };
        Self {
            avoids_first: first.as_ref().is_some_and(avoids),
            ancestry,
            first,
        }
    }

    /// From the parent upwards.
    #[must_use]
    pub fn ancestry(&self) -> &Arc<[Arc<Ancestor>]> {
        &self.ancestry
    }

    /// The first process of the pid namespace, if that is not the host's. It may be the process itself.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<First>> {
        self.first.as_ref()
    }

    /// That first process, if the ancestors are known and it is none of them.
    #[must_use]
    pub fn avoided_first(&self) -> Option<&First> {
        self.first.as_deref().filter(|_| self.avoids_first)
    }
}
