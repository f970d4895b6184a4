//! The agent as its users start it, with two collectors over mutual TLS: it goes to the second when the first is killed, changes its key
//! there, and comes back; both logs together have everything once.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    cell::Cell,
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use collector::Collector;
use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::{Cluster, DATABASE, Witness, server_binaries},
    tap::{Agent, Settings, Tier, sibling},
};
use serde_json::Value;

#[path = "enrolled/collector.rs"]
mod collector;

/// Longer than the test: a collector that is away cannot renew what ends meanwhile.
const LIFETIME_S: u64 = 3600;

/// How long the agent may take to go to another collector: going back waits 20 s behind a stream that was short.
const MOVED: Duration = Duration::from_secs(60);

const COUNTED: &str =
    "SELECT seq FROM events WHERE statement = 'SELECT ''counted''' AND kind = 'query' ORDER BY seq";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_to_the_next_collector_and_back_and_loses_nothing() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init_with(server_binaries().unwrap(), Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let (mut first, mut second) = (Collector::start(LIFETIME_S), Collector::start(LIFETIME_S));
    let urls = [&first, &second].map(|collector| format!("https://{}", collector.grpc));
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::new(
        ("agent", folder.path()),
        Some(&cluster.data()),
        urls[0].clone(),
        Settings::clear(Tier::Auto),
    )
    .unwrap()
    .with_collector(urls[1].clone());
    let (ok, said) = collector::enroll(&first.token("db1"), &agent.state());
    assert!(ok, "{said}");
    // One that this host is not enrolled at is named.
    let problem = agent.start().await.unwrap_err().to_string();
    assert!(
        problem.contains("is not enrolled with") && problem.contains(&urls[1]),
        "{problem}"
    );
    let (ok, said) = collector::enroll(&second.token("db1"), &agent.state());
    assert!(ok, "{said}");
    agent.start().await.unwrap();

    let client = cluster.superuser(DATABASE).await.unwrap();
    let mut executed = 0_u64;
    let mut say_until = async |agent: &Agent, done: &dyn Fn(&Value) -> bool| {
        let until = Instant::now() + MOVED;
        loop {
            for _ in 0..50 {
                client.query("SELECT 'counted'", &[]).await.unwrap();
                executed += 1;
            }
            let status: Value = serde_json::from_str(&agent.ask(&["status", "--json"]).unwrap()).unwrap();
            if done(&status["collector"]) {
                return executed;
            }
            assert!(Instant::now() < until, "{status}\n{}", agent.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Connected to the one at this place, which has made a batch durable since then.
    let at = |place: u64| {
        let before = Cell::new(None);
        move |collector: &Value| {
            let done = collector["batches_acknowledged"].as_u64().unwrap();
            let is_there = collector["connected"] == true && collector["place"] == place;
            is_there
                && done
                    > before
                        .get()
                        .unwrap_or_else(|| before.replace(Some(done)).unwrap_or(done))
        }
    };
    say_until(&agent, &at(1)).await;
    first.end(Signal::SIGKILL);
    say_until(&agent, &at(2)).await;
    second.say(&["agent", "rotate-key", "db1"]);
    say_until(&agent, &|_| {
        agent.said().contains("batches are signed by another key")
    })
    .await;
    first.run();
    let executed = say_until(&agent, &at(1)).await;
    let status = agent.ask(&["status"]).unwrap();
    assert!(
        status.contains(&format!("{} (1 of 2) connected for", urls[0])),
        "{status}"
    );
    let status: Value = serde_json::from_str(&agent.ask(&["status", "--json"]).unwrap()).unwrap();
    assert_eq!(status["collector"]["changes"], 2, "{status}");
    agent.stop().await.unwrap();
    cluster.stop().await.unwrap();
    first.stop();
    second.stop();

    let mut seen = BTreeSet::new();
    let mut both = [0; 2];
    for (collector, both) in [&first, &second].into_iter().zip(&mut both) {
        let rows = collector.ask(COUNTED);
        *both = rows.len();
        let seqs: BTreeSet<u64> = rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs.len(), rows.len(), "none is twice in one store");
        seen.extend(seqs);
        let said = collector.say(&["verify"]);
        assert!(
            said.starts_with("OK") && said.contains("are not in this log"),
            "{said}"
        );
        let moved = collector.ask("SELECT event FROM events WHERE kind = 'collector_change'");
        assert_eq!(moved.len(), 1, "{moved:?}");
    }
    assert_eq!(seen.len() as u64, executed, "{both:?}");
    assert!(both.iter().all(|one| *one > 0), "{both:?}");
    let output = Command::new(sibling("pgwitness-collector").unwrap())
        .args(["verify", "--json", "--all"])
        .args([first.data(), second.data()])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
}
