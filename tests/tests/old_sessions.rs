//! Sessions that are older than the agent: who they are, and what of them passed while no agent ran.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{fs, time::Duration};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    record::{query_folder, query_live},
    tap::{Redaction, Tap},
};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// Could be the role `odd` in a database `one shop`.
const ODD_ROLE: &str = "odd one";
const AWAY: &str = "SELECT 'while nobody looked'";

/// Bytes of a Query message: type, length, text and its end (manual, "Message Formats").
fn query_bytes(sql: &str) -> u64 {
    sql.len() as u64 + 6
}

/// Bytes of the answer to a SELECT of one text: RowDescription with one column, DataRow, CommandComplete, ReadyForQuery.
fn answer_bytes(value: &str) -> u64 {
    let row_description = 1 + 4 + 2 + "?column?".len() + 1 + 4 + 2 + 4 + 2 + 4 + 2;
    let data_row = 1 + 4 + 2 + 4 + value.len();
    let complete = 1 + 4 + "SELECT 1".len() + 1;
    (row_description + data_row + complete + 1 + 4 + 1) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_agent_is_named_and_what_it_missed_is_counted() {
    if !geteuid().is_root() {
        eprintln!("not run without root: a whole tap is attached");
        return;
    }
    let mut cluster = Cluster::init_with(server_binaries().unwrap(), Witness::Statements).unwrap();
    let conf = cluster.data().join("postgresql.conf");
    let named = fs::read_to_string(&conf).unwrap() + "cluster_name = '15/main: no'\n";
    fs::write(&conf, named).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let unix = cluster.superuser(DATABASE).await.unwrap();
    let role = format!(
        "CREATE ROLE \"{ODD_ROLE}\" LOGIN PASSWORD '{}'",
        cluster.password()
    );
    unix.batch_execute(&role).await.unwrap();
    let tcp = over_tcp(&cluster, APP_ROLE).await;
    let odd = over_tcp(&cluster, ODD_ROLE).await;
    let mut all = vec![unix, tcp, odd];
    say(&all, "SELECT 'before'").await;

    let mut tap = Tap::start(&cluster.data(), Redaction::Clear).await.unwrap();
    // Its role is known from its startup packet.
    all.push(over_tcp(&cluster, ODD_ROLE).await);
    let leaver = over_tcp(&cluster, APP_ROLE).await;
    let silent = over_tcp(&cluster, APP_ROLE).await;
    // The first request behind the agent's start only brings a session into step.
    say(&all, "SELECT 'joins'").await;
    say(&all, "SELECT 'first run'").await;
    delivered(&tap, "SELECT 'first run'", all.len()).await;

    tap.agent.kill().await.unwrap();
    say(&all, AWAY).await;
    drop(leaver);
    tokio::time::sleep(Duration::from_millis(500)).await;
    tap.agent.start().await.unwrap();
    all.push(silent);
    say(&all, "SELECT 'joins again'").await;
    say(&all, "SELECT 'second run'").await;
    delivered(&tap, "SELECT 'second run'", all.len()).await;

    // Told to stop, and nothing passes meanwhile.
    tap.agent.end(Signal::SIGTERM).await.unwrap();
    tap.agent.start().await.unwrap();
    say(&all, "SELECT 'joins a third time'").await;
    say(&all, "SELECT 'third run'").await;
    drop(all);
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    let (verified, said) = tap.verify().unwrap();
    assert!(verified, "{said}");
    check(&events(&tap));
}

fn check(events: &[Value]) {
    let starts: Vec<u64> = of(events, "agent_start").map(seq).collect();
    let [_, second, third] = starts[..] else {
        panic!("three runs: {starts:?}")
    };
    let said = |text: &str| -> Vec<&Value> {
        of(events, "query")
            .filter(|query| query["statement"]["text"] == text)
            .collect()
    };

    // Whose titles can be read in one way have names; the other has none until it logs in before the agent's eyes.
    let first_run = said("SELECT 'first run'");
    assert_eq!(first_run.len(), 4);
    let mut found: Vec<[&str; 3]> = first_run.iter().map(|query| names(query)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ["", "", "true"],
            [APP_ROLE, DATABASE, "true"],
            [ODD_ROLE, DATABASE, "false"],
            ["postgres", DATABASE, "true"],
        ]
    );
    // All clients are this process: seen to connect, or seen to hold its end.
    for query in first_run.iter().chain(&said("SELECT 'second run'")) {
        let attribution = &query["attribution"];
        assert_eq!(attribution["process"]["pid"], std::process::id(), "{query}");
        let before = said("SELECT 'first run'")
            .into_iter()
            .find(|first| first["session"]["id"] == query["session"]["id"]);
        let seen_to_connect = before.is_none_or(|first| first["session"]["opened_before_attach"] == false);
        let expected = match (query["session"]["transport"].as_str().unwrap(), seen_to_connect) {
            ("unix", _) => ["unix-peer-cred", "observed"],
            (_, true) => ["tcp-owner", "observed"],
            (_, false) => ["tcp-holder", "inferred"],
        };
        let found = ["method", "confidence"].map(|key| attribution[key].as_str().unwrap());
        assert_eq!(found, expected, "{query}");
    }

    // While nobody looked: by the byte where the kernel counts.
    assert!(said(AWAY).is_empty());
    let gaps: Vec<&Value> = of(events, "gap")
        .filter(|gap| gap["loss"]["reason"] == "agent_restart")
        .collect();
    let in_second: Vec<&&Value> = gaps
        .iter()
        .filter(|gap| (second..third).contains(&seq(gap)))
        .collect();
    for query in &first_run {
        for (direction, bytes) in [
            ("frontend", query_bytes(AWAY)),
            ("backend", answer_bytes("while nobody looked")),
        ] {
            let own: Vec<&&&Value> = in_second
                .iter()
                .filter(|gap| {
                    gap["session"]["id"] == query["session"]["id"] && gap["loss"]["direction"] == direction
                })
                .collect();
            assert_eq!(own.len(), 1, "{direction} of {query}: {gaps:?}");
            let missing = &own[0]["loss"]["bytes_missing"];
            if query["session"]["transport"] == "tcp" {
                assert_eq!(*missing, bytes, "{}", own[0]);
            } else {
                assert_eq!(*missing, Value::Null, "{}", own[0]);
            }
            assert!(own[0]["ts_start"].as_str() >= query["ts_end"].as_str());
        }
    }
    // Who left meanwhile, and nothing of who kept silent.
    let ends: Vec<&Value> = of(events, "session_close")
        .filter(|close| close["session_close"]["reason"] == "unseen")
        .collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(names(ends[0]), [APP_ROLE, DATABASE, "true"]);
    let told: Vec<&&&Value> = in_second
        .iter()
        .filter(|gap| gap["session"]["id"] == ends[0]["session"]["id"])
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(in_second.len(), 4 * 2 + 2, "{in_second:?}");

    // A stop with nothing missed: told only where nothing counts; all others go on as if nothing had been.
    assert_eq!(
        said("SELECT 'joins again'").len(),
        1,
        "the silent one was in step"
    );
    assert_eq!(said("SELECT 'joins a third time'").len(), 4);
    let second_run = said("SELECT 'second run'");
    assert_eq!((second_run.len(), said("SELECT 'third run'").len()), (5, 5));
    let in_third: Vec<&&Value> = gaps.iter().filter(|gap| seq(gap) > third).collect();
    assert_eq!(in_third.len(), 2, "{in_third:?}");
    for gap in in_third {
        assert_eq!(gap["session"]["transport"], "unix");
        assert_eq!(gap["loss"]["bytes_missing"], Value::Null);
    }
}

fn of<'a>(events: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["kind"] == kind)
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap()
}

/// Role, database, whether it is older than the agent.
fn names(event: &Value) -> [&str; 3] {
    let text = |key: &str| event["session"][key].as_str().unwrap_or_default();
    let older = event["session"]["opened_before_attach"] == true;
    [
        text("login_role"),
        text("database"),
        if older { "true" } else { "false" },
    ]
}

fn events(tap: &Tap) -> Vec<Value> {
    let rows = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT event FROM events ORDER BY agent, seq",
    )
    .unwrap();
    rows.iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect()
}

/// Until all of these statements are in the record, and the agent was told so.
async fn delivered(tap: &Tap, statement: &str, times: usize) {
    let sql = format!(
        "SELECT count(*) AS n FROM events WHERE kind = 'query' AND statement = '{}'",
        statement.replace('\'', "''")
    );
    for _ in 0..200 {
        let rows = query_live(tap.http_port(), &sql).unwrap();
        if rows[0]["n"] == times {
            // Its note waits for the acknowledgement; the next one comes a second later.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{statement} was not recorded {times} times");
}

async fn over_tcp(cluster: &Cluster, role: &str) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(cluster.port())
        .user(role)
        .password(cluster.password())
        .dbname(DATABASE)
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// One Query message each.
async fn say(clients: &[Client], sql: &str) {
    for client in clients {
        client.batch_execute(sql).await.unwrap();
    }
}
