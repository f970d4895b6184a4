//! Programs that keep a journal: those of `tests/drivers`, and one of this crate; and one that needs none.
//!
//! Owns the reading of `tests/drivers/drivers.toml` and how its programs are prepared and run. It refuses to know any
//! language: a driver is two command lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::site::{Ran, Site};
use crate::channel::NO_GSS;
use crate::program::Route;
use crate::tap::sibling;

/// One program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::suite) struct Driver {
    pub(super) name: String,
    #[expect(dead_code, reason = "for people, and to keep unknown keys out")]
    language: String,
    folder: PathBuf,
    #[serde(default)]
    prepare: Vec<String>,
    run: String,
    #[serde(default)]
    pub(super) short: bool,
    /// Whether it encrypts by GSSAPI where libpq's environment asks for it.
    #[serde(default)]
    gss: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    driver: Vec<Driver>,
}

/// All of them.
///
/// # Errors
/// When the list cannot be read.
pub(in crate::suite) fn list(sources: &Path) -> Result<Vec<Driver>> {
    let path = sources.join("tests/drivers/drivers.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(manifest.driver)
}

/// The program of this crate.
pub(super) async fn tokio_postgres(site: &Site<'_>) -> Result<Ran> {
    if site.route(Route::Tcp) == Route::Gss {
        return Ok(Ran::Unavailable(NO_GSS.to_owned()));
    }
    let mut command = site.command(&sibling("truth-journal")?, Route::Tcp);
    command.env("PGW_ROUNDS", rounds(site));
    site.succeed(command).await?;
    Ok(Ran::Done)
}

/// The program of this crate that speaks the protocol by hand. It keeps no journal: the log is its witness.
pub(super) async fn protocol(site: &Site<'_>) -> Result<Ran> {
    if site.route(Route::Unix) == Route::Gss {
        return Ok(Ran::Unavailable(NO_GSS.to_owned()));
    }
    site.succeed(site.command(&sibling("truth-protocol")?, Route::Unix))
        .await?;
    Ok(Ran::Done)
}

/// A program of `tests/drivers`, over TCP.
pub(super) async fn run(site: &Site<'_>, driver: &Driver) -> Result<Ran> {
    if site.route(Route::Tcp) == Route::Gss && !driver.gss {
        return Ok(Ran::Unavailable(
            "this driver has no GSSAPI encryption".to_owned(),
        ));
    }
    let folder = match driver.ready(&site.plan.sources) {
        Ok(folder) => folder,
        Err(reason) => return Ok(Ran::Unavailable(reason)),
    };
    let mut command = site.command(Path::new("/bin/sh"), Route::Tcp);
    driver
        .runs(&mut command, &folder)?
        .env("PGW_ROUNDS", rounds(site));
    if !driver.gss {
        // lib/pq refuses to start where it does not know a setting.
        command.env_remove("PGGSSENCMODE");
    }
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let ended = site.run(command).await?;
    match ended.status.code() {
        Some(0) => Ok(Ran::Done),
        Some(CANNOT_RUN) => Ok(Ran::Unavailable(ended.stderr.trim().to_owned())),
        _ => bail!(
            "{} failed with {}: {}",
            driver.name,
            ended.status,
            ended.stderr.trim()
        ),
    }
}

impl Driver {
    /// The one of this name.
    ///
    /// # Errors
    /// When the list cannot be read, or has none.
    pub(in crate::suite) fn named(sources: &Path, name: &str) -> Result<Self> {
        let mut all = list(sources)?.into_iter();
        all.find(|driver| driver.name == name)
            .with_context(|| format!("no driver {name}"))
    }

    /// Makes it ready to run in the folder that it answers; why it cannot be run here, if it cannot.
    pub(in crate::suite) fn ready(&self, sources: &Path) -> Result<PathBuf, String> {
        let folder = sources.join("tests/drivers").join(&self.folder);
        for line in &self.prepare {
            prepared(&folder, line)?;
        }
        Ok(folder)
    }

    /// Has a shell, whose command this is, run it.
    ///
    /// # Errors
    /// When there is no home.
    pub(in crate::suite) fn runs<'a>(
        &self,
        shell: &'a mut Command,
        folder: &Path,
    ) -> Result<&'a mut Command> {
        let cache = cache()?;
        Ok(shell
            .args(["-c", &self.run])
            .current_dir(folder)
            .env("PGW_DRIVER_CACHE", cache))
    }
}

/// Each command line once a run: what came out of it the first time is true still.
fn prepared(folder: &Path, line: &str) -> Result<(), String> {
    static DONE: Mutex<BTreeMap<(PathBuf, String), Result<(), String>>> = Mutex::new(BTreeMap::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    done.entry((folder.to_owned(), line.to_owned()))
        .or_insert_with(|| prepare(folder, line).unwrap_or_else(|error| Err(format!("{error:#}"))))
        .clone()
}

/// With the caller's environment: registries and proxies are configured there.
fn prepare(folder: &Path, line: &str) -> Result<Result<(), String>> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let output = Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(folder)
        .env("PGW_DRIVER_CACHE", cache)
        .stdin(Stdio::null())
        .output()
        .context("starting a shell")?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<_> = said.lines().rev().take(3).collect();
    let last: Vec<_> = last.into_iter().rev().collect();
    Ok(Err(format!("`{line}` failed: {}", last.join("; "))))
}

/// What drivers fetch and build stays there from run to run.
fn cache() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/pgwitness/drivers"))
}

fn rounds(site: &Site<'_>) -> &'static str {
    if site.plan.full { "5" } else { "1" }
}

/// Exit code of a driver that lacks something on this machine (sysexits.h has 77 for permissions; Automake, for tests
/// that are skipped).
const CANNOT_RUN: i32 = 77;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_programs_that_are_there() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let drivers = list(&sources).unwrap();
        assert!(drivers.iter().any(|driver| driver.short));
        for driver in drivers {
            assert!(
                sources.join("tests/drivers").join(&driver.folder).is_dir(),
                "{driver:?}"
            );
        }
    }
}
