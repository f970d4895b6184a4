//! The way back into step after bytes were lost, or into a connection that was open before. Nothing is
//! interpreted until the server was seen to end with ReadyForQuery and what the client sends next is a run of
//! whole requests: then nothing is under way and the boundary of both streams is known.
//!
//! A pipeline whose earlier requests were hidden can still pass here; its answers do not fit the requests
//! that were seen, and the session gets out of step again instead of matching them wrongly.

use crate::frontend;
use crate::output::Output;
use crate::{Direction, Nanos};

#[derive(Default)]
pub(crate) struct Resync {
    /// The newest bytes of the server, which may have come in any pieces.
    tail: [u8; READY.len() + 1],
    tail_length: usize,
    candidate: Option<Candidate>,
    frontend: Hidden,
    backend: Hidden,
    /// Since when something has been hidden that was not told.
    since: Option<Nanos>,
}

/// What the client sent since the server was ready, while it is too short to be judged.
pub(crate) struct Candidate {
    pub(crate) at: Nanos,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What a piece of the client's stream is.
pub(crate) enum Step {
    /// Bytes to be skipped.
    Hidden,
    /// Perhaps the beginning of a request: more is needed.
    Awaited,
    /// Both sides are at a boundary: here, or where the candidate begins.
    Found(Option<Candidate>),
}

/// A ReadyForQuery, up to its status byte.
const READY: &[u8; 5] = b"Z\0\0\0\x05";
/// A message's type and length: less cannot be judged.
const HEADER: usize = 5;
/// What is skipped is told whenever it has grown by this much, and not only once its end is found: a session must not
/// become invisible without a word.
const REPORT_BYTES: u64 = 1 << 20;

impl Resync {
    /// A piece of the server's stream that is not interpreted, of which `skipped` bytes count as such.
    pub(crate) fn backend_piece(&mut self, piece: &[u8], skipped: u64) {
        self.backend.skipped += skipped;
        self.drop_candidate();
        for &byte in piece
            .get(piece.len().saturating_sub(self.tail.len())..)
            .unwrap_or_default()
        {
            self.tail.rotate_left(1);
            if let Some(last) = self.tail.last_mut() {
                *last = byte;
            }
            self.tail_length = (self.tail_length + 1).min(self.tail.len());
        }
    }

    /// Judges a piece of the client's stream, and counts it if it is skipped.
    pub(crate) fn frontend_piece(&mut self, at: Nanos, offset: u64, piece: &[u8]) -> Step {
        if !self.server_ready() {
            self.skip(Direction::Frontend, piece.len() as u64);
            return Step::Hidden;
        }
        let found = match &mut self.candidate {
            None if piece.len() >= HEADER => frontend::is_run_of_requests(piece),
            None => {
                let bytes = piece.to_vec();
                self.candidate = Some(Candidate { at, offset, bytes });
                return Step::Awaited;
            }
            Some(candidate) if candidate.bytes.len() + piece.len() < HEADER => {
                candidate.bytes.extend_from_slice(piece);
                return Step::Awaited;
            }
            Some(candidate) => frontend::is_run_of_requests(&[&candidate.bytes, piece].concat()),
        };
        if found {
            return Step::Found(self.candidate.take());
        }
        self.drop_candidate();
        self.tail_length = 0;
        self.skip(Direction::Frontend, piece.len() as u64);
        Step::Hidden
    }

    /// From here on something is hidden, unless it was before.
    pub(crate) fn begin(&mut self, at: Nanos) {
        self.since.get_or_insert(at);
    }

    pub(crate) fn skip(&mut self, direction: Direction, bytes: u64) {
        self.hidden(direction).skipped += bytes;
    }

    /// Bytes that never came; `None` if their number is not known.
    pub(crate) fn miss(&mut self, direction: Direction, missing: Option<u64>) {
        self.drop_candidate();
        self.tail_length = 0;
        let hidden = self.hidden(direction);
        match missing {
            Some(missing) => hidden.missing = hidden.missing.saturating_add(missing),
            None => hidden.uncounted = true,
        }
    }

    /// Whether so much was skipped that it has to be told before its end.
    pub(crate) fn is_due(&self) -> bool {
        self.frontend.skipped.max(self.backend.skipped) >= REPORT_BYTES
    }

    /// Tells what was hidden, once. `over` if the session is in step again, or has ended.
    pub(crate) fn report(&mut self, at: Nanos, over: bool) -> impl Iterator<Item = Output> + use<> {
        if over {
            self.drop_candidate();
            self.tail_length = 0;
        }
        let since = self.since.take().unwrap_or(at);
        if !over {
            self.since = Some(at);
        }
        let hidden = [
            (Direction::Frontend, std::mem::take(&mut self.frontend)),
            (Direction::Backend, std::mem::take(&mut self.backend)),
        ];
        hidden
            .into_iter()
            .filter(|(_, hidden)| hidden.uncounted || hidden.missing > 0 || hidden.skipped > 0)
            .map(move |(direction, hidden)| Output::Lost {
                since,
                at,
                direction,
                missing: (!hidden.uncounted).then_some(hidden.missing),
                skipped: hidden.skipped,
                over,
            })
    }

    /// The client asked something that is read: the server is no longer ready.
    pub(crate) fn server_speaks_later(&mut self) {
        self.tail_length = 0;
    }

    pub(crate) fn server_ready(&self) -> bool {
        let [ready @ .., status] = &self.tail;
        self.tail_length == self.tail.len() && ready == READY && matches!(status, b'I' | b'T' | b'E')
    }

    fn drop_candidate(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            self.skip(Direction::Frontend, candidate.bytes.len() as u64);
        }
    }

    fn hidden(&mut self, direction: Direction) -> &mut Hidden {
        match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        }
    }
}

#[derive(Default)]
struct Hidden {
    missing: u64,
    /// More are missing, nobody knows how many.
    uncounted: bool,
    skipped: u64,
}
