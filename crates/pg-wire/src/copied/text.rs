//! Lines of fields: the text and CSV forms, after `CopyReadLineText`, `CopyReadAttributesText` and `CopyReadAttributesCSV`
//! in the server's `copyfromparse.c`, and `CopyAttributeOutText` and its like in `copyto.c`.

use super::{CopyForm, Fields};

/// What ends the data in older clients and servers: a line of these two.
const END: &[u8] = b"\\.";

pub(super) struct Parser {
    delimiter: u8,
    null: Vec<u8>,
    /// Quote and escape of CSV.
    quotes: Option<(u8, u8)>,
    place: Place,
    column: u16,
    /// The field has begun.
    open: bool,
    wanted: bool,
    quoted: bool,
    /// Its first bytes as written: as many as decide whether it is NULL or the end.
    raw: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Place {
    Plain,
    /// Behind a carriage return, which ends a line together with a newline or alone.
    Returned,
    /// Behind a backslash.
    Escaped,
    /// Behind a backslash and so many octal digits.
    Octal {
        value: u8,
        digits: u8,
    },
    /// Behind `\x` and so many hexadecimal digits.
    Hex {
        value: u8,
        digits: u8,
    },
    /// Behind what may end the data.
    Ending,
    Quoted,
    /// Within quotes, behind the escape.
    QuotedEscape,
}

impl Parser {
    pub(super) fn new(form: CopyForm) -> Self {
        let (delimiter, null, quotes) = match form {
            CopyForm::Csv {
                delimiter,
                quote,
                escape,
                null,
            } => (delimiter, null, Some((quote, escape))),
            CopyForm::Text { delimiter, null } => (delimiter, null, None),
            CopyForm::Binary => (b'\t', Vec::new(), None),
        };
        Self {
            delimiter,
            null,
            quotes,
            place: Place::Plain,
            column: 0,
            open: false,
            wanted: false,
            quoted: false,
            raw: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, piece: &[u8], fields: &mut Fields) {
        for &byte in piece {
            if fields.is_over() {
                return;
            }
            // What a byte ends may be taken without it: then it is read again.
            while !self.byte(byte, fields) && !fields.is_over() {}
        }
    }

    pub(super) fn finish(&mut self, fields: &mut Fields) {
        if fields.is_over() {
            return;
        }
        match self.place {
            Place::Plain if !self.open && self.column == 0 => {}
            // A newline is missing at the end.
            Place::Plain | Place::Returned => self.end_line(fields),
            Place::Octal { value, .. } | Place::Hex { value, digits: 1.. } => {
                self.data(value, fields);
                self.end_line(fields);
            }
            Place::Ending => {}
            Place::Escaped | Place::Hex { .. } | Place::Quoted | Place::QuotedEscape => fields.lose(),
        }
    }

    /// Whether the byte is done with.
    fn byte(&mut self, byte: u8, fields: &mut Fields) -> bool {
        match self.place {
            Place::Plain => self.plain(byte, fields),
            Place::Returned => {
                self.place = Place::Plain;
                self.end_line(fields);
                return byte == b'\n';
            }
            Place::Escaped => return self.escaped(byte, fields),
            Place::Octal { value, digits } => {
                if let (b'0'..=b'7', 0..3) = (byte, digits) {
                    self.place = Place::Octal {
                        value: value << 3 | (byte - b'0'),
                        digits: digits + 1,
                    };
                    return true;
                }
                self.place = Place::Plain;
                self.data(value, fields);
                return false;
            }
            Place::Hex { value, digits } => {
                if let (Some(digit), 0..2) = (char::from(byte).to_digit(16), digits) {
                    self.place = Place::Hex {
                        value: value << 4 | digit as u8,
                        digits: digits + 1,
                    };
                    return true;
                }
                self.place = Place::Plain;
                self.data(if digits == 0 { b'x' } else { value }, fields);
                return false;
            }
            // Elsewhere than on a line of its own it ends the data or is an error, by the server's version.
            Place::Ending => match byte {
                b'\n' | b'\r' => fields.end(),
                _ => fields.lose(),
            },
            Place::Quoted | Place::QuotedEscape => return self.quoted(byte, fields),
        }
        true
    }

    fn plain(&mut self, byte: u8, fields: &mut Fields) {
        match (byte, self.quotes) {
            (b'\n', _) => self.end_line(fields),
            (b'\r', _) => self.place = Place::Returned,
            (byte, _) if byte == self.delimiter => {
                self.end_field(fields);
                self.column = self.column.saturating_add(1);
                self.begin(fields);
            }
            (b'\\', None) => {
                self.raw(byte, fields);
                self.place = Place::Escaped;
            }
            (byte, Some((quote, _))) if byte == quote => {
                self.begin(fields);
                self.quoted = true;
                self.place = Place::Quoted;
            }
            _ => {
                self.raw(byte, fields);
                self.data(byte, fields);
            }
        }
    }

    fn escaped(&mut self, byte: u8, fields: &mut Fields) -> bool {
        self.raw(byte, fields);
        self.place = Place::Plain;
        match byte {
            b'0'..=b'7' => {
                self.place = Place::Octal {
                    value: byte - b'0',
                    digits: 1,
                }
            }
            b'x' => self.place = Place::Hex { value: 0, digits: 0 },
            b'.' if self.column == 0 && self.raw == END => self.place = Place::Ending,
            b'.' => fields.lose(),
            b'b' => self.data(8, fields),
            b'f' => self.data(12, fields),
            b'n' => self.data(b'\n', fields),
            b'r' => self.data(b'\r', fields),
            b't' => self.data(b'\t', fields),
            b'v' => self.data(11, fields),
            other => self.data(other, fields),
        }
        true
    }

    fn quoted(&mut self, byte: u8, fields: &mut Fields) -> bool {
        let Some((quote, escape)) = self.quotes else {
            return true;
        };
        if matches!(self.place, Place::QuotedEscape) {
            self.place = Place::Quoted;
            if byte == quote || byte == escape {
                self.data(byte, fields);
                return true;
            }
            // An escape before nothing that it escapes: itself, or the closing quote.
            if escape == quote {
                self.place = Place::Plain;
            } else {
                self.data(escape, fields);
            }
            return false;
        }
        if byte == escape {
            self.place = Place::QuotedEscape;
        } else if byte == quote {
            self.place = Place::Plain;
        } else {
            self.data(byte, fields);
        }
        true
    }

    fn begin(&mut self, fields: &mut Fields) {
        if !std::mem::replace(&mut self.open, true) {
            self.wanted = fields.begin(self.column);
        }
    }

    fn data(&mut self, byte: u8, fields: &mut Fields) {
        self.begin(fields);
        if self.wanted {
            fields.take(&[byte]);
        }
    }

    fn raw(&mut self, byte: u8, fields: &mut Fields) {
        self.begin(fields);
        // One more than what it is compared with.
        if self.raw.len() <= self.null.len().max(END.len()) {
            self.raw.push(byte);
        }
    }

    fn end_field(&mut self, fields: &mut Fields) {
        self.begin(fields);
        if self.wanted && !self.quoted && self.raw == self.null {
            fields.null();
        }
        (self.open, self.wanted, self.quoted) = (false, false, false);
        self.raw.clear();
    }

    fn end_line(&mut self, fields: &mut Fields) {
        // In CSV it is data since version 18, and the end before.
        if self.quotes.is_some() && self.column == 0 && !self.quoted && self.raw == END {
            return fields.lose();
        }
        self.end_field(fields);
        self.column = 0;
        fields.end_row();
    }
}
