//! The tokens of one statement and column, as they are gathered: each once, up to a cap; beyond it, as a filter.

use std::collections::BTreeSet;

use crate::{filter::Filter, key::Token};

/// Tokens that an event lists one by one: 16 KiB of it. Beyond, a filter of two bytes each stands for them.
pub const LISTED_TOKENS: usize = 1_024;

/// Tokens that a filter stands for: 120 KiB of an event. What is beyond is left out, and said to be.
pub const FILTER_VALUES: usize = 65_536;

/// Tokens, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    all: BTreeSet<Token>,
    left_out: bool,
}

/// As an event tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Ascending, each once; empty where the filter stands for them.
    pub tokens: Vec<Token>,
    /// In place of tokens, if there were more than [`LISTED_TOKENS`].
    pub filter: Option<Filter>,
    /// How many tokens the filter stands for.
    pub filter_values: u64,
    /// There were more than both can hold.
    pub left_out: bool,
}

impl Tokens {
    /// Adds one, if there is room.
    pub fn insert(&mut self, token: Token) {
        if self.all.len() < FILTER_VALUES || self.all.contains(&token) {
            self.all.insert(token);
        } else {
            self.left_out = true;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// As an event tells them.
    #[must_use]
    pub fn told(self) -> Told {
        let Self { all, left_out } = self;
        if all.len() <= LISTED_TOKENS {
            return Told {
                tokens: all.into_iter().collect(),
                left_out,
                ..Told::default()
            };
        }
        Told {
            tokens: Vec::new(),
            filter_values: all.len() as u64,
            filter: Some(Filter::of(all.into_iter())),
            left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> Token {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        bytes[8..].copy_from_slice(&(number as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f).to_be_bytes());
        Token(bytes)
    }

    fn of(count: usize) -> Told {
        let mut tokens = Tokens::default();
        (0..count)
            .chain(0..count)
            .for_each(|number| tokens.insert(token(number)));
        tokens.told()
    }

    #[test]
    fn a_few_are_listed_and_many_are_filtered() {
        let few = of(LISTED_TOKENS);
        assert!(few.tokens.is_sorted() && few.tokens.len() == LISTED_TOKENS);
        assert_eq!((few.filter, few.filter_values, few.left_out), (None, 0, false));
        let many = of(LISTED_TOKENS + 1);
        assert!(many.tokens.is_empty() && !many.left_out);
        assert_eq!(many.filter_values, 1_025);
        assert!(
            many.filter
                .is_some_and(|filter| (0..1_025).all(|number| filter.contains(token(number))))
        );
        let most = of(FILTER_VALUES);
        assert!(!most.left_out);
        let more = of(FILTER_VALUES + 1);
        assert!(more.left_out && more.filter_values == FILTER_VALUES as u64);
    }
}
