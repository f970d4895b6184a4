//! Messages of the client: which fields of each are kept, and whether bytes look like the beginning of
//! one. Requests made of them are in `request`.

use crate::capture::{Field, Plan};
use crate::framing::MESSAGE_BYTES;

/// Message types (manual section "Message Formats").
pub(crate) mod kind {
    pub(crate) const BIND: u8 = b'B';
    pub(crate) const CLOSE: u8 = b'C';
    pub(crate) const DESCRIBE: u8 = b'D';
    pub(crate) const EXECUTE: u8 = b'E';
    pub(crate) const FUNCTION_CALL: u8 = b'F';
    pub(crate) const FLUSH: u8 = b'H';
    pub(crate) const PARSE: u8 = b'P';
    pub(crate) const QUERY: u8 = b'Q';
    pub(crate) const SYNC: u8 = b'S';
    pub(crate) const TERMINATE: u8 = b'X';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_FAIL: u8 = b'f';
    /// Password, SASL and GSS responses: nothing of them is ever copied.
    pub(crate) const CREDENTIALS: u8 = b'p';
}

/// The server's bound on messages that are short by nature (`PQ_SMALL_MESSAGE_LIMIT`, since version 14).
const SMALL_MESSAGE_BYTES: u32 = 10_000;

/// Fields to keep; `None` for a type that clients do not send.
pub(crate) fn plan(message: u8) -> Option<Plan> {
    Some(match message {
        kind::QUERY => &[Field::Statement],
        kind::PARSE => &[Field::Name, Field::Statement, Field::Oids],
        kind::BIND => &[Field::Name, Field::Name, Field::Values],
        kind::DESCRIBE | kind::CLOSE => &[Field::Fixed(1), Field::Name],
        kind::EXECUTE => &[Field::Name],
        kind::FUNCTION_CALL => &[Field::Fixed(4), Field::Values],
        kind::SYNC
        | kind::FLUSH
        | kind::TERMINATE
        | kind::COPY_DATA
        | kind::COPY_DONE
        | kind::COPY_FAIL
        | kind::CREDENTIALS => &[],
        _ => return None,
    })
}

/// As [`plan`], where the formats of results are wanted, too, and values of copied data may be.
pub(crate) fn plan_with_formats(message: u8) -> Option<Plan> {
    match message {
        kind::COPY_DATA => Some(&[Field::Copied]),
        kind::BIND => Some(&[Field::Name, Field::Name, Field::Values, Field::Formats]),
        _ => plan(message),
    }
}

/// Whether bytes that came in one piece can be a run of whole requests, of which the last may be incomplete.
/// Finds the boundary between messages where the stream is joined in the middle.
pub(crate) fn is_run_of_requests(piece: &[u8]) -> bool {
    let mut rest = piece;
    let mut first = true;
    loop {
        let Some((&[message, a, b, c, d], body)) = rest.split_first_chunk::<5>() else {
            // The first must show a whole header; of a later one its type is enough.
            return !first && rest.first().is_none_or(|&message| plan(message).is_some());
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if !is_plausible(message, length, first) {
            return false;
        }
        let Some(next) = usize::try_from(length)
            .ok()
            .and_then(|length| body.get(length - 4..))
        else {
            return true;
        };
        rest = next;
        first = false;
        if rest.is_empty() {
            return true;
        }
    }
}

fn is_plausible(message: u8, length: u32, first: bool) -> bool {
    match message {
        kind::QUERY => (5..=MESSAGE_BYTES).contains(&length),
        kind::PARSE => (8..=MESSAGE_BYTES).contains(&length),
        kind::BIND => (12..=MESSAGE_BYTES).contains(&length),
        kind::FUNCTION_CALL => (14..=MESSAGE_BYTES).contains(&length),
        kind::DESCRIBE | kind::CLOSE => (6..=SMALL_MESSAGE_BYTES).contains(&length),
        kind::EXECUTE => (9..=SMALL_MESSAGE_BYTES).contains(&length),
        kind::SYNC | kind::FLUSH | kind::TERMINATE => length == 4,
        // An idle server expects no copied data; behind its request it may come unasked.
        kind::COPY_DATA => !first && (4..=MESSAGE_BYTES).contains(&length),
        kind::COPY_DONE => !first && length == 4,
        kind::COPY_FAIL => !first && (5..=SMALL_MESSAGE_BYTES).contains(&length),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_run_of_requests;

    #[test]
    fn runs_of_requests_are_recognised() {
        let yes: &[&[u8]] = &[
            b"Q\0\0\0\x0dSELECT 1\0",
            b"Q\0\0\0\x0dSELE",
            b"S\0\0\0\x04",
            b"Q\0\0\0\x06;\0S\0\0\0\x04",
            b"S\0\0\0\x04P",
            b"S\0\0\0\x04P\0\0",
            b"Q\0\0\0\x06;\0d\0\0\0\x05xc\0\0\0\x04",
        ];
        let no: &[&[u8]] = &[
            b"",
            b"Q\0\0",
            b"ELECT 1\0",
            b"S\0\0\0\x05",
            b"Q\0\0\0\x03",
            b"d\0\0\0\x05x",
            b"p\0\0\0\x08abc\0",
            b"S\0\0\0\x04?",
            b"Q\x7f\0\0\0SELECT",
            b"\x16\x03\x01\x02\x00\x01",
        ];
        for piece in yes {
            assert!(is_run_of_requests(piece), "{:?}", String::from_utf8_lossy(piece));
        }
        for piece in no {
            assert!(!is_run_of_requests(piece), "{:?}", String::from_utf8_lossy(piece));
        }
    }
}
