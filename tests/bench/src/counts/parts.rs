//! What is counted of the agent: one part, so many times, and nothing else that depends on how often.

use std::{path::PathBuf, sync::Arc};

use anyhow::ensure;
use clap::ValueEnum;
use evidence::Chain;
use pgwitness_agent::{
    clock::Clock,
    record::{Encoder, Gathered},
};
use proto::v1::Attribution;
use sql_meaning::Interpreter;
use tap_core::{Body, Settings};

use crate::{identity, meaning, tape::Tape};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which
    #[arg(value_enum)]
    part: Part,
    /// A recorded conversation
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// How often
    #[arg(long, default_value_t = 1)]
    times: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    /// Segments to messages and exchanges
    Protocol,
    /// The same, and on to events with their meaning
    Events,
    /// The same, and into the record's form
    Encode,
    /// The same, and into signed batches
    Seal,
    /// Never seen texts of known structure
    Meaning,
    /// Connections to the names of their owners
    Attribution,
}

/// Events in a batch, as agents have them at full speed.
const BATCH: usize = 2048;

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Events => "events",
            Self::Encode => "encode",
            Self::Seal => "seal",
            Self::Meaning => "meaning",
            Self::Attribution => "attribution",
        }
    }
}

/// Does it, and prints how many statements, texts or connections that were.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let done = match args.part {
        Part::Meaning => texts(args.times),
        Part::Attribution => identity::look_up(args.times)?,
        part => statements(part, args)?,
    };
    ensure!(done > 0, "there was nothing to do");
    println!("{done}");
    Ok(())
}

fn statements(part: Part, args: &Args) -> anyhow::Result<u64> {
    let tape = Tape::read(&args.recording)?;
    let mut statements = 0;
    // Counted beforehand, whatever is counted: it is the same each time.
    tape.play(Settings::default(), &mut |event| {
        statements += u64::from(matches!(event.body, Body::Query(_)));
    });
    for _ in 0..args.times {
        match part {
            Part::Protocol => tape.play_protocol(&mut |output| {
                std::hint::black_box(&output);
            }),
            Part::Events => tape.play(Settings::default(), &mut |event| {
                std::hint::black_box(&event);
            }),
            _ => record(&tape, matches!(part, Part::Seal)),
        }
    }
    Ok(statements * u64::from(args.times))
}

/// From segments to what waits to be sealed, or is: all of it, so that a statement costs the same however many there are.
fn record(tape: &Tape, sealed: bool) {
    let attribution = Arc::new(Attribution {
        principal: "spiffe://localhost/unit/shop-api.service".to_owned(),
        method: "tcp-owner".to_owned(),
        ..Attribution::default()
    });
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let (mut encoder, mut chain) = (Encoder::default(), Chain::new("bench"));
    let (mut open, mut made) = (Gathered::default(), 1);
    let clock = Clock::of_offset(1_790_000_000_000_000_000);
    let mut close = |open: &mut Gathered| {
        let Gathered {
            contents,
            first_ns,
            last_ns,
            ..
        } = std::mem::take(open);
        let events = contents.len() as u64;
        if sealed && events > 0 {
            let batch = evidence::seal(&mut chain, &key, contents, made, first_ns, last_ns, None, [7; 32]);
            std::hint::black_box(&batch);
        } else {
            std::hint::black_box(&contents);
        }
        made += events;
    };
    tape.play(Settings::default(), &mut |event| {
        open.add(encoder.encode(&event, Some(&attribution), clock, "bench"));
        if open.contents.len() >= BATCH {
            close(&mut open);
        }
    });
    close(&mut open);
}

fn texts(times: u32) -> u64 {
    // All of them, however many are read.
    let rounds: Vec<Vec<String>> = (0..ROUNDS)
        .map(|round| meaning::other_values(round, TEXTS))
        .collect();
    let mut interpreter = Interpreter::default();
    let mut done = 0;
    for text in rounds.iter().take(times as usize).flatten() {
        std::hint::black_box(interpreter.interpret(text.as_bytes()));
        done += 1;
    }
    done
}

/// Rounds of texts that are made, and texts of each structure in one.
const ROUNDS: usize = 3;
const TEXTS: usize = 500;
