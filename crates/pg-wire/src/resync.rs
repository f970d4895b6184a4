//! The way back into step after bytes were lost, or into a connection that was open before. Nothing is
//! interpreted until the server was seen to end a piece with ReadyForQuery and the client's next piece is
//! a run of whole requests: then nothing is under way and the boundary of both streams is known.
//!
//! A pipeline whose earlier requests were hidden can still pass here; its answers do not fit the requests
//! that were seen, and the session gets out of step again instead of matching them wrongly.

use crate::frontend;
use crate::output::Output;
use crate::{Direction, Nanos};

#[derive(Default)]
pub(crate) struct Resync {
    server_ready: bool,
    frontend: Hidden,
    backend: Hidden,
}

impl Resync {
    /// A piece of the server's stream that is not interpreted, of which `skipped` bytes count as such.
    pub(crate) fn backend_piece(&mut self, piece: &[u8], skipped: u64) {
        self.backend.skipped += skipped;
        self.server_ready = matches!(
            piece.last_chunk::<6>(),
            Some([b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E'])
        );
    }

    /// Whether this piece of the client's stream begins where both sides are known to be at a boundary. If
    /// not, it is skipped.
    pub(crate) fn is_boundary(&mut self, piece: &[u8]) -> bool {
        if self.server_ready && frontend::is_run_of_requests(piece) {
            return true;
        }
        self.server_ready = false;
        self.skip(Direction::Frontend, piece.len() as u64);
        false
    }

    pub(crate) fn skip(&mut self, direction: Direction, bytes: u64) {
        self.hidden(direction).skipped += bytes;
    }

    /// Bytes that never came; `None` if their number is not known.
    pub(crate) fn miss(&mut self, direction: Direction, missing: Option<u64>) {
        self.server_ready = false;
        let hidden = self.hidden(direction);
        match missing {
            Some(missing) => hidden.missing = hidden.missing.saturating_add(missing),
            None => hidden.uncounted = true,
        }
    }

    /// Tells what was hidden, once.
    pub(crate) fn report(&mut self, at: Nanos) -> impl Iterator<Item = Output> + use<> {
        let this = std::mem::take(self);
        [
            (Direction::Frontend, this.frontend),
            (Direction::Backend, this.backend),
        ]
        .into_iter()
        .filter(|(_, hidden)| hidden.uncounted || hidden.missing > 0 || hidden.skipped > 0)
        .map(move |(direction, hidden)| Output::Lost {
            at,
            direction,
            missing: (!hidden.uncounted).then_some(hidden.missing),
            skipped: hidden.skipped,
        })
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
