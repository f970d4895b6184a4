//! Whose statements a pooler passes on: from its socket calls to the client behind each byte that it wrote to a server.
//!
//! A pooler sends a client's bytes from where it received them, and the server's answer to the client from where it received
//! that: memory decides, and request and answer have to agree. Which socket a thread had looked at last decides only what was
//! written anew, and never alone. Content is compared where it is at hand (the first bytes of a call) and decides nothing: equal
//! statements are the normal case.
//!
//! Owns that rule and what it needs to know of a process. Refuses names, sessions of backends and the protocol: the
//! pooler's connection to a server and the backend's session are one stream, whose offsets are equal at both ends.

mod alignment;
mod hidden;
mod memory;
mod process;
mod server;

use std::collections::VecDeque;

use ebpf_abi::{SOCKET_MID_STREAM, SOCKET_UNCOUNTED, SocketFact, Transfer};

pub use ::lease::{Asked, By, Coded, Decision, Kind, Leased, Portion, Traffic, decide};

use self::process::Process;
use crate::cookies::{ByCookie, ById};

/// Which end of its connection a pooler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server's: the connection is one of its clients'.
    Client,
    /// The client's: the connection leads to a server.
    Server,
}

/// Closed sockets that are remembered for questions that come late.
const CLOSED: usize = 8_192;

/// The poolers of a host.
#[derive(Debug, Default)]
pub struct Poolers {
    processes: ById<Process>,
    /// The process of each socket.
    sockets: ByCookie<u32>,
    closed: VecDeque<u64>,
    ended: VecDeque<u32>,
    orphans: u64,
}

impl Poolers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What program a pooler is; to be said before its first transfer.
    pub fn handle_program(&mut self, tgid: u32, kind: Kind) {
        self.process(tgid).kind = kind;
    }

    /// A pooler uses a socket for the first time.
    pub fn handle_socket(&mut self, fact: &SocketFact, end: End) {
        /// unix(7)
        const AF_UNIX: u16 = 1;
        let mid_stream = fact.flags & SOCKET_MID_STREAM != 0;
        let counted = fact.family != AF_UNIX && fact.flags & SOCKET_UNCOUNTED == 0;
        let process = self.process(fact.tgid);
        process.socket(fact.cookie, end, mid_stream, counted);
        self.sockets.insert(fact.cookie, fact.tgid);
    }

    /// A pooler's thread called the kernel on a socket.
    pub fn handle_transfer(&mut self, transfer: &Transfer) {
        match self.sockets.get(&transfer.cookie).copied() {
            Some(owner) if owner == transfer.tgid => {}
            Some(owner) => self.hand_over(transfer.cookie, owner, transfer.tgid),
            None => self.orphans += 1,
        }
        // A thread's order counts all of its calls.
        self.process(transfer.tgid).transfer(transfer);
    }

    /// Another process uses a socket from now on: a pooler that restarts passes its connections to its successor.
    fn hand_over(&mut self, cookie: u64, from: u32, to: u32) {
        let Some(owner) = self.processes.get_mut(&from) else {
            return;
        };
        let connection = owner.give(cookie);
        self.process(to).take(cookie, connection);
        self.sockets.insert(cookie, to);
    }

    /// A connection is over.
    pub fn handle_close(&mut self, cookie: u64) {
        let Some(process) = self.process_of(cookie) else {
            return;
        };
        process.closed(cookie);
        self.closed.push_back(cookie);
        if self.closed.len() > CLOSED
            && let Some(oldest) = self.closed.pop_front()
        {
            if let Some(process) = self.process_of(oldest) {
                process.clients.remove(&oldest);
                process.servers.remove(&oldest);
            }
            self.sockets.remove(&oldest);
        }
    }

    /// A process ended. What it did is known for a while yet.
    pub fn handle_exit(&mut self, tgid: u32) {
        /// Processes that ended: what their statements were is asked within seconds.
        const ENDED: usize = 64;
        let Some(process) = self.processes.get_mut(&tgid) else {
            return;
        };
        process.over();
        self.ended.push_back(tgid);
        if self.ended.len() > ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.processes.remove(&oldest);
            self.sockets.retain(|_, tgid| *tgid != oldest);
        }
    }

    /// Transfers were lost, nobody knows whose.
    pub fn handle_loss(&mut self) {
        for process in self.processes.values_mut() {
            process.lost();
        }
    }

    /// Whose the statement is that was sent over the pooler's socket `server`. To be asked in the order of the stream: what
    /// lies before a statement that was decided is forgotten.
    pub fn decide(&mut self, server: u64, asked: &Asked) -> Decision {
        self.ask(server, asked, true)
    }

    /// The same in any order, and nothing is forgotten for it: statements of one connection that another pooler spread over
    /// several of its own.
    pub fn look(&mut self, server: u64, asked: &Asked) -> Decision {
        self.ask(server, asked, false)
    }

    fn ask(&mut self, server: u64, asked: &Asked, forgets: bool) -> Decision {
        let Some(process) = self.process_of(server) else {
            return unknown();
        };
        let Some(connection) = process.servers.get_mut(&server) else {
            return unknown();
        };
        let aligned = match connection.aligned(asked) {
            Ok(aligned) => aligned,
            Err(decision) => return decision,
        };
        let clients = &process.clients;
        let lives = |client: u64| clients.get(&client).is_some_and(|client| !client.ended);
        let decision = decide(process.kind, &connection.traffic, lives, &aligned);
        if forgets && decision != Decision::NotYet {
            let answered = aligned.response_to.map_or(0, |to| to.saturating_sub(1));
            connection.traffic.forget(aligned.request.start, answered);
        }
        decision
    }

    /// Takes out what became known of the pooler's socket `server` since it was last taken out, for whoever decides
    /// elsewhere; and what program the pooler is. `None` where nothing did, or where its offsets are not those of the other end.
    /// Whoever asks this of a connection does not ask [`Self::decide`] about it.
    pub fn drain(&mut self, server: u64) -> Option<(Kind, Portion)> {
        let process = self.process_of(server)?;
        let connection = process.servers.get_mut(&server)?;
        if connection.alignment.is_some() || connection.hidden.is_hidden() {
            return None;
        }
        let clients = &process.clients;
        let ended = |client: u64| clients.get(&client).is_none_or(|client| client.ended);
        let is_news = connection.traffic.pieces() > 0 || connection.traffic.is_over();
        is_news.then(|| (process.kind, connection.traffic.drain(ended)))
    }

    /// Whether the bytes of a connection to a server are counted in its plaintext under TLS; `None` if it is not known.
    #[must_use]
    pub fn is_encrypted(&self, server: u64) -> Option<bool> {
        let process = self.processes.get(self.sockets.get(&server)?)?;
        let connection = process.servers.get(&server)?;
        Some(connection.channel != ebpf_abi::Channel::Socket as u8)
    }

    /// Pieces that wait to be drained.
    #[must_use]
    pub fn undrained(&mut self, server: u64) -> usize {
        let server = self
            .process_of(server)
            .and_then(|process| process.servers.get(&server));
        server.map_or(0, |server| server.traffic.pieces())
    }

    /// Transfers on sockets that were never announced.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// The process of that id that lives: ids are used again.
    fn process(&mut self, tgid: u32) -> &mut Process {
        let process = self.processes.entry(tgid).or_default();
        if process.is_over {
            *process = Process::default();
            self.ended.retain(|ended| *ended != tgid);
        }
        process
    }

    fn process_of(&mut self, socket: u64) -> Option<&mut Process> {
        self.processes.get_mut(self.sockets.get(&socket)?)
    }
}

fn unknown() -> Decision {
    Decision::undecided("the pooler's end of the connection is not known", [])
}

#[cfg(test)]
mod tests;
