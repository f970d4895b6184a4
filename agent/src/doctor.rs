//! `pgwitness-agent doctor`: what this host can do, what it lacks, and what runs on it.

use std::process::ExitCode;

use crate::{
    capture::{AttachError, HOOKS, RingSizes, Tap, btf},
    facts::{
        cgroups::Cgroups,
        servers::{Servers, Wanted},
    },
};

/// Checks this host and says what is missing.
#[derive(Debug, clap::Args)]
pub struct Args {}

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
    let root = nix::unistd::geteuid().is_root();
    println!("user        {}", if root { "root" } else { "not root" });
    match btf::kernel_layout() {
        Ok(_) => println!(
            "BTF         {} has every struct member that is needed",
            btf::VMLINUX
        ),
        Err(problem) => missing.push(problem.to_string()),
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
    let types = aya::Btf::from_sys_fs();
    for hook in &HOOKS {
        let state = match &types {
            Ok(types) if hook.exists(types) => "tp_btf".to_owned(),
            Ok(_) => format!("not in this kernel (since {})", hook.since),
            Err(_) => "cannot be known without BTF".to_owned(),
        };
        println!("  {:22} {:30} {state}", hook.name, hook.purpose);
    }
    println!(
        "  {:22} {:30} not tapped by this version: sessions are reported as opaque",
        "be_tls_*, be_gssapi_*", "TLS and GSS plaintext"
    );
    match Tap::attach(RingSizes {
        segments: 1 << 20,
        facts: 1 << 20,
    }) {
        Ok(_) => println!("  all of them load and attach"),
        // Said already.
        Err(AttachError::Btf(_)) => {}
        Err(
            problem @ (AttachError::NotPermitted
            | AttachError::NoTracepoint { .. }
            | AttachError::Refused { .. }),
        ) => {
            missing.push(problem.to_string());
        }
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
            "  postmaster {:<8} {}  data {folder}  processes {}",
            server.pid,
            server.exe.display(),
            family.len()
        );
    }
}
