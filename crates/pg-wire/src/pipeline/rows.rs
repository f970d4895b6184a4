//! Which values of the rows under way are kept. Separate because it is the one place that looks into results.

use std::sync::Arc;

use super::Pipeline;
use crate::answer::Rows;
use crate::copied::Reader;
use crate::exchange::{Columns, Format};
use crate::request::{Ask, Formats};
use crate::rows::{KeptColumn, KeptRows, Row};

impl Pipeline {
    /// A row is about to come: the columns that are wanted of it.
    pub(crate) fn row_begins(&mut self) -> Option<&Arc<[KeptColumn]>> {
        if matches!(self.answer.rows, Rows::Undecided) {
            self.answer.rows = match self.chosen() {
                Some(columns) if !columns.is_empty() => Rows::Kept(Box::new(KeptRows::new(columns))),
                _ => Rows::Unwanted,
            };
        }
        match &self.answer.rows {
            Rows::Kept(rows) => Some(rows.shared_columns()),
            Rows::Undecided | Rows::Unwanted | Rows::Full(_) => None,
        }
    }

    /// A row has come.
    pub(super) fn keep_row(&mut self, row: &Row) {
        let Rows::Kept(rows) = &mut self.answer.rows else {
            return;
        };
        match rows.keep(row, self.rows_room.saturating_sub(self.rows_used)) {
            Some(used) => self.rows_used += used,
            None => {
                if let Rows::Kept(rows) = std::mem::take(&mut self.answer.rows) {
                    self.answer.rows = Rows::Full(rows);
                }
            }
        }
    }

    /// Data is about to be copied: what is wanted of it. Nothing if some has come already: what stands first is not known
    /// then.
    pub(crate) fn copy_begins(&mut self, value_cap: usize) -> Option<Reader> {
        let of = Arc::clone(self.copy_of.as_ref()?);
        let text = self.running()?;
        let unseen = self.answer.incoming.payload > 0;
        let wanted = of(&text).filter(|wanted| !unseen && !wanted.columns.is_empty())?;
        let room = self.rows_room.saturating_sub(self.rows_used);
        Some(Reader::new(&wanted, value_cap, room))
    }

    /// Data was copied, and this was kept of it.
    pub(crate) fn copy_ends(&mut self, reader: Reader) {
        if self.answer.is_open() {
            let (rows, used) = reader.finish();
            self.rows_used += used;
            self.answer.rows = Rows::Kept(rows);
        }
    }

    /// The wanted columns of the result under way, as far as it was described.
    fn chosen(&mut self) -> Option<Arc<[KeptColumn]>> {
        let of = Arc::clone(self.rows_of.as_ref()?);
        let text = self.running();
        let (columns, formats): (&Columns, Option<&Formats>) = match &self.queue.front()?.ask {
            Ask::Execute { portal } => match self.answer.described() {
                Some(columns) => (columns, None),
                None => self.prepared.result(portal)?,
            },
            _ => (self.answer.described()?, None),
        };
        if columns.iter().all(|column| column.table_oid == 0) {
            return None;
        }
        of(text.as_deref(), columns)
            .into_iter()
            .map(|index| {
                let place = usize::from(index);
                let described = columns.get(place)?.format;
                let format: Format = match formats {
                    Some(formats) => formats.of(place)?,
                    None => described,
                };
                Some(KeptColumn { index, format })
            })
            .collect()
    }
}
