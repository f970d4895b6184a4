//! One stream to the collector: hello, resume, batches up, acknowledgements down; again from there when it breaks.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::Chain;
use prost::Message as _;
use proto::v1::{self, delivery_client::DeliveryClient, receipt, upload};
use rand::RngCore as _;
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tracing::{debug, error, info, warn};

use super::Outbox;
use crate::metrics::Metrics;

/// Events in one batch at the most: enough to make signing cheap, few enough to be durable soon.
const BATCH_EVENTS: usize = 512;

/// How long events are gathered before they are sealed.
const LINGER: Duration = Duration::from_millis(100);

/// Batches under way without an acknowledgement.
const WINDOW: usize = 32;

/// Pauses between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What delivery needs to know.
pub struct Delivery {
    /// The collector's URL.
    pub collector: String,
    /// Names this agent.
    pub agent_id: String,
    /// Signs batches.
    pub key: SigningKey,
    /// Where events wait.
    pub outbox: Arc<Outbox>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The agent's chain, and what of it is not acknowledged.
#[derive(Default)]
struct Progress {
    chain: Option<Chain>,
    next_event: u64,
    sealed: VecDeque<(u64, v1::SignedBatch)>,
}

/// Delivers until it is aborted. Whether everything was acknowledged can be seen in the metrics.
pub async fn deliver(delivery: Delivery) {
    let mut progress = Progress::default();
    let mut pause = RETRY_FIRST;
    loop {
        match delivery.stream(&mut progress).await {
            Ok(()) => pause = RETRY_FIRST,
            Err(problem) if progress.chain.is_none() && pause == RETRY_FIRST => {
                warn!(
                    "the collector {} cannot be reached, events wait: {problem:#}",
                    delivery.collector
                );
            }
            Err(problem) => debug!("delivery: {problem:#}"),
        }
        delivery.metrics.connected.store(0, Ordering::Relaxed);
        time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

impl Delivery {
    async fn stream(&self, progress: &mut Progress) -> anyhow::Result<()> {
        let endpoint = Endpoint::from_shared(self.collector.clone())?.connect_timeout(Duration::from_secs(5));
        let mut client = DeliveryClient::new(endpoint.connect().await?);
        let (up, requests) = mpsc::channel(WINDOW + 1);
        let hello = v1::Hello {
            agent_id: self.agent_id.clone(),
            public_key: self.key.verifying_key().as_bytes().to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
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
        loop {
            while let Some((_, batch)) = progress.sealed.get(sent) {
                up.send(v1::Upload {
                    kind: Some(upload::Kind::Batch(batch.clone())),
                })
                .await?;
                sent += 1;
            }
            let may_seal = progress.sealed.len() < WINDOW;
            tokio::select! {
                receipt = receipts.message() => {
                    let Some(receipt) = receipt? else { return Ok(()) };
                    match receipt.kind {
                        Some(receipt::Kind::Ack(ack)) => {
                            let before = progress.sealed.len();
                            self.acknowledge(progress, ack.sequence);
                            sent -= before - progress.sealed.len();
                        }
                        Some(receipt::Kind::Refusal(refusal)) => {
                            error!("the collector refuses batch {}: {}", refusal.sequence, refusal.reason);
                            bail!("batch {} was refused", refusal.sequence);
                        }
                        _ => bail!("the collector sent an answer that is not known"),
                    }
                }
                () = self.outbox.ready(), if may_seal => {
                    time::sleep(LINGER).await;
                    self.seal(progress);
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
            progress.next_event = resume.event_seq + 1;
            return Ok(());
        };
        self.acknowledge_up_to(&mut progress.sealed, resume.sequence);
        let next = progress
            .sealed
            .front()
            .map_or(chain.next_sequence, |(sequence, _)| *sequence);
        if next != resume.sequence + 1 {
            bail!(
                "the collector holds batches up to {}, but acknowledged up to {}: its record was lost or replaced",
                resume.sequence,
                next.saturating_sub(1)
            );
        }
        Ok(())
    }

    fn acknowledge(&self, progress: &mut Progress, sequence: u64) {
        self.acknowledge_up_to(&mut progress.sealed, sequence);
    }

    fn acknowledge_up_to(&self, sealed: &mut VecDeque<(u64, v1::SignedBatch)>, sequence: u64) {
        while sealed.front().is_some_and(|(first, _)| *first <= sequence) {
            sealed.pop_front();
            self.metrics.batches_acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics
            .batches_waiting
            .store(sealed.len() as u64, Ordering::Relaxed);
    }

    fn seal(&self, progress: &mut Progress) {
        let Some(chain) = &mut progress.chain else { return };
        while progress.sealed.len() < WINDOW {
            let mut events = self.outbox.take(BATCH_EVENTS);
            let (Some(first), Some(last)) = (events.first(), events.last()) else {
                break;
            };
            let (first_ns, last_ns) = (first.ts_start_ns, last.ts_end_ns);
            let first_event = progress.next_event;
            for event in &mut events {
                event.seq = progress.next_event;
                progress.next_event += 1;
            }
            let encoded = events
                .iter()
                .map(|event| Bytes::from(event.encode_to_vec()))
                .collect();
            let mut seed = [0; 32];
            rand::rngs::OsRng.fill_bytes(&mut seed);
            let counters = self.metrics.counters();
            let sequence = chain.next_sequence;
            let batch = evidence::seal(
                chain,
                &self.key,
                encoded,
                first_event,
                first_ns,
                last_ns,
                counters,
                seed,
            );
            progress.sealed.push_back((sequence, batch));
        }
        self.metrics
            .batches_waiting
            .store(progress.sealed.len() as u64, Ordering::Relaxed);
    }
}
