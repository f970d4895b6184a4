//! Key-value pairs that a client puts in a comment at the beginning or end of a statement: the sqlcommenter format
//! (`/*key='url-encoded',…*/`, google.github.io/sqlcommenter/spec).
//!
//! Owns its syntax. Refuses to choose among keys: which may be kept is the caller's business, and no other may.

use crate::lexer::{Kind, lex_with_comments};

/// Pairs read of one comment: frameworks write some ten.
const MAX_PAIRS: usize = 32;

/// The pairs of the statement's first and last comment, decoded, in order. Bytes that are no UTF-8 once decoded make no
/// pair.
pub fn comment_pairs(sql: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    if !has_comment_at_an_end(sql.as_bytes()) {
        return pairs;
    }
    let tokens = lex_with_comments(sql);
    // A semicolon may stand behind the statement, before its comment or after it.
    let mut ends = tokens.iter().rev();
    let last = ends.find(|token| sql.get(token.start..token.end) != Some(";"));
    let first = tokens
        .first()
        .filter(|first| last.is_none_or(|last| last.start != first.start));
    for token in first
        .into_iter()
        .chain(last)
        .filter(|token| token.kind == Kind::Comment)
    {
        let text = sql.get(token.start..token.end).unwrap_or_default();
        let inner = text.strip_prefix("/*").and_then(|text| text.strip_suffix("*/"));
        if let Some(inner) = inner.filter(|inner| !inner.contains("/*")) {
            read(inner, &mut pairs);
        }
    }
    pairs
}

/// Whether a statement begins or ends with a comment: a cheap look, which errs on the side of yes.
#[must_use]
pub fn has_comment_at_an_end(sql: &[u8]) -> bool {
    let end = sql
        .iter()
        .rposition(|byte| !matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n'))
        .map_or(0, |last| last + 1);
    sql.trim_ascii_start().starts_with(b"/*") || sql.get(..end).is_some_and(|sql| sql.ends_with(b"*/"))
}

fn read(comment: &str, pairs: &mut Vec<(String, String)>) {
    let mut rest = comment.trim();
    while let Some((key, behind)) = rest.split_once('=') {
        let Some(value) = behind.trim_start().strip_prefix('\'') else {
            return;
        };
        let Some(end) = closing_quote(value) else { return };
        let (value, behind) = value.split_at_checked(end).unwrap_or((value, ""));
        if let (Some(key), Some(value)) = (decoded(key.trim()), decoded(value)) {
            pairs.push((key, value));
        }
        // Past the quote.
        let behind = behind.get(1..).unwrap_or_default().trim_start();
        let Some(next) = behind.strip_prefix(',').filter(|_| pairs.len() < MAX_PAIRS) else {
            return;
        };
        rest = next;
    }
}

/// Place of the first quote that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'\'' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// Meta characters are escaped by a backslash, all others by `%` and two digits.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, behind) {
            (b'\\', [next, ..]) => {
                bytes.push(*next);
                rest = behind.get(1..)?;
            }
            (b'%', [high, low, ..]) => {
                let digit = |byte: u8| {
                    char::from(byte)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                rest = behind.get(2..)?;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_at_both_ends_and_nowhere_else() {
        let pairs = |sql: &str| {
            let pairs: Vec<_> = comment_pairs(sql)
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            pairs.join(" ")
        };
        for (sql, expected) in [
            (
                "SELECT 1 /*controller='index',framework='spring',traceparent='00-5b-9c-01'*/",
                "controller=index framework=spring traceparent=00-5b-9c-01",
            ),
            ("/* end_user='j%C3%BCrgen%20x' */ SELECT 1", "end_user=jürgen x"),
            ("SELECT 1 /*a='x'*/;", "a=x"),
            ("SELECT 1; /*a='x'*/", "a=x"),
            ("/*a='1'*/ SELECT 1 /*b='2'*/", "a=1 b=2"),
            ("SELECT 1 /*a='it\\'s', b = 'y'*/", "a=it's b=y"),
            ("SELECT 1 /*name%27='%2C'*/", "name'=,"),
            ("SELECT 1 /* just words */", ""),
            ("SELECT 1 /*a='open*/", ""),
            ("SELECT 1 /*a='%ff'*/", ""),
            ("SELECT 1 /*a=''*/", ""),
            ("SELECT /*a='middle'*/ 1", ""),
            ("SELECT '/*a=''x''*/'", ""),
            ("SELECT 1 -- said /*end_user='mallory'*/", ""),
            ("SELECT 1 /* /*a='x'*/ */", ""),
        ] {
            assert_eq!(pairs(sql), expected, "{sql}");
        }
    }
}
