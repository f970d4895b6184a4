//! A session whose boundaries are not known, in both directions or in the server's alone: what is said of requests whose
//! answers are hidden, and the way back into step. Separate because nothing here is matched with anything.

use super::{Session, Stage};
use crate::exchange::Outcome;
use crate::frontend;
use crate::output::Output;
use crate::resync::Step;
use crate::{Direction, Nanos};

impl Session {
    /// From here on boundaries are not known. What was under way is reported as unknown; incomplete
    /// messages are dropped, and counted.
    pub(super) fn lose_step(&mut self, at: Nanos) {
        self.resync.begin(at);
        self.frontend_in_step = false;
        for direction in [Direction::Frontend, Direction::Backend] {
            let framer = self.framer(direction);
            let (partial, offset) = (framer.partial_bytes(), framer.offset());
            framer.restart(offset);
            self.resync.skip(direction, partial);
        }
        if self.login {
            self.pipeline.forget();
        }
        self.pipeline.abandon(at, Outcome::Unknown, false);
        self.collect();
        self.stage = Stage::OutOfStep;
        self.login = false;
        self.asked = None;
    }

    /// Bytes of the server were lost: what it answered is not known, but what the client asks still is.
    pub(super) fn lose_backend(&mut self, at: Nanos) {
        self.resync.begin(at);
        let (partial, offset) = (self.backend.partial_bytes(), self.backend.offset());
        self.backend.restart(offset);
        self.resync.skip(Direction::Backend, partial);
        self.pipeline.abandon(at, Outcome::Unknown, true);
        self.collect();
        self.stage = Stage::OutOfStep;
        self.frontend_in_step = true;
    }

    /// The client's boundaries are lost too: what was read of it is reported, and the rest only counted.
    pub(super) fn lose_frontend(&mut self, at: Nanos) {
        if !std::mem::take(&mut self.frontend_in_step) {
            return;
        }
        let (partial, offset) = (self.frontend.partial_bytes(), self.frontend.offset());
        self.frontend.restart(offset);
        self.resync.skip(Direction::Frontend, partial);
        self.pipeline.abandon(at, Outcome::Unknown, false);
        self.collect();
    }

    /// Reads requests whose answers are hidden.
    fn read_unanswered(&mut self, at: Nanos, piece: &[u8]) {
        let mut input = piece;
        loop {
            match self.frontend.next(at, &mut input) {
                Ok(None) => return,
                Ok(Some(frame)) if frame.kind == frontend::kind::CREDENTIALS => {}
                Ok(Some(frame)) if frame.kind == frontend::kind::TERMINATE => {
                    self.outputs.push_back(Output::Terminate { at });
                }
                Ok(Some(frame)) => {
                    if self.pipeline.request(&frame, self.frontend.capture()).is_err() {
                        // Reported, so that more can come.
                        self.pipeline.abandon(at, Outcome::Unknown, true);
                        self.collect();
                    }
                }
                Err(error) => {
                    self.malformed(at, Direction::Frontend, error);
                    self.frontend.pass(input.len() as u64);
                    return self.resync.skip(Direction::Frontend, input.len() as u64);
                }
            }
        }
    }

    pub(super) fn find_step(&mut self, direction: Direction, at: Nanos, piece: &[u8]) {
        let length = piece.len() as u64;
        self.resync.begin(at);
        match direction {
            Direction::Backend => {
                self.backend.pass(length);
                self.resync.backend_piece(piece, length);
                if self.frontend_in_step && self.resync.server_ready() && self.pipeline.has_requests() {
                    // Whatever it answered, this was the end of it.
                    self.pipeline.abandon(at, Outcome::Unknown, true);
                    self.collect();
                }
            }
            Direction::Frontend if self.frontend_in_step => {
                let at_boundary = self.frontend.at_boundary() && !self.pipeline.has_requests();
                if !(at_boundary && self.resync.server_ready()) {
                    self.resync.server_speaks_later();
                    return self.read_unanswered(at, piece);
                }
                self.frontend_in_step = false;
                self.outputs.extend(self.resync.report(at, true));
                self.stage = Stage::Typed;
                return self.read(direction, at, piece);
            }
            Direction::Frontend => {
                let offset = self.frontend.offset().unwrap_or(0);
                match self.resync.frontend_piece(at, offset, piece) {
                    Step::Hidden | Step::Awaited => self.frontend.pass(length),
                    Step::Found(candidate) => {
                        self.outputs.extend(self.resync.report(at, true));
                        self.stage = Stage::Typed;
                        if let Some(candidate) = candidate {
                            self.frontend.restart(Some(candidate.offset));
                            self.read(direction, candidate.at, &candidate.bytes);
                        }
                        return self.read(direction, at, piece);
                    }
                }
            }
        }
        if self.resync.is_due() {
            self.outputs.extend(self.resync.report(at, false));
        }
    }
}
