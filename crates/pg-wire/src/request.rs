//! A request as it waits for its answer: what the client asked, in its own order. What names mean is
//! decided only when the answer comes, because that is when the server has acted.

use std::ops::Range;

use bytes::Bytes;

use crate::Nanos;
use crate::capture;
use crate::cursor::Cursor;
use crate::exchange::Phase;
use crate::framing::Frame;
use crate::frontend::kind;
use crate::prepared::Text;

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    /// First byte of the unit that this request ends: see [`Unit`].
    pub(crate) began: Nanos,
    /// Frontend stream offsets from the beginning of the unit to the end of this message.
    pub(crate) range: Range<u64>,
}

impl Request {
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// What the request keeps alive beside itself.
    pub(crate) fn retained_bytes(&self) -> usize {
        let names = match &self.ask {
            Ask::Parse { statement: name, .. }
            | Ask::Execute { portal: name }
            | Ask::Describe(Target::Statement(name) | Target::Portal(name))
            | Ask::Close(Target::Statement(name) | Target::Portal(name)) => name.len(),
            Ask::Bind {
                portal, statement, ..
            } => portal.len() + statement.len(),
            Ask::Query(_) | Ask::FunctionCall { .. } | Ask::Sync | Ask::CopyEnd(_) => 0,
        };
        names + self.kept_bytes()
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        match &self.ask {
            Ask::Query(text) | Ask::Parse { text, .. } => text.kept_bytes(),
            _ => 0,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Ask {
    Query(Text),
    FunctionCall {
        oid: Option<u32>,
    },
    Parse {
        statement: Bytes,
        text: Text,
    },
    Bind {
        portal: Bytes,
        statement: Bytes,
        param_count: u16,
    },
    Describe(Target),
    Execute {
        portal: Bytes,
    },
    Close(Target),
    Sync,
    /// CopyDone or CopyFail, with what was copied before it.
    CopyEnd(Copied),
}

impl Ask {
    /// What the server is doing while this is unanswered.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Ask::Parse { .. } | Ask::Describe(Target::Statement(_)) => Phase::Parse,
            Ask::Bind { .. } | Ask::Describe(Target::Portal(_)) => Phase::Bind,
            _ => Phase::Execute,
        }
    }
}

/// What a Describe or Close is about.
#[derive(Debug)]
pub(crate) enum Target {
    Statement(Bytes),
    Portal(Bytes),
}

/// Copied data that came from the client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copied {
    /// Without message headers.
    pub(crate) payload: u64,
    pub(crate) wire: u64,
}

/// The messages since the last one that made the server run or flush something. They are reported as one
/// request, so that requests divide the stream among themselves.
#[derive(Default)]
pub(crate) struct Unit {
    first: Option<(Nanos, u64)>,
}

impl Unit {
    /// Adds a message; gives beginning and range of the unit up to its end.
    pub(crate) fn extend(&mut self, frame: &Frame) -> (Nanos, Range<u64>) {
        let &mut (began, start) = self.first.get_or_insert((frame.began, frame.start));
        if matches!(
            frame.kind,
            kind::QUERY | kind::FUNCTION_CALL | kind::EXECUTE | kind::SYNC | kind::FLUSH
        ) {
            self.first = None;
        }
        (began, start..frame.end)
    }
}

/// Decodes a message that has an answer of its own; `None` for the others. `room` is how much text may be
/// kept of it.
pub(crate) fn decode(frame: &Frame, capture: &capture::Capture, room: usize) -> Option<Ask> {
    let name = |text: &capture::Text| Bytes::copy_from_slice(text.kept());
    Some(match frame.kind {
        kind::QUERY => Ask::Query(text(capture.first(), room)),
        kind::FUNCTION_CALL => Ask::FunctionCall {
            oid: Cursor::new(capture.bytes()).u32(),
        },
        kind::PARSE => Ask::Parse {
            statement: name(capture.first()),
            text: text(capture.second(), room),
        },
        kind::BIND => Ask::Bind {
            portal: name(capture.first()),
            statement: name(capture.second()),
            param_count: Cursor::new(capture.bytes()).u16().unwrap_or(0),
        },
        kind::DESCRIBE => Ask::Describe(target(capture, name(capture.first()))),
        kind::CLOSE => Ask::Close(target(capture, name(capture.first()))),
        kind::EXECUTE => Ask::Execute {
            portal: name(capture.first()),
        },
        kind::SYNC => Ask::Sync,
        _ => return None,
    })
}

fn target(capture: &capture::Capture, name: Bytes) -> Target {
    // Anything but `S` and `P` makes the server refuse the message.
    if capture.bytes() == b"S" {
        Target::Statement(name)
    } else {
        Target::Portal(name)
    }
}

fn text(captured: &capture::Text, room: usize) -> Text {
    let kept = captured.kept();
    let kept = kept.get(..kept.len().min(room)).unwrap_or_default();
    Text {
        sql: Some(Bytes::copy_from_slice(kept)),
        whole: captured.whole(),
        truncated: captured.whole() > kept.len() as u64,
        preparsed: false,
    }
}
