//! One short name for all statements that differ only in values.
//!
//! Owns the normal form. Refuses to parse: the form is over tokens, so that it exists for text that no
//! parser accepts, and stays the same when the parser changes.

use sha2::{Digest, Sha256};

use crate::lexer::Kind;
use crate::phrase::Phrase;
use crate::redaction::is_value;

/// First 8 bytes of SHA-256 over the normal form of veiled tokens.
pub(crate) fn fingerprint(phrase: Phrase<'_>) -> [u8; 8] {
    let mut hash = Sha256::new();
    for piece in collapse(&pieces(phrase)) {
        match piece {
            Piece::Word(word) => hash.update(word.to_ascii_lowercase()),
            Piece::Other(text) => hash.update(text),
            Piece::Value => hash.update("?"),
        }
        // No token holds a NUL byte: it ends the text in the protocol.
        hash.update([0]);
    }
    let mut first = [0; 8];
    first
        .iter_mut()
        .zip(hash.finalize())
        .for_each(|(to, from)| *to = from);
    first
}

#[derive(Clone, Copy, PartialEq)]
enum Piece<'a> {
    Word(&'a str),
    /// Quoted identifier or symbol, as written.
    Other(&'a str),
    /// Literal or parameter: `id = 5` and `id = $1` are one statement.
    Value,
}

impl Piece<'_> {
    fn is(self, word: &str) -> bool {
        matches!(self, Piece::Word(text) if text.eq_ignore_ascii_case(word))
    }

    fn same(self, other: Piece<'_>) -> bool {
        match (self, other) {
            (Piece::Word(a), Piece::Word(b)) => a.eq_ignore_ascii_case(b),
            _ => self == other,
        }
    }
}

/// Words after which a sign belongs to the number and is part of its value.
const BEFORE_SIGN: [&str; 20] = [
    "SELECT", "WHERE", "AND", "OR", "NOT", "THEN", "ELSE", "WHEN", "CASE", "BETWEEN", "LIMIT", "OFFSET",
    "BY", "RETURN", "DEFAULT", "HAVING", "ON", "TO", "LIKE", "FROM",
];

/// Where a name stands that belongs to its session alone, like a value: of a savepoint, a cursor, a prepared statement that is
/// dropped. Frameworks make a new one each time.
fn passing_name(phrase: Phrase<'_>) -> Option<usize> {
    let behind = |at: usize, word: &str| at + usize::from(phrase.is(at, word));
    let at = match phrase.word(0).to_ascii_uppercase().as_str() {
        "SAVEPOINT" | "DECLARE" => 1,
        "RELEASE" => behind(1, "SAVEPOINT"),
        "ROLLBACK" | "ABORT" => behind((1..3).find(|&at| phrase.is(at, "TO"))? + 1, "SAVEPOINT"),
        "DEALLOCATE" => behind(1, "PREPARE"),
        "CLOSE" => 1,
        // It comes last, behind a direction.
        "FETCH" | "MOVE" => (1..phrase.len()).rev().find(|&at| !phrase.symbol(at, ";"))?,
        _ => return None,
    };
    matches!(phrase.kind(at), Some(Kind::Word | Kind::Quoted))
        .then_some(at)
        .filter(|&at| !phrase.is(at, "ALL"))
}

fn pieces(phrase: Phrase<'_>) -> Vec<Piece<'_>> {
    let mut found: Vec<Piece<'_>> = Vec::with_capacity(phrase.len());
    let passing = passing_name(phrase);
    for (at, token) in phrase.tokens.iter().enumerate() {
        if is_value(token) || token.kind == Kind::Parameter || passing == Some(at) {
            found.push(Piece::Value);
        } else if token.kind == Kind::Word {
            found.push(Piece::Word(phrase.text(at)));
        } else {
            let text = phrase.text(at);
            let signed = matches!(text, "-" | "+") && phrase.kind(at + 1) == Some(Kind::Number);
            let unary = match found.last() {
                None => true,
                Some(Piece::Value) => false,
                Some(Piece::Word(_)) => found
                    .last()
                    .is_some_and(|last| BEFORE_SIGN.iter().any(|w| last.is(w))),
                Some(Piece::Other(before)) => !matches!(*before, ")" | "]") && !before.ends_with('"'),
            };
            if !(signed && unary) {
                found.push(Piece::Other(text));
            }
        }
    }
    while found.last() == Some(&Piece::Other(";")) {
        found.pop();
    }
    found
}

/// Makes `IN (…)` and `ARRAY[…]` of values, and rows of `VALUES`, independent of their length.
fn collapse<'a>(pieces: &[Piece<'a>]) -> Vec<Piece<'a>> {
    let get = |at: usize| pieces.get(at).copied().unwrap_or(Piece::Other(""));
    let mut out = Vec::with_capacity(pieces.len());
    let mut at = 0;
    while at < pieces.len() {
        let piece = get(at);
        out.push(piece);
        at += 1;
        let close = match get(at) {
            Piece::Other("(") if piece.is("IN") => ")",
            Piece::Other("[") if piece.is("ARRAY") => "]",
            Piece::Other("(") if piece.is("VALUES") => {
                at = rows(pieces, at, &mut out);
                continue;
            }
            _ => continue,
        };
        if let Some((_, end)) = values(pieces, at + 1, close) {
            out.extend([get(at), Piece::Value, Piece::Other(close)]);
            at = end;
        }
    }
    out
}

/// Writes the first row and skips those like it; answers the index after the last one skipped.
fn rows<'a>(pieces: &[Piece<'a>], first: usize, out: &mut Vec<Piece<'a>>) -> usize {
    let end = after_row(pieces, first);
    let plain = values(pieces, first + 1, ")");
    let row = pieces.get(first..end).unwrap_or_default();
    match plain {
        Some((count, _)) => {
            out.push(Piece::Other("("));
            out.extend(std::iter::repeat_n(Piece::Value, count));
            out.push(Piece::Other(")"));
        }
        None => out.extend_from_slice(row),
    }
    let mut at = end;
    while pieces.get(at) == Some(&Piece::Other(",")) && pieces.get(at + 1) == Some(&Piece::Other("(")) {
        let next = after_row(pieces, at + 1);
        let equal = pieces
            .get(at + 1..next)
            .is_some_and(|other| other.len() == row.len() && other.iter().zip(row).all(|(a, b)| a.same(*b)));
        let both_plain = plain.is_some() && values(pieces, at + 2, ")").is_some();
        if !(equal || both_plain) {
            break;
        }
        at = next;
    }
    at
}

fn after_row(pieces: &[Piece<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, piece) in pieces.iter().enumerate().skip(open) {
        match piece {
            Piece::Other("(") => depth += 1,
            Piece::Other(")") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    pieces.len()
}

/// A list of nothing but values, each perhaps cast (`$1::integer`): how many, and the index after
/// the closing bracket.
fn values(pieces: &[Piece<'_>], from: usize, close: &str) -> Option<(usize, usize)> {
    let is = |at: usize, text: &str| pieces.get(at) == Some(&Piece::Other(text));
    let constant = |piece: &Piece<'_>| ["NULL", "TRUE", "FALSE", "DEFAULT"].iter().any(|w| piece.is(w));
    let (mut at, mut count) = (from, 0);
    loop {
        let value = pieces.get(at)?;
        if *value != Piece::Value && !constant(value) {
            return None;
        }
        (at, count) = (at + 1, count + 1);
        while is(at, ":") && is(at + 1, ":") {
            at += 2;
            while matches!(pieces.get(at), Some(Piece::Word(_))) || is(at, ".") {
                at += 1;
            }
            if is(at, "(") {
                at += 1;
                while pieces.get(at) == Some(&Piece::Value) || is(at, ",") {
                    at += 1;
                }
                if !is(at, ")") {
                    return None;
                }
                at += 1;
            }
            while is(at, "[") && is(at + 1, "]") {
                at += 2;
            }
        }
        if pieces.get(at) == Some(&Piece::Other(close)) {
            return Some((count, at + 1));
        }
        if !is(at, ",") {
            return None;
        }
        at += 1;
    }
}
