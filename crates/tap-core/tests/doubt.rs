//! Calls that the kernel skipped: connections that it does not count are read again from a sure boundary on.

mod host;

use host::{wire::*, *};

fn ask(host: &mut Host, sql: &str) {
    host.client(&[query(sql)]);
    host.server(&[complete("SELECT 1"), ready(b'I')]);
}

#[test]
fn a_connection_that_nobody_counts_is_read_from_the_next_boundary_on() {
    for (fact, is_counted) in [
        (tcp(COOKIE, BACKEND), true),
        (unix(COOKIE, BACKEND, b"/run/.s.PGSQL.5432"), false),
    ] {
        let mut host = Host::new(tap_core::Redaction::Clear);
        host.accept(&fact);
        host.play(COOKIE, &Conversation::logged_in());
        ask(&mut host, "SELECT 1");
        host.events();
        let now = host.at;
        host.tap.handle_doubt(now + 1, now + 2);
        host.exit(0);
        assert!(host.lines().is_empty(), "it was silent then");
        host.tap.handle_doubt(now - 5, now + 2);
        host.exit(0);
        let expected: &[&str] = if is_counted {
            &[]
        } else {
            &[
                "gap program_missed Frontend ? (the",
                "gap program_missed Backend ? (the",
            ]
        };
        let told = host.lines();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        assert!(
            told.iter()
                .zip(expected)
                .all(|(told, expected)| told.starts_with(expected)),
            "{told:?}"
        );
        ask(&mut host, "SELECT 2");
        ask(&mut host, "SELECT 3");
        let told = host.lines().iter().any(|told| told.contains("SELECT 2"));
        assert_eq!(told, is_counted, "an answer of before may come yet");
    }
}
