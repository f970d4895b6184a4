//! `pgwitness-agent replay` as its users start it, over recordings of real sessions and over what is none.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn replay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwitness-agent"));
    command.arg("replay").args(arguments).current_dir(root());
    command
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Output {
    command.output().expect("it starts")
}

fn given(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = replay(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // It may end without having read everything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn events(output: &Output) -> Vec<Value> {
    let lines = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const PGBENCH: &str = "tests/recordings/pgbench-prepared.segments.zst";
const CAPTURE: &str = "crates/recording/tests/captures/ethernet.pcap";

#[test]
fn every_recording_is_read_whole_and_without_gap() {
    for name in [
        "pgbench-prepared",
        "pgbench-extended",
        "pgbench-simple",
        "wide",
        "copy",
        "psycopg-pipeline",
        "psql-script",
    ] {
        let output = run(&mut replay(&[&format!("tests/recordings/{name}.segments.zst")]));
        assert!(output.status.success(), "{name}: {}", said(&output));
        let events = events(&output);
        let kind = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
        assert_eq!(kind("gap"), 0, "{name}");
        assert_eq!(kind("session_open"), kind("session_close"), "{name}");
        let line = format!("{} events ({} queries), 0 gaps\n", events.len(), kind("query"));
        assert!(said(&output).ends_with(&line), "{}", said(&output));
        for event in &events {
            assert_eq!(event["attribution"]["principal"], "unknown");
            assert_eq!(
                event["attribution"]["reason"],
                "replayed from a capture: no process is behind it"
            );
            assert!(event["session"]["backend_pid"].is_u64(), "{event}");
        }
    }
    let output = run(&mut replay(&[PGBENCH]));
    let select = |event: &&Value| {
        event["statement"]["text"] == "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"
    };
    let selects: Vec<Value> = events(&output).iter().filter(select).cloned().collect();
    assert_eq!(selects.len(), 2000);
    assert!(selects.iter().all(|event| event["result"]["rows"] == 1));
}

#[test]
fn packets_have_their_own_times_and_no_process() {
    let output = run(&mut replay(&["--redaction", "clear", CAPTURE]));
    assert!(output.status.success(), "{}", said(&output));
    let events = events(&output);
    let query = &events[1];
    assert_eq!(query["statement"]["text"], "select 1 as one;");
    assert!(
        query["ts_start"]
            .as_str()
            .is_some_and(|time| time.starts_with("2026-11-21T05:35:4"))
    );
    assert!(query["session"]["backend_pid"].is_null());
    // The same over standard input, and with the format named.
    let bytes = std::fs::read(root().join(CAPTURE)).expect("the capture");
    let piped = given(&["--redaction", "clear", "--format", "pcap", "-"], &bytes);
    assert_eq!(piped.stdout, output.stdout);
    let other_port = given(&["--port", "5432", "-"], &bytes);
    assert!(other_port.status.success() && other_port.stdout.is_empty());
    assert!(
        said(&other_port).contains("1 connections left alone"),
        "{}",
        said(&other_port)
    );
}

#[test]
fn what_is_in_flight_at_the_end_of_a_capture_is_told() {
    let bytes = std::fs::read(root().join(CAPTURE)).expect("the capture");
    let output = given(&["-"], &bytes[..2200]);
    assert!(output.status.success());
    assert!(
        said(&output).contains("1 connections open at its end"),
        "{}",
        said(&output)
    );
    let events = events(&output);
    let close = events.last().expect("an end");
    assert_eq!(close["session_close"]["reason"], "capture-end");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut child = replay(&[PGBENCH])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut some = [0; 100];
    child
        .stdout
        .take()
        .expect("piped")
        .read_exact(&mut some)
        .expect("events");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
}

#[test]
fn what_cannot_be_replayed_says_what_to_do() {
    let damaged = [b"pgwitness segments 1\n".as_slice(), &[0xff; 8]].concat();
    for (input, expected) in [
        (
            b"\x1f\x8b\x08rest".as_slice(),
            "zcat FILE | pgwitness-agent replay -",
        ),
        (
            b"select 1",
            "neither a packet capture (pcap, pcapng) nor a segment recording",
        ),
        (b"", "neither a packet capture"),
        (&damaged, "damaged at byte 21"),
    ] {
        let output = given(&["-"], input);
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    let output = run(&mut replay(&["there-is-no-such-file"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot replay there-is-no-such-file: No such file"));
    let output = run(&mut replay(&[CAPTURE, PGBENCH]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("cannot be replayed together"),
        "{}",
        said(&output)
    );
    assert_eq!(run(&mut replay(&[])).status.code(), Some(2));
}
