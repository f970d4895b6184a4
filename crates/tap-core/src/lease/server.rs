//! A pooler's connection to a server: whose bytes it wrote there, and to whom it passed what it read.

use std::{collections::VecDeque, ops::Range};

use ebpf_abi::Channel;

use super::{alignment::Alignment, process::Buffer};

/// Pieces of either stream that wait for a question: those of a transaction of some thousand statements. The oldest are
/// forgotten, and questions about them answered so.
const PIECES: usize = 16_384;

/// Where written bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From where a client's bytes had been received: these, in its stream.
    Client { client: u64, offset: u64 },
    /// From memory into which no client's bytes were received, or other ones.
    Own,
    /// As above, but calls of the thread or of the client that it was at were not seen before, or the bytes are others than
    /// were received there.
    Unsure,
    /// Nobody saw from where.
    Unknown,
}

/// Bytes that were written to the server.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    pub(super) source: Source,
    /// The client whose socket the thread had looked at last.
    pub(super) turn: Option<u64>,
    /// The only client that the process had.
    pub(super) sole: Option<u64>,
    /// The client of the turn was logging in.
    pub(super) logs_in: bool,
}

/// Bytes of the server's that were passed on.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) range: Range<u64>,
    pub(super) client: u64,
    /// From where they had been received; else the thread had looked at this server last when it wrote to the client.
    pub(super) by_memory: bool,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) channel: u8,
    /// Of a connection whose offsets are not those of the backend's end.
    pub(super) alignment: Option<Alignment>,
    mid_stream: bool,
    pub(super) buffer: Buffer,
    written: VecDeque<Piece>,
    /// What is before these is not known any more, or never was.
    written_from: Option<u64>,
    written_to: u64,
    passed: VecDeque<Passed>,
    /// To whom bytes before it went is forgotten.
    passed_from: u64,
    read_to: u64,
    /// What was read until there has been passed on, or will not be.
    settled_to: u64,
    /// A client takes nothing of it now.
    pub(super) blocked: bool,
    pub(super) is_over: bool,
}

impl Server {
    pub(super) fn new(mid_stream: bool, counted: bool) -> Self {
        Self {
            channel: Channel::Socket as u8,
            alignment: (mid_stream && !counted).then(Alignment::default),
            mid_stream,
            buffer: Buffer::default(),
            written: VecDeque::new(),
            written_from: (!mid_stream).then_some(0),
            written_to: 0,
            passed: VecDeque::new(),
            passed_from: 0,
            read_to: 0,
            settled_to: 0,
            blocked: false,
            is_over: false,
        }
    }

    /// From here on its plaintext is another stream.
    pub(super) fn begin_anew(&mut self) {
        *self = Self {
            channel: self.channel,
            is_over: self.is_over,
            // Nobody counts plaintext but who sees all of it.
            ..Self::new(self.mid_stream, false)
        };
    }

    /// The next bytes that are written stand there; `lost`: more was written before that was not told.
    pub(super) fn jump(&mut self, offset: u64, lost: bool) {
        if self.written_from.is_none() {
            self.written_from = Some(offset);
        } else if offset != self.written_to || lost {
            self.lost();
            let unseen = self.written_to..offset.max(self.written_to);
            self.wrote(Piece {
                range: unseen,
                source: Source::Unknown,
                turn: None,
                sole: None,
                logs_in: false,
            });
        }
        self.written_to = offset;
    }

    /// Calls were not seen.
    pub(super) fn lost(&mut self) {
        if let Some(alignment) = &mut self.alignment {
            alignment.lost();
        }
    }

    pub(super) fn wrote(&mut self, piece: Piece) {
        if let Some(alignment) = &mut self.alignment {
            alignment.wrote(piece.range.start, piece.range.end);
        }
        self.written_to = piece.range.end;
        if let Some(last) = self.written.back_mut()
            && last.goes_on_with(&piece)
        {
            last.range.end = piece.range.end;
            return;
        }
        if self.written.len() >= PIECES
            && let Some(oldest) = self.written.pop_front()
        {
            self.written_from = Some(oldest.range.end);
        }
        self.written.push_back(piece);
    }

    pub(super) fn read(&mut self, offset: u64, length: u64, at: u64) {
        if let Some(alignment) = &mut self.alignment {
            if offset != self.read_to {
                alignment.lost();
            }
            alignment.read(offset + length, at);
        }
        // Whoever reads on is done with what it had read.
        self.settled_to = self.read_to;
        self.blocked = false;
        self.read_to = offset + length;
    }

    /// The thread has left it for another socket.
    pub(super) fn left(&mut self) {
        if !self.blocked {
            self.settled_to = self.read_to;
        }
    }

    pub(super) fn passed(&mut self, passed: Passed) {
        self.blocked = false;
        if let Some(last) = self.passed.back_mut()
            && (last.client, last.by_memory) == (passed.client, passed.by_memory)
            && last.range.end == passed.range.start
        {
            last.range.end = passed.range.end;
            return;
        }
        if self.passed.len() >= PIECES
            && let Some(oldest) = self.passed.pop_front()
        {
            self.passed_from = oldest.range.end;
        }
        self.passed.push_back(passed);
    }

    /// The client was sent something, and not from where this server's bytes lay: what of them nobody got yet.
    pub(super) fn passed_somehow(&mut self, client: u64) {
        let from = self.passed.back().map_or(0, |last| last.range.end);
        let range = from.max(self.settled_to)..self.read_to;
        if !range.is_empty() {
            self.passed(Passed {
                range,
                client,
                by_memory: false,
            });
        }
    }

    /// What was written in a range, in order; `None` if not all of it has been seen yet.
    pub(super) fn written(&self, range: &Range<u64>) -> Option<impl Iterator<Item = &Piece>> {
        let first = self
            .written
            .partition_point(|piece| piece.range.end <= range.start);
        let end = range.end;
        let pieces = self.written.range(first..);
        (self.written_to >= end).then(|| pieces.take_while(move |piece| piece.range.start < end))
    }

    /// Whether everything that was written from an offset on is known still.
    pub(super) fn knows(&self, from: u64) -> bool {
        self.written_from.is_some_and(|known| known <= from)
    }

    /// To whom the byte before an offset was passed; `None` if that is not sure yet.
    pub(super) fn receiver(&self, to: u64) -> Option<Receiver> {
        let byte = to.checked_sub(1)?;
        if byte < self.passed_from {
            return Some(Receiver::Forgotten);
        }
        let found = self
            .passed
            .iter()
            .rev()
            .find(|passed| passed.range.contains(&byte));
        match found {
            Some(passed) => Some(Receiver::Client {
                client: passed.client,
                by_memory: passed.by_memory,
            }),
            None if self.settled_to >= to => Some(Receiver::Nobody),
            None => None,
        }
    }

    /// A client was passed something from behind an offset.
    pub(super) fn passed_later(&self, client: u64, from: u64) -> bool {
        let mut later = self
            .passed
            .iter()
            .rev()
            .take_while(|passed| passed.range.end > from);
        later.any(|passed| passed.client == client)
    }

    /// What is before these offsets is not asked for again.
    pub(super) fn forget(&mut self, request_from: u64, response_from: u64) {
        while self
            .written
            .pop_front_if(|piece| piece.range.end <= request_from)
            .is_some()
        {}
        if let Some(from) = &mut self.written_from {
            *from = (*from).max(request_from);
        }
        while let Some(passed) = self.passed.front()
            && passed.range.end <= response_from
            && self.passed.len() > 1
        {
            self.passed_from = passed.range.end;
            self.passed.pop_front();
        }
    }
}

/// To whom a byte of the server's went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiver {
    Client {
        client: u64,
        by_memory: bool,
    },
    /// The pooler kept it.
    Nobody,
    /// It is not known any more.
    Forgotten,
}

impl Piece {
    /// The next piece says the same of the bytes behind this one.
    fn goes_on_with(&self, next: &Self) -> bool {
        let same = (self.turn, self.sole, self.logs_in) == (next.turn, next.sole, next.logs_in);
        let goes_on = match (self.source, next.source) {
            (
                Source::Client { client, offset },
                Source::Client {
                    client: other,
                    offset: behind,
                },
            ) => client == other && offset + (self.range.end - self.range.start) == behind,
            (own, other) => own == other,
        };
        same && goes_on && self.range.end == next.range.start
    }
}
