//! The binary form: a signature, then for each row a count and each field behind its length.

use super::Fields;

/// Signature, flags, and the length of the header's extension.
const HEADER: usize = 11 + 4 + 4;
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

#[derive(Default)]
pub(super) struct Parser {
    place: Place,
    /// Bytes of the header, or of the number that is being read.
    have: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Header,
    Extension {
        bytes: u64,
    },
    Count,
    Length {
        column: u16,
        left: u16,
    },
    /// In a field of which `bytes` are still to come.
    Value {
        column: u16,
        left: u16,
        bytes: u64,
        wanted: bool,
    },
}

impl Parser {
    pub(super) fn feed(&mut self, mut piece: &[u8], fields: &mut Fields) {
        while !piece.is_empty() && !fields.is_over() {
            match self.place {
                Place::Header => {
                    let Some(header) = self.number::<HEADER>(&mut piece) else {
                        return;
                    };
                    let [.., a, b, c, d] = header;
                    if !header.starts_with(SIGNATURE) {
                        return fields.lose();
                    }
                    let bytes = u64::from(u32::from_be_bytes([a, b, c, d]));
                    self.place = match bytes {
                        0 => Place::Count,
                        bytes => Place::Extension { bytes },
                    };
                }
                Place::Extension { bytes } => {
                    let (part, rest) = split(piece, bytes);
                    piece = rest;
                    self.place = match bytes - part.len() as u64 {
                        0 => Place::Count,
                        bytes => Place::Extension { bytes },
                    };
                }
                Place::Count => {
                    let Some(count) = self.number::<2>(&mut piece) else {
                        return;
                    };
                    match i16::from_be_bytes(count) {
                        // The trailer.
                        -1 => fields.end(),
                        0 => fields.end_row(),
                        count => match u16::try_from(count) {
                            Ok(left) => self.place = Place::Length { column: 0, left },
                            Err(_) => fields.lose(),
                        },
                    }
                }
                Place::Length { column, left } => {
                    let Some(length) = self.number::<4>(&mut piece) else {
                        return;
                    };
                    let wanted = fields.begin(column);
                    // -1 is NULL; the server refuses anything else below zero.
                    let bytes = u32::try_from(i32::from_be_bytes(length)).ok();
                    if bytes.is_none() && wanted {
                        fields.null();
                    }
                    let bytes = u64::from(bytes.unwrap_or(0));
                    self.place = Place::Value {
                        column,
                        left,
                        bytes,
                        wanted,
                    };
                    if bytes == 0 {
                        self.next(column, left, fields);
                    }
                }
                Place::Value {
                    column,
                    left,
                    bytes,
                    wanted,
                } => {
                    let (part, rest) = split(piece, bytes);
                    if wanted {
                        fields.take(part);
                    }
                    piece = rest;
                    match bytes - part.len() as u64 {
                        0 => self.next(column, left, fields),
                        bytes => {
                            self.place = Place::Value {
                                column,
                                left,
                                bytes,
                                wanted,
                            }
                        }
                    }
                }
            }
        }
    }

    pub(super) fn finish(&mut self, fields: &mut Fields) {
        // Without its trailer the server would not have taken it; a row that is cut is none.
        let between = matches!(self.place, Place::Count) && self.have.is_empty();
        if !fields.is_over() && !between {
            fields.lose();
        }
    }

    fn next(&mut self, column: u16, left: u16, fields: &mut Fields) {
        self.place = match left {
            0 | 1 => {
                fields.end_row();
                Place::Count
            }
            left => Place::Length {
                column: column.saturating_add(1),
                left: left - 1,
            },
        };
    }

    /// So many bytes, which may come in pieces.
    fn number<const N: usize>(&mut self, piece: &mut &[u8]) -> Option<[u8; N]> {
        let (part, rest) = split(piece, (N - self.have.len().min(N)) as u64);
        self.have.extend_from_slice(part);
        *piece = rest;
        let number = self.have.first_chunk().copied()?;
        self.have.clear();
        Some(number)
    }
}

fn split(piece: &[u8], bytes: u64) -> (&[u8], &[u8]) {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(piece.len());
    piece.split_at_checked(length).unwrap_or((piece, &[]))
}
