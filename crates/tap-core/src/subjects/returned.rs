//! Values of an identifying column that came back in rows, or were copied.

use pg_wire::{Format, Outcome};
use sql_meaning::gives_every_row;
use subjects::{SubjectColumn, canonical};

use super::{Asked, Gathered, copied, copied::COPY};
use crate::relations::told;

/// Adds them; whether all records of the object that the statement touched are among them.
pub(super) fn add(of: &SubjectColumn, asked: &Asked<'_>, gathered: &mut Gathered<'_>) -> bool {
    let (statement, result) = (asked.statement, asked.result);
    if statement.command == COPY {
        return copied::add(of, asked, gathered);
    }
    let ended =
        matches!(result.outcome, Outcome::Ok | Outcome::Suspended) && gives_every_row(statement, &of.name);
    let Some(rows) = result.kept.as_deref() else {
        // A query of no rows read no record; an aggregate has one always.
        return ended && result.rows == 0 && !result.columns.is_empty();
    };
    let mut complete = ended
        && rows.is_complete()
        // An update of the column itself gives back what it is now.
        && (!gathered.sources.written || statement.command == "INSERT");
    let mut found = false;
    let told = told(statement, &result.columns);
    for (place, kept) in rows.columns().iter().enumerate() {
        let index = usize::from(kept.index);
        let column = result
            .columns
            .get(index)
            .zip(told.get(index).and_then(Option::as_ref));
        let Some((column, _)) =
            column.filter(|(_, told)| told.column == of.column && asked.is_of(told.object, of))
        else {
            continue;
        };
        found = true;
        for value in rows.values(place).flatten() {
            // Text in another encoding is not converted here.
            let is_read = asked.plain || kept.format == Format::Binary || value.is_ascii();
            match canonical(of.family, column.type_oid, kept.format, value).filter(|_| is_read) {
                Some(form) => {
                    gathered.add(&form);
                    gathered.sources.returned = true;
                }
                None => complete = false,
            }
        }
    }
    found && complete
}
