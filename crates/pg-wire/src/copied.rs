//! Values of chosen columns in copied data, as they stream past: text, CSV and binary (manual, "COPY", "File Formats").
//!
//! Owns where a row and a field begin and end. How a statement writes its data is told by who reads its text; what is not
//! surely read the same by all servers makes the values incomplete. Of a row nothing is kept but the chosen values, and of
//! data of which none is chosen nothing at all is looked at. Separate from `rows`, whose messages carry lengths.

mod binary;
mod text;

use std::fmt;
use std::sync::Arc;

use crate::exchange::Format;
use crate::rows::{KeptColumn, KeptRows, Row};

/// Says what is wanted of copied data; `None`: nothing, or it cannot be read. The text is that of the statement, as sent.
pub type CopyOf = Arc<dyn Fn(&[u8]) -> Option<Copied> + Send + Sync>;

/// What is wanted of copied data, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Places of the wanted columns, ascending.
    pub columns: Vec<u16>,
    /// How it is written.
    pub form: CopyForm,
    /// The first line has names. Not of the binary form.
    pub header: bool,
}

/// How copied data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyForm {
    /// Lines of fields with escapes.
    Text {
        /// Stands between fields.
        delimiter: u8,
        /// A field that is written so is NULL.
        null: Vec<u8>,
    },
    /// Lines of fields that may be quoted.
    Csv {
        /// Stands between fields.
        delimiter: u8,
        /// Stands around fields.
        quote: u8,
        /// Stands before a quote, or itself, within quotes.
        escape: u8,
        /// A field that is written so, without quotes, is NULL.
        null: Vec<u8>,
    },
    /// Fields behind their lengths.
    Binary,
}

/// Copied data of one statement.
pub(crate) struct Reader {
    parser: Parser,
    fields: Fields,
    /// At most this many bytes are kept of a value.
    cap: usize,
}

enum Parser {
    Text(text::Parser),
    Binary(binary::Parser),
}

/// Takes the fields of one row after the other.
pub(crate) struct Fields {
    row: Row,
    rows: Box<KeptRows>,
    room: usize,
    used: usize,
    /// The row under way is the one with the names.
    header: bool,
    cap: usize,
    /// Nothing more is read: the data has ended, or cannot be read on, or there is no more room.
    over: bool,
}

impl Reader {
    pub(crate) fn new(wanted: &Copied, cap: usize, room: usize) -> Self {
        let format = match wanted.form {
            CopyForm::Binary => Format::Binary,
            CopyForm::Text { .. } | CopyForm::Csv { .. } => Format::Text,
        };
        let columns: Arc<[KeptColumn]> = wanted
            .columns
            .iter()
            .map(|&index| KeptColumn { index, format })
            .collect();
        let mut row = Row::default();
        row.want(&columns);
        row.start();
        Self {
            parser: match &wanted.form {
                CopyForm::Binary => Parser::Binary(binary::Parser::default()),
                form => Parser::Text(text::Parser::new(form.clone())),
            },
            fields: Fields {
                row,
                rows: Box::new(KeptRows::new(columns)),
                room,
                used: 0,
                header: wanted.header,
                cap,
                over: false,
            },
            cap,
        }
    }

    /// The next piece of the data, however it is cut into messages.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        match &mut self.parser {
            Parser::Text(parser) => parser.feed(piece, &mut self.fields),
            Parser::Binary(parser) => parser.feed(piece, &mut self.fields),
        }
    }

    /// A piece of it is missing: where the next row begins nobody knows.
    pub(crate) fn lose(&mut self) {
        self.fields.lose();
    }

    /// The data has ended: the values, and how much room they take.
    pub(crate) fn finish(mut self) -> (Box<KeptRows>, usize) {
        match &mut self.parser {
            Parser::Text(parser) => parser.finish(&mut self.fields),
            Parser::Binary(parser) => parser.finish(&mut self.fields),
        }
        (self.fields.rows, self.fields.used)
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        size_of::<Self>() + self.cap + self.fields.row.retained_bytes() + self.fields.rows.retained_bytes()
    }
}

impl Fields {
    fn is_over(&self) -> bool {
        self.over
    }

    fn end(&mut self) {
        self.over = true;
    }

    fn lose(&mut self) {
        self.rows.doubt();
        self.over = true;
    }

    /// A field begins; whether it is wanted.
    fn begin(&mut self, column: u16) -> bool {
        self.row.begin(column)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.row.take(bytes, self.cap);
    }

    fn null(&mut self) {
        self.row.set_null();
    }

    fn end_row(&mut self) {
        if !std::mem::take(&mut self.header) {
            match self.rows.keep(&self.row, self.room - self.used) {
                Some(used) => self.used += used,
                None => self.over = true,
            }
        }
        self.row.start();
    }
}

/// Without content.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("rows", &self.fields.rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
