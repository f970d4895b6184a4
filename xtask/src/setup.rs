//! `cargo xtask setup`: makes a Debian or Ubuntu with nothing but Rust able to build, run and test everything. It lists
//! what it will install before it does, starts no service, and does nothing where nothing is missing. Where it may not
//! install, it prints what to install.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{kubernetes, step};

/// System packages beside the eBPF toolchain: a linker and C compiler for crates that carry C, and what the demo and
/// the truth suites run.
const PACKAGES: [&str; 23] = [
    "gcc",
    "haproxy",
    "iproute2",
    "krb5-admin-server",
    "krb5-kdc",
    "krb5-user",
    "libc6-dev",
    "libdbd-pg-perl",
    "nftables",
    "openssh-client",
    "openssh-server",
    "openssl",
    "pgbouncer",
    "pgpool2",
    "postgresql",
    "python3-cryptography",
    "python3-psycopg",
    "python3-venv",
    "runc",
    "socat",
    "strace",
    "util-linux",
    "valgrind",
];

/// What `bpf-linker` needs to be linked with Debian's LLVM.
const LINKER_PACKAGES: [&str; 3] = ["g++", "zlib1g-dev", "libzstd-dev"];

/// Checks licences and sources of dependencies. The version is fixed so that a run of today can be repeated.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Keeps package installation from starting services (invoke-rc.d(8)): exit code 101 means "not allowed".
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// One thing that is missing.
enum Missing {
    Packages(Vec<String>),
    RustComponents(Vec<&'static str>),
    BpfLinker,
    CargoDeny,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build the programs of a Kubernetes cluster, too, for tests that are run by hand (takes Go 1.24, a quarter of an hour of two cores, and 5 GB meanwhile)
    #[arg(long)]
    kubernetes: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let missing = missing()?;
    if missing.is_empty() {
        eprintln!("xtask: setup: nothing is missing");
    } else if install_all(&missing)? != ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    if args.kubernetes {
        let folder = kubernetes::ensure()?;
        eprintln!("xtask: setup: Kubernetes is in {}", folder.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What every other command calls first.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    if install_all(&missing)? != ExitCode::SUCCESS {
        bail!("install what is listed above, then try again");
    }
    Ok(())
}

/// Where `setup` put `cargo-deny`, or one on the `PATH`.
pub(crate) fn cargo_deny() -> Option<PathBuf> {
    tool("cargo-deny")
}

/// The C++ compiler that libFuzzer is built with. Only fuzzing asks for it.
pub(crate) fn compiler() -> anyhow::Result<()> {
    ask_for("fuzzing", &["c++", "g++"], "g++")
}

/// What people put on top of the collector, in a virtual environment of its own: half a gigabyte, so only `cargo xtask test` asks for it.
pub(crate) fn clients() -> anyhow::Result<()> {
    let wanted = step::root().join("tests/clients/requirements.txt");
    let cache = ebpf_build::tools_folder();
    let folder = cache.parent().unwrap_or(&cache).join("clients");
    let made = folder.join("requirements.txt");
    let text = fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if fs::read(&made).is_ok_and(|made| made == text) {
        return Ok(());
    }
    eprintln!(
        "xtask: the clients of {} go to {}",
        wanted.display(),
        folder.display()
    );
    step::run(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder),
    )?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    step::run(pip.arg(&wanted))?;
    // Last: with it, everything is there.
    fs::write(&made, text).with_context(|| format!("cannot write {}", made.display()))
}

/// What boots other kernels. Only `cargo xtask kernels` asks for it.
pub(crate) fn virtual_machine() -> anyhow::Result<()> {
    ask_for("booting kernels", &["qemu-system-x86_64"], "qemu-system-x86")
}

/// A package that one command alone needs, unless one of these programs is there.
fn ask_for(purpose: &str, programs: &[&str], package: &str) -> anyhow::Result<()> {
    if programs.iter().any(|program| tool(program).is_some()) {
        return Ok(());
    }
    let packages = Missing::Packages(vec![package.to_owned()]);
    let commands = packages.commands().join("; ");
    if !nix::unistd::geteuid().is_root() || !is_debian() {
        bail!("{purpose} needs {package}; on Debian or Ubuntu, as root: {commands}");
    }
    eprintln!("xtask: {purpose} needs {package}: {commands}");
    packages.install()
}

fn install_all(missing: &[Missing]) -> anyhow::Result<ExitCode> {
    let may_install = nix::unistd::geteuid().is_root() && is_debian();
    eprintln!(
        "xtask: setup {}:",
        if may_install { "will install" } else { "needs" }
    );
    for item in missing {
        for line in item.commands() {
            eprintln!("    {line}");
        }
    }
    let needs_root = missing.iter().any(|item| matches!(item, Missing::Packages(_)));
    if needs_root && !may_install {
        eprintln!(
            "xtask: as root on Debian or Ubuntu this is done by `cargo xtask setup`; elsewhere install the like"
        );
        return Ok(ExitCode::FAILURE);
    }
    for (index, item) in missing.iter().enumerate() {
        eprintln!("xtask: setup: step {} of {}", index + 1, missing.len());
        item.install()?;
    }
    match self::missing()?.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => bail!("something is still missing after installation: run `cargo xtask setup` to see what"),
    }
}

fn missing() -> anyhow::Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let components = missing_components();
    if !components.is_empty() {
        missing.push(Missing::RustComponents(components));
    }
    let mut packages: Vec<String> = Vec::new();
    if is_debian() {
        let mut wanted: Vec<String> = PACKAGES.map(str::to_owned).to_vec();
        wanted.push(pgaudit_package());
        let rustup_serves = matches!(
            ebpf_build::Toolchain::find(),
            Some(ebpf_build::Toolchain::RustupNightly)
        );
        if !rustup_serves {
            wanted.extend(ebpf_build::DEBIAN_PACKAGES.map(str::to_owned));
        }
        if ebpf_build::bpf_linker().is_none() {
            wanted.extend(LINKER_PACKAGES.map(str::to_owned));
        }
        packages.extend(wanted.into_iter().filter(|package| !is_installed(package)));
    } else if ebpf_build::Toolchain::find().is_none() {
        eprintln!(
            "xtask: setup: this is neither Debian nor Ubuntu: install PostgreSQL with pgbench and pgAudit, OpenSSL, OpenSSH (client and server), a Kerberos KDC, HAProxy, runc, socat, iproute2, DBD::Pg, psycopg 3 and cryptography for \
             /usr/bin/python3, and Rust's nightly with `rustup toolchain install nightly --component rust-src`"
        );
        bail!("no toolchain for the eBPF program was found");
    }
    if !packages.is_empty() {
        missing.push(Missing::Packages(packages));
    }
    if ebpf_build::bpf_linker().is_none() {
        missing.push(Missing::BpfLinker);
    }
    if cargo_deny().is_none() {
        missing.push(Missing::CargoDeny);
    }
    Ok(missing)
}

impl Missing {
    /// As a person would type it.
    fn commands(&self) -> Vec<String> {
        match self {
            Self::Packages(packages) => {
                vec![format!(
                    "apt-get install --no-install-recommends {}",
                    packages.join(" ")
                )]
            }
            Self::RustComponents(components) => {
                vec![format!("rustup component add {}", components.join(" "))]
            }
            Self::BpfLinker => vec![format!(
                "PATH={}:$PATH cargo install bpf-linker --version {} --no-default-features --features llvm-22 --root {}",
                ebpf_build::DEBIAN_LLVM_BIN,
                ebpf_build::BPF_LINKER_VERSION,
                ebpf_build::tools_folder().display()
            )],
            Self::CargoDeny => vec![format!(
                "cargo install cargo-deny --locked --version {CARGO_DENY_VERSION} --root {}",
                ebpf_build::tools_folder().display()
            )],
        }
    }

    fn install(&self) -> anyhow::Result<()> {
        match self {
            Self::Packages(packages) => install_packages(packages),
            Self::RustComponents(components) => {
                step::run(Command::new("rustup").args(["component", "add"]).args(components))
            }
            Self::BpfLinker => {
                let rustup_serves = matches!(
                    ebpf_build::Toolchain::find(),
                    Some(ebpf_build::Toolchain::RustupNightly)
                );
                let mut command = cargo_install("bpf-linker", ebpf_build::BPF_LINKER_VERSION);
                if !rustup_serves {
                    let path = env::var("PATH").unwrap_or_default();
                    command
                        .args(["--no-default-features", "--features", "llvm-22"])
                        .env("PATH", format!("{}:{path}", ebpf_build::DEBIAN_LLVM_BIN))
                        .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22");
                }
                step::run(&mut command)
            }
            Self::CargoDeny => step::run(cargo_install("cargo-deny", CARGO_DENY_VERSION).arg("--locked")),
        }
    }
}

fn cargo_install(name: &str, version: &str) -> Command {
    let mut command = step::cargo();
    command
        .args(["install", name, "--version", version, "--root"])
        .arg(ebpf_build::tools_folder())
        // Its build products are of no further use.
        .env_remove("CARGO_TARGET_DIR");
    command
}

fn install_packages(packages: &[String]) -> anyhow::Result<()> {
    let policy = Policy::forbid()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    step::run(apt().args(["update", "-q"]))?;
    let brings_server = packages.iter().any(|package| package == "postgresql");
    let no_cluster = match brings_server {
        true => {
            step::run(apt().args([
                "install",
                "-q",
                "-y",
                "--no-install-recommends",
                "postgresql-common",
            ]))?;
            Some(NoMainCluster::during()?)
        }
        false => None,
    };
    step::run(
        apt()
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages),
    )?;
    drop(no_cluster);
    drop(policy);
    if packages
        .iter()
        .any(|package| package.starts_with("krb5-") || package == "haproxy")
    {
        // The suites bring realms and proxies of their own: the machine's are not to be started at the next boot, either.
        for service in ["krb5-kdc", "krb5-admin-server", "haproxy"] {
            step::run(
                Command::new("deb-systemd-helper")
                    // It asks on whose behalf.
                    .env("DPKG_MAINTSCRIPT_PACKAGE", service)
                    .args(["disable", &format!("{service}.service")]),
            )?;
        }
    }
    Ok(())
}

/// While this lives, installing the server makes no cluster, which would be started at the next boot.
struct NoMainCluster {
    before: Vec<u8>,
}

impl NoMainCluster {
    /// Read by the server package when it is configured (pg_createcluster(1)).
    const CONFIGURATION: &str = "/etc/postgresql-common/createcluster.conf";

    fn during() -> anyhow::Result<Self> {
        let before =
            fs::read(Self::CONFIGURATION).with_context(|| format!("cannot read {}", Self::CONFIGURATION))?;
        let mut text = before.clone();
        text.extend_from_slice(b"\ncreate_main_cluster = false\n");
        fs::write(Self::CONFIGURATION, text)?;
        Ok(Self { before })
    }
}

impl Drop for NoMainCluster {
    fn drop(&mut self) {
        let _ = fs::write(Self::CONFIGURATION, &self.before);
    }
}

/// While this lives, installing a package starts no service.
struct Policy {
    is_ours: bool,
}

impl Policy {
    fn forbid() -> anyhow::Result<Self> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(Self { is_ours: false });
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { is_ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .any(|line| (line.starts_with("ID=") || line.starts_with("ID_LIKE=")) && line.contains("debian"))
}

fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

/// pgAudit is packaged for each version of the server; the newest one here counts, else Debian 12's.
fn pgaudit_package() -> String {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max();
    format!("postgresql-{}-pgaudit", newest.unwrap_or(15))
}

fn missing_components() -> Vec<&'static str> {
    let lacks = |program: &str| {
        !Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    [("rustfmt", "rustfmt"), ("clippy-driver", "clippy")]
        .into_iter()
        .filter(|(program, _)| lacks(program))
        .map(|(_, component)| component)
        .collect()
}

fn tool(name: &str) -> Option<PathBuf> {
    let ours = ebpf_build::tools_folder().join("bin").join(name);
    if ours.exists() {
        return Some(ours);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.exists())
}
