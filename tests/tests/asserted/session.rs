//! One connection, spoken by hand, whose bytes the pipeline is given too; and the comparison of what both say.

use std::{
    io::{Read as _, Write as _},
    ops::AddAssign,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use ebpf_abi::{FactKind, PeerProcess, SegmentHeader, SocketFact, SocketRole, UNIX_PATH_MAX};
use tap_core::{Body, Direction, Named, Names, Query, Redaction, Settings, Tap};

use crate::program::{Kind, QUESTION};

pub(crate) enum Message {
    Query(String),
    /// Parse, Bind and Execute, all unnamed.
    Execute {
        text: String,
        parameters: Vec<Parameter>,
        limit: u32,
    },
    Sync,
}

pub(crate) enum Parameter {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Null,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compared {
    /// Answers of the server about itself.
    pub(crate) statements: u64,
    /// With an end user.
    pub(crate) end_users: u64,
    /// With another role than that of the login.
    pub(crate) roles: u64,
    /// Not compared, because it was said to be possibly stale, or not to be known.
    pub(crate) doubtful: u64,
}

pub(crate) struct Session {
    stream: UnixStream,
    tap: Tap,
    offsets: [u64; 2],
    at: u64,
    queries: Vec<Query>,
    answers: Vec<Vec<String>>,
    said: Vec<String>,
}

const COOKIE: u64 = 7;
const LOGIN: &str = "postgres";

impl Session {
    pub(crate) fn open(socket: &Path, parameters: &[(&str, String)]) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let named = |name: &str, says: &str| Named {
            name: name.to_owned(),
            member: None,
            says: says.to_owned(),
        };
        let names = Names {
            settings: vec![
                named("app.end_user", "end_user"),
                named("app.tenant", "tenant"),
                named("application_name", "application"),
            ],
            comments: Vec::new(),
        };
        let settings = Settings {
            redaction: Redaction::Clear,
            names,
            ..Settings::default()
        };
        let mut tap = Tap::new(settings);
        tap.handle_socket(&fact());
        let mut session = Self {
            stream,
            tap,
            offsets: [0; 2],
            at: 1,
            queries: Vec::new(),
            answers: Vec::new(),
            said: Vec::new(),
        };
        let mut startup = (3_u32 << 16).to_be_bytes().to_vec();
        let own = [("user", LOGIN), ("database", "postgres")].map(|(name, value)| (name, value.to_owned()));
        for (name, value) in own.iter().chain(parameters) {
            startup.extend(text(name));
            startup.extend(text(value));
        }
        startup.push(0);
        session.said.push(format!("startup {parameters:?}"));
        session.send(&message(0, &startup)[1..]);
        session.receive(1, None);
        session
    }

    /// Sends all at once and reads all answers.
    pub(crate) fn exchange(&mut self, messages: &[Message]) {
        let mut bytes = Vec::new();
        let mut readies = 0;
        // Executes before a query string that no Sync separates: if one fails, the string is skipped.
        let (mut executes, mut joined) = (0, None);
        for message in messages {
            match message {
                Message::Execute { .. } => executes += 1,
                Message::Sync => executes = 0,
                Message::Query(_) if executes > 0 => joined = Some(executes),
                Message::Query(_) => {}
            }
            readies += u32::from(!matches!(message, Message::Execute { .. }));
            self.said.push(message.line().replace(QUESTION, "?"));
            bytes.extend(message.bytes());
        }
        self.send(&bytes);
        self.receive(readies, joined);
    }

    /// Holds every answer of the server about itself against the event of the same question.
    pub(crate) fn compare(self, kind: Kind, which: &str) -> Compared {
        let questions: Vec<&Query> = self
            .queries
            .iter()
            // One that comes last in a string has answered when the commit behind it fails.
            .filter(|query| {
                query.rows == 1 && query.text.as_deref().is_some_and(|text| text.trim() == QUESTION)
            })
            .collect();
        let program = self.said.join("\n");
        assert_eq!(questions.len(), self.answers.len(), "{which}\n{program}");
        let mut compared = Compared::default();
        for (index, (query, answer)) in questions.iter().zip(&self.answers).enumerate() {
            compared.statements += 1;
            compared.end_users += u64::from(!answer[1].is_empty());
            compared.roles += u64::from(answer[4] != LOGIN);
            let problem = differs(query, answer, kind, &mut compared);
            if let Some(problem) = problem {
                panic!("{which}, answer {index}: {problem}\n{answer:?}\n{query:#?}\n{program}");
            }
        }
        compared
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.segment(Direction::Frontend, bytes);
    }

    /// Reads until so many ReadyForQuery came; one fewer if any of the `joined` first Executes fails.
    fn receive(&mut self, readies: u32, joined: Option<u32>) {
        let (mut left, mut done) = (readies, 0);
        while left > 0 {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).unwrap();
            let [kind, length @ ..] = head;
            let mut whole = head.to_vec();
            let length = u32::from_be_bytes(length) as usize;
            whole.resize(length + 1, 0);
            self.stream.read_exact(&mut whole[5..]).unwrap();
            self.segment(Direction::Backend, &whole);
            match kind {
                b'Z' => left -= 1,
                b'C' | b's' | b'I' => done += 1,
                b'D' => {
                    let columns = columns(&whole[5..]);
                    if columns.first().is_some_and(|first| first == "oracle") {
                        self.said.push(format!("  {columns:?}"));
                        self.answers.push(columns);
                    }
                }
                b'E' => {
                    left -= u32::from(joined.is_some_and(|joined| done < joined));
                    let error = String::from_utf8_lossy(&whole[5..]).replace('\0', " ");
                    self.said.push(format!("  {error}"));
                }
                _ => {}
            }
        }
    }

    fn segment(&mut self, direction: Direction, bytes: &[u8]) {
        let [frontend, backend] = &mut self.offsets;
        let (offset, side) = match direction {
            Direction::Frontend => (frontend, ebpf_abi::Direction::Received),
            Direction::Backend => (backend, ebpf_abi::Direction::Sent),
        };
        self.at += 1;
        let header = SegmentHeader {
            at: self.at,
            cookie: COOKIE,
            offset: *offset,
            length: bytes.len() as u32,
            tgid: 1,
            direction: side as u8,
            ..SegmentHeader::default()
        };
        *offset += bytes.len() as u64;
        self.tap.handle_segment(&header, bytes);
        while let Some(event) = self.tap.poll() {
            if let Body::Query(query) = event.body {
                self.queries.push(*query);
            }
        }
    }
}

/// What an event says otherwise than the server, if it does.
fn differs(query: &Query, answer: &[String], kind: Kind, compared: &mut Compared) -> Option<String> {
    let asserted = query.asserted.as_deref();
    if asserted.is_some_and(|asserted| asserted.unknown.is_some()) {
        compared.doubtful += 1;
    }
    for (says, truth) in [
        ("end_user", &answer[1]),
        ("tenant", &answer[2]),
        ("application", &answer[3]),
    ] {
        let claim = asserted.and_then(|asserted| asserted.claim(says));
        // Where unseen code ran, no claim is no word on it.
        let silent = claim.is_none() && kind == Kind::Unseen;
        if silent || claim.is_some_and(|claim| claim.possibly_stale) {
            compared.doubtful += 1;
            continue;
        }
        let value = claim.map_or("", |claim| &claim.value);
        if value != truth {
            return Some(format!("{says} is {truth:?}, and {value:?} was asserted"));
        }
        if claim.is_some_and(|claim| claim.set_by.is_some_and(|by| by.statement >= query.number)) {
            return Some(format!("{says} was set by a later statement"));
        }
    }
    match &query.effective_role {
        Some(role) if role.possibly_stale => compared.doubtful += 1,
        None if kind == Kind::Unseen => compared.doubtful += 1,
        role => {
            let role = role.as_ref().map_or("", |role| &role.name);
            if role != answer[4] {
                return Some(format!("the role is {}, and {role:?} was told", answer[4]));
            }
        }
    }
    None
}

impl Parameter {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    pub(crate) fn binary(bytes: &[u8]) -> Self {
        Self::Binary(bytes.to_vec())
    }
}

impl Message {
    fn line(&self) -> String {
        match self {
            Self::Query(text) => format!("Q {text}"),
            Self::Execute { text, limit, .. } => format!("E {text} limit {limit}"),
            Self::Sync => "S".to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Query(sql) => message(b'Q', &text(sql)),
            Self::Execute {
                text: sql,
                parameters,
                limit,
            } => {
                let count = (parameters.len() as u16).to_be_bytes();
                let mut bind = [0, 0].to_vec();
                bind.extend(count);
                for parameter in parameters {
                    bind.extend([0, u8::from(matches!(parameter, Parameter::Binary(_)))]);
                }
                bind.extend(count);
                for parameter in parameters {
                    match parameter {
                        Parameter::Null => bind.extend((-1_i32).to_be_bytes()),
                        Parameter::Text(value) | Parameter::Binary(value) => {
                            bind.extend((value.len() as i32).to_be_bytes());
                            bind.extend(value);
                        }
                    }
                }
                bind.extend([0, 0]);
                [
                    message(b'P', &[text(""), text(sql), vec![0, 0]].concat()),
                    message(b'B', &bind),
                    message(b'E', &[text(""), limit.to_be_bytes().to_vec()].concat()),
                ]
                .concat()
            }
            Self::Sync => message(b'S', &[]),
        }
    }
}

fn fact() -> SocketFact {
    SocketFact {
        kind: FactKind::Socket as u32,
        tgid: 1,
        at: 0,
        cookie: COOKIE,
        server: 1,
        netns: 1,
        family: 1,
        local_port: 0,
        remote_port: 0,
        role: SocketRole::Accepted as u8,
        flags: 0,
        local: [0; 16],
        remote: [0; 16],
        peer: PeerProcess::default(),
        sequence: 0,
        answer: 0,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    }
}

/// The texts of a DataRow.
fn columns(row: &[u8]) -> Vec<String> {
    let mut columns = Vec::new();
    let mut rest = &row[2..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        columns.push(String::from_utf8_lossy(&after[..length]).into_owned());
        rest = &after[length..];
    }
    columns
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

impl AddAssign for Compared {
    fn add_assign(&mut self, other: Self) {
        self.statements += other.statements;
        self.end_users += other.end_users;
        self.roles += other.roles;
        self.doubtful += other.doubtful;
    }
}
