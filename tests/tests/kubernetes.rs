//! The real cluster that other tests stand on: that it comes up, runs pods as a node does anywhere, and leaves nothing; and
//! what an agent of its node records of pods, held against what the API says of them.
//!
//! Takes the programs that `cargo xtask setup --kubernetes` builds, and for a node root; is skipped without, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    cluster::free_port,
    kubernetes::{Kubernetes, Node, Programs, User, image::Image},
    process::Process,
    record::query_live,
    tap::{Redaction, Settings, Tap},
    unit::cgroup2_mount,
};
use serde_json::Value;

/// A database, and clients of several kinds of workload.
const SHOP: &str = include_str!("../kubernetes/shop.yaml");

#[tokio::test]
async fn a_control_plane_alone_answers_each_as_far_as_it_may() {
    let Some(programs) = programs() else { return };
    let mut cluster = Kubernetes::without_node(&programs).await.unwrap();
    cluster.namespace("shop").await.unwrap();
    cluster.apply("shop", SHOP).unwrap();
    let until = ["wait", "-n", "shop", "--for=create", "pod/db-0", "--timeout=1s"];
    cluster.until("no pod is made", &until).await.unwrap();
    let may = |user: User, what: &str| {
        let mut kubectl = cluster.kubectl();
        kubectl.env("KUBECONFIG", cluster.configuration(user));
        let output = kubectl.args(["auth", "can-i", "list", what]).output();
        output.unwrap().status.success()
    };
    assert!(may(User::Admin, "secrets"));
    assert!(!may(User::Proxy, "secrets"));
    assert!(may(User::Proxy, "services"));
    let token = cluster.ask(&["create", "token", "default", "-n", "shop"]);
    assert!(token.unwrap().starts_with("ey"), "a signed token of an account");
    let folder = cluster.configuration(User::Admin);
    drop(cluster);
    assert!(!folder.exists());
}

#[tokio::test]
async fn pods_run_on_both_nodes_as_on_any_and_nothing_is_left() {
    let Some(programs) = programs_and_root() else {
        return;
    };
    let mut cluster = nodes_for_shop(&programs, 2).await;
    run_shop(&mut cluster).await;

    // Cgroups have the forms that kubelets give them, in the hierarchy that agents read, and bundles are where agents look.
    let mount = cgroup2_mount().unwrap();
    let group = |node: &Node| mount.join(node.cgroup().trim_start_matches('/'));
    let groups: Vec<PathBuf> = cluster.nodes().iter().map(group).collect();
    let mut clients = BTreeSet::new();
    let mut places = BTreeSet::new();
    let mut running = 0;
    for pod in pods(&cluster) {
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        running += 1;
        let id = container_of(&pod);
        let node = cluster
            .nodes()
            .iter()
            .find(|node| pod["spec"]["nodeName"] == node.name());
        let node = node.unwrap();
        let place = format!(
            "kubepods/{}/pod{}/{id}/cgroup.procs",
            text(&pod, "/status/qosClass").to_lowercase(),
            text(&pod, "/metadata/uid")
        );
        let processes = fs::read_to_string(group(node).join(&place)).unwrap();
        assert!(!processes.is_empty(), "{place}");
        let bundle = PathBuf::from(format!(
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"
        ));
        let mut cat = node.command("reader", Path::new("/bin/cat")).unwrap();
        let bundle: Value = serde_json::from_slice(&cat.arg(bundle).output().unwrap().stdout).unwrap();
        assert_eq!(
            bundle["annotations"]["io.kubernetes.cri.sandbox-name"],
            pod["metadata"]["name"]
        );
        if pod["metadata"]["labels"]["app"] == "web" {
            clients.insert(text(&pod, "/status/podIP"));
            places.insert(node.name().to_owned());
        }
    }
    assert_eq!((running, clients.len(), places.len()), (3, 2, 2));

    // Through the service's address, and yet from their own.
    let query = "SELECT host(client_addr) FROM pg_stat_activity WHERE application_name = 'web'";
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    while seen != clients && Instant::now() < deadline {
        let said = cluster.ask(&in_database(&[
            "psql", "-qAt", "-h", "/tmp", "-U", "postgres", "-c", query,
        ]));
        seen = said.unwrap().lines().map(str::to_owned).collect();
        // Whoever came too early tries again.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(seen, clients);

    let folder = cluster.configuration(User::Admin);
    drop(cluster);
    assert!(!folder.exists());
    for group in groups {
        assert!(!group.exists(), "something still runs in {}", group.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_both_nodes_tell_pods_as_the_api_does() {
    let Some(programs) = programs_and_root() else {
        return;
    };
    let mut cluster = nodes_for_shop(&programs, 2).await;
    let of_node = |node: &Node| Settings {
        at_socket: true,
        through: node.entry("pgwitness-agent").unwrap(),
        keys: vec![
            ("TAP__WITHIN", node.cgroup()),
            ("AGENT__HOST", node.name().to_owned()),
        ],
        ..Redaction::Default.into()
    };
    let mut tap = Tap::start_for_all(of_node(&cluster.nodes()[0])).await.unwrap();
    let mut second = tap.another_agent("second", of_node(&cluster.nodes()[1])).unwrap();
    second.start().await.unwrap();
    run_shop(&mut cluster).await;
    // What people do: a program put into a pod, and a connection that the API server, kubelet and containerd pass on.
    let exec = [
        "psql",
        "host=127.0.0.1 user=postgres application_name=exec",
        "-c",
        "SELECT 4",
    ];
    cluster.ask(&in_database(&exec)).unwrap();
    forwarded(&cluster).await;

    let expected: BTreeMap<String, Value> = pods(&cluster)
        .into_iter()
        .map(|pod| (text(&pod, "/status/podIP"), pod))
        .collect();
    let server = expected
        .values()
        .find(|pod| pod["metadata"]["name"] == "db-0")
        .unwrap();
    let wanted = BTreeSet::from(["exec", "forwarded", "once", "report", "web"].map(str::to_owned));
    let mut statements = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        statements = Statement::all(&tap);
        let names: BTreeSet<String> = statements.iter().map(Statement::program).collect();
        // What the other node's agent tells comes a little later.
        if names == wanted && !statements.iter().any(Statement::is_of_an_address) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut told = BTreeSet::new();
    let mut levels = BTreeSet::new();
    for Statement { event, who } in &statements {
        let pod = match text(event, "/session/application_name").as_str() {
            // Who stands at the other end of the tunnel is not known on the node.
            "forwarded" => {
                assert_eq!(who["principal"], "unknown", "{who}");
                continue;
            }
            "exec" => server,
            _ => &expected[&text(event, "/session/client/addr")],
        };
        let level = match pod["spec"]["nodeName"] == server["spec"]["nodeName"] {
            true => "observed",
            false => "joined",
        };
        assert_eq!(who["confidence"], level, "{event} {who}");
        for key in ["name", "namespace", "uid"] {
            assert_eq!(who["pod"][key], pod["metadata"][key], "{event} {who}");
        }
        let container = &pod["spec"]["containers"][0];
        assert_eq!(who["container"]["id"], container_of(pod), "{event} {who}");
        assert_eq!(who["container"]["name"], container["name"], "{event} {who}");
        assert_eq!(who["container"]["image"], container["image"], "{event} {who}");
        told.insert(text(pod, "/metadata/name"));
        levels.insert(level);
    }
    // Both of the deployment, the two jobs, and the server's own for what was put into it.
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(levels.len(), 2, "pods of both nodes speak to the server");
    second.stop().await.unwrap();
    tap.stop().await.unwrap();
}

/// A statement of the shop's role, and whose it is by all that is known.
struct Statement {
    event: Value,
    who: Value,
}

impl Statement {
    fn all(tap: &Tap) -> Vec<Self> {
        let sql = "SELECT event, event_id, amended_by FROM events WHERE kind = 'attribution' OR kind = 'query' \
                   AND login_role = 'postgres' ORDER BY agent, seq LIMIT 5000";
        let rows = query_live(tap.http_port(), sql).unwrap();
        let event = |row: &Value| match &row["event"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            other => other.clone(),
        };
        let events: BTreeMap<String, Value> = rows
            .iter()
            .map(|row| (text(row, "/event_id"), event(row)))
            .collect();
        let of_row = |row: &Value| {
            let event = event(row);
            let amendment = row["amended_by"].as_str().and_then(|id| events.get(id));
            let who = amendment.unwrap_or(&event)["attribution"].clone();
            (event["kind"] == "query").then_some(Self { event, who })
        };
        rows.iter().filter_map(of_row).collect()
    }

    fn program(&self) -> String {
        text(&self.event, "/session/application_name")
    }

    fn is_of_an_address(&self) -> bool {
        text(&self.who, "/principal").contains("/addr/")
    }
}

/// A statement through `kubectl port-forward`.
async fn forwarded(cluster: &Kubernetes) {
    let port = free_port().unwrap();
    let mut kubectl = cluster.kubectl();
    kubectl
        .args([
            "port-forward",
            "--namespace",
            "shop",
            "db-0",
            &format!("{port}:5432"),
        ])
        .stdout(Stdio::null());
    let _forward = Process::start("kubectl port-forward", &mut kubectl, Signal::SIGTERM).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut asked = false;
    while !asked && Instant::now() < deadline {
        let output = Command::new("psql")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
            .args(["-d", "postgres", "-c", "SELECT 5"])
            .env("PGAPPNAME", "forwarded")
            .output();
        asked = output.unwrap().status.success();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(asked, "nothing comes through");
}

/// Nodes that have the shop's images, and nothing runs on them yet.
async fn nodes_for_shop(programs: &Programs, count: usize) -> Kubernetes {
    let mut cluster = Kubernetes::with_nodes(programs, count).await.unwrap();
    for tag in ["localhost/postgres:1", "localhost/shop:1"] {
        let image = Image::postgres().unwrap();
        // Of two names of one image a runtime tells any.
        image.text("etc/image", tag).unwrap();
        cluster
            .import(&image.pack(&[tag], 100, &["/bin/sh"]).unwrap())
            .unwrap();
    }
    cluster.namespace("shop").await.unwrap();
    cluster
}

/// Until the server answers, both clients stay with it, and both jobs are done.
async fn run_shop(cluster: &mut Kubernetes) {
    cluster.apply("shop", SHOP).unwrap();
    for what in ["statefulset/db", "deployment/web"] {
        let status = ["rollout", "status", "-n", "shop", what, "--timeout=1s"];
        cluster.until(what, &status).await.unwrap();
    }
    let report = [
        "create",
        "job",
        "-n",
        "shop",
        "report-now",
        "--from=cronjob/report",
    ];
    cluster.ask(&report).unwrap();
    for job in ["job/once", "job/report-now"] {
        let wait = [
            "wait",
            "-n",
            "shop",
            "--for=condition=Complete",
            job,
            "--timeout=1s",
        ];
        cluster.until(job, &wait).await.unwrap();
    }
}

fn pods(cluster: &Kubernetes) -> Vec<Value> {
    let said = cluster.ask(&["get", "pods", "-n", "shop", "-o", "json"]).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    said["items"].as_array().unwrap().clone()
}

/// `kubectl exec`, of these words.
fn in_database<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let kubectl = ["exec", "--namespace", "shop", "db-0", "--"];
    [kubectl.as_slice(), words].concat()
}

fn container_of(pod: &Value) -> String {
    let id = text(pod, "/status/containerStatuses/0/containerID");
    id.strip_prefix("containerd://").unwrap().to_owned()
}

fn programs() -> Option<Programs> {
    Programs::find()
        .inspect_err(|error| eprintln!("not run: {error:#}"))
        .ok()
}

fn programs_and_root() -> Option<Programs> {
    if !geteuid().is_root() {
        eprintln!("not run without root: a node has namespaces and cgroups");
        return None;
    }
    programs()
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .unwrap_or_else(|| panic!("no {pointer} in {value}"))
        .to_owned()
}

/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(60);
