//! One stream to a collector: hello, resume, batches up, acknowledgements down; again from there when it breaks, or with the next one.
//!
//! Owns the conversation alone. Which collector is tried when is `route`'s; what is sent, and what an acknowledgement means, is the
//! sealing thread's.

use std::{
    collections::VecDeque,
    future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use evidence::{Hash, header_hash};
use proto::v1::{self, delivery_client::DeliveryClient, receipt, upload};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, error, info, warn};

use super::{
    orders::Chained,
    route::{Preferred, Route},
    sealer::WINDOW,
};
use crate::{
    clock::{Clock, boot_ns},
    metrics::Metrics,
    trust::Connector,
};

/// How long a collector that takes the connection may take to say how far it came.
const GREETING: Duration = Duration::from_secs(10);

/// How long one of several may leave batches without an acknowledgement: a sync takes milliseconds.
const STALLED: Duration = Duration::from_secs(30);

/// How long what is under way may take when a collector is left for a better one.
const LEAVING: Duration = Duration::from_secs(5);

/// What delivery needs to know.
pub struct Delivery {
    /// The ways to the collectors, the preferred first.
    pub ways: Vec<Arc<Connector>>,
    /// Names this agent.
    pub agent_id: String,
    /// Seals, and keeps what was sealed.
    pub chained: Chained,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// A stream on which the collector has said how far it came.
struct Greeted {
    up: mpsc::Sender<v1::Upload>,
    receipts: Streaming<v1::Receipt>,
    resume: v1::Resume,
}

/// Why a stream was ended in order.
enum Ended {
    /// The collector hung up.
    Over,
    /// This one is preferred, and is there again.
    For(usize),
}

/// Delivers until it is aborted. Whether everything was acknowledged can be seen in the metrics.
pub async fn deliver(delivery: Delivery) {
    let mut route = Route::new(delivery.ways.len(), Instant::now());
    // Once for every outage of each, however many attempts it takes.
    let mut told = vec![false; delivery.ways.len()];
    loop {
        let nth = match route.next(Instant::now()) {
            Ok(nth) => nth,
            Err(at) => {
                time::sleep_until(at).await;
                continue;
            }
        };
        let (Some(way), Some(told)) = (delivery.ways.get(nth), told.get_mut(nth)) else {
            return;
        };
        let mut used = None;
        let outcome = delivery.stream(way, nth, &route.preferred(nth), &mut used).await;
        let now = Instant::now();
        delivery.metrics.connected.store(0, Ordering::Relaxed);
        *told &= used.is_none();
        match (&outcome, used) {
            (Ok(Ended::For(better)), _) => route.answers(*better, now),
            (_, Some(since)) => route.ended(nth, now - since, now),
            (_, None) => route.failed(nth, now),
        }
        match outcome {
            Ok(_) => {}
            Err(problem) if !*told => {
                *told = true;
                let others = if delivery.ways.len() > 1 {
                    ", and the others are tried"
                } else {
                    ""
                };
                warn!(
                    "the collector {} cannot be reached, events wait for it{others} ({}): {problem:#}",
                    way.collector(),
                    way.advice(&problem)
                        .unwrap_or("is it running? pgwitness-collector serve")
                );
            }
            Err(problem) => debug!("delivery: {problem:#}"),
        }
    }
}

impl Delivery {
    /// Delivers to this collector until its stream ends; `used` is since when it took batches.
    async fn stream(
        &self,
        way: &Connector,
        nth: usize,
        preferred: &[Preferred],
        used: &mut Option<Instant>,
    ) -> anyhow::Result<Ended> {
        let Greeted {
            up,
            mut receipts,
            resume,
        } = self.greet(way).await?;
        let protocol = resume.protocol.max(1);
        if protocol != proto::PROTOCOL {
            info!(
                "the collector speaks version {protocol} of the protocol, this agent {}: the lower one is used",
                proto::PROTOCOL
            );
        }
        // Again, in order, whatever no collector holds.
        let mut next = self.chained.align(way.collector(), resume).await?;
        *used = Some(Instant::now());
        self.metrics.uses(nth);
        info!(
            "connected to the collector {}, resuming behind batch {}",
            way.collector(),
            next - 1
        );

        let mut under_way: VecDeque<(u64, Hash)> = VecDeque::with_capacity(WINDOW);
        let mut reading = None;
        let mut heard = Instant::now();
        let better = self.answering(preferred);
        tokio::pin!(better);
        let mut leaving: Option<(usize, Instant)> = None;
        loop {
            if let Some((better, until)) = leaving
                && (under_way.is_empty() || until <= Instant::now())
            {
                info!(
                    "a collector that is preferred to {} is there again",
                    way.collector()
                );
                return Ok(Ended::For(better));
            }
            if reading.is_none() && under_way.len() < WINDOW && leaving.is_none() {
                reading = Some(self.chained.read(next));
            }
            let read = async {
                match &mut reading {
                    Some(reading) => reading.await,
                    None => future::pending().await,
                }
            };
            let stalls = self.ways.len() > 1 && !under_way.is_empty();
            tokio::select! {
                receipt = receipts.message() => {
                    let Some(receipt) = receipt? else { return Ok(Ended::Over) };
                    match receipt.kind {
                        Some(receipt::Kind::Ack(ack)) => {
                            heard = Instant::now();
                            self.acknowledged(&mut under_way, ack.sequence)?;
                        }
                        Some(receipt::Kind::Renewal(_)) => way.renewal.notify_one(),
                        Some(receipt::Kind::KeyRotation(wish)) => self.chained.replace_key(wish.public_key),
                        Some(receipt::Kind::Refusal(refusal)) => {
                            error!("the collector refuses batch {}: {}", refusal.sequence, refusal.reason);
                            bail!("batch {} was refused", refusal.sequence);
                        }
                        Some(receipt::Kind::Resume(_)) => bail!("the collector said Resume twice"),
                        // Of a later version of the protocol: it can be done without, or would not have been said to this one.
                        None => debug!("the collector sent an answer that is not known"),
                    }
                }
                batch = read => {
                    reading = None;
                    let batch = batch??;
                    if under_way.is_empty() {
                        heard = Instant::now();
                    }
                    under_way.push_back((next, header_hash(&batch.header)));
                    next += 1;
                    // There is room for as many as may be under way.
                    up.send(v1::Upload { kind: Some(upload::Kind::Batch(batch)) }).await?;
                }
                better = &mut better, if leaving.is_none() => {
                    leaving = Some((better, Instant::now() + LEAVING));
                    reading = None;
                }
                () = time::sleep_until(heard + STALLED), if stalls => {
                    bail!("it has acknowledged nothing for {} s", STALLED.as_secs());
                }
                () = time::sleep_until(leaving.map_or(heard, |(_, until)| until)), if leaving.is_some() => {}
            }
        }
    }

    /// Connects, and learns how far the collector came.
    async fn greet(&self, way: &Connector) -> anyhow::Result<Greeted> {
        let greeted = time::timeout(GREETING, async {
            let mut client = DeliveryClient::new(way.connect().await?);
            let (up, requests) = mpsc::channel(WINDOW + 1);
            let (greeting, acknowledged) = self.chained.greeting().await?;
            let hello = v1::Hello {
                agent_id: self.agent_id.clone(),
                public_key: greeting.public_key,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                former_key: greeting.former_key,
                clock_unix_ns: Clock::now().utc(boot_ns()),
                acknowledged,
                key_changes: greeting.key_changes,
                protocol: proto::PROTOCOL,
                supports: Vec::new(),
            };
            up.send(v1::Upload {
                kind: Some(upload::Kind::Hello(hello)),
            })
            .await?;
            let mut receipts = client.deliver(ReceiverStream::new(requests)).await?.into_inner();
            let first = receipts.message().await?.and_then(|receipt| receipt.kind);
            match first {
                Some(receipt::Kind::Resume(resume)) => Ok(Greeted { up, receipts, resume }),
                _ => bail!("the collector did not answer with Resume"),
            }
        });
        greeted
            .await
            .with_context(|| format!("it has said nothing for {} s", GREETING.as_secs()))?
    }

    /// Waits until one of these takes a greeting: then it would take batches, too.
    async fn answering(&self, preferred: &[Preferred]) -> usize {
        let mut preferred = preferred.to_vec();
        loop {
            let Some(next) = preferred.iter_mut().min_by_key(|one| (one.at, one.nth)) else {
                return future::pending().await;
            };
            time::sleep_until(next.at).await;
            let Some(way) = self.ways.get(next.nth) else {
                return future::pending().await;
            };
            match self.greet(way).await {
                Ok(_) => return next.nth,
                Err(problem) => debug!("the collector {} is not back: {problem:#}", way.collector()),
            }
            next.at = Instant::now() + next.every;
        }
    }

    /// The newest of those that this covers is told; each of them is durable.
    fn acknowledged(&self, under_way: &mut VecDeque<(u64, Hash)>, sequence: u64) -> anyhow::Result<()> {
        let mut newest = None;
        while let Some(acknowledged) = under_way.pop_front_if(|(sent, _)| *sent <= sequence) {
            newest = Some(acknowledged);
        }
        match newest {
            Some((newest, hash)) if newest == sequence => {
                self.chained.acknowledged(newest, hash);
                Ok(())
            }
            Some(_) => bail!("the collector acknowledged batch {sequence}, which was not sent"),
            None => Ok(()),
        }
    }
}
