//! Values of an identifying column in copied data. Which field is which is told by the text alone: by the list of columns, or
//! by the query whose result it is. Types are not told at all, so that the column's own is taken.

use pg_wire::{Copied, CopyForm, Format, KeptRows, Outcome};
use sql_meaning::{
    Access, Backslash, CopyFormat, Output, Statement, copy_options, gives_every_row, rows_in_tag,
};
use subjects::{Family, SubjectColumn, canonical, canonical_text, type_of_name};

use super::{Asked, Gathered, TABLE};
use crate::relations::Told;

/// The command whose data this is about.
pub(super) const COPY: &str = "COPY";

/// What is wanted of the data of this statement; `None` for most.
pub(super) fn wanted(
    text: &str,
    statement: &Statement,
    is_wanted: impl Fn(&Told<'_>) -> bool,
) -> Option<Copied> {
    if statement.command != COPY || !statement.parsed {
        return None;
    }
    // How the session reads a backslash is not known here.
    let options = copy_options(text, Backslash::Unknown)?;
    let columns = (0..)
        .zip(columns(statement)?)
        .filter(|(_, told)| told.as_ref().is_some_and(&is_wanted))
        .map(|(index, _)| index)
        .collect();
    let null = options.null.into_bytes();
    Some(Copied {
        columns,
        form: match options.format {
            CopyFormat::Text => CopyForm::Text {
                delimiter: options.delimiter,
                null,
            },
            CopyFormat::Csv => CopyForm::Csv {
                delimiter: options.delimiter,
                quote: options.quote,
                escape: options.escape,
                null,
            },
            CopyFormat::Binary => CopyForm::Binary,
        },
        header: options.header,
    })
}

/// The columns of the data, one for one; `None` for a computed one. Nothing if the text does not say which they are.
fn columns(statement: &Statement) -> Option<Vec<Option<Told<'_>>>> {
    if let (true, [object]) = (is_of_table(statement), statement.objects.as_slice()) {
        let told = |column| Some(Told { object: 0, column });
        let columns = object.columns.iter().map(String::as_str).map(told);
        return Some(columns.collect()).filter(|_| !object.columns.is_empty());
    }
    let outputs = statement.outputs.iter().map(|output| match *output {
        Output::Column { object, column } => {
            let object = usize::from(object);
            let column = statement.objects.get(object)?.columns.get(usize::from(column))?;
            Some(Some(Told { object, column }))
        }
        Output::Other => Some(None),
        Output::Star { .. } => None,
    });
    outputs
        .collect::<Option<Vec<_>>>()
        .filter(|told| !told.is_empty())
}

/// Whether it is a table that is copied, no query: what follows COPY is no bracket.
fn is_of_table(statement: &Statement) -> bool {
    let behind = statement.redacted.get(COPY.len()..).unwrap_or_default();
    !behind.trim_start().starts_with('(')
}

/// Adds the values; whether all records of the object that the statement touched are among them.
pub(super) fn add(of: &SubjectColumn, asked: &Asked<'_>, gathered: &mut Gathered<'_>) -> bool {
    let (statement, result) = (asked.statement, asked.result);
    let (Some(rows), Some(columns)) = (result.kept.as_deref(), columns(statement)) else {
        return false;
    };
    let writes = is_of_table(statement)
        && statement
            .objects
            .first()
            .is_some_and(|object| object.kind == TABLE && object.access == Access::Write);
    // Every row that was read here was copied, and the other way round.
    let copied = result.tag.as_deref().and_then(rows_in_tag);
    let mut complete = rows.is_complete()
        && result.outcome == Outcome::Ok
        && copied == Some(rows.rows())
        && (is_of_table(statement) || gives_every_row(statement, &of.name));
    let mut found = false;
    for (place, kept) in rows.columns().iter().enumerate() {
        let told = columns.get(usize::from(kept.index)).and_then(Option::as_ref);
        if !told.is_some_and(|told| told.column == of.column && asked.is_of(told.object, of)) {
            continue;
        }
        found = true;
        complete &= take(rows, place, kept.format, of.family, asked.plain, |form| {
            gathered.add(form);
            match writes {
                true => gathered.sources.written = true,
                false => gathered.sources.returned = true,
            }
        });
    }
    found && complete
}

/// Whether all values were read.
fn take(
    rows: &KeptRows,
    place: usize,
    format: Format,
    family: Family,
    plain: bool,
    mut add: impl FnMut(&[u8]),
) -> bool {
    // In some encodings a letter's second byte looks like a delimiter.
    if !plain && format == Format::Text {
        return false;
    }
    let mut all = true;
    for value in rows.values(place).flatten() {
        let form = match format {
            Format::Text => std::str::from_utf8(value)
                .ok()
                .and_then(|text| canonical_text(family, text)),
            Format::Binary => {
                binary(family, value).filter(|_| plain || value.is_ascii() || family != Family::Text)
            }
        };
        match form {
            Some(form) => add(&form),
            None => all = false,
        }
    }
    all
}

/// A value of the column's own type. Of types whose bytes may as well be those of another one, nothing.
fn binary(family: Family, value: &[u8]) -> Option<Vec<u8>> {
    let name = match (family, value) {
        (Family::Integer, [_, _]) => "smallint",
        // Above it an `oid` is another number than an `integer`.
        (Family::Integer, [0..=0x7f, _, _, _]) => "integer",
        (Family::Integer, [_, _, _, _, _, _, _, _]) => "bigint",
        (Family::Numeric | Family::Text | Family::Uuid | Family::Inet, _) => family.name(),
        _ => return None,
    };
    canonical(family, type_of_name(name)?, Format::Binary, value)
}
