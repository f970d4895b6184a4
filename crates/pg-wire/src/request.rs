//! A request as it waits for its answer: what the client asked, in its own order. What names mean is
//! decided only when the answer comes, because that is when the server has acted.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::Nanos;
use crate::capture;
use crate::cursor::Cursor;
use crate::exchange::{Format, Param, Params, Phase};
use crate::framing::Frame;
use crate::frontend::kind;
use crate::names;
use crate::prepared::{Prepared, Text};

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
            Ask::Query(text) => text.kept_bytes(),
            Ask::Parse { text, types, .. } => text.kept_bytes() + size_of_val::<[u32]>(types),
            Ask::Bind { given, .. } | Ask::FunctionCall { given, .. } => given.kept_bytes(),
            _ => 0,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Ask {
    Query(Text),
    FunctionCall {
        oid: Option<u32>,
        given: Given,
    },
    Parse {
        statement: Bytes,
        /// Boxed, so that the requests which are made for every statement stay small.
        text: Box<Text>,
        /// Types of the parameters, as far as the client declared them.
        types: Types,
    },
    Bind {
        portal: Bytes,
        statement: Bytes,
        given: Given,
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

/// Type oids of a statement's parameters.
pub(crate) type Types = Arc<[u32]>;

/// The parameters of a Bind or FunctionCall.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) count: u16,
    /// Empty if they were not seen, or could not be kept.
    pub(crate) params: Params,
    /// What was asked of the result.
    pub(crate) formats: Formats,
}

/// How the values of a result are to be written.
#[derive(Clone, Debug, Default)]
pub(crate) enum Formats {
    /// Not seen, or not looked at.
    #[default]
    Unknown,
    All(Format),
    Each(Arc<[Format]>),
}

impl Formats {
    /// Of the column at this place.
    pub(crate) fn of(&self, index: usize) -> Option<Format> {
        match self {
            Self::Unknown => None,
            Self::All(format) => Some(*format),
            Self::Each(formats) => formats.get(index).copied(),
        }
    }
}

impl Given {
    pub(crate) fn kept_bytes(&self) -> usize {
        let formats = match &self.formats {
            Formats::Each(formats) => size_of_val::<[Format]>(formats),
            Formats::Unknown | Formats::All(_) => 0,
        };
        params_bytes(&self.params) + formats
    }

    /// Fills in what the statement says of their types.
    pub(crate) fn typed(mut self, types: &[u32]) -> Self {
        if types.iter().any(|&oid| oid != 0)
            && let Some(params) = Arc::get_mut(&mut self.params)
        {
            for (param, &oid) in params.iter_mut().zip(types) {
                param.type_oid = oid;
            }
        }
        self
    }
}

/// None at all. Shared, because most statements have none.
pub(crate) fn no_params() -> Params {
    static NONE: LazyLock<Params> = LazyLock::new(|| Arc::new([]));
    Arc::clone(&NONE)
}

/// No types at all.
pub(crate) fn no_types() -> Types {
    static NONE: LazyLock<Types> = LazyLock::new(|| Arc::new([]));
    Arc::clone(&NONE)
}

/// What parameters keep alive.
pub(crate) fn params_bytes(params: &[Param]) -> usize {
    size_of_val(params) + params.iter().map(|param| param.kept.len()).sum::<usize>()
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
    /// Whether the next message begins a unit.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

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
pub(crate) fn decode(
    frame: &Frame,
    capture: &capture::Capture,
    room: usize,
    prepared: &Prepared,
) -> Option<Ask> {
    let name = |text: &capture::Text| names::copied(text.kept());
    Some(match frame.kind {
        kind::QUERY => Ask::Query(text(frame, capture.first(), room)),
        kind::FUNCTION_CALL => Ask::FunctionCall {
            oid: Cursor::new(capture.bytes()).u32(),
            given: given(capture, room, Formats::Unknown),
        },
        kind::PARSE => Ask::Parse {
            statement: name(capture.first()),
            text: Box::new(text(frame, capture.second(), room)),
            types: types(capture, room),
        },
        kind::BIND => Ask::Bind {
            portal: name(capture.first()),
            statement: prepared.statement_name(capture.second().kept()),
            given: given(capture, room, formats(capture, room)),
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

fn text(frame: &Frame, captured: &capture::Text, room: usize) -> Text {
    let kept = captured.kept();
    let kept = kept.get(..kept.len().min(room)).unwrap_or_default();
    let truncated = captured.whole() > kept.len() as u64;
    Text {
        sql: Some(Bytes::copy_from_slice(kept)),
        at: frame.start,
        whole: captured.whole(),
        truncated,
        digest: truncated.then(|| captured.digest()).flatten().map(Box::new),
        preparsed: false,
    }
}

/// Oids that a message lists, or none if they were not all seen.
pub(crate) fn types(capture: &capture::Capture, room: usize) -> Types {
    let Some((count, oids)) = capture.bytes().split_first_chunk::<2>() else {
        return no_types();
    };
    let count = usize::from(u16::from_be_bytes(*count));
    let (oids, rest) = oids.as_chunks::<4>();
    if capture.lost() || count == 0 || oids.len() != count || !rest.is_empty() || 4 * count > room {
        return no_types();
    }
    oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect()
}

fn given(capture: &capture::Capture, room: usize, formats: Formats) -> Given {
    let values = capture.values();
    let count = u16::try_from(values.len()).unwrap_or(u16::MAX);
    let least = values.len() * size_of::<Param>();
    if capture.lost() || count == 0 || least > room {
        return Given {
            count,
            params: no_params(),
            formats,
        };
    }
    let kept = if least + values.kept().len() > room {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(values.kept())
    };
    let mut from = 0;
    let params = values
        .iter()
        .map(|value| {
            let to = from + value.kept.len();
            let part = if to > kept.len() {
                Bytes::new()
            } else {
                kept.slice(from..to)
            };
            from = to;
            Param {
                type_oid: 0,
                format: if value.binary {
                    Format::Binary
                } else {
                    Format::Text
                },
                bytes: value.bytes,
                kept: part,
            }
        })
        .collect();
    Given {
        count,
        params,
        formats,
    }
}

/// The formats that a Bind asks for: none means all text, one means that one for all (manual, "Bind").
fn formats(capture: &capture::Capture, room: usize) -> Formats {
    let Some((count, codes)) = capture.bytes().split_first_chunk::<2>() else {
        return Formats::Unknown;
    };
    let (codes, rest) = codes.as_chunks::<2>();
    let is_whole = codes.len() == usize::from(u16::from_be_bytes(*count)) && rest.is_empty();
    if capture.lost() || !is_whole || codes.len() > room {
        return Formats::Unknown;
    }
    let format = |code: &[u8; 2]| {
        if *code == [0, 0] {
            Format::Text
        } else {
            Format::Binary
        }
    };
    match codes {
        [] => Formats::All(Format::Text),
        [all] => Formats::All(format(all)),
        each => Formats::Each(each.iter().map(format).collect()),
    }
}
