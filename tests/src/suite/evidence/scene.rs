//! A real collector over a folder of its own: started, killed, stopped, asked.
//!
//! Owns its process, socket and port. Refuses judgement, which is `judge`'s.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::process::Process;
use crate::tap::sibling;

/// A collector, running or not.
pub(super) struct Collector {
    program: PathBuf,
    folder: PathBuf,
    process: Option<Process>,
}

/// What stops or starts is awaited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

impl Collector {
    /// One whose data lie in `folder/data`; it is not started yet.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            program: sibling("pgwitness-collector")?,
            folder: folder.to_owned(),
            process: None,
        })
    }

    /// Where agents deliver.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("grpc")
    }

    /// Its data folder.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// What it printed, of all its runs.
    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts it and waits until it takes connections; `under` is a program that starts it, with its arguments.
    pub(super) async fn start(&mut self, under: &[&str]) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        // What a killed one leaves.
        _ = std::fs::remove_file(self.socket());
        let mut command = match under.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg("serve").arg("--data").arg(self.data());
        command
            .arg("--grpc")
            .arg(format!("unix:{}", self.socket().display()));
        command.args(["--http", "127.0.0.1:0"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("PGWITNESS_COLLECTOR__LOG__CHECKPOINT_INTERVAL_MS", "25");
        command.env("PGWITNESS_COLLECTOR__LOG__SEGMENT_MIB", "1");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start("pgwitness-collector", &mut command, Signal::SIGKILL)?;
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                let said = self.said();
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                bail!("the collector does not start; it said: {}", last.join(" | "));
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Whether it runs.
    pub(super) fn runs(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// Sends a signal and goes on.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process
            .as_mut()
            .map_or(Ok(()), |process| process.signal(signal))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Kills it where it stands.
    pub(super) async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::SIGKILL, PATIENCE).await?;
        }
        Ok(())
    }

    /// Asks it to end, and waits.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let status = process.stop(Signal::SIGTERM, PATIENCE).await?;
        ensure!(status.success(), "the collector ended with {status}");
        Ok(())
    }

    /// `verify` of the folder: its report.
    pub(super) fn verify(&self, evidence: &Path, more: &[&str]) -> Result<serde_json::Value> {
        let output = Command::new(&self.program)
            .args(["verify", "--json", "--data"])
            .arg(evidence)
            .args(more)
            .output()
            .context("running pgwitness-collector verify")?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}
