//! Too much at once: more processes, connections or bytes than the agent may keep, and a kernel that is too busy for its
//! programs.
//!
//! Owns one scene for each. The witness is the log of a real server.

use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::Found;
use super::scene::{AWAKE, CLIENT, Scene};
use crate::cluster::DATABASE;
use crate::odd_server::compile;
use crate::route::Route;
use crate::screen::progress;
use crate::session::Session;
use crate::tap::{Settings, Tier};

/// More backends than are followed: what they say is not seen, for as long as there is no room.
pub(super) async fn targets(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(limited("LIMITS__SERVER_PROCESSES", FEW), &[Route::Tcp]).await?;
    scene.say(3, 100).await?;
    let mut staying = scene.sessions(4)?;
    scene.utter(&mut staying).await?;
    let mut leaving = scene.sessions(10)?;
    let mut late = scene.sessions(4)?;
    // Longer than one look at the counters, so that a gap of the moment in which they began would not do.
    for _ in 0..8 {
        scene.utter(&mut leaving).await?;
        scene.utter(&mut late).await?;
    }
    Scene::end(leaving).await?;
    Scene::end(staying).await?;
    tokio::time::sleep(AWAKE).await;
    // The first request behind its being noticed only brings a session into step.
    scene.utter(&mut late).await?;
    let mark = scene.mark();
    scene.utter(&mut late).await?;
    scene.is_sure(mark);
    Scene::end(late).await?;
    scene.close(vec!["targets_full"], keep).await
}

/// More connections than are remembered: their clients have no name, and no other's.
pub(super) async fn owners(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(limited("LIMITS__CLIENT_CONNECTIONS", 2), &[Route::Tcp]).await?;
    let mark = scene.mark();
    let mut sessions = scene.sessions(12)?;
    for _ in 0..2 {
        scene.utter(&mut sessions).await?;
    }
    scene.is_sure(mark);
    Scene::end(sessions).await?;
    let mut found = scene.close(vec!["owners_full"], keep).await?;
    if found.ledger.unknown_principal == 0 {
        found.wrong.push("each of them has a name".to_owned());
    }
    Ok(found)
}

/// More text on its way than the agent has memory for.
pub(super) async fn memory(keep: bool) -> Result<Found> {
    let settings = Settings {
        queue_mib: Some(QUEUE_MIB),
        ..limited("LIMITS__MEMORY_MIB", LEAST_MIB)
    };
    let mut scene = Scene::open(settings, &[Route::Tcp]).await?;
    scene.let_in_client().await?;
    let mark = scene.mark();
    scene.say(5, 100).await?;
    scene.is_sure(mark);
    let mut hoarders = Vec::new();
    for _ in 0..HOARDERS {
        let mut session = Session::open(scene.cluster.port(), CLIENT, DATABASE)?;
        let text = format!("SELECT {}, length('{}')", scene.number(), "h".repeat(HOARD));
        session.begin(&text, 100)?;
        hoarders.push(session);
    }
    tokio::time::sleep(AWAKE).await;
    scene.say(20, 100).await?;
    for mut session in hoarders {
        session.finish()?;
        drop(session.end()?);
    }
    tokio::time::sleep(AWAKE).await;
    let mark = scene.mark();
    scene.say(5, 100).await?;
    scene.is_sure(mark);
    scene.close(vec!["memory_limit"], keep).await
}

/// Timers that change the state of sockets run into the tap's program for that, and the kernel skips it: what it skips the second
/// program there takes.
pub(super) async fn storm(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(Settings::clear(Tier::Auto), &[Route::Tcp, Route::Unix]).await?;
    let skipped = blow(&mut scene).await?;
    let mut found = scene.close(Vec::new(), keep).await?;
    if skipped == 0 {
        found
            .wrong
            .push("the kernel skipped nothing, so that nothing was shown".to_owned());
    }
    if found
        .counters
        .get("program_missed")
        .is_some_and(|missed| *missed > 0)
    {
        found.wrong.push("what the kernel skipped was lost".to_owned());
    }
    Ok(found)
}

/// The same without the second program.
pub(super) async fn storm_alone(keep: bool) -> Result<Found> {
    let settings = Settings {
        arguments: vec!["--alone"],
        ..Settings::clear(Tier::Auto)
    };
    let mut scene = Scene::open(settings, &[Route::Tcp, Route::Unix]).await?;
    blow(&mut scene).await?;
    scene.close(vec!["program_missed"], keep).await
}

/// Until the kernel skipped runs of the tap's programs: how many.
async fn blow(scene: &mut Scene) -> Result<u64> {
    let folder = TempDir::with_prefix("pgwitness-storm-")?;
    let program = folder.path().join("socket_storm");
    compile(STORM, &program)?;
    let mark = scene.mark();
    scene.say(5, 100).await?;
    let mut sessions = scene.sessions(2)?;
    let mut skipped = 0;
    for _ in 0..STORMS {
        let mut program = Command::new(&program);
        let storm = tokio::task::spawn_blocking(move || program.arg(STORM_SECONDS).status());
        while !storm.is_finished() {
            scene.utter(&mut sessions).await?;
        }
        ensure!(storm.await??.success(), "there was no storm");
        skipped = skipped_runs(&scene.tap.agent.processes()?)?;
        progress(&format!("  runs that the kernel skipped: {skipped}"));
        if skipped > 0 {
            break;
        }
    }
    Scene::end(sessions).await?;
    scene.say(5, 100).await?;
    // Only names and ends of connections were in doubt.
    scene.is_sure(mark);
    Ok(skipped)
}

/// Runs of the programs that these processes hold which the kernel skipped, by its own count.
fn skipped_runs(processes: &[u32]) -> Result<u64> {
    let mut skipped = 0;
    for process in processes {
        for file in std::fs::read_dir(format!("/proc/{process}/fdinfo"))?.flatten() {
            let about = std::fs::read_to_string(file.path()).unwrap_or_default();
            let runs = about
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"));
            skipped += runs.map_or(Ok(0), |runs| runs.trim().parse())?;
        }
    }
    Ok(skipped)
}

fn limited(key: &'static str, value: u32) -> Settings {
    Settings {
        keys: vec![(key, value.to_string())],
        ..Settings::clear(Tier::Auto)
    }
}

const STORM: &str = include_str!("../../../programs/socket_storm.c");
/// Connections that nobody answers give up after three seconds.
const STORM_SECONDS: &str = "10";
/// One now and then meets no timer.
const STORMS: u32 = 6;
/// A postmaster and its five own processes, and eight of its backends.
const FEW: u32 = 14;
/// What is recorded finds room.
const QUEUE_MIB: u32 = 16;
/// What the agent accepts for such a queue.
const LEAST_MIB: u32 = 80;
const HOARDERS: usize = 100;
const HOARD: usize = 1_000_000;
