//! The processes of this host, from the kernel's fork, exec and exit events and an inventory at the start. A pid is
//! never trusted without its start time. What `/proc` says is asked of the broker.

mod running;

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use attribution::{Ancestor, CgroupPath, Container, Descent, First, Process, run_identity};
use ebpf_abi::{EnvironmentFact, ExecFact, TaskFact, TaskPlace};

use super::{cgroups::Cgroups, shared::Shared, users::Users};
use crate::broker::Broker;

/// How long a process is remembered after its end, in nanoseconds: facts and bytes that refer to it are under way for
/// milliseconds, an amendment of an event for seconds.
const REMEMBERED_NS: u64 = 60_000_000_000;

/// Ancestors kept of a process: shells and session managers nest a few levels deep.
const ANCESTORS: usize = 16;

/// Linux tells start times in `/proc` in hundredths of a second (`USER_HZ` is 100 on every architecture).
pub const TICK_NS: u64 = 10_000_000;

/// Processes by pid; several for a pid that was reused.
pub struct Processes {
    broker: Broker,
    by_pid: HashMap<u32, Vec<Entry>>,
    ended: VecDeque<(u64, u32, u64)>,
    users: Users,
    /// What the children of a process descend from, with its start: they share it. Of those in `by_pid` that have any.
    lineages: HashMap<u32, (u64, Lineage)>,
    names: Shared<Arc<str>>,
    paths: Shared<CgroupPath>,
    /// What runtimes say of containers, by their ids.
    containers: HashMap<String, Option<Arc<Container>>>,
    /// Variables that tell which run a process belongs to.
    run_variables: Vec<String>,
}

/// What a process descends from, from the parent upwards.
type Lineage = Arc<[Arc<Ancestor>]>;

/// Containers remembered: a node holds some hundreds.
const CONTAINERS: usize = 4096;

struct Entry {
    process: Arc<Process>,
    ended: Option<u64>,
}

impl Processes {
    /// None yet. `run_variables` are those that tell which run a process belongs to.
    pub fn new(broker: Broker, run_variables: Vec<String>) -> Self {
        Self {
            containers: HashMap::new(),
            run_variables,
            by_pid: HashMap::new(),
            ended: VecDeque::new(),
            users: Users::new(broker.clone()),
            lineages: HashMap::new(),
            names: Shared::default(),
            paths: Shared::default(),
            broker,
        }
    }

    /// A process was forked: it is what its parent is, until it runs another program.
    pub fn forked(&mut self, fact: &TaskFact, cgroups: &mut Cgroups) {
        let parent = self.find(fact.parent, fact.parent_start).or_else(|| {
            self.read(fact.parent, Some(fact.parent_start), cgroups)
                .map(Arc::new)
        });
        let mut process = parent.as_deref().cloned().unwrap_or_default();
        let lineage = self.lineage(parent.as_deref());
        self.take_over(&mut process, lineage, fact, cgroups);
        self.insert(process);
        self.forget(fact.at);
    }

    /// A process runs another program.
    pub fn executed(&mut self, fact: &ExecFact, cgroups: &mut Cgroups) {
        let task = &fact.task;
        let lineage = match self.find(task.tgid, task.start) {
            Some(before) => Arc::clone(before.descent.ancestry()),
            None => {
                let parent = self.find(task.parent, task.parent_start);
                self.lineage(parent.as_deref())
            }
        };
        let arguments = bytes(&fact.args, fact.args_length);
        let arguments: Vec<String> = arguments
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect();
        let arguments = arguments
            .split_last()
            .filter(|(last, _)| last.is_empty())
            .map_or(&arguments[..], |(_, rest)| rest);
        let mut process = Process {
            exe: executable(fact, &self.broker).map(|exe| self.names.get(&exe)),
            command_line: sql_meaning::mask_command_line(arguments).into_iter().collect(),
            ..Process::default()
        };
        self.take_over(&mut process, lineage, task, cgroups);
        self.insert(process);
    }

    /// With what environment a process runs its program: it is looked through for what is allowed, and not kept.
    pub fn started_with(&mut self, fact: &EnvironmentFact, environment: &[u8]) {
        let run = run_identity(environment, fact.length == fact.original, &self.run_variables);
        let mut entries = self.by_pid.get_mut(&fact.tgid).into_iter().flatten();
        if let Some(entry) = entries.find(|entry| same_start(entry.process.start_ns, fact.start))
            && *entry.process.run != *run
        {
            Arc::make_mut(&mut entry.process).run = run.into();
        }
    }

    /// What is only looked up of a process that somebody asks about: the digest of what it runs, and what its container is
    /// called.
    pub fn completed(&mut self, mut process: Arc<Process>) -> Arc<Process> {
        let has_container = process.container.is_some() || process.hosts_container_id().is_none();
        if process.exe_sha256.is_some() && has_container {
            return process;
        }
        let mut entries = self.by_pid.get(&process.pid).into_iter().flatten();
        let known = entries.find(|entry| same_start(entry.process.start_ns, process.start_ns));
        // One that runs another program by now: the digest would be that one's.
        let is_former = known.is_some_and(|entry| {
            let now = &entry.process;
            (&now.exe, &now.command_line) != (&process.exe, &process.command_line)
        });
        if process.exe_sha256.is_none() && !is_former {
            let known = known.map(|entry| (entry.process.exe_sha256, entry.process.is_server));
            let asked = || {
                let (start, digest, is_server) = self.broker.program(process.pid)?;
                (start == process.start_ns / TICK_NS).then_some((digest, is_server))
            };
            // It may have been asked for since the process was taken down.
            if let Some(found) = known.filter(|(digest, _)| digest.is_some()).or_else(asked) {
                let process = Arc::make_mut(&mut process);
                (process.exe_sha256, process.is_server) = found;
            }
        }
        if process.container.is_none()
            && let Some(id) = process.hosts_container_id()
            && let Some(container) = self.container(id)
        {
            Arc::make_mut(&mut process).container = Some(container);
        }
        let mut entries = self.by_pid.get_mut(&process.pid).into_iter().flatten();
        if let Some(entry) = entries.find(|entry| same_start(entry.process.start_ns, process.start_ns))
            && !is_former
        {
            entry.process = Arc::clone(&process);
        }
        process
    }

    /// What a container is called, if a runtime says so.
    pub fn container(&mut self, id: &str) -> Option<Arc<Container>> {
        if let Some(known) = self.containers.get(id) {
            return known.clone();
        }
        let kept = self.broker.container(id).ok()?;
        let kept = kept.map(|kept| {
            Arc::new(Container {
                name: kept.name,
                image: kept.image.map(|image| self.names.get(&image)),
                runtime: self.names.get(&kept.runtime),
                pod: kept.pod,
                namespace: kept.namespace.map(|namespace| self.names.get(&namespace)),
            })
        });
        if self.containers.len() >= CONTAINERS {
            self.containers.clear();
        }
        self.containers.insert(id.to_owned(), kept.clone());
        kept
    }

    /// A process ended. It stays known for a while.
    pub fn exited(&mut self, fact: &TaskFact) {
        let entries = self.by_pid.get_mut(&fact.tgid);
        if let Some(entry) = entries
            .into_iter()
            .flatten()
            .find(|entry| same_start(entry.process.start_ns, fact.start))
        {
            entry.ended = Some(fact.at);
        }
        self.ended.push_back((fact.at, fact.tgid, fact.start));
        self.forget(fact.at);
    }

    /// The process with this pid and start.
    pub fn find(&self, pid: u32, start_ns: u64) -> Option<Arc<Process>> {
        let entries = self.by_pid.get(&pid)?;
        let entry = entries
            .iter()
            .find(|entry| same_start(entry.process.start_ns, start_ns))?;
        Some(Arc::clone(&entry.process))
    }

    /// The process that had this pid and had just ended at a time. `None` if there was none, or if several could be
    /// meant. One that still lives is never meant: it would be a later owner of the pid.
    pub fn find_ended(&self, pid: u32, at: u64) -> Option<Arc<Process>> {
        /// Between the end of a client and the moment at which the server reads what it had sent.
        const JUST_NS: u64 = 1_000_000_000;
        let entries = self.by_pid.get(&pid)?;
        let mut candidates = entries
            .iter()
            .filter(|entry| entry.ended.is_some_and(|end| end <= at && end + JUST_NS >= at));
        let first = candidates.next()?;
        candidates.next().is_none().then(|| Arc::clone(&first.process))
    }

    /// The process that has this pid now, as far as facts have told.
    pub fn newest(&self, pid: u32) -> Option<Arc<Process>> {
        let newest = self.by_pid.get(&pid)?.last()?;
        newest.ended.is_none().then(|| Arc::clone(&newest.process))
    }

    /// When the process that has this pid now began, in clock ticks since boot; `None` if there is none.
    pub fn start_of(&self, pid: u32) -> Option<u64> {
        let entries = self.by_pid.get(&pid).map_or(&[][..], Vec::as_slice);
        match entries.iter().rev().find(|entry| entry.ended.is_none()) {
            Some(entry) => Some(entry.process.start_ns / TICK_NS),
            // One that ended, and no fact told of another with its pid.
            None if !entries.is_empty() => None,
            None => Some(self.broker.process(pid)?.start),
        }
    }

    /// The path of a cgroup, as all that are in it share it.
    pub fn cgroup_path(&mut self, path: &str) -> CgroupPath {
        self.paths.get(path)
    }

    /// The name of a user, if the host knows one.
    pub fn user(&mut self, uid: u32) -> Option<Arc<str>> {
        self.users.name(uid)
    }

    /// Processes that are known, ended ones included.
    pub fn known(&self) -> usize {
        self.by_pid.values().map(Vec::len).sum()
    }

    /// What every fact about a process says.
    fn take_over(&mut self, process: &mut Process, lineage: Lineage, task: &TaskFact, cgroups: &mut Cgroups) {
        process.pid = task.tgid;
        process.start_ns = task.start;
        process.comm = self.names.get(&text(&task.comm));
        process.uid = task.uid;
        process.user = self.users.name(task.uid);
        process.login_uid = Some(task.login_uid).filter(|uid| *uid != u32::MAX);
        process.login_user = process.login_uid.and_then(|uid| self.users.name(uid));
        let path = cgroups.path(task.cgroup_id).map(|path| self.paths.get(path));
        process.enter(task.cgroup_id, path);
        process.audit_session = Some(task.audit_session).filter(|session| *session != u32::MAX);
        let TaskPlace {
            session,
            pid_ns,
            pid_ns_first,
            net_ns,
            mnt_ns,
            ..
        } = task.place;
        process.session = session;
        let tty = text(&task.place.tty);
        process.tty = (!tty.is_empty()).then(|| self.names.get(&tty));
        process.namespaces = [pid_ns, net_ns, mnt_ns].into();
        // The parent's, unless it is another namespace's, or the process itself, which may be elsewhere by now.
        let is_same = |first: &&Arc<First>| first.pid == pid_ns_first && pid_ns_first != task.tgid;
        let known = process.descent.first().filter(is_same).cloned();
        let first = known.or_else(|| self.first(pid_ns_first, process));
        process.descent = Descent::new(lineage, first);
    }

    /// The first process of a pid namespace, which `process` may be itself; `None` for the host's own.
    fn first(&self, pid: u32, process: &Process) -> Option<Arc<First>> {
        let cgroup_path = if pid == process.pid {
            process.cgroup_path.clone()?
        } else if pid > 1 {
            let entries = self.by_pid.get(&pid)?;
            let living = entries.iter().rev().find(|entry| entry.ended.is_none())?;
            let cgroup_path = living.process.cgroup_path.clone()?;
            // All that are in its namespace share one.
            let own = living.process.descent.first();
            if let Some(own) = own.filter(|own| own.pid == pid && own.cgroup_path == cgroup_path) {
                return Some(Arc::clone(own));
            }
            cgroup_path
        } else {
            return None;
        };
        Some(Arc::new(First { pid, cgroup_path }))
    }

    fn insert(&mut self, process: Process) {
        let pid = process.pid;
        let entries = self.by_pid.entry(pid).or_default();
        let process = Arc::new(process);
        match entries
            .iter_mut()
            .find(|entry| same_start(entry.process.start_ns, process.start_ns))
        {
            Some(entry) => {
                entry.process = process;
                self.lineages.remove(&pid);
            }
            None => {
                // Hardly any pid is two processes'.
                entries.reserve_exact(1);
                entries.push(Entry { process, ended: None });
            }
        }
    }

    /// What the children of a process descend from.
    fn lineage(&mut self, parent: Option<&Process>) -> Lineage {
        let Some(parent) = parent else {
            return Arc::default();
        };
        if let Some((start, known)) = self.lineages.get(&parent.pid)
            && *start == parent.start_ns
        {
            return Arc::clone(known);
        }
        let lineage = ancestry(parent);
        if self.find(parent.pid, parent.start_ns).is_some() {
            let kept = (parent.start_ns, Arc::clone(&lineage));
            self.lineages.insert(parent.pid, kept);
        }
        lineage
    }

    fn forget(&mut self, now: u64) {
        while let Some((at, pid, start)) = self.ended.front().copied() {
            if at + REMEMBERED_NS > now {
                break;
            }
            self.ended.pop_front();
            if let Some(entries) = self.by_pid.get_mut(&pid) {
                entries.retain(|entry| !same_start(entry.process.start_ns, start));
                self.lineages.remove(&pid);
                if entries.is_empty() {
                    self.by_pid.remove(&pid);
                }
            }
        }
    }
}

/// Start times from `/proc` are cut to a tick; the kernel's own are exact. A pid can be reused within one tick: whoever
/// may ask for a certain pid gets it (clone3(2), `set_tid`).
fn same_start(one: u64, other: u64) -> bool {
    let is_cut = |start: u64| start.is_multiple_of(TICK_NS);
    one == other || ((is_cut(one) || is_cut(other)) && one / TICK_NS == other / TICK_NS)
}

fn ancestry(parent: &Process) -> Lineage {
    let first = Arc::new(as_ancestor(parent));
    std::iter::once(first)
        .chain(parent.descent.ancestry().iter().cloned())
        .take(ANCESTORS)
        .collect()
}

fn as_ancestor(process: &Process) -> Ancestor {
    let exe = process.exe.clone().unwrap_or_else(|| process.comm.clone());
    Ancestor {
        pid: process.pid,
        start_ns: process.start_ns,
        exe,
    }
}

/// The full path: from `/proc` while the process lives, else from what was given to `execve`, if that is still the
/// file that was run.
fn executable(fact: &ExecFact, broker: &Broker) -> Option<String> {
    if let Some((inode, path)) = broker.executable(fact.task.tgid)
        && inode == fact.inode
    {
        return Some(path);
    }
    let is_the_file = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == fact.inode);
    let given = String::from_utf8_lossy(bytes(&fact.path, fact.path_length)).into_owned();
    let path = fs::canonicalize(given).ok()?;
    is_the_file(&path).then(|| path.to_string_lossy().into_owned())
}

fn bytes(of: &[u8], length: u32) -> &[u8] {
    of.get(..length as usize).unwrap_or(of)
}

/// A NUL-terminated text of the kernel's.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
