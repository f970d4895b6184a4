//! PostgreSQL's own regression tests: forty thousand statements by those who know the grammar best.
//!
//! Owns how they are run: one script after the other, as `pg_regress` starts psql, in the order of its schedule. What
//! the scripts print is not looked at: they are traffic here. Their sources are the distribution's source package.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::site::{Ran, Site};
use crate::program::Route;

/// Runs all of them.
pub(super) async fn run(site: &Site<'_>) -> Result<Ran> {
    let Some(source) = &site.plan.regress else {
        let reason = site.plan.regress_missing.clone();
        return Ok(Ran::Unavailable(
            reason.unwrap_or_else(|| "its sources are not there".to_owned()),
        ));
    };
    if !site.cluster.version().contains(MAJOR) {
        return Ok(Ran::Unavailable(format!(
            "the tests are those of PostgreSQL{MAJOR}x"
        )));
    }
    // The server reads data files and writes results, under an account that cannot read a cache in somebody's home.
    let copy = TempDir::with_prefix("pgwitness-regress-")?;
    let status = Command::new("cp")
        .arg("-a")
        .arg(source.join("."))
        .arg(copy.path())
        .status()?;
    ensure!(status.success(), "copying {} failed", source.display());
    for folder in ["", "results", "testtablespace"] {
        let folder = copy.path().join(folder);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    }
    let schedule =
        fs::read_to_string(copy.path().join("parallel_schedule")).context("the tests' schedule")?;
    let tests = schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test: "))
        .flat_map(str::split_whitespace);
    let mut count = 0_u32;
    for test in tests {
        let script = copy.path().join(format!("sql/{test}.sql"));
        // Fails where a test kills its own session; whatever it says, the log knows what it sent.
        site.run(psql(site, copy.path(), &script)?).await?;
        count += 1;
    }
    ensure!(count > 150, "only {count} tests in the schedule");
    Ok(Ran::Done)
}

/// As `pg_regress_main.c` and `initialize_environment()` of `pg_regress.c` do it.
fn psql(site: &Site<'_>, folder: &Path, script: &Path) -> Result<Command> {
    let mut psql = site.client("psql", Route::Unix);
    psql.args([
        "-X",
        "-a",
        "-q",
        "-v",
        "HIDE_TABLEAM=on",
        "-v",
        "HIDE_TOAST_COMPRESSION=on",
    ]);
    psql.env("PG_ABS_SRCDIR", folder)
        .env("PG_ABS_BUILDDIR", folder)
        .env("PG_LIBDIR", folder)
        .env("PG_DLSUFFIX", ".so")
        .env("PGTZ", "PST8PDT")
        .env("PGDATESTYLE", "Postgres, MDY")
        .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
        .env("PGAPPNAME", "pg_regress")
        .stdin(Stdio::from(
            fs::File::open(script).with_context(|| format!("opening {}", script.display()))?,
        ));
    Ok(psql)
}

/// As it stands in what the server says of its version. Tests of another version would call C functions that are not
/// there.
const MAJOR: &str = " 15.";
