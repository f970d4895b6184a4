//! One agent, as its users start it.
//!
//! Owns its two processes, its state folder and the logs of what it said. It can be ended in every way in which an agent
//! can end, and started again over the same state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::container::Container;
use super::settings::{Redaction, Settings, Tier};
use super::{READY_PATIENCE, STOP_PATIENCE, bare, launch, sibling, tail};
use crate::cluster::free_port;
use crate::process::Process;

/// An agent; not running until it is started.
#[derive(Debug)]
pub struct Agent {
    // Dropped first.
    running: Option<Process>,
    /// What it runs in, if that is not this machine itself.
    container: Option<Container>,
    name: String,
    folder: PathBuf,
    binary: PathBuf,
    /// The only cluster that it taps.
    server_data: Option<PathBuf>,
    /// The preferred first.
    collectors: Vec<String>,
    settings: Settings,
    starts: u32,
    metrics_port: u16,
}

impl Agent {
    /// An agent called `name`, with state and logs in `folder`, that delivers to this collector.
    ///
    /// # Errors
    /// When its program is missing.
    pub fn new(
        (name, folder): (&str, &Path),
        server_data: Option<&Path>,
        collector: String,
        settings: Settings,
    ) -> Result<Self> {
        let container = settings.contained.as_deref().map(|bundle| {
            let socket = collector
                .strip_prefix("unix:")
                .and_then(|socket| Path::new(socket).parent());
            let socket = socket.context("an agent in a container delivers over a Unix socket")?;
            let own = folder.join(format!("{name}-container"));
            Container::new(bundle, own, folder.join(name), socket)
        });
        Ok(Self {
            running: None,
            container: container.transpose()?,
            name: name.to_owned(),
            folder: folder.to_owned(),
            binary: sibling("pgwitness-agent")?,
            server_data: server_data.map(Path::to_owned),
            collectors: vec![collector],
            settings,
            starts: 0,
            metrics_port: 0,
        })
    }

    /// The same with another collector, for when those before it do not answer.
    #[must_use]
    pub fn with_collector(mut self, collector: String) -> Self {
        self.collectors.push(collector);
        self
    }

    /// Where it answers with its metrics, once it was started.
    #[must_use]
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Ends it in order, if it is running.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.running.take() else {
            return Ok(());
        };
        self.tell(&mut process, Signal::SIGTERM)?;
        let status = process.wait(STOP_PATIENCE).await?;
        ensure!(
            status.success(),
            "pgwitness-agent ended with {status}:\n{}",
            tail(&self.said())
        );
        Ok(())
    }

    /// Starts an agent over the same state folder and waits until it taps.
    ///
    /// # Errors
    /// When the program ends early, or is not ready in time; the message carries the end of its log.
    pub async fn start(&mut self) -> Result<()> {
        self.starts += 1;
        self.metrics_port = free_port()?;
        let log = self.log();
        let mut command = self.command();
        command
            .arg("run")
            .args(self.collectors.iter().flat_map(|url| ["--collector", url]))
            .args(["--metrics", &format!("127.0.0.1:{}", self.metrics_port)]);
        if self.container.is_none() {
            command.arg("--state-dir").arg(self.state());
        }
        if let Some(server_data) = &self.server_data {
            command.arg("--data-dir").arg(server_data);
        }
        if let Some(another) = &self.settings.another {
            command.arg("--data-dir").arg(another);
        }
        if self.settings.redaction == Redaction::Clear {
            command.args(["--redaction", "clear"]);
        }
        if self.settings.tier != Tier::Auto {
            command.args(["--tier", self.settings.tier.name()]);
        }
        command.args(&self.settings.arguments);
        let sizes = [
            ("PGWITNESS_AGENT__TAP__RING_MIB", self.settings.ring_mib),
            ("PGWITNESS_AGENT__DELIVERY__QUEUE_MIB", self.settings.queue_mib),
        ];
        let sizes = sizes.map(|(name, size)| size.map(|size| (name, size.to_string())));
        bare(&mut command).envs(sizes.into_iter().flatten());
        if self.settings.queue_mib.is_some() {
            // Where the queue is to be full, nothing may wait on disk instead.
            command.env("PGWITNESS_AGENT__SPOOL__MAX_BYTES", "65536");
        }
        for (key, value) in &self.settings.keys {
            command.env(format!("PGWITNESS_AGENT__{key}"), value);
        }
        if let Some(container) = &mut self.container {
            command = container.command(&command, &format!("{}-{}", self.name, self.starts))?;
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
        self.running = Some(agent);
        Ok(())
    }

    /// Kills both processes of the agent, as a crash would. The collector stays.
    ///
    /// # Errors
    /// When the agent was no longer running.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    /// Ends the agent, in one way or the other. The collector stays.
    ///
    /// # Errors
    /// When the agent was no longer running, or does not end.
    pub async fn end(&mut self, signal: Signal) -> Result<()> {
        let mut agent = self.running.take().context("no agent is running")?;
        ensure!(
            agent.ended()?.is_none(),
            "the agent had ended before it was ended; it said:\n{}",
            tail(&self.said())
        );
        let parser = parser_of(self.broker(&agent)?);
        if let (Signal::SIGKILL, Some(parser)) = (signal, parser) {
            kill(parser, signal).context("killing the process that parses")?;
        }
        self.tell(&mut agent, signal)?;
        agent.wait(STOP_PATIENCE).await?;
        Ok(())
    }

    /// Kills the broker alone; the process that parses delivers what it has, and ends by itself. The collector stays.
    ///
    /// # Errors
    /// When no agent is running, or its other process stays.
    pub async fn kill_broker(&mut self) -> Result<()> {
        let mut agent = self.running.take().context("no agent is running")?;
        let parser = parser_of(self.broker(&agent)?).context("no process parses")?;
        self.tell(&mut agent, Signal::SIGKILL)?;
        agent.wait(STOP_PATIENCE).await?;
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
        let mut agent = self.running.take().context("no agent is running")?;
        let parser = parser_of(self.broker(&agent)?).context("no process parses")?;
        kill(parser, Signal::SIGKILL).context("killing the process that parses")?;
        agent.wait(STOP_PATIENCE).await
    }

    /// Sends both processes of the agent a signal that does not end them.
    ///
    /// # Errors
    /// When no agent is running.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let agent = self.running.as_ref().context("no agent is running")?;
        if let Some(parser) = parser_of(self.broker(agent)?) {
            kill(parser, signal).context("signalling the process that parses")?;
        }
        self.signal_broker(signal)
    }

    /// Sends the broker alone a signal that does not end it.
    ///
    /// # Errors
    /// When no agent is running.
    pub fn signal_broker(&mut self, signal: Signal) -> Result<()> {
        let mut agent = self.running.take().context("no agent is running")?;
        let told = self.tell(&mut agent, signal);
        self.running = Some(agent);
        told
    }

    /// The process that was started, or what runc made of it: that one passes on not every signal.
    fn broker(&self, started: &Process) -> Result<u32> {
        match &self.container {
            Some(container) => Ok(container.first()?.as_raw().unsigned_abs()),
            None => Ok(started.pid()),
        }
    }

    /// Sends the broker a signal.
    fn tell(&self, started: &mut Process, signal: Signal) -> Result<()> {
        match &self.container {
            Some(container) if started.ended()?.is_none() => {
                kill(container.first()?, signal).context("signalling the container's first process")
            }
            _ => started.signal(signal),
        }
    }

    /// Process ids of the agent: of the broker, which was started, and of the process that parses.
    ///
    /// # Errors
    /// When it is not two processes.
    pub fn processes(&self) -> Result<[u32; 2]> {
        let broker = self.broker(self.running.as_ref().context("no agent is running")?)?;
        let parser = parser_of(broker).context("no process parses")?;
        Ok([broker, parser.as_raw().unsigned_abs()])
    }

    /// What it wrote since its newest start.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}-{}.log", self.name, self.starts))
    }

    /// Whether the agent is running still.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn lives(&mut self) -> Result<bool> {
        match &mut self.running {
            Some(agent) => Ok(agent.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// Asks the running agent something by its own command (`pause`, `resume`, `status`), and gives what it said.
    ///
    /// # Errors
    /// When the command fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = match &self.container {
            Some(container) => container.exec(),
            None => Command::new(&self.binary),
        };
        command.args(arguments);
        if self.container.is_none() {
            command.arg("--socket").arg(self.state().join("control.sock"));
        }
        let output = command.output().context("running pgwitness-agent")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.success(),
            "pgwitness-agent {arguments:?} failed: {said}"
        );
        Ok(said)
    }

    /// The agent, with all that this process may do or with less.
    fn command(&self) -> Command {
        let agent = self.confined();
        let Some((program, arguments)) = self.settings.through.split_first() else {
            return agent;
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(agent.get_program())
            .args(agent.get_args());
        command
    }

    fn confined(&self) -> Command {
        let Some(capabilities) = &self.settings.capabilities else {
            return Command::new(&self.binary);
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
            .arg(&self.binary);
        command
    }

    /// The agent's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        let own = || match &self.container {
            // The manifest's folder for it, in the one that is mounted.
            Some(_) => self.folder.join(&self.name).join("agent"),
            None => self.folder.join(&self.name),
        };
        self.settings.state.clone().unwrap_or_else(own)
    }
}

/// The process that the agent's first one has started (proc(5), `children`).
#[must_use]
pub fn parser_of(broker: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{broker}/task/{broker}/children")).ok()?;
    Some(Pid::from_raw(
        children.split_ascii_whitespace().next()?.parse().ok()?,
    ))
}
