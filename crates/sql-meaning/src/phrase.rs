//! A run of tokens with the text they came from: what the keyword-level readers of this crate share.
//!
//! Owns matching of words, names and brackets. Refuses to know any command. Indexes past the end are
//! answered with nothing, so that callers may look ahead freely.

use crate::lexer::{Kind, Token};

#[derive(Clone, Copy)]
pub(crate) struct Phrase<'a> {
    pub(crate) sql: &'a str,
    pub(crate) tokens: &'a [Token],
}

impl<'a> Phrase<'a> {
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    pub(crate) fn text(&self, at: usize) -> &'a str {
        self.tokens
            .get(at)
            .and_then(|token| self.sql.get(token.start..token.end))
            .unwrap_or_default()
    }

    /// The unquoted word at `at`, or nothing.
    pub(crate) fn word(&self, at: usize) -> &'a str {
        if self.kind(at) == Some(Kind::Word) {
            self.text(at)
        } else {
            ""
        }
    }

    /// `word` is written in capitals here and in any case in the text.
    pub(crate) fn is(&self, at: usize, word: &str) -> bool {
        self.word(at).eq_ignore_ascii_case(word)
    }

    pub(crate) fn any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    /// Whether these words stand at `at` and after, in this order.
    pub(crate) fn all(&self, at: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(offset, word)| self.is(at + offset, word))
    }

    pub(crate) fn symbol(&self, at: usize, symbol: &str) -> bool {
        self.kind(at) == Some(Kind::Symbol) && self.text(at) == symbol
    }

    pub(crate) fn from(&self, at: usize) -> Phrase<'a> {
        Phrase {
            sql: self.sql,
            tokens: self.tokens.get(at..).unwrap_or_default(),
        }
    }

    /// Its first tokens.
    pub(crate) fn head(&self, most: usize) -> Phrase<'a> {
        Phrase {
            sql: self.sql,
            tokens: self.tokens.get(..most).unwrap_or(self.tokens),
        }
    }

    /// The statements between semicolons, with the index of each one's first token. A body in
    /// `BEGIN ATOMIC` falls apart here; [`crate::split`] is the reading that keeps it whole.
    pub(crate) fn statements(&self) -> Vec<(usize, Phrase<'a>)> {
        let mut start = 0;
        let mut found = Vec::new();
        for end in 0..=self.len() {
            if end == self.len() || self.symbol(end, ";") {
                let tokens = self.tokens.get(start..end).unwrap_or_default();
                found.push((
                    start,
                    Phrase {
                        sql: self.sql,
                        tokens,
                    },
                ));
                start = end + 1;
            }
        }
        found
    }

    /// The identifier at `at`, folded as the server folds it.
    pub(crate) fn identifier(&self, at: usize) -> Option<String> {
        match self.kind(at)? {
            Kind::Word => Some(self.text(at).to_ascii_lowercase()),
            Kind::Quoted => {
                let text = self.text(at);
                let inner = text.get(text.find('"')? + 1..text.len() - 1)?;
                Some(inner.replace("\"\"", "\""))
            }
            _ => None,
        }
    }

    /// The dotted name at `at` and the index after it.
    pub(crate) fn name(&self, at: usize) -> Option<(Vec<String>, usize)> {
        let mut parts = vec![self.identifier(at)?];
        let mut next = at + 1;
        while self.symbol(next, ".") {
            let Some(part) = self.identifier(next + 1) else {
                break;
            };
            parts.push(part);
            next += 2;
        }
        Some((parts, next))
    }

    /// Index after the bracket that closes the one at `open`; the end where none does.
    pub(crate) fn after_bracket(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for at in open..self.len() {
            if self.symbol(at, "(") {
                depth += 1;
            } else if self.symbol(at, ")") {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
        }
        self.len()
    }

    /// Index of the first of `words` at or after `from` that stands outside brackets.
    pub(crate) fn find(&self, from: usize, words: &[&str]) -> Option<usize> {
        let mut depth = 0_usize;
        for at in from..self.len() {
            if self.symbol(at, "(") {
                depth += 1;
            } else if self.symbol(at, ")") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && self.any(at, words) {
                return Some(at);
            }
        }
        None
    }
}
