//! The power fails: a traced collector takes batches, and from what it did to its files every state is made that a disk may hold
//! afterwards. A collector that starts over such a state has to hold everything that was acknowledged before.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::agent::{Agent, Manners};
use super::disk::{self, Mood};
use super::judge::judge;
use super::scene::Collector;
use super::trace::{self, Done};
use super::{Sums, deliver};

/// One traced run, and `states` disks made from it.
///
/// # Errors
/// When the run itself cannot be made.
pub(super) async fn run(seed: u64, states: u64, sums: &mut Sums, stop: &dyn Fn() -> bool) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = super::folder("power")?;
    let (done, agents) = trace(folder.path(), seed, &mut random).await?;
    let from = folder.path().join("data");
    for number in 0..states {
        if stop() {
            return Ok(());
        }
        let count = random.gen_range(1..=done.len());
        let mood = match number % 4 {
            0 => Mood::Kept,
            1 => Mood::Gone,
            _ => Mood::Mixed,
        };
        let place = super::folder("state")?;
        disk::make(&done, count, mood, &mut random, &from, &empty(place.path())?)?;
        // As somebody elsewhere may have read it a moment before.
        let kept = disk::held(&done, count, &from.join("evidence/checkpoint"));
        let at_ns = done.get(count - 1).context("a moment")?.at_ns;
        sums.schedules += 1;
        let before = sums.said.len();
        again(place.path(), &agents, at_ns, kept, sums).await?;
        if sums.said.len() > before {
            sums.say(&[format!(
                "  (power, seed {seed}, state {number}, {count} of {} operations, {mood:?})",
                done.len()
            )]);
            super::keep(place);
        }
    }
    Ok(())
}

/// What a collector did to its files while agents delivered, and their journals.
async fn trace(folder: &Path, seed: u64, random: &mut StdRng) -> Result<(Vec<Done>, Vec<Agent>)> {
    let mut collector = Collector::new(folder)?;
    let record = folder.join("trace");
    let record_text = record.to_str().context("a path in UTF-8")?;
    // -D: the collector stays this program's child, so that it can be killed.
    let strace = [
        "strace",
        "-D",
        "-f",
        "-ttt",
        "-xx",
        "-s",
        "16000000",
        "-e",
        trace::CALLS,
        "-e",
        "signal=none",
        "-o",
        record_text,
    ];
    collector.start(&strace).await?;
    let mut agents = Vec::new();
    for number in 0..random.gen_range(1..=3_u64) {
        agents.push(Agent::new(&format!("truth-{number:03}"), seed * 1000 + number));
    }
    let rounds = random.gen_range(2..6);
    for _ in 0..rounds {
        let padding = *[0, 20, 400, 3000, 20_000]
            .get(random.gen_range(0..5))
            .unwrap_or(&0);
        for agent in &mut agents {
            for _ in 0..random.gen_range(1..8) {
                agent.make(random.gen_range(1..20), padding);
            }
        }
        let socket = collector.socket();
        let talks = agents
            .iter_mut()
            .map(|agent| agent.converse(0, &socket, Manners::BAD));
        // Whatever breaks goes on in the next round.
        _ = futures::future::join_all(talks).await;
    }
    let pid = collector.pid().context("no collector")?;
    let tracer = tracer(pid)?;
    if random.gen_bool(0.5) {
        collector.stop().await?;
    } else {
        collector.kill().await?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while Path::new(&format!("/proc/{tracer}")).exists() {
        if Instant::now() > deadline {
            bail!("strace does not end");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((
        trace::read(&fs::read_to_string(&record)?, &collector.data())?,
        agents,
    ))
}

/// Who traces a process.
fn tracer(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(line.context("no tracer")?.trim().parse()?)
}

/// A collector over what is left: it holds what was acknowledged before `at_ns`, takes the rest, and ends with all of it.
async fn again(
    place: &Path,
    agents: &[Agent],
    at_ns: u64,
    kept: Option<Vec<u8>>,
    sums: &mut Sums,
) -> Result<()> {
    let mut agents = agents.to_vec();
    for agent in &mut agents {
        agent.acknowledged.retain(|one| one.at_ns < at_ns);
        agent.faults = super::agent::Faults::default();
    }
    let mut collector = Collector::new(place)?;
    if let Err(error) = collector.start(&[]).await {
        sums.refused += 1;
        sums.say(&[format!("{error:#}")]);
        return Ok(());
    }
    deliver(&mut collector, &mut agents, sums).await?;
    if let Err(error) = collector.stop().await {
        sums.say(&[format!("{error:#}: {}", collector.said())]);
        sums.refused += 1;
        collector.signal(Signal::SIGKILL)?;
        return Ok(());
    }
    let checkpoint = place.join("kept");
    if let Some(kept) = &kept {
        fs::write(&checkpoint, kept)?;
    }
    judge(&collector, &agents, kept.is_some().then_some(&checkpoint), sums)
}

fn empty(place: &Path) -> Result<std::path::PathBuf> {
    let data = place.join("data");
    fs::create_dir(&data)?;
    Ok(data)
}
