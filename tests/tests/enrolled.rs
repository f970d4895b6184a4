//! The agent as its users start it, over mutual TLS: enrolled by a token, confined, renewing and changing its key under load.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{Cluster, DATABASE, Witness, free_port, server_binaries},
    record::query_folder,
    tap::{Agent, Settings, Tier, sibling},
};

/// Seconds for which a certificate is good: it is renewed some times while the test runs.
const LIFETIME_S: &str = "12";

/// A collector that speaks TLS.
struct Collector {
    folder: tempfile::TempDir,
    program: PathBuf,
    grpc: String,
    http: String,
    process: Option<Child>,
}

impl Collector {
    fn start() -> Self {
        let mut collector = Self {
            folder: tempfile::tempdir().unwrap(),
            program: sibling("pgwitness-collector").unwrap(),
            grpc: format!("127.0.0.1:{}", free_port().unwrap()),
            http: format!("127.0.0.1:{}", free_port().unwrap()),
            process: None,
        };
        collector.run();
        collector
    }

    fn run(&mut self) {
        let log = fs::File::create(self.folder.path().join("collector.log")).unwrap();
        let process = self
            .command(&["serve", "--grpc", &self.grpc, "--http", &self.http])
            .stderr(log)
            .spawn();
        self.process = Some(process.unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(&self.http).is_err() {
            assert!(Instant::now() < until, "the collector does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--data")
            .arg(self.data())
            .env("PGWITNESS_COLLECTOR__TRUST__TLS", "true")
            .env("PGWITNESS_COLLECTOR__TRUST__LIFETIME_S", LIFETIME_S)
            .stdin(Stdio::null());
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn say(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(process.wait().unwrap().success());
    }

    fn ask(&self, sql: &str) -> Vec<serde_json::Value> {
        query_folder(&self.program, &self.data(), sql).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_agent_renews_and_changes_its_key_and_loses_nothing() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init_with(server_binaries().unwrap(), Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut collector = Collector::start();
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

    let said = collector.say(&["agent", "add", "db1", "--collector", &url]);
    let words: Vec<&str> = said.lines().next().unwrap().split(' ').collect();
    let enroll = || {
        let output = Command::new(sibling("pgwitness-agent").unwrap())
            .args(words.get(1..).unwrap())
            .arg("--state-dir")
            .arg(agent.state())
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said)
    };
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
