//! Passwords in text that is otherwise kept as it is.
//!
//! Owns the mode `clear`: literals stay, passwords never do. Separate from redaction, which hides all
//! literals and needs no list of places. Text without a secret comes back byte for byte.

use std::borrow::Cow;
use std::ops::Range;

use crate::lexer::{Kind, Token, lex_with_comments};
use crate::phrase::Phrase;
use crate::redaction::takes_password;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "***";

/// The text with secrets as `***`: the literal after `PASSWORD` in `CREATE`/`ALTER ROLE|USER|GROUP`, password
/// options of servers and user mappings, and, inside any literal or comment, `password=` values, nested
/// `PASSWORD '…'` and passwords in URLs. All other bytes stay.
pub fn mask_secrets(sql: &str) -> String {
    let all = lex_with_comments(sql);
    let code: Vec<Token> = all
        .iter()
        .filter(|token| token.kind != Kind::Comment)
        .copied()
        .collect();
    let mut secrets: Vec<Range<usize>> = Vec::new();
    for (_, statement) in (Phrase { sql, tokens: &code }).statements() {
        if takes_password(statement) {
            placed(statement, &mut secrets);
        }
    }
    let mut secrets = secrets.into_iter().peekable();
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    let mut push = |range: Range<usize>, new: &str| {
        out.push_str(sql.get(copied..range.start).unwrap_or_default());
        out.push_str(new);
        copied = range.end;
    };
    let mut hidden = 0;
    for token in &all {
        if token.start < hidden {
            continue;
        }
        if let Some(secret) = secrets.next_if(|secret| secret.start == token.start) {
            hidden = secret.end;
            push(secret, "'***'");
        } else if matches!(
            token.kind,
            Kind::Literal | Kind::Doubt | Kind::Comment | Kind::Quoted
        ) {
            let range = token.start..token.end;
            let text = sql.get(range.clone()).unwrap_or_default();
            let (from, to) = content(text);
            let inner = text.get(from..to).unwrap_or_default();
            if let Cow::Owned(masked) = mask_embedded(inner) {
                push(range.start + from..range.start + to, &masked);
            }
        }
    }
    out.push_str(sql.get(copied..).unwrap_or_default());
    out
}

/// A value with what is a password inside it as `***`: of `password=` settings, nested `PASSWORD '…'` and URLs.
pub fn mask_value(value: &str) -> Cow<'_, str> {
    mask_embedded(value)
}

/// Byte ranges of password literals that stand where the grammar wants them.
fn placed(statement: Phrase<'_>, secrets: &mut Vec<Range<usize>>) {
    let role =
        statement.any(1, &["ROLE", "GROUP"]) || (statement.is(1, "USER") && !statement.is(2, "MAPPING"));
    let end = statement.tokens.last().map_or(0, |token| token.end);
    for at in 3..statement.len() {
        let Some(before) = statement.identifier(at - 1) else {
            continue;
        };
        let Some(token) = statement.tokens.get(at) else {
            continue;
        };
        match token.kind {
            Kind::Literal | Kind::Doubt if is_secret_key(&before) => secrets.push(token.start..token.end),
            Kind::Number if before == "password" => secrets.push(token.start..end),
            // Not a literal, so the server refuses the statement; the password is in it all the same.
            Kind::Word | Kind::Quoted if role && before == "password" && !statement.is(at, "NULL") => {
                secrets.push(token.start..end);
                return;
            }
            _ => {}
        }
    }
}

fn is_secret_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "secret",
        "token",
        "pwd",
    ]
    .iter()
    .any(|key| name.contains(key))
}

/// Where the content of a token lies in its text: its delimiters are no part of a secret.
fn content(text: &str) -> (usize, usize) {
    let quoted = |quote: char| {
        text.find(quote)
            .filter(|&open| open <= 2 && text.len() > open + 1)
    };
    let delimited = |open: usize, close: usize| (open, text.len().saturating_sub(close).max(open));
    if text.starts_with("/*") {
        delimited(2, if text.ends_with("*/") { 2 } else { 0 })
    } else if text.starts_with('$') {
        let tag = text
            .get(1..)
            .and_then(|rest| rest.find('$'))
            .map_or(0, |length| length + 2);
        if text.len() >= 2 * tag {
            delimited(tag, tag)
        } else {
            (0, text.len())
        }
    } else if let Some(open) = quoted('\'').filter(|_| text.ends_with('\'')) {
        delimited(open + 1, 1)
    } else if let Some(open) = quoted('"').filter(|_| text.ends_with('"')) {
        delimited(open + 1, 1)
    } else {
        (0, text.len())
    }
}

/// Masks passwords in URLs, in `password=value` and in `PASSWORD '…'`, wherever they stand in the text.
pub(crate) fn mask_embedded(text: &str) -> Cow<'_, str> {
    match mask_urls(text) {
        Cow::Borrowed(text) => mask_keys(text),
        Cow::Owned(text) => Cow::Owned(mask_keys(&text).into_owned()),
    }
}

/// `scheme://user:password@host`. A raw `@` in the password is taken as part of it.
fn mask_urls(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for (found, _) in text.match_indices("://") {
        let start = found + 3;
        if start < copied {
            continue;
        }
        let rest = text.get(start..).unwrap_or_default();
        let authority = rest.find(|c: char| matches!(c, '/' | '?' | '#' | '\'' | '"') || c.is_whitespace());
        let authority = rest.get(..authority.unwrap_or(rest.len())).unwrap_or_default();
        let Some(at) = authority.rfind('@') else { continue };
        let Some(colon) = authority.find(':').filter(|&colon| colon + 1 < at) else {
            continue;
        };
        out.push_str(text.get(copied..=start + colon).unwrap_or_default());
        out.push_str(MASK);
        copied = start + at;
    }
    finish(text, out, copied)
}

fn finish(text: &str, mut out: String, copied: usize) -> Cow<'_, str> {
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

fn mask_keys(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some((found, length)) = next_key(&lower, from) {
        from = found + length;
        if let Some(secret) = value(text, found, from) {
            out.push_str(text.get(copied..secret.start).unwrap_or_default());
            out.push_str(MASK);
            copied = secret.end;
            from = secret.end;
        }
    }
    finish(text, out, copied)
}

fn next_key(lower: &str, from: usize) -> Option<(usize, usize)> {
    let rest = lower.get(from..)?;
    // Both keys of libpq and the common misspelling share these letters.
    let mut at = 0;
    while let Some(found) = rest.get(at..)?.find("pass") {
        let start = at + found;
        let tail = rest.get(start..)?;
        if let Some(key) = ["password", "passwd"].iter().find(|key| tail.starts_with(**key)) {
            return Some((from + start, key.len()));
        }
        at = start + 4;
    }
    None
}

/// The range of the value that belongs to the key at `key..after`, if one follows.
fn value(text: &str, key: usize, after: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied();
    let spaces = |mut at: usize| {
        while byte(at).is_some_and(|b| b.is_ascii_whitespace()) {
            at += 1;
        }
        at
    };
    let next = spaces(after);
    let assigned = byte(next) == Some(b'=');
    let start = if assigned { spaces(next + 1) } else { next };
    let prefixed = matches!(byte(start), Some(b'e' | b'E' | b'n' | b'N')) && byte(start + 1) == Some(b'\'');
    let open = start + usize::from(prefixed);
    if !assigned {
        let quoted_key = key > 0 && matches!(byte(key - 1), Some(b'\'' | b'"'));
        return match byte(open)? {
            b'\'' if next > after || !quoted_key => Some(quoted(bytes, open)),
            // A dollar quote, not a parameter.
            b'$' if next > after && !byte(open + 1).is_some_and(|b| b.is_ascii_digit()) => {
                Some(open..text.len())
            }
            _ => None,
        }
        .filter(|secret| !secret.is_empty());
    }
    match byte(open)? {
        b'\'' | b'"' => Some(quoted(bytes, open)),
        b'\\' => Some(open..text.len()),
        // Placeholders of a statement inside a string: parameter, `format`, psql variable.
        b'$' if byte(open + 1).is_some_and(|b| b.is_ascii_digit()) => None,
        b'%' if matches!(byte(open + 1), Some(b's' | b'L' | b'I')) => None,
        b'?' | b':' => None,
        _ => {
            let mut end = start;
            while let Some(b) = byte(end).filter(|b| !b.is_ascii_whitespace()) {
                end += if b == b'\\' { 2 } else { 1 };
            }
            Some(start..text.floor_char_boundary(end.min(text.len())))
        }
    }
    .filter(|secret| !secret.is_empty())
}

/// Content of a quoted value whose quote may itself be doubled, once for each level of nesting: a run of
/// `n` quotes opened it, so `2n` are one quote inside, and a run that leaves `n` or more over closes it.
fn quoted(bytes: &[u8], open: usize) -> Range<usize> {
    let quote = bytes.get(open).copied();
    let run = |from: usize| bytes.iter().skip(from).take_while(|&&b| Some(b) == quote).count();
    let level = run(open);
    let start = open + level;
    let mut at = start;
    while at < bytes.len() {
        let length = run(at);
        if length % (2 * level) >= level {
            return start..at + length / (2 * level) * (2 * level);
        }
        at += length.max(1);
    }
    start..bytes.len()
}
