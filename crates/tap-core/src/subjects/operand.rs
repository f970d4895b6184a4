//! The values that a text gives its columns: what stands at the place that `sql-meaning` tells, in its canonical form.

use std::cell::OnceCell;

use pg_wire::{Format, Param};
use sql_meaning::{Argument, Literal, Operand, ValueUse, arguments, declared_types, literals};
use subjects::{Family, canonical, canonical_text, elements, type_of_name};

use super::Asked;

/// Types of a number that is not quoted: a whole one, and any other (manual, "Numeric Constants").
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const NUMERIC: u32 = 1700;
/// Types whose text another type's input function reads in a cast; 0 is not known yet, so it is what the cast says.
const TEXTS: [u32; 3] = [25, 705, 1043];

/// The values of one statement.
pub(super) struct Values<'a> {
    asked: &'a Asked<'a>,
    /// Its literals, once one of them is needed. `None` if the text is not known, or not read for sure.
    literals: OnceCell<Option<Vec<Literal>>>,
    /// What EXECUTE gives it, and of which types these are by PREPARE, once one of them is needed.
    arguments: OnceCell<Option<(Vec<Argument>, Vec<String>)>>,
}

impl<'a> Values<'a> {
    pub(super) fn new(asked: &'a Asked<'a>) -> Self {
        Self {
            asked,
            literals: OnceCell::new(),
            arguments: OnceCell::new(),
        }
    }

    /// What was bound at this number, from 1.
    pub(super) fn param(&self, number: u16) -> Option<&'a Param> {
        self.asked.params.get(usize::from(number.checked_sub(1)?))
    }

    /// The canonical forms that stand at this place: of an array as many as it has elements, of NULL none. `None`: it is
    /// not known what all of them are.
    pub(super) fn of(&self, used: &ValueUse, family: Family) -> Option<Vec<Vec<u8>>> {
        let cast = match used.cast {
            Some(name) => Some(type_of_name(name)?),
            None => None,
        };
        match used.operand {
            Operand::Param(number) if self.asked.executes.is_some() => {
                self.argument(number, cast, used.each, family)
            }
            Operand::Param(number) => {
                let param = self.param(number)?;
                if param.bytes.is_none() {
                    return Some(Vec::new());
                }
                // A value that was not kept, or not all of it.
                if param.truncated() || !self.is_read(param) {
                    return None;
                }
                if used.each {
                    return array(family, param.type_oid, cast, param.format, &param.kept);
                }
                one(sent(family, param.type_oid, cast, param.format, &param.kept)?)
            }
            Operand::Literal(number) => match self.literal(number)? {
                Literal::Text(text) if used.each => array(family, 0, cast, Format::Text, text.as_bytes()),
                Literal::Text(text) => one(match cast {
                    Some(oid) => canonical(family, oid, Format::Text, text.as_bytes())?,
                    None => canonical_text(family, text)?,
                }),
                Literal::Number(_) if used.each => None,
                Literal::Number(digits) => one(number_of(family, cast, digits)?),
                Literal::Unread => None,
            },
            Operand::Negative(number) => match self.literal(number)? {
                Literal::Number(digits) if !used.each => one(number_of(family, cast, &format!("-{digits}"))?),
                _ => None,
            },
        }
    }

    /// What EXECUTE gives at this number. The server brings it into the type of the parameter: that which PREPARE declares, or
    /// that which the statement makes of it, as of a literal.
    fn argument(&self, number: u16, cast: Option<u32>, each: bool, family: Family) -> Option<Vec<Vec<u8>>> {
        let arguments = self.arguments.get_or_init(|| {
            let executes = std::str::from_utf8(self.asked.executes?).ok()?;
            // The parameters of a statement that the protocol prepared have types that are not in its text.
            let types = declared_types(std::str::from_utf8(self.asked.text?).ok()?)?;
            Some((arguments(executes, self.asked.backslash)?, types))
        });
        let (arguments, types) = arguments.as_ref()?;
        let place = usize::from(number.checked_sub(1)?);
        let declared = match types.get(place).map(String::as_str) {
            None | Some("unknown") => None,
            // A length changes values.
            Some(name) if name.contains('(') => return None,
            Some(name) => Some(type_of_name(name)?),
        };
        let literal = match arguments.get(place)? {
            Argument::Null => return Some(Vec::new()),
            Argument::Given(literal) => literal,
        };
        match literal {
            Literal::Text(text) if each && declared.is_none() => {
                array(family, 0, cast, Format::Text, text.as_bytes())
            }
            Literal::Text(text) if !each => one(sent(
                family,
                declared.unwrap_or(0),
                cast,
                Format::Text,
                text.as_bytes(),
            )?),
            // Of another kind of type it would be cast, by rules of its own.
            Literal::Number(digits) if !each && declared.is_none() && is_number(family) => {
                one(number_of(family, cast, digits)?)
            }
            Literal::Number(digits) if !each => {
                let whole = digits.parse::<i64>().is_ok();
                let declared = declared.filter(|oid| whole && [INT2, INT4, INT8].contains(oid))?;
                one(sent(family, declared, cast, Format::Text, digits.as_bytes())?)
            }
            _ => None,
        }
    }

    fn literal(&self, number: u32) -> Option<&Literal> {
        let literals = self.literals.get_or_init(|| {
            let text = std::str::from_utf8(self.asked.text?).ok()?;
            Some(literals(text, self.asked.backslash))
        });
        literals.as_ref()?.get(usize::try_from(number).ok()?)
    }

    /// Whether the bytes say what the server read: text in another encoding was converted where it was sent as text.
    fn is_read(&self, param: &Param) -> bool {
        self.asked.plain || param.format == Format::Text || param.kept.is_ascii()
    }
}

fn is_number(family: Family) -> bool {
    matches!(family, Family::Integer | Family::Numeric)
}

fn one(form: Vec<u8>) -> Option<Vec<Vec<u8>>> {
    Some(vec![form])
}

/// A value on the wire, perhaps cast by the text.
fn sent(family: Family, type_oid: u32, cast: Option<u32>, format: Format, bytes: &[u8]) -> Option<Vec<u8>> {
    match cast {
        None => canonical(family, type_oid, format, bytes),
        Some(cast) if type_oid == 0 || type_oid == cast => canonical(family, cast, format, bytes),
        Some(cast) if TEXTS.contains(&type_oid) => canonical(family, cast, Format::Text, bytes),
        Some(_) => None,
    }
}

/// The elements of an array, of which a cast says the type.
fn array(
    family: Family,
    array_oid: u32,
    cast: Option<u32>,
    format: Format,
    bytes: &[u8],
) -> Option<Vec<Vec<u8>>> {
    let (type_oid, elements) = elements(array_oid, format, bytes)?;
    elements
        .into_iter()
        .flatten()
        .map(|element| sent(family, type_oid, cast, format, &element))
        .collect()
}

/// A number that is not quoted has a type of its own, whatever the column's is.
fn number_of(family: Family, cast: Option<u32>, digits: &str) -> Option<Vec<u8>> {
    let own = if digits.parse::<i64>().is_ok() {
        INT8
    } else {
        NUMERIC
    };
    canonical(family, cast.unwrap_or(own), Format::Text, digits.as_bytes())
}
