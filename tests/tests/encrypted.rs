//! Encrypted sessions as clients really have them: without asking for encryption, and with a client that reads slowly.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    process::Process,
    record::query_folder,
    route::Route,
    suite::settle,
    tap::{Settings, Tap, Tier},
};
use serde_json::Value;

/// Let in without a password, so that what the server says is as long over each way.
const CLIENT: &str = "w_protocol";
const ROWS: u64 = 40_000;
/// Of one row of copied data: kind, length (manual, "Message Formats"), text, newline.
const ROW: u64 = 1 + 4 + 1000 + 1;
const BULK: &str = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 40000)) TO STDOUT";
const SAID: &str = "SELECT 'said without asking for TLS'";

#[tokio::test(flavor = "multi_thread")]
async fn each_byte_is_counted_once_and_encryption_is_nothing_special() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let routes = [Route::Tls];
    let mut cluster = Cluster::init_for(server_binaries().unwrap(), Witness::Statements, &routes).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto))
        .await
        .unwrap();
    let admin = cluster.superuser(DATABASE).await.unwrap();
    admin
        .batch_execute(&format!("CREATE ROLE {CLIENT} LOGIN"))
        .await
        .unwrap();
    for route in [Route::Tcp, Route::Tls] {
        read_slowly(&cluster, route).await;
    }
    // As anybody's client does it: a server, a password, and nothing about encryption.
    let output = Command::new(cluster.client_binary("psql"))
        .args(["-X", "-h", "127.0.0.1", "-p", &cluster.port().to_string()])
        .args(["-U", APP_ROLE, "-d", DATABASE, "-c", SAID])
        .env_clear()
        .env("PGPASSWORD", cluster.password())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(admin);
    settle(&tap).await.unwrap();
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();

    let events = events(&tap);
    let gaps: Vec<&Value> = events.iter().filter(|event| event["kind"] == "gap").collect();
    assert!(gaps.is_empty(), "{gaps:?}");
    let said = |text: &str| -> Vec<&Value> {
        let queries = events.iter().filter(|event| event["kind"] == "query");
        queries
            .filter(|event| event["statement"]["text"] == text)
            .collect()
    };
    let asked = said(SAID);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["session"]["encryption"], "tls");

    // Over TCP the kernel counts; over TLS the tap does, what the server's retries had in hand again and again.
    let bulk = said(BULK);
    assert_eq!(bulk.len(), 2, "{bulk:?}");
    let mut sent = Vec::new();
    for query in bulk {
        let close = events.iter().find(|event| {
            event["kind"] == "session_close" && event["session"]["id"] == query["session"]["id"]
        });
        let bytes = close.unwrap()["session_close"]["bytes_out"].as_u64().unwrap();
        assert!(bytes > ROWS * ROW, "{bytes}");
        sent.push((query["session"]["encryption"].as_str().unwrap(), bytes));
    }
    sent.sort_unstable();
    let [("none", plain), ("tls", encrypted)] = sent[..] else {
        return assert_eq!(sent, []);
    };
    assert_eq!(plain, encrypted);
}

/// psql writes to somebody who is in no hurry, and so reads no faster.
async fn read_slowly(cluster: &Cluster, route: Route) {
    let mut command = Command::new(cluster.client_binary("psql"));
    command
        .args(["-X", "-q", "-c", BULK])
        .env_clear()
        .envs(cluster.client_environment(route))
        .env("PGUSER", CLIENT)
        .env("PGDATABASE", DATABASE)
        .stdout(Stdio::piped());
    let (mut process, mut stdout) = Process::start_piped("psql", &mut command, Signal::SIGTERM).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let (mut buffer, mut total) = (vec![0; 256 << 10], 0);
        loop {
            let read = stdout.read(&mut buffer).unwrap();
            if read == 0 {
                return total;
            }
            total += read as u64;
            // A pipe holds 64 KiB: some six hundred turns, a second or two in all.
            thread::sleep(Duration::from_millis(2));
        }
    });
    assert_eq!(read.await.unwrap(), ROWS * 1001);
    let status = process.wait(Duration::from_secs(30)).await.unwrap();
    assert!(status.success());
}

fn events(tap: &Tap) -> Vec<Value> {
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
