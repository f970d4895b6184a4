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

use crate::step;

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

/// apt over the index of one suite.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, folder: &Path) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let list = folder.join("sources.list");
        let mirror = mirror()?;
        fs::write(&list, format!("deb [signed-by={KEYS}] {mirror} {suite} main\n"))?;
        // Nothing is installed, as far as this index is concerned.
        fs::write(folder.join("status"), "")?;
        let option = |name: &str, value: PathBuf| format!("{name}={}", value.display());
        let apt = Self {
            options: vec![
                option("Dir::Etc::sourcelist", list),
                option("Dir::Etc::sourceparts", "/dev/null".into()),
                option("Dir::State::Lists", folder.join("lists")),
                option("Dir::State::status", folder.join("status")),
                option("Dir::Cache", folder.join("cache")),
                "APT::Architecture=amd64".to_owned(),
                // The cache is the user's; a download as another account could not write it.
                "APT::Sandbox::User=root".to_owned(),
                // Translations and descriptions are of no use here.
                "Acquire::Languages=none".to_owned(),
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            ],
        };
        quiet(&mut apt.command("apt-get", &["update"]))
            .with_context(|| format!("the mirror of this machine has no index of {suite}"))?;
        Ok(apt)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.args(arguments);
        command
    }

    /// The first dependency of a package whose name begins like this.
    fn dependency(&self, package: &str, prefix: &str) -> anyhow::Result<Option<String>> {
        let output = self
            .command(
                "apt-cache",
                &["depends", "--no-recommends", "--no-suggests", package],
            )
            .stderr(Stdio::null())
            .output()
            .context("cannot start apt-cache")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut names = said
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.find(|name| name.starts_with(prefix)).map(str::to_owned))
    }

    fn download(&self, package: &str, folder: &Path) -> anyhow::Result<()> {
        quiet(
            self.command("apt-get", &["download", package])
                .current_dir(folder),
        )
    }
}

/// Where this machine gets Debian from.
fn mirror() -> anyhow::Result<String> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(LABEL) $(COMPONENT) $(REPO_URI)",
            "Created-By: Packages",
        ])
        .output()
        .context("cannot start apt-get")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines()
        .find_map(|line| line.strip_prefix("Debian main "))
        .map(str::to_owned)
        .context("apt is not configured for a mirror of Debian")
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

fn packages(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

/// Runs a program that talks too much; what it said counts only if it fails.
fn quiet(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start apt-get")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).collect();
    ensure!(output.status.success(), "{}", complaints.join("; "));
    Ok(())
}

/// Of the package debian-archive-keyring, which every Debian has.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// In a suite's folder: the kernel's release, and the kernel.
const RELEASE: &str = "release";
const IMAGE: &str = "vmlinuz";
