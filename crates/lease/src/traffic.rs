//! A pooler's connection to a server: whose bytes it wrote there, and to whom it passed what it read.

use std::{collections::VecDeque, ops::Range};

use crate::Asked;

/// Pieces of either stream that wait for a question: those of a transaction of some thousand statements. The oldest are
/// forgotten, and questions about them answered so.
pub const PIECES: usize = 16_384;

/// Where written bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From where a client's bytes had been received: these, in its stream.
    Client {
        /// The client.
        client: u64,
        /// Place of the first byte in what the client sent.
        offset: u64,
    },
    /// From memory into which no client's bytes were received, or other ones.
    Own,
    /// As above, but calls of the thread or of the client that it was at were not seen before, or the bytes are others than
    /// were received there.
    Unsure,
    /// Nobody saw from where.
    Unknown,
}

/// Bytes that were written to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which ones.
    pub range: Range<u64>,
    /// Where they came from.
    pub source: Source,
    /// The client whose socket the thread had looked at last.
    pub turn: Option<u64>,
    /// The only client that the process had.
    pub sole: Option<u64>,
    /// The client of the turn was logging in.
    pub logs_in: bool,
}

/// Bytes of the server's that were passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which ones.
    pub range: Range<u64>,
    /// To whom; `None`: nobody saw it.
    pub client: Option<u64>,
    /// From where they had been received; else the thread had looked at this server last when it wrote to the client.
    pub by_memory: bool,
}

/// What is known of a connection, as far as it was not forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    written: VecDeque<Piece>,
    /// What is before these is not known any more, or never was.
    written_from: Option<u64>,
    written_to: u64,
    passed: VecDeque<Passed>,
    /// To whom bytes before it went is forgotten.
    passed_from: u64,
    passed_to: u64,
    read_to: u64,
    /// What was read until there has been passed on, or will not be.
    settled_to: u64,
    is_over: bool,
    /// A portion of it was handed on.
    is_told: bool,
}

/// What became known of a connection since the portion before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// There was none before: what others said of this connection is another gatherer's.
    pub is_first: bool,
    /// From there on all of [`Self::written`] is known; `None`: nothing is.
    pub written_from: Option<u64>,
    /// In order, without holes.
    pub written: Vec<Piece>,
    /// From there on all of [`Self::passed`] is known.
    pub passed_from: u64,
    /// As it was passed on.
    pub passed: Vec<Passed>,
    /// What was read until there has been passed on, or will not be.
    pub settled_to: u64,
    /// The connection is over.
    pub is_over: bool,
    /// Clients among those that are named here of whom nothing more comes.
    pub ended: Vec<u64>,
}

impl Traffic {
    /// Of a connection that begins now, or is older than whoever looks at it (`mid_stream`).
    #[must_use]
    pub fn new(mid_stream: bool) -> Self {
        Self {
            written_from: (!mid_stream).then_some(0),
            ..Self::default()
        }
    }

    /// The connection is over.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next bytes that are written stand there; `lost`: more was written before that was not told. Says whether
    /// something is missing.
    pub fn jump(&mut self, offset: u64, lost: bool) -> bool {
        let missing = self.written_from.is_some() && (offset != self.written_to || lost);
        if self.written_from.is_none() || offset < self.written_to {
            // It cannot go back: what is known is of something else.
            self.written.clear();
            self.written_from = Some(offset);
        } else if missing {
            self.wrote(Piece {
                range: self.written_to..offset,
                source: Source::Unknown,
                turn: None,
                sole: None,
                logs_in: false,
            });
        }
        self.written_to = offset;
        missing
    }

    /// Bytes were written.
    pub fn wrote(&mut self, piece: Piece) {
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

    /// Bytes were read there. Whoever reads on is done with what it had read; says whether some were missed.
    pub fn read(&mut self, offset: u64, length: u64) -> bool {
        self.settled_to = self.read_to;
        let missed = offset != self.read_to;
        if offset > self.read_to {
            self.unseen(self.read_to..offset);
        }
        self.read_to = offset.saturating_add(length);
        missed
    }

    /// What was read has been passed on, or will not be.
    pub fn settle(&mut self) {
        self.settled_to = self.read_to;
    }

    /// Calls were not seen: whatever was read and not passed on may have been.
    pub fn lost(&mut self) {
        let from = self.passed_to.max(self.settled_to);
        if from < self.read_to {
            self.unseen(from..self.read_to);
        }
    }

    fn unseen(&mut self, range: Range<u64>) {
        self.passed(Passed {
            range,
            client: None,
            by_memory: false,
        });
    }

    /// Bytes were passed on.
    pub fn passed(&mut self, passed: Passed) {
        self.passed_to = self.passed_to.max(passed.range.end);
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
            self.passed_from = self.passed_from.max(oldest.range.end);
        }
        self.passed.push_back(passed);
    }

    /// The client was sent something, and not from where this server's bytes lay: what of them nobody got yet. Says
    /// whether there was anything.
    pub fn passed_somehow(&mut self, client: u64) -> bool {
        let range = self.passed_to.max(self.settled_to)..self.read_to;
        let is_any = !range.is_empty();
        if is_any {
            self.passed(Passed {
                range,
                client: Some(client),
                by_memory: false,
            });
        }
        is_any
    }

    /// What was written in a range, in order; `None` if not all of it has been seen yet.
    pub(crate) fn written(&self, range: &Range<u64>) -> Option<impl Iterator<Item = &Piece>> {
        let first = self
            .written
            .partition_point(|piece| piece.range.end <= range.start);
        let end = range.end;
        let pieces = self.written.range(first..);
        (self.written_to >= end).then(|| pieces.take_while(move |piece| piece.range.start < end))
    }

    /// Whether everything that was written from an offset on is known still.
    #[must_use]
    pub fn knows(&self, from: u64) -> bool {
        self.written_from.is_some_and(|known| known <= from)
    }

    /// To whom the byte before an offset was passed; `None` if that is not sure yet.
    #[must_use]
    pub fn receiver(&self, to: u64) -> Option<Receiver> {
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
            Some(Passed {
                client: Some(client),
                by_memory,
                ..
            }) => Some(Receiver::Client {
                client: *client,
                by_memory: *by_memory,
            }),
            Some(_) => Some(Receiver::Forgotten),
            None if self.settled_to >= to => Some(Receiver::Nobody),
            None => None,
        }
    }

    /// A client was passed something from behind an offset.
    #[must_use]
    pub fn passed_later(&self, client: u64, from: u64) -> bool {
        let mut later = self
            .passed
            .iter()
            .rev()
            .take_while(|passed| passed.range.end > from);
        later.any(|passed| passed.client == Some(client))
    }

    /// What is before these offsets is not asked for again.
    pub fn forget(&mut self, request_from: u64, response_from: u64) {
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
            self.passed_from = self.passed_from.max(passed.range.end);
            self.passed.pop_front();
        }
    }

    /// Pieces that wait to be handed on.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.written.len() + self.passed.len()
    }

    /// Takes out what became known since the last portion; `ended` says of whom nothing more comes.
    pub fn drain(&mut self, ended: impl Fn(u64) -> bool) -> Portion {
        let portion = Portion {
            is_first: !std::mem::replace(&mut self.is_told, true),
            written_from: self.written_from,
            written: std::mem::take(&mut self.written).into(),
            passed_from: self.passed_from,
            passed: std::mem::take(&mut self.passed).into(),
            settled_to: self.settled_to,
            is_over: self.is_over,
            ended: Vec::new(),
        };
        self.written_from = self.written_from.map(|_| self.written_to);
        self.passed_from = self.known_to();
        let mut gone = portion.clients();
        gone.retain(|client| ended(*client));
        Portion {
            ended: gone,
            ..portion
        }
    }

    /// Puts a portion behind those that came before; what lies between was not seen.
    pub fn absorb(&mut self, portion: &Portion) {
        if portion.is_first {
            *self = Self::default();
        }
        let is_fresh = !std::mem::replace(&mut self.is_told, true);
        match portion.written_from {
            Some(from) if self.written_from.is_some() && from >= self.written_to => {
                if from > self.written_to {
                    self.jump(from, false);
                }
            }
            from => {
                self.written.clear();
                self.written_from = from;
                self.written_to = from.unwrap_or_default();
            }
        }
        if is_fresh {
            self.passed_from = portion.passed_from;
        } else if portion.passed_from > self.known_to() {
            self.unseen(self.known_to()..portion.passed_from);
        }
        for piece in &portion.written {
            self.wrote(piece.clone());
        }
        for passed in &portion.passed {
            self.passed(passed.clone());
        }
        self.settled_to = self.settled_to.max(portion.settled_to);
        self.read_to = self.read_to.max(self.settled_to);
        self.is_over |= portion.is_over;
    }

    /// Of what lies before it no portion behind tells.
    fn known_to(&self) -> u64 {
        self.passed_to.max(self.settled_to).max(self.passed_from)
    }
}

impl Portion {
    /// Whether it says anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.passed.is_empty() && !self.is_over
    }

    /// Whether it, and all behind it, are enough to decide.
    #[must_use]
    pub fn begins_before(&self, asked: &Asked) -> bool {
        self.written_from.is_some_and(|from| from <= asked.request.start)
            && asked.response_to.is_none_or(|to| self.passed_from < to)
    }

    /// The clients that it names, each once.
    #[must_use]
    pub fn clients(&self) -> Vec<u64> {
        let mut clients = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let written = self.written.iter().flat_map(|piece| {
            let source = match piece.source {
                Source::Client { client, .. } => Some(client),
                _ => None,
            };
            [source, piece.turn, piece.sole]
        });
        let passed = self.passed.iter().map(|passed| passed.client);
        for client in written.chain(passed).flatten() {
            if seen.insert(client) {
                clients.push(client);
            }
        }
        clients
    }
}

/// To whom a byte of the server's went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// To a client.
    Client {
        /// Which one.
        client: u64,
        /// As in [`Passed`].
        by_memory: bool,
    },
    /// The pooler kept it.
    Nobody,
    /// It is not known any more, or was not seen.
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
            ) => client == other && offset.checked_add(self.range.end - self.range.start) == Some(behind),
            (own, other) => own == other,
        };
        same && goes_on && self.range.end == next.range.start
    }
}
