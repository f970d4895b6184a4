//! Cgroups of any shape below one of the suite's own.
//!
//! Owns what it made: everything that still runs in there ends with the value, and the folders go. It refuses to touch a
//! cgroup that it did not make. Separate from `crate::unit`, which knows one shape only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::unit::cgroup2_mount;

/// The suite's own cgroup.
#[derive(Debug)]
pub(super) struct Groups {
    mount: PathBuf,
    name: String,
}

impl Groups {
    /// Makes it.
    pub(super) fn make() -> Result<Self> {
        let mount = cgroup2_mount()?;
        let name = format!("pgwitness-identity-{}.slice", std::process::id());
        let folder = mount.join(&name);
        fs::create_dir(&folder).with_context(|| format!("making {} (needs root)", folder.display()))?;
        Ok(Self { mount, name })
    }

    /// The folder of a cgroup with this path below the suite's own; it is made if it is not there.
    pub(super) fn folder(&self, below: &str) -> Result<PathBuf> {
        let folder = self.mount.join(self.path(below).trim_start_matches('/'));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// Its path as `/proc/self/cgroup` has it.
    pub(super) fn path(&self, below: &str) -> String {
        format!("/{}/{}", self.name, below.trim_matches('/'))
    }
}

/// A command that enters the cgroup first and then becomes `program`, under the same pid.
pub(super) fn command_in(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(r#"echo $$ > "$0" && exec "$@""#);
    command.arg(folder.join("cgroup.procs")).arg(program);
    command
}

impl Drop for Groups {
    fn drop(&mut self) {
        let folder = self.mount.join(&self.name);
        let of_controllers = controllers().into_iter().map(|mount| mount.join(&self.name));
        // Ends everything below, too (kernel 5.14).
        drop(fs::write(folder.join("cgroup.kill"), "1"));
        for _ in 0..REMOVAL_ATTEMPTS {
            remove(&folder);
            if !folder.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Container runtimes leave the folders above theirs in every hierarchy of version 1.
        of_controllers.for_each(|folder| remove(&folder));
    }
}

/// Where the hierarchies of version 1 are mounted, if there are any.
fn controllers() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_line = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup").then_some(())?;
        mount.split(' ').nth(4).map(PathBuf::from)
    };
    mounts.lines().filter_map(of_line).collect()
}

/// From the leaves up: a cgroup cannot go before those in it.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    drop(fs::remove_dir(folder));
}

/// Times 20 ms: a killed process is reaped well within it.
const REMOVAL_ATTEMPTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_in_a_group_ends_with_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let groups = Groups::make().unwrap();
        let folder = groups
            .folder("user.slice/user-1000.slice/session-3.scope")
            .unwrap();
        let mut sleeper = command_in(&folder, Path::new("/bin/sleep"))
            .arg("600")
            .spawn()
            .unwrap();
        while fs::read_to_string(folder.join("cgroup.procs"))
            .unwrap()
            .is_empty()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let seen = fs::read_to_string(format!("/proc/{}/cgroup", sleeper.id())).unwrap();
        assert!(
            seen.contains(&groups.path("user.slice/user-1000.slice/session-3.scope")),
            "{seen}"
        );
        drop(groups);
        assert!(!sleeper.wait().unwrap().success());
        assert!(!folder.exists());
    }
}
