//! The sessions first: whatever they say behind the agent's start has to be recorded, or told missing by a gap of the
//! session's own; and what the agent has not seen of them it has to find out, or leave open.
//!
//! Owns one cell of the kind `old`: some sessions are busy while the agent attaches, some wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use super::load::Load;
use super::{Cell, Found};
use crate::cluster::{APP_ROLE, Cluster, Witness, server_binaries};
use crate::ledger::{self, Expected};
use crate::screen::progress;
use crate::suite::{complete_log, figures, settle};
use crate::tap::Tap;

/// Runs the cell.
pub(super) async fn run(cell: &Cell, keep: bool) -> Result<Found> {
    let slice = format!("pgwitness-local-{}", std::process::id());
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, &cell.routes)?;
    cluster.start().await?;
    cluster.prepare().await?;
    let mut load = Load::start(&slice, &cluster, &cell.routes, RATE)?;
    load.say()?;
    tokio::time::sleep(BEFORE).await;
    let mut tap = Tap::start(&cluster.data(), cell.settings()).await?;
    let attached_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    for _ in 0..WORDS {
        load.say()?;
        tokio::time::sleep(PAUSE).await;
    }
    let (units, counted) = (load.units(), load.counted());
    load.stop().await?;
    let logged = complete_log(&cluster.csvlog()).await?;
    settle(&tap).await?;
    tap.stop().await?;

    let record = ledger::read(&tap)?;
    let expected = Expected {
        role: APP_ROLE,
        units: &units,
        from_ns: attached_ns,
        counted: &counted,
    };
    let ledger = ledger::judge(&logged, &record, expected);
    let before = record
        .sessions
        .values()
        .filter(|seen| seen.opened_before_attach)
        .count();
    let certificates = record
        .sessions
        .values()
        .filter(|seen| !seen.client_certificate.is_empty())
        .count();
    if keep {
        std::fs::copy(cluster.csvlog(), tap.folder().join("server.csv"))?;
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    let passed = ledger.none() && ledger.recorded > 0 && ledger.sessions > 0;
    Ok(Found {
        programs: units.into_keys().collect(),
        more: figures(json!({
            "opened_before_attach": before,
            "client_certificates": certificates,
            "other_gaps": record.other_gaps,
        }))?,
        ledger,
        passed,
        ..Found::default()
    })
}

/// Statements a second.
const RATE: usize = 300;
const BEFORE: Duration = Duration::from_secs(2);
const WORDS: u32 = 12;
const PAUSE: Duration = Duration::from_millis(500);
