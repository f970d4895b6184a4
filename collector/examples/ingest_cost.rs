//! What one recorded statement costs the collector: feeds batches of pgbench-like events through gRPC, evidence log and
//! store, and prints the CPU time of each stage.
//!
//! Batches are sealed before the clock starts. The client lives in the same process, so its share (handing over
//! compressed bytes) counts too. Events are those that the agent records of `pgbench -S -M prepared`, field by field.
//!
//! `ingest_cost [EVENTS [SESSIONS]]`

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot go on ends"
)]

use std::{collections::HashMap, net::TcpListener, time::Duration};

use ed25519_dalek::SigningKey;
use evidence::{Chain, Contents};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use pgwitness_collector::{
    config::{Config, Overrides},
    serve,
};
use prost::Message;
use proto::v1::{
    self, SignedBatch, Upload, definition::Kind, delivery_client::DeliveryClient, receipt, upload,
};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;

/// What an agent puts into one batch at most.
const BATCH: u64 = 2048;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().unwrap());
    let events = args.next().unwrap_or(200_000);
    let sessions = args.next().unwrap_or(8);
    let key = SigningKey::from_bytes(&[1; 32]);
    let (batches, encoded) = seal(&key, events, sessions);
    let packed: usize = batches.iter().map(Message::encoded_len).sum();
    println!(
        "{events} events of {} sessions in {} batches: {} bytes an event, {} packed",
        sessions,
        batches.len(),
        encoded as u64 / events,
        packed as u64 / events
    );
    let data = tempfile::tempdir().unwrap();
    let (grpc, http) = (free_port(), free_port());
    let overrides = Overrides {
        data: Some(data.path().to_owned()),
        inventory: None,
        grpc: Some(format!("127.0.0.1:{grpc}").parse().unwrap()),
        http: Some(format!("127.0.0.1:{http}").parse().unwrap()),
        sql: None,
        insecure: false,
    };
    let config = Config::load(None, overrides).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let collector = tokio::spawn(serve::serve(config, async {
        _ = stopped.await;
    }));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{grpc}")).unwrap();
    let mut client = loop {
        match endpoint.connect().await {
            Ok(channel) => break DeliveryClient::new(channel),
            Err(_) if collector.is_finished() => panic!("{:?}", collector.await),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let idle = resident();
    let before = cpu_us();
    let (up, uploads) = tokio::sync::mpsc::channel(32);
    let hello = v1::Hello {
        agent_id: "bench".to_owned(),
        public_key: key.verifying_key().to_bytes().to_vec(),
        version: "bench".to_owned(),
        ..Default::default()
    };
    let count = batches.len() as u64;
    let sender = tokio::spawn(async move {
        let kinds =
            std::iter::once(upload::Kind::Hello(hello)).chain(batches.into_iter().map(upload::Kind::Batch));
        for kind in kinds {
            up.send(Upload { kind: Some(kind) }).await.unwrap();
        }
        up
    });
    let mut receipts = client
        .deliver(ReceiverStream::new(uploads))
        .await
        .unwrap()
        .into_inner();
    loop {
        match receipts.message().await.unwrap().and_then(|receipt| receipt.kind) {
            Some(receipt::Kind::Ack(ack)) if ack.sequence == count => break,
            Some(receipt::Kind::Ack(_) | receipt::Kind::Resume(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let acknowledged = cpu_us();
    let resident = resident() - idle;
    drop(sender.await.unwrap());
    stop.send(()).unwrap();
    collector.await.unwrap().unwrap();
    let sealed = cpu_us();
    let each = |from: i64, to: i64| (to - from) as f64 / events as f64;
    println!(
        "until all is acknowledged  {:7.2} µs an event",
        each(before, acknowledged)
    );
    println!(
        "until all is sealed        {:7.2} µs an event",
        each(before, sealed)
    );
    println!("memory grew by             {resident:7} KiB");
    println!(
        "evidence, store            {:7} {} bytes an event",
        size(&data.path().join("evidence")) / events,
        size(&data.path().join("store")) / events
    );
}

/// The batches, and the bytes of all events.
fn seal(key: &SigningKey, events: u64, sessions: u64) -> (Vec<SignedBatch>, usize) {
    let mut chain = Chain::new("bench");
    let (mut batches, mut bytes) = (Vec::new(), 0);
    let mut seq = 1;
    while seq <= events {
        let last = events.min(seq + BATCH - 1);
        let mut contents = Contents::default();
        contents.definition(&definition(Kind::Template(template())));
        let mut places = HashMap::new();
        for seq in seq..=last {
            let session = seq * 7919 % 65_521 % sessions;
            let place = places
                .entry(session)
                .or_insert_with(|| contents.definition(&definition(Kind::Party(party(session)))));
            contents.event(&[&event(seq, *place).encode_to_vec()]);
        }
        bytes += contents
            .events()
            .chain(contents.definitions())
            .map(<[u8]>::len)
            .sum::<usize>();
        batches.push(evidence::seal(
            &mut chain,
            key,
            contents,
            seq,
            at(seq),
            at(last),
            v1::Counters::default(),
            [7; 32],
        ));
        seq = last + 1;
    }
    (batches, bytes)
}

/// When event `seq` began: fifty microseconds apart.
fn at(seq: u64) -> u64 {
    1_795_252_920_000_000_000 + seq * 50_000
}

fn definition(kind: Kind) -> Vec<u8> {
    v1::Definition { kind: Some(kind) }.encode_to_vec()
}

fn event(seq: u64, party: u32) -> v1::Event {
    v1::Event {
        ts_start_ns: at(seq),
        first_response_after_ns: Some(31_417),
        ended_after_ns: Some(31_417),
        party: Some(party),
        template: Some(0),
        body: Some(v1::event::Body::Query(query(seq))),
        ..Default::default()
    }
}

fn party(session: u64) -> v1::Party {
    let port = u32::try_from(40_000 + session % 20_000).unwrap();
    v1::Party {
        session: Some(v1::Session {
            id: format!("c092bd0e-{:x}", 0x8a00 + session),
            backend_pid: u32::try_from(30_000 + session).unwrap(),
            login_role: "app_user".into(),
            database: "bench".into(),
            application_name: "pgbench".into(),
            transport: v1::Transport::Tcp.into(),
            encryption: v1::Encryption::None.into(),
            auth_method: "scram-sha-256".into(),
            client: Some(v1::Endpoint {
                addr: "127.0.0.1".into(),
                port,
            }),
            server: Some(v1::Endpoint {
                addr: "127.0.0.1".into(),
                port: 5432,
            }),
            server_version: "17.6".into(),
            ..Default::default()
        }),
        attribution: Some(attribution(port)),
    }
}

fn template() -> v1::Query {
    v1::Query {
        protocol: v1::Protocol::Extended.into(),
        statement: Some(v1::Statement {
            text: "SELECT abalance FROM pgbench_accounts WHERE aid = $1;".into(),
            fingerprint: "191608da83f15f67".into(),
            name: "P_0".into(),
            text_known: true,
            original_bytes: 53,
            ..Default::default()
        }),
        meaning: Some(v1::Meaning {
            class: v1::Class::Read.into(),
            command: "SELECT".into(),
            tag: "SELECT 1".into(),
            parsed: true,
            objects: vec![v1::Object {
                name: "pgbench_accounts".into(),
                kind: "table".into(),
                access: v1::Access::Read.into(),
                columns: vec!["abalance".into(), "aid".into()],
                source: "sql".into(),
                ..Default::default()
            }],
        }),
        result: Some(v1::Result {
            columns: vec![v1::ResultColumn {
                name: "abalance".into(),
                table_oid: 16_386,
                attnum: 3,
            }],
            ..Default::default()
        }),
        param_count: 1,
        ..Default::default()
    }
}

fn query(seq: u64) -> v1::Query {
    let place = seq * 96;
    v1::Query {
        result: Some(v1::Result {
            phase: v1::Phase::Complete.into(),
            outcome: v1::Outcome::Ok.into(),
            rows: Some(1),
            bytes_in: 45 + seq % 7,
            bytes_out: 51 + seq % 5,
            ..Default::default()
        }),
        transaction: Some(v1::Transaction {
            status: "I".into(),
            seq: seq / 8,
            r#final: v1::Final::Committed.into(),
        }),
        stream: Some(v1::StreamRange {
            request_from: place,
            request_to: place + 45,
            response_to: place + 51,
            continues: None,
            ..Default::default()
        }),
        params: vec![v1::Param {
            oid: 23,
            bytes: 1 + seq % 6,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn attribution(port: u32) -> v1::Attribution {
    let ancestor = |pid, exe: &str| v1::Ancestor {
        pid,
        start_ns: 24_495_620_000_000,
        exe: exe.into(),
    };
    let words = [
        "/usr/lib/postgresql/17/bin/pgbench",
        "-n",
        "-S",
        "-M",
        "prepared",
        "-c",
        "?",
        "-T",
        "60",
    ];
    v1::Attribution {
        principal: "spiffe://pgwitness.local/host/vm/unit/report-bench.service".into(),
        kind: v1::PrincipalKind::Unit.into(),
        confidence: v1::Confidence::Observed.into(),
        method: "tcp-owner".into(),
        evidence: vec![
            format!(
                "connect() recorded by the kernel: 127.0.0.1:{port} → 127.0.0.1:5432 in network namespace 4026531833"
            ),
            "process 32324 started at 24497045320774 ns since boot".into(),
            "cgroup 16213 is /bench.slice/report-bench.service".into(),
        ],
        process: Some(v1::Process {
            pid: 32_324,
            start_ns: 24_497_045_320_774,
            exe: "/usr/lib/postgresql/17/bin/pgbench".into(),
            command_line: words.map(str::to_owned).to_vec(),
            user: "root".into(),
            cgroup_path: "/bench.slice/report-bench.service".into(),
            cgroup_id: 16_213,
            unit: "report-bench.service".into(),
            ancestry: vec![
                ancestor(32_271, "/usr/bin/timeout"),
                ancestor(32_264, "/usr/bin/bash"),
                ancestor(29_305, "/usr/sbin/sshd"),
                ancestor(1, "/usr/lib/systemd/systemd"),
            ],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// CPU time of this process so far, user and system, in microseconds.
fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

/// Resident memory in KiB (`/proc/self/statm` counts pages of 4 KiB).
fn resident() -> i64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4
}

fn size(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                size(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}
