//! Takes the few fields that matter out of a message body while it streams past, in any pieces. A body of
//! a gigabyte costs what its kept fields cost; a long name cannot push the statement behind it out of
//! sight. Separate from framing, which knows lengths only.

/// One field of a body, in wire order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    /// This many bytes, kept.
    Fixed(usize),
    /// A NUL-terminated name, kept up to the names limit.
    Name,
    /// NUL-terminated statement text, kept up to the statement limit.
    Statement,
    /// A 16-bit count and that many 16-bit codes (Bind's parameter formats), skipped.
    Formats,
    /// What is left of the body, kept up to this many bytes.
    Rest(usize),
}

/// What to keep of a body; what lies behind the last field is skipped.
pub(crate) type Plan = &'static [Field];

/// Capacity that a buffer may keep between messages, so that one long statement does not cost its memory
/// for as long as the connection lives.
pub(crate) const IDLE_BUFFER_BYTES: usize = 64 * 1024;

/// One string field: its kept head and its whole length.
#[derive(Default)]
pub(crate) struct Text {
    kept: Vec<u8>,
    whole: u64,
    /// A gap fell into the text: what follows must not be spliced on.
    cut: bool,
}

impl Text {
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Length as sent, without the NUL.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    fn append(&mut self, bytes: &[u8], cap: usize) {
        self.whole += bytes.len() as u64;
        if !self.cut {
            let room = cap.saturating_sub(self.kept.len()).min(bytes.len());
            self.kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        }
    }
}

pub(crate) struct Capture {
    name_cap: usize,
    statement_cap: usize,
    /// Fields not yet complete; `progress` bytes of the first one have been seen.
    plan: Plan,
    progress: usize,
    formats: usize,
    bytes: Vec<u8>,
    texts: [Text; 2],
    text: usize,
}

impl Capture {
    pub(crate) fn new(name_cap: usize, statement_cap: usize) -> Self {
        Self {
            name_cap,
            statement_cap,
            plan: &[],
            progress: 0,
            formats: 0,
            bytes: Vec::new(),
            texts: <[Text; 2]>::default(),
            text: 0,
        }
    }

    /// Forgets the last message and gets ready for one with these fields.
    pub(crate) fn start(&mut self, plan: Plan) {
        self.plan = plan;
        if plan.is_empty() {
            return;
        }
        self.progress = 0;
        self.formats = 0;
        self.text = 0;
        empty(&mut self.bytes);
        for text in &mut self.texts {
            empty(&mut text.kept);
            text.whole = 0;
            text.cut = false;
        }
    }

    /// The next piece of the body.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        while let (Some((field, later)), false) = (self.plan.split_first(), piece.is_empty()) {
            let (taken, complete) = match *field {
                Field::Fixed(length) | Field::Rest(length) => self.take(piece, length),
                Field::Name => self.take_text(piece, self.name_cap),
                Field::Statement => self.take_text(piece, self.statement_cap),
                Field::Formats => self.skip_formats(piece),
            };
            piece = piece.get(taken..).unwrap_or_default();
            if complete {
                self.plan = later;
                self.progress = 0;
            }
        }
    }

    /// Whether `missing` bytes at this place hide nothing that is to be kept, except the further text of a
    /// statement, which is then marked as cut.
    pub(crate) fn bridge(&mut self, missing: u64) -> bool {
        match self.plan.first() {
            None => true,
            Some(Field::Statement) => {
                let Some(text) = self.texts.get_mut(self.text) else {
                    return false;
                };
                text.whole = text.whole.saturating_add(missing);
                text.cut = true;
                true
            }
            Some(_) => false,
        }
    }

    /// The `Fixed` and `Rest` fields, one behind the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
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

    pub(crate) fn retained_bytes(&self) -> usize {
        self.bytes.capacity() + self.texts.iter().map(|text| text.kept.capacity()).sum::<usize>()
    }

    fn take(&mut self, piece: &[u8], length: usize) -> (usize, bool) {
        let taken = length.saturating_sub(self.progress).min(piece.len());
        self.bytes
            .extend_from_slice(piece.get(..taken).unwrap_or_default());
        self.progress += taken;
        (taken, self.progress >= length)
    }

    fn take_text(&mut self, piece: &[u8], cap: usize) -> (usize, bool) {
        let end = piece.iter().position(|&byte| byte == 0);
        let length = end.unwrap_or(piece.len());
        if let Some(text) = self.texts.get_mut(self.text) {
            text.append(piece.get(..length).unwrap_or_default(), cap);
        }
        match end {
            Some(end) => {
                self.text += 1;
                (end + 1, true)
            }
            None => (length, false),
        }
    }

    fn skip_formats(&mut self, piece: &[u8]) -> (usize, bool) {
        if self.progress < 2 {
            self.formats = (self.formats << 8) | piece.first().map_or(0, |&byte| usize::from(byte));
            self.progress += 1;
            return (1, self.progress == 2 && self.formats == 0);
        }
        let taken = (2 + 2 * self.formats)
            .saturating_sub(self.progress)
            .min(piece.len());
        self.progress += taken;
        (taken, self.progress >= 2 + 2 * self.formats)
    }
}

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(IDLE_BUFFER_BYTES);
}

#[cfg(test)]
mod tests {
    use super::{Capture, Field};

    const BIND: &[Field] = &[Field::Name, Field::Name, Field::Formats, Field::Fixed(2)];

    #[test]
    fn a_bind_gives_names_and_count_however_it_is_cut() {
        let body = b"portal\0statement\0\0\x02\0\x01\0\x00\0\x03values that are never kept";
        for cut in 0..body.len() {
            let mut capture = Capture::new(4, 100);
            capture.start(BIND);
            capture.feed(&body[..cut]);
            capture.feed(&body[cut..]);
            assert_eq!(capture.first().kept(), b"port", "cut at {cut}");
            assert_eq!(
                (capture.second().kept(), capture.second().whole()),
                (&b"stat"[..], 9)
            );
            assert_eq!(capture.bytes(), [0, 3]);
        }
    }

    #[test]
    fn text_behind_a_gap_is_not_spliced_on() {
        let mut capture = Capture::new(63, 100);
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
        let mut capture = Capture::new(63, 100);
        capture.start(BIND);
        capture.feed(b"po");
        assert!(!capture.bridge(1));
        capture.feed(b"\0\0\0\0\0\0");
        assert!(capture.bridge(1_000_000));
    }

    #[test]
    fn a_long_statement_does_not_keep_its_memory() {
        let mut capture = Capture::new(63, 1 << 20);
        capture.start(&[Field::Statement]);
        capture.feed(&vec![b'x'; 1 << 20]);
        assert!(capture.retained_bytes() >= 1 << 20);
        capture.start(&[Field::Statement]);
        assert!(capture.retained_bytes() <= 3 * super::IDLE_BUFFER_BYTES);
    }
}
