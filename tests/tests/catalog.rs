//! Names by the server's catalog, against a real server: which table a row came to lie in is the witness.
//!
//! Every statement inserts a number of its own into `users`, of which there are three. Afterwards the server is asked in which of
//! them each number lies, and that is compared with what the record says: told by the catalog, it has to be that one.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{Cluster, DATABASE, Witness, server_binaries},
    record::{query_folder, query_live},
    suite::settle,
    tap::{Redaction, Settings, Tap},
};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

const SETUP: &str = "
    CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA closed;
    CREATE TABLE public.users (n bigint); CREATE TABLE a.users (n bigint); CREATE TABLE b.users (n bigint);
    CREATE TABLE closed.users (n bigint);
    CREATE TABLE public.single (n bigint); CREATE VIEW b.seen AS SELECT * FROM public.single;
    CREATE TABLE public.parts (n bigint) PARTITION BY RANGE (n);
    CREATE TABLE public.parts_low PARTITION OF public.parts FOR VALUES FROM (0) TO (1000000);
    CREATE FUNCTION flip() RETURNS void LANGUAGE plpgsql AS
        'BEGIN PERFORM set_config(''search_path'', ''b'', false); END';
    CREATE FUNCTION pinned() RETURNS int LANGUAGE sql SET search_path = b AS 'SELECT 1';
    CREATE ROLE plain LOGIN; CREATE ROLE of_a LOGIN; CREATE ROLE pgwitness LOGIN PASSWORD 'x y';
    GRANT USAGE ON SCHEMA a, b TO plain, of_a;
    GRANT ALL ON ALL TABLES IN SCHEMA public, a, b, closed TO plain, of_a;
    ALTER ROLE of_a SET search_path = a, public;
";

/// Numbers, and what they are for.
static NEXT: AtomicU64 = AtomicU64::new(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_told_as_the_server_took_it_or_as_it_is_written() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init_with(server_binaries().unwrap(), Witness::Silent).unwrap();
    let hba = cluster.data().join("pg_hba.conf");
    let others = fs::read_to_string(&hba).unwrap();
    let own = "local all plain,of_a trust\nhost all pgwitness 127.0.0.1/32 scram-sha-256\n";
    fs::write(&hba, format!("{own}{others}")).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let admin = cluster.superuser(DATABASE).await.unwrap();
    admin.batch_execute(SETUP).await.unwrap();
    let folder = tempfile::TempDir::with_prefix("catalog-").unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let random: String = (0..32).map(|byte| format!("{:02x}", byte * 7 + 1)).collect();
    let entry = |database: &str, object: &str| {
        format!(
            "[[column]]\ndatabase = \"{database}\"\nobject = \"{object}\"\ncolumn = \"n\"\ntype = \"bigint\"\nsubject = true\n"
        )
    };
    let columns = entry(DATABASE, "a.users") + &entry("another", "public.users");
    let mut settings = Settings::from(Redaction::Clear);
    settings.keys = vec![
        ("SUBJECTS__CLASSIFICATION", file("columns.toml", &columns)),
        ("SUBJECTS__TOKEN_KEY", file("key", &format!("test {random}\n"))),
        (
            "CATALOG",
            format!(
                "[{{connection=\"host=127.0.0.1 port={} user=pgwitness\",databases=[\"{DATABASE}\"],refresh_s=5,password_file=\"{}\"}}]",
                cluster.port(),
                file("password", "x y\n")
            ),
        ),
        ("EVENTS__HEARTBEAT_S", "1".to_owned()),
    ];
    let mut tap = Tap::start(&cluster.data(), settings).await.unwrap();
    until_it_looks(&cluster, &tap).await;

    let mut told = Vec::new();
    by_path(&cluster, &mut told).await;
    let from = NEXT.load(Ordering::Relaxed);
    renamed_under_load(&cluster).await;
    let load = from..NEXT.load(Ordering::Relaxed);
    // Whoever calls himself as the agent does is no agent.
    let imposter = connect(&cluster, "plain", "pgwitness catalog 0000000000000000").await;
    insert(&imposter, "public.users").await;
    drop(imposter);
    settle(&tap).await.unwrap();
    let truth = truth(&admin).await;
    drop(admin);
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();

    let read = |sql: &str| query_folder(tap.collector_binary(), &tap.collector_data(), sql).unwrap();
    let events: Vec<Value> = read("SELECT event FROM events WHERE kind = 'query' ORDER BY seq")
        .iter()
        .map(|row| serde_json::from_str(row.get("event").unwrap().as_str().unwrap()).unwrap())
        .collect();
    let (mut exact, mut written, mut wrong) = (0_u64, 0_u64, Vec::new());
    let mut found = BTreeMap::new();
    for event in &events {
        let text = event["statement"]["text"].as_str().unwrap_or_default();
        let Some(n) = text.strip_prefix("INSERT INTO ").and_then(number) else {
            continue;
        };
        let object = &event["meaning"]["objects"][0];
        let schema = object["schema"].as_str().unwrap_or_default();
        let by_catalog = object["source"] == "catalog";
        found.insert(n, (schema.to_owned(), by_catalog));
        let subjects = event["subjects"].as_array().map_or(0, Vec::len);
        if subjects != usize::from(schema == "a") {
            wrong.push(format!("{text}: {subjects} subjects of {schema:?}"));
        }
        match truth.get(&n) {
            Some(lies) if by_catalog && lies != schema => {
                wrong.push(format!("{text}: told {schema}, lies in {lies}"));
            }
            Some(_) if load.contains(&n) && by_catalog => exact += 1,
            Some(_) if load.contains(&n) => written += 1,
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("under load: {exact} by the catalog, {written} as written, none wrong");
    assert!(exact > 200 && written > 20, "{exact} {written}");
    let missing: Vec<_> = truth.keys().filter(|n| !found.contains_key(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (n, expected) in told {
        let (schema, by_catalog) = &found[&n];
        let said = if *by_catalog {
            schema.as_str()
        } else {
            "as written"
        };
        assert_eq!(said, expected, "number {n}");
    }

    // Its own statements are left out, and counted; its session is told.
    let count = |sql: &str| read(sql)[0].get("n").unwrap().as_u64().unwrap();
    let own = "login_role = 'pgwitness'";
    assert_eq!(
        count(&format!(
            "SELECT count(*) AS n FROM events WHERE kind = 'query' AND {own}"
        )),
        0
    );
    assert!(
        count(&format!(
            "SELECT count(*) AS n FROM events WHERE kind = 'session_open' AND {own}"
        )) > 0
    );
    let beats = read("SELECT event FROM events WHERE kind = 'heartbeat' ORDER BY seq");
    let last = beats.last().unwrap().get("event").unwrap().as_str().unwrap();
    assert!(last.contains("(the agent's own: catalog)"), "{last}");
}

/// Each way to name a table, with what has to be told of it.
async fn by_path(cluster: &Cluster, told: &mut Vec<(u64, &'static str)>) {
    let client = connect(cluster, "plain", "catalog").await;
    told.push((insert(&client, "users").await, "public"));
    for (sql, expected) in [
        ("SET search_path = a, public", "a"),
        ("SET search_path TO closed, b", "b"),
        ("SELECT set_config('search_path', 'a', false)", "a"),
        ("RESET search_path", "public"),
        ("BEGIN; SET LOCAL search_path = b", "b"),
        ("ROLLBACK", "public"),
        (
            "BEGIN; SAVEPOINT s; SET LOCAL search_path = b; ROLLBACK TO s",
            "public",
        ),
        ("COMMIT", "public"),
        ("SELECT pinned()", "as written"),
    ] {
        client.batch_execute(sql).await.unwrap();
        told.push((insert(&client, "users").await, expected));
    }
    // By name only once a look began behind `pinned()`, which may have made a table of its own.
    told.push((insert(&client, "public.users").await, "as written"));
    drop(client);
    let of_a = connect(cluster, "of_a", "catalog").await;
    told.push((insert(&of_a, "users").await, "a"));
    told.push((insert(&of_a, "b.seen").await, "b"));
    told.push((insert(&of_a, "parts_low").await, "public"));
    of_a.batch_execute("SELECT flip()").await.unwrap();
    told.push((insert(&of_a, "users").await, "as written"));
    drop(of_a);
}

/// `a.users` comes and goes, so that `users` is now one and then the other.
async fn renamed_under_load(cluster: &Cluster) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = Vec::new();
    for _ in 0..3 {
        let client = connect(cluster, "of_a", "load").await;
        let stop = Arc::clone(&stop);
        loads.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                insert(&client, "users").await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    let definer = cluster.superuser(DATABASE).await.unwrap();
    for round in 0..12_u64 {
        let (away, back) = (
            "ALTER TABLE a.users RENAME TO hidden",
            "ALTER TABLE a.hidden RENAME TO users",
        );
        let sql = if round % 2 == 0 { away } else { back };
        if round % 3 == 0 {
            definer.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            definer.batch_execute("ROLLBACK").await.unwrap();
            definer.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
            definer.batch_execute("COMMIT").await.unwrap();
        } else {
            definer.batch_execute(sql).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
}

/// Inserts a number of its own, and answers it.
async fn insert(client: &Client, table: &str) -> u64 {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    client
        .simple_query(&format!("INSERT INTO {table} (n) VALUES ({n})"))
        .await
        .unwrap();
    n
}

fn number(text: &str) -> Option<u64> {
    text.strip_suffix(')')?.rsplit('(').next()?.parse().ok()
}

/// In which schema each number lies; `a.users` may be called otherwise now.
async fn truth(admin: &Client) -> BTreeMap<u64, String> {
    let mut truth = BTreeMap::new();
    for (schema, table) in [
        ("public", "users"),
        ("a", "users"),
        ("b", "users"),
        ("b", "seen"),
        ("public", "parts_low"),
    ] {
        let rows = admin
            .query(&format!("SELECT n FROM {schema}.{table}"), &[])
            .await
            .unwrap();
        for row in rows {
            truth.insert(u64::try_from(row.get::<_, i64>(0)).unwrap(), schema.to_owned());
        }
    }
    truth
}

async fn connect(cluster: &Cluster, role: &str, application: &str) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(cluster.socket_folder())
        .port(cluster.port())
        .user(role)
        .dbname(DATABASE)
        .application_name(application)
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// Until names are told by the catalog.
async fn until_it_looks(cluster: &Cluster, tap: &Tap) {
    let until = Instant::now() + Duration::from_secs(30);
    let client = connect(cluster, "plain", "waiting").await;
    loop {
        insert(&client, "public.users").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let sql = "SELECT event FROM events WHERE application_name = 'waiting' AND kind = 'query' ORDER BY seq DESC LIMIT 1";
        let rows = query_live(tap.http_port(), sql).unwrap();
        let text = rows.first().map(ToString::to_string).unwrap_or_default();
        if text.contains("catalog") {
            return;
        }
        assert!(Instant::now() < until, "no catalog after 30 s: {text}");
    }
}
