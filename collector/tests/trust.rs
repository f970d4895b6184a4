//! Who may deliver: enrolment, mutual TLS, renewal, revocation and other keys, over real connections to a whole collector.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::Chain;
use hyper_util::rt::TokioIo;
use pgwitness_collector::{config::Config, log::read_batches, serve::serve, verify::verify};
use prost::Message;
use proto::v1::{
    Certificates, EnrolRequest, Event, Hello, Receipt, RenewRequest, Resume, SignedBatch, Upload,
    delivery_client::DeliveryClient, enrolment_client::EnrolmentClient, event, receipt, upload,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};
use trust::{
    Authority, COLLECTOR_NAME, Identity, Token,
    rustls::{
        ClientConfig,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

/// A collector that is served in this process, and steered as operators do it.
struct Collector {
    folder: tempfile::TempDir,
    grpc: SocketAddr,
    config: Config,
    running: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<anyhow::Result<()>>)>,
}

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Collector {
    async fn start(tls: bool, lifetime_s: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            data: folder.path().join("data"),
            ..Config::default()
        };
        let grpc = free();
        config.grpc.listen = grpc.to_string().parse().unwrap();
        config.http.listen = free();
        config.log.checkpoint_interval_ms = 20;
        config.trust.tls = Some(tls);
        config.trust.lifetime_s = lifetime_s;
        fs::write(folder.path().join("collector.toml"), config.effective()).unwrap();
        let mut collector = Self {
            folder,
            grpc,
            config,
            running: None,
        };
        collector.run().await;
        collector
    }

    async fn run(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let config = self.config.clone();
        let serving = tokio::spawn(serve(config, async {
            _ = stopped.await;
        }));
        self.running = Some((stop, serving));
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.config.http.listen).await.is_err() {
            assert!(Instant::now() < until, "the collector does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(&mut self) {
        let (stop, serving) = self.running.take().unwrap();
        _ = stop.send(());
        serving.await.unwrap().unwrap();
    }

    /// A command, as an operator gives it.
    fn say(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_pgwitness-collector"))
            .args(words)
            .arg("--config")
            .arg(self.folder.path().join("collector.toml"))
            .output()
            .unwrap();
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said = String::from_utf8(said).unwrap();
        if output.status.success() {
            Ok(said)
        } else {
            Err(said)
        }
    }

    fn token(&self, name: &str, expires: &str) -> Token {
        let said = self
            .say(&["agent", "add", name, "--expires", expires, "--json"])
            .unwrap();
        let line = said.lines().next().unwrap();
        let said: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            said["command"],
            format!(
                "pgwitness-agent enroll --collector https://{} --token {}",
                self.grpc,
                said["token"].as_str().unwrap()
            )
        );
        said["token"].as_str().unwrap().parse().unwrap()
    }

    fn evidence(&self) -> PathBuf {
        self.config.data.join("evidence")
    }

    /// Kinds of alarms in the record, with the agents that they are about.
    fn alarms(&self) -> Vec<(String, String, u64)> {
        let batches = read_batches(&self.evidence(), 0).map(Result::unwrap);
        let events = batches.flat_map(|(_, batch)| batch.events);
        let bodies = events.map(|event| Event::decode(event).unwrap().body);
        bodies
            .filter_map(|body| match body {
                Some(event::Body::Alarm(alarm)) => Some((alarm.kind, alarm.agent_id, alarm.times)),
                _ => None,
            })
            .collect()
    }

    async fn alarm(&self, kind: &str, agent: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self
            .alarms()
            .iter()
            .any(|alarm| alarm.0 == kind && alarm.1 == agent)
        {
            assert!(
                Instant::now() < until,
                "no alarm {kind} about {agent:?}: {:?}",
                self.alarms()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn enrol(&self, token: &Token, key: &SigningKey) -> Result<Agent, Status> {
        let channel = connect(self.grpc, trust::pinned(token.pin).unwrap())
            .await
            .unwrap();
        let (tls_key, csr) = trust::request().unwrap();
        let given = EnrolmentClient::new(channel)
            .enrol(EnrolRequest {
                agent_id: token.agent_id.clone(),
                secret: token.secret.to_vec(),
                public_key: key.verifying_key().to_bytes().to_vec(),
                signature: trust::proof(key, &token.agent_id, &token.secret, &csr).to_vec(),
                csr,
                ..EnrolRequest::default()
            })
            .await?;
        let mut agent = Agent::new(&token.agent_id, key, self.grpc);
        agent.take(&tls_key, given.into_inner());
        Ok(agent)
    }
}

/// What an agent is, as far as a collector sees.
struct Agent {
    id: String,
    key: SigningKey,
    collector: SocketAddr,
    tls_key: String,
    certificate: CertificateDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
    chain: Chain,
}

impl Agent {
    fn new(id: &str, key: &SigningKey, collector: SocketAddr) -> Self {
        Self {
            id: id.to_owned(),
            key: key.clone(),
            collector,
            tls_key: String::new(),
            certificate: CertificateDer::from(Vec::new()),
            authorities: Vec::new(),
            chain: Chain::new(id),
        }
    }

    fn take(&mut self, tls_key: &str, given: Certificates) {
        self.tls_key = tls_key.to_owned();
        self.certificate = CertificateDer::from(given.certificate);
        self.authorities = given.authorities.into_iter().map(CertificateDer::from).collect();
    }

    fn client(&self) -> ClientConfig {
        let identity = Identity {
            certificates: vec![self.certificate.clone()],
            key: PrivateKeyDer::from_pem_slice(self.tls_key.as_bytes()).unwrap(),
        };
        trust::client(&self.authorities, Some(identity)).unwrap()
    }

    /// A stream, as far as the collector lets it come.
    async fn stream(&self) -> Result<(mpsc::Sender<Upload>, Streaming<Receipt>, Resume), String> {
        let channel = connect(self.collector, self.client()).await?;
        self.stream_over(channel, &self.id)
            .await
            .map_err(|status| format!("{status:?}"))
    }

    async fn stream_over(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<(mpsc::Sender<Upload>, Streaming<Receipt>, Resume), Status> {
        let (uploads, stream) = mpsc::channel(64);
        let hello = Hello {
            agent_id: id.to_owned(),
            public_key: self.key.verifying_key().to_bytes().to_vec(),
            version: "test".to_owned(),
            ..Hello::default()
        };
        let kind = Some(upload::Kind::Hello(hello));
        uploads.send(Upload { kind }).await.unwrap();
        let mut client = DeliveryClient::new(channel);
        let mut receipts = client.deliver(ReceiverStream::new(stream)).await?.into_inner();
        match receipts.message().await?.expect("an answer").kind {
            Some(receipt::Kind::Resume(resume)) => Ok((uploads, receipts, resume)),
            other => panic!("expected Resume, found {other:?}"),
        }
    }

    fn batch(&mut self) -> Upload {
        let batch = self.seal();
        Upload {
            kind: Some(upload::Kind::Batch(batch)),
        }
    }

    fn seal(&mut self) -> SignedBatch {
        let seq = self.chain.next_sequence;
        let event = Event {
            seq,
            ..Event::default()
        };
        let event = Bytes::from(event.encode_to_vec());
        evidence::seal(&mut self.chain, &self.key, vec![event], seq, 1, 2, None, [4; 32])
    }

    async fn renew(&self) -> Result<(String, Certificates), String> {
        let channel = connect(self.collector, self.client()).await?;
        let (tls_key, csr) = trust::request().unwrap();
        let given = EnrolmentClient::new(channel).renew(RenewRequest { csr }).await;
        given
            .map(|given| (tls_key, given.into_inner()))
            .map_err(|status| format!("{status:?}"))
    }
}

async fn connect(address: SocketAddr, client: ClientConfig) -> Result<Channel, String> {
    let tls = TlsConnector::from(Arc::new(client));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(COLLECTOR_NAME).unwrap();
            let stream = tls.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://collector");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| format!("{error:?}"))
}

/// The next answer that is no acknowledgement.
async fn wish(receipts: &mut Streaming<Receipt>) -> Option<receipt::Kind> {
    loop {
        match tokio::time::timeout(Duration::from_secs(5), receipts.message())
            .await
            .ok()?
            .unwrap()?
            .kind
        {
            Some(receipt::Kind::Ack(_)) => {}
            other => return other,
        }
    }
}

async fn ack(receipts: &mut Streaming<Receipt>) -> u64 {
    match receipts.message().await.unwrap().unwrap().kind {
        Some(receipt::Kind::Ack(ack)) => ack.sequence,
        other => panic!("expected Ack, found {other:?}"),
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_leads_to_a_certificate_once() {
    let mut collector = Collector::start(true, 3600).await;
    let token = collector.token("db1", "1h");
    // Nobody delivers without a certificate.
    let channel = connect(collector.grpc, trust::pinned(token.pin).unwrap())
        .await
        .unwrap();
    let stranger = Agent::new("db1", &key(9), collector.grpc);
    let refused = stranger.stream_over(channel, "db1").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("showed no certificate"), "{refused:?}");
    collector.alarm("unknown_agent", "db1").await;

    let mut agent = collector.enrol(&token, &key(1)).await.unwrap();
    let (uploads, mut receipts, resume) = agent.stream().await.unwrap();
    assert_eq!(resume.sequence, 0);
    uploads.send(agent.batch()).await.unwrap();
    assert_eq!(ack(&mut receipts).await, 1);

    let again = collector.enrol(&token, &key(1)).await.err().unwrap();
    assert!(again.message().contains("was used already"), "{again:?}");
    collector.alarm("bad_token", "db1").await;
    let late = collector.token("db2", "1s");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let late = collector.enrol(&late, &key(2)).await.err().unwrap();
    assert!(late.message().contains("has expired"), "{late:?}");
    collector.alarm("bad_token", "db2").await;
    let made_up = Token::new("db3", token.pin);
    let made_up = collector.enrol(&made_up, &key(3)).await.err().unwrap();
    assert!(made_up.message().contains("not of this collector"), "{made_up:?}");
    // A token of another collector does not even get there.
    let elsewhere = Token::new("db3", [7; 32]);
    let problem = connect(collector.grpc, trust::pinned(elsewhere.pin).unwrap())
        .await
        .unwrap_err();
    assert!(problem.contains("UnknownIssuer"), "{problem}");
    // The name's batch key stays what it was.
    let other = collector.token("db1", "1h");
    let other = collector.enrol(&other, &key(4)).await.err().unwrap();
    assert!(other.message().contains("enrolled with another key"), "{other:?}");
    collector.alarm("other_key", "db1").await;

    let listed = collector.say(&["agent", "list"]).unwrap();
    assert!(
        listed.starts_with("db1  enrolled ") && listed.lines().count() == 1,
        "{listed}"
    );
    collector.stop().await;
    let report = verify(&collector.evidence(), None);
    assert!(report.ok, "{report:?}");
}

/// A client has finished its part of a TLS 1.3 handshake before the server looks at its certificate: it gets the alert, or finds the
/// connection closed, whichever it meets first.
fn is_closed_to(said: &str, alert: &str) -> bool {
    [
        alert,
        "connection closed",
        "Canceled",
        "broken pipe",
        "BrokenPipe",
        "ConnectionReset",
    ]
    .iter()
    .any(|one| said.contains(one))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_no_good_are_turned_away() {
    let collector = Collector::start(true, 3600).await;
    let agent = collector
        .enrol(&collector.token("db1", "1h"), &key(1))
        .await
        .unwrap();
    let mut wrong = collector
        .enrol(&collector.token("db2", "1h"), &key(2))
        .await
        .unwrap();

    // In another's name.
    let channel = connect(collector.grpc, wrong.client()).await.unwrap();
    let refused = wrong.stream_over(channel, "db1").await.unwrap_err();
    assert!(
        refused.code() == Code::PermissionDenied
            && refused.message().contains("its certificate is of [\"db2\"]"),
        "{refused:?}"
    );
    collector.alarm("wrong_certificate", "db1").await;

    // Of another authority, and an expired one of the right authority.
    let (tls_key, csr) = trust::request().unwrap();
    let requested = trust::requested(&csr).unwrap();
    let stranger = Authority::create("elsewhere", now()).unwrap();
    wrong.tls_key = tls_key;
    wrong.certificate = stranger.agent("db2", &requested, now(), 3600).unwrap();
    let refused = wrong.stream().await.err().unwrap();
    assert!(is_closed_to(&refused, "UnknownCA"), "{refused}");
    collector.alarm("wrong_certificate", "").await;
    let folder = collector.config.data.join("trust/authorities");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let own = Authority::load(&read("0001.pem"), &read("0001.key")).unwrap();
    wrong.certificate = own.agent("db2", &requested, now() - 7200, 3600).unwrap();
    let refused = wrong.stream().await.err().unwrap();
    assert!(is_closed_to(&refused, "CertificateExpired"), "{refused}");
    // Of the right authority, but not one that was given out: as if somebody had made it with a stolen key.
    wrong.certificate = own.agent("db2", &requested, now(), 3600).unwrap();
    let refused = wrong.stream().await.err().unwrap();
    assert!(refused.contains("was replaced by a newer one"), "{refused}");
    wrong.certificate = own.agent("db9", &requested, now(), 3600).unwrap();
    wrong.id = "db9".to_owned();
    let refused = wrong.stream().await.err().unwrap();
    assert!(
        refused.contains("no agent \\\"db9\\\" was enrolled here"),
        "{refused}"
    );
    // An agent's certificate is none of a collector's.
    let (listener, address) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let identity = Identity {
        certificates: vec![agent.certificate.clone(), own.certificate().clone()],
        key: PrivateKeyDer::from_pem_slice(agent.tls_key.as_bytes()).unwrap(),
    };
    let presented = trust::Presented {
        identity,
        authority: None,
    };
    let server = trust::server(vec![presented], &agent.authorities).unwrap();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    let problem = connect(address, agent.client()).await.unwrap_err();
    assert!(
        problem.contains("InvalidPurpose") || problem.contains("NotValidForName"),
        "{problem}"
    );

    // The collector's authority is another one: somebody else answers at its place.
    let mut deceived = Agent::new("db1", &key(1), collector.grpc);
    deceived.tls_key = agent.tls_key.clone();
    deceived.certificate = agent.certificate.clone();
    deceived.authorities = vec![stranger.certificate().clone()];
    let problem = deceived.stream().await.err().unwrap();
    assert!(problem.contains("UnknownIssuer"), "{problem}");
    assert!(agent.stream().await.is_ok(), "and the right one is let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_revoked_is_out_at_once() {
    let mut collector = Collector::start(true, 3600).await;
    let mut agent = collector
        .enrol(&collector.token("db1", "1h"), &key(1))
        .await
        .unwrap();
    let other = collector
        .enrol(&collector.token("db2", "1h"), &key(2))
        .await
        .unwrap();
    let (uploads, mut receipts, _) = agent.stream().await.unwrap();
    let (_others, mut others_receipts, _) = other.stream().await.unwrap();
    uploads.send(agent.batch()).await.unwrap();
    ack(&mut receipts).await;
    let began = Instant::now();
    collector
        .say(&["agent", "revoke", "db1", "--reason", "the host was sold"])
        .unwrap();
    let ended = receipts.message().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(
        ended.code() == Code::PermissionDenied && ended.message().contains("the host was sold"),
        "{ended:?}"
    );
    collector.alarm("revoked_agent", "db1").await;
    let refused = agent.stream().await.err().unwrap();
    assert!(refused.contains("is revoked"), "{refused}");
    let refused = agent.renew().await.err().unwrap();
    assert!(refused.contains("is revoked"), "{refused}");
    let said = collector.say(&["agent", "add", "db1"]).unwrap_err();
    assert!(said.contains("take another name"), "{said}");
    assert!(collector.say(&["agent", "revoke", "nobody"]).is_err());
    let quiet = tokio::time::timeout(Duration::from_millis(500), others_receipts.message()).await;
    assert!(quiet.is_err(), "the other's stream goes on: {quiet:?}");
    collector.stop().await;
    collector.run().await;
    let refused = agent.stream().await.err().unwrap();
    assert!(refused.contains("is revoked"), "behind a restart, too: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_replaces_the_certificate_and_loses_nothing() {
    let mut collector = Collector::start(true, 3600).await;
    let mut agent = collector
        .enrol(&collector.token("db1", "1h"), &key(1))
        .await
        .unwrap();
    let (mut sent, mut acked) = (0, 0);
    for round in 0..5 {
        let (uploads, mut receipts, _) = agent.stream().await.unwrap();
        let first = agent.certificate.clone();
        let before = Agent {
            certificate: first.clone(),
            tls_key: agent.tls_key.clone(),
            authorities: agent.authorities.clone(),
            ..Agent::new("db1", &key(1), collector.grpc)
        };
        let (tls_key, given) = agent.renew().await.unwrap();
        agent.take(&tls_key, given);
        assert_ne!(agent.certificate, first);
        for _ in 0..20 {
            uploads.send(agent.batch()).await.unwrap();
            sent += 1;
        }
        while acked < sent {
            acked = ack(&mut receipts).await;
        }
        // Until the new one was used for another renewal the old one holds: its stream goes on.
        assert!(before.stream().await.is_ok(), "round {round}");
    }
    let (_uploads, _receipts, resume) = agent.stream().await.unwrap();
    assert_eq!(resume.sequence, 100);
    collector.stop().await;
    assert!(verify(&collector.evidence(), None).ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_certificate() {
    let collector = Collector::start(true, 10).await;
    let agent = collector
        .enrol(&collector.token("db1", "1h"), &key(1))
        .await
        .unwrap();
    let (_uploads, mut receipts, _) = agent.stream().await.unwrap();
    let began = Instant::now();
    let ended = receipts.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert!(
        ended.message().contains("has expired") && began.elapsed() < Duration::from_secs(12),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_follow_each_other() {
    let collector = Collector::start(true, 3600).await;
    let mut agent = collector
        .enrol(&collector.token("db1", "1h"), &key(1))
        .await
        .unwrap();
    let away = collector
        .enrol(&collector.token("db2", "1h"), &key(2))
        .await
        .unwrap();
    let (_uploads, mut receipts, _) = agent.stream().await.unwrap();
    collector.say(&["ca", "rotate"]).unwrap();
    assert!(matches!(
        wish(&mut receipts).await,
        Some(receipt::Kind::Renewal(_))
    ));
    let (tls_key, given) = agent.renew().await.unwrap();
    assert_eq!(given.authorities.len(), 2, "both are trusted");
    agent.take(&tls_key, given);
    let (_uploads, mut receipts, _) = agent.stream().await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(500), receipts.message()).await;
    assert!(quiet.is_err(), "nothing more is wished: {quiet:?}");
    assert!(away.stream().await.is_ok(), "who was away comes with the old one");
    // The newest alone is shown to whoever trusts only that.
    agent.authorities.remove(0);
    assert!(agent.stream().await.is_ok());

    let shown = collector.say(&["ca", "show"]).unwrap();
    assert!(
        shown.lines().count() == 3 && shown.contains("without a certificate of the newest: db2"),
        "{shown}"
    );
    let said = collector.say(&["ca", "drop-former"]).unwrap_err();
    assert!(said.contains("db2"), "{said}");
    collector.say(&["ca", "drop-former", "--force"]).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let problem = away.stream().await.err().unwrap();
    assert!(problem.contains("UnknownIssuer"), "{problem}");
    assert!(agent.stream().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_with_another_batch_key() {
    let mut collector = Collector::start(true, 3600).await;
    let mut agent = collector
        .enrol(&collector.token("db1", "1h"), &key(1))
        .await
        .unwrap();
    let (uploads, mut receipts, resume) = agent.stream().await.unwrap();
    assert_eq!(resume.public_key, key(1).verifying_key().to_bytes());
    uploads.send(agent.batch()).await.unwrap();
    ack(&mut receipts).await;
    collector.say(&["agent", "rotate-key", "db1"]).unwrap();
    let Some(receipt::Kind::KeyRotation(wished)) = wish(&mut receipts).await else {
        panic!("another key is wished for")
    };
    assert_eq!(wished.public_key, key(1).verifying_key().to_bytes());
    // What the old one announces the new one follows, in one group.
    agent.chain.next_key = Some(key(5).verifying_key().to_bytes());
    uploads.send(agent.batch()).await.unwrap();
    agent.key = key(5);
    for _ in 0..3 {
        uploads.send(agent.batch()).await.unwrap();
    }
    for sequence in 2..=5 {
        assert_eq!(ack(&mut receipts).await, sequence);
    }
    drop(uploads);
    // The old key is no good any more, for a greeting nor for a batch.
    let mut old = Agent {
        certificate: agent.certificate.clone(),
        tls_key: agent.tls_key.clone(),
        authorities: agent.authorities.clone(),
        chain: agent.chain.clone(),
        ..Agent::new("db1", &key(1), collector.grpc)
    };
    let refused = old.stream().await.err().unwrap();
    assert!(refused.contains("enrolled with another key"), "{refused}");
    let (uploads, mut receipts, resume) = agent.stream().await.unwrap();
    assert_eq!(
        (resume.sequence, resume.public_key),
        (5, key(5).verifying_key().to_bytes().to_vec())
    );
    uploads.send(old.batch()).await.unwrap();
    let Some(receipt::Kind::Refusal(refusal)) = wish(&mut receipts).await else {
        panic!("it is refused")
    };
    assert!(refusal.reason.contains("signature"), "{refusal:?}");
    collector.alarm("refused_batch", "db1").await;

    // The record says it all, and goes on behind a restart.
    collector.stop().await;
    let report = verify(&collector.evidence(), None);
    assert!(report.ok, "{report:?}");
    collector.run().await;
    let (uploads, mut receipts, _) = agent.stream().await.unwrap();
    uploads.send(agent.batch()).await.unwrap();
    assert_eq!(ack(&mut receipts).await, 6);
    collector.stop().await;
    let record = collector.evidence().join("agents/db1.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"from_batch\": 3"), "{text}");
    assert!(verify(&collector.evidence(), None).ok);
    fs::write(&record, text.replace("\"from_batch\": 3", "\"from_batch\": 4")).unwrap();
    let wrong = verify(&collector.evidence(), None).wrong.unwrap();
    assert_eq!(wrong.file, "agents/db1.json");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_something_else_is_told() {
    let collector = Collector::start(true, 3600).await;
    let plain = Endpoint::from_shared(format!("http://{}", collector.grpc)).unwrap();
    let mut agent = Agent::new("db1", &key(1), collector.grpc);
    match plain.connect().await {
        Ok(channel) => {
            let refused = agent.stream_over(channel, "db1").await.unwrap_err();
            assert_ne!(refused.code(), Code::Ok);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
    // TLS 1.2 at most: the collector has nothing to be talked down to (RFC 8446, 4.2.1 and 6.2: alert 70).
    let mut stream = TcpStream::connect(collector.grpc).await.unwrap();
    let hello = [
        &[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0xc0, 0x2b, 1, 0],
    ]
    .concat();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    assert!([70, 40].contains(answer.last().unwrap()), "{answer:?}");

    let open = Collector::start(false, 3600).await;
    let token = Token::new("db1", [1; 32]);
    let problem = connect(open.grpc, trust::pinned(token.pin).unwrap())
        .await
        .unwrap_err();
    assert!(problem.contains("InvalidContentType"), "{problem}");
    // On loopback everything is as it was; but who is revoked is out there, too.
    let channel = || async {
        let plain = Endpoint::from_shared(format!("http://{}", open.grpc)).unwrap();
        plain.connect().await.unwrap()
    };
    let (uploads, mut receipts, _) = agent.stream_over(channel().await, "db1").await.unwrap();
    uploads.send(agent.batch()).await.unwrap();
    ack(&mut receipts).await;
    open.say(&["agent", "revoke", "db1"]).unwrap();
    assert_eq!(
        receipts.message().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let refused = agent.stream_over(channel().await, "db1").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[test]
fn another_address_takes_tls_or_a_loud_word() {
    let check = |text: &str, flags: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("collector.toml");
        fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pgwitness-collector"))
            .args(["serve", "--check-config", "--grpc", "0.0.0.0:7433", "--config"])
            .arg(&file)
            .args(flags)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (ok, said) = check("", &[]);
    assert!(ok && said.contains("tls is true by the address"), "{said}");
    let (ok, said) = check("[trust]\ntls = false", &[]);
    assert!(
        !ok && said.contains("--insecure") && said.lines().count() == 1,
        "{said}"
    );
    let (ok, said) = check("[trust]\ntls = false", &["--insecure"]);
    assert!(ok && said.contains("insecure = true"), "{said}");
    let (ok, said) = check("[trust]\ncertificate = \"/x.pem\"", &[]);
    assert!(!ok && said.contains("go together"), "{said}");
}
