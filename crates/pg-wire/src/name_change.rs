//! What a completed SQL statement did to the names of prepared statements and portals. That it did something is told
//! by its tag, and which name by its text: where that is not plain, any name could be meant. Separate from the
//! pipeline, which only says when.

use crate::prepared::{Prepared, Text};
use crate::sql_names::{self, Named};

/// What SQL does to names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameChange {
    Prepare,
    Deallocate,
    DeallocateAll,
    Declare,
    Close,
    CloseAll,
    DiscardAll,
}

impl NameChange {
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        Some(match tag {
            "PREPARE" => Self::Prepare,
            "DEALLOCATE" => Self::Deallocate,
            "DEALLOCATE ALL" => Self::DeallocateAll,
            "DECLARE CURSOR" => Self::Declare,
            "CLOSE CURSOR" => Self::Close,
            "CLOSE CURSOR ALL" => Self::CloseAll,
            "DISCARD ALL" => Self::DiscardAll,
            _ => return None,
        })
    }

    /// Applies it. `text` is that of the statement, if it is known which one that was.
    pub(crate) fn apply(self, text: Option<Text>, prepared: &mut Prepared) {
        let named = text
            .as_ref()
            .and_then(|text| text.sql.as_deref())
            .and_then(sql_names::read);
        let text = text.unwrap_or(Text {
            preparsed: true,
            ..Text::default()
        });
        match (self, named) {
            (Self::Prepare, Some(Named::Prepare(name))) => prepared.prepared_by_sql(Some(name), text),
            (Self::Prepare, _) => prepared.prepared_by_sql(None, text),
            (Self::Deallocate, Some(Named::Deallocate(name))) => prepared.deallocated(Some(&name)),
            (Self::Deallocate, _) => prepared.deallocated(None),
            (Self::DeallocateAll, _) => prepared.deallocated_all(),
            (Self::Declare, Some(Named::Declare(name))) => prepared.declared(Some(name), text),
            (Self::Declare, _) => prepared.declared(None, text),
            (Self::Close, Some(Named::Close(name))) => prepared.closed_by_sql(Some(&name)),
            (Self::Close | Self::CloseAll, _) => prepared.closed_by_sql(None),
            (Self::DiscardAll, _) => {
                prepared.deallocated_all();
                prepared.closed_by_sql(None);
            }
        }
    }
}
