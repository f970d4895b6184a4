//! What one part found, in figures that add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::events::Gap;

/// Counts of one part; [`Figures::add`] sums them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Figures {
    /// Requests in the servers' logs.
    pub(super) statements: u64,
    /// Sessions in the servers' logs that asked for anything.
    pub(super) sessions: u64,
    /// `query` events.
    pub(super) recorded_events: u64,
    pub(super) missing: u64,
    pub(super) extra: u64,
    pub(super) wrong_text: u64,
    pub(super) wrong_params: u64,
    pub(super) wrong_rows: u64,
    pub(super) wrong_outcome: u64,
    pub(super) gaps: u64,
    /// The same by their reason.
    pub(super) gap_reasons: BTreeMap<String, u64>,
    /// Executions in the clients' journals.
    pub(super) journal_statements: u64,
    pub(super) params_compared: u64,
    /// Binary values of types that are not decoded, by oid.
    pub(super) params_raw: BTreeMap<String, u64>,
    /// How often each rule was needed.
    pub(super) rules: BTreeMap<String, u64>,
    /// The first differences in words.
    pub(super) examples: Vec<String>,
}

impl Figures {
    pub(super) fn rule(&mut self, name: &str) {
        *self.rules.entry(name.to_owned()).or_default() += 1;
    }

    /// A binary value that is recorded as bytes. Oids of types that a database makes itself say nothing to others.
    pub(super) fn raw(&mut self, oid: u32, count: u64) {
        let name = match oid {
            0 => "not on the wire".to_owned(),
            FIRST_NORMAL_OID.. => "made by users".to_owned(),
            oid => oid.to_string(),
        };
        *self.params_raw.entry(name).or_default() += count;
    }

    pub(super) fn gap(&mut self, gap: &Gap) {
        self.gaps += 1;
        *self.gap_reasons.entry(gap.reason.clone()).or_default() += 1;
        self.note(|| gap.told.clone());
    }

    pub(super) fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(shortened(&example()));
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.statements += other.statements;
        self.sessions += other.sessions;
        self.recorded_events += other.recorded_events;
        self.missing += other.missing;
        self.extra += other.extra;
        self.wrong_text += other.wrong_text;
        self.wrong_params += other.wrong_params;
        self.wrong_rows += other.wrong_rows;
        self.wrong_outcome += other.wrong_outcome;
        self.gaps += other.gaps;
        self.journal_statements += other.journal_statements;
        self.params_compared += other.params_compared;
        let sums = [
            (&mut self.gap_reasons, &other.gap_reasons),
            (&mut self.params_raw, &other.params_raw),
            (&mut self.rules, &other.rules),
        ];
        for (sum, others) in sums {
            for (name, count) in others {
                *sum.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// Whether everything that must be zero is.
    pub(super) fn clean(&self) -> bool {
        self.differences() == 0 && self.gaps == 0
    }

    pub(super) fn differences(&self) -> u64 {
        self.missing + self.extra + self.wrong_text + self.wrong_params + self.wrong_rows + self.wrong_outcome
    }
}

/// A text for people: its front.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `FirstNormalObjectId` of the server's `access/transam.h`.
const FIRST_NORMAL_OID: u32 = 16_384;
const EXAMPLES: usize = 20;
const SHOWN: usize = 400;
