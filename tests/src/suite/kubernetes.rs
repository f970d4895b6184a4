//! Names of pods, held against what Kubernetes itself says, while pods come and go and the collector's way to the API server breaks.
//!
//! Owns the length of it and its figures. The cluster is a real one (`crate::kubernetes`); the witnesses are the API server's audit log, what
//! kubelets tell their pods, and the database's own log.

mod judge;
mod proxy;
mod record;
mod scene;
mod truth;
mod words;
mod workloads;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::{Outcome, figures};
use crate::kubernetes::Programs;
use crate::screen::progress;
use scene::{Figures, LEAST_ROUNDS, Scene};

/// Runs the suite.
///
/// # Errors
/// When something does not come up, or the evidence does not verify.
pub async fn run(full: bool, keep: bool) -> Result<Outcome> {
    let began = Instant::now();
    let programs = match available() {
        Ok(programs) => programs,
        Err(error) => {
            let reason = format!("{error:#}");
            progress(&format!("unavailable: {reason}"));
            let figures = figures(json!({
                "connections": 0, "wrong_principal": 0, "metadata_share": null,
                "unavailable": [{ "part": "kubernetes", "reason": reason }],
            }))?;
            return Ok(Outcome {
                figures,
                passed: false,
            });
        }
    };
    let (least, pause) = if full { (FULL, "0.7") } else { (SHORT, "0.5") };
    let mut scene = Scene::open(&programs, pause).await?;
    scene.begin()?;
    let mut rounds = 0;
    while rounds < LEAST_ROUNDS || scene.connections()? < least {
        ensure!(began.elapsed() < LONGEST, "there are too few connections");
        scene.round(rounds, full).await?;
        rounds += 1;
    }
    let Figures {
        findings,
        done,
        restarts,
    } = scene.finish(keep).await?;
    for (what, example) in &findings.examples {
        progress(&format!("{what}: {example}"));
    }
    let mut wrong = Vec::new();
    if !findings.none() {
        wrong.push("something is wrong, see the figures".to_owned());
    }
    for (what, count, at_least) in [
        ("connections", findings.connections, least),
        ("kinds of clients", findings.kinds.len() as u64, KINDS),
        ("connections through the pooler", findings.pooled, least / 4),
        ("watches cut", done.watches_cut, 1),
        ("watches too old", done.gone, 1),
        ("words held back", done.held_back, 1),
        ("connections refused", done.refused, 1),
        ("restarts of the API server", restarts, 1),
        ("names used again", findings.names_used_again, 1),
        (
            "addresses used again",
            findings.addresses_used_again,
            u64::from(full),
        ),
    ] {
        if count < at_least {
            wrong.push(format!("{what}: {count}, not {at_least}"));
        }
    }
    let passed = wrong.is_empty();
    let mut all = figures(serde_json::to_value(&findings)?)?;
    all.extend(
        findings
            .shares()
            .map(|(name, share)| (name.to_owned(), json!(share))),
    );
    // By the name under which it is compared from one day to the next: the lowest.
    let shares = findings.shares().map(|(_, share)| share);
    let least_share = shares.into_iter().fold(1.0, f64::min);
    all.insert("metadata_share".to_owned(), json!(least_share));
    all.extend(figures(serde_json::to_value(&done)?)?);
    all.extend(figures(json!({
        "restarts": restarts,
        "rounds": rounds,
        "failed": wrong,
        "seconds": began.elapsed().as_secs(),
        "unavailable": Vec::<Value>::new(),
    }))?);
    Ok(Outcome { figures: all, passed })
}

fn available() -> Result<Programs> {
    ensure!(
        geteuid().is_root(),
        "nodes have namespaces and cgroups: that takes root"
    );
    ensure!(
        Path::new("/usr/sbin/pgbouncer").is_file(),
        "PgBouncer is not installed"
    );
    Programs::find()
}

/// Connections, at least.
const FULL: u64 = 5_000;
const SHORT: u64 = 300;
/// Kinds of workloads that connect.
const KINDS: u64 = 10;
/// Several times what so many connections take on two cores.
const LONGEST: Duration = Duration::from_secs(5_400);
