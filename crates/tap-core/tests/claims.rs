//! What clients assert, and when it is not known. That it reverts as the server reverts it is tested against servers, in
//! `tests/tests/asserted`.

mod host;

use std::sync::Arc;

use host::{wire::*, *};
use tap_core::{Direction, Named, Names, Query, Redaction, Settings, Tap};

/// One query string for each text, answered with this tag.
fn say(host: &mut Host, sql: &str, tag: &str, status: u8) -> Query {
    host.client(&[query(sql)]);
    let rows = if tag.starts_with("SELECT") {
        vec![row_description(&[("?column?", 0, 0)]), row("x")]
    } else {
        Vec::new()
    };
    host.server(&[rows.concat(), complete(tag), ready(status)]);
    host.queries().remove(0)
}

/// What holds now.
fn now(host: &mut Host) -> Query {
    say(host, "SELECT 1", "SELECT 1", b'I')
}

/// The end user, as `value (source)`, with a mark where it is doubtful; or why none is known.
fn end_user(query: &Query) -> String {
    let Some(asserted) = &query.asserted else {
        return String::new();
    };
    match (asserted.end_user(), asserted.unknown) {
        (Some(claim), None) => {
            let mark = if claim.possibly_stale { "?" } else { "" };
            format!("{}{mark} ({})", claim.value, claim.source)
        }
        (None, Some(reason)) => format!("unknown: {reason}"),
        (claim, _) => {
            assert_eq!(claim, None, "both known and not");
            String::new()
        }
    }
}

fn role(query: &Query) -> String {
    query.effective_role.as_ref().map_or(String::new(), |role| {
        let mark = if role.possibly_stale { "?" } else { "" };
        format!("{}{mark}", role.name)
    })
}

fn host_with_literals() -> Host {
    let mut host = Host::new(Redaction::Literals);
    host.accept(&tcp(COOKIE, BACKEND));
    host.play(COOKIE, &Conversation::logged_in());
    host.events();
    host
}

#[test]
fn a_statement_shows_what_held_when_it_began_and_who_set_it() {
    let mut host = host_with_literals();
    let set = say(&mut host, "SET app.end_user = 'bob'", "SET", b'I');
    assert_eq!((end_user(&set).as_str(), set.number), ("", 1));
    let first = now(&mut host);
    assert_eq!(end_user(&first), "bob (set app.end_user)");
    let claim = first
        .asserted
        .as_ref()
        .and_then(|asserted| asserted.end_user())
        .expect("one");
    assert_eq!(claim.set_by.map(|by| by.statement), Some(1));
    // Nothing is made anew while nothing changes.
    let second = now(&mut host);
    assert!(Arc::ptr_eq(
        first.asserted.as_ref().expect("asserted"),
        second.asserted.as_ref().expect("asserted")
    ));
    say(&mut host, "RESET app.end_user", "RESET", b'I');
    assert_eq!(end_user(&now(&mut host)), "");
    // The first setting that is set counts, whichever was set last.
    say(&mut host, "SET app.user_id = 17", "SET", b'I');
    say(&mut host, "SET app.current_user = 'other'", "SET", b'I');
    assert_eq!(end_user(&now(&mut host)), "17 (set app.user_id)");
}

#[test]
fn only_settings_that_are_named_are_kept() {
    let mut host = host_with_literals();
    say(&mut host, "SET app.secret = 'hush'", "SET", b'I');
    say(
        &mut host,
        r#"SELECT set_config('request.jwt.claims', '{"sub":"u-1","token":"hush"}', false)"#,
        "SELECT 1",
        b'I',
    );
    let query = now(&mut host);
    assert_eq!(end_user(&query), "u-1 (set_config request.jwt.claims)");
    assert!(!format!("{query:?}").contains("hush"));
    let long = "x".repeat(600);
    say(&mut host, &format!("SET app.end_user = '{long}'"), "SET", b'I');
    say(&mut host, "RESET request.jwt.claims", "RESET", b'I');
    assert_eq!(end_user(&now(&mut host)), "unknown: too_long");
}

#[test]
fn values_of_parameters_are_followed_and_not_recorded() {
    let mut host = host_with_literals();
    host.client(&[
        parse("", "SELECT set_config('app.end_user', $1, $2)"),
        bind("", "", &["carol", "off"]),
        execute("", 0),
        sync(),
    ]);
    host.server(&[parsed(), bound(), row("carol"), complete("SELECT 1"), ready(b'I')]);
    let set = host.queries().remove(0);
    assert_eq!(set.param_count, 2);
    assert!(set.params.iter().all(|param| param.kept.is_empty()));
    assert!(!format!("{set:?}").contains("carol"));
    // Declared as int4, which a cast to text would print anew: the value is as it would be printed, or not known.
    assert_eq!(end_user(&now(&mut host)), "unknown: expression");
    let parse = message(b'P', b"s\0SELECT set_config('app.end_user', $1, false)\0\0\0");
    host.client(&[parse, bind("", "s", &["carol"]), execute("", 0), sync()]);
    host.server(&[parsed(), bound(), row("carol"), complete("SELECT 1"), ready(b'I')]);
    host.events();
    assert_eq!(end_user(&now(&mut host)), "carol (set_config app.end_user)");
}

#[test]
fn comments_come_before_settings_and_hold_for_their_statement() {
    let mut host = host_with_literals();
    say(&mut host, "SET app.end_user = 'bob'", "SET", b'I');
    let sql = "SELECT 1 /*end_user='eve%20x',password='hush',traceparent='00-ab-cd-01'*/";
    let query = say(&mut host, sql, "SELECT 1", b'I');
    assert_eq!(end_user(&query), "eve x (sqlcommenter)");
    let trace = query
        .asserted
        .as_ref()
        .and_then(|asserted| asserted.claim("traceparent"));
    assert_eq!(trace.map(|claim| claim.value.as_ref()), Some("00-ab-cd-01"));
    assert!(!format!("{query:?}").contains("hush"));
    assert_eq!(end_user(&now(&mut host)), "bob (set app.end_user)");
}

#[test]
fn after_a_gap_nothing_is_known_until_it_is_set_anew() {
    let mut host = host_with_literals();
    say(&mut host, "SET app.end_user = 'bob'", "SET", b'I');
    say(&mut host, "SET ROLE reader", "SET", b'I');
    assert_eq!(role(&now(&mut host)), "reader");
    host.unseen(COOKIE, Direction::Frontend, 40);
    host.unseen(COOKIE, Direction::Backend, 40);
    host.client(&[query("SELECT 'in step again'")]);
    host.server(&[complete("SELECT 0"), ready(b'T')]);
    host.events();
    let query = say(&mut host, "SELECT 1", "SELECT 1", b'T');
    assert_eq!(
        (end_user(&query).as_str(), role(&query).as_str()),
        ("unknown: gap", "")
    );
    // In a transaction of which the beginning was not seen: a savepoint from before undoes all since.
    say(&mut host, "SET app.end_user = 'carol'", "SET", b'T');
    assert_eq!(
        end_user(&say(&mut host, "SELECT 1", "SELECT 1", b'T')),
        "carol (set app.end_user)"
    );
    say(&mut host, "ROLLBACK TO unseen", "ROLLBACK", b'T');
    assert_eq!(
        end_user(&say(&mut host, "SELECT 1", "SELECT 1", b'T')),
        "unknown: gap"
    );
    say(&mut host, "SET LOCAL app.end_user = 'dave'", "SET", b'T');
    assert_eq!(
        end_user(&say(&mut host, "COMMIT", "COMMIT", b'I')),
        "dave (set app.end_user)"
    );
    assert_eq!(end_user(&now(&mut host)), "unknown: gap");
    // All that the startup packet did not set is nothing again.
    say(&mut host, "DISCARD ALL", "DISCARD ALL", b'I');
    let query = now(&mut host);
    assert_eq!((end_user(&query).as_str(), role(&query).as_str()), ("", "ann"));
}

#[test]
fn of_a_session_that_is_older_nothing_is_known_until_it_is_set() {
    let mut host = Host::new(Redaction::Literals);
    host.accept(&mid_stream(tcp(COOKIE, BACKEND)));
    host.client(&[query("SELECT 'joins'")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.events();
    let query = now(&mut host);
    assert_eq!(
        (end_user(&query).as_str(), role(&query).as_str()),
        ("unknown: opened_before_attach", "")
    );
    say(&mut host, "SET app.end_user = 'bob'", "SET", b'I');
    assert_eq!(end_user(&now(&mut host)), "bob (set app.end_user)");
    // To what it began with, which nobody saw.
    say(&mut host, "RESET ALL", "RESET", b'I');
    assert_eq!(end_user(&now(&mut host)), "unknown: opened_before_attach");
}

#[test]
fn code_that_nobody_sees_makes_doubtful_what_it_may_have_changed() {
    let mut host = host_with_literals();
    say(&mut host, "SET app.end_user = 'bob'", "SET", b'I');
    say(&mut host, "SELECT count(*), lower('X') FROM t", "SELECT 1", b'I');
    assert_eq!(end_user(&now(&mut host)), "bob (set app.end_user)");
    say(&mut host, "SELECT app.login('eve')", "SELECT 1", b'I');
    let query = now(&mut host);
    assert_eq!(
        (end_user(&query).as_str(), role(&query).as_str()),
        ("bob? (set app.end_user)", "ann?")
    );
    say(&mut host, "SET app.end_user = 'carol'", "SET", b'I');
    assert_eq!(end_user(&now(&mut host)), "carol (set app.end_user)");
    // What it did in a transaction that was rolled back is undone.
    say(&mut host, "BEGIN", "BEGIN", b'T');
    say(&mut host, "DO $$ BEGIN END $$", "DO", b'T');
    let within = say(&mut host, "ROLLBACK", "ROLLBACK", b'I');
    assert_eq!(end_user(&within), "carol? (set app.end_user)");
    assert_eq!(end_user(&now(&mut host)), "carol (set app.end_user)");
    // A call by oid: of int4pl, then of something made by a user.
    for (oid, expected) in [
        (177, "carol (set app.end_user)"),
        (16_500, "carol? (set app.end_user)"),
    ] {
        host.client(&[function_call(oid)]);
        host.server(&[function_result(), ready(b'I')]);
        host.events();
        assert_eq!(end_user(&now(&mut host)), expected);
    }
}

#[test]
fn a_statement_that_cannot_be_read_says_so() {
    let mut host = host_with_literals();
    say(&mut host, "SET app.end_user = 'bob'", "SET", b'I');
    // A SET that was prepared out of sight.
    host.client(&[bind("", "unseen", &[]), execute("", 0), sync()]);
    host.server(&[bound(), complete("SET"), ready(b'I')]);
    host.events();
    assert_eq!(end_user(&now(&mut host)), "unknown: text");
    // Text in an encoding that is not converted.
    host.client(&[query("SET client_encoding = 'MULE_INTERNAL'")]);
    host.server(&[
        complete("SET"),
        parameter("client_encoding", "MULE_INTERNAL"),
        ready(b'I'),
    ]);
    host.client(&[message(b'Q', b"SET app.end_user = 'j\xfcrgen'\0")]);
    host.server(&[complete("SET"), ready(b'I')]);
    host.events();
    assert_eq!(end_user(&now(&mut host)), "unknown: text");
    host.client(&[query("SET client_encoding = 'LATIN1'")]);
    host.server(&[
        complete("SET"),
        parameter("client_encoding", "LATIN1"),
        ready(b'I'),
    ]);
    host.client(&[message(b'Q', b"SET app.end_user = 'j\xfcrgen'\0")]);
    host.server(&[complete("SET"), ready(b'I')]);
    host.events();
    assert_eq!(end_user(&now(&mut host)), "jürgen (set app.end_user)");
}

#[test]
fn a_backslash_means_what_the_session_says() {
    let mut host = host_with_literals();
    say(&mut host, r"SET app.end_user = 'DOMAIN\bob'", "SET", b'I');
    assert_eq!(end_user(&now(&mut host)), r"DOMAIN\bob (set app.end_user)");
    host.client(&[query(
        r"SET standard_conforming_strings = off; SET app.end_user = 'DOMAIN\bob'",
    )]);
    host.server(&[
        complete("SET"),
        complete("SET"),
        parameter("standard_conforming_strings", "off"),
        ready(b'I'),
    ]);
    host.events();
    assert_eq!(end_user(&now(&mut host)), "unknown: expression");
    say(&mut host, r"SET app.end_user = 'DOMAIN\\bob'", "SET", b'I');
    assert_eq!(end_user(&now(&mut host)), r"DOMAIN\bob (set app.end_user)");
}

#[test]
fn the_servers_own_word_corrects_what_was_seen() {
    let names = Names {
        settings: vec![Named {
            name: "application_name".to_owned(),
            member: None,
            says: "end_user".to_owned(),
        }],
        comments: Vec::new(),
    };
    let mut host = Host::new(Redaction::Literals);
    host.tap = Tap::new(Settings {
        names,
        ..Settings::default()
    });
    host.accept(&tcp(COOKIE, BACKEND));
    host.play(COOKIE, &Conversation::logged_in());
    host.events();
    say(&mut host, "SET application_name = 'jürgen'", "SET", b'I');
    // In the server's spelling.
    host.client(&[query("SET application_name = 'zoë'")]);
    host.server(&[
        complete("SET"),
        parameter("application_name", "zo??"),
        ready(b'I'),
    ]);
    host.events();
    assert_eq!(end_user(&now(&mut host)), "zo?? (set application_name)");
    // By something that nobody saw: then other things may have been changed too.
    host.client(&[query("SELECT * FROM innocent")]);
    host.server(&[
        complete("SELECT 0"),
        parameter("application_name", "eve"),
        ready(b'I'),
    ]);
    host.client(&[query("SELECT * FROM innocent")]);
    host.server(&[
        complete("SELECT 0"),
        parameter("session_authorization", "eve"),
        ready(b'I'),
    ]);
    host.events();
    let query = now(&mut host);
    assert_eq!(
        (end_user(&query).as_str(), role(&query).as_str()),
        ("eve? (reported application_name)", "eve?")
    );
}
