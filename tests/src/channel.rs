//! The way to the server for the suite's own client programs, which bring no encryption themselves.
//!
//! Owns one connection as the PG* environment asks for it. TLS is made by `openssl s_client`, which speaks PostgreSQL's
//! SSLRequest: the program talks to it over a pair of sockets. It refuses GSSAPI: no program is at hand that does it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One connection.
#[derive(Debug)]
pub enum Channel {
    /// To the socket in the folder PGHOST.
    Unix(UnixStream),
    /// To the address PGHOST.
    Tcp(TcpStream),
    /// To `openssl`, which encrypts.
    Tls(Relay),
}

impl Channel {
    /// Connects as PGHOST, PGPORT, PGSSLMODE and PGGSSENCMODE say.
    ///
    /// # Errors
    /// When there is no server, or the way is not one of these.
    pub fn open() -> Result<Self> {
        let (host, port) = (variable("PGHOST")?, variable("PGPORT")?);
        if std::env::var("PGGSSENCMODE").is_ok_and(|mode| mode == "require") {
            bail!(NO_GSS);
        }
        if host.starts_with('/') {
            let socket = format!("{host}/.s.PGSQL.{port}");
            let stream = UnixStream::connect(&socket).with_context(|| format!("connecting to {socket}"))?;
            return Ok(Self::Unix(stream));
        }
        if is_encrypted() {
            return Relay::start(&format!("{host}:{port}")).map(Self::Tls);
        }
        let stream = TcpStream::connect(format!("{host}:{port}"))
            .with_context(|| format!("connecting to {host}:{port}"))?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// As the socket has it.
    pub fn set_read_timeout(&self, timeout: Duration) -> Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout))?,
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout))?,
            Self::Tls(relay) => relay.stream.set_read_timeout(Some(timeout))?,
        }
        Ok(())
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(relay) => relay.stream.read(buffer),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(relay) => relay.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `openssl s_client` and the program's end of the pair. Dropped, it may send what it has, and is then killed: the server
/// sees an end without goodbye, unless there was one.
#[derive(Debug)]
pub struct Relay {
    stream: UnixStream,
    openssl: Child,
}

impl Relay {
    fn start(place: &str) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("a pair of sockets")?;
        let mut command = Command::new("openssl");
        command.args(["s_client", "-starttls", "postgres", "-connect", place]);
        // Quiet also means that nothing that passes is taken for a command.
        command.args(["-quiet", "-verify_quiet", "-verify_return_error", "-CAfile"]);
        command.arg(variable("PGSSLROOTCERT")?);
        if let (Ok(certificate), Ok(key)) = (variable("PGSSLCERT"), variable("PGSSLKEY")) {
            command.args(["-cert", &certificate, "-key", &key]);
        }
        let openssl = command
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .context("starting openssl s_client")?;
        Ok(Self {
            stream: ours,
            openssl,
        })
    }

    /// The program's end once more, for those who read and write in other ways.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn stream(&self) -> Result<UnixStream> {
        Ok(self.stream.try_clone()?)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.openssl.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(self.openssl.kill());
        drop(self.openssl.wait());
    }
}

/// Whether TLS is asked for.
#[must_use]
pub fn is_encrypted() -> bool {
    std::env::var("PGSSLMODE")
        .is_ok_and(|mode| matches!(mode.as_str(), "require" | "verify-ca" | "verify-full"))
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

/// Why a program of this crate does not come by GSSAPI.
pub const NO_GSS: &str = "this client has no GSSAPI encryption";
/// After a goodbye the server ends the connection at once.
const LAST_PATIENCE: Duration = Duration::from_millis(100);
