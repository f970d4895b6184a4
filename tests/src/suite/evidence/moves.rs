//! Agents that go from one collector to another and back, while one of both is killed or halted at random, and connections are cut.
//!
//! Owns the schedules, and the judgement over both logs: what a collector acknowledged is in its log and store, the chains of both logs
//! together are whole but for what the journals say was deleted, and every event that was acknowledged is there, once in each store that
//! has its batch. Agents change their keys on the way, and delete what nobody acknowledged, as a full spool does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::Sums;
use super::agent::{Agent, Manners, mark};
use super::live::cut;
use super::scene::Collector;
use crate::record::query_folder;

/// One schedule, all of it by its seed but for the timing of the machine.
///
/// # Errors
/// When it cannot be made.
pub(super) async fn run(seed: u64, sums: &mut Sums) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = super::folder("moves")?;
    let mut collectors = Vec::new();
    for name in ["one", "two"] {
        let own = folder.path().join(name);
        std::fs::create_dir(&own)?;
        let mut collector = Collector::new(&own)?;
        collector.start(&[]).await?;
        collectors.push(collector);
    }
    let sockets: Vec<PathBuf> = collectors.iter().map(Collector::socket).collect();
    // Connections to some are cut, so that acknowledgements are lost of what is stored.
    let (mut ways, mut cutters) = (sockets.clone(), Vec::new());
    for (way, number) in ways.iter_mut().zip(0..) {
        if random.gen_bool(0.5) {
            let front = folder.path().join(format!("front-{number}"));
            cutters.push(cut(&front, way, seed + number)?);
            *way = front;
        }
    }
    let mut agents: Vec<Agent> = (0..random.gen_range(1..=3_u64))
        .map(|number| Agent::new(&format!("truth-{number:03}"), seed * 1000 + number))
        .collect();
    let mut at: Vec<usize> = agents.iter().map(|_| random.gen_range(0..2)).collect();
    for _ in 0..random.gen_range(3..8) {
        for agent in &mut agents {
            work(agent, &mut random);
        }
        let plans: Vec<[usize; 3]> = at
            .iter()
            .map(|first| [*first, 1 - *first, if random.gen_bool(0.5) { 0 } else { 1 }])
            .collect();
        let talks = agents
            .iter_mut()
            .zip(&plans)
            .map(|(agent, plan)| go(agent, plan, &ways));
        let talks = futures::future::join_all(talks);
        let victim = random.gen_range(0..2_usize);
        let moment = Duration::from_micros(random.gen_range(0..40_000));
        let halts = random.gen_bool(0.3);
        let collector = collectors.get_mut(victim).context("a collector")?;
        let (ended, upset) = tokio::join!(talks, upset(collector, halts, moment));
        upset?;
        for ((at, ended), plan) in at.iter_mut().zip(ended).zip(&plans) {
            sums.moved += plan
                .iter()
                .take(ended.tried)
                .zip(plan.iter().skip(1))
                .filter(|(a, b)| a != b)
                .count() as u64;
            *at = ended.last;
        }
        for collector in &mut collectors {
            if !collector.runs() {
                collector.kill().await?;
                let started = collector.start(&[]).await;
                sums.refused += u64::from(started.is_err());
                started?;
            }
        }
    }
    let before = sums.said.len();
    sums.schedules += 1;
    finish(&mut agents, &at, &sockets, sums).await;
    for collector in &mut collectors {
        collector.stop().await?;
    }
    judge(&collectors, &agents, sums)?;
    if sums.said.len() > before {
        sums.say(&[format!("  (moves, seed {seed})")]);
        super::keep(folder);
    }
    Ok(())
}

/// What an agent does between two rounds.
fn work(agent: &mut Agent, random: &mut StdRng) {
    for _ in 0..random.gen_range(1..8) {
        match random.gen_range(0..12) {
            0 => agent.make_with_another_key(random.gen_range(1..5)),
            1 => {
                agent.give_up(random.gen_range(1..4));
                // As the sealing thread does: what is sealed next says so.
                agent.make(random.gen_range(1..5), 0);
            }
            _ => agent.make(
                random.gen_range(1..20),
                if random.gen_bool(0.2) { 2000 } else { 50 },
            ),
        }
    }
}

/// How an agent came through a round.
struct Ended {
    /// Collectors that it went to behind the first.
    tried: usize,
    /// The last of them.
    last: usize,
}

/// Delivers to these collectors, one after the other, until everything is acknowledged.
async fn go(agent: &mut Agent, plan: &[usize], sockets: &[PathBuf]) -> Ended {
    let mut ended = Ended { tried: 0, last: 0 };
    for (nth, by) in plan.iter().enumerate() {
        let Some(socket) = sockets.get(*by) else { break };
        (ended.tried, ended.last) = (nth, *by);
        // Why it broke is no fault of anybody's.
        _ = agent.converse(*by, socket, Manners::BAD).await;
        if agent.is_through() {
            break;
        }
    }
    ended
}

/// Kills the collector at that moment, or halts it for a while.
async fn upset(collector: &mut Collector, halts: bool, moment: Duration) -> Result<()> {
    tokio::time::sleep(moment).await;
    if !halts {
        return collector.kill().await;
    }
    collector.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(moment * 3).await;
    collector.signal(Signal::SIGCONT)
}

/// All is well from here on: each agent delivers what is left where it is, and greets both once more, so that what they hold is judged.
async fn finish(agents: &mut [Agent], at: &[usize], sockets: &[PathBuf], sums: &mut Sums) {
    for (agent, at) in agents.iter_mut().zip(at) {
        let mut said = None;
        for by in [*at, *at, 1 - *at, *at, 1 - *at] {
            let Some(socket) = sockets.get(by) else { continue };
            if let Err(problem) = agent.converse(by, socket, Manners::GOOD).await {
                said = Some(format!("{problem:#}"));
            }
        }
        if !agent.is_through() {
            sums.say(&[format!(
                "{} cannot deliver: {}",
                agent.id,
                said.unwrap_or_default()
            )]);
        }
    }
}

/// Compares both logs and stores with the journals.
fn judge(collectors: &[Collector], agents: &[Agent], sums: &mut Sums) -> Result<()> {
    let mut stores = Vec::new();
    for collector in collectors {
        let report = collector.verify(&collector.data(), &[])?;
        if !is_true(&report, "/ok") {
            sums.unverified += 1;
            sums.say(&[format!("verify: {}", report.get("wrong").unwrap_or(&report))]);
        }
        stores.push(store(collector, sums)?);
    }
    let together = verify_all(collectors)?;
    if !is_true(&together, "/ok") {
        sums.unverified += 1;
        sums.say(&[format!("verify --all: {together}")]);
    }
    sums.in_two_logs += number(&together, "/in_several");
    let made: u64 = agents.iter().map(|agent| agent.made.len() as u64).sum();
    let holes = together.pointer("/given_up").and_then(Value::as_array);
    let holes = holes.into_iter().flatten();
    let gone: u64 = holes
        .map(|hole| number(hole, "/to") + 1 - number(hole, "/from"))
        .sum();
    let own: u64 = stores.iter().map(|store| store.others).sum();
    if number(&together, "/batches") + gone != made + own {
        sums.say(&[format!("{made} batches were made: {together}")]);
    }
    for agent in agents {
        judge_agent(agent, &stores, sums);
    }
    Ok(())
}

/// One agent's journal against the stores.
fn judge_agent(agent: &Agent, stores: &[Store], sums: &mut Sums) {
    sums.acknowledged += agent.newest_acknowledged();
    sums.lost += agent.faults.lost;
    sums.out_of_order += agent.faults.out_of_order;
    sums.say(&agent.faults.said);
    let acknowledged: BTreeSet<(u64, usize)> = agent
        .acknowledged
        .iter()
        .map(|one| (one.sequence, one.by))
        .collect();
    let ends = agent.made.iter().skip(1).map(|made| made.first_event);
    let ends = ends.chain([agent.events() + 1]);
    for ((made, end), sequence) in agent.made.iter().zip(ends).zip(1..) {
        for seq in made.first_event..end {
            let event = (agent.id.clone(), seq);
            let mut found = 0;
            for (nth, store) in stores.iter().enumerate() {
                let times = store.events.get(&event).copied().unwrap_or(0);
                found += times;
                sums.duplicated += times.saturating_sub(1);
                if times == 0 && acknowledged.contains(&(sequence, nth)) {
                    sums.lost_events += 1;
                    sums.say(&[format!(
                        "{} event {seq} of batch {sequence} is not in the store of the collector that acknowledged it",
                        agent.id
                    )]);
                }
                if times > 1 {
                    sums.say(&[format!("{} event {seq} is {times} times in one store", agent.id)]);
                }
            }
            sums.events += 1;
            if found == 0 && !agent.gave_up(sequence) {
                sums.lost_events += 1;
                sums.say(&[format!("{} event {seq} is in no store", agent.id)]);
            }
        }
    }
}

/// What a collector's store has of the agents.
struct Store {
    /// How often each event is there.
    events: BTreeMap<(String, u64), u64>,
    /// Batches in its log that are the collector's own.
    others: u64,
}

fn store(collector: &Collector, sums: &mut Sums) -> Result<Store> {
    let sql = "SELECT agent, seq, session_id FROM events WHERE agent LIKE 'truth-%' ORDER BY agent, seq";
    let mut events = BTreeMap::new();
    for row in query_folder(collector.program(), &collector.data(), sql)? {
        let agent = row.get("agent").and_then(Value::as_str).context("no agent")?;
        let seq = row.get("seq").and_then(Value::as_u64).context("no seq")?;
        if row.get("session_id").and_then(Value::as_str) != Some(mark(agent, seq).as_str()) {
            sums.duplicated += 1;
            sums.say(&[format!("{agent} event {seq} is another one: {row}")]);
        }
        *events.entry((agent.to_owned(), seq)).or_insert(0) += 1;
    }
    let sql = "SELECT DISTINCT agent, batch_sequence FROM events WHERE agent NOT LIKE 'truth-%'";
    let others = query_folder(collector.program(), &collector.data(), sql)?.len() as u64;
    Ok(Store { events, others })
}

/// `verify --all` of both folders: its report.
fn verify_all(collectors: &[Collector]) -> Result<Value> {
    let first = collectors.first().context("a collector")?;
    let folders = collectors.iter().map(Collector::data);
    let output = Command::new(first.program())
        .args(["verify", "--json", "--all"])
        .args(folders)
        .output()
        .context("running pgwitness-collector verify --all")?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn number(of: &Value, pointer: &str) -> u64 {
    of.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn is_true(of: &Value, pointer: &str) -> bool {
    of.pointer(pointer).and_then(Value::as_bool) == Some(true)
}
