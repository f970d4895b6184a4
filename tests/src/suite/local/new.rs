//! The agent first: everything that a dozen programs say has to be recorded, by whatever way they come.
//!
//! Owns one cell of the kind `new`, with garbage at the server's port meanwhile, and the search for secrets with the
//! default redaction.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::leak;
use super::mix::Mix;
use super::{Cell, Found};
use crate::cluster::{APP_ROLE, Cluster, Witness, server_binaries};
use crate::compare::{Expected, compare};
use crate::ledger;
use crate::program::Program;
use crate::record::query_folder;
use crate::screen::progress;
use crate::suite::{await_delivery, complete_log, figures, recorded, settle};
use crate::tap::{Redaction, Settings, Tap};

/// Runs the cell.
pub(super) async fn run(cell: &Cell, keep: bool) -> Result<Found> {
    let slice = format!("pgwitness-local-{}", std::process::id());
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Full, &cell.routes)?;
    // The agent first: it has to notice the server's start by itself, and sees the role being made.
    let mut tap = Tap::start(&cluster.data(), cell.settings()).await?;
    cluster.start().await?;
    cluster.prepare().await?;

    let mix = Mix::new(&slice, &cluster, &cell.routes)?;
    let garbage = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let port = cluster.port();
        tokio::task::spawn_blocking(move || garbage(port)).await?
    };
    let (lives, sent) = tokio::join!(mix.run(1), garbage);
    let (lives, sent) = (lives?, sent?);
    let logged = complete_log(&cluster.csvlog()).await?;
    let ours = logged.iter().filter(|session| session.role == APP_ROLE);
    let expected = ours.map(|session| session.statements.len() as u64).sum();
    progress(&format!(
        "  {expected} statements in the server's log; waiting for their delivery"
    ));
    await_delivery(&tap, expected).await;
    settle(&tap).await?;
    tap.stop().await?;

    let units: BTreeMap<_, _> = mix
        .programs()
        .iter()
        .map(|program| (program.name().to_owned(), program.unit().to_owned()))
        .collect();
    let record = recorded(&tap)?;
    let differences = compare(
        &logged,
        &record,
        Expected {
            role: APP_ROLE,
            units: &units,
            texts: true,
            pooled: None,
        },
    );
    let sessions = ledger::judge_sessions(&logged, &ledger::read(&tap)?, APP_ROLE);
    let garbage_events = gaps(&tap, "malformed")?;
    let (verified, verdict) = tap.verify()?;
    if !verified {
        progress(&verdict);
    }
    let leaks = leak::of_password(&tap, &cluster)?;
    if keep {
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    let short = lives.iter().filter(|life| **life < SHORT).count();
    let passed = differences.none()
        && sessions.none()
        && sessions.unknown_session == 0
        && leaks == 0
        && verified
        && garbage_events > 0;
    let more = figures(json!({
        "sessions": differences.sessions,
        "missing": differences.missing,
        "recorded_events": record.len(),
        "short_lived_programs": mix.short_lived(),
        "short_lived_processes": lives.len(),
        "under_50_ms": short,
        "garbage_connections": sent,
        "garbage_events": garbage_events,
        "gaps": sessions.reasons,
        "wrong_session": sessions.wrong_session,
        "unknown_session": sessions.unknown_session,
        "leaks": leaks,
        "verified": verified,
        "server": cluster.version(),
    }))?;
    Ok(Found {
        differences,
        ledger: sessions,
        programs: units.into_keys().collect(),
        more,
        passed,
    })
}

/// What is not PostgreSQL's protocol: returns how many connections sent some.
pub(super) fn garbage(port: u16) -> Result<u32> {
    // Reproducible noise (xorshift64); its first four bytes are far above any startup packet's length.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(4096)
    .collect();
    let huge = [&[0xff; 4][..], &noise].concat();
    let negative_length = [0x80, 0, 0, 0, 0, 3, 0, 0];
    let http = b"GET / HTTP/1.1\r\nHost: db\r\n\r\n";
    let mut sent = 0;
    for bytes in [&huge[..], &negative_length, http] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connecting for the garbage")?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        // The server may close first; what it got by then is enough.
        drop(stream.write_all(bytes));
        drop(stream.read(&mut [0; 256]));
        sent += 1;
    }
    Ok(sent)
}

/// Recorded gaps with a reason.
fn gaps(tap: &Tap, reason: &str) -> Result<u64> {
    let sql = format!(
        "SELECT agent, seq FROM events WHERE kind = 'gap' AND gap_reason = '{reason}' ORDER BY agent, seq"
    );
    Ok(query_folder(tap.collector_binary(), &tap.collector_data(), &sql)?.len() as u64)
}

/// The default redaction: a literal that occurs nowhere else must occur nowhere.
pub(super) async fn literals(cell: &Cell, keep: bool) -> Result<Found> {
    let slice = format!("pgwitness-local-{}", std::process::id());
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Full, &cell.routes)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let settings = Settings {
        redaction: Redaction::Default,
        ..cell.settings()
    };
    let mut tap = Tap::start(&cluster.data(), settings).await?;
    let marker = leak::marker();
    let mut said = 0;
    for route in &cell.routes {
        let program = Program::new(&slice, &format!("literals-{}", route.name()), &cluster, *route)?;
        let statement = format!(
            "SELECT count(*) FROM orders WHERE note = '{marker}' {}",
            program.tag()
        );
        program.repeat(1, |_| Ok(program.psql(&statement))).await?;
        let failing = format!(
            "INSERT INTO customers VALUES (1, '{marker}', '{marker}') {};\n",
            program.tag()
        );
        let run = program.start(program.psql_script(&failing)?)?;
        program.finish(run, Duration::from_secs(20)).await?;
        said += 2;
    }
    await_delivery(&tap, said).await;
    tap.stop().await?;
    let seen = recorded(&tap)?.len() as u64;
    ensure!(
        seen >= said,
        "only {seen} of the {said} statements with the marker were recorded"
    );
    let leaks = leak::of(&tap, &marker)? + leak::of_password(&tap, &cluster)?;
    if keep {
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    Ok(Found {
        more: figures(json!({ "recorded_events": seen, "leaks": leaks }))?,
        passed: leaks == 0,
        ..Found::default()
    })
}

const SHORT: Duration = Duration::from_millis(50);
