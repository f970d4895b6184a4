//! `pgwitness-truth`: runs one suite and prints its figures.
//!
//! Owns the command line, Ctrl-C and the exit code. Whatever ends the suite, its value is dropped, and with it
//! everything that it started.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pgwitness_tests::route::Route;
use pgwitness_tests::suite::{
    Outcome, demo, evasion, evidence, identity, kernels, kubernetes, local, loss, meaning, pooler, survive,
    volume, wire,
};
use pgwitness_tests::tap::Tier;
use tokio::signal::unix::{SignalKind, signal};

/// Runs real programs against a real server and compares the record with the server's own log.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// A server, several programs that share one role, and the attributed trail.
    Demo {
        /// End by itself after a thousand statements, verify, and exit non-zero if anything is missing.
        #[arg(long)]
        once: bool,
        /// Print the figures only.
        #[arg(long)]
        json: bool,
    },
    /// Ten thousand statements of a dozen programs against the server's log, one by one; sessions older than the agent;
    /// an agent that ends and begins again.
    Local {
        /// Every way to the server, each way into the kernel, and either one first.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this cell (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
        /// Start agents from this bundle under runc, with what the DaemonSet gives them (`cargo xtask truth --contained`).
        #[arg(long, value_name = "DIR")]
        contained: Option<PathBuf>,
    },
    /// In small, on the kernel that runs: what `cargo xtask kernels` runs in its virtual machines.
    Kernels {
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
    },
    /// Kill the agent under load, and worse: no client may notice.
    Survive {
        /// Every scene.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
    },
    /// Clients and processes that try to hide: they are told of, and hide nobody else.
    Evasion {
        /// Every part.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
    },
    /// Clients of every kind on this host: each gets its own name, and no other.
    Identity {
        /// Every part, and 20,000 connections.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
    },
    /// Pods come and go in a real cluster while the way to its API server breaks: each connection gets the name of its own.
    Kubernetes {
        /// Five thousand connections, and the database's pod is replaced, too.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agents, collector, database and API server wrote in place.
        #[arg(long)]
        keep: bool,
    },
    /// Every way in which bytes can escape the tap: what is lost must be told.
    Loss {
        /// Every part.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
    },
    /// Equal statements put together, others left out: each counts, and the numbers are pgbench's own.
    Volume {
        /// A minute for each of pgbench's runs, and what a statement may take.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
    },
    /// Class and objects of every statement against what pgAudit says of it, fingerprints against the server's own grammar,
    /// and a search for a hundred thousand secrets.
    Meaning {
        /// The whole regression suite, and all secrets.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
        /// PostgreSQL's regression tests, unpacked.
        #[arg(long, value_name = "DIR")]
        regress: Option<PathBuf>,
        /// Why they are not there.
        #[arg(long, value_name = "REASON")]
        regress_missing: Option<String>,
        /// The program that asks the server's own grammar for fingerprints.
        #[arg(long, value_name = "FILE")]
        oracle: Option<PathBuf>,
        /// Why there is none.
        #[arg(long, value_name = "REASON")]
        oracle_missing: Option<String>,
        /// The repository.
        #[arg(long, value_name = "DIR", default_value = ".")]
        sources: PathBuf,
    },
    /// Crashes, bad disks and cut connections between agents and a collector, then tampering with its log: nothing acknowledged is
    /// lost, nothing is changed unseen.
    Evidence {
        /// Ten thousand schedules, and more tries to tamper.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
        /// Where the schedules begin; another number is another set of them.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Two hundred clients share one role over five server connections: each statement goes back to who sent it.
    Pooler {
        /// Every part, and half a million statements.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what was written in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
        /// Folder with poolers of other distributions.
        #[arg(long, value_name = "DIR")]
        poolers: Option<PathBuf>,
        /// Why there is no such folder.
        #[arg(long, value_name = "REASON")]
        poolers_missing: Option<String>,
        /// Start agents from this bundle under runc, with what the DaemonSet gives them (`cargo xtask truth --contained`).
        #[arg(long, value_name = "DIR")]
        contained: Option<PathBuf>,
    },
    /// Clients of many kinds against servers of several versions: text, parameters, rows and outcome.
    Wire {
        /// Every version and every program.
        #[arg(long)]
        full: bool,
        /// Print the figures as one JSON object on the last line.
        #[arg(long)]
        json: bool,
        /// Leave what agent and collector wrote in place.
        #[arg(long)]
        keep: bool,
        /// Only this part (can be given several times).
        #[arg(long, value_name = "NAME")]
        part: Vec<String>,
        /// Every program by this way.
        #[arg(long, value_enum)]
        transport: Option<Route>,
        /// The agent's way into the kernel.
        #[arg(long, value_enum, default_value = "auto")]
        tier: Tier,
        /// Go on where an earlier run was interrupted.
        #[arg(long)]
        resume: bool,
        /// Folder for the results of finished parts.
        #[arg(long, value_name = "DIR", default_value = "target/truth-wire")]
        state: PathBuf,
        /// Folder with the servers of other versions.
        #[arg(long, value_name = "DIR")]
        servers: Option<PathBuf>,
        /// Why there is no such folder.
        #[arg(long, value_name = "REASON")]
        servers_missing: Option<String>,
        /// PostgreSQL's regression tests, unpacked.
        #[arg(long, value_name = "DIR")]
        regress: Option<PathBuf>,
        /// Why they are not there.
        #[arg(long, value_name = "REASON")]
        regress_missing: Option<String>,
        /// The repository.
        #[arg(long, value_name = "DIR", default_value = ".")]
        sources: PathBuf,
    },
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pgwitness-truth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the suite passed.
fn start(arguments: Arguments) -> Result<bool> {
    // One thread runs the suite and all guards, so that nothing outlives it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Only the demo without an end is meant to be ended from outside.
    let endless = matches!(
        arguments.suite,
        Suite::Demo {
            once: false,
            json: false
        }
    );
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = run(arguments.suite) => outcome.map(|outcome| outcome.passed),
            _ = interrupt.recv() => Ok(endless),
            _ = terminate.recv() => Ok(endless),
        }
    })
}

async fn run(suite: Suite) -> Result<Outcome> {
    let (outcome, json) = match suite {
        Suite::Demo { once, json } => (demo::run(once || json, json).await?, true),
        Suite::Local {
            full,
            json,
            keep,
            part,
            contained,
        } => {
            let plan = local::Plan {
                full,
                keep,
                parts: part,
                contained,
            };
            (local::run(&plan).await?, json)
        }
        Suite::Kernels { json } => (kernels::run().await?, json),
        Suite::Survive { full, json } => (survive::run(full).await?, json),
        Suite::Evasion {
            full,
            json,
            keep,
            part,
        } => (evasion::run(full, &part, keep).await?, json),
        Suite::Identity {
            full,
            json,
            keep,
            part,
        } => (identity::run(full, &part, keep).await?, json),
        Suite::Kubernetes { full, json, keep } => (kubernetes::run(full, keep).await?, json),
        Suite::Loss {
            full,
            json,
            keep,
            part,
        } => (loss::run(full, &part, keep).await?, json),
        Suite::Evidence {
            full,
            json,
            part,
            seed,
        } => (evidence::run(full, &part, seed).await?, json),
        Suite::Volume {
            full,
            json,
            keep,
            part,
        } => (volume::run(full, &part, keep).await?, json),
        Suite::Meaning {
            full,
            json,
            keep,
            part,
            regress,
            regress_missing,
            oracle,
            oracle_missing,
            sources,
        } => {
            let plan = meaning::Plan {
                full,
                keep,
                parts: part,
                regress,
                regress_missing,
                oracle,
                oracle_missing,
                sources,
            };
            (meaning::run(&plan).await?, json)
        }
        Suite::Pooler {
            full,
            json,
            keep,
            part,
            poolers,
            poolers_missing,
            contained,
        } => {
            let plan = pooler::Plan {
                full,
                keep,
                parts: part,
                poolers,
                poolers_missing,
                contained,
            };
            (pooler::run(&plan).await?, json)
        }
        Suite::Wire {
            full,
            json,
            keep,
            part,
            transport,
            tier,
            resume,
            state,
            servers,
            servers_missing,
            regress,
            regress_missing,
            sources,
        } => {
            let plan = wire::Plan {
                full,
                keep,
                parts: part,
                transport,
                tier,
                resume,
                state,
                servers,
                servers_missing,
                regress,
                regress_missing,
                sources,
            };
            (wire::run(&plan).await?, json)
        }
    };
    if json {
        println!("{}", serde_json::to_string(&outcome.figures)?);
    } else {
        for (name, value) in &outcome.figures {
            println!("  {name:<20} {value}");
        }
    }
    Ok(outcome)
}
