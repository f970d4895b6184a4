//! What a statement means: class, command and objects against what pgAudit says of it, fingerprints against the server's
//! own grammar, and no secret in anything that is written.
//!
//! Owns the plan and the sums. The rules of the comparison are in `judge` and, with their reasons, in `docs/truth.md`.

mod audit;
mod grammar;
mod judge;
mod leak;
mod pair;
mod record;
mod scene;
mod secret;
mod sums;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::Outcome;
use crate::screen::progress;
use leak::Mode;
use sums::Sums;

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The whole regression suite, and all secrets.
    pub full: bool,
    /// Leave what agent and collector wrote in place.
    pub keep: bool,
    /// Only these parts; all if it is empty.
    pub parts: Vec<String>,
    /// PostgreSQL's regression tests, as unpacked.
    pub regress: Option<PathBuf>,
    /// Why they are not there.
    pub regress_missing: Option<String>,
    /// The program that asks the server's own grammar.
    pub oracle: Option<PathBuf>,
    /// Why there is none.
    pub oracle_missing: Option<String>,
    /// The repository.
    pub sources: PathBuf,
}

impl Plan {
    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|name| name == part)
    }
}

/// Runs the suite.
///
/// # Errors
/// When the plan names a part that there is not. A part that cannot be run is a figure, and so are differences.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let began = Instant::now();
    for name in &plan.parts {
        ensure!(
            PARTS.contains(&name.as_str()),
            "there is no part {name}; there are: {}",
            PARTS.join(" ")
        );
    }
    let mut sums = Sums::default();
    if scene::PARTS.iter().any(|part| plan.has(part)) {
        progress("class and objects, texts in the clear:");
        match scene::run(plan, &mut sums).await {
            Ok(()) => {}
            Err(error) => sums.failed("clear", &error),
        }
    }
    for (part, mode) in [(LEAK, Mode::Redact), (LEAK_TOKEN, Mode::Token)] {
        if !plan.has(part) {
            continue;
        }
        progress(&format!("secrets ({part}):"));
        match leak::run(plan, mode).await {
            Ok(found) => sums.searched(part, &found, mode == Mode::Token),
            Err(error) => sums.failed(part, &error),
        }
    }
    sums.outcome(plan, began.elapsed().as_secs())
}

const LEAK: &str = "leak";
const LEAK_TOKEN: &str = "leak-token";
/// All parts.
const PARTS: [&str; 8] = [
    "corpus",
    "pgbench",
    "sqlalchemy",
    "django",
    "regress",
    "fingerprints",
    LEAK,
    LEAK_TOKEN,
];
