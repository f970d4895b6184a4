//! Nothing that was acknowledged is lost, nothing that was recorded is changed unseen.
//!
//! Owns the list of parts and their sums. The witnesses: journals of the agents that deliver, and strace's record of what the
//! collector did to its files. The collector is the real program in every schedule.

mod agent;
mod disk;
mod erase;
mod judge;
mod live;
mod moves;
mod power;
mod scene;
mod tamper;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, json};
use tempfile::TempDir;

use self::agent::{Agent, Manners};
use self::scene::Collector;
use super::{Outcome, figures};
use crate::screen::progress;

/// What was found.
#[derive(Debug, Default)]
struct Sums {
    schedules: u64,
    /// Batches.
    acknowledged: u64,
    /// Batches that were acknowledged, and that the log does not hold.
    lost: u64,
    /// Events that the journals have.
    events: u64,
    /// Events that the store does not have.
    lost_events: u64,
    /// Events that the store has more than once, or that nobody sent.
    duplicated: u64,
    out_of_order: u64,
    /// Batches that stand in two logs, because their agent moved before it knew that the first had them.
    in_two_logs: u64,
    /// Times that an agent went to another collector.
    moved: u64,
    /// Logs that do not verify.
    unverified: u64,
    /// Starts over what a crash left that were refused.
    refused: u64,
    tamperings: u64,
    undetected: u64,
    /// Tamperings that were found in the file that was touched.
    named: u64,
    /// Events that were erased, or removed with their payloads.
    erased: u64,
    /// Places at which something of them was found afterwards.
    found: u64,
    /// Events that were not erased, and of which nothing was found: the search would be blind.
    unseen: u64,
    /// Proofs of other events, made before and after.
    proofs: u64,
    /// The others.
    elsewhere: Vec<String>,
    said: Vec<String>,
}

impl Sums {
    fn say(&mut self, words: &[String]) {
        self.said.extend_from_slice(words);
    }

    fn add(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.events += other.events;
        self.lost_events += other.lost_events;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.in_two_logs += other.in_two_logs;
        self.moved += other.moved;
        self.unverified += other.unverified;
        self.refused += other.refused;
        self.tamperings += other.tamperings;
        self.undetected += other.undetected;
        self.named += other.named;
        self.erased += other.erased;
        self.found += other.found;
        self.unseen += other.unseen;
        self.proofs += other.proofs;
        self.elsewhere.extend(other.elsewhere);
        self.said.extend(other.said);
    }

    fn is_good(&self) -> bool {
        self.lost == 0
            && self.lost_events == 0
            && self.duplicated == 0
            && self.out_of_order == 0
            && self.unverified == 0
            && self.refused == 0
            && self.undetected == 0
            && self.found == 0
            && self.unseen == 0
            && self.said.is_empty()
    }
}

const PARTS: [&str; 5] = ["power", "live", "moves", "tamper", "erase"];

/// Schedules and tries of the parts, in full and in short.
const FULL: [u64; 5] = [10_000, 1_000, 1_000, 12_000, 600];
const SHORT: [u64; 5] = [80, 12, 42, 160, 12];

/// States made of one traced run.
const STATES: u64 = 40;

/// Schedules at a time: they wait as much as they work.
const WORKERS: u64 = 3;

/// Runs the suite, or these parts of it; `seed` is where the schedules begin.
///
/// # Errors
/// When a part is named that there is not, or one cannot be run at all.
pub async fn run(full: bool, wanted: &[String], seed: u64) -> Result<Outcome> {
    if let Some(name) = wanted.iter().find(|name| !PARTS.contains(&name.as_str())) {
        bail!("there is no part {name}; there are: {}", PARTS.join(" "));
    }
    let began = Instant::now();
    let (mut parts, mut all) = (Vec::new(), Sums::default());
    for (name, count) in PARTS.into_iter().zip(if full { FULL } else { SHORT }) {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == name) {
            continue;
        }
        progress(&format!("{name}:"));
        let part = Instant::now();
        let sums = work(name, count, seed).await?;
        for said in sums.said.iter().take(40) {
            progress(&format!("  WRONG: {said}"));
        }
        for said in sums.elsewhere.iter().take(10) {
            progress(&format!("  elsewhere: {said}"));
        }
        let line = json!({
            "part": name,
            "passed": sums.is_good(),
            "schedules": sums.schedules,
            "events": sums.events,
            "tamperings": sums.tamperings,
            "named": sums.named,
            "erased": sums.erased,
            "found": sums.found,
            "refused": sums.refused,
            "moved": sums.moved,
            "in_two_logs": sums.in_two_logs,
            "seconds": part.elapsed().as_secs(),
        });
        progress(&format!("  {line}"));
        parts.push(line);
        all.add(sums);
    }
    let passed = all.is_good() && !parts.is_empty();
    let figures: Map<_, _> = figures(json!({
        "schedules": all.schedules,
        "acknowledged": all.acknowledged,
        "lost": all.lost + all.lost_events,
        "duplicated": all.duplicated,
        "out_of_order": all.out_of_order,
        "unverified": all.unverified,
        "refused": all.refused,
        "tamperings": all.tamperings,
        "undetected": all.undetected,
        "named": all.named,
        "erased": all.erased,
        "found": all.found,
        "unseen": all.unseen,
        "proofs": all.proofs,
        "events": all.events,
        "seed": seed,
        "parts": parts,
        "seconds": began.elapsed().as_secs(),
    }))?;
    Ok(Outcome { figures, passed })
}

/// Shares a part's schedules between workers, each with a thread and a runtime of its own.
async fn work(part: &'static str, count: u64, seed: u64) -> Result<Sums> {
    let stop = Arc::new(Stop::default());
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let flag = Arc::clone(&stop.0);
        workers.push(tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let stopped = || flag.load(Ordering::Relaxed);
            runtime.block_on(share(part, count, seed, worker, &stopped))
        }));
    }
    let mut sums = Sums::default();
    for worker in workers {
        sums.add(worker.await??);
    }
    Ok(sums)
}

/// Set when the suite is given up, so that the workers do not go on.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One worker's share of a part.
async fn share(part: &str, count: u64, seed: u64, worker: u64, stopped: &dyn Fn() -> bool) -> Result<Sums> {
    let mut sums = Sums::default();
    let mine = count / WORKERS + u64::from(worker < count % WORKERS);
    let first = seed + worker * 1_000_000;
    let mut told = Instant::now();
    let mut left = mine;
    if part == "tamper" {
        let victim = tamper::Victim::make(first, &mut sums).await?;
        while left > 0 && !stopped() {
            let some = left.min(200);
            victim.tries(first + left, some, &mut sums, stopped)?;
            left -= some;
            tell(&mut told, part, mine - left, mine);
        }
        return Ok(sums);
    }
    let mut number = first;
    while left > 0 && !stopped() {
        let some = if part == "power" { left.min(STATES) } else { 1 };
        let ran = match part {
            "power" => power::run(number, some, &mut sums, stopped).await,
            "moves" => moves::run(number, &mut sums).await,
            "erase" => erase::run(number, &mut sums).await,
            _ => live::run(number, &mut sums).await,
        };
        ran.with_context(|| format!("{part}, seed {number}"))?;
        number += 1;
        left -= some;
        tell(&mut told, part, mine - left, mine);
    }
    Ok(sums)
}

/// How far one worker is, from time to time.
fn tell(told: &mut Instant, part: &str, done: u64, of: u64) {
    if told.elapsed() > Duration::from_secs(20) {
        *told = Instant::now();
        progress(&format!("  {part}: {done} of {of} (one of {WORKERS} workers)"));
    }
}

/// Delivers all that is not acknowledged yet; a collector that cannot take it within some attempts is a fault.
async fn deliver(collector: &mut Collector, agents: &mut [Agent], sums: &mut Sums) -> Result<()> {
    let socket = collector.socket();
    for agent in agents {
        let mut last = None;
        for _ in 0..5 {
            if let Err(error) = agent.converse(0, &socket, Manners::GOOD).await {
                last = Some(error);
            }
            if agent.is_through() {
                break;
            }
        }
        if !agent.is_through() {
            let said = last.map_or_else(String::new, |error| format!("{error:#}"));
            sums.say(&[format!(
                "{} cannot deliver: {said}; {}",
                agent.id,
                collector.said().lines().last().unwrap_or("")
            )]);
        }
    }
    Ok(())
}

/// In memory where there is such a folder: nothing here depends on a real disk.
fn folder(name: &str) -> Result<TempDir> {
    let prefix = format!("pgwitness-{name}-");
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        TempDir::with_prefix_in(prefix, memory)
    } else {
        TempDir::with_prefix(prefix)
    };
    folder.context("making a folder")
}

/// Leaves a folder in place, and says where.
fn keep(folder: TempDir) {
    progress(&format!("  kept: {}", folder.keep().display()));
}
