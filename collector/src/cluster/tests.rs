//! The watch against an API server on this host that speaks the real protocol: lists, streams of lines, bookmarks, streams that are
//! cut, and versions that are too old.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

const SECOND: u64 = 1_000_000_000;

type Lines = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// What the server says, and what it was asked.
struct Fake {
    pods: Mutex<Value>,
    lists: AtomicU64,
    /// Versions that watches began behind, and where their lines go.
    watches: mpsc::Sender<(String, Lines)>,
    /// Watches that say nothing.
    silent: Mutex<Vec<Lines>>,
    /// What was asked for owners as.
    accepted: Mutex<Vec<String>>,
}

/// An answer that goes on for as long as lines come.
fn stream() -> (Lines, Response) {
    let (lines, said) = mpsc::channel(16);
    let body = Body::from_stream(ReceiverStream::new(said));
    (lines, Response::new(body))
}

type Asked = Query<HashMap<String, String>>;

async fn pods(State(fake): State<Arc<Fake>>, Query(asked): Asked) -> Response {
    if asked.get("watch").is_some_and(|watch| watch == "true") {
        let (lines, response) = stream();
        let version = asked.get("resourceVersion").cloned().unwrap_or_default();
        fake.watches.send((version, lines)).await.unwrap();
        return response;
    }
    fake.lists.fetch_add(1, Ordering::Relaxed);
    let pods = fake.pods.lock().unwrap().clone();
    Json(pods).into_response()
}

async fn owners(
    State(fake): State<Arc<Fake>>,
    Query(asked): Asked,
    headers: HeaderMap,
    kind: &'static str,
    item: Value,
) -> Response {
    let accepts = headers.get("accept").and_then(|accepts| accepts.to_str().ok());
    fake.accepted
        .lock()
        .unwrap()
        .push(accepts.unwrap_or_default().to_owned());
    if asked.contains_key("watch") {
        let (lines, response) = stream();
        fake.silent.lock().unwrap().push(lines);
        return response;
    }
    Json(json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "7"},
        "items": [{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": item, "of": kind}],
    }))
    .into_response()
}

fn uid(number: u8) -> String {
    format!("0000000{number}-1b2c-4d5e-8f90-a1b2c3d4e5f6")
}

fn owned(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// A pod of the deployment `orders`.
fn pod(number: u8, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("orders-{number}"), "namespace": "shop", "uid": uid(number), "resourceVersion": version,
            "labels": {"app": "orders", "secret": "x"},
            "ownerReferences": owned("ReplicaSet", "orders-7d9f", &uid(8)),
        },
        "spec": {"serviceAccountName": "orders", "nodeName": "n1", "containers": [{"name": "app"}]},
        "status": {
            "phase": "Running", "podIP": format!("10.244.0.{number}"), "startTime": "2026-11-20T08:00:00Z",
            "podIPs": [{"ip": format!("10.244.0.{number}")}],
        },
    })
}

fn list(version: &str, pods: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": version}, "items": pods})
}

/// What the server writes of a change.
fn line(kind: &str, object: &Value) -> Result<Bytes, std::io::Error> {
    let line = json!({"type": kind, "object": object});
    Ok(format!("{line}\n").into())
}

fn config() -> KubernetesConfig {
    KubernetesConfig {
        in_cluster: true,
        trust_domain: "example.org".to_owned(),
        pod_networks: vec!["10.244.0.0/16".parse().unwrap()],
        ..KubernetesConfig::default()
    }
}

struct Heard {
    cluster: Arc<Cluster>,
    fake: Arc<Fake>,
    watches: mpsc::Receiver<(String, Lines)>,
    metrics: Arc<Metrics>,
}

/// A collector that hears a server with these pods.
async fn hear(pods_listed: Value) -> Heard {
    hear_within(pods_listed, watch::SILENCE).await
}

/// The same, which takes a server that is silent for so long for one that is gone.
async fn hear_within(pods_listed: Value, silence: Duration) -> Heard {
    let (watches, taken) = mpsc::channel(16);
    let fake = Arc::new(Fake {
        pods: Mutex::new(pods_listed),
        lists: AtomicU64::new(0),
        watches,
        silent: Mutex::default(),
        accepted: Mutex::default(),
    });
    let replica_set = json!({
        "name": "orders-7d9f", "namespace": "shop", "uid": uid(8), "resourceVersion": "5",
        "ownerReferences": owned("Deployment", "orders", &uid(9)),
    });
    let job = json!({"name": "report-1", "namespace": "shop", "uid": uid(7), "resourceVersion": "5"});
    let router = Router::new()
        .route("/api/v1/pods", get(pods))
        .route(
            "/apis/apps/v1/replicasets",
            get(move |state: State<Arc<Fake>>, asked: Asked, headers: HeaderMap| {
                owners(state, asked, headers, "ReplicaSet", replica_set.clone())
            }),
        )
        .route(
            "/apis/batch/v1/jobs",
            get(move |state: State<Arc<Fake>>, asked: Asked, headers: HeaderMap| {
                owners(state, asked, headers, "Job", job.clone())
            }),
        )
        .with_state(Arc::clone(&fake));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    let client = watch::connected(kube::Config::new(url.parse().unwrap()), silence).unwrap();
    let metrics = Arc::new(Metrics::default());
    let cluster = Arc::new(Cluster::new(config(), Arc::clone(&metrics)));
    let hearing = Arc::clone(&cluster);
    tokio::spawn(async move { watch::hear(&hearing, client).await });
    Heard {
        cluster,
        fake,
        watches: taken,
        metrics,
    }
}

impl Heard {
    async fn watched(&mut self) -> (String, Lines) {
        let watch = tokio::time::timeout(LONGEST, self.watches.recv()).await;
        watch.expect("a watch in time").expect("the server is there")
    }

    /// Waits until this is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        let wait = async {
            while !is_so(&self.cluster) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONGEST, wait).await.expect(what);
    }

    fn name(&self, number: u8) -> Option<String> {
        let known = self.cluster.by_uid(&uid(number))?;
        known.told.pod.map(|pod| pod.name)
    }
}

const LONGEST: Duration = Duration::from_secs(20);

#[tokio::test]
async fn lists_and_changes_come_together() {
    let mut heard = hear(list("10", &[pod(1, "9")])).await;
    let (version, lines) = heard.watched().await;
    assert_eq!(version, "10");
    heard
        .until("the owners", |cluster| {
            cluster
                .by_uid(&uid(1))
                .is_some_and(|known| known.told.owners_complete)
        })
        .await;
    let told = heard.cluster.by_uid(&uid(1)).expect("a pod").told;
    let pod_told = told.pod.expect("a pod");
    assert_eq!(
        (&*pod_told.namespace, &*pod_told.service_account, &*pod_told.node),
        ("shop", "orders", "n1")
    );
    let owners: Vec<&str> = pod_told.owners.iter().map(|owner| owner.kind.as_str()).collect();
    assert_eq!(owners, ["ReplicaSet", "Deployment"]);
    let labels: Vec<&str> = pod_told.labels.iter().map(|label| label.name.as_str()).collect();
    assert_eq!(labels, ["app"], "only those that were chosen");
    let accepted = heard.fake.accepted.lock().unwrap().clone();
    assert!(
        accepted
            .iter()
            .all(|accepts| accepts.contains("PartialObjectMetadata"))
    );

    // What comes, goes, and is told of twice.
    lines.send(line("ADDED", &pod(2, "11"))).await.unwrap();
    lines.send(line("MODIFIED", &pod(2, "12"))).await.unwrap();
    lines.send(line("DELETED", &pod(1, "13"))).await.unwrap();
    heard
        .until("the end", |cluster| {
            cluster.by_uid(&uid(1)).is_some_and(|known| known.gone)
        })
        .await;
    assert_eq!(heard.name(1).as_deref(), Some("orders-1"), "it stays known");
    assert_eq!(heard.name(2).as_deref(), Some("orders-2"));
    assert_eq!(heard.name(3), None);
}

#[tokio::test]
async fn a_cut_stream_goes_on_behind_the_newest_bookmark() {
    let mut heard = hear(list("10", &[pod(1, "9")])).await;
    let (_, lines) = heard.watched().await;
    let bookmark = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "40"}});
    lines.send(line("BOOKMARK", &bookmark)).await.unwrap();
    // Nothing tells that it was heard; with the end of the stream right behind it, the server would send neither.
    tokio::time::sleep(Duration::from_millis(300)).await;
    lines.send(Err(std::io::Error::other("cut"))).await.unwrap();
    drop(lines);
    let (version, lines) = heard.watched().await;
    assert_eq!(version, "40");
    lines.send(line("ADDED", &pod(2, "41"))).await.unwrap();
    heard
        .until("the pod", |cluster| cluster.by_uid(&uid(2)).is_some())
        .await;
    assert_eq!(
        heard.fake.lists.load(Ordering::Relaxed),
        1,
        "nothing was listed anew"
    );
}

#[tokio::test]
async fn an_object_that_cannot_be_read_costs_no_other_its_name() {
    // Whoever writes an object may say that; it is later than any time that can be read.
    let never = "9999-12-31T23:59:59Z";
    let mut written = pod(1, "9");
    written["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Update", "time": never}]);
    let unreadable = |number: u8, version: &str| {
        let mut pod = pod(number, version);
        pod["status"]["startTime"] = json!(never);
        pod
    };
    let mut heard = hear(list("10", &[written, unreadable(2, "9"), pod(3, "9")])).await;
    let (_, lines) = heard.watched().await;
    lines.send(line("ADDED", &unreadable(4, "11"))).await.unwrap();
    lines.send(line("ADDED", &pod(5, "12"))).await.unwrap();
    heard
        .until("the last pod", |cluster| cluster.by_uid(&uid(5)).is_some())
        .await;
    let names = [1, 2, 3, 4].map(|number| heard.name(number));
    let names = names.each_ref().map(Option::as_deref);
    assert_eq!(names, [Some("orders-1"), None, Some("orders-3"), None]);
    assert_eq!(heard.metrics.refused_pods.get(), 2);
    assert_eq!(heard.metrics.cluster_errors.get(), 0);
    // Its end is heard all the same.
    lines.send(line("DELETED", &unreadable(5, "13"))).await.unwrap();
    heard
        .until("its end", |cluster| {
            cluster.by_uid(&uid(5)).is_some_and(|known| known.gone)
        })
        .await;
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_none() {
    let mut heard = hear_within(list("10", &[pod(1, "9")]), Duration::from_secs(1)).await;
    let (_, _lines) = heard.watched().await;
    let metrics = Arc::clone(&heard.metrics);
    heard
        .until("the list", |_| metrics.cluster_is_whole.get() == 1)
        .await;
    // The connection stands, and nothing comes.
    heard
        .until("the silence", |_| metrics.cluster_is_whole.get() == 0)
        .await;
    let address = "10.244.0.1".parse().unwrap();
    assert_eq!(heard.cluster.by_address(address, log::unix_ns()), Had::NotKnown);
    assert_eq!(
        heard.name(1).as_deref(),
        Some("orders-1"),
        "uids stay what they are"
    );
}

#[test]
fn silence_is_noticed_before_what_was_said_meanwhile_could_count() {
    let (watch, silence) = (u64::from(watch::WATCH_S), watch::SILENCE.as_secs());
    // The server says something at the end of a watch at the latest; `kube` gives it up five seconds later, and tells nobody.
    assert!((watch + 1..watch + 5).contains(&silence));
    assert!((watch::CONNECT + watch::SILENCE).as_nanos() < u128::from(cluster::LATE_NS));
}

#[tokio::test]
async fn a_version_that_is_too_old_leads_to_a_new_list() {
    let mut heard = hear(list("10", &[pod(1, "9"), pod(2, "9")])).await;
    let (_, lines) = heard.watched().await;
    heard
        .until("the list", |cluster| cluster.by_uid(&uid(2)).is_some())
        .await;
    // Meanwhile one has gone, and another has its name.
    let mut successor = pod(3, "50");
    successor["metadata"]["name"] = json!("orders-1");
    *heard.fake.pods.lock().unwrap() = list("60", &[pod(2, "9"), successor]);
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version", "metadata": {}});
    lines.send(line("ERROR", &gone)).await.unwrap();
    let (version, _lines) = heard.watched().await;
    assert_eq!(version, "60");
    heard
        .until("the end", |cluster| {
            cluster.by_uid(&uid(1)).is_some_and(|known| known.gone)
        })
        .await;
    let uids = [1, 3].map(|number| {
        heard
            .cluster
            .by_uid(&uid(number))
            .expect("a pod")
            .told
            .pod
            .unwrap()
    });
    assert_eq!(uids.each_ref().map(|pod| pod.name.as_str()), ["orders-1"; 2]);
    assert_ne!(uids[0].uid, uids[1].uid);
    assert!(heard.metrics.cluster_errors.get() >= 1);
    assert!(
        heard.metrics.cluster_lists.get() >= 4,
        "of three kinds, and once more"
    );
}

#[test]
fn what_a_kubelet_runs_by_itself_has_the_kubelets_uid() {
    let mut mirror = pod(1, "1");
    mirror["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "c5d9f7f01b2c4d5e8f90a1b2c3d4e5f6",
        "kubernetes.io/config.hash": "c5d9f7f01b2c4d5e8f90a1b2c3d4e5f6",
    });
    let read = |pod: &Value| sighting::sighting(&serde_json::from_value(pod.clone()).unwrap(), &config());
    let seen = read(&mirror).expect("a pod");
    assert_eq!(seen.uid.to_string(), "c5d9f7f01b2c4d5e8f90a1b2c3d4e5f6");
    assert_eq!(seen.service_account, "");
    // Nobody gets another pod's uid by an annotation.
    mirror["metadata"]["annotations"]["kubernetes.io/config.hash"] = json!(uid(2));
    assert_eq!(read(&mirror), None);
}

#[test]
fn a_pod_that_has_ended_has_its_address_no_more() {
    let mut job = pod(1, "1");
    job["status"]["phase"] = json!("Succeeded");
    job["status"]["containerStatuses"] = json!([
        {"name": "app", "image": "x", "imageID": "x", "ready": false, "restartCount": 0,
         "state": {"terminated": {"exitCode": 0, "startedAt": "2026-11-20T08:00:09Z", "finishedAt": "2026-11-20T08:00:40Z"}}},
    ]);
    job["status"]["initContainerStatuses"] = json!([
        {"name": "wait", "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
         "state": {"terminated": {"exitCode": 0, "startedAt": "2026-11-20T08:00:05Z", "finishedAt": "2026-11-20T08:00:08Z"}}},
        {"name": "later", "image": "x", "imageID": "x", "ready": true, "restartCount": 0, "state": {"waiting": {}}},
    ]);
    let read = sighting::sighting(&serde_json::from_value(job).unwrap(), &config()).expect("a pod");
    let (started, ended) = (read.started.expect("a start"), read.ended.expect("an end"));
    assert_eq!(ended - started, 40 * SECOND);
    assert_eq!(
        read.running,
        Some(started + 5 * SECOND),
        "the first container's beginning"
    );
    let cluster = Cluster::new(config(), Arc::default());
    let address = "10.244.0.1".parse().unwrap();
    cluster.hear_at(started + 100 * SECOND, |directory, now| {
        directory.begin();
        directory.see(&read, true, now);
        directory.finish(now);
    });
    assert!(matches!(
        cluster.by_address(address, started + 20 * SECOND),
        Had::By(_)
    ));
    assert_eq!(cluster.by_address(address, started + 60 * SECOND), Had::Nobody);
    assert_eq!(
        cluster.by_address(address, started + 4 * SECOND),
        Had::Nobody,
        "it may have been another's as yet"
    );
    let elsewhere = "10.9.0.1".parse().unwrap();
    assert_eq!(cluster.by_address(elsewhere, started + 20 * SECOND), Had::Nobody);
}
