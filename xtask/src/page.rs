//! `cargo xtask page`: builds the collector's page from `collector/page`. Nothing else takes Node: what is built is committed.

use std::process::{Command, ExitCode};

use anyhow::ensure;

use crate::step;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build into a temporary folder and compare with what is committed
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!(
        Command::new("npm")
            .arg("--version")
            .output()
            .is_ok_and(|npm| npm.status.success()),
        "this takes Node and npm (apt install npm); building the collector takes neither"
    );
    let npm = |words: &[&str]| {
        step::run(
            Command::new("npm")
                .args(words)
                .current_dir(step::root().join("collector/page")),
        )
    };
    npm(&["ci", "--no-audit", "--no-fund"])?;
    npm(&["run", if args.check { "check" } else { "build" }])?;
    npm(&["test"])?;
    Ok(ExitCode::SUCCESS)
}
