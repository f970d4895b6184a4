//! Handlers, called as the server calls them.

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use futures::StreamExt;
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use proto::v1;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::{
    rebuild::tests::logged,
    store::{StoreOptions, tests::Shelf},
};
use record::Records;

mod access;
mod evidence;

async fn app() -> (Router, Arc<Store>, watch::Sender<log::Status>) {
    app_for(Access::everybody(), Arc::default()).await
}

async fn app_for(access: Access, metrics: Arc<Metrics>) -> (Router, Arc<Store>, watch::Sender<log::Status>) {
    app_over(tempfile::tempdir().unwrap(), access, metrics).await
}

/// With a log of events 1 to 18 of `db1` in the folder, which is there as long as the app is.
async fn app_over(
    data: TempDir,
    access: Access,
    metrics: Arc<Metrics>,
) -> (Router, Arc<Store>, watch::Sender<log::Status>) {
    logged(data.path(), 9).await;
    let store = Store::over(Arc::new(InMemory::new()), StoreOptions::default())
        .await
        .unwrap();
    let agent = log::AgentStatus {
        agent_id: "db1".into(),
        last_sequence: 7,
        ..Default::default()
    };
    let status = log::Status {
        tree_size: 7,
        batches: 7,
        agents: vec![agent],
        ..Default::default()
    };
    let (sender, status) = watch::channel(status);
    let app = App {
        store: store.clone(),
        metrics,
        evidence: data.path().join("evidence"),
        status,
        accesses: None,
        access: Arc::new(access),
        names: Names::of(&["audit.example".to_owned()], None),
        questions: Turns::at_questions(),
    };
    (router(app).layer(Extension(Arc::new(data))), store, sender)
}

async fn append(store: &Store, log_index: u64, text: &str) {
    store
        .append(log_index, Records::of("db1", 1, vec![event(log_index, text)]))
        .await;
}

fn event(log_index: u64, text: &str) -> v1::Event {
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let query = v1::Query {
        statement: Some(v1::Statement {
            text: text.into(),
            text_known: true,
            ..Default::default()
        }),
        meaning: Some(v1::Meaning {
            class: v1::Class::Read.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let attribution = v1::Attribution {
        principal: "spiffe://td/host/h/unit/shop.service".into(),
        confidence: v1::Confidence::Observed.into(),
        ..Default::default()
    };
    v1::Event {
        seq: log_index + 1,
        ts_start_ns: now,
        attribution: Some(attribution),
        body: Some(v1::event::Body::Query(query)),
        ..Default::default()
    }
}

fn request(uri: &str) -> axum::http::request::Builder {
    Request::builder().uri(uri).header(header::HOST, "127.0.0.1:7480")
}

async fn get(router: &Router, uri: &str) -> Response {
    router
        .clone()
        .oneshot(request(uri).body(Body::empty()).unwrap())
        .await
        .unwrap()
}

async fn get_json(router: &Router, uri: &str) -> Value {
    let response = get(router, uri).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    body(response).await
}

async fn ask(router: &Router, sql: &str) -> (StatusCode, Value) {
    let request = request("/api/v1/query")
        .method("POST")
        .header(header::CONTENT_TYPE, "application/json");
    let request = request
        .body(Body::from(json!({ "sql": sql }).to_string()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    (response.status(), body(response).await)
}

async fn body(response: Response) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("not JSON: {bytes:?}"))
}

#[tokio::test]
async fn foreign_hosts_are_refused_and_every_answer_is_guarded() {
    let (router, ..) = app().await;
    for host in [Some("evil.example"), Some("10.0.0.9:7480"), None] {
        let mut request = Request::builder().uri("/api/v1/overview");
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let response = router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST, "{host:?}");
    }
    let named = Request::builder()
        .uri("/api/v1/status")
        .header(header::HOST, "audit.example");
    let response = router.clone().oneshot(named.body(Body::empty()).unwrap()).await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    for uri in [
        "/",
        "/app.js",
        "/style.css",
        "/icon.svg",
        "/api/v1/status",
        "/absent",
    ] {
        let response = get(&router, uri).await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{uri}"
        );
        assert!(!policy.contains("unsafe"), "{uri}");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}

#[tokio::test]
async fn the_page_has_nothing_that_its_policy_forbids() {
    let html = include_str!("page/index.html");
    for forbidden in [
        "<script>", " style=", " onclick", " onload", "http://", "https://",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    // The library that it is made with can do more than it is asked to; browsers that know trusted types let nobody.
    let (router, _store, _status) = app().await;
    let response = get(&router, "/").await;
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(
        policy.contains("require-trusted-types-for 'script'; trusted-types 'none'"),
        "{policy}"
    );
    for (name, source) in page::sources() {
        let source = String::from_utf8_lossy(&source);
        for forbidden in [
            "nnerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(
                !name.starts_with("src/") || !source.contains(forbidden),
                "hostile SQL must only ever become text: {forbidden} in {name}"
            );
        }
    }
}

#[tokio::test]
async fn answers_to_the_page() {
    let (router, store, _status) = app().await;
    let hostile = "SELECT '</script><img src=x onerror=alert(1)>' \u{0}\u{1b}[2J\r\n\"\\";
    let shelf = Arc::new(Shelf::default());
    for (n, text) in (0..).zip(["SELECT 1", hostile]) {
        let batch = Records::of("db1", 1, vec![event(n, text)]);
        shelf.put(n, &batch);
        store.append(n, batch).await;
    }
    store.show_events_of(shelf);
    let overview = get_json(&router, "/api/v1/overview").await;
    assert_eq!(overview["statements"], 2);
    assert!(
        overview["begins"].is_string(),
        "when the record begins: {overview}"
    );
    assert_eq!(overview["attributed"], 2);
    assert_eq!(overview["evidence"]["tree_size"], 7);
    assert_eq!(overview["store"]["tail_rows"], 2);
    let events = get_json(
        &router,
        "/api/v1/events?limit=1&class=read&principal=shop&since=1h",
    )
    .await;
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
    assert_eq!(events["events"][0]["statement"]["text"], hostile);
    let principals = get_json(&router, "/api/v1/principals?since=1h").await;
    assert_eq!(principals["principals"][0]["statements"], 2);
    let status = get_json(&router, "/api/v1/status").await;
    assert_eq!(status["agents"][0]["agent"], "db1");
    assert_eq!(status["agents"][0]["counters"]["ring_full"], 0);
    assert_eq!(
        get(&router, "/api/v1/events?since=yesterday").await.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(get(&router, "/healthz").await.status(), StatusCode::OK);
    let metrics = get(&router, "/metrics")
        .await
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes();
    assert!(metrics.ends_with(b"# EOF\n"));
}

#[tokio::test]
async fn sql_is_answered_read_only() {
    let (router, store, _status) = app().await;
    append(&store, 0, "SELECT 1").await;
    let (status, page) = ask(&router, "SELECT statement, seq FROM queries").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        page,
        json!({"columns": ["statement", "seq"], "rows": [["SELECT 1", 1]], "truncated": false})
    );
    let (status, error) = ask(&router, "DROP TABLE events").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error["error"].as_str().unwrap().contains("DDL not supported"),
        "{error}"
    );
    // A page elsewhere can send this without asking first; it is no JSON, so it is not read.
    let form = request("/api/v1/query")
        .method("POST")
        .header(header::CONTENT_TYPE, "text/plain");
    let response = router
        .clone()
        .oneshot(form.body(Body::from(r#"{"sql":"SELECT 1"}"#)).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let long = request("/api/v1/query")
        .method("POST")
        .header(header::CONTENT_TYPE, "application/json");
    let long = long.body(Body::from(" ".repeat(MAX_BODY_BYTES + 1))).unwrap();
    assert_eq!(
        router.oneshot(long).await.unwrap().status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn live_events_are_filtered_and_hostile_text_stays_one_message() {
    let (router, store, _status) = app().await;
    let response = get(&router, "/api/v1/live?kind=query&principal=shop").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let none = get(&router, "/api/v1/live?kind=gap").await;
    let hostile = "SELECT 1\n\nevent: forged\ndata: {}\r\n\u{2028}";
    append(&store, 0, hostile).await;
    let mut text = String::new();
    let mut stream = response.into_body().into_data_stream();
    while text.matches("\n\n").count() < 2 {
        let bytes = tokio::time::timeout(Duration::from_secs(10), stream.next())
            .await
            .unwrap();
        text.push_str(std::str::from_utf8(&bytes.unwrap().unwrap()).unwrap());
    }
    let data: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    assert_eq!(data.len(), 1, "{text}");
    let event: Value = serde_json::from_str(data[0]).unwrap();
    assert_eq!(event["statement"]["text"], hostile);
    let mut none = none.into_body().into_data_stream();
    assert_eq!(none.next().await.unwrap().unwrap(), ": watching\n\n");
    let nothing = tokio::time::timeout(Duration::from_millis(200), none.next()).await;
    assert!(nothing.is_err(), "a filter let something through: {nothing:?}");
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_missed() {
    let (router, store, _status) = app().await;
    let response = get(&router, "/api/v1/live").await;
    for n in 0..crate::live::BACKLOG as u64 + 5 {
        append(&store, n, "SELECT 1").await;
    }
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("lagged") {
        let bytes = tokio::time::timeout(Duration::from_secs(10), stream.next())
            .await
            .unwrap();
        text.push_str(std::str::from_utf8(&bytes.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("event: lagged\ndata: {\"missed\":5}\n\n"), "{text}");
}

#[tokio::test]
async fn there_is_a_limit_to_live_views() {
    let (router, ..) = app().await;
    let mut open = Vec::new();
    for _ in 0..WATCHERS_OF_EACH {
        open.push(get(&router, "/api/v1/live").await);
    }
    let refused = get(&router, "/api/v1/live").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
    let error = body(refused).await["error"].to_string();
    assert!(
        error.contains("32 live views of yours") && error.contains("wait until one is over"),
        "{error}"
    );
    open.pop();
    assert_eq!(get(&router, "/api/v1/live").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn questions_and_exports_have_places_of_their_own() {
    let (router, store, _status) = app().await;
    append(&store, 0, "SELECT 1").await;
    let post = async |path: &str, question: Value| {
        let request = request(path)
            .method("POST")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(question.to_string()))
            .unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let since = json!({ "since_ns": 0 });
    for (path, question, rows) in [
        ("/api/v1/what", json!({}), 1),
        (
            "/api/v1/what",
            json!({"principal": "*/shop.service", "since_ns": 0}),
            1,
        ),
        ("/api/v1/timeline", json!({"principal": "*"}), 1),
        ("/api/v1/new-edges", since.clone(), 0),
        ("/api/v1/unattributed", since.clone(), 0),
    ] {
        let response = post(path, question).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(
            body(response).await["rows"].as_array().unwrap().len(),
            rows,
            "{path}"
        );
    }
    assert_eq!(
        post("/api/v1/timeline", json!({})).await.status(),
        StatusCode::BAD_REQUEST
    );
    let report = body(post("/api/v1/report", json!({"report": "coverage"})).await).await;
    assert_eq!(report["title"], "Coverage");

    let export = json!({"format": "csv", "where": "class = 'READ'"});
    let response = post("/api/v1/export", export.clone()).await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/csv; charset=utf-8"
    );
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(std::str::from_utf8(&bytes).unwrap().lines().count(), 2);
    let wrong = post("/api/v1/export", json!({"format": "csv", "where": "class ="})).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    // A third one at once is refused, and let in when one is over.
    let held = (
        post("/api/v1/export", export.clone()).await,
        post("/api/v1/export", export.clone()).await,
    );
    assert_eq!(
        post("/api/v1/export", export.clone()).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    drop(held);
    assert_eq!(post("/api/v1/export", export).await.status(), StatusCode::OK);
}

/// What is described is there, and answers what the description says. That every place is described, `access` shows.
#[tokio::test]
async fn the_description_is_of_this_api() {
    let (router, store, _status) = app().await;
    append(&store, 0, "SELECT 1").await;
    let description: Value = serde_json::from_str(api::DESCRIPTION).unwrap();
    let paths = description["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let body = &operation["requestBody"]["content"]["application/json"]["example"];
            let asked = request(&(path.clone() + &named(operation)))
                .method(method.to_uppercase().as_str())
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string()))
                .unwrap();
            let response = router.clone().oneshot(asked).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
            let of = response.headers()[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .to_owned();
            let content = operation["responses"]["200"]["content"].as_object().unwrap();
            let Some((_, said)) = content.iter().find(|(said, _)| **said == of) else {
                panic!("{path} answers {of}");
            };
            if of != "application/json" {
                continue;
            }
            let answer = self::body(response).await;
            let mut schema = &said["schema"];
            if let Some(name) = schema["$ref"].as_str() {
                schema = description.pointer(name.strip_prefix('#').unwrap()).unwrap();
                let fields = answer.as_object().unwrap().keys();
                let said = schema["properties"].as_object().unwrap().keys();
                assert_eq!(fields.collect::<Vec<_>>(), said.collect::<Vec<_>>(), "{path}");
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    answer.get(name.as_str().unwrap()).is_some(),
                    "{name} of {path}: {answer}"
                );
            }
        }
    }
}

/// The parameters that an operation must have, as its description shows them.
fn named(operation: &Value) -> String {
    let all = operation["parameters"].as_array().into_iter().flatten();
    let needed = all.filter(|one| one["required"] == true);
    let said = needed.map(|one| {
        let (name, example) = (one["name"].as_str().unwrap(), one["example"].as_str().unwrap());
        format!("?{name}={example}")
    });
    said.collect()
}

/// What cannot be read is told as every other error is.
#[tokio::test]
async fn what_is_no_request_is_told_as_json() {
    let (router, ..) = app().await;
    let json_body = Some("application/json");
    let long = format!("{{\"sql\": \"{}\"}}", "x".repeat(MAX_BODY_BYTES));
    for (method, path, kind, said, expected) in [
        ("POST", "/api/v1/query", json_body, "{", StatusCode::BAD_REQUEST),
        (
            "POST",
            "/api/v1/query",
            json_body,
            "\u{4}",
            StatusCode::BAD_REQUEST,
        ),
        (
            "POST",
            "/api/v1/query",
            json_body,
            "{\"sql\": 1}",
            StatusCode::BAD_REQUEST,
        ),
        ("POST", "/api/v1/who", json_body, "[]", StatusCode::BAD_REQUEST),
        (
            "POST",
            "/api/v1/export",
            json_body,
            "null",
            StatusCode::BAD_REQUEST,
        ),
        (
            "POST",
            "/api/v1/query",
            None,
            "{\"sql\": \"SELECT 1\"}",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            "POST",
            "/api/v1/query",
            json_body,
            &long,
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (
            "GET",
            "/api/v1/events?limit=many",
            None,
            "",
            StatusCode::BAD_REQUEST,
        ),
        (
            "GET",
            "/api/v1/live?limit=1&limit=2&kind=%",
            None,
            "",
            StatusCode::OK,
        ),
    ] {
        let mut request = request(path).method(method);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(Body::from(said.to_owned())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{path} {said:.20}");
        if expected != StatusCode::OK {
            let told = body(response).await;
            assert!(
                told["error"].as_str().is_some_and(|why| !why.is_empty()),
                "{told}"
            );
        }
    }
}
