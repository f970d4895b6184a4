//! One connection: feeds both streams through framing to login and pipeline, and decides what the session
//! is at — login, queries, opaque, out of step. The only place that knows all of it.

mod out_of_step;
mod sql;

pub use sql::Wanted;

use std::collections::VecDeque;
use std::fmt;

use crate::backend::{self, kind};
use crate::capture::{Caps, Capture};
use crate::exchange::Outcome;
use crate::framing::{Frame, FrameError, Framer, describe};
use crate::frontend;
use crate::limits::Limits;
use crate::output::{EncryptionKind, Output};
use crate::pipeline::{Pipeline, Unexpected};
use crate::resync::Resync;
use crate::startup::{self, Authentication};
use crate::{Direction, Nanos};

/// A connection of the PostgreSQL protocol, watched.
///
/// Feed pieces of both streams in the order in which they were captured — a request before its answer —
/// and after each call take what [`poll`](Session::poll) gives until it gives nothing.
pub struct Session {
    stage: Stage,
    /// The first ReadyForQuery has not come: errors refuse the session.
    login: bool,
    /// An encryption request awaits its one-byte answer.
    asked: Option<EncryptionKind>,
    frontend: Framer,
    backend: Framer,
    pipeline: Pipeline,
    resync: Resync,
    /// While out of step: the client's messages are read still, and reported with unknown outcome.
    frontend_in_step: bool,
    outputs: VecDeque<Output>,
    /// Of which statements values are wanted, and how much of each; until the first of them was sent.
    wanted: Option<(Wanted, usize)>,
    /// Bytes kept of one copied value.
    copied_value_bytes: usize,
    /// Bytes of each direction that came after the session was opaque or over.
    swallowed: [u64; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client's next message has no type byte.
    Startup,
    /// Both sides speak in typed messages.
    Typed,
    /// Boundaries are not known: of both directions, or (`frontend_in_step`) of the backend's only.
    OutOfStep,
    /// Encrypted, or a cancel request that is over: nothing more can be read.
    Opaque,
    /// The connection has ended.
    Closed,
}

impl Session {
    /// A connection that is seen from its first byte.
    pub fn new(limits: Limits) -> Session {
        Self::start(&limits, Stage::Startup)
    }

    /// A connection that was open before. What is under way at that moment is skipped and told as
    /// [`Output::Lost`]; exchanges begin with the first boundary that is sure.
    pub fn mid_stream(limits: Limits) -> Session {
        Self::start(&limits, Stage::OutOfStep)
    }

    /// A connection that was open before, of which it is known that nothing is under way: the next byte of each direction
    /// begins a message. What was prepared in it is not known.
    pub fn between_requests(limits: Limits) -> Session {
        Self::start(&limits, Stage::Typed)
    }

    /// Bytes of one direction. `offset` is the place of the first of them in that direction's stream; a
    /// jump is taken as a gap.
    pub fn handle_bytes(&mut self, direction: Direction, at: Nanos, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() || self.stage == Stage::Closed {
            return;
        }
        let framer = self.framer(direction);
        framer.start_at(offset);
        let expected = framer.offset().unwrap_or(offset);
        if offset != expected {
            // Backwards is nothing that can be counted.
            self.handle_gap(direction, at, offset, offset.checked_sub(expected));
        }
        match self.stage {
            Stage::Closed => {}
            Stage::Opaque => self.swallow(direction, bytes),
            Stage::OutOfStep => self.find_step(direction, at, bytes),
            Stage::Startup | Stage::Typed => self.read(direction, at, bytes),
        }
    }

    /// Whether the next `length` bytes of one direction, from `offset` on, are content that is never kept (of rows, of
    /// copied data): not to see them hides nothing.
    pub fn is_unread(&self, direction: Direction, offset: u64, length: u64) -> bool {
        let framer = match direction {
            Direction::Frontend => &self.frontend,
            Direction::Backend => &self.backend,
        };
        self.stage == Stage::Typed && framer.offset() == Some(offset) && framer.is_unread(length)
    }

    /// Bytes of one direction were lost; the next ones are at `offset_after`. A gap within bytes that are only
    /// counted (rows, copied data, the rest of a long statement) hides nothing and is stepped over if its
    /// size is known.
    pub fn handle_gap(&mut self, direction: Direction, at: Nanos, offset_after: u64, missing: Option<u64>) {
        let stage = self.stage;
        let framer = self.framer(direction);
        let before = framer.offset();
        match stage {
            Stage::Closed => {}
            Stage::Opaque => framer.restart(Some(offset_after)),
            Stage::OutOfStep => {
                if direction == Direction::Frontend {
                    self.lose_frontend(at);
                }
                self.framer(direction).restart(Some(offset_after));
                self.resync.miss(direction, missing);
            }
            Stage::Startup | Stage::Typed => {
                if missing == Some(0) && before == Some(offset_after) {
                    return;
                }
                let exact = missing
                    .filter(|&missing| before.and_then(|at| at.checked_add(missing)) == Some(offset_after));
                if exact.is_some_and(|missing| framer.bridge(missing)) {
                    return self.read(direction, at, &[]);
                }
                if direction == Direction::Backend && stage == Stage::Typed && !self.login {
                    self.lose_backend(at);
                } else {
                    self.lose_step(at);
                }
                self.framer(direction).restart(Some(offset_after));
                self.resync.miss(direction, missing);
            }
        }
    }

    /// The connection is over. What is under way is reported as unanswered.
    pub fn handle_close(&mut self, at: Nanos) {
        if !self.login {
            let outcome = if self.stage == Stage::OutOfStep {
                Outcome::Unknown
            } else {
                Outcome::Unanswered
            };
            self.pipeline.abandon(at, outcome, true);
            self.collect();
        }
        self.outputs.extend(self.resync.report(at, true));
        self.stage = Stage::Closed;
    }

    /// The next output, if there is one.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether everything that has come was told: no message is incomplete, no request waits for its answer, no bytes are
    /// skipped, and no login is under way.
    pub fn is_settled(&self) -> bool {
        let told = match self.stage {
            Stage::Typed => {
                let between = self.frontend.at_boundary() && self.backend.at_boundary();
                between && !self.login && self.pipeline.is_settled()
            }
            Stage::Opaque | Stage::Closed => true,
            Stage::Startup | Stage::OutOfStep => false,
        };
        told && self.outputs.is_empty()
    }

    /// Gives memory back that only a busy session needs, if nothing is under way. For sessions that have been silent for
    /// a while: most connections of a server are.
    pub fn rest(&mut self) {
        self.outputs.shrink_to(0);
        if self.pipeline.is_idle() {
            self.frontend.rest();
            self.backend.rest();
            self.pipeline.rest();
        }
    }

    /// Bytes that came after the session became opaque (encrypted) or said goodbye.
    pub fn swallowed_bytes(&self, direction: Direction) -> u64 {
        let [frontend, backend] = self.swallowed;
        match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        }
    }

    /// Whether nothing more can be read of this session because it is encrypted, or was a cancel request.
    pub fn is_opaque(&self) -> bool {
        self.stage == Stage::Opaque
    }

    /// Memory that the session keeps between calls, in bytes; never more than [`Limits::retained_bound`].
    pub fn retained_bytes(&self) -> usize {
        self.frontend.retained_bytes() + self.backend.retained_bytes() + self.pipeline.retained_bytes()
    }

    fn start(limits: &Limits, stage: Stage) -> Session {
        let caps = Caps {
            name: limits.names_bytes,
            statement: limits.statement_bytes,
            value: limits.value_bytes,
            values: limits.values_bytes,
            row_value: limits.row_value_bytes,
        };
        let capture = || Capture::new(caps);
        let first_byte = stage == Stage::Startup;
        Session {
            stage,
            login: first_byte,
            asked: None,
            frontend: Framer::new(frontend::plan, first_byte, capture()),
            backend: Framer::new(backend::plan, false, capture()),
            pipeline: Pipeline::new(limits, !first_byte),
            resync: Resync::default(),
            frontend_in_step: false,
            outputs: VecDeque::new(),
            wanted: None,
            copied_value_bytes: 0,
            swallowed: [0; 2],
        }
    }

    /// Reads in step, as far as that goes.
    fn read(&mut self, direction: Direction, at: Nanos, piece: &[u8]) {
        let mut input = piece;
        while matches!(self.stage, Stage::Startup | Stage::Typed) {
            if self.read_unframed(direction, at, &mut input) {
                continue;
            }
            if direction == Direction::Backend {
                self.look_for_rows(input);
            }
            let framer = self.framer(direction);
            let frame = match framer.whole(at, &mut input) {
                Some(frame) => frame,
                None => match framer.next(at, &mut input) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return,
                    Err(error) => {
                        self.malformed(at, direction, error);
                        continue;
                    }
                },
            };
            match direction {
                Direction::Frontend => self.client_says(at, &frame),
                Direction::Backend => self.server_says(at, &frame),
            }
            if input.is_empty() && self.stage == Stage::Typed {
                return;
            }
        }
        match (self.stage, direction) {
            (Stage::Opaque, _) => self.swallow(direction, input),
            (Stage::OutOfStep, Direction::Frontend) => {
                self.framer(direction).pass(input.len() as u64);
                self.resync.skip(direction, input.len() as u64);
            }
            (Stage::OutOfStep, Direction::Backend) => {
                self.framer(direction).pass(input.len() as u64);
                self.resync.backend_piece(piece, input.len() as u64);
            }
            _ => {}
        }
    }

    /// Takes what has no message frame: a TLS handshake from the first byte on, and the one-byte answer to
    /// an encryption request. Whether there was such a thing.
    fn read_unframed(&mut self, direction: Direction, at: Nanos, input: &mut &[u8]) -> bool {
        let Some((&byte, rest)) = input.split_first() else {
            return false;
        };
        if self.stage != Stage::Startup || !self.framer(direction).at_boundary() {
            return false;
        }
        match (direction, self.asked) {
            (Direction::Frontend, _) if byte == startup::TLS_HANDSHAKE => {
                self.encrypted(at, EncryptionKind::Tls, true);
                true
            }
            (Direction::Backend, Some(kind)) => {
                let accepted = match byte {
                    b'S' | b'G' => true,
                    // A server that knows no encryption answers with an ErrorResponse, which is left to be read.
                    b'N' | kind::ERROR => false,
                    _ => {
                        let offset = self.backend.offset().unwrap_or(0);
                        let found = format!("byte 0x{byte:02x}");
                        let expected = "the answer to an encryption request";
                        self.malformed(
                            at,
                            direction,
                            FrameError {
                                offset,
                                expected,
                                found,
                            },
                        );
                        return true;
                    }
                };
                self.asked = None;
                self.encrypted(at, kind, accepted);
                if byte != kind::ERROR {
                    self.backend.pass(1);
                    *input = rest;
                }
                true
            }
            _ => false,
        }
    }

    fn encrypted(&mut self, at: Nanos, kind: EncryptionKind, accepted: bool) {
        self.outputs.push_back(Output::Encryption { at, kind, accepted });
        if accepted {
            self.stage = Stage::Opaque;
        }
    }

    fn client_says(&mut self, at: Nanos, frame: &Frame) {
        if self.stage == Stage::Startup {
            return self.client_opens(at, frame);
        }
        match frame.kind {
            frontend::kind::CREDENTIALS => {}
            frontend::kind::TERMINATE => self.outputs.push_back(Output::Terminate { at }),
            _ => {
                self.look_for_wanted(frame);
                self.look_for_copied(frame);
                if self.pipeline.request(frame, self.frontend.capture()).is_err() {
                    let found = format!("{} requests under way", self.pipeline.in_flight());
                    let error = FrameError {
                        offset: frame.start,
                        expected: "an answer to one of the earlier requests",
                        found,
                    };
                    self.malformed(at, Direction::Frontend, error);
                    self.resync.skip(Direction::Frontend, frame.wire_bytes());
                }
            }
        }
    }

    fn client_opens(&mut self, at: Nanos, frame: &Frame) {
        let body = self.frontend.capture().bytes();
        match frame.code {
            startup::SSL_REQUEST => self.asked = Some(EncryptionKind::Tls),
            startup::GSSENC_REQUEST => self.asked = Some(EncryptionKind::Gss),
            startup::CANCEL_REQUEST => {
                let pid = body.first_chunk().map_or(0, |pid| u32::from_be_bytes(*pid));
                self.outputs.push_back(Output::Cancel { at, pid });
                self.stage = Stage::Opaque;
            }
            code => {
                let (version, parameters) = (startup::version(code), startup::parameters(body));
                self.outputs.push_back(Output::Startup {
                    at,
                    version,
                    parameters,
                });
                self.stage = Stage::Typed;
                self.frontend.expect_types();
            }
        }
    }

    fn server_says(&mut self, at: Nanos, frame: &Frame) {
        let body = self.backend.capture().bytes();
        match frame.kind {
            kind::NOTICE | kind::NOTIFICATION => {}
            kind::PARAMETER_STATUS => {
                if let Some((name, value)) = backend::parameter(body) {
                    self.outputs.push_back(Output::Parameter { name, value });
                }
            }
            kind::ERROR if self.login => {
                let error = backend::error(body);
                self.outputs.push_back(Output::AuthFailed { at, error });
                self.pipeline.forget();
            }
            _ if self.stage == Stage::Startup => {
                self.unexpected(at, frame, "nothing before the client's startup packet");
            }
            kind::BACKEND_KEY => {
                if let Some(pid) = body.first_chunk() {
                    self.outputs.push_back(Output::BackendKey {
                        pid: u32::from_be_bytes(*pid),
                    });
                }
            }
            kind::READY if self.login => self.login = false,
            _ if self.login => self.server_authenticates(at, frame),
            _ => self.server_answers(at, frame),
        }
    }

    fn server_authenticates(&mut self, at: Nanos, frame: &Frame) {
        if frame.kind == kind::NEGOTIATE_VERSION {
            return;
        }
        let step = (frame.kind == kind::AUTHENTICATION)
            .then(|| startup::authentication(self.backend.capture().bytes()))
            .flatten();
        match step {
            Some(Authentication::Ok) => self.outputs.push_back(Output::AuthOk { at }),
            Some(Authentication::Requested(method)) => {
                self.outputs.push_back(Output::AuthRequested { at, method });
            }
            Some(Authentication::Continued) => {}
            None => self.unexpected(at, frame, "a message of the login"),
        }
    }

    fn server_answers(&mut self, at: Nanos, frame: &Frame) {
        match self.pipeline.answer(at, frame, self.backend.capture()) {
            Ok(unsolicited) => {
                self.look_for_copies(frame);
                self.collect();
                // Nearly always there is none.
                if let Some(error) = unsolicited {
                    self.outputs.push_back(Output::SessionError { at, error });
                }
            }
            Err(Unexpected(asked)) => self.unexpected(at, frame, asked),
        }
    }

    /// The server sent what does not answer the request that is first in the queue.
    fn unexpected(&mut self, at: Nanos, frame: &Frame, expected: &'static str) {
        let length = u32::try_from(frame.body + 4).unwrap_or(u32::MAX);
        let found = describe(frame.kind, length);
        self.malformed(
            at,
            Direction::Backend,
            FrameError {
                offset: frame.start,
                expected,
                found,
            },
        );
        self.resync.skip(Direction::Backend, frame.wire_bytes());
    }

    fn malformed(&mut self, at: Nanos, direction: Direction, error: FrameError) {
        let FrameError {
            offset,
            expected,
            found,
        } = error;
        self.lose_step(at);
        self.outputs.push_back(Output::Malformed {
            at,
            direction,
            offset,
            expected,
            found,
        });
    }

    fn swallow(&mut self, direction: Direction, bytes: &[u8]) {
        let length = bytes.len() as u64;
        self.framer(direction).pass(length);
        let [frontend, backend] = &mut self.swallowed;
        match direction {
            Direction::Frontend => *frontend += length,
            Direction::Backend => *backend += length,
        }
    }

    fn collect(&mut self) {
        while let Some(exchange) = self.pipeline.finished.next() {
            self.outputs.push_back(Output::Exchange(exchange));
        }
    }

    fn framer(&mut self, direction: Direction) -> &mut Framer {
        match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        }
    }
}

/// Without content: buffers can hold statements.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stage", &self.stage)
            .field("login", &self.login)
            .field("in_flight", &self.pipeline.in_flight())
            .field("frontend_offset", &self.frontend.offset())
            .field("backend_offset", &self.backend.offset())
            .finish_non_exhaustive()
    }
}
