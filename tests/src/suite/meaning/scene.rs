//! One tapped server with pgAudit, and the programs that run on it.
//!
//! Owns how the parts run, one after the other, each with a role and a database of its own. What they print is not looked
//! at: they are traffic.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::sums::Sums;
use super::{Plan, audit, grammar, judge, pair, record};
use crate::cluster::{Cluster, Witness, server_binaries};
use crate::csvlog;
use crate::process::Process;
use crate::route::Route;
use crate::screen::progress;
use crate::suite::settle;
use crate::suite::wire::drivers::Driver;
use crate::tap::{Settings, Tap, Tier};

/// The parts that run here. The last one asks the grammar about all texts of the others.
pub(super) const PARTS: [&str; 6] = [
    "corpus",
    "pgbench",
    "sqlalchemy",
    "django",
    "regress",
    "fingerprints",
];

/// Runs the parts under one tap and judges them.
///
/// # Errors
/// When server, agent or collector fail, or what they wrote cannot be read.
pub(super) async fn run(plan: &Plan, sums: &mut Sums) -> Result<()> {
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Audit, &[])?;
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto)).await?;
    cluster
        .start()
        .await
        .context("a server with pgAudit: install the package postgresql-15-pgaudit")?;
    let mut ran = Vec::new();
    for part in PARTS
        .into_iter()
        .filter(|part| *part != "fingerprints" && plan.has(part))
    {
        match run_part(plan, &cluster, part).await {
            Ok(None) => ran.push(part),
            Ok(Some(reason)) => sums.unavailable(part, &reason),
            Err(error) => sums.failed(part, &error),
        }
    }
    settle(&tap).await?;
    cluster.stop().await?;
    settle(&tap).await?;
    tap.stop().await?;
    let logged = audit::sessions(csvlog::lines(&fs::read(cluster.csvlog())?)?);
    let recorded = record::read(tap.collector_binary(), &tap.collector_data())?;
    let lines = logged
        .iter()
        .flat_map(|session| &session.requests)
        .flat_map(|request| &request.groups);
    let functions: BTreeSet<String> = judge::functions(lines.flat_map(|group| &group.lines));
    for part in ran {
        sums.compare(part, &pair::pair(&logged, &recorded, &role_of(part)), &functions);
    }
    if plan.has("fingerprints") {
        let texts = recorded.iter().flat_map(|session| &session.requests).flatten();
        grammar::run(
            plan,
            texts.filter(|event| !event.failed()).map(record::Event::text),
            sums,
        )?;
    }
    if plan.keep {
        fs::copy(cluster.csvlog(), tap.folder().join("server.csv"))?;
        progress(&format!("kept: {}", tap.keep().display()));
    }
    Ok(())
}

/// Runs one part; answers why it cannot be run here, if it cannot.
async fn run_part(plan: &Plan, cluster: &Cluster, part: &str) -> Result<Option<String>> {
    let client = Client::prepare(cluster, &role_of(part)).await?;
    match part {
        "corpus" => corpus(plan, &client).await.map(|()| None),
        "pgbench" => pgbench(plan, &client).await.map(|()| None),
        "sqlalchemy" | "django" => application(plan, &client, part).await,
        _ => regress(plan, cluster, &client).await,
    }
}

/// Every corner case by hand, file after file in one session each.
async fn corpus(plan: &Plan, client: &Client<'_>) -> Result<()> {
    let folder = plan.sources.join("tests/corpus/meaning");
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    ensure!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        client.script(&file).await?;
    }
    Ok(())
}

/// The simple and the extended protocol, and prepared statements.
async fn pgbench(plan: &Plan, client: &Client<'_>) -> Result<()> {
    let mut tables = client.command("pgbench");
    client.run(tables.args(["-i", "-q", "-s", "1"])).await?;
    let transactions = if plan.full { "400" } else { "60" };
    for mode in ["simple", "extended", "prepared"] {
        let mut bench = client.command("pgbench");
        bench.args(["-n", "-c", "2", "-R", "200", "-t", transactions, "-M", mode]);
        client.run(&mut bench).await?;
    }
    Ok(())
}

/// What libraries write that make SQL of objects: the programs of `tests/drivers`, whose journals are not looked at here.
async fn application(plan: &Plan, client: &Client<'_>, name: &str) -> Result<Option<String>> {
    let driver = Driver::named(&plan.sources, name)?;
    let folder = match driver.ready(&plan.sources) {
        Ok(folder) => folder,
        Err(reason) => return Ok(Some(reason)),
    };
    let mut shell = client.program(Path::new("/bin/sh"));
    driver
        .runs(&mut shell, &folder)?
        .env("PGW_ROUNDS", if plan.full { "5" } else { "1" })
        .env("PGW_JOURNAL", client.folder().join("journal"));
    if let Some(path) = std::env::var_os("PATH") {
        shell.env("PATH", path);
    }
    client.run(&mut shell).await.map(|()| None)
}

/// PostgreSQL's own regression tests, as `pg_regress` runs them; in the short form those that need few others.
async fn regress(plan: &Plan, cluster: &Cluster, client: &Client<'_>) -> Result<Option<String>> {
    let Some(source) = &plan.regress else {
        let reason = plan.regress_missing.clone();
        return Ok(Some(
            reason.unwrap_or_else(|| "its sources are not there".to_owned()),
        ));
    };
    if !cluster.version().contains(MAJOR) {
        return Ok(Some(format!("the tests are those of PostgreSQL{MAJOR}x")));
    }
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
    for test in tests.filter(|test| plan.full || SLICE.contains(test)) {
        let mut psql = client.command("psql");
        psql.args([
            "-X",
            "-a",
            "-q",
            "-v",
            "HIDE_TABLEAM=on",
            "-v",
            "HIDE_TOAST_COMPRESSION=on",
        ]);
        psql.env("PG_ABS_SRCDIR", copy.path())
            .env("PG_ABS_BUILDDIR", copy.path())
            .env("PG_LIBDIR", copy.path())
            .env("PG_DLSUFFIX", ".so")
            .env("PGTZ", "PST8PDT")
            .env("PGDATESTYLE", "Postgres, MDY")
            .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
            .stdin(Stdio::from(fs::File::open(
                copy.path().join(format!("sql/{test}.sql")),
            )?));
        client.start(&mut psql)?.wait(PATIENCE).await?;
    }
    Ok(None)
}

/// Who runs a part's programs.
pub(super) struct Client<'a> {
    cluster: &'a Cluster,
    role: String,
    folder: TempDir,
}

impl<'a> Client<'a> {
    /// Makes role and database, with pgAudit's event triggers, which tell of the objects of definitions.
    ///
    /// # Errors
    /// When the server refuses them.
    pub(super) async fn prepare(cluster: &'a Cluster, role: &str) -> Result<Self> {
        let admin = cluster.superuser("postgres").await?;
        let password = cluster.password();
        admin
            .batch_execute(&format!(
                "CREATE ROLE {role} SUPERUSER REPLICATION LOGIN PASSWORD '{password}'"
            ))
            .await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {role} OWNER {role}"))
            .await?;
        cluster
            .superuser(role)
            .await?
            .batch_execute("CREATE EXTENSION pgaudit")
            .await?;
        let folder = TempDir::with_prefix("pgwitness-meaning-")?;
        Ok(Self {
            cluster,
            role: role.to_owned(),
            folder,
        })
    }

    /// A client program of the server's version.
    pub(super) fn command(&self, name: &str) -> Command {
        self.program(&self.cluster.client_binary(name))
    }

    /// Any program, with the settings that every libpq understands.
    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .envs(self.cluster.client_environment(Route::Unix))
            .env("PGUSER", &self.role)
            .env("PGPASSWORD", self.cluster.password())
            .env("PGDATABASE", &self.role)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Where its files are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// psql with a script, whatever the server says to it.
    ///
    /// # Errors
    /// When it cannot be run, or does not end.
    pub(super) async fn script(&self, file: &Path) -> Result<()> {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q"]).stdin(Stdio::from(
            fs::File::open(file).with_context(|| format!("opening {}", file.display()))?,
        ));
        self.start(&mut psql)?.wait(PATIENCE).await.map(drop)
    }

    fn start(&self, command: &mut Command) -> Result<Process> {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let said = fs::File::create(self.folder.path().join("said"))?;
        command.stdout(said.try_clone()?).stderr(said);
        Process::start(&name, command, Signal::SIGTERM)
    }

    /// Runs a program that has to end well.
    async fn run(&self, command: &mut Command) -> Result<()> {
        let status = self.start(command)?.wait(PATIENCE).await?;
        let said = fs::read(self.folder.path().join("said")).unwrap_or_default();
        ensure!(status.success(), "{status}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }
}

/// The role under which a part's sessions log in.
fn role_of(part: &str) -> String {
    format!("m_{part}")
}

/// Tests of the short form.
const SLICE: [&str; 17] = [
    "test_setup",
    "copy",
    "insert",
    "insert_conflict",
    "create_aggregate",
    "create_cast",
    "drop_if_exists",
    "delete",
    "namespace",
    "select_into",
    "prepare",
    "portals",
    "with",
    "truncate",
    "sequence",
    "merge",
    "rowtypes",
];
/// As it stands in what the server says of its version. Tests of another version would call C functions that are not there.
const MAJOR: &str = " 15.";
/// One script: seconds, minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);
