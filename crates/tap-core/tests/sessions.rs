//! Sessions: who opened them, how they were let in or refused, how they ended, and what is known of them.

mod host;

use std::net::{IpAddr, Ipv4Addr};

use host::{line, wire::*, *};
use tap_core::{Body, Direction, EncryptionKind, Endpoint, Redaction, Transport};

#[test]
fn a_session_is_opened_used_and_closed_with_all_that_is_known_of_it() {
    let mut host = Host::connected();
    host.client(&[startup(&[
        ("user", "ann"),
        ("database", "shop"),
        ("application_name", "asked for"),
    ])]);
    host.server(&[auth(10, b"SCRAM-SHA-256\0\0")]);
    host.client(&[credentials(b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=")]);
    host.server(&[auth(11, b"r=x,s=y,i=4096")]);
    host.client(&[credentials(b"c=biws,r=x,p=proof")]);
    let accepted = host.at + 10;
    host.server(&[auth(12, b"v=sig"), auth(0, b"")]);
    assert!(host.lines().is_empty(), "the server may refuse it still");
    host.server(&[
        parameter("application_name", "got"),
        parameter("server_version", "17.2"),
        backend_key(7, b"SECR"),
        ready(b'I'),
    ]);
    host.client(&[query("SELECT 1")]);
    let asked = host.at;
    host.server(&[
        row_description(&[("id", 16_402, 1)]),
        row("1"),
        complete("SELECT 1"),
        ready(b'I'),
    ]);
    // The server confirms `SET application_name` before the command completes.
    host.client(&[query("SET application_name = 'later'")]);
    host.server(&[
        parameter("application_name", "later"),
        complete("SET"),
        ready(b'I'),
    ]);
    host.client(&[terminate()]);
    let facts = host.tap.session(COOKIE).unwrap().clone();
    assert_eq!(facts.application_name.as_deref(), Some("later"));
    host.close(COOKIE);
    assert!(host.tap.session(COOKIE).is_none());

    let events = host.events();
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        [
            "open",
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" rows=1 I1",
            "Simple SET application_name = 'later' Ok@Complete \"SET\" I2",
            "close terminate statements=2",
        ]
    );
    assert_eq!(events[0].times.start, accepted);
    let opened = events[0].session.as_ref().clone();
    assert_eq!(opened.login_role.as_deref(), Some("ann"));
    assert_eq!(opened.database.as_deref(), Some("shop"));
    assert_eq!(opened.application_name.as_deref(), Some("got"));
    assert_eq!(opened.server_version.as_deref(), Some("17.2"));
    assert_eq!(opened.auth_method, Some("scram-sha-256"));
    assert_eq!(opened.encryption, None);
    assert_eq!(opened.transport, Transport::Tcp);
    assert_eq!(
        opened.client,
        Endpoint::Inet(Ipv4Addr::new(10, 0, 0, 5).into(), 51234)
    );
    assert_eq!(
        opened.server,
        Endpoint::Inet(Ipv4Addr::new(10, 0, 0, 9).into(), 5432)
    );
    // The host's own number, not the one that the server tells.
    assert_eq!((opened.backend_pid, opened.cookie), (BACKEND, COOKIE));
    assert!(!opened.opened_before_attach);

    let times = events[1].times;
    assert_eq!(times.start, asked);
    assert_eq!((times.first_response, times.end), (Some(asked + 10), asked + 10));
    assert_eq!(events[1].session.application_name.as_deref(), Some("got"));
    assert_eq!(events[2].session.application_name.as_deref(), Some("later"));

    let Body::SessionClose {
        bytes_in, bytes_out, ..
    } = events[3].body
    else {
        panic!("{:?}", events[3]);
    };
    let Body::Query(first) = &events[1].body else {
        panic!("{:?}", events[1]);
    };
    assert_eq!(first.bytes_in, query("SELECT 1").len() as u64);
    assert!(bytes_in > first.bytes_in && bytes_out > first.response_to);
}

#[test]
fn a_server_that_asks_for_nothing_and_a_client_that_names_no_database() {
    let mut host = Host::connected();
    host.client(&[startup(&[("user", "ann")])]);
    host.server(&[auth(0, b""), backend_key(7, b"SECR"), ready(b'I')]);
    let events = host.events();
    assert_eq!(line(&events[0]), "open");
    assert_eq!(events[0].session.auth_method, Some("none"));
    assert_eq!(events[0].session.database.as_deref(), Some("ann"));
    assert_eq!(events[0].session.application_name, None);
}

#[test]
fn addresses_and_names_of_sockets() {
    let mapped: IpAddr = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into();
    let real: IpAddr = "2001:db8::1".parse().unwrap();
    for (fact, transport, client, server) in [
        (
            inet(COOKIE, BACKEND, mapped, mapped),
            Transport::Tcp,
            Endpoint::Inet(Ipv4Addr::new(192, 0, 2, 1).into(), 51234),
            Endpoint::Inet(Ipv4Addr::new(192, 0, 2, 1).into(), 5432),
        ),
        (
            inet(COOKIE, BACKEND, real, real),
            Transport::Tcp,
            Endpoint::Inet(real, 51234),
            Endpoint::Inet(real, 5432),
        ),
        (
            unix(COOKIE, BACKEND, b"/run/postgresql/.s.PGSQL.5432\0"),
            Transport::Unix,
            Endpoint::Unix(String::new()),
            Endpoint::Unix("/run/postgresql/.s.PGSQL.5432".to_owned()),
        ),
        (
            unix(COOKIE, BACKEND, b"\0shop/.s.PGSQL.5432"),
            Transport::Unix,
            Endpoint::Unix(String::new()),
            Endpoint::Unix("@shop/.s.PGSQL.5432".to_owned()),
        ),
    ] {
        let mut host = Host::new(Redaction::Literals);
        host.accept(&fact);
        let facts = host.tap.session(COOKIE).unwrap();
        assert_eq!(
            (facts.transport, &facts.client, &facts.server),
            (transport, &client, &server)
        );
    }
}

#[test]
fn a_refused_client_opens_no_session() {
    let mut host = Host::connected();
    host.client(&[startup(&[("user", "eve"), ("database", "shop")])]);
    host.server(&[auth(5, b"salt")]);
    host.client(&[credentials(b"md5aaaa\0")]);
    host.server(&[error("FATAL", "28P01")]);
    host.close(COOKIE);
    let events = host.events();
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        ["auth_failure FATAL 28P01"]
    );
    assert_eq!(events[0].session.login_role.as_deref(), Some("eve"));
    assert_eq!(events[0].session.auth_method, Some("md5"));
    assert_eq!(host.tap.open_connections(), 0);
}

#[test]
fn a_client_refused_after_its_password_was_accepted_opens_no_session() {
    let mut host = Host::connected();
    host.client(&[startup(&[("user", "ann"), ("database", "absent")])]);
    host.server(&[auth(3, b"")]);
    host.client(&[credentials(b"hunter2\0")]);
    host.server(&[auth(0, b"")]);
    host.server(&[error("FATAL", "3D000")]);
    host.close(COOKIE);
    assert_eq!(host.lines(), ["auth_failure FATAL 3D000"]);
}

#[test]
fn a_client_that_leaves_before_it_is_let_in_leaves_no_trace() {
    let mut host = Host::connected();
    // So does psql, to ask for the password.
    host.client(&[startup(&[("user", "ann")])]);
    host.server(&[auth(10, b"SCRAM-SHA-256\0\0")]);
    host.close(COOKIE);
    assert!(host.lines().is_empty());
    assert_eq!(host.tap.take_closed(), [COOKIE]);
    assert!(host.tap.take_closed().is_empty());
}

#[test]
fn encrypted_sessions_are_told_and_never_read() {
    for (request, answer, kind) in [
        (ssl_request(), b"S", EncryptionKind::Tls),
        (gssenc_request(), b"G", EncryptionKind::Gss),
    ] {
        let mut host = Host::connected();
        host.client(&[request]);
        host.server(&[answer.to_vec()]);
        // Not what comes behind a handshake, but what would give events if it were read.
        host.play(COOKIE, &Conversation::logged_in());
        host.client(&[query("SELECT 1")]);
        host.server(&[complete("SELECT 1"), ready(b'I')]);
        host.close(COOKIE);
        let events = host.events();
        assert_eq!(
            events.iter().map(line).collect::<Vec<_>>(),
            [
                format!("opaque {kind:?} NotProbed"),
                "close closed statements=0".to_owned()
            ]
        );
        assert_eq!(events[0].session.encryption, Some(kind));
        assert_eq!(events[0].session.login_role, None);
    }
}

#[test]
fn refused_encryption_is_no_event() {
    let mut host = Host::connected();
    host.client(&[ssl_request()]);
    host.server(&[b"N".to_vec()]);
    host.play(COOKIE, &Conversation::logged_in());
    let events = host.events();
    assert_eq!(events.iter().map(line).collect::<Vec<_>>(), ["open"]);
    assert_eq!(events[0].session.encryption, None);
}

#[test]
fn a_cancel_request_names_its_victim() {
    let mut host = Host::connected();
    host.client(&[cancel_request(4242, b"KEYS")]);
    host.close(COOKIE);
    assert_eq!(host.lines(), ["cancel 4242"]);
}

#[test]
fn an_error_while_idle_belongs_to_the_session() {
    let mut host = Host::logged_in();
    host.server(&[error("FATAL", "57P05")]);
    host.close(COOKIE);
    assert_eq!(
        host.lines(),
        ["session_error FATAL 57P05", "close closed statements=0"]
    );
}

#[test]
fn a_backend_that_ends_closes_its_own_sessions_and_no_others() {
    let mut host = Host::new(Redaction::Clear);
    for (cookie, backend) in [(1, 100), (2, 200), (3, 100)] {
        host.accept(&unix(cookie, backend, b"/tmp/.s.PGSQL.5432\0"));
        host.play(cookie, &Conversation::logged_in());
    }
    host.segment(3, Direction::Frontend, &query("SELECT pg_sleep(9)"));
    assert_eq!(host.lines(), ["open", "open", "open"]);
    host.exit(100);
    let events = host.events();
    assert_eq!(
        events
            .iter()
            .map(|event| (event.session.cookie, line(event)))
            .collect::<Vec<_>>(),
        [
            (1, "close backend-exit statements=0".to_owned()),
            (3, "Simple SELECT pg_sleep(9) Unanswered@Execute -1".to_owned()),
            (3, "close backend-exit statements=1".to_owned()),
        ]
    );
    assert_eq!(host.tap.take_closed(), [1, 3]);
    assert_eq!(host.tap.open_connections(), 1);
    host.exit(100);
    host.exit(300);
    assert!(host.lines().is_empty());
    host.close(2);
    assert_eq!(host.lines(), ["close closed statements=0"]);
    host.exit(200);
    assert!(host.lines().is_empty());
    assert_eq!(host.tap.open_connections(), 0);
}

#[test]
fn a_connection_told_twice_stays_the_same() {
    let mut host = Host::logged_in();
    host.accept(&tcp(COOKIE, BACKEND));
    host.accept(&tcp(COOKIE, BACKEND + 1));
    host.exit(BACKEND + 1);
    host.client(&[query("SELECT 1")]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
    host.exit(BACKEND);
    assert_eq!(
        host.lines(),
        [
            "Simple SELECT 1 Ok@Complete \"SELECT 1\" I1",
            "close backend-exit statements=1"
        ]
    );
}

#[test]
fn segments_of_unknown_connections_are_counted() {
    let mut host = Host::logged_in();
    host.segment(99, Direction::Frontend, &query("SELECT 1"));
    host.segment(99, Direction::Backend, &ready(b'I'));
    host.close(99);
    assert_eq!(host.tap.orphans(), 2);
    assert!(host.lines().is_empty());
    assert_eq!(host.tap.open_connections(), 1);
}
