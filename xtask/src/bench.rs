//! `cargo xtask bench`: measurements. What is measured is built for release, which nothing else needs; but for the
//! collector, whose query engine takes many minutes to optimise: without `--release-collector` it is measured as it is built for
//! everything else, with what each event passes through optimised and the rest lightly, so that its figures are an upper bound.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

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
    /// `overhead`: only this workload (can be given several times); `soak`: this one all the time
    #[arg(long, value_name = "NAME")]
    workload: Vec<String>,
    /// `overhead`, `pooler`, `ingest`: how often everything is measured
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// `overhead`: agent and collector on a processor of their own
    #[arg(long)]
    pinned: bool,
    /// The collector built for release, too: the first time that takes a quarter of an hour and more
    #[arg(long)]
    release_collector: bool,
    /// `counts`: what is counted now is what is expected from here on
    #[arg(long)]
    bless: bool,
    /// `store`: events of the largest one
    #[arg(long, value_name = "N")]
    events: Option<u32>,
    /// `store`: where the largest one's data folder is moved to when all is measured
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// `soak`: how long
    #[arg(long, value_name = "N")]
    minutes: Option<u32>,
    /// `soak`: connections at full speed
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// Recorded conversations through streams, protocol, sessions and meaning, on one core
    Decode,
    /// What the tap costs a database, beside no audit, pgAudit and the server's own log
    Overhead,
    /// Full speed for a while: nothing may be lost, and with a ring that is too small, every lost byte must be told
    Soak,
    /// Fifty thousand processes held by the agent: what they take, and how fast a socket's owner gets its name
    Identity,
    /// Signed batches into a collector: verified, logged, synced, acknowledged; and how fast they are verified again
    Ingest,
    /// Texts to meaning: known ones, never seen ones, and the worst of 1 MiB
    Meaning,
    /// What it costs to follow a pooler's statements: the agent a statement, and the pooler's throughput
    Pooler,
    /// An hour's worth of events while the collector is away: spooled, and then drained
    Spool,
    /// A hundred million events, and what answers take over them; a tenth and a hundredth of them, too
    Store,
    /// Instructions a statement, by part, beside those of the last time: what no machine's noise hides
    Counts,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let mut command = Command::new(release("pgwitness-bench")?);
    match args.name {
        Bench::Decode => command
            .arg("decode")
            .arg("--recordings")
            .arg(step::root().join("tests/recordings")),
        Bench::Overhead => {
            command.arg("overhead");
            programs(args, &mut command)?
                .args(["--build", how(args)])
                .args(args.workload.iter().flat_map(|name| ["--workload", name]))
                .args(flag("--rounds", args.rounds))
                .args(args.pinned.then_some("--pinned"))
        }
        Bench::Identity => command.arg("identity"),
        Bench::Ingest => {
            command.arg("ingest").arg("--collector").arg(collector(args)?);
            command
                .arg("--recordings")
                .arg(step::root().join("tests/recordings"))
                .args(["--build", how(args)])
                .args(flag("--rounds", args.rounds))
        }
        Bench::Meaning => command.arg("meaning"),
        Bench::Pooler => {
            command.arg("pooler");
            programs(args, &mut command)?
                .args(["--build", how(args)])
                .args(flag("--rounds", args.rounds))
        }
        Bench::Spool => {
            command.arg("spool");
            command
                .arg("--collector")
                .arg(collector(args)?)
                .arg("--recordings")
                .arg(step::root().join("tests/recordings"))
        }
        Bench::Store => {
            command.arg("store").arg("--collector").arg(collector(args)?);
            command
                .arg("--recordings")
                .arg(step::root().join("tests/recordings"))
                .args(["--build", how(args)])
                .args(flag("--events", args.events))
                .args(flag("--keep", args.keep.as_deref().map(Path::display)))
        }
        Bench::Counts => command
            .arg("counts")
            .arg("--collector")
            .arg(collector(args)?)
            .arg("--recordings")
            .arg(step::root().join("tests/recordings"))
            .arg("--expected")
            .arg(step::root().join("tests/bench/counts.json"))
            .args(args.bless.then_some("--bless")),
        Bench::Soak => {
            command.arg("soak");
            programs(args, &mut command)?
                .args(flag("--minutes", args.minutes))
                .args(flag("--connections", args.connections))
                .args(args.workload.iter().flat_map(|name| ["--workload", name]))
        }
    };
    command
        .args(args.json.then_some("--json"))
        .args(args.quick.then_some("--quick"));
    step::pass_on(&mut command)
}

/// The agent and the collector to measure.
fn programs<'a>(args: &Args, command: &'a mut Command) -> anyhow::Result<&'a mut Command> {
    let agent = release("pgwitness-agent")?;
    let collector = collector(args)?;
    Ok(command
        .arg("--agent")
        .arg(agent)
        .arg("--collector")
        .arg(collector))
}

/// The collector to measure.
fn collector(args: &Args) -> anyhow::Result<PathBuf> {
    if args.release_collector {
        return release("pgwitness-collector");
    }
    // With the whole workspace: alone its query engine would be built with other features, all of it anew.
    step::run(build::linting().args(["build", "--locked", "--workspace"]))?;
    Ok(build::target().join("debug").join("pgwitness-collector"))
}

/// How those were built, in words.
fn how(args: &Args) -> &'static str {
    if args.release_collector {
        "release"
    } else {
        "agent: release; collector: dev, hot crates at opt-level 3"
    }
}

/// Builds one program for release; where it is.
fn release(package: &str) -> anyhow::Result<PathBuf> {
    eprintln!("xtask: building {package} for release");
    step::run(step::cargo().args(["build", "--release", "--locked", "--package", package]))?;
    Ok(build::target().join("release").join(package))
}

fn flag(name: &str, value: Option<impl std::fmt::Display>) -> Vec<String> {
    value.map_or_else(Vec::new, |value| vec![name.to_owned(), value.to_string()])
}
