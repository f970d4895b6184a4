//! Work that can be accounted for statement by statement, whatever happens to the agent meanwhile.
//!
//! Owns programs whose every statement carries a number of its own: a pgbench for each protocol and way, and a psql
//! for each way that is idle but for what it is told. Their sessions live as long as the load.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::program::Program;
use crate::route::Route;

/// A running load.
#[derive(Debug)]
pub(super) struct Load {
    benches: Vec<(Program, Process)>,
    idle: Vec<Idle>,
    counted: BTreeSet<String>,
    said: u64,
}

/// A session that waits.
#[derive(Debug)]
struct Idle {
    program: Program,
    process: Process,
    stdin: ChildStdin,
}

impl Load {
    /// Starts all of them over each of the ways. `rate` is statements a second of all together, about.
    pub(super) fn start(slice: &str, cluster: &Cluster, routes: &[Route], rate: usize) -> Result<Self> {
        let mut load = Self {
            benches: Vec::new(),
            idle: Vec::new(),
            counted: BTreeSet::new(),
            said: 0,
        };
        let each = (rate / (routes.len() * PROTOCOLS.len()).max(1))
            .max(1)
            .to_string();
        for route in routes {
            for protocol in PROTOCOLS {
                let program = Program::new(slice, &format!("{protocol}-{}", route.name()), cluster, *route)?;
                if protocol == "simple" && *route == Route::Tcp {
                    load.counted.insert(program.name().to_owned());
                }
                let script = format!(
                    "\\set id random(1, 1000)\n\\set number random(100000000000, 999999999999)\n\
                     SELECT id, email FROM customers {} WHERE id = :id AND :number::bigint > 0;\n",
                    program.tag()
                );
                let arguments = ["-M", protocol, "-c", CLIENTS, "-T", ENDLESS, "-R", &each];
                let process = program.start(program.pgbench(&script, &arguments)?)?;
                load.benches.push((program, process));
            }
            let program = Program::new(slice, &format!("idle-{}", route.name()), cluster, *route)?;
            let mut process = program.start(program.psql_open())?;
            let stdin = process.stdin().context("psql's standard input")?;
            load.idle.push(Idle {
                program,
                process,
                stdin,
            });
        }
        Ok(load)
    }

    /// Each idle session says one statement.
    pub(super) fn say(&mut self) -> Result<()> {
        for idle in &mut self.idle {
            self.said += 1;
            writeln!(idle.stdin, "SELECT {} {};", FIRST + self.said, idle.program.tag())?;
        }
        Ok(())
    }

    /// Ends it: nobody says goodbye but the idle ones.
    pub(super) async fn stop(&mut self) -> Result<()> {
        for (program, process) in &mut self.benches {
            ensure!(
                process.ended()?.is_none(),
                "{} ended before it was told to",
                program.name()
            );
            process.stop(Signal::SIGINT, PATIENCE).await?;
        }
        for idle in self.idle.drain(..) {
            let Idle {
                program,
                process,
                stdin,
            } = idle;
            drop(stdin);
            program.finish(process, PATIENCE).await?;
        }
        Ok(())
    }

    /// Name to unit.
    pub(super) fn units(&self) -> BTreeMap<String, String> {
        let benches = self.benches.iter().map(|(program, _)| program);
        let idle = self.idle.iter().map(|idle| &idle.program);
        benches
            .chain(idle)
            .map(|program| (program.name().to_owned(), program.unit().to_owned()))
            .collect()
    }

    /// The programs whose lost bytes can be counted by the log.
    pub(super) fn counted(&self) -> BTreeSet<String> {
        self.counted.clone()
    }
}

const PROTOCOLS: [&str; 3] = ["simple", "extended", "prepared"];
const CLIENTS: &str = "2";
/// Seconds: until it is told to stop.
const ENDLESS: &str = "3600";
const PATIENCE: Duration = Duration::from_secs(10);
/// Twelve digits that pgbench's numbers hardly hit.
const FIRST: u64 = 100_000_000_000;
