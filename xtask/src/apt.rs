//! Debian's packages, from the mirror that this machine's apt uses, without touching the machine.
//!
//! Owns a package index of its own in a folder of the caller's. It refuses to install: it fetches files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// apt over the index of one suite.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Over a package index in `folder`, fetched now.
    pub(crate) fn new(suite: &str, folder: &Path) -> anyhow::Result<Self> {
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

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.args(arguments);
        command
    }

    /// The first dependency of a package whose name begins like this.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> anyhow::Result<Option<String>> {
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

    /// Fetches the files of packages and of everything that they need into `folder`; nothing counts as installed.
    pub(crate) fn download_all(&self, names: &[&str], folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder.join("partial"))?;
        let archives = format!("Dir::Cache::archives={}", folder.display());
        let arguments = [
            "install",
            "--download-only",
            "--yes",
            "--no-install-recommends",
            "-o",
            &archives,
        ];
        quiet(self.command("apt-get", &arguments).args(names))
    }

    /// Fetches a package's file into `folder`.
    pub(crate) fn download(&self, package: &str, folder: &Path) -> anyhow::Result<()> {
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

/// The packages' files in a folder.
pub(crate) fn packages(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

/// Runs a program that talks too much; what it said counts only if it fails.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<()> {
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
