//! A running agent is asked and steered: status, pause, resume, and what the record says of it.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness},
    record::query_folder,
    tap::{Settings, Tap, Tier, sibling},
};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// Bytes of a Query message: type, length, text and its end (manual, "Message Formats").
fn query_bytes(sql: &str) -> u64 {
    sql.len() as u64 + 6
}

const PAUSED: &str = "SELECT 'said in the pause'";

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_in_the_record_with_what_it_cost() {
    pause_and_resume(Tier::Auto, &["A", "B"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_one_of_the_second_tier() {
    pause_and_resume(Tier::B, &["B"]).await;
}

async fn pause_and_resume(tier: Tier, names: &[&str]) {
    if !geteuid().is_root() {
        eprintln!("not run without root: a whole tap is attached");
        return;
    }
    let mut cluster = Cluster::init(Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(tier)).await.unwrap();
    let socket = tap.agent.state().join("control.sock");
    let clients = [
        cluster.superuser(DATABASE).await.unwrap(),
        over_tcp(&cluster).await,
    ];
    say(&clients, "SELECT 'before'").await;

    let status = status(&socket);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(names.contains(&status["tier"].as_str().unwrap()), "{status}");
    assert_eq!(
        status["servers"][0]["data_directory"],
        cluster.data().to_str().unwrap()
    );
    assert_eq!(status["servers"].as_array().unwrap().len(), 1);
    assert_eq!(status["paused"], Value::Null);
    assert_eq!(status["collector"]["connected"], true);
    assert!(status["sessions_open"].as_u64() >= Some(2), "{status}");
    assert!(status["counters"]["segments"].as_u64() > Some(0), "{status}");
    for place in ["ring", "queue", "memory"] {
        assert!(status[place]["used"].as_u64() <= status[place]["limit"].as_u64());
        assert!(status[place]["limit"].as_u64() >= Some(1 << 20), "{status}");
    }
    let said = text(&agent(&["status"], &socket));
    assert!(
        said.contains("recording   yes") && said.contains("ring_full"),
        "{said}"
    );

    refused(&["resume"], &socket, "it is not paused");
    let output = agent(&["pause", "--reason", "a reason: \"why\""], &socket);
    assert!(output.status.success(), "{}", text(&output));
    refused(&["pause"], &socket, "it is paused already, since 20");
    say(&clients, PAUSED).await;
    let short = over_tcp(&cluster).await;
    say(&[short], PAUSED).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = self::status(&socket);
    assert_eq!(status["paused"]["uid"], 0);
    assert_eq!(status["paused"]["reason"], "a reason: \"why\"");
    assert!(status["paused"]["bytes_discarded"].as_u64() > Some(2 * query_bytes(PAUSED)));
    let said = text(&agent(&["status"], &socket));
    assert!(said.contains("recording   PAUSED since 20"), "{said}");

    let output = agent(&["resume"], &socket);
    assert!(output.status.success() && text(&output).contains("recording again"));
    // Behind a gap a session is in step again with the next answer that is complete.
    say(&clients, "SELECT 'after 1'").await;
    say(&clients, "SELECT 'after 2'").await;

    // An agent that ends while it is paused says so.
    assert!(agent(&["pause"], &socket).status.success());
    say(&clients, PAUSED).await;
    tap.agent.end(Signal::SIGTERM).await.unwrap();
    refused(&["status"], &socket, "no agent runs at ");
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    let (verified, said) = tap.verify().unwrap();
    assert!(verified, "{said}");
    check(&tap);
}

fn check(tap: &Tap) {
    let rows = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT event FROM events ORDER BY agent, seq",
    )
    .unwrap();
    let events: Vec<Value> = rows
        .iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect();
    let of = |kind: &str| -> Vec<&Value> { events.iter().filter(|event| event["kind"] == kind).collect() };
    let (pauses, resumes) = (of("agent_pause"), of("agent_resume"));
    assert_eq!((pauses.len(), resumes.len()), (2, 2));
    assert_eq!(pauses[0]["agent_pause"]["uid"], 0);
    assert!(!pauses[0]["agent_pause"]["login"].as_str().unwrap().is_empty());
    assert_eq!(pauses[0]["agent_pause"]["reason"], "a reason: \"why\"");
    assert_eq!(resumes[1]["agent_resume"]["reason"], "stop");
    for resume in &resumes {
        let resume = &resume["agent_resume"];
        assert!(resume["bytes_discarded"].as_u64() > Some(0) && resume["paused_ns"].as_u64() > Some(0));
    }

    let gaps: Vec<&Value> = of("gap")
        .into_iter()
        // One without a session is about whoever went from this host to some other server meanwhile.
        .filter(|gap| gap["loss"]["reason"] == "paused" && gap["session"].is_object())
        .collect();
    let [from, to] = [pauses[0], resumes[0]].map(|event| event["seq"].as_u64().unwrap());
    let first: Vec<&&Value> = gaps
        .iter()
        .filter(|gap| (from..to).contains(&gap["seq"].as_u64().unwrap()))
        .collect();
    let exact = |gaps: &[&&Value], role: &str| {
        let wanted =
            |gap: &&&&Value| gap["session"]["login_role"] == role && gap["loss"]["direction"] == "frontend";
        let found: Vec<&&&Value> = gaps.iter().filter(wanted).collect();
        assert_eq!(found.len(), 1, "one for the session of {role}: {gaps:?}");
        assert_eq!(found[0]["loss"]["bytes_missing"], query_bytes(PAUSED));
        assert!(found[0]["ts_start"].as_str() >= pauses[0]["ts_start"].as_str());
        assert!(found[0]["ts_end"].as_str() <= resumes[0]["ts_end"].as_str());
    };
    exact(&first, "postgres");
    exact(&first, APP_ROLE);
    // Both directions of both, and of the session that came and went meanwhile, whose role nobody saw.
    assert_eq!(first.len(), 6, "{first:?}");
    assert_eq!(gaps.len() - first.len(), 4, "the second pause: {gaps:?}");

    let texts: Vec<&str> = of("query")
        .iter()
        .filter_map(|query| query["statement"]["text"].as_str())
        .collect();
    let count = |text: &str| texts.iter().filter(|found| **found == text).count();
    assert_eq!(count("SELECT 'before'"), 2);
    assert_eq!(count(PAUSED), 0);
    assert_eq!(count("SELECT 'after 2'"), 2, "{texts:?}");
}

async fn over_tcp(cluster: &Cluster) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(cluster.port())
        .user(APP_ROLE)
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

fn agent(arguments: &[&str], socket: &Path) -> Output {
    Command::new(sibling("pgwitness-agent").unwrap())
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .output()
        .unwrap()
}

fn status(socket: &Path) -> Value {
    let output = agent(&["status", "--json"], socket);
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(arguments: &[&str], socket: &Path, expected: &str) {
    let output = agent(arguments, socket);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(expected), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}

fn text(output: &Output) -> String {
    [output.stdout.as_slice(), output.stderr.as_slice()]
        .map(String::from_utf8_lossy)
        .concat()
}
