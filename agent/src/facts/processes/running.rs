//! What runs now, as `/proc` says: all of it at the start and after a loss, a single process where no fact told of it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use attribution::{Ancestor, CgroupPath, Descent, First, Process};

use super::{ANCESTORS, Processes, TICK_NS, as_ancestor, same_start};
use crate::{broker::protocol::Running, clock::boot_ns, facts::cgroups::Cgroups};

impl Processes {
    /// Takes down everything that runs now. Facts of the kernel that arrive later correct it; what they told of and does
    /// not run any more has ended.
    pub fn inventory(&mut self, cgroups: &mut Cgroups) {
        let Some(running) = self.broker.processes() else {
            return;
        };
        let here: HashSet<(u32, u64)> = running.iter().map(|one| (one.pid, one.start)).collect();
        let parents: HashMap<u32, u32> = running.iter().map(|one| (one.pid, one.parent)).collect();
        let firsts = firsts(&running);
        let found: Vec<Process> = running
            .into_iter()
            .filter_map(|one| self.described(one, cgroups))
            .collect();
        let ancestors: HashMap<u32, Arc<Ancestor>> = found
            .iter()
            .map(|process| (process.pid, Arc::new(as_ancestor(process))))
            .collect();
        for mut process in found {
            let (mut pid, mut ancestry) = (process.pid, Vec::new());
            while let Some(ancestor) = parents.get(&pid).and_then(|parent| ancestors.get(parent)) {
                if ancestry.len() >= ANCESTORS {
                    break;
                }
                ancestry.push(Arc::clone(ancestor));
                pid = ancestor.pid;
            }
            let first = firsts.get(&process.namespaces.pid).cloned();
            process.descent = Descent::new(ancestry.into(), first);
            if self.find(process.pid, process.start_ns).is_none() {
                self.insert(process);
            }
        }
        let now = boot_ns();
        for entry in self.by_pid.values_mut().flatten() {
            let known = (entry.process.pid, entry.process.start_ns / TICK_NS);
            if entry.ended.is_none() && !here.contains(&known) {
                entry.ended = Some(now);
                self.ended
                    .push_back((now, entry.process.pid, entry.process.start_ns));
            }
        }
    }

    /// A process that no fact told of, from `/proc`; `None` if it is gone or another one has its pid now.
    pub fn read(&mut self, pid: u32, start_ns: Option<u64>, cgroups: &mut Cgroups) -> Option<Process> {
        let running = self.broker.process(pid)?;
        let started = running.start.checked_mul(TICK_NS)?;
        if start_ns.is_some_and(|wanted| !same_start(wanted, started)) {
            return None;
        }
        self.described(running, cgroups)
    }

    fn described(&mut self, running: Running, cgroups: &Cgroups) -> Option<Process> {
        let (uid, cgroup) = (running.uid?, running.cgroup?);
        let cgroup_id = cgroups
            .mount()
            .and_then(|mount| fs::metadata(mount.join(cgroup.trim_start_matches('/'))).ok())
            .map_or(0, |metadata| metadata.ino());
        Some(Process {
            pid: running.pid,
            start_ns: running.start.saturating_mul(TICK_NS),
            exe: running.exe.map(|exe| self.names.get(&exe)),
            comm: self.names.get(&running.comm),
            command_line: sql_meaning::mask_command_line(&running.command_line)
                .into_iter()
                .collect(),
            uid,
            user: self.users.name(uid),
            login_uid: running.login_uid,
            login_user: running.login_uid.and_then(|uid| self.users.name(uid)),
            cgroup_id,
            cgroup_path: cgroups.below(&cgroup).map(|path| self.paths.get(path)),
            audit_session: running.audit_session,
            session: running.session,
            tty: running.tty.map(|tty| self.names.get(&tty)),
            namespaces: running.namespaces.into(),
            ..Process::default()
        })
    }

    /// The process that has this pid now: what is known of it, else what `/proc` says.
    pub fn living(&mut self, pid: u32, cgroups: &mut Cgroups) -> Option<Arc<Process>> {
        let read = self.read(pid, None, cgroups)?;
        let mut process = match self.find(pid, read.start_ns) {
            // Facts know more of it, but the cgroup is where it is now.
            Some(known) if known.cgroup_path == read.cgroup_path => return Some(known),
            Some(known) => Arc::unwrap_or_clone(known),
            None => return Some(Arc::new(read)),
        };
        process.enter(read.cgroup_id, read.cgroup_path);
        Some(Arc::new(process))
    }
}

/// The first processes of all pid namespaces but the host's.
fn firsts(running: &[Running]) -> HashMap<u32, Arc<First>> {
    let first = |one: &&Running| one.inner_pid == 1 && one.pid != 1;
    running
        .iter()
        .filter(first)
        .filter_map(|one| {
            let cgroup_path: CgroupPath = one.cgroup.as_deref()?.into();
            let [pid_ns, ..] = one.namespaces;
            Some((
                pid_ns,
                Arc::new(First {
                    pid: one.pid,
                    cgroup_path,
                }),
            ))
        })
        .collect()
}
