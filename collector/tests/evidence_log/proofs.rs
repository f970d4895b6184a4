//! Proofs of single events, and the checker that is written in another language: its verdicts are `verify`'s.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use pgwitness_collector::{
    prove::{check, prove},
    verify::{Options, Report, verify_with},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// What the independent checker says.
pub(crate) fn checker(program: &str, what: &Path) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/checker");
    let output = Command::new("/usr/bin/python3")
        .arg("-B")
        .arg(folder.join(program))
        .arg(what)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() || said.starts_with("WRONG:"),
        "the checker failed (python3-cryptography is needed: cargo xtask setup): {said}"
    );
    output.status.success()
}

pub(crate) fn origin_key(data: &Path) -> String {
    let origin = fs::read_to_string(data.join("evidence/origin")).unwrap();
    let origin: serde_json::Value = serde_json::from_str(&origin).unwrap();
    origin["verifier_key"].as_str().unwrap().to_owned()
}

/// A log of this name with so many batches.
pub(crate) async fn filled_as(name: &str, batches: usize) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let opened = open_as(data.path(), name).unwrap();
    let mut agent = Agent::new("host-a", 1);
    hello(&opened.log, &agent).await;
    for _ in 0..batches {
        let batch = agent.seal(1);
        append(&opened.log, &agent, &batch).await;
    }
    close(opened).await;
    data
}

#[tokio::test]
async fn every_event_is_proven_by_public_keys_alone() {
    let (data, _) = filled(300).await;
    let evidence = data.path().join("evidence");
    let known = Options {
        origin_keys: vec![origin_key(data.path())],
        ..Options::default()
    };
    let other = Options {
        origin_keys: vec![origin_key(filled(1).await.0.path())],
        ..Options::default()
    };
    let file = data.path().join("proof.json");
    for (agent, events) in [("host-a", 150), ("host-b", 150)] {
        for seq in (1..=events).step_by(7) {
            let id = format!("{agent}-{seq}");
            let proof = prove(&evidence, &id).unwrap().to_bytes().unwrap();
            let report = check(&proof, &known);
            assert!(report.ok, "{id}: {report:?}");
            assert_eq!((report.event_id.as_str(), report.tree_size), (id.as_str(), 300));
            assert_eq!(report.event["event_id"], id.as_str());
            assert!(
                report.event["session"]["id"].is_string(),
                "its definition is there"
            );
            let wrong = check(&proof, &other).wrong.unwrap();
            assert!(wrong.contains("expected pgwitness/test+"), "{wrong}");
            if seq == 1 {
                fs::write(&file, proof).unwrap();
                assert!(checker("check_proof.py", &file));
            }
        }
    }
    let refused = |id: &str| prove(&evidence, id).unwrap_err().to_string();
    assert!(refused("host-a-151").contains("is not in the log"));
    assert!(refused("host-c-1").contains("is not in the log"));
    assert!(refused("nonsense").contains("no event's id"));
}

#[tokio::test]
async fn what_is_not_under_a_checkpoint_is_not_proven() {
    let (data, _, agents) = crashed().await;
    let evidence = data.path().join("evidence");
    let newest = agents[0].next_event - 1;
    let refused = prove(&evidence, &format!("host-a-{newest}"))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("when it is under one"), "{refused}");
}

/// Any byte of a proof, any value; the checker on a sample of them.
#[tokio::test]
async fn any_changed_byte_of_a_proof_is_found() {
    let (data, _) = filled(70).await;
    let proof = prove(&data.path().join("evidence"), "host-b-9")
        .unwrap()
        .to_bytes()
        .unwrap();
    let file = data.path().join("proof.json");
    let options = Options::default();
    let mut random = StdRng::seed_from_u64(8);
    for at in 0..proof.len() {
        let mut other = proof.clone();
        other[at] ^= 1 << random.gen_range(0..8);
        let report = check(&other, &options);
        assert!(!report.ok && report.wrong.is_some(), "byte {at}");
        assert!(!check(&proof[..at], &options).ok, "cut at {at}");
        if at % 97 == 0 {
            fs::write(&file, &other).unwrap();
            assert!(!checker("check_proof.py", &file), "byte {at}");
        }
    }
}

/// What somebody would try who can write a proof anew.
#[tokio::test]
async fn a_proof_of_something_else_is_found() {
    let (data, _) = filled(70).await;
    let evidence = data.path().join("evidence");
    let proof = prove(&evidence, "host-b-9").unwrap();
    let other = prove(&evidence, "host-b-10").unwrap();
    let of_another_log = prove(&filled(70).await.0.path().join("evidence"), "host-b-9").unwrap();
    let file = data.path().join("proof.json");
    let mut tried: Vec<(&str, pgwitness_collector::prove::Proof, &str)> = Vec::new();
    let mut change = |what, expected, change: &dyn Fn(&mut pgwitness_collector::prove::Proof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        tried.push((what, changed, expected));
    };
    change("another number", "expected \"host-b-9\"", &|p| {
        p.event_id = "host-b-10".to_owned();
    });
    change("another event", "expected the batch's", &|p| {
        p.event.message = other.event.message.clone();
    });
    change("another salt", "expected the batch's", &|p| {
        p.event.salt = other.event.salt.clone();
    });
    change("a definition as an event", "expected", &|p| {
        p.event = p.definitions[0].clone();
    });
    change("no definitions", "expected those that the event names", &|p| {
        p.definitions.clear();
    });
    change("another place in the log", "expected the checkpoint's", &|p| {
        p.log.index += 1;
    });
    change("a shorter path", "expected the checkpoint's", &|p| {
        _ = p.log.path.pop();
    });
    change("another batch", "is not the agent's", &|p| {
        p.batch.header = other.batch.header.clone();
    });
    change("another agent's word", "signature", &|p| {
        p.agent.public_key = "00".repeat(32);
    });
    change("another log's agent", "not the collector's", &|p| {
        p.agent = of_another_log.agent.clone();
    });
    change("another log's key", "log.checkpoint", &|p| {
        p.log.verifier_key = of_another_log.log.verifier_key.clone();
    });
    change("another log", "agent", &|p| {
        p.log = of_another_log.log.clone();
    });
    change("a witness that did not sign", "0 of the 1", &|p| {
        let key = SigningKey::from_bytes(&[5; 32]).verifying_key();
        p.witnesses = vec![evidence::WitnessKey::new("w", key).unwrap().text()];
    });
    for (what, changed, expected) in tried {
        let bytes = changed.to_bytes().unwrap();
        let wrong = check(&bytes, &Options::default()).wrong.expect(what);
        assert!(wrong.contains(expected), "{what}: {wrong}");
        fs::write(&file, bytes).unwrap();
        assert!(!checker("check_proof.py", &file), "{what}");
    }
}

fn with(data: &Path, threads: usize) -> Report {
    let options = Options {
        threads,
        ..Options::default()
    };
    verify_with(&data.join("evidence"), &options).unwrap()
}

/// Random bits of random files, one at a time; `verify` by one thread and by several, and the checker on a sample.
#[tokio::test]
async fn the_checker_and_any_number_of_threads_agree() {
    let (data, _) = filled(300).await;
    assert!(checker("check_log.py", &data.path().join("evidence")));
    assert_eq!(with(data.path(), 1), with(data.path(), 4));
    let files = files(&data.path().join("evidence"));
    let mut random = StdRng::seed_from_u64(0x5eed);
    let mut named = 0;
    for n in 0..TRIES {
        let file = &files[random.gen_range(0..files.len())];
        let whole = fs::read(file).unwrap();
        let mut other = whole.clone();
        let at = random.gen_range(0..whole.len());
        other[at] ^= 1 << random.gen_range(0..8);
        fs::write(file, &other).unwrap();
        let report = with(data.path(), 1 + n % 3);
        let name = file.strip_prefix(data.path().join("evidence")).unwrap();
        assert!(!report.ok, "{} at byte {at}", name.display());
        if n % 40 == 0 {
            assert_eq!(
                report,
                with(data.path(), 4),
                "the first thing that is wrong is the first for all"
            );
            assert!(
                !checker("check_log.py", &data.path().join("evidence")),
                "{} at byte {at}",
                name.display()
            );
        }
        named += usize::from(report.wrong.unwrap().file == name.display().to_string());
        fs::write(file, whole).unwrap();
    }
    assert!(with(data.path(), 2).ok);
    // The key in origin is blamed on the checkpoint that it no longer opens.
    assert!(named * 100 >= TRIES * 95, "{named} of {TRIES} named their file");
}

/// Enough to hit every kind of file often. The suite `evidence` does it at scale.
const TRIES: usize = 400;

#[tokio::test]
async fn a_later_run_reads_only_what_is_new_and_still_finds_a_rollback() {
    let (data, mut agents) = filled(40).await;
    let state = data.path().join("state.json");
    let options = Options {
        state: Some(state.clone()),
        ..Options::default()
    };
    let evidence = data.path().join("evidence");
    let first = verify_with(&evidence, &options).unwrap();
    assert!(first.ok && first.checked_earlier == 0, "{first:?}");
    let old = copy(data.path());
    let opened = open(data.path()).unwrap();
    for _ in 0..3 {
        let batch = agents[0].seal(2);
        assert!(matches!(
            append(&opened.log, &agents[0], &batch).await,
            Appended::Stored(_)
        ));
    }
    close(opened).await;
    let second = verify_with(&evidence, &options).unwrap();
    assert_eq!(
        (second.ok, second.checked_earlier, second.batches),
        (true, 40, 43)
    );
    assert_eq!(second.root, verify(&evidence, None).root);

    let rolled_back = verify_with(&old.path().join("evidence"), &options).unwrap();
    let wrong = rolled_back.wrong.unwrap().what;
    assert!(
        wrong.starts_with("rolled back: 40 batches are there, the earlier run saw 43"),
        "{wrong}"
    );
    let of_another = verify_with(&filled(50).await.0.path().join("evidence"), &options).unwrap();
    assert!(!of_another.ok);
    // What was signed is read again, what stands for it by a digest is not: that is what the report says.
    let segment = evidence.join("payload/000000000000.seg");
    let whole = fs::read(&segment).unwrap();
    let first_record = u32::from_be_bytes(whole[..4].try_into().unwrap()) as usize + 12;
    for (at, found) in [(20, true), (first_record - 2, false)] {
        let mut other = whole.clone();
        other[at] ^= 4;
        fs::write(&segment, other).unwrap();
        assert_eq!(!verify_with(&evidence, &options).unwrap().ok, found, "byte {at}");
        assert!(!verify(&evidence, None).ok);
        fs::write(&segment, &whole).unwrap();
    }
    fs::write(&state, "nonsense").unwrap();
    let refused = format!("{:#}", verify_with(&evidence, &options).unwrap_err());
    assert!(refused.contains("name another file, or remove it"), "{refused}");
}

/// By the packages that the Go checksum database is read with, and cosignatures by those of another project.
#[tokio::test]
#[ignore = "needs Go, and a proxy to fetch its modules from"]
async fn packages_of_others_read_the_log_as_it_lies_on_disk() {
    let (data, _) = filled(600).await;
    let evidence = data.path().join("evidence");
    let (key, note) = (
        SigningKey::from_bytes(&[7; 32]),
        fs::read(evidence.join("checkpoint")).unwrap(),
    );
    let (checkpoint, _) = evidence::Checkpoint::open_kept(&note, &origin_key(data.path()), &[]).unwrap();
    let line = evidence::cosign("witness.example/1", &key, &checkpoint.text(), 1_700_000_000).unwrap();
    let witness = evidence::WitnessKey::new("witness.example/1", key.verifying_key()).unwrap();
    let opened = open(data.path()).unwrap();
    opened
        .log
        .cosigned([note, line].concat(), vec![witness.clone()])
        .await
        .unwrap();
    close(opened).await;
    let go = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/checker/go");
        let mut command = Command::new("go");
        command
            .args(["run", "."])
            .arg(&evidence)
            .arg(witness.text())
            .current_dir(folder);
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (ok, said) = go();
    assert!(ok && said.contains("600 entries, 1 cosignatures"), "{said}");
    for file in ["tile/0/001", "tile/entries/000", "checkpoint", "cosigned"] {
        let whole = fs::read(evidence.join(file)).unwrap();
        let mut other = whole.clone();
        other[40] ^= 1;
        fs::write(evidence.join(file), other).unwrap();
        assert!(!go().0, "{file}");
        fs::write(evidence.join(file), whole).unwrap();
    }
}
