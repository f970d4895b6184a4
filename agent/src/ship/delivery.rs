//! One stream to the collector: hello, resume, batches up, acknowledgements down; again from there when it breaks.
//!
//! Owns the conversation alone. What is sent, and what an acknowledgement means, is the sealing thread's.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::bail;
use evidence::{Hash, header_hash};
use proto::v1::{self, delivery_client::DeliveryClient, receipt, upload};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error, info, warn};

use super::{orders::Chained, sealer::WINDOW};
use crate::{
    clock::{Clock, boot_ns},
    metrics::Metrics,
    trust::Connector,
};

/// Pauses between attempts to connect.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// What delivery needs to know.
pub struct Delivery {
    /// The way to the collector.
    pub connector: Arc<Connector>,
    /// Names this agent.
    pub agent_id: String,
    /// Seals, and keeps what was sealed.
    pub chained: Chained,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Delivers until it is aborted. Whether everything was acknowledged can be seen in the metrics.
pub async fn deliver(delivery: Delivery) {
    let mut pause = RETRY_FIRST;
    // Once for every outage, however many attempts it takes.
    let mut told = false;
    loop {
        let outcome = delivery.stream().await;
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
    async fn stream(&self) -> anyhow::Result<()> {
        let mut client = DeliveryClient::new(self.connector.connect().await?);
        let (up, requests) = mpsc::channel(WINDOW + 1);
        let (public_key, former_key) = self.chained.greeting().await?;
        let hello = v1::Hello {
            agent_id: self.agent_id.clone(),
            public_key,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            former_key,
            clock_unix_ns: Clock::now().utc(boot_ns()),
            protocol: proto::PROTOCOL,
            supports: Vec::new(),
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
        let (sequence, protocol) = (resume.sequence, resume.protocol.max(1));
        if protocol != proto::PROTOCOL {
            info!(
                "the collector speaks version {protocol} of the protocol, this agent {}: the lower one is used",
                proto::PROTOCOL
            );
        }
        // Again, in order, whatever it does not hold.
        let mut next = self.chained.align(resume).await?;
        self.metrics.connected.store(1, Ordering::Relaxed);
        info!("connected to the collector, resuming behind batch {sequence}");

        let mut under_way: VecDeque<(u64, Hash)> = VecDeque::with_capacity(WINDOW);
        let mut reading = None;
        loop {
            if reading.is_none() && under_way.len() < WINDOW {
                reading = Some(self.chained.read(next));
            }
            let read = async {
                match &mut reading {
                    Some(reading) => reading.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                receipt = receipts.message() => {
                    let Some(receipt) = receipt? else { return Ok(()) };
                    match receipt.kind {
                        Some(receipt::Kind::Ack(ack)) => self.acknowledged(&mut under_way, ack.sequence)?,
                        Some(receipt::Kind::Renewal(_)) => self.connector.renewal.notify_one(),
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
                    under_way.push_back((next, header_hash(&batch.header)));
                    next += 1;
                    // There is room for as many as may be under way.
                    up.send(v1::Upload { kind: Some(upload::Kind::Batch(batch)) }).await?;
                }
            }
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
