//! The chain over restarts, crashes, lost power, and collectors that hold something else.

use std::{path::Path, sync::Arc};

use ed25519_dalek::SigningKey;
use evidence::{Tip, check_seal, header_hash};
use proto::v1;

use super::{
    Outbox, Sealing,
    sealer::{Sealer, WINDOW},
};
use crate::{metrics::Metrics, progress::Progress, record::Encoded, trust::Keyring};

struct Agent {
    folder: tempfile::TempDir,
    outbox: Arc<Outbox>,
    spool_bytes: u64,
}

impl Agent {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            outbox: Arc::new(Outbox::new(64 << 20)),
            spool_bytes: 1 << 20,
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

    /// Reasons of the gaps that wait to be sealed.
    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(gathered) = self.outbox.take() {
            let definitions: Vec<&[u8]> = gathered.contents.definitions().collect();
            for (event, number) in gathered.contents.events().zip(1..) {
                let event = proto::whole::event(number, event, &definitions).expect("an event");
                if let Some(v1::event::Body::Gap(gap)) = event.body {
                    told.push(gap.reason);
                }
            }
        }
        told
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
fn deliver(sealer: &mut Sealer, mut tip: Tip) -> Tip {
    while tip.sequence < sealer.tip.sequence {
        let batch = sealer.read(tip.sequence + 1).expect("there");
        let key = Agent::key().verifying_key();
        let seal = check_seal(&batch, &key, &evidence::Limits::default()).expect("signed");
        tip = tip.follow(&seal.header, seal.header_hash).expect("it follows");
        sealer
            .memory
            .acknowledged(tip.sequence, header_hash(&batch.header));
        sealer.acknowledge(tip.sequence);
    }
    assert_eq!(tip, sealer.tip);
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
    assert_eq!(second.align(&resume(Tip::default())).expect("aligned"), 1);
    let tip = deliver(&mut second, Tip::default());
    assert!(second.stop());
    drop(second);
    // Ended well: the next boot knows where the chain ends.
    let mut third = agent.run("next", false);
    assert!(third.may_seal() && third.tip == tip);
    assert_eq!(third.align(&resume(tip)).expect("aligned"), 5);
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
    assert_eq!(third.align(&resume(more)).expect("aligned"), 10);
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
    assert_eq!(sealer.align(&resume(more)).expect("aligned"), 5);
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
        assert_eq!(sealer.align(&resume(old)).expect("aligned"), 4);
    }
    assert_eq!(agent.told(), ["record_rolled_back"]);
    // Another record altogether: what it cannot have has another place in it.
    let other = Tip {
        sequence: 2,
        header_hash: [2; 32],
        event_seq: 11,
    };
    assert_eq!(sealer.align(&resume(other)).expect("aligned"), 3);
    assert_eq!(agent.told(), ["record_rolled_back"]);
    assert_eq!((sealer.tip.sequence, sealer.tip.event_seq), (8, 41));
    agent.seal(&mut sealer, 1);
    deliver(&mut sealer, other);
    // And from nothing.
    drop(sealer);
    let mut sealer = agent.run("boot", false);
    assert_eq!(sealer.align(&resume(Tip::default())).expect("aligned"), 1);
    assert_eq!(agent.told(), ["record_rolled_back"]);
    deliver(&mut sealer, Tip::default());
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
    assert_eq!(sealer.align(&resume(Tip::default())).expect("aligned"), 1);
    let tip = deliver(&mut sealer, Tip::default());
    sealer.seal();
    let tip = deliver(&mut sealer, tip);
    assert!(agent.outbox.is_empty() && sealer.stop());
    drop(sealer);
    // The newest was acknowledged without having been on disk: the collector is asked.
    let mut sealer = agent.run("boot", false);
    assert!(!sealer.may_seal());
    assert_eq!(sealer.align(&resume(tip)).expect("aligned"), tip.sequence + 1);
    assert!(sealer.may_seal() && agent.told().is_empty());
}

#[test]
fn a_spool_that_cannot_be_used_does_not_stop_delivery() {
    let agent = Agent::new();
    std::fs::write(agent.path().join("spool"), "no folder").expect("written");
    let mut sealer = agent.run("boot", true);
    assert!(!sealer.may_seal());
    assert_eq!(sealer.align(&resume(Tip::default())).expect("aligned"), 1);
    for _ in 0..WINDOW + 1 {
        agent.seal(&mut sealer, 1);
    }
    assert_eq!(sealer.tip.sequence, WINDOW as u64);
    deliver(&mut sealer, Tip::default());
}
