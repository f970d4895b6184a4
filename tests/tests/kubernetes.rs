//! The real cluster that other tests stand on: that it comes up, runs pods as a node does anywhere, and leaves nothing.
//!
//! Takes the programs that `cargo xtask setup --kubernetes` builds, and for a node root; is skipped without, and says so.

#![expect(clippy::panic, reason = "a test that cannot go on fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use pgwitness_tests::{
    kubernetes::{Kubernetes, Programs, User, image::Image},
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
    let pods = ["get", "pods", "-n", "shop", "-o", "name"];
    let until = ["wait", "-n", "shop", "--for=create", "pod/db-0", "--timeout=1s"];
    cluster.until("no pod is made", &until).await.unwrap();
    assert!(cluster.ask(&pods).unwrap().contains("pod/db-0"));
    let may = |user: User, what: &str| {
        let mut kubectl = cluster.kubectl();
        kubectl.env("KUBECONFIG", cluster.configuration(user));
        kubectl
            .args(["auth", "can-i", "list", what])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(may(User::Admin, "secrets"));
    assert!(!may(User::Proxy, "secrets"));
    assert!(may(User::Proxy, "services"));
    let folder = cluster.configuration(User::Admin).parent().unwrap().to_owned();
    drop(cluster);
    assert!(!folder.exists());
}

#[tokio::test]
async fn pods_run_as_on_any_node_and_nothing_is_left() {
    let Some(programs) = programs() else { return };
    if !geteuid().is_root() {
        return eprintln!("not run without root: a node has namespaces and cgroups");
    }
    let mut cluster = Kubernetes::with_node(&programs).await.unwrap();
    let image = Image::postgres().unwrap();
    let archive = image.pack(&["localhost/postgres:1", "localhost/shop:1"], 100, &["/bin/sh"]);
    cluster.import(&archive.unwrap()).unwrap();
    cluster.namespace("shop").await.unwrap();
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

    // Cgroups have the forms that kubelets give them, in the hierarchy that agents read, and bundles are where agents look.
    let pods: Value =
        serde_json::from_str(&cluster.ask(&["get", "pods", "-n", "shop", "-o", "json"]).unwrap()).unwrap();
    let group = cgroup2_mount()
        .unwrap()
        .join(cluster.node_cgroup().unwrap().trim_start_matches('/'));
    let mut clients = BTreeSet::new();
    let mut running = 0;
    for pod in pods["items"].as_array().unwrap() {
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        running += 1;
        let (uid, class) = (text(pod, "/metadata/uid"), text(pod, "/status/qosClass"));
        let id = text(pod, "/status/containerStatuses/0/containerID");
        let id = id.strip_prefix("containerd://").unwrap();
        let place = group.join(format!("kubepods/{}/pod{uid}/{id}", class.to_lowercase()));
        let processes = fs::read_to_string(place.join("cgroup.procs")).unwrap();
        assert!(!processes.is_empty(), "{}", place.display());
        let bundle = PathBuf::from(format!(
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"
        ));
        let read = cluster
            .on_node("reader", Path::new("/bin/cat"))
            .unwrap()
            .arg(bundle)
            .output()
            .unwrap();
        let bundle: Value = serde_json::from_slice(&read.stdout).unwrap();
        assert_eq!(
            bundle["annotations"]["io.kubernetes.cri.sandbox-name"],
            pod["metadata"]["name"]
        );
        if pod["metadata"]["labels"]["app"] == "web" {
            clients.insert(text(pod, "/status/podIP"));
        }
    }
    assert_eq!((running, clients.len()), (3, 2));

    // Through the service's address, and yet from their own.
    let query = "SELECT host(client_addr) FROM pg_stat_activity WHERE application_name = 'web'";
    let psql = [
        "exec", "-n", "shop", "db-0", "--", "psql", "-qAt", "-h", "/tmp", "-U", "postgres", "-c", query,
    ];
    let mut seen = BTreeSet::new();
    // Whoever came too early tries again.
    for _ in 0..20 {
        seen = cluster.ask(&psql).unwrap().lines().map(str::to_owned).collect();
        if seen == clients {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(seen, clients);

    let folder = cluster.configuration(User::Admin).parent().unwrap().to_owned();
    drop(cluster);
    assert!(!folder.exists());
    assert!(!group.exists(), "something still runs in {}", group.display());
}

fn programs() -> Option<Programs> {
    Programs::find()
        .inspect_err(|error| eprintln!("not run: {error:#}"))
        .ok()
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .unwrap_or_else(|| panic!("no {pointer} in {value}"))
        .to_owned()
}
