//! Payload that the host did not want: one gap for each direction, with its size and time, as soon as it wants again.

mod host;

use ebpf_abi::SegmentHeader;
use host::{line, wire::*, *};
use tap_core::Direction;

fn discard(host: &mut Host, offset: u64, direction: Direction, length: u64) -> u64 {
    host.at += 10;
    let header = SegmentHeader {
        at: host.at,
        cookie: COOKIE,
        offset,
        tgid: BACKEND,
        direction: direction as u8,
        ..SegmentHeader::default()
    };
    host.unseen(COOKIE, direction, length);
    host.tap.handle_discarded(&header, length, "paused");
    header.at
}

fn ask(host: &mut Host, sql: &str) {
    host.client(&[query(sql)]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
}

/// Where both streams of a connection stand on which a client has logged in.
fn places(host: &Host) -> (u64, u64) {
    let told = host.tap.told(COOKIE).map(|told| told.places);
    told.map_or((0, 0), |places| (places.frontend, places.backend))
}

#[test]
fn a_pause_is_one_gap_each_way_and_the_session_goes_on() {
    let mut host = Host::logged_in();
    ask(&mut host, "SELECT 1");
    let (frontend, backend) = places(&host);
    host.events();
    let first = discard(&mut host, frontend, Direction::Frontend, 20);
    discard(&mut host, backend, Direction::Backend, 30);
    discard(&mut host, frontend + 20, Direction::Frontend, 20);
    let last = discard(&mut host, backend + 30, Direction::Backend, 34);
    assert!(host.lines().is_empty(), "nothing before it is over");
    host.tap.tell_discarded();
    host.tap.tell_discarded();
    host.exit(0);
    let events = host.events();
    let lines: Vec<String> = events.iter().map(line).collect();
    assert_eq!(lines, ["gap paused Frontend 40", "gap paused Backend 64"]);
    assert_eq!(events[0].times.start, first);
    assert_eq!(events[1].times.end, last);
    ask(&mut host, "SELECT 2");
    ask(&mut host, "SELECT 3");
    let lines = host.lines();
    assert!(lines.iter().any(|line| line.contains("SELECT 3")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("missed")), "{lines:?}");
}

#[test]
fn what_was_lost_before_and_behind_is_told_for_itself() {
    let mut host = Host::logged_in();
    ask(&mut host, "SELECT 1");
    let (frontend, _) = places(&host);
    host.events();
    host.unseen(COOKIE, Direction::Frontend, 5);
    discard(&mut host, frontend + 5, Direction::Frontend, 20);
    host.unseen(COOKIE, Direction::Frontend, 7);
    host.close(COOKIE);
    let lines = host.lines();
    assert_eq!(
        lines[..3],
        [
            "gap missed Frontend 5",
            "gap paused Frontend 20",
            "gap missed Frontend 7"
        ]
    );
    assert!(
        lines.last().is_some_and(|line| line.starts_with("close")),
        "{lines:?}"
    );
}

#[test]
fn a_connection_that_begins_and_ends_unwanted_is_told() {
    let mut host = Host::connected();
    discard(&mut host, 0, Direction::Frontend, 80);
    discard(&mut host, 0, Direction::Backend, 300);
    host.exit(BACKEND);
    let lines = host.lines();
    assert_eq!(lines[..2], ["gap paused Frontend 80", "gap paused Backend 300"]);
}

#[test]
fn of_a_connection_older_than_the_tap_the_size_is_known_too() {
    let mut host = Host::new(tap_core::Redaction::Clear);
    host.accept(&mid_stream(tcp(COOKIE, BACKEND)));
    discard(&mut host, 1_000, Direction::Frontend, 80);
    host.tap.tell_discarded();
    host.exit(0);
    assert_eq!(host.lines(), ["gap paused Frontend 80"]);
}
