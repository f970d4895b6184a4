//! A server whose system calls are filtered is not harmed by the tap, and its encrypted sessions are read or told of.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::process::Command;

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    record::query_folder,
    route::Route,
    suite::settle,
    tap::{Settings, Tap, Tier, sibling},
};
use serde_json::Value;

/// How `doctor` begins what it says of probes in such servers.
const DOCTOR: &str = "probes under seccomp";

#[tokio::test(flavor = "multi_thread")]
async fn where_it_was_tried_that_probes_do_no_harm_they_are_used() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let output = Command::new(sibling("pgwitness-agent").unwrap())
        .arg("doctor")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = said.lines().find(|line| line.contains(DOCTOR)).unwrap();
    let events = one_session("auto").await;
    if verdict.contains("harmless") {
        assert!(is_read(&events), "{events:?}");
    } else {
        assert!(
            opaque(&events).contains("this kernel would end it"),
            "{verdict} {events:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_they_are_not_wanted_it_is_told_why_nothing_is_read() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let events = one_session("unconfined").await;
    assert!(!is_read(&events), "{events:?}");
    let reason = opaque(&events);
    assert!(
        reason.contains("its system calls are filtered (seccomp)"),
        "{reason}"
    );
}

fn is_read(events: &[Value]) -> bool {
    events.iter().any(|event| event["statement"]["text"] == SAID)
}

fn opaque(events: &[Value]) -> String {
    let reasons = events
        .iter()
        .filter_map(|event| event["opaque_session"]["reason"].as_str());
    reasons.collect()
}

const SAID: &str = "SELECT 'said in confinement'";

/// What is recorded of a server under seccomp and one session with TLS, which has to go well.
async fn one_session(uretprobes: &str) -> Vec<Value> {
    let mut cluster = Cluster::init_for(server_binaries().unwrap(), Witness::Silent, &[Route::Tls]).unwrap();
    let settings = Settings {
        keys: vec![("TAP__URETPROBES", uretprobes.to_owned())],
        ..Settings::clear(Tier::Auto)
    };
    cluster.start_confined().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), settings).await.unwrap();
    let output = Command::new(cluster.client_binary("psql"))
        .args(["-X", "-c", SAID])
        .envs(cluster.client_environment(Route::Tls))
        .env("PGDATABASE", DATABASE)
        .env("PGUSER", APP_ROLE)
        .env("PGPASSWORD", cluster.password())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    settle(&tap).await.unwrap();
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    let rows = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT event FROM events ORDER BY seq",
    );
    rows.unwrap()
        .iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect()
}
