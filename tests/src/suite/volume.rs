//! The volume policy: what is put together counts exactly, what is left out is counted, a changed policy is told, and an agent that
//! is killed meanwhile leaves a gap.
//!
//! Owns the list of parts and their sums. The witness is pgbench's own count of transactions, and the rows that the server has
//! afterwards.

mod killed;
mod policy;
mod rollup;
mod scene;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::{Outcome, figures};
use crate::screen::progress;

/// What a part found.
#[derive(Debug, Default)]
struct Found {
    /// Sent, by pgbench's count.
    statements: u64,
    /// Told, as events or in roll-ups.
    told: u64,
    /// Counted in heartbeats only.
    left_out: u64,
    /// Figures of this part alone.
    more: Map<String, Value>,
    /// What is not as it must be.
    wrong: Vec<String>,
}

impl Found {
    /// Two numbers have to be equal.
    fn equal(&mut self, what: &str, found: u64, expected: u64) {
        if found != expected {
            self.wrong
                .push(format!("{what}: {found} is recorded, {expected} is true"));
        }
    }
}

const PARTS: [&str; 3] = ["rollup", "policy", "killed"];

/// Runs the suite, or these parts of it. `full`: as long as the figures need.
///
/// # Errors
/// When a part is named that there is not. A part that cannot be run is a figure.
pub async fn run(full: bool, wanted: &[String], keep: bool) -> Result<Outcome> {
    if let Some(name) = wanted.iter().find(|name| !PARTS.contains(&name.as_str())) {
        bail!("there is no part {name}; there are: {}", PARTS.join(" "));
    }
    let began = Instant::now();
    let seconds = if full { FULL } else { SHORT };
    let (mut parts, mut failed) = (Vec::new(), Vec::new());
    let (mut statements, mut told, mut left_out) = (0, 0, 0);
    for name in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == name) {
            continue;
        }
        progress(&format!("{name}:"));
        let found = match name {
            "rollup" => rollup::run(seconds, full, keep).await,
            "policy" => policy::run(keep).await,
            _ => killed::run(keep).await,
        };
        let found = found.unwrap_or_else(|error| Found {
            wrong: vec![format!("{error:#}")],
            ..Found::default()
        });
        let mut line =
            json!({ "part": name, "passed": found.wrong.is_empty(), "statements": found.statements });
        if let Some(line) = line.as_object_mut() {
            line.extend(found.more);
        }
        progress(&format!("  {line}"));
        for wrong in found.wrong {
            progress(&format!("  WRONG: {wrong}"));
            failed.push(json!({ "part": name, "reason": wrong }));
        }
        parts.push(line);
        statements += found.statements;
        told += found.told;
        left_out += found.left_out;
    }
    let passed = failed.is_empty() && !parts.is_empty();
    let all = figures(json!({
        "statements": statements,
        "told": told,
        "left_out": left_out,
        "parts": parts,
        "failed": failed,
        "seconds": began.elapsed().as_secs(),
        "unavailable": [],
    }))?;
    Ok(Outcome { figures: all, passed })
}

/// Of each run of pgbench.
const FULL: u64 = 60;
const SHORT: u64 = 4;

/// What stops is awaited for so long.
const PATIENCE: Duration = Duration::from_secs(60);
