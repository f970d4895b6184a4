//! All connections of a host: facts and segments in, events out.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ebpf_abi::{CloseFact, SOCKET_MID_STREAM, SegmentHeader, SocketFact};
use pg_wire::{Limits, Nanos};
use sql_meaning::Interpreter;

use crate::{
    connection::Connection,
    event::{Endpoint, Event, SessionFacts, Transport},
    query::Redaction,
};

/// How the pipeline works.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What one session may keep.
    pub limits: Limits,
    /// What of a statement's text is recorded.
    pub redaction: Redaction,
}

/// All tapped connections.
pub struct Tap {
    settings: Settings,
    connections: HashMap<u64, Connection>,
    /// Connections by the process that serves them.
    by_backend: HashMap<u32, Vec<u64>>,
    interpreter: Interpreter,
    events: VecDeque<Event>,
    closed: Vec<u64>,
    orphans: u64,
}

/// Statements whose meaning is remembered: an application has some thousands.
const STATEMENTS: usize = 8192;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;

impl Tap {
    /// An empty one.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            connections: HashMap::new(),
            by_backend: HashMap::new(),
            interpreter: Interpreter::new(STATEMENTS),
            events: VecDeque::new(),
            closed: Vec::new(),
            orphans: 0,
        }
    }

    /// A server process used a socket for the first time.
    pub fn handle_socket(&mut self, fact: &SocketFact) {
        if let Some(former) = self.connections.get(&fact.cookie) {
            // Passed on to another process: the connection stays the same.
            if former.facts().backend_pid == fact.tgid {
                return;
            }
        }
        let facts = session_facts(fact);
        self.by_backend.entry(fact.tgid).or_default().push(fact.cookie);
        self.connections
            .insert(fact.cookie, Connection::new(facts, self.settings.limits.clone()));
    }

    /// Bytes passed.
    pub fn handle_segment(&mut self, header: &SegmentHeader, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&header.cookie) else {
            self.orphans += 1;
            return;
        };
        connection.handle_segment(header, bytes, &mut self.events);
        connection.poll(&mut self.interpreter, self.settings.redaction, &mut self.events);
    }

    /// The kernel closed a TCP socket, with its own count of both streams.
    pub fn handle_close(&mut self, fact: &CloseFact) {
        if let Some(connection) = self.connections.get_mut(&fact.cookie) {
            connection.handle_end(fact.at, fact.received, fact.sent, &mut self.events);
        }
        self.close(fact.cookie, fact.at, "closed");
    }

    /// A server process ended, and all its connections with it.
    pub fn handle_exit(&mut self, tgid: u32, at: Nanos) {
        for cookie in self.by_backend.remove(&tgid).unwrap_or_default() {
            self.close(cookie, at, "backend-exit");
        }
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The connections that were closed since this was last asked: nothing more comes of them.
    pub fn take_closed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.closed)
    }

    /// What is known of a connection.
    #[must_use]
    pub fn session(&self, cookie: u64) -> Option<&SessionFacts> {
        self.connections
            .get(&cookie)
            .map(|connection| connection.facts().as_ref())
    }

    /// Connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    /// Segments of connections that were never announced.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    fn close(&mut self, cookie: u64, at: Nanos, reason: &'static str) {
        let Some(mut connection) = self.connections.remove(&cookie) else {
            return;
        };
        if let Some(cookies) = self.by_backend.get_mut(&connection.facts().backend_pid) {
            cookies.retain(|kept| *kept != cookie);
        }
        connection.handle_close(at);
        connection.poll(&mut self.interpreter, self.settings.redaction, &mut self.events);
        if connection.was_let_in() {
            self.events.push_back(connection.closed(at, reason));
        }
        self.closed.push(cookie);
    }
}

fn session_facts(fact: &SocketFact) -> SessionFacts {
    let is_unix = fact.family == AF_UNIX;
    let (client, server) = if is_unix {
        let length = usize::try_from(fact.path_length).unwrap_or(0);
        let path = fact.path.get(..length).unwrap_or_default();
        // An abstract name starts with NUL, shown as `@` by convention (man 7 unix).
        let path = path.strip_suffix(b"\0").unwrap_or(path);
        let path = String::from_utf8_lossy(path).replace('\0', "@");
        (Endpoint::Unix(String::new()), Endpoint::Unix(path))
    } else {
        (
            Endpoint::Inet(address(fact.family, fact.remote), fact.remote_port),
            Endpoint::Inet(address(fact.family, fact.local), fact.local_port),
        )
    };
    SessionFacts {
        cookie: fact.cookie,
        backend_pid: fact.tgid,
        server_pid: fact.server,
        transport: if is_unix { Transport::Unix } else { Transport::Tcp },
        client,
        server,
        netns: fact.netns,
        opened_before_attach: fact.flags & SOCKET_MID_STREAM != 0,
        login_role: None,
        database: None,
        application_name: None,
        server_version: None,
        auth_method: None,
        encryption: None,
    }
}

/// An address as the kernel keeps it; IPv4 inside IPv6 is shown as IPv4.
fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if family == AF_INET {
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}
