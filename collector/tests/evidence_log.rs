//! The evidence log: what is stored verifies, nothing else does, and a crash loses nothing that was acknowledged.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use evidence::{Chain, Contents, Seal};
use pgwitness_collector::{
    log::{self, Appended, Candidate, Greeting, Log, LogOptions, Opened},
    metrics::Metrics,
    verify::verify,
};
use prost::Message;
use proto::v1::{
    Counters, Definition, Event, Party, Session, SessionClose, SignedBatch, definition::Kind, event::Body,
};

#[path = "evidence_log/backups.rs"]
mod backups;
#[path = "evidence_log/moves.rs"]
mod moves;
#[path = "evidence_log/proofs.rs"]
mod proofs;
#[path = "evidence_log/witnesses.rs"]
mod witnesses;

/// An agent that seals ends of sessions, which name their session by a definition.
#[derive(Clone)]
struct Agent {
    chain: Chain,
    key: SigningKey,
    next_event: u64,
}

impl Agent {
    fn new(id: &str, key: u8) -> Self {
        Self {
            chain: Chain::new(id),
            key: SigningKey::from_bytes(&[key; 32]),
            next_event: 1,
        }
    }

    fn seal(&mut self, count: u64) -> SignedBatch {
        let first = self.next_event;
        self.next_event += count;
        let party = Party {
            session: Some(Session {
                id: format!("boot-{first}"),
                ..Session::default()
            }),
            attribution: None,
        };
        let mut contents = Contents::default();
        let party = Definition {
            kind: Some(Kind::Party(party)),
        };
        let party = contents.definition(&party.encode_to_vec());
        for seq in first..self.next_event {
            let event = Event {
                ts_start_ns: seq * 1000,
                party: Some(party),
                body: Some(Body::SessionClose(SessionClose::default())),
                ..Event::default()
            };
            contents.event(&[&event.encode_to_vec()]);
        }
        let counters = Counters {
            events: first,
            ..Counters::default()
        };
        let seed = [first as u8; 32];
        evidence::seal(
            &mut self.chain,
            &self.key,
            contents,
            first,
            first * 1000,
            first * 1000,
            counters,
            seed,
        )
    }

    fn candidate(&self, batch: &SignedBatch) -> Candidate {
        let opened = evidence::open(batch, &self.key.verifying_key(), &log::limits()).unwrap();
        let events = log::decode_events(&opened).unwrap();
        let seal = Seal {
            header: opened.header,
            header_hash: opened.header_hash,
        };
        Candidate {
            batch: batch.clone(),
            seal,
            events,
            stream_refused: Arc::default(),
        }
    }
}

fn options() -> LogOptions {
    LogOptions {
        name: Some("test".to_owned()),
        checkpoint_interval: Duration::from_secs(3600),
        segment_bytes: 2000,
    }
}

/// Opens the log; its feed is dropped, as nothing here reads it.
fn open(data: &Path) -> anyhow::Result<Opened> {
    Log::open(data, options(), Arc::new(Metrics::default()))
}

/// The same under another name.
fn open_as(data: &Path, name: &str) -> anyhow::Result<Opened> {
    let options = LogOptions {
        name: Some(name.to_owned()),
        ..options()
    };
    Log::open(data, options, Arc::new(Metrics::default())).map(|mut opened| {
        opened.durable.close();
        opened
    })
}

async fn append(log: &Log, agent: &Agent, batch: &SignedBatch) -> Appended {
    log.append(agent.candidate(batch)).await.unwrap().await.unwrap()
}

async fn hello(log: &Log, agent: &Agent) -> evidence::Tip {
    log.hello(agent.chain.agent_id.clone(), agent.key.verifying_key())
        .await
        .unwrap()
        .unwrap()
}

/// The same of an agent that says that everything up to `acknowledged` is elsewhere, or gone.
async fn hello_behind(log: &Log, agent: &Agent, acknowledged: u64) -> evidence::Tip {
    let greeting = Greeting {
        acknowledged,
        ..Greeting::new(agent.chain.agent_id.clone(), agent.key.verifying_key())
    };
    log.meet(greeting).await.unwrap().unwrap().0
}

async fn close(opened: Opened) {
    opened.log.close().await;
    opened.ended.await.unwrap().unwrap();
}

/// A folder with `batches` batches of two agents, closed with a checkpoint.
async fn filled(batches: usize) -> (tempfile::TempDir, [Agent; 2]) {
    let data = tempfile::tempdir().unwrap();
    let mut agents = [Agent::new("host-a", 1), Agent::new("host-b", 2)];
    let Opened {
        log, durable, ended, ..
    } = open(data.path()).unwrap();
    drop(durable);
    for agent in &agents {
        hello(&log, agent).await;
    }
    for n in 0..batches {
        let agent = &mut agents[n % 2];
        let batch = agent.seal(n as u64 % 3);
        assert_eq!(append(&log, agent, &batch).await, Appended::Stored(n as u64));
    }
    log.close().await;
    ended.await.unwrap().unwrap();
    (data, agents)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in files(from) {
        let target = to.path().join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
    to
}

fn holds(data: &Path) -> bool {
    verify(&data.join("evidence"), None).ok
}

#[tokio::test]
async fn what_was_stored_verifies_and_is_read_back() {
    let (data, _) = filled(300).await;
    let evidence = data.path().join("evidence");
    let report = verify(&evidence, None);
    assert!(report.ok, "{report:?}");
    assert_eq!(
        (report.agents, report.batches, report.tree_size, report.events),
        (2, 300, 300, 300)
    );
    assert_eq!(report.not_yet_under_a_checkpoint, 0);
    assert!(files(&evidence.join("payload")).len() > 10, "segments rotate");
    assert!(evidence.join("tile/0/000").exists() && evidence.join("tile/entries/001.p/44").exists());
    for from in [0, 1, 150, 299, 300] {
        let read: Vec<_> = log::read_batches(&evidence, from).map(Result::unwrap).collect();
        assert_eq!(
            read.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            (from..300).collect::<Vec<_>>()
        );
    }
}

/// The writer handles so many commands under one sync; what is queued beyond that is the next group's, and not lost.
#[tokio::test]
async fn more_batches_at_once_than_one_sync_takes_are_all_answered() {
    let data = tempfile::tempdir().unwrap();
    let Opened {
        log, durable, ended, ..
    } = open(data.path()).unwrap();
    drop(durable);
    let log = Arc::new(log);
    let agents: Vec<Agent> = (0..200_u8).map(|n| Agent::new(&format!("host-{n}"), n)).collect();
    let storms = agents.into_iter().map(|mut agent| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            hello(&log, &agent).await;
            for _ in 0..3 {
                let batch = agent.seal(1);
                assert!(matches!(append(&log, &agent, &batch).await, Appended::Stored(_)));
            }
        })
    });
    for storm in storms.collect::<Vec<_>>() {
        storm.await.unwrap();
    }
    log.close().await;
    ended.await.unwrap().unwrap();
    assert_eq!(verify(&data.path().join("evidence"), None).batches, 600);
}

/// Whoever holds the agent's key could have signed it, and a collector of another version stored it.
#[tokio::test]
async fn an_event_without_its_definition_does_not_verify() {
    let data = tempfile::tempdir().unwrap();
    let opened = open(data.path()).unwrap();
    let mut agent = Agent::new("host-a", 1);
    hello(&opened.log, &agent).await;
    let whole = agent.candidate(&agent.clone().seal(1));
    let mut contents = Contents::default();
    let event = Event {
        party: Some(0),
        ..Event::default()
    };
    contents.event(&[&event.encode_to_vec()]);
    let batch = evidence::seal(&mut agent.chain, &agent.key, contents, 1, 0, 0, None, [1; 32]);
    let checked = evidence::open(&batch, &agent.key.verifying_key(), &log::limits()).unwrap();
    let candidate = Candidate {
        batch,
        seal: Seal {
            header: checked.header,
            header_hash: checked.header_hash,
        },
        ..whole
    };
    let stored = opened.log.append(candidate).await.unwrap().await.unwrap();
    assert_eq!(stored, Appended::Stored(0));
    close(opened).await;
    let wrong = verify(&data.path().join("evidence"), None).wrong.unwrap();
    assert_eq!(wrong.file, "payload/000000000000.seg");
    assert_eq!(
        wrong.what,
        "event 1 names definition 0, which the batch does not have"
    );
}

#[tokio::test]
async fn any_changed_byte_of_a_small_log_is_found() {
    let (data, _) = filled(5).await;
    assert!(holds(data.path()));
    let (mut changed, mut named) = (0, 0);
    for file in files(&data.path().join("evidence")) {
        let name = file
            .strip_prefix(data.path().join("evidence"))
            .unwrap()
            .display()
            .to_string();
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1 << (at % 8);
            fs::write(&file, other).unwrap();
            let report = verify(&data.path().join("evidence"), None);
            assert!(!report.ok, "{name} at byte {at}");
            named += usize::from(report.wrong.unwrap().file == name);
            changed += 1;
        }
        fs::write(&file, &whole).unwrap();
    }
    assert!(holds(data.path()));
    assert!(changed > 3000, "only {changed} bytes");
    // The key in origin is blamed on the checkpoint that it no longer opens; everything else on the changed file.
    assert!(
        named * 100 >= changed * 95,
        "{named} of {changed} named their file"
    );
}

#[tokio::test]
async fn random_changes_of_a_larger_log_are_found() {
    let (data, _) = filled(300).await;
    let files = files(&data.path().join("evidence"));
    for n in 0..150_usize {
        let file = &files[n % files.len()];
        let whole = fs::read(file).unwrap();
        let mut other = whole.clone();
        let at = rand::random::<u64>() as usize % whole.len();
        other[at] ^= rand::random::<u8>().max(1);
        fs::write(file, other).unwrap();
        assert!(!holds(data.path()), "{} at byte {at}", file.display());
        fs::write(file, whole).unwrap();
    }
    assert!(holds(data.path()));
}

#[tokio::test]
async fn missing_cut_and_extra_files_are_found() {
    let (data, _) = filled(300).await;
    let evidence = data.path().join("evidence");
    let newest = files(&evidence.join("payload")).pop().unwrap();
    for file in files(&evidence) {
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(!holds(data.path()), "{} cut", file.display());
        fs::write(&file, [whole.as_slice(), b"\n"].concat()).unwrap();
        // Behind the newest record, a byte may be the beginning of one that was never finished.
        let report = verify(&evidence, None);
        assert!(
            !report.ok || (report.unfinished_bytes == 1 && file == newest),
            "{} extended",
            file.display()
        );
        fs::remove_file(&file).unwrap();
        assert!(!holds(data.path()), "{} removed", file.display());
        fs::write(&file, whole).unwrap();
    }
    for extra in [
        "x",
        "agents/x.json",
        "payload/x",
        "tile/x",
        "tile/0/001.p/45",
        "tile/0/001.p/044",
        "tile/0/002",
    ] {
        fs::write(evidence.join(extra), b"x").unwrap();
        let report = verify(&evidence, None);
        assert!(!report.ok, "{extra}");
        fs::remove_file(evidence.join(extra)).unwrap();
    }
    assert!(holds(data.path()));
}

#[tokio::test]
async fn a_checkpoint_kept_elsewhere_finds_a_rollback() {
    let (data, mut agents) = filled(7).await;
    let old = copy(data.path());
    let kept = |data: &Path| fs::read(data.join("evidence/checkpoint")).unwrap();
    let Opened {
        log, durable, ended, ..
    } = open(data.path()).unwrap();
    drop(durable);
    let batch = agents[0].seal(2);
    assert_eq!(append(&log, &agents[0], &batch).await, Appended::Stored(7));
    log.close().await;
    ended.await.unwrap().unwrap();
    let check = |data: &Path, note: &[u8]| verify(&data.join("evidence"), Some(note));
    assert!(
        check(data.path(), &kept(old.path())).ok,
        "a longer log contains the shorter"
    );
    assert!(check(data.path(), &kept(data.path())).ok);
    let report = check(old.path(), &kept(data.path()));
    assert!(
        report
            .wrong
            .as_ref()
            .is_some_and(|wrong| wrong.what.starts_with("rolled back")),
        "{report:?}"
    );
    let (other, _) = filled(3).await;
    assert!(
        !check(data.path(), &kept(other.path())).ok,
        "another log's checkpoint"
    );
    assert!(!check(data.path(), b"nonsense").ok);
}

/// A copy of a log that died with batches beyond its checkpoint.
async fn crashed() -> (tempfile::TempDir, Vec<SignedBatch>, [Agent; 2]) {
    let (data, mut agents) = filled(6).await;
    let opened = open(data.path()).unwrap();
    let mut batches = Vec::new();
    for _ in 0..3 {
        let batch = agents[0].seal(1);
        assert!(matches!(
            append(&opened.log, &agents[0], &batch).await,
            Appended::Stored(_)
        ));
        batches.push(batch);
    }
    let copied = copy(data.path());
    close(opened).await;
    (copied, batches, agents)
}

/// The newest segment, and where the records beyond the checkpoint begin in it.
fn tail(data: &Path, beyond: &[SignedBatch]) -> (PathBuf, usize, usize) {
    let newest = files(&data.join("evidence/payload")).pop().unwrap();
    let length = fs::metadata(&newest).unwrap().len() as usize;
    let last = beyond.last().unwrap().encoded_len() + 12;
    (newest, length - last, length)
}

#[tokio::test]
async fn a_crash_keeps_what_was_acknowledged() {
    let (data, _, agents) = crashed().await;
    let report = verify(&data.path().join("evidence"), None);
    assert!(report.ok && report.not_yet_under_a_checkpoint == 3, "{report:?}");
    let opened = open(data.path()).unwrap();
    let status = opened.log.status().borrow().clone();
    assert_eq!(
        (status.tree_size, status.batches),
        (9, 9),
        "a checkpoint is written at once"
    );
    let tip = hello(&opened.log, &agents[0]).await;
    assert_eq!((tip.sequence, tip.header_hash), (6, agents[0].chain.previous));
    close(opened).await;
    assert!(holds(data.path()));
}

#[tokio::test]
async fn a_record_cut_anywhere_is_cut_off_and_a_changed_one_is_not() {
    let (data, batches, mut agents) = crashed().await;
    let (newest, begins, length) = tail(data.path(), &batches);
    let next = agents[0].seal(1);
    for cut in begins..length {
        let copied = copy(data.path());
        let segment = copied.path().join(newest.strip_prefix(data.path()).unwrap());
        fs::OpenOptions::new()
            .write(true)
            .open(&segment)
            .unwrap()
            .set_len(cut as u64)
            .unwrap();
        let report = verify(&copied.path().join("evidence"), None);
        assert!(report.ok, "cut at {cut}: {report:?}");
        assert_eq!(report.unfinished_bytes, (cut - begins) as u64);
        let opened = open(copied.path()).unwrap();
        assert_eq!(fs::metadata(&segment).unwrap().len(), begins as u64);
        assert_eq!(
            hello(&opened.log, &agents[0]).await.sequence,
            5,
            "the cut batch was never acknowledged"
        );
        assert_eq!(
            append(&opened.log, &agents[0], &batches[2]).await,
            Appended::Stored(8)
        );
        assert_eq!(append(&opened.log, &agents[0], &next).await, Appended::Stored(9));
        close(opened).await;
        assert!(holds(copied.path()));
    }
    for at in begins..length {
        let copied = copy(data.path());
        let segment = copied.path().join(newest.strip_prefix(data.path()).unwrap());
        let mut bytes = fs::read(&segment).unwrap();
        bytes[at] ^= 0x20;
        fs::write(&segment, &bytes).unwrap();
        assert!(!holds(copied.path()), "byte {at}");
        assert!(open(copied.path()).is_err(), "byte {at}");
        assert_eq!(
            fs::read(&segment).unwrap(),
            bytes,
            "a log that does not verify is left alone"
        );
    }
}

#[tokio::test]
async fn a_record_cut_below_the_checkpoint_is_tampering() {
    let (data, _) = filled(6).await;
    let newest = files(&data.path().join("evidence/payload")).pop().unwrap();
    let length = fs::metadata(&newest).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&newest)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    assert!(!holds(data.path()));
    let refused = open(data.path()).err().unwrap().to_string();
    assert!(
        refused.contains("does not verify") && refused.contains(".seg at byte"),
        "{refused}"
    );
}

#[tokio::test]
async fn repeats_are_acknowledged_once_and_differences_kept_aside() {
    let (data, mut agents) = filled(4).await;
    let Opened {
        log, durable, ended, ..
    } = open(data.path()).unwrap();
    drop(durable);
    let before = agents[0].chain.clone();
    let batch = agents[0].seal(2);
    assert_eq!(append(&log, &agents[0], &batch).await, Appended::Stored(4));
    assert_eq!(append(&log, &agents[0], &batch).await, Appended::Duplicate);
    // The same number again, of other content.
    let mut fork = Agent {
        chain: before,
        key: agents[0].key.clone(),
        next_event: agents[0].next_event - 2,
    };
    let other = fork.seal(1);
    assert!(
        matches!(append(&log, &fork, &other).await, Appended::Refused(reason) if reason.contains("differs"))
    );
    // A number left out; the batch behind it on the same stream is left alone.
    let _lost = agents[0].seal(1);
    let (skipped, behind) = (agents[0].seal(1), agents[0].seal(1));
    let (first, mut second) = (agents[0].candidate(&skipped), agents[0].candidate(&behind));
    second.stream_refused = Arc::clone(&first.stream_refused);
    let (first, second) = (
        log.append(first).await.unwrap(),
        log.append(second).await.unwrap(),
    );
    assert_eq!(
        first.await.unwrap(),
        Appended::Refused("expected batch 4, found 5".to_owned())
    );
    assert_eq!(second.await.unwrap(), Appended::Abandoned);
    // Sending it again keeps it once.
    assert!(matches!(
        append(&log, &agents[0], &skipped).await,
        Appended::Refused(_)
    ));
    let status = log.status();
    log.close().await;
    ended.await.unwrap().unwrap();
    assert_eq!(status.borrow().aside, 2);
    assert_eq!(files(&data.path().join("aside")).len(), 2);
    assert!(holds(data.path()));
}

#[tokio::test]
async fn keys_and_folders_are_for_one() {
    let (data, agents) = filled(2).await;
    let opened = open(data.path()).unwrap();
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key();
    assert!(
        opened
            .log
            .hello(agents[0].chain.agent_id.clone(), other)
            .await
            .unwrap()
            .is_err()
    );
    let refused = open(data.path()).err().unwrap().to_string();
    assert!(refused.contains("another collector is using"), "{refused}");
    close(opened).await;
    fs::remove_file(data.path().join("collector.key")).unwrap();
    let refused = format!("{:#}", open(data.path()).err().unwrap());
    assert!(refused.contains("needs its signing key"), "{refused}");
    assert!(holds(data.path()), "verifying needs no secret");
}
