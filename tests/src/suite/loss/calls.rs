//! Every call that moves bytes of a socket, in both directions: what it moved is recorded as it was, or told missing.
//!
//! Owns the list of calls and what each has to come to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;

use super::Found;
use crate::cluster::APP_ROLE;
use crate::ledger::{self, Expected, Record};
use crate::odd_server::OddServer;
use crate::screen::progress;
use crate::suite::settle;
use crate::tap::{Settings, Tap, Tier};

/// Runs all of them against one agent.
pub(super) async fn run(tier: Tier, keep: bool) -> Result<Found> {
    let mut server = OddServer::build()?;
    let mut tap = Tap::start(&server.data(), Settings::clear(tier)).await?;
    server.start().await?;
    // Noticed by its name at once, believed when the agent has looked at it.
    tokio::time::sleep(NOTICED).await;
    let ways = TAKEN
        .iter()
        .map(|taken| (*taken, "send"))
        .chain(GIVEN.iter().map(|given| ("recv", *given)));
    let (mut journals, mut names) = (Vec::new(), Vec::new());
    let mut number = FIRST;
    for (taken, given) in ways {
        let mut session = server.connect()?;
        let mut count = |size: usize| {
            number += 1;
            format!("SELECT {number}, '{}'", "y".repeat(size))
        };
        let (before, behind) = (count(10), count(10));
        let odd = count(match taken {
            "whole" => LARGE,
            "evicted" => MIDDLE,
            _ => SMALL,
        });
        session.say(&before)?;
        session.next(taken, given)?;
        if taken == "elsewhere" {
            std::thread::sleep(MEANWHILE);
        }
        session.say_by(&odd, |stream, bytes| {
            if taken != "evicted" {
                return Ok(stream.write_all(bytes)?);
            }
            let (front, rest) = bytes.split_at(bytes.len() / 2);
            stream.write_all(front)?;
            std::thread::sleep(MEANWHILE);
            Ok(stream.write_all(rest)?)
        })?;
        session.say(&behind)?;
        let journal = session.end()?;
        names.push((
            if taken == "recv" {
                format!("give {given}")
            } else {
                format!("take {taken}")
            },
            journal.id.clone(),
        ));
        journals.push(journal);
    }
    if let Some(mut session) = server.connect_multipath()? {
        for _ in 0..3 {
            number += 1;
            session.say(&format!("SELECT {number}"))?;
        }
        let journal = session.end()?;
        names.push(("over MPTCP".to_owned(), journal.id.clone()));
        journals.push(journal);
    }
    settle(&tap).await?;
    tap.stop().await?;
    let record = ledger::read(&tap)?;
    let expected = Expected {
        role: APP_ROLE,
        units: &BTreeMap::new(),
        from_ns: 0,
        counted: &BTreeSet::new(),
    };
    let mut found = Found {
        counters: record.counters.clone(),
        ledger: ledger::judge(&journals, &record, expected),
        wanted: vec!["missed", "unsupported_call", "call_cap", "copy_fault"],
        ..Found::default()
    };
    // The number that the odd server puts where the tap must not look.
    let sent: BTreeSet<&str> = journals
        .iter()
        .flat_map(|journal| &journal.statements)
        .map(|s| s.text.as_str())
        .collect();
    for request in record.sessions.values().flat_map(|seen| &seen.requests) {
        let text = request.text.as_deref().unwrap_or_default();
        let known =
            text.starts_with("NEXT ") || text.is_empty() || sent.iter().any(|sent| sent.starts_with(text));
        if !known {
            found.wrong_bytes += 1;
            progress(&format!(
                "  never sent: {:?}",
                text.chars().take(80).collect::<String>()
            ));
        }
    }
    for ((name, id), journal) in names.iter().zip(&journals) {
        let mut alone = ledger::judge(std::slice::from_ref(journal), &record, expected);
        // The other sessions are not in this log.
        alone.extra = 0;
        let said = outcome(&alone, &record, journal.backend_pid);
        if said.starts_with("UNTOLD") {
            progress(&format!("  {name} (session {id}): {said}"));
        }
        if said.starts_with("UNTOLD answer") {
            found.ledger.untold += 1;
        }
        found.calls.insert(name.clone(), said);
    }
    if keep {
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    Ok(found)
}

/// Functions of encryption that are left without return, and that fail before they succeed: nothing is lost by that, and
/// nothing recorded that did not pass.
pub(super) async fn returns(keep: bool) -> Result<Found> {
    let mut server = OddServer::build()?;
    let mut tap = Tap::start(&server.data(), Settings::clear(Tier::Auto)).await?;
    server.start().await?;
    tokio::time::sleep(NOTICED).await;
    let mut journals = Vec::new();
    let mut number = FIRST + 1_000;
    for (taken, given) in [("leap", "send"), ("recv", "retry"), ("leap", "retry")] {
        let mut session = server.connect_veiled()?;
        for turn in 0..9 {
            number += 1;
            if turn % 3 == 1 {
                session.next(taken, given)?;
            }
            session.say(&format!("SELECT {number}"))?;
        }
        journals.push(session.end()?);
    }
    settle(&tap).await?;
    tap.stop().await?;
    let record = ledger::read(&tap)?;
    let expected = Expected {
        role: APP_ROLE,
        units: &BTreeMap::new(),
        from_ns: 0,
        counted: &BTreeSet::new(),
    };
    let mut found = Found {
        ledger: ledger::judge(&journals, &record, expected),
        ..Found::default()
    };
    let requests = record.sessions.values().flat_map(|seen| &seen.requests);
    let (mut answered, mut all) = (0, 0);
    for request in requests {
        all += 1;
        answered += u64::from(request.outcome == "ok" && request.rows == Some(1));
    }
    // Three announcements in each session.
    if found.ledger.recorded != found.ledger.statements || all != answered || all != 27 + 9 {
        found.wrong.push(format!(
            "{all} requests of 36, {answered} of them answered with a row"
        ));
    }
    if record
        .sessions
        .values()
        .any(|seen| seen.encryption != "tls" || !seen.gaps.is_empty())
    {
        found
            .wrong
            .push("a session was not read as encrypted, or has a gap".to_owned());
    }
    if keep {
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    Ok(found)
}

/// In words: whole, told, or neither.
fn outcome(ledger: &ledger::Ledger, record: &Record, pid: u32) -> String {
    let reasons: Vec<_> = ledger.reasons.keys().map(String::as_str).collect();
    let reasons = reasons.join(", ");
    if ledger.untold > 0 {
        return format!("UNTOLD ({} of {}; {reasons})", ledger.untold, ledger.statements);
    }
    let requests = record
        .sessions
        .values()
        .filter(|seen| seen.pid == pid)
        .flat_map(|seen| &seen.requests);
    let unanswered = requests
        .filter(|request| request.outcome != "ok" || request.rows != Some(1))
        .count();
    match (ledger.told_missing, unanswered, reasons.is_empty()) {
        (0, 0, true) => "whole".to_owned(),
        (0, 0, false) => format!("whole, with {reasons}"),
        (0, _, true) => format!("UNTOLD answer ({unanswered} requests)"),
        _ => format!("told: {reasons}"),
    }
}

/// How the server takes a request.
const TAKEN: [&str; 17] = [
    "read",
    "readv",
    "recvmsg",
    "manyvectors",
    "peek",
    "recvmmsg",
    "splice",
    "uring",
    "uringread",
    "elsewhere",
    "discard",
    "stale",
    "whole",
    "dup",
    "thread",
    "child",
    "evicted",
];
/// How it answers.
const GIVEN: [&str; 10] = [
    "write", "writev", "sendmsg", "sendmmsg", "sendfile", "splice", "uring", "zerocopy", "large", "evicted",
];
const SMALL: usize = 2_000;
/// More than the odd server looks at before it takes it.
const MIDDLE: usize = 200_000;
/// More than one call may hand over.
const LARGE: usize = 3 << 20;
const FIRST: u64 = 200_000_000_000;
const NOTICED: Duration = Duration::from_secs(2);
/// The server waits in its call.
const MEANWHILE: Duration = Duration::from_millis(50);
