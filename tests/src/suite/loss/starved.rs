//! An agent that lacks something: room in a ring, time, a collector, permission, probes.
//!
//! Owns one scene for each. The witness is the log of a real server.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::Found;
use crate::cluster::{APP_ROLE, Cluster, Witness, server_binaries};
use crate::ledger::{self, Expected};
use crate::program::Program;
use crate::route::Route;
use crate::screen::progress;
use crate::suite::{complete_log, settle};
use crate::tap::{Settings, Tap, Tier};

/// The agent sleeps while more comes than its ring holds.
pub(super) async fn ring(keep: bool) -> Result<Found> {
    let settings = Settings {
        ring_mib: Some(1),
        ..Settings::clear(Tier::Auto)
    };
    let mut scene = Scene::open(settings, &[Route::Tcp, Route::Unix, Route::Tls]).await?;
    scene.say(20, 100).await?;
    scene.tap.signal_agent(Signal::SIGSTOP)?;
    // Some 10 MiB of requests and answers each.
    scene.say(150, 60_000).await?;
    scene.tap.signal_agent(Signal::SIGCONT)?;
    tokio::time::sleep(AWAKE).await;
    scene.say(20, 100).await?;
    scene.close(vec!["ring_full"], keep).await
}

/// The agent sleeps while more processes begin than its ring for facts holds, and sessions with them.
pub(super) async fn facts(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(Settings::clear(Tier::Auto), &[Route::Tcp]).await?;
    scene.say(5, 100).await?;
    scene.tap.signal_agent(Signal::SIGSTOP)?;
    tokio::task::spawn_blocking(crowd).await??;
    scene.say(5, 100).await?;
    scene.tap.signal_agent(Signal::SIGCONT)?;
    tokio::time::sleep(AWAKE).await;
    scene.say(5, 100).await?;
    scene.close(vec!["facts_lost"], keep).await
}

/// The collector is away for longer than the queue can hold.
pub(super) async fn queue(keep: bool) -> Result<Found> {
    let settings = Settings {
        queue_mib: Some(1),
        ..Settings::clear(Tier::Auto)
    };
    let mut scene = Scene::open(settings, &[Route::Tcp]).await?;
    scene.say(20, 100).await?;
    settle(&scene.tap).await?;
    scene.tap.kill_collector().await?;
    scene.say(3_000, 2_000).await?;
    scene.tap.start_collector().await?;
    tokio::time::sleep(AWAKE).await;
    scene.say(20, 100).await?;
    scene.close(vec!["queue_full"], keep).await
}

/// Somebody tells the agent not to look.
pub(super) async fn paused(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(
        Settings::clear(Tier::Auto),
        &[Route::Tcp, Route::Unix, Route::Tls],
    )
    .await?;
    scene.say(5, 100).await?;
    let mut sessions = Vec::new();
    for program in &scene.programs {
        let mut process = program.start(program.psql_open())?;
        let stdin = process.stdin().context("psql's standard input")?;
        sessions.push((process, stdin));
    }
    scene.utter(&mut sessions).await?;
    scene.tap.ask_agent(&["pause", "--reason", "the suite says so"])?;
    scene.utter(&mut sessions).await?;
    scene.utter(&mut sessions).await?;
    scene.tap.ask_agent(&["resume"])?;
    scene.utter(&mut sessions).await?;
    for (mut process, stdin) in sessions {
        drop(stdin);
        process.wait(PATIENCE).await?;
    }
    scene
        .close(vec!["paused", "agent_pause", "agent_resume"], keep)
        .await
}

/// More answers to one string than are kept.
pub(super) async fn answers(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(Settings::clear(Tier::Auto), &[Route::Tcp]).await?;
    let program = scene.programs.first().context("a program")?;
    let string = format!("{}SELECT 2", "SELECT 1;".repeat(5_000));
    program.repeat(1, |_| Ok(program.psql(&string))).await?;
    scene.say(5, 100).await?;
    scene.close(vec!["result_cap"], keep).await
}

/// A session goes over to TLS while the agent sleeps: its probes come too late for it.
pub(super) async fn probes(keep: bool) -> Result<Found> {
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, &[Route::Tls])?;
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto)).await?;
    tap.signal_agent(Signal::SIGSTOP)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let program = Program::new(&slice(), "early-tls", &cluster, Route::Tls)?;
    let mut process = program.start(program.psql_open())?;
    let stdin = process.stdin().context("psql's standard input")?;
    let mut scene = Scene {
        programs: vec![program],
        cluster,
        tap,
        said: 0,
    };
    let mut sessions = vec![(process, stdin)];
    for _ in 0..3 {
        scene.utter(&mut sessions).await?;
    }
    scene.tap.signal_agent(Signal::SIGCONT)?;
    tokio::time::sleep(AWAKE).await;
    for _ in 0..6 {
        scene.utter(&mut sessions).await?;
    }
    for (mut process, stdin) in sessions {
        drop(stdin);
        process.wait(PATIENCE).await?;
    }
    scene.close(Vec::new(), keep).await
}

type Open = (crate::process::Process, std::process::ChildStdin);

/// A server, an agent, and a program for each way.
struct Scene {
    programs: Vec<Program>,
    cluster: Cluster,
    tap: Tap,
    said: u64,
}

impl Scene {
    async fn open(settings: Settings, routes: &[Route]) -> Result<Self> {
        let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, routes)?;
        cluster.start().await?;
        cluster.prepare().await?;
        let tap = Tap::start(&cluster.data(), settings).await?;
        let programs = routes
            .iter()
            .map(|route| Program::new(&slice(), &format!("loss-{}", route.name()), &cluster, *route));
        Ok(Self {
            programs: programs.collect::<Result<_>>()?,
            cluster,
            tap,
            said: 0,
        })
    }

    /// Each program says so many statements of such a size, and gets as much back, in a session of its own.
    async fn say(&mut self, count: u64, size: usize) -> Result<()> {
        for program in &self.programs {
            let script: String = (0..count)
                .map(|_| {
                    self.said += 1;
                    let filling = "z".repeat(size);
                    format!("SELECT {}, '{filling}' {};\n", FIRST + self.said, program.tag())
                })
                .collect();
            let run = program.start(program.psql_script(&script)?)?;
            program.finish(run, PATIENCE).await?;
        }
        Ok(())
    }

    /// Each open session says one.
    async fn utter(&mut self, sessions: &mut [Open]) -> Result<()> {
        use std::io::Write as _;
        for ((_, stdin), program) in sessions.iter_mut().zip(&self.programs) {
            self.said += 1;
            writeln!(stdin, "SELECT {} {};", FIRST + self.said, program.tag())?;
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn close(mut self, wanted: Vec<&'static str>, keep: bool) -> Result<Found> {
        let logged = complete_log(&self.cluster.csvlog()).await?;
        settle(&self.tap).await?;
        self.tap.stop().await?;
        let record = ledger::read(&self.tap)?;
        let units: BTreeMap<_, _> = self
            .programs
            .iter()
            .map(|program| (program.name().to_owned(), program.unit().to_owned()))
            .collect();
        let expected = Expected {
            role: APP_ROLE,
            units: &units,
            from_ns: 0,
            counted: &BTreeSet::new(),
        };
        let ledger = ledger::judge(&logged, &record, expected);
        let mut reasons = record.other_gaps.clone();
        for kind in ["agent_pause", "agent_resume", "opaque_session"] {
            if let Some(count) = record.kinds.get(kind) {
                reasons.insert(kind.to_owned(), *count);
            }
        }
        if keep {
            std::fs::copy(self.cluster.csvlog(), self.tap.folder().join("server.csv"))?;
            progress(&format!("  kept: {}", self.tap.keep().display()));
        }
        Ok(Found {
            ledger,
            reasons,
            wanted,
            ..Found::default()
        })
    }
}

/// Some thousand processes, one after the other.
fn crowd() -> Result<()> {
    let line = format!("i=0; while [ $i -lt {CROWD} ]; do /bin/true; i=$((i + 1)); done");
    let status = Command::new("/bin/sh")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "the crowd did not come");
    Ok(())
}

fn slice() -> String {
    format!("pgwitness-loss-{}", std::process::id())
}

/// The ring for facts has room for 2,700.
const CROWD: u32 = 5_000;
const FIRST: u64 = 300_000_000_000;
const AWAKE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(90);
