//! The agent works with exactly the capabilities that its systemd unit gives it, less the one that kernels since 6.6 do not
//! ask for; and of its two processes the one that parses holds none of them.
//!
//! Needs root and Linux 6.6; is skipped without them, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    record::{query_folder, query_live},
    route::Route,
    tap::{Settings, Tap, Tier},
};
use serde_json::Value;
use tempfile::TempDir;

/// Needed on older kernels only.
const OLD_KERNELS: &str = "CAP_SYS_ADMIN";

/// Needed at the start only.
const AT_START: &str = "CAP_SETPCAP";

/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON and CAP_BPF (include/uapi/linux/capability.h).
const BROKERS: &str = "000000c000080004";
const NONE: &str = "0000000000000000";

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

fn can_run() -> bool {
    let can = geteuid().is_root() && is_new_kernel();
    if !can {
        eprintln!("not run: it needs root and Linux 6.6");
    }
    can
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_unit_gives_is_enough_and_none_of_it_is_where_bytes_are_parsed() {
    if !can_run() {
        return;
    }
    let capabilities = capabilities();
    assert_eq!(capabilities.len(), 5, "{capabilities:?}");
    assert!(capabilities.iter().any(|name| name == AT_START));
    let binaries = server_binaries().unwrap();
    let copy = copied(&binaries);
    let routes = [Route::Tls];
    let mut cluster = Cluster::init_for(binaries, Witness::Silent, &routes).unwrap();
    let mut later = Cluster::init_for(copy.path().to_path_buf(), Witness::Silent, &routes).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let settings = Settings {
        capabilities: Some(capabilities),
        another: Some(later.data()),
        ..Settings::clear(Tier::Auto)
    };
    let mut tap = Tap::start(&cluster.data(), settings).await.unwrap();
    for route in [Route::Unix, Route::Tcp, Route::Tls] {
        say(&cluster, route, &format!("SELECT 'over {}'", route.name()));
    }
    // Another program, at another path, that nobody has seen before.
    later.start().await.unwrap();
    later.prepare().await.unwrap();
    say(&later, Route::Tls, "SELECT 'by a copy'");

    let [broker, parser] = tap.agent.processes().unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(of_all_threads(parser, set), [NONE], "{set} of what parses");
    }
    for set in ["CapPrm", "CapEff"] {
        // One thread asks for users' names, and holds nothing.
        assert_eq!(
            of_all_threads(broker, set),
            [NONE, BROKERS],
            "{set} of the broker"
        );
    }
    assert_eq!(of_all_threads(broker, "CapBnd"), [BROKERS]);
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(of_all_threads(broker, set), [NONE], "{set} of the broker");
    }
    for process in [broker, parser] {
        assert_eq!(of_all_threads(process, "NoNewPrivs"), ["1"]);
        assert_eq!(of_all_threads(process, "Seccomp"), ["2"]);
    }
    assert_eq!(
        open_programs(parser),
        0,
        "neither programs nor links of the kernel's"
    );
    let status: Value = serde_json::from_str(&tap.agent.ask(&["status", "--json"]).unwrap()).unwrap();
    assert_eq!(status["processes"][0]["pid"], broker);
    assert_eq!(status["processes"][1]["pid"], parser);
    assert_eq!(status["processes"][1]["capabilities"], serde_json::json!([]));
    assert_eq!(status["servers"].as_array().unwrap().len(), 2, "{status}");

    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop().await.unwrap();
    later.stop().await.unwrap();
    tap.stop().await.unwrap();
    let queries = queries(&tap);
    for (text, encryption) in [
        ("SELECT 'over unix'", "none"),
        ("SELECT 'over tcp'", "none"),
        ("SELECT 'over tls'", "tls"),
        ("SELECT 'by a copy'", "tls"),
    ] {
        let ours = with_text(&queries, text);
        assert_eq!(ours.len(), 1, "{text}: {queries:?}");
        assert_eq!(ours[0]["session"]["encryption"], encryption, "{text}");
        assert_eq!(ours[0]["attribution"]["confidence"], "observed", "{text}");
        let process = &ours[0]["attribution"]["process"];
        assert!(process["exe"].as_str().unwrap().ends_with("psql"), "{process}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_captured_is_delivered_when_the_broker_dies() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::init(Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto))
        .await
        .unwrap();
    let client = cluster.superuser(DATABASE).await.unwrap();
    for number in 0..100 {
        client
            .simple_query(&format!("SELECT 'number {number}'"))
            .await
            .unwrap();
    }
    tap.agent.kill_broker().await.unwrap();
    let said = tap.agent.said();
    assert!(said.contains("the broker has ended"), "{said}");
    client.simple_query("SELECT 'unwatched'").await.unwrap();
    tap.agent.start().await.unwrap();
    client.simple_query("SELECT 'joins again'").await.unwrap();
    client.simple_query("SELECT 'watched again'").await.unwrap();
    drop(client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    let queries = queries(&tap);
    for number in 0..100 {
        let text = format!("SELECT 'number {number}'");
        assert_eq!(with_text(&queries, &text).len(), 1, "{text}");
    }
    assert_eq!(with_text(&queries, "SELECT 'unwatched'").len(), 0);
    assert_eq!(with_text(&queries, "SELECT 'watched again'").len(), 1);
    let stops = events(&tap, "agent_stop");
    assert_eq!(stops[0]["reason"], "the broker has ended", "{stops:?}");
    let starts = events(&tap, "agent_start");
    assert_eq!(
        starts[1]["previous_run_unclean"], false,
        "it told all that it had"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_suffers_when_what_parses_dies() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::init(Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto))
        .await
        .unwrap();
    let client = cluster.superuser(DATABASE).await.unwrap();
    client.simple_query("SELECT 'before'").await.unwrap();
    // Until the start of the agent is in the record.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = tap.agent.kill_parser().await.unwrap();
    assert_eq!(
        ended.code(),
        Some(1),
        "whoever watches over the agent starts it again"
    );
    let said = tap.agent.said();
    assert!(said.contains("SIGKILL") && said.contains("is lost"), "{said}");
    client.simple_query("SELECT 'unwatched'").await.unwrap();
    tap.agent.start().await.unwrap();
    client.simple_query("SELECT 'joins again'").await.unwrap();
    client.simple_query("SELECT 'watched again'").await.unwrap();
    drop(client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();
    assert_eq!(with_text(&queries(&tap), "SELECT 'watched again'").len(), 1);
    let starts = events(&tap, "agent_start");
    assert_eq!(starts[1]["previous_run_unclean"], true, "{starts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_do_not_wait_for_the_broker() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::init(Witness::Silent).unwrap();
    let mut later = Cluster::init(Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let settings = Settings {
        another: Some(later.data()),
        ..Settings::clear(Tier::Auto)
    };
    let mut tap = Tap::start(&cluster.data(), settings).await.unwrap();
    let client = cluster.superuser(DATABASE).await.unwrap();
    client.simple_query("SELECT 'before'").await.unwrap();
    tap.agent.signal_broker(Signal::SIGSTOP).unwrap();
    // Whether it is a server cannot be known now.
    later.start().await.unwrap();
    let first_of_later = later.superuser("postgres").await.unwrap();
    first_of_later
        .simple_query("SELECT 'not known to be a server'")
        .await
        .unwrap();
    for number in 0..100 {
        // Each of them is a fact that is asked about.
        Command::new("/bin/true").status().unwrap();
        client
            .simple_query(&format!("SELECT 'number {number}'"))
            .await
            .unwrap();
    }
    let delivered = "SELECT count(*) AS n FROM events WHERE kind = 'query' AND event LIKE '%number 99%'";
    let until = Instant::now() + Duration::from_secs(10);
    while query_live(tap.http_port(), delivered).is_ok_and(|rows| rows[0]["n"] != 1) {
        assert!(
            Instant::now() < until,
            "nothing is delivered while the broker stands still"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = tap.agent.ask(&["status"]).unwrap();
    assert!(status.contains("DOES NOT ANSWER"), "{status}");
    tap.agent.signal_broker(Signal::SIGCONT).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for text in ["SELECT 'joins'", "SELECT 'known to be one'"] {
        first_of_later.simple_query(text).await.unwrap();
    }
    drop((client, first_of_later));
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop().await.unwrap();
    later.stop().await.unwrap();
    tap.stop().await.unwrap();
    let queries = queries(&tap);
    for number in 0..100 {
        let text = format!("SELECT 'number {number}'");
        assert_eq!(with_text(&queries, &text).len(), 1, "{text}");
    }
    assert_eq!(
        with_text(&queries, "SELECT 'known to be one'").len(),
        1,
        "{queries:?}"
    );
    if with_text(&queries, "SELECT 'not known to be a server'").is_empty() {
        let session = &with_text(&queries, "SELECT 'known to be one'")[0]["session"]["id"];
        let gaps = whole_events(&tap, "gap");
        assert!(
            gaps.iter().any(|gap| gap["session"]["id"] == *session),
            "{gaps:?}"
        );
    }
}

/// The programs of a server, with another file as the server itself.
fn copied(binaries: &Path) -> TempDir {
    let folder = TempDir::with_prefix("pgwitness-copied-").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(binaries).unwrap() {
        let program: PathBuf = entry.unwrap().path();
        let place = folder.path().join(program.file_name().unwrap());
        if place.ends_with("postgres") {
            fs::copy(&program, place).unwrap();
        } else {
            symlink(&program, place).unwrap();
        }
    }
    folder
}

fn say(cluster: &Cluster, route: Route, text: &str) {
    let output = Command::new("psql")
        .args(["-X", "-c", text])
        .envs(cluster.client_environment(route))
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
}

/// The different values that the threads of a process have in `/proc/PID/status`.
fn of_all_threads(process: u32, field: &str) -> Vec<String> {
    let mut values: Vec<String> = fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .map(|status| {
            let prefix = format!("{field}:\t");
            let value = status.lines().find_map(|line| line.strip_prefix(&prefix));
            value.unwrap().to_owned()
        })
        .collect();
    values.sort();
    values.dedup();
    values
}

/// Descriptors of eBPF programs and links that a process holds.
fn open_programs(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| {
            let target = target.to_string_lossy();
            target.contains("bpf-prog") || target.contains("bpf_link") || target.contains("bpf-link")
        })
        .count()
}

fn queries(tap: &Tap) -> Vec<Value> {
    whole_events(tap, "query")
}

fn with_text<'a>(queries: &'a [Value], text: &str) -> Vec<&'a Value> {
    let ours = queries.iter().filter(|event| event["statement"]["text"] == text);
    ours.collect()
}

fn events(tap: &Tap, kind: &str) -> Vec<Value> {
    let events = whole_events(tap, kind).into_iter();
    events.map(|event| event[kind].clone()).collect()
}

fn whole_events(tap: &Tap, kind: &str) -> Vec<Value> {
    let sql = format!("SELECT event FROM events WHERE kind = '{kind}' ORDER BY seq");
    let rows = query_folder(tap.collector_binary(), &tap.collector_data(), &sql).unwrap();
    rows.iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect()
}
