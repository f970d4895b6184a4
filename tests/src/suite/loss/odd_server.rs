//! A server that moves bytes by calls that no PostgreSQL makes, and a client that knows what it sent.
//!
//! Owns the building and running of `tests/programs/odd_server.c`, and one session with it, which keeps the journal that
//! stands in for a server's log.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use tempfile::TempDir;

use crate::cluster::{APP_ROLE, DATABASE, free_port};
use crate::csvlog::{LoggedSession, LoggedStatement};
use crate::process::Process;

/// The program, built and not started.
#[derive(Debug)]
pub(super) struct OddServer {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
}

impl OddServer {
    /// Builds it in a folder of its own, under the name that a server has.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub(super) fn build() -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-odd-")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let source = folder.path().join("odd_server.c");
        fs::write(&source, SOURCE)?;
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
            .arg(folder.path().join("postgres"))
            .arg(&source)
            .output()
            .context("running gcc (package gcc)")?;
        ensure!(
            output.status.success(),
            "gcc failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
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
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it and waits until it answers.
    pub(super) async fn start(&mut self) -> Result<()> {
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
    pub(super) fn connect(&self) -> Result<Session> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).context("connecting to the odd server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = Session {
            stream,
            journal: LoggedSession {
                role: APP_ROLE.to_owned(),
                database: DATABASE.to_owned(),
                started_ns: now_ns()?,
                closed: true,
                ..LoggedSession::default()
            },
        };
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        startup.extend(format!("user\0{APP_ROLE}\0database\0{DATABASE}\0\0").bytes());
        let length = u32::try_from(startup.len() + 4)?;
        session
            .stream
            .write_all(&[&length.to_be_bytes()[..], &startup].concat())?;
        session.ready()?;
        session.journal.id = format!("{}", session.journal.backend_pid);
        Ok(session)
    }
}

/// One session, and what was said in it.
#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    journal: LoggedSession,
}

impl Session {
    /// A query that counts: its number is in its text.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        self.journal.statements.push(LoggedStatement {
            at_ns: now_ns()?,
            text: text.to_owned(),
            ..LoggedStatement::default()
        });
        self.query(text)
    }

    /// By which calls the server takes and answers the next message.
    pub(super) fn next(&mut self, taken: &str, answered: &str) -> Result<()> {
        self.query(&format!("NEXT in={taken} out={answered}"))
    }

    /// Says goodbye and gives the journal.
    pub(super) fn end(mut self) -> Result<LoggedSession> {
        self.stream.write_all(b"X\0\0\0\x04")?;
        // The server's end comes behind its last call.
        drop(self.stream.read(&mut [0; 16]));
        Ok(self.journal)
    }

    fn query(&mut self, text: &str) -> Result<()> {
        let length = u32::try_from(text.len() + 5)?;
        let message = [b"Q", &length.to_be_bytes()[..], text.as_bytes(), b"\0"].concat();
        self.stream.write_all(&message)?;
        self.ready()
    }

    fn ready(&mut self) -> Result<()> {
        loop {
            let mut head = [0_u8; 5];
            self.stream
                .read_exact(&mut head)
                .context("waiting for the odd server")?;
            let [kind, length @ ..] = head;
            let mut body = vec![0; usize::try_from(u32::from_be_bytes(length).saturating_sub(4))?];
            self.stream.read_exact(&mut body)?;
            if let (b'K', Some(pid)) = (kind, body.first_chunk::<4>()) {
                self.journal.backend_pid = u32::from_be_bytes(*pid);
            }
            if kind == b'Z' {
                return Ok(());
            }
        }
    }
}

fn now_ns() -> Result<i64> {
    Ok(i64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
    )?)
}

const SOURCE: &str = include_str!("../../../programs/odd_server.c");
const PATIENCE: Duration = Duration::from_secs(10);
