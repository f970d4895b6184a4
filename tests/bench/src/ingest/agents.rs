//! Simulated agents: their batches are made beforehand, and then sent as fast as they are taken, or at a steady rate.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ed25519_dalek::VerifyingKey;
use evidence::{Chain, Contents};
use pgwitness_agent::clock::Clock;
use pgwitness_agent::record::{Encoder, Gathered};
use proto::v1::{
    Attribution, Confidence, Hello, PrincipalKind, SignedBatch, Upload, delivery_client::DeliveryClient,
    receipt, upload,
};
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use tap_core::Settings;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::tape;

/// Events in one batch: what agents put into one at full speed, and what they gather within a tenth of a second at a tenth of it.
const BATCH: usize = 2048;
const SMALL_BATCH: usize = 300;

/// Batches without an acknowledgement, as agents have them.
const WINDOW: usize = 32;

/// What was recorded, as contents of batches.
pub(crate) struct Tape {
    full: Vec<Part>,
    small: Vec<Part>,
}

/// Contents of one batch.
#[derive(Clone)]
struct Part {
    contents: Rc<Contents>,
    events: u64,
    first_ns: u64,
    last_ns: u64,
}

/// Reads and encodes the conversations that are most like what a busy server gets.
pub(crate) fn tape(folder: &Path) -> Result<Tape> {
    Ok(Tape {
        full: parts(folder, BATCH)?,
        small: parts(folder, SMALL_BATCH)?,
    })
}

fn parts(folder: &Path, events: usize) -> Result<Vec<Part>> {
    let attribution = Arc::new(Attribution {
        principal: "spiffe://localhost/unit/shop-api.service".to_owned(),
        kind: PrincipalKind::Unit.into(),
        confidence: Confidence::Observed.into(),
        method: "tcp-owner".to_owned(),
        ..Attribution::default()
    });
    let mut encoder = Encoder::default();
    let (mut parts, mut open) = (Vec::new(), Gathered::default());
    for name in ["pgbench-prepared", "pgbench-extended", "pgbench-simple"] {
        let tape = tape::Tape::read(&folder.join(format!("{name}.segments.zst")))?;
        // Each conversation several times, at other times: a batch is of one kind of client for the most part, as on a real host.
        for again in 0..6 {
            let clock = Clock::of_offset(1_790_000_000_000_000_000 + again * 1_000_000_000);
            tape.play(Settings::default(), &mut |event| {
                open.add(encoder.encode(&event, Some(&attribution), clock, "bench"));
                if open.contents.len() >= events {
                    parts.push(part(std::mem::take(&mut open)));
                }
            });
        }
    }
    ensure!(!parts.is_empty(), "the recordings are too short for a batch");
    Ok(parts)
}

fn part(gathered: Gathered) -> Part {
    Part {
        events: gathered.contents.len() as u64,
        first_ns: gathered.first_ns,
        last_ns: gathered.last_ns,
        contents: Rc::new(gathered.contents),
    }
}

/// One agent with everything that it will send.
pub(crate) struct Agent {
    id: String,
    public_key: Vec<u8>,
    batches: Vec<SignedBatch>,
    /// Events in them.
    pub(crate) events: u64,
}

impl Agent {
    /// At least so many events in batches of full size.
    pub(crate) fn new(id: &str, tape: &Tape, events: u64) -> Result<Self> {
        Self::of(id, &tape.full, events)
    }

    /// The same in small batches.
    pub(crate) fn of_small(id: &str, tape: &Tape, events: u64) -> Result<Self> {
        Self::of(id, &tape.small, events)
    }

    fn of(id: &str, parts: &[Part], events: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(7);
        let mut bytes = [0; 32];
        random.fill_bytes(&mut bytes);
        let key = ed25519_dalek::SigningKey::from_bytes(&bytes);
        let mut chain = Chain::new(id);
        let (mut batches, mut made) = (Vec::new(), 0);
        for part in parts.iter().cycle() {
            if made >= events {
                break;
            }
            random.fill_bytes(&mut bytes);
            let contents = part.contents.as_ref().clone();
            batches.push(evidence::seal(
                &mut chain,
                &key,
                contents,
                made + 1,
                part.first_ns,
                part.last_ns,
                None,
                bytes,
            ));
            made += part.events;
        }
        ensure!(!batches.is_empty(), "nothing to send");
        Ok(Self::with(id, &key.verifying_key(), batches, made))
    }

    /// One whose batches hold so many events.
    pub(crate) fn with(id: &str, key: &VerifyingKey, batches: Vec<SignedBatch>, events: u64) -> Self {
        Self {
            id: id.to_owned(),
            public_key: key.as_bytes().to_vec(),
            batches,
            events,
        }
    }
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) seconds: f64,
    pub(crate) batches: u64,
    pub(crate) acknowledged: u64,
    /// From sending to acknowledgement, of each batch, in milliseconds.
    pub(crate) late_ms: Vec<f64>,
}

/// Sends everything; spread evenly over `over`, or as fast as it is taken.
pub(crate) async fn deliver(socket: &Path, agents: &mut [Agent], over: Option<Duration>) -> Result<Taken> {
    let began = Instant::now();
    let talks = agents
        .iter_mut()
        .enumerate()
        .map(|(number, agent)| talk(socket, agent, over, number));
    let talks = futures::future::try_join_all(talks).await?;
    let mut all = Taken {
        seconds: began.elapsed().as_secs_f64(),
        ..Taken::default()
    };
    // The streams stay open until here, so that all agents are connected at once.
    for (one, _stream) in talks {
        all.batches += one.batches;
        all.acknowledged += one.acknowledged;
        all.late_ms.extend(one.late_ms);
    }
    Ok(all)
}

async fn talk(
    socket: &Path,
    agent: &mut Agent,
    over: Option<Duration>,
    number: usize,
) -> Result<(Taken, mpsc::Sender<Upload>)> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
    let mut client = DeliveryClient::new(endpoint.connect().await?);
    let (up, uploads) = mpsc::channel(WINDOW + 1);
    let hello = Hello {
        agent_id: agent.id.clone(),
        public_key: agent.public_key.clone(),
        version: "bench".to_owned(),
        ..Hello::default()
    };
    up.send(Upload {
        kind: Some(upload::Kind::Hello(hello)),
    })
    .await?;
    let mut receipts = client.deliver(ReceiverStream::new(uploads)).await?.into_inner();
    ensure!(
        receipts.message().await?.is_some(),
        "the collector does not answer"
    );
    let mut taken = Taken {
        batches: agent.batches.len() as u64,
        ..Taken::default()
    };
    let count = u32::try_from(agent.batches.len())?;
    let pause = over.map(|over| over / count);
    // Not all at the same moment.
    let began = Instant::now() + pause.unwrap_or_default() * u32::try_from(number % 64)? / 64;
    let mut sent: Vec<Instant> = Vec::with_capacity(agent.batches.len());
    let mut batches = std::mem::take(&mut agent.batches).into_iter();
    while taken.acknowledged < taken.batches {
        let under_way = sent.len() as u64 - taken.acknowledged;
        let may_send = under_way < WINDOW as u64 && batches.len() > 0;
        let due = pause.map(|pause| began + pause * u32::try_from(sent.len()).unwrap_or(u32::MAX));
        let wait = async {
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
        };
        tokio::select! {
            () = wait, if may_send => {
                let Some(batch) = batches.next() else { continue };
                // From when it was due: a collector that does not keep up is late, however it is asked.
                sent.push(due.unwrap_or_else(Instant::now));
                up.send(Upload { kind: Some(upload::Kind::Batch(batch)) }).await?;
            }
            receipt = receipts.message() => match receipt?.and_then(|receipt| receipt.kind) {
                Some(receipt::Kind::Ack(_)) => {
                    let index = usize::try_from(taken.acknowledged)?;
                    let at = sent.get(index).context("an acknowledgement of nothing")?;
                    taken.late_ms.push(at.elapsed().as_secs_f64() * 1000.0);
                    taken.acknowledged += 1;
                }
                other => bail!("the collector answers {other:?}"),
            },
        }
    }
    Ok((taken, up))
}
