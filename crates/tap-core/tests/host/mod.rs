//! A database host without a kernel: sockets, segments with true offsets and times, closings. And events as lines of
//! text. What the two sides say on the wire is built by the protocol crate's own test code.

#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use ebpf_abi::{CloseFact, MissingReason, SOCKET_MID_STREAM, SegmentHeader, SocketFact, UNIX_PATH_MAX};
use tap_core::{Body, Direction, Event, Final, Query, Redaction, Settings, Tap, Times};

#[path = "../../../pg-wire/tests/conversation/mod.rs"]
pub(crate) mod wire;

pub(crate) use wire::Conversation;

pub(crate) const COOKIE: u64 = 0x51;
pub(crate) const BACKEND: u32 = 1984;
pub(crate) const SERVER: u32 = 1900;
const NETNS: u32 = 4_026_531_840;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

pub(crate) struct Host {
    pub(crate) tap: Tap,
    /// Moves on with every segment.
    pub(crate) at: u64,
    streams: HashMap<u64, [u64; 2]>,
    events: Vec<Event>,
}

impl Host {
    pub(crate) fn new(redaction: Redaction) -> Self {
        Self::with(Settings {
            redaction,
            ..Settings::default()
        })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self {
            tap: Tap::new(settings),
            at: 1_000,
            streams: HashMap::new(),
            events: Vec::new(),
        }
    }

    /// With one TCP connection open.
    pub(crate) fn connected() -> Self {
        let mut host = Self::new(Redaction::Clear);
        host.accept(&tcp(COOKIE, BACKEND));
        host
    }

    /// With one TCP connection on which a client has logged in, which has been told.
    pub(crate) fn logged_in() -> Self {
        let mut host = Self::connected();
        host.play(COOKIE, &Conversation::logged_in());
        assert_eq!(host.lines(), ["open"]);
        host
    }

    pub(crate) fn accept(&mut self, fact: &SocketFact) {
        self.tap.handle_socket(fact);
        self.drain();
    }

    pub(crate) fn play(&mut self, cookie: u64, conversation: &Conversation) {
        for (direction, bytes) in &conversation.turns {
            self.segment(cookie, *direction, bytes);
        }
    }

    pub(crate) fn client(&mut self, messages: &[Vec<u8>]) {
        self.segment(COOKIE, Direction::Frontend, &messages.concat());
    }

    pub(crate) fn server(&mut self, messages: &[Vec<u8>]) {
        self.segment(COOKIE, Direction::Backend, &messages.concat());
    }

    /// Bytes that were captured.
    pub(crate) fn segment(&mut self, cookie: u64, direction: Direction, bytes: &[u8]) {
        let header = self.header(cookie, direction, bytes.len() as u64);
        self.tap.handle_segment(
            &SegmentHeader {
                length: bytes.len() as u32,
                ..header
            },
            bytes,
        );
        self.drain();
    }

    /// Bytes of which nobody was told.
    pub(crate) fn unseen(&mut self, cookie: u64, direction: Direction, bytes: u64) {
        self.header(cookie, direction, bytes);
    }

    /// Bytes of which the kernel side could take the head only.
    pub(crate) fn cut(
        &mut self,
        cookie: u64,
        direction: Direction,
        head: &[u8],
        missing: u32,
        reason: MissingReason,
    ) {
        let header = self.header(cookie, direction, head.len() as u64 + u64::from(missing));
        self.tap.handle_segment(
            &SegmentHeader {
                length: head.len() as u32,
                missing,
                reason: reason as u8,
                ..header
            },
            head,
        );
        self.drain();
    }

    /// The kernel closes a TCP socket.
    pub(crate) fn close(&mut self, cookie: u64) {
        self.at += 10;
        let [received, sent] = self.streams.get(&cookie).copied().unwrap_or_default();
        self.tap.handle_close(&CloseFact {
            at: self.at,
            cookie,
            received,
            sent,
            ..CloseFact::default()
        });
        self.drain();
    }

    pub(crate) fn exit(&mut self, backend: u32) {
        self.at += 10;
        self.tap.handle_exit(backend, self.at);
        self.drain();
    }

    /// What has been told since this was last asked.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn lines(&mut self) -> Vec<String> {
        self.events().iter().map(line).collect()
    }

    pub(crate) fn queries(&mut self) -> Vec<Query> {
        queries(self.events())
    }

    fn header(&mut self, cookie: u64, direction: Direction, bytes: u64) -> SegmentHeader {
        self.at += 10;
        let [frontend, backend] = self.streams.entry(cookie).or_default();
        let stream = match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        };
        let offset = *stream;
        *stream += bytes;
        SegmentHeader {
            at: self.at,
            cookie,
            offset,
            tgid: BACKEND,
            direction: direction as u8,
            ..SegmentHeader::default()
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.tap.poll() {
            self.events.push(event);
        }
    }
}

/// A TCP connection from 10.0.0.5:51234 to 10.0.0.9:5432.
pub(crate) fn tcp(cookie: u64, backend: u32) -> SocketFact {
    inet(
        cookie,
        backend,
        Ipv4Addr::new(10, 0, 0, 5).into(),
        Ipv4Addr::new(10, 0, 0, 9).into(),
    )
}

pub(crate) fn inet(cookie: u64, backend: u32, client: IpAddr, server: IpAddr) -> SocketFact {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    };
    SocketFact {
        family: if client.is_ipv4() { AF_INET } else { AF_INET6 },
        local: bytes(server),
        local_port: 5432,
        remote: bytes(client),
        remote_port: 51234,
        ..socket(cookie, backend)
    }
}

/// A connection to a Unix socket that is bound to `name` (man 7 unix).
pub(crate) fn unix(cookie: u64, backend: u32, name: &[u8]) -> SocketFact {
    let mut path = [0; UNIX_PATH_MAX];
    path.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    SocketFact {
        family: AF_UNIX,
        client_inode: 0,
        path_length: name.len() as u32,
        path,
        ..socket(cookie, backend)
    }
}

pub(crate) fn mid_stream(fact: SocketFact) -> SocketFact {
    SocketFact {
        flags: SOCKET_MID_STREAM,
        ..fact
    }
}

fn socket(cookie: u64, backend: u32) -> SocketFact {
    SocketFact {
        kind: ebpf_abi::FactKind::Socket as u32,
        tgid: backend,
        at: 900,
        cookie,
        server: SERVER,
        netns: NETNS,
        family: 0,
        local_port: 0,
        remote_port: 0,
        role: ebpf_abi::SocketRole::Accepted as u8,
        flags: 0,
        local: [0; 16],
        remote: [0; 16],
        peer: ebpf_abi::PeerProcess::default(),
        sequence: 0,
        answer: 0,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    }
}

pub(crate) fn queries(events: Vec<Event>) -> Vec<Query> {
    events
        .into_iter()
        .filter_map(|event| match event.body {
            Body::Query(query) => Some(*query),
            _ => None,
        })
        .collect()
}

/// An event in one line: what most tests compare.
pub(crate) fn line(event: &Event) -> String {
    match &event.body {
        Body::SessionOpen => "open".to_owned(),
        Body::SessionClose {
            reason, statements, ..
        } => format!("close {reason} statements={statements}"),
        Body::AuthFailure(error) => format!("auth_failure {} {}", error.severity, error.sqlstate),
        Body::SessionError(error) => format!("session_error {} {}", error.severity, error.sqlstate),
        Body::Cancel { victim, session } => match session {
            Some(cookie) => format!("cancel {victim} session={cookie}"),
            None => format!("cancel {victim}"),
        },
        Body::Transaction(end) => format!("transaction {} {:?} {}", end.number, end.how, end.statements),
        Body::Opaque { kind, reason } => format!("opaque {kind:?} {reason:?}"),
        Body::Gap(gap) => {
            let detail = if gap.detail.is_empty() {
                String::new()
            } else {
                format!(" ({})", gap.detail)
            };
            let missing = gap
                .bytes_missing
                .map_or("?".to_owned(), |bytes| bytes.to_string());
            format!("gap {} {:?} {missing}{detail}", gap.reason, gap.direction)
        }
        Body::Query(query) => {
            let mut line = format!(
                "{:?} {} {:?}@{:?}",
                query.kind,
                query.text.as_deref().unwrap_or("?"),
                query.outcome,
                query.phase
            );
            if let Some(tag) = &query.tag {
                line += &format!(" {tag:?}");
            }
            if query.rows > 0 {
                line += &format!(" rows={}", query.rows);
            }
            if let Some(error) = &query.error {
                line += &format!(" {}", error.sqlstate);
            }
            let status = query.transaction_status.map_or('-', char::from);
            // What the status alone would have said goes without saying.
            let how = match (query.transaction_status, query.transaction_final) {
                (Some(b'I'), Some(Final::Committed)) | (None, Some(Final::Unknown)) | (_, None) => {
                    String::new()
                }
                (_, Some(how)) => format!("={how:?}"),
            };
            line + &format!(" {status}{}{how}", query.transaction)
        }
    }
}

/// Everything that an event says, except when.
pub(crate) fn timeless(events: Vec<Event>) -> Vec<String> {
    events
        .into_iter()
        .map(|event| {
            format!(
                "{:?}",
                Event {
                    times: Times::default(),
                    ..event
                }
            )
        })
        .collect()
}
