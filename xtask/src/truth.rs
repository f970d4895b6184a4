//! `cargo xtask truth`: the real thing, against a record that pgwitness did not make.

use std::process::{Command, ExitCode};

use clap::ValueEnum;

use crate::{build, setup, step};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one
    #[arg(long, value_enum, default_value = "local")]
    suite: Suite,
    /// The long form
    #[arg(long)]
    full: bool,
    /// Print one JSON object of counts as the last line
    #[arg(long)]
    json: bool,
    /// Leave what agent and collector wrote in place
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// Every statement of a dozen programs on this host: text, rows, outcome and name
    Local,
    /// The agent is killed under load, and no client notices
    Survive,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let programs = build::programs()?;
    let mut command = Command::new(programs.join("pgwitness-truth"));
    match args.suite {
        Suite::Local => {
            command
                .arg("local")
                .args(args.full.then_some("--full"))
                .args(args.keep.then_some("--keep"));
        }
        // It has one length.
        Suite::Survive => {
            command.arg("survive");
        }
    }
    command.args(args.json.then_some("--json"));
    step::pass_on(&mut command)
}
