//! Poolers of another Debian than this machine's, for `truth --suite pooler`.
//!
//! Owns a folder in the cache with the unpacked packages of one suite: a root in which its programs run under their own
//! names, with their own libraries (chroot). Nothing is installed.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    apt::{Apt, packages},
    step,
};

/// The folder, filled once. The suites' roots are in it by their names.
///
/// # Errors
/// When the packages cannot be had; the message says why.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    if env::consts::ARCH != "x86_64" {
        bail!("only packages for x86-64 are fetched");
    }
    let folder = ebpf_build::tools_folder()
        .parent()
        .context("the cache has no folder")?
        .join("poolers");
    let root = folder.join(SUITE);
    if root.join(PROGRAM).is_file() {
        return Ok(folder);
    }
    eprintln!("xtask: poolers: fetching PgBouncer of {SUITE}");
    let unfinished = folder.join(format!("unfinished-{SUITE}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let fetched = fetch(&unfinished.join("root"), &unfinished.join("apt"));
    if fetched.is_ok() {
        fs::rename(unfinished.join("root"), &root)?;
    }
    fs::remove_dir_all(&unfinished)?;
    fetched?;
    Ok(folder)
}

fn fetch(root: &std::path::Path, index: &std::path::Path) -> anyhow::Result<()> {
    let apt = Apt::new(SUITE, index)?;
    let files = index.join("files");
    apt.download_all(&[PACKAGE], &files)?;
    // The packages take it for granted that these are one (usrmerge).
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for package in packages(&files)? {
        step::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(root))?;
    }
    Ok(())
}

/// Debian 13: PgBouncer 1.24, which renames and shares prepared statements.
const SUITE: &str = "trixie";
const PACKAGE: &str = "pgbouncer";
const PROGRAM: &str = "usr/sbin/pgbouncer";
