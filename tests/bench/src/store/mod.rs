//! What an answer takes over very many events, and what it takes to make them ready for questions.
//!
//! Each size is a collector of its own, to which four agents deliver events of ninety days. Cold is a collector that was just started,
//! over files that the kernel has forgotten (as far as this user may have it forget); warm is the same question again.

mod made;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use pgwitness_tests::screen::progress;
use serde_json::{Value, json};
use subjects::{Family, Keys};

use self::made::Maker;
use crate::{
    figures::{bytes_in, machine, rounded},
    ingest::{Agent, Collector, deliver, tape},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The collector's program
    #[arg(long, value_name = "FILE")]
    collector: PathBuf,
    /// Folder with the recorded conversations
    #[arg(long, value_name = "DIR")]
    recordings: PathBuf,
    /// How the collector was built; stands in the output
    #[arg(long, default_value = "not said")]
    build: String,
    /// Events of the largest store; smaller ones have a tenth, and a tenth of that
    #[arg(long, default_value_t = 100_000_000)]
    events: u64,
    /// Leave out the smaller ones
    #[arg(long)]
    only_largest: bool,
    /// Moves the largest store's data folder here when all is measured, and writes the token keys beside it (DIR.keys); of the same
    /// file system as /var/tmp
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

const AGENTS: u64 = 4;

/// Events that are made before the clock starts, and then delivered.
const SLICE: u64 = 2_000_000;

/// The time that events are of.
const SPAN: Duration = Duration::from_secs(90 * 86_400);

/// How long the store may take to have what was acknowledged.
const PATIENCE: Duration = Duration::from_secs(120);

/// Behind so long without another day put together, all are.
const SETTLED: Duration = Duration::from_secs(75);

const DAY_NS: i64 = 86_400_000_000_000;

/// A customer of whom much is known, and one of whom hardly anything is.
const OFTEN: u64 = 0;
const SELDOM: u64 = made::CUSTOMERS * 9 / 10;

pub(crate) async fn run(args: &Args) -> Result<()> {
    progress(&machine());
    let largest = if args.quick { 300_000 } else { args.events };
    let mixed = mixed(args).await?;
    progress(&format!(
        "recorded conversations: {mixed:.1} bytes an event in Parquet"
    ));
    let mut sizes = Vec::new();
    let smaller = [largest / 100, largest / 10];
    let smaller = smaller.into_iter().filter(|_| !args.only_largest);
    for events in smaller.chain([largest]) {
        let keep = args.keep.as_deref().filter(|_| events == largest);
        sizes.push(of_size(args, events, keep).await?);
    }
    let figures = json!({
        "mixed_bytes_per_event": rounded(mixed, 1),
        "sizes": sizes,
        "machine": machine(),
        "build": args.build,
        "quick": args.quick,
    });
    if args.json {
        println!("{figures}");
    } else {
        println!("{figures:#}");
    }
    Ok(())
}

/// Bytes of Parquet an event of the recorded conversations.
async fn mixed(args: &Args) -> Result<f64> {
    let tape = tape(&args.recordings)?;
    let events = if args.quick { SLICE / 20 } else { SLICE };
    let mut agents = vec![Agent::new("recorded", &tape, events)?];
    let sent = agents.iter().map(|agent| agent.events).sum::<u64>();
    let mut collector = Collector::start(&args.collector).await?;
    deliver(&collector.socket(), &mut agents, None)
        .await
        .with_context(|| collector.said())?;
    collector.stop().await?;
    Ok(bytes_in(&collector.data().join("store"))? as f64 / sent as f64)
}

async fn of_size(args: &Args, events: u64, keep: Option<&Path>) -> Result<Value> {
    let now_ns = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_nanos() as u64;
    let mut makers: Vec<Maker> = (0..AGENTS)
        .map(|number| Maker::new(number, events / AGENTS, now_ns, SPAN.as_nanos() as u64))
        .collect::<Result<_>>()?;
    let mut collector = Collector::start(&args.collector).await?;
    let before = collector.figures()?;
    let (mut sent, mut batches, mut busy) = (0, 0, Duration::ZERO);
    while sent < events {
        let slice = SLICE.min(events - sent).div_ceil(AGENTS);
        let mut agents: Vec<Agent> = makers.iter_mut().map(|maker| maker.make(slice)).collect();
        sent += agents.iter().map(|agent| agent.events).sum::<u64>();
        let begun = Instant::now();
        let taken = deliver(&collector.socket(), &mut agents, None)
            .await
            .with_context(|| collector.said())?;
        batches += taken.batches;
        shown(&collector, batches).await?;
        busy += begun.elapsed();
        progress(&format!(
            "{sent} of {events} events: {:.0} events/s, made ready for questions",
            sent as f64 / busy.as_secs_f64()
        ));
    }
    let cpu = collector.figures()?.cpu_seconds - before.cpu_seconds;
    let peak = collector.peak_mib().context("the collector's memory")?;
    let uses = put_together(&collector).await?;
    let status = collector.ask("/api/v1/status", None)?;
    collector.restart().await?;
    let cold = forget();
    let idle = collector.peak_mib().context("the collector's memory")?;
    let mut figures = json!({
        "events": sent,
        "indexed_per_second": rounded(sent as f64 / busy.as_secs_f64(), 0),
        "collector_cpu_us_per_event": rounded(cpu * 1e6 / sent as f64, 2),
        "parquet_bytes_per_event": rounded(bytes_in(&collector.data().join("store"))? as f64 / sent as f64, 1),
        "files": status.pointer("/store/sealed_files"),
        "uses_seconds": uses,
        "rows_in_uses": status.pointer("/store/rows_in_uses"),
        "rss_mib_ingesting": peak,
        "rss_mib_started": idle,
        "page_cache_dropped": cold,
    });
    let keys = Keys::parse(made::KEYS)?;
    let who = |customer: u64| {
        let token: String = made::token(&keys, customer)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        json!({
            "object": made::OBJECT,
            "column": made::COLUMN,
            "tokens": [{"key": keys.active().id(), "family": Family::Integer.name(), "token": token}],
        })
    };
    for (name, path, body) in [
        ("who_seldom", "/api/v1/who", Some(who(SELDOM))),
        ("who_often", "/api/v1/who", Some(who(OFTEN))),
        ("overview", "/api/v1/overview?since=24h", None),
        ("principals", "/api/v1/principals?since=24h", None),
        ("newest", "/api/v1/events?limit=100", None),
        (
            "new_edges",
            "/api/v1/new-edges",
            Some(json!({"since_ns": now_ns as i64 - DAY_NS})),
        ),
        ("overview_of_all", "/api/v1/overview?since=90d", None),
    ] {
        // Each as the first one that is asked, of a collector that has started and come to rest.
        collector.restart().await?;
        collector.ask("/api/v1/status", None)?;
        collector.settled().await?;
        forget();
        let mut took = Vec::new();
        for _ in 0..2 {
            let begun = Instant::now();
            let answer = collector.ask(path, body.as_ref())?;
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
            ensure!(answer.get("error").is_none(), "{path}: {answer}");
        }
        progress(&format!("{events} events: {name}: {took:.0?} ms"));
        if let Some(figures) = figures.as_object_mut() {
            figures.insert(
                format!("{name}_ms"),
                took.iter().map(|ms| rounded(*ms, 0)).collect(),
            );
        }
    }
    collector.stop().await?;
    if let Some(folder) = keep {
        fs::rename(collector.data(), folder)
            .with_context(|| format!("cannot move the data to {}", folder.display()))?;
        let file = folder.with_extension("keys");
        fs::write(&file, made::KEYS)
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("cannot write {}", file.display()))?;
        progress(&format!(
            "kept: {}, and the token keys in {}",
            folder.display(),
            file.display()
        ));
    }
    Ok(figures)
}

/// Waits until all that was acknowledged can be asked about.
async fn shown(collector: &Collector, batches: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = collector.ask("/api/v1/status", None)?;
        let store = status.get("store").context("no status of the store")?;
        ensure!(
            store.get("behind_from").is_none_or(Value::is_null),
            "the store fell behind: {store}"
        );
        // The collector's own batches stand among them.
        let held = status.pointer("/evidence/batches").and_then(Value::as_u64);
        if held >= Some(batches) && store.get("entries").and_then(Value::as_u64) >= held {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the store does not follow: {store}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until days are put together; how long that took, in seconds.
async fn put_together(collector: &Collector) -> Result<Value> {
    let (begun, mut last) = (Instant::now(), (0, Instant::now()));
    loop {
        let status = collector.ask("/api/v1/status", None)?;
        let rows = status.pointer("/store/rows_in_uses").and_then(Value::as_u64);
        let rows = rows.context("no status of the store")?;
        if rows != last.0 {
            progress(&format!("{rows} events put together by the day"));
            last = (rows, Instant::now());
        }
        // They wait for a while in which nothing is added, and what is left is of hours that are not over.
        if last.1.elapsed() > SETTLED {
            return Ok(rounded(last.1.saturating_duration_since(begun).as_secs_f64(), 1));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Has the kernel forget what it read; whether it did.
fn forget() -> bool {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}
