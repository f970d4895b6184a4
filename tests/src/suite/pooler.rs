//! Through the pooler: many clients share one role over five server connections, and each of their statements has to go
//! back to the client that sent it.
//!
//! Owns the list of parts and their sums. The witnesses are the clients' journals, tickets that the server hands out and
//! logs, and the pooler's own log; see `truth`, and docs/truth.md for why they hold.

mod bouncer_log;
mod hosts;
mod journal;
mod judge;
mod parts;
mod poolers;
mod record;
mod scene;
mod server_log;
mod truth;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Outcome, figures};
use crate::doctor::Doctor;
use crate::screen::progress;
use judge::{Expected, Findings};
use parts::{PARTS, Part};
use poolers::Poolers;

pub(crate) use super::pooled::TICKET;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Half a million statements.
    pub full: bool,
    /// Leave what was written in place.
    pub keep: bool,
    /// Names; all of the form if there are none.
    pub parts: Vec<String>,
    /// Folder with poolers of other distributions.
    pub poolers: Option<PathBuf>,
    /// Why there is none.
    pub poolers_missing: Option<String>,
    /// The bundle that agents are started from (`Settings::contained`).
    pub contained: Option<PathBuf>,
}

/// Runs the suite.
///
/// # Errors
/// When the list names a part that there is not.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let began = Instant::now();
    if let Some(name) = plan
        .parts
        .iter()
        .find(|name| !PARTS.iter().any(|part| part.name == name.as_str()))
    {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        anyhow::bail!("there is no part {name}; there are: {}", names.join(" "));
    }
    let poolers = Poolers {
        folder: plan.poolers.clone(),
        missing: plan.poolers_missing.clone(),
    };
    let wanted = PARTS.iter().filter(|part| match plan.parts.is_empty() {
        true => plan.full || part.short,
        false => plan.parts.iter().any(|name| name == part.name),
    });
    let mut sums = Sums::default();
    let is_followed = !Doctor::ask()?.has_tier_b_alone();
    if !is_followed {
        sums.unavailable
            .push(json!({ "part": "links to clients", "reason": NOT_FOLLOWED }));
    }
    for part in wanted {
        progress(&format!("{}:", part.name));
        let version = match part.setup.program.version(&poolers) {
            Ok(version) => version,
            Err(reason) => {
                progress(&format!("  unavailable: {reason:#}"));
                sums.unavailable
                    .push(json!({ "part": part.name, "reason": format!("{reason:#}") }));
                continue;
            }
        };
        let began = Instant::now();
        match parts::run(part, plan, &poolers).await {
            Ok((found, mut expected, note)) => {
                progress(&format!("  {note}"));
                expected.share = expected.share.filter(|_| is_followed);
                sums.take(part, &version, &found, &expected, began.elapsed().as_secs())?;
            }
            Err(error) => {
                progress(&format!("  FAILED: {error:#}"));
                sums.failed
                    .push(json!({ "part": part.name, "reason": format!("{error:#}") }));
            }
        }
    }
    let passed = sums.failed.is_empty() && sums.total.statements > 0;
    let mut all = sums.figures()?;
    all.insert("seconds".to_owned(), began.elapsed().as_secs().into());
    Ok(Outcome { figures: all, passed })
}

#[derive(Default)]
struct Sums {
    total: Findings,
    lines: Vec<Value>,
    failed: Vec<Value>,
    unavailable: Vec<Value>,
    /// The lowest of PgBouncer's modes.
    joined_share: Option<f64>,
    /// The same, and where something happened meanwhile: of the links to clients alone.
    linked_share: Option<f64>,
    poolers: BTreeMap<String, u64>,
}

impl Sums {
    fn take(
        &mut self,
        part: &Part,
        version: &str,
        found: &Findings,
        expected: &Expected,
        seconds: u64,
    ) -> Result<()> {
        for (what, examples) in &found.examples {
            for example in examples {
                progress(&format!("  {what}: {example}"));
            }
        }
        let mut line = figures(json!({
            "part": part.name, "pooler": version, "seconds": seconds, "joined_share": found.joined_share(),
            "linked_share": found.linked_share(),
        }))?;
        line.extend(figures(serde_json::to_value(found)?)?);
        line.insert("principals".to_owned(), found.principals.len().into());
        progress(&format!("  {}", Value::Object(line.clone())));
        if !found.none(expected) || found.statements == 0 {
            self.failed
                .push(json!({ "part": part.name, "reason": "something is wrong, see its figures" }));
        }
        if part.setup.program != poolers::Program::Pgpool && expected.share.is_some() {
            let least = |of: &mut Option<f64>, share: Option<f64>| {
                let share = share.unwrap_or_default();
                *of = Some(of.map_or(share, |least| least.min(share)));
            };
            least(&mut self.linked_share, found.linked_share());
            if part.event == parts::Event::Nothing {
                least(&mut self.joined_share, found.joined_share());
            }
        }
        *self.poolers.entry(version.to_owned()).or_default() += found.statements;
        self.lines.push(Value::Object(line));
        self.total.add(found);
        Ok(())
    }

    fn figures(self) -> Result<serde_json::Map<String, Value>> {
        let mut all = figures(serde_json::to_value(&self.total)?)?;
        let principals = self.total.principals.len();
        all.extend(figures(json!({
            "principals": principals,
            "unknown": self.total.unknown + self.total.unknown_without_reason,
            "joined_share": self.joined_share,
            "linked_share": self.linked_share,
            "poolers": self.poolers,
            // The same statements: what each of the two says of who sent them.
            "pgaudit": { "statements": self.total.audited, "identities": 1 },
            "pgwitness": { "statements": self.total.audited_named, "identities": principals },
            "parts": self.lines,
            "failed": self.failed,
            "unavailable": self.unavailable,
        }))?);
        Ok(all)
    }
}

/// Where that is so, clients' statements are unknown, and what counts is that none gets a wrong name.
const NOT_FOLLOWED: &str = "poolers are followed with tier A only, which this kernel has not";

/// The beginning of a text that may be long.
fn short(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
