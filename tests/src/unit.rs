//! A cgroup of its own for each program, named as systemd names a service's.
//!
//! Owns the run's slice in the cgroup v2 tree, the units in it, and everything that runs in them. It refuses to touch a cgroup that it did not make. Separate because the unit's name is the identity that a
//! suite expects pgwitness to find.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// One service's cgroup. Dropping it kills what still runs in it and removes it.
#[derive(Debug)]
pub struct Unit {
    name: String,
    folder: PathBuf,
    slice: PathBuf,
}

impl Unit {
    /// Makes `<program>.service` below `<run>.slice`.
    ///
    /// # Errors
    /// When there is no cgroup v2 tree, or it may not be written (that needs root).
    pub fn create(run: &str, program: &str) -> Result<Self> {
        let slice = cgroup2_mount()?.join(format!("{run}.slice"));
        fs::create_dir_all(&slice).with_context(|| format!("making {} (needs root)", slice.display()))?;
        let name = format!("{program}.service");
        let folder = slice.join(&name);
        fs::create_dir(&folder).with_context(|| format!("making the cgroup {}", folder.display()))?;
        Ok(Self { name, folder, slice })
    }

    /// The unit's name, as in the principal: `…/unit/<name>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that enters the cgroup first and then becomes `program`, under the same pid: no moment of the
    /// program's own life is spent outside of its unit, as with systemd.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(r#"echo $$ > "$0" && exec "$@""#);
        command.arg(self.folder.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // `cgroup.kill` (kernel 5.14) ends every process in it at once; the folder goes when the last is reaped.
        drop(fs::write(self.folder.join("cgroup.kill"), "1"));
        for _ in 0..REMOVAL_ATTEMPTS {
            if fs::remove_dir(&self.folder).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Only succeeds when the run has no other unit left in it.
        drop(fs::remove_dir(&self.slice));
    }
}

/// Where the cgroup v2 tree is mounted, by `/proc/self/mountinfo` (proc(5)).
///
/// # Errors
/// When none is mounted.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    mount_of("cgroup2", &mounts).context("no cgroup v2 tree is mounted")
}

fn mount_of(kind: &str, mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == kind).then_some(())?;
        mount.split(' ').nth(4).map(PathBuf::from)
    })
}

/// Times 20 ms: a killed process is reaped well within it.
const REMOVAL_ATTEMPTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hybrid_mount() {
        let mountinfo = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                         41 31 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_of("cgroup2", mountinfo),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
    }

    #[test]
    fn a_program_lives_in_its_unit_and_ends_with_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let unit = Unit::create(&format!("pgwitness-unit-test-{}", std::process::id()), "sleeper").unwrap();
        let folder = unit.folder.clone();
        let output = unit
            .command(Path::new("/bin/cat"))
            .arg("/proc/self/cgroup")
            .output()
            .unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(seen.contains(&format!(".slice/{}", unit.name())), "{seen}");

        let mut sleeper = unit.command(Path::new("/bin/sleep")).arg("600").spawn().unwrap();
        while fs::read_to_string(folder.join("cgroup.procs"))
            .unwrap()
            .is_empty()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(unit);
        assert!(!sleeper.wait().unwrap().success());
        assert!(!folder.exists());
    }
}
