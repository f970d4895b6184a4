//! The agent works with exactly the capabilities that its systemd unit gives it, less the one that kernels since 6.6 do not
//! ask for: it finds the server, reads a TLS session in plaintext, and names its client.
//!
//! Needs root and Linux 6.6; is skipped without them, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{fs, path::Path, process::Command, time::Duration};

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    record::query_folder,
    route::Route,
    tap::{Settings, Tap, Tier},
};

/// Needed on older kernels only.
const OLD_KERNELS: &str = "CAP_SYS_ADMIN";

fn capabilities() -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/pgwitness-agent.service");
    let unit = fs::read_to_string(unit).unwrap();
    let list = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .unwrap();
    let all = list.split_ascii_whitespace().map(str::to_owned);
    all.filter(|name| name != OLD_KERNELS).collect()
}

/// Whether links of the kind `uprobe_multi` are there (Linux 6.6).
fn is_new_kernel() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_unit_gives_is_enough() {
    if !geteuid().is_root() || !is_new_kernel() {
        eprintln!("not run: it needs root and Linux 6.6");
        return;
    }
    let capabilities = capabilities();
    assert_eq!(capabilities.len(), 4, "{capabilities:?}");
    let mut cluster = Cluster::init_for(server_binaries().unwrap(), Witness::Silent, &[Route::Tls]).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let settings = Settings {
        capabilities: Some(capabilities),
        ..Settings::clear(Tier::Auto)
    };
    let mut tap = Tap::start(&cluster.data(), settings).await.unwrap();
    let output = Command::new("psql")
        .args(["-X", "-c", "SELECT 'said under TLS'"])
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
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    let rows = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT event FROM events WHERE kind = 'query'",
    )
    .unwrap();
    let said: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect();
    let ours: Vec<&serde_json::Value> = said
        .iter()
        .filter(|event| event["statement"]["text"] == "SELECT 'said under TLS'")
        .collect();
    assert_eq!(ours.len(), 1, "{said:?}");
    assert_eq!(ours[0]["session"]["encryption"], "tls");
    assert_eq!(ours[0]["attribution"]["confidence"], "observed");
}
