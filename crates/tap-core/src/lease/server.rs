//! A pooler's connection to a server, as its socket calls tell of it.

use std::borrow::Cow;

use ebpf_abi::{Channel, Transfer};
use lease::{Asked, Decision, Piece, Traffic};

use super::{
    alignment::{Alignment, Found, Statement},
    hidden::Hidden,
    process::{Buffer, is_encrypted},
};

/// The connection.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) channel: u8,
    /// Of a connection whose offsets are not those of the backend's end.
    pub(super) alignment: Option<Alignment>,
    mid_stream: bool,
    pub(super) buffer: Buffer,
    pub(super) hidden: Hidden,
    /// Whose bytes were written, and to whom what was read went.
    pub(super) traffic: Traffic,
    /// A client takes nothing of it now.
    pub(super) blocked: bool,
}

impl Server {
    pub(super) fn new(mid_stream: bool, counted: bool) -> Self {
        Self {
            channel: Channel::Socket as u8,
            alignment: (mid_stream && !counted).then(Alignment::default),
            mid_stream,
            buffer: Buffer::default(),
            hidden: Hidden::default(),
            traffic: Traffic::new(mid_stream),
            blocked: false,
        }
    }

    /// Whether the transfer is one of plaintext. Encrypted connections begin in the clear, and are counted anew then.
    pub(super) fn takes(&mut self, transfer: &Transfer) -> bool {
        if is_encrypted(self.channel, transfer) {
            self.channel = transfer.channel;
            self.begin_anew();
        }
        self.channel == transfer.channel
    }

    /// From here on its plaintext is another stream.
    fn begin_anew(&mut self) {
        let is_over = self.traffic.is_over();
        *self = Self {
            channel: self.channel,
            // Nobody counts plaintext but who sees all of it.
            ..Self::new(self.mid_stream, false)
        };
        if is_over {
            self.traffic.end();
        }
    }

    /// The next bytes that are written stand there; `lost`: more was written before that was not told.
    pub(super) fn jump(&mut self, offset: u64, lost: bool) {
        if self.traffic.jump(offset, lost)
            && let Some(alignment) = &mut self.alignment
        {
            alignment.lost();
        }
    }

    /// Calls were not seen.
    pub(super) fn lost(&mut self) {
        self.traffic.lost();
        if let Some(alignment) = &mut self.alignment {
            alignment.lost();
        }
    }

    pub(super) fn wrote(&mut self, piece: Piece) {
        if let Some(alignment) = &mut self.alignment {
            alignment.wrote(piece.range.start, piece.range.end);
        }
        self.traffic.wrote(piece);
    }

    pub(super) fn read(&mut self, offset: u64, length: u64, at: u64) {
        let missed = self.traffic.read(offset, length);
        if let Some(alignment) = &mut self.alignment {
            if missed {
                alignment.lost();
            }
            alignment.read(offset + length, at);
        }
        self.blocked = false;
    }

    /// The thread has left it for another socket.
    pub(super) fn left(&mut self) {
        if !self.blocked {
            self.traffic.settle();
        }
    }

    /// The question in the pooler's own offsets.
    pub(super) fn aligned<'a>(&mut self, asked: &'a Asked) -> Result<Cow<'a, Asked>, Decision> {
        if self.hidden.is_hidden() {
            // The plaintext's first bytes may be on their way.
            return Err(if asked.last || self.traffic.is_over() {
                Decision::undecided(
                    "its bytes are encrypted, and the plaintext is not seen in the pooler",
                    [],
                )
            } else {
                Decision::NotYet
            });
        }
        let Some(alignment) = &mut self.alignment else {
            return Ok(Cow::Borrowed(asked));
        };
        let found = match asked.response_to {
            Some(response_to) => alignment.look(&Statement {
                request: (asked.request.start, asked.request.end),
                response_to,
                began: asked.began,
            }),
            None => Found::Nothing,
        };
        match found {
            Found::Shift(shift) => {
                let of_pooler = |offset: u64| offset.wrapping_add(shift.request);
                Ok(Cow::Owned(Asked {
                    request: of_pooler(asked.request.start)..of_pooler(asked.request.end),
                    response_to: asked.response_to.map(|to| to.wrapping_add(shift.response)),
                    ..asked.clone()
                }))
            }
            Found::NotYet if !asked.last && !self.traffic.is_over() => Err(Decision::NotYet),
            Found::NotYet | Found::Nothing => Err(Decision::undecided(
                "the connection is older than the tap on it, and its bytes are not aligned yet",
                [],
            )),
        }
    }
}
