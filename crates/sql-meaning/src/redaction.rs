//! Text without values: what may leave the host by default.
//!
//! Owns the decision which tokens are values: every literal, the values of `SET`, and whatever
//! stands where a password belongs. Refuses to let a parser have a say. Separate from the fingerprint,
//! which reads the same veiled tokens.

use std::ops::Range;

use crate::lexer::{Kind, Token, lex};
use crate::phrase::Phrase;

/// The statement text with every literal replaced by `?`, comments dropped and white space collapsed.
///
/// Strings of every quoting, bit strings and numbers are literals; signs, `TRUE`, `FALSE`, `NULL` and
/// parameters (`$1`) stay; names and keywords stay as written. In `SET name = value` the value goes, a bare
/// word too, except `DEFAULT`; names of roles, transaction modes and constraints stay.
/// Idempotent. Text beyond [`crate::MAX_TEXT_BYTES`] becomes one `?`.
///
/// The settings `standard_conforming_strings` and `backslash_quote` of the session are not known here;
/// where they matter, what either reading calls a literal is replaced.
pub fn redact(sql: &str) -> String {
    render(sql, &veil(sql, lex(sql)))
}

/// Writes tokens out, values as `?`.
pub(crate) fn render(sql: &str, tokens: &[Token]) -> String {
    let phrase = Phrase { sql, tokens };
    let mut out = String::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.spaced && at > 0 {
            out.push(' ');
        }
        out.push_str(if is_value(token) { "?" } else { phrase.text(at) });
    }
    out
}

pub(crate) fn is_value(token: &Token) -> bool {
    matches!(token.kind, Kind::Literal | Kind::Number | Kind::Doubt)
}

/// Replaces, by one literal each, the runs of tokens that are values though not written as literals.
pub(crate) fn veil(sql: &str, mut tokens: Vec<Token>) -> Vec<Token> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (first, statement) in (Phrase { sql, tokens: &tokens }).statements() {
        hidden(statement, |run| {
            if !run.is_empty() {
                runs.push(run.start + first..run.end + first);
            }
        });
    }
    if runs.is_empty() {
        return tokens;
    }
    let mut veiled = Vec::with_capacity(tokens.len());
    let mut runs = runs.into_iter().peekable();
    let mut end = 0;
    for (at, mut token) in tokens.drain(..).enumerate() {
        if runs.next_if(|run| run.start == at).is_some_and(|run| {
            end = run.end;
            true
        }) {
            token.kind = Kind::Literal;
            veiled.push(token);
        } else if at < end {
            if let Some(last) = veiled.last_mut() {
                last.end = token.end;
            }
        } else {
            veiled.push(token);
        }
    }
    veiled
}

/// Reports the runs to hide in one statement, in order and not overlapping.
fn hidden(statement: Phrase<'_>, mut hide: impl FnMut(Range<usize>)) {
    if statement.is(0, "SET") {
        if let Some(value) = set_value(statement) {
            hide(value..statement.len());
        }
    } else if let Some(misplaced) = misplaced_password(statement) {
        hide(misplaced..statement.len());
    } else if has_set_clauses(statement) {
        set_clauses(statement, hide);
    }
}

/// Where the value of a `SET` command begins.
fn set_value(statement: Phrase<'_>) -> Option<usize> {
    let assigned = |at| statement.symbol(at, "=") || statement.is(at, "TO");
    let mut at = 1;
    if statement.any(at, &["SESSION", "LOCAL"]) && !assigned(at + 1) {
        at += 1;
    }
    let scoped_to_session = at == 2 && statement.is(1, "SESSION");
    if statement.any(
        at,
        &["ROLE", "SESSION_AUTHORIZATION", "TRANSACTION", "CONSTRAINTS"],
    ) || (scoped_to_session && statement.any(at, &["AUTHORIZATION", "CHARACTERISTICS"]))
    {
        return None;
    }
    let value = if statement.all(at, &["TIME", "ZONE"]) {
        at + 2
    } else if statement.all(at, &["XML", "OPTION"]) {
        return None;
    } else {
        let after = statement.name(at).map_or(at, |(_, after)| after);
        if assigned(after) { after + 1 } else { after }
    };
    not_default(statement, value)
}

/// `CREATE` or `ALTER` of something that takes a password, followed by a word or a quoted name where the
/// password literal belongs: a mistake that the server refuses, but the password is in the text.
fn misplaced_password(statement: Phrase<'_>) -> Option<usize> {
    if !takes_password(statement) {
        return None;
    }
    (3..statement.len()).find(|&at| {
        statement
            .identifier(at - 1)
            .is_some_and(|name| name == "password")
            && matches!(statement.kind(at), Some(Kind::Word | Kind::Quoted))
            && !statement.is(at, "NULL")
    })
}

/// Roles, servers, user mappings, foreign-data wrappers and subscriptions.
pub(crate) fn takes_password(statement: Phrase<'_>) -> bool {
    statement.any(0, &["CREATE", "ALTER"])
        && statement.any(1, &["ROLE", "USER", "GROUP", "SERVER", "FOREIGN", "SUBSCRIPTION"])
}

fn has_set_clauses(statement: Phrase<'_>) -> bool {
    let routine = |at| statement.any(at, &["FUNCTION", "PROCEDURE"]);
    statement.is(0, "ALTER")
        || (statement.is(0, "CREATE") && (routine(1) || (statement.is(2, "REPLACE") && routine(3))))
}

/// `SET name = value, …` among the clauses of `ALTER …` and `CREATE FUNCTION`.
fn set_clauses(statement: Phrase<'_>, mut hide: impl FnMut(Range<usize>)) {
    let mut at = 0;
    while at < statement.len() && !statement.all(at, &["BEGIN", "ATOMIC"]) {
        at += 1;
        if !statement.is(at - 1, "SET") {
            continue;
        }
        let Some((_, after)) = statement.name(at) else {
            continue;
        };
        if !(statement.symbol(after, "=") || statement.is(after, "TO")) {
            continue;
        }
        let Some(start) = not_default(statement, after + 1) else {
            continue;
        };
        // In a routine more clauses may follow the list; elsewhere the value ends the statement.
        let mut end = statement.len();
        if statement.is(0, "CREATE") || statement.any(1, &["FUNCTION", "PROCEDURE", "ROUTINE"]) {
            end = start + 1;
            while statement.symbol(end - 1, "-") || statement.symbol(end - 1, "+") {
                end += 1;
            }
            while statement.symbol(end, ",") {
                end += 2;
            }
        }
        at = end.min(statement.len());
        hide(start..at);
    }
}

fn not_default(statement: Phrase<'_>, value: usize) -> Option<usize> {
    let only_default = statement.is(value, "DEFAULT") && value + 1 == statement.len();
    (value < statement.len() && !only_default).then_some(value)
}
