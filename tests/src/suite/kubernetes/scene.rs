//! A cluster of two nodes with an agent each, a collector that hears the API server through the proxy, and what happens in it.
//!
//! Owns all of it and its end. What happens is chosen by the round's number alone. A pod is ended at the earliest in the round after it was
//! made, and rounds begin when the collector hears of pods: of a pod whose whole life nobody could hear of, nobody can know the name.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::judge::{Findings, Known, judge};
use super::proxy::{Done, Proxy, now_ns};
use super::workloads::{self, BACK, BATCH, CLIENT, CLIENTS, COLLECTOR, IMAGE, NAMESPACES, OURS, SHOP};
use super::{record, truth};
use crate::kubernetes::image::Image;
use crate::kubernetes::{Kubernetes, Node, Programs};
use crate::screen::progress;
use crate::suite::settle;
use crate::tap::{Agent, Redaction, Settings, Tap};

/// Everything. Dropped from the top: who asks before who answers.
#[derive(Debug)]
pub(super) struct Scene {
    others: Vec<Agent>,
    tap: Tap,
    proxy: Proxy,
    cluster: Kubernetes,
    truth: truth::Truth,
    home: TempDir,
    /// Seconds between two connections of a client.
    pause: &'static str,
    /// When the API server did not answer the collector.
    away: Vec<(i64, i64)>,
    restarts: u64,
}

/// What was done to it.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) findings: Findings,
    pub(super) done: Done,
    pub(super) restarts: u64,
}

impl Scene {
    /// Everything runs, and nobody connects yet.
    pub(super) async fn open(programs: &Programs, pause: &'static str) -> Result<Self> {
        let home = TempDir::with_prefix("pgwitness-names-")?;
        let log = home.path().join(LOG);
        fs::create_dir(&log)?;
        fs::set_permissions(&log, fs::Permissions::from_mode(0o777))?;
        progress("a cluster of two nodes");
        let mut cluster = Kubernetes::with_nodes(programs, 2).await?;
        let mut image = Image::postgres()?;
        image.file(Path::new(BOUNCER))?;
        image.text(CLIENT, PROGRAM)?;
        cluster.import(&image.pack(&[IMAGE], 100, &["/bin/sh"])?)?;
        for namespace in NAMESPACES {
            cluster.namespace(namespace).await?;
            cluster.apply(namespace, &workloads::accounts(namespace).to_string())?;
        }
        cluster.namespace(OURS).await?;
        cluster.apply(OURS, &workloads::collector().to_string())?;
        let proxy = Proxy::start(&cluster).await?;
        let configuration = home.path().join("kubeconfig");
        let token = cluster.ask(&["create", "token", COLLECTOR, "-n", OURS, "--duration=8h"])?;
        fs::write(&configuration, access(&proxy, token.trim()).to_string())?;
        progress("agents and collector");
        let mut settings = cluster
            .nodes()
            .iter()
            .map(of_node)
            .collect::<Result<Vec<Settings>>>()?
            .into_iter();
        let keys = vec![
            ("KUBERNETES__KUBECONFIG", configuration.display().to_string()),
            ("KUBERNETES__TRUST_DOMAIN", TRUST_DOMAIN.to_owned()),
            ("KUBERNETES__POD_NETWORKS", format!("[\"{POD_NETWORK}\"]")),
        ];
        let tap = Tap::start_with(settings.next().context("no node")?, keys).await?;
        let mut others = Vec::new();
        for (number, settings) in settings.enumerate() {
            let mut agent = tap.another_agent(&format!("other-{number}"), settings)?;
            agent.start().await?;
            others.push(agent);
        }
        progress("database and pooler");
        cluster.apply(SHOP, &workloads::database(&log).to_string())?;
        rolled_out(&mut cluster, "statefulset/db").await?;
        cluster.apply(SHOP, &workloads::pooler().to_string())?;
        rolled_out(&mut cluster, "deployment/pooler").await?;
        Ok(Self {
            others,
            tap,
            proxy,
            cluster,
            truth: truth::Truth::default(),
            home,
            pause,
            away: Vec::new(),
            restarts: 0,
        })
    }

    /// Begins with what stays.
    pub(super) fn begin(&self) -> Result<()> {
        for namespace in NAMESPACES {
            let all = workloads::standing(namespace, self.pause);
            self.cluster.apply(namespace, &all.to_string())?;
        }
        self.wander(0)
    }

    /// How many connections the database's log has so far.
    pub(super) fn connections(&self) -> Result<u64> {
        let log = fs::read_to_string(self.log()).context("the server's log")?;
        Ok(log.matches("/* mark=").count() as u64)
    }

    /// One round: something happens between the collector and the API server, and meanwhile pods come and go.
    pub(super) async fn round(&mut self, number: usize, with_database: bool) -> Result<()> {
        self.heard().await?;
        let deed = DEEDS.get(number % DEEDS.len()).copied().unwrap_or(Deed::Hold);
        progress(&format!(
            "round {number}: {deed:?}; {} connections so far",
            self.connections()?
        ));
        match deed {
            Deed::Hold => self.proxy.hold(LONGEST_HOLD),
            Deed::Cut => self.proxy.cut(),
            Deed::Gone => self.proxy.say_gone(),
            Deed::Refuse => self.proxy.refuse(true),
            Deed::Restart => self.restart().await?,
        }
        let began = now_ns();
        self.churn(number, with_database).await?;
        match deed {
            Deed::Hold => {
                tokio::time::sleep(LONGEST_HOLD).await;
                self.proxy.hold(Duration::ZERO);
            }
            Deed::Refuse => {
                tokio::time::sleep(REFUSED).await;
                self.proxy.refuse(false);
                self.away.push((began, now_ns()));
            }
            // Once more, while what was new comes.
            Deed::Cut => self.proxy.cut(),
            Deed::Gone | Deed::Restart => {}
        }
        tokio::time::sleep(BETWEEN).await;
        Ok(())
    }

    /// The API server ends as by a crash, stays away, and comes back.
    async fn restart(&mut self) -> Result<()> {
        let began = now_ns();
        self.cluster.kill_server().await?;
        tokio::time::sleep(AWAY).await;
        self.cluster.start_server().await?;
        self.away.push((began, now_ns()));
        self.restarts += 1;
        // What it could not write down any more when it was killed.
        self.list()
    }

    fn list(&mut self) -> Result<()> {
        let said = self
            .cluster
            .ask(&["get", "pods,replicasets,jobs", "-A", "-o", "json"])?;
        self.truth.list(&said)
    }

    /// Pods come and go.
    async fn churn(&mut self, number: usize, with_database: bool) -> Result<()> {
        // The next pods get the lowest addresses that are free: those of who has just gone.
        for node in self.cluster.nodes() {
            let mut rm = node.command("addresses", Path::new("/bin/rm"))?;
            rm.args(["-f", LAST_ADDRESS]).status().context("running rm")?;
        }
        let ask = |arguments: &[&str]| self.cluster.ask(arguments).map(drop);
        match number % 4 {
            0 => ask(&["rollout", "restart", "-n", SHOP, "deployment/web"])?,
            1 => ask(&["delete", "pods", "-n", SHOP, "-l", "app=stock", "--wait=false"])?,
            2 => {
                ask(&["rollout", "restart", "-n", BACK, "deployment/api"])?;
                ask(&["delete", "pods", "-n", BACK, "-l", "app=cache", "--wait=false"])?;
            }
            _ => {
                ask(&["delete", "pods", "-n", BACK, "-l", "app=probe", "--wait=false"])?;
                ask(&["rollout", "restart", "-n", BATCH, "deployment/mixed"])?;
            }
        }
        if number % 6 == 3 {
            ask(&["delete", "pods", "-n", SHOP, "-l", "app=pooler", "--wait=false"])?;
        }
        if let Some(before) = number.checked_sub(1) {
            let before = format!("once-{before}");
            ask(&["delete", "pod", "-n", SHOP, &before, "--wait=false"])?;
        }
        self.wander(number + 1)?;
        let once = workloads::once(&format!("once-{number}"));
        self.cluster.apply(SHOP, &once.to_string())?;
        let job = workloads::job(&format!("import-{number}"));
        self.cluster.apply(BATCH, &job.to_string())?;
        let report = format!("report-now-{number}");
        ask(&["create", "job", "-n", BATCH, &report, "--from=cronjob/report"])?;
        let ready = [
            "wait",
            "-n",
            SHOP,
            "--for=condition=Ready",
            "pod/wanderer",
            "--timeout=1s",
        ];
        self.cluster.until("a pod is not ready", &ready).await?;
        let program = format!("/{CLIENT}");
        let exec = [
            "exec", "-n", SHOP, "wanderer", "--", "sh", &program, "exec", "8", "0",
        ];
        self.cluster.ask(&exec)?;
        if with_database && number % 10 == 8 {
            let delete = [
                "delete",
                "pod",
                "-n",
                SHOP,
                "db-0",
                "--wait=true",
                "--timeout=240s",
            ];
            self.cluster.ask(&delete)?;
            rolled_out(&mut self.cluster, "statefulset/db").await?;
        }
        Ok(())
    }

    /// Makes a pod again under the same name, with another account.
    fn wander(&self, number: usize) -> Result<()> {
        let account = if number.is_multiple_of(2) {
            "wander-a"
        } else {
            "wander-b"
        };
        self.cluster.ask(&[
            "delete",
            "pod",
            "-n",
            SHOP,
            "wanderer",
            "--ignore-not-found",
            "--wait=true",
            "--timeout=240s",
        ])?;
        let wanderer = workloads::bare("wanderer", account, self.pause);
        self.cluster.apply(SHOP, &wanderer.to_string())
    }

    /// Waits until the collector hears of pods.
    async fn heard(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.proxy.is_heard() {
            ensure!(Instant::now() < deadline, "the collector does not watch pods");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends the clients, waits for everything, stops the tap and compares.
    pub(super) async fn finish(mut self, keep: bool) -> Result<Figures> {
        progress("the end");
        self.heard().await?;
        self.list()?;
        for namespace in NAMESPACES {
            let kinds = "cronjobs,jobs,deployments,statefulsets,daemonsets,replicasets,pods";
            self.cluster
                .ask(&["delete", kinds, "-n", namespace, "-l", CLIENTS, "--wait=false"])?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self
                .cluster
                .ask(&["get", "pods", "-A", "-l", CLIENTS, "-o", "name"])?;
            if left.trim().is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "clients do not end: {left}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        settle(&self.tap).await?;
        // What has no name by then gets none.
        tokio::time::sleep(LAST_NAMES).await;
        settle(&self.tap).await?;
        self.truth.read(&self.cluster.audit())?;
        for other in &mut self.others {
            other.stop().await?;
        }
        self.tap.stop().await?;
        let (verified, verdict) = self.tap.verify()?;
        ensure!(verified, "the evidence does not verify: {verdict}");
        let said = truth::said(&self.log())?;
        let recorded = record::read(&self.tap)?;
        let held = self.proxy.told();
        let known = Known {
            truth: &self.truth,
            trust_domain: TRUST_DOMAIN,
            away: &self.away,
            held: &held,
        };
        let figures = Figures {
            findings: judge(&said, &recorded, &known),
            done: self.proxy.done(),
            restarts: self.restarts,
        };
        if keep {
            let (log, audit) = (self.log(), self.cluster.audit());
            let kept = self.tap.keep();
            fs::copy(log, kept.join("server.csv"))?;
            fs::copy(audit, kept.join("audit.log"))?;
            progress(&format!("kept: {}", kept.display()));
        }
        Ok(figures)
    }

    fn log(&self) -> PathBuf {
        self.home.path().join(LOG).join("server.csv")
    }
}

async fn rolled_out(cluster: &mut Kubernetes, what: &str) -> Result<()> {
    let status = ["rollout", "status", "-n", SHOP, what, "--timeout=1s"];
    cluster.until(what, &status).await.map(drop)
}

/// An agent that sees its own node alone; texts stay as they were sent, for their marks.
fn of_node(node: &Node) -> Result<Settings> {
    Ok(Settings {
        at_socket: true,
        through: node.entry("pgwitness-agent")?,
        keys: vec![
            ("TAP__WITHIN", node.cgroup()),
            ("AGENT__HOST", node.name().to_owned()),
        ],
        ..Redaction::Clear.into()
    })
}

/// What the collector's `kubernetes.kubeconfig` is.
fn access(proxy: &Proxy, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "context",
        "clusters": [{"name": "cluster", "cluster": {"server": proxy.url()}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
    })
}

/// What happens between the collector and the API server.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Words come late, and overtake each other.
    Hold,
    /// Watches are broken off.
    Cut,
    /// Watches are too old.
    Gone,
    /// Nobody is answered for a while.
    Refuse,
    /// The API server itself ends, and comes back.
    Restart,
}

/// One after the other, again and again; the short form has each once.
const DEEDS: [Deed; 5] = [Deed::Hold, Deed::Cut, Deed::Gone, Deed::Refuse, Deed::Restart];
pub(super) const LEAST_ROUNDS: usize = DEEDS.len();
/// Shorter than a pod waits for the word on what owns its owner.
const LONGEST_HOLD: Duration = Duration::from_secs(4);
const REFUSED: Duration = Duration::from_secs(4);
const AWAY: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_secs(3);
/// Longer than a name may take.
const LAST_NAMES: Duration = Duration::from_secs(16);
const PATIENCE: Duration = Duration::from_secs(120);
const TRUST_DOMAIN: &str = "names.test";
const POD_NETWORK: &str = "10.244.0.0/16";
const LOG: &str = "log";
const BOUNCER: &str = "/usr/sbin/pgbouncer";
/// Where the network's plugin `host-local` notes behind which address the next one is looked for.
const LAST_ADDRESS: &str = "/var/lib/cni/networks/pods/last_reserved_ip.0";
const PROGRAM: &str = include_str!("../../../programs/pod_client.sh");
