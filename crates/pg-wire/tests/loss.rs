//! Loss, attaching in the middle, and bytes that are no protocol: nothing is invented, nothing is lost
//! without being told.

mod conversation;

use conversation::*;
use pg_wire::{Direction, Limits, Outcome, Output, Session};

fn lost(direction: Direction, missing: Option<u64>, skipped: u64) -> Output {
    Output::Lost {
        since: AT,
        at: AT,
        direction,
        missing,
        skipped,
        over: true,
    }
}

fn logged_in() -> Player {
    let mut player = Player::new(Session::new(Limits::default()));
    player.turns(&Conversation::logged_in().turns);
    player.outputs.clear();
    player
}

#[test]
fn attached_in_the_middle_it_waits_for_a_sure_boundary() {
    let mut player = Player::new(Session::mid_stream(Limits::default()));
    player.offsets = [1_000, 5_000];
    let hidden = query("SELECT hidden");
    player.bytes(Direction::Backend, b"the rest of a row");
    player.bytes(Direction::Frontend, &hidden);
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'T')].concat());
    assert_eq!(player.outputs, []);
    player.bytes(
        Direction::Frontend,
        &[bind("", "old", &["x"]), execute("", 0), sync()].concat(),
    );
    player.bytes(
        Direction::Backend,
        &[bound(), row("1"), complete("SELECT 1"), ready(b'I')].concat(),
    );
    let outputs = player.close();
    assert_eq!(
        outputs[0],
        lost(Direction::Frontend, Some(0), hidden.len() as u64)
    );
    assert_eq!(outputs[1], lost(Direction::Backend, Some(0), 17 + 14 + 6));
    let exchanges = exchanges(outputs);
    assert_eq!(
        lines(&exchanges),
        ["Execute ? [Ok@Complete \"SELECT 1\" rows=1] I"]
    );
    assert!(exchanges[0].preparsed && !exchanges[0].truncated);
    assert_eq!(exchanges[0].statement_name.as_ref(), b"old");
    assert_eq!(exchanges[0].request.start, 1_000 + hidden.len() as u64);
}

#[test]
fn a_request_seen_before_the_server_is_ready_is_no_boundary() {
    let mut player = Player::new(Session::mid_stream(Limits::default()));
    player.bytes(Direction::Frontend, &query("SELECT 1"));
    player.bytes(Direction::Backend, &complete("SELECT 1"));
    player.bytes(Direction::Frontend, &query("SELECT 2"));
    player.bytes(Direction::Backend, &ready(b'I'));
    // The middle of a message, after which the server's word no longer counts.
    player.bytes(Direction::Frontend, b"ECT 3\0");
    player.bytes(Direction::Frontend, &query("SELECT 4"));
    let outputs = player.close();
    assert_eq!(
        outputs,
        [
            lost(Direction::Frontend, Some(0), 48),
            lost(Direction::Backend, Some(0), 20)
        ]
    );
}

#[test]
fn a_boundary_found_too_early_is_given_up_again() {
    let mut player = Player::new(Session::mid_stream(Limits::default()));
    // Parse, Bind and Execute went by unseen; their Sync looks like a boundary.
    player.bytes(Direction::Backend, &ready(b'I'));
    player.bytes(Direction::Frontend, &sync());
    player.bytes(
        Direction::Backend,
        &[parsed(), bound(), complete("SELECT 1"), ready(b'I')].concat(),
    );
    player.bytes(Direction::Frontend, &query("SELECT 1"));
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
    let outputs = player.close();
    assert!(
        matches!(
            &outputs[1],
            Output::Malformed {
                direction: Direction::Backend,
                offset: 6,
                ..
            }
        ),
        "{outputs:?}"
    );
    assert_eq!(outputs[2], lost(Direction::Backend, Some(0), 5 + 5 + 14 + 6));
    assert_eq!(
        lines(&exchanges(outputs)),
        ["Simple SELECT 1 [Ok@Complete \"SELECT 1\"] I"]
    );
}

/// A statement is prepared, and a pipeline and the head of a query are under way.
fn under_way() -> Player {
    let mut player = logged_in();
    player.bytes(Direction::Frontend, &[parse("s", "SELECT 1"), sync()].concat());
    player.bytes(Direction::Backend, &[parsed(), ready(b'I')].concat());
    player.bytes(
        Direction::Frontend,
        &[query("SELECT 2"), bind("", "s", &[]), execute("", 0), sync()].concat(),
    );
    let lost = query("SELECT lost");
    player.bytes(Direction::Frontend, lost.get(..9).unwrap_or_default());
    player
}

/// The prepared statement is run again.
fn run_again(player: &mut Player) {
    player.bytes(
        Direction::Frontend,
        &[bind("", "s", &[]), execute("", 0), sync()].concat(),
    );
    player.bytes(
        Direction::Backend,
        &[bound(), complete("SELECT 1"), ready(b'I')].concat(),
    );
}

#[test]
fn a_gap_in_the_requests_makes_what_is_under_way_unknown_and_forgets_names() {
    let mut player = under_way();
    player.gap(Direction::Frontend, 50, true);
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
    run_again(&mut player);
    let outputs = player.close();
    assert_eq!(outputs[2], lost(Direction::Frontend, Some(50), 9));
    assert_eq!(outputs[3], lost(Direction::Backend, Some(0), 20));
    let exchanges = exchanges(outputs);
    assert_eq!(
        lines(&exchanges),
        [
            "Simple SELECT 2 [Unknown@Execute] -",
            "Execute SELECT 1 [Unknown@Bind] -",
            "Execute ? [Ok@Complete \"SELECT 1\"] I",
        ]
    );
    assert!(exchanges[2].preparsed);
}

#[test]
fn a_gap_in_the_answers_hides_no_request_and_no_name_that_nobody_touched() {
    let mut player = under_way();
    player.gap(Direction::Backend, 50, true);
    player.bytes(Direction::Frontend, &query("SELECT lost")[9..]);
    player.bytes(Direction::Frontend, &[parse("t", "SELECT 3"), sync()].concat());
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
    run_again(&mut player);
    // Whether this one was prepared was not seen.
    player.bytes(
        Direction::Frontend,
        &[bind("", "t", &[]), execute("", 0), sync()].concat(),
    );
    player.bytes(
        Direction::Backend,
        &[bound(), complete("SELECT 1"), ready(b'I')].concat(),
    );
    let outputs = player.close();
    assert!(
        outputs.contains(&lost(Direction::Backend, Some(50), 20)),
        "{outputs:?}"
    );
    let exchanges = exchanges(outputs);
    assert_eq!(
        lines(&exchanges),
        [
            "Simple SELECT 2 [Unknown@Execute] -",
            "Execute SELECT 1 [Unknown@Bind] -",
            "Simple SELECT lost [Unknown@Execute] -",
            "Parse SELECT 3 [Unknown@Parse] -",
            "Execute SELECT 1 [Ok@Complete \"SELECT 1\"] I",
            "Execute ? [Ok@Complete \"SELECT 1\"] I",
        ]
    );
}

#[test]
fn a_hidden_deallocate_makes_every_name_doubtful() {
    for sql in [
        "DEALLOCATE ALL",
        "SELECT 1; discard all",
        "DO 'begin execute ''DEALLOCATE s''; end'",
    ] {
        let mut player = logged_in();
        player.bytes(Direction::Frontend, &[parse("s", "SELECT 1"), sync()].concat());
        player.bytes(Direction::Backend, &[parsed(), ready(b'I')].concat());
        player.gap(Direction::Backend, 50, true);
        player.bytes(Direction::Frontend, &query(sql));
        player.bytes(Direction::Backend, &ready(b'I'));
        run_again(&mut player);
        let told = lines(&exchanges(player.close()));
        assert_eq!(told[1..], ["Execute ? [Ok@Complete \"SELECT 1\"] I"], "{sql}");
    }
}

#[test]
fn a_gap_inside_a_row_or_copied_data_hides_nothing() {
    let mut player = logged_in();
    player.bytes(Direction::Frontend, &query("SELECT big"));
    let big = row(&"x".repeat(100_000));
    player.bytes(Direction::Backend, &[row("1"), big[..50].to_vec()].concat());
    player.gap(Direction::Backend, big.len() as u64 - 60, true);
    player.bytes(
        Direction::Backend,
        &[big[..10].to_vec(), big[..20].to_vec()].concat(),
    );
    // Exactly up to the end of a message.
    player.gap(Direction::Backend, big.len() as u64 - 20, true);
    player.bytes(Direction::Backend, &[complete("SELECT 3"), ready(b'I')].concat());
    let exchanges = exchanges(player.close());
    assert_eq!(
        lines(&exchanges),
        ["Simple SELECT big [Ok@Complete \"SELECT 3\" rows=3] I"]
    );
    assert_eq!(exchanges[0].results[0].bytes_out, 12 + 2 * big.len() as u64 + 14);
}

#[test]
fn a_gap_inside_a_statement_cuts_its_text() {
    let mut player = logged_in();
    let whole = query("SELECT 'much of this is missing' FROM t");
    player.bytes(Direction::Frontend, &whole[..12]);
    player.gap(Direction::Frontend, 20, true);
    player.bytes(Direction::Frontend, &whole[32..]);
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
    let exchanges = exchanges(player.close());
    assert_eq!(lines(&exchanges), ["Simple SELECT  [Ok@Complete \"SELECT 1\"] I"]);
    assert_eq!((exchanges[0].truncated, exchanges[0].sql_bytes), (true, 39));
}

#[test]
fn a_gap_of_unknown_size_or_beyond_the_message_is_never_bridged() {
    for (missing, told) in [(10, false), (30_000, true)] {
        let mut player = logged_in();
        player.bytes(Direction::Frontend, &query("SELECT big"));
        player.bytes(Direction::Backend, &row(&"x".repeat(20_000))[..100]);
        player.gap(Direction::Backend, missing, told);
        player.bytes(Direction::Backend, b"xxx");
        let outputs = player.close();
        assert_eq!(outputs[1], lost(Direction::Backend, told.then_some(missing), 103));
        let exchanges = exchanges(outputs);
        assert_eq!(lines(&exchanges), ["Simple SELECT big [Unknown@Execute] -"]);
    }
}

#[test]
fn a_jump_in_offsets_is_a_gap_and_a_gap_of_nothing_is_none() {
    let mut player = logged_in();
    player.gap(Direction::Frontend, 0, true);
    player.bytes(Direction::Frontend, &query("SELECT 1"));
    player.offsets[1] += 3;
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
    let outputs = player.close();
    assert_eq!(outputs[1], lost(Direction::Backend, Some(3), 20));
    assert_eq!(exchanges(outputs)[0].results[0].outcome, Outcome::Unknown);
}

#[test]
fn other_protocols_are_malformed_once() {
    let mut player = Player::new(Session::new(Limits::default()));
    for _ in 0..1_000 {
        player.bytes(Direction::Frontend, b"GET / HTTP/1.1\r\nHost: db\r\n\r\n");
    }
    assert!(player.session.retained_bytes() < 1_000);
    let outputs = player.close();
    let found = format!(
        "length {}, code {}",
        u32::from_be_bytes(*b"GET "),
        u32::from_be_bytes(*b"/ HT")
    );
    assert!(
        matches!(&outputs[0], Output::Malformed { offset: 0, found: f, .. } if *f == found),
        "{outputs:?}"
    );
    assert_eq!(outputs[1..], [lost(Direction::Frontend, Some(0), 28_000)]);
}

#[test]
fn bad_lengths_and_types_are_malformed_until_the_next_boundary() {
    for bad in [
        &b"Q\0\0\0\x03SELECT"[..],
        b"Q\x7f\xff\xff\xffSELECT",
        b"@\0\0\0\x09hello",
    ] {
        let mut player = logged_in();
        player.bytes(Direction::Frontend, &query("SELECT 1"));
        let offset = player.offsets[0];
        player.bytes(Direction::Frontend, bad);
        player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
        player.bytes(Direction::Frontend, &query("SELECT 2"));
        player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
        let outputs = player.close();
        assert!(
            matches!(&outputs[1], Output::Malformed { direction: Direction::Frontend, offset: o, found, .. }
            if *o == offset && !found.contains("SELECT")),
            "{outputs:?}"
        );
        assert_eq!(outputs[2], lost(Direction::Frontend, Some(0), bad.len() as u64));
        assert_eq!(
            lines(&exchanges(outputs)),
            [
                "Simple SELECT 1 [Unknown@Execute] -",
                "Simple SELECT 2 [Ok@Complete \"SELECT 1\"] I"
            ]
        );
    }
}

#[test]
fn a_loss_during_login_is_no_exchange() {
    let mut player = Player::new(Session::new(Limits::default()));
    player.bytes(Direction::Frontend, &startup(&[("user", "ann")]));
    player.bytes(Direction::Frontend, &query("SELECT early"));
    player.gap(Direction::Backend, 10, true);
    player.bytes(Direction::Backend, &ready(b'I'));
    player.bytes(Direction::Frontend, &query("SELECT 1"));
    player.bytes(Direction::Backend, &[complete("SELECT 1"), ready(b'I')].concat());
    assert_eq!(
        lines(&exchanges(player.close())),
        ["Simple SELECT 1 [Ok@Complete \"SELECT 1\"] I"]
    );
}
