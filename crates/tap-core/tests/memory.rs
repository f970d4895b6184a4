//! What ten thousand idle sessions keep: measured at the allocator, not by the pipeline's own account.

mod host;

use std::alloc::System;

use host::{wire::*, *};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tap_core::Redaction;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SESSIONS: u64 = 10_000;
/// The bound for a session that does nothing: the aim is 4 KiB, and names by the catalog and copied data took it a hundred bytes over
/// that (`docs/performance.md`).
const IDLE_BYTES: u64 = 4_224;

fn live_bytes() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated as u64).saturating_sub(stats.bytes_deallocated as u64)
}

/// A session that has done what the sessions of a pool do: a long query, a pipeline with rows, a prepared statement.
fn busy_once() -> Conversation {
    let long = format!("SELECT '{}'", "x".repeat(30_000));
    let step = || [bind("", "", &["a value of some length"]), execute("", 0)].concat();
    let mut requests = vec![parse("", "SELECT id FROM t WHERE name = $1")];
    let mut answers = vec![parsed()];
    for _ in 0..60 {
        requests.push(step());
        answers.push([bound(), row("1"), complete("SELECT 1")].concat());
    }
    requests.push(sync());
    answers.push(ready(b'I'));
    Conversation::logged_in()
        .client(&[query(&long)])
        .server(&[
            row_description(&[("?column?", 0, 0)]),
            row("x"),
            complete("SELECT 1"),
            ready(b'I'),
        ])
        .client(&requests)
        .server(&answers)
        .client(&[
            parse("s_1", "SELECT id, name FROM t WHERE id = $1"),
            describe('S', "s_1"),
            sync(),
        ])
        .server(&[
            parsed(),
            parameter_description(),
            row_description(&[("id", 16_402, 1), ("name", 16_402, 2)]),
            ready(b'I'),
        ])
        .client(&[bind("", "s_1", &["1"]), execute("", 0), sync()])
        .server(&[bound(), row("1"), complete("SELECT 1"), ready(b'I')])
}

#[test]
fn an_idle_session_costs_no_more_than_promised() {
    let conversation = busy_once();
    let mut host = Host::new(Redaction::Literals);
    let before = live_bytes();
    for cookie in 1..=SESSIONS {
        host.accept(&tcp(cookie, 100_000 + cookie as u32));
        host.play(cookie, &conversation);
        assert!(host.events().len() > 60);
    }
    assert_eq!(host.tap.open_connections() as u64, SESSIONS);
    host.at += 2_000_000_000;
    host.tap.handle_time(host.at);
    let each = (live_bytes() - before) / SESSIONS;
    println!("{each} bytes a session");
    assert!(each <= IDLE_BYTES, "{each} bytes a session");
}
