//! One host, a dozen programs, one role: every statement against the server's own log, whatever the way to the server,
//! whatever the agent's way into the kernel, and whether the sessions or the agent were there first.
//!
//! Owns the list of cells and their sums. In a cell of kind `new` everything has to be recorded, with texts in the
//! clear, so that they can be compared; in one of kind `old` and in `restarts`, what is not recorded has to be told.
//! Once, everything is searched for secrets with the default redaction.

mod leak;
mod load;
mod mix;
mod new;
mod old;
mod restarts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Outcome, figures};
use crate::cluster::{Cluster, server_binaries};
use crate::compare::Differences;
use crate::ledger::Ledger;
use crate::route::{ROUTES, Route};
use crate::screen::progress;
use crate::tap::{Settings, Tier};

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every cell.
    pub full: bool,
    /// Leave what agent and collector wrote in place.
    pub keep: bool,
    /// Only these cells; if there are none, all of the form.
    pub parts: Vec<String>,
    /// The bundle that agents are started from (`Settings::contained`).
    pub contained: Option<PathBuf>,
}

/// One combination.
#[derive(Clone, Debug)]
struct Cell {
    name: String,
    routes: Vec<Route>,
    tier: Tier,
    kind: Kind,
    contained: Option<PathBuf>,
}

impl Cell {
    /// How its agents are started.
    fn settings(&self) -> Settings {
        Settings {
            contained: self.contained.clone(),
            ..Settings::clear(self.tier)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The agent is there first.
    New,
    /// The sessions are.
    Old,
    /// The agent ends and begins again, so many times.
    Restarts(u32),
    /// The default redaction.
    Literals,
}

/// What one cell found.
#[derive(Debug, Default)]
struct Found {
    differences: Differences,
    ledger: Ledger,
    programs: BTreeSet<String>,
    /// Figures of this kind of cell alone.
    more: serde_json::Map<String, Value>,
    passed: bool,
}

/// Runs the suite.
///
/// # Errors
/// When the plan names a cell that there is not. A cell that cannot be run is a figure, and so are differences.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let began = Instant::now();
    let (mut short, mut all) = (short_form(), cells());
    for cell in short.iter_mut().chain(&mut all) {
        cell.contained.clone_from(&plan.contained);
    }
    let known = |name: &String| short.iter().chain(&all).any(|cell| cell.name == *name);
    if let Some(name) = plan.parts.iter().find(|name| !known(name)) {
        let names: Vec<_> = all.iter().chain(&short).map(|cell| cell.name.as_str()).collect();
        anyhow::bail!("there is no part {name}; there are: {}", names.join(" "));
    }
    let wanted: Vec<&Cell> = match (plan.parts.is_empty(), plan.full) {
        (true, true) => all.iter().collect(),
        (true, false) => short.iter().collect(),
        (false, _) => all
            .iter()
            .chain(
                short
                    .iter()
                    .filter(|cell| all.iter().all(|other| other.name != cell.name)),
            )
            .filter(|cell| plan.parts.contains(&cell.name))
            .collect(),
    };
    let mut sums = Sums::default();
    for cell in wanted {
        let binaries = server_binaries()?;
        let reason = cell
            .routes
            .iter()
            .find_map(|route| Cluster::unavailable(&binaries, *route));
        if let Some(reason) = reason {
            sums.unavailable
                .push(json!({ "part": cell.name, "reason": reason }));
            continue;
        }
        progress(&format!("{}:", cell.name));
        let began = Instant::now();
        let found = match cell.kind {
            Kind::New => new::run(cell, plan.keep).await,
            Kind::Old => old::run(cell, plan.keep).await,
            Kind::Restarts(times) => restarts::run(cell, times, plan.keep).await,
            Kind::Literals => new::literals(cell, plan.keep).await,
        };
        sums.take(cell, found, began.elapsed().as_secs());
    }
    sums.outcome(plan, began.elapsed().as_secs())
}

/// Every way, either tier, and either one first; and what is not about ways.
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for tier in [Tier::A, Tier::B] {
        for route in ROUTES {
            for (kind, order) in [(Kind::New, "new"), (Kind::Old, "old")] {
                cells.push(Cell {
                    name: format!("{}-{}-{order}", route.name(), tier.name()),
                    routes: vec![route],
                    tier,
                    kind,
                    contained: None,
                });
            }
        }
    }
    let binaries = server_binaries().unwrap_or_default();
    let routes = ROUTES
        .into_iter()
        .filter(|route| Cluster::unavailable(&binaries, *route).is_none());
    let routes: Vec<Route> = routes.collect();
    for (name, tier) in [("restarts", Tier::A), ("restarts-b", Tier::B)] {
        cells.push(Cell {
            name: name.to_owned(),
            routes: routes.clone(),
            tier,
            kind: Kind::Restarts(RESTARTS),
            contained: None,
        });
    }
    cells.push(Cell {
        name: "literals".to_owned(),
        routes: routes.clone(),
        tier: Tier::Auto,
        kind: Kind::Literals,
        contained: None,
    });
    cells
}

/// What a check of a commit can wait for: the three commonest ways at once.
fn short_form() -> Vec<Cell> {
    let cell = |name: &str, kind| Cell {
        name: name.to_owned(),
        routes: vec![Route::Tcp, Route::Unix, Route::Tls],
        tier: Tier::Auto,
        kind,
        contained: None,
    };
    vec![
        cell("short-new", Kind::New),
        cell("short-old", Kind::Old),
        cell("short-restarts", Kind::Restarts(SHORT_RESTARTS)),
        cell("short-literals", Kind::Literals),
    ]
}

#[derive(Debug, Default)]
struct Sums {
    differences: Differences,
    ledger: Ledger,
    programs: BTreeSet<String>,
    cells: Vec<Value>,
    failed: Vec<Value>,
    unavailable: Vec<Value>,
    fresh_cells: u64,
    numbers: BTreeMap<&'static str, u64>,
}

impl Sums {
    fn take(&mut self, cell: &Cell, found: Result<Found>, seconds: u64) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                progress(&format!("  FAILED: {error:#}"));
                self.failed
                    .push(json!({ "part": cell.name, "reason": format!("{error:#}") }));
                return;
            }
        };
        for example in found.differences.examples.iter().chain(&found.ledger.examples) {
            progress(&format!("  {example}"));
        }
        self.fresh_cells += u64::from(cell.kind == Kind::New);
        let mut line = json!({
            "part": cell.name,
            "passed": found.passed,
            "seconds": seconds,
            "statements": found.differences.statements + found.ledger.statements,
        });
        if let Some(line) = line.as_object_mut() {
            if matches!(cell.kind, Kind::Old | Kind::Restarts(_)) {
                let ledger = serde_json::to_value(&found.ledger).ok();
                line.extend(ledger.and_then(|ledger| figures(ledger).ok()).unwrap_or_default());
            }
            line.extend(found.more.clone());
        }
        progress(&format!("  {line}"));
        if !found.passed {
            self.failed
                .push(json!({ "part": cell.name, "reason": "something is wrong, see its figures" }));
        }
        self.cells.push(line);
        for name in SUMMED {
            let count = found.more.get(name).and_then(Value::as_u64).unwrap_or_default();
            *self.numbers.entry(name).or_default() += count;
        }
        self.differences.add(&found.differences);
        self.ledger.add(&found.ledger);
        self.programs.extend(found.programs);
    }

    fn outcome(self, plan: &Plan, seconds: u64) -> Result<Outcome> {
        let (differences, ledger) = (&self.differences, &self.ledger);
        let statements = differences.statements + ledger.statements;
        let needed = self.fresh_cells * MIN_STATEMENTS;
        let enough = differences.statements >= needed
            && (plan.parts.is_empty() || statements + self.numbers.values().sum::<u64>() > 0)
            && (self.fresh_cells == 0 || self.programs.len() >= MIN_PROGRAMS);
        let passed = self.failed.is_empty() && enough && !self.cells.is_empty();
        let mut all = figures(json!({
            "statements": statements,
            "programs": self.programs.len(),
            "missing": differences.missing + ledger.untold,
            "extra": differences.extra + ledger.extra,
            "wrong_text": differences.wrong_text + ledger.wrong_text,
            "wrong_rows": differences.wrong_rows,
            "wrong_outcome": differences.wrong_outcome,
            "wrong_principal": differences.wrong_principal + ledger.wrong_principal,
            "unknown_principal": differences.unknown_principal,
            "unwitnessed": differences.unwitnessed,
            "told_missing": ledger.told_missing,
            "untold": ledger.untold,
            "wrong_session": ledger.wrong_session,
            "unknown_session": ledger.unknown_session,
            "wrong_bytes": ledger.wrong_bytes,
            "unknown_principal_old": ledger.unknown_principal,
        }))?;
        for (name, count) in &self.numbers {
            all.insert((*name).to_owned(), json!(count));
        }
        all.extend(figures(json!({
            "cells": self.cells,
            "failed": self.failed,
            "seconds": seconds,
            "unavailable": self.unavailable,
        }))?);
        ensure!(!all.is_empty(), "no figures");
        Ok(Outcome { figures: all, passed })
    }
}

/// Figures of single cells that can be added up.
const SUMMED: [&str; 7] = [
    "sessions",
    "recorded_events",
    "short_lived_processes",
    "garbage_connections",
    "garbage_events",
    "leaks",
    "restarts",
];
const RESTARTS: u32 = 20;
const SHORT_RESTARTS: u32 = 4;
/// In each cell of kind `new`.
const MIN_STATEMENTS: u64 = 10_000;
const MIN_PROGRAMS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_cell_for_each_combination() {
        let names: BTreeSet<_> = cells().into_iter().map(|cell| cell.name).collect();
        assert_eq!(names.len(), 4 * 2 * 2 + 3);
        for name in ["unix-a-new", "tcp-b-old", "tls-a-new", "gss-b-new", "restarts"] {
            assert!(names.contains(name), "{name}");
        }
    }
}
