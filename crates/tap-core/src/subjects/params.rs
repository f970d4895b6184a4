//! What is told of parameters that stand against classified columns.

use pg_wire::ValueText;
use sql_meaning::{Operand, mask_value};
use subjects::{Family, Mode, Token};

use super::{Asked, Sensitive, TABLE, operand::Values};

/// A parameter of which more, or less, is told than of others.
#[derive(Clone, PartialEq, Eq)]
pub struct ParamTold {
    /// Its place among the parameters, from 0.
    pub index: u16,
    /// What stands for it.
    pub token: Option<Token>,
    /// What is shown of its value.
    pub shown: Shown,
}

/// What is shown of a value.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing, whatever is shown of others.
    Hidden,
    /// The beginning: `j***@***`.
    Masked(String),
    /// All of it.
    Clear,
    /// Not even its type and length.
    Dropped,
}

/// The classified parameters of a statement, in their order. Where one stands against several columns, the strictest
/// mode counts.
pub(super) fn told(sensitive: &Sensitive, asked: &Asked<'_>, values: &Values<'_>) -> Vec<ParamTold> {
    let mut all: Vec<(ParamTold, Mode)> = Vec::new();
    for used in &asked.statement.values {
        let Operand::Param(number) = used.operand else {
            continue;
        };
        let Some(object) = asked
            .statement
            .objects
            .get(used.object)
            .filter(|object| object.kind == TABLE)
        else {
            continue;
        };
        let rule = sensitive.classification.of_column(
            asked.database,
            asked.schema(used.object),
            &object.name,
            &used.column,
        );
        let (Some(rule), Some(param)) = (rule, values.param(number)) else {
            continue;
        };
        // An array is many values.
        let form = rule.family.filter(|_| !used.each).and_then(|family| {
            let form = values.of(used, family)?.pop()?;
            Some((family, form))
        });
        let token = form
            .as_ref()
            .filter(|_| matches!(rule.mode, Mode::Token | Mode::Mask | Mode::Clear))
            .map(|(family, form)| sensitive.key.token(*family, form));
        let shown = match rule.mode {
            Mode::Redact | Mode::Token => Shown::Hidden,
            Mode::Mask => match pg_wire::text_of(param.type_oid, param.format, &param.kept) {
                ValueText::Text(text) if param.bytes.is_some() => Shown::Masked(masked(rule.family, &text)),
                _ => Shown::Hidden,
            },
            Mode::Clear => Shown::Clear,
            Mode::Drop => Shown::Dropped,
        };
        let one = ParamTold {
            index: number - 1,
            token,
            shown,
        };
        match all.iter_mut().find(|(known, _)| known.index == one.index) {
            Some(known) if strictness(rule.mode) > strictness(known.1) => *known = (one, rule.mode),
            Some(_) => {}
            None => all.push((one, rule.mode)),
        }
    }
    all.sort_by_key(|(one, _)| one.index);
    all.into_iter().map(|(one, _)| one).collect()
}

fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Clear => 0,
        Mode::Mask => 1,
        Mode::Token => 2,
        Mode::Redact => 3,
        Mode::Drop => 4,
    }
}

/// Texts this short would be told by their first letter.
const TOO_SHORT: usize = 4;

/// The first letter, and that it is an address. Of what is no text nothing: the beginning of a number says much of it.
fn masked(family: Option<Family>, text: &str) -> String {
    let is_text = matches!(family, None | Some(Family::Text | Family::Char));
    let first = text
        .chars()
        .next()
        .filter(|_| is_text && text.chars().count() >= TOO_SHORT);
    // Whatever may hold a password is masked in every mode.
    let Some(first) = first.filter(|_| mask_value(text) == text) else {
        return "***".to_owned();
    };
    let address = if text.contains('@') { "@***" } else { "" };
    format!("{first}***{address}")
}

/// Without values.
impl std::fmt::Debug for ParamTold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParamTold")
            .field("index", &self.index)
            .field("has_token", &self.token.is_some())
            .field("shown", &self.shown)
            .finish()
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hidden => "Hidden",
            Self::Masked(_) => "Masked",
            Self::Clear => "Clear",
            Self::Dropped => "Dropped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_shows_a_letter_of_long_texts() {
        let text = Some(Family::Text);
        for (family, value, expected) in [
            (text, "jane@example.com", "j***@***"),
            (text, "Ürgel", "Ü***"),
            (text, "bob", "***"),
            (text, "", "***"),
            (Some(Family::Integer), "123456", "***"),
            (Some(Family::Uuid), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "***"),
            (None, "plain", "p***"),
        ] {
            assert_eq!(masked(family, value), expected);
        }
    }
}
