//! The agents' stream, over a real connection.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use evidence::{Chain, Contents};
use pgwitness_collector::{
    ingest::Ingest,
    log::{Log, LogOptions, Opened},
    metrics::Metrics,
    verify::verify,
};
use prost::Message;
use proto::v1::{
    Definition, Event, Hello, Query, Receipt, Resume, SignedBatch, Upload, definition,
    delivery_client::DeliveryClient, receipt, upload,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, Streaming, transport::Channel};

struct Collector {
    data: tempfile::TempDir,
    log: Arc<Log>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
    /// What came out of the log, once it has ended.
    durable: tokio::task::JoinHandle<Vec<u64>>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    client: DeliveryClient<Channel>,
}

impl Collector {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::default());
        let options = LogOptions {
            name: None,
            checkpoint_interval: Duration::from_millis(20),
            segment_bytes: 1 << 20,
        };
        let Opened {
            log,
            mut durable,
            ended,
            ..
        } = Log::open(data.path(), options, Arc::clone(&metrics)).unwrap();
        let durable = tokio::spawn(async move {
            let mut indices = Vec::new();
            while let Some(batch) = durable.recv().await {
                indices.push(batch.log_index);
            }
            indices
        });
        let (stop, stopped) = watch::channel(false);
        let service = Ingest::new(Arc::clone(&log), Arc::clone(&metrics), stopped).into_service();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let client = DeliveryClient::new(channel);
        Self {
            data,
            log,
            ended,
            durable,
            metrics,
            stop,
            client,
        }
    }

    async fn stream(&self, first: Upload) -> (mpsc::Sender<Upload>, Streaming<Receipt>) {
        let (uploads, stream) = mpsc::channel(64);
        uploads.send(first).await.unwrap();
        let receipts = self
            .client
            .clone()
            .deliver(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        (uploads, receipts)
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn hello(id: &str, key: &SigningKey) -> Upload {
    let public_key = key.verifying_key().to_bytes().to_vec();
    let hello = Hello {
        agent_id: id.to_owned(),
        public_key,
        version: "test".to_owned(),
        ..Hello::default()
    };
    Upload {
        kind: Some(upload::Kind::Hello(hello)),
    }
}

fn upload(batch: &SignedBatch) -> Upload {
    Upload {
        kind: Some(upload::Kind::Batch(batch.clone())),
    }
}

/// A batch of one event.
fn seal(chain: &mut Chain) -> SignedBatch {
    let seq = chain.next_sequence;
    let event = Bytes::from(
        Event {
            seq,
            ..Event::default()
        }
        .encode_to_vec(),
    );
    evidence::seal(chain, &key(1), vec![event], seq, 1, 2, None, [4; 32])
}

async fn resume(receipts: &mut Streaming<Receipt>) -> Resume {
    match receipts.message().await.unwrap().unwrap().kind {
        Some(receipt::Kind::Resume(resume)) => resume,
        other => panic!("expected Resume, found {other:?}"),
    }
}

async fn acks(receipts: &mut Streaming<Receipt>, count: usize) -> Vec<u64> {
    let mut acks = Vec::new();
    while acks.len() < count {
        match receipts.message().await.unwrap().unwrap().kind {
            Some(receipt::Kind::Ack(ack)) => acks.push(ack.sequence),
            other => panic!("expected Ack, found {other:?}"),
        }
    }
    acks
}

/// The reason of a refusal, behind which the stream must end.
async fn refusal(receipts: &mut Streaming<Receipt>) -> (u64, String) {
    let refusal = match receipts.message().await.unwrap().unwrap().kind {
        Some(receipt::Kind::Refusal(refusal)) => refusal,
        other => panic!("expected Refusal, found {other:?}"),
    };
    assert!(
        receipts.message().await.unwrap().is_none(),
        "the stream ends behind a refusal"
    );
    (refusal.sequence, refusal.reason)
}

async fn status(receipts: &mut Streaming<Receipt>) -> Status {
    receipts.message().await.expect_err("a status")
}

#[tokio::test]
async fn batches_are_acknowledged_in_order_and_the_next_stream_resumes() {
    let collector = Collector::start().await;
    let mut chain = Chain::new("host-1");
    let (uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    let nothing = Resume {
        public_key: key(1).verifying_key().to_bytes().to_vec(),
        protocol: proto::PROTOCOL,
        origin: collector.log.status().borrow().origin.clone(),
        ..Resume::default()
    };
    assert_eq!(resume(&mut receipts).await, nothing);
    for _ in 0..40 {
        uploads.send(upload(&seal(&mut chain))).await.unwrap();
    }
    assert_eq!(acks(&mut receipts, 40).await, (1..=40).collect::<Vec<_>>());
    drop(uploads);
    assert!(receipts.message().await.unwrap().is_none());
    let (uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    let at = resume(&mut receipts).await;
    assert_eq!(
        at,
        Resume {
            sequence: 40,
            header_hash: chain.previous.to_vec(),
            event_seq: 40,
            ..nothing
        }
    );
    let batch = seal(&mut chain);
    uploads.send(upload(&batch)).await.unwrap();
    uploads.send(upload(&batch)).await.unwrap();
    assert_eq!(acks(&mut receipts, 2).await, [41, 41]);
    assert_eq!(
        (
            collector.metrics.batches.get(),
            collector.metrics.duplicates.get()
        ),
        (41, 1)
    );
    assert!(collector.metrics.fsyncs.get() <= 41);
    collector.log.close().await;
    assert_eq!(
        collector.durable.await.unwrap(),
        (0..41).collect::<Vec<_>>(),
        "all of it, in log order"
    );
}

#[tokio::test]
async fn what_does_not_hold_is_refused_and_kept_aside() {
    let collector = Collector::start().await;
    let mut chain = Chain::new("host-1");
    let good = seal(&mut chain);
    let unsigned = SignedBatch {
        signature: Bytes::from(vec![0; 64]),
        ..good.clone()
    };
    let foreign = evidence::seal(&mut Chain::new("host-2"), &key(1), vec![], 1, 0, 0, None, [0; 32]);
    let malformed = evidence::seal(
        &mut Chain::new("host-1"),
        &key(1),
        vec![Bytes::from_static(b"\xff")],
        1,
        0,
        0,
        None,
        [0; 32],
    );
    let alone = |contents: Contents| {
        let mut chain = Chain::new("host-1");
        evidence::seal(&mut chain, &key(1), contents, 1, 0, 0, None, [0; 32])
    };
    let of_event = |event: Event| {
        let mut contents = Contents::default();
        contents.event(&[&event.encode_to_vec()]);
        contents
    };
    let misnumbered = alone(of_event(Event {
        seq: 2,
        ..Event::default()
    }));
    let by_a_party = || {
        of_event(Event {
            party: Some(0),
            ..Event::default()
        })
    };
    let nobody = alone(by_a_party());
    let (mut template, mut broken) = (by_a_party(), by_a_party());
    let kind = Some(definition::Kind::Template(Query::default()));
    template.definition(&Definition { kind }.encode_to_vec());
    let template = alone(template);
    broken.definition(b"\xff");
    let broken = alone(broken);
    let skipped = seal(&mut chain);
    for (batch, sequence, expected) in [
        (&unsigned, 0, "the signature does not hold"),
        (&foreign, 1, "the batch is of agent \"host-2\""),
        (&malformed, 1, "event 1 is malformed"),
        (&misnumbered, 1, "event 1 calls itself 2"),
        (
            &nobody,
            1,
            "event 1 names definition 0, which the batch does not have",
        ),
        (
            &template,
            1,
            "event 1 names definition 0, which is of another kind",
        ),
        (&broken, 1, "definition 0 is malformed"),
        (&skipped, 2, "expected batch 1, found 2"),
    ] {
        let (uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
        resume(&mut receipts).await;
        uploads.send(upload(batch)).await.unwrap();
        let (refused, reason) = refusal(&mut receipts).await;
        assert!(
            refused == sequence && reason.starts_with(expected),
            "{refused}: {reason}"
        );
    }
    assert_eq!(collector.metrics.refused.get(), 8);
    assert_eq!(
        std::fs::read_dir(collector.data.path().join("aside"))
            .unwrap()
            .count(),
        8
    );
    let (uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    resume(&mut receipts).await;
    uploads.send(upload(&good)).await.unwrap();
    assert_eq!(
        acks(&mut receipts, 1).await,
        [1],
        "none of it stands in the way of the right one"
    );
}

/// Of a version that does not exist yet: each message carries a field more, by its bytes.
#[tokio::test]
async fn a_later_agent_is_understood_and_its_bytes_are_kept() {
    // Field 999, the number 1.
    const MORE: &[u8] = b"\xb8\x3e\x01";
    let collector = Collector::start().await;
    let later_hello = [hello("host-1", &key(1)).encode_to_vec().as_slice(), MORE].concat();
    assert_eq!(
        Upload::decode(later_hello.as_slice()).unwrap(),
        hello("host-1", &key(1))
    );
    let (uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    resume(&mut receipts).await;
    let mut previous = [0; 32];
    for seq in 1..=3 {
        let event = Event {
            seq,
            ..Event::default()
        };
        let event = Bytes::from([event.encode_to_vec().as_slice(), MORE].concat());
        let mut chain = Chain::behind("host-1", seq - 1, previous);
        let batch = evidence::seal(&mut chain, &key(1), vec![event], seq, 1, 2, None, [4; 32]);
        let header = [batch.header.as_ref(), MORE].concat();
        let signed = [evidence::BATCH_SIGNATURE_CONTEXT, &header].concat();
        previous = evidence::header_hash(&header);
        let batch = SignedBatch {
            signature: Bytes::copy_from_slice(&key(1).sign(&signed).to_bytes()),
            header: header.into(),
            ..batch
        };
        uploads.send(upload(&batch)).await.unwrap();
        assert_eq!(acks(&mut receipts, 1).await, [seq]);
    }
    drop(uploads);
    let (_uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    assert_eq!(
        resume(&mut receipts).await.header_hash,
        previous,
        "hashed as it came"
    );
    collector.log.close().await;
    collector.ended.await.unwrap().unwrap();
    let report = verify(&collector.data.path().join("evidence"), None);
    assert!(report.ok, "{report:?}");
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let collector = Collector::start().await;
    let (_uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    resume(&mut receipts).await;
    let (_uploads, mut receipts) = collector.stream(hello("host-1", &key(2))).await;
    assert_eq!(status(&mut receipts).await.code(), Code::PermissionDenied);
    assert!(
        collector
            .metrics
            .encode()
            .contains("alarms_total{kind=\"OtherKey\"} 1")
    );
    for id in ["", "../../etc/passwd", "Host", &"a".repeat(65)] {
        let (_uploads, mut receipts) = collector.stream(hello(id, &key(1))).await;
        assert_eq!(
            status(&mut receipts).await.code(),
            Code::InvalidArgument,
            "{id:?}"
        );
    }
    let (_uploads, mut receipts) = collector.stream(upload(&seal(&mut Chain::new("host-1")))).await;
    assert_eq!(status(&mut receipts).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn stopping_ends_streams_and_leaves_a_checkpoint_over_everything() {
    let collector = Collector::start().await;
    let mut chain = Chain::new("host-1");
    let (uploads, mut receipts) = collector.stream(hello("host-1", &key(1))).await;
    resume(&mut receipts).await;
    uploads.send(upload(&seal(&mut chain))).await.unwrap();
    acks(&mut receipts, 1).await;
    collector.stop.send_replace(true);
    assert_eq!(status(&mut receipts).await.code(), Code::Unavailable);
    collector.log.close().await;
    collector.ended.await.unwrap().unwrap();
    let report = verify(&collector.data.path().join("evidence"), None);
    assert!(
        report.ok && report.tree_size == 1 && report.not_yet_under_a_checkpoint == 0,
        "{report:?}"
    );
}

#[tokio::test]
async fn a_log_that_comes_later_leaps_as_far_as_the_agent_says_and_no_further() {
    let collector = Collector::start().await;
    let mut chain = Chain::new("host-1");
    let batches: Vec<SignedBatch> = (0..8).map(|_| seal(&mut chain)).collect();
    let greeting = |acknowledged: u64| {
        let Some(upload::Kind::Hello(hello)) = hello("host-1", &key(1)).kind else {
            panic!("a greeting")
        };
        Upload {
            kind: Some(upload::Kind::Hello(Hello {
                acknowledged,
                ..hello
            })),
        }
    };
    // Without a word a hole is a hole.
    let (uploads, mut receipts) = collector.stream(greeting(0)).await;
    let resumed = resume(&mut receipts).await;
    assert_eq!(
        (resumed.sequence, resumed.origin.starts_with("pgwitness/")),
        (0, true)
    );
    uploads.send(upload(&batches[4])).await.unwrap();
    assert_eq!(refusal(&mut receipts).await.1, "expected batch 1, found 5");
    // As far as it is said, once.
    let (uploads, mut receipts) = collector.stream(greeting(4)).await;
    assert_eq!(resume(&mut receipts).await.sequence, 0);
    uploads.send(upload(&batches[5])).await.unwrap();
    assert_eq!(refusal(&mut receipts).await.1, "expected batch 1, found 6");
    let (uploads, mut receipts) = collector.stream(greeting(4)).await;
    resume(&mut receipts).await;
    uploads.send(upload(&batches[4])).await.unwrap();
    assert_eq!(acks(&mut receipts, 1).await, [5]);
    uploads.send(upload(&batches[6])).await.unwrap();
    assert_eq!(refusal(&mut receipts).await.1, "expected batch 6, found 7");
    // What was leapt over does not come any more.
    let (uploads, mut receipts) = collector.stream(greeting(4)).await;
    assert_eq!(resume(&mut receipts).await.sequence, 5);
    uploads.send(upload(&batches[1])).await.unwrap();
    assert!(
        refusal(&mut receipts)
            .await
            .1
            .contains("differs from the one stored")
    );
    let many = Upload {
        kind: Some(upload::Kind::Hello(Hello {
            agent_id: "host-1".to_owned(),
            public_key: key(1).verifying_key().to_bytes().to_vec(),
            key_changes: vec![batches[0].clone(); 256],
            ..Hello::default()
        })),
    };
    let (_uploads, mut receipts) = collector.stream(many).await;
    assert!(
        status(&mut receipts)
            .await
            .message()
            .contains("255 changes of keys")
    );
}
