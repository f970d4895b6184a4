//! Builds the kernel side. Owns the choice of toolchain; used by the agent's build script and by `cargo xtask setup`,
//! so that both mean the same thing by "able to build".
//!
//! Two toolchains serve: rustup's nightly with `rust-src` (an ordinary developer's machine), and Debian's own
//! packages `rustc-web cargo-web rust-web-src` (where rustup has no `rust-src`). Both need `bpf-linker`, which
//! must have been built for the compiler's LLVM.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// Version of `bpf-linker` that `setup` installs.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// Debian's packages for the second toolchain, and LLVM for `bpf-linker`.
pub const DEBIAN_PACKAGES: [&str; 5] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-clippy",
    "llvm-22-dev",
];

/// Where Debian's LLVM 22 keeps its programs; `bpf-linker` finds `llvm-config` by `PATH`.
pub const DEBIAN_LLVM_BIN: &str = "/usr/lib/llvm-22/bin";

/// A compiler that can build `core` for BPF.
#[derive(Clone, Debug)]
pub enum Toolchain {
    /// `rustup run nightly cargo`.
    RustupNightly,
    /// `/usr/bin/cargo` and `/usr/bin/rustc`.
    Debian,
}

impl Toolchain {
    /// The first one that is complete: rustup's, then Debian's.
    #[must_use]
    pub fn find() -> Option<Self> {
        if rustup_nightly_has_source() {
            return Some(Self::RustupNightly);
        }
        let complete = Path::new("/usr/bin/rustc").exists()
            && Path::new("/usr/bin/cargo").exists()
            && source_of("/usr/bin/rustc", &[]).is_some_and(|source| source.exists());
        complete.then_some(Self::Debian)
    }

    fn cargo(&self) -> Command {
        match self {
            Self::RustupNightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command.env_remove("RUSTC");
                command
            }
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc");
                command
            }
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RustupNightly => "rustup's nightly with rust-src",
            Self::Debian => "Debian's rustc-web with rust-web-src",
        })
    }
}

/// Folder for tools that `setup` builds, shared by all checkouts: `$XDG_CACHE_HOME/pgwitness/tools`.
#[must_use]
pub fn tools_folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    cache
        .unwrap_or_else(env::temp_dir)
        .join("pgwitness")
        .join("tools")
}

/// The linker: ours first, then one on the `PATH`.
#[must_use]
pub fn bpf_linker() -> Option<PathBuf> {
    let ours = tools_folder().join("bin").join("bpf-linker");
    if ours.exists() {
        return Some(ours);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join("bpf-linker"))
        .find(|candidate| candidate.exists())
}

/// Builds the crate in `source` for the architecture `arch` (Rust's name for it), with build products in `target`.
///
/// # Errors
///
/// Says what is missing and what to do, or that the compiler failed (its own messages go to stderr).
pub fn build(source: &Path, target: &Path, arch: &str) -> Result<PathBuf, String> {
    cargo(source, target, arch, &["build"], &[])?;
    Ok(target.join("bpfel-unknown-none/release/pgwitness-ebpf"))
}

/// Runs clippy over the crate in `source`; a warning is an error.
///
/// # Errors
///
/// As for [`build`].
pub fn lint(source: &Path, target: &Path, arch: &str) -> Result<(), String> {
    cargo(source, target, arch, &["clippy"], &["--", "-D", "warnings"])
}

fn cargo(source: &Path, target: &Path, arch: &str, command: &[&str], behind: &[&str]) -> Result<(), String> {
    let advice = "run `cargo xtask setup`, which installs it or prints what to install";
    let toolchain = Toolchain::find()
        .ok_or_else(|| format!("no Rust toolchain that can build the eBPF program was found: {advice}"))?;
    let linker = bpf_linker().ok_or_else(|| format!("bpf-linker was not found: {advice}"))?;
    let folder = linker.parent().unwrap_or(Path::new("/")).to_path_buf();
    // Debian's clippy looks for the compiler of its own folder by PATH.
    let folders = [folder, PathBuf::from("/usr/bin")].into_iter();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(folders.chain(env::split_paths(&path)))
        .map_err(|error| format!("PATH cannot be extended: {error}"))?;
    let status = toolchain
        .cargo()
        .current_dir(source)
        .args(command)
        .args([
            "--release",
            "--locked",
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(target)
        .args(behind)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{arch}\" -Cdebuginfo=2 -Clink-arg=--btf"),
        )
        .env("PATH", path)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env_remove("CLIPPY_ARGS")
        .status()
        .map_err(|error| format!("{toolchain} could not be started: {error}; {advice}"))?;
    if !status.success() {
        return Err(format!(
            "`cargo {}` of the eBPF program with {toolchain} failed ({status})",
            command.join(" ")
        ));
    }
    Ok(())
}

fn rustup_nightly_has_source() -> bool {
    source_of("rustup", &["run", "nightly", "rustc"]).is_some_and(|source| source.exists())
}

/// Where the standard library's source of a compiler would be.
fn source_of(program: &str, arguments: &[&str]) -> Option<PathBuf> {
    let output = Command::new(program)
        .args(arguments)
        .args(["--print", "sysroot"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core"))
}
