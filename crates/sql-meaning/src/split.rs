//! A simple query string to its statements, as the server's grammar splits it.
//!
//! Owns semicolons and nothing else. Separate because events are counted by its answer.

use std::ops::Range;

use crate::lexer::lex_with_comments;
use crate::lexer::{Kind, Token};
use crate::phrase::Phrase;

/// Byte ranges of the statements of a simple query string, white space trimmed, comments kept.
///
/// Statements with nothing but white space and comments are left out: the server answers none of them.
/// Semicolons in brackets (`CREATE RULE … DO (…; …)`) and in `BEGIN ATOMIC … END` bodies do not split.
/// Where [`crate::redact`] would hide a region because its reading depends on session settings,
/// the semicolons in it do not split either, so that no half of a literal is taken for a statement.
pub fn split(sql: &str) -> Vec<Range<usize>> {
    let tokens = lex_with_comments(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let mut found = Vec::new();
    let mut open: Option<Range<usize>> = None;
    let mut filled = false;
    let (mut brackets, mut blocks) = (0_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        if brackets == 0 && blocks == 0 && phrase.symbol(at, ";") {
            found.extend(open.take().filter(|_| filled));
            filled = false;
            continue;
        }
        filled |= token.kind != Kind::Comment;
        open = Some(open.map_or(token.start..token.end, |range| range.start..token.end));
        match phrase.text(at) {
            "(" if token.kind == Kind::Symbol => brackets += 1,
            ")" if token.kind == Kind::Symbol => brackets = brackets.saturating_sub(1),
            _ if phrase.is(at, "BEGIN") && next_is_atomic(phrase, &tokens, at) => blocks += 1,
            _ if blocks > 0 && phrase.is(at, "CASE") => blocks += 1,
            _ if blocks > 0 && phrase.is(at, "END") => blocks -= 1,
            _ => {}
        }
    }
    found.extend(open.filter(|_| filled));
    found
}

fn next_is_atomic(phrase: Phrase<'_>, tokens: &[Token], at: usize) -> bool {
    let next = tokens
        .iter()
        .enumerate()
        .skip(at + 1)
        .find(|(_, token)| token.kind != Kind::Comment);
    next.is_some_and(|(next, _)| phrase.is(next, "ATOMIC"))
}
