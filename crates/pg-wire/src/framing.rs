//! Cuts one direction of a connection into messages: type, length, place in the stream. Bodies go through
//! a [`Capture`] as they pass and are not buffered. It knows neither what messages mean nor their order.

use std::sync::Arc;

use crate::Nanos;
use crate::capture::{Capture, Plan};
use crate::copied::Reader;
use crate::rows::KeptColumn;
use crate::startup;

/// Longest message that can be genuine: the server allocates at most 1 GiB (`MaxAllocSize`) for one.
pub(crate) const MESSAGE_BYTES: u32 = 1 << 30;

/// A complete message. Its kept fields are in the framer's capture until the next one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// The type byte; 0 for a startup packet.
    pub(crate) kind: u8,
    /// The code that a startup packet has in place of a type.
    pub(crate) code: u32,
    /// When its first byte was seen.
    pub(crate) began: Nanos,
    /// Stream offset of its first byte.
    pub(crate) start: u64,
    /// Stream offset behind its last byte.
    pub(crate) end: u64,
    /// Bytes behind type and length.
    pub(crate) body: u64,
}

impl Frame {
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Bytes that are no message. `found` tells type and length only, never content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset}: expected {expected}, found {found}")]
pub(crate) struct FrameError {
    pub(crate) offset: u64,
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

pub(crate) struct Framer {
    /// Fields to keep of each message type; `None` for a type that this direction does not have.
    plan: fn(u8) -> Option<Plan>,
    /// Startup packets have no type byte, but a code behind the length.
    untyped: bool,
    /// Stream offset of the next byte; `None` before the first.
    offset: Option<u64>,
    header: Vec<u8>,
    began: Nanos,
    /// The message whose body is passing, and how much of that is still to come.
    open: Option<(Frame, u64)>,
    capture: Capture,
}

impl Framer {
    pub(crate) fn new(plan: fn(u8) -> Option<Plan>, untyped: bool, capture: Capture) -> Self {
        Self {
            plan,
            untyped,
            offset: None,
            header: Vec::with_capacity(UNTYPED_HEADER),
            began: 0,
            open: None,
            capture,
        }
    }

    pub(crate) fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// From the next message on so many bytes are kept of each value.
    pub(crate) fn keep_values(&mut self, bytes: usize) {
        self.capture.keep_values(bytes);
    }

    /// From the next message on these fields are kept, and of rows the columns that are asked for.
    pub(crate) fn keep_by(&mut self, plan: fn(u8) -> Option<Plan>) {
        self.plan = plan;
    }

    /// Which columns are wanted of the next rows.
    pub(crate) fn want_of_rows(&mut self, columns: Option<&Arc<[KeptColumn]>>) {
        self.capture.want_of_rows(columns);
    }

    /// What is wanted of the data that is copied from now on.
    pub(crate) fn want_of_copied(&mut self, reader: Option<Reader>) {
        self.capture.want_of_copied(reader);
    }

    /// What was kept of copied data, which has ended.
    pub(crate) fn take_copied(&mut self) -> Option<Reader> {
        self.capture.take_copied()
    }

    pub(crate) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// From here on messages carry their type (the login packet has passed).
    pub(crate) fn expect_types(&mut self) {
        self.untyped = false;
    }

    /// Whether the next byte is the first of a message.
    pub(crate) fn at_boundary(&self) -> bool {
        self.open.is_none() && self.header.is_empty()
    }

    /// Bytes of an incomplete message that were already taken.
    pub(crate) fn partial_bytes(&self) -> u64 {
        match (&self.open, self.offset) {
            (Some((frame, _)), Some(offset)) => offset.saturating_sub(frame.start),
            _ => self.header.len() as u64,
        }
    }

    /// Drops an incomplete message; the next byte is at `offset` and begins a typed message.
    pub(crate) fn restart(&mut self, offset: Option<u64>) {
        self.offset = offset;
        self.open = None;
        self.header.clear();
        self.untyped = false;
        self.capture.start(&[]);
        self.capture.want_of_copied(None);
    }

    /// Takes one byte that belongs to no message (the answer to an encryption request).
    pub(crate) fn pass(&mut self, bytes: u64) {
        self.offset = self.offset.map(|offset| offset.saturating_add(bytes));
    }

    pub(crate) fn start_at(&mut self, offset: u64) {
        self.offset.get_or_insert(offset);
    }

    /// Takes a message that lies whole in the input, as nearly all do. `None`: nothing was taken, and `next` knows why.
    #[inline]
    pub(crate) fn whole(&mut self, at: Nanos, input: &mut &[u8]) -> Option<Frame> {
        if self.untyped || !self.at_boundary() {
            return None;
        }
        let (&[kind, a, b, c, d], rest) = input.split_first_chunk::<TYPED_HEADER>()?;
        let length = u32::from_be_bytes([a, b, c, d]);
        let (body, rest) = rest.split_at_checked(usize::try_from(length.checked_sub(4)?).ok()?)?;
        if length > MESSAGE_BYTES {
            return None;
        }
        self.capture.start((self.plan)(kind)?);
        self.capture.feed(body);
        let start = self.offset.unwrap_or(0);
        let end = start.saturating_add(1 + u64::from(length));
        self.offset = self.offset.map(|_| end);
        *input = rest;
        Some(Frame {
            kind,
            code: 0,
            began: at,
            start,
            end,
            body: body.len() as u64,
        })
    }

    /// Takes bytes up to the end of one message. `None`: all were taken, and more are needed.
    pub(crate) fn next(&mut self, at: Nanos, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let (frame, remaining) = match self.open {
            Some(open) => open,
            None => match self.open_message(at, input)? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
        let (piece, rest) = input.split_at_checked(length).unwrap_or((input, &[]));
        self.capture.feed(piece);
        self.pass(piece.len() as u64);
        *input = rest;
        let remaining = remaining - piece.len() as u64;
        self.open = (remaining > 0).then_some((frame, remaining));
        Ok((remaining == 0).then_some(frame))
    }

    /// Whether this many bytes lie within a body of which nothing more is to be kept.
    pub(crate) fn is_unread(&self, length: u64) -> bool {
        self.open
            .is_some_and(|(_, remaining)| length <= remaining && self.capture.is_done())
    }

    /// Steps over missing bytes if they lie within a body of which nothing more is to be kept. When they
    /// end it, `next` gives the message even for an empty input.
    pub(crate) fn bridge(&mut self, missing: u64) -> bool {
        let Some((frame, remaining)) = self.open else {
            return false;
        };
        if missing > remaining || !self.capture.bridge(missing) {
            return false;
        }
        self.open = Some((frame, remaining - missing));
        self.pass(missing);
        true
    }

    /// Gives memory back that only a busy connection needs; between messages only.
    pub(crate) fn rest(&mut self) {
        if self.at_boundary() {
            self.capture.rest();
        }
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.header.capacity() + self.capture.retained_bytes()
    }

    fn open_message(&mut self, at: Nanos, input: &mut &[u8]) -> Result<Option<(Frame, u64)>, FrameError> {
        let need = if self.untyped {
            UNTYPED_HEADER
        } else {
            TYPED_HEADER
        };
        if self.header.is_empty() {
            self.began = at;
            // Nearly all headers come whole.
            if let Some((header, rest)) = input.split_at_checked(need) {
                self.pass(need as u64);
                *input = rest;
                let open = self.header_of(header);
                if open.is_err() {
                    self.header.extend_from_slice(header);
                }
                return open.map(Some);
            }
        }
        let missing = need.saturating_sub(self.header.len()).min(input.len());
        let (head, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
        self.header.extend_from_slice(head);
        self.pass(head.len() as u64);
        *input = rest;
        if self.header.len() < need {
            return Ok(None);
        }
        let mut header = std::mem::take(&mut self.header);
        let open = self.header_of(&header);
        if open.is_ok() {
            header.clear();
        }
        self.header = header;
        open.map(Some)
    }

    /// What a whole header says; the offset is behind it.
    fn header_of(&mut self, header: &[u8]) -> Result<(Frame, u64), FrameError> {
        let start = self.offset.unwrap_or(0).saturating_sub(header.len() as u64);
        if self.untyped {
            self.untyped_header(header, start)
        } else {
            self.typed_header(header, start)
        }
    }

    fn typed_header(&mut self, header: &[u8], start: u64) -> Result<(Frame, u64), FrameError> {
        let &[kind, a, b, c, d, ..] = header else {
            return Err(FrameError {
                offset: start,
                expected: "a header",
                found: "fewer bytes".to_owned(),
            });
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let error = |expected| FrameError {
            offset: start,
            expected,
            found: describe(kind, length),
        };
        let plan = (self.plan)(kind).ok_or_else(|| error("a known message type"))?;
        if !(4..=MESSAGE_BYTES).contains(&length) {
            return Err(error("a length between 4 and 1 GiB"));
        }
        self.capture.start(plan);
        let body = u64::from(length) - 4;
        let end = start.saturating_add(1 + u64::from(length));
        Ok((
            Frame {
                kind,
                code: 0,
                began: self.began,
                start,
                end,
                body,
            },
            body,
        ))
    }

    fn untyped_header(&mut self, header: &[u8], start: u64) -> Result<(Frame, u64), FrameError> {
        let &[a, b, c, d, e, f, g, h] = header else {
            return Err(FrameError {
                offset: start,
                expected: "a header",
                found: "fewer bytes".to_owned(),
            });
        };
        let (length, code) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let Some(plan) = startup::plan(length, code) else {
            return Err(FrameError {
                offset: start,
                expected: "a startup packet of protocol 3, an encryption or a cancel request",
                found: format!("length {length}, code {code}"),
            });
        };
        self.capture.start(plan);
        let body = u64::from(length) - UNTYPED_HEADER as u64;
        let end = start.saturating_add(u64::from(length));
        Ok((
            Frame {
                kind: 0,
                code,
                began: self.began,
                start,
                end,
                body,
            },
            body,
        ))
    }
}

/// A message by type and length, for reports; never its content.
pub(crate) fn describe(kind: u8, length: u32) -> String {
    if kind.is_ascii_graphic() {
        format!("type '{}', length {length}", char::from(kind))
    } else {
        format!("type 0x{kind:02x}, length {length}")
    }
}

const TYPED_HEADER: usize = 5;
pub(crate) const UNTYPED_HEADER: usize = 8;
