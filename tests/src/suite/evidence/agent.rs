//! An agent that keeps a journal: every batch that it handed over, and every acknowledgement with its time and whose it was.
//!
//! Owns the sending end of one chain, and the judgement of what collectors answer. Seals as agents do (`evidence`), with contents
//! that tell each event apart. It misbehaves on purpose where a plan says so: sends twice, skips ahead, goes away in the middle.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use ed25519_dalek::SigningKey;
use evidence::{Chain, Contents};
use prost::Message as _;
use proto::v1::{
    Attribution, Counters, Definition, Event, GivenUp, Hello, Party, Session, SessionClose, SignedBatch,
    Upload, definition::Kind, delivery_client::DeliveryClient, event::Body, receipt, upload,
};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// One agent, and its journal.
#[derive(Clone)]
pub(super) struct Agent {
    /// Its name.
    pub(super) id: String,
    key: SigningKey,
    chain: Chain,
    next_event: u64,
    /// Every batch that was made, in order.
    pub(super) made: Vec<Made>,
    /// What each event holds that no other does, in order; empty where it was made without.
    pub(super) values: Vec<String>,
    /// What collectors said of them.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// The batches that announced another key, without what they held, and the key before each.
    changes: Vec<(u64, SignedBatch, SigningKey)>,
    /// Batches that were deleted before anybody had acknowledged them, with the batch that says so.
    given_up: Vec<(GivenUp, u64)>,
    /// What a collector answered that it must not.
    pub(super) faults: Faults,
    random: StdRng,
}

/// A batch in the journal.
#[derive(Clone)]
pub(super) struct Made {
    /// As it was handed over.
    pub(super) batch: SignedBatch,
    /// Hash of its header.
    hash: evidence::Hash,
    /// Number of its first event.
    pub(super) first_event: u64,
}

/// What a collector said of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// When, nanoseconds since the Unix epoch.
    pub(super) at_ns: u64,
    /// Which collector, by its number in the schedule.
    pub(super) by: usize,
    /// Which batch.
    pub(super) sequence: u64,
}

/// What must not be.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Batches that were acknowledged and that a collector does not hold any more.
    pub(super) lost: u64,
    /// Acknowledgements that do not follow the one before.
    pub(super) out_of_order: u64,
    /// In words.
    pub(super) said: Vec<String>,
}

/// How one conversation goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// In a thousand: a batch is sent twice.
    pub(super) repeats: u32,
    /// In a thousand: a batch is left out, so that the next is refused.
    pub(super) skips: u32,
    /// In a thousand: a byte of a batch is changed on the way, so that it is refused.
    pub(super) spoils: u32,
    /// In a thousand: the agent goes away without a word.
    pub(super) leaves: u32,
}

impl Manners {
    /// Does as agents do.
    pub(super) const GOOD: Self = Self {
        repeats: 0,
        skips: 0,
        spoils: 0,
        leaves: 0,
    };
    /// Everything that can happen between two honest programs and a bad network.
    pub(super) const BAD: Self = Self {
        repeats: 60,
        skips: 15,
        spoils: 10,
        leaves: 15,
    };
}

/// Batches without an acknowledgement at a time.
const WINDOW: usize = 8;

/// A collector that says nothing for so long is not heard any more.
const PATIENCE: Duration = Duration::from_secs(20);

impl Agent {
    /// An agent that has said nothing yet.
    pub(super) fn new(id: &str, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut key = [0; 32];
        random.fill_bytes(&mut key);
        Self {
            id: id.to_owned(),
            key: SigningKey::from_bytes(&key),
            chain: Chain::new(id),
            next_event: 1,
            made: Vec::new(),
            values: Vec::new(),
            acknowledged: Vec::new(),
            changes: Vec::new(),
            given_up: Vec::new(),
            faults: Faults::default(),
            random,
        }
    }

    /// Seals one more batch. Its events are sessions' ends, each under a session id that says which event it is.
    pub(super) fn make(&mut self, events: u64, padding: usize) {
        let first = self.next_event;
        let mut contents = Contents::default();
        for seq in first..first + events {
            let mut noise = vec![0; padding];
            self.random.fill_bytes(&mut noise);
            self.values.push(hex(&noise));
            let party = Party {
                session: Some(Session {
                    id: mark(&self.id, seq),
                    application_name: hex(&noise),
                    ..Session::default()
                }),
                attribution: Some(Attribution::default()),
            };
            let party = Definition {
                kind: Some(Kind::Party(party)),
            };
            let event = Event {
                ts_start_ns: BEGAN_NS + seq * 1000,
                party: Some(contents.definition(&party.encode_to_vec())),
                body: Some(Body::SessionClose(SessionClose::default())),
                ..Event::default()
            };
            contents.event(&[&event.encode_to_vec()]);
        }
        self.next_event += events;
        let mut salt_seed = [0; 32];
        self.random.fill_bytes(&mut salt_seed);
        let counters = Counters {
            events: self.next_event - 1,
            ..Counters::default()
        };
        let (first_ns, last_ns) = (BEGAN_NS + first * 1000, BEGAN_NS + self.next_event * 1000);
        let batch = evidence::seal(
            &mut self.chain,
            &self.key,
            contents,
            first,
            first_ns,
            last_ns,
            counters,
            salt_seed,
        );
        self.made.push(Made {
            batch,
            hash: self.chain.previous,
            first_event: first,
        });
    }

    /// The next batch announces another key, which signs those behind it; unless the one before it is not known to a collector yet.
    pub(super) fn make_with_another_key(&mut self, events: u64) {
        if self.changes.last().is_some_and(|(by, ..)| *by > self.settled()) {
            return self.make(events, 0);
        }
        let mut next = [0; 32];
        self.random.fill_bytes(&mut next);
        let next = SigningKey::from_bytes(&next);
        self.chain.next_key = Some(next.verifying_key().to_bytes());
        self.make(events, 0);
        let Some(made) = self.made.last() else { return };
        let announcing = SignedBatch {
            payload: Vec::new().into(),
            ..made.batch.clone()
        };
        let former = std::mem::replace(&mut self.key, next);
        self.changes.push((self.made.len() as u64, announcing, former));
    }

    /// Deletes the oldest batches that nobody acknowledged, so many; the next one that is made says so. Nothing, if there are fewer.
    pub(super) fn give_up(&mut self, count: u64) {
        let from = self.settled() + 1;
        let to = self.settled() + count;
        if to >= self.made.len() as u64 {
            return;
        }
        let seq = |sequence: u64| {
            let made = self.made.get(usize::try_from(sequence).ok()?.checked_sub(1)?)?;
            Some(made.first_event)
        };
        let events = seq(to + 1)
            .zip(seq(from))
            .map_or(0, |(behind, first)| behind - first);
        self.given_up.push((GivenUp { from, to, events }, from));
        // What said of others that they are gone may be among them.
        let next = self.made.len() as u64 + 1;
        for (given_up, said) in &mut self.given_up {
            if (from..=to).contains(said) {
                *said = next;
                self.chain.given_up.push(*given_up);
            }
        }
    }

    /// Whether this batch was deleted before anybody had acknowledged it.
    pub(super) fn gave_up(&self, sequence: u64) -> bool {
        let mut all = self.given_up.iter();
        all.any(|(one, _)| (one.from..=one.to).contains(&sequence))
    }

    /// Up to this batch nothing is to be sent: some collector has it, or it is deleted.
    fn settled(&self) -> u64 {
        let given_up = self.given_up.iter().map(|(one, _)| one.to).max();
        self.newest_acknowledged().max(given_up.unwrap_or(0))
    }

    /// What it signs with.
    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The newest sequence that was acknowledged before `at_ns`, nanoseconds since the Unix epoch.
    pub(super) fn acknowledged_at(&self, at_ns: u64) -> u64 {
        let before = self.acknowledged.iter().filter(|one| one.at_ns < at_ns);
        before.map(|one| one.sequence).max().unwrap_or(0)
    }

    /// The newest one of all.
    pub(super) fn newest_acknowledged(&self) -> u64 {
        self.acknowledged_at(u64::MAX)
    }

    /// The newest one that this collector acknowledged.
    fn newest_acknowledged_by(&self, by: usize) -> u64 {
        let own = self.acknowledged.iter().filter(|one| one.by == by);
        own.map(|one| one.sequence).max().unwrap_or(0)
    }

    /// Everything that was made is acknowledged.
    pub(super) fn is_through(&self) -> bool {
        self.newest_acknowledged() == self.made.len() as u64
    }

    /// Events that were made.
    pub(super) fn events(&self) -> u64 {
        self.next_event - 1
    }

    /// One conversation, until everything is acknowledged or it breaks, whichever comes first. How it ended is no fault of
    /// anybody's; what the collector said that it must not is in `faults`.
    ///
    /// # Errors
    /// Why it broke.
    pub(super) async fn converse(&mut self, by: usize, socket: &Path, manners: Manners) -> Result<()> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
        let mut client = DeliveryClient::new(endpoint.connect().await?);
        let (up, uploads) = mpsc::channel(WINDOW + 2);
        let hello = self.hello();
        up.send(Upload {
            kind: Some(upload::Kind::Hello(hello)),
        })
        .await?;
        let answer = tokio::time::timeout(PATIENCE, client.deliver(ReceiverStream::new(uploads)));
        let mut receipts = answer.await.context("no answer")??.into_inner();
        let first = tokio::time::timeout(PATIENCE, receipts.message())
            .await
            .context("no resume")??;
        let Some(receipt::Kind::Resume(resume)) = first.and_then(|receipt| receipt.kind) else {
            bail!("the first answer is no Resume")
        };
        self.judge_resume(by, resume.sequence, &resume.header_hash);
        // What another collector has does not come here.
        let mut owed = self.settled();
        let mut next = usize::try_from(owed)?;
        let mut under_way = 0_usize;
        loop {
            while under_way < WINDOW && next < self.made.len() {
                if self.chance(manners.leaves) {
                    return Ok(());
                }
                let Some(made) = self.made.get(next) else { break };
                let mut batch = made.batch.clone();
                let twice = self.chance(manners.repeats);
                if self.chance(manners.skips) {
                    next += 1;
                    continue;
                }
                if self.chance(manners.spoils) {
                    let mut payload = batch.payload.to_vec();
                    let at = self.random.gen_range(0..payload.len().max(1));
                    if let Some(byte) = payload.get_mut(at) {
                        *byte ^= 1 << self.random.gen_range(0..8);
                    }
                    batch.payload = payload.into();
                }
                for _ in 0..=usize::from(twice) {
                    up.send(Upload {
                        kind: Some(upload::Kind::Batch(batch.clone())),
                    })
                    .await?;
                    under_way += 1;
                }
                next += 1;
            }
            if under_way == 0 {
                return Ok(());
            }
            let receipt = tokio::time::timeout(PATIENCE, receipts.message())
                .await
                .context("no receipt")??;
            match receipt.and_then(|receipt| receipt.kind) {
                Some(receipt::Kind::Ack(ack)) => {
                    under_way -= 1;
                    // Of a batch that was sent twice, twice; else each behind the one before.
                    if ack.sequence != owed && ack.sequence != owed + 1 {
                        self.faults.out_of_order += 1;
                        self.faults.said.push(format!(
                            "{}: batch {} is acknowledged behind {owed}",
                            self.id, ack.sequence
                        ));
                    }
                    owed = owed.max(ack.sequence);
                    self.acknowledged.push(Acknowledged {
                        at_ns: now_ns(),
                        by,
                        sequence: ack.sequence,
                    });
                }
                Some(receipt::Kind::Refusal(refusal)) => bail!("refused: {}", refusal.reason),
                Some(_) => bail!("an answer that is not known"),
                None => return Ok(()),
            }
        }
    }

    fn hello(&self) -> Hello {
        let public = |key: &SigningKey| key.verifying_key().as_bytes().to_vec();
        let acknowledged = self.settled();
        // Of what comes yet, the collector may not know, and hears by itself.
        let pending = self.changes.iter().find(|(by, ..)| *by > acknowledged);
        let shown = self.changes.iter().filter(|(by, ..)| *by <= acknowledged);
        Hello {
            agent_id: self.id.clone(),
            public_key: public(&self.key),
            former_key: pending.map_or_else(Vec::new, |(_, _, former)| public(former)),
            version: "truth".to_owned(),
            acknowledged,
            key_changes: shown.map(|(_, announcing, _)| announcing.clone()).collect(),
            ..Hello::default()
        }
    }

    /// A collector holds whatever it acknowledged, and what it holds is what was handed over.
    fn judge_resume(&mut self, by: usize, sequence: u64, hash: &[u8]) {
        let newest = self.newest_acknowledged_by(by);
        if sequence < newest {
            self.faults.lost += newest - sequence;
            self.faults.said.push(format!(
                "{}: batch {newest} was acknowledged, the collector holds {sequence}",
                self.id
            ));
            // Counted once.
            self.acknowledged
                .retain(|one| one.by != by || one.sequence <= sequence);
        }
        let index = usize::try_from(sequence).unwrap_or(usize::MAX).checked_sub(1);
        let Some(index) = index else { return };
        if self.made.get(index).is_none_or(|made| made.hash != *hash) {
            self.faults.lost += 1;
            self.faults.said.push(format!(
                "{}: the collector holds another batch {sequence}",
                self.id
            ));
            return;
        }
        // As good as an acknowledgement: what it says that it holds, it must not lose any more.
        if sequence > newest {
            self.acknowledged.push(Acknowledged {
                at_ns: now_ns(),
                by,
                sequence,
            });
        }
    }

    fn chance(&mut self, in_a_thousand: u32) -> bool {
        in_a_thousand > 0 && self.random.gen_range(0..1000) < in_a_thousand
    }
}

/// The session id that tells which event it is.
pub(super) fn mark(agent: &str, seq: u64) -> String {
    format!("{agent}/{seq}")
}

/// Nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Capture times: all in one hour, so that the store has one partition.
const BEGAN_NS: u64 = 1_790_000_000_000_000_000;
