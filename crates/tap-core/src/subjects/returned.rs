//! Values of an identifying column that came back in rows.

use pg_wire::{Format, Outcome};
use subjects::{SubjectColumn, canonical};

use super::{Asked, Gathered, TABLE, is_of, plain::plain};

/// Adds them; whether all records of the object that the statement touched are among them.
pub(super) fn add(of: &SubjectColumn, asked: &Asked<'_>, gathered: &mut Gathered<'_>) -> bool {
    let (statement, result) = (asked.statement, asked.result);
    // Which table a number means is said by nobody: it is the one that the text names, if that is one.
    let only = statement.parsed
        && statement
            .objects
            .iter()
            .all(|object| object.kind != TABLE || is_of(object, of));
    let plain = plain(&statement.redacted, &of.column);
    if !only || !plain.sure {
        return false;
    }
    let ended = plain.every && matches!(result.outcome, Outcome::Ok | Outcome::Suspended);
    let Some(rows) = result.kept.as_deref() else {
        // A query of no rows read no record; an aggregate has one always.
        return ended && result.rows == 0 && !result.columns.is_empty();
    };
    let mut complete = ended
        && rows.is_complete()
        // An update of the column itself gives back what it is now.
        && (!gathered.sources.written || statement.command == "INSERT");
    let mut found = false;
    for (place, kept) in rows.columns().iter().enumerate() {
        let Some(column) = result.columns.get(usize::from(kept.index)) else {
            complete = false;
            continue;
        };
        if column.name.as_ref() != of.column.as_bytes() {
            continue;
        }
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
