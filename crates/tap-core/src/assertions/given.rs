//! The values that a statement gives to settings: from its text, or from the parameters that were bound to it.

use pg_wire::{Format, Param, ValueText, text_of};
use sql_meaning::Given;

use crate::catalog::quoted;

/// A value as it becomes that of a setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Default,
    Current,
    /// It cannot be told, for this reason.
    Unknown(&'static str),
}

/// Reasons why a value is not known.
pub(super) const EXPRESSION: &str = "expression";
pub(super) const ENCODING: &str = "encoding";
pub(super) const TOO_LONG: &str = "too_long";

/// Types whose text is the value itself: not told, text, unknown, varchar (pg_type.dat).
const TEXTS: [u32; 4] = [0, 25, 705, 1043];
/// int8, int2, int4: a cast to text prints them anew.
const WHOLE_NUMBERS: [u32; 3] = [20, 21, 23];
const BOOL: u32 = 16;

/// `plain` if texts need no conversion from the client's encoding.
pub(super) fn value(given: &Given, params: &[Param], plain: bool) -> Value {
    match given {
        Given::Text(text) if text.contains(char::REPLACEMENT_CHARACTER) => Value::Unknown(ENCODING),
        Given::Text(text) => Value::Text(text.clone()),
        Given::Default => Value::Default,
        Given::Current => Value::Current,
        Given::List(_) | Given::Unread => Value::Unknown(EXPRESSION),
        Given::Parameter(number) => {
            let param = number
                .checked_sub(1)
                .and_then(|index| params.get(usize::from(index)));
            param.map_or(Value::Unknown(EXPRESSION), |param| of_param(param, plain))
        }
    }
}

/// The same of `SET search_path`, which makes one name of each of its values (`flatten_set_variable_args` in the server's
/// utils/misc/guc_funcs.c).
pub(super) fn path(given: &Given, params: &[Param], plain: bool) -> Value {
    let list = match given {
        Given::List(list) => list.as_slice(),
        Given::Text(name) => std::slice::from_ref(name),
        other => return value(other, params, plain),
    };
    if list.iter().any(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
        return Value::Unknown(ENCODING);
    }
    Value::Text(
        list.iter()
            .map(|name| quoted(name))
            .collect::<Vec<_>>()
            .join(", "),
    )
}

/// The third argument of `set_config`. NULL counts as false.
pub(super) fn boolean(given: &Given, params: &[Param]) -> Option<bool> {
    if let Given::Parameter(number) = given {
        let param = params.get(usize::from(number.checked_sub(1)?))?;
        if param.format == Format::Binary && matches!(param.type_oid, 0 | BOOL) {
            return match param.kept.as_ref() {
                [byte] => Some(*byte != 0),
                _ => param.bytes.is_none().then_some(false),
            };
        }
        if param.bytes.is_some() && param.type_oid == BOOL {
            return std::str::from_utf8(&param.kept).ok().and_then(parse_bool);
        }
    }
    match value(given, params, true) {
        Value::Text(text) => parse_bool(&text),
        Value::Default => Some(false),
        Value::Current | Value::Unknown(_) => None,
    }
}

fn of_param(param: &Param, plain: bool) -> Value {
    if param.bytes.is_none() {
        return Value::Default;
    }
    if param.truncated() {
        return Value::Unknown(TOO_LONG);
    }
    let is_text = TEXTS.contains(&param.type_oid);
    if is_text {
        return match std::str::from_utf8(&param.kept) {
            Ok(text) if plain || param.format == Format::Text || text.is_ascii() => {
                Value::Text(text.to_owned())
            }
            _ => Value::Unknown(ENCODING),
        };
    }
    match (param.format, text_of(param.type_oid, param.format, &param.kept)) {
        (Format::Binary, ValueText::Text(text)) if WHOLE_NUMBERS.contains(&param.type_oid) => {
            Value::Text(text)
        }
        (Format::Text, ValueText::Text(text)) if is_as_printed(param.type_oid, &text) => Value::Text(text),
        _ => Value::Unknown(EXPRESSION),
    }
}

/// Whether the server would print a number as the client wrote it.
fn is_as_printed(type_oid: u32, text: &str) -> bool {
    WHOLE_NUMBERS.contains(&type_oid) && text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

/// `parse_bool` in the server's utils/adt/bool.c: any unique beginning.
fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim_ascii().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(type_oid: u32, format: Format, kept: &'static [u8]) -> Param {
        Param {
            type_oid,
            format,
            bytes: Some(kept.len() as u32),
            kept: kept.into(),
        }
    }

    #[test]
    fn parameters_are_read_in_both_formats() {
        let text = |text: &str| Value::Text(text.to_owned());
        let params = [
            param(25, Format::Text, b"bob"),
            param(0, Format::Binary, "jürgen".as_bytes()),
            param(23, Format::Binary, &[0, 0, 0, 42]),
            param(23, Format::Text, b" 42"),
            param(20, Format::Text, b"-7"),
            param(2950, Format::Text, b"no uuid"),
            Param {
                bytes: None,
                ..param(25, Format::Text, b"")
            },
            Param {
                bytes: Some(9),
                ..param(25, Format::Text, b"cut")
            },
        ];
        let read = |number, plain| value(&Given::Parameter(number), &params, plain);
        assert_eq!(read(1, false), text("bob"));
        assert_eq!(read(2, true), text("jürgen"));
        assert_eq!(read(2, false), Value::Unknown(ENCODING));
        assert_eq!(read(3, true), text("42"));
        assert_eq!(read(4, true), Value::Unknown(EXPRESSION));
        assert_eq!(read(5, true), text("-7"));
        assert_eq!(read(6, true), Value::Unknown(EXPRESSION));
        assert_eq!(read(7, true), Value::Default);
        assert_eq!(read(8, true), Value::Unknown(TOO_LONG));
        assert_eq!(read(9, true), Value::Unknown(EXPRESSION));
        assert_eq!(read(0, true), Value::Unknown(EXPRESSION));
        let params = [
            param(16, Format::Binary, &[1]),
            param(0, Format::Text, b"f"),
            param(16, Format::Text, b"On"),
        ];
        let read = |number| boolean(&Given::Parameter(number), &params);
        assert_eq!(
            [read(1), read(2), read(3), read(4)],
            [Some(true), Some(false), Some(true), None]
        );
        for (text, expected) in [
            ("t", Some(true)),
            ("o", None),
            ("of", Some(false)),
            ("", None),
            (" YES ", Some(true)),
        ] {
            assert_eq!(parse_bool(text), expected, "{text}");
        }
    }
}
