//! A collector that speaks TLS under its own authority.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgwitness_tests::{cluster::free_port, record::query_folder, tap::sibling};

/// A collector that speaks TLS.
pub(crate) struct Collector {
    folder: tempfile::TempDir,
    program: PathBuf,
    pub(crate) grpc: String,
    http: String,
    process: Option<Child>,
    /// Seconds for which a certificate is good.
    lifetime_s: u64,
}

impl Collector {
    pub(crate) fn start(lifetime_s: u64) -> Self {
        let mut collector = Self {
            folder: tempfile::tempdir().unwrap(),
            program: sibling("pgwitness-collector").unwrap(),
            grpc: format!("127.0.0.1:{}", free_port().unwrap()),
            http: format!("127.0.0.1:{}", free_port().unwrap()),
            process: None,
            lifetime_s,
        };
        collector.run();
        collector
    }

    pub(crate) fn run(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("collector.log"))
            .unwrap();
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
            .env(
                "PGWITNESS_COLLECTOR__TRUST__LIFETIME_S",
                self.lifetime_s.to_string(),
            )
            .stdin(Stdio::null());
        command
    }

    /// The command by which an agent of this name enrols.
    pub(crate) fn token(&self, name: &str) -> String {
        let url = format!("https://{}", self.grpc);
        let said = self.say(&["agent", "add", name, "--collector", &url]);
        said.lines().next().unwrap().to_owned()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn say(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    pub(crate) fn stop(&mut self) {
        assert!(self.end(Signal::SIGTERM).success());
    }

    /// Ends it by this signal.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
        process.wait().unwrap()
    }

    pub(crate) fn ask(&self, sql: &str) -> Vec<serde_json::Value> {
        query_folder(&self.program, &self.data(), sql).unwrap()
    }
}

/// Enrols the agent of this state folder, by the command that a collector printed: whether it worked, and what was said.
pub(crate) fn enroll(token: &str, state: &std::path::Path) -> (bool, String) {
    let words: Vec<&str> = token.split(' ').collect();
    let output = Command::new(sibling("pgwitness-agent").unwrap())
        .args(words.get(1..).unwrap())
        .arg("--state-dir")
        .arg(state)
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
        }
    }
}
