//! The agents' way in: gRPC `pgwitness.v1.Delivery`.
//!
//! Owns the conversation of one stream. Refuses judgement: whether a batch holds is `evidence`'s, whether it belongs
//! here is the log's; this hands over, waits for durability and answers in order.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use ed25519_dalek::VerifyingKey;
use evidence::{BatchError, MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Seal, Tip, check_leaves, check_seal};
use futures::Stream;
use proto::v1::{
    Ack, BatchHeader, Hello, KeyRotation, Receipt, Refusal, Renewal, Resume, SignedBatch, Upload,
    delivery_server::{Delivery, DeliveryServer},
    receipt, upload,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    alarms::Alarm,
    cluster::Cluster,
    log::{self, AgentKeys, Appended, Candidate, Greeting, Log},
    metrics::Metrics,
    trust::{Admission, Peer, Wish},
};
use record::{Decoder, Records};

/// Longest message: a batch at its caps, with the tags around it.
pub const MAX_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + MAX_HEADER_BYTES + 1024;

/// Time until the first message: a stream that says nothing must not be held open for nothing.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Batches of one stream on their way to the disk: as many share an fsync, and as many may be held in memory.
const BATCHES_IN_FLIGHT: usize = 8;

/// Longest version that an agent may give itself: it goes to a log line.
const MAX_VERSION_BYTES: usize = 64;

/// Changes of its key that an agent may show: each takes a signature to be checked.
const MAX_KEY_CHANGES: usize = 255;

/// An agent's clock further off than this raises an alarm: times in the record are the agents' own.
const MAX_CLOCK_SKEW_NS: u64 = 300_000_000_000;

/// For connections without an end that is known: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Streams at a time; each may hold `BATCHES_IN_FLIGHT` batches.
const MAX_STREAMS: usize = 1024;

/// The gRPC service.
#[derive(Clone)]
pub struct Ingest {
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
    streams: Arc<tokio::sync::Semaphore>,
    admission: Admission,
    /// Whoever compares their times with others'.
    cluster: Option<Arc<Cluster>>,
}

impl Ingest {
    /// A service that feeds `log`, until `stop` becomes true.
    #[must_use]
    pub fn new(log: Arc<Log>, metrics: Arc<Metrics>, stop: watch::Receiver<bool>) -> Self {
        Self {
            log,
            metrics,
            stop,
            streams: Arc::new(tokio::sync::Semaphore::new(MAX_STREAMS)),
            admission: Admission::everybody(),
            cluster: None,
        }
    }

    /// Tells what time it is for the agents.
    #[must_use]
    pub fn telling_time(self, cluster: Option<Arc<Cluster>>) -> Self {
        Self { cluster, ..self }
    }

    /// Lets in whom `admission` does, for as long as it does.
    #[must_use]
    pub fn admitting(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// As a server's service, with the cap on messages.
    #[must_use]
    pub fn into_service(self) -> DeliveryServer<Self> {
        DeliveryServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Delivery for Ingest {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<Receipt, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<Upload>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        let permit =
            permit.map_err(|_| Status::resource_exhausted(format!("{MAX_STREAMS} streams are open")))?;
        let (receipts, stream) = mpsc::channel(BATCHES_IN_FLIGHT);
        let peer = request.extensions().get::<Peer>().cloned();
        let (ingest, uploads) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let _permit = permit;
            let connected = ingest.metrics.connected_agents.clone();
            connected.inc();
            if let Err(status) = ingest.converse(peer, uploads, &receipts).await {
                tracing::debug!(%status, "a stream ended");
                // The agent may be gone already.
                _ = receipts.send(Err(status)).await;
            }
            connected.dec();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Receipts = mpsc::Sender<Result<Receipt, Status>>;

/// What is owed to the agent, in order.
enum Owed {
    /// An answer by the log.
    Pending {
        sequence: u64,
        answer: oneshot::Receiver<Appended>,
    },
    /// A refusal that needed no log.
    Refused { sequence: u64, reason: String },
}

struct Agent {
    id: String,
    /// Who is at the other end of the connection, where that is known.
    peer: Option<Peer>,
    /// Those that the log knows, and what this stream's batches announced since.
    keys: Mutex<AgentKeys>,
    refused: Arc<AtomicBool>,
    /// Of this stream alone: what its batches repeat is decoded once. One batch is opened at a time.
    decoder: Arc<Mutex<Decoder>>,
}

impl Agent {
    fn keys(&self) -> MutexGuard<'_, AgentKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingest {
    async fn converse(
        self,
        peer: Option<Peer>,
        mut uploads: Streaming<Upload>,
        receipts: &Receipts,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, uploads.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
        let Some(Upload {
            kind: Some(upload::Kind::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        let (agent, tip) = self.greet(peer, hello).await?;
        let header_hash = if tip.sequence == 0 {
            Vec::new()
        } else {
            tip.header_hash.to_vec()
        };
        let resume = Resume {
            sequence: tip.sequence,
            header_hash,
            event_seq: tip.event_seq,
            public_key: agent.keys().newest().as_bytes().to_vec(),
            origin: self.log.status().borrow().origin.clone(),
            protocol: proto::PROTOCOL,
            supports: Vec::new(),
        };
        send(receipts, receipt::Kind::Resume(resume)).await?;
        let (owe, owed) = mpsc::channel(BATCHES_IN_FLIGHT);
        // Both halves end when either does: no more batches means that the answers run out, a refusal closes `owed`.
        let (taken, answered) = tokio::join!(
            self.take(&agent, &mut uploads, owe, receipts),
            answer(owed, receipts)
        );
        answered.and(taken)
    }

    async fn greet(&self, peer: Option<Peer>, hello: Hello) -> Result<(Agent, Tip), Status> {
        if !evidence::is_agent_id(&hello.agent_id) {
            return Err(Status::invalid_argument(
                "agent_id must be 1 to 64 characters of [a-z0-9.-]",
            ));
        }
        if hello.version.len() > MAX_VERSION_BYTES {
            return Err(Status::invalid_argument(format!(
                "version is longer than {MAX_VERSION_BYTES} bytes"
            )));
        }
        if hello.key_changes.len() > MAX_KEY_CHANGES {
            return Err(Status::invalid_argument(format!(
                "more than {MAX_KEY_CHANGES} changes of keys are shown"
            )));
        }
        self.admit(peer.as_ref(), &hello.agent_id)?;
        let now = log::unix_ns();
        self.compare_clocks(&hello, now);
        let key = public_key(&hello.public_key)?;
        let former = (!hello.former_key.is_empty()).then(|| public_key(&hello.former_key));
        let met = self
            .log
            .meet(Greeting {
                agent_id: hello.agent_id.clone(),
                key,
                former: former.transpose()?,
                acknowledged: hello.acknowledged,
                key_changes: hello.key_changes,
            })
            .await
            .map_err(unavailable)?;
        let (tip, keys) = met.map_err(Status::permission_denied)?;
        if let Some(cluster) = &self.cluster {
            cluster.see_clock(&hello.agent_id, hello.clock_unix_ns, now);
        }
        tracing::info!(agent = hello.agent_id, version = %hello.version.escape_debug(), "agent connected");
        Ok((
            Agent {
                id: hello.agent_id,
                peer,
                keys: Mutex::new(keys),
                refused: Arc::default(),
                decoder: Arc::default(),
            },
            tip,
        ))
    }

    /// Whether this agent may deliver, over this connection.
    fn admit(&self, peer: Option<&Peer>, agent_id: &str) -> Result<(), Status> {
        self.admission.admit(peer, agent_id).map_err(|refusal| {
            self.metrics
                .alarm(refusal.alarm, agent_id, refusal.reason.clone());
            Status::permission_denied(refusal.reason)
        })
    }

    fn compare_clocks(&self, hello: &Hello, now: u64) {
        let told = hello.clock_unix_ns;
        if told != 0 && told.abs_diff(now) > MAX_CLOCK_SKEW_NS {
            let behind = if told < now { "behind" } else { "ahead of" };
            let detail = format!(
                "its clock is {} s {behind} the collector's",
                told.abs_diff(now) / 1_000_000_000
            );
            self.metrics.alarm(Alarm::ClockSkew, &hello.agent_id, detail);
        }
    }

    /// What the operator wants of the agent is said to it.
    async fn wish(&self, agent: &Agent, receipts: &Receipts) -> Result<(), Status> {
        let newest = *agent.keys().newest();
        for wish in self
            .admission
            .wishes(agent.peer.as_ref(), &agent.id, newest.as_bytes())
        {
            let kind = match wish {
                Wish::Renew => receipt::Kind::Renewal(Renewal {}),
                Wish::RotateKey => receipt::Kind::KeyRotation(KeyRotation {
                    public_key: newest.as_bytes().to_vec(),
                }),
            };
            send(receipts, kind).await?;
        }
        Ok(())
    }

    /// Takes batches until the agent ends, a batch is refused, the agent may not deliver any more, or the collector stops.
    async fn take(
        &self,
        agent: &Agent,
        uploads: &mut Streaming<Upload>,
        owe: mpsc::Sender<Owed>,
        receipts: &Receipts,
    ) -> Result<(), Status> {
        let (mut changed, mut stop) = (self.admission.changes(), self.stop.clone());
        self.wish(agent, receipts).await?;
        let over = tokio::time::sleep(agent.peer.as_ref().map_or(NEVER, Peer::remaining));
        tokio::pin!(over);
        loop {
            let message = tokio::select! {
                message = uploads.message() => message?,
                Ok(()) = changed.changed() => {
                    self.admit(agent.peer.as_ref(), &agent.id)?;
                    self.wish(agent, receipts).await?;
                    continue;
                }
                () = &mut over => return Err(Status::unauthenticated("the certificate of this connection has expired")),
                () = stopping(&mut stop) => return Err(Status::unavailable("the collector is stopping")),
                () = owe.closed() => return Ok(()),
            };
            let batch = match message {
                None => return Ok(()),
                Some(Upload {
                    kind: Some(upload::Kind::Batch(batch)),
                }) => batch,
                Some(_) => return Err(Status::invalid_argument("only batches may follow Hello")),
            };
            let debt = self.offer(agent, batch).await.map_err(unavailable)?;
            let refused = matches!(debt, Owed::Refused { .. });
            if owe.send(debt).await.is_err() || refused {
                return Ok(());
            }
        }
    }

    /// Checks a batch and hands it to the log, or has it kept aside.
    async fn offer(&self, agent: &Agent, batch: SignedBatch) -> anyhow::Result<Owed> {
        let claimed = <BatchHeader as prost::Message>::decode(batch.header.clone()).unwrap_or_default();
        let key = *agent.keys().of(claimed.sequence);
        let (id, decoder) = (agent.id.clone(), Arc::clone(&agent.decoder));
        // Hashing and unpacking megabytes: not on the threads that serve everybody.
        let (batch, opened) = tokio::task::spawn_blocking(move || {
            let mut decoder = decoder.lock().unwrap_or_else(PoisonError::into_inner);
            let opened = open(&batch, &key, &id, &mut decoder);
            (batch, opened)
        })
        .await?;
        match opened {
            Ok((seal, events)) => {
                let sequence = seal.header.sequence;
                // One that announces nonsense the log refuses.
                _ = agent.keys().follow(&seal.header);
                let stream_refused = Arc::clone(&agent.refused);
                let answer = self
                    .log
                    .append(Candidate {
                        batch,
                        seal,
                        events,
                        stream_refused,
                    })
                    .await?;
                Ok(Owed::Pending { sequence, answer })
            }
            Err((sequence, reason)) => {
                self.log
                    .set_aside(agent.id.clone(), batch, reason.clone())
                    .await?;
                Ok(Owed::Refused { sequence, reason })
            }
        }
    }
}

/// Everything that can be checked without the log; the error carries the sequence where it is known, else 0.
fn open(
    batch: &SignedBatch,
    key: &VerifyingKey,
    agent_id: &str,
    decoder: &mut Decoder,
) -> Result<(Seal, Records), (u64, String)> {
    let limits = log::limits();
    let seal = check_seal(batch, key, &limits).map_err(|error| (0, error.to_string()))?;
    let sequence = seal.header.sequence;
    let refuse = |reason: String| (sequence, reason);
    if seal.header.agent_id != agent_id {
        return Err(refuse(format!(
            "the batch is of agent {:?}, the stream of {agent_id:?}",
            seal.header.agent_id
        )));
    }
    let opened = check_leaves(batch, seal, &limits).map_err(|error: BatchError| refuse(error.to_string()))?;
    let events = decoder.decode(&opened).map_err(refuse)?;
    Ok((
        Seal {
            header: opened.header,
            header_hash: opened.header_hash,
        },
        events,
    ))
}

/// Answers in order; returns behind the first refusal.
async fn answer(mut owed: mpsc::Receiver<Owed>, receipts: &Receipts) -> Result<(), Status> {
    while let Some(debt) = owed.recv().await {
        let (sequence, appended) = match debt {
            Owed::Refused { sequence, reason } => (sequence, Appended::Refused(reason)),
            Owed::Pending { sequence, answer } => {
                let appended = answer
                    .await
                    .map_err(|_| Status::unavailable("the evidence log has ended"))?;
                (sequence, appended)
            }
        };
        match appended {
            Appended::Stored(_) | Appended::Duplicate => {
                send(receipts, receipt::Kind::Ack(Ack { sequence })).await?;
            }
            Appended::Refused(reason) => {
                return send(receipts, receipt::Kind::Refusal(Refusal { sequence, reason })).await;
            }
            Appended::Abandoned => return Ok(()),
        }
    }
    Ok(())
}

async fn send(receipts: &Receipts, kind: receipt::Kind) -> Result<(), Status> {
    let receipt = Receipt { kind: Some(kind) };
    receipts
        .send(Ok(receipt))
        .await
        .map_err(|_| Status::cancelled("the agent has gone"))
}

async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is stopping too.
    _ = stop.wait_for(|stop| *stop).await;
}

fn public_key(bytes: &[u8]) -> Result<VerifyingKey, Status> {
    let key = VerifyingKey::try_from(bytes)
        .map_err(|_| Status::invalid_argument("public_key is not an Ed25519 public key"))?;
    if key.is_weak() {
        return Err(Status::invalid_argument(
            "public_key is of small order: anybody could sign for it",
        ));
    }
    Ok(key)
}

fn unavailable(error: anyhow::Error) -> Status {
    Status::unavailable(error.to_string())
}
