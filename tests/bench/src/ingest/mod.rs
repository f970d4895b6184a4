//! What a collector takes in: signed batches verified, logged, synced and acknowledged, and how fast `verify` reads them again.
//!
//! The batches are real: recorded conversations of pgbench through the agent's own pipeline, encoder and seal, made before the clock
//! starts. Agents and collector share the machine; what the agents' end of the connections takes is in the figures.

mod agents;
mod collector;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pgwitness_tests::screen::progress;
use serde_json::json;

pub(crate) use self::agents::{Agent, deliver, tape};
pub(crate) use self::collector::Collector;
use crate::figures::{machine, median, rounded};

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
    /// How often the highest rate is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

/// Agents that send as fast as they can.
const AGENTS: u64 = 4;

/// Events of each of them in a round.
const EVENTS: u64 = 500_000;

/// Agents that are connected at once for the measurement of memory: the design's largest installation.
const MANY: u64 = 1000;

/// How long a tenth of the highest rate is kept up.
const CALM: Duration = Duration::from_secs(10);

const ROUNDS: usize = 5;

pub(crate) async fn run(args: &Args) -> Result<()> {
    let (rounds, events) = if args.quick {
        (1, EVENTS / 10)
    } else {
        (args.rounds.unwrap_or(ROUNDS).max(1), EVENTS)
    };
    progress(&machine());
    let tape = tape(&args.recordings)?;
    let mut highest = Vec::new();
    let (mut fsyncs, mut verified, mut bytes, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut senders: Vec<Agent> = (0..AGENTS)
            .map(|number| Agent::new(&format!("bench-{number}"), &tape, events))
            .collect::<Result<_>>()?;
        let sent: u64 = senders.iter().map(|agent| agent.events).sum();
        let mut collector = Collector::start(&args.collector).await?;
        let before = collector.figures()?;
        let taken = deliver(&collector.socket(), &mut senders, None)
            .await
            .with_context(|| collector.said())?;
        let after = collector.figures()?;
        ensure!(
            taken.acknowledged == taken.batches,
            "{} of {} batches acknowledged",
            taken.acknowledged,
            taken.batches
        );
        collector.stop().await?;
        let rate = sent as f64 / taken.seconds;
        highest.push(rate);
        fsyncs.push((after.fsyncs - before.fsyncs) as f64 / taken.seconds);
        cpu.push((after.cpu_seconds - before.cpu_seconds) * 1e6 / sent as f64);
        bytes.push(collector.bytes()? as f64 / sent as f64);
        let seconds = collector.verify(sent)?;
        verified.push(sent as f64 / seconds);
        progress(&format!(
            "round {} of {rounds}: {rate:.0} events/s, {:.2} us of processor time an event, verify {:.0} events a second and core",
            round + 1,
            cpu.last().unwrap_or(&f64::NAN),
            verified.last().unwrap_or(&f64::NAN)
        ));
    }
    let rate = median(&highest);
    let calm = if args.quick { CALM / 5 } else { CALM };
    let mut late = calmly(args, &tape, rate / 10.0, calm).await?;
    late.sort_by(f64::total_cmp);
    let p99 = late.get(late.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    let (idle_mib, many_mib) = many(args, &tape).await?;
    let figures = json!({
        "events_per_second": rounded(rate, 0),
        "bytes_per_event": rounded(median(&bytes), 1),
        "fsyncs_per_second": rounded(median(&fsyncs), 0),
        "ack_p99_ms": rounded(p99, 1),
        "verify_events_per_second": rounded(median(&verified), 0),
        "collector_cpu_us_per_event": rounded(median(&cpu), 2),
        "calm_events_per_second": rounded(rate / 10.0, 0),
        "calm_acks": late.len(),
        "agents_connected": MANY,
        "rss_mib_idle": idle_mib,
        "rss_mib_agents_connected": many_mib,
        "rounds": rounds,
        "events_a_round": AGENTS * events,
        "machine": machine(),
        "build": args.build,
        "quick": args.quick,
    });
    if args.json {
        println!("{figures}");
    } else {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    }
    Ok(())
}

/// Milliseconds from sending a batch to its acknowledgement, at so many events a second.
async fn calmly(args: &Args, tape: &agents::Tape, rate: f64, time: Duration) -> Result<Vec<f64>> {
    let events = (rate * time.as_secs_f64() / AGENTS as f64) as u64;
    let mut senders: Vec<Agent> = (0..AGENTS)
        .map(|number| Agent::of_small(&format!("bench-{number}"), tape, events))
        .collect::<Result<_>>()?;
    let mut collector = Collector::start(&args.collector).await?;
    let taken = deliver(&collector.socket(), &mut senders, Some(time))
        .await
        .with_context(|| collector.said())?;
    collector.stop().await?;
    ensure!(!taken.late_ms.is_empty(), "nothing was acknowledged");
    Ok(taken.late_ms)
}

/// The collector's memory at its highest with nobody, and with very many agents that have delivered and stay.
async fn many(args: &Args, tape: &agents::Tape) -> Result<(u64, u64)> {
    let mut collector = Collector::start(&args.collector).await?;
    let idle = collector.peak_mib().context("the collector's memory")?;
    let mut senders: Vec<Agent> = (0..MANY)
        .map(|number| Agent::of_small(&format!("bench-{number}"), tape, 600))
        .collect::<Result<_>>()?;
    let taken = deliver(&collector.socket(), &mut senders, Some(CALM))
        .await
        .with_context(|| collector.said())?;
    ensure!(
        taken.acknowledged == taken.batches,
        "{} of {} batches acknowledged",
        taken.acknowledged,
        taken.batches
    );
    let many = collector.peak_mib().context("the collector's memory")?;
    collector.stop().await?;
    Ok((idle, many))
}
