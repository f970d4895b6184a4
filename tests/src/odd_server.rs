//! A server that moves bytes by calls that no PostgreSQL makes.
//!
//! Owns the building and running of `tests/programs/odd_server.c`.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use tempfile::TempDir;

use crate::cluster::{APP_ROLE, DATABASE, free_port};
use crate::process::Process;
use crate::session::Session;

/// The program, built and not started.
#[derive(Debug)]
pub(crate) struct OddServer {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
}

impl OddServer {
    /// Builds it in a folder of its own, under the name that a server has.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub(crate) fn build() -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-odd-")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        compile(SOURCE, &folder.path().join("postgres"))?;
        let server = Self {
            process: None,
            folder,
            port: free_port()?,
        };
        fs::create_dir(server.data())?;
        fs::write(server.data().join("PG_VERSION"), "15\n")?;
        Ok(server)
    }

    /// What a server would call its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let mut command = Command::new(self.folder.path().join("postgres"));
        command.arg("-D").arg(self.data()).arg(self.port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if Uid::effective().is_root() {
            let user = User::from_name("nobody")?.context("there is no account nobody")?;
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let mut process = Process::start("the odd server", &mut command, Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("the odd server does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
        Ok(())
    }

    /// A session, let in.
    pub(crate) fn connect(&self) -> Result<Session> {
        Session::open(self.port, APP_ROLE, DATABASE)
    }

    /// The same over MPTCP, where there is such a thing.
    pub(crate) fn connect_multipath(&self) -> Result<Option<Session>> {
        Session::open_multipath(self.port, APP_ROLE, DATABASE)
    }

    /// The same under its veil.
    pub(crate) fn connect_veiled(&self) -> Result<Session> {
        Session::open_veiled(self.port, APP_ROLE, DATABASE)
    }
}

/// Builds a program of `tests/programs`, in C because it makes calls that no library wraps.
///
/// # Errors
/// When there is no C compiler.
pub(crate) fn compile(source: &str, program: &Path) -> Result<()> {
    let path = program.with_extension("c");
    fs::write(&path, source)?;
    let output = Command::new("gcc")
        .args([
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-rdynamic",
            "-pthread",
            "-o",
        ])
        .arg(program)
        .arg(&path)
        .output()
        .context("running gcc (package gcc)")?;
    ensure!(
        output.status.success(),
        "gcc failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

const SOURCE: &str = include_str!("../programs/odd_server.c");
const PATIENCE: Duration = Duration::from_secs(10);
