//! Two hosts' agents, a real collector between them: what each saw becomes one name, through gRPC, restarts and SQL.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::Chain;
use lease::{Kind, Passed, Piece, Source, Traffic};
use pgwitness_collector::log::{Log, LogOptions, Originator};
use prost::Message;
use proto::v1::{self, Event, Hello, Upload, delivery_client::DeliveryClient, event::Body, receipt, upload};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwitness-collector"));
    command.env_remove("RUST_LOG");
    command
}

/// A collector that serves; killed when it is dropped.
struct Collector {
    child: Child,
    grpc: String,
    http: String,
    data: PathBuf,
}

impl Collector {
    fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    fn start_with(data: &Path, settings: &[(&str, &str)]) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let (grpc, http) = (free(), free());
        let mut child = program()
            .arg("serve")
            .args(["--grpc", &grpc, "--http", &http, "--data"])
            .arg(data)
            .env("PGWITNESS_COLLECTOR__LOG__NAME", "test")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains("is serving")),
            "it ended before it served"
        );
        // Whoever writes must not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            grpc,
            http,
            data: data.to_owned(),
        }
    }

    fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.data.clone()
    }

    fn ask(&self, sql: &str) -> Vec<Value> {
        answer(&["--url", &format!("http://{}", self.http)], sql)
    }

    /// The only answer, as soon as it is another one than none.
    async fn wait_for(&self, sql: &str) -> (Duration, Value) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if let [row] = self.ask(sql).as_slice() {
                return (started.elapsed(), row.clone());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no answer to {sql}");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn answer(from: &[&str], sql: &str) -> Vec<Value> {
    let output = program()
        .args(["query", sql, "--format", "json"])
        .args(from)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// An agent without a kernel.
struct Agent {
    chain: Chain,
    key: SigningKey,
    seq: u64,
}

impl Agent {
    fn new(id: &str, key: u8) -> Self {
        Self {
            chain: Chain::new(id),
            key: SigningKey::from_bytes(&[key; 32]),
            seq: 0,
        }
    }

    /// Delivers events in one batch and waits for the acknowledgement.
    async fn deliver(&mut self, collector: &Collector, events: Vec<Event>) -> Result<(), tonic::Status> {
        let (uploads, stream) = tokio::sync::mpsc::channel(4);
        // Whoever is turned away learns it from the receipts.
        let send = async |kind| _ = uploads.send(Upload { kind: Some(kind) }).await;
        send(upload::Kind::Hello(Hello {
            agent_id: self.chain.agent_id.clone(),
            public_key: self.key.verifying_key().to_bytes().to_vec(),
            version: "test".to_owned(),
            ..Default::default()
        }))
        .await;
        let channel = Channel::from_shared(format!("http://{}", collector.grpc)).unwrap();
        let mut client = DeliveryClient::new(channel.connect().await.unwrap());
        let mut receipts = client.deliver(ReceiverStream::new(stream)).await?.into_inner();
        let first = self.seq + 1;
        let encoded = (first..).zip(events).map(|(seq, event)| {
            self.seq = seq;
            Bytes::from(Event { seq, ..event }.encode_to_vec())
        });
        let encoded = encoded.collect::<Vec<_>>();
        let batch = evidence::seal(
            &mut self.chain,
            &self.key,
            encoded,
            first,
            1,
            2,
            None,
            [first as u8; 32],
        );
        send(upload::Kind::Batch(batch)).await;
        loop {
            match receipts.message().await?.expect("an acknowledgement").kind {
                Some(receipt::Kind::Ack(_)) => return Ok(()),
                Some(receipt::Kind::Resume(_)) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

fn endpoint(addr: &str, port: u32) -> Option<v1::Endpoint> {
    Some(v1::Endpoint {
        addr: addr.to_owned(),
        port,
    })
}

const AT: u64 = 1_795_225_200_000_000_000;

/// A statement of session `b-<n>`, whose client is known by its address.
fn statement(n: u64, fingerprint: u64) -> Event {
    Event {
        ts_start_ns: AT + n,
        session: Some(v1::Session {
            id: format!("b-{n}"),
            login_role: "app".to_owned(),
            transport: v1::Transport::Tcp.into(),
            client: endpoint("10.0.0.1", 60_000),
            server: endpoint("10.0.0.9", 5432),
            fingerprint: Some(fingerprint),
            ..Default::default()
        }),
        attribution: Some(v1::Attribution {
            principal: "spiffe://td/addr/10.0.0.1".to_owned(),
            kind: v1::PrincipalKind::Remote.into(),
            confidence: v1::Confidence::Inferred.into(),
            method: "address".to_owned(),
            evidence: vec!["the socket's peer is 10.0.0.1".to_owned()],
            ..Default::default()
        }),
        body: Some(Body::Query(v1::Query {
            result: Some(v1::Result {
                rows: Some(n),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn flow(n: u64, fingerprint: u64) -> Event {
    Event {
        ts_start_ns: AT,
        attribution: Some(v1::Attribution {
            principal: format!("spiffe://td/host/web/unit/s{n}.service"),
            kind: v1::PrincipalKind::Unit.into(),
            confidence: v1::Confidence::Observed.into(),
            method: "tcp-owner".to_owned(),
            evidence: vec![format!("process {n} called connect()")],
            process: Some(v1::Process {
                pid: n as u32,
                exe: "/usr/bin/shop".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        body: Some(Body::FlowOwner(v1::FlowOwner {
            client: endpoint("192.168.1.7", 40_000),
            server: endpoint("10.96.0.1", 5432),
            fingerprint: Some(fingerprint),
            network_namespace: 4_026_531_840,
        })),
        ..Default::default()
    }
}

fn named(n: u64) -> String {
    format!(
        "SELECT principal, confidence, pid, amended_by, event FROM queries WHERE session_id = 'b-{n}' AND amended_by IS NOT NULL"
    )
}

fn verified(data: &Path) -> Value {
    let output = program()
        .args(["verify", "--json", "--data"])
        .arg(data)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn two_agents_make_one_name_whatever_happens_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path());
    let (mut db, mut web) = (Agent::new("db", 1), Agent::new("web", 2));
    // The server's side first, then the client's.
    db.deliver(&collector, vec![statement(1, 101)]).await.unwrap();
    assert_eq!(collector.ask(&named(1)).len(), 0);
    web.deliver(&collector, vec![flow(1, 101)]).await.unwrap();
    let (took, row) = collector.wait_for(&named(1)).await;
    println!("searchable {took:?} after the later side's acknowledgement");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(row["principal"], "spiffe://td/host/web/unit/s1.service");
    assert_eq!((&row["confidence"], &row["pid"]), (&json!("joined"), &json!(1)));
    // Questions are told in the same chain, so that its number is not the first.
    let by = row["amended_by"].as_str().unwrap();
    assert!(by.starts_with("collector-test-"), "{by}");
    let event: Value = serde_json::from_str(row["event"].as_str().unwrap()).unwrap();
    assert_eq!(
        event["attribution"]["recorded"]["principal"],
        "spiffe://td/addr/10.0.0.1"
    );
    // The other way round, with a kill in between; and one that the collector is killed over.
    web.deliver(&collector, vec![flow(2, 102)]).await.unwrap();
    db.deliver(&collector, vec![statement(3, 103)]).await.unwrap();
    let data = collector.kill();
    let collector = Collector::start(&data);
    web.deliver(&collector, vec![flow(3, 103)]).await.unwrap();
    let data = collector.kill();
    let collector = Collector::start(&data);
    db.deliver(&collector, vec![statement(2, 102), statement(4, 104)])
        .await
        .unwrap();
    for n in [2, 3] {
        let (_, row) = collector.wait_for(&named(n)).await;
        assert_eq!(
            row["principal"],
            format!("spiffe://td/host/web/unit/s{n}.service")
        );
    }
    // An agent that makes amendments itself is recorded, and not believed; and nobody else has the collector's name.
    let forged = Event {
        attribution: flow(9, 0).attribution,
        body: Some(Body::Amendment(v1::Amendment {
            agent_id: "db".to_owned(),
            session: "b-4".to_owned(),
            inputs: vec!["db-3".to_owned(), "web-1".to_owned()],
            join_version: 1,
            r#match: "fingerprint".to_owned(),
            events: Vec::new(),
        })),
        ..Default::default()
    };
    Agent::new("evil", 9)
        .deliver(&collector, vec![forged])
        .await
        .unwrap();
    let refused = Agent::new("collector-test", 9).deliver(&collector, vec![]).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let four = collector.ask("SELECT principal, amended_by FROM queries WHERE session_id = 'b-4'");
    assert_eq!(
        four,
        [json!({"principal": "spiffe://td/addr/10.0.0.1", "amended_by": null})]
    );
    // Each session once, and the same again from the folder alone.
    let amendments = "SELECT amends_session AS s FROM events WHERE kind = 'attribution' AND agent = 'collector-test' ORDER BY 1";
    let each_once = [json!({"s": "b-1"}), json!({"s": "b-2"}), json!({"s": "b-3"})];
    assert_eq!(collector.ask(amendments), each_once);
    let explained = explain(&["--url", &format!("http://{}", collector.http)]);
    let data = collector.kill();
    let offline = ["--data", data.to_str().unwrap()];
    assert_eq!(answer(&offline, amendments), each_once);
    assert_eq!(answer(&offline, &named(1)).len(), 1);
    assert_eq!(explain(&offline), explained);
    let report = verified(&data);
    assert!(report["ok"] == true && report["amendments"] == 3, "{report}");
}

#[tokio::test]
async fn a_storm_is_joined_whole_with_few_batches() {
    const BATCHES: u64 = 10;
    const EACH: u64 = 2000;
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path());
    let (mut db, mut web) = (Agent::new("db", 1), Agent::new("web", 2));
    let started = Instant::now();
    for n in 0..BATCHES {
        let numbers = || n * EACH + 1..=(n + 1) * EACH;
        web.deliver(&collector, numbers().map(|n| flow(n, n)).collect())
            .await
            .unwrap();
        db.deliver(&collector, numbers().map(|n| statement(n, n)).collect())
            .await
            .unwrap();
    }
    let delivered = started.elapsed();
    let all = BATCHES * EACH;
    let done =
        format!("SELECT count(*) AS n FROM queries WHERE confidence = 'joined' HAVING count(*) = {all}");
    let (took, _) = collector.wait_for(&done).await;
    println!("{all} sessions: delivered in {delivered:?}, all named {took:?} later");
    let wrong = "SELECT count(*) AS n FROM queries WHERE principal <> 'spiffe://td/host/web/unit/s' || rows || '.service'";
    assert_eq!(collector.ask(wrong), [json!({"n": 0})]);
    let batches = "SELECT count(*) AS events, count(DISTINCT log_index) AS batches FROM events WHERE kind = 'attribution'";
    let counted = &collector.ask(batches)[0];
    assert_eq!(counted["events"], all);
    assert!(counted["batches"].as_u64().unwrap() <= 200, "{counted}");
    let report = verified(&collector.kill());
    assert!(report["ok"] == true && report["amendments"] == all, "{report}");
}

#[tokio::test]
async fn an_amendment_that_does_not_follow_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path());
    let (mut db, mut web) = (Agent::new("db", 1), Agent::new("web", 2));
    db.deliver(&collector, vec![statement(1, 101), statement(2, 102)])
        .await
        .unwrap();
    web.deliver(&collector, vec![flow(1, 101)]).await.unwrap();
    collector.wait_for(&named(1)).await;
    let data = collector.kill();
    let amendment = |attribution: Option<v1::Attribution>, how: &str| Event {
        attribution,
        body: Some(Body::Amendment(v1::Amendment {
            agent_id: "db".to_owned(),
            session: "b-2".to_owned(),
            inputs: vec!["db-2".to_owned(), "web-1".to_owned()],
            join_version: 1,
            r#match: how.to_owned(),
            events: Vec::new(),
        })),
        ..Event::default()
    };
    say(&data, vec![amendment(flow(1, 101).attribution, "translated")]).await;
    let report = verified(&data);
    let what = report["wrong"]["what"].as_str().unwrap();
    assert!(
        what.contains("amendment collector-test-")
            && what.contains("does not follow from its inputs")
            && what.contains("the connection of event web-1 is another one"),
        "{report}"
    );
}

/// A pooler's end of a connection, of which each statement is answered before the next: the clients that sent them.
fn traffic(fingerprint: u64, from: u64, clients: &[Option<u64>]) -> Event {
    let mut traffic = Traffic::new(true);
    traffic.jump(from * REQUEST, false);
    for (n, client) in (from..).zip(clients) {
        let range = n * REQUEST..(n + 1) * REQUEST;
        traffic.wrote(Piece {
            range: range.clone(),
            source: client.map_or(Source::Own, |client| Source::Client {
                client,
                offset: range.start,
            }),
            turn: *client,
            sole: None,
            logs_in: false,
        });
        traffic.read(n * ANSWER, ANSWER);
        if client.is_some() {
            traffic.passed(Passed {
                range: n * ANSWER..(n + 1) * ANSWER,
                client: *client,
                by_memory: true,
            });
        }
        traffic.settle();
    }
    let mut portion = traffic.drain(|_| false);
    portion.is_first = from == 0;
    portion.passed_from = from * ANSWER;
    let mut pooler = flow(0, 0).attribution.unwrap();
    pooler.principal = "spiffe://td/host/pool/unit/pgbouncer.service".to_owned();
    Event {
        ts_start_ns: AT,
        attribution: Some(pooler),
        body: Some(Body::PoolerTraffic(v1::PoolerTraffic {
            fingerprint: Some(fingerprint),
            connection: format!("p-s{fingerprint}"),
            ..attribution::pooler_traffic(Kind::PgBouncer, &portion, |client| format!("p-{client}"))
        })),
        ..Default::default()
    }
}

const REQUEST: u64 = 15;
const ANSWER: u64 = 66;

fn client(n: u64) -> Event {
    Event {
        session: Some(v1::Session {
            id: format!("p-{n}"),
            ..Default::default()
        }),
        body: Some(Body::PoolerClient(v1::PoolerClient::default())),
        ..flow(n, 0)
    }
}

/// The `n`th statement over the pooler's connection.
fn pooled(n: u64, fingerprint: u64) -> Event {
    let mut event = statement(n, fingerprint);
    if let Some(session) = &mut event.session {
        session.id = format!("b-{fingerprint}");
    }
    if let Some(Body::Query(query)) = &mut event.body {
        query.protocol = v1::Protocol::Simple.into();
        // What some client of the pooler has set in the server's connection.
        query.asserted = Some(v1::Asserted {
            claims: vec![v1::Claim {
                says: proto::json::END_USER.to_owned(),
                value: "billing".to_owned(),
                source: "set app.end_user".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        });
        query.stream = Some(v1::StreamRange {
            request_from: n * REQUEST,
            request_to: (n + 1) * REQUEST,
            response_to: (n + 1) * ANSWER,
            ..Default::default()
        });
    }
    event
}

#[tokio::test]
async fn statements_through_a_pooler_on_another_host_are_their_clients() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path());
    let (mut db, mut pool) = (Agent::new("db", 1), Agent::new("pool", 2));
    let whose = [None, Some(1), Some(2), Some(1)];
    let clients = |from: usize| whose[from..from + 2].to_vec();
    // Statements first, then what the pooler did; the collector is killed in between, and once they have met.
    db.deliver(&collector, vec![pooled(0, 77), pooled(1, 77)])
        .await
        .unwrap();
    let data = collector.kill();
    let collector = Collector::start(&data);
    pool.deliver(
        &collector,
        vec![client(1), client(2), traffic(77, 0, &clients(0))],
    )
    .await
    .unwrap();
    let named = |n: usize| {
        format!(
            "SELECT principal, method, confidence, pooler, client_session, end_user, event FROM queries WHERE rows = {n} AND amended_by IS NOT NULL"
        )
    };
    let (took, row) = collector.wait_for(&named(1)).await;
    println!("searchable {took:?} after the later side's acknowledgement");
    let bouncer = "spiffe://td/host/pool/unit/pgbouncer.service";
    assert_eq!(row["principal"], "spiffe://td/host/web/unit/s1.service");
    assert_eq!(
        (&row["method"], &row["confidence"]),
        (&json!("lease"), &json!("joined"))
    );
    assert_eq!(
        (&row["pooler"], &row["client_session"]),
        (&json!(bouncer), &json!("p-1"))
    );
    let event: Value = serde_json::from_str(row["event"].as_str().unwrap()).unwrap();
    assert_eq!(event["attribution"]["hops"][0]["session"], "p-1");
    assert_eq!(row["end_user"], Value::Null, "perhaps another client's word");
    assert_eq!(
        event["attribution"]["asserted"],
        json!({"unknown": "foreign", "foreign": ["end_user"]})
    );
    assert_eq!(
        event["attribution"]["recorded"]["principal"],
        "spiffe://td/addr/10.0.0.1"
    );
    // What the pooler did first; the collector is killed over it.
    pool.deliver(&collector, vec![traffic(77, 2, &clients(2))])
        .await
        .unwrap();
    let data = collector.kill();
    let collector = Collector::start(&data);
    db.deliver(&collector, vec![pooled(2, 77), pooled(3, 77)])
        .await
        .unwrap();
    collector.wait_for(&named(3)).await;
    let all = "SELECT rows AS n, principal, method FROM queries ORDER BY rows";
    let unit = |n: u64| format!("spiffe://td/host/web/unit/s{n}.service");
    let expected = [
        json!({"n": 0, "principal": bouncer, "method": "pooler"}),
        json!({"n": 1, "principal": unit(1), "method": "lease"}),
        json!({"n": 2, "principal": unit(2), "method": "lease"}),
        json!({"n": 3, "principal": unit(1), "method": "lease"}),
    ];
    assert_eq!(collector.ask(all), expected);
    let each_once =
        "SELECT count(*) AS n FROM events WHERE kind = 'attribution' AND agent = 'collector-test'";
    assert_eq!(collector.ask(each_once), [json!({"n": 4})]);
    // The same from the folder, and it can be decided again.
    let data = collector.kill();
    assert_eq!(answer(&["--data", data.to_str().unwrap()], all), expected);
    let report = verified(&data);
    assert!(
        report["ok"] == true && report["amended_statements"] == 4,
        "{report}"
    );
}

#[tokio::test]
async fn a_statement_that_is_given_to_another_client_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path());
    let (mut db, mut pool) = (Agent::new("db", 1), Agent::new("pool", 2));
    db.deliver(&collector, vec![pooled(0, 77)]).await.unwrap();
    pool.deliver(&collector, vec![client(1), client(2), traffic(77, 0, &[Some(1)])])
        .await
        .unwrap();
    collector
        .wait_for("SELECT principal FROM queries WHERE method = 'lease'")
        .await;
    let data = collector.kill();
    assert!(verified(&data)["ok"] == true);
    let whose = attribution::Whose::Client {
        session: "p-2",
        attribution: &client(2).attribution.unwrap(),
        by: lease::By::Both,
    };
    let pooler = traffic(77, 0, &[Some(1)]).attribution.unwrap();
    let forged = Event {
        attribution: Some(attribution::leased(("pool", "db"), &pooler, whose)),
        body: Some(Body::Amendment(v1::Amendment {
            agent_id: "db".to_owned(),
            inputs: vec!["pool-2".to_owned(), "pool-3".to_owned()],
            join_version: attribution::LEASE_VERSION,
            r#match: "lease".to_owned(),
            events: vec![1],
            ..Default::default()
        })),
        ..Event::default()
    };
    say(&data, vec![forged]).await;
    let report = verified(&data);
    let what = report["wrong"]["what"].as_str().unwrap();
    assert!(
        what.contains("amendment collector-test-")
            && what.contains("does not follow from its inputs")
            && what.contains("is another client's"),
        "{report}"
    );
}

/// Says something in the collector's own chain, as whoever has its key could.
async fn say(data: &Path, events: Vec<Event>) {
    let options = LogOptions {
        name: None,
        checkpoint_interval: Duration::from_millis(20),
        segment_bytes: 1 << 20,
    };
    let opened = Log::open(data, options, std::sync::Arc::default()).unwrap();
    drop(opened.durable);
    let mut originator = Originator::enrol(&opened.log).await.unwrap();
    originator.say(events).await.unwrap();
    opened.log.close().await;
    opened.ended.await.unwrap().unwrap();
}

/// The chain of the first statement tells of both ends.
fn explain(from: &[&str]) -> String {
    let output = program().args(["explain", "db-1"]).args(from).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "who        spiffe://td/host/web/unit/s1.service",
        "certainty  joined by flow-owner",
        "db saw the server's end (event db-1): 10.0.0.1:60000 came to 10.0.0.9:5432",
        "web saw the client's end (event web-1): 192.168.1.7:40000 connected to 10.96.0.1:5432",
        "web: process 1 called connect()",
        "the client's address was translated on the way",
        "amended    by collector-test-",
        "recorded   spiffe://td/addr/10.0.0.1, inferred by address",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in\n{told}");
    }
    told
}

/// The API server of a cluster with one pod, which tells of a second one when it is told to.
async fn api_server(second: std::sync::Arc<tokio::sync::Notify>) -> String {
    use axum::{Json, Router, body::Body, extract::Query, response::IntoResponse as _, routing::get};
    use futures::{StreamExt as _, stream};

    type Asked = Query<std::collections::HashMap<String, String>>;
    let listed = move |asked: Asked, items: Value| {
        let second = second.clone();
        let of_pods = items != json!([]);
        async move {
            if !asked.contains_key("watch") {
                let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "5"}, "items": items});
                return Json(list).into_response();
            }
            let line = json!({"type": "ADDED", "object": pod(2, "reports")});
            let added = stream::once(async move {
                second.notified().await;
                Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n")))
            });
            let nothing = stream::pending::<Result<Bytes, std::io::Error>>();
            if of_pods {
                Body::from_stream(added.chain(nothing)).into_response()
            } else {
                Body::from_stream(nothing).into_response()
            }
        }
    };
    let (pods, others, more) = (listed.clone(), listed.clone(), listed);
    let router = Router::new()
        .route(
            "/api/v1/pods",
            get(move |asked: Asked| pods(asked, json!([pod(1, "orders")]))),
        )
        .route(
            "/apis/apps/v1/replicasets",
            get(move |asked: Asked| others(asked, json!([]))),
        )
        .route(
            "/apis/batch/v1/jobs",
            get(move |asked: Asked| more(asked, json!([]))),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn pod_uid(n: u64) -> String {
    format!("{n:08}-1b2c-4d5e-8f90-a1b2c3d4e5f6")
}

/// Both pods have one name, one after the other.
fn pod(n: u64, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "work-0", "namespace": "shop", "uid": pod_uid(n), "resourceVersion": format!("{}", n + 3)},
        "spec": {"serviceAccountName": account, "nodeName": "n1", "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    })
}

/// A statement of session `b-<n>`, which its own host found to be of a container in pod `n`.
fn contained(n: u64) -> Event {
    let mut event = statement(n, 0);
    event.attribution = Some(v1::Attribution {
        principal: format!("spiffe://td/host/n1/container/c{n}"),
        kind: v1::PrincipalKind::Container.into(),
        confidence: v1::Confidence::Observed.into(),
        method: "tcp-owner".to_owned(),
        process: Some(v1::Process::default()),
        container: Some(v1::Container {
            id: format!("c{n}"),
            ..Default::default()
        }),
        pod: Some(v1::Pod {
            uid: pod_uid(n),
            ..Default::default()
        }),
        ..Default::default()
    });
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_named_when_the_cluster_tells_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let second = std::sync::Arc::new(tokio::sync::Notify::new());
    let server = api_server(std::sync::Arc::clone(&second)).await;
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
         clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}]\n\
         users: [{{name: u, user: {{}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let data = folder.path().join("data");
    let settings = [
        (
            "PGWITNESS_COLLECTOR__KUBERNETES__KUBECONFIG",
            kubeconfig.to_str().unwrap(),
        ),
        ("PGWITNESS_COLLECTOR__KUBERNETES__TRUST_DOMAIN", "example.org"),
    ];
    let collector = Collector::start_with(&data, &settings);
    let mut host = Agent::new("n1", 1);
    host.deliver(&collector, vec![contained(1), contained(2)])
        .await
        .unwrap();
    let named = |n: u64| {
        format!(
            "SELECT principal, principal_kind, confidence, method FROM queries \
             WHERE session_id = 'b-{n}' AND amended_by IS NOT NULL"
        )
    };
    let expected = |account: &str| {
        json!({
            "principal": format!("spiffe://example.org/ns/shop/sa/{account}"), "principal_kind": "kubernetes",
            "confidence": "observed", "method": "tcp-owner",
        })
    };
    assert_eq!(collector.wait_for(&named(1)).await.1, expected("orders"));
    // Nothing is known of the other one yet.
    let other = collector.ask("SELECT principal FROM queries WHERE session_id = 'b-2'");
    assert_eq!(other, [json!({"principal": "spiffe://td/host/n1/container/c2"})]);
    second.notify_one();
    assert_eq!(collector.wait_for(&named(2)).await.1, expected("reports"));
    let pods = "SELECT count(*) AS n FROM events WHERE kind = 'pod' AND agent = 'collector-test'";
    assert_eq!(collector.ask(pods), [json!({"n": 2})]);

    // Each once, whatever is seen again, and all of it can be made again.
    let data = collector.kill();
    let collector = Collector::start_with(&data, &settings);
    host.deliver(&collector, vec![contained(1)]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let amendments = "SELECT count(*) AS n FROM events WHERE kind = 'attribution'";
    assert_eq!(collector.ask(amendments), [json!({"n": 2})]);
    let data = collector.kill();
    let report = verified(&data);
    assert!(report["ok"] == true && report["amendments"] == 2, "{report}");
}
