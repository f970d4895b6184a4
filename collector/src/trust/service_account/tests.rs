//! The reviewer against a server that speaks the API's protocol, and lies where a test says so.

use std::sync::Mutex;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::HeaderMap,
    routing::{get, patch, post},
};

use super::*;

/// What the server answers, and what it was told.
#[derive(Default)]
struct Said {
    review: Value,
    pod: Option<Value>,
    tokens: Vec<String>,
    asked: Vec<Value>,
    patched: Vec<(String, Value)>,
}

type Server = Arc<Mutex<Said>>;

fn bearer(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

async fn review(State(server): State<Server>, headers: HeaderMap, Json(asked): Json<Value>) -> Json<Value> {
    let mut said = server.lock().expect("ours");
    said.tokens.push(bearer(&headers));
    said.asked.push(asked);
    Json(said.review.clone())
}

async fn pod(State(server): State<Server>, Path(name): Path<String>) -> (StatusCode, Json<Value>) {
    assert_eq!(name, "pgwitness-agent-x7k2p");
    match &server.lock().expect("ours").pod {
        Some(pod) => (StatusCode::OK, Json(pod.clone())),
        None => (StatusCode::NOT_FOUND, Json(json!({"kind": "Status"}))),
    }
}

async fn configmap(
    State(server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Json<Value> {
    assert_eq!(headers.get("content-type").expect("said"), MERGE);
    let patch: Value = serde_json::from_str(&body).expect("JSON");
    server.lock().expect("ours").patched.push((name, patch));
    Json(json!({}))
}

/// A server, and a reviewer that asks it.
async fn at(said: Said) -> (tempfile::TempDir, Server, Reviewer) {
    let server = Arc::new(Mutex::new(said));
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .route("/api/v1/namespaces/pgwitness/pods/{name}", get(pod))
        .route("/api/v1/namespaces/pgwitness/configmaps/{name}", patch(configmap))
        .with_state(Arc::clone(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(axum::serve(listener, router).into_future());
    let credentials = tempfile::tempdir().expect("a folder");
    std::fs::write(credentials.path().join("token"), "first\n").expect("written");
    let config = ServiceAccountConfig {
        namespace: "pgwitness".to_owned(),
        name: "pgwitness-agent".to_owned(),
        audience: "pgwitness-collector".to_owned(),
        publish: Some("pgwitness-authorities".to_owned()),
        api: Some(format!("http://{address}")),
        credentials: credentials.path().to_path_buf(),
    };
    let reviewer = Reviewer::new(&config).expect("configured");
    (credentials, server, reviewer)
}

/// As an API server answers; a test takes away or changes what it is about.
fn good() -> Value {
    json!({
        "kind": "TokenReview",
        "status": {
            "authenticated": true,
            "audiences": ["pgwitness-collector"],
            "user": {
                "username": "system:serviceaccount:pgwitness:pgwitness-agent",
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["pgwitness-agent-x7k2p"],
                    "authentication.kubernetes.io/pod-uid": ["0b5c"],
                },
            },
        },
    })
}

fn its_pod() -> Value {
    json!({
        "metadata": {"uid": "0b5c"},
        "spec": {"nodeName": "worker-1", "serviceAccountName": "pgwitness-agent"},
    })
}

fn changed(path: &str, value: Value) -> Value {
    let mut review = good();
    *review.pointer_mut(path).expect("there") = value;
    review
}

#[tokio::test]
async fn the_pod_and_its_node_are_what_the_api_server_says() {
    let (credentials, server, reviewer) = at(Said {
        review: good(),
        pod: Some(its_pod()),
        ..Said::default()
    })
    .await;
    let pod = reviewer.review("shown").await.expect("vouched for");
    assert_eq!((pod.uid.as_str(), pod.node.as_str()), ("0b5c", "worker-1"));
    // Kubelet replaces it.
    std::fs::write(credentials.path().join("token"), "second").expect("written");
    reviewer.review("shown").await.expect("vouched for");
    let said = server.lock().expect("ours");
    assert_eq!(said.tokens, ["Bearer first", "Bearer second"]);
    let asked = said.asked.first().expect("asked");
    assert_eq!(asked.pointer("/spec/token"), Some(&json!("shown")));
    assert_eq!(
        asked.pointer("/spec/audiences"),
        Some(&json!(["pgwitness-collector"]))
    );
}

#[tokio::test]
async fn whoever_is_not_vouched_for_is_nobody() {
    let extra = "/status/user/extra/authentication.kubernetes.io~1";
    for (what, review) in [
        ("does not vouch", changed("/status/authenticated", json!(false))),
        ("does not vouch", changed("/status/authenticated", json!("true"))),
        ("does not vouch", json!({})),
        (
            "not for this collector",
            changed("/status/audiences", json!(["https://kubernetes.default.svc"])),
        ),
        (
            "not for this collector",
            changed("/status/audiences", Value::Null),
        ),
        (
            "agents have the account",
            changed(
                "/status/user/username",
                json!("system:serviceaccount:shop:pgwitness-agent"),
            ),
        ),
        (
            "agents have the account",
            changed(
                "/status/user/username",
                json!("system:serviceaccount:pgwitness:default"),
            ),
        ),
        (
            "agents have the account",
            changed("/status/user/username", json!("kubernetes-admin")),
        ),
        ("of no pod", changed(&format!("{extra}pod-uid"), json!([]))),
        (
            "of no pod",
            changed(&format!("{extra}pod-name"), json!(["../../secrets/x"])),
        ),
    ] {
        let (_folder, _server, reviewer) = at(Said {
            review,
            ..Said::default()
        })
        .await;
        let refused = reviewer.review("shown").await.expect_err(what);
        assert!(
            matches!(&refused, Unvouched::Refused(why) if why.contains(what)),
            "{what}: {refused}"
        );
    }
    let (_folder, server, reviewer) = at(Said {
        review: good(),
        ..Said::default()
    })
    .await;
    let long = "x".repeat(TOKEN_BYTES + 1);
    assert!(matches!(reviewer.review(&long).await, Err(Unvouched::Refused(_))));
    assert!(server.lock().expect("ours").asked.is_empty(), "nobody was asked");
}

#[tokio::test]
async fn the_pod_has_to_be_there_yet() {
    for (pod, expected) in [
        (its_pod(), Ok("worker-1")),
        (json!({"metadata": {"uid": "other"}}), Err("another has its name")),
        (
            json!({"metadata": {"uid": "0b5c"}, "spec": {"serviceAccountName": "default"}}),
            Err("another account"),
        ),
        (
            json!({"metadata": {"uid": "0b5c"}, "spec": {"serviceAccountName": "pgwitness-agent"}}),
            Err("on no node yet"),
        ),
        (Value::Null, Err("is gone")),
    ] {
        let said = Said {
            review: good(),
            pod: Some(pod).filter(|pod| !pod.is_null()),
            ..Said::default()
        };
        let (_folder, _server, reviewer) = at(said).await;
        match (reviewer.review("shown").await, expected) {
            (Ok(pod), Ok(node)) => assert_eq!(pod.node, node),
            (Err(Unvouched::Refused(why)), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (other, expected) => panic!("{other:?}, and not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn authorities_are_written_once_and_again_when_they_change() {
    let (_folder, server, reviewer) = at(Said::default()).await;
    let data = tempfile::tempdir().expect("a folder");
    let registry = Registry::in_data(data.path());
    let mut written = None;
    for _ in 0..2 {
        reviewer
            .write(&registry, "pgwitness-authorities", &mut written)
            .await
            .expect("written");
    }
    Own::rotate(&registry, "log").expect("another");
    reviewer
        .write(&registry, "pgwitness-authorities", &mut written)
        .await
        .expect("written");
    let said = server.lock().expect("ours");
    let texts: Vec<_> = said
        .patched
        .iter()
        .filter_map(|(_, patch)| patch.pointer("/data/authorities.pem")?.as_str())
        .map(|text| text.matches("BEGIN CERTIFICATE").count())
        .collect();
    assert_eq!(texts, [1, 2]);
}

#[test]
fn tokens_are_not_sent_where_they_could_be_read() {
    let config = ServiceAccountConfig {
        namespace: "pgwitness".to_owned(),
        name: "pgwitness-agent".to_owned(),
        audience: "pgwitness-collector".to_owned(),
        publish: None,
        api: Some("http://10.96.0.1:80".to_owned()),
        credentials: "/nowhere".into(),
    };
    let refused = Reviewer::new(&config).expect_err("in the clear").to_string();
    assert!(refused.contains("https://"), "{refused}");
}
