//! Conversations built by hand: what each side says, in order, and ways to play them to a session.

#![expect(dead_code, reason = "each test binary uses a part of it")]

use pg_wire::{Direction, Exchange, Limits, Outcome, Output, Session};

pub(crate) mod samples;

pub(crate) type Turn = (Direction, Vec<u8>);

/// Constant, so that outputs do not depend on how bytes are cut.
pub(crate) const AT: u64 = 7;

#[derive(Clone, Default)]
pub(crate) struct Conversation {
    pub(crate) turns: Vec<Turn>,
}

impl Conversation {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The usual login without password, up to the first ReadyForQuery.
    pub(crate) fn logged_in() -> Self {
        Self::new()
            .client(&[startup(&[("user", "ann"), ("database", "shop")])])
            .server(&[
                auth(0, b""),
                parameter("TimeZone", "UTC"),
                backend_key(1984, b"SECR"),
                ready(b'I'),
            ])
    }

    pub(crate) fn client(mut self, messages: &[Vec<u8>]) -> Self {
        self.turns.push((Direction::Frontend, messages.concat()));
        self
    }

    pub(crate) fn server(mut self, messages: &[Vec<u8>]) -> Self {
        self.turns.push((Direction::Backend, messages.concat()));
        self
    }

    pub(crate) fn play(&self) -> Vec<Output> {
        self.play_with(Limits::default())
    }

    pub(crate) fn play_with(&self, limits: Limits) -> Vec<Output> {
        let mut player = Player::new(Session::new(limits));
        player.turns(&self.turns);
        player.close()
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        exchanges(self.play())
    }
}

/// A session with its stream offsets and what it has told.
pub(crate) struct Player {
    pub(crate) session: Session,
    pub(crate) offsets: [u64; 2],
    pub(crate) outputs: Vec<Output>,
}

impl Player {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            offsets: [0; 2],
            outputs: Vec::new(),
        }
    }

    pub(crate) fn turns(&mut self, turns: &[Turn]) {
        for (direction, bytes) in turns {
            self.bytes(*direction, bytes);
        }
    }

    pub(crate) fn bytes(&mut self, direction: Direction, bytes: &[u8]) {
        let offset = self.offset(direction);
        let start = *offset;
        *offset += bytes.len() as u64;
        self.session.handle_bytes(direction, AT, start, bytes);
        self.drain();
    }

    pub(crate) fn gap(&mut self, direction: Direction, missing: u64, told: bool) {
        let offset = self.offset(direction);
        *offset += missing;
        let after = *offset;
        self.session
            .handle_gap(direction, AT, after, told.then_some(missing));
        self.drain();
    }

    pub(crate) fn close(mut self) -> Vec<Output> {
        self.session.handle_close(AT);
        self.drain();
        self.outputs
    }

    fn offset(&mut self, direction: Direction) -> &mut u64 {
        let [frontend, backend] = &mut self.offsets;
        match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            self.outputs.push(output);
        }
    }
}

pub(crate) fn exchanges(outputs: Vec<Output>) -> Vec<Exchange> {
    outputs
        .into_iter()
        .filter_map(|output| {
            if let Output::Exchange(exchange) = output {
                Some(*exchange)
            } else {
                None
            }
        })
        .collect()
}

/// An exchange in one line: what most tests compare.
pub(crate) fn line(exchange: &Exchange) -> String {
    let sql = exchange
        .sql
        .as_ref()
        .map_or("?".into(), |sql| String::from_utf8_lossy(sql).into_owned());
    let results: Vec<String> = exchange
        .results
        .iter()
        .map(|result| {
            let mut line = format!("{:?}@{:?}", result.outcome, result.phase);
            if let Some(tag) = &result.tag {
                line += &format!(" {tag:?}");
            }
            if result.rows > 0 {
                line += &format!(" rows={}", result.rows);
            }
            if let Some(copied) = result.copy_bytes {
                line += &format!(" copied={copied}");
            }
            if let Some(error) = &result.error {
                line += &format!(" {}:{}", error.severity, error.sqlstate);
            }
            assert_eq!(result.outcome == Outcome::Error, result.error.is_some());
            line
        })
        .collect();
    let status = exchange.transaction_status.map_or('-', char::from);
    format!("{:?} {sql} [{}] {status}", exchange.kind, results.join(", "))
}

pub(crate) fn lines(exchanges: &[Exchange]) -> Vec<String> {
    exchanges.iter().map(line).collect()
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

pub(crate) fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
    [
        &(body.len() as u32 + 8).to_be_bytes()[..],
        &code.to_be_bytes(),
        body,
    ]
    .concat()
}

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    untyped(3 << 16, &body)
}

pub(crate) fn ssl_request() -> Vec<u8> {
    untyped(80_877_103, b"")
}

pub(crate) fn gssenc_request() -> Vec<u8> {
    untyped(80_877_104, b"")
}

pub(crate) fn cancel_request(pid: u32, key: &[u8]) -> Vec<u8> {
    untyped(80_877_102, &[&pid.to_be_bytes(), key].concat())
}

pub(crate) fn credentials(secret: &[u8]) -> Vec<u8> {
    message(b'p', secret)
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(
        b'P',
        &[format!("{name}\0{sql}\0").as_bytes(), &[0, 1, 0, 0, 0, 23]].concat(),
    )
}

pub(crate) fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    body.extend_from_slice(&[0, 2, 0, 0, 0, 1]);
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

pub(crate) fn describe(what: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{what}{name}\0").as_bytes())
}

pub(crate) fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(
        b'E',
        &[format!("{portal}\0").as_bytes(), &rows.to_be_bytes()].concat(),
    )
}

pub(crate) fn close(what: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{what}{name}\0").as_bytes())
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', b"")
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(crate) fn function_call(oid: u32) -> Vec<u8> {
    message(b'F', &[&oid.to_be_bytes()[..], &[0, 0, 0, 0, 0, 0]].concat())
}

pub(crate) fn terminate() -> Vec<u8> {
    message(b'X', b"")
}

pub(crate) fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

pub(crate) fn copy_fail() -> Vec<u8> {
    message(b'f', b"no more\0")
}

pub(crate) fn auth(code: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), body].concat())
}

pub(crate) fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub(crate) fn backend_key(pid: u32, key: &[u8]) -> Vec<u8> {
    message(b'K', &[&pid.to_be_bytes(), key].concat())
}

pub(crate) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub(crate) fn parsed() -> Vec<u8> {
    message(b'1', b"")
}

pub(crate) fn bound() -> Vec<u8> {
    message(b'2', b"")
}

pub(crate) fn closed() -> Vec<u8> {
    message(b'3', b"")
}

pub(crate) fn no_data() -> Vec<u8> {
    message(b'n', b"")
}

pub(crate) fn parameter_description() -> Vec<u8> {
    message(b't', &[0, 1, 0, 0, 0, 23])
}

pub(crate) fn row_description(columns: &[(&str, u32, i16)]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for (name, table, number) in columns {
        body.extend_from_slice(format!("{name}\0").as_bytes());
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&number.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0]);
    }
    message(b'T', &body)
}

pub(crate) fn row(value: &str) -> Vec<u8> {
    message(
        b'D',
        &[&[0, 1], &(value.len() as u32).to_be_bytes()[..], value.as_bytes()].concat(),
    )
}

pub(crate) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

pub(crate) fn empty_query() -> Vec<u8> {
    message(b'I', b"")
}

pub(crate) fn suspended() -> Vec<u8> {
    message(b's', b"")
}

pub(crate) fn function_result() -> Vec<u8> {
    message(b'V', &[0, 0, 0, 1, b'1'])
}

pub(crate) fn error(severity: &str, sqlstate: &str) -> Vec<u8> {
    message(
        b'E',
        format!("S{severity}\0V{severity}\0C{sqlstate}\0Mthe text\0Fx.c\0L1\0Rf\0\0").as_bytes(),
    )
}

pub(crate) fn notice() -> Vec<u8> {
    message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhear\0\0")
}

pub(crate) fn notification() -> Vec<u8> {
    message(b'A', b"\0\0\0\x09channel\0payload\0")
}

pub(crate) fn copy_in() -> Vec<u8> {
    message(b'G', &[0, 0, 1, 0, 0])
}

pub(crate) fn copy_out() -> Vec<u8> {
    message(b'H', &[0, 0, 1, 0, 0])
}

pub(crate) fn copy_both() -> Vec<u8> {
    message(b'W', &[0, 0, 0])
}
