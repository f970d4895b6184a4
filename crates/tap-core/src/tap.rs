//! All connections of a host: facts and segments in, events out.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ebpf_abi::{CloseFact, SOCKET_MID_STREAM, SOCKET_UNCOUNTED, SegmentHeader, SocketFact};
use pg_wire::{Limits, Nanos};

use crate::{
    assertions::{Names, Tracked},
    catalog::{self, Catalog},
    connection::{Connection, Kept, Recorder},
    cookies::ByCookie,
    event::{Body, Endpoint, Event, SessionFacts, Transport},
    meanings::Meanings,
    query::Redaction,
    relations::Relations,
    subjects::{Sensitive, Watch},
};

/// How the pipeline works.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What one session may keep.
    pub limits: Limits,
    /// What of a statement's text is recorded.
    pub redaction: Redaction,
    /// Which columns are sensitive, if any are: whose records statements touch is told, and what is told of parameters
    /// follows it.
    pub sensitive: Option<Arc<Sensitive>>,
    /// What clients may say about themselves. It is recorded in the clear, whatever the redaction.
    pub names: Names,
    /// Servers' catalogs are looked at: what they say is given to [`Tap::learn_names`].
    pub catalog: bool,
}

/// All tapped connections.
pub struct Tap {
    kept: Kept,
    /// Boxed, because the table has room for twice as many.
    pub(crate) connections: ByCookie<Box<Connection>>,
    /// Connections by the process that serves them; none of the lists is empty.
    by_backend: HashMap<u32, Vec<u64>>,
    /// Connections by postmaster and the number by which clients name their backend.
    by_key: HashMap<(u32, u32), u64>,
    pub(crate) recorder: Recorder,
    closed: Vec<u64>,
    /// Connections that were heard of since it was last asked, each once.
    pub(crate) touched: Vec<u64>,
    /// When idle connections are looked for next.
    next_rest: Nanos,
    orphans: u64,
}

/// Statements whose meaning is remembered: an application has some thousands.
const STATEMENTS: usize = 8192;

/// Bytes kept of one parameter value where values are recorded: a document; more is data.
const CLEAR_VALUE_BYTES: usize = 64 * 1024;

/// Bytes kept of a parameter value in sessions that call `set_config`, to follow what they assert: the claims of a token
/// have some hundred, and headers, where tokens come from, are limited to 8 or 16 KiB by web servers.
const ASSERTED_VALUE_BYTES: usize = 16 * 1024;

/// Bytes kept of a parameter value where columns are classified: values that identify are short, and this is a list of
/// 400 UUIDs for `= ANY ($1)`. Longer ones have no token, and it is said that one is missing.
const SUBJECT_VALUE_BYTES: usize = 16 * 1024;

/// Silence after which a connection counts as idle, in nanoseconds.
const IDLE_NS: Nanos = 1_000_000_000;
/// Room for events that is kept.
const IDLE_EVENTS: usize = 1_024;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;

impl Tap {
    /// An empty one.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut limits = settings.limits;
        if settings.redaction == Redaction::Clear && limits.value_bytes == 0 {
            limits.value_bytes = CLEAR_VALUE_BYTES;
        }
        let watch = settings.sensitive.as_deref().map(Watch::new);
        if watch.is_some() {
            limits.value_bytes = limits.value_bytes.max(SUBJECT_VALUE_BYTES);
        }
        limits.wanted_value_bytes = limits.wanted_value_bytes.max(ASSERTED_VALUE_BYTES);
        Self {
            kept: Kept {
                limits,
                rows_of: watch.as_ref().map(Watch::rows_of),
                weighs: settings.catalog,
                copy_of: watch.as_ref().map(Watch::copy_of),
            },
            connections: ByCookie::default(),
            by_backend: HashMap::new(),
            by_key: HashMap::new(),
            recorder: Recorder {
                meanings: Meanings::new(STATEMENTS),
                redaction: settings.redaction,
                events: VecDeque::new(),
                told: Vec::new(),
                names: Tracked::new(&settings.names, settings.catalog),
                relations: Relations::default(),
                catalog: settings.catalog.then(Catalog::default),
                watch,
            },
            closed: Vec::new(),
            touched: Vec::new(),
            next_rest: 0,
            orphans: 0,
        }
    }

    /// A server process used a socket for the first time. A cookie is never used again: a known one is the same
    /// connection, whoever uses it.
    pub fn handle_socket(&mut self, fact: &SocketFact) {
        if let Entry::Vacant(entry) = self.connections.entry(fact.cookie) {
            let connection = Connection::new(session_facts(fact), fact, self.kept.clone());
            entry.insert(Box::new(connection));
            self.by_backend.entry(fact.tgid).or_default().push(fact.cookie);
        }
    }

    /// Bytes passed.
    pub fn handle_segment(&mut self, header: &SegmentHeader, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&header.cookie) else {
            self.orphans += 1;
            return;
        };
        if connection.past.touch(header) {
            self.touched.push(header.cookie);
        }
        connection.handle_segment(header, bytes, &mut self.recorder);
        if let Some(key) = connection.take_new_key() {
            self.by_key.insert(key, header.cookie);
        }
        self.handle_time(header.at);
    }

    /// Time has passed: connections that have been silent for a while give back what only busy ones need.
    pub fn handle_time(&mut self, now: Nanos) {
        if now < self.next_rest {
            return;
        }
        self.next_rest = now.saturating_add(IDLE_NS);
        for connection in self.connections.values_mut() {
            connection.rest(now.saturating_sub(IDLE_NS));
        }
        let connections = &self.connections;
        self.touched.retain(|cookie| connections.contains_key(cookie));
        self.recorder.events.shrink_to(IDLE_EVENTS);
        self.recorder.told.shrink_to(IDLE_EVENTS);
    }

    /// Memory is short: what can be made anew is forgotten.
    pub fn forget(&mut self) {
        self.recorder.meanings = Meanings::new(STATEMENTS);
        self.recorder.relations = Relations::default();
    }

    /// A look at a database's catalog found these names. It began then, in capture time.
    pub fn learn_names(&mut self, server: u32, database: &str, names: Arc<catalog::Names>, began: Nanos) {
        if let Some(catalog) = &mut self.recorder.catalog {
            catalog.learn(server, database, names, began);
        }
    }

    /// What was learnt of a database's names does not hold any longer.
    pub fn unlearn_names(&mut self, server: u32, database: &str) {
        if let Some(catalog) = &mut self.recorder.catalog {
            catalog.unlearn(server, database);
        }
    }

    /// Whether something may have changed a name of a database since its catalog was looked at.
    #[must_use]
    pub fn is_stale(&self, server: u32, database: &str) -> bool {
        let catalog = self.recorder.catalog.as_ref();
        catalog.is_some_and(|catalog| catalog.is_stale(server, database))
    }

    /// A server has ended: what was known of its tables is forgotten.
    pub fn drop_server(&mut self, server: u32) {
        self.recorder.relations.drop_server(server);
        if let Some(catalog) = &mut self.recorder.catalog {
            catalog.drop_server(server);
        }
    }

    /// The kernel closed a TCP socket, with its own count of both streams.
    pub fn handle_close(&mut self, fact: &CloseFact) {
        if let Some(connection) = self.connections.get_mut(&fact.cookie) {
            connection.handle_end(fact, &mut self.recorder);
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
        let mut event = self.recorder.events.pop_front()?;
        if let Body::Cancel { victim, session } = &mut event.body {
            *session = self.by_key.get(&(event.session.server_pid, *victim)).copied();
        }
        Some(event)
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

    /// What is known of tables by their numbers.
    #[must_use]
    pub fn relations(&self) -> &Relations {
        &self.recorder.relations
    }

    /// Connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    /// The processes that serve them.
    pub fn backends(&self) -> impl Iterator<Item = u32> {
        self.by_backend.keys().copied()
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
        if let Entry::Occupied(mut cookies) = self.by_backend.entry(connection.facts().backend_pid) {
            cookies.get_mut().retain(|kept| *kept != cookie);
            if cookies.get().is_empty() {
                cookies.remove();
            }
        }
        connection.handle_close(at, reason, &mut self.recorder);
        if let Some(key) = connection.key()
            && self.by_key.get(&key) == Some(&cookie)
        {
            self.by_key.remove(&key);
        }
        self.closed.push(cookie);
    }
}

/// What a socket says of its session.
#[must_use]
pub fn session_facts(fact: &SocketFact) -> SessionFacts {
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
        is_counted: !is_unix && fact.flags & SOCKET_UNCOUNTED == 0,
        client,
        server,
        netns: fact.netns,
        opened_before_attach: fact.flags & SOCKET_MID_STREAM != 0,
        fingerprint: fact.fingerprint(),
        login_role: None,
        database: None,
        application_name: None,
        server_version: None,
        auth_method: None,
        encryption: None,
        tls_version: None,
        tls_cipher: None,
    }
}

/// An address as the kernel keeps it; IPv4 inside IPv6 is shown as IPv4.
#[must_use]
pub fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if family == AF_INET {
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

#[cfg(test)]
mod tests {
    use ebpf_abi::{PeerProcess, UNIX_PATH_MAX};

    use super::*;

    #[test]
    fn nothing_is_left_of_what_is_over() {
        let mut tap = Tap::new(Settings::default());
        let fact = |cookie, tgid| SocketFact {
            kind: 0,
            tgid,
            at: 0,
            cookie,
            server: 1,
            netns: 0,
            family: AF_INET,
            local_port: 5432,
            remote_port: 0,
            role: 0,
            flags: 0,
            local: [0; 16],
            remote: [0; 16],
            peer: PeerProcess::default(),
            sequence: 0,
            answer: 0,
            client_inode: 0,
            path_length: 0,
            path: [0; UNIX_PATH_MAX],
        };
        for (cookie, tgid) in [(1, 10), (2, 10), (3, 30), (3, 31)] {
            tap.handle_socket(&fact(cookie, tgid));
        }
        assert_eq!((tap.connections.len(), tap.by_backend.len()), (3, 2));
        for cookie in [1, 3] {
            tap.handle_close(&CloseFact {
                cookie,
                ..CloseFact::default()
            });
        }
        assert_eq!(tap.by_backend, HashMap::from([(10, vec![2])]));
        tap.handle_exit(10, 0);
        assert!(tap.connections.is_empty() && tap.by_backend.is_empty());
    }
}
