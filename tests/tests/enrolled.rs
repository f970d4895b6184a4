//! The agent as its users start it, over mutual TLS: enrolled by a token, confined, renewing and changing its key under load.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    fs,
    time::{Duration, Instant},
};

use collector::Collector;
use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{Cluster, DATABASE, Witness, server_binaries},
    tap::{Agent, Settings, Tier},
};

#[path = "enrolled/collector.rs"]
mod collector;

/// Seconds for which a certificate is good: it is renewed some times while the test runs.
const LIFETIME_S: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_agent_renews_and_changes_its_key_and_loses_nothing() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init_with(server_binaries().unwrap(), Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut collector = Collector::start(LIFETIME_S);
    let url = format!("https://{}", collector.grpc);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::clear(Tier::Auto);
    let mut agent = Agent::new(
        ("agent", folder.path()),
        Some(&cluster.data()),
        url.clone(),
        settings,
    )
    .unwrap();

    // Without enrolment it says what to do, and does not start.
    let problem = agent.start().await.unwrap_err().to_string();
    assert!(problem.contains("pgwitness-collector agent add"), "{problem}");

    let token = collector.token("db1");
    let enroll = || collector::enroll(&token, &agent.state());
    let (ok, said) = enroll();
    assert!(ok && said.contains("enrolled as db1"), "{said}");
    let (ok, said) = enroll();
    assert!(!ok && said.contains("was used already"), "{said}");

    agent.start().await.unwrap();
    let first = fs::read(agent.state().join("agent.key")).unwrap();
    let client = cluster.superuser(DATABASE).await.unwrap();
    let mut executed = 0_u64;
    let mut say = async |until: Instant| {
        while Instant::now() < until {
            client.query("SELECT 'counted'", &[]).await.unwrap();
            executed += 1;
        }
        executed
    };
    say(Instant::now() + Duration::from_secs(6)).await;
    collector.say(&["agent", "rotate-key", "db1"]);
    collector.say(&["ca", "rotate"]);
    // Longer than a certificate lasts, so that streams end and begin again meanwhile.
    let executed = say(Instant::now() + Duration::from_secs(25)).await;
    // A stream under the certificate before ends when there is another; the next one begins soon.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let status = agent.ask(&["status"]).unwrap();
        if status.contains("connected") {
            break;
        }
        assert!(Instant::now() < until, "{status}\n{}", agent.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    agent.stop().await.unwrap();
    let said = agent.said();
    assert!(
        said.contains("the certificate for the collector was renewed"),
        "{said}"
    );
    assert!(said.contains("batches are signed by another key"), "{said}");
    assert_ne!(fs::read(agent.state().join("agent.key")).unwrap(), first);
    let shown = collector.say(&["ca", "show"]);
    assert!(!shown.contains("without a certificate of the newest"), "{shown}");

    // And again with the new key, behind a restart of both.
    collector.stop();
    collector.run();
    agent.start().await.unwrap();
    client.query("SELECT 'later'", &[]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    collector.say(&["agent", "revoke", "db1"]);
    let until = Instant::now() + Duration::from_secs(10);
    while !agent.said().contains("is revoked") {
        assert!(Instant::now() < until, "{}", agent.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    agent.kill().await.unwrap();
    cluster.stop().await.unwrap();
    collector.stop();

    let counted = collector
        .ask("SELECT count(*) AS n FROM events WHERE statement = 'SELECT ''counted''' AND kind = 'query'");
    assert_eq!(counted.first().unwrap()["n"], executed, "{counted:?}");
    let gaps = collector.ask("SELECT event FROM events WHERE kind = 'gap'");
    assert!(
        gaps.iter().all(|gap| !gap.to_string().contains("queue_full")),
        "{gaps:?}"
    );
    let changes = collector.ask("SELECT event FROM events WHERE kind = 'config_change'");
    assert!(
        changes
            .iter()
            .any(|change| change.to_string().contains("batch_key")),
        "{changes:?}"
    );
    let alarms = collector.ask("SELECT event FROM events WHERE kind = 'alarm'");
    for kind in ["bad_token", "revoked_agent"] {
        assert!(
            alarms.iter().any(|alarm| alarm.to_string().contains(kind)),
            "{kind}: {alarms:?}"
        );
    }
    let said = collector.say(&["verify"]);
    assert!(said.starts_with("OK"), "{said}");
}
