//! One stream to the collector: hello, resume, batches up, acknowledgements down; again from there when it breaks.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use evidence::{Chain, Hash};
use proto::v1::{self, delivery_client::DeliveryClient, receipt, upload};
use rand::RngCore as _;
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error, info, warn};

use super::{Memory, Outbox};
use crate::{
    clock::{Clock, boot_ns},
    metrics::Metrics,
    progress,
    record::Encoded,
    trust::{Connector, Keyring},
};

/// How long events are gathered before they are sealed.
const LINGER: Duration = Duration::from_millis(100);

/// Batches under way without an acknowledgement.
const WINDOW: usize = 32;

/// Pauses between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What delivery needs to know.
pub struct Delivery {
    /// The way to the collector.
    pub connector: Arc<Connector>,
    /// Names this agent.
    pub agent_id: String,
    /// Where events wait.
    pub outbox: Arc<Outbox>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Keeps how far sessions were delivered.
    pub progress: Arc<progress::Progress>,
}

/// The agent's chain, and what of it is not acknowledged.
struct Progress {
    chain: Option<Chain>,
    next_event: u64,
    /// Events taken from the queue so far.
    taken: u64,
    sealed: VecDeque<Sealed>,
    memory: Memory,
    keyring: Keyring,
}

/// A batch that waits for its acknowledgement.
struct Sealed {
    sequence: u64,
    header_hash: Hash,
    /// Events taken from the queue up to its last one.
    taken: u64,
    batch: v1::SignedBatch,
}

/// Delivers until it is aborted. Whether everything was acknowledged can be seen in the metrics.
pub async fn deliver(delivery: Delivery, memory: Memory, keyring: Keyring) {
    let mut progress = Progress {
        chain: None,
        next_event: 1,
        taken: 0,
        sealed: VecDeque::new(),
        memory,
        keyring,
    };
    let mut pause = RETRY_FIRST;
    // Once for every outage, however many attempts it takes.
    let mut told = false;
    loop {
        let outcome = delivery.stream(&mut progress).await;
        if delivery.metrics.connected.swap(0, Ordering::Relaxed) == 1 {
            told = false;
        }
        match outcome {
            Ok(()) => pause = RETRY_FIRST,
            Err(problem) if !told => {
                told = true;
                let advice = delivery.connector.advice(&problem);
                warn!(
                    "the collector {} cannot be reached, events wait for it ({}): {problem:#}",
                    delivery.connector.collector(),
                    advice.unwrap_or("is it running? pgwitness-collector serve")
                );
            }
            Err(problem) => debug!("delivery: {problem:#}"),
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

impl Delivery {
    async fn stream(&self, progress: &mut Progress) -> anyhow::Result<()> {
        let mut client = DeliveryClient::new(self.connector.connect().await?);
        let (up, requests) = mpsc::channel(WINDOW + 1);
        let (public_key, former_key) = progress.keyring.greeting();
        let hello = v1::Hello {
            agent_id: self.agent_id.clone(),
            public_key,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            former_key,
            clock_unix_ns: Clock::now().utc(boot_ns()),
        };
        up.send(v1::Upload {
            kind: Some(upload::Kind::Hello(hello)),
        })
        .await?;
        let mut receipts = client.deliver(ReceiverStream::new(requests)).await?.into_inner();
        let first = receipts.message().await?.and_then(|receipt| receipt.kind);
        let Some(receipt::Kind::Resume(resume)) = first else {
            bail!("the collector did not answer with Resume")
        };
        self.resume(progress, &resume)?;
        self.metrics.connected.store(1, Ordering::Relaxed);
        info!(
            "connected to the collector, resuming behind batch {}",
            resume.sequence
        );

        // Again, in order, whatever it does not hold.
        let mut sent = 0;
        let mut gathers_until = None;
        loop {
            while let Some(sealed) = progress.sealed.get(sent) {
                up.send(v1::Upload {
                    kind: Some(upload::Kind::Batch(sealed.batch.clone())),
                })
                .await?;
                sent += 1;
            }
            let may_seal = progress.sealed.len() < WINDOW;
            let due = progress.memory.due();
            let more = async {
                match gathers_until {
                    None => self.outbox.ready().await,
                    // A batch that is full has nothing to wait for; receipts are read meanwhile.
                    Some(until) => tokio::select! {
                        () = time::sleep_until(until) => {}
                        () = self.outbox.full() => {}
                    },
                }
            };
            tokio::select! {
                receipt = receipts.message() => {
                    let Some(receipt) = receipt? else { return Ok(()) };
                    match receipt.kind {
                        Some(receipt::Kind::Ack(ack)) => {
                            let before = progress.sealed.len();
                            self.acknowledged(progress, ack.sequence);
                            sent -= before - progress.sealed.len();
                        }
                        Some(receipt::Kind::Renewal(_)) => self.connector.renewal.notify_one(),
                        Some(receipt::Kind::KeyRotation(wish)) => self.replace_key(progress, &wish.public_key),
                        Some(receipt::Kind::Refusal(refusal)) => {
                            error!("the collector refuses batch {}: {}", refusal.sequence, refusal.reason);
                            bail!("batch {} was refused", refusal.sequence);
                        }
                        _ => bail!("the collector sent an answer that is not known"),
                    }
                }
                () = until(due) => progress.memory.write(),
                () = more, if may_seal => {
                    if gathers_until.take().is_none() {
                        gathers_until = Some(time::Instant::now() + LINGER);
                    } else {
                        self.seal(progress);
                    }
                }
            }
        }
    }

    /// Aligns the chain with what the collector holds.
    fn resume(&self, progress: &mut Progress, resume: &v1::Resume) -> anyhow::Result<()> {
        let hash = <[u8; 32]>::try_from(resume.header_hash.as_slice());
        let hash = if resume.sequence == 0 {
            [0; 32]
        } else {
            hash.context("the collector's hash is not 32 bytes")?
        };
        let Some(chain) = &progress.chain else {
            progress.chain = Some(Chain::behind(&self.agent_id, resume.sequence, hash));
            progress.next_event = resume.event_seq.saturating_add(1);
            progress.keyring.settle(&resume.public_key)?;
            if let Some(objection) = progress.memory.objection(resume.sequence, &hash) {
                self.object(&objection);
            }
            return Ok(());
        };
        let next_sequence = chain.next_sequence;
        self.acknowledged(progress, resume.sequence);
        let next = progress
            .sealed
            .front()
            .map_or(next_sequence, |sealed| sealed.sequence);
        if next != resume.sequence + 1 {
            bail!(
                "the collector holds batches up to {}, but acknowledged up to {}: its record was lost or replaced",
                resume.sequence,
                next.saturating_sub(1)
            );
        }
        Ok(())
    }

    /// The collector's record is not the one that acknowledged. The agent cannot mend that; it says so, in the log of
    /// this host and, signed, in the record itself.
    fn object(&self, objection: &str) {
        error!("the collector's record was rolled back or replaced: {objection}");
        let gap = v1::Gap {
            reason: "record_rolled_back".to_owned(),
            detail: objection.to_owned(),
            ..v1::Gap::default()
        };
        self.outbox
            .push(&Encoded::own(boot_ns(), Clock::now(), v1::event::Body::Gap(gap)));
    }

    fn acknowledged(&self, progress: &mut Progress, sequence: u64) {
        let mut newest = None;
        while let Some(sealed) = progress.sealed.pop_front_if(|sealed| sealed.sequence <= sequence) {
            newest = Some((sealed.sequence, sealed.header_hash));
            self.progress.delivered(sealed.taken);
            self.metrics.batches_acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((sequence, hash)) = newest {
            progress.memory.acknowledged(sequence, hash);
            if let Err(problem) = progress.keyring.acknowledged(sequence) {
                error!("{problem:#}");
            }
        }
        self.metrics
            .batches_waiting
            .store(progress.sealed.len() as u64, Ordering::Relaxed);
    }

    /// The collector wishes for another batch key. It is announced with what comes next, which the record shows.
    fn replace_key(&self, progress: &mut Progress, public_key: &[u8]) {
        match progress.keyring.replace(public_key) {
            Ok(false) => {}
            Ok(true) => {
                let change = v1::ConfigChange {
                    part: "batch_key".to_owned(),
                    ..v1::ConfigChange::default()
                };
                let body = v1::event::Body::ConfigChange(change);
                self.outbox.push(&Encoded::own(boot_ns(), Clock::now(), body));
            }
            Err(problem) => error!("the batch key stays as it is: {problem:#}"),
        }
    }

    fn seal(&self, progress: &mut Progress) {
        let Some(chain) = &mut progress.chain else { return };
        while progress.sealed.len() < WINDOW {
            let Some(gathered) = self.outbox.take() else {
                break;
            };
            let (first_ns, last_ns) = (gathered.first_ns, gathered.last_ns);
            let first_event = progress.next_event;
            let count = gathered.contents.len() as u64;
            progress.taken += count;
            progress.next_event += count;
            let mut seed = [0; 32];
            rand::rngs::OsRng.fill_bytes(&mut seed);
            let counters = self.metrics.counters();
            let sequence = chain.next_sequence;
            chain.next_key = progress.keyring.announcement();
            let announces = chain.next_key.is_some();
            let batch = evidence::seal(
                chain,
                progress.keyring.signer(),
                gathered.contents,
                first_event,
                first_ns,
                last_ns,
                counters,
                seed,
            );
            if announces {
                progress.keyring.was_announced(sequence);
            }
            progress.sealed.push_back(Sealed {
                sequence,
                header_hash: chain.previous,
                taken: progress.taken,
                batch,
            });
        }
        self.metrics
            .batches_waiting
            .store(progress.sealed.len() as u64, Ordering::Relaxed);
    }
}

/// Waits for this moment, or for ever.
async fn until(moment: Option<std::time::Instant>) {
    match moment {
        Some(moment) => time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
