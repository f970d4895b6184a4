//! The tricks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, send};
use serde_json::json;
use tempfile::TempDir;

use super::Found;
use crate::cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries};
use crate::csvlog::{self, LoggedSession};
use crate::ledger::{self, Expected, Record};
use crate::odd_server::OddServer;
use crate::program::Program;
use crate::record::query_folder;
use crate::route::Route;
use crate::screen::progress;
use crate::session::Session;
use crate::suite::{complete_log, figures, settle};
use crate::tap::{Settings, Tap, Tier};

/// A megabyte of comment before the statement: the text is cut, and says so; what the statement did is told.
pub(super) async fn comment(keep: bool) -> Result<Found> {
    let stage = Stage::open(&[Route::Tcp, Route::Tls]).await?;
    let mut found = Found::default();
    for route in [Route::Tcp, Route::Tls] {
        let program = Program::new(
            &slice(),
            &format!("comment-{}", route.name()),
            &stage.cluster,
            route,
        )?;
        // The number in front only says whose event it is.
        let script = format!(
            "/* {} {} {} */ DELETE FROM orders WHERE id = 5;\n",
            numbered(1),
            program.tag().replace("*/", "").replace("/*", ""),
            "c".repeat(1_500_000)
        );
        let run = program.start(program.psql_script(&script)?)?;
        program.finish(run, PATIENCE).await?;
    }
    let (ledger, record, tap) = stage.close().await?;
    let sql = "SELECT agent, seq, tag, class, truncated, statement IS NOT NULL AS has_text FROM events WHERE kind = 'query' AND truncated \
               ORDER BY agent, seq";
    let rows = query_folder(tap.collector_binary(), &tap.collector_data(), sql)?;
    let told = rows.iter().filter(|row| {
        row.get("tag")
            .and_then(|tag| tag.as_str())
            .is_some_and(|tag| tag.starts_with("DELETE"))
            && row.get("class").and_then(|class| class.as_str()) == Some("WRITE")
    });
    let told = told.count();
    if told != 2 {
        found.wrong.push(format!(
            "{told} of 2 long statements are told as a DELETE: {rows:?}"
        ));
    }
    found.more =
        figures(json!({ "long_statements": rows.len(), "told_by_tag": told, "kinds": record.kinds }))?;
    found.ledger = ledger;
    kept(keep, tap);
    Ok(found)
}

/// Bulk data out and in, and a stream of backup, while others work.
pub(super) async fn flood(full: bool, keep: bool) -> Result<Found> {
    let stage = Stage::open(&[Route::Tcp]).await?;
    let rows = if full { 6_000_000 } else { 1_500_000 };
    let flooder = Program::new(&slice(), "flooder", &stage.cluster, Route::Tcp)?;
    let out = format!(
        "COPY (SELECT g, repeat('x', 60) FROM generate_series(1, {rows}) g) TO STDOUT {}",
        flooder.tag()
    );
    let mut flood = flooder.start(flooder.psql(&out))?;
    let filler = Program::new(&slice(), "filler", &stage.cluster, Route::Unix)?;
    let data: String = (0..rows / 4).map(|row| format!("{row}\tnote {row}\n")).collect();
    let text = format!("CREATE TABLE flood (a int, b text);\nCOPY flood FROM STDIN;\n{data}\\.\n");
    let mut fill = filler.start(filler.psql_script(&text)?)?;
    let admin = stage.cluster.superuser("postgres").await?;
    admin
        .batch_execute(&format!("CREATE ROLE {CLIENT} LOGIN REPLICATION"))
        .await?;
    drop(admin);
    let mut backup = std::process::Command::new(stage.cluster.client_binary("pg_basebackup"));
    backup
        .env_clear()
        .envs(stage.cluster.client_environment(Route::Unix))
        .args([
            "-U", CLIENT, "-w", "-X", "none", "-c", "fast", "-F", "t", "-D", "-",
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut backup =
        crate::process::Process::start("pg_basebackup", &mut backup, nix::sys::signal::Signal::SIGTERM)?;
    let worker = Program::new(&slice(), "worker", &stage.cluster, Route::Tcp)?;
    let script = format!(
        "\\set number random(100000000000, 999999999999)\nSELECT email FROM customers {} WHERE id = 7 AND :number::bigint > 0;\n",
        worker.tag()
    );
    let run = worker.start(worker.pgbench(&script, &["-M", "simple", "-c", "4", "-R", "200", "-T", "6"])?)?;
    worker.finish(run, PATIENCE).await?;
    for (name, process) in [
        ("the flood", &mut flood),
        ("the filler", &mut fill),
        ("pg_basebackup", &mut backup),
    ] {
        let status = process.wait(PATIENCE).await?;
        ensure!(status.success(), "{name} failed with {status}");
    }
    let (ledger, record, tap) = stage.close().await?;
    let mut found = Found {
        more: figures(json!({ "bytes": record.counters.get("bytes"), "other_gaps": record.other_gaps }))?,
        ..Found::default()
    };
    // The bulk itself may be lost, not the requests for it.
    for (command, count) in [("COPY", 2), ("BASE_BACKUP", 1)] {
        let sql = format!(
            "SELECT agent, seq FROM events WHERE kind = 'query' AND (command LIKE '{command}%' OR statement LIKE '{command}%') ORDER BY agent, seq"
        );
        let seen = query_folder(tap.collector_binary(), &tap.collector_data(), &sql)?.len();
        if seen < count {
            found
                .wrong
                .push(format!("{seen} of {count} {command} are recorded"));
        }
    }
    found.ledger = ledger;
    kept(keep, tap);
    Ok(found)
}

/// Two thousand connections at once.
pub(super) async fn crowd(keep: bool) -> Result<Found> {
    let mut server = OddServer::build()?;
    let mut tap = Tap::start(&server.data(), Settings::clear(Tier::Auto)).await?;
    server.start().await?;
    tokio::time::sleep(NOTICED).await;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 8192, 8192)
        .context("room for descriptors")?;
    let mut sessions = Vec::new();
    for number in 0..CROWD {
        let mut session = server.connect().with_context(|| format!("connection {number}"))?;
        session.say(&format!("SELECT {}", numbered(number)))?;
        sessions.push(session);
    }
    let mut journals = Vec::new();
    for (session, number) in sessions.into_iter().zip(CROWD..) {
        let mut session = session;
        session.say(&format!("SELECT {}", numbered(number)))?;
        journals.push(session.end()?);
    }
    settle(&tap).await?;
    tap.stop().await?;
    let record = ledger::read(&tap)?;
    let ledger = judged(&journals, &record, APP_ROLE, &BTreeMap::new());
    let more = figures(json!({ "connections": journals.len(), "other_gaps": record.other_gaps }))?;
    kept(keep, tap);
    Ok(Found {
        ledger,
        more,
        ..Found::default()
    })
}

/// A client whose file is named `postgres`: it is a client still, and has its own name.
pub(super) async fn impostor(keep: bool) -> Result<Found> {
    let stage = Stage::open(&[Route::Tcp]).await?;
    let folder = TempDir::with_prefix("pgwitness-impostor-")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let disguised = folder.path().join("postgres");
    fs::copy(stage.cluster.client_binary("psql"), &disguised).context("copying psql")?;
    let mut units = BTreeMap::new();
    for (route, number) in [(Route::Tcp, 1), (Route::Unix, 2)] {
        let program = Program::new(
            &slice(),
            &format!("impostor-{}", route.name()),
            &stage.cluster,
            route,
        )?;
        let text = format!("SELECT {} {}", numbered(number), program.tag());
        let mut command = program.other(&disguised);
        command.args(["-X", "-q", "-c", &text]);
        let run = program.start(command)?;
        program.finish(run, PATIENCE).await?;
        units.insert(program.name().to_owned(), program.unit().to_owned());
    }
    let logged = complete_log(&stage.cluster.csvlog()).await?;
    let (_, record, tap) = stage.close().await?;
    let ledger = judged(&logged, &record, APP_ROLE, &units);
    let mut found = Found::default();
    let server_pids: BTreeSet<u32> = logged.iter().map(|session| session.backend_pid).collect();
    let strangers = record
        .sessions
        .values()
        .filter(|seen| !server_pids.contains(&seen.pid));
    let strangers = strangers.count();
    if strangers > 0 {
        found
            .wrong
            .push(format!("{strangers} sessions of processes that are no backends"));
    }
    if ledger.unknown_principal > 0 || ledger.recorded != 2 {
        found.wrong.push(format!(
            "{} of 2 recorded, {} without a name",
            ledger.recorded, ledger.unknown_principal
        ));
    }
    found.ledger = ledger;
    kept(keep, tap);
    Ok(found)
}

/// Bytes that come one by one, in many pieces, with urgent ones among them, or before an end of one direction.
pub(super) async fn client_calls(keep: bool) -> Result<Found> {
    let stage = Stage::open(&[Route::Tcp]).await?;
    let admin = stage.cluster.superuser("postgres").await?;
    admin
        .batch_execute(&format!("CREATE ROLE {CLIENT} LOGIN"))
        .await?;
    let mut found = Found::default();
    let mut calls = BTreeMap::new();
    let mut pids = Vec::new();
    for (index, (name, how)) in CALLS.into_iter().enumerate() {
        let mut session = Session::open(stage.cluster.port(), CLIENT, DATABASE)?;
        let number = 10 * index as u64;
        session.say(&format!("SELECT {} /* before {name} */", numbered(number)))?;
        session.say_by(&format!("SELECT {} /* {name} */", numbered(number + 1)), how)?;
        session.say(&format!("SELECT {} /* behind {name} */", numbered(number + 2)))?;
        pids.push((name, session.pid()));
        drop(session.end()?);
    }
    drop(admin);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let logged = csvlog::read(&stage.cluster.csvlog())?;
    let (_, record, tap) = stage.close().await?;
    found.ledger = judged(&logged, &record, CLIENT, &BTreeMap::new());
    for (name, pid) in pids {
        let seen = record.sessions.values().find(|seen| seen.pid == pid);
        let said = seen.map_or_else(
            || "nothing".to_owned(),
            |seen| {
                let reasons: BTreeSet<_> = seen.gaps.iter().map(|gap| gap.reason.as_str()).collect();
                format!("{} of 3 recorded {reasons:?}", seen.requests.len())
            },
        );
        calls.insert(name.to_owned(), said);
    }
    found.more = figures(json!({ "calls": calls }))?;
    kept(keep, tap);
    Ok(found)
}

type Sending = fn(&mut TcpStream, &[u8]) -> Result<()>;

const CALLS: [(&str, Sending); 4] = [
    ("one by one", |stream, bytes| {
        for byte in bytes {
            stream.write_all(&[*byte])?;
        }
        Ok(())
    }),
    ("pieces and pauses", |stream, bytes| {
        for piece in bytes.chunks(7) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }),
    // Urgent bytes are not part of what the server reads, but of what the kernel counts (tcp(7)).
    ("an urgent byte before", |stream, bytes| {
        send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB)?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(stream.write_all(bytes)?)
    }),
    ("urgent bytes inside", |stream, bytes| {
        for piece in bytes.chunks(11) {
            stream.write_all(piece)?;
            send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB)?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }),
];

/// A tapped server with a log.
struct Stage {
    cluster: Cluster,
    tap: Tap,
}

impl Stage {
    async fn open(routes: &[Route]) -> Result<Self> {
        let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, routes)?;
        let tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto)).await?;
        cluster.start().await?;
        cluster.prepare().await?;
        Ok(Self { cluster, tap })
    }

    async fn close(mut self) -> Result<(ledger::Ledger, Record, Tap)> {
        let logged = complete_log(&self.cluster.csvlog()).await?;
        settle(&self.tap).await?;
        self.tap.stop().await?;
        let record = ledger::read(&self.tap)?;
        let ledger = judged(&logged, &record, APP_ROLE, &BTreeMap::new());
        self.cluster.stop().await?;
        Ok((ledger, record, self.tap))
    }
}

fn judged(
    logged: &[LoggedSession],
    record: &Record,
    role: &str,
    units: &BTreeMap<String, String>,
) -> ledger::Ledger {
    ledger::judge(
        logged,
        record,
        Expected {
            role,
            units,
            from_ns: 0,
            counted: &BTreeSet::new(),
        },
    )
}

fn kept(keep: bool, tap: Tap) {
    if keep {
        progress(&format!("  kept: {}", tap.keep().display()));
    }
}

fn numbered(number: u64) -> u64 {
    400_000_000_000 + number
}

fn slice() -> String {
    format!("pgwitness-evasion-{}", std::process::id())
}

/// Needs no password (see the cluster's access rules).
const CLIENT: &str = "w_protocol";
const CROWD: u64 = 2_000;
const NOTICED: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(90);
