//! The bodies of the fuzz targets, here so that tests run the same code on the corpora. Each turns bytes into a life
//! of a session — well-framed messages, pieces, gaps, an end — and asserts what must hold in any of them. All but the
//! first byte are steps: what, a length, and as many bytes; so that a fuzzer can move, repeat and drop whole messages.

use std::sync::Arc;

use crate::limits::Limits;
use crate::output::Output;
use crate::session::Session;
use crate::{Direction, exchange};

/// Anything in any order, with gaps: bounds hold and nothing breaks. Panics if an invariant breaks.
pub fn fuzz_session(data: &[u8]) {
    let Some((&head, data)) = data.split_first() else {
        return;
    };
    let mut player = Player::new(head);
    for (step, piece) in steps(data) {
        let direction = direction(step & 1 == 0);
        match (step >> 1) & 7 {
            // A message with a true length is what random bytes hardly ever are.
            0..=4 => player.bytes(direction, &message(kinds(direction), step >> 4, piece)),
            5 => player.bytes(direction, piece),
            6 => {
                let length = piece.len() as u64;
                let missing = (step & 16 == 0).then_some(length);
                player.gap(direction, length, missing);
            }
            _ if step & 16 == 0 => player.close(),
            // Out of order, without saying so.
            _ => player.jump_back(direction, piece.len() as u64),
        }
    }
    player.close();
}

/// What a logged-in client may send, and some of what answers it. Panics if an invariant breaks, or if what comes out
/// depends on how the bytes are cut.
pub fn fuzz_frontend(data: &[u8]) {
    replay(data, LOGIN, |step, piece| {
        one_side(Direction::Frontend, step, piece)
    });
}

/// What a server may send to a client that asked for all kinds of things. Panics if an invariant breaks, or if what
/// comes out depends on how the bytes are cut.
pub fn fuzz_backend(data: &[u8]) {
    replay(data, LOGIN, |step, piece| {
        one_side(Direction::Backend, step, piece)
    });
}

/// The beginning of a connection, both sides: encryption, startup packets, authentication. Panics if an invariant
/// breaks, or if what comes out depends on how the bytes are cut.
pub fn fuzz_startup(data: &[u8]) {
    replay(data, &[], |step, piece| {
        let direction = direction(step & 1 == 0);
        let bytes = match ((step >> 1) & 7, direction) {
            (0..=3, Direction::Frontend) => {
                let code = CODES.get(usize::from(step >> 4)).copied().unwrap_or(CODE_3_0);
                with_length(&[], &[&code.to_be_bytes(), piece].concat())
            }
            (4, Direction::Frontend) => with_length(b"p", piece),
            (5, Direction::Frontend) => message(FRONTEND, step >> 4, piece),
            (0..=2, Direction::Backend) => {
                let request = [&u32::from(step >> 4).to_be_bytes(), piece].concat();
                with_length(b"R", &request)
            }
            // The answer to a request for encryption has no length.
            (3, Direction::Backend) => b"SNGE"
                .get(usize::from(step >> 6))
                .map_or(vec![], |&byte| vec![byte]),
            (4 | 5, Direction::Backend) => message(BACKEND, step >> 4, piece),
            _ => piece.to_vec(),
        };
        vec![(direction, bytes)]
    });
}

type Turn = (Direction, Vec<u8>);

/// One step of a conversation of which one side is played by the data and the other answers with what is usual.
fn one_side(own: Direction, step: u8, piece: &[u8]) -> Vec<Turn> {
    let (other, usual) = match own {
        Direction::Frontend => (Direction::Backend, ANSWERS),
        Direction::Backend => (Direction::Frontend, REQUESTS),
    };
    let bytes = match step >> 4 {
        0..=12 => message(kinds(own), step, piece),
        // Each byte is one usual message of the other side.
        13 => {
            let choices = piece
                .iter()
                .map(|&byte| usual.get(usize::from(byte) % usual.len()));
            let messages = choices.map(|choice| choice.copied().unwrap_or_default());
            let messages = messages.map(|(kind, body)| with_length(&[kind], body));
            return vec![(other, messages.collect::<Vec<_>>().concat())];
        }
        // A length that is not the true one.
        14 => {
            let mut bytes = message(kinds(own), step, piece);
            if let Some(last) = bytes.get_mut(4) {
                *last = last.wrapping_add(step << 4);
            }
            bytes
        }
        _ => piece.to_vec(),
    };
    vec![(own, bytes)]
}

/// Plays a conversation whole and cut in pieces.
fn replay(data: &[u8], before: &[(Direction, &[u8])], turns: impl Fn(u8, &[u8]) -> Vec<Turn>) {
    let Some((&head, data)) = data.split_first() else {
        return;
    };
    let mut all: Vec<Turn> = before
        .iter()
        .map(|&(direction, bytes)| (direction, bytes.to_vec()))
        .collect();
    all.extend(steps(data).flat_map(|(step, piece)| turns(step, piece)));
    let whole = play(head, &all, usize::MAX);
    let longest = 1 + usize::from(head >> 2);
    let cut = play(head, &all, longest);
    assert_eq!(in_step(&whole), in_step(&cut), "cut in pieces of up to {longest}");
}

fn play(head: u8, turns: &[Turn], longest: usize) -> Vec<Output> {
    let mut player = Player::new(head & !1);
    let mut length = longest;
    for (direction, bytes) in turns {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(length.min(rest.len()));
            player.bytes(*direction, piece);
            rest = tail;
            if longest != usize::MAX {
                // Another length each time, and memory given back in between.
                length = 1 + length.wrapping_mul(31) % longest;
                player.session.rest();
            }
        }
    }
    player.close();
    player.outputs
}

/// Outputs up to where the session got out of step: the way back is looked for in whole pieces.
fn in_step(outputs: &[Output]) -> &[Output] {
    let out = outputs
        .iter()
        .position(|output| matches!(output, Output::Malformed { .. } | Output::Lost { .. }));
    out.and_then(|out| outputs.get(..out)).unwrap_or(outputs)
}

/// A session, and what it has to keep to.
struct Player {
    session: Session,
    limits: Limits,
    bound: usize,
    offsets: [u64; 2],
    outputs: Vec<Output>,
}

impl Player {
    fn new(head: u8) -> Self {
        let limits = if head & 2 == 0 { Limits::default() } else { tight() };
        let start = if head & 1 == 0 {
            Session::new
        } else {
            Session::mid_stream
        };
        let mut session = start(limits.clone());
        if head & 4 == 0 {
            session = session.with_rows_of(Arc::new(|_: Option<&[u8]>, columns: &[exchange::Column]| {
                (0..columns.len() as u16).collect()
            }));
        }
        Self {
            session,
            bound: limits.retained_bound(),
            limits,
            offsets: [0; 2],
            outputs: Vec::new(),
        }
    }

    fn bytes(&mut self, direction: Direction, bytes: &[u8]) {
        let offset = *self.offset(direction);
        self.session.handle_bytes(direction, 0, offset, bytes);
        *self.offset(direction) += bytes.len() as u64;
        self.check();
    }

    fn gap(&mut self, direction: Direction, bytes: u64, missing: Option<u64>) {
        *self.offset(direction) += bytes;
        let offset = *self.offset(direction);
        self.session.handle_gap(direction, 0, offset, missing);
        self.check();
    }

    fn jump_back(&mut self, direction: Direction, bytes: u64) {
        let offset = self.offset(direction);
        *offset = offset.wrapping_sub(bytes) % (1 << 40);
    }

    fn close(&mut self) {
        self.session.handle_close(0);
        self.check();
    }

    fn offset(&mut self, direction: Direction) -> &mut u64 {
        let [frontend, backend] = &mut self.offsets;
        match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        }
    }

    fn check(&mut self) {
        while let Some(output) = self.session.poll() {
            if let Output::Exchange(exchange) = &output {
                check(exchange, &self.limits);
            }
            self.outputs.push(output);
        }
        let retained = self.session.retained_bytes();
        assert!(
            retained <= self.bound,
            "{retained} bytes kept, bound {}",
            self.bound
        );
    }
}

fn check(exchange: &exchange::Exchange, limits: &Limits) {
    assert!(exchange.request.start < exchange.request.end, "an empty request");
    assert!(!exchange.results.is_empty(), "an exchange without result");
    assert!(exchange.results.len() <= limits.results + 1, "too many results");
    assert!(exchange.statement_name.len() <= limits.names_bytes, "a long name");
    if let Some(sql) = &exchange.sql {
        assert!(sql.len() <= limits.statement_bytes, "a long statement");
        assert_eq!(
            exchange.truncated,
            (sql.len() as u64) < exchange.sql_bytes,
            "truncation not told"
        );
    }
    for result in &exchange.results {
        let failed = result.outcome == exchange::Outcome::Error;
        assert_eq!(failed, result.error.is_some(), "outcome and error differ");
    }
}

/// What, and the bytes that belong to it.
fn steps(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[step, length], rest) = data.split_first_chunk()?;
        let (piece, rest) = rest.split_at_checked(usize::from(length)).unwrap_or((rest, &[]));
        data = rest;
        Some((step, piece))
    })
}

fn direction(frontend: bool) -> Direction {
    if frontend {
        Direction::Frontend
    } else {
        Direction::Backend
    }
}

fn kinds(direction: Direction) -> &'static [u8; 16] {
    match direction {
        Direction::Frontend => FRONTEND,
        Direction::Backend => BACKEND,
    }
}

/// A message of one of these types.
fn message(kinds: &[u8; 16], choice: u8, body: &[u8]) -> Vec<u8> {
    let kind = kinds.get(usize::from(choice & 15)).copied().unwrap_or(b'S');
    with_length(&[kind], body)
}

fn with_length(front: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [front, &length.to_be_bytes(), body].concat()
}

const FRONTEND: &[u8; 16] = b"QPBDECSHFdcfSXES";
const BACKEND: &[u8; 16] = b"Z123CDETtnsGHdZR";

const CODE_3_0: u32 = 196_608;
/// Codes of startup packets (manual, "Message Formats"): TLS, GSSAPI, cancel, protocols 3.0, 3.2, 3.9999, 2.0, none.
const CODES: [u32; 8] = [
    80_877_103, 80_877_104, 80_877_102, CODE_3_0, 196_610, 206_607, 131_072, 0,
];

/// A login without password.
const LOGIN: &[(Direction, &[u8])] = &[
    (Direction::Frontend, b"\0\0\0\x12\0\x03\0\0user\0ann\0\0"),
    (
        Direction::Backend,
        b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x07\xc0SECRZ\0\0\0\x05I",
    ),
];

const REQUESTS: &[(u8, &[u8])] = &[
    (b'Q', b"SELECT 1\0"),
    (b'Q', b"BEGIN; COPY t FROM STDIN; SELECT 2\0"),
    (b'P', b"\0SELECT $1\0\0\x01\0\0\0\x17"),
    (b'P', b"s1\0UPDATE t SET a = $1\0\0\0"),
    (b'B', b"\0\0\0\0\0\x01\0\0\0\x0242\0\0"),
    (b'B', b"c1\0s1\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x2a\0\0"),
    (b'D', b"S\0"),
    (b'D', b"Pc1\0"),
    (b'E', b"\0\0\0\0\0"),
    (b'E', b"c1\0\0\0\0\x02"),
    (b'S', b""),
    (b'C', b"Ss1\0"),
    (b'H', b""),
    (b'F', b"\0\0\0\x2a\0\0\0\x01\0\0\0\x011\0\0"),
    (b'd', b"1\ta\n"),
    (b'c', b""),
    (b'f', b"no\0"),
    (b'X', b""),
];

const ANSWERS: &[(u8, &[u8])] = &[
    (b'1', b""),
    (b'2', b""),
    (b'3', b""),
    (b'n', b""),
    (b't', b"\0\x01\0\0\0\x17"),
    (b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
    (b'D', b"\0\x01\0\0\0\x011"),
    (b'C', b"SELECT 1\0"),
    (b'C', b"INSERT 0 2\0"),
    (b'I', b""),
    (b's', b""),
    (b'E', b"SERROR\0VERROR\0C42601\0Mno\0\0"),
    (b'Z', b"I"),
    (b'Z', b"T"),
    (b'Z', b"E"),
    (b'G', b"\0\0\x01\0\0"),
    (b'H', b"\0\0\x01\0\0"),
    (b'W', b"\0\0\x01\0\0"),
    (b'd', b"1\ta\n"),
    (b'c', b""),
    (b'A', b"\0\0\0\x07ch\0\0"),
    (b'S', b"a\0b\0"),
    (b'V', b"\xff\xff\xff\xff"),
    (b'N', b"SNOTICE\0C00000\0\0"),
];

/// Bounds that a few hundred bytes can reach.
fn tight() -> Limits {
    Limits {
        wanted_value_bytes: 16,
        statement_bytes: 40,
        names_bytes: 5,
        value_bytes: 3,
        values_bytes: 8,
        row_value_bytes: 3,
        rows_bytes: 100,
        prepared: 3,
        prepared_bytes: 100,
        pipeline: 6,
        pipeline_bytes: 90,
        results: 3,
        columns: 4,
    }
}
