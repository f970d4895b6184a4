//! Whose connections leave a host is told there, and names the very sessions that the server's host records.
//!
//! Two agents within one kernel, each for a cgroup of its own, so that either is another host to the other. Needs root, for
//! eBPF; is skipped without it, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    record::query_folder,
    route::Route,
    suite::settle,
    tap::{Settings, Tap, Tier},
    unit::{Unit, cgroup2_mount},
};
use serde_json::Value;

/// Longer than the agent holds a connection until it is told.
const HELD: Duration = Duration::from_millis(3500);

/// Enough that what happens once in a thousand is seen.
const CONNECTIONS: usize = 2_000;

/// "Message Formats": StartupMessage, of the user `a`.
const STARTUP: [u8; 16] = *b"\0\0\0\x10\0\x03\0\0user\0a\0\0";

/// Of the client's node.
const ORDERS: &str = "spiffe://pgwitness.local/host/app/unit/orders.service";

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_host_tells_whose_the_servers_sessions_are() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let nodes = Nodes::make();
    let mut cluster = Cluster::init_for(server_binaries().unwrap(), Witness::Silent, &[Route::Tls]).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    nodes.take_in("db", &family(&cluster));
    let mut server = Tap::start(&cluster.data(), nodes.settings("db")).await.unwrap();
    // No server is on this one, nor ever was.
    let nowhere = Path::new("/nonexistent/data");
    let mut client = Tap::start(nowhere, nodes.settings("app")).await.unwrap();

    if !server.agent.ask(&["status"]).unwrap().contains("tier A") {
        return eprintln!("not run: flows are told in tier A only");
    }
    let orders = nodes.unit("app", "orders");
    let inside = nodes.unit("db", "inside");
    let psql = cluster.client_binary("psql");
    let relays = tempfile::tempdir().unwrap();
    let relay = relays.path().join("haproxy");
    fs::copy(&psql, &relay).unwrap();
    run(orders.command(&psql), &cluster, Route::Tcp, "SELECT 'plain'");
    run(orders.command(&psql), &cluster, Route::Tls, "SELECT 'tls'");
    run(orders.command(&relay), &cluster, Route::Tcp, "SELECT 'relayed'");
    run(inside.command(&psql), &cluster, Route::Tcp, "SELECT 'inside'");
    run(Command::new(&psql), &cluster, Route::Tcp, "SELECT 'outside'");
    settle(&server).await.unwrap();
    tokio::time::sleep(HELD).await;
    let roles = [&server, &client].map(|tap| tap.agent.ask(&["status"]).unwrap());
    cluster.stop().await.unwrap();
    server.stop().await.unwrap();
    client.stop().await.unwrap();

    for (said, role) in roles.iter().zip(["server", "client"]) {
        let line = said.lines().find(|line| line.starts_with("host ")).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(role), "{said}");
    }
    let (sessions, flows) = (events(&server), flows(&events(&client)));
    for (text, relayed) in [("plain", false), ("tls", false), ("relayed", true)] {
        let event = said(&sessions, text);
        let session = &event["session"];
        assert_eq!(
            event["attribution"]["principal"], "unknown",
            "on the server's host nobody knows: {event}"
        );
        let fingerprint = session["fingerprint"].as_str().unwrap();
        let same: Vec<&Value> = flows
            .iter()
            .filter(|flow| flow["flow_owner"]["fingerprint"] == fingerprint)
            .collect();
        assert_eq!(same.len(), 1, "{text}: {fingerprint} in {flows:?}");
        let flow = same[0];
        for end in ["client", "server"] {
            assert_eq!(flow["flow_owner"][end], session[end], "{text}");
        }
        let attribution = &flow["attribution"];
        if relayed {
            assert_eq!(attribution["principal"], "unknown", "{flow}");
            assert_eq!(attribution["hops"][0]["role"], "proxy", "{flow}");
            assert_eq!(attribution["hops"][0]["name"], ORDERS, "{flow}");
            continue;
        }
        assert_eq!(attribution["principal"], ORDERS, "{flow}");
        assert_eq!(attribution["confidence"], "observed", "{flow}");
        assert_eq!(attribution["process"]["unit"], "orders.service", "{flow}");
        assert!(flow["ts_start"].as_str() <= event["ts_start"].as_str(), "{flow}");
    }
    assert_eq!(flows.len(), 3, "nothing else left that host: {flows:?}");
    let inside = &said(&sessions, "inside")["attribution"];
    assert_eq!(
        inside["principal"], "spiffe://pgwitness.local/host/db/unit/inside.service",
        "{inside}"
    );
    let at_home = self::flows(&sessions);
    assert!(at_home.is_empty(), "both ends were witnessed: {at_home:?}");
    let outside = &said(&sessions, "outside")["attribution"];
    assert_eq!(outside["principal"], "unknown", "{outside}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_asks_a_server_elsewhere_is_told_as_a_relay() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init(Witness::Silent).unwrap();
    let mut elsewhere = Cluster::init(Witness::Silent).unwrap();
    for cluster in [&mut cluster, &mut elsewhere] {
        cluster.start().await.unwrap();
        cluster.prepare().await.unwrap();
    }
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto))
        .await
        .unwrap();
    if !tap.agent.ask(&["status"]).unwrap().contains("tier A") {
        return eprintln!("not run: flows are told in tier A only");
    }
    let admin = cluster.superuser(DATABASE).await.unwrap();
    if admin.batch_execute("CREATE EXTENSION dblink").await.is_err() {
        return eprintln!("not run: there is no extension dblink (package postgresql-contrib)");
    }
    // Itself, and twice another one: the second connection may be where the first one was in the kernel's memory.
    for server in [&cluster, &elsewhere, &elsewhere] {
        let sql = format!(
            "SELECT * FROM dblink('host=127.0.0.1 port={} dbname={DATABASE} user={APP_ROLE} password={}', \
             $inner$SELECT 'asked'$inner$) AS answer (text text)",
            server.port(),
            server.password()
        );
        admin.batch_execute(&sql).await.unwrap();
    }
    let backend: i32 = admin
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    drop(admin);
    settle(&tap).await.unwrap();
    tokio::time::sleep(HELD).await;
    let said = tap.agent.ask(&["status"]).unwrap();
    cluster.stop().await.unwrap();
    elsewhere.stop().await.unwrap();
    tap.stop().await.unwrap();
    assert!(said.contains("server and client"), "{said}");
    // What else runs here may be a client of something, too.
    let flows = flows(&events(&tap));
    let of_backend = |flow: &&Value| flow["attribution"]["process"]["pid"] == backend;
    let told: Vec<&Value> = flows.iter().filter(of_backend).collect();
    assert_eq!(told.len(), 2, "of {backend}, and all: {flows:#?}");
    for flow in told {
        assert_eq!(flow["flow_owner"]["server"]["port"], elsewhere.port(), "{flow}");
        assert_eq!(flow["attribution"]["principal"], "unknown", "{flow}");
        assert_eq!(flow["attribution"]["hops"][0]["role"], "postgresql", "{flow}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_connections_that_lead_elsewhere_none_is_missed() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let nowhere = Path::new("/nonexistent/data");
    let mut tap = Tap::start(nowhere, Settings::clear(Tier::Auto)).await.unwrap();
    if !tap.agent.ask(&["status"]).unwrap().contains("tier A") {
        return eprintln!("not run: flows are told in tier A only");
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Reads at once, so that what it acknowledges comes while the client is still sending.
    let server = std::thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            let (mut connection, _) = listener.accept().unwrap();
            connection.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    for number in 0..CONNECTIONS {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.write_all(&STARTUP).unwrap();
        if number % 1000 == 999 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    server.join().unwrap();
    settle(&tap).await.unwrap();
    tokio::time::sleep(HELD).await;
    tap.stop().await.unwrap();
    let flows = flows(&events(&tap));
    let told = flows
        .iter()
        .filter(|flow| flow["flow_owner"]["server"]["port"] == port);
    assert_eq!(told.count(), CONNECTIONS);
}

/// Two hosts to be.
struct Nodes {
    mount: PathBuf,
    name: String,
}

impl Nodes {
    fn make() -> Self {
        let nodes = Self {
            mount: cgroup2_mount().unwrap(),
            name: format!("pgwitness-flows-{}", std::process::id()),
        };
        for node in ["db", "app"] {
            fs::create_dir_all(nodes.folder(node)).unwrap();
        }
        nodes
    }

    fn folder(&self, node: &str) -> PathBuf {
        self.mount.join(&self.name).join(node)
    }

    fn take_in(&self, node: &str, pids: &[u32]) {
        for pid in pids {
            // A backend may have ended meanwhile.
            drop(fs::write(self.folder(node).join("cgroup.procs"), pid.to_string()));
        }
    }

    /// A service there.
    fn unit(&self, node: &str, program: &str) -> Unit {
        Unit::create(&format!("{}/{node}/system", self.name), program).unwrap()
    }

    /// An agent for it.
    fn settings(&self, node: &str) -> Settings {
        Settings {
            keys: vec![
                ("TAP__WITHIN", format!("/{}/{node}", self.name)),
                ("AGENT__HOST", node.to_owned()),
            ],
            at_socket: true,
            ..Settings::clear(Tier::Auto)
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for folder in [self.folder("db"), self.folder("app"), self.mount.join(&self.name)] {
            drop(fs::write(folder.join("cgroup.kill"), "1"));
            for _ in 0..100 {
                if fs::remove_dir(&folder).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The postmaster and its children.
fn family(cluster: &Cluster) -> Vec<u32> {
    let file = fs::read_to_string(cluster.data().join("postmaster.pid")).unwrap();
    let postmaster: u32 = file.lines().next().unwrap().trim().parse().unwrap();
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    std::iter::once(postmaster).chain(children).collect()
}

/// A client that is gone as soon as it has its answer.
fn run(mut psql: Command, cluster: &Cluster, route: Route, sql: &str) {
    let output = psql
        .args(["-X", "-A", "-t", "-c", sql])
        .envs(cluster.client_environment(route))
        .env("PGDATABASE", DATABASE)
        .env("PGUSER", APP_ROLE)
        .env("PGPASSWORD", cluster.password())
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {problem}");
}

/// The event of a statement.
fn said<'a>(events: &'a [Value], text: &str) -> &'a Value {
    let text = format!("SELECT '{text}'");
    let mut found = events.iter().filter(|event| event["statement"]["text"] == *text);
    let first = found.next().unwrap();
    assert!(found.next().is_none(), "{text} is recorded twice");
    first
}

fn flows(events: &[Value]) -> Vec<Value> {
    let flows = events.iter().filter(|event| event["kind"] == "flow_owner");
    flows.cloned().collect()
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
