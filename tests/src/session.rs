//! A client without a library, over TCP in plain text, that knows what it sent.
//!
//! Owns one session, and its journal, which can stand in for a server's log. It refuses passwords.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use crate::csvlog::{Encryption, LoggedSession, LoggedStatement};

/// One session, and what was said in it.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    journal: LoggedSession,
    /// Not sent yet.
    left: Vec<u8>,
    veiled: bool,
}

impl Session {
    /// Connects to 127.0.0.1 and logs in.
    ///
    /// # Errors
    /// When there is no server, or it wants a password.
    pub fn open(port: u16, role: &str, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        Self::open_on(stream, role, database, false)
    }

    /// The same behind what the odd server has for TLS.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub(crate) fn open_veiled(port: u16, role: &str, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        Self::open_on(stream, role, database, true)
    }

    /// The same over MPTCP; `None` where this kernel has none.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub(crate) fn open_multipath(port: u16, role: &str, database: &str) -> Result<Option<Self>> {
        let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, Some(IPPROTO_MPTCP.into())) else {
            return Ok(None);
        };
        socket
            .connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())
            .context("connecting")?;
        Self::open_on(socket.into(), role, database, false).map(Some)
    }

    fn open_on(stream: TcpStream, role: &str, database: &str, veiled: bool) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = Self {
            stream,
            journal: LoggedSession {
                role: role.to_owned(),
                database: database.to_owned(),
                started_ns: now_ns()?,
                closed: true,
                ..LoggedSession::default()
            },
            left: Vec::new(),
            veiled: false,
        };
        if veiled {
            session.send(&[8_u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat())?;
            ensure!(session.receive::<1>()? == *b"S", "the server has no TLS");
            session.veiled = true;
            session.journal.encryption = Encryption::Tls {
                version: String::new(),
                cipher: String::new(),
            };
        }
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        startup.extend(format!("user\0{role}\0database\0{database}\0\0").bytes());
        let length = u32::try_from(startup.len() + 4)?;
        session.send(&[&length.to_be_bytes()[..], &startup].concat())?;
        session.ready()?;
        session.journal.id = format!("{}", session.journal.backend_pid);
        Ok(session)
    }

    /// A query that counts: its number is in its text.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.note(text)?;
        self.query(text)
    }

    /// A query that counts, as pieces that are sent by `send`.
    ///
    /// # Errors
    /// As [`Session::say`].
    pub fn say_by(
        &mut self,
        text: &str,
        send: impl FnOnce(&mut TcpStream, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.note(text)?;
        send(&mut self.stream, &message(text)?)?;
        self.ready()
    }

    /// A query that counts, of which the last `left` bytes are sent by [`Session::finish`].
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn begin(&mut self, text: &str, left: usize) -> Result<()> {
        self.note(text)?;
        let message = message(text)?;
        let (now, later) = message.split_at(message.len().saturating_sub(left));
        self.stream.write_all(now)?;
        self.left = later.to_vec();
        Ok(())
    }

    /// The rest of it.
    ///
    /// # Errors
    /// As [`Session::say`].
    pub fn finish(&mut self) -> Result<()> {
        let left = std::mem::take(&mut self.left);
        self.stream.write_all(&left)?;
        self.ready()
    }

    fn note(&mut self, text: &str) -> Result<()> {
        self.journal.statements.push(LoggedStatement {
            at_ns: now_ns()?,
            text: text.to_owned(),
            ..LoggedStatement::default()
        });
        Ok(())
    }

    /// By which calls the odd server takes and answers the next message.
    ///
    /// # Errors
    /// As [`Session::say`].
    pub fn next(&mut self, taken: &str, answered: &str) -> Result<()> {
        self.query(&format!("NEXT in={taken} out={answered}"))
    }

    /// The backend's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.journal.backend_pid
    }

    /// Says goodbye and gives the journal.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn end(mut self) -> Result<LoggedSession> {
        self.send(b"X\0\0\0\x04")?;
        // The server's end comes behind its last call.
        drop(self.stream.read(&mut [0; 16]));
        Ok(self.journal)
    }

    fn query(&mut self, text: &str) -> Result<()> {
        self.send(&message(text)?)?;
        self.ready()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let veil = if self.veiled { VEIL } else { 0 };
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte ^ veil).collect();
        Ok(self.stream.write_all(&bytes)?)
    }

    fn receive<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream.read_exact(bytes).context("waiting for the server")?;
        if self.veiled {
            bytes.iter_mut().for_each(|byte| *byte ^= VEIL);
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<()> {
        loop {
            let [kind, length @ ..] = self.receive::<5>()?;
            let mut body = vec![0; usize::try_from(u32::from_be_bytes(length).saturating_sub(4))?];
            self.fill(&mut body)?;
            if let (b'K', Some(pid)) = (kind, body.first_chunk::<4>()) {
                self.journal.backend_pid = u32::from_be_bytes(*pid);
            }
            if kind == b'R' && body != [0; 4] {
                bail!("the role needs a password");
            }
            if kind == b'Z' {
                return Ok(());
            }
        }
    }
}

/// Query (manual, 55.7).
fn message(text: &str) -> Result<Vec<u8>> {
    let length = u32::try_from(text.len() + 5)?;
    Ok([b"Q", &length.to_be_bytes()[..], text.as_bytes(), b"\0"].concat())
}

fn now_ns() -> Result<i64> {
    Ok(i64::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
    )?)
}

/// `include/uapi/linux/in.h`
const IPPROTO_MPTCP: i32 = 262;
/// SSLRequest (manual, 55.7).
const SSL_REQUEST: u32 = 80_877_103;
/// What the odd server puts over each byte.
const VEIL: u8 = 0x55;
/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
