//! Unchanged programs that all log in as the same role, each as a service of its own.
//!
//! Owns how psql, pgbench, a Python service, a shell job and a small Rust client are started against a cluster. It
//! refuses to configure any of them for pgwitness: all they carry is a comment with their name in each statement,
//! which only the server's log shows. Separate from the suites, which choose the mix.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cluster::{APP_ROLE, Cluster, DATABASE};
use crate::process::Process;
pub use crate::route::Route;
use crate::tap::sibling;
use crate::unit::Unit;

/// One program: a name, its unit, and the way to the server.
#[derive(Debug)]
pub struct Program {
    name: String,
    route: Route,
    unit: Unit,
    environment: Vec<(&'static str, String)>,
    binaries: PathBuf,
    scripts: TempDir,
}

impl Program {
    /// Makes the program's unit. `slice` names the run; the unit is `<name>.service` in its slice.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn new(slice: &str, name: &str, cluster: &Cluster, route: Route) -> Result<Self> {
        let mut environment = cluster.client_environment(route);
        environment.extend([
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("PGUSER", APP_ROLE.to_owned()),
            ("PGPASSWORD", cluster.password().to_owned()),
            ("PGDATABASE", DATABASE.to_owned()),
        ]);
        Ok(Self {
            name: name.to_owned(),
            route,
            unit: Unit::create(slice, name)?,
            environment,
            binaries: cluster.client_binary(""),
            scripts: TempDir::with_prefix("pgwitness-program-")?,
        })
    }

    /// Goes through a pooler in transaction mode from now on, whose sockets are there.
    #[must_use]
    pub fn through(mut self, folder: &Path, port: u16) -> Self {
        for (key, value) in &mut self.environment {
            match *key {
                "PGPORT" => *value = port.to_string(),
                "PGHOST" if self.route == Route::Unix => *value = folder.display().to_string(),
                _ => {}
            }
        }
        // As its operators are told to: what is prepared belongs to a connection to the server.
        self.environment.push(("POOLED", "1".to_owned()));
        self
    }

    /// As in the comment of its statements.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its unit's name.
    #[must_use]
    pub fn unit(&self) -> &str {
        self.unit.name()
    }

    /// The comment that names it.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("/* {}{} */", crate::compare::PROGRAM_KEY, self.name)
    }

    /// `psql -c STATEMENTS`: one simple query string, one short life.
    #[must_use]
    pub fn psql(&self, statements: &str) -> Command {
        let mut command = self.command(&self.binaries.join("psql"));
        command.args(["-X", "-q", "-c", statements]);
        command
    }

    /// `psql` reading a script from its standard input.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub fn psql_script(&self, script: &str) -> Result<Command> {
        let path = self.script("script.sql", script)?;
        let mut command = self.command(&self.binaries.join("psql"));
        command.args(["-X", "-q"]).stdin(File::open(path)?);
        Ok(command)
    }

    /// `psql` that runs what is written to its standard input.
    #[must_use]
    pub fn psql_open(&self) -> Command {
        let mut command = self.command(&self.binaries.join("psql"));
        command.args(["-X", "-q"]).stdin(Stdio::piped());
        command
    }

    /// `pgbench` over a custom script, with more arguments (`-M`, `-T`, `-R`, …).
    ///
    /// # Errors
    /// When the script cannot be written.
    pub fn pgbench(&self, script: &str, arguments: &[&str]) -> Result<Command> {
        let path = self.script("bench.sql", script)?;
        let mut command = self.command(&self.binaries.join("pgbench"));
        command.arg("-n").arg("-f").arg(path).args(arguments);
        Ok(command)
    }

    /// The Python service (psycopg 3): up to `rounds` rounds of five to six statements, `pause` apart, for `seconds`.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub fn python(&self, seconds: u64, pause: Duration, rounds: u64) -> Result<Command> {
        let path = self.script("orders_api.py", ORDERS_API)?;
        let mut command = self.command(Path::new("/usr/bin/python3"));
        command.arg(path).arg(&self.name).arg(seconds.to_string());
        command
            .arg(pause.as_secs_f64().to_string())
            .arg(rounds.to_string());
        Ok(command)
    }

    /// A shell job that runs `psql -c` again and again: up to `rounds` times, `pause` apart, for `seconds`.
    ///
    /// # Errors
    /// When the script cannot be written.
    pub fn shell_job(&self, statement: &str, seconds: u64, pause: Duration, rounds: u64) -> Result<Command> {
        let path = self.script("job.sh", SHELL_JOB)?;
        let mut command = self.command(Path::new("/bin/sh"));
        command.arg(path).arg(self.binaries.join("psql")).arg(statement);
        command
            .arg(seconds.to_string())
            .arg(pause.as_secs_f64().to_string())
            .arg(rounds.to_string());
        Ok(command)
    }

    /// A client that connects, says a few statements and exits: one in Rust, which has no encryption, else a pgbench of
    /// one transaction. `protocol` is `simple` or `extended`.
    ///
    /// # Errors
    /// When it is not built.
    pub fn oneshot(&self, protocol: &str) -> Result<Command> {
        if self.route.is_encrypted() {
            let tag = self.tag();
            let script = format!(
                "\\set id random(1, 1000)\nSELECT id, email FROM customers {tag} WHERE id < :id;\n\
                 INSERT INTO orders {tag} (customer, amount) VALUES (:id, 3);\n"
            );
            return self.pgbench(&script, &["-M", protocol, "-c", "1", "-t", "1"]);
        }
        let mut command = self.command(&sibling("truth-oneshot")?);
        command.arg(&self.name).arg(protocol);
        Ok(command)
    }

    /// Any other program, in this one's unit and with its settings.
    #[must_use]
    pub fn other(&self, binary: &Path) -> Command {
        self.command(binary)
    }

    /// Starts a long-lived program. What it says goes to a file that [`Program::finish`] shows when it fails.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, mut command: Command) -> Result<Process> {
        let said = File::create(self.scripts.path().join("said.log"))?;
        command.stdout(said.try_clone()?).stderr(said);
        Process::start(&self.name, &mut command, Signal::SIGTERM)
    }

    /// Waits for a long-lived program's good end.
    ///
    /// # Errors
    /// When it fails or is not done within `patience`.
    pub async fn finish(&self, mut process: Process, patience: Duration) -> Result<String> {
        let status = process.wait(patience).await?;
        let said = fs::read_to_string(self.scripts.path().join("said.log")).unwrap_or_default();
        ensure!(status.success(), "{} failed with {status}: {said}", self.name);
        Ok(said)
    }

    /// Runs a short-lived command `count` times, one after the other, and returns each life as its parent saw it,
    /// from before the fork to after the wait.
    ///
    /// # Errors
    /// When one fails.
    pub async fn repeat(
        &self,
        count: u64,
        mut command: impl FnMut(u64) -> Result<Command>,
    ) -> Result<Vec<Duration>> {
        let mut lives = Vec::new();
        for turn in 0..count {
            let mut command = tokio::process::Command::from(command(turn)?);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true);
            let born = Instant::now();
            let output = command
                .output()
                .await
                .with_context(|| format!("running {}", self.name))?;
            lives.push(born.elapsed());
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "{} failed with {}: {said}",
                self.name,
                output.status
            );
        }
        Ok(lives)
    }

    fn command(&self, binary: &Path) -> Command {
        let mut command = self.unit.command(binary);
        command
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (*key, value.as_str())));
        command.stdin(Stdio::null());
        command
    }

    fn script(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.scripts.path().join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

const ORDERS_API: &str = include_str!("../programs/orders_api.py");
const SHELL_JOB: &str = include_str!("../programs/job.sh");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Witness;
    use crate::compare::program_of;
    use crate::csvlog::{self, StatementKind};

    #[tokio::test]
    async fn every_program_runs_and_is_in_the_servers_log() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let mut cluster = Cluster::init(Witness::Full).unwrap();
        cluster.start().await.unwrap();
        cluster.prepare().await.unwrap();
        let slice = format!("pgwitness-program-test-{}", std::process::id());
        let program = |name: &str, route| Program::new(&slice, name, &cluster, route).unwrap();
        let patience = Duration::from_secs(20);

        let psql = program("psql", Route::Unix);
        let text = format!("SELECT 1 {}; SELECT 2", psql.tag());
        assert_eq!(psql.repeat(2, |_| Ok(psql.psql(&text))).await.unwrap().len(), 2);
        let script = program("script", Route::Tcp);
        let run = script
            .start(
                script
                    .psql_script(&format!("SELECT 1 {};\n", script.tag()))
                    .unwrap(),
            )
            .unwrap();
        script.finish(run, patience).await.unwrap();
        let bench = program("bench", Route::Tcp);
        let lines = format!(
            "\\set id random(1, 9)\nSELECT email FROM customers {} WHERE id = :id;\n",
            bench.tag()
        );
        let run = bench
            .start(bench.pgbench(&lines, &["-M", "prepared", "-t", "5"]).unwrap())
            .unwrap();
        bench.finish(run, patience).await.unwrap();
        let python = program("python", Route::Unix);
        let run = python
            .start(python.python(9, Duration::ZERO, 7).unwrap())
            .unwrap();
        python.finish(run, patience).await.unwrap();
        let job = program("job", Route::Tcp);
        let run = job
            .start(
                job.shell_job(&format!("SELECT 3 {}", job.tag()), 9, Duration::ZERO, 3)
                    .unwrap(),
            )
            .unwrap();
        job.finish(run, patience).await.unwrap();
        cluster.stop().await.unwrap();

        let sessions = csvlog::read(&cluster.csvlog()).unwrap();
        let count = |name: &str, kind| {
            let statements = sessions
                .iter()
                .filter(|s| s.role == APP_ROLE)
                .flat_map(|s| &s.statements);
            statements
                .filter(|s| program_of(&s.text) == Some(name) && s.kind == kind)
                .count()
        };
        assert_eq!(count("psql", StatementKind::Simple), 2);
        assert_eq!(count("script", StatementKind::Simple), 1);
        assert_eq!(count("bench", StatementKind::Execute), 5);
        assert_eq!(count("python", StatementKind::Execute), 28);
        assert_eq!(count("job", StatementKind::Simple), 3);
        let audited = sessions
            .iter()
            .flat_map(|s| &s.statements)
            .filter(|s| program_of(&s.text).is_some());
        assert!(
            audited.clone().all(|statement| !statement.audited.is_empty()),
            "pgAudit counts every statement"
        );
        // Not of every role: who asks whether the server is ready while it starts is refused, and no end is logged.
        let mut ours = sessions.iter().filter(|session| session.role == APP_ROLE);
        assert!(ours.all(|session| session.closed));
    }
}
