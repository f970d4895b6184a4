//! pgwitness itself, started as its users start it.
//!
//! Owns one collector and one agent, each with a folder of its own and a log of what they said. It refuses to hand
//! them the caller's environment. Separate from `record`, which reads the result.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cluster::free_port;
use crate::process::Process;

/// Whether literals stay in the recorded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// The product's default: literals are replaced.
    Default,
    /// Text as sent, for comparison with the server's log.
    Clear,
}

/// Which of the agent's ways into the kernel is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// The agent's own choice.
    #[default]
    Auto,
    /// Tracepoints of socket calls.
    A,
    /// System call exits, for kernels without these.
    B,
}

impl Tier {
    /// As in the name of a part: `a`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether literals stay in the recorded text.
    pub redaction: Redaction,
    /// Which way into the kernel.
    pub tier: Tier,
    /// Mebibytes of the ring for payload; the agent's default if there is none.
    pub ring_mib: Option<u32>,
    /// Mebibytes of events that wait for the collector; the agent's default if there is none.
    pub queue_mib: Option<u32>,
    /// Folder for the agent's state; one of the tap's own if there is none.
    pub state: Option<PathBuf>,
    /// The capabilities that the agent may have, as in `CAP_BPF`, and no new privileges; all, if nothing is said.
    pub capabilities: Option<Vec<String>>,
    /// Further keys of the configuration, as in `("LIMITS__MEMORY_MIB", "65")`.
    pub keys: Vec<(&'static str, String)>,
    /// Data directory of a second server that may be tapped.
    pub another: Option<PathBuf>,
}

impl From<Redaction> for Settings {
    fn from(redaction: Redaction) -> Self {
        Self {
            redaction,
            tier: Tier::Auto,
            ring_mib: None,
            queue_mib: None,
            state: None,
            capabilities: None,
            keys: Vec::new(),
            another: None,
        }
    }
}

impl Settings {
    /// In the clear, by one way into the kernel.
    #[must_use]
    pub fn clear(tier: Tier) -> Self {
        Self {
            tier,
            ..Redaction::Clear.into()
        }
    }
}

/// A collector and an agent that taps one cluster.
#[derive(Debug)]
pub struct Tap {
    // Dropped in this order: the agent delivers its last batch before the collector goes.
    agent: Option<Process>,
    collector: Option<Process>,
    folder: TempDir,
    binaries: Binaries,
    server_data: PathBuf,
    settings: Settings,
    grpc_port: u16,
    http_port: u16,
    agent_starts: u32,
}

#[derive(Debug)]
struct Binaries {
    agent: PathBuf,
    collector: PathBuf,
}

impl Tap {
    /// Starts both and waits until the agent's hooks are attached. `server_data` is the only cluster it taps; its
    /// server need not be running yet.
    ///
    /// # Errors
    /// When a program is missing, ends early, or is not ready in time; the message carries the end of its log.
    pub async fn start(server_data: &Path, settings: impl Into<Settings>) -> Result<Self> {
        let mut tap = Self {
            agent: None,
            collector: None,
            folder: TempDir::with_prefix("pgwitness-tap-")
                .context("making a folder for agent and collector")?,
            binaries: Binaries {
                agent: sibling("pgwitness-agent")?,
                collector: sibling("pgwitness-collector")?,
            },
            server_data: server_data.to_owned(),
            settings: settings.into(),
            grpc_port: free_port()?,
            http_port: free_port()?,
            agent_starts: 0,
        };
        tap.start_collector().await?;
        tap.start_agent().await?;
        Ok(tap)
    }

    /// Starts an agent over the same state folder and waits until it taps.
    ///
    /// # Errors
    /// As [`Tap::start`].
    pub async fn start_agent(&mut self) -> Result<()> {
        self.agent_starts += 1;
        let log = self
            .folder
            .path()
            .join(format!("agent-{}.log", self.agent_starts));
        let mut command = self.agent_command();
        command
            .arg("run")
            .args(["--collector", &format!("http://127.0.0.1:{}", self.grpc_port)])
            .args(["--metrics", &format!("127.0.0.1:{}", free_port()?)])
            .arg("--data-dir")
            .arg(&self.server_data)
            .arg("--state-dir")
            .arg(self.agent_state());
        if let Some(another) = &self.settings.another {
            command.arg("--data-dir").arg(another);
        }
        if self.settings.redaction == Redaction::Clear {
            command.args(["--redaction", "clear"]);
        }
        if self.settings.tier != Tier::Auto {
            command.args(["--tier", self.settings.tier.name()]);
        }
        let sizes = [
            ("PGWITNESS_AGENT__TAP__RING_MIB", self.settings.ring_mib),
            ("PGWITNESS_AGENT__DELIVERY__QUEUE_MIB", self.settings.queue_mib),
        ];
        let sizes = sizes.map(|(name, size)| size.map(|size| (name, size.to_string())));
        bare(&mut command).envs(sizes.into_iter().flatten());
        for (key, value) in &self.settings.keys {
            command.env(format!("PGWITNESS_AGENT__{key}"), value);
        }
        let mut agent = launch("pgwitness-agent", &mut command, &log)?;
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|line| line.contains("ready:")) {
                break;
            }
            if agent.ended()?.is_some() || Instant::now() > deadline {
                bail!("pgwitness-agent is not ready; it said:\n{}", tail(&said));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// Kills both processes of the agent, as a crash would. The collector stays.
    ///
    /// # Errors
    /// When the agent was no longer running.
    pub async fn kill_agent(&mut self) -> Result<()> {
        self.end_agent(Signal::SIGKILL).await
    }

    /// Ends the agent, in one way or the other. The collector stays.
    ///
    /// # Errors
    /// When the agent was no longer running, or does not end.
    pub async fn end_agent(&mut self, signal: Signal) -> Result<()> {
        let mut agent = self.agent.take().context("no agent is running")?;
        ensure!(
            agent.ended()?.is_none(),
            "the agent had ended before it was ended; it said:\n{}",
            tail(&self.said())
        );
        let parser = parser_of(agent.pid());
        if let (Signal::SIGKILL, Some(parser)) = (signal, parser) {
            kill(parser, signal).context("killing the process that parses")?;
        }
        agent.stop(signal, STOP_PATIENCE).await?;
        Ok(())
    }

    /// Kills the broker alone; the process that parses delivers what it has, and ends by itself. The collector stays.
    ///
    /// # Errors
    /// When no agent is running, or its other process stays.
    pub async fn kill_broker(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent is running")?;
        let parser = parser_of(agent.pid()).context("no process parses")?;
        agent.stop(Signal::SIGKILL, STOP_PATIENCE).await?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while kill(parser, None).is_ok() {
            ensure!(Instant::now() < deadline, "the process that parses stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Kills the process that parses, and gives how the agent ended then. The collector stays.
    ///
    /// # Errors
    /// When no agent is running, or it does not end.
    pub async fn kill_parser(&mut self) -> Result<ExitStatus> {
        let mut agent = self.agent.take().context("no agent is running")?;
        let parser = parser_of(agent.pid()).context("no process parses")?;
        kill(parser, Signal::SIGKILL).context("killing the process that parses")?;
        agent.wait(STOP_PATIENCE).await
    }

    /// Sends both processes of the agent a signal that does not end them.
    ///
    /// # Errors
    /// When no agent is running.
    pub fn signal_agent(&mut self, signal: Signal) -> Result<()> {
        let agent = self.agent.as_mut().context("no agent is running")?;
        if let Some(parser) = parser_of(agent.pid()) {
            kill(parser, signal).context("signalling the process that parses")?;
        }
        agent.signal(signal)
    }

    /// Sends the broker alone a signal that does not end it.
    ///
    /// # Errors
    /// When no agent is running.
    pub fn signal_broker(&mut self, signal: Signal) -> Result<()> {
        self.agent.as_mut().context("no agent is running")?.signal(signal)
    }

    /// Process ids of the agent: of the broker, which was started, and of the process that parses.
    ///
    /// # Errors
    /// When it is not two processes.
    pub fn agent_processes(&self) -> Result<[u32; 2]> {
        let broker = self.agent.as_ref().context("no agent is running")?.pid();
        let parser = parser_of(broker).context("no process parses")?;
        Ok([broker, parser.as_raw().unsigned_abs()])
    }

    /// What the newest agent wrote.
    #[must_use]
    pub fn agent_said(&self) -> String {
        let name = format!("agent-{}.log", self.agent_starts);
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Whether the agent is running still.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn agent_lives(&mut self) -> Result<bool> {
        match &mut self.agent {
            Some(agent) => Ok(agent.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// Asks the running agent something by its own command (`pause`, `resume`, `status`), and gives what it said.
    ///
    /// # Errors
    /// When the command fails.
    pub fn ask_agent(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binaries.agent)
            .args(arguments)
            .arg("--socket")
            .arg(self.agent_state().join("control.sock"))
            .output()
            .context("running pgwitness-agent")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.success(),
            "pgwitness-agent {arguments:?} failed: {said}"
        );
        Ok(said)
    }

    /// The agent, with all that this process may do or with less.
    fn agent_command(&self) -> Command {
        let Some(capabilities) = &self.settings.capabilities else {
            return Command::new(&self.binaries.agent);
        };
        let kept = capabilities
            .iter()
            .map(|name| name.trim_start_matches("CAP_").to_lowercase());
        let set = kept.fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
        let mut command = Command::new("setpriv");
        command
            .args([
                "--no-new-privs",
                "--inh-caps",
                "-all",
                "--bounding-set",
                &set,
                "--",
            ])
            .arg(&self.binaries.agent);
        command
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
        for (name, process) in [
            ("pgwitness-agent", self.agent.take()),
            ("pgwitness-collector", self.collector.take()),
        ] {
            if let Some(mut process) = process {
                let status = process.stop(Signal::SIGTERM, STOP_PATIENCE).await?;
                ensure!(
                    status.success(),
                    "{name} ended with {status}:\n{}",
                    tail(&self.said())
                );
            }
        }
        Ok(())
    }

    /// Where the collector answers HTTP.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The collector's program.
    #[must_use]
    pub fn collector_binary(&self) -> &Path {
        &self.binaries.collector
    }

    /// The collector's data folder.
    #[must_use]
    pub fn collector_data(&self) -> PathBuf {
        self.folder.path().join("collector")
    }

    /// The agent's state folder.
    #[must_use]
    pub fn agent_state(&self) -> PathBuf {
        let own = || self.folder.path().join("agent");
        self.settings.state.clone().unwrap_or_else(own)
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
        let output = Command::new(&self.binaries.collector)
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
        self.agent = None;
        self.collector = None;
        self.folder.keep()
    }

    /// Starts the collector over its folder and waits until it answers.
    ///
    /// # Errors
    /// As [`Tap::start`].
    pub async fn start_collector(&mut self) -> Result<()> {
        let log = self.folder.path().join("collector.log");
        let mut command = Command::new(&self.binaries.collector);
        command.arg("serve").arg("--data").arg(self.collector_data());
        command.args(["--grpc", &format!("127.0.0.1:{}", self.grpc_port)]);
        command.args(["--http", &format!("127.0.0.1:{}", self.http_port)]);
        bare(&mut command);
        let mut collector = launch("pgwitness-collector", &mut command, &log)?;
        let deadline = Instant::now() + READY_PATIENCE;
        for port in [self.grpc_port, self.http_port] {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
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
        [
            "collector.log".to_owned(),
            format!("agent-{}.log", self.agent_starts),
        ]
        .iter()
        .filter_map(|name| fs::read_to_string(self.folder.path().join(name)).ok())
        .collect()
    }
}

fn launch(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
    let log = File::create(log).with_context(|| format!("opening the log of {name}"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Process::start(name, command, Signal::SIGTERM)
}

/// The process that the agent's first one has started (proc(5), `children`).
fn parser_of(broker: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{broker}/task/{broker}/children")).ok()?;
    Some(Pid::from_raw(
        children.split_ascii_whitespace().next()?.parse().ok()?,
    ))
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
