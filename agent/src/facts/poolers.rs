//! Poolers of this host: found by the names of their executables, and chosen by the settings.
//!
//! A pooler is of interest whichever server it leads to. Nothing in such a program says what it is, so that its name has to
//! do; a program that takes such a name gets no name of its own for what it sends.

use std::{fs, path::Path};

use super::{cgroups::below, servers::cgroup};
use crate::capture::plaintext::Why;

/// A pooler that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooler {
    /// Name of its executable.
    pub program: String,
    /// Whether its TLS connections are read, or why not.
    pub tls: Why,
}

impl Pooler {
    /// How its encrypted connections are read, in words.
    pub fn encryption(&self) -> String {
        match &self.tls {
            None => "TLS read".to_owned(),
            Some(why) => format!("TLS not read ({why})"),
        }
    }
}

/// Which programs are followed as poolers.
#[derive(Clone, Debug, Default)]
pub struct Poolers {
    /// Names of executables; empty: none.
    pub programs: Vec<String>,
    /// Only those in this cgroup or below it.
    pub within: Option<String>,
}

/// Programs that can be named as poolers.
pub const PROGRAMS: usize = 32;

/// Whether this can be the name of an executable: 1 to 64 printable characters, and no folder.
pub fn is_program(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Bytes of a task's name (`TASK_COMM_LEN` of the kernel, without the closing NUL).
const COMM: usize = 15;

impl Poolers {
    /// The names as the kernel shows them of tasks: cut.
    pub fn comms(&self) -> impl Iterator<Item = [u8; 16]> {
        self.programs.iter().map(|name| {
            let mut comm = [0; 16];
            for (to, from) in comm.iter_mut().take(COMM).zip(name.bytes()) {
                *to = from;
            }
            comm
        })
    }

    /// The name of the pooler that a process runs, if it is one that is wanted.
    pub fn program(&self, pid: u32) -> Option<String> {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let program = self.named(&exe)?;
        if let Some(within) = &self.within {
            below(Some(within), &cgroup(pid)?)?;
        }
        Some(program)
    }

    /// All that run now.
    pub fn running(&self) -> Vec<u32> {
        if self.programs.is_empty() {
            return Vec::new();
        }
        let all = procfs::process::all_processes().into_iter().flatten().flatten();
        all.filter_map(|process| u32::try_from(process.pid).ok())
            .filter(|pid| self.program(*pid).is_some())
            .collect()
    }

    fn named(&self, exe: &Path) -> Option<String> {
        let name = exe.file_name()?.to_str()?;
        // proc(5): appended when the file was replaced while it runs.
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        self.programs.iter().find(|program| *program == name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_is_known_by_its_executable_alone() {
        let poolers = Poolers {
            programs: vec!["pgbouncer".to_owned(), "a-pooler-of-our-own".to_owned()],
            within: None,
        };
        let named = |exe: &str| poolers.named(Path::new(exe));
        assert_eq!(named("/usr/sbin/pgbouncer").as_deref(), Some("pgbouncer"));
        assert_eq!(named("/opt/pgbouncer (deleted)").as_deref(), Some("pgbouncer"));
        assert_eq!(named("/usr/sbin/pgbouncer-1.18"), None);
        assert_eq!(named("/usr/bin/dash"), None);
        assert_eq!(poolers.program(std::process::id()), None);
        let comms: Vec<[u8; 16]> = poolers.comms().collect();
        assert_eq!(comms, [*b"pgbouncer\0\0\0\0\0\0\0", *b"a-pooler-of-our\0"]);
        assert!(Poolers::default().running().is_empty());
    }

    #[test]
    fn one_that_runs_is_found() {
        let exe = std::env::current_exe().expect("this program");
        let name = exe.file_name().expect("a name").to_string_lossy().into_owned();
        let poolers = Poolers {
            programs: vec![name.clone()],
            within: None,
        };
        assert_eq!(poolers.program(std::process::id()), Some(name));
        assert!(poolers.running().contains(&std::process::id()));
        let elsewhere = Poolers {
            within: Some("/no/such/group".to_owned()),
            ..poolers
        };
        assert_eq!(elsewhere.program(std::process::id()), None);
    }
}
