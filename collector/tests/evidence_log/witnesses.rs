//! Checkpoints to others, against a witness that does what the specification says and nothing else, and places of every kind.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::IntoResponse,
    routing::{post, put},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use evidence::{Checkpoint, Hash, WitnessKey};
use pgwitness_collector::{
    config::{PublishConfig, PushConfig, WitnessConfig},
    prove::{check, prove},
    publish::Publisher,
    verify::{Options, verify_with},
};

use super::{proofs::checker, *};

/// A witness of one log (<https://c2sp.org/tlog-witness>), for tests alone: it forgets everything when it ends.
struct Reference {
    key: SigningKey,
    name: String,
    /// Of the log that it watches.
    log: String,
    seen: Mutex<(u64, Hash)>,
    away: AtomicBool,
}

impl Reference {
    fn key(&self) -> WitnessKey {
        WitnessKey::new(&self.name, self.key.verifying_key()).unwrap()
    }

    fn add(&self, body: &str) -> Result<Vec<u8>, (StatusCode, String)> {
        let refuse = |status: StatusCode, text: &str| (status, text.to_owned());
        let bad = || refuse(StatusCode::BAD_REQUEST, "malformed\n");
        let (head, note) = body.split_once("\n\n").ok_or_else(bad)?;
        let mut lines = head.lines();
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old: u64 = old.and_then(|old| old.parse().ok()).ok_or_else(bad)?;
        let hash = |line: &str| {
            BASE64_STANDARD
                .decode(line)
                .ok()
                .and_then(|hash| Hash::try_from(hash).ok())
        };
        let path = lines.map(hash).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        let (checkpoint, _) = Checkpoint::open_kept(note.as_bytes(), &self.log, &[])
            .map_err(|_| refuse(StatusCode::FORBIDDEN, "not signed by the log\n"))?;
        if old > checkpoint.size {
            return Err(bad());
        }
        let mut seen = self.seen.lock().unwrap();
        if old != seen.0 || (old == checkpoint.size && old > 0 && seen.1 != checkpoint.root) {
            return Err(refuse(StatusCode::CONFLICT, &format!("{}\n", seen.0)));
        }
        if !evidence::is_consistent(old, &seen.1, checkpoint.size, &checkpoint.root, &path) {
            return Err(refuse(StatusCode::UNPROCESSABLE_ENTITY, "inconsistent\n"));
        }
        *seen = (checkpoint.size, checkpoint.root);
        Ok(evidence::cosign(&self.name, &self.key, &checkpoint.text(), 1_700_000_000).unwrap())
    }
}

async fn add_checkpoint(State(witness): State<Arc<Reference>>, body: String) -> axum::response::Response {
    if witness.away.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match witness.add(&body) {
        Ok(line) => line.into_response(),
        Err((StatusCode::CONFLICT, size)) => (
            StatusCode::CONFLICT,
            [(header::CONTENT_TYPE, "text/x.tlog.size")],
            size,
        )
            .into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn witness(data: &Path, name: &str, key: u8) -> (Arc<Reference>, WitnessConfig) {
    let reference = Arc::new(Reference {
        key: SigningKey::from_bytes(&[key; 32]),
        name: name.to_owned(),
        log: proofs::origin_key(data),
        seen: Mutex::new((0, evidence::Frontier::default().root())),
        away: AtomicBool::new(false),
    });
    let router = Router::new()
        .route("/w/add-checkpoint", post(add_checkpoint))
        .with_state(Arc::clone(&reference));
    let url = format!("{}/w/", serve(router).await);
    let key = reference.key().text();
    (reference, WitnessConfig { url, key })
}

fn push(url: String) -> PushConfig {
    PushConfig {
        url,
        region: None,
        lock_days: None,
        credentials: None,
    }
}

/// An open log that is published, until it is dropped.
struct Published {
    log: Arc<Log>,
    ended: tokio::sync::oneshot::Receiver<anyhow::Result<()>>,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<()>,
}

impl Published {
    fn open(data: &Path, witness: Vec<WitnessConfig>, push: Vec<PushConfig>) -> Self {
        let metrics = Arc::new(Metrics::default());
        let options = LogOptions {
            checkpoint_interval: Duration::from_millis(20),
            ..options()
        };
        // Its feed is dropped, as nothing here reads it.
        let Opened { log, ended, .. } = Log::open(data, options, Arc::clone(&metrics)).unwrap();
        let config = PublishConfig {
            interval_ms: 100,
            witness,
            push,
        };
        let publisher = Publisher::new(&log, data.join("evidence"), Arc::clone(&metrics), &config);
        let task = tokio::spawn(publisher.unwrap().unwrap().run(log.status()));
        Self {
            log,
            ended,
            metrics,
            task,
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: {}", self.metrics.encode());
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.encode().contains(line)
    }

    async fn cosigned(&self, size: u64) {
        let status = self.log.status();
        self.until("cosigned", |_| status.borrow().cosigned_size == size)
            .await;
    }

    async fn close(self) {
        self.task.abort();
        _ = self.task.await;
        self.log.close().await;
        self.ended.await.unwrap().unwrap();
    }
}

const ROLLED_BACK: &str = "alarms_total{kind=\"RolledBack\"}";

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_cosign_what_goes_on_and_nothing_else() {
    let (data, mut agents) = filled(7).await;
    let (first, one) = witness(data.path(), "witness.example/1", 21).await;
    let (_second, two) = witness(data.path(), "witness.example/2", 22).await;
    let published = Published::open(data.path(), vec![one.clone(), two.clone()], Vec::new());
    published.cosigned(7).await;
    let old = copy(data.path());
    for _ in 0..300 {
        let batch = agents[0].seal(1);
        append(&published.log, &agents[0], &batch).await;
    }
    published.cosigned(307).await;
    // One of them is away: the other's word is kept, and comes alone.
    first.away.store(true, Ordering::Relaxed);
    let batch = agents[0].seal(1);
    append(&published.log, &agents[0], &batch).await;
    published.cosigned(308).await;
    assert!(!published.counted(ROLLED_BACK));
    published.close().await;

    let evidence = data.path().join("evidence");
    let report = verify(&evidence, None);
    assert_eq!((report.ok, report.cosigned_size), (true, Some(308)), "{report:?}");
    assert_eq!(report.cosigned_by, ["witness.example/2"]);
    assert!(checker("check_log.py", &evidence));
    let trusting = |keys: &[&WitnessConfig], cosigned_by| Options {
        witnesses: keys
            .iter()
            .map(|config| WitnessKey::parse(&config.key).unwrap())
            .collect(),
        cosigned_by,
        ..Options::default()
    };
    assert!(verify_with(&evidence, &trusting(&[&one, &two], 1)).unwrap().ok);
    let wrong = verify_with(&evidence, &trusting(&[&one, &two], 2))
        .unwrap()
        .wrong
        .unwrap();
    assert_eq!(
        wrong.what,
        "1 of the given witnesses cosigned a checkpoint, expected 2"
    );
    let proof = prove(&evidence, "host-a-9").unwrap().to_bytes().unwrap();
    let shown = check(&proof, &trusting(&[&two], 1));
    assert_eq!(
        shown.cosigned_by,
        [("witness.example/2".to_owned(), 1_700_000_000)],
        "{shown:?}"
    );
    assert!(!check(&proof, &trusting(&[&one], 1)).ok);
    fs::write(data.path().join("proof.json"), &proof).unwrap();
    assert!(checker("check_proof.py", &data.path().join("proof.json")));

    // Every byte of what witnesses add counts as well.
    for name in ["cosigned", "witnesses"] {
        let whole = fs::read(evidence.join(name)).unwrap();
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1 << (at % 8);
            fs::write(evidence.join(name), other).unwrap();
            assert!(!holds(data.path()), "{name} at byte {at}");
            if at % 50 == 0 {
                assert!(!checker("check_log.py", &evidence), "{name} at byte {at}");
            }
        }
        fs::write(evidence.join(name), whole).unwrap();
    }

    // Put back to what it was earlier, and written on from there: the witnesses know better.
    first.away.store(false, Ordering::Relaxed);
    let published = Published::open(old.path(), vec![one, two], Vec::new());
    published.until("an alarm", |it| it.counted(ROLLED_BACK)).await;
    for _ in 0..400 {
        let batch = agents[1].seal(1);
        append(&published.log, &agents[1], &batch).await;
    }
    let status = published.log.status();
    published
        .until("grown", |_| status.borrow().tree_size == 407)
        .await;
    let alarms = |it: &Published| {
        it.metrics
            .alarms
            .counted
            .get_or_create(&pgwitness_collector::alarms::AlarmLabels {
                kind: pgwitness_collector::alarms::Alarm::RolledBack,
            })
            .get()
    };
    let before = alarms(&published);
    published
        .until("further alarms", |it| alarms(it) > before + 4)
        .await;
    assert_eq!(status.borrow().cosigned_size, 7, "nobody cosigns another history");
    published.close().await;
}

/// What a server was sent.
type Received = Arc<Mutex<Vec<(Uri, HeaderMap, String)>>>;

async fn receive(State(received): State<Received>, uri: Uri, headers: HeaderMap, body: String) -> StatusCode {
    received.lock().unwrap().push((uri, headers, body));
    StatusCode::OK
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_kept_elsewhere_and_nothing_waits_for_that() {
    let (data, mut agents) = filled(7).await;
    let outside = tempfile::tempdir().unwrap();
    let received = Received::default();
    let router = Router::new()
        .route("/{*path}", put(receive))
        .with_state(Arc::clone(&received));
    let url = serve(router).await;
    let credentials = outside.path().join("credentials");
    fs::write(&credentials, "AKID\nsecret\n").unwrap();
    let places = vec![
        push(format!("file://{}", outside.path().display())),
        push(format!("{url}/kept")),
        PushConfig {
            lock_days: Some(365),
            credentials: Some(credentials),
            ..push(format!("s3+{url}/bucket/pgwitness"))
        },
        // Nobody listens on the port of discard.
        push("http://127.0.0.1:9/away".to_owned()),
    ];
    let published = Published::open(data.path(), Vec::new(), places.clone());
    let kept = outside.path().join("pgwitness-test.checkpoint");
    let has = |size: u64| {
        fs::read_to_string(&kept).is_ok_and(|note| note.starts_with(&format!("pgwitness/test\n{size}\n")))
    };
    published
        .until("kept", |_| has(7) && received.lock().unwrap().len() == 2)
        .await;
    let old = copy(data.path());
    let batch = agents[0].seal(1);
    assert_eq!(
        append(&published.log, &agents[0], &batch).await,
        Appended::Stored(7)
    );
    published.until("kept again", |_| has(8)).await;
    published
        .until("failures", |it| !it.counted("publish_failures_total 0\n"))
        .await;
    assert!(!published.counted(ROLLED_BACK));
    published.close().await;
    let note = fs::read(&kept).unwrap();
    assert!(verify(&data.path().join("evidence"), Some(&note)).ok);
    let wrong = verify(&old.path().join("evidence"), Some(&note)).wrong.unwrap();
    assert!(wrong.what.starts_with("rolled back: 7 batches"), "{wrong}");
    {
        let received = received.lock().unwrap();
        let find = |path: &str| received.iter().find(|(uri, ..)| uri.path() == path).unwrap();
        let (_, _, body) = find("/kept/pgwitness-test-00000000000000000007.checkpoint");
        assert!(body.starts_with("pgwitness/test\n7\n"));
        let (_, headers, _) = find("/bucket/pgwitness/pgwitness-test-00000000000000000007.checkpoint");
        assert_eq!(headers["x-amz-object-lock-mode"], "COMPLIANCE");
        assert!(
            headers["x-amz-object-lock-retain-until-date"]
                .to_str()
                .unwrap()
                .ends_with('Z')
        );
        assert!(
            headers["authorization"]
                .to_str()
                .unwrap()
                .starts_with("AWS4-HMAC-SHA256 Credential=AKID/")
        );
        assert!(!headers.values().any(|value| value == "secret"));
    }
    // The same log put back to what it was: what is kept is not given up for it.
    let published = Published::open(old.path(), Vec::new(), places[..1].to_vec());
    published.until("an alarm", |it| it.counted(ROLLED_BACK)).await;
    assert!(has(8), "the newer one stays");
    published.close().await;
}

#[tokio::test]
async fn places_that_cannot_be_used_are_refused_at_once() {
    let (data, _) = filled(1).await;
    let opened = open(data.path()).unwrap();
    for (url, expected) in [
        ("https://keeper/x", "TLS is not spoken here"),
        ("file://relative", "file:///folder"),
        ("s3+http://host/bucket", "needs credentials"),
        ("ftp://host", "does not begin with http://"),
    ] {
        let config = PublishConfig {
            interval_ms: 100,
            witness: Vec::new(),
            push: vec![push(url.to_owned())],
        };
        let refused = Publisher::new(&opened.log, data.path().join("evidence"), Arc::default(), &config);
        let refused = format!("{:#}", refused.err().unwrap());
        assert!(refused.contains(expected), "{url}: {refused}");
    }
    close(opened).await;
}
