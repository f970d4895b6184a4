//! Which transaction a statement belongs to, and how it ended. Also what else several requests of a session share:
//! a replication stream, and a cancel request with its victim.

mod host;

use host::{line, wire::*, *};
use tap_core::{Body, Direction, Outcome};

fn told(requests: &[Vec<u8>], answers: &[Vec<u8>]) -> Vec<String> {
    let mut host = Host::logged_in();
    host.client(requests);
    host.server(answers);
    short(host)
}

/// Text, transaction and how it ended of each query; other events as they are.
fn short(mut host: Host) -> Vec<String> {
    host.close(COOKIE);
    host.events()
        .iter()
        .filter_map(|event| match &event.body {
            Body::Query(query) => {
                let how = query
                    .transaction_final
                    .map_or("open".to_owned(), |how| format!("{how:?}"));
                Some(format!(
                    "{} {} {how}",
                    query.text.as_deref().unwrap_or("?"),
                    query.transaction
                ))
            }
            Body::Transaction(_) => Some(line(event)),
            _ => None,
        })
        .collect()
}

#[test]
fn transactions_of_one_string_are_told_apart() {
    let string = "SELECT 1; COMMIT; BEGIN; SELECT 2; ROLLBACK; SELECT 3";
    let tags = ["SELECT 1", "COMMIT", "BEGIN", "SELECT 1", "ROLLBACK", "SELECT 1"];
    let mut answers: Vec<_> = tags.iter().map(|tag| complete(tag)).collect();
    answers.push(ready(b'I'));
    assert_eq!(
        told(&[query(string)], &answers),
        [
            "SELECT 1 1 Committed",
            "COMMIT 1 Committed",
            "BEGIN 2 RolledBack",
            "SELECT 2 2 RolledBack",
            "ROLLBACK 2 RolledBack",
            "SELECT 3 3 Committed",
        ]
    );
}

#[test]
fn the_end_of_a_block_is_told_when_it_comes() {
    let mut host = Host::logged_in();
    let steps = [
        ("BEGIN", "BEGIN", b'T'),
        ("INSERT INTO t VALUES (1)", "INSERT 0 1", b'T'),
        ("SAVEPOINT a", "SAVEPOINT", b'T'),
        ("ROLLBACK /* not all */ TO a", "ROLLBACK", b'T'),
        ("COMMIT AND CHAIN", "COMMIT", b'T'),
        ("SELECT 1", "SELECT 1", b'T'),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION", b'I'),
        ("SELECT 2", "SELECT 1", b'I'),
        ("BEGIN", "BEGIN", b'T'),
    ];
    for (sql, tag, status) in steps {
        host.client(&[query(sql)]);
        host.server(&[complete(tag), ready(status)]);
    }
    assert_eq!(
        short(host),
        [
            "BEGIN 1 open",
            "INSERT INTO t VALUES (1) 1 open",
            "SAVEPOINT a 1 open",
            "ROLLBACK /* not all */ TO a 1 open",
            "COMMIT AND CHAIN 1 Committed",
            "transaction 1 Committed 5",
            "SELECT 1 2 open",
            "PREPARE TRANSACTION 'x' 2 Prepared",
            "transaction 2 Prepared 2",
            "SELECT 2 3 Committed",
            "BEGIN 4 open",
            "transaction 4 RolledBack 1",
        ]
    );
}

#[test]
fn what_a_failure_undoes_is_told() {
    // A pipeline is one transaction up to its Sync.
    let run = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let ran = |tag: &str| [parsed(), bound(), complete(tag)].concat();
    assert_eq!(
        told(
            &[
                run("INSERT"),
                run("SELECT 1/0"),
                run("SELECT"),
                sync(),
                run("UPDATE"),
                sync()
            ],
            &[
                ran("INSERT 0 1"),
                parsed(),
                bound(),
                error("ERROR", "22012"),
                ready(b'I'),
                ran("UPDATE 1"),
                error("ERROR", "23503"),
                ready(b'I'),
            ]
        ),
        [
            "INSERT 1 RolledBack",
            "SELECT 1/0 1 RolledBack",
            "UPDATE 2 RolledBack",
            // The commit that Sync stands for.
            "? 2 RolledBack",
        ]
    );
    // COMMIT of a failed block is a rollback, and says so.
    let mut host = Host::logged_in();
    for (sql, answer, status) in [
        ("BEGIN", complete("BEGIN"), b'T'),
        ("SELECT 1/0", error("ERROR", "22012"), b'E'),
        ("COMMIT", complete("ROLLBACK"), b'I'),
        // A deferred constraint.
        ("BEGIN", complete("BEGIN"), b'T'),
        ("COMMIT", error("ERROR", "23503"), b'I'),
        // It may have committed some of its work by itself.
        ("CALL p()", error("ERROR", "22012"), b'I'),
    ] {
        host.client(&[query(sql)]);
        host.server(&[answer, ready(status)]);
    }
    assert_eq!(
        short(host),
        [
            "BEGIN 1 open",
            "SELECT 1/0 1 open",
            "COMMIT 1 RolledBack",
            "transaction 1 RolledBack 3",
            "BEGIN 2 open",
            "COMMIT 2 RolledBack",
            "transaction 2 RolledBack 2",
            "CALL p() 3 Unknown",
        ]
    );
}

#[test]
fn what_commits_at_once_is_not_undone_by_a_later_failure() {
    let run = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let ran = |tag: &str| [parsed(), bound(), complete(tag)].concat();
    let failing = |sql: &str, tag: &str| {
        told(
            &[run(sql), run("INSERT"), run("SELECT 1/0"), sync()],
            &[
                ran(tag),
                ran("INSERT 0 1"),
                parsed(),
                bound(),
                error("ERROR", "22012"),
                ready(b'I'),
            ],
        )
    };
    for (sql, tag) in [
        ("VACUUM", "VACUUM"),
        ("CREATE INDEX CONCURRENTLY ON t (a)", "CREATE INDEX"),
    ] {
        assert_eq!(
            failing(sql, tag),
            [
                format!("{sql} 1 Committed"),
                "INSERT 2 RolledBack".to_owned(),
                "SELECT 1/0 2 RolledBack".to_owned()
            ]
        );
    }
    let undone = failing("CREATE INDEX ON t (a)", "CREATE INDEX");
    assert_eq!(
        undone.first().map(String::as_str),
        Some("CREATE INDEX ON t (a) 1 RolledBack")
    );
    // Of one table it is like any other statement, of all it is not; the tag does not tell.
    assert_eq!(
        failing("CLUSTER", "CLUSTER").first().map(String::as_str),
        Some("CLUSTER 1 Unknown")
    );
}

#[test]
fn a_loss_within_a_block_leaves_its_end_unknown() {
    let mut host = Host::logged_in();
    host.client(&[query("BEGIN")]);
    host.server(&[complete("BEGIN"), ready(b'T')]);
    host.unseen(COOKIE, Direction::Frontend, 40);
    host.unseen(COOKIE, Direction::Backend, 40);
    for _ in 0..2 {
        host.client(&[query("SELECT 1")]);
        host.server(&[complete("SELECT 1"), ready(b'T')]);
    }
    assert_eq!(
        short(host),
        [
            "BEGIN 1 open",
            "transaction 1 Unknown 1",
            "SELECT 1 2 open",
            "transaction 2 RolledBack 1",
        ]
    );
}

#[test]
fn a_replication_stream_is_told_when_it_begins_and_when_it_ends() {
    let mut host = Host::connected();
    let login = Conversation::new()
        .client(&[startup(&[("user", "ann"), ("replication", "on")])])
        .server(&[auth(0, b""), backend_key(7, b"1234"), ready(b'I')]);
    host.play(COOKIE, &login);
    host.client(&[query("IDENTIFY_SYSTEM")]);
    host.server(&[complete("IDENTIFY_SYSTEM"), ready(b'I')]);
    host.client(&[query("START_REPLICATION SLOT s LOGICAL 0/0")]);
    host.server(&[copy_both(), copy_data("w12345")]);
    let begun: Vec<_> = queries(host.events());
    assert_eq!(begun.len(), 2);
    assert!(
        begun
            .iter()
            .all(|query| query.replication && query.transaction == 0)
    );
    assert_eq!(begun[1].outcome, Outcome::Suspended);
    host.client(&[copy_data("r1"), copy_done()]);
    host.server(&[
        copy_done(),
        complete("COPY 0"),
        complete("START_REPLICATION"),
        ready(b'I'),
    ]);
    let ended = queries(host.events());
    let [ended] = ended.as_slice() else {
        panic!("{ended:?}");
    };
    assert_eq!(ended.continues, Some(begun[1].request.start));
    assert_eq!((ended.copy_bytes, ended.outcome), (Some(8), Outcome::Ok));
}

#[test]
fn a_cancel_request_names_the_session_that_it_is_about() {
    let mut host = Host::logged_in();
    host.accept(&tcp(0x99, 5000));
    host.play(
        0x99,
        &Conversation::new().client(&[cancel_request(1984, b"1234")]),
    );
    host.accept(&tcp(0x9a, 5001));
    host.play(
        0x9a,
        &Conversation::new().client(&[cancel_request(4243, b"1234")]),
    );
    let cancels: Vec<_> = host
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("cancel"))
        .collect();
    assert_eq!(cancels, ["cancel 1984 session=81", "cancel 4243"]);
}
