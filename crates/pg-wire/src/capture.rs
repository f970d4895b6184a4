//! Takes the few fields that matter out of a message body while it streams past, in any pieces. A body of
//! a gigabyte costs what its kept fields cost; a long name cannot push the statement behind it out of
//! sight. Separate from framing, which knows lengths only.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::copied::Reader;
use crate::rows::{KeptColumn, Row};
use crate::values::{Heads, Values};

/// One field of a body, in wire order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    /// This many bytes, kept.
    Fixed(usize),
    /// A NUL-terminated name, kept up to the names limit.
    Name,
    /// NUL-terminated statement text, kept up to the statement limit.
    Statement,
    /// A 16-bit count and that many 32-bit oids, kept.
    Oids,
    /// What Bind and FunctionCall give: a counted list of format codes, then a counted list of values.
    Values,
    /// A 16-bit count and that many 16-bit format codes, kept.
    Formats,
    /// A row of which the chosen values are kept.
    Row,
    /// Copied data of which the chosen values are kept.
    Copied,
    /// What is left of the body, kept up to this many bytes.
    Rest(usize),
}

/// What to keep of a body; what lies behind the last field is skipped.
pub(crate) type Plan = &'static [Field];

/// Capacity that a buffer may keep between messages, so that one long statement does not cost its memory
/// for as long as the connection is busy.
pub(crate) const BUSY_BUFFER_BYTES: usize = 64 * 1024;

/// One string field: its kept head and its whole length.
#[derive(Default)]
pub(crate) struct Text {
    kept: Vec<u8>,
    whole: u64,
    /// A gap fell into the text: what follows must not be spliced on.
    cut: bool,
    /// Of all bytes, from the moment on when the first was not kept.
    digest: Option<Box<Sha256>>,
}

impl Text {
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Length as sent, without the NUL.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    /// SHA-256 of the whole, if all of it was seen.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        if self.cut {
            return None;
        }
        let digest = match &self.digest {
            Some(digest) => (**digest).clone(),
            None => Sha256::new_with_prefix(&self.kept),
        };
        Some(digest.finalize().into())
    }

    fn append(&mut self, bytes: &[u8], cap: usize, hashed: bool) {
        self.whole += bytes.len() as u64;
        if self.cut {
            return;
        }
        let room = cap.saturating_sub(self.kept.len()).min(bytes.len());
        let (kept, beyond) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        if hashed && !beyond.is_empty() {
            let head = &self.kept;
            let digest = self
                .digest
                .get_or_insert_with(|| Box::new(Sha256::new_with_prefix(head)));
            digest.update(bytes);
        }
        self.kept.extend_from_slice(kept);
    }

    fn clear(&mut self) {
        empty(&mut self.kept);
        self.whole = 0;
        self.cut = false;
        self.digest = None;
    }
}

/// What one message may keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    /// Bytes of a name.
    pub(crate) name: usize,
    /// Bytes of a statement.
    pub(crate) statement: usize,
    /// Bytes of one parameter value.
    pub(crate) value: usize,
    /// Bytes of all values of a message.
    pub(crate) values: usize,
    /// Bytes of a chosen value of a row.
    pub(crate) row_value: usize,
}

pub(crate) struct Capture {
    caps: Caps,
    /// Fields not yet complete; `progress` bytes of the first one have been seen.
    plan: Plan,
    progress: usize,
    bytes: Vec<u8>,
    texts: [Text; 2],
    text: usize,
    values: Values,
    row: Row,
    copied: Option<Box<Reader>>,
    /// A gap fell into a text.
    cut: bool,
    /// A gap fell into what was to be kept behind the texts: oids and values are not known.
    lost: bool,
}

impl Capture {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            plan: &[],
            progress: 0,
            bytes: Vec::new(),
            texts: <[Text; 2]>::default(),
            text: 0,
            values: Values::default(),
            row: Row::default(),
            copied: None,
            cut: false,
            lost: false,
        }
    }

    /// From the next message on so many bytes are kept of each value.
    pub(crate) fn keep_values(&mut self, bytes: usize) {
        self.caps.value = bytes;
    }

    /// Forgets the last message and gets ready for one with these fields.
    pub(crate) fn start(&mut self, plan: Plan) {
        self.plan = plan;
        if plan.is_empty() {
            return;
        }
        if matches!(plan, [Field::Row]) {
            if !self.row.start() {
                self.plan = &[];
            }
            return;
        }
        if matches!(plan, [Field::Copied]) {
            if self.copied.is_none() {
                self.plan = &[];
            }
            return;
        }
        self.progress = 0;
        self.cut = false;
        self.lost = false;
        empty(&mut self.bytes);
        // Most messages have one text or none.
        for text in self.texts.iter_mut().take(self.text + 1) {
            text.clear();
        }
        self.text = 0;
        self.values.clear();
    }

    /// The next piece of the body.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        while let (Some((field, later)), false) = (self.plan.split_first(), piece.is_empty()) {
            let (taken, complete) = match *field {
                Field::Fixed(length) | Field::Rest(length) => self.take(piece, length),
                Field::Name => self.take_text(piece, self.caps.name, false),
                Field::Statement => self.take_text(piece, self.caps.statement, true),
                Field::Oids => self.take_list(piece, 4),
                Field::Formats => self.take_list(piece, 2),
                Field::Row => self.row.feed(piece, self.caps.row_value),
                Field::Copied => {
                    if let Some(copied) = &mut self.copied {
                        copied.feed(piece);
                    }
                    (piece.len(), false)
                }
                Field::Values => self.values.feed(piece, self.caps.value, self.caps.values),
            };
            piece = piece.get(taken..).unwrap_or_default();
            if complete {
                // Where a text with a gap in it ended nobody knows: what looks like the next field may be the text.
                self.lost |= self.cut;
                self.plan = if self.cut { &[] } else { later };
                self.progress = 0;
            }
        }
    }

    /// Whether nothing more of this body is to be kept.
    pub(crate) fn is_done(&self) -> bool {
        self.plan.is_empty()
    }

    /// Whether `missing` bytes at this place hide nothing that has to be known: names and fixed fields. A text, or a
    /// value, is then marked as cut.
    pub(crate) fn bridge(&mut self, missing: u64) -> bool {
        match self.plan.first() {
            None => true,
            Some(Field::Statement) => {
                let Some(text) = self.texts.get_mut(self.text) else {
                    return false;
                };
                text.whole = text.whole.saturating_add(missing);
                text.cut = true;
                self.cut = true;
                true
            }
            Some(Field::Values) => {
                if !self.values.bridge(missing) {
                    self.lost = true;
                    self.plan = &[];
                }
                true
            }
            Some(Field::Row) => {
                self.row.bridge(missing);
                if self.row.is_lost() {
                    self.plan = &[];
                }
                true
            }
            Some(Field::Copied) => {
                if let Some(copied) = &mut self.copied {
                    copied.lose();
                }
                self.plan = &[];
                true
            }
            Some(Field::Oids | Field::Formats) => {
                self.lost = true;
                self.plan = &[];
                true
            }
            Some(_) => false,
        }
    }

    /// The `Fixed`, `Rest`, `Oids` and `Formats` fields, one behind the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether oids and values were not seen.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }

    /// The first string field.
    pub(crate) fn first(&self) -> &Text {
        let [first, _] = &self.texts;
        first
    }

    /// The second string field.
    pub(crate) fn second(&self) -> &Text {
        let [_, second] = &self.texts;
        second
    }

    /// Formats and values of a Bind or FunctionCall, as far as they came.
    pub(crate) fn values(&self) -> Heads<'_> {
        self.values.heads()
    }

    /// The last row, as far as it was wanted.
    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    /// Which columns are wanted of the next rows; none if there are none.
    pub(crate) fn want_of_rows(&mut self, columns: Option<&Arc<[KeptColumn]>>) {
        match columns {
            Some(columns) => self.row.want(columns),
            None => self.row.want_none(),
        }
    }

    /// What is wanted of the data that is copied from now on, if anything is.
    pub(crate) fn want_of_copied(&mut self, reader: Option<Reader>) {
        self.copied = reader.map(Box::new);
    }

    /// What was kept of copied data, which has ended.
    pub(crate) fn take_copied(&mut self) -> Option<Reader> {
        self.copied.take().map(|reader| *reader)
    }

    /// Gives memory back that only a busy connection needs; what was kept of the last message is gone.
    pub(crate) fn rest(&mut self) {
        self.bytes = Vec::new();
        self.texts = <[Text; 2]>::default();
        self.values.rest();
        self.row = Row::default();
        self.copied = None;
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        let digests = self.texts.iter().filter(|text| text.digest.is_some()).count();
        self.bytes.capacity()
            + self.texts.iter().map(|text| text.kept.capacity()).sum::<usize>()
            + digests * size_of::<Sha256>()
            + self.values.retained_bytes()
            + self.row.retained_bytes()
            + self.copied.as_ref().map_or(0, |copied| copied.retained_bytes())
    }

    fn take(&mut self, piece: &[u8], length: usize) -> (usize, bool) {
        let taken = length.saturating_sub(self.progress).min(piece.len());
        self.bytes
            .extend_from_slice(piece.get(..taken).unwrap_or_default());
        self.progress += taken;
        (taken, self.progress >= length)
    }

    fn take_text(&mut self, piece: &[u8], cap: usize, hashed: bool) -> (usize, bool) {
        let end = memchr::memchr(0, piece);
        let length = end.unwrap_or(piece.len());
        if let Some(text) = self.texts.get_mut(self.text) {
            text.append(piece.get(..length).unwrap_or_default(), cap, hashed);
        }
        match end {
            Some(end) => {
                self.text += 1;
                (end + 1, true)
            }
            None => (length, false),
        }
    }

    /// A count and so many numbers of `width` bytes.
    fn take_list(&mut self, piece: &[u8], width: usize) -> (usize, bool) {
        if self.progress < 2 {
            let (taken, _) = self.take(piece, 2);
            return (taken, self.progress == 2 && self.bytes.ends_with(&[0, 0]));
        }
        let count = self
            .bytes
            .first_chunk()
            .map_or(0, |count| u16::from_be_bytes(*count));
        self.take(piece, 2 + width * usize::from(count))
    }
}

/// Without content.
impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(BUSY_BUFFER_BYTES);
}

#[cfg(test)]
mod tests {
    use super::{Caps, Capture, Field};

    const BIND: &[Field] = &[Field::Name, Field::Name, Field::Values];

    fn capture(name: usize, statement: usize) -> Capture {
        Capture::new(Caps {
            name,
            statement,
            value: 4,
            values: 100,
            row_value: 100,
        })
    }

    #[test]
    fn a_bind_gives_names_and_count_however_it_is_cut() {
        let body = b"portal\0statement\0\0\x02\0\x01\0\x00\0\x02\0\0\0\x06cipher\xff\xff\xff\xff\0\0";
        for cut in 0..body.len() {
            let mut capture = capture(4, 100);
            capture.start(BIND);
            capture.feed(&body[..cut]);
            capture.feed(&body[cut..]);
            assert_eq!(capture.first().kept(), b"port", "cut at {cut}");
            assert_eq!(
                (capture.second().kept(), capture.second().whole()),
                (&b"stat"[..], 9)
            );
            let values: Vec<_> = capture
                .values()
                .iter()
                .map(|value| (value.binary, value.bytes, value.kept.to_vec()))
                .collect();
            assert_eq!(
                values,
                [(true, Some(6), b"ciph".to_vec()), (false, None, Vec::new())]
            );
        }
    }

    #[test]
    fn text_behind_a_gap_is_not_spliced_on() {
        let mut capture = capture(63, 100);
        capture.start(&[Field::Statement]);
        capture.feed(b"SELECT ");
        assert!(capture.bridge(10));
        capture.feed(b" FROM t\0");
        assert_eq!(
            (capture.first().kept(), capture.first().whole()),
            (&b"SELECT "[..], 24)
        );
    }

    #[test]
    fn a_gap_in_a_name_is_not_bridged() {
        let mut capture = capture(63, 100);
        capture.start(BIND);
        capture.feed(b"po");
        assert!(!capture.bridge(1));
        capture.feed(b"\0\0\0\0\0\0");
        assert!(capture.bridge(1_000_000));
        assert!(!capture.lost());
    }

    #[test]
    fn a_long_statement_does_not_keep_its_memory() {
        let mut capture = capture(63, 1 << 20);
        capture.start(&[Field::Statement]);
        capture.feed(&vec![b'x'; 1 << 20]);
        assert!(capture.retained_bytes() >= 1 << 20);
        capture.start(&[Field::Statement]);
        assert!(capture.retained_bytes() <= 3 * super::BUSY_BUFFER_BYTES);
    }

    #[test]
    fn the_digest_is_that_of_the_whole_text_however_it_is_cut() {
        use sha2::{Digest as _, Sha256};
        let text = b"SELECT 'far longer than what is kept'";
        let whole: [u8; 32] = Sha256::digest(text).into();
        let body = [&text[..], b"\0\0\0"].concat();
        for cut in 0..body.len() {
            let mut capture = capture(63, 10);
            capture.start(&[Field::Statement, Field::Oids]);
            capture.feed(&body[..cut]);
            capture.feed(&body[cut..]);
            assert_eq!(capture.first().kept(), b"SELECT 'fa");
            assert_eq!(capture.first().digest(), Some(whole), "cut at {cut}");
        }
    }
}
