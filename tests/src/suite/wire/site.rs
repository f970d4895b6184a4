//! One program's place in a run: its role, its database, its way to the server, its journal.
//!
//! Owns how client programs are started. It refuses to configure any of them for pgwitness. Each part has a role of
//! its own, so that sessions are told apart by it, and a database of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::Plan;
use crate::cluster::Cluster;
use crate::process::Process;
use crate::program::Route;

/// Where one part runs.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) cluster: &'a Cluster,
    /// Role and database.
    pub(super) role: String,
    pub(super) plan: &'a Plan,
    clients: PathBuf,
    folder: TempDir,
}

/// How a part went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Done,
    /// It cannot run here, because …
    Unavailable(String),
}

/// What a program said and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl<'a> Site<'a> {
    /// Makes role and database.
    ///
    /// # Errors
    /// When the server refuses them.
    pub(super) async fn prepare(
        plan: &'a Plan,
        cluster: &'a Cluster,
        part: &str,
        clients: &Path,
    ) -> Result<Self> {
        let role = role_of(part);
        let admin = recovered(cluster).await?;
        let password = cluster.password();
        admin
            .batch_execute(&format!(
                "CREATE ROLE {role} SUPERUSER REPLICATION LOGIN PASSWORD '{password}'"
            ))
            .await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {role} OWNER {role}"))
            .await?;
        Ok(Self {
            cluster,
            role,
            plan,
            clients: clients.to_owned(),
            folder: TempDir::with_prefix("pgwitness-part-")?,
        })
    }

    /// A session of the part's role, for what the suite itself has to do in its name.
    pub(super) async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.cluster.socket_folder())
            .port(self.cluster.port())
            .user(&self.role)
            .password(self.cluster.password())
            .dbname(&self.role)
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A client program of the distribution's PostgreSQL.
    pub(super) fn client(&self, name: &str, route: Route) -> Command {
        self.command(&self.clients.join(name), route)
    }

    /// The way to the server: the plan's, where it names one.
    pub(super) fn route(&self, route: Route) -> Route {
        self.plan.transport.unwrap_or(route)
    }

    /// Any program, with the settings that every libpq understands.
    pub(super) fn command(&self, program: &Path, route: Route) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .envs(self.cluster.client_environment(self.route(route)))
            .env("PGUSER", &self.role)
            .env("PGPASSWORD", self.cluster.password())
            .env("PGDATABASE", &self.role)
            .env("PGW_JOURNAL", self.journal())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Where the part's journal is written.
    pub(super) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// The journal, empty if no program kept one.
    pub(super) fn journal_text(&self) -> Result<String> {
        match fs::read_to_string(self.journal()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read.context("reading the journal"),
        }
    }

    /// A file of the part.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A path in the part's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a program; what it says goes to files that [`Site::finish`] reads.
    pub(super) fn start(&self, mut command: Command) -> Result<Started> {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let stdout = tempfile::NamedTempFile::new_in(self.folder.path())?;
        let stderr = tempfile::NamedTempFile::new_in(self.folder.path())?;
        command
            .stdout(File::create(stdout.path())?)
            .stderr(File::create(stderr.path())?);
        let process = Process::start(&name, &mut command, Signal::SIGTERM)?;
        Ok(Started {
            name,
            process,
            stdout,
            stderr,
        })
    }

    /// Waits for the end, whatever it is.
    pub(super) async fn finish(&self, mut started: Started) -> Result<Ended> {
        let patience = if self.plan.full { FULL_PATIENCE } else { PATIENCE };
        let status = started.process.wait(patience).await?;
        let read = |file: &tempfile::NamedTempFile| -> Result<String> {
            Ok(String::from_utf8_lossy(&fs::read(file.path())?).into_owned())
        };
        Ok(Ended {
            status,
            stdout: read(&started.stdout)?,
            stderr: read(&started.stderr)?,
        })
    }

    /// Runs a program to its end, whatever it is.
    pub(super) async fn run(&self, command: Command) -> Result<Ended> {
        let started = self.start(command)?;
        self.finish(started).await
    }

    /// Runs a program that has to end well.
    pub(super) async fn succeed(&self, command: Command) -> Result<Ended> {
        let started = self.start(command)?;
        let name = started.name.clone();
        let ended = self.finish(started).await?;
        if !ended.status.success() {
            bail!("{name} failed with {}: {}", ended.status, ended.stderr.trim());
        }
        Ok(ended)
    }
}

/// A session of the superuser, also if the last part left the server in recovery.
async fn recovered(cluster: &Cluster) -> Result<Client> {
    let deadline = Instant::now() + RECOVERY_PATIENCE;
    loop {
        match cluster.superuser("postgres").await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(200)).await,
            result => return result,
        }
    }
}

/// A running program.
#[derive(Debug)]
pub(super) struct Started {
    name: String,
    pub(super) process: Process,
    stdout: tempfile::NamedTempFile,
    stderr: tempfile::NamedTempFile,
}

/// The role under which a part's sessions log in.
pub(super) fn role_of(part: &str) -> String {
    format!("w_{}", part.replace('-', "_"))
}

const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(90);
/// PostgreSQL's regression suite takes minutes under a log of every statement.
const FULL_PATIENCE: Duration = Duration::from_secs(1200);
