//! Loss is told: every way in which bytes can escape the tap is provoked, and what was lost must be in the record as a
//! gap, with its reason, and nothing that was never sent.
//!
//! Owns the list of parts and the sums. The witness is the client: it knows what it sent, to whom, and when.

mod breakpoints;
mod calls;
mod full;
mod scene;
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
    /// What the agent counted, by its last word.
    counters: BTreeMap<String, u64>,
    /// What is wrong besides, in words.
    wrong: Vec<String>,
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
            "unplaced" => starved::unplaced(keep).await,
            "rollback" => starved::rollback(keep).await,
            "answers" => starved::answers(keep).await,
            "targets" => full::targets(keep).await,
            "owners" => full::owners(keep).await,
            "memory" => full::memory(keep).await,
            "storm" => full::storm(keep).await,
            "storm-alone" => full::storm_alone(keep).await,
            "returns" => calls::returns(keep).await,
            "breakpoints" => breakpoints::run(keep).await,
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
        // Each has a counter of its own, too.
        let uncounted: BTreeSet<_> = COUNTED
            .iter()
            .filter(|(reason, counter)| {
                found.wanted.contains(reason) && found.counters.get(*counter).is_none_or(|count| *count == 0)
            })
            .map(|(_, counter)| counter)
            .collect();
        // Only where the agent slept through a session's beginning: elsewhere a blind tap would pass for an honest one.
        let blind = name != "probes" && seen.contains_key("opaque_session");
        for example in found.ledger.examples.iter().chain(&found.wrong) {
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
            "uncounted": uncounted,
            "wrong": found.wrong,
            "blind": blind,
            "calls": found.calls,
        });
        progress(&format!("  {line}"));
        let is_right = found.ledger.none() && found.wrong_bytes == 0 && found.wrong.is_empty();
        if !is_right || !lacking.is_empty() || !uncounted.is_empty() || blind {
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
    [(
        "program_missed of a session",
        "it takes a kernel that enters the tap's programs at the socket while one of them runs on that processor",
    )]
    .map(|(reason, why)| json!({ "reason": reason, "why": why }))
    .to_vec()
}

const PARTS: [&str; 17] = [
    "calls-a",
    "calls-b",
    "ring",
    "facts",
    "queue",
    "paused",
    "rollback",
    "answers",
    "probes",
    "unplaced",
    "returns",
    "breakpoints",
    "targets",
    "owners",
    "memory",
    "storm",
    "storm-alone",
];
/// What a check of a commit can wait for.
const SHORT: [&str; 7] = [
    "calls-a",
    "calls-b",
    "ring",
    "paused",
    "returns",
    "breakpoints",
    "targets",
];
/// Reasons and their counters (docs/event-reference.md). The others are seen by the pipeline, not counted by the kernel side.
const COUNTED: [(&str, &str); 13] = [
    ("plaintext_unplaced", "plaintext_unplaced"),
    ("ring_full", "ring_full"),
    ("copy_fault", "copy_fault"),
    ("unsupported_call", "unsupported_call"),
    ("call_cap", "call_cap"),
    ("probe_missed", "probe_missed"),
    ("facts_lost", "facts_lost"),
    ("targets_full", "targets_full"),
    ("owners_full", "owners_full"),
    ("program_missed", "program_missed"),
    ("memory_limit", "memory_limit_bytes"),
    ("paused", "paused_bytes"),
    ("queue_full", "queue_dropped"),
];
