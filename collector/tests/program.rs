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
use proto::v1::{Event, Hello, Receipt, Upload, delivery_client::DeliveryClient, receipt, upload};
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
        "only a loopback address",
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
    let (grpc, http) = (
        format!("127.0.0.1:{}", free_port()),
        format!("127.0.0.1:{}", free_port()),
    );
    let mut child = program()
        .arg("serve")
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

/// Delivers `count` batches of one event and waits for the acknowledgements; the stream stays open.
async fn deliver(address: &str, chain: &mut Chain, count: u64) -> (impl Sized, Streaming<Receipt>) {
    let key = SigningKey::from_bytes(&[5; 32]);
    let (uploads, stream) = tokio::sync::mpsc::channel(64);
    let send = async |kind| uploads.send(Upload { kind: Some(kind) }).await.unwrap();
    let public_key = key.verifying_key().to_bytes().to_vec();
    let hello = Hello {
        agent_id: chain.agent_id.clone(),
        public_key,
        version: "test".to_owned(),
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
    for _ in 0..count {
        let seq = chain.next_sequence;
        let event = Bytes::from(
            Event {
                seq,
                ..Event::default()
            }
            .encode_to_vec(),
        );
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
