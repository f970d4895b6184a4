//! How fast recorded conversations become exchanges and events, on one core.
//!
//! Each case is played again and again; both figures of a case are measured in turns, so that whatever else the machine
//! does hits both. `statements_per_second` of a case is for the whole pipeline, up to query events with their meaning;
//! `protocol` is streams, messages and exchanges alone.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};
use stats_alloc::Region;
use tap_core::{Body, Settings};

use crate::{
    ALLOCATOR,
    figures::{machine, median},
    tape::Tape,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the recordings are
    #[arg(long)]
    recordings: PathBuf,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

/// The conversations; the first is the main one.
const CASES: [&str; 5] = [
    "pgbench-prepared",
    "pgbench-extended",
    "pgbench-simple",
    "wide",
    "copy",
];

/// Turns of each case, and the least time of one.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(300);

struct Figures {
    statements: u64,
    bytes: u64,
    rounds: usize,
    whole: Vec<f64>,
    protocol: Vec<f64>,
    allocations: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut cases = Map::new();
    let mut main = None;
    eprintln!("{}", machine());
    for name in CASES {
        let path = args.recordings.join(format!("{name}.segments.zst"));
        let figures = measure(&path, args.quick).with_context(|| name.to_owned())?;
        let case = json!({
            "statements_per_second": figures.statements_per_second(&figures.whole),
            "bytes_per_second": figures.bytes_per_second(&figures.whole),
            "protocol": {
                "statements_per_second": figures.statements_per_second(&figures.protocol),
                "bytes_per_second": figures.bytes_per_second(&figures.protocol),
            },
            "spread": spread(&figures.whole),
            "allocations_per_statement": (figures.allocations * 100.0).round() / 100.0,
            "bytes_per_statement": figures.bytes / figures.statements.max(1),
            "rounds": figures.rounds,
        });
        eprintln!("{name}: {case}");
        main.get_or_insert_with(|| case.clone());
        cases.insert(name.to_owned(), case);
    }
    let main = main.unwrap_or_default();
    let of_main = |key: &str| main.get(key).cloned().unwrap_or_default();
    let result = json!({
        "statements_per_second": of_main("statements_per_second"),
        "bytes_per_second": of_main("bytes_per_second"),
        "allocations_per_statement": of_main("allocations_per_statement"),
        "quick": args.quick,
        "machine": machine(),
        "cases": cases,
    });
    if args.json {
        println!("{result}");
    } else {
        print(&cases);
    }
    Ok(())
}

fn measure(path: &Path, quick: bool) -> anyhow::Result<Figures> {
    let tape = Tape::read(path)?;
    let mut statements = 0;
    let region = Region::new(ALLOCATOR);
    tape.play(Settings::default(), &mut |event| {
        statements += u64::from(matches!(event.body, Body::Query(_)));
    });
    let allocations = region.change().allocations as f64;
    ensure!(statements > 0, "the recording holds no statement");
    let (rounds, least) = if quick { (1, ROUND / 10) } else { (ROUNDS, ROUND) };
    let (mut whole, mut protocol) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if std::io::stderr().is_terminal() {
            eprint!("\r  round {} of {rounds} ", round + 1);
        }
        whole.push(seconds(least, || {
            tape.play(Settings::default(), &mut |event| {
                std::hint::black_box(&event);
            });
        }));
        protocol.push(seconds(least, || {
            tape.play_protocol(&mut |output| {
                std::hint::black_box(&output);
            });
        }));
    }
    Ok(Figures {
        statements,
        bytes: tape.bytes,
        rounds,
        whole,
        protocol,
        allocations: allocations / statements as f64,
    })
}

/// Seconds that one call takes, by as many as fill the time.
fn seconds(least: Duration, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0_u32;
    while start.elapsed() < least {
        call();
        calls += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(calls.max(1))
}

impl Figures {
    fn statements_per_second(&self, times: &[f64]) -> u64 {
        (self.statements as f64 / median(times)) as u64
    }

    fn bytes_per_second(&self, times: &[f64]) -> u64 {
        (self.bytes as f64 / median(times)) as u64
    }
}

/// Slowest over fastest round.
fn spread(times: &[f64]) -> f64 {
    let slowest = times.iter().copied().fold(f64::MIN, f64::max);
    let fastest = times.iter().copied().fold(f64::MAX, f64::min);
    (slowest / fastest * 100.0).round() / 100.0
}

fn print(cases: &Map<String, Value>) {
    println!("per core, medians; `pipeline` up to query events, `protocol` up to exchanges");
    println!(
        "{:<18} {:>14} {:>10} {:>14} {:>10} {:>12}",
        "conversation", "pipeline st/s", "MB/s", "protocol st/s", "MB/s", "allocations"
    );
    for (name, case) in cases {
        let number = |pointer: &str| case.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
        println!(
            "{name:<18} {:>14.0} {:>10.0} {:>14.0} {:>10.0} {:>12.2}",
            number("/statements_per_second"),
            number("/bytes_per_second") / 1e6,
            number("/protocol/statements_per_second"),
            number("/protocol/bytes_per_second") / 1e6,
            number("/allocations_per_statement"),
        );
    }
}
