//! An outage's worth of events, spooled by the agent's own thread and then drained into a real collector.
//!
//! Events are those of a recorded conversation, encoded, sealed and signed as the agent does, with times of their own; nothing waits for
//! the hour that they stand for. Both ends share the machine.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::SigningKey;
use pgwitness_agent::{
    clock::Clock,
    config::{Config, WhenFull},
    metrics::Metrics,
    progress::Progress,
    record::Encoder,
    ship::{self, Delivery, Outbox, Sealing},
    trust::{Connector, Keyring},
};
use serde_json::json;
use tap_core::{Body, Event, Settings};

use crate::{
    figures::{bytes_in, machine, rounded},
    tape::Tape,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The collector to drain into
    #[arg(long)]
    collector: PathBuf,
    /// Where the recordings are
    #[arg(long)]
    recordings: PathBuf,
    /// Events of the outage: an hour of 5,000 a second by default
    #[arg(long, default_value_t = 18_000_000)]
    events: u64,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

/// Events a second that arrive in the outage that is stood for.
const ARRIVING: u64 = 5_000;

/// How long nothing changes when all is done.
const QUIET: Duration = Duration::from_millis(150);

/// How long nothing may move before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let events = if args.quick { 200_000 } else { args.events };
    let tape = Tape::read(&args.recordings.join("pgbench-prepared.segments.zst"))?;
    let mut queries: Vec<Event> = Vec::new();
    tape.play(Settings::default(), &mut |event| {
        if matches!(event.body, Body::Query(_)) {
            queries.push(event);
        }
    });
    ensure!(!queries.is_empty(), "the recording holds no statement");
    let folder = tempfile::TempDir::with_prefix("pgwitness-outage-")?;
    let state = folder.path().join("agent");
    std::fs::create_dir(&state)?;
    let outbox = Arc::new(Outbox::new(64 << 20));
    let metrics = Arc::new(Metrics::default());
    let chained = ship::start(Sealing {
        state: state.clone(),
        boot: "bench".to_owned(),
        agent_id: "bench".to_owned(),
        keyring: Keyring::open(state.join("agent.key"), SigningKey::from_bytes(&[7; 32]))?,
        new_key: true,
        spool_bytes: 4 << 30,
        when_full: WhenFull::KeepOldest,
        collectors: Vec::new(),
        outbox: Arc::clone(&outbox),
        metrics: Arc::clone(&metrics),
        progress: Arc::new(Progress::open(&state, "bench", 1).0),
    })?;

    let begun = Instant::now();
    let produced = Arc::clone(&outbox);
    let producer = tokio::task::spawn_blocking(move || produce(&produced, &mut queries, events));
    producer.await?;
    settle(&outbox, &metrics).await?;
    let spooling = begun.elapsed().saturating_sub(QUIET);
    ensure!(
        outbox.totals() == (events, 0),
        "events were dropped: {:?}",
        outbox.totals()
    );
    let bytes = metrics.spool_bytes.load(Ordering::Relaxed);

    let data = folder.path().join("collector");
    let (collector, url) = Collector::start(&args.collector, &data).await?;
    let mut config = Config::default();
    config.delivery.collectors = vec![url];
    let ways = Connector::open(&config, &None)?;
    let begun = Instant::now();
    let delivery = tokio::spawn(ship::deliver(Delivery {
        ways: ways.into_iter().map(Arc::new).collect(),
        agent_id: "bench".to_owned(),
        chained: chained.clone(),
        metrics: Arc::clone(&metrics),
    }));
    let mut waiting = u64::MAX;
    let mut moved = Instant::now();
    while waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = metrics.batches_waiting.load(Ordering::Relaxed);
        if now < waiting {
            (waiting, moved) = (now, Instant::now());
        }
        ensure!(
            moved.elapsed() < PATIENCE,
            "{waiting} batches wait, and no more are acknowledged"
        );
    }
    let draining = begun.elapsed();
    delivery.abort();
    ensure!(chained.stop().await, "not all of it is safe");
    drop(collector);

    let per_second = |time: Duration| events as f64 / time.as_secs_f64();
    let figures = json!({
        "events": events,
        "stands_for_seconds": events / ARRIVING,
        "spooled_per_second": per_second(spooling).round(),
        "drained_per_second": per_second(draining).round(),
        "times_arriving": rounded(per_second(draining) / ARRIVING as f64, 1),
        "spool_bytes": bytes,
        "bytes_per_event": rounded(bytes as f64 / events as f64, 2),
        "log_bytes": bytes_in(&data.join("evidence"))?,
        "quick": args.quick,
        "machine": machine(),
    });
    if args.json {
        println!("{figures}");
    } else {
        println!("{figures:#}");
    }
    Ok(())
}

/// Fills the queue, and waits while it is half full.
fn produce(outbox: &Outbox, queries: &mut [Event], events: u64) {
    let mut encoder = Encoder::default();
    let clock = Clock::now();
    let mut made = 0;
    let mut now = pgwitness_agent::clock::boot_ns();
    while made < events {
        for query in queries.iter_mut() {
            let took = query.times.end.saturating_sub(query.times.start);
            // No two are the same time apart, as in life.
            now += 150_000 + (made.wrapping_mul(2_654_435_761) >> 7) % 100_000;
            query.times.start = now;
            query.times.first_response = Some(now + took / 2);
            query.times.end = now + took + made % 4_001;
            outbox.push(encoder.encode(query, None, clock, "bench"));
            made += 1;
            if made == events {
                return;
            }
        }
        while outbox.fill().used * 2 > outbox.fill().limit {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits until the queue is empty and what was in it is on disk.
async fn settle(outbox: &Outbox, metrics: &Metrics) -> anyhow::Result<()> {
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let until = Instant::now() + PATIENCE;
    // Behind the take from the queue comes the sealing: so nothing may change for a moment.
    let mut before = 0;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = load(&metrics.batches_waiting);
        if outbox.is_empty() && load(&metrics.batches_unspooled) == 0 && now == before && now > 0 {
            return Ok(());
        }
        before = now;
        ensure!(Instant::now() < until, "what was sealed does not reach the spool");
    }
}

/// A collector that ends with this.
struct Collector(Child);

impl Collector {
    async fn start(program: &Path, data: &Path) -> anyhow::Result<(Self, String)> {
        let [grpc, http] = [free()?, free()?];
        let child = Command::new(program)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--grpc", &grpc, "--http", &http])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut collector = Self(child);
        let until = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(&grpc).await.is_err() {
            if collector.0.try_wait()?.is_some() || Instant::now() > until {
                bail!("the collector does not begin to serve");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok((collector, format!("http://{grpc}")))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .to_string())
}
