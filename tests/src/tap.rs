//! pgwitness itself, started as its users start it.
//!
//! Owns one collector and one agent (more can be added), each with a folder of its own and a log of what they said. It
//! refuses to hand them the caller's environment. Separate from `record`, which reads the result.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cluster::free_port;
use crate::process::Process;

mod agent;
mod container;
mod settings;

pub use agent::{Agent, parser_of};
pub use settings::{Redaction, Settings, Tier};

/// A collector and an agent that taps one cluster.
#[derive(Debug)]
pub struct Tap {
    // Dropped in this order: the agent delivers its last batch before the collector goes.
    /// The agent.
    pub agent: Agent,
    collector: Option<Process>,
    folder: TempDir,
    collector_program: PathBuf,
    /// Where agents deliver, as they are told.
    grpc: String,
    http_port: u16,
    sql_port: u16,
    /// Further keys of the collector's configuration.
    keys: Vec<(&'static str, String)>,
}

impl Tap {
    /// Starts both and waits until the agent's hooks are attached. `server_data` is the only cluster it taps; its
    /// server need not be running yet.
    ///
    /// # Errors
    /// When a program is missing, ends early, or is not ready in time; the message carries the end of its log.
    pub async fn start(server_data: &Path, settings: impl Into<Settings>) -> Result<Self> {
        Self::start_for(Some(server_data), settings.into(), Vec::new()).await
    }

    /// As [`Tap::start`], and the agent taps every server that its settings let it see.
    ///
    /// # Errors
    /// As [`Tap::start`].
    pub async fn start_for_all(settings: Settings) -> Result<Self> {
        Self::start_for(None, settings, Vec::new()).await
    }

    /// As [`Tap::start_for_all`], with further keys of the collector's configuration, as in `("KUBERNETES__KUBECONFIG", "/…")`.
    ///
    /// # Errors
    /// As [`Tap::start`].
    pub async fn start_with(settings: Settings, collector: Vec<(&'static str, String)>) -> Result<Self> {
        Self::start_for(None, settings, collector).await
    }

    async fn start_for(
        server_data: Option<&Path>,
        settings: Settings,
        keys: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let folder =
            TempDir::with_prefix("pgwitness-tap-").context("making a folder for agent and collector")?;
        let grpc = if settings.at_socket || settings.contained.is_some() {
            // A folder of its own, which can be mounted elsewhere: a collector that begins again makes the socket anew.
            let own = folder.path().join("grpc");
            fs::create_dir(&own).context("a folder for the collector's socket")?;
            format!("unix:{}", own.join("grpc.sock").display())
        } else {
            format!("http://127.0.0.1:{}", free_port()?)
        };
        let own = ("agent", folder.path());
        let mut tap = Self {
            agent: Agent::new(own, server_data, grpc.clone(), settings)?,
            collector: None,
            collector_program: sibling("pgwitness-collector")?,
            grpc,
            http_port: free_port()?,
            sql_port: free_port()?,
            keys,
            folder,
        };
        tap.start_collector().await?;
        tap.agent.start().await?;
        Ok(tap)
    }

    /// Another agent, for the same collector; it taps every server that its settings let it see.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn another_agent(&self, name: &str, settings: Settings) -> Result<Agent> {
        Agent::new((name, self.folder.path()), None, self.grpc.clone(), settings)
    }

    /// Kills the collector; the agent stays.
    ///
    /// # Errors
    /// When none is running.
    pub async fn kill_collector(&mut self) -> Result<()> {
        let mut collector = self.collector.take().context("no collector is running")?;
        collector.stop(Signal::SIGKILL, STOP_PATIENCE).await?;
        Ok(())
    }

    /// Ends both in order; what they recorded stays in the folder until the value is dropped.
    ///
    /// # Errors
    /// When one does not end, or ends with a failure.
    pub async fn stop(&mut self) -> Result<()> {
        self.agent.stop().await?;
        if let Some(mut process) = self.collector.take() {
            let status = process.stop(Signal::SIGTERM, STOP_PATIENCE).await?;
            ensure!(
                status.success(),
                "pgwitness-collector ended with {status}:\n{}",
                tail(&self.said())
            );
        }
        Ok(())
    }

    /// Where the collector answers HTTP.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Where the collector answers over PostgreSQL's protocol.
    #[must_use]
    pub fn sql_port(&self) -> u16 {
        self.sql_port
    }

    /// The collector's program.
    #[must_use]
    pub fn collector_binary(&self) -> &Path {
        &self.collector_program
    }

    /// The collector's data folder.
    #[must_use]
    pub fn collector_data(&self) -> PathBuf {
        self.folder.path().join("collector")
    }

    /// Everything that agent and collector wrote, logs included.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `pgwitness-collector verify` over the stopped collector's folder: whether it is content, and what it said.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn verify(&self) -> Result<(bool, String)> {
        let output = Command::new(&self.collector_program)
            .args(["verify", "--data"])
            .arg(self.collector_data())
            .output()
            .context("running pgwitness-collector verify")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).trim().to_owned(),
        ))
    }

    /// Leaves the folder in place for inspection and returns it.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        // Both end before their folder is given away.
        drop((self.agent, self.collector.take()));
        self.folder.keep()
    }

    /// Starts the collector over its folder and waits until it answers.
    ///
    /// # Errors
    /// As [`Tap::start`].
    pub async fn start_collector(&mut self) -> Result<()> {
        let log = self.folder.path().join("collector.log");
        let mut command = Command::new(&self.collector_program);
        command.arg("serve").arg("--data").arg(self.collector_data());
        let grpc = self.grpc.trim_start_matches("http://");
        command.args(["--grpc", grpc]);
        command.args(["--http", &format!("127.0.0.1:{}", self.http_port)]);
        command.args(["--sql", &format!("127.0.0.1:{}", self.sql_port)]);
        bare(&mut command);
        for (key, value) in &self.keys {
            command.env(format!("PGWITNESS_COLLECTOR__{key}"), value);
        }
        let mut collector = launch("pgwitness-collector", &mut command, &log)?;
        let deadline = Instant::now() + READY_PATIENCE;
        let http = format!("127.0.0.1:{}", self.http_port);
        for place in [grpc, &http] {
            while !answers(place).await {
                if collector.ended()?.is_some() || Instant::now() > deadline {
                    bail!(
                        "pgwitness-collector is not ready; it said:\n{}",
                        tail(&self.said())
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        self.collector = Some(collector);
        Ok(())
    }

    fn said(&self) -> String {
        let collector = fs::read_to_string(self.folder.path().join("collector.log"));
        collector.unwrap_or_default() + &self.agent.said()
    }
}

async fn answers(place: &str) -> bool {
    match place.strip_prefix("unix:") {
        Some(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
        None => tokio::net::TcpStream::connect(place).await.is_ok(),
    }
}

fn launch(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
    let log = File::create(log).with_context(|| format!("opening the log of {name}"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Process::start(name, command, Signal::SIGTERM)
}

/// Nothing of the caller's environment may steer what is tested.
fn bare(command: &mut Command) -> &mut Command {
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

/// A program that was built beside this one.
///
/// # Errors
/// When it is not there.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program's folder")?;
    let mut folder = own.parent().context("this program has no folder")?;
    // Cargo puts a test's executable one level lower than the programs.
    if folder.ends_with("deps") {
        folder = folder.parent().context("this program has no folder")?;
    }
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: `cargo xtask` builds it",
        path.display()
    );
    Ok(path)
}

/// The last lines, enough to see why a program failed.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default()
        .join("\n")
}

/// Loading the kernel programs takes a second or two; a busy two-core machine several times that.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
