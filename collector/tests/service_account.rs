//! Agents that enrol themselves by the tokens of their pods: a whole collector, and an API server that vouches for what a test says.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, patch, post},
};
use ed25519_dalek::SigningKey;
use hyper_util::rt::TokioIo;
use pgwitness_collector::{
    config::{Config, ServiceAccountConfig},
    serve::serve,
};
use proto::v1::{Certificates, EnrolRequest, enrolment_client::EnrolmentClient};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::TlsConnector;
use tonic::{Code, Status, transport::Endpoint, transport::Uri};
use trust::{COLLECTOR_NAME, agent_of, client, facts, from_pem, rustls::pki_types::ServerName};

/// What the API server knows: by token, the pod's node; and what it was told to keep.
#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<String, String>,
    authorities: Option<String>,
}

type Shared = Arc<Mutex<Cluster>>;

async fn review(State(cluster): State<Shared>, Json(asked): Json<Value>) -> Json<Value> {
    let spec = asked.get("spec").expect("a spec");
    let token = spec.get("token").and_then(Value::as_str).expect("a token");
    let cluster = cluster.lock().expect("ours");
    if !cluster.nodes.contains_key(token) {
        return Json(json!({"status": {"authenticated": false, "error": "invalid bearer token"}}));
    }
    Json(json!({"status": {
        "authenticated": true,
        "audiences": spec.get("audiences"),
        "user": {
            "username": "system:serviceaccount:pgwitness:pgwitness-agent",
            "extra": {
                "authentication.kubernetes.io/pod-name": [token],
                "authentication.kubernetes.io/pod-uid": [format!("uid of {token}")],
            },
        },
    }}))
}

/// A pod, which is called as its token is.
async fn pod(State(cluster): State<Shared>, Path(name): Path<String>) -> Json<Value> {
    let cluster = cluster.lock().expect("ours");
    Json(json!({
        "metadata": {"uid": format!("uid of {name}")},
        "spec": {"nodeName": cluster.nodes.get(&name), "serviceAccountName": "pgwitness-agent"},
    }))
}

async fn keep(State(cluster): State<Shared>, Path(name): Path<String>, body: String) -> Json<Value> {
    assert_eq!(name, "pgwitness-authorities");
    let patch: Value = serde_json::from_str(&body).expect("JSON");
    let text = patch.pointer("/data/authorities.pem").and_then(Value::as_str);
    cluster.lock().expect("ours").authorities = text.map(str::to_owned);
    Json(json!({}))
}

struct Served {
    folder: tempfile::TempDir,
    cluster: Shared,
    grpc: SocketAddr,
    metrics: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

impl Served {
    async fn start() -> Self {
        let cluster = Shared::default();
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .route("/api/v1/namespaces/pgwitness/pods/{name}", get(pod))
            .route("/api/v1/namespaces/pgwitness/configmaps/{name}", patch(keep))
            .with_state(Arc::clone(&cluster));
        let api = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let api_address = api.local_addr().expect("bound");
        tokio::spawn(axum::serve(api, router).into_future());
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("token"), "the collector's own").expect("written");
        let mut config = Config {
            data: folder.path().join("data"),
            ..Config::default()
        };
        let (grpc, metrics) = (free(), free());
        config.grpc.listen = grpc.to_string().parse().expect("an address");
        config.http.listen = free();
        config.metrics.listen = Some(metrics);
        config.trust.tls = Some(true);
        config.trust.service_account = Some(ServiceAccountConfig {
            namespace: "pgwitness".to_owned(),
            name: "pgwitness-agent".to_owned(),
            audience: "pgwitness-collector".to_owned(),
            publish: Some("pgwitness-authorities".to_owned()),
            api: Some(format!("http://{api_address}")),
            credentials: folder.path().to_path_buf(),
        });
        // What is printed as being in effect is what is in effect.
        let file = folder.path().join("collector.toml");
        fs::write(&file, config.effective()).expect("written");
        let read = Config::load(Some(&file), pgwitness_collector::config::Overrides::default());
        assert_eq!(read.expect("it can be read").trust, config.trust);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(config, async {
            _ = stopped.await;
        }));
        let served = Self {
            folder,
            cluster,
            grpc,
            metrics,
            stop,
            serving,
        };
        let until = Instant::now() + Duration::from_secs(30);
        while served.authorities().is_none() {
            assert!(Instant::now() < until, "the authorities were not written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        served
    }

    fn authorities(&self) -> Option<String> {
        self.cluster.lock().expect("ours").authorities.clone()
    }

    /// Kubelet gives a token to a pod of that node.
    fn token(&self, token: &str, node: &str) {
        let mut cluster = self.cluster.lock().expect("ours");
        cluster.nodes.insert(token.to_owned(), node.to_owned());
    }

    async fn enrol(&self, id: &str, token: &str, key: &SigningKey) -> Result<Certificates, Status> {
        let authorities = from_pem(&self.authorities().expect("written")).expect("certificates");
        let tls = TlsConnector::from(Arc::new(client(&authorities, None).expect("usable")));
        let address = self.grpc;
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(COLLECTOR_NAME).expect("a name");
                let stream = tls.connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://collector");
        let channel = endpoint.connect_with_connector(connector).await;
        let (_, csr) = trust::request().expect("made");
        let asked = EnrolRequest {
            agent_id: id.to_owned(),
            service_account_token: token.to_owned(),
            public_key: key.verifying_key().to_bytes().to_vec(),
            signature: trust::proof(key, id, token.as_bytes(), &csr).to_vec(),
            csr,
            ..EnrolRequest::default()
        };
        let given = EnrolmentClient::new(channel.expect("connected"))
            .enrol(asked)
            .await;
        given.map(tonic::Response::into_inner)
    }

    /// Certificates of an agent that are good.
    fn certificates(&self, id: &str) -> usize {
        let file = self.folder.path().join(format!("data/trust/agents/{id}.json"));
        let known: Value = serde_json::from_slice(&fs::read(file).expect("known")).expect("JSON");
        known
            .get("certificates")
            .and_then(Value::as_array)
            .map_or(0, Vec::len)
    }

    async fn stop(self) {
        _ = self.stop.send(());
        self.serving.await.expect("ended").expect("well");
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn id(node: &str, key: &SigningKey) -> String {
    agent_of(node, key.verifying_key().as_bytes())
}

fn refused(given: Result<Certificates, Status>) -> String {
    let status = given.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    status.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_the_certificate_of_its_node_and_of_no_other() {
    let served = Served::start().await;
    served.token("of-worker-1", "worker-1");
    let (own, id_1) = (key(1), id("worker-1", &key(1)));
    let given = served.enrol(&id_1, "of-worker-1", &own).await.expect("let in");
    let named = facts(&given.certificate).expect("a certificate").agents;
    assert_eq!(named, [id_1.as_str()]);
    // Each pod of the node comes again, and the token is not used up.
    served
        .enrol(&id_1, "of-worker-1", &own)
        .await
        .expect("let in again");
    assert_eq!(served.certificates(&id_1), 1, "the former one is over");
    for (what, agent, token) in [
        ("another node's", id("worker-2", &own), "of-worker-1"),
        ("no node's", "worker-1".to_owned(), "of-worker-1"),
        ("a token that nobody made", id_1.clone(), "made up"),
    ] {
        let why = refused(served.enrol(&agent, token, &own).await);
        assert!(
            why.contains("cannot be") || why.contains("does not vouch"),
            "{what}: {why}"
        );
    }
    // A name has one key.
    let why = refused(served.enrol(&id_1, "of-worker-1", &key(2)).await);
    assert!(why.contains("key"), "the name has another key: {why}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_set_up_anew_has_a_new_agent_and_the_former_is_out() {
    let served = Served::start().await;
    served.token("of-worker-1", "worker-1");
    served.token("of-worker-2", "worker-2");
    let (former, new, other) = (
        id("worker-1", &key(1)),
        id("worker-1", &key(2)),
        id("worker-2", &key(3)),
    );
    served
        .enrol(&other, "of-worker-2", &key(3))
        .await
        .expect("let in");
    served
        .enrol(&former, "of-worker-1", &key(1))
        .await
        .expect("let in");
    served.enrol(&new, "of-worker-1", &key(2)).await.expect("let in");
    let good = [&former, &new, &other].map(|agent| served.certificates(agent));
    assert_eq!(good, [0, 1, 1], "a node has one agent");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_take_the_places_of_all_others() {
    let served = Served::start().await;
    served.token("of-worker-1", "worker-1");
    served.token("of-worker-2", "worker-2");
    for n in 1..=8 {
        let given = served
            .enrol(&id("worker-1", &key(n)), "of-worker-1", &key(n))
            .await;
        given.expect("let in");
    }
    let why = refused(
        served
            .enrol(&id("worker-1", &key(9)), "of-worker-1", &key(9))
            .await,
    );
    assert!(why.contains("8 agents within a day"), "{why}");
    let places = fs::read_dir(served.folder.path().join("data/trust/agents")).expect("there");
    assert_eq!(places.count(), 8);
    // Those that are known come again, and other nodes are not concerned.
    for (node, n) in [("worker-1", 8), ("worker-2", 10)] {
        let given = served
            .enrol(&id(node, &key(n)), &format!("of-{node}"), &key(n))
            .await;
        given.expect("let in");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_agent_is_revoked_stays_out_with_any_key() {
    let served = Served::start().await;
    served.token("of-worker-1", "worker-1");
    let former = id("worker-1", &key(1));
    served
        .enrol(&former, "of-worker-1", &key(1))
        .await
        .expect("let in");
    let revoked = Command::new(env!("CARGO_BIN_EXE_pgwitness-collector"))
        .args(["agent", "revoke", &former, "--reason", "stolen", "--config"])
        .arg(served.folder.path().join("collector.toml"))
        .status();
    assert!(revoked.expect("started").success());
    for agent in [key(1), key(2)] {
        let why = refused(served.enrol(&id("worker-1", &agent), "of-worker-1", &agent).await);
        assert!(why.contains("revoked (stolen)"), "{why}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_an_address_of_their_own_and_nothing_else_is_there() {
    let served = Served::start().await;
    for (path, expected) in [
        ("/healthz", "200 OK"),
        ("/metrics", "pgwitness_collector_connected_agents"),
        ("/api/v1/overview", "404"),
    ] {
        let mut stream = TcpStream::connect(served.metrics).await.expect("there");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("said");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    served.stop().await;
}
