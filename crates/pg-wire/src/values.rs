//! Parameter values as they stream past: a counted list of format codes, then a counted list of values, as Bind and
//! FunctionCall have them. Lengths are always taken, contents only up to a cap. Separate from `capture`, which knows
//! single fields only.

use crate::capture::BUSY_BUFFER_BYTES;

#[derive(Default)]
pub(crate) struct Values {
    place: Place,
    /// Bytes of the number that is being read.
    number: [u8; 4],
    have: usize,
    /// Format codes as sent: none means all text, one means that one for all.
    binary: Vec<bool>,
    heads: Vec<Head>,
    kept: Vec<u8>,
}

/// Where in the two lists the next byte is.
#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    FormatCount,
    Format {
        left: u16,
    },
    Count,
    Length {
        left: u16,
    },
    /// In a value of which `bytes` are still to come; `left` more values follow.
    Value {
        left: u16,
        bytes: u64,
    },
    Done,
}

#[derive(Clone, Copy)]
struct Head {
    /// `None` is NULL.
    bytes: Option<u32>,
    kept_from: usize,
    kept: usize,
    /// A gap fell into it: what follows must not be spliced on.
    cut: bool,
}

/// One value.
pub(crate) struct Value<'a> {
    pub(crate) binary: bool,
    /// Length as sent; `None` is NULL.
    pub(crate) bytes: Option<u32>,
    /// Its head, as far as it was to be kept.
    pub(crate) kept: &'a [u8],
}

/// The values of one message.
pub(crate) struct Heads<'a> {
    values: &'a Values,
}

impl Values {
    pub(crate) fn clear(&mut self) {
        self.place = Place::FormatCount;
        self.have = 0;
        self.binary.clear();
        self.heads.clear();
        self.kept.clear();
        self.kept.shrink_to(BUSY_BUFFER_BYTES);
    }

    /// Takes bytes up to the end of the lists; whether that was reached.
    pub(crate) fn feed(&mut self, piece: &[u8], value_cap: usize, values_cap: usize) -> (usize, bool) {
        let mut rest = piece;
        while !rest.is_empty() && !matches!(self.place, Place::Done) {
            match self.place {
                Place::Value { left, bytes } => {
                    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
                    let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    self.keep(part, value_cap, values_cap);
                    rest = behind;
                    let bytes = bytes - part.len() as u64;
                    self.place = after(left, bytes);
                }
                Place::Length { left } => {
                    let Some(number) = self.number::<4>(&mut rest) else {
                        break;
                    };
                    // -1 is NULL; the server refuses anything else below zero.
                    let bytes = u32::try_from(i32::from_be_bytes(number)).ok();
                    self.heads.push(Head {
                        bytes,
                        kept_from: self.kept.len(),
                        kept: 0,
                        cut: false,
                    });
                    self.place = after(left - 1, u64::from(bytes.unwrap_or(0)));
                }
                Place::FormatCount | Place::Format { .. } | Place::Count => {
                    let Some(number) = self.number::<2>(&mut rest) else {
                        break;
                    };
                    self.short(u16::from_be_bytes(number));
                }
                Place::Done => {}
            }
        }
        (piece.len() - rest.len(), matches!(self.place, Place::Done))
    }

    /// Steps over missing bytes if they lie within one value; if not, how many values there were is not known.
    pub(crate) fn bridge(&mut self, missing: u64) -> bool {
        let Place::Value { left, bytes } = self.place else {
            return false;
        };
        let (Some(bytes), Some(head)) = (bytes.checked_sub(missing), self.heads.last_mut()) else {
            return false;
        };
        head.cut = true;
        self.place = after(left, bytes);
        true
    }

    pub(crate) fn heads(&self) -> Heads<'_> {
        Heads { values: self }
    }

    pub(crate) fn rest(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.binary.capacity() + self.heads.capacity() * size_of::<Head>() + self.kept.capacity()
    }

    fn keep(&mut self, part: &[u8], value_cap: usize, values_cap: usize) {
        let Some(head) = self.heads.last_mut().filter(|head| !head.cut) else {
            return;
        };
        let room = value_cap
            .saturating_sub(head.kept)
            .min(values_cap.saturating_sub(self.kept.len()))
            .min(part.len());
        self.kept.extend_from_slice(part.get(..room).unwrap_or_default());
        head.kept += room;
    }

    fn short(&mut self, number: u16) {
        self.place = match self.place {
            Place::FormatCount if number > 0 => Place::Format { left: number },
            Place::FormatCount => Place::Count,
            Place::Format { left } => {
                self.binary.push(number != 0);
                if left > 1 {
                    Place::Format { left: left - 1 }
                } else {
                    Place::Count
                }
            }
            _ => after(number, 0),
        };
    }

    /// A number of `N` bytes, which may come in pieces.
    fn number<const N: usize>(&mut self, rest: &mut &[u8]) -> Option<[u8; N]> {
        if let (0, Some((number, behind))) = (self.have, rest.split_first_chunk::<N>()) {
            *rest = behind;
            return Some(*number);
        }
        while let (true, Some((&byte, behind))) = (self.have < N, rest.split_first()) {
            if let Some(place) = self.number.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            *rest = behind;
        }
        if self.have < N {
            return None;
        }
        self.have = 0;
        self.number.first_chunk().copied()
    }
}

fn after(left: u16, bytes: u64) -> Place {
    match (left, bytes) {
        (0, 0) => Place::Done,
        (left, 0) => Place::Length { left },
        (left, bytes) => Place::Value { left, bytes },
    }
}

impl<'a> Heads<'a> {
    pub(crate) fn len(&self) -> usize {
        self.values.heads.len()
    }

    /// All contents that were kept, one behind the other, in the order of the values.
    pub(crate) fn kept(&self) -> &'a [u8] {
        &self.values.kept
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let Values {
            binary, heads, kept, ..
        } = self.values;
        heads.iter().enumerate().map(move |(index, head)| Value {
            binary: match binary.as_slice() {
                [all] => *all,
                each => each.get(index).copied().unwrap_or(false),
            },
            bytes: head.bytes,
            kept: kept
                .get(head.kept_from..head.kept_from + head.kept)
                .unwrap_or_default(),
        })
    }
}
