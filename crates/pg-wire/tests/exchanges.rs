//! Each feature of the protocol as a conversation built by hand, and what must come out of it.

mod conversation;

use conversation::*;
use pg_wire::{Direction, EncryptionKind, ExchangeKind, Limits, Outcome, Output, Phase};

#[test]
fn simple_queries_have_a_result_for_each_statement_that_answered() {
    let exchanges = samples::simple().exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Simple SELECT id FROM t; INSERT INTO t VALUES (1); SELECT 1/0; SELECT 3 \
             [Ok@Complete \"SELECT 2\" rows=2, Ok@Complete \"INSERT 0 1\", Error@Execute ERROR:22012] I",
            "Simple  [EmptyQuery@Complete] I",
            "Simple BEGIN [Ok@Complete \"BEGIN\"] T",
        ]
    );
    let first = &exchanges[0];
    assert_eq!(first.request.end - first.request.start, 5 + first.sql_bytes + 1);
    let id = &first.results[0].columns[0];
    assert_eq!(
        (id.name.as_ref(), id.table_oid, id.attnum),
        (&b"id"[..], 16402, 1)
    );
    assert_eq!(first.results[0].bytes_in, 5 + first.sql_bytes + 1);
    assert_eq!(first.results[1].bytes_in, 0);
    // RowDescription of one two-letter column, rows of 1 and 2 bytes, the tag.
    assert_eq!(
        first.results[0].bytes_out,
        (7 + 21) + (11 + 1) + (11 + 2) + (5 + 9)
    );
    assert_eq!(exchanges[1].response_to - first.response_to, 5 + 6);
}

#[test]
fn a_login_is_told_step_by_step() {
    let mut outputs = samples::simple().play();
    outputs.retain(|output| !matches!(output, Output::Exchange(_)));
    let pairs = [("options", "-c x=1"), ("database", "shop"), ("user", "ann")];
    assert_eq!(
        outputs,
        [
            Output::Encryption {
                at: AT,
                kind: EncryptionKind::Gss,
                accepted: false
            },
            Output::Encryption {
                at: AT,
                kind: EncryptionKind::Tls,
                accepted: false
            },
            Output::Startup {
                at: AT,
                version: (3, 0),
                parameters: pairs.map(|(name, value)| (name.into(), value.into())).to_vec(),
            },
            Output::AuthRequested {
                at: AT,
                method: "scram-sha-256"
            },
            Output::AuthOk { at: AT },
            Output::Parameter {
                name: "server_version".into(),
                value: "18.0".into()
            },
            Output::BackendKey { pid: 77 },
            Output::Terminate { at: AT },
        ]
    );
}

#[test]
fn accepted_encryption_makes_the_session_opaque() {
    for (request, answer, kind) in [
        (ssl_request(), b"S", EncryptionKind::Tls),
        (gssenc_request(), b"G", EncryptionKind::Gss),
    ] {
        let mut player = Player::new(pg_wire::Session::new(Limits::default()));
        player.bytes(Direction::Frontend, &request);
        player.bytes(Direction::Backend, &[answer.as_slice(), b"xyz"].concat());
        player.bytes(Direction::Frontend, &query("SELECT 1"));
        player.gap(Direction::Backend, 100, false);
        assert!(player.session.is_opaque());
        assert_eq!(player.session.swallowed_bytes(Direction::Frontend), 14);
        assert_eq!(player.session.swallowed_bytes(Direction::Backend), 3);
        assert_eq!(
            player.close(),
            [Output::Encryption {
                at: AT,
                kind,
                accepted: true
            }]
        );
    }
    let direct = Conversation::new()
        .client(&[vec![0x16, 3, 1, 2, 0, 1, 0]])
        .server(&[vec![0x16, 3, 3]]);
    assert_eq!(
        direct.play(),
        [Output::Encryption {
            at: AT,
            kind: EncryptionKind::Tls,
            accepted: true
        }]
    );
}

#[test]
fn a_server_without_encryption_may_answer_with_an_error() {
    let outputs = Conversation::new()
        .client(&[ssl_request()])
        .server(&[error("FATAL", "0A000")])
        .play();
    assert!(
        matches!(&outputs[0], Output::Encryption { accepted: false, .. }),
        "{outputs:?}"
    );
    assert!(
        matches!(&outputs[1], Output::AuthFailed { error, .. } if error.sqlstate == "0A000"),
        "{outputs:?}"
    );
}

#[test]
fn refusals_before_and_after_authentication_are_told() {
    let before = Conversation::new()
        .client(&[startup(&[("user", "ann")])])
        .server(&[auth(5, b"salt")])
        .client(&[credentials(b"md5abc\0"), query("SELECT never")])
        .server(&[error("FATAL", "28P01")]);
    let outputs = before.play();
    assert_eq!(
        outputs[1],
        Output::AuthRequested {
            at: AT,
            method: "md5"
        }
    );
    assert!(matches!(&outputs[2], Output::AuthFailed { error, .. } if error.sqlstate == "28P01"));
    assert_eq!(outputs.len(), 3, "{outputs:?}");
    let after = Conversation::new()
        .client(&[startup(&[("user", "ann")])])
        .server(&[auth(0, b""), error("FATAL", "3D000")]);
    let outputs = after.play();
    assert!(
        matches!(&outputs[2], Output::AuthFailed { error, .. } if error.severity == "FATAL"),
        "{outputs:?}"
    );
}

#[test]
fn a_cancel_request_gives_the_pid_and_not_the_key() {
    for key in [&b"KEYS"[..], &[b'K'; 200]] {
        let outputs = Conversation::new().client(&[cancel_request(4242, key)]).play();
        assert_eq!(outputs, [Output::Cancel { at: AT, pid: 4242 }]);
    }
}

#[test]
fn prepared_statements_and_portals_keep_their_text_and_columns() {
    let exchanges = samples::extended().exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Execute SELECT id FROM t WHERE r = $1 [Ok@Complete \"SELECT 2\" rows=2] I",
            "Execute SELECT 1 [Suspended@Execute rows=1] I",
            "Execute SELECT 1 [Ok@Complete \"SELECT 0\"] I",
            "Bind ? [Error@Bind ERROR:26000] I",
        ]
    );
    let [first, second, third, fourth] = exchanges.as_slice() else {
        unreachable!()
    };
    assert_eq!(
        (first.statement_name.as_ref(), first.param_count),
        (&b"s1"[..], 1)
    );
    assert_eq!(first.results[0].columns[0].table_oid, 16402);
    assert_eq!(second.portal_name.as_ref(), b"c");
    assert_eq!(second.results[0].columns[0].name.as_ref(), b"?column?");
    assert_eq!(
        (second.continues, third.continues),
        (None, Some(second.request.start))
    );
    // Requests divide the stream: no range overlaps the next.
    assert!(
        exchanges
            .windows(2)
            .all(|pair| pair[0].request.end <= pair[1].request.start)
    );
    assert!(!fourth.preparsed, "it was closed, which is known");
}

#[test]
fn the_unnamed_statement_is_overwritten_and_dropped() {
    let exchanges = Conversation::logged_in()
        .client(&[
            parse("", "SELECT 1"),
            bind("p", "", &[]),
            parse("", "SELECT 2"),
            bind("", "", &[]),
            execute("", 0),
            execute("p", 0),
            sync(),
        ])
        .server(&[
            parsed(),
            bound(),
            parsed(),
            bound(),
            complete("SELECT 1"),
            complete("SELECT 1"),
            ready(b'T'),
        ])
        .client(&[query("SELECT 3")])
        .server(&[complete("SELECT 1"), ready(b'T')])
        .client(&[bind("", "", &[]), execute("", 0), sync()])
        .server(&[error("ERROR", "26000"), ready(b'E')])
        .exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Execute SELECT 2 [Ok@Complete \"SELECT 1\"] T",
            "Execute SELECT 1 [Ok@Complete \"SELECT 1\"] T",
            "Simple SELECT 3 [Ok@Complete \"SELECT 1\"] T",
            "Bind ? [Error@Bind ERROR:26000] E",
        ]
    );
}

#[test]
fn an_error_skips_to_its_sync_and_no_further() {
    let exchanges = samples::pipeline().exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Execute INSERT INTO a [Ok@Complete \"INSERT 0 1\"] I",
            "Parse INSERT INTO missing [Error@Parse ERROR:42P01] I",
            "Execute INSERT INTO b [Ok@Complete \"INSERT 0 1\"] I",
        ]
    );
}

#[test]
fn requests_that_come_after_the_error_and_before_sync_are_skipped_too() {
    let exchanges = Conversation::logged_in()
        .client(&[parse("", "SELECT x"), flush()])
        .server(&[error("ERROR", "42703")])
        .client(&[bind("", "", &[]), execute("", 0), query("SELECT skipped")])
        .client(&[parse("", "SELECT skipped"), sync(), query("SELECT 1")])
        .server(&[ready(b'I'), complete("SELECT 1"), ready(b'I')])
        .exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Parse SELECT x [Error@Parse ERROR:42703] I",
            "Simple SELECT 1 [Ok@Complete \"SELECT 1\"] I"
        ]
    );
}

#[test]
fn failures_of_bind_execute_and_describe_say_how_far_they_got() {
    let step = |messages: &[Vec<u8>], answers: &[Vec<u8>]| {
        let exchanges = Conversation::logged_in()
            .client(messages)
            .server(answers)
            .exchanges();
        assert_eq!(exchanges.len(), 1);
        line(&exchanges[0])
    };
    let all = [
        parse("", "SELECT 1/$1"),
        bind("", "", &["0"]),
        describe('P', ""),
        execute("", 0),
        sync(),
    ];
    let failed = error("ERROR", "22012");
    assert_eq!(
        step(&all, &[parsed(), failed.clone(), ready(b'I')]),
        "Bind SELECT 1/$1 [Error@Bind ERROR:22012] I"
    );
    assert_eq!(
        step(&all, &[parsed(), bound(), failed.clone(), ready(b'I')]),
        "Describe SELECT 1/$1 [Error@Bind ERROR:22012] I"
    );
    assert_eq!(
        step(
            &all,
            &[parsed(), bound(), no_data(), row("1"), failed, ready(b'I')]
        ),
        "Execute SELECT 1/$1 [Error@Execute rows=1 ERROR:22012] I"
    );
}

#[test]
fn a_commit_refused_at_sync_is_an_exchange_of_its_own() {
    let exchanges = Conversation::logged_in()
        .client(&[parse("", "INSERT"), bind("", "", &[]), execute("", 0), sync()])
        .server(&[
            parsed(),
            bound(),
            complete("INSERT 0 1"),
            error("ERROR", "23503"),
            ready(b'I'),
        ])
        .exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Execute INSERT [Ok@Complete \"INSERT 0 1\"] I",
            "Sync ? [Error@Execute ERROR:23503] I"
        ]
    );
}

#[test]
fn copies_are_counted_in_both_directions() {
    let exchanges = samples::copies().exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Simple COPY t FROM STDIN; COPY u FROM STDIN [Ok@Complete \"COPY 2\" copied=5, \
             Error@Execute copied=2 ERROR:57014] I",
            "Simple COPY t TO STDOUT [Ok@Complete \"COPY 2\" copied=5] I",
            "Execute COPY t FROM STDIN [Ok@Complete \"COPY 1\" copied=2] I",
            "Simple START_REPLICATION 0/0 [Suspended@Execute] -",
            "Simple START_REPLICATION 0/0 [Ok@Complete \"COPY 0\" copied=13] I",
        ]
    );
    // Request, and two CopyData.
    assert_eq!(exchanges[0].results[0].bytes_in, (5 + 37) + (5 + 2) + (5 + 3));
}

#[test]
fn a_copy_sent_without_waiting_is_matched_all_the_same() {
    let exchanges = Conversation::logged_in()
        .client(&[
            parse("", "COPY t FROM STDIN"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
            copy_data("1\n"),
            copy_done(),
            sync(),
            query("SELECT 1"),
        ])
        .server(&[
            parsed(),
            bound(),
            copy_in(),
            complete("COPY 1"),
            ready(b'I'),
            complete("SELECT 1"),
            ready(b'I'),
        ])
        .exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Execute COPY t FROM STDIN [Ok@Complete \"COPY 1\" copied=2] I",
            "Simple SELECT 1 [Ok@Complete \"SELECT 1\"] I"
        ]
    );
}

#[test]
fn data_behind_a_failed_copy_is_ignored_as_the_server_does() {
    let exchanges = Conversation::logged_in()
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy_in()])
        .client(&[copy_data("bad\n")])
        .server(&[error("ERROR", "22P04"), ready(b'I')])
        .client(&[copy_data("more\n"), copy_done(), query("COPY t FROM STDIN")])
        .server(&[copy_in()])
        .client(&[copy_data("ok\n"), copy_done()])
        .server(&[complete("COPY 1"), ready(b'I')])
        .exchanges();
    assert_eq!(
        lines(&exchanges),
        [
            "Simple COPY t FROM STDIN [Error@Execute copied=4 ERROR:22P04] I",
            "Simple COPY t FROM STDIN [Ok@Complete \"COPY 1\" copied=3] I",
        ]
    );
}

#[test]
fn function_calls_asynchronous_messages_and_a_fatal_error() {
    let outputs = samples::rest().play();
    assert!(outputs.contains(&Output::Parameter {
        name: "TimeZone".into(),
        value: "CET".into()
    }));
    let exchanges = exchanges(outputs);
    assert_eq!(
        lines(&exchanges),
        [
            "FunctionCall ? [Ok@Complete] I",
            "Simple SELECT 1 [Ok@Complete \"SELECT 1\" rows=1] I",
            "Simple SELECT pg_sleep(100) [Error@Execute FATAL:57P01] -",
        ]
    );
    assert_eq!(exchanges[0].function_oid, Some(1299));
}

#[test]
fn an_error_that_nobody_asked_for_belongs_to_the_session() {
    let outputs = Conversation::logged_in()
        .server(&[error("FATAL", "57P05")])
        .play();
    assert!(matches!(outputs.last(), Some(Output::SessionError { error, .. }) if error.sqlstate == "57P05"));
}

#[test]
fn what_is_under_way_at_the_end_is_unanswered() {
    let outputs = Conversation::logged_in()
        .client(&[
            parse("", "SELECT 1"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
            query("SELECT 2"),
            parse("x", "SELECT 3"),
            sync(),
        ])
        .server(&[parsed()])
        .play();
    let exchanges = exchanges(outputs);
    assert_eq!(
        lines(&exchanges),
        [
            "Execute SELECT 1 [Unanswered@Bind] -",
            "Simple SELECT 2 [Unanswered@Execute] -",
            "Parse SELECT 3 [Unanswered@Parse] -",
        ]
    );
    assert_eq!(exchanges[1].response_to, 0);
}

#[test]
fn long_statements_keep_their_head_and_long_names_hide_nothing() {
    let limits = Limits {
        statement_bytes: 10,
        ..Limits::default()
    };
    let long = "n".repeat(5_000);
    let conversation = Conversation::logged_in()
        .client(&[query("SELECT 'a long statement'")])
        .server(&[complete("SELECT 1"), ready(b'I')])
        .client(&[
            parse(&long, "SELECT 2"),
            bind(&long, &long, &["v"]),
            execute(&long, 0),
            sync(),
        ])
        .server(&[parsed(), bound(), complete("SELECT 1"), ready(b'I')]);
    let exchanges = exchanges(conversation.play_with(limits));
    let first = &exchanges[0];
    assert_eq!(
        (first.sql.as_deref(), first.sql_bytes, first.truncated),
        (Some(&b"SELECT 'a "[..]), 25, true)
    );
    let second = &exchanges[1];
    assert_eq!(
        (second.sql.as_deref(), second.truncated, second.param_count),
        (Some(&b"SELECT 2"[..]), false, 1)
    );
    assert_eq!(second.statement_name.len(), 63);
}

#[test]
fn bounds_are_told_where_they_cut() {
    let limits = Limits {
        results: 2,
        prepared: 1,
        ..Limits::default()
    };
    let conversation = Conversation::logged_in()
        .client(&[query("a;b;c;d")])
        .server(&[
            complete("A"),
            complete("B"),
            complete("C"),
            error("ERROR", "XX000"),
            ready(b'I'),
        ])
        .client(&[parse("one", "SELECT 1"), parse("two", "SELECT 2"), sync()])
        .server(&[parsed(), parsed(), ready(b'I')])
        .client(&[bind("", "one", &[]), execute("", 0), sync()])
        .server(&[bound(), complete("SELECT 1"), ready(b'I')]);
    let exchanges = exchanges(conversation.play_with(limits));
    assert_eq!((exchanges[0].results.len(), exchanges[0].results_omitted), (3, 1));
    assert_eq!(exchanges[0].results[2].outcome, Outcome::Error);
    let forgotten = &exchanges[1];
    assert_eq!(
        (&forgotten.sql, forgotten.truncated, forgotten.preparsed),
        (&None, true, false)
    );
}

#[test]
fn more_requests_than_can_be_remembered_are_lost_and_said_to_be() {
    let limits = Limits {
        pipeline: 2,
        ..Limits::default()
    };
    let conversation = Conversation::logged_in().client(&[
        query("SELECT 1"),
        query("SELECT 2"),
        query("SELECT 3"),
        query("SELECT 4"),
    ]);
    let outputs = conversation.play_with(limits);
    let lost = Output::Lost {
        since: AT,
        at: AT,
        direction: Direction::Frontend,
        missing: Some(0),
        skipped: 28,
        over: true,
    };
    assert_eq!(outputs.last(), Some(&lost));
    let exchanges = exchanges(outputs);
    assert_eq!(exchanges.len(), 2);
    assert!(
        exchanges
            .iter()
            .all(|exchange| exchange.results[0].outcome == Outcome::Unknown)
    );
    assert_eq!(exchanges[0].results[0].phase, Phase::Execute);
}

#[test]
fn a_client_that_never_syncs_costs_bounded_memory() {
    let limits = Limits {
        pipeline: 10,
        ..Limits::default()
    };
    let mut player = Player::new(pg_wire::Session::new(limits));
    player.turns(&Conversation::logged_in().turns);
    for _ in 0..25 {
        player.bytes(
            Direction::Frontend,
            &[parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), flush()].concat(),
        );
        player.bytes(
            Direction::Backend,
            &[parsed(), bound(), complete("SELECT 1")].concat(),
        );
    }
    let early = exchanges(std::mem::take(&mut player.outputs));
    assert_eq!(early.len(), 20);
    assert!(early.iter().all(|exchange| exchange.transaction_status.is_none()));
    player.bytes(Direction::Frontend, &sync());
    player.bytes(Direction::Backend, &ready(b'I'));
    let rest = exchanges(player.close());
    assert_eq!(rest.len(), 5);
    assert!(
        rest.iter()
            .all(|exchange| exchange.transaction_status == Some(b'I'))
    );
    assert!(rest.iter().all(|exchange| exchange.kind == ExchangeKind::Execute));
}

#[test]
fn secrets_are_nowhere_to_be_seen() {
    let secret = "hunter2-correct-horse";
    for method in [auth(3, b""), auth(5, b"salt"), auth(10, b"SCRAM-SHA-256\0\0")] {
        let turns = Conversation::new()
            .client(&[startup(&[("user", "ann")])])
            .server(&[method])
            .client(&[credentials(format!("{secret}\0").as_bytes())])
            .server(&[auth(11, secret.as_bytes())])
            .client(&[credentials(secret.as_bytes())])
            .server(&[
                auth(12, secret.as_bytes()),
                auth(0, b""),
                backend_key(1, secret.as_bytes()),
                ready(b'I'),
            ])
            .client(&[
                parse("", "SELECT $1"),
                bind("", "", &[secret]),
                execute("", 0),
                sync(),
            ])
            .server(&[
                parsed(),
                bound(),
                row(secret),
                message(
                    b'E',
                    format!("VERROR\0C22000\0Minvalid input: {secret}\0\0").as_bytes(),
                ),
                ready(b'I'),
            ])
            .turns;
        let mut player = Player::new(pg_wire::Session::new(Limits::default()));
        for (direction, bytes) in &turns {
            // Also in the middle of each message.
            for byte in bytes {
                player.bytes(*direction, &[*byte]);
                let shown = format!("{:?}", player.session);
                assert!(!shown.contains(secret) && !shown.contains("hunter2"), "{shown}");
            }
        }
        let outputs = player.close();
        let shown = format!("{outputs:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(
            lines(&exchanges(outputs)),
            ["Execute SELECT $1 [Error@Execute rows=1 ERROR:22000] I"]
        );
    }
}
