//! `cargo xtask truth`: the real thing, against a record that pgwitness did not make.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::ensure;
use clap::ValueEnum;

use crate::{build, image, oracle, poolers, regress, servers, setup, step};

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
    /// Only this part of the suites `local`, `loss`, `evasion`, `identity`, `evidence`, `meaning`, `volume`, `pooler`, `wire` (can be given several times)
    #[arg(long, value_name = "NAME")]
    part: Vec<String>,
    /// The way that every program of the suite `wire` takes: unix, tcp, tls, gss [default: each its own]
    #[arg(long, value_name = "WAY")]
    transport: Option<String>,
    /// The agent's way into the kernel in the suite `wire`: auto, a, b [default: auto]
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    /// Where the schedules of the suite `evidence` begin: another number is another set of them [default: 1]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Go on where an interrupted run of the suite `wire` ended
    #[arg(long)]
    resume: bool,
    /// In the suites `local` and `pooler`, run agents from their image under runc, with what the DaemonSet gives them
    #[arg(long)]
    contained: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// Every statement of a dozen programs on this host: text, rows, outcome and name; sessions older than the agent;
    /// an agent that ends and begins again; `--full` is every way to the server and into the kernel
    Local,
    /// The agent is killed under load, sleeps, has no disk, no collector, or gets garbage, and no client notices
    Survive,
    /// Every way in which bytes can escape the tap is provoked, and told
    Loss,
    /// Clients and processes that try to hide are told of, and hide nobody else
    Evasion,
    /// Services, people, containers, short lives, reused pids, passed sockets and relays: every client gets its own
    /// name; `--full` is more than 20,000 connections
    Identity,
    /// Crashes, failing disks and cut connections between agents and a collector, then tampering with what it wrote: nothing
    /// acknowledged is lost, nothing is changed unseen; `--full` is ten thousand schedules
    Evidence,
    /// Equal statements are put together and others left out by a policy, and each counts; `--full` measures what a statement
    /// takes then
    Volume,
    /// Class and objects of each statement against pgAudit's, fingerprints against the server's own grammar, and a search
    /// for secrets; `--full` is the whole regression suite and a hundred thousand secrets
    Meaning,
    /// Names of pods in a real cluster, held against what Kubernetes says, while pods come and go and the way to the API server
    /// breaks; `--full` is five thousand connections. Takes what `cargo xtask setup --kubernetes` builds
    Kubernetes,
    /// Two hundred clients share one role over five connections of a pooler: each statement goes back to who sent it;
    /// `--full` is half a million of them, through every pooler in every mode
    Pooler,
    /// Clients of many kinds: every statement, its parameters, rows and outcome; `--full` is every server version
    Wire,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!(
        !args.contained || matches!(args.suite, Suite::Local | Suite::Pooler),
        "--contained is for the suites local and pooler"
    );
    setup::ensure()?;
    let programs = build::programs()?;
    let mut command = Command::new(programs.join("pgwitness-truth"));
    match args.suite {
        Suite::Local => parts("local", args, &mut command),
        Suite::Survive => {
            command.arg("survive").args(args.full.then_some("--full"));
        }
        Suite::Loss => parts("loss", args, &mut command),
        Suite::Evasion => parts("evasion", args, &mut command),
        Suite::Identity => parts("identity", args, &mut command),
        Suite::Evidence => {
            command.arg("evidence").args(args.full.then_some("--full"));
            for part in &args.part {
                command.args(["--part", part]);
            }
            if let Some(seed) = args.seed {
                command.args(["--seed", &seed.to_string()]);
            }
        }
        Suite::Kubernetes => {
            command
                .arg("kubernetes")
                .args(args.full.then_some("--full"))
                .args(args.keep.then_some("--keep"));
        }
        Suite::Volume => parts("volume", args, &mut command),
        Suite::Meaning => {
            parts("meaning", args, &mut command);
            meaning_folders(args.full, &mut command);
        }
        Suite::Pooler => {
            parts("pooler", args, &mut command);
            pooler_folders(&mut command);
        }
        Suite::Wire => wire(args, &mut command),
    }
    if args.contained {
        command.arg("--contained").arg(image::bundle(&programs)?);
    }
    command.args(args.json.then_some("--json"));
    step::pass_on(&mut command)
}

/// A suite of parts that needs nothing from outside.
fn parts(suite: &str, args: &Args, command: &mut Command) {
    command
        .arg(suite)
        .args(args.full.then_some("--full"))
        .args(args.keep.then_some("--keep"));
    for part in &args.part {
        command.args(["--part", part]);
    }
}

/// The regression tests, and in the full form the program that asks the server's own grammar.
pub(crate) fn meaning_folders(full: bool, command: &mut Command) {
    command.arg("--sources").arg(step::root());
    match regress::ensure() {
        Ok(folder) => command.arg("--regress").arg(folder),
        Err(reason) => command.args(["--regress-missing", &format!("{reason:#}")]),
    };
    if full {
        match oracle::ensure() {
            Ok(program) => command.arg("--oracle").arg(program),
            Err(reason) => command.args(["--oracle-missing", &format!("{reason:#}")]),
        };
    }
}

/// Poolers of another distribution than this machine's.
pub(crate) fn pooler_folders(command: &mut Command) {
    match poolers::ensure() {
        Ok(folder) => command.arg("--poolers").arg(folder),
        Err(reason) => command.args(["--poolers-missing", &format!("{reason:#}")]),
    };
}

/// Short: only what the distribution brings. Full: the servers of other versions too.
pub(crate) fn wire_folders(state: &Path, command: &mut Command) {
    command.args(["wire", "--state"]).arg(state);
    command.arg("--sources").arg(step::root());
}

/// Where the suite `wire` keeps what it has finished.
pub(crate) fn wire_state() -> PathBuf {
    build::target().join("truth-wire")
}

fn wire(args: &Args, command: &mut Command) {
    wire_folders(&wire_state(), command);
    command
        .args(args.full.then_some("--full"))
        .args(args.keep.then_some("--keep"))
        .args(args.resume.then_some("--resume"));
    for (name, value) in [("--transport", &args.transport), ("--tier", &args.tier)] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    for part in &args.part {
        command.args(["--part", part]);
    }
    if args.full {
        let missing = match servers::ensure() {
            Ok((folder, missing)) => {
                command.arg("--servers").arg(folder);
                missing
            }
            Err(reason) => Some(format!("{reason:#}")),
        };
        if let Some(reason) = missing {
            command.args(["--servers-missing", &reason]);
        }
        match regress::ensure() {
            Ok(folder) => command.arg("--regress").arg(folder),
            Err(reason) => command.args(["--regress-missing", &format!("{reason:#}")]),
        };
    }
}
