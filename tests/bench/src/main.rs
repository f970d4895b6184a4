//! `pgwitness-bench`: measurements of the pure crates, on recorded conversations. Built for release by `cargo xtask bench`.
//!
//! Owns the command line and the form of the figures. Separate from the truth suites, which are built with everything
//! and check, not measure.

mod decode;
mod tape;

use std::alloc::System;

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

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
    /// Recorded conversations through streams, protocol and sessions
    Decode(decode::Args),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Decode(args) => decode::run(&args),
    }
}
