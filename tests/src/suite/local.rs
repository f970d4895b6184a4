//! One host, a dozen programs, one role: every statement against the server's own log.
//!
//! First with texts in the clear, so that they can be compared, while garbage arrives at the server's port; then with
//! the default redaction, to see that secrets and literals are nowhere in what agent and collector wrote.

mod leak;
mod mix;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Outcome, await_delivery, complete_log, figures, recorded};
use crate::cluster::{APP_ROLE, Cluster, Witness};
use crate::compare::{Expected, compare};
use crate::program::{Program, Route};
use crate::record::query_folder;
use crate::screen::progress;
use crate::tap::{Redaction, Tap};
use mix::Mix;

/// Runs the suite; `full` is five times the work, `keep` leaves what was recorded in place.
///
/// # Errors
/// When something cannot be started or read; differences are figures.
pub async fn run(full: bool, keep: bool) -> Result<Outcome> {
    let began = Instant::now();
    let slice = format!("pgwitness-local-{}", std::process::id());
    let mut cluster = Cluster::init(Witness::Full)?;
    // The agent first: it has to notice the server's start by itself, and sees the role being made.
    progress("starting collector and agent, then the server");
    let mut tap = Tap::start(&cluster.data(), Redaction::Clear).await?;
    cluster.start().await?;
    cluster.prepare().await?;

    let mix = Mix::new(&slice, &cluster)?;
    progress(&format!(
        "{}: {} programs share the role {APP_ROLE}",
        cluster.version(),
        mix.programs().len()
    ));
    let garbage = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let port = cluster.port();
        tokio::task::spawn_blocking(move || garbage(port)).await?
    };
    let (lives, sent) = tokio::join!(mix.run(if full { 5 } else { 1 }), garbage);
    let (lives, sent) = (lives?, sent?);
    let logged = complete_log(&cluster.csvlog()).await?;
    let expected = logged
        .iter()
        .filter(|s| s.role == APP_ROLE)
        .map(|s| s.statements.len() as u64)
        .sum();
    progress(&format!(
        "{expected} statements in the server's log; waiting for their delivery"
    ));
    await_delivery(&tap, expected).await;
    tap.stop().await?;

    let units: BTreeMap<_, _> = mix
        .programs()
        .iter()
        .map(|p| (p.name().to_owned(), p.unit().to_owned()))
        .collect();
    let record = recorded(&tap)?;
    let found = compare(
        &logged,
        &record,
        Expected {
            role: APP_ROLE,
            units: &units,
            texts: true,
        },
    );
    for example in &found.examples {
        progress(example);
    }
    let garbage_events = gaps(&tap, "malformed")?;
    let (verified, verdict) = tap.verify()?;
    if !verified {
        progress(&verdict);
    }
    let leaks = leak::of_password(&tap, &cluster)? + literal_phase(&slice, &cluster, keep).await?;
    if keep {
        progress(&format!("kept: {}", tap.keep().display()));
    }

    let short = lives.iter().filter(|life| **life < SHORT).count();
    let passed = found.none()
        && leaks == 0
        && verified
        && garbage_events > 0
        && found.statements >= MIN_STATEMENTS
        && units.len() >= MIN_PROGRAMS;
    let mut figures = figures(serde_json::to_value(&found)?)?;
    figures.extend(super::figures(json!({
        "programs": units.len(),
        "recorded_events": record.len(),
        "short_lived_programs": mix.short_lived(),
        "short_lived_processes": lives.len(),
        "under_50_ms": short,
        "under_50_ms_share": (short as f64 / lives.len().max(1) as f64 * 1000.0).round() / 1000.0,
        "garbage_connections": sent,
        "garbage_events": garbage_events,
        "leaks": leaks,
        "verified": verified,
        "server": cluster.version(),
        "seconds": began.elapsed().as_secs(),
        "unavailable": Value::Array(Vec::new()),
    }))?);
    Ok(Outcome { figures, passed })
}

/// What is not PostgreSQL's protocol: returns how many connections sent some.
fn garbage(port: u16) -> Result<u32> {
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
async fn literal_phase(slice: &str, cluster: &Cluster, keep: bool) -> Result<u64> {
    progress("once more with the default redaction");
    let mut tap = Tap::start(&cluster.data(), Redaction::Default).await?;
    let program = Program::new(slice, "literals", cluster, Route::Tcp)?;
    let marker = leak::marker();
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
    await_delivery(&tap, 2).await;
    tap.stop().await?;
    let seen = recorded(&tap)?.len();
    anyhow::ensure!(
        seen >= 2,
        "only {seen} of the two statements with the marker were recorded"
    );
    let leaks = leak::of(&tap, &marker)? + leak::of_password(&tap, cluster)?;
    if keep {
        progress(&format!("kept: {}", tap.keep().display()));
    }
    Ok(leaks)
}

const SHORT: Duration = Duration::from_millis(50);
const MIN_STATEMENTS: u64 = 10_000;
const MIN_PROGRAMS: usize = 8;
