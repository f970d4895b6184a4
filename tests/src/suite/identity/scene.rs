//! What each part of the suite needs: a server, a tap, the clients' program, their journal, and cgroups for them.
//!
//! Owns all of it, and the end: everything is delivered, the tap is stopped, and journal and record are compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::group::{Groups, command_in};
use super::journal;
use super::judge::{Expected, Findings, judge};
use super::networks::Networks;
use crate::cluster::{APP_ROLE, Cluster, DATABASE, Witness};
use crate::process::Process;
use crate::screen::progress;
use crate::suite::settle;
use crate::tap::{Agent, Settings, Tap, Tier};

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Unix,
    Tcp,
}

pub(super) const WAYS: [Way; 2] = [Way::Unix, Way::Tcp];

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }
}

/// Everything of one part. Dropped from the top: clients, tap, server, folders.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) groups: Groups,
    /// Agents of other hosts.
    pub(super) others: Vec<Agent>,
    pub(super) tap: Option<Tap>,
    pub(super) cluster: Cluster,
    home: TempDir,
    expected: BTreeMap<String, Expected>,
    lines: usize,
}

impl Scene {
    /// A server that answers, and a tap that watches it.
    pub(super) async fn open() -> Result<Self> {
        let mut scene = Self::without_tap().await?;
        scene.start_tap().await?;
        Ok(scene)
    }

    /// The same, and the server has a network namespace of its own, with all of its addresses.
    pub(super) async fn open_within(networks: &Networks, name: &str) -> Result<Self> {
        let mut scene = Self::unwatched_within(networks, name).await?;
        scene.start_tap().await?;
        Ok(scene)
    }

    /// The same, and nobody watches yet.
    pub(super) async fn unwatched_within(networks: &Networks, name: &str) -> Result<Self> {
        networks
            .within(name, async || Self::listening_on("*").await)
            .await
    }

    /// As [`Scene::open`], and nobody watches yet.
    pub(super) async fn without_tap() -> Result<Self> {
        Self::listening_on("127.0.0.1").await
    }

    async fn listening_on(addresses: &str) -> Result<Self> {
        let mut cluster = Cluster::init(Witness::Silent)?;
        let home = TempDir::with_prefix("pgwitness-identity-")?;
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
        for (name, mode) in [("bin", 0o755), ("run", 0o1777)] {
            let folder = home.path().join(name);
            fs::create_dir(&folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
        }
        let journal = home.path().join(JOURNAL);
        fs::write(&journal, "")?;
        fs::set_permissions(journal, fs::Permissions::from_mode(0o666))?;
        build(&home.path().join("bin").join(PROGRAM))?;
        configure(&cluster, &home.path().join("run"), addresses)?;
        cluster.start().await?;
        cluster.prepare().await?;
        Ok(Self {
            groups: Groups::make()?,
            others: Vec::new(),
            tap: None,
            cluster,
            home,
            expected: BTreeMap::new(),
            lines: 0,
        })
    }

    pub(super) async fn start_tap(&mut self) -> Result<()> {
        self.start_tap_with(Settings::clear(Tier::Auto)).await
    }

    pub(super) async fn start_tap_with(&mut self, settings: Settings) -> Result<()> {
        self.tap = Some(Tap::start(&self.cluster.data(), settings).await?);
        Ok(())
    }

    /// Puts the server into another cgroup; its later backends are born there.
    pub(super) fn move_server(&self, group: &str) -> Result<()> {
        let pids = fs::read_to_string(self.cluster.data().join("postmaster.pid"))?;
        let pid = pids.lines().next().context("postmaster.pid is empty")?;
        Ok(fs::write(self.groups.folder(group)?.join("cgroup.procs"), pid)?)
    }

    pub(super) fn tap(&mut self) -> Result<&mut Tap> {
        self.tap.as_mut().context("there is no tap")
    }

    /// The suite's folder: everybody may read in it.
    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path for a socket or a file that any client may make.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.home.path().join("run").join(name)
    }

    /// The clients' program under another name, as an executable of its own.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.path().join("bin").join(name);
        if !path.exists() {
            fs::copy(self.home.path().join("bin").join(PROGRAM), &path)?;
        }
        Ok(path)
    }

    /// What the clients of a case have to be recorded as; `lines` is how many will write to the journal.
    pub(super) fn expect(&mut self, case: &str, lines: usize, expected: Expected) {
        self.lines += lines;
        self.expected.insert(case.to_owned(), expected);
    }

    /// What every client's environment has to say.
    pub(super) fn environment(&self, case: &str, way: Way) -> Vec<(&'static str, String)> {
        let host = match way {
            Way::Unix => self.home.path().join("run").display().to_string(),
            Way::Tcp => "127.0.0.1".to_owned(),
        };
        vec![
            ("PGHOST", host),
            ("PGPORT", self.cluster.port().to_string()),
            ("PGUSER", APP_ROLE.to_owned()),
            ("PGDATABASE", DATABASE.to_owned()),
            ("JOURNAL", self.home.path().join(JOURNAL).display().to_string()),
            ("CASE", case.to_owned()),
        ]
    }

    /// A client: the program, in a cgroup below the suite's, taking these steps.
    pub(super) fn client<W: AsRef<OsStr>>(
        &self,
        (case, way): (&str, Way),
        program: &Path,
        group: &str,
        steps: impl IntoIterator<Item = W>,
    ) -> Result<Command> {
        let mut command = command_in(&self.groups.folder(group)?, program);
        command.args(steps).env_clear().envs(self.environment(case, way));
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Starts a client that goes on by itself. What it has to complain about is in a file that [`Scene::finish`] shows.
    pub(super) fn start(&self, name: &str, mut command: Command) -> Result<Process> {
        let said = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join(SAID))?;
        command.stdout(said.try_clone()?).stderr(said);
        Process::start(name, &mut command, Signal::SIGKILL)
    }

    /// Starts a program, and waits until it listens on this port of loopback.
    pub(super) async fn listening(&self, name: &str, command: Command, port: u16) -> Result<Process> {
        let mut process = self.start(name, command)?;
        let deadline = Instant::now() + PATIENCE;
        // A connection would be one to the server: only look whether the port is taken.
        while std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("{name} does not listen; it said: {}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    /// Runs clients, so many at once, and waits for their end. One that fails is found in the journal.
    pub(super) async fn run(&self, commands: Vec<Command>, at_once: usize) -> Result<()> {
        let mut running: Vec<Process> = Vec::new();
        for command in commands {
            while running.len() >= at_once {
                running.retain_mut(|process| matches!(process.ended(), Ok(None)));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            running.push(self.start("a client", command)?);
        }
        for mut process in running {
            process.wait(PATIENCE).await?;
        }
        Ok(())
    }

    /// What clients and others complained about.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.home.path().join(SAID)).unwrap_or_default()
    }

    /// A line of the journal for a client that cannot write one itself.
    pub(super) fn note(&self, line: &serde_json::Value) -> Result<()> {
        let mut journal = fs::OpenOptions::new()
            .append(true)
            .open(self.home.path().join(JOURNAL))?;
        Ok(journal.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Waits until the journal has a line of every client.
    pub(super) async fn complete(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let count = self.journal()?.len();
            if count >= self.lines {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the journal has {count} of {} lines; clients said: {}",
                self.lines,
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn journal(&self) -> Result<Vec<journal::Line>> {
        journal::read(&self.home.path().join(JOURNAL))
    }

    /// Waits for everything, stops the tap and compares.
    pub(super) async fn finish(mut self, keep: bool) -> Result<Findings> {
        self.complete().await?;
        let tap = self.tap.as_mut().context("there is no tap")?;
        settle(tap).await?;
        for other in &mut self.others {
            other.stop().await?;
        }
        tap.stop().await?;
        let recorded = journal::recorded(tap)?;
        let (verified, verdict) = tap.verify()?;
        ensure!(verified, "the evidence does not verify: {verdict}");
        let lines = self.journal()?;
        let findings = judge(&self.expected, &lines, &recorded);
        if keep && let Some(tap) = self.tap.take() {
            let home = self.home.path().join(JOURNAL);
            let kept = tap.keep();
            fs::copy(home, kept.join(JOURNAL))?;
            progress(&format!("  kept: {}", kept.display()));
        }
        Ok(findings)
    }
}

/// Nobody needs a password here: what a client may do is not what is asked.
fn configure(cluster: &Cluster, sockets: &Path, addresses: &str) -> Result<()> {
    let data = cluster.data();
    let path = data.join("postgresql.conf");
    let mut text = fs::read_to_string(&path)?;
    text += &format!(
        "unix_socket_directories = '{}, {}'\nlisten_addresses = '{addresses}'\nmax_connections = 400\n",
        cluster.socket_folder().display(),
        sockets.display()
    );
    fs::write(path, text)?;
    fs::write(
        data.join("pg_hba.conf"),
        format!(
            "local all postgres trust\nlocal all {APP_ROLE} trust\nhost all {APP_ROLE} 0.0.0.0/0 trust\n"
        ),
    )
    .context("writing pg_hba.conf")
}

fn build(program: &Path) -> Result<()> {
    let source = program.with_extension("c");
    fs::write(&source, SOURCE)?;
    // Static: it runs in any container.
    let output = Command::new("gcc")
        .args(["-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([program, &source])
        .output()
        .context("running gcc (package gcc)")?;
    ensure!(
        output.status.success(),
        "gcc failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

const SOURCE: &str = include_str!("../../../programs/witness.c");
const PROGRAM: &str = "witness";
const JOURNAL: &str = "journal";
const SAID: &str = "said.log";
const PATIENCE: Duration = Duration::from_secs(120);
