//! `pgwitness-bench`: measurements, of the pure crates on recorded conversations and of the whole on a real server.
//! Built for release by `cargo xtask bench`.
//!
//! Owns the command line, Ctrl-C and the form of the figures. Separate from the truth suites, which are built with
//! everything and check, not measure.

mod counts;
mod decode;
mod figures;
mod identity;
mod ingest;
mod meaning;
mod outage;
mod overhead;
mod pooled;
mod soak;
mod store;
mod tape;

use std::{alloc::System, process::ExitCode};

use anyhow::bail;
use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::signal::unix::{SignalKind, signal};

/// Counts allocations, at the cost of two atomic additions for each.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures pgwitness.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Instructions a statement, by part, beside those of the last time
    Counts(counts::Args),
    /// One part of `counts`, which runs it under valgrind
    #[command(hide = true)]
    Part(counts::PartArgs),
    /// Recorded conversations through streams, protocol and sessions
    Decode(decode::Args),
    /// What the tap costs a database, beside no audit, pgAudit and the server's own log
    Overhead(overhead::Args),
    /// Full speed for a while: nothing may be lost; and with a ring that is too small, every lost byte must be told
    Soak(soak::Args),
    /// Fifty thousand processes held by the agent: what they take, and how fast a socket's owner gets its name
    Identity(identity::Args),
    /// Signed batches into a collector: verified, logged, synced, acknowledged; and how fast they are verified again
    Ingest(ingest::Args),
    /// Texts to meaning: known ones, never seen ones, and the worst of 1 MiB
    Meaning(meaning::Args),
    /// What it costs to follow a pooler's statements: the agent a statement, and the pooler's throughput
    Pooler(pooled::Args),
    /// An hour's worth of events while the collector is away: spooled, and then drained
    Spool(outage::Args),
    /// What answers take over very many events, and how fast events become ready for them
    Store(store::Args),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().bench {
        Bench::Counts(args) => to_the_end(counts::run(&args)),
        Bench::Part(args) => counts::part(&args),
        Bench::Decode(args) => decode::run(&args),
        Bench::Overhead(args) => to_the_end(overhead::run(&args)),
        Bench::Soak(args) => to_the_end(soak::run(&args)),
        Bench::Identity(args) => identity::run(&args),
        Bench::Ingest(args) => to_the_end(ingest::run(&args)),
        Bench::Meaning(args) => meaning::run(&args),
        Bench::Pooler(args) => to_the_end(pooled::run(&args)),
        Bench::Spool(args) => to_the_end(outage::run(&args)),
        Bench::Store(args) => to_the_end(store::run(&args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("pgwitness-bench: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it on one thread with all that it starts; a signal drops it, and everything ends.
fn to_the_end(bench: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = bench => outcome,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}
