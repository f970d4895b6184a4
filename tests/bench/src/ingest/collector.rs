//! The collector that is measured: its process, its counters, its folder.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use pgwitness_tests::process::Process;
use tempfile::TempDir;

use crate::figures::bytes_in;

/// What stops or starts is awaited for so long: the last seal of the store takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running or stopped collector, with a folder of its own.
pub(crate) struct Collector {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Process>,
}

/// What it counted up to now.
pub(crate) struct Counts {
    pub(crate) fsyncs: u64,
    pub(crate) cpu_seconds: f64,
}

impl Collector {
    /// Starts one with settings as they come.
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        Self::start_as(Command::new(program), program).await
    }

    /// The same by a command that has the program run.
    pub(crate) async fn start_as(command: Command, program: &Path) -> Result<Self> {
        // On a disk: an fsync costs something there.
        let folder = TempDir::with_prefix_in("pgwitness-ingest-", "/var/tmp")?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
            .local_addr()?
            .port();
        let mut collector = Self {
            program: program.to_owned(),
            folder,
            port,
            process: None,
        };
        collector.launch(command).await?;
        Ok(collector)
    }

    /// Stops it, and starts it over the same folder.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.stop().await?;
        }
        self.launch(Command::new(&self.program)).await
    }

    /// Waits until it has read what it reads at a start: a second in which it used less than a twentieth of a processor.
    pub(crate) async fn settled(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.figures()?.cpu_seconds;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.figures()?.cpu_seconds - before < 0.05 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the collector does not come to rest");
        }
    }

    async fn launch(&mut self, mut command: Command) -> Result<()> {
        let folder = self.folder.path();
        let log = File::create(folder.join("log"))?;
        command.arg("serve").arg("--data").arg(folder.join("data"));
        command
            .arg("--grpc")
            .arg(format!("unix:{}", folder.join("grpc").display()));
        command.args(["--http", &format!("127.0.0.1:{}", self.port)]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start("pgwitness-collector", &mut command, Signal::SIGKILL)?;
        let deadline = Instant::now() + PATIENCE;
        let socket = folder.join("grpc");
        while tokio::net::UnixStream::connect(&socket).await.is_err()
            || tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_err()
        {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!(
                    "the collector does not start: {}",
                    fs::read_to_string(folder.join("log"))?
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
        Ok(())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("grpc")
    }

    /// Its counters, and the processor time of all its threads.
    pub(crate) fn figures(&self) -> Result<Counts> {
        let text = self.request("/metrics", None)?;
        let fsyncs = text
            .lines()
            .find(|line| !line.starts_with('#') && line.contains("fsyncs"));
        let fsyncs = fsyncs
            .and_then(|line| line.split(' ').next_back())
            .context("no count of fsyncs")?;
        let pid = self.process.as_ref().context("not running")?.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which ends with the last bracket (proc_pid_stat(5)): utime and stime are the 14th and 15th of all.
        let (_, rest) = stat.rsplit_once(") ").context("no end of the name")?;
        let ticks: u64 = rest
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Counts {
            fsyncs: fsyncs.parse::<f64>()? as u64,
            cpu_seconds: ticks as f64 / 100.0,
        })
    }

    /// What its API answers; a `body` is posted.
    pub(crate) fn ask(&self, path: &str, body: Option<&serde_json::Value>) -> Result<serde_json::Value> {
        let text = self.request(path, body.map(serde_json::Value::to_string))?;
        let (_, answer) = text.split_once("\r\n\r\n").context("no answer")?;
        serde_json::from_str(answer).with_context(|| format!("{path}: {answer}"))
    }

    fn request(&self, path: &str, body: Option<String>) -> Result<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port));
        let mut stream = stream.with_context(|| format!("the collector does not answer: {}", self.said()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (method, body) = match body {
            Some(body) => ("POST", body),
            None => ("GET", String::new()),
        };
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The most memory that it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
    }

    /// What it said last, for an error.
    pub(crate) fn said(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or_default()
            .join("\n")
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("not running")?;
        let status = process.stop(Signal::SIGTERM, PATIENCE).await?;
        ensure!(status.success(), "the collector ended with {status}");
        Ok(())
    }

    /// Where its log and store are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Bytes of log and store.
    pub(crate) fn bytes(&self) -> Result<u64> {
        bytes_in(&self.data())
    }

    /// Seconds of processor time that `verify` takes over the stopped collector's folder, which holds so many events.
    pub(crate) fn verify(&self, events: u64) -> Result<f64> {
        let before = children()?;
        let output = Command::new(&self.program)
            .args(["verify", "--json", "--data"])
            .arg(self.data())
            .output()?;
        let after = children()?;
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("the report of verify")?;
        let found = report
            .get("events")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0);
        ensure!(output.status.success() && found >= events, "verify: {report}");
        Ok(after - before)
    }
}

/// Processor time of all children that ended, in seconds.
fn children() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
