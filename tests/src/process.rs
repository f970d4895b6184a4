//! A long-running process that ends with the value that holds it.
//!
//! Owns one child by its pid: it is asked to stop, and killed when it does not, on every way out (success, error,
//! panic, Ctrl-C). It refuses to end anything that it did not start. Separate because server, agent and collector
//! all need exactly this.

use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One started process. Dropping it sends `last_word`, waits, and then kills.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    last_word: Signal,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` is for messages, `last_word` is the signal that asks it to stop when dropped.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: &str, command: &mut Command, last_word: Signal) -> Result<Self> {
        let program = command.get_program().to_owned();
        let child = command
            .spawn()
            .with_context(|| format!("starting {name} ({})", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            last_word,
            ended: None,
        })
    }

    /// As [`Process::start`], with its standard output; the command says that it is piped.
    ///
    /// # Errors
    /// As [`Process::start`], and when it is not piped.
    pub fn start_piped(name: &str, command: &mut Command, last_word: Signal) -> Result<(Self, ChildStdout)> {
        let mut process = Self::start(name, command, last_word)?;
        let stdout = process.child.stdout.take().context("its output is not piped")?;
        Ok((process, stdout))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, if it was started with a pipe and nobody has taken it yet.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .with_context(|| format!("waiting for {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).context("pid out of range")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Sends `signal` and waits up to `patience` for the end.
    ///
    /// # Errors
    /// When it is still running then; it stays owned, so dropping it kills it.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(patience).await
    }

    /// Waits up to `patience` for it to end by itself.
    ///
    /// # Errors
    /// When it is still running then.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} is still running after {} s", self.name, patience.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_PATIENCE;
        if self.signal(self.last_word).is_ok() {
            while Instant::now() < deadline {
                if !matches!(self.ended(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if self.child.kill().is_ok() {
            self.ended = self.child.wait().ok();
        }
    }
}

/// How long a dropped process may take to follow its last word: a server's immediate shutdown takes well under it.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stubborn_process_dies_with_its_owner() {
        let mut shell = Command::new("sleep");
        let process = Process::start("sleep", shell.arg("600"), Signal::SIGTERM).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn waiting_has_an_end() {
        let mut process = Process::start("sleep", Command::new("sleep").arg("600"), Signal::SIGKILL).unwrap();
        assert!(process.wait(Duration::from_millis(30)).await.is_err());
        assert!(
            process
                .stop(Signal::SIGTERM, Duration::from_secs(5))
                .await
                .is_ok()
        );
    }
}
