//! Who it was: clients of every kind, each of which writes down what it really is, against the names that were recorded.
//!
//! Owns the list of parts and their sums. The witness is the clients' own journal (`tests/programs/witness.c`): each
//! reads what the host's `/proc` says of itself just before it connects, and every statement carries the mark of its line.

mod container;
mod containers;
mod group;
mod hosts;
mod journal;
mod judge;
mod logins;
mod many;
pub(in crate::suite) mod networks;
mod nodes;
mod old;
mod relays;
mod reuse;
mod scene;
mod units;

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Outcome, figures};
use crate::screen::progress;
use judge::Findings;

/// Runs the suite. `parts` are names; all of the form if there are none.
///
/// # Errors
/// When the list names a part that there is not.
pub async fn run(full: bool, parts: &[String], keep: bool) -> Result<Outcome> {
    let began = Instant::now();
    if let Some(name) = parts.iter().find(|name| !PARTS.contains(&name.as_str())) {
        anyhow::bail!("there is no part {name}; there are: {}", PARTS.join(" "));
    }
    let wanted = PARTS.into_iter().filter(|name| match parts.is_empty() {
        true => full || SHORT_PARTS.contains(name),
        false => parts.iter().any(|wanted| wanted == name),
    });
    let (mut total, mut failed, mut lines) = (Findings::default(), Vec::new(), Vec::new());
    for name in wanted {
        progress(&format!("{name}:"));
        let began = Instant::now();
        let found = match name {
            "units" => units::run(full, keep).await,
            "containers" => containers::run(full, keep).await,
            "many" => many::run(full, keep).await,
            "reuse" => reuse::run(full, keep).await,
            "old" => old::run(full, keep).await,
            "relays" => relays::run(full, keep).await,
            "logins" => logins::run(full, keep).await,
            "hosts" => hosts::run(full, keep).await,
            _ => nodes::run(full, keep).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                progress(&format!("  FAILED: {error:#}"));
                failed.push(json!({ "part": name, "reason": format!("{error:#}") }));
                continue;
            }
        };
        for example in found.examples.values() {
            progress(&format!("  {example}"));
        }
        let mut line = figures(json!({ "part": name, "seconds": began.elapsed().as_secs() }))?;
        line.extend(figures(serde_json::to_value(&found)?)?);
        progress(&format!("  {}", Value::Object(line.clone())));
        if !found.none() || found.connections == 0 {
            failed.push(json!({ "part": name, "reason": "something is wrong, see its figures" }));
        }
        lines.push(line);
        total.add(&found);
    }
    let unavailable: Vec<Value> = total
        .unavailable
        .iter()
        .map(|(what, reason)| json!({ "part": what, "reason": reason }))
        .collect();
    let passed = failed.is_empty() && total.connections > 0;
    let mut all = figures(serde_json::to_value(&total)?)?;
    all.extend(figures(json!({
        "unknown": total.unknown_with_reason + total.unknown_without_reason + total.relayed,
        "observed_share_same_host": total.observed_share(),
        "joined_share_cross_host": total.joined_share(),
        "parts": lines,
        "failed": failed,
        "seconds": began.elapsed().as_secs(),
        "unavailable": unavailable,
    }))?);
    Ok(Outcome { figures: all, passed })
}

const PARTS: [&str; 9] = [
    "units",
    "logins",
    "containers",
    "many",
    "reuse",
    "old",
    "relays",
    "nodes",
    "hosts",
];
const SHORT_PARTS: [&str; 6] = ["units", "logins", "containers", "reuse", "relays", "hosts"];
