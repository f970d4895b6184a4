//! The tapped database is sacred: whatever happens to the agent and around it, no client may notice.
//!
//! Equal runs of pgbench, in plain text and over TLS at once: one with nothing else on the machine, and one for each
//! scene: the agent is killed, it sleeps, its disk is full, its collector is gone, the server's port gets garbage.
//! Compared are client errors and statements slower than a second, from pgbench's own journals.

mod journal;
mod scene;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;

use super::{Outcome, figures};
use crate::cluster::{Cluster, Witness, server_binaries};
use crate::program::Program;
use crate::route::Route;
use crate::screen::progress;
use journal::Load;
use scene::Scene;

/// Runs the suite; the short form has the agent killed and asleep.
///
/// # Errors
/// When something cannot be started; a client that fails is a figure.
pub async fn run(full: bool) -> Result<Outcome> {
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Silent, &ROUTES)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let slice = format!("pgwitness-survive-{}", std::process::id());

    progress(&format!(
        "{}: {RUN_SECONDS} s without pgwitness",
        cluster.version()
    ));
    let without = load(&slice, &cluster, RUN_SECONDS, async { Ok(()) }).await?;
    progress(&format!("  {}", without.line()));
    let (mut all, mut failed) = (Load::default(), Vec::new());
    let (mut lines, mut killed) = (Vec::new(), 0);
    let mut clean = without.errors == 0 && without.transactions > 0;
    for scene in scene::SCENES.iter().filter(|scene| full || scene.is_short()) {
        let seconds = scene.seconds(full);
        progress(&format!("{seconds} s with pgwitness: {}", scene.what()));
        let mut played = scene.prepare(&cluster).await?;
        let found = load(&slice, &cluster, seconds, played.meanwhile(full)).await;
        let ended = played.end(&slice).await;
        let found = found?;
        if let Err(error) = ended {
            progress(&format!("  FAILED: {error:#}"));
            failed.push(json!({ "scene": scene.name(), "reason": format!("{error:#}") }));
        }
        killed += u32::from(*scene == Scene::Killed);
        // A run of another length may have as many slow ones as one of the first run's, and no more.
        let good = found.errors == 0 && found.slow <= without.slow && found.transactions > 0;
        clean &= good;
        progress(&format!(
            "  {}{}",
            found.line(),
            if good { "" } else { ": NOT GOOD" }
        ));
        let mut line = found.line();
        if let Some(line) = line.as_object_mut() {
            line.insert("scene".to_owned(), json!(scene.name()));
            line.insert("seconds".to_owned(), json!(seconds));
        }
        lines.push(line);
        all.add(&found);
    }
    cluster.stop().await?;

    let passed = clean && killed == 1 && failed.is_empty();
    let figures = figures(json!({
        "clients": CLIENTS * ROUTES.len(),
        "transactions": without.transactions + all.transactions,
        "errors": without.errors + all.errors,
        "slow_without": without.slow,
        "slow_with": all.slow,
        "killed": killed,
        "transactions_without": without.transactions,
        "transactions_with": all.transactions,
        "worst_ms_without": without.worst_us / 1000,
        "worst_ms_with": all.worst_us / 1000,
        "scenes": lines,
        "failed": failed,
    }))?;
    Ok(Outcome { figures, passed })
}

/// One run of a pgbench for each way while `meanwhile` happens.
async fn load(
    slice: &str,
    cluster: &Cluster,
    seconds: u64,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Load> {
    let mut benches = Vec::new();
    for route in ROUTES {
        let program = Program::new(slice, &format!("bench-{}", route.name()), cluster, route)?;
        let journal = TempDir::with_prefix("pgwitness-journal-")?;
        let script = format!(
            "\\set id random(1, 1000)\nSELECT id, email FROM customers {tag} WHERE id = :id;\n\
             UPDATE customers {tag} SET region = 'south' WHERE id = :id;\n",
            tag = program.tag()
        );
        let (time, clients) = (seconds.to_string(), CLIENTS.to_string());
        let log_prefix = format!("--log-prefix={}", journal.path().join("pgbench").display());
        let arguments = ["-M", "simple", "-c", &clients, "-T", &time, "--log", &log_prefix];
        let bench = program.start(program.pgbench(&script, &arguments)?)?;
        benches.push((program, journal, bench));
    }
    meanwhile.await?;
    let mut load = Load::default();
    for (_program, journal, mut bench) in benches {
        let status = bench.wait(Duration::from_secs(seconds + 30)).await;
        let mut own = Load::read(journal.path())?;
        // pgbench ends a client at its first error and says so with its exit status.
        if let Err(said) = &status {
            progress(&format!("pgbench did not end: {said:#}"));
        }
        own.errors += u64::from(!status.is_ok_and(|status| status.success()));
        load.add(&own);
    }
    Ok(load)
}

const ROUTES: [Route; 2] = [Route::Tcp, Route::Tls];
const RUN_SECONDS: u64 = 10;
/// Of each pgbench.
const CLIENTS: usize = 2;
