//! What names mean at the moment of their use, who else gives them, and the parameters that are bound to them.

mod conversation;

use bytes::Bytes;
use conversation::*;
use pg_wire::{Direction, Exchange, Format, Limits, Output, Param, Session};

fn sources(exchanges: &[Exchange]) -> Vec<String> {
    exchanges
        .iter()
        .map(|exchange| {
            let text = |text: &Option<Bytes>| match text {
                Some(text) => String::from_utf8_lossy(text).into_owned(),
                None if exchange.preparsed => "preparsed".to_owned(),
                None => "?".to_owned(),
            };
            let sources: Vec<_> = exchange
                .results
                .iter()
                .map(|result| match &result.source {
                    Some(source) => text(&Some(source.sql.clone())),
                    None => "?".to_owned(),
                })
                .collect();
            format!("{} < {}", text(&exchange.sql), sources.join(" | "))
        })
        .collect()
}

/// One query string and its only answer.
fn one(conversation: Conversation, sql: &str, tag: &str) -> Conversation {
    conversation
        .client(&[query(sql)])
        .server(&[complete(tag), ready(b'T')])
}

/// Bind and Execute of a prepared statement.
fn run(conversation: Conversation, name: &str) -> Conversation {
    conversation
        .client(&[bind("", name, &[]), execute("", 0), sync()])
        .server(&[bound(), complete("SELECT 1"), ready(b'T')])
}

#[test]
fn sql_and_protocol_share_their_names() {
    let mut talk = one(Conversation::logged_in(), "PREPARE \"S\" AS SELECT 1", "PREPARE");
    talk = run(talk, "S");
    talk = one(talk, "EXECUTE \"S\" /* now */;", "SELECT 1");
    // The protocol closes it, and gives the name to another.
    talk = talk
        .client(&[close('S', "S"), parse("S", "SELECT 2"), sync()])
        .server(&[closed(), parsed(), ready(b'T')]);
    talk = one(talk, "execute \"S\"", "SELECT 1");
    // SQL drops it, and gives the name to a third.
    talk = one(talk, "DEALLOCATE \"S\"", "DEALLOCATE");
    talk = one(talk, "EXECUTE \"S\"", "SELECT 1");
    talk = one(talk, "PREPARE \"S\" AS SELECT 3", "PREPARE");
    talk = run(talk, "S");
    assert_eq!(
        sources(&talk.exchanges()),
        [
            "PREPARE \"S\" AS SELECT 1 < ?",
            "PREPARE \"S\" AS SELECT 1 < ?",
            "EXECUTE \"S\" /* now */; < PREPARE \"S\" AS SELECT 1",
            "execute \"S\" < SELECT 2",
            "DEALLOCATE \"S\" < ?",
            "EXECUTE \"S\" < ?",
            "PREPARE \"S\" AS SELECT 3 < ?",
            "PREPARE \"S\" AS SELECT 3 < ?",
        ]
    );
}

#[test]
fn where_the_name_is_not_plain_no_name_is_sure() {
    for (string, tags) in [
        ("SELECT 1; DEALLOCATE s", &["SELECT 1", "DEALLOCATE"][..]),
        ("DEALLOCATE U&\"s\"", &["DEALLOCATE"]),
        ("SELECT 1; PREPARE s AS SELECT 9", &["SELECT 1", "PREPARE"]),
        ("PREPARE s AS SELECT 9; SELECT 1", &["PREPARE", "SELECT 1"]),
    ] {
        let mut answer: Vec<_> = tags.iter().map(|tag| complete(tag)).collect();
        answer.push(ready(b'I'));
        let talk = Conversation::logged_in()
            .client(&[parse("s", "SELECT 1"), sync()])
            .server(&[parsed(), ready(b'I')])
            .client(&[query(string)])
            .server(&answer);
        let told = sources(&run(talk, "s").exchanges());
        assert_eq!(told.last().map(String::as_str), Some("preparsed < ?"), "{string}");
    }
}

/// Takes apart what has no `;` inside of anything.
fn split(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    text.split_inclusive(';')
        .map(|part| {
            let range = start..start + part.trim_end_matches(';').len();
            start += part.len();
            range
        })
        .collect()
}

#[test]
fn names_inside_a_string_are_followed_where_it_can_be_taken_apart() {
    let talk = Conversation::logged_in()
        .client(&[query(
            "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c; PREPARE p AS SELECT 2; EXECUTE p",
        )])
        .server(&[
            complete("BEGIN"),
            complete("DECLARE CURSOR"),
            complete("FETCH 1"),
            complete("PREPARE"),
            complete("SELECT 1"),
            ready(b'T'),
        ])
        .client(&[query("FETCH c; SELECT 1/0"), execute("c", 0), sync()])
        .server(&[
            complete("FETCH 1"),
            error("ERROR", "22012"),
            ready(b'E'),
            error("ERROR", "25P02"),
            ready(b'E'),
        ]);
    let mut player = Player::new(Session::new(Limits::default()).with_split(split));
    player.turns(&talk.turns);
    assert_eq!(
        sources(&exchanges(player.close())),
        [
            "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c; PREPARE p AS SELECT 2; EXECUTE p \
             < ? | ? |  DECLARE c CURSOR FOR SELECT 1 | ? |  PREPARE p AS SELECT 2",
            "FETCH c; SELECT 1/0 <  DECLARE c CURSOR FOR SELECT 1 | ?",
            " DECLARE c CURSOR FOR SELECT 1 < ?",
        ]
    );
}

#[test]
fn a_refused_execute_tells_what_it_would_have_run_and_a_refused_string_nothing() {
    let mut talk = one(
        Conversation::logged_in(),
        "PREPARE p(int) AS SELECT $1",
        "PREPARE",
    );
    // Too few parameters: the server calls that a syntax error too.
    for sql in ["EXECUTE p", "EXECUTE p; SELECT 1"] {
        talk = talk
            .client(&[query(sql)])
            .server(&[error("ERROR", "42601"), ready(b'I')]);
    }
    let mut player = Player::new(Session::new(Limits::default()).with_split(split));
    player.turns(&talk.turns);
    assert_eq!(
        sources(&exchanges(player.close()))[1..],
        [
            "EXECUTE p < PREPARE p(int) AS SELECT $1",
            "EXECUTE p; SELECT 1 < ?"
        ]
    );
}

#[test]
fn everything_is_dropped_by_discard_all_and_the_text_of_a_refused_name_with_it() {
    for drop in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let talk = Conversation::logged_in()
            .client(&[parse("s", "SELECT 1"), parse("", "SELECT 0"), sync()])
            .server(&[parsed(), parsed(), ready(b'I')])
            .client(&[parse("", drop), bind("", "", &[]), execute("", 0), sync()])
            .server(&[parsed(), bound(), complete(drop), ready(b'I')])
            .client(&[bind("", "s", &[]), execute("", 0), sync()])
            .server(&[error("ERROR", "26000"), ready(b'I')]);
        assert_eq!(
            sources(&talk.exchanges()),
            [format!("{drop} < ?"), "? < ?".to_owned()]
        );
    }
    // Dropped where no tag tells: inside a function.
    let talk = Conversation::logged_in()
        .client(&[parse("s", "SELECT 1"), sync()])
        .server(&[parsed(), ready(b'I')])
        .client(&[bind("", "s", &[]), execute("", 0), sync()])
        .server(&[error("ERROR", "26000"), ready(b'I')]);
    assert_eq!(sources(&talk.exchanges()), ["? < ?"]);
}

#[test]
fn a_fetch_names_its_cursor() {
    let mut talk = one(Conversation::logged_in(), "BEGIN", "BEGIN");
    talk = one(talk, "DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR");
    talk = one(talk, "FETCH FORWARD 2 FROM c", "FETCH 1");
    talk = one(talk, "MOVE c", "MOVE 0");
    // The protocol runs the same portal.
    talk = talk
        .client(&[execute("c", 1), sync()])
        .server(&[complete("FETCH 0"), ready(b'T')]);
    talk = one(talk, "CLOSE c", "CLOSE CURSOR");
    talk = one(talk, "FETCH c", "FETCH 0");
    talk = one(talk, "DECLARE h CURSOR WITH HOLD FOR SELECT 1", "DECLARE CURSOR");
    talk = talk
        .client(&[query("COMMIT")])
        .server(&[complete("COMMIT"), ready(b'I')]);
    talk = one(talk, "FETCH h", "FETCH 1");
    talk = talk
        .client(&[query("FETCH h")])
        .server(&[error("ERROR", "34000"), ready(b'I')]);
    assert_eq!(
        sources(&talk.exchanges())[2..],
        [
            "FETCH FORWARD 2 FROM c < DECLARE c CURSOR FOR SELECT 1",
            "MOVE c < DECLARE c CURSOR FOR SELECT 1",
            "DECLARE c CURSOR FOR SELECT 1 < ?",
            "CLOSE c < ?",
            "FETCH c < ?",
            "DECLARE h CURSOR WITH HOLD FOR SELECT 1 < ?",
            "COMMIT < ?",
            "FETCH h < DECLARE h CURSOR WITH HOLD FOR SELECT 1",
            "FETCH h < ?",
        ]
    );
}

fn keeping(value_bytes: usize) -> Limits {
    Limits {
        value_bytes,
        ..Limits::default()
    }
}

fn bind_raw(statement: &str, formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = format!("\0{statement}\0").into_bytes();
    body.extend_from_slice(&(formats.len() as u16).to_be_bytes());
    for format in formats {
        body.extend_from_slice(&format.to_be_bytes());
    }
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Some(value) => {
                body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                body.extend_from_slice(value);
            }
            None => body.extend_from_slice(&[255; 4]),
        }
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

/// A statement whose one declared type is int4, bound twice.
fn bound_twice(describe_first: bool) -> Conversation {
    let mut talk = Conversation::logged_in()
        .client(&[parse("s", "SELECT $1, $2"), sync()])
        .server(&[parsed(), ready(b'I')]);
    if describe_first {
        talk = talk.client(&[describe('S', "s"), sync()]).server(&[
            message(b't', &[0, 2, 0, 0, 0, 23, 0, 0, 0, 25]),
            no_data(),
            ready(b'I'),
        ]);
    }
    talk.client(&[
        bind_raw("s", &[1, 0], &[Some(&[0, 0, 0, 42]), Some(b"a longer text")]),
        execute("", 0),
        bind_raw("s", &[], &[None, Some(b"")]),
        execute("", 0),
        sync(),
    ])
    .server(&[
        bound(),
        complete("SELECT 1"),
        bound(),
        complete("SELECT 1"),
        ready(b'I'),
    ])
}

#[test]
fn parameters_have_their_type_format_length_and_a_value_if_that_is_wanted() {
    let param = |type_oid, format, bytes, kept: &'static [u8]| Param {
        type_oid,
        format,
        bytes,
        kept: Bytes::from_static(kept),
    };
    let seen = exchanges(bound_twice(true).play_with(keeping(8)));
    assert_eq!(
        *seen[0].params,
        [
            param(23, Format::Binary, Some(4), &[0, 0, 0, 42]),
            param(25, Format::Text, Some(13), b"a longer"),
        ]
    );
    assert!(!seen[0].params[0].truncated() && seen[0].params[1].truncated());
    assert_eq!(
        *seen[1].params,
        [
            param(23, Format::Text, None, b""),
            param(25, Format::Text, Some(0), b"")
        ]
    );
    // By default no value is kept; and what the client declared is all that is known of the types.
    let seen = exchanges(bound_twice(false).play());
    assert_eq!(
        *seen[0].params,
        [
            param(23, Format::Binary, Some(4), b""),
            param(0, Format::Text, Some(13), b""),
        ]
    );
}

#[test]
fn a_gap_in_a_value_costs_that_value_and_a_gap_over_several_all() {
    let bytes = bound_twice(true);
    let (last, turns) = bytes.turns.split_last().unwrap();
    let (request, turns) = turns.split_last().unwrap();
    let place = request.1.windows(8).position(|part| part == b"a longer").unwrap();
    for (missing, expected) in [(9, Some(&b"a lo"[..])), (30, None)] {
        let mut player = Player::new(Session::new(keeping(100)));
        player.turns(turns);
        player.bytes(Direction::Frontend, &request.1[..place + 4]);
        player.gap(Direction::Frontend, missing, true);
        player.bytes(Direction::Frontend, &request.1[place + 4 + missing as usize..]);
        player.turns(std::slice::from_ref(last));
        let seen = exchanges(player.close());
        match expected {
            Some(head) => {
                assert_eq!(seen.len(), 2);
                assert_eq!(seen[0].params[1].kept, head);
                assert!(seen[0].params[1].truncated());
                assert_eq!(seen[1].param_count, 2);
            }
            // Beyond the message itself: names and boundaries are lost with it.
            None => assert!(seen.iter().all(|exchange| exchange.params.is_empty())),
        }
    }
}

#[test]
fn a_long_text_keeps_its_head_its_length_and_the_digest_of_all() {
    use sha2::{Digest as _, Sha256};
    let text = format!("SELECT '{}'", "x".repeat(5_000));
    let limits = Limits {
        statement_bytes: 100,
        ..Limits::default()
    };
    let talk = Conversation::logged_in()
        .client(&[query(&text)])
        .server(&[complete("SELECT 1"), ready(b'I')])
        .client(&[query("SELECT 1")])
        .server(&[complete("SELECT 1"), ready(b'I')]);
    let seen = exchanges(talk.play_with(limits));
    assert_eq!(seen[0].sql.as_deref(), Some(&text.as_bytes()[..100]));
    assert_eq!((seen[0].sql_bytes, seen[0].truncated), (text.len() as u64, true));
    let whole: [u8; 32] = Sha256::digest(&text).into();
    assert_eq!(seen[0].digest.as_deref(), Some(&whole));
    assert_eq!((seen[1].truncated, seen[1].digest.as_deref()), (false, None));
}

#[test]
fn a_client_of_tiny_segments_does_not_make_itself_invisible() {
    let mut player = Player::new(Session::mid_stream(Limits::default()));
    let talk = Conversation::new()
        .client(&[query("SELECT 1")])
        .server(&[complete("SELECT 1"), ready(b'I')])
        .client(&[query("SELECT 2")])
        .server(&[complete("SELECT 1"), ready(b'I')]);
    for (direction, bytes) in &talk.turns {
        for byte in bytes {
            player.bytes(*direction, &[*byte]);
        }
    }
    let outputs = player.close();
    assert_eq!(
        outputs
            .iter()
            .filter(|output| matches!(output, Output::Lost { over: true, .. }))
            .count(),
        2
    );
    assert_eq!(
        lines(&exchanges(outputs)),
        ["Simple SELECT 2 [Ok@Complete \"SELECT 1\"] I"]
    );
}

#[test]
fn what_stays_hidden_is_told_before_its_end() {
    let mut player = Player::new(Session::mid_stream(Limits::default()));
    for _ in 0..300 {
        player.bytes(Direction::Backend, &[b'd'; 8192]);
    }
    let told: Vec<_> = player
        .outputs
        .iter()
        .map(|output| match output {
            Output::Lost { skipped, over, .. } => (*skipped, *over),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(1 << 20, false), (1 << 20, false)]);
    let Some(Output::Lost {
        skipped, over: true, ..
    }) = player.close().pop()
    else {
        panic!("the rest is not told");
    };
    assert_eq!(skipped, 300 * 8192 - (2 << 20));
}
