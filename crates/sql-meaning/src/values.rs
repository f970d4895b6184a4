//! Literals by their number, and the operands that a tree compares columns with.
//!
//! Owns the one text that is parsed: the statement with each literal replaced by its own number, so that the tree says which
//! literal stands where and holds none of their values. Two statements with the same redacted text and the same kinds of
//! literals are parsed as the same text, whatever their values: so everything read from the tree holds for both.

use sqlparser::ast::{
    ArrayElemTypeDef, CastKind, DataType, ExactNumberInfo, Expr, ObjectNamePart, TimezoneInfo, UnaryOperator,
    Value,
};

use crate::Operand;
use crate::lexer::{Kind, Token, lex};
use crate::literal::{self, Backslash};
use crate::objects::{fold, misleads};
use crate::phrase::Phrase;
use crate::redaction::{is_value, veil};

/// A literal of a text, in the place of one `?` of its redacted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// A string of any quoting: its value as the server reads it.
    Text(String),
    /// A number as written, without underscores and in decimal: `1000`, `1.50`, `1e-5`. The sign is no part of it (see
    /// [`Operand::Negative`]).
    Number(String),
    /// Not read: bit strings, values of `SET`, text whose reading depends on settings that are not known, the rarer quotings.
    Unread,
}

/// All literals of a text, in the order of the `?` that [`crate::redact`] leaves in their place: [`Operand::Literal`] counts
/// them from 0. `backslash` is how the session reads plain strings.
#[must_use]
pub fn literals(sql: &str, backslash: Backslash) -> Vec<Literal> {
    let written = lex(sql);
    let tokens = veil(sql, written.clone());
    let phrase = Phrase { sql, tokens: &tokens };
    (0..tokens.len())
        .filter(|&at| tokens.get(at).is_some_and(is_value))
        .map(|at| {
            let text = phrase.text(at);
            let token = tokens.get(at);
            // A veiled run is as long as no token of the text was.
            let own = token.is_some_and(|token| {
                written
                    .binary_search_by_key(&token.start, |t| t.start)
                    .is_ok_and(|found| {
                        written
                            .get(found)
                            .is_some_and(|t| (t.kind, t.end) == (token.kind, token.end))
                    })
            });
            // `U&'…' UESCAPE '!'` says how to read what is before it.
            if !own || phrase.is(at + 1, "UESCAPE") {
                return Literal::Unread;
            }
            match phrase.kind(at) {
                Some(Kind::Number) => decimal(text).map_or(Literal::Unread, Literal::Number),
                kind => literal::value(kind, text, backslash).map_or(Literal::Unread, Literal::Text),
            }
        })
        .collect()
}

/// A number as PostgreSQL 16 and later write it (manual, "Numeric Constants"), in decimal.
pub(crate) fn decimal(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let radix = |prefix: [&str; 2], radix| {
        let digits = prefix.iter().find_map(|prefix| plain.strip_prefix(prefix))?;
        u128::from_str_radix(digits, radix).ok()
    };
    if let Some(number) = radix(["0x", "0X"], 16)
        .or(radix(["0o", "0O"], 8))
        .or(radix(["0b", "0B"], 2))
    {
        return Some(number.to_string());
    }
    let (mantissa, exponent) = plain.split_once(['e', 'E']).unwrap_or((&plain, "0"));
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let valid = is_number(whole)
        && is_number(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && is_number(digits)
        && !digits.is_empty();
    valid.then_some(plain)
}

/// First character that stands for a string: those of the last two planes are for private use, so no program means anything
/// by them. One character, because the parser wants no more in some places.
const FIRST: u32 = 0xf_0000;

/// How many such characters there are; literals beyond have no number.
const NUMBERED: u32 = 0x2_0000;

/// The text that is parsed: strings hold one character that stands for their number, numbers are their own number.
pub(crate) fn numbered(phrase: Phrase<'_>) -> String {
    let mut out = String::with_capacity(phrase.sql.len().min(phrase.len() * 8));
    let mut number = 0_u32;
    for (at, token) in phrase.tokens.iter().enumerate() {
        if token.spaced && at > 0 {
            out.push(' ');
        }
        if misleads(phrase, at) {
            continue;
        }
        if !is_value(token) {
            // The parser does not know how `U&'…' UESCAPE '!'` goes on.
            if !(phrase.is(at, "UESCAPE") && around(phrase, at)) {
                out.push_str(phrase.text(at));
            }
            continue;
        }
        if token.kind == Kind::Number {
            out.push(' ');
            out.push_str(&number.to_string());
            out.push(' ');
        } else if needs_one_byte(phrase, at) {
            out.push_str(" 'x' ");
        } else if !(at > 1 && phrase.is(at - 1, "UESCAPE") && around(phrase, at - 1)) {
            out.push_str(" '");
            out.push(char::from_u32(FIRST + number.min(NUMBERED - 1)).unwrap_or('?'));
            out.push_str("' ");
        }
        number += 1;
    }
    out
}

/// The parser takes one byte for these options of COPY. (Behind LIKE an escape is no value, either.)
fn needs_one_byte(phrase: Phrase<'_>, at: usize) -> bool {
    let before = |back: usize| {
        at.checked_sub(back)
            .is_some_and(|at| phrase.any(at, &["DELIMITER", "QUOTE", "ESCAPE"]))
    };
    before(1) || (before(2) && at.checked_sub(1).is_some_and(|at| phrase.is(at, "AS")))
}

/// Whether strings stand before and behind.
fn around(phrase: Phrase<'_>, at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| phrase.kind(before));
    (before, phrase.kind(at + 1)) == (Some(Kind::Literal), Some(Kind::Literal))
}

/// An operand whose value the text or its parameters give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A value, and the type that it is cast to.
    Value(Operand, Option<&'static str>),
    /// `NULL`: known, and equal to nothing.
    Null,
}

/// The operand that an expression is, if it is no more than a value.
pub(crate) fn given(expr: &Expr) -> Option<Given> {
    match expr {
        Expr::Nested(inner) => given(inner),
        Expr::Value(value) => of(&value.value),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => match given(expr)? {
            Given::Value(Operand::Literal(number), cast) if is_number(expr) => {
                Some(Given::Value(Operand::Negative(number), cast))
            }
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr,
        } if is_number(expr) => given(expr),
        Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
            cast(of(&typed.value.value)?, &typed.data_type)
        }
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => cast(given(expr)?, data_type),
        _ => None,
    }
}

/// The parameter or literal behind `= ANY (…)` whose elements are the values.
pub(crate) fn given_array(expr: &Expr) -> Option<(Operand, Option<&'static str>)> {
    match expr {
        Expr::Nested(inner) => given_array(inner),
        Expr::Value(value) => match of(&value.value)? {
            Given::Value(operand, None) => Some((operand, None)),
            _ => None,
        },
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => {
            let (operand, None) = given_array(expr)? else {
                return None;
            };
            let DataType::Array(ArrayElemTypeDef::SquareBracket(element, None)) = data_type else {
                return None;
            };
            Some((operand, Some(type_name(element)?)))
        }
        _ => None,
    }
}

/// The elements of `ARRAY[…]`, each cast where the whole is; `None` if it is none.
pub(crate) fn elements(expr: &Expr) -> Option<(&[Expr], Option<&'static str>)> {
    match expr {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => Some((&array.elem, None)),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => {
            let (elements, None) = elements(expr)? else {
                return None;
            };
            let DataType::Array(ArrayElemTypeDef::SquareBracket(element, None)) = data_type else {
                return None;
            };
            Some((elements, Some(type_name(element)?)))
        }
        _ => None,
    }
}

fn of(value: &Value) -> Option<Given> {
    let operand = match value {
        Value::Null => return Some(Given::Null),
        Value::Number(digits, _) => Operand::Literal(digits.parse().ok()?),
        Value::SingleQuotedString(text) => {
            let mut characters = text.chars();
            let number = u32::from(characters.next()?).checked_sub(FIRST)?;
            if characters.next().is_some() || number >= NUMBERED - 1 {
                return None;
            }
            Operand::Literal(number)
        }
        Value::Placeholder(text) => match text.strip_prefix('$')?.parse().ok()? {
            0 => return None,
            number => Operand::Param(number),
        },
        _ => return None,
    };
    Some(Given::Value(operand, None))
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_number(inner),
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        _ => false,
    }
}

/// A cast says the type; of several only a parameter's, which is text on the wire and then what the last one says.
pub(crate) fn cast(given: Given, to: &DataType) -> Option<Given> {
    let name = type_name(to)?;
    match given {
        Given::Null => Some(Given::Null),
        Given::Value(operand, None) => Some(Given::Value(operand, Some(name))),
        Given::Value(operand @ Operand::Param(_), Some("text" | "varchar")) => {
            Some(Given::Value(operand, Some(name)))
        }
        Given::Value(operand, Some(before)) if before == name => Some(Given::Value(operand, Some(name))),
        Given::Value(..) => None,
    }
}

/// The server's own name of a type (`pg_type.typname`) that a value can be cast to without a length or precision, which
/// would change it. `None` for all others: a cast to them makes another value of which nothing is known.
fn type_name(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::SmallInt(None) | DataType::Int2(None) => "int2",
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => "int4",
        DataType::BigInt(None) | DataType::Int8(None) => "int8",
        DataType::Numeric(ExactNumberInfo::None)
        | DataType::Decimal(ExactNumberInfo::None)
        | DataType::Dec(ExactNumberInfo::None) => "numeric",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Float(ExactNumberInfo::None) | DataType::Float8 | DataType::DoublePrecision => "float8",
        DataType::Text => "text",
        DataType::Varchar(None) | DataType::CharacterVarying(None) => "varchar",
        DataType::Uuid => "uuid",
        DataType::Bytea => "bytea",
        DataType::Bool | DataType::Boolean => "bool",
        DataType::Date => "date",
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "timestamp",
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => "timestamptz",
        DataType::Custom(name, arguments) if arguments.is_empty() => {
            let mut parts = name.0.iter().rev().map(|part| match part {
                ObjectNamePart::Identifier(ident) => fold(ident),
                ObjectNamePart::Function(_) => String::new(),
            });
            let last = parts.next()?;
            let schema = parts.next();
            if parts.next().is_some() || schema.is_some_and(|schema| schema != "pg_catalog") {
                return None;
            }
            CUSTOM.iter().copied().find(|known| **known == *last)?
        }
        _ => return None,
    })
}

/// Types that the parser does not know by themselves.
pub(crate) const CUSTOM: [&str; 15] = [
    "int2",
    "int4",
    "int8",
    "numeric",
    "float4",
    "float8",
    "text",
    "varchar",
    "uuid",
    "date",
    "timestamp",
    "timestamptz",
    "inet",
    "cidr",
    "macaddr",
];

/// Whether nothing in these tokens leaves more than one reading.
pub(crate) fn is_certain(tokens: &[Token]) -> bool {
    tokens.iter().all(|token| token.kind != Kind::Doubt)
}
