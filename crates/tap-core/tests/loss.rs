//! Loss, attaching in the middle, and bytes that are no protocol: each has its event with its reason, in its place.

mod host;

use ebpf_abi::MissingReason;
use host::{line, wire::*, *};
use tap_core::{Direction, Redaction};

const ANSWERED: &str = "Simple SELECT 9 Ok@Complete \"SELECT 1\" I";

/// The next query is read and answered as if nothing had been.
fn is_in_step(host: &mut Host) -> bool {
    host.client(&[query("SELECT 9")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.lines().last().is_some_and(|line| line.starts_with(ANSWERED))
}

#[test]
fn a_lost_request_is_a_gap_and_no_wrong_statement() {
    let mut host = Host::logged_in();
    let lost = query("SELECT lost").len() as u64;
    host.unseen(COOKIE, Direction::Frontend, lost);
    // Its answer fits no request.
    let answer = [complete("SELECT 7"), ready(b'I')];
    host.server(&answer);
    host.client(&[query("SELECT 2")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    let lines = host.lines();
    assert!(
        lines[0].starts_with("gap malformed Backend 0 (expected a query or an Execute at byte"),
        "{lines:?}"
    );
    assert_eq!(lines[1], format!("gap missed Frontend {lost}"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(is_in_step(&mut host));
}

#[test]
fn a_lost_answer_leaves_the_outcome_unknown() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT 1")]);
    host.unseen(COOKIE, Direction::Backend, 300);
    host.client(&[query("SELECT 2")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    assert_eq!(
        host.lines(),
        [
            "gap missed Backend 300",
            "Simple SELECT 1 Unknown@Execute -1",
            "Simple SELECT 2 Unknown@Execute -1",
        ]
    );
    assert!(is_in_step(&mut host));
}

#[test]
fn after_a_gap_prepared_names_mean_nothing() {
    let mut host = Host::logged_in();
    host.client(&[parse("s", "SELECT old"), sync()]);
    host.server(&[parsed(), ready(b'I')]);
    host.unseen(COOKIE, Direction::Frontend, 40);
    host.unseen(COOKIE, Direction::Backend, 40);
    host.client(&[query("SELECT 2")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.client(&[bind("", "s", &[]), execute("", 0), sync()]);
    host.server(&[bound(), complete("SELECT 1"), ready(b'I')]);
    let lines = host.lines();
    assert_eq!(lines[..1], ["gap missed Frontend 40"]);
    assert_eq!(
        lines.last().map(String::as_str),
        Some("Execute ? Ok@Complete \"SELECT 1\" I1"),
        "{lines:?}"
    );
    assert!(!lines.concat().contains("old"), "{lines:?}");
}

#[test]
fn what_the_kernel_side_could_not_take_has_its_reason() {
    for (reason, name) in [
        (MissingReason::CopyFault, "copy_fault"),
        (MissingReason::UnsupportedCall, "unsupported_call"),
        (MissingReason::CallCap, "call_cap"),
        (MissingReason::None, "unknown"),
    ] {
        let mut host = Host::logged_in();
        host.cut(COOKIE, Direction::Frontend, b"", 77, reason);
        assert_eq!(host.lines(), [format!("gap {name} Frontend 77")]);
        host.server(&[complete("SELECT 1"), ready(b'I')]);
        assert!(is_in_step(&mut host));
    }
}

#[test]
fn what_came_before_a_cut_is_told_before_the_gap() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT 1"), query("SELECT 2")]);
    let seen = [complete("SELECT 1"), ready(b'I')].concat();
    host.cut(COOKIE, Direction::Backend, &seen, 50, MissingReason::CallCap);
    assert_eq!(
        host.lines(),
        [
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" I1",
            "gap call_cap Backend 50",
            "Simple SELECT 2 Unknown@Execute -2",
        ]
    );
}

#[test]
fn of_a_call_that_was_too_large_the_rest_of_a_row_is_no_loss() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT long")]);
    let row = row(&"x".repeat(500));
    let (head, tail) = row.split_at(200);
    let start = [row_description(&[("a", 1, 1)]), head.to_vec()].concat();
    host.cut(COOKIE, Direction::Backend, &start, 100, MissingReason::CallCap);
    host.server(&[tail[100..].to_vec(), complete("SELECT 1"), ready(b'I')]);
    assert_eq!(
        host.lines(),
        ["Simple SELECT long Ok@Complete \"SELECT 1\" rows=1 I1"]
    );
    // What follows the row within the same call was not seen.
    host.client(&[query("SELECT long")]);
    host.cut(COOKIE, Direction::Backend, &start, 400, MissingReason::CallCap);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    assert_eq!(host.lines()[0], "gap call_cap Backend 400");
}

#[test]
fn a_gap_within_rows_costs_no_statement() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT long")]);
    let row = row(&"x".repeat(500));
    let (head, tail) = row.split_at(200);
    let start = [row_description(&[("a", 1, 1)]), head.to_vec()].concat();
    host.cut(COOKIE, Direction::Backend, &start, 100, MissingReason::CopyFault);
    host.server(&[tail[100..].to_vec(), complete("SELECT 1"), ready(b'I')]);
    assert_eq!(
        host.lines(),
        [
            "gap copy_fault Backend 100",
            "Simple SELECT long Ok@Complete \"SELECT 1\" rows=1 I1"
        ]
    );
}

#[test]
fn bytes_told_twice_are_taken_once() {
    let mut host = Host::logged_in();
    let header = ebpf_abi::SegmentHeader {
        at: host.at,
        cookie: COOKIE,
        missing: 0,
        ..ebpf_abi::SegmentHeader::default()
    };
    host.tap
        .handle_segment(&header, &startup(&[("user", "ann"), ("database", "shop")]));
    let cut = ebpf_abi::SegmentHeader {
        missing: 10,
        reason: MissingReason::CopyFault as u8,
        ..header
    };
    host.tap.handle_segment(&cut, b"");
    assert!(host.tap.poll().is_none());
    assert!(is_in_step(&mut host));
}

#[test]
fn the_kernels_count_at_the_end_shows_what_was_never_seen() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT 1")]);
    host.unseen(COOKIE, Direction::Frontend, 5);
    host.unseen(COOKIE, Direction::Backend, 21);
    host.close(COOKIE);
    assert_eq!(
        host.lines(),
        [
            "gap missed Frontend 5",
            "Simple SELECT 1 Unknown@Execute -1",
            "gap missed Backend 21",
            "close closed statements=1",
        ]
    );
    let mut host = Host::logged_in();
    host.close(COOKIE);
    assert_eq!(host.lines(), ["close closed statements=0"]);
}

#[test]
fn a_login_that_was_lost_in_part_is_still_a_session() {
    let mut host = Host::connected();
    host.client(&[startup(&[("user", "ann"), ("database", "shop")])]);
    host.unseen(COOKIE, Direction::Backend, 100);
    host.server(&[ready(b'I')]);
    assert!(is_in_step(&mut host));
    host.close(COOKIE);
    let events = host.events();
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        ["close closed statements=1"]
    );
    assert_eq!(events[0].session.login_role.as_deref(), Some("ann"));
    assert_eq!(events[0].session.auth_method, None);
}

#[test]
fn a_session_older_than_the_tap() {
    let mut host = Host::new(Redaction::Clear);
    host.accept(&mid_stream(tcp(COOKIE, BACKEND)));
    host.unseen(COOKIE, Direction::Frontend, 4_000);
    host.unseen(COOKIE, Direction::Backend, 90_000);
    host.server(&[b"the rest of a row".to_vec(), complete("SELECT 1"), ready(b'I')]);
    host.client(&[query("SELECT 2")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.client(&[bind("", "earlier", &[]), execute("", 0), sync()]);
    host.server(&[bound(), complete("SELECT 3"), ready(b'I')]);
    let events = host.events();
    assert!(events.iter().all(|event| event.session.opened_before_attach));
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        [
            "gap opened_before_attach Backend 0 (37 bytes were seen but could not be understood)",
            "Simple SELECT 2 Ok@Complete \"SELECT 1\" I1",
            "Execute ? Ok@Complete \"SELECT 3\" I2",
        ]
    );
    // Later losses have nothing to do with when the tap came.
    host.unseen(COOKIE, Direction::Backend, 9);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    assert!(is_in_step(&mut host));
    host.client(&[terminate()]);
    host.close(COOKIE);
    assert_eq!(host.lines(), ["close terminate statements=3"]);
}

#[test]
fn losses_of_an_old_session_are_not_blamed_on_its_age() {
    let mut host = Host::new(Redaction::Clear);
    host.accept(&mid_stream(unix(COOKIE, BACKEND, b"/tmp/.s.PGSQL.5432\0")));
    host.server(&[ready(b'I')]);
    assert!(is_in_step(&mut host));
    host.unseen(COOKIE, Direction::Backend, 9);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.client(&[query("SELECT 2")]);
    assert_eq!(
        host.lines(),
        [
            "gap missed Backend 9",
            "gap resync Backend 0 (20 bytes were seen but could not be understood)"
        ]
    );
    host.exit(BACKEND);
    assert_eq!(
        host.lines(),
        [
            "Simple SELECT 2 Unanswered@Execute -2",
            "close backend-exit statements=2"
        ]
    );
}

#[test]
fn a_client_that_speaks_something_else_disturbs_nobody() {
    let mut host = Host::logged_in();
    host.accept(&tcp(7, 700));
    host.client(&[query("SELECT 1")]);
    host.segment(7, Direction::Frontend, b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    host.segment(7, Direction::Backend, &error("FATAL", "0A000"));
    host.segment(7, Direction::Frontend, &[0; 300]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.close(7);
    let events = host.events();
    let of = |cookie| {
        events
            .iter()
            .filter(|event| event.session.cookie == cookie)
            .map(line)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(COOKIE), ["Simple SELECT 1 Ok@Complete \"SELECT 1\" I1"]);
    let garbage = of(7);
    assert!(
        garbage[0].starts_with("gap malformed Frontend 0 (expected a startup packet of protocol 3"),
        "{garbage:?}"
    );
    assert!(!garbage.concat().contains("shop"), "content in {garbage:?}");
    assert!(
        garbage[1..].iter().all(|line| line.starts_with("gap resync")),
        "{garbage:?}"
    );
}
