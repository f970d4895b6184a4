//! Whose word a setting is: state of a server's connection stays for the next client, and is not theirs.

use std::{collections::VecDeque, sync::Arc};

use tap_core::{Asserted, END_USER, SetBy, Source};

/// Turns of clients that are remembered of one connection; a setting that is older is nobody's.
const TURNS: usize = 1_024;

/// Settings by which poolers make a connection the next client's, as servers report them (`GUC_REPORT`): PgBouncer's
/// `varcache.c`. They are that client's word, though the pooler says it.
const REPLAYED: [&str; 7] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "search_path",
    "standard_conforming_strings",
    "timezone",
];

/// Why it is not known whether somebody is named.
const FOREIGN: &str = "foreign";

/// Whose a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This client's, by the pooler's socket.
    Client(u64),
    /// The pooler's own.
    Own,
    /// Not known.
    Unknown,
}

/// Whose the statements of one connection were, in their order.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the first statement of each, ascending.
    turns: VecDeque<(u64, Whose)>,
}

impl Turns {
    /// A statement is told; they come in their order.
    pub(super) fn add(&mut self, statement: u64, whose: Whose) {
        if self.turns.back().is_some_and(|(_, last)| *last == whose) {
            return;
        }
        if self.turns.len() >= TURNS {
            self.turns.pop_front();
        }
        self.turns.push_back((statement, whose));
    }

    /// Whose word it is what a statement set.
    fn speaker(&self, by: &SetBy, source: &Source) -> Whose {
        let behind = self.turns.partition_point(|(first, _)| *first <= by.statement);
        let Some((_, whose)) = behind.checked_sub(1).and_then(|place| self.turns.get(place)) else {
            return Whose::Unknown;
        };
        let is_replayed = match source {
            Source::Set(name) | Source::SetConfig(name) => {
                REPLAYED.iter().any(|known| name.eq_ignore_ascii_case(known))
            }
            _ => false,
        };
        match whose {
            Whose::Own if is_replayed => self.turns.get(behind).map_or(Whose::Unknown, |(_, whose)| *whose),
            whose => *whose,
        }
    }

    /// What a statement of `whose` asserts: its own comment, and what the same client has set. What somebody else set is
    /// named, without its value.
    pub(super) fn own(&self, asserted: &Arc<Asserted>, whose: Whose) -> Option<Arc<Asserted>> {
        let is_own = |claim: &tap_core::Claim| match (&claim.source, &claim.set_by) {
            (Source::Comment, _) => true,
            (source, Some(by)) => whose != Whose::Unknown && self.speaker(by, source) == whose,
            // The startup packet is the pooler's, and what nobody was seen to set is nobody's.
            (_, None) => whose == Whose::Own,
        };
        if asserted.claims.iter().all(is_own) {
            return Some(Arc::clone(asserted));
        }
        let (own, others): (Vec<_>, Vec<_>) = asserted.claims.iter().cloned().partition(is_own);
        let mut foreign: Vec<Arc<str>> = Vec::new();
        for claim in &others {
            if !foreign.contains(&claim.says) {
                foreign.push(Arc::clone(&claim.says));
            }
        }
        let names = |claims: &[tap_core::Claim]| claims.iter().any(|claim| &*claim.says == END_USER);
        let is_hidden = names(&others) && !names(&own);
        let unknown = asserted.unknown.or(is_hidden.then_some(FOREIGN));
        Some(Arc::new(Asserted {
            claims: own,
            unknown,
            foreign,
        }))
    }
}

#[cfg(test)]
mod tests;
