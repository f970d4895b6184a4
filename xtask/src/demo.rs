//! `cargo xtask demo`: the main job on real input.

use std::process::{Command, ExitCode};

use crate::{build, setup, step};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End by itself: print the trail, verify the evidence, and exit non-zero if anything is missing
    #[arg(long)]
    once: bool,
    /// Print the figures only
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let programs = build::programs()?;
    let mut command = Command::new(programs.join("pgwitness-truth"));
    command.arg("demo");
    command
        .args(args.once.then_some("--once"))
        .args(args.json.then_some("--json"));
    step::pass_on(&mut command)
}
