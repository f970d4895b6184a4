//! The server's own grammar as a second opinion of statements: `cargo xtask oracle`, and for `truth --suite meaning --full`.
//!
//! Owns the building of `tests/oracle`, in a target folder of its own. Its bindings are generated from C headers with
//! libclang: this machine's, or Debian's, which is unpacked in the cache; nothing is installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

use crate::{
    apt::{Apt, packages},
    build, step,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// SQL files, or a JSON array of statements
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Prints one JSON object.
///
/// # Errors
/// When the program cannot be built here, or a file not be read.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    step::run(Command::new(ensure()?).args(&args.files))?;
    Ok(ExitCode::SUCCESS)
}

/// The program.
///
/// # Errors
/// When it cannot be built here; the message says why.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let folder = step::root().join("tests/oracle");
    let target = build::target().join("oracle");
    let mut cargo = step::cargo();
    cargo
        .current_dir(&folder)
        .args(["build", "--locked"])
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    if env::var_os("LIBCLANG_PATH").is_none() && !has_libclang(Path::new(SYSTEM)) {
        let root = unpacked()?;
        let libraries = root.join(SYSTEM.trim_start_matches('/'));
        let llvm = root.join("usr/lib/llvm-14/lib");
        cargo
            .env(
                "LD_LIBRARY_PATH",
                format!("{}:{}", libraries.display(), llvm.display()),
            )
            .env("LIBCLANG_PATH", libraries);
    }
    if let Some(headers) = compiler_headers() {
        cargo.env("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{headers}"));
    }
    step::run(&mut cargo).context("building tests/oracle")?;
    Ok(target.join("debug/pgwitness-oracle"))
}

/// As bindgen looks for it.
fn has_libclang(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_c = name.starts_with("libclang.so")
            || name.starts_with("libclang-") && !name.starts_with("libclang-cpp");
        is_c && name.contains(".so")
    })
}

/// Where the C compiler keeps `stddef.h` and its like, which libclang alone does not have.
fn compiler_headers() -> Option<String> {
    let output = Command::new("gcc")
        .arg("-print-file-name=include")
        .output()
        .ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(folder.trim().to_owned()).filter(|folder| !folder.is_empty())
}

/// The folder with Debian's libclang, filled once.
fn unpacked() -> anyhow::Result<PathBuf> {
    if env::consts::ARCH != "x86_64" {
        bail!("there is no libclang, and only packages for x86-64 are fetched");
    }
    let folder = ebpf_build::tools_folder()
        .parent()
        .context("the cache has no folder")?
        .join("libclang");
    if has_libclang(&folder.join(SYSTEM.trim_start_matches('/'))) {
        return Ok(folder);
    }
    eprintln!("xtask: fetching libclang");
    let unfinished = folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let files = unfinished.join("files");
    fs::create_dir_all(&files)?;
    let apt = Apt::new(SUITE, &unfinished.join("apt"))?;
    for package in PACKAGES {
        apt.download(package, &files)?;
    }
    let root = unfinished.join("root");
    for package in packages(&files)? {
        step::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&root, &folder)?;
    fs::remove_dir_all(&unfinished)?;
    Ok(folder)
}

/// Debian's folder of libraries.
const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu";
/// Debian 12.
const SUITE: &str = "bookworm";
/// Without what every machine with a compiler has.
const PACKAGES: [&str; 2] = ["libclang1-14", "libllvm14"];
