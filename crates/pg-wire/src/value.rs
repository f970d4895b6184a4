//! One parameter or column value as text: what the server's own output function prints with default settings
//! (`DateStyle` ISO, `IntervalStyle` postgres, `bytea_output` hex, `TimeZone` UTC, `extra_float_digits` 1). It refuses
//! what needs a catalog or a locale: names behind `reg*`, enums, composite types, money; those come out as numbers or
//! in hexadecimal. Nothing is decoded lossily: bytes that are not UTF-8 come out in hexadecimal, too. Separate,
//! because it knows types and not messages.
//!
//! Source of the rules: the `*_send`, `*_recv` and `*_out` functions in PostgreSQL's `src/backend/utils/adt`.
//! `tests/values.tsv` holds what a server itself says of several hundred values.

mod composite;
mod float;
mod geometry;
mod network;
mod numeric;
mod scalar;
mod time;
mod types;

use crate::Format;
use types::Kind;

/// A value to be read by people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueText {
    /// As the server would print it, or as it was sent in text.
    Text(String),
    /// The bytes as `\x` and hexadecimal digits: their type is not known here, they are not of it, or they are not
    /// UTF-8 (which a text in another client encoding may be).
    Raw(String),
}

impl ValueText {
    /// The text, whichever it is.
    pub fn as_str(&self) -> &str {
        let (Self::Text(text) | Self::Raw(text)) = self;
        text
    }
}

/// The text of a whole value. A value sent in text stays as it was sent (a client may write `007` for an `int4`).
///
/// `type_oid` is 0 where it is not known. Work and length of the result are bounded by the length of `bytes`, see
/// the constants of this module.
pub fn text_of(type_oid: u32, format: Format, bytes: &[u8]) -> ValueText {
    let text = match format {
        Format::Text => as_text(bytes),
        Format::Binary => printed(type_oid, bytes),
    };
    text.map_or_else(|| ValueText::Raw(hexadecimal(bytes)), ValueText::Text)
}

/// The text of the beginning of a value: as [`text_of`] where each byte stands for itself (all that is sent in text,
/// and binary text, JSON and `bytea`), without a character that was cut at the end; else in hexadecimal.
pub fn text_of_start(type_oid: u32, format: Format, bytes: &[u8]) -> ValueText {
    let kind = match format {
        Format::Text => Some(Kind::Text),
        Format::Binary => {
            types::kind(type_oid).filter(|kind| matches!(kind, Kind::Text | Kind::Versioned | Kind::Bytea))
        }
    };
    let whole = match std::str::from_utf8(bytes) {
        // Cut in the middle of a character.
        Err(problem) if problem.error_len().is_none() && kind != Some(Kind::Bytea) => {
            bytes.get(..problem.valid_up_to()).unwrap_or(bytes)
        }
        _ => bytes,
    };
    let text = match (format, kind) {
        (Format::Text, _) => as_text(whole),
        (Format::Binary, Some(_)) => printed(type_oid, whole),
        (Format::Binary, None) => None,
    };
    text.map_or_else(|| ValueText::Raw(hexadecimal(bytes)), ValueText::Text)
}

/// The body of the fuzz target: any type, any bytes. Panics if an invariant breaks.
#[doc(hidden)]
pub fn fuzz_value(data: &[u8]) {
    let Some((&[choice, low, high], bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    let any = u32::from(u16::from_le_bytes([low, high]));
    let type_oid = if choice & 1 == 0 { types::nth(any) } else { any };
    let format = if choice & 2 == 0 {
        Format::Binary
    } else {
        Format::Text
    };
    let whole = text_of(type_oid, format, bytes);
    let bound = longest(bytes.len());
    assert!(
        whole.as_str().len() <= bound,
        "{} bytes of text",
        whole.as_str().len()
    );
    if let ValueText::Raw(text) = &whole {
        assert_eq!(*text, hexadecimal(bytes), "not the bytes");
    }
    let start = text_of_start(type_oid, format, bytes);
    if let (Format::Text, ValueText::Text(whole), ValueText::Text(start)) = (format, &whole, &start) {
        assert_eq!(whole, start, "a start that is the whole");
    }
}

fn printed(type_oid: u32, bytes: &[u8]) -> Option<String> {
    let mut out = Out {
        text: String::new(),
        limit: longest(bytes.len()),
    };
    write(types::kind(type_oid)?, bytes, &mut out, DEPTH)?;
    Some(out.text)
}

/// Writes a value of `kind`, all of `bytes`. `None`: they are no such value, or a limit is reached.
fn write(kind: Kind, bytes: &[u8], out: &mut Out, depth: usize) -> Option<()> {
    match kind {
        Kind::Array(element) => composite::array(element, bytes, out, depth),
        Kind::Vector => composite::vector(bytes, out, depth),
        Kind::Record => composite::record(bytes, out, depth),
        Kind::Range(bound) => composite::range(bound, bytes, out, depth),
        Kind::Multirange(range) => composite::multirange(range, bytes, out, depth),
        Kind::Numeric => numeric::numeric(bytes, out),
        Kind::Float4 => float::float4(bytes, out),
        Kind::Float8 => float::float8(bytes, out),
        Kind::Date => time::date(bytes, out),
        Kind::Time => time::time(bytes, out),
        Kind::TimeTz => time::timetz(bytes, out),
        Kind::Timestamp => time::timestamp(bytes, "", out),
        Kind::TimestampTz => time::timestamp(bytes, "+00", out),
        Kind::Interval => time::interval(bytes, out),
        Kind::Inet => network::inet(bytes, out),
        Kind::MacAddr => network::macaddr(bytes, out),
        Kind::Shape(shape) => geometry::shape(shape, bytes, out),
        _ => scalar::scalar(kind, bytes, out),
    }?;
    // Whatever was written: what contains it goes on only within the limit.
    (out.text.len() <= out.limit).then_some(())
}

/// The text so far and how long it may get.
struct Out {
    text: String,
    limit: usize,
}

impl Out {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) -> Option<()> {
        std::fmt::Write::write_fmt(&mut self.text, text).ok()
    }
}

fn as_text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// As `bytea_out` prints: `\x` and two digits for each byte.
fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    "\\x"
        .chars()
        .chain(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)))
        .collect()
}

/// Takes `N` bytes from the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// Takes what a length in front announces; `Some(None)` is NULL.
fn take_field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = i32::from_be_bytes(take(rest)?);
    if length == -1 {
        return Some(None);
    }
    let (field, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(Some(field))
}

/// How long a text may become. Only numerics print more than eight characters for a byte: a weight of two bytes can
/// ask for 131,072 digits before the point, a scale for 16,383 behind it (manual, "Numeric Types").
fn longest(bytes: usize) -> usize {
    bytes.saturating_mul(8).saturating_add(NUMERIC_CHARACTERS)
}

/// The longest numeric: sign, digits, point, digits.
const NUMERIC_CHARACTERS: usize = 1 + 131_072 + 1 + 16_383;

/// Types inside types. A server has two (an array of ranges); only records nest deeper.
const DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::{ValueText, fuzz_value, text_of, text_of_start, types};
    use crate::Format;
    use proptest::prelude::*;

    fn text(text: &str) -> ValueText {
        ValueText::Text(text.to_owned())
    }

    fn raw(text: &str) -> ValueText {
        ValueText::Raw(text.to_owned())
    }

    #[test]
    fn what_is_not_known_or_not_of_its_type_is_told_as_its_bytes() {
        for (oid, bytes, expected) in [
            (0, &b"ab"[..], "\\x6162"),
            (16_385, b"", "\\x"),
            (types::oid::MONEY, &[0; 8], "\\x0000000000000000"),
            (types::oid::INT4, &[1, 2, 3], "\\x010203"),
            (types::oid::INT4, &[1, 2, 3, 4, 5], "\\x0102030405"),
            (types::oid::TEXT, &[b'a', 0xfc], "\\x61fc"),
        ] {
            assert_eq!(text_of(oid, Format::Binary, bytes), raw(expected));
        }
        assert_eq!(text_of(types::oid::INT4, Format::Text, b" 007"), text(" 007"));
        assert_eq!(text_of(0, Format::Text, &[0xfc]), raw("\\xfc"));
    }

    #[test]
    fn a_beginning_stays_readable_where_bytes_stand_for_themselves() {
        let cut = &"für".as_bytes()[..2];
        assert_eq!(text_of_start(0, Format::Text, cut), text("f"));
        assert_eq!(text_of_start(types::oid::TEXT, Format::Binary, cut), text("f"));
        assert_eq!(
            text_of_start(types::oid::BYTEA, Format::Binary, cut),
            text("\\x66c3")
        );
        assert_eq!(
            text_of_start(types::oid::INT4, Format::Binary, &[0, 0, 0, 1]),
            raw("\\x00000001")
        );
        assert_eq!(text_of_start(0, Format::Text, &[0xfc, b'a']), raw("\\xfc61"));
    }

    #[test]
    fn a_small_array_cannot_ask_for_much() {
        // Each element is the numeric 1e131071: ten bytes that print 131,072 characters.
        let element = [0, 0, 0, 10, 0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1];
        let mut array = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6, 164, 0, 0, 0, 100, 0, 0, 0, 1];
        array.extend(element.repeat(100));
        assert!(matches!(
            text_of(types::oid::NUMERIC_ARRAY, Format::Binary, &array),
            ValueText::Raw(_)
        ));
        assert_eq!(
            text_of(types::oid::NUMERIC, Format::Binary, &element[4..])
                .as_str()
                .len(),
            131_069
        );
    }

    proptest! {
        #[test]
        fn any_bytes_of_any_type(data in prop::collection::vec(any::<u8>(), 0..120)) {
            fuzz_value(&data);
        }
    }
}
