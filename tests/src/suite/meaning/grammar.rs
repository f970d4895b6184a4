//! Fingerprints against those of the server's own grammar.
//!
//! Owns the question to the oracle, a program of its own: it is built from the server's sources, which nothing else needs.
//! What a pair is, and how it is counted, is said there.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Plan;
use super::sums::Sums;

/// Asks about all texts.
///
/// # Errors
/// When the oracle cannot be run, or does not answer.
pub(super) fn run<'a>(plan: &Plan, texts: impl Iterator<Item = &'a str>, sums: &mut Sums) -> Result<()> {
    let Some(oracle) = &plan.oracle else {
        let reason = plan.oracle_missing.clone();
        sums.unavailable(
            "fingerprints",
            &reason.unwrap_or_else(|| "only in the full form".to_owned()),
        );
        return Ok(());
    };
    let texts: BTreeSet<&str> = texts
        .filter(|text| !text.is_empty() && !text.contains("'***'"))
        .collect();
    let texts = serde_json::to_vec(&texts)?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), texts)?;
    let output = Command::new(oracle)
        .arg(file.path())
        .output()
        .context("running the oracle")?;
    ensure!(
        output.status.success(),
        "the oracle failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let figures: Value = serde_json::from_slice(&output.stdout).context("the oracle's answer")?;
    let share = figures
        .get("pairs_equal")
        .and_then(Value::as_f64)
        .context("pairs_equal")?;
    sums.grammar(share, figures);
    Ok(())
}
