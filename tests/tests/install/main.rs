//! What docs/kubernetes.md promises, on a real node: the documented commands, and nothing else, install, upgrade and purge; an attributed
//! statement is seen; purge leaves the evidence and nothing in the kernel; and pods are given what `cargo xtask image --bundle` says.
//!
//! Takes what `cargo xtask setup --kubernetes` builds, and for a node root; is skipped without, and says so. Some two minutes on two cores, most
//! of it for images: programs of the dev profile are large.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

mod bundle;
mod kernel;

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
    kubernetes::{Kubernetes, Programs, image::Image},
    process::Process,
    record::query_live,
    tap::sibling,
    unit::cgroup2_mount,
};
use serde_json::Value;
use tempfile::TempDir;

use kernel::InKernel;

/// A database, and clients of several kinds of workload.
const SHOP: &str = include_str!("../../kubernetes/shop.yaml");
/// What the cluster lacks.
const LACKING: &str = include_str!("../../kubernetes/install.yaml");

#[tokio::test]
async fn an_api_server_takes_every_object_as_it_is() {
    let Some(programs) = programs() else { return };
    let mut cluster = Kubernetes::without_node(&programs)
        .await
        .expect("a control plane");
    cluster.namespace("pgwitness").await.expect("a namespace");
    let try_out = ["apply", "--server-side", "--dry-run=server", "--validate=strict"];
    let standard = deploy("overlays/standard");
    let of_files = cluster.ask(&[&try_out[..], &["-k", &standard]].concat());
    let of_files = names(&of_files.expect("the overlay is taken"));
    assert!(of_files.len() > 10, "{of_files:?}");
    for example in ["examples/backup.yaml", "examples/restore.yaml"] {
        let file = deploy(example);
        let of_example = [&try_out[..], &["--namespace", "pgwitness", "-f", &file]].concat();
        cluster.ask(&of_example).expect("the example is taken");
    }
    for settings in [
        "agent.linux66=false",
        "agent.linux66=true,agent.fleetKeySecret=fleet",
    ] {
        let rendered = cluster
            .helm()
            .args(["template", "pgwitness", &deploy("chart")])
            // Without a cluster Helm takes an old one for granted.
            .args(["--kube-version", "1.34.4", "--namespace", "pgwitness"])
            .args(["--set", settings])
            .output()
            .expect("helm");
        let problem = String::from_utf8_lossy(&rendered.stderr).into_owned();
        assert!(rendered.status.success(), "{problem}");
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("rendered.yaml");
        fs::write(&file, rendered.stdout).expect("written");
        let file = file.to_string_lossy().into_owned();
        let into = ["--namespace", "pgwitness", "-f", &file];
        let of_chart = cluster.ask(&[&try_out[..], &into].concat());
        let mut of_chart = names(&of_chart.expect("the chart is taken"));
        of_chart.insert("namespace/pgwitness".to_owned());
        assert_eq!(of_chart, of_files);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_installs_and_another_purges_and_the_record_goes_on() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a node has namespaces and cgroups");
    }
    let Some(programs) = programs() else { return };
    let images = images();
    let mut site = Site::open(&programs, images.path()).await;

    // Installed.
    site.ask(&["apply", "-k", &deploy("overlays/standard")]);
    site.ready().await;
    site.shop().await;
    let first = site.statements().await;
    let agents = site.column("SELECT DISTINCT agent FROM events WHERE kind = 'agent_start'");
    let [agent] = agents.as_slice() else {
        panic!("one agent: {agents:?}")
    };
    assert!(agent.starts_with("node-1-"), "{agent}");
    let expected = fs::read_to_string(images.path().join("bundle/config.json"));
    let expected = serde_json::from_str(&expected.expect("the bundle")).expect("JSON");
    bundle::is_given(&site.container(), &expected);
    let kernel = InKernel::of(&site.processes("pgwitness-agent"));
    assert!(kernel.is_all_loaded(), "{kernel:?}");

    // Upgraded.
    for what in WORKLOADS {
        site.ask(&["rollout", "restart", "-n", "pgwitness", what]);
    }
    site.ready().await;
    let second = site.statements().await;
    kernel.is_gone();
    let kernel = InKernel::of(&site.processes("pgwitness-agent"));
    site.nothing_is_silent(&first, &second);
    site.chain_is_whole(agent, 2);
    let within = ["-n", "pgwitness", COLLECTOR, "--", "/usr/bin/pgwitness-collector"];
    site.ask(&[&["exec"][..], &within[..], &["verify", "--data", DATA]].concat());
    let listed = site.ask(&[&["exec"][..], &within[..], &["agent", "list"]].concat());
    assert!(listed.contains(agent.as_str()), "{listed}");

    // Purged.
    site.forward = None;
    site.ask(&["delete", "-k", &deploy("base"), "--wait"]);
    site.gone().await;
    kernel.is_gone();
    site.evidence_stays();

    // Installed again, by Helm.
    site.ask(&["delete", "configmap", "-n", "pgwitness", "pgwitness-agent"]);
    let within = site.cluster.nodes().first().expect("a node").cgroup();
    let setting = format!("agent.settings.PGWITNESS_AGENT__TAP__WITHIN={within}");
    site.helm(&["install", "pgwitness", &deploy("chart"), "--set", &setting]);
    site.ready().await;
    site.statements().await;
    site.chain_is_whole(agent, 3);
    let kernel = InKernel::of(&site.processes("pgwitness-agent"));
    site.forward = None;
    site.helm(&["uninstall", "pgwitness", "--wait"]);
    site.gone().await;
    kernel.is_gone();
    site.evidence_stays();
}

/// A cluster of one node with a shop, and what reads the collector.
struct Site {
    // Dropped first.
    forward: Option<(Process, u16)>,
    cluster: Kubernetes,
}

impl Site {
    /// Nothing of pgwitness runs yet; its images are there, and what the cluster lacks.
    async fn open(programs: &Programs, images: &Path) -> Self {
        let mut cluster = Kubernetes::with_nodes(programs, 1).await.expect("a cluster");
        for tag in ["localhost/postgres:1", "localhost/shop:1"] {
            let image = Image::postgres().expect("an image");
            image.text("etc/image", tag).expect("a mark");
            let archive = image.pack(&[tag], 100, &["/bin/sh"]).expect("packed");
            cluster.import(&archive).expect("imported");
        }
        for name in ["pgwitness-agent", "pgwitness-collector"] {
            let archive = images.join(format!("{name}.tar"));
            cluster.import(&archive).expect("imported");
        }
        for name in ["shop", "pgwitness"] {
            cluster.namespace(name).await.expect("a namespace");
        }
        let site = Self {
            forward: None,
            cluster,
        };
        site.on_node("/bin/mkdir", &["-p", VOLUME]);
        let within = site.cluster.nodes().first().expect("a node").cgroup();
        let lacking = LACKING.replace("%cgroup%", &within);
        site.cluster.apply("pgwitness", &lacking).expect("applied");
        site
    }

    fn ask(&self, words: &[&str]) -> String {
        self.cluster.ask(words).expect("kubectl")
    }

    fn helm(&self, words: &[&str]) {
        let mut helm = self.cluster.helm();
        // As documented; the namespace is there already, which Helm takes.
        helm.args(words).args(["--namespace", "pgwitness"]);
        if words.first() == Some(&"install") {
            helm.arg("--create-namespace");
        }
        let output = helm.output().expect("helm");
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "helm {words:?}: {problem}");
    }

    /// What a program says on the node.
    fn on_node(&self, program: &str, words: &[&str]) -> String {
        let node = self.cluster.nodes().first().expect("a node");
        let mut command = node.command("reader", Path::new(program)).expect("a service");
        let output = command.args(words).output().expect("it runs");
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {words:?}: {problem}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Until agent and collector are, both of the newest form.
    async fn ready(&mut self) {
        self.forward = None;
        for what in WORKLOADS {
            let status = ["rollout", "status", "-n", "pgwitness", what, "--timeout=1s"];
            if let Err(problem) = self.cluster.until(what, &status).await {
                panic!("{problem:#}\n{}", self.state());
            }
        }
        let port = free_port().expect("a port");
        let mut kubectl = self.cluster.kubectl();
        kubectl
            .args(["port-forward", "-n", "pgwitness", COLLECTOR])
            .arg(format!("{port}:7480"))
            .stdout(Stdio::null());
        let forward = Process::start("kubectl port-forward", &mut kubectl, Signal::SIGTERM);
        self.forward = Some((forward.expect("started"), port));
    }

    /// What there is to know of what does not do what it should.
    fn state(&self) -> String {
        let pods = ["describe", "pods", "-n", "pgwitness"];
        let agent = [
            "logs",
            "-n",
            "pgwitness",
            "ds/pgwitness-agent",
            "--all-containers",
        ];
        let collector = ["logs", "-n", "pgwitness", COLLECTOR];
        let mut told = String::new();
        for words in [&pods[..], &agent, &collector] {
            told += &format!("{words:?}: ");
            told += &self
                .cluster
                .ask(words)
                .unwrap_or_else(|error| format!("{error:#}"));
            told.push('\n');
        }
        told
    }

    /// Until the server answers and clients speak to it.
    async fn shop(&mut self) {
        self.cluster.apply("shop", SHOP).expect("applied");
        for what in ["statefulset/db", "deployment/web"] {
            let status = ["rollout", "status", "-n", "shop", what, "--timeout=1s"];
            self.cluster.until(what, &status).await.expect("the shop");
        }
    }

    fn query(&self, sql: &str) -> Result<Vec<Value>, String> {
        let (_, port) = self.forward.as_ref().ok_or("nothing leads to the collector")?;
        query_live(*port, sql).map_err(|error| format!("{error:#}"))
    }

    fn column(&self, sql: &str) -> Vec<String> {
        let rows = self.query(sql).expect("an answer");
        let first = |row: &Value| row.as_object().and_then(|row| row.values().next()).cloned();
        let cells = rows.iter().filter_map(first);
        cells
            .map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned))
            .collect()
    }

    /// Numbers of the statements of each session of the web's pods, once some came newly, and all of them have their name. They are known
    /// by their text: an agent that started later was not told what the application calls itself.
    async fn statements(&self) -> Sessions {
        let sql = "SELECT session_id, statement, principal, event_id FROM events WHERE kind = 'query' \
                   AND statement LIKE 'SELECT ? AS n%' ORDER BY agent, seq LIMIT 9000";
        let principal = "spiffe://cluster.local/ns/shop/sa/web";
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let rows = self.query(sql);
            let mut sessions = Sessions::new();
            let mut named = true;
            for row in rows.iter().flatten() {
                let statement = row["statement"].as_str().unwrap_or_default();
                let number = statement.trim_end_matches(';').rsplit_once(" AS n");
                let number = number.and_then(|(_, number)| number.parse().ok());
                let number: u64 = number.unwrap_or_else(|| panic!("no number in {row}"));
                let session = row["session_id"].as_str().expect("a session").to_owned();
                sessions.entry(session).or_default().insert(number);
                named &= row["principal"] == principal;
            }
            let count: usize = sessions.values().map(BTreeSet::len).sum();
            // What is told after the first look was made behind the newest start.
            if rows.is_ok() && named && count > 0 && *before.get_or_insert(count) + 4 <= count {
                return sessions;
            }
            if Instant::now() > deadline {
                let last = rows.map(|rows| rows.last().cloned());
                panic!("no statements of {principal}: {last:?}\n{}", self.state());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Each session that was there before goes on, and what is not told of it is told missing.
    fn nothing_is_silent(&self, before: &Sessions, after: &Sessions) {
        let gaps = self.column("SELECT DISTINCT session_id FROM events WHERE kind = 'gap'");
        let mut missing = 0;
        for (session, told) in after.iter().filter(|(session, _)| before.contains_key(*session)) {
            let newest = before.get(session).and_then(BTreeSet::last);
            assert!(told.last() > newest, "{session} ended with the upgrade");
            let (first, last) = (told.first().expect("some"), told.last().expect("some"));
            let count = u64::try_from(told.len()).expect("a count");
            let holes = last - first + 1 - count;
            assert!(
                holes == 0 || gaps.contains(session),
                "{session}: {holes} are untold"
            );
            missing += holes;
        }
        assert!(missing > 0, "nothing was said meanwhile, so nothing was tried");
    }

    /// One chain of the node, without holes, over so many runs.
    fn chain_is_whole(&self, agent: &str, runs: usize) {
        let starts = self.column("SELECT agent FROM events WHERE kind = 'agent_start'");
        assert_eq!(starts, vec![agent.to_owned(); runs]);
        let sql = format!(
            "SELECT count(DISTINCT seq) AS n, min(seq) AS lowest, max(seq) AS highest FROM events WHERE agent = '{agent}'"
        );
        let rows = self.query(&sql).expect("an answer");
        let row = rows.first().expect("a row");
        assert_eq!(
            (row["lowest"].as_u64(), &row["n"]),
            (Some(1), &row["highest"]),
            "{row}"
        );
    }

    /// All processes of the containers of these pods.
    fn processes(&self, app: &str) -> Vec<u32> {
        let selector = format!("app.kubernetes.io/name={app}");
        let pods = self.ask(&["get", "pods", "-n", "pgwitness", "-l", &selector, "-o", "json"]);
        let pods: Value = serde_json::from_str(&pods).expect("JSON");
        let mut found = Vec::new();
        for pod in pods.pointer("/items").and_then(Value::as_array).expect("a list") {
            let uid = pod
                .pointer("/metadata/uid")
                .and_then(Value::as_str)
                .expect("a uid");
            let below = self.pods_folder().join(format!("burstable/pod{uid}"));
            collect_processes(&below, &mut found);
        }
        // With the one that holds the pod's namespaces.
        assert!(found.len() >= 3, "{app} is two processes: {found:?}");
        found
    }

    /// Where the cgroups of pods are, in the hierarchy that agents read.
    fn pods_folder(&self) -> PathBuf {
        let node = self.cluster.nodes().first().expect("a node");
        let mount = cgroup2_mount().expect("a hierarchy");
        mount.join(node.cgroup().trim_start_matches('/')).join("kubepods")
    }

    /// What containerd made of the agent's container.
    fn container(&self) -> Value {
        let path = "jsonpath={.items[0].status.containerStatuses[0].containerID}";
        let selector = "app.kubernetes.io/name=pgwitness-agent";
        let id = self.ask(&["get", "pods", "-n", "pgwitness", "-l", selector, "-o", path]);
        let id = id.strip_prefix("containerd://").expect("an id");
        let file = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
        serde_json::from_str(&self.on_node("/bin/cat", &[&file])).expect("JSON")
    }

    /// Until no pod is left, and no process.
    async fn gone(&mut self) {
        let wait = [
            "wait",
            "--for=delete",
            "pod",
            "--all",
            "-n",
            "pgwitness",
            "--timeout=1s",
        ];
        self.cluster.until("pods stay", &wait).await.expect("they go");
        let mut left = Vec::new();
        collect_processes(&self.pods_folder(), &mut left);
        for process in left {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            assert!(!name.starts_with("pgwitness"), "{name} still runs");
        }
    }

    /// What purge leaves: the claim, the namespace, a record that verifies, and the node's key and spool.
    fn evidence_stays(&self) {
        let claim = ["get", "pvc", "-n", "pgwitness", "record-pgwitness-collector-0"];
        let phase = self.ask(&[&claim[..], &["-o", "jsonpath={.status.phase}"]].concat());
        assert_eq!(phase, "Bound");
        let collector = sibling("pgwitness-collector").expect("built");
        let record = format!("{VOLUME}/collector");
        self.on_node(&collector.to_string_lossy(), &["verify", "--data", &record]);
        let state = self.on_node("/bin/ls", &["-R", "/var/lib/pgwitness/agent"]);
        for part in ["key", "spool"] {
            assert!(state.contains(part), "{part}: {state}");
        }
    }
}

/// The numbers that were said in each session.
type Sessions = BTreeMap<String, BTreeSet<u64>>;

fn collect_processes(group: &Path, into: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    into.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect_processes(&entry.path(), into);
        }
    }
}

/// `KIND/NAME` of each object that kubectl told of.
fn names(told: &str) -> BTreeSet<String> {
    let first = |line: &str| line.split(' ').next().map(str::to_owned);
    told.lines().filter_map(first).collect()
}

/// Both images, and the agent's bundle, of the programs beside this one.
fn images() -> TempDir {
    let folder = TempDir::with_prefix("pgwitness-images-").expect("a folder");
    let xtask = sibling("xtask").expect("cargo xtask is built");
    let output = Command::new(&xtask)
        .args(["image", "--programs"])
        .arg(xtask.parent().expect("a folder"))
        .arg("--to")
        .arg(folder.path())
        .arg("--bundle")
        .arg(folder.path().join("bundle"))
        // The workspace is where this package is.
        .env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("xtask");
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{problem}");
    folder
}

fn deploy(folder: &str) -> String {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
    all.join(folder).to_string_lossy().into_owned()
}

fn programs() -> Option<Programs> {
    Programs::find()
        .inspect_err(|error| eprintln!("not run: {error:#}"))
        .ok()
}

const WORKLOADS: [&str; 2] = ["statefulset/pgwitness-collector", "daemonset/pgwitness-agent"];
/// The record, as the pod sees it.
const DATA: &str = "/var/lib/pgwitness/collector";
const COLLECTOR: &str = "statefulset/pgwitness-collector";
/// Where the volume lies on the node.
const VOLUME: &str = "/var/lib/record";
/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(60);
