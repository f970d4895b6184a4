//! Who may ask: the program itself, over TLS and with tokens, and what it refuses to start with.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwitness-collector"));
    command.env_remove("PGWITNESS_TOKEN");
    command
}

/// Exit code, standard output, standard error.
fn ran(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder with a certificate for localhost, a configuration with it, and where that listens.
struct Set {
    folder: tempfile::TempDir,
    config: PathBuf,
    certificate: PathBuf,
    port: u16,
}

impl Set {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let place = |name: &str| folder.path().join(name);
        let (certificate, key, config) = (place("c.pem"), place("k.pem"), place("collector.toml"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        private(&key, &made.signing_key.serialize_pem());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let text = format!(
            "data = {:?}\n[grpc]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"0.0.0.0:{port}\"\n[http.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n",
            place("data")
        );
        fs::write(&config, text).unwrap();
        Self {
            config,
            certificate,
            port,
            folder,
        }
    }

    /// A command with the configuration.
    fn say(&self, words: &[&str]) -> (i32, String, String) {
        ran(program().args(words).arg("--config").arg(&self.config))
    }

    /// Adds a user; the file of the token.
    fn add(&self, name: &str, role: &str) -> PathBuf {
        let (code, token, error) = self.say(&["user", "add", name, "--role", role, "--expires", "1h"]);
        assert!(code == 0 && error.contains("shown this once"), "{error}");
        assert!(
            token.starts_with("pgwu1_") && token.trim_end().len() == 49,
            "{token}"
        );
        let file = self.folder.path().join(name);
        private(&file, &token);
        file
    }

    /// A question over TLS.
    fn query(&self) -> Command {
        let mut command = program();
        let url = format!("https://localhost:{}", self.port);
        command.args(["query", "SELECT 'answered' AS a", "--url", &url]);
        command
    }

    fn serve(&self) -> Child {
        let mut child = program();
        child.arg("serve").arg("--config").arg(&self.config);
        let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        let ready = lines
            .map_while(Result::ok)
            .any(|line| line.contains("is serving"));
        assert!(ready, "it ended before it served");
        child
    }
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn stop(mut child: Child) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    for _ in 0..300 {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it did not stop");
}

#[test]
fn beyond_loopback_it_starts_only_with_tls_and_somebody_who_is_known() {
    let set = Set::new();
    let data = set.folder.path().join("data").display().to_string();
    let (code, _, error) = ran(program().args(["serve", "--data", &data, "--http", "0.0.0.0:0"]));
    assert!(code == 2 && error.contains("set http.tls.certificate"), "{error}");
    let (code, _, error) = set.say(&["serve"]);
    assert!(
        code == 1 && error.contains("add a user first (pgwitness-collector user add NAME"),
        "{error}"
    );
    let not_needed = program()
        .args(["serve", "--check-config", "--config"])
        .arg(&set.config)
        .env("PGWITNESS_COLLECTOR__ACCESS__REQUIRED", "false")
        .output()
        .unwrap();
    assert_eq!(not_needed.status.code(), Some(2));
    assert!(
        String::from_utf8(not_needed.stderr)
            .unwrap()
            .contains("access.required")
    );
    // In front of something that passes requests on, it is the same.
    let passed_on = program()
        .args(["serve", "--data", &data])
        .env("PGWITNESS_COLLECTOR__HTTP__NAMES", "[\"audit.example\"]")
        .output()
        .unwrap();
    assert_eq!(passed_on.status.code(), Some(1));
    set.add("anna", "viewer");
    stop(set.serve());
    // A key that others can read is none.
    fs::set_permissions(set.folder.path().join("k.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, error) = set.say(&["serve"]);
    assert!(code == 1 && error.contains("can be read by others"), "{error}");
}

#[test]
fn questions_go_over_tls_with_a_users_token_and_are_that_users() {
    let set = Set::new();
    let (anna, vera) = (set.add("anna", "analyst"), set.add("vera", "viewer"));
    let (code, _, error) = set.say(&["user", "add", "anna", "--role", "admin"]);
    assert!(code == 1 && error.contains("remove it first"), "{error}");
    let child = set.serve();
    let with = |token: &Path| -> Command {
        let mut query = set.query();
        query
            .arg("--ca")
            .arg(&set.certificate)
            .arg("--token-file")
            .arg(token);
        query
    };
    let (code, told, error) = ran(&mut with(&anna));
    assert!(code == 0 && told.contains("answered"), "{told}{error}");
    let token = fs::read_to_string(&anna).unwrap();
    let known = |command: &mut Command| ran(command.arg("--ca").arg(&set.certificate));
    let (code, _, error) = known(set.query().env("PGWITNESS_TOKEN", token.trim_end()));
    assert_eq!(code, 0, "{error}");

    let (code, _, error) = known(&mut set.query());
    assert!(
        code == 1 && error.contains("--token-file") && error.contains("a token is needed here"),
        "{error}"
    );
    let (code, _, error) = ran(&mut with(&vera));
    assert!(
        code == 1 && error.contains("this needs the role analyst, and the role of vera is viewer"),
        "{error}"
    );
    // Nobody stands in its place: this certificate is of no authority of the system.
    let (code, _, error) = ran(set.query().arg("--token-file").arg(&anna));
    assert!(code == 1 && error.contains("--ca FILE"), "{error}");
    let mut in_the_clear = program();
    in_the_clear.args([
        "query",
        "SELECT 1",
        "--url",
        &format!("http://127.0.0.1:{}", set.port),
    ]);
    let (code, _, error) = ran(in_the_clear.arg("--token-file").arg(&anna));
    assert!(
        code == 1 && error.contains("with https:// if it has http.tls"),
        "{error}"
    );
    fs::set_permissions(&vera, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, error) = ran(&mut with(&vera));
    assert!(
        code == 1 && error.contains("the token") && error.contains("chmod 600"),
        "{error}"
    );
    // Whoever speaks no TLS is told nothing.
    let mut plain = TcpStream::connect(("127.0.0.1", set.port)).unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    _ = plain.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");

    let mut record = program();
    record.args([
        "query",
        "SELECT event FROM events WHERE kind = 'access'",
        "--format",
        "json",
    ]);
    record.args(["--url", &format!("https://localhost:{}", set.port), "--ca"]);
    let (code, told, error) = ran(record.arg(&set.certificate).arg("--token-file").arg(&anna));
    assert_eq!(code, 0, "{error}");
    let asked: Vec<(String, String, bool)> = told
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let event: Value = serde_json::from_str(row["event"].as_str().unwrap()).unwrap();
            let text = |name: &str| event["access"][name].as_str().unwrap().to_owned();
            (text("who"), text("kind"), event["access"]["failed"] == true)
        })
        .collect();
    let was = |who: &str, kind: &str, failed: bool| {
        let one = (who.to_owned(), kind.to_owned(), failed);
        assert!(asked.contains(&one), "{one:?} is not in {asked:?}");
    };
    was("anna", "query", false);
    was("vera", "forbidden", true);
    assert!(asked.iter().all(|(who, ..)| who != "local"), "{asked:?}");

    // Without a restart.
    let (_, list, _) = set.say(&["user", "list"]);
    assert!(
        list.lines().count() == 2 && list.contains("anna  analyst") && !list.contains("pgwu1_"),
        "{list}"
    );
    let (code, ..) = set.say(&["user", "remove", "anna"]);
    assert_eq!(code, 0);
    let (code, _, error) = ran(&mut with(&anna));
    assert!(
        code == 1 && error.contains("not known here, or was removed"),
        "{error}"
    );
    stop(child);
}
