//! One value, one form: what the server reads in a value, whichever way it was written. What is not sure has none.
//!
//! A value that the server reads otherwise than we do would name somebody else's record. So forms that depend on settings
//! (`DateStyle`, `TimeZone`, `IntervalStyle`), on the server's version (`0x2A`, `1_000`) or on a locale are refused, and
//! so is a value whose own type does not compare with the column's in a way that is the same everywhere.
//! Source of the rules: the `*_in` and `*_recv` functions in PostgreSQL's `src/backend/utils/adt`.

mod moment;
mod network;
mod number;
mod plain;

use pg_wire::{Format, ValueText, text_of};

use crate::family::{Family, oid};

/// The form of a text that the column's own type reads: a quoted literal, a parameter whose type nobody declared, a field
/// of copied text, or a value that came back as text.
///
/// `None`: it is no such value, or not surely one.
#[must_use]
pub fn canonical_text(family: Family, text: &str) -> Option<Vec<u8>> {
    let form = match family {
        Family::Integer => number::integer(text)?,
        Family::Numeric => number::numeric(text)?,
        // An unquoted 0.1 is no `real` 0.1, a quoted one is: only what is both is sure.
        Family::Real => number::real_of_double(number::double(text)?)?,
        Family::Double => number::written(number::double(text)?),
        Family::Text => return (!text.contains('\0')).then(|| text.as_bytes().to_vec()),
        Family::Char => {
            return (!text.contains('\0')).then(|| text.trim_end_matches(' ').as_bytes().to_vec());
        }
        Family::Uuid => plain::uuid(text)?,
        Family::Boolean => plain::boolean(text)?,
        Family::Date => moment::date(text)?,
        Family::Time => moment::time(text)?,
        Family::Timestamp => moment::timestamp(text)?,
        Family::Timestamptz => moment::timestamptz(text)?,
        Family::Bytea => return plain::bytea(text),
        Family::Inet => network::inet(text)?,
    };
    Some(form.into_bytes())
}

/// The form of a value of a declared type, as it is on the wire. `type_oid` is 0 where the type is not known; then only
/// text can be read.
///
/// `None`: as for [`canonical_text`], and where a value of that type is not simply compared with such a column.
#[must_use]
pub fn canonical(family: Family, type_oid: u32, format: Format, bytes: &[u8]) -> Option<Vec<u8>> {
    let is_unknown = matches!(type_oid, 0 | oid::UNKNOWN);
    if is_unknown && format == Format::Binary {
        return None;
    }
    let ValueText::Text(text) = text_of(type_oid, format, bytes) else {
        return None;
    };
    if is_unknown {
        return canonical_text(family, &text);
    }
    let form = match (family, type_oid) {
        (Family::Integer | Family::Numeric, oid::INT2 | oid::INT4 | oid::INT8 | oid::OID) => {
            let whole = number::integer(&text)?;
            if family == Family::Integer {
                whole
            } else {
                number::numeric(&whole)?
            }
        }
        (Family::Integer, oid::NUMERIC) => number::whole(&text)?,
        (Family::Numeric, oid::NUMERIC) => number::numeric(&text)?,
        // Read as `real`, it is what it is; anything else is compared in double precision.
        (Family::Real, oid::FLOAT4) => number::written_real(number::real(&text)?),
        (Family::Double, oid::FLOAT4) => number::written(f64::from(number::real(&text)?)),
        (Family::Real | Family::Double, oid::FLOAT8 | oid::NUMERIC | oid::INT2 | oid::INT4 | oid::INT8) => {
            let value = number::double(&text)?;
            if family == Family::Real {
                number::real_of_double(value)?
            } else {
                number::written(value)
            }
        }
        (Family::Text, oid::TEXT | oid::VARCHAR | oid::NAME) | (Family::Char, oid::BPCHAR) => {
            return canonical_text(family, &text);
        }
        // On the way to `text` a `char(n)` loses its blanks.
        (Family::Text, oid::BPCHAR) => return canonical_text(Family::Char, &text),
        // Compared as text, where blanks count that no `char(n)` has.
        (Family::Char, oid::TEXT | oid::VARCHAR | oid::NAME) => {
            return canonical_text(Family::Text, &text).filter(|_| !text.ends_with(' '));
        }
        (Family::Date, oid::TIMESTAMP) => moment::date_of_midnight(&text)?,
        (Family::Timestamp, oid::DATE) => moment::midnight(&text)?,
        (Family::Uuid, oid::UUID)
        | (Family::Boolean, oid::BOOL)
        | (Family::Date, oid::DATE)
        | (Family::Time, oid::TIME)
        | (Family::Timestamp, oid::TIMESTAMP)
        | (Family::Timestamptz, oid::TIMESTAMPTZ)
        | (Family::Bytea, oid::BYTEA)
        | (Family::Inet, oid::INET | oid::CIDR) => return canonical_text(family, &text),
        _ => return None,
    };
    Some(form.into_bytes())
}

/// White space at both ends, as C's `isspace` knows it.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r'])
}

#[cfg(test)]
mod tests;
