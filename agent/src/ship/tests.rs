//! The chain over restarts, crashes, lost power, and collectors that hold something else.

use std::{path::Path, sync::Arc};

use ed25519_dalek::SigningKey;
use evidence::{Tip, check_seal, header_hash};
use proto::v1;

use super::{
    Outbox, Sealing,
    sealer::{Sealer, WINDOW},
};
use crate::{config::WhenFull, metrics::Metrics, progress::Progress, record::Encoded, trust::Keyring};

struct Agent {
    folder: tempfile::TempDir,
    outbox: Arc<Outbox>,
    spool_bytes: u64,
    when_full: WhenFull,
}

/// Two collectors.
const HERE: &str = "https://here:7433";
const THERE: &str = "https://there:7433";

impl Agent {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            outbox: Arc::new(Outbox::new(64 << 20)),
            spool_bytes: 1 << 20,
            when_full: WhenFull::KeepOldest,
        }
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A run in this boot of the host.
    fn run(&self, boot: &str, new_key: bool) -> Sealer {
        Sealer::open(Sealing {
            state: self.path().to_owned(),
            boot: boot.to_owned(),
            agent_id: "db1".to_owned(),
            keyring: Keyring::open(self.path().join("agent.key"), Self::key()).expect("a keyring"),
            new_key,
            spool_bytes: self.spool_bytes,
            when_full: self.when_full,
            collectors: vec![HERE.to_owned(), THERE.to_owned()],
            outbox: Arc::clone(&self.outbox),
            metrics: Arc::new(Metrics::default()),
            progress: Arc::new(Progress::open(self.path(), boot, 1).0),
        })
    }

    /// Seals a batch of so many events.
    fn seal(&self, sealer: &mut Sealer, events: u32) {
        for _ in 0..events {
            self.outbox.push(&Encoded::of(&v1::Event {
                ts_start_ns: 1,
                ..v1::Event::default()
            }));
        }
        sealer.seal();
    }

    /// What waits to be sealed.
    fn waiting(&self) -> Vec<v1::event::Body> {
        let mut waiting = Vec::new();
        while let Some(gathered) = self.outbox.take() {
            let definitions: Vec<&[u8]> = gathered.contents.definitions().collect();
            for (event, number) in gathered.contents.events().zip(1..) {
                let event = proto::whole::event(number, event, &definitions).expect("an event");
                waiting.extend(event.body);
            }
        }
        waiting
    }

    /// Reasons of the gaps among that.
    fn told(&self) -> Vec<String> {
        let gap = |body| match body {
            v1::event::Body::Gap(gap) => Some(gap.reason),
            _ => None,
        };
        self.waiting().into_iter().filter_map(gap).collect()
    }

    /// The changes of collectors among that: whose log is the new one, and up to which batch others have everything.
    fn changes(&self) -> Vec<(String, u64)> {
        let change = |body| match body {
            v1::event::Body::CollectorChange(change) => Some((change.origin, change.acknowledged)),
            _ => None,
        };
        self.waiting().into_iter().filter_map(change).collect()
    }
}

fn resume(tip: Tip) -> v1::Resume {
    v1::Resume {
        sequence: tip.sequence,
        header_hash: if tip.sequence == 0 {
            Vec::new()
        } else {
            tip.header_hash.to_vec()
        },
        event_seq: tip.event_seq,
        ..v1::Resume::default()
    }
}

/// What a collector makes of the batches behind what it holds: each has to follow and to be signed.
fn deliver(sealer: &mut Sealer, tip: Tip) -> Tip {
    let from = tip.sequence + 1;
    deliver_to(HERE, sealer, tip, from, u64::MAX)
}

/// The same for the batches from `from` to `to`: the first may be a leap.
fn deliver_to(collector: &str, sealer: &mut Sealer, mut tip: Tip, from: u64, to: u64) -> Tip {
    let to = to.min(sealer.tip.sequence);
    for sequence in from..=to {
        let batch = sealer.read(sequence).expect("there");
        let key = Agent::key().verifying_key();
        let seal = check_seal(&batch, &key, &evidence::Limits::default()).expect("signed");
        let followed = match sequence == from {
            true => tip.follow_or_leap(&seal.header, seal.header_hash),
            false => tip.follow(&seal.header, seal.header_hash),
        };
        tip = followed.expect("it follows");
        sealer
            .memory
            .acknowledged(collector, tip.sequence, header_hash(&batch.header));
        sealer.acknowledge(tip.sequence);
    }
    if to == sealer.tip.sequence {
        assert_eq!(tip, sealer.tip);
    }
    tip
}

#[test]
fn a_new_agent_seals_without_a_collector_and_a_killed_one_loses_nothing() {
    let agent = Agent::new();
    let mut first = agent.run("boot", true);
    for _ in 0..3 {
        agent.seal(&mut first, 5);
    }
    assert_eq!((first.tip.sequence, first.tip.event_seq), (3, 15));
    // Killed: nothing is ended in order.
    drop(first);
    let mut second = agent.run("boot", false);
    agent.seal(&mut second, 5);
    assert_eq!((second.tip.sequence, second.tip.event_seq), (4, 20));
    assert_eq!(second.align(HERE, &resume(Tip::default())).expect("aligned"), 1);
    let tip = deliver(&mut second, Tip::default());
    assert!(second.stop());
    drop(second);
    // Ended well: the next boot knows where the chain ends.
    let mut third = agent.run("next", false);
    assert!(third.may_seal() && third.tip == tip);
    assert_eq!(third.align(HERE, &resume(tip)).expect("aligned"), 5);
    assert!(agent.told().is_empty(), "nothing was wrong");
}

#[test]
fn after_a_loss_of_power_nothing_is_sealed_before_a_collector_was_asked() {
    let agent = Agent::new();
    let mut first = agent.run("boot", true);
    agent.seal(&mut first, 5);
    let one = first.tip;
    drop(first);
    let mut second = agent.run("next", false);
    agent.seal(&mut second, 5);
    assert_eq!((second.may_seal(), second.tip), (false, one), "they wait");
    drop(second);
    // Killed before it could ask: it is in doubt still.
    let mut third = agent.run("next", false);
    assert!(!third.may_seal());
    // The collector holds more: what was not synced.
    let more = Tip {
        sequence: 9,
        header_hash: [9; 32],
        event_seq: 90,
    };
    assert_eq!(third.align(HERE, &resume(more)).expect("aligned"), 10);
    assert!(third.may_seal());
    third.seal();
    assert_eq!(
        (third.tip.sequence, third.tip.event_seq),
        (10, 96),
        "with the event that says so"
    );
    deliver(&mut third, more);
}

#[test]
fn a_collector_that_is_ahead_is_followed_and_that_is_told() {
    let agent = Agent::new();
    let mut sealer = agent.run("boot", true);
    agent.seal(&mut sealer, 5);
    // A state folder that was put back to an older copy: this run sealed a batch that the collector has another of.
    let more = Tip {
        sequence: 4,
        header_hash: [4; 32],
        event_seq: 40,
    };
    assert_eq!(sealer.align(HERE, &resume(more)).expect("aligned"), 5);
    assert_eq!(
        (sealer.tip.sequence, sealer.tip.event_seq),
        (5, 45),
        "it has another place"
    );
    assert_eq!(agent.told(), ["chain_followed"]);
    let tip = deliver(&mut sealer, more);
    drop(sealer);
    // On disk, too.
    let sealer = agent.run("boot", false);
    assert!(sealer.may_seal() && sealer.tip == tip);
}

#[test]
fn a_collector_that_forgot_is_objected_to_once_and_gets_what_is_there() {
    let agent = Agent::new();
    let mut sealer = agent.run("boot", true);
    let mut held = Tip::default();
    for n in 1..=8 {
        agent.seal(&mut sealer, 5);
        if n <= 6 {
            held = deliver(&mut sealer, held);
        }
    }
    drop(sealer);
    let mut sealer = agent.run("boot", false);
    // All of it is in the first file still: the collector gets again what it forgot.
    let third = v1::BatchHeader {
        previous: sealer
            .read(4)
            .map(|batch| {
                use prost::Message as _;
                v1::BatchHeader::decode(batch.header).expect("a header").previous
            })
            .expect("there"),
        ..v1::BatchHeader::default()
    };
    let old = Tip {
        sequence: 3,
        header_hash: third.previous.try_into().expect("a hash"),
        event_seq: 15,
    };
    for _ in 0..2 {
        assert_eq!(sealer.align(HERE, &resume(old)).expect("aligned"), 4);
    }
    assert_eq!(agent.told(), ["record_rolled_back"]);
    // Another record altogether: what it cannot have has another place in it.
    let other = Tip {
        sequence: 2,
        header_hash: [2; 32],
        event_seq: 11,
    };
    assert_eq!(sealer.align(HERE, &resume(other)).expect("aligned"), 3);
    assert_eq!(agent.told(), ["record_rolled_back"]);
    assert_eq!((sealer.tip.sequence, sealer.tip.event_seq), (8, 41));
    agent.seal(&mut sealer, 1);
    deliver(&mut sealer, other);
    // And from nothing: it gets what is still there, under the numbers that it had.
    drop(sealer);
    let mut sealer = agent.run("boot", false);
    assert_eq!(
        sealer.align(HERE, &resume(Tip::default())).expect("aligned"),
        9,
        "the file before was acknowledged, and is gone"
    );
    assert_eq!(agent.told(), ["record_rolled_back"]);
    deliver_to(HERE, &mut sealer, Tip::default(), 9, u64::MAX);
}

#[test]
fn where_the_spool_is_full_batches_wait_in_memory_and_then_in_the_queue() {
    let mut agent = Agent::new();
    agent.spool_bytes = 4096;
    let mut sealer = agent.run("boot", true);
    for _ in 0..100 {
        agent.seal(&mut sealer, 1);
    }
    assert_eq!(sealer.unspooled.len(), WINDOW);
    assert!(!sealer.may_seal() && !agent.outbox.is_empty());
    let spooled = sealer.tip.sequence - WINDOW as u64;
    assert!(spooled > 3);
    assert!(!sealer.stop(), "not all of it is on disk");
    // A collector takes all of it.
    assert_eq!(sealer.align(HERE, &resume(Tip::default())).expect("aligned"), 1);
    let tip = deliver(&mut sealer, Tip::default());
    sealer.seal();
    let tip = deliver(&mut sealer, tip);
    assert!(agent.outbox.is_empty() && sealer.stop());
    drop(sealer);
    // The newest was acknowledged without having been on disk: the collector is asked.
    let mut sealer = agent.run("boot", false);
    assert!(!sealer.may_seal());
    assert_eq!(
        sealer.align(HERE, &resume(tip)).expect("aligned"),
        tip.sequence + 1
    );
    assert!(sealer.may_seal() && agent.told().is_empty());
}

#[test]
fn a_spool_that_cannot_be_used_does_not_stop_delivery() {
    let agent = Agent::new();
    std::fs::write(agent.path().join("spool"), "no folder").expect("written");
    let mut sealer = agent.run("boot", true);
    assert!(!sealer.may_seal());
    assert_eq!(sealer.align(HERE, &resume(Tip::default())).expect("aligned"), 1);
    for _ in 0..WINDOW + 1 {
        agent.seal(&mut sealer, 1);
    }
    assert_eq!(sealer.tip.sequence, WINDOW as u64);
    deliver(&mut sealer, Tip::default());
}

#[test]
fn a_collector_that_comes_new_gets_what_no_other_has() {
    let agent = Agent::new();
    let mut sealer = agent.run("boot", true);
    for _ in 0..8 {
        agent.seal(&mut sealer, 5);
    }
    let here = |tip: Tip| v1::Resume {
        origin: "pgwitness/here".to_owned(),
        ..resume(tip)
    };
    let none = here(Tip::default());
    assert_eq!(sealer.align(HERE, &none).expect("aligned"), 1);
    let at_here = deliver_to(HERE, &mut sealer, Tip::default(), 1, 5);
    // It has a sixth, too, and could not say so.
    let sixth = sealer.read(6).expect("there");
    let there = v1::Resume {
        origin: "pgwitness/there".to_owned(),
        ..v1::Resume::default()
    };
    assert_eq!(sealer.align(THERE, &there).expect("aligned"), 6);
    assert_eq!(agent.changes(), [("pgwitness/there".to_owned(), 5)]);
    let at_there = deliver_to(THERE, &mut sealer, Tip::default(), 6, u64::MAX);
    agent.seal(&mut sealer, 5);
    // Killed, and back to the first: nothing is sent again that one of both has.
    drop(sealer);
    let mut sealer = agent.run("boot", false);
    assert_eq!(sealer.acknowledged, 8);
    let six = check_seal(
        &sixth,
        &Agent::key().verifying_key(),
        &evidence::Limits::default(),
    )
    .expect("signed");
    let at_here = at_here.follow(&six.header, six.header_hash).expect("it follows");
    let resumed = here(at_here);
    assert_eq!(sealer.align(HERE, &resumed).expect("aligned"), 9);
    assert_eq!(agent.changes(), [("pgwitness/here".to_owned(), 8)]);
    let newest = deliver_to(HERE, &mut sealer, at_here, 9, u64::MAX);
    assert_eq!(newest.sequence, 9);
    // What the other one holds is remembered of it alone.
    let resumed = v1::Resume {
        origin: "pgwitness/there".to_owned(),
        ..resume(at_there)
    };
    assert_eq!(sealer.align(THERE, &resumed).expect("aligned"), 10);
    assert!(agent.told().is_empty(), "nothing was wrong");
    let forgot = sealer.align(THERE, &there).expect("aligned");
    assert_eq!((forgot, agent.told()), (1, vec!["record_rolled_back".to_owned()]));
}

#[test]
fn after_a_loss_of_power_only_the_collector_that_was_in_use_says_where_the_chain_ends() {
    let agent = Agent::new();
    let mut sealer = agent.run("boot", true);
    agent.seal(&mut sealer, 5);
    assert_eq!(sealer.align(HERE, &v1::Resume::default()).expect("aligned"), 1);
    let one = deliver(&mut sealer, Tip::default());
    assert_eq!(sealer.align(THERE, &v1::Resume::default()).expect("aligned"), 2);
    drop(sealer);
    let mut sealer = agent.run("next", false);
    assert!(!sealer.may_seal());
    let refused = sealer.align(HERE, &resume(one)).expect_err("it cannot know");
    assert!(refused.to_string().contains(THERE), "{refused:#}");
    assert!(!sealer.may_seal());
    assert_eq!(sealer.align(THERE, &v1::Resume::default()).expect("aligned"), 2);
    assert!(sealer.may_seal());
    drop(sealer);
    // A state folder whose spool is gone: who acknowledged the newest batch has to be there.
    std::fs::remove_dir_all(agent.path().join("spool")).expect("removed");
    let mut sealer = agent.run("last", false);
    let refused = sealer
        .align(THERE, &v1::Resume::default())
        .expect_err("it has nothing");
    assert!(refused.to_string().contains(HERE), "{refused:#}");
    assert_eq!(sealer.align(HERE, &resume(one)).expect("aligned"), 2);
}

#[test]
fn a_full_spool_drops_the_oldest_and_the_record_says_what() {
    let mut agent = Agent::new();
    (agent.spool_bytes, agent.when_full) = (16 << 10, WhenFull::DropOldest);
    let mut sealer = agent.run("boot", true);
    let mut sealed = 0;
    while sealer.acknowledged == 0 {
        agent.seal(&mut sealer, 3);
        sealed += 1;
    }
    let dropped = sealer.acknowledged;
    assert!(sealed > 8 && dropped > 0 && sealer.unspooled.is_empty());
    // Killed before anything said so.
    drop(sealer);
    let mut sealer = agent.run("boot", false);
    assert_eq!(sealer.acknowledged, dropped);
    agent.seal(&mut sealer, 3);
    let says = sealer.read(sealer.tip.sequence).expect("there");
    let seal =
        check_seal(&says, &Agent::key().verifying_key(), &evidence::Limits::default()).expect("signed");
    assert_eq!(
        seal.header.given_up,
        [v1::GivenUp {
            from: 1,
            to: dropped,
            events: dropped * 3
        }]
    );
    assert_eq!(seal.header.event_count, 4, "with the gap");
    let opened =
        evidence::open(&says, &Agent::key().verifying_key(), &evidence::Limits::default()).expect("it opens");
    let definitions: Vec<&[u8]> = opened.definitions.iter().map(|one| &one[..]).collect();
    let gap =
        proto::whole::event(1, opened.events.last().expect("an event"), &definitions).expect("an event");
    let Some(v1::event::Body::Gap(gap)) = gap.body else {
        panic!("the gap comes last")
    };
    assert_eq!(
        (gap.reason.as_str(), gap.events_missing),
        ("spool_dropped", Some(dropped * 3))
    );
    // It is said once, also by the next run; and the chain goes on behind the hole.
    drop(sealer);
    let mut sealer = agent.run("boot", false);
    agent.seal(&mut sealer, 3);
    let next = sealer.read(sealer.tip.sequence).expect("there");
    let next =
        check_seal(&next, &Agent::key().verifying_key(), &evidence::Limits::default()).expect("signed");
    assert!(next.header.given_up.is_empty());
    let from = sealer.align(HERE, &v1::Resume::default()).expect("aligned");
    assert_eq!(from, dropped + 1);
    deliver_to(HERE, &mut sealer, Tip::default(), from, u64::MAX);
    assert!(sealer.holes.is_empty(), "the record has it");
    // For hours: the spool stays within its bound, and every batch is there or said to be gone.
    for _ in 0..400 {
        agent.seal(&mut sealer, 3);
        assert!(sealer.unspooled.is_empty());
    }
    let spool = sealer.spool.as_ref().expect("a spool");
    assert!(spool.bytes() <= 16 << 10);
    let mut gone = 0;
    for sequence in sealer.acknowledged + 1..=sealer.tip.sequence {
        sealer.read(sequence).expect("there");
    }
    let newest = sealer
        .with
        .metrics
        .spool_dropped
        .load(std::sync::atomic::Ordering::Relaxed);
    for (given_up, _) in sealer.holes.unsaid() {
        gone += given_up.events;
    }
    assert!(newest > 600 && gone <= newest, "{newest} dropped, {gone} unsaid");
}

#[test]
fn what_cannot_be_read_is_passed_over_and_said() {
    let mut agent = Agent::new();
    agent.spool_bytes = 1 << 16;
    let mut sealer = agent.run("boot", true);
    for _ in 0..150 {
        agent.seal(&mut sealer, 3);
    }
    drop(sealer);
    let mut files: Vec<_> = std::fs::read_dir(agent.path().join("spool"))
        .expect("a folder")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() > 3);
    std::fs::remove_file(&files[1]).expect("removed");
    let mut sealer = agent.run("boot", false);
    assert_eq!(sealer.align(HERE, &v1::Resume::default()).expect("aligned"), 1);
    let mut tip = Tip::default();
    let mut next = 1;
    while sealer.read(next).is_ok() {
        tip = deliver_to(HERE, &mut sealer, tip, next, next);
        next += 1;
    }
    // The stream breaks there. The collector has to hear of the hole in the next greeting.
    let refused = sealer.align(HERE, &resume(tip)).expect_err("a hole");
    assert!(refused.to_string().contains("passed over"), "{refused:#}");
    let behind = sealer.align(HERE, &resume(tip)).expect("aligned");
    assert!(behind > next && sealer.acknowledged == behind - 1);
    agent.seal(&mut sealer, 1);
    deliver_to(HERE, &mut sealer, tip, behind, u64::MAX);
    assert!(sealer.holes.is_empty(), "the record has it");
}
