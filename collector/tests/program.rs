//! The program itself: exit codes, one-line errors, a clean stop.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::Chain;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prost::Message;
use proto::v1::{self, Event, Hello, Receipt, Upload, delivery_client::DeliveryClient, receipt, upload};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwitness-collector"));
    command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG");
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Runs `serve`, which must end by itself with `code` and one line that holds `expected`.
fn fails(args: &[&str], environment: &[(&str, &str)], code: i32, expected: &str) {
    let output: Output = program()
        .arg("serve")
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{error}");
    let lines: Vec<_> = error
        .lines()
        .filter(|line| line.starts_with("pgwitness-collector: "))
        .collect();
    assert!(lines.len() == 1 && lines[0].contains(expected), "{error}");
    assert!(
        !error.contains("panicked") && !error.contains("stack backtrace"),
        "{error}"
    );
}

#[test]
fn what_cannot_run_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let config = folder.path().join("c.toml");
    std::fs::write(&config, "[log]\nsegmnt_mib = 1\n").unwrap();
    let config = config.display().to_string();
    fails(
        &["--config", &config],
        &[],
        2,
        "did you mean \"log.segment_mib\"?",
    );
    fails(
        &["--config", "/nonexistent.toml"],
        &[],
        2,
        "cannot read the configuration file",
    );
    fails(
        &["--data", &data, "--http", "0.0.0.0:0"],
        &[],
        2,
        "set http.tls.certificate and http.tls.key",
    );
    fails(
        &["--data", &data],
        &[("PGWITNESS_COLLECTOR__GRPC__LISTEN", "no")],
        2,
        "grpc.listen",
    );
    fails(
        &["--data", &data],
        &[("PGWITNESS_COLLECTOR__GRCP__LISTEN", "no")],
        2,
        "did you mean \"grpc\"?",
    );
    let ports = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    fails(
        &[&ports[..], &["--data", "/dev/null/x"]].concat(),
        &[],
        1,
        "name a folder that this user may write",
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(
        &["--data", &data, "--grpc", &address],
        &[],
        1,
        "stop what uses the port",
    );
}

#[test]
fn check_config_prints_what_takes_effect() {
    let output = program()
        .args(["serve", "--check-config", "--data", "/somewhere"])
        .env("PGWITNESS_COLLECTOR__LOG__NAME", "berlin")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success()
            && text.contains("data = \"/somewhere\"")
            && text.contains("name = \"berlin\"")
    );
}

/// A collector that serves, where agents reach it, and where people do.
fn serve(data: &Path) -> (Child, String, String) {
    serve_with(data, &[])
}

fn serve_with(data: &Path, more: &[&str]) -> (Child, String, String) {
    let (grpc, http) = (
        format!("127.0.0.1:{}", free_port()),
        format!("127.0.0.1:{}", free_port()),
    );
    let mut child = program()
        .arg("serve")
        .args(more)
        .args(["--grpc", &grpc, "--http", &http, "--data"])
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let ready = lines
        .map_while(Result::ok)
        .any(|line| line.contains("is serving"));
    assert!(ready, "it ended before it served");
    (child, grpc, http)
}

fn stop(mut child: Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
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
fn it_serves_alone_stops_cleanly_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, ..) = serve(folder.path());
    let data = folder.path().display().to_string();
    fails(
        &["--data", &data, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        &[],
        1,
        "another collector is using",
    );
    stop(first, Signal::SIGTERM);
    stop(serve(folder.path()).0, Signal::SIGINT);
    let verify = program()
        .args(["verify", "--json", "--data", &data])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&verify.stdout).unwrap();
    assert!(
        verify.status.success() && report["ok"] == true && report["batches"] == 0,
        "{report}"
    );
    std::fs::write(folder.path().join("evidence/x"), "").unwrap();
    let verify = program().args(["verify", "--data", &data]).output().unwrap();
    assert_eq!(verify.status.code(), Some(1));
    assert!(
        String::from_utf8(verify.stdout)
            .unwrap()
            .contains("x: not part of a log")
    );
    let verify = program()
        .args(["verify", "--data", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(verify.status.code(), Some(1));
}

/// Delivers `count` batches of one empty event.
async fn deliver(address: &str, chain: &mut Chain, count: u64) -> (impl Sized, Streaming<Receipt>) {
    deliver_events(address, chain, vec![Event::default(); count as usize]).await
}

/// Delivers a batch for each event and waits for the acknowledgements; the stream stays open.
async fn deliver_events(
    address: &str,
    chain: &mut Chain,
    events: Vec<Event>,
) -> (impl Sized, Streaming<Receipt>) {
    let count = events.len() as u64;
    let key = SigningKey::from_bytes(&[5; 32]);
    let (uploads, stream) = tokio::sync::mpsc::channel(64);
    let send = async |kind| uploads.send(Upload { kind: Some(kind) }).await.unwrap();
    let public_key = key.verifying_key().to_bytes().to_vec();
    let hello = Hello {
        agent_id: chain.agent_id.clone(),
        public_key,
        version: "test".to_owned(),
        ..Hello::default()
    };
    send(upload::Kind::Hello(hello)).await;
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = DeliveryClient::new(channel);
    let mut receipts = client
        .deliver(ReceiverStream::new(stream))
        .await
        .unwrap()
        .into_inner();
    for event in events {
        let seq = chain.next_sequence;
        let event = Bytes::from(Event { seq, ..event }.encode_to_vec());
        let batch = evidence::seal(chain, &key, vec![event], seq, 1, 2, None, [seq as u8; 32]);
        send(upload::Kind::Batch(batch)).await;
    }
    let mut acknowledged = 0;
    while acknowledged < count {
        match receipts.message().await.unwrap().unwrap().kind {
            Some(receipt::Kind::Ack(_)) => acknowledged += 1,
            Some(receipt::Kind::Resume(resume)) => {
                assert_eq!(resume.sequence, chain.next_sequence - count - 1);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    ((uploads, client), receipts)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn report(data: &Path) -> serde_json::Value {
    let verify = program()
        .args(["verify", "--json", "--data"])
        .arg(data)
        .output()
        .unwrap();
    serde_json::from_slice(&verify.stdout).unwrap()
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged_and_a_stop_ends_open_streams() {
    let folder = tempfile::tempdir().unwrap();
    let mut chain = Chain::new("host-1");
    for round in 1..=3 {
        let (mut child, address, _) = serve(folder.path());
        let _open = deliver(&address, &mut chain, 20).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let found = report(folder.path());
        assert!(found["ok"] == true && found["batches"] == round * 20, "{found}");
    }
    let (child, address, http) = serve(folder.path());
    let _open = deliver(&address, &mut chain, 20).await;
    let metrics = get(&http, "/metrics");
    assert!(
        metrics.contains("pgwitness_collector_store_rows_total 80\n"),
        "the store was refilled: {metrics}"
    );
    tokio::task::spawn_blocking(|| stop(child, Signal::SIGTERM))
        .await
        .unwrap();
    let found = report(folder.path());
    assert!(
        found["ok"] == true && found["tree_size"] == 80 && found["not_yet_under_a_checkpoint"] == 0,
        "{found}"
    );
}

/// A statement of a unit of host h.
fn statement(unit: &str, role: &str) -> Event {
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    Event {
        ts_start_ns: now,
        session: Some(v1::Session {
            id: format!("session-of-{unit}"),
            login_role: role.to_owned(),
            database: "shop".to_owned(),
            ..Default::default()
        }),
        attribution: Some(v1::Attribution {
            principal: format!("spiffe://td/host/h/unit/{unit}.service"),
            confidence: v1::Confidence::Observed.into(),
            ..Default::default()
        }),
        body: Some(v1::event::Body::Query(v1::Query::default())),
        ..Event::default()
    }
}

/// Exit code, standard output and standard error.
fn ran(args: &[&str]) -> (i32, String, String) {
    let output = program().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The inventory's status, as soon as `wanted` holds of it.
fn inventory_status(http: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    for _ in 0..100 {
        let answer = get(http, "/api/v1/status");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        if wanted(&status["inventory"]) {
            return status["inventory"].clone();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the inventory does not become what is wanted");
}

#[tokio::test]
async fn an_inventory_is_suggested_gone_by_read_again_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (child, address, http) = serve(&data);
    let mut chain = Chain::new("host-1");
    let _open = deliver_events(
        &address,
        &mut chain,
        vec![
            statement("shop", "app_user"),
            statement("shop", "app_user"),
            statement("batch", "postgres"),
            Event {
                body: Some(v1::event::Body::AuthFailure(v1::AuthFailure::default())),
                ..statement("intruder", "postgres")
            },
        ],
    )
    .await;
    let (data, url) = (data.display().to_string(), format!("http://{http}"));
    assert!(get(&http, "/api/v1/status").contains("\"inventory\":null"));
    let (code, _, error) = ran(&["ask", "unexpected", "--url", &url]);
    assert!(code == 1 && error.contains("has no inventory"), "{error}");
    tokio::task::spawn_blocking(|| stop(child, Signal::SIGTERM))
        .await
        .unwrap();

    let file = folder.path().join("inventory.toml").display().to_string();
    let suggest = ["inventory", "suggest", "--data", &data, "-o", &file];
    assert_eq!(ran(&suggest).0, 0);
    let suggested = std::fs::read_to_string(&file).unwrap();
    for expected in [
        "id = \"spiffe://td/host/h/unit/batch.service\"\nowner = \"?\"\nroles = [\"postgres\"]",
        "1 sessions, 2 statements; observed\n",
        "# check: postgres is the superuser",
    ] {
        assert!(
            suggested.contains(expected),
            "{expected:?} is not in\n{suggested}"
        );
    }
    assert!(
        !suggested.contains("intruder"),
        "who is turned away used nothing: {suggested}"
    );
    let (code, _, error) = ran(&suggest);
    assert!(code == 1 && error.contains("--force"), "{error}");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(ran(&[&suggest[..], &["--force"]].concat()).0, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), suggested);
    let (code, told, _) = ran(&["inventory", "check", &file, "--data", &data]);
    assert!(
        code == 0 && told.contains("lists      2 principals of 1 owners") && !told.contains("not seen"),
        "{told}"
    );

    let expected = "SELECT count(*) FROM queries WHERE expected = 'expected'";
    let offline = [
        "query",
        expected,
        "--format",
        "csv",
        "--data",
        &data,
        "--inventory",
    ];
    let offline = [&offline[..], &[&file]].concat();
    assert_eq!(ran(&offline).1, "count(*)\r\n3\r\n");
    let (code, _, error) = ran(&["ask", "expiring", "--data", &data]);
    assert!(code == 1 && error.contains("--inventory"), "{error}");

    let broken = "[[principal]]\nid = \"spiffe://td/a\"\nowner = \"t\"\nrolles = []\n";
    let wrong = folder.path().join("wrong.toml").display().to_string();
    std::fs::write(&wrong, broken).unwrap();
    fails(&["--data", &data, "--inventory", &wrong], &[], 2, "rolles");
    assert_eq!(ran(&[&offline[..offline.len() - 1], &[&wrong]].concat()).0, 1);

    let (child, _, http) = serve_with(Path::new(&data), &["--inventory", &file]);
    let url = format!("http://{http}");
    assert_eq!(inventory_status(&http, |_| true)["principals"], 2);
    let unexpected = ["ask", "unexpected", "--format", "json", "--url", &url];
    assert_eq!(ran(&unexpected), (0, String::new(), String::new()));
    let next = folder.path().join("next.toml");
    std::fs::write(
        &next,
        "[[principal]]\nid = \"spiffe://td/host/*/unit/batch.service\"\nowner = \"team-batch\"\nroles = [\"batch\"]\n",
    )
    .unwrap();
    std::fs::rename(&next, &file).unwrap();
    inventory_status(&http, |status| status["principals"] == 1);
    std::fs::write(&file, broken).unwrap();
    let status = inventory_status(&http, |status| status["problem"].is_string());
    assert!(status["principals"] == 1 && status["problem"].as_str().unwrap().contains("rolles"));
    assert!(get(&http, "/metrics").contains("pgwitness_collector_inventory_unusable 1\n"));
    let (code, found, _) = ran(&unexpected);
    assert!(
        code == 0 && found.contains("role postgres is not listed") && found.lines().count() == 1,
        "{found}"
    );
    let (_, told, _) = ran(&["explain", "host-1-3", "--url", &url]);
    assert!(
        told.contains("unexpected: role postgres is not listed") && told.contains("owner team-batch"),
        "{told}"
    );
    let (_, sql, _) = ran(&["ask", "shared-roles", "--sql"]);
    assert_eq!(ran(&["query", &sql, "--url", &url]).0, 0, "{sql}");
    tokio::task::spawn_blocking(|| stop(child, Signal::SIGTERM))
        .await
        .unwrap();
}

const KEYS: &str = "now 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

/// A statement of a unit on `public.customers`, and which of them it told.
fn on_customers(unit: &str, customers: Option<&[&str]>) -> Event {
    let keys = subjects::Keys::parse(KEYS).unwrap();
    let token = |value: &&str| {
        let form = subjects::canonical_text(subjects::Family::Integer, value).unwrap();
        keys.active().token(subjects::Family::Integer, &form).0.to_vec()
    };
    let told = customers.map(|values| v1::Subject {
        object: "public.customers".to_owned(),
        column: "id".to_owned(),
        family: "integer".to_owned(),
        key: "now".to_owned(),
        tokens: values.iter().map(token).collect(),
        complete: true,
        sources: vec!["returned".to_owned()],
        ..Default::default()
    });
    let query = v1::Query {
        statement: Some(v1::Statement {
            text: "SELECT * FROM customers WHERE id = ?".to_owned(),
            text_known: true,
            ..Default::default()
        }),
        meaning: Some(v1::Meaning {
            class: v1::Class::Read.into(),
            command: "SELECT".to_owned(),
            parsed: true,
            objects: vec![v1::Object {
                name: "customers".to_owned(),
                access: v1::Access::Read.into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        subjects: told.into_iter().collect(),
        ..Default::default()
    };
    Event {
        body: Some(v1::event::Body::Query(query)),
        ..statement(unit, "app_user")
    }
}

#[tokio::test]
async fn who_touched_a_record_is_found_by_its_value_and_the_value_stays_here() {
    // One that stands nowhere by chance.
    const CUSTOMER: &str = "4711424242";
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut child, address, http) = serve(&data);
    let said = child.stderr.take().unwrap();
    let mut chain = Chain::new("host-1");
    let events = vec![
        on_customers("shop", Some(&["7", CUSTOMER])),
        on_customers("desk", Some(&["7"])),
    ];
    let open = deliver_events(&address, &mut chain, events).await;
    let keys = folder.path().join("keys");
    std::fs::write(&keys, KEYS).unwrap();
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (keys, url) = (keys.display().to_string(), format!("http://{http}"));
    let question = ["who", "--object", "public.customers", "--token-key", &keys];
    let live = [&question[..], &["--url", &url]].concat();

    let (code, told, error) = ran(&[&live[..], &["--key", CUSTOMER]].concat());
    assert_eq!(code, 0, "{error}");
    for expected in ["unit/shop.service", "returned", "surely", "Every other statement"] {
        assert!(told.contains(expected), "{expected:?} is not in\n{told}");
    }
    assert!(!told.contains("desk.service"), "{told}");
    let (code, told, _) = ran(&[&live[..], &["--key", "8", "--json"]].concat());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(
        code == 0 && told["touched"] == serde_json::json!([]) && told["complete"] == true,
        "{told}"
    );

    drop(open);
    let _open = deliver_events(&address, &mut chain, vec![on_customers("job", None)]).await;
    // The value comes on standard input.
    let mut asking = program()
        .args([&live[..], &["--json", "--key", "-"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(asking.stdin.take().unwrap(), "{CUSTOMER}").unwrap();
    let answer = asking.wait_with_output().unwrap().stdout;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let principals = |list: &serde_json::Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|row| row["principal"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        principals(&answer["touched"]),
        ["spiffe://td/host/h/unit/shop.service"]
    );
    assert_eq!(answer["touched"][0]["access"], serde_json::json!(["read"]));
    assert_eq!(
        principals(&answer["not_excluded"]),
        ["spiffe://td/host/h/unit/job.service"]
    );
    assert_eq!(answer["complete"], false);
    let (_, told, _) = ran(&[&live[..], &["--key", CUSTOMER]].concat());
    assert!(
        told.contains("not excluded that somebody else") && told.contains("its records are not known"),
        "{told}"
    );
    let (_, told, _) = ran(&["explain", "host-1-1", "--url", &url]);
    assert!(told.contains("public.customers.id: 2 by returned"), "{told}");

    let others = [
        "who",
        "--object",
        "public.others",
        "--token-key",
        &keys,
        "--key",
        CUSTOMER,
        "--url",
        &url,
    ];
    let (code, _, error) = ran(&others);
    assert!(
        code == 1 && error.contains("no agent told whose records") && !error.contains(CUSTOMER),
        "{error}"
    );

    tokio::task::spawn_blocking(|| stop(child, Signal::SIGTERM))
        .await
        .unwrap();
    let mut log = String::new();
    BufReader::new(said).read_to_string(&mut log).unwrap();
    assert!(!log.contains(CUSTOMER), "{log}");
    // From the folder the same, and again from a store that is made anew.
    let directory = data.display().to_string();
    let offline = [
        &question[..],
        &["--key", CUSTOMER, "--json", "--data", &directory],
    ]
    .concat();
    for _ in 0..2 {
        let told: serde_json::Value = serde_json::from_str(&ran(&offline).1).unwrap();
        assert_eq!(told, answer);
        assert_eq!(ran(&["rebuild", "--data", &directory]).0, 0);
    }
}

/// The same answer from the collector and from its folder.
#[tokio::test]
async fn questions_exports_and_reports_are_commands() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (child, address, http) = serve(&data);
    let mut chain = Chain::new("host-1");
    let events = vec![
        on_customers("shop", Some(&["7"])),
        on_customers("desk", None),
        Event {
            body: Some(v1::event::Body::AuthFailure(v1::AuthFailure::default())),
            ..statement("intruder", "postgres")
        },
        Event {
            attribution: None,
            ..on_customers("nobody", None)
        },
    ];
    let _open = deliver_events(&address, &mut chain, events).await;
    let (url, directory) = (format!("http://{http}"), data.display().to_string());
    let keys = folder.path().join("keys");
    std::fs::write(&keys, KEYS).unwrap();
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = keys.display().to_string();
    let record = [
        "--object",
        "public.customers",
        "--key",
        "7",
        "--token-key",
        &keys,
        "--format",
        "json",
    ];
    let dsar = [&["report", "dsar"][..], &record].concat();
    let questions: Vec<(Vec<&str>, &[&str])> = vec![
        (
            vec!["what", "--principal", "*/unit/shop.service", "--format", "json"],
            &["\"object\":\"customers\"", "\"access\":\"read\""],
        ),
        (
            vec!["who", "--object", "public.customers", "--json"],
            &["desk.service", "shop.service", "\"principal\":\"unknown\""],
        ),
        (
            vec!["timeline", "--session", "session-of-intruder", "--format", "json"],
            &["\"mark\":\"refused\""],
        ),
        (
            vec!["new-edges", "--since", "2026-01-01T00:00:00Z", "--format", "json"],
            &["\"first_event\":\"host-1-1\""],
        ),
        (
            vec!["unattributed", "--format", "json"],
            &["\"statements\":1", "\"first_event\":\"host-1-4\""],
        ),
        (
            vec!["export", "--format", "csv", "--principal", "*/desk.service"],
            &["host-1-2"],
        ),
        (
            vec!["export", "--format", "ocsf", "--where", "kind = 'auth_failure'"],
            &["\"class_uid\":6005", "\"uid\":\"host-1-3\""],
        ),
        (
            vec!["report", "coverage", "--format", "html"],
            &["<!doctype html>", "Agents", "host-1"],
        ),
        (dsar, &["actor 1", "Scans that may have included the record"]),
        (vec!["report", "access-review"], &["# Access review", "intruder"]),
        (
            vec!["report", "evidence-pack"],
            &["10\\.2\\.1\\.4", "1 refused logins"],
        ),
    ];
    let unescaped = |text: &str| text.replace('\\', "");
    let mut live = Vec::new();
    for (question, expected) in &questions {
        let (code, told, error) = ran(&[&question[..], &["--url", &url]].concat());
        assert_eq!(code, 0, "{question:?}: {error}");
        for text in *expected {
            assert!(
                unescaped(&told).contains(&unescaped(text)),
                "{text:?} is not in\n{told}"
            );
        }
        live.push(told);
    }
    let (code, _, error) = ran(&[
        "export",
        "--format",
        "csv",
        "--where",
        "absent = 1",
        "--url",
        &url,
    ]);
    assert!(code == 1 && error.contains("--where"), "{error}");
    // A page at a time; the end says how to go on.
    let timeline = ["timeline", "--principal", "*", "--limit", "3", "--url", &url];
    let (_, _, error) = ran(&timeline);
    assert!(error.contains("--after host-1-3"), "{error}");
    let (_, rest, error) = ran(&[&timeline[..], &["--after", "host-1-3", "--format", "csv"]].concat());
    assert!(
        rest.lines().count() == 2 && !error.contains("--after"),
        "{rest}{error}"
    );
    assert_eq!(ran(&["timeline", "--url", &url]).0, 2, "whose?");
    tokio::task::spawn_blocking(|| stop(child, Signal::SIGTERM))
        .await
        .unwrap();

    for ((question, _), live) in questions.iter().zip(live) {
        let (code, told, error) = ran(&[&question[..], &["--data", &directory]].concat());
        assert_eq!(code, 0, "{question:?}: {error}");
        // A report's head has the time when it was made, and a checkpoint may have come meanwhile.
        if question[0] != "report" {
            assert_eq!(told, live, "{question:?}");
        }
    }
    let file = folder.path().join("all.parquet").display().to_string();
    let export = ["export", "--format", "parquet", "--data", &directory, "-o", &file];
    assert_eq!(ran(&export).0, 0);
    assert_eq!(&std::fs::read(&file).unwrap()[..4], b"PAR1");
    let (code, _, error) = ran(&export);
    assert!(code == 1 && error.contains("--force"), "{error}");
}

/// One user's questions have a limit, which says what to do; they end with whoever asked, and are recorded all the same.
#[tokio::test]
async fn questions_end_with_whoever_asks_and_are_recorded() {
    /// As many as one user may have running or waiting.
    const MOST: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let (child, address, http) = serve(folder.path());
    let mut chain = Chain::new("host-1");
    let _open = deliver_events(&address, &mut chain, vec![statement("shop", "app_user")]).await;
    let url = format!("http://{http}");
    let endless = "SELECT sum(value % 7) FROM generate_series(1, 100000000000000)";
    let mut asked: Vec<Child> = (0..=MOST)
        .map(|_| {
            let mut asking = program();
            asking.args(["query", endless, "--purpose", "to wait", "--url", &url]);
            asking.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    // One is too many, whichever comes last.
    while asked.len() > MOST {
        let ended = asked
            .iter_mut()
            .position(|asking| asking.try_wait().unwrap().is_some());
        match ended {
            Some(place) => {
                let output = asked.remove(place).wait_with_output().unwrap();
                let error = String::from_utf8(output.stderr).unwrap();
                assert!(
                    error.contains("8 questions of yours") && error.contains("wait until one is over"),
                    "{error}"
                );
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    let question = ["query", "SELECT count(*) FROM events", "--url", &url];
    assert!(ran(&question).2.contains("8 questions of yours"));
    // What the collector works on takes all that it gets; behind the last asker it takes next to nothing.
    for mut asking in asked {
        asking.kill().unwrap();
        asking.wait().unwrap();
    }
    until(|| (ran(&question).0 == 0).then_some(()));
    let busy = |pid: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    until(|| {
        let before = busy(child.id());
        std::thread::sleep(Duration::from_secs(1));
        (busy(child.id()) - before < 30).then_some(())
    });
    let told = "SELECT event FROM events WHERE kind = 'access'";
    let told = ["query", told, "--format", "json", "--url", &url];
    let accesses = until(|| {
        let (_, told, _) = ran(&told);
        let access = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let event: serde_json::Value = serde_json::from_str(row["event"].as_str().unwrap()).unwrap();
            event["access"].clone()
        };
        let accesses = told.lines().map(access);
        let of_it: Vec<_> = accesses.filter(|access| access["question"] == endless).collect();
        (!of_it.is_empty()).then_some(of_it)
    });
    for access in accesses {
        assert_eq!(access["failed"], true, "{access}");
        assert_eq!(access["purpose"], "to wait", "{access}");
    }
    tokio::task::spawn_blocking(|| stop(child, Signal::SIGTERM))
        .await
        .unwrap();
}

/// What comes within half a minute.
fn until<T>(made: impl Fn() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(made) = made() {
            return made;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("it does not come");
}
