//! What each of the agent's two processes gives up for good: capabilities, the way to new ones, system calls, files.
//!
//! The process that parses gives up everything that it does not use any more, before it has seen the first byte of what is
//! captured, and while it is one thread, so that all its threads are bound. What a kernel does not have is said, not hidden:
//! [`Confined`] is what `status` shows.

pub mod syscalls;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use caps::{CapSet, Capability};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};

/// What the process that parses has to reach by name while it works.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Folders whose files it makes, writes, reads and removes.
    pub own: Vec<PathBuf>,
    /// Folders whose files it reads.
    pub reads: Vec<PathBuf>,
    /// Folders of which it removes files.
    pub removes: Vec<PathBuf>,
    /// Folders that it lists.
    pub lists: Vec<PathBuf>,
    /// Ports to which it connects.
    pub ports: Vec<u16>,
    /// Whether it connects to a Unix socket: the collector's. Which ones, no rule can say; their modes do.
    pub unix: bool,
}

/// How far a process is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confined {
    /// Its bounding set is empty, too.
    pub bounding: bool,
    /// What holds it to its own files, or why nothing does.
    pub files: String,
}

/// Gives up every capability, and that any could be got by a program that is started.
///
/// # Errors
///
/// If one is left.
pub fn capabilities() -> anyhow::Result<bool> {
    // First what takes a capability itself.
    let bounding = caps::clear(None, CapSet::Bounding).is_ok();
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        caps::clear(None, set)
            .with_context(|| format!("cannot give up the capabilities of the set {set:?}"))?;
        if !caps::read(None, set)?.is_empty() {
            bail!("capabilities are left in the set {set:?}");
        }
    }
    Ok(bounding)
}

/// The broker keeps these capabilities and no others, and gets none by a program: nor does it start any.
///
/// # Errors
///
/// If the kernel refuses what it refuses nobody.
pub fn broker(kept: &[&str]) -> anyhow::Result<()> {
    let kept: caps::CapsHashSet = kept.iter().filter_map(|name| name.parse().ok()).collect();
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            // Takes CAP_SETPCAP. With no_new_privs the bounding set gives nothing, anyway.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")?;
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: caps::CapsHashSet = held.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    syscalls::never().context("cannot install a filter of system calls")
}

/// Holds the process that parses to what it reaches, and to the system calls that it uses. It must be one thread.
///
/// # Errors
///
/// If a folder cannot be opened, or the kernel refuses a filter.
pub fn parser(reach: &Reach, bounding: bool) -> anyhow::Result<Confined> {
    let files = files(reach)?;
    syscalls::only(reach.unix).context("cannot install a filter of system calls")?;
    Ok(Confined { bounding, files })
}

/// The newest rules that are known here; an older kernel takes those that it knows.
const RULES: ABI = ABI::V7;

fn files(reach: &Reach) -> anyhow::Result<String> {
    let own = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?;
    let folders = [
        (&reach.own, own),
        (&reach.reads, AccessFs::ReadFile.into()),
        (&reach.removes, AccessFs::RemoveFile.into()),
        (&reach.lists, AccessFs::ReadDir.into()),
    ];
    for (folders, access) in folders {
        for folder in folders {
            rules = rules.add_rule(rule(folder, access)?)?;
        }
    }
    for port in &reach.ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    let status = rules.restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            format!("Landlock, version {}", effective_abi as i32)
        }
        LandlockStatus::NotEnabled => "nothing: Landlock is switched off in this kernel".to_owned(),
        LandlockStatus::NotImplemented => "nothing: this kernel has no Landlock".to_owned(),
    })
}

fn rule(folder: &Path, access: BitFlags<AccessFs>) -> anyhow::Result<PathBeneath<PathFd>> {
    let opened = PathFd::new(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    Ok(PathBeneath::new(opened, access))
}

/// Tries it in a thread of its own, which it binds alone: what holds the process that parses to its own files here.
///
/// # Errors
///
/// If it could not be confined.
pub fn tried() -> anyhow::Result<String> {
    let tried = std::thread::spawn(|| {
        capabilities()?;
        Ok(parser(&Reach::default(), false)?.files)
    });
    tried.join().unwrap_or_else(|_| bail!("it could not be tried"))
}

/// Names of the capabilities that this process has.
pub fn held() -> Vec<String> {
    let mut held: Vec<Capability> = caps::read(None, CapSet::Effective)
        .unwrap_or_default()
        .into_iter()
        .collect();
    held.sort_by_key(Capability::index);
    held.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener, net::TcpStream, thread};

    use super::*;

    /// What is tried in a thread of its own binds that thread alone.
    fn confined(reach: Reach, least: i32, tried: impl FnOnce() + Send + 'static) {
        let ended = thread::spawn(move || {
            capabilities().expect("given up");
            let Confined { files, .. } = parser(&reach, true).expect("confined");
            let version = files.rsplit(' ').next().and_then(|version| version.parse().ok());
            if version < Some(least) {
                return eprintln!("not tried: {files}");
            }
            tried();
        });
        ended.join().expect("as it should be");
    }

    #[test]
    fn only_its_own_files_are_reached() {
        let (own, other) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let (mine, others) = (own.path().join("mine"), other.path().join("others"));
        fs::write(&others, "secret").expect("written");
        let reach = Reach {
            own: vec![own.path().to_path_buf()],
            ..Reach::default()
        };
        confined(reach, 1, move || {
            fs::write(mine.with_extension("new"), "text").expect("its own");
            fs::rename(mine.with_extension("new"), &mine).expect("its own");
            assert_eq!(fs::read_to_string(&mine).expect("its own"), "text");
            fs::remove_file(&mine).expect("its own");
            assert!(fs::read(&others).is_err(), "another's");
            assert!(fs::write(&others, "changed").is_err(), "another's");
            assert!(fs::remove_file(&others).is_err(), "another's");
            assert!(fs::read("/etc/passwd").is_err(), "the system's");
            assert!(fs::read("/proc/self/environ").is_err(), "no /proc");
        });
        assert_eq!(
            fs::read_to_string(other.path().join("others")).expect("there"),
            "secret"
        );
    }

    #[test]
    fn only_the_collector_is_reached() {
        let (collector, another) = (
            TcpListener::bind("127.0.0.1:0").expect("bound"),
            TcpListener::bind("127.0.0.1:0").expect("bound"),
        );
        let ends = [&collector, &another].map(|listener| listener.local_addr().expect("bound"));
        let reach = Reach {
            ports: vec![ends[0].port()],
            ..Reach::default()
        };
        // Rules for ports are there from this version on.
        confined(reach, 4, move || {
            TcpStream::connect(ends[0]).expect("the collector");
            assert!(TcpStream::connect(ends[1]).is_err(), "another port");
            assert!(
                TcpListener::bind("127.0.0.1:0").is_err(),
                "nothing more is served"
            );
        });
    }

    #[test]
    fn no_capability_is_left() {
        let ended = thread::spawn(|| {
            capabilities().expect("given up");
            assert!(held().is_empty());
            let status = fs::read_to_string("/proc/thread-self/status").expect("this thread");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(
                    status.contains(&format!("{set}:\t0000000000000000\n")),
                    "{status}"
                );
            }
            assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        });
        ended.join().expect("as it should be");
    }
}
