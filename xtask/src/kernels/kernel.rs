//! A kernel of Debian, from the mirror that this machine's apt uses.
//!
//! Owns a folder a suite in the cache, filled once. It asks apt with a package index of its own, so that neither the
//! machine's sources nor its installed packages are touched, and unpacks nothing but the kernel itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    apt::{Apt, packages, quiet},
    step,
};

/// A kernel that can be booted.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says: `6.1.0-50-amd64`.
    pub(crate) release: String,
    /// The compressed image.
    pub(crate) image: PathBuf,
}

/// The newest kernel of a suite when it was fetched first.
///
/// # Errors
/// When it cannot be had; the message says why.
pub(crate) fn fetch(suite: &str) -> anyhow::Result<Kernel> {
    if env::consts::ARCH != "x86_64" {
        bail!("only kernels for x86-64 are booted");
    }
    let place = cache()?.join(suite);
    if !place.join(RELEASE).is_file() {
        eprintln!("xtask: kernels: fetching the kernel of {suite}");
        let unfinished = place.with_file_name(format!("unfinished-{suite}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        let fetched = fetch_into(suite, &unfinished);
        if fetched.is_err() {
            fs::remove_dir_all(&unfinished)?;
        }
        fetched?;
        fs::rename(&unfinished, &place)?;
    }
    Ok(Kernel {
        release: fs::read_to_string(place.join(RELEASE))?.trim().to_owned(),
        image: place.join(IMAGE),
    })
}

/// A statically linked shell with everything that a machine needs to come up. Debian's package, of this machine's own
/// release; it is not installed.
///
/// # Errors
/// When it cannot be had.
pub(crate) fn busybox() -> anyhow::Result<PathBuf> {
    let folder = cache()?.join("busybox");
    let program = folder.join("bin/busybox");
    if !program.is_file() {
        fs::create_dir_all(&folder)?;
        quiet(
            Command::new("apt-get")
                .args(["download", "busybox-static"])
                .current_dir(&folder),
        )?;
        for package in packages(&folder)? {
            step::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&folder))?;
            fs::remove_file(package)?;
        }
    }
    Ok(program)
}

fn cache() -> anyhow::Result<PathBuf> {
    let tools = ebpf_build::tools_folder();
    Ok(tools.parent().context("the cache has no folder")?.join("kernels"))
}

fn fetch_into(suite: &str, folder: &Path) -> anyhow::Result<()> {
    let apt = Apt::new(suite, &folder.join("apt"))?;
    let image = apt
        .dependency("linux-image-amd64", "linux-image-")?
        .with_context(|| format!("{suite} has no package linux-image-amd64"))?;
    apt.download(&image, folder)?;
    if !unpack(folder)? {
        // Newer packages only lead to the image.
        let binary = apt
            .dependency(&image, "linux-binary-")?
            .with_context(|| format!("{image} has no kernel in it"))?;
        apt.download(&binary, folder)?;
        ensure!(unpack(folder)?, "{binary} has no kernel in it");
    }
    let release = image.trim_start_matches("linux-image-");
    fs::write(folder.join(RELEASE), release)?;
    // The index is ten times the kernel.
    fs::remove_dir_all(folder.join("apt"))?;
    Ok(())
}

/// Takes the image out of the packages that lie there, and removes them. Returns whether there was one.
fn unpack(folder: &Path) -> anyhow::Result<bool> {
    for package in packages(folder)? {
        let mut files = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&package)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dpkg-deb")?;
        // To one file, whatever it is called; tar fails if there is none.
        let image = fs::File::create(folder.join(IMAGE))?;
        let tar = Command::new("tar")
            .args(["-x", "--to-stdout", "--wildcards", "*/vmlinuz*"])
            .stdin(files.stdout.take().context("dpkg-deb has no output")?)
            .stdout(image)
            .stderr(Stdio::null())
            .status()
            .context("cannot start tar")?;
        files.wait()?;
        fs::remove_file(package)?;
        if tar.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// In a suite's folder: the kernel's release, and the kernel.
const RELEASE: &str = "release";
const IMAGE: &str = "vmlinuz";
