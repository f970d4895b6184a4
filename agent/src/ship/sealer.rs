//! The thread that seals: events from the queue into signed, chained batches, and these into the spool.
//!
//! Owns the agent's chain and the spool, and alone waits for the disk: neither the rings nor the collector's stream do. A
//! batch is written before it can be sent, and synced only if it is still not acknowledged a second later
//! (`docs/adr/0018-a-batch-is-written-then-sent.md`). Where the disk refuses it, it stays in memory, and so few of those are made that the
//! queue fills up and tells. What a former run left is in `recovery`, the spool's side in `keeping`, what is given up in `giving_up`, what
//! collectors say in `align`. Separate from `delivery`, which knows the network and no file.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use evidence::{Chain, Hash, Tip};
use prost::Message as _;
use proto::v1;
use rand::RngCore as _;
use spool::{Frame, Spool, disk::Real};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tracing::error;

use super::{
    Memory, Outbox,
    holes::Holes,
    orders::{Chained, Order},
    place::Place,
};
use crate::{
    clock::{Clock, boot_ns},
    config::WhenFull,
    metrics::{Metrics, unix_s},
    progress,
    record::Encoded,
    trust::Keyring,
};

/// How long events are gathered before they are sealed.
const LINGER: Duration = Duration::from_millis(100);

/// Batches under way without an acknowledgement; and batches in memory that the spool did not take.
pub(super) const WINDOW: usize = 32;

/// What sealing needs to know.
pub struct Sealing {
    /// The state folder.
    pub state: PathBuf,
    /// Names this boot of the host.
    pub boot: String,
    /// Names this agent.
    pub agent_id: String,
    /// The keys that batches are signed by.
    pub keyring: Keyring,
    /// The key was made in this run, so that nobody can hold a batch of it.
    pub new_key: bool,
    /// Bytes of the spool at the most.
    pub spool_bytes: u64,
    /// What is done when there are as many.
    pub when_full: WhenFull,
    /// The collectors, as the configuration has them.
    pub collectors: Vec<String>,
    /// Where events wait.
    pub outbox: Arc<Outbox>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Keeps how far sessions were delivered.
    pub progress: Arc<progress::Progress>,
}

/// The thread at work.
pub(super) struct Sealer {
    pub(super) with: Sealing,
    pub(super) place: Place,
    pub(super) memory: Memory,
    /// `None`: it cannot be used, and batches wait in memory alone.
    pub(super) spool: Option<Spool<Real>>,
    /// `None`: where the chain ends is not known before a collector says it.
    pub(super) chain: Option<Chain>,
    /// The newest batch of ours that is known.
    pub(super) tip: Tip,
    /// Sequence of the newest batch that was there when this run began, or a collector was followed: later ones are known here alone.
    pub(super) began: u64,
    /// Everything up to there is durable at some collector, or was given up.
    pub(super) acknowledged: u64,
    /// What was given up, until the record says it.
    pub(super) holes: Holes,
    /// Not in the spool.
    pub(super) unspooled: VecDeque<Frame>,
    /// Not acknowledged, as far as sealed in this run; and the oldest of a former one.
    pub(super) waiting: VecDeque<Waiting>,
    /// Somebody waits for this batch to be sealed.
    awaited: Option<(u64, oneshot::Sender<anyhow::Result<v1::SignedBatch>>)>,
    /// Events taken from the queue so far.
    taken: u64,
    /// The disk refused, and is tried again then.
    pub(super) retry: Option<Instant>,
    /// The spool is synced then, unless this batch is acknowledged before.
    pub(super) sync: Option<(u64, Instant)>,
    /// The last sync failed.
    pub(super) sync_fails: bool,
    /// The collector that batches went to last was asked where the chain ends, and knows less than was acknowledged.
    pub(super) knows_less: bool,
    /// What was said of a collector's record; once is enough.
    pub(super) objected: Option<String>,
}

/// A batch that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) sequence: u64,
    /// When it was sealed, by the host's clock: for people.
    pub(super) at_unix_s: u64,
    /// Events taken from the queue up to its last one.
    pub(super) taken: u64,
}

/// Starts the thread.
///
/// # Errors
///
/// If there can be none.
pub fn start(sealing: Sealing) -> std::io::Result<Chained> {
    let (orders, received) = mpsc::unbounded_channel();
    let runtime = Handle::current();
    thread::Builder::new().name("seal".to_owned()).spawn(move || {
        let sealer = Sealer::open(sealing);
        runtime.block_on(sealer.run(received));
    })?;
    Ok(Chained(orders))
}

impl Sealer {
    pub(super) fn open(with: Sealing) -> Self {
        let place = Place::new(&with.state, &with.boot);
        let memory = Memory::read(&with.state);
        let holes = Holes::read(&with.state);
        let acknowledged = memory.newest().map_or(0, |(sequence, _)| sequence);
        let mut sealer = Self {
            chain: None,
            tip: Tip::default(),
            began: 0,
            acknowledged: acknowledged.max(holes.newest()),
            holes,
            unspooled: VecDeque::new(),
            waiting: VecDeque::new(),
            awaited: None,
            taken: 0,
            retry: None,
            sync: None,
            sync_fails: false,
            knows_less: false,
            objected: None,
            spool: None,
            place,
            memory,
            with,
        };
        match sealer.recover() {
            Ok(()) => {}
            Err(problem) => error!(
                "the spool {} cannot be used, so batches wait for the collector in memory alone: {problem:#}",
                sealer.with.state.join("spool").display()
            ),
        }
        sealer.show();
        sealer
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut gathers_until = None;
        loop {
            let may_seal = self.may_seal();
            let outbox = Arc::clone(&self.with.outbox);
            let more = async {
                match gathers_until {
                    None => outbox.ready().await,
                    // A batch that is full has nothing to wait for.
                    Some(until) => tokio::select! {
                        () = time::sleep_until(until) => {}
                        () = outbox.full() => {}
                    },
                }
            };
            let due = self.due();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Stop(answer)) => {
                        let safe = self.stop();
                        // Whoever asked may have gone.
                        let _ = answer.send(safe);
                        return;
                    }
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = until(due) => self.look(),
                () = more, if may_seal => {
                    if gathers_until.take().is_none() {
                        gathers_until = Some(Instant::now() + LINGER);
                    } else {
                        self.seal();
                    }
                }
            }
            self.show();
        }
    }

    fn obey(&mut self, order: Order) {
        // Whoever asked may have gone: the stream broke.
        match order {
            Order::Align(collector, resume, answer) => {
                self.awaited = None;
                let _ = answer.send(self.align(&collector, &resume));
            }
            Order::Read(sequence, answer) if sequence > self.tip.sequence => {
                self.awaited = Some((sequence, answer));
            }
            Order::Read(sequence, answer) => {
                let _ = answer.send(self.read(sequence).map_err(Into::into));
            }
            Order::Acknowledged(sequence, hash) => {
                if let Some(used) = self.place.used() {
                    self.memory.acknowledged(&used.collector, sequence, hash);
                }
                self.acknowledge(sequence);
            }
            Order::Greeting(answer) => {
                let greeting = self.with.keyring.greeting(self.acknowledged);
                let _ = answer.send((greeting, self.acknowledged));
            }
            Order::ReplaceKey(public_key) => self.replace_key(&public_key),
            Order::Stop(_) => {}
        }
    }

    /// The collector wishes for another batch key. It is announced with what comes next, which the record shows.
    fn replace_key(&mut self, public_key: &[u8]) {
        match self.with.keyring.replace(public_key) {
            Ok(false) => {}
            Ok(true) => {
                let change = v1::ConfigChange {
                    part: "batch_key".to_owned(),
                    ..v1::ConfigChange::default()
                };
                let body = v1::event::Body::ConfigChange(change);
                let event = Encoded::own(boot_ns(), Clock::now(), body);
                self.with.outbox.push(&event);
            }
            Err(problem) => error!("the batch key stays as it is: {problem:#}"),
        }
    }

    pub(super) fn may_seal(&self) -> bool {
        self.chain.is_some() && self.unspooled.len() < WINDOW
    }

    /// Seals what the queue holds, as far as there is a place for it.
    pub(super) fn seal(&mut self) {
        while self.may_seal()
            && let Some(chain) = &mut self.chain
            && let Some(mut gathered) = self.with.outbox.take()
        {
            self.taken += gathered.contents.len() as u64;
            // Signed in one with the events that tell of it.
            for (given_up, event) in self.holes.unsaid() {
                gathered.add(&event);
                chain.given_up.push(given_up);
            }
            let given_up = chain.given_up.clone();
            let count = gathered.contents.len() as u64;
            let mut seed = [0; 32];
            rand::rngs::OsRng.fill_bytes(&mut seed);
            let sequence = chain.next_sequence;
            chain.next_key = self.with.keyring.announcement();
            let announces = chain.next_key.is_some();
            let batch = evidence::seal(
                chain,
                self.with.keyring.signer(),
                gathered.contents,
                self.tip.event_seq + 1,
                gathered.first_ns,
                gathered.last_ns,
                self.with.metrics.counters(),
                seed,
            );
            if announces {
                self.with.keyring.was_announced(&batch);
            }
            self.holes.said(&given_up, sequence);
            self.tip = Tip {
                sequence,
                header_hash: chain.previous,
                event_seq: self.tip.event_seq + count,
            };
            self.waiting.push_back(Waiting {
                sequence,
                at_unix_s: unix_s(),
                taken: self.taken,
            });
            self.unspooled.push_back(framed(sequence, &batch));
            self.store();
        }
        if let Some((sequence, answer)) = self
            .awaited
            .take_if(|(sequence, _)| *sequence <= self.tip.sequence)
        {
            let _ = answer.send(self.read(sequence).map_err(Into::into));
        }
    }

    /// Seals and syncs what there is. Whether nothing is left that is neither acknowledged nor on disk.
    pub(super) fn stop(&mut self) -> bool {
        self.retry = None;
        self.seal();
        self.store();
        let synced = match &mut self.spool {
            Some(spool) => spool.sync().is_ok() && self.unspooled.is_empty(),
            None => false,
        };
        self.show();
        let nothing_left = self.with.outbox.is_empty() && self.acknowledged >= self.tip.sequence;
        if synced && self.chain.is_some() {
            // Should it fail, a collector is asked at the next start.
            let _ = self.place.note(true);
        }
        self.chain.is_some() && (nothing_left || (synced && self.with.outbox.is_empty()))
    }

    /// The numbers for metrics and `status`.
    fn show(&self) {
        let metrics = &self.with.metrics;
        let set = |gauge: &std::sync::atomic::AtomicU64, value| gauge.store(value, Ordering::Relaxed);
        set(
            &metrics.batches_waiting,
            self.tip.sequence.saturating_sub(self.acknowledged),
        );
        set(&metrics.batches_unspooled, self.unspooled.len() as u64);
        set(&metrics.spool_bytes, self.spool.as_ref().map_or(0, Spool::bytes));
        let oldest = self.waiting.front().map_or(0, |waiting| waiting.at_unix_s);
        set(&metrics.oldest_waiting_unix_s, oldest);
    }

    /// Says something in this host's log and, signed, in the record.
    pub(super) fn tell(&self, reason: &str, detail: &str) {
        let gap = v1::Gap {
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            ..v1::Gap::default()
        };
        self.with
            .outbox
            .push(&Encoded::own(boot_ns(), Clock::now(), v1::event::Body::Gap(gap)));
    }
}

/// A batch as it lies in the spool.
pub(super) fn framed(sequence: u64, batch: &v1::SignedBatch) -> Frame {
    Frame::new(sequence, batch.encoded_len(), |body| {
        // A vector grows.
        let _ = batch.encode(body);
    })
}

/// `seq` of a batch's last event.
pub(super) fn end_of(header: &v1::BatchHeader) -> u64 {
    (header.first_event_seq + u64::from(header.event_count)).saturating_sub(1)
}

/// Waits for this moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What a collector holds, as it says.
pub(super) fn held(resume: &v1::Resume) -> Option<Tip> {
    let header_hash: Hash = match resume.sequence {
        0 => [0; 32],
        _ => resume.header_hash.as_slice().try_into().ok()?,
    };
    Some(Tip {
        sequence: resume.sequence,
        header_hash,
        event_seq: resume.event_seq,
    })
}
