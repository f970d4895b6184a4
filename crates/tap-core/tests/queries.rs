//! Execution requests: which text, answer and transaction each has, and what of its text is recorded.

mod host;

use host::{line, wire::*, *};
use tap_core::{Body, Event, Limits, Outcome, Param, Phase, Redaction, Settings, Times};

#[test]
fn statements_of_one_string_have_their_own_text_tag_rows_and_times() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT id FROM t; INSERT INTO t VALUES (1) ;SELECT 2")]);
    let asked = host.at;
    host.server(&[
        row_description(&[("id", 16_402, 1)]),
        row("1"),
        row("22"),
        complete("SELECT 2"),
    ]);
    host.server(&[complete("INSERT 0 1")]);
    host.server(&[
        row_description(&[("?column?", 0, 0)]),
        row("2"),
        complete("SELECT 1"),
    ]);
    host.server(&[ready(b'I')]);
    let events = host.events();
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        [
            "Simple SELECT id FROM t Ok@Complete \"SELECT 2\" rows=2 I1",
            "Simple INSERT INTO t VALUES (1) Ok@Complete \"INSERT 0 1\" I1",
            "Simple SELECT 2 Ok@Complete \"SELECT 1\" rows=1 I1",
        ]
    );
    for (index, event) in events.iter().enumerate() {
        let answered = asked + 10 * (index as u64 + 1);
        assert_eq!(
            event.times,
            Times {
                start: asked,
                first_response: Some(answered),
                end: answered
            }
        );
    }
    let queries = queries(events);
    assert_eq!(
        queries.iter().map(|query| query.index).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(
        queries
            .iter()
            .map(|query| query.rows_affected)
            .collect::<Vec<_>>(),
        [None, Some(1), None]
    );
    assert_eq!(
        queries
            .iter()
            .map(|query| query.original_bytes)
            .collect::<Vec<_>>(),
        [16, 24, 8]
    );
    assert_eq!(queries[0].columns[0].table_oid, 16_402);
    assert_eq!(queries[1].statement.as_ref().unwrap().command, "INSERT");
}

#[test]
fn an_error_in_the_middle_ends_the_string() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT 1; SELECT 1/0; DROP TABLE t")]);
    host.server(&[complete("SELECT 1"), error("ERROR", "22012"), ready(b'I')]);
    assert_eq!(
        host.lines(),
        [
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" I1=RolledBack",
            "Simple SELECT 1/0 Error@Execute 22012 I1=RolledBack",
        ]
    );
}

#[test]
fn what_cannot_be_parsed_was_never_taken_apart() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT 1; SELEC 2")]);
    host.server(&[error("ERROR", "42601"), ready(b'I')]);
    // The same state from a statement that ran: nothing more was parsed than before.
    host.client(&[query("SELECT 1; SELECT 2 UNION SELECT 3, 4")]);
    host.server(&[complete("SELECT 1"), error("ERROR", "42601"), ready(b'I')]);
    assert_eq!(
        host.lines(),
        [
            "Simple SELECT 1; SELEC 2 Error@Parse 42601 I1=RolledBack",
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" I2=RolledBack",
            "Simple SELECT 2 UNION SELECT 3, 4 Error@Execute 42601 I2=RolledBack",
        ]
    );
}

#[test]
fn more_answers_than_statements_give_each_the_whole_text() {
    let mut host = Host::logged_in();
    host.client(&[query("SELECT 1; SELECT 2")]);
    host.server(&[
        complete("SELECT 1"),
        complete("SELECT 1"),
        complete("SELECT 1"),
        ready(b'I'),
    ]);
    let queries = host.queries();
    assert_eq!(queries.len(), 3);
    assert!(
        queries
            .iter()
            .all(|query| query.text_is_shared && query.text.as_deref() == Some("SELECT 1; SELECT 2"))
    );
}

#[test]
fn strings_without_a_statement() {
    let mut host = Host::logged_in();
    for sql in ["", ";", " ; -- nothing\n;"] {
        host.client(&[query(sql)]);
        host.server(&[empty_query(), ready(b'I')]);
        let queries = host.queries();
        assert_eq!(queries.len(), 1, "{sql}");
        assert_eq!(queries[0].text.as_deref(), Some(sql));
        assert_eq!(
            (queries[0].outcome, queries[0].phase),
            (Outcome::EmptyQuery, Phase::Complete)
        );
        assert_eq!(queries[0].original_bytes, sql.len() as u64);
    }
    // Empty statements between others are not answered.
    host.client(&[query(";;SELECT 1;;SELECT 2;")]);
    host.server(&[complete("SELECT 1"), complete("SELECT 1"), ready(b'I')]);
    let queries = host.queries();
    assert_eq!(queries[0].text.as_deref(), Some("SELECT 1"));
    assert_eq!(queries[1].text.as_deref(), Some("SELECT 2"));
}

#[test]
fn text_that_is_not_utf_8_is_not_cut() {
    let mut host = Host::logged_in();
    host.client(&[message(b'Q', b"SELECT '\xe9'; SELECT 2\0")]);
    host.server(&[complete("SELECT 1"), complete("SELECT 1"), ready(b'I')]);
    let queries = host.queries();
    assert_eq!(queries.len(), 2);
    assert_eq!(queries[1].text.as_deref(), Some("SELECT '\u{fffd}'; SELECT 2"));
}

#[test]
fn answers_beyond_the_limit_are_told_and_shift_no_text() {
    let mut host = Host::with(Settings {
        limits: Limits {
            results: 2,
            ..Limits::default()
        },
        redaction: Redaction::Clear,
        ..Settings::default()
    });
    host.accept(&tcp(COOKIE, BACKEND));
    host.play(COOKIE, &Conversation::logged_in());
    host.client(&[query(
        "SELECT 1; SELECT 2; SELECT 3; SELECT 4; SELECT 5; SELECT 6",
    )]);
    host.server(&[
        complete("SELECT 1"),
        complete("SELECT 1"),
        complete("SELECT 1"),
        complete("SELECT 1"),
        error("ERROR", "57014"),
        ready(b'I'),
    ]);
    assert_eq!(
        host.lines(),
        [
            "open",
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" I1=Unknown",
            "Simple SELECT 2 Ok@Complete \"SELECT 1\" I1=Unknown",
            "Simple SELECT 5 Error@Execute 57014 I1=Unknown",
            "gap result_cap Backend 0 (2 answers to one query string were counted, not kept)",
        ]
    );
}

#[test]
fn long_text_is_cut_and_says_so() {
    let mut host = Host::with(Settings {
        limits: Limits {
            statement_bytes: 20,
            ..Limits::default()
        },
        redaction: Redaction::Literals,
        ..Settings::default()
    });
    host.accept(&tcp(COOKIE, BACKEND));
    host.play(COOKIE, &Conversation::logged_in());
    let sql = "SELECT a; SELECT 'hunter2 and more'";
    host.client(&[query(sql)]);
    host.server(&[complete("SELECT 1"), complete("SELECT 1"), ready(b'I')]);
    let queries = host.queries();
    assert_eq!(queries.len(), 2);
    for query in queries {
        assert!(query.truncated);
        assert_eq!(query.original_bytes, sql.len() as u64);
        assert!(!query.text.unwrap().contains("hunter"));
    }
}

/// Statements with a literal, a comment and a password, by both protocols.
fn secretive() -> Conversation {
    Conversation::logged_in()
        .client(&[query(
            "SELECT 'topsecret' /* topsecret */; ALTER ROLE ann PASSWORD 'hunter2'",
        )])
        .server(&[complete("SELECT 1"), complete("ALTER ROLE"), ready(b'I')])
        .client(&[
            parse("find", "SELECT id FROM t WHERE name = 'topsecret' AND r = $1"),
            describe('S', "find"),
            sync(),
        ])
        .server(&[
            parsed(),
            parameter_description(),
            row_description(&[("id", 16_402, 1)]),
            ready(b'I'),
        ])
        .client(&[
            bind("here", "find", &["bound topsecret"]),
            execute("here", 1),
            execute("here", 0),
            sync(),
        ])
        .server(&[
            bound(),
            row("topsecret"),
            suspended(),
            row("topsecret"),
            complete("SELECT 2"),
            ready(b'I'),
        ])
        .client(&[parse("", "CREATE ROLE eve PASSWORD 'hunter2'"), sync()])
        .server(&[error("ERROR", "42710"), ready(b'I')])
        .client(&[query("SELEC 'topsecret'")])
        .server(&[error("ERROR", "42601"), ready(b'I')])
}

fn recorded(redaction: Redaction) -> Vec<Event> {
    let mut host = Host::new(redaction);
    host.accept(&tcp(COOKIE, BACKEND));
    host.play(COOKIE, &secretive());
    host.close(COOKIE);
    host.events()
}

#[test]
fn literals_are_recorded_only_if_asked_for_and_passwords_never() {
    let redacted = recorded(Redaction::Literals);
    let clear = recorded(Redaction::Clear);
    assert_eq!(
        redacted.iter().map(line).collect::<Vec<_>>(),
        [
            "open",
            "Simple SELECT ? Ok@Complete \"SELECT 1\" I1",
            "Simple ALTER ROLE ann PASSWORD ? Ok@Complete \"ALTER ROLE\" I1",
            "Execute SELECT id FROM t WHERE name = ? AND r = $1 Suspended@Execute rows=1 I2",
            "Execute SELECT id FROM t WHERE name = ? AND r = $1 Ok@Complete \"SELECT 2\" rows=1 I2",
            "Parse CREATE ROLE eve PASSWORD ? Error@Parse 42710 I3=RolledBack",
            "Simple SELEC ? Error@Parse 42601 I4=RolledBack",
            "close closed statements=6",
        ]
    );
    let all = format!("{redacted:?}");
    assert!(!all.contains("topsecret") && !all.contains("hunter2"), "{all}");
    let all = format!("{clear:?}");
    assert!(!all.contains("hunter2"), "{all}");
    assert_eq!(
        clear.iter().map(line).collect::<Vec<_>>()[1..3],
        [
            "Simple SELECT 'topsecret' /* topsecret */ Ok@Complete \"SELECT 1\" I1",
            "Simple ALTER ROLE ann PASSWORD '***' Ok@Complete \"ALTER ROLE\" I1",
        ]
    );
    // Values go with the text.
    assert!(all.contains("bound topsecret"), "{all}");

    let without_text = |events: Vec<Event>| {
        events
            .into_iter()
            .map(|mut event| {
                if let Body::Query(query) = &mut event.body {
                    query.text = None;
                    query.params = query.params.iter().map(valueless).collect();
                }
                format!("{event:?}")
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(without_text(redacted), without_text(clear));
}

#[test]
fn a_prepared_statement_keeps_its_name_portal_parameters_and_columns() {
    let queries = queries(recorded(Redaction::Literals));
    for query in &queries[2..4] {
        assert_eq!(
            (&*query.statement_name, &*query.portal),
            (&b"find"[..], &b"here"[..])
        );
        assert_eq!(query.param_count, 1);
        assert_eq!(query.columns[0].attnum, 1);
        assert_eq!(query.statement.as_ref().unwrap().command, "SELECT");
    }
    assert!(queries[2].request.end <= queries[3].request.start);
    assert!(queries[2].response_to < queries[3].response_to);
}

#[test]
fn a_text_that_was_prepared_elsewhere_is_not_made_up() {
    let mut host = Host::logged_in();
    host.client(&[bind("", "absent", &[]), execute("", 0), sync()]);
    host.server(&[error("ERROR", "26000"), ready(b'I')]);
    assert_eq!(host.lines(), ["Bind ? Error@Bind 26000 I1=RolledBack"]);
}

#[test]
fn transactions_are_numbered() {
    let mut host = Host::logged_in();
    for (sql, status) in [
        ("SELECT 1", b'I'),
        ("BEGIN", b'T'),
        ("SELECT 2", b'T'),
        ("SELECT 3", b'E'),
        ("ROLLBACK", b'I'),
        ("SELECT 4", b'I'),
    ] {
        host.client(&[query(sql)]);
        host.server(&[complete("DONE"), ready(status)]);
    }
    let numbers: Vec<u64> = host.queries().iter().map(|query| query.transaction).collect();
    assert_eq!(numbers, [1, 2, 2, 2, 2, 3]);
}

#[test]
fn what_lies_between_two_syncs_is_one_transaction() {
    let step = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let done = || [parsed(), bound(), complete("INSERT 0 1")].concat();
    let mut host = Host::logged_in();
    // Both pipelines, and the query behind them, on their way at once.
    host.client(&[
        step("INSERT INTO a SELECT 1"),
        step("INSERT INTO b SELECT 1"),
        sync(),
        step("INSERT INTO c SELECT 1"),
        step("INSERT INTO d SELECT 1"),
        step("INSERT INTO e SELECT 1"),
        sync(),
        query("SELECT 1"),
        step("INSERT INTO f SELECT 1"),
        sync(),
    ]);
    host.server(&[
        done(),
        done(),
        ready(b'I'),
        done(),
        error("ERROR", "23505"),
        ready(b'I'),
        complete("SELECT 1"),
        ready(b'I'),
        done(),
        ready(b'I'),
    ]);
    let numbers: Vec<u64> = host.queries().iter().map(|query| query.transaction).collect();
    assert_eq!(numbers, [1, 1, 2, 2, 3, 4]);
}

fn valueless(param: &Param) -> Param {
    Param {
        kept: Default::default(),
        ..param.clone()
    }
}
