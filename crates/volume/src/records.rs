//! Whose records several executions touched: all of them, exactly.
//!
//! Owns when tokens can be united without losing any. What would be more than an event lists begins a roll-up of its own, and an
//! execution that has a filter in place of tokens is told by itself.

use std::sync::Arc;

use subjects::LISTED_TOKENS;
use tap_core::{Subject, Touched};

/// Whether what both touched can be told as one.
pub(crate) fn can_be_united(one: Option<&Touched>, other: Option<&Touched>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            one.subjects.len() == other.subjects.len()
                && one
                    .subjects
                    .iter()
                    .zip(&other.subjects)
                    .all(|(one, other)| can_be_one(one, other))
        }
        _ => false,
    }
}

fn can_be_one(one: &Subject, other: &Subject) -> bool {
    let is_listed = |subject: &Subject| subject.told.filter.is_none() && !subject.told.left_out;
    (Arc::ptr_eq(&one.of, &other.of) || one.of == other.of)
        && one.key == other.key
        && one.complete == other.complete
        && one.sources == other.sources
        && is_listed(one)
        && is_listed(other)
        && one.told.tokens.len() + other.told.tokens.len() <= LISTED_TOKENS
}

/// Adds the tokens of another execution.
pub(crate) fn unite(own: &mut Touched, more: &Touched) {
    for (own, more) in own.subjects.iter_mut().zip(&more.subjects) {
        let tokens = &mut own.told.tokens;
        for token in &more.told.tokens {
            if let Err(place) = tokens.binary_search(token) {
                tokens.insert(place, *token);
            }
        }
    }
}
