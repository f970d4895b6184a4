//! The agent ends and begins again under load, told to and killed in turns: what it was not there for has to be told.
//!
//! Owns the part `restarts`. All sessions are older than every agent but the first, and outlive all but the last.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use super::load::Load;
use super::{Cell, Found};
use crate::cluster::{APP_ROLE, Cluster, Witness, server_binaries};
use crate::ledger::{self, Expected};
use crate::screen::progress;
use crate::suite::{complete_log, figures, settle};
use crate::tap::Tap;

/// Runs the part.
pub(super) async fn run(cell: &Cell, times: u32, keep: bool) -> Result<Found> {
    let slice = format!("pgwitness-local-{}", std::process::id());
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, &cell.routes)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let mut tap = Tap::start(&cluster.data(), cell.settings()).await?;
    let mut load = Load::start(&slice, &cluster, &cell.routes, RATE)?;
    load.say()?;
    let mut restarts = 0;
    for turn in 0..times {
        tokio::time::sleep(PRESENT).await;
        load.say()?;
        tap.agent
            .end(if turn % 2 == 0 {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            })
            .await?;
        load.say()?;
        tokio::time::sleep(AWAY).await;
        tap.agent.start().await?;
        load.say()?;
        restarts += 1;
    }
    tokio::time::sleep(PRESENT).await;
    load.say()?;
    let (units, counted) = (load.units(), load.counted());
    load.stop().await?;
    let logged = complete_log(&cluster.csvlog()).await?;
    settle(&tap).await?;
    tap.stop().await?;

    let record = ledger::read(&tap)?;
    let expected = Expected {
        role: APP_ROLE,
        units: &units,
        from_ns: 0,
        counted: &counted,
    };
    let ledger = ledger::judge(&logged, &record, expected);
    let (verified, verdict) = tap.verify()?;
    if !verified {
        progress(&verdict);
    }
    if keep {
        std::fs::copy(cluster.csvlog(), tap.folder().join("server.csv"))?;
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    let starts = record.kinds.get("agent_start").copied().unwrap_or_default();
    let passed = ledger.none()
        && verified
        && restarts == times
        && ledger.recorded > 0
        // Something has to be lost, or nothing was tried.
        && ledger.told_missing > 0
        && starts == u64::from(times) + 1;
    Ok(Found {
        programs: units.into_keys().collect(),
        more: figures(json!({
            "restarts": restarts,
            "agent_starts": starts,
            "agent_stops": record.kinds.get("agent_stop").copied().unwrap_or_default(),
            "other_gaps": record.other_gaps,
            "verified": verified,
        }))?,
        ledger,
        passed,
        ..Found::default()
    })
}

/// Statements a second.
const RATE: usize = 300;
const PRESENT: Duration = Duration::from_millis(1500);
const AWAY: Duration = Duration::from_millis(400);
