//! Batches outlive the agent: what was sealed while no collector was there is delivered by a later run, once, in order.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::time::Duration;

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::{Cluster, DATABASE, Witness},
    record::query_folder,
    tap::{Settings, Tap, Tier},
};
use serde_json::Value;
use tokio_postgres::Client;

/// Longer than events are gathered before they are sealed, and a round of the rings.
const SEALED: Duration = Duration::from_millis(600);

/// Long enough for a collector that is back to be found and to get all.
const DELIVERED: Duration = Duration::from_secs(8);

async fn say(client: &Client, from: u32) {
    for number in from..from + 10 {
        client
            .batch_execute(&format!("SELECT 'spooled {number}'"))
            .await
            .unwrap();
    }
    tokio::time::sleep(SEALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_with_a_killed_agent_loses_nothing_that_was_sealed() {
    if !geteuid().is_root() {
        eprintln!("not run without root: a whole tap is attached");
        return;
    }
    let mut cluster = Cluster::init(Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto))
        .await
        .unwrap();
    let client = cluster.superuser(DATABASE).await.unwrap();
    say(&client, 100).await;
    tap.kill_collector().await.unwrap();
    say(&client, 200).await;
    // One that is killed, one that is told to stop, both without a collector.
    tap.agent.kill().await.unwrap();
    tap.agent.start().await.unwrap();
    // The first request behind a gap brings the session into step.
    say(&client, 290).await;
    let begun = std::time::Instant::now();
    tap.agent.end(Signal::SIGTERM).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "nobody waits for a collector that is away"
    );
    tap.agent.start().await.unwrap();
    say(&client, 390).await;
    say(&client, 400).await;
    let status = tap.agent.ask(&["status", "--json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap();
    assert!(
        number("/spool/used") > 1000 && number("/spool/limit") == 1 << 30,
        "{status}"
    );
    assert!(number("/collector/batches_waiting") > 3, "{status}");
    assert_eq!(number("/batches_unspooled"), 0);
    tap.start_collector().await.unwrap();
    tokio::time::sleep(DELIVERED).await;
    say(&client, 500).await;
    drop(client);
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    let (verified, said) = tap.verify().unwrap();
    assert!(verified, "{said}");

    let rows = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT statement, count(*) AS times FROM events WHERE kind = 'query' AND statement LIKE 'SELECT ''spooled%' \
         GROUP BY statement ORDER BY statement",
    )
    .unwrap();
    let mut expected: Vec<u32> = [100, 200, 400, 500].into_iter().flat_map(|n| n..n + 10).collect();
    for row in &rows {
        assert_eq!(row["times"], 1, "{row}");
        let number = row["statement"]
            .as_str()
            .unwrap()
            .replace(|c: char| !c.is_ascii_digit(), "");
        expected.retain(|expected| expected.to_string() != number);
    }
    assert!(expected.is_empty(), "not recorded: {expected:?}");
    let told = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT kind, count(*) AS times FROM events WHERE kind IN ('agent_start', 'agent_stop') GROUP BY kind ORDER BY kind",
    )
    .unwrap();
    assert_eq!(
        (&told[0]["times"], &told[1]["times"]),
        (&Value::from(3), &Value::from(2)),
        "{told:?}"
    );
}
