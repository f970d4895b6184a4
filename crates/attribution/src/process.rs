//! What is known of a process.

use std::sync::Arc;

use crate::{CgroupPath, Descent, First, Placement, Variable};

/// A process of this host at the moment that counts. Never named by its pid alone: pids are reused. An agent keeps tens of
/// thousands; what many have in common is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Start, in nanoseconds since boot.
    pub start_ns: u64,
    /// Full path of the executable; `None` if it could not be learnt.
    pub exe: Option<Arc<str>>,
    /// Name of the task as the kernel keeps it.
    pub comm: Arc<str>,
    /// Arguments, secrets masked.
    pub command_line: CommandLine,
    /// Real user id.
    pub uid: u32,
    /// Name of that user, if the host knows one.
    pub user: Option<Arc<str>>,
    /// Audit login uid.
    pub login_uid: Option<u32>,
    /// Name of that user, if the host knows one.
    pub login_user: Option<Arc<str>>,
    /// Id of its cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Path of that cgroup; `None` if it was gone before it could be learnt.
    pub cgroup_path: Option<CgroupPath>,
    /// What it descends from.
    pub descent: Descent,
    /// SHA-256 of the executable; `None` as long as it has not been read.
    pub exe_sha256: Option<[u8; 32]>,
    /// The executable is a PostgreSQL server's, by what is in it.
    pub is_server: bool,
    /// Audit session.
    pub audit_session: Option<u32>,
    /// Process id of the leader of its session (setsid(2)); 0 if it is not known.
    pub session: u32,
    /// Controlling terminal, as in "pts/3".
    pub tty: Option<Arc<str>>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// What its container is called, if the runtime says so.
    pub container: Option<Arc<Container>>,
    /// Which run it belongs to: allowed variables of its environment.
    pub run: Arc<[Variable]>,
}

/// Inode numbers of a process' namespaces; 0 where not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Process ids.
    pub pid: u32,
    /// Network.
    pub net: u32,
    /// Mounts.
    pub mnt: u32,
}

impl From<[u32; 3]> for Namespaces {
    fn from([pid, net, mnt]: [u32; 3]) -> Self {
        Self { pid, net, mnt }
    }
}

/// What a container runtime keeps of a container on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: Option<String>,
    /// The image that it was made from.
    pub image: Option<Arc<str>>,
    /// "docker", "containerd", "cri-o", "podman".
    pub runtime: Arc<str>,
    /// The pod that it is of, by its own configuration.
    pub pod: Option<String>,
    /// That pod's namespace.
    pub namespace: Option<Arc<str>>,
}

/// The arguments of a process, one behind the other in one piece of memory: there are several to each of very many
/// processes, and they are rarely looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine(Arc<str>);

impl CommandLine {
    /// The arguments, the program's own name first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator('\0')
    }
}

/// Arguments hold no NUL (execve(2)), so that it can end them.
impl<S: AsRef<str>> FromIterator<S> for CommandLine {
    fn from_iter<I: IntoIterator<Item = S>>(arguments: I) -> Self {
        let mut all = String::new();
        for argument in arguments {
            all.push_str(argument.as_ref());
            all.push('\0');
        }
        Self(all.into())
    }
}

impl Process {
    /// What its cgroup says; nothing if the path is not known.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.cgroup_path
            .as_ref()
            .map(CgroupPath::placement)
            .unwrap_or_default()
    }

    /// The container that it is in, by its cgroup.
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        self.cgroup_path.as_ref()?.container_id()
    }

    /// The container of the host that it is in: the one that the host's runtimes can be asked about. In a user's part of the hierarchy anybody's
    /// id may stand.
    #[must_use]
    pub fn hosts_container_id(&self) -> Option<&str> {
        let cgroup = self.cgroup_path.as_ref()?;
        cgroup.container_id().filter(|_| cgroup.user().is_none())
    }

    /// It is in this cgroup now. What its container was called says nothing of another one.
    pub fn enter(&mut self, cgroup_id: u64, path: Option<CgroupPath>) {
        let before = self.hosts_container_id().map(str::to_owned);
        (self.cgroup_id, self.cgroup_path) = (cgroup_id, path);
        if self.hosts_container_id() != before.as_deref() {
            self.container = None;
        }
    }

    /// Whether it was put into its container from outside (`kubectl exec`, `docker exec`): it is in the container's pid
    /// namespace, and does not descend from the first process there. Containers that have no such namespace of their own,
    /// or share it with others, do not tell.
    #[must_use]
    pub fn was_put_in(&self) -> bool {
        self.put_in_beside().is_some()
    }

    /// If [it was](Self::was_put_in), the first process of its container.
    #[must_use]
    pub fn put_in_beside(&self) -> Option<&First> {
        let first = self.descent.avoided_first()?;
        let container = self.container_id()?;
        (first.cgroup_path.container_id() == Some(container) && first.pid != self.pid).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ancestor;

    #[test]
    fn who_does_not_descend_from_the_first_process_was_put_in() {
        let container = format!("/system.slice/docker-{}.scope", "a".repeat(64));
        let ancestor = |pid| {
            Arc::new(Ancestor {
                pid,
                start_ns: 1,
                exe: "/bin/x".into(),
            })
        };
        let first = |cgroup: &str| {
            Some(Arc::new(First {
                pid: 50,
                cgroup_path: cgroup.into(),
            }))
        };
        let mut process = Process {
            pid: 70,
            cgroup_path: Some(container.as_str().into()),
            descent: Descent::new([60, 50, 40].map(ancestor).into(), first(&container)),
            ..Process::default()
        };
        assert!(!process.was_put_in(), "a child of the container's own");
        process.descent = Descent::new([60, 40].map(ancestor).into(), first(&container));
        assert!(process.was_put_in());
        process.pid = 50;
        assert!(!process.was_put_in(), "the first itself");
        process.pid = 70;
        process.descent = Descent::new(Arc::default(), first(&container));
        assert!(!process.was_put_in(), "nobody knows what it descends from");
        let other = format!("/system.slice/docker-{}.scope", "b".repeat(64));
        process.descent = Descent::new([60, 40].map(ancestor).into(), first(&other));
        assert!(
            !process.was_put_in(),
            "a namespace that containers share does not tell"
        );
    }

    #[test]
    fn the_name_of_a_container_is_left_behind_with_it() {
        let path = |id: &str, below: &str| {
            let path = format!("/system.slice/docker-{}.scope{below}", id.repeat(64));
            Some(CgroupPath::from(path))
        };
        let mut process = Process::default();
        process.enter(1, path("a", ""));
        process.container = Some(Arc::default());
        process.enter(2, path("a", "/worker"));
        assert!(process.container.is_some(), "the same container");
        assert_eq!(
            (process.cgroup_id, &process.cgroup_path),
            (2, &path("a", "/worker"))
        );
        for elsewhere in [path("b", ""), Some("/system.slice/a.service".into()), None] {
            let mut process = process.clone();
            process.enter(3, elsewhere.clone());
            assert_eq!(process.container, None, "{elsewhere:?}");
        }
    }

    #[test]
    fn command_lines_come_out_as_they_went_in() {
        for arguments in [&[][..], &[""], &["a"], &["a", "", ""], &["", "ü b"]] {
            let line: CommandLine = arguments.iter().collect();
            assert_eq!(line.iter().collect::<Vec<_>>(), arguments);
        }
    }
}
