//! What becomes of a statement: the first rule that fits says so, unless it is always recorded in full.

use proto::v1;
use tap_core::{EffectiveRole, Query, SessionFacts, Statement};

use crate::{
    always,
    policy::Policy,
    rule::{Fit, Keep, Sender},
};

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It is an event of its own.
    #[default]
    Full,
    /// It is told with its equals; by which rule.
    Rollup(u16),
    /// It is counted; by which rule.
    Off(u16),
}

/// The rules that may be about what somebody sends, in their order, and whether they are for sure.
pub(crate) type Candidates = Vec<(u16, bool)>;

impl Policy {
    /// What the policy says of an execution.
    #[must_use]
    pub fn verdict(
        &self,
        facts: &SessionFacts,
        attribution: Option<&v1::Attribution>,
        query: &Query,
    ) -> Verdict {
        let candidates = self.candidates(facts, attribution, query.effective_role.as_ref());
        match &query.statement {
            Some(statement) if !always::by_its_end(query) => {
                self.of_statement(&candidates, statement, query.source_statement.as_deref())
            }
            _ => Verdict::Full,
        }
    }

    /// The rules that may be about what this one sends. None, if who it is may turn out otherwise.
    pub(crate) fn candidates(
        &self,
        facts: &SessionFacts,
        attribution: Option<&v1::Attribution>,
        effective_role: Option<&EffectiveRole>,
    ) -> Candidates {
        let Some(attribution) = attribution.filter(|attribution| is_sure(attribution)) else {
            return Candidates::new();
        };
        let sender = Sender {
            principal: &attribution.principal,
            role: facts.login_role.as_deref(),
            effective_role,
            database: facts.database.as_deref(),
            application: facts.application_name.as_deref(),
        };
        let mut candidates = Candidates::new();
        for (place, rule) in (0..).zip(&self.rules) {
            match rule.fits_sender(&sender) {
                Fit::No => {}
                fit => candidates.push((place, fit == Fit::Yes)),
            }
        }
        candidates
    }

    /// What becomes of a statement that went well, if these are the rules for who sends it.
    pub(crate) fn of_statement(
        &self,
        candidates: &Candidates,
        statement: &Statement,
        source: Option<&Statement>,
    ) -> Verdict {
        if candidates.is_empty() || always::by_its_text(statement, source) {
            return Verdict::Full;
        }
        let objects = always::objects(statement, source);
        if self.is_sensitive(&objects) {
            return Verdict::Full;
        }
        for (place, is_sure) in candidates {
            let Some(rule) = self.rules.get(usize::from(*place)) else {
                continue;
            };
            match (rule.fits_statement(statement, &objects), is_sure, rule.keep) {
                (Fit::No, ..) => {}
                (Fit::Maybe, ..) | (_, false, _) | (_, _, Keep::Full) => return Verdict::Full,
                (Fit::Yes, true, Keep::Rollup) => return Verdict::Rollup(*place),
                (Fit::Yes, true, Keep::Off) => return Verdict::Off(*place),
            }
        }
        Verdict::Full
    }
}

/// Whose it is will not turn out otherwise: one kernel saw both ends, of the statement or of each part of its way. What is known by
/// an address alone may be told by another host's agent, statement by statement.
fn is_sure(attribution: &v1::Attribution) -> bool {
    let level = v1::Confidence::try_from(attribution.confidence);
    matches!(level, Ok(v1::Confidence::Observed | v1::Confidence::Joined))
        && attribution.principal.starts_with("spiffe://")
}
