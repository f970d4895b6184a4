//! What `EXECUTE p (42, 'x')` gives to the statement that it runs, and the types that `PREPARE p (bigint, text)` says these
//! have (manual, "PREPARE", "EXECUTE"). Refuses expressions: what they come to is in no text.

use crate::lexer::{Kind, lex};
use crate::literal::{self, Backslash};
use crate::phrase::Phrase;
use crate::values::{Literal, decimal};

/// Most arguments that are read: as many as the protocol's Bind can give.
const MAX_ARGUMENTS: usize = 65_535;

/// One argument of `EXECUTE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A literal; of a number with its sign.
    Given(Literal),
    /// `NULL`.
    Null,
}

/// The arguments of an `EXECUTE`, in order; [`Literal::Unread`] for what is more than a literal. `None` if the text is no `EXECUTE`.
#[must_use]
pub fn arguments(sql: &str, backslash: Backslash) -> Option<Vec<Argument>> {
    let tokens = lex(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let (_, open) = phrase.name(1).filter(|_| phrase.is(0, "EXECUTE"))?;
    Some(
        parts(phrase, open)?
            .into_iter()
            .map(|part| argument(part, backslash))
            .collect(),
    )
}

/// The types that a `PREPARE` declares for its parameters, in order, as they are written. `None` if the text is no
/// `PREPARE`.
#[must_use]
pub fn declared_types(sql: &str) -> Option<Vec<String>> {
    let tokens = lex(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let (_, open) = phrase.name(1).filter(|_| phrase.is(0, "PREPARE"))?;
    let written = |part: Phrase<'_>| {
        let words: Vec<&str> = (0..part.len()).map(|at| part.text(at)).collect();
        words.join(" ")
    };
    Some(parts(phrase, open)?.into_iter().map(written).collect())
}

/// What stands between the commas of the bracket at `open`; nothing where there is none. `None` if it is not closed.
fn parts<'a>(phrase: Phrase<'a>, open: usize) -> Option<Vec<Phrase<'a>>> {
    let mut found = Vec::new();
    if !phrase.symbol(open, "(") {
        return Some(found);
    }
    let (mut depth, mut start) = (0_usize, open + 1);
    for at in open..phrase.len() {
        if phrase.symbol(at, "(") || phrase.symbol(at, "[") {
            depth += 1;
        } else if phrase.symbol(at, ")") || phrase.symbol(at, "]") {
            depth = depth.checked_sub(1)?;
        }
        let ends = depth == 0;
        if ends || (depth == 1 && phrase.symbol(at, ",")) {
            found.push(phrase.from(start).head(at.saturating_sub(start)));
            start = at + 1;
        }
        if ends || found.len() > MAX_ARGUMENTS {
            return Some(found).filter(|_| ends);
        }
    }
    None
}

fn argument(part: Phrase<'_>, backslash: Backslash) -> Argument {
    let sign = match part.text(0) {
        "-" => "-",
        "+" => "+",
        _ => "",
    };
    let at = usize::from(!sign.is_empty());
    let text = part.text(at);
    let read = match (part.len() - at.min(part.len()), part.kind(at)) {
        (1, Some(Kind::Word)) if part.is(0, "NULL") => return Argument::Null,
        (1, Some(Kind::Number)) => decimal(text).map(|digits| {
            let minus = if sign == "-" { "-" } else { "" };
            Literal::Number(format!("{minus}{digits}"))
        }),
        (1, kind @ Some(Kind::Literal)) if sign.is_empty() => {
            literal::value(kind, text, backslash).map(Literal::Text)
        }
        _ => None,
    };
    Argument::Given(read.unwrap_or(Literal::Unread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_expressions_are_not() {
        let read = |sql: &str| {
            let shown = |argument| match argument {
                Argument::Null => "null".to_owned(),
                Argument::Given(Literal::Text(text)) => format!("'{text}'"),
                Argument::Given(Literal::Number(digits)) => digits,
                Argument::Given(Literal::Unread) => "?".to_owned(),
            };
            let all = arguments(sql, Backslash::Unknown)?;
            Some(all.into_iter().map(shown).collect::<Vec<_>>().join(" "))
        };
        for (sql, expected) in [
            (
                "EXECUTE p (42, 'it''s', -1.5, +2, NULL, E'a\\tb')",
                Some("42 'it's' -1.5 2 null 'a\tb'"),
            ),
            (
                "execute \"P\"(1 + 1, f(1, 2), 'a'::text, '\\x', true, ARRAY[1, 2], $1, - -1);",
                Some("? ? ? ? ? ? ? ?"),
            ),
            ("EXECUTE p", Some("")),
            ("EXECUTE p (1", None),
            ("EXECUTE p 1)", Some("")),
            ("SELECT 1", None),
            ("PREPARE p (int) AS SELECT 1", None),
        ] {
            assert_eq!(read(sql).as_deref(), expected, "{sql}");
        }
        let types = |sql: &str| declared_types(sql).map(|types| types.join(", "));
        assert_eq!(
            types("PREPARE p (bigint, double precision, varchar(3)) AS SELECT $1").as_deref(),
            Some("bigint, double precision, varchar ( 3 )")
        );
        assert_eq!(types("PREPARE p AS SELECT (1)").as_deref(), Some(""));
        assert_eq!(types("SELECT 1"), None);
    }
}
