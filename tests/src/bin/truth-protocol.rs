//! A client that says what the protocol allows and no driver says: portals that are continued, pipelines that fail in
//! the middle, names that are used again, function calls, ends without goodbye.
//!
//! usage: truth-protocol (as a role that needs no password; connection settings come from the PG* environment). It reads answers only to know when the server is ready: what came of each request is in
//! the server's log.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pgwitness_tests::channel::Channel;

fn main() -> Result<()> {
    for version in [PROTOCOL_3_0, PROTOCOL_3_2] {
        let mut session = Session::open(version)?;
        portals(&mut session)?;
        cursors(&mut session)?;
        names(&mut session)?;
        nothing(&mut session)?;
        refusals(&mut session)?;
        pipelines(&mut session)?;
        transactions(&mut session)?;
        functions(&mut session)?;
        copies(&mut session)?;
        values(&mut session)?;
        long_texts(&mut session)?;
        session.send(&[message(b'X', &[])])?;
    }
    replication()?;
    ends()
}

/// Executes with a limit: suspended, continued, interleaved, and once more when they are done.
fn portals(session: &mut Session) -> Result<()> {
    session.exchange(
        &[
            parse("paged", "SELECT g FROM generate_series(1, 10) g"),
            bind("p", "paged", &[]),
            execute("p", 4),
            execute("p", 4),
            execute("p", 0),
            execute("p", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    // No row at first: the server does not call the second one a fetch.
    session.exchange(
        &[
            parse("", "SELECT 1 WHERE false"),
            bind("", "", &[]),
            execute("", 5),
            execute("", 5),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.query("BEGIN")?;
    session.exchange(
        &[
            bind("a", "paged", &[]),
            bind("b", "paged", &[]),
            execute("a", 2),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(&[execute("b", 3), execute("a", 2), SYNC.to_vec()], 1)?;
    session.exchange(
        &[
            execute("b", 0),
            describe('P', "a"),
            execute("a", 0),
            close('P', "a"),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.query("COMMIT")?;
    // Rows come from a statement that writes; a utility statement cannot be run twice.
    session.query("CREATE TEMP TABLE written (i int)")?;
    session.exchange(
        &[
            parse("", "INSERT INTO written SELECT generate_series(1, 6) RETURNING i"),
            bind("w", "", &[]),
            execute("w", 2),
            execute("w", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(
        &[
            parse("", "CREATE TEMP TABLE once (i int)"),
            bind("u", "", &[]),
            execute("u", 0),
            execute("u", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    // The unnamed portal is replaced; named ones are not.
    session.exchange(
        &[
            parse("", "SELECT 'first' || $1"),
            bind("", "", &[Some(b"1")]),
            bind("", "", &[Some(b"2")]),
            execute("", 0),
            bind("n", "", &[Some(b"3")]),
            bind("n", "", &[Some(b"4")]),
            execute("n", 0),
            SYNC.to_vec(),
        ],
        1,
    )
}

/// Cursors and prepared statements of SQL used by the protocol, and the other way round.
fn cursors(session: &mut Session) -> Result<()> {
    session.query("BEGIN; DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 9) g")?;
    session.exchange(&[describe('P', "c"), execute("c", 3), SYNC.to_vec()], 1)?;
    session.query("FETCH 2 FROM c")?;
    session.exchange(&[execute("c", 0), SYNC.to_vec()], 1)?;
    session.query("MOVE BACKWARD ALL IN c; FETCH 1 FROM c; CLOSE c; COMMIT")?;
    // The same with a string for each statement: there the names can be followed.
    session.query("BEGIN")?;
    session.query("DECLARE alone CURSOR FOR SELECT g, 'alone' FROM generate_series(1, 9) g")?;
    session.exchange(&[execute("alone", 4), SYNC.to_vec()], 1)?;
    session.query("FETCH 2 FROM alone")?;
    session.exchange(&[execute("alone", 0), SYNC.to_vec()], 1)?;
    session.query("COMMIT")?;
    session.query("PREPARE by_sql (int) AS SELECT $1 + 1")?;
    session.exchange(
        &[bind("", "by_sql", &[Some(b"41")]), execute("", 0), SYNC.to_vec()],
        1,
    )?;
    session.exchange(&[parse("by_protocol", "SELECT $1::int * 2"), SYNC.to_vec()], 1)?;
    session.query("EXECUTE by_protocol (21); EXECUTE by_sql (1)")?;
    session.query("EXECUTE by_protocol (22)")?;
    session.query("EXECUTE by_sql (2)")?;
    session.exchange(
        &[
            parse("", "EXECUTE by_protocol (4)"),
            bind("", "", &[]),
            execute("", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(
        &[
            parse("", "DECLARE held CURSOR WITH HOLD FOR VALUES (1), (2), (3)"),
            bind("", "", &[]),
            execute("", 0),
            SYNC.to_vec(),
            parse("", "FETCH 2 FROM held"),
            bind("", "", &[]),
            execute("", 0),
            SYNC.to_vec(),
            execute("held", 0),
            SYNC.to_vec(),
        ],
        3,
    )?;
    session.query("CLOSE held; DEALLOCATE by_protocol")?;
    session.exchange(
        &[
            bind("", "by_protocol", &[Some(b"1")]),
            execute("", 0),
            SYNC.to_vec(),
        ],
        1,
    )
}

/// One name, several statements.
fn names(session: &mut Session) -> Result<()> {
    session.exchange(
        &[
            parse("", "SELECT 'never executed'"),
            parse("", "SELECT 'the second'"),
            bind("", "", &[]),
            execute("", 0),
            parse("again", "SELECT 'before'"),
            close('S', "again"),
            parse("again", "SELECT 'after'"),
            bind("", "again", &[]),
            execute("", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    let long = "n".repeat(80);
    session.exchange(
        &[
            parse(&long, "SELECT 'a long name'"),
            bind(&long, &long, &[]),
            execute(&long, 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(
        &[
            parse("again", "SELECT 'refused: the name is taken'"),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.query("DISCARD ALL")?;
    session.exchange(&[bind("", "again", &[]), execute("", 0), SYNC.to_vec()], 1)
}

/// Empty texts and empty pipelines.
fn nothing(session: &mut Session) -> Result<()> {
    for text in ["", " ", ";", "/* nothing */", "-- nothing"] {
        session.query(text)?;
    }
    for text in ["", "  -- nothing\n", "/* nothing */"] {
        session.exchange(
            &[parse("", text), bind("", "", &[]), execute("", 0), SYNC.to_vec()],
            1,
        )?;
    }
    session.exchange(&[SYNC.to_vec(), SYNC.to_vec(), FLUSH.to_vec(), SYNC.to_vec()], 3)
}

/// A failure of each kind of message, with more behind it that the server skips.
fn refusals(session: &mut Session) -> Result<()> {
    let behind = [parse("", "SELECT 'skipped'"), bind("", "", &[]), execute("", 0)].concat();
    let refused = [
        parse("", "SELEC"),
        parse("", "SELECT * FROM nowhere"),
        parse("", "SELECT 1; SELECT 2"),
        bind("", "nowhere", &[]),
        describe('S', "nowhere"),
        describe('P', "nowhere"),
        execute("nowhere", 0),
        [parse("", "SELECT 1/0"), bind("", "", &[]), execute("", 0)].concat(),
        [
            parse("", "SELECT 10 / $1::int"),
            bind("", "", &[Some(b"0")]),
            execute("", 0),
        ]
        .concat(),
        [
            parse("", "SELECT $1::int"),
            bind("", "", &[Some(b"no number")]),
            execute("", 0),
        ]
        .concat(),
        [parse("", "SELECT $1::int"), bind("", "", &[]), execute("", 0)].concat(),
        [
            parse("", "SELECT 100 / (3 - g) FROM generate_series(1, 9) g"),
            bind("", "", &[]),
            execute("", 2),
            execute("", 2),
        ]
        .concat(),
        message(b'B', b"\0\0\0\x02\0\0\0\x01\0\x01\0\0\0\0\0\0"),
        describe('X', "wrong kind"),
        close('X', "wrong kind"),
    ];
    for refused in refused {
        let before = [parse("", "SELECT 'before'"), bind("", "", &[]), execute("", 0)].concat();
        session.exchange(&[before, refused, behind.clone(), SYNC.to_vec()], 1)?;
    }
    // A Close of what is not there is no error.
    session.exchange(&[close('S', "nowhere"), close('P', "nowhere"), SYNC.to_vec()], 1)
}

/// Several Syncs at once, a simple query between, and a constraint that fails at the Sync.
fn pipelines(session: &mut Session) -> Result<()> {
    let select = |text: &str| [parse("", text), bind("", "", &[]), execute("", 0)].concat();
    let many: Vec<_> = (0..40)
        .map(|number| {
            let fails = number % 7 == 3;
            let text = if fails {
                "SELECT 1/0".to_owned()
            } else {
                format!("SELECT {number}")
            };
            [select(&text), select("SELECT 'with it'"), SYNC.to_vec()].concat()
        })
        .collect();
    session.exchange(&many, 40)?;
    session.exchange(
        &[
            select("SELECT 'then a string'"),
            query("SELECT 1; SELECT 2"),
            SYNC.to_vec(),
        ],
        2,
    )?;
    session.exchange(
        &[
            query("SELECT 1"),
            query("SELECT 1/0; SELECT 'never'"),
            query("SELECT 3"),
            SYNC.to_vec(),
        ],
        4,
    )?;
    session.query("CREATE TEMP TABLE deferred (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")?;
    session.exchange(
        &[select("INSERT INTO deferred VALUES (1), (1)"), SYNC.to_vec()],
        1,
    )?;
    session.exchange(
        &[
            select("INSERT INTO deferred VALUES (2)"),
            select("INSERT INTO deferred VALUES (2)"),
            select("SELECT 'before the commit fails'"),
            SYNC.to_vec(),
            select("SELECT count(*) FROM deferred"),
            SYNC.to_vec(),
        ],
        2,
    )?;
    session.query("CREATE RULE twice AS ON INSERT TO deferred DO ALSO DELETE FROM deferred WHERE i < 0")?;
    session.exchange(
        &[
            select("INSERT INTO deferred VALUES (5)"),
            FLUSH.to_vec(),
            SYNC.to_vec(),
        ],
        1,
    )
}

/// What runs in a transaction that has failed, and portals that end with theirs.
fn transactions(session: &mut Session) -> Result<()> {
    let select = |text: &str| [parse("", text), bind("", "", &[]), execute("", 0)].concat();
    session.exchange(&[parse("prepared", "SELECT $1::text"), SYNC.to_vec()], 1)?;
    session.exchange(
        &[
            select("BEGIN"),
            bind("open", "prepared", &[Some(b"x")]),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.query("SAVEPOINT s; SELECT 1/0")?;
    for refused in [
        execute("open", 0),
        select("SELECT 'refused'"),
        [bind("", "prepared", &[Some(b"refused")]), execute("", 0)].concat(),
        describe('S', "prepared"),
        function(INT4PL, &[Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 2])]),
    ] {
        let readies = if refused.first() == Some(&b'F') { 2 } else { 1 };
        session.exchange(&[refused, SYNC.to_vec()], readies)?;
    }
    session.exchange(&[select("ROLLBACK TO SAVEPOINT s"), SYNC.to_vec()], 1)?;
    session.exchange(&[execute("open", 0), SYNC.to_vec()], 1)?;
    session.exchange(&[select("COMMIT"), SYNC.to_vec()], 1)?;
    session.exchange(
        &[
            select("BEGIN"),
            select("SELECT 1"),
            select("COMMIT"),
            select("SELECT 2"),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(&[select("ROLLBACK"), close('S', "prepared"), SYNC.to_vec()], 1)
}

fn functions(session: &mut Session) -> Result<()> {
    let number = |number: i32| number.to_be_bytes();
    for arguments in [[Some(number(1)), Some(number(2))], [None, Some(number(2))]] {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|one| one.as_ref().map(|bytes| &bytes[..]))
            .collect();
        session.exchange(&[function(INT4PL, &arguments)], 1)?;
    }
    session.exchange(&[function(INT4DIV, &[Some(&number(1)), Some(&number(0))])], 1)?;
    session.exchange(&[function(4_000_000_000, &[])], 1)?;
    session.exchange(&[function(INT4PL, &[Some(&number(1))])], 1)?;
    session.query("SELECT 'after the calls'")
}

/// COPY by the extended protocol: sent all at once, refused by the client, refused by the server.
fn copies(session: &mut Session) -> Result<()> {
    session.query("CREATE TEMP TABLE copied (i int)")?;
    let start = [
        parse("", "COPY copied FROM STDIN"),
        bind("", "", &[]),
        execute("", 0),
    ]
    .concat();
    let data = |text: &str| message(b'd', text.as_bytes());
    session.exchange(
        &[
            start.clone(),
            data("1\n2\n"),
            data("3\n"),
            message(b'c', &[]),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(
        &[
            start.clone(),
            data("4\n"),
            message(b'f', b"the client gave up\0"),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(
        &[
            start,
            data("no number\n"),
            data("5\n"),
            message(b'c', &[]),
            SYNC.to_vec(),
        ],
        1,
    )?;
    session.exchange(
        &[
            query("COPY copied FROM STDIN; SELECT 'then'"),
            data("6\n"),
            message(b'c', &[]),
        ],
        1,
    )?;
    let out = [
        parse("", "COPY copied TO STDOUT"),
        bind("", "", &[]),
        execute("", 0),
    ]
    .concat();
    session.exchange(&[out.clone(), out, SYNC.to_vec()], 1)
}

/// Parameters in both formats at once, declared and not.
fn values(session: &mut Session) -> Result<()> {
    let text = "SELECT $1::int4, $2::text, $3::int8, $4::bytea, $5::bool, $6::numeric";
    let binary: [Option<&[u8]>; 6] = [
        Some(&[0, 0, 0, 42]),
        Some(b"it's; text"),
        Some(b" -7 "),
        Some(&[0, 255]),
        None,
        Some(b"1.50"),
    ];
    let formats = [1, 0, 0, 1, 0, 0];
    session.exchange(
        &[
            parse("", text),
            bind_as("", "", &formats, &binary),
            execute("", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    let declared = parse_as("", "SELECT $1, $2", &[INT8, FLOAT8]);
    let both: [Option<&[u8]>; 2] = [
        Some(&[0, 0, 0, 0, 0, 0, 1, 0]),
        Some(&[0x40, 0x09, 0x21, 0xfb, 0x54, 0x44, 0x2d, 0x18]),
    ];
    session.exchange(
        &[
            declared,
            bind_as("", "", &[1], &both),
            execute("", 0),
            SYNC.to_vec(),
        ],
        1,
    )?;
    // More values than formats: refused.
    session.exchange(
        &[
            parse("", "SELECT $1::int, $2::int, $3::int"),
            bind_as("", "", &[0, 0], &[None, None, None]),
            execute("", 0),
            SYNC.to_vec(),
        ],
        1,
    )
}

/// Longer than what is kept of a text, executed twice.
fn long_texts(session: &mut Session) -> Result<()> {
    let text = format!("SELECT length('{}')", "l".repeat(3 << 20));
    session.exchange(
        &[
            parse("long", &text),
            bind("", "long", &[]),
            execute("", 0),
            bind("", "long", &[]),
            execute("", 0),
            close('S', "long"),
            SYNC.to_vec(),
        ],
        1,
    )
}

/// A stream of WAL that the client ends, and the session goes on.
fn replication() -> Result<()> {
    let mut session = Session::open_as(PROTOCOL_3_0, &[("replication", "true")])?;
    for _ in 0..2 {
        session.send(&[query("IDENTIFY_SYSTEM")])?;
        let row = session.next_of(b'D')?;
        session.ready(1)?;
        let columns = columns(&row);
        let (Some(timeline), Some(position)) = (columns.get(1), columns.get(2)) else {
            bail!("IDENTIFY_SYSTEM gave {columns:?}");
        };
        // Where the segment begins that is being written: something comes at once.
        let (high, low) = position.split_once('/').context("a WAL position")?;
        let start = u32::from_str_radix(low, 16)? & !(WAL_SEGMENT - 1);
        session.send(&[query(&format!(
            "START_REPLICATION PHYSICAL {high}/{start:X} TIMELINE {timeline}"
        ))])?;
        session.next_of(b'd')?;
        session.send(&[message(b'c', &[])])?;
        session.ready(1)?;
    }
    session.query("SHOW server_version")?;
    session.send(&[message(b'X', &[])])
}

/// Sessions that end in the middle.
fn ends() -> Result<()> {
    let select = |text: &str| [parse("", text), bind("", "", &[]), execute("", 0)].concat();
    // Goodbye with answers still to come.
    let mut session = Session::open(PROTOCOL_3_0)?;
    session.send(&[
        select("SELECT 'a goodbye follows'"),
        SYNC.to_vec(),
        message(b'X', &[]),
    ])?;
    std::thread::sleep(PAUSE);
    // Without a Sync: what was executed is undone.
    let mut session = Session::open(PROTOCOL_3_0)?;
    session.send(&[select("SELECT 'no Sync follows'")])?;
    std::thread::sleep(PAUSE);
    drop(session);
    // Half a message.
    let mut session = Session::open(PROTOCOL_3_0)?;
    let whole = query("SELECT 'only half of this arrives'");
    session.send(&[query("SELECT 'whole'")])?;
    session.send(&[whole.get(..12).unwrap_or_default().to_vec()])?;
    std::thread::sleep(PAUSE);
    drop(session);
    // While the server is still busy.
    let mut session = Session::open(PROTOCOL_3_0)?;
    session.send(&[query(
        "SELECT pg_sleep(0.5), 'nobody waits'; SELECT 'not even for this'",
    )])?;
    std::thread::sleep(PAUSE);
    drop(session);
    // COPY data that ends with the connection.
    let mut session = Session::open(PROTOCOL_3_0)?;
    session.query("CREATE TEMP TABLE lost (i int)")?;
    session.send(&[query("COPY lost FROM STDIN"), message(b'd', b"1\n")])?;
    std::thread::sleep(PAUSE);
    drop(session);
    std::thread::sleep(PAUSE);
    Ok(())
}

/// One connection.
struct Session {
    stream: Channel,
}

impl Session {
    fn open(version: u32) -> Result<Self> {
        Self::open_as(version, &[])
    }

    fn open_as(version: u32, more: &[(&str, &str)]) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let stream = Channel::open()?;
        stream.set_read_timeout(PATIENCE)?;
        let mut startup = version.to_be_bytes().to_vec();
        for (name, value) in [
            ("user", variable("PGUSER")?),
            ("database", variable("PGDATABASE")?),
            ("application_name", "truth-protocol".to_owned()),
        ] {
            startup.extend(text(name));
            startup.extend(text(&value));
        }
        for (name, value) in more {
            startup.extend(text(name));
            startup.extend(text(value));
        }
        startup.push(0);
        let mut session = Self { stream };
        // The startup packet has a length and no kind.
        session.send(&[message(0, &startup).get(1..).unwrap_or_default().to_vec()])?;
        session.ready(1)?;
        Ok(session)
    }

    fn query(&mut self, sql: &str) -> Result<()> {
        self.exchange(&[query(sql)], 1)
    }

    /// Sends all of it at once and waits for so many ReadyForQuery.
    fn exchange(&mut self, messages: &[Vec<u8>], readies: u32) -> Result<()> {
        self.send(messages)?;
        self.ready(readies)
    }

    fn send(&mut self, messages: &[Vec<u8>]) -> Result<()> {
        self.stream.write_all(&messages.concat()).context("sending")
    }

    fn ready(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.next_of(b'Z')?;
        }
        Ok(())
    }

    /// Reads up to the next message of a kind; gives its body.
    fn next_of(&mut self, wanted: u8) -> Result<Vec<u8>> {
        loop {
            let mut head = [0_u8; 5];
            self.stream
                .read_exact(&mut head)
                .context("waiting for an answer")?;
            let [kind, length @ ..] = head;
            let length = u32::from_be_bytes(length);
            ensure!(length >= 4, "a message of {length} bytes");
            let mut body = vec![0_u8; usize::try_from(length - 4)?];
            self.stream.read_exact(&mut body)?;
            if kind == b'R' && body != [0; 4] {
                bail!("the role needs a password");
            }
            if kind == wanted {
                return Ok(body);
            }
        }
    }
}

/// The texts of a DataRow.
fn columns(row: &[u8]) -> Vec<String> {
    let mut columns = Vec::new();
    let mut rest = row.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, after) = after.split_at(length.min(after.len()));
        columns.push(String::from_utf8_lossy(value).into_owned());
        rest = after;
    }
    columns
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    parse_as(name, sql, &[])
}

fn parse_as(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let types_bytes: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    message(
        b'P',
        &[text(name), text(sql), count(types.len()).to_vec(), types_bytes].concat(),
    )
}

fn bind(portal: &str, statement: &str, values: &[Option<&[u8]>]) -> Vec<u8> {
    bind_as(portal, statement, &[], values)
}

fn bind_as(portal: &str, statement: &str, formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = [text(portal), text(statement), count(formats.len()).to_vec()].concat();
    body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    body.extend(listed(values));
    body.extend(count(0));
    message(b'B', &body)
}

fn listed(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut list = count(values.len()).to_vec();
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        list.extend(length.to_be_bytes());
        list.extend(value.unwrap_or_default());
    }
    list
}

fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[text(portal), rows.to_be_bytes().to_vec()].concat())
}

fn describe(kind: char, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind as u8], text(name)].concat())
}

fn close(kind: char, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind as u8], text(name)].concat())
}

/// Arguments and result in binary.
fn function(oid: u32, arguments: &[Option<&[u8]>]) -> Vec<u8> {
    let body = [
        oid.to_be_bytes().to_vec(),
        [count(1), count(1)].concat(),
        listed(arguments),
        count(1).to_vec(),
    ];
    message(b'F', &body.concat())
}

const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];
const FLUSH: [u8; 5] = [b'H', 0, 0, 0, 4];
const PROTOCOL_3_0: u32 = 3 << 16;
/// Servers before 18 answer with NegotiateProtocolVersion and go on with 3.0.
const PROTOCOL_3_2: u32 = (3 << 16) | 2;
/// Oids of `pg_proc.dat` and `pg_type.dat`, which never change.
const INT4PL: u32 = 177;
const INT4DIV: u32 = 154;
const INT8: u32 = 20;
const FLOAT8: u32 = 701;
/// The default size, which no server here changes.
const WAL_SEGMENT: u32 = 16 << 20;
/// So that the server has read what was sent before the connection ends.
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);
