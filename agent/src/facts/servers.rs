//! PostgreSQL servers of this host: found by their executable, never by a name alone, and chosen by the settings.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use object::{Object as _, ObjectSymbol as _, read::ReadCache};

use super::{cgroups::below, container};
use crate::capture::plaintext::{Readable, open_executable};

/// A symbol that a server exports for its extensions and nothing else has.
const SERVER_SYMBOL: &str = "PostmasterMain";

/// Which servers are tapped: all, or those with one of these data directories.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Empty: all.
    pub data_directories: Vec<PathBuf>,
    /// Only those in this cgroup or below it.
    pub within: Option<String>,
}

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Process id of the postmaster.
    pub pid: u32,
    /// Its executable.
    pub exe: PathBuf,
    /// Its data directory, where it could be learnt.
    pub data_directory: Option<PathBuf>,
    /// How its encrypted sessions are read; not known before it is tapped.
    pub readable: Readable,
}

/// What is known about candidates.
#[derive(Default)]
pub struct Servers {
    wanted: Wanted,
    executables: HashMap<(u64, u64), bool>,
    tapped: HashMap<u32, Server>,
    rejected: HashSet<u32>,
}

impl Servers {
    /// None yet.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// Looks at a process that the kernel side marked by its name. Returns whether it is a server to be tapped.
    pub fn consider(&mut self, pid: u32) -> bool {
        self.tapped.remove(&pid);
        self.rejected.remove(&pid);
        match self.identify(pid).filter(|server| self.is_wanted(server)) {
            Some(server) => {
                self.tapped.insert(pid, server);
                true
            }
            None => {
                self.rejected.insert(pid);
                false
            }
        }
    }

    /// Whether bytes of this server's processes count.
    pub fn is_tapped(&self, pid: u32) -> bool {
        self.tapped.contains_key(&pid)
    }

    /// Probes were put into a server's executable, or could not be.
    pub fn readable(&mut self, pid: u32, readable: Readable) {
        if let Some(server) = self.tapped.get_mut(&pid) {
            server.readable = readable;
        }
    }

    /// A server that is tapped.
    pub fn get(&self, pid: u32) -> Option<&Server> {
        self.tapped.get(&pid)
    }

    /// Whether a process runs a server's executable now.
    pub fn runs(&mut self, pid: u32) -> bool {
        self.identify(pid).is_some()
    }

    /// A process ended.
    pub fn ended(&mut self, pid: u32) {
        self.tapped.remove(&pid);
        self.rejected.remove(&pid);
    }

    /// The servers that are tapped.
    pub fn tapped(&self) -> impl Iterator<Item = &Server> {
        self.tapped.values()
    }

    /// All postmasters that run now, with all their processes. Wanted or not is decided by [`Self::consider`].
    pub fn running(&mut self) -> Vec<(Server, Vec<u32>)> {
        let Ok(all) = procfs::process::all_processes() else {
            return Vec::new();
        };
        let parents: HashMap<u32, u32> = all
            .flatten()
            .filter_map(|process| process.stat().ok())
            .map(|stat| (stat.pid.unsigned_abs(), stat.ppid.unsigned_abs()))
            .collect();
        let servers: HashMap<u32, Server> = parents
            .keys()
            .filter_map(|pid| Some((*pid, self.identify(*pid)?)))
            .collect();
        let mut found = Vec::new();
        for (pid, server) in &servers {
            // A backend is a fork of the postmaster and runs the same file.
            if parents
                .get(pid)
                .is_some_and(|parent| servers.contains_key(parent))
            {
                continue;
            }
            let family = servers
                .keys()
                .filter(|member| descends(**member, *pid, &parents))
                .copied();
            found.push((server.clone(), family.collect()));
        }
        found.sort_by_key(|(server, _)| server.pid);
        found
    }

    fn is_wanted(&self, server: &Server) -> bool {
        if let Some(within) = &self.wanted.within
            && cgroup(server.pid).is_none_or(|path| below(Some(within), &path).is_none())
        {
            return false;
        }
        let wanted = &self.wanted.data_directories;
        let resolved = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let Some(own) = server.data_directory.as_deref().map(resolved) else {
            return wanted.is_empty();
        };
        wanted.is_empty() || wanted.iter().any(|path| resolved(path) == own)
    }

    fn identify(&mut self, pid: u32) -> Option<Server> {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let name = exe.file_name()?.to_string_lossy();
        if !name.starts_with("postgres") && !name.starts_with("postmaster") {
            return None;
        }
        self.is_server_executable(pid)?;
        Some(Server {
            pid,
            exe,
            data_directory: data_directory(pid),
            readable: Readable::default(),
        })
    }

    fn is_server_executable(&mut self, pid: u32) -> Option<()> {
        let link = format!("/proc/{pid}/exe");
        let metadata = fs::metadata(&link).ok()?;
        let key = (metadata.dev(), metadata.ino());
        let known = *self
            .executables
            .entry(key)
            .or_insert_with(|| exports_server_symbol(Path::new(&link)));
        known.then_some(())
    }
}

fn exports_server_symbol(executable: &Path) -> bool {
    let Ok(file) = open_executable(executable) else {
        return false;
    };
    let cache = ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else {
        return false;
    };
    elf.dynamic_symbols()
        .any(|symbol| symbol.name() == Ok(SERVER_SYMBOL) && symbol.is_definition())
}

fn descends(mut pid: u32, from: u32, parents: &HashMap<u32, u32>) -> bool {
    // Process trees are shallow; a loop cannot be, but must not hang us.
    for _ in 0..32 {
        if pid == from {
            return true;
        }
        match parents.get(&pid) {
            Some(parent) => pid = *parent,
            None => return false,
        }
    }
    false
}

/// Path of a process' cgroup in the unified hierarchy.
pub(super) fn cgroup(pid: u32) -> Option<String> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let groups = process.cgroups().ok()?.0;
    let unified = groups.into_iter().find(|group| group.hierarchy == 0);
    unified.map(|group| container::cgroup(group.pathname))
}

/// From `-D`, else from `PGDATA`, else the working directory, which a running postmaster has set to it.
fn data_directory(pid: u32) -> Option<PathBuf> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let arguments = process.cmdline().unwrap_or_default();
    let mut given = None;
    for (index, argument) in arguments.iter().enumerate() {
        if argument == "-D" {
            given = arguments.get(index + 1).cloned();
        } else if let Some(joined) = argument
            .strip_prefix("-D")
            .or_else(|| argument.strip_prefix("--data-directory="))
        {
            given = Some(joined.to_owned());
        }
    }
    let given = given.map(PathBuf::from);
    let from_environment = || {
        process
            .environ()
            .ok()?
            .get(std::ffi::OsStr::new("PGDATA"))
            .map(PathBuf::from)
    };
    let working = process.cwd().ok();
    let path = given.or_else(from_environment).or_else(|| {
        working
            .clone()
            .filter(|folder| folder.join("PG_VERSION").exists())
    })?;
    Some(match working {
        Some(folder) if path.is_relative() && !folder.join("PG_VERSION").exists() => folder.join(path),
        Some(folder) if path.is_relative() => folder,
        _ => path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_binary_is_believed() {
        let server = Path::new("/usr/lib/postgresql/15/bin/postgres");
        if server.exists() {
            assert!(exports_server_symbol(server));
        }
        let own = std::env::current_exe().expect("this program");
        assert!(!exports_server_symbol(&own));
        assert!(!exports_server_symbol(Path::new("/etc/passwd")));
    }

    #[test]
    fn this_process_is_no_server() {
        let mut servers = Servers::new(Wanted::default());
        assert!(!servers.consider(std::process::id()));
        assert!(!servers.is_tapped(std::process::id()));
    }
}
