//! A kernel of Debian with its modules, from the mirror that this machine's apt uses.
//!
//! Owns a folder a suite in the cache, filled once. It asks apt with a package index of its own, so that neither the
//! machine's sources nor its installed packages are touched, and unpacks the kernel and those modules that a machine of
//! ours can have a use for.

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
    /// What is `/lib/modules` in the machine. Its modules are not compressed, and `modules.dep` is of what is there.
    pub(crate) modules: PathBuf,
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
    if !(place.join(RELEASE).is_file() && place.join(MODULES).is_dir()) {
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
        // One without modules.
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(&unfinished, &place)?;
    }
    Ok(Kernel {
        release: fs::read_to_string(place.join(RELEASE))?.trim().to_owned(),
        image: place.join(IMAGE),
        modules: place.join(MODULES),
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
    // The image of newer packages is in one that this one only leads to, and so are the modules.
    for prefix in ["linux-binary-", "linux-modules-"] {
        if let Some(package) = apt.dependency(&image, prefix)? {
            apt.download(&package, folder)?;
        }
    }
    let unpacked = folder.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    for package in packages(folder)? {
        unpack(&package, &unpacked)?;
        fs::remove_file(package)?;
    }
    let release = image.trim_start_matches("linux-image-");
    arrange(&unpacked, release, folder).with_context(|| format!("{image} is not as expected"))?;
    // The index is ten times the kernel.
    for done in [folder.join("apt"), unpacked] {
        fs::remove_dir_all(done)?;
    }
    fs::write(folder.join(RELEASE), release)?;
    Ok(())
}

/// Takes what is wanted out of a package. It need not have all of it.
fn unpack(package: &Path, into: &Path) -> anyhow::Result<()> {
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--wildcards", "-C"]).arg(into);
    for wanted in WANTED {
        tar.arg(format!("*/{wanted}"));
    }
    // It fails for each that is not there.
    tar.stdin(files.stdout.take().context("dpkg-deb has no output")?)
        .stderr(Stdio::null())
        .status()
        .context("cannot start tar")?;
    let status = files.wait()?;
    ensure!(status.success(), "dpkg-deb failed ({status})");
    Ok(())
}

/// Puts image and modules where they are looked for, with lists of what is there.
fn arrange(unpacked: &Path, release: &str, folder: &Path) -> anyhow::Result<()> {
    let first = |places: &[String]| {
        places
            .iter()
            .map(|place| unpacked.join(place))
            .find(|path| path.exists())
    };
    let image = first(&[
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ]);
    fs::rename(image.context("there is no kernel in it")?, folder.join(IMAGE))?;
    let modules = first(&[
        format!("lib/modules/{release}"),
        format!("usr/lib/modules/{release}"),
    ]);
    let place = folder.join(MODULES);
    fs::create_dir_all(&place)?;
    fs::rename(
        modules.context("there are no modules in it")?,
        place.join(release),
    )?;
    // Not every program that loads modules can read compressed ones.
    let busybox = busybox()?;
    let mut unxz = Command::new(&busybox);
    unxz.arg("find").arg(&place).args(["-name", "*.ko.xz", "-exec"]);
    step::run(unxz.arg(&busybox).args(["unxz", "{}", ";"]))?;
    step::run(
        Command::new(&busybox)
            .args(["depmod", "-b"])
            .arg(folder)
            .arg(release),
    )
}

/// Kernel and lists, file systems, networks, and what they and the machine's devices use. Sound and graphics cards are most
/// of a kernel's modules.
const WANTED: [&str; 12] = [
    "vmlinuz*",
    "modules.builtin*",
    "modules.order",
    "kernel/arch/x86/crypto/*",
    "kernel/crypto/*",
    "kernel/drivers/net/dummy.ko*",
    "kernel/drivers/net/tun.ko*",
    "kernel/drivers/net/veth.ko*",
    "kernel/drivers/virtio/*",
    "kernel/fs/*",
    "kernel/lib/*",
    "kernel/net/*",
];
/// In a suite's folder: the kernel's release, the kernel, and its modules (as `depmod` wants them below a root).
const RELEASE: &str = "release";
const IMAGE: &str = "vmlinuz";
const MODULES: &str = "lib/modules";
