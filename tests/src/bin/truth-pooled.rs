//! A client of a pooler that writes down what it sent when, and what it got.
//!
//! Owns some connections, one thread each, and a journal file for each of them. At least half of what it sends, and of
//! what it gets, is byte for byte what every other client sends and gets. What tells the statements apart for the suite
//! stands where pgwitness does not look: tickets that the server hands out and logs (`SELECT ticket()` is the same
//! request for everybody), and marks in comments and parameters.
//!
//! Environment: PG* as libpq has it (trust), JOURNAL (folder), PROGRAM, CONNECTIONS, UNITS (units of work of each
//! connection) or SECONDS, KIND (`transaction`, `session`, `statement`, `prepared`), PER_CONNECTION (units before a
//! new connection is made; 0: never), DOOM (dies in the middle), SEED.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use pgwitness_tests::channel::Channel;
use pgwitness_tests::suite::pooled::{self, Batch, Kind, Random};

fn main() -> Result<()> {
    let plan = Plan::read()?;
    let threads: Vec<_> = (0..plan.connections)
        .map(|place| {
            let plan = plan.clone();
            std::thread::spawn(move || client(&plan, place))
        })
        .collect();
    for thread in threads {
        match thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a connection's thread panicked"),
        }
    }
    Ok(())
}

/// What to do.
#[derive(Clone)]
struct Plan {
    journal: PathBuf,
    program: String,
    connections: u64,
    units: u64,
    until: Option<Instant>,
    kind: Kind,
    per_connection: u64,
    doom: bool,
    seed: u64,
}

impl Plan {
    fn read() -> Result<Self> {
        let text = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name} is not a number")),
            Err(_) => Ok(default),
        };
        let seconds = number("SECONDS", 0)?;
        Ok(Self {
            journal: text("JOURNAL")?.into(),
            program: text("PROGRAM")?,
            connections: number("CONNECTIONS", 1)?,
            units: number("UNITS", u64::MAX)?,
            until: (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds)),
            kind: text("KIND")?.parse()?,
            per_connection: number("PER_CONNECTION", 0)?,
            doom: number("DOOM", 0)? > 0,
            seed: number("SEED", 1)?,
        })
    }

    fn over(&self, done: u64) -> bool {
        done >= self.units || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// One client: connection after connection, until its work is done.
fn client(plan: &Plan, place: u64) -> Result<()> {
    let mut random = Random::new(plan.seed ^ (u64::from(std::process::id()) << 20) ^ place);
    let (mut done, mut opened, mut refused) = (0, 0, 0);
    while !plan.over(done) {
        let number = place * 1_000_000 + opened;
        opened += 1;
        let mut connection = match Connection::open(plan, number) {
            Ok(connection) => connection,
            // The pooler may be away for a while.
            Err(_) if refused < REFUSALS => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            Err(error) => return Err(error),
        };
        let (mut here, mut broken) = (0, false);
        while !plan.over(done) && (plan.per_connection == 0 || here < plan.per_connection) {
            let unit = random.unit(plan.kind, &plan.program);
            if connection.unit(&unit, &mut random, plan.doom).is_err() {
                broken = true;
                break;
            }
            (here, done) = (here + 1, done + 1);
        }
        // What breaks here is seen in the journal: the last request has no answer.
        if broken {
            refused += 1;
            anyhow::ensure!(refused < REFUSALS, "connections break again and again");
        } else {
            connection.close()?;
        }
    }
    Ok(())
}

/// One connection and its journal.
struct Connection {
    channel: Channel,
    journal: File,
    key: String,
    groups: u64,
    units: u64,
    cancel: Vec<u8>,
    buffer: Vec<u8>,
    slow: bool,
    /// Names of the statements that this connection prepared.
    prepared: Vec<String>,
}

impl Connection {
    fn open(plan: &Plan, number: u64) -> Result<Self> {
        let channel = Channel::open()?;
        let port = match &channel {
            Channel::Tcp(stream) => Some(stream.local_addr()?.port()),
            Channel::Unix(_) | Channel::Tls(_) => None,
        };
        channel.set_read_timeout(PATIENCE)?;
        let pid = std::process::id();
        let key = format!("{}.{pid}.{number}", plan.program);
        let mut connection = Self {
            channel,
            journal: File::create(plan.journal.join(&key)).context("opening the journal")?,
            key,
            groups: 0,
            units: 0,
            cancel: Vec::new(),
            buffer: Vec::new(),
            slow: false,
            prepared: Vec::new(),
        };
        let header = serde_json::json!({
            "open": { "key": connection.key, "program": plan.program, "pid": pid, "port": port }, "at": now()?,
        });
        writeln!(connection.journal, "{header}")?;
        connection.channel.write_all(&startup(&plan.program)?)?;
        loop {
            let (kind, body) = connection.message()?;
            match kind {
                b'R' if body.get(..4) == Some(&[0; 4]) => {}
                b'K' => connection.cancel = body,
                b'S' | b'N' => {}
                b'Z' => return Ok(connection),
                _ => bail!("the login is answered with {}", char::from(kind)),
            }
        }
    }

    fn close(mut self) -> Result<()> {
        self.channel.write_all(b"X\0\0\0\x04")?;
        Ok(writeln!(
            self.journal,
            "{}",
            serde_json::json!({ "close": now()? })
        )?)
    }

    /// One unit of work: batches, each sent at once and answered before the next.
    fn unit(&mut self, unit: &[Batch], random: &mut Random, doom: bool) -> Result<()> {
        self.units += 1;
        for batch in unit {
            let doomed = doom && self.units > 3 && random.below(8) == 0;
            self.batch(batch, doomed)?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &Batch, doomed: bool) -> Result<()> {
        let mut bytes = Vec::new();
        let first = self.groups;
        for group in &batch.groups {
            let mark = format!("m={}.{};", self.key, self.groups);
            let texts: Vec<String> = group
                .texts()
                .map(|text| text.replace(pooled::MARK, &mark))
                .collect();
            let line =
                serde_json::json!({ "q": self.groups, "unit": self.units, "at": now()?, "texts": texts });
            writeln!(self.journal, "{line}")?;
            group.encode(&mark, &mut self.prepared, &mut bytes);
            self.groups += 1;
        }
        self.channel.write_all(&bytes)?;
        if doomed {
            std::thread::sleep(Duration::from_micros(200));
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)?;
        }
        let cancelled = batch.cancel.then(|| Cancelling::start(&self.cancel));
        self.slow = batch.slow;
        for number in first..self.groups {
            self.answer(number)?;
        }
        self.slow = false;
        drop(cancelled);
        Ok(())
    }

    /// Reads what one group is answered with, and writes it down.
    fn answer(&mut self, number: u64) -> Result<()> {
        let (mut ran, mut tickets, mut error) = (0, Vec::new(), None);
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'D' => tickets.extend(ticket(&body)),
                b'C' | b'I' | b's' => ran += 1,
                b'E' => {
                    error = error.or_else(|| sqlstate(&body));
                    ran += 1;
                }
                b'G' => {
                    self.channel.write_all(&pooled::copied())?;
                }
                b'Z' => {
                    let line = serde_json::json!({
                        "z": number, "at": now()?, "ran": ran, "tickets": tickets, "error": error,
                    });
                    writeln!(self.journal, "{line}")?;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
                let end = 1 + usize::try_from(length)?;
                if let Some(body) = self.buffer.get(5..end) {
                    let message = (head[0], body.to_vec());
                    self.buffer.drain(..end);
                    return Ok(message);
                }
            }
            let mut piece = [0; 16 * 1024];
            let room = if self.slow { SLOW } else { piece.len() };
            if self.slow {
                std::thread::sleep(Duration::from_millis(1));
            }
            let count = self.channel.read(piece.get_mut(..room).unwrap_or_default())?;
            if count == 0 {
                bail!("the connection has ended");
            }
            self.buffer.extend(piece.get(..count).unwrap_or_default());
        }
    }
}

/// Asks again and again for the cancel of what was sent, until it is answered: a request that still waits in the pooler
/// cannot be cancelled.
struct Cancelling {
    answered: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cancelling {
    fn start(key: &[u8]) -> Self {
        let answered = Arc::new(AtomicBool::new(false));
        let (until, mut request) = (Arc::clone(&answered), vec![0, 0, 0, 16, 4, 210, 22, 46]);
        request.extend(key);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(30));
                let Ok(mut channel) = Channel::open() else {
                    continue;
                };
                // The other end closes it.
                if channel.write_all(&request).is_ok() {
                    drop(channel.read(&mut [0; 1]));
                }
            }
        });
        Self {
            answered,
            thread: Some(thread),
        }
    }
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.answered.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Protocol 3.0; every client has the same name, or none of them could be told from its answers.
fn startup(program: &str) -> Result<Vec<u8>> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    let name = if std::env::var("NAMED").is_ok() {
        program
    } else {
        "app"
    };
    for (key, value) in [
        ("user", std::env::var("PGUSER")?.as_str()),
        ("database", std::env::var("PGDATABASE")?.as_str()),
        ("application_name", name),
    ] {
        for text in [key, value] {
            body.extend(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let mut message = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
    message.extend(body);
    Ok(message)
}

/// A row of one column that is a ticket: the server hands out none below [`pooled::FIRST_TICKET`], and nothing else is
/// a number as large.
fn ticket(row: &[u8]) -> Option<u64> {
    let value = row.get(6..)?;
    (row.get(..2) == Some(&[0, 1])).then_some(())?;
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number >= pooled::FIRST_TICKET).then_some(number)
}

fn sqlstate(fields: &[u8]) -> Option<String> {
    let field = fields
        .split(|byte| *byte == 0)
        .find(|field| field.first() == Some(&b'C'))?;
    Some(String::from_utf8_lossy(field.get(1..)?).into_owned())
}

fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_nanos())?)
}

const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes a read of a slow reader.
const SLOW: usize = 2048;
/// How often the pooler may be away.
const REFUSALS: u32 = 200;
