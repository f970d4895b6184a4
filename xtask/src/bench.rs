//! `cargo xtask bench`: measurements. Built for release, which nothing else needs.

use std::process::{Command, ExitCode};

use clap::ValueEnum;

use crate::{build, setup, step};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one
    #[arg(value_enum)]
    name: Bench,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run, whose figures mean little
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// Recorded conversations through streams, protocol, sessions and meaning, on one core
    Decode,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    eprintln!("xtask: building for release");
    step::run(step::cargo().args(["build", "--release", "--locked", "--package", "pgwitness-bench"]))?;
    let mut command = Command::new(build::target().join("release").join("pgwitness-bench"));
    match args.name {
        Bench::Decode => command
            .arg("decode")
            .arg("--recordings")
            .arg(step::root().join("tests/recordings")),
    };
    command
        .args(args.json.then_some("--json"))
        .args(args.quick.then_some("--quick"));
    step::pass_on(&mut command)
}
