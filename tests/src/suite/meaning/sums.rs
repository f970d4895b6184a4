//! The suite's figures.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::Plan;
use super::judge::{self, Verdict};
use super::leak::Searched;
use super::pair::Paired;
use crate::screen::progress;
use crate::suite::{Outcome, figures};

/// What all parts found.
#[derive(Debug, Default)]
pub(super) struct Sums {
    statements: u64,
    class: Side,
    objects: Side,
    /// Statements of which both sides say something.
    named: u64,
    missing: u64,
    unaligned: u64,
    rules: BTreeMap<&'static str, u64>,
    /// Every disagreement, with how often it occurred.
    differences: BTreeMap<String, u64>,
    parts: Vec<Value>,
    failed: Vec<Value>,
    unavailable: Vec<Value>,
    leaks: u64,
    /// Figures of single parts: fingerprints, secrets.
    more: serde_json::Map<String, Value>,
    fingerprints: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    equal: u64,
    different: u64,
    unwitnessed: u64,
}

impl Side {
    fn take(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::Different(_) => self.different += 1,
            Verdict::Unwitnessed => self.unwitnessed += 1,
        }
    }

    /// Of those that pgAudit says something of.
    fn share(self) -> f64 {
        let all = self.equal + self.different;
        if all == 0 {
            0.0
        } else {
            self.equal as f64 / all as f64
        }
    }
}

impl Sums {
    /// Judges the statements of one part.
    pub(super) fn compare(
        &mut self,
        part: &str,
        paired: &Paired<'_>,
        functions: &std::collections::BTreeSet<String>,
    ) {
        let (mut class, mut objects) = (Side::default(), Side::default());
        for pair in &paired.pairs {
            let meant = pair.event.meant();
            let text = pair.event.text();
            let judged = judge::judge(
                text,
                pair.whole,
                pair.event.failed(),
                &meant,
                &pair.lines,
                functions,
            );
            class.take(&judged.class);
            objects.take(&judged.objects);
            if judged.objects == Verdict::Equal && !meant.objects.is_empty() {
                self.named += 1;
            }
            for rule in judged.rules {
                *self.rules.entry(rule).or_default() += 1;
            }
            for (what, verdict) in [("class", &judged.class), ("objects", &judged.objects)] {
                if let Verdict::Different(how) = verdict {
                    let shown: String = text.replace('\n', " ").chars().take(SHOWN).collect();
                    *self
                        .differences
                        .entry(format!("{what}: {how}: {shown}"))
                        .or_default() += 1;
                }
            }
        }
        for text in paired.missing.iter().take(EXAMPLES) {
            let shown: String = text.chars().take(SHOWN).collect();
            progress(&format!("  {part}: not found in the record: {shown}"));
        }
        let line = json!({
            "part": part,
            "statements": paired.pairs.len(),
            "class_equal": class.share(),
            "objects_equal": objects.share(),
            "missing": paired.missing.len(),
            "unaligned": paired.unaligned,
        });
        progress(&format!("  {line}"));
        self.parts.push(line);
        self.statements += paired.pairs.len() as u64;
        self.missing += paired.missing.len() as u64;
        self.unaligned += paired.unaligned;
        for (all, one) in [(&mut self.class, class), (&mut self.objects, objects)] {
            all.equal += one.equal;
            all.different += one.different;
            all.unwitnessed += one.unwitnessed;
        }
    }

    pub(super) fn failed(&mut self, part: &str, error: &anyhow::Error) {
        progress(&format!("  {part}: FAILED: {error:#}"));
        self.failed
            .push(json!({ "part": part, "reason": format!("{error:#}") }));
    }

    pub(super) fn unavailable(&mut self, part: &str, reason: &str) {
        progress(&format!("  {part}: cannot run here: {reason}"));
        self.unavailable.push(json!({ "part": part, "reason": reason }));
    }

    pub(super) fn searched(&mut self, part: &str, found: &Searched, tokens: bool) {
        self.leaks += found.leaks;
        let figures = json!({
            "statements": found.statements, "events": found.events, "leaks": found.leaks, "with_tokens": found.tokens,
        });
        self.more.insert(part.to_owned(), figures);
        if (found.tokens > 0) != tokens {
            let reason = format!("{} events have tokens", found.tokens);
            self.failed.push(json!({ "part": part, "reason": reason }));
        }
        if found.events < found.statements {
            let reason = format!(
                "only {} of {} statements were recorded",
                found.events, found.statements
            );
            self.failed.push(json!({ "part": part, "reason": reason }));
        }
    }

    /// What the grammar says: the share of pairs, and the rest of its figures.
    pub(super) fn grammar(&mut self, share: f64, more: Value) {
        self.fingerprints = Some(share);
        self.more.insert("grammar".to_owned(), more);
    }

    pub(super) fn outcome(self, plan: &Plan, seconds: u64) -> Result<Outcome> {
        for (difference, times) in self.differences.iter().take(SHOWN_DIFFERENCES) {
            progress(&format!("  {times} x {difference}"));
        }
        let compared = !self.parts.is_empty();
        let disagreements = self.class.different + self.objects.different;
        let agrees = !compared || (self.class.share() >= CLASS && self.objects.share() >= OBJECTS);
        let complete = (self.missing + self.unaligned) as f64 <= LOST * self.statements as f64;
        let passed = self.failed.is_empty()
            && agrees
            && complete
            && self.leaks == 0
            && self.fingerprints.is_none_or(|share| share >= FINGERPRINTS)
            && (self.statements > 0 || !plan.parts.is_empty());
        let mut all = figures(json!({
            "statements": self.statements,
            "class_equal": compared.then(|| self.class.share()),
            "objects_equal": compared.then(|| self.objects.share()),
            "fingerprints_equal": self.fingerprints,
            "leaks": self.leaks,
            "disagreements": disagreements,
            "class_unwitnessed": self.class.unwitnessed,
            "objects_unwitnessed": self.objects.unwitnessed,
            "objects_named": self.named,
            "missing": self.missing,
            "unaligned": self.unaligned,
            "rules": self.rules,
            "differences": self.differences,
            "parts": self.parts,
        }))?;
        all.extend(self.more);
        all.extend(figures(json!({
            "failed": self.failed,
            "unavailable": self.unavailable,
            "seconds": seconds,
        }))?);
        Ok(Outcome { figures: all, passed })
    }
}

/// Least shares of statements.
const CLASS: f64 = 0.999;
const OBJECTS: f64 = 0.99;
const FINGERPRINTS: f64 = 0.999;
/// Largest share of the log that may not be found in the record or told apart: what else the suite says would be of a
/// selection.
const LOST: f64 = 0.005;
const EXAMPLES: usize = 10;
const SHOWN: usize = 240;
const SHOWN_DIFFERENCES: usize = 100;
