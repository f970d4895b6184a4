//! An agent that lacks something: room in a ring, time, a collector, permission, probes.
//!
//! Owns one scene for each. The witness is the log of a real server.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::Found;
use super::scene::{AWAKE, PATIENCE, Scene, slice};
use crate::cluster::{Cluster, Witness, server_binaries};
use crate::program::Program;
use crate::route::Route;
use crate::suite::settle;
use crate::tap::{Settings, Tap, Tier};

/// The agent sleeps while more comes than its ring holds.
pub(super) async fn ring(keep: bool) -> Result<Found> {
    let settings = Settings {
        ring_mib: Some(1),
        ..Settings::clear(Tier::Auto)
    };
    let mut scene = Scene::open(settings, &[Route::Tcp, Route::Unix, Route::Tls]).await?;
    scene.say(20, 100).await?;
    scene.tap.agent.signal(Signal::SIGSTOP)?;
    // Some 10 MiB of requests and answers each.
    scene.say(150, 60_000).await?;
    scene.tap.agent.signal(Signal::SIGCONT)?;
    tokio::time::sleep(AWAKE).await;
    scene.say(20, 100).await?;
    scene.close(vec!["ring_full"], keep).await
}

/// The agent sleeps while more processes begin than its ring for facts holds, and sessions with them.
pub(super) async fn facts(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(Settings::clear(Tier::Auto), &[Route::Tcp]).await?;
    scene.say(5, 100).await?;
    scene.tap.agent.signal(Signal::SIGSTOP)?;
    tokio::task::spawn_blocking(crowd).await??;
    scene.say(5, 100).await?;
    scene.tap.agent.signal(Signal::SIGCONT)?;
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
    // More than the batches in memory take: 32 of a MiB each.
    scene.say(4_000, 12_000).await?;
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
    let mut sessions = scene.sessions(1)?;
    scene.utter(&mut sessions).await?;
    scene.tap.agent.ask(&["pause", "--reason", "the suite says so"])?;
    scene.utter(&mut sessions).await?;
    scene.utter(&mut sessions).await?;
    scene.tap.agent.ask(&["resume"])?;
    scene.utter(&mut sessions).await?;
    Scene::end(sessions).await?;
    scene
        .close(vec!["paused", "agent_pause", "agent_resume"], keep)
        .await
}

/// The collector's folder is put back to what it was, and with it goes what it had acknowledged since.
pub(super) async fn rollback(keep: bool) -> Result<Found> {
    let mut scene = Scene::open(Settings::clear(Tier::Auto), &[Route::Tcp]).await?;
    let mark = scene.mark();
    scene.say(5, 100).await?;
    let folder = scene.tap.collector_data();
    let backup = folder.with_extension("backup");
    for then in [
        [folder.as_path(), backup.as_path()],
        [backup.as_path(), folder.as_path()],
    ] {
        settle(&scene.tap).await?;
        scene.tap.agent.end(Signal::SIGTERM).await?;
        scene.tap.kill_collector().await?;
        copy(then)?;
        scene.tap.start_collector().await?;
        scene.tap.agent.start().await?;
        // Without a number: it is not asked for, because it is gone.
        let program = scene.programs.first().context("a program")?;
        program
            .repeat(1, |_| Ok(program.psql("SELECT 'soon gone'")))
            .await?;
    }
    scene.say(5, 100).await?;
    scene.is_sure(mark);
    scene.close(vec!["record_rolled_back"], keep).await
}

fn copy([from, to]: [&Path; 2]) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    anyhow::ensure!(status.success(), "{} was not copied", from.display());
    Ok(())
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
    tap.agent.signal(Signal::SIGSTOP)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let program = Program::new(&slice(), "early-tls", &cluster, Route::Tls)?;
    let mut scene = Scene::of(vec![program], cluster, tap);
    let mut sessions = scene.sessions(1)?;
    for _ in 0..3 {
        scene.utter(&mut sessions).await?;
    }
    scene.tap.agent.signal(Signal::SIGCONT)?;
    tokio::time::sleep(AWAKE).await;
    for _ in 0..6 {
        scene.utter(&mut sessions).await?;
    }
    Scene::end(sessions).await?;
    scene.close(Vec::new(), keep).await
}

/// The agent attaches while a backend sleeps that has taken half of what OpenSSL has decrypted: the rest comes to it without
/// any call on its socket, so that nobody knows which connection it is.
pub(super) async fn unplaced(keep: bool) -> Result<Found> {
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, &[Route::Tls])?;
    cluster.start().await?;
    cluster.prepare().await?;
    let program = Program::new(&slice(), "pipeline-tls", &cluster, Route::Tls)?;
    // One record of TLS, of which the server's buffer holds a half (`PQ_RECV_BUFFER_SIZE` is 8 KiB).
    let script = format!(
        "\\startpipeline\nSELECT pg_sleep({NAP}) {tag};\nSELECT {UNPLACED}, '{}' {tag};\n\\endpipeline\n",
        "u".repeat(20_000),
        tag = program.tag(),
    );
    let run = program.start(program.pgbench(&script, &["-M", "extended", "-c", "1", "-t", "1"])?)?;
    tokio::time::sleep(AWAKE).await;
    let tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto)).await?;
    program.finish(run, PATIENCE).await?;
    let mut scene = Scene::of(vec![program], cluster, tap);
    let mark = scene.mark();
    scene.say(3, 100).await?;
    scene.is_sure(mark);
    scene.close(vec!["plaintext_unplaced"], keep).await
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

/// The ring for facts has room for 2,700.
const CROWD: u32 = 5_000;
/// Seconds: long enough for an agent to attach.
const NAP: u32 = 10;
const UNPLACED: u64 = 310_000_000_000;
