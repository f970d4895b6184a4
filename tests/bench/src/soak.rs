//! Full speed for a while with default settings: nothing may be lost. And with a ring that is too small and an agent
//! that does not get to run: every byte that is lost must be told.
//!
//! What was sent is counted by others than pgwitness: statements by pgbench, bytes by a relay that the clients go
//! through, which counts what it hands over in each direction.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use pgwitness_tests::{cluster::APP_ROLE, route::Route, screen::progress, tap::parser_of};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    figures::machine,
    overhead::{Access, Attached, Clients, Parties, Programs, Server, Watch, Workload, losses},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How long, half of it with prepared statements and half with simple ones
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// One of simple, prepared and tls_prepared alone, all the time
    #[arg(long, value_enum)]
    workload: Option<Workload>,
    /// Connections at full speed
    #[arg(long, value_name = "N", default_value_t = 16)]
    connections: u16,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run of seconds
    #[arg(long)]
    quick: bool,
}

/// Of each half: so often the agent's memory is told.
const PIECES: usize = 5;

/// The statement of `pgbench -S`, as it is recorded with its literal replaced or with its parameter.
const OF_PGBENCH: &str = "kind = 'query' AND statement LIKE 'SELECT abalance FROM pgbench_accounts%'";

pub(crate) async fn run(args: &Args) -> Result<()> {
    let known = [Workload::Simple, Workload::Prepared, Workload::TlsPrepared];
    ensure!(
        args.workload.is_none_or(|workload| known.contains(&workload)),
        "what is counted are single statements: simple, prepared or tls_prepared"
    );
    let parties = Parties::new(false);
    progress(&machine());
    let server = Server::start(parties.watched("server")?, false).await?;
    let mut clients = Clients::new(parties.watched("clients")?)?;
    clients.connections = Some(args.connections);
    let seconds = if args.quick { 6 } else { args.minutes * 60 };
    let soaked = soak(&parties, args, &server, &clients, seconds).await?;
    clients.connections = None;
    let told = told(&parties, args, &server, &clients).await?;
    server.stop().await?;
    let lost = soaked
        .get("lost")
        .and_then(Value::as_object)
        .map_or(1, serde_json::Map::len);
    let untold = told.get("untold_bytes").and_then(Value::as_i64);
    let passed = lost == 0 && soaked.get("statements") == soaked.get("recorded") && untold == Some(0);
    let mut figures = soaked;
    if let Some(figures) = figures.as_object_mut() {
        figures.insert("told".to_owned(), told);
        figures.insert("machine".to_owned(), json!(machine()));
        figures.insert("quick".to_owned(), json!(args.quick));
    }
    if args.json {
        println!("{figures}");
    } else {
        println!("{figures:#}");
    }
    ensure!(passed, "something was lost, or a loss was not told");
    Ok(())
}

/// Full speed, default settings.
async fn soak(
    parties: &Parties,
    args: &Args,
    server: &Server,
    clients: &Clients,
    seconds: u64,
) -> Result<Value> {
    let mut watch = Watch::begin(parties, &args.programs).await?;
    let attached = watch.attach(&server.cluster().data(), None).await?;
    let (mut statements, mut resident) = (0, Vec::new());
    // In pieces, between which the agent's memory is looked at.
    let halves = [Workload::Prepared, Workload::Simple].map(|half| args.workload.unwrap_or(half));
    for workload in halves.into_iter().flat_map(|half| [half; PIECES]) {
        let seconds = seconds.div_ceil(2 * PIECES as u64);
        progress(&format!("{seconds} s of {} at full speed", workload.name()));
        let access = Access {
            port: server.cluster().port(),
            role: APP_ROLE,
            route: workload.route(),
        };
        statements += clients.run(workload, seconds, server, access).await?.statements;
        resident.extend(attached.resident_mib().map(f64::round));
    }
    let metrics = attached.drained().await?;
    attached.end().await?;
    let figures = json!({
        "statements": statements,
        "recorded": count(&watch, OF_PGBENCH)?,
        "lost": losses(&metrics),
        "gaps": gaps(&watch)?,
        "seconds": seconds,
        "connections": args.connections,
        "agent_rss_mib": resident,
    });
    progress(&figures.to_string());
    watch.end().await?;
    Ok(figures)
}

/// The smallest ring, and an agent that is stopped for a second, again and again. What the kernel side handed over and
/// what the gaps say is missing must add up to what went through the relay.
async fn told(parties: &Parties, args: &Args, server: &Server, clients: &Clients) -> Result<Value> {
    const STOPS: u32 = 4;
    let mut watch = Watch::begin(parties, &args.programs).await?;
    let mut attached = watch.attach(&server.cluster().data(), Some(1)).await?;
    let relay = Relay::open(server.cluster().port()).await?;
    progress("a ring of 1 MiB, and an agent that is stopped for a second, again and again");
    let access = Access {
        port: relay.port,
        role: APP_ROLE,
        route: Route::Tcp,
    };
    let (load, stops) = tokio::join!(
        clients.run(Workload::Prepared, u64::from(2 * STOPS + 1), server, access),
        stop_and_go(&mut attached, STOPS),
    );
    let told = load?;
    stops?;
    let metrics = attached.drained().await?;
    attached.end().await?;
    let captured = metrics.get("captured_bytes").copied().unwrap_or(0.0) as i64;
    let missing = sum(&watch, "bytes_missing", "kind = 'gap'")?;
    let unknown = count(&watch, "kind = 'gap' AND bytes_missing IS NULL")?;
    let relayed = i64::try_from(relay.bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    let figures = json!({
        "bytes": relayed,
        "captured_bytes": captured,
        "gap_bytes": missing,
        "untold_bytes": relayed - captured - missing,
        "gaps_of_unknown_length": unknown,
        "statements": told.statements,
        "recorded": count(&watch, "kind = 'query'")?,
        "lost": losses(&metrics),
        "gaps": gaps(&watch)?,
    });
    progress(&figures.to_string());
    watch.end().await?;
    ensure!(missing > 0, "nothing was lost, so nothing was proven: {figures}");
    Ok(figures)
}

async fn stop_and_go(agent: &mut Attached, times: u32) -> Result<()> {
    // The first process stopped alone, the one that reads the ring would go on.
    let parser = parser_of(agent.process.pid()).context("no process parses")?;
    for _ in 0..times {
        for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            kill(parser, signal).context("signalling the process that parses")?;
            agent.process.signal(signal)?;
        }
    }
    Ok(())
}

fn count(watch: &Watch, condition: &str) -> Result<u64> {
    sum(watch, "1", condition).map(|count| u64::try_from(count).unwrap_or(0))
}

fn sum(watch: &Watch, column: &str, condition: &str) -> Result<i64> {
    let rows = watch.ask(&format!(
        "SELECT sum({column}) AS n FROM events WHERE {condition}"
    ))?;
    let first = rows.first().context("no row")?;
    Ok(first.get("n").and_then(Value::as_i64).unwrap_or(0))
}

/// Gap events by reason.
fn gaps(watch: &Watch) -> Result<BTreeMap<String, u64>> {
    let sql = "SELECT gap_reason, count(*) AS n FROM events WHERE kind = 'gap' GROUP BY gap_reason";
    let row = |row: Value| {
        let reason = row.get("gap_reason")?.as_str()?.to_owned();
        Some((reason, row.get("n")?.as_u64()?))
    };
    Ok(watch.ask(sql)?.into_iter().filter_map(row).collect())
}

/// Hands bytes from clients to the server and back, and counts them.
struct Relay {
    port: u16,
    bytes: Arc<AtomicU64>,
    _task: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    async fn open(server: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    if let Ok((up, down)) = hand_over(client, server).await {
                        count.fetch_add(up + down, Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(Self {
            port,
            bytes,
            _task: AbortOnDrop(task),
        })
    }
}

async fn hand_over(mut client: TcpStream, server: u16) -> std::io::Result<(u64, u64)> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await
}
