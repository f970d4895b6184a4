//! Loss is told: every way in which bytes can escape the tap is provoked, and what was lost must be in the record as a
//! gap, with its reason, and nothing that was never sent.
//!
//! Owns the list of parts and the sums. The witness is the client: it knows what it sent, to whom, and when.

mod calls;
mod starved;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Outcome, figures};
use crate::ledger::Ledger;
use crate::screen::progress;
use crate::tap::Tier;

/// What one part found.
#[derive(Debug, Default)]
struct Found {
    ledger: Ledger,
    /// Statements of which something that was never sent is recorded.
    wrong_bytes: u64,
    /// What came of each call: `splice` to `told: missed`.
    calls: BTreeMap<String, String>,
    /// Further reasons, of the agent itself.
    reasons: BTreeMap<String, u64>,
    /// Reasons that this part exists for.
    wanted: Vec<&'static str>,
}

/// Runs the suite. `parts` are names; all of the form if there are none.
///
/// # Errors
/// When the list names a part that there is not.
pub async fn run(full: bool, parts: &[String], keep: bool) -> Result<Outcome> {
    let began = Instant::now();
    if let Some(name) = parts.iter().find(|name| !PARTS.contains(&name.as_str())) {
        anyhow::bail!("there is no part {name}; there are: {}", PARTS.join(" "));
    }
    let wanted = PARTS.into_iter().filter(|name| match parts {
        [] => full || SHORT.contains(name),
        names => names.iter().any(|wanted| wanted == name),
    });
    let (mut total, mut wrong_bytes, mut failed) = (Ledger::default(), 0, Vec::new());
    let (mut reasons, mut lines) = (BTreeMap::<String, u64>::new(), Vec::new());
    for name in wanted {
        progress(&format!("{name}:"));
        let began = Instant::now();
        let found = match name {
            "calls-a" => calls::run(Tier::A, keep).await,
            "calls-b" => calls::run(Tier::B, keep).await,
            "ring" => starved::ring(keep).await,
            "facts" => starved::facts(keep).await,
            "queue" => starved::queue(keep).await,
            "paused" => starved::paused(keep).await,
            "answers" => starved::answers(keep).await,
            _ => starved::probes(keep).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                progress(&format!("  FAILED: {error:#}"));
                failed.push(json!({ "part": name, "reason": format!("{error:#}") }));
                continue;
            }
        };
        let mut seen = found.ledger.reasons.clone();
        for (reason, count) in &found.reasons {
            *seen.entry(reason.clone()).or_default() += count;
        }
        let lacking: BTreeSet<_> = found
            .wanted
            .iter()
            .filter(|reason| !seen.contains_key(**reason))
            .collect();
        // Only where the agent slept through a session's beginning: elsewhere a blind tap would pass for an honest one.
        let blind = name != "probes" && seen.contains_key("opaque_session");
        for example in &found.ledger.examples {
            progress(&format!("  {example}"));
        }
        let line = json!({
            "part": name,
            "seconds": began.elapsed().as_secs(),
            "statements": found.ledger.statements,
            "recorded": found.ledger.recorded,
            "told": found.ledger.told_missing,
            "untold": found.ledger.untold,
            "wrong_bytes": found.wrong_bytes,
            "reasons": seen,
            "lacking": lacking,
            "blind": blind,
            "calls": found.calls,
        });
        progress(&format!("  {line}"));
        if !found.ledger.none() || found.wrong_bytes > 0 || !lacking.is_empty() || blind {
            failed.push(json!({ "part": name, "reason": "something is wrong, see its figures" }));
        }
        for (reason, count) in seen {
            *reasons.entry(reason).or_default() += count;
        }
        lines.push(line);
        total.add(&found.ledger);
        wrong_bytes += found.wrong_bytes;
    }
    let passed = failed.is_empty() && total.statements > 0;
    let figures = figures(json!({
        "statements": total.statements,
        "recorded": total.recorded,
        "reasons": reasons,
        "told": total.told_missing,
        "untold": total.untold,
        "extra": total.extra,
        "wrong_bytes": wrong_bytes + total.wrong_text,
        "parts": lines,
        "failed": failed,
        "seconds": began.elapsed().as_secs(),
        "unavailable": unavailable(),
    }))?;
    Ok(Outcome { figures, passed })
}

/// What cannot be provoked from outside.
fn unavailable() -> Vec<Value> {
    [
        ("targets_full", "it takes 65,536 processes of tapped servers"),
        (
            "program_missed",
            "it takes a kernel that interrupts one of the tap's programs by another",
        ),
        (
            "owners_full",
            "it takes more connecting sockets at once than the kernel has memory for",
        ),
    ]
    .map(|(reason, why)| json!({ "reason": reason, "why": why }))
    .to_vec()
}

const PARTS: [&str; 8] = [
    "calls-a", "calls-b", "ring", "facts", "queue", "paused", "answers", "probes",
];
/// What a check of a commit can wait for.
const SHORT: [&str; 4] = ["calls-a", "calls-b", "ring", "paused"];
