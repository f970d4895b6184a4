//! Hiding must not pay: clients and processes that try to escape the tap are told of, and hide nobody else.
//!
//! Owns one scene for each trick, and the sums. The witness is the server's log, or the client's journal where the server
//! is none.

mod tricks;

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Outcome, figures};
use crate::ledger::Ledger;
use crate::screen::progress;

/// What one scene found.
#[derive(Debug, Default)]
struct Found {
    /// The trick's own statements, and everybody else's.
    ledger: Ledger,
    /// What is wrong, in words.
    wrong: Vec<String>,
    /// Figures of this scene alone.
    more: serde_json::Map<String, Value>,
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
    let (mut total, mut tricks, mut failed, mut lines) = (Ledger::default(), 0, Vec::new(), Vec::new());
    for name in PARTS
        .into_iter()
        .filter(|name| parts.is_empty() || parts.iter().any(|wanted| wanted == name))
    {
        progress(&format!("{name}:"));
        let began = Instant::now();
        let found = match name {
            "comment" => tricks::comment(keep).await,
            "flood" => tricks::flood(full, keep).await,
            "crowd" => tricks::crowd(keep).await,
            "impostor" => tricks::impostor(keep).await,
            _ => tricks::client_calls(keep).await,
        };
        tricks += 1;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                progress(&format!("  FAILED: {error:#}"));
                failed.push(json!({ "part": name, "reason": format!("{error:#}") }));
                continue;
            }
        };
        for example in found.ledger.examples.iter().chain(&found.wrong) {
            progress(&format!("  {example}"));
        }
        let mut line = figures(json!({
            "part": name,
            "seconds": began.elapsed().as_secs(),
            "statements": found.ledger.statements,
            "recorded": found.ledger.recorded,
            "told": found.ledger.told_missing,
            "untold": found.ledger.untold,
            "wrong": found.wrong,
            "reasons": found.ledger.reasons,
        }))?;
        line.extend(found.more);
        progress(&format!("  {}", Value::Object(line.clone())));
        if !found.ledger.none() || !found.wrong.is_empty() {
            failed.push(json!({ "part": name, "reason": "something is wrong, see its figures" }));
        }
        lines.push(line);
        total.add(&found.ledger);
    }
    let passed = failed.is_empty() && total.statements > 0;
    let figures = figures(json!({
        "tricks": tricks,
        "statements": total.statements,
        "recorded": total.recorded,
        "told": total.told_missing,
        "untold": total.untold,
        "extra": total.extra,
        "wrong_text": total.wrong_text,
        "parts": lines,
        "failed": failed,
        "seconds": began.elapsed().as_secs(),
        "unavailable": [],
    }))?;
    Ok(Outcome { figures, passed })
}

const PARTS: [&str; 5] = ["comment", "flood", "crowd", "impostor", "client-calls"];
