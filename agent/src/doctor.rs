//! `pgwitness-agent doctor`: what this host can do, what it lacks, and what runs on it.

use std::process::ExitCode;

use ebpf_abi::Wishes;

use crate::{
    capture::{
        AtReturn, AttachError, Sizes, Tap, Tier, btf,
        seccomp::{self, Effect},
    },
    config::Config,
    confine,
    facts::{
        cgroups::Cgroups,
        servers::{Servers, Wanted},
    },
    privilege,
};

/// Checks this host and says what is missing.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// From this Linux on programs on tracepoints can be preempted, and the kernel skips those of others meanwhile
/// (docs/kernels.md).
const PREEMPTIBLE: (u32, u32) = (7, 0);

/// Everything that the kernel side can be asked for.
const ALL: Wishes = Wishes {
    environments: 1,
    flows: 1,
    poolers: 1,
    alone: 0,
};

/// Runs the command; the exit code is 1 if something that is needed is missing.
pub fn run(_: &Args) -> ExitCode {
    let mut missing: Vec<String> = Vec::new();
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    println!(
        "kernel      {} {}",
        read("/proc/sys/kernel/osrelease"),
        std::env::consts::ARCH
    );
    if privilege::kernel() >= PREEMPTIBLE {
        println!(
            "            not supported: this kernel can skip runs of the tap. What it skips is told (program_missed), not \
             recorded"
        );
    }
    let root = nix::unistd::geteuid().is_root();
    println!("user        {}", if root { "root" } else { "not root" });
    for capability in privilege::missing() {
        missing.push(format!("{}: to {}", capability.name, capability.purpose));
    }
    match btf::kernel_layout() {
        Ok(_) => println!(
            "BTF         {} has every struct member that is needed",
            btf::VMLINUX
        ),
        Err(problem) => missing.push(problem.to_string()),
    }
    match confine::tried() {
        Ok(files) => println!(
            "parsing     holds no capability, is under seccomp, and is held to its own files by {files}"
        ),
        Err(problem) => missing.push(format!("what parses cannot be confined: {problem:#}")),
    }
    match Cgroups::read().mount() {
        Some(mount) => println!("cgroups     unified hierarchy at {}", mount.display()),
        None => {
            missing
                .push("no unified cgroup hierarchy (cgroup2) is mounted: units cannot be named".to_owned());
        }
    }
    hooks(&mut missing);
    servers();
    poolers();
    if missing.is_empty() {
        println!("\nnothing is missing");
        return ExitCode::SUCCESS;
    }
    println!("\nmissing:");
    for problem in missing {
        println!("  - {problem}");
    }
    ExitCode::FAILURE
}

fn hooks(missing: &mut Vec<String>) {
    println!("\nhooks");
    let types = match aya::Btf::from_sys_fs() {
        Ok(types) => types,
        // Said already.
        Err(_) => return println!("  cannot be known without BTF"),
    };
    let best = Tier::of_this_kernel(&types);
    for hook in best.hooks() {
        let state = if hook.exists(&types) {
            "found".to_owned()
        } else {
            format!("not in this kernel (since {})", hook.since)
        };
        println!("  {:22} {:34} {state}", hook.name, hook.purpose);
    }
    for tier in [Tier::A, Tier::B] {
        let sizes = Sizes {
            segments: 1 << 20,
            facts: 1 << 20,
            processes: 1 << 10,
            connections: 1 << 10,
            transfers: 1 << 12,
        };
        let needed = tier == best;
        match Tap::attach(sizes, Some(tier), AtReturn::Auto, ALL, std::iter::empty()) {
            Ok(tap) if needed => {
                println!("  tier {tier}: loads and attaches; used by default");
                if tier == Tier::B {
                    println!("  {:22} not followed: that takes tier A", "poolers");
                }
                println!(
                    "  {:22} {}",
                    "probes under seccomp",
                    of_confined(tap.probes.effect())
                );
            }
            Ok(_) => println!("  tier {tier}: loads and attaches; used with --tier"),
            // Said already.
            Err(AttachError::Btf(_)) => {}
            Err(problem) if needed => missing.push(problem.to_string()),
            Err(problem) => {
                let text = problem.to_string();
                println!("  tier {tier}: {}", text.lines().next().unwrap_or_default());
            }
        }
    }
}

/// What probes do to servers whose system calls are filtered.
fn of_confined(effect: &Effect) -> String {
    match effect {
        Effect::NoCall => "harmless: this kernel makes no system call for them".to_owned(),
        Effect::Harmless => "harmless: tried on a process of our own".to_owned(),
        Effect::Deadly => {
            "DEADLY: tried on a process of our own. This kernel lacks the fix of January 2025; encrypted \
                           sessions of servers under seccomp stay opaque, unless tap.uretprobes is \"always\""
                .to_owned()
        }
        Effect::Unknown(why) => format!(
            "not known ({why}): encrypted sessions of servers under seccomp stay opaque, unless tap.uretprobes is \
             \"always\""
        ),
    }
}

fn poolers() {
    println!("\npoolers");
    let wanted = Config::default().poolers();
    let running = wanted.running();
    if running.is_empty() {
        println!("  none is running, or none can be seen by this user");
    }
    for pid in running {
        println!("  {pid:<8} {}", wanted.program(pid).unwrap_or_default());
    }
}

fn servers() {
    println!("\nPostgreSQL servers");
    let running = Servers::new(Wanted::default()).running();
    if running.is_empty() {
        println!("  none is running, or none can be seen by this user");
    }
    for (server, family) in running {
        let folder = server
            .data_directory
            .map_or_else(|| "?".to_owned(), |path| path.display().to_string());
        println!(
            "  postmaster {:<8} {}  data {folder}  processes {}{}",
            server.pid,
            server.exe.display(),
            family.len(),
            if seccomp::is_confined(server.pid) {
                "  under seccomp"
            } else {
                ""
            }
        );
    }
}
