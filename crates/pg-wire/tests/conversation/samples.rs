//! One conversation for each feature, for the tests that replay all of them in every cut.

use super::*;

pub(crate) fn all() -> Vec<(&'static str, Conversation)> {
    vec![
        ("refused encryption, scram, simple queries", simple()),
        ("extended protocol", extended()),
        ("pipeline with an error", pipeline()),
        ("copies", copies()),
        ("function call, notices, fatal", rest()),
        (
            "tls",
            Conversation::new()
                .client(&[ssl_request()])
                .server(&[b"S".to_vec()])
                .client(&[vec![0x16; 300]]),
        ),
        (
            "cancel",
            Conversation::new().client(&[cancel_request(4242, b"KEYS")]),
        ),
        (
            "client leaves",
            Conversation::logged_in()
                .client(&[
                    parse("", "SELECT pg_sleep(9)"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ])
                .client(&[query("SELECT 2")]),
        ),
    ]
}

pub(crate) fn simple() -> Conversation {
    Conversation::new()
        .client(&[gssenc_request()])
        .server(&[b"N".to_vec()])
        .client(&[ssl_request()])
        .server(&[b"N".to_vec()])
        .client(&[startup(&[
            ("options", "-c x=1"),
            ("database", "shop"),
            ("user", "ann"),
        ])])
        .server(&[
            message(b'v', &[0, 0, 0, 0, 0, 0, 0, 0]),
            auth(10, b"SCRAM-SHA-256\0\0"),
        ])
        .client(&[credentials(b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=")])
        .server(&[auth(11, b"r=x,s=y,i=4096")])
        .client(&[credentials(b"c=biws,r=x,p=proof")])
        .server(&[
            auth(12, b"v=sig"),
            auth(0, b""),
            parameter("server_version", "18.0"),
            backend_key(77, b"SECR"),
            ready(b'I'),
        ])
        .client(&[query(
            "SELECT id FROM t; INSERT INTO t VALUES (1); SELECT 1/0; SELECT 3",
        )])
        .server(&[
            row_description(&[("id", 16402, 1)]),
            row("1"),
            row("22"),
            complete("SELECT 2"),
            complete("INSERT 0 1"),
            error("ERROR", "22012"),
            ready(b'I'),
        ])
        .client(&[query("")])
        .server(&[empty_query(), ready(b'I')])
        .client(&[query("BEGIN")])
        .server(&[complete("BEGIN"), ready(b'T')])
        .client(&[terminate()])
}

pub(crate) fn extended() -> Conversation {
    Conversation::logged_in()
        .client(&[
            parse("s1", "SELECT id FROM t WHERE r = $1"),
            describe('S', "s1"),
            sync(),
        ])
        .server(&[
            parsed(),
            parameter_description(),
            row_description(&[("id", 16402, 1)]),
            ready(b'I'),
        ])
        .client(&[bind("", "s1", &["eu"]), execute("", 0), sync()])
        .server(&[bound(), row("1"), row("2"), complete("SELECT 2"), ready(b'I')])
        .client(&[
            parse("", "SELECT 1"),
            bind("c", "", &[]),
            describe('P', "c"),
            execute("c", 1),
            flush(),
        ])
        .server(&[
            parsed(),
            bound(),
            row_description(&[("?column?", 0, 0)]),
            row("1"),
            suspended(),
        ])
        .client(&[execute("c", 0), close('P', "c"), close('S', "s1"), sync()])
        .server(&[notice(), complete("SELECT 0"), closed(), closed(), ready(b'I')])
        .client(&[bind("", "s1", &["eu"]), execute("", 0), sync()])
        .server(&[error("ERROR", "26000"), ready(b'I')])
}

pub(crate) fn pipeline() -> Conversation {
    Conversation::logged_in()
        .client(&[
            parse("", "INSERT INTO a"),
            bind("", "", &["x"]),
            execute("", 0),
            parse("", "INSERT INTO missing"),
            bind("", "", &["y"]),
            execute("", 0),
            parse("", "INSERT INTO skipped"),
            bind("", "", &["z"]),
            execute("", 0),
            sync(),
            parse("", "INSERT INTO b"),
            bind("", "", &["x"]),
            execute("", 0),
            sync(),
        ])
        .server(&[
            parsed(),
            bound(),
            complete("INSERT 0 1"),
            error("ERROR", "42P01"),
            ready(b'I'),
            parsed(),
            bound(),
            complete("INSERT 0 1"),
            ready(b'I'),
        ])
}

pub(crate) fn copies() -> Conversation {
    Conversation::logged_in()
        .client(&[query("COPY t FROM STDIN; COPY u FROM STDIN")])
        .server(&[copy_in()])
        .client(&[copy_data("1\n"), copy_data("22\n"), copy_done()])
        .server(&[complete("COPY 2"), copy_in()])
        .client(&[copy_data("x\n"), copy_fail()])
        .server(&[error("ERROR", "57014"), ready(b'I')])
        .client(&[query("COPY t TO STDOUT")])
        .server(&[
            copy_out(),
            copy_data("1\n"),
            copy_data("22\n"),
            copy_done(),
            complete("COPY 2"),
            ready(b'I'),
        ])
        .client(&[
            parse("", "COPY t FROM STDIN"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ])
        .server(&[parsed(), bound(), copy_in()])
        .client(&[copy_data("1\n"), copy_done(), sync()])
        .server(&[complete("COPY 1"), ready(b'I')])
        .client(&[query("START_REPLICATION 0/0")])
        .server(&[copy_both(), copy_data("wal")])
        .client(&[copy_data("status")])
        .server(&[copy_data("wal2")])
        .client(&[copy_done()])
        .server(&[copy_done(), complete("COPY 0"), ready(b'I')])
}

pub(crate) fn rest() -> Conversation {
    Conversation::logged_in()
        .client(&[function_call(1299)])
        .server(&[function_result(), ready(b'I')])
        .server(&[notification(), parameter("TimeZone", "CET")])
        .client(&[query("SELECT 1")])
        .server(&[
            notice(),
            row_description(&[("a", 0, 0)]),
            notification(),
            row("1"),
            parameter("x", "y"),
            complete("SELECT 1"),
            notice(),
            ready(b'I'),
        ])
        .client(&[query("SELECT pg_sleep(100)")])
        .server(&[row_description(&[("pg_sleep", 0, 0)]), error("FATAL", "57P01")])
}
