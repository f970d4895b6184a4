//! Who is server and who is client is decided by the socket: a backend that asks a server is that server's client, and a
//! program that a backend starts is no backend.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{fs, thread, time::Duration};

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, free_port, server_binaries},
    record::query_folder,
    route::Route,
    session::Session,
    suite::settle,
    tap::{Settings, Tap, Tier},
};
use serde_json::Value;

const LISTENER: &str = include_str!("../programs/listener.py");
const STRAY: &str = "SELECT 'to a program of a backend'";

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_can_be_a_client() {
    roles(Tier::Auto).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_can_be_a_client_in_the_second_tier() {
    roles(Tier::B).await;
}

async fn roles(tier: Tier) {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init_for(server_binaries().unwrap(), Witness::Silent, &[Route::Tls]).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(tier)).await.unwrap();
    let admin = cluster.superuser(DATABASE).await.unwrap();
    if admin.batch_execute("CREATE EXTENSION dblink").await.is_err() {
        return eprintln!("not run: there is no extension dblink (package postgresql-contrib)");
    }
    // The same backend asks again and again, in each way.
    let mut asked = Vec::new();
    let ways = [
        ("tcp", "host=127.0.0.1 sslmode=disable".to_owned()),
        ("tls", "host=127.0.0.1 sslmode=require".to_owned()),
        ("unix", format!("host={}", cluster.socket_folder().display())),
    ];
    for (name, way) in ways {
        let inner = format!("SELECT 'asked by a backend over {name}'");
        let connection = format!(
            "{way} port={} dbname={DATABASE} user={APP_ROLE} password={}",
            cluster.port(),
            cluster.password()
        );
        let outer = format!(
            "SELECT * FROM dblink('{connection}', $inner${inner}$inner$) AS answer (text text) /* over {name} */"
        );
        admin.batch_execute(&outer).await.unwrap();
        asked.push(inner);
    }
    // A child of a backend, which becomes another program: marked by its birth, and no longer once it is psql.
    let inner = "SELECT 'asked by a program of a backend'";
    let script = format!(
        "{} -X -A -t -h {} -p {} -U postgres -d {DATABASE} -c \"{inner}\"",
        cluster.client_binary("psql").display(),
        cluster.socket_folder().display(),
        cluster.port()
    );
    admin
        .batch_execute(&format!(
            "CREATE TEMP TABLE answers (text text); COPY answers FROM PROGRAM $program${script}$program$"
        ))
        .await
        .unwrap();
    asked.push(inner.to_owned());
    // Another such child is asked itself, as a server might be.
    let port = free_port().unwrap();
    let listener = cluster.socket_folder().join("listener.py");
    fs::write(&listener, LISTENER).unwrap();
    let sql = format!(
        "COPY answers FROM PROGRAM 'python3 {} {port}'",
        listener.display()
    );
    let client = tokio::task::spawn_blocking(move || ask(port));
    admin.batch_execute(&sql).await.unwrap();
    client.await.unwrap();
    let backend: i32 = admin
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    drop(admin);
    settle(&tap).await.unwrap();
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();

    let events = events(&tap);
    let gaps: Vec<&Value> = events.iter().filter(|event| event["kind"] == "gap").collect();
    assert!(gaps.is_empty(), "{gaps:?}");
    for inner in asked {
        let said: Vec<&Value> = events
            .iter()
            .filter(|event| event["statement"]["text"] == inner)
            .collect();
        assert_eq!(
            said.len(),
            1,
            "{inner} is recorded once, by the server that was asked: {said:?}"
        );
        let [pid, client] =
            ["/session/backend_pid", "/attribution/process/pid"].map(|path| said[0].pointer(path).unwrap());
        assert_ne!(*pid, backend, "{inner}: the asking backend is no server here");
        let is_its_own = *client == backend;
        assert_eq!(
            is_its_own,
            !inner.contains("program"),
            "{inner}: its client is {client}"
        );
    }
    let stray: Vec<&Value> = events
        .iter()
        .filter(|event| event["statement"]["text"] == STRAY || event["session"]["server"]["port"] == port)
        .collect();
    assert!(
        stray.is_empty(),
        "no server of PostgreSQL's listens there: {stray:?}"
    );
    // The asking backend has one session: the one in which it was asked.
    let mut sessions: Vec<&Value> = events
        .iter()
        .filter(|event| event["session"]["backend_pid"] == backend)
        .map(|event| &event["session"]["id"])
        .collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
}

/// Asks whoever listens there by now.
fn ask(port: u16) {
    let attempts = (0..200).find_map(|_| {
        thread::sleep(Duration::from_millis(50));
        Session::open(port, APP_ROLE, DATABASE).ok()
    });
    let mut session = attempts.unwrap();
    session.say(STRAY).unwrap();
    session.end().unwrap();
}

fn events(tap: &Tap) -> Vec<Value> {
    let rows = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT event FROM events ORDER BY seq",
    );
    rows.unwrap()
        .iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect()
}
