//! A connection that is encrypted: at the socket there is cipher text; the plaintext comes from the server's own
//! encryption functions, as another channel with offsets of its own.

use std::sync::Arc;

use ebpf_abi::{CloseFact, SOCKET_PROBED_GSS, SOCKET_PROBED_TLS, SegmentHeader};
use pg_wire::{Direction, EncryptionKind, Nanos, Session};

use crate::{
    assertions::Assertions,
    connection::{Connection, Kept, Recorder, read},
    event::{Body, Gap, Unreadable},
    handshake::Handshake,
    stream::ByteStream,
};

/// Where a connection's plaintext comes from, and what is known of its encryption.
pub(crate) struct Encrypted {
    /// An [`ebpf_abi::Channel`].
    pub(crate) channel: u8,
    /// Flags of the socket that say which of the server's functions were probed.
    probed: u8,
    /// The server's side of a TLS handshake, while its front is looked at.
    handshake: Option<Box<Handshake>>,
    /// Encryption was agreed on, and it has not been told that it cannot be read.
    awaited: Option<EncryptionKind>,
    /// Encrypted bytes that went by since.
    unread: u64,
    /// What a session may keep, for the one that begins with the plaintext.
    pub(crate) kept: Kept,
}

/// Encrypted bytes that cannot be handshakes alone: certificates take some kilobytes.
const HANDSHAKE_BYTES: u64 = 64 * 1024;

const SOCKET: u8 = ebpf_abi::Channel::Socket as u8;

impl Encrypted {
    pub(crate) fn new(socket_flags: u8, kept: Kept) -> Self {
        Self {
            channel: SOCKET,
            probed: socket_flags,
            handshake: None,
            awaited: None,
            unread: 0,
            kept,
        }
    }

    /// Whether it has still to be seen if anything can be read.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }
}

impl Connection {
    /// Encryption was agreed on.
    pub(crate) fn encryption(&mut self, at: Nanos, kind: EncryptionKind, recorder: &mut Recorder) {
        Arc::make_mut(&mut self.facts).encryption = Some(kind);
        let flag = match kind {
            EncryptionKind::Tls => SOCKET_PROBED_TLS,
            EncryptionKind::Gss => SOCKET_PROBED_GSS,
        };
        if kind == EncryptionKind::Tls {
            self.encrypted.handshake = Some(Box::default());
        }
        self.encrypted.awaited = Some(kind);
        if self.encrypted.probed & flag == 0 {
            self.opaque(at, Unreadable::NotProbed, recorder);
        }
    }

    /// Bytes at the socket of a connection that is encrypted.
    pub(crate) fn cipher_text(
        &mut self,
        at: Nanos,
        direction: Direction,
        bytes: &[u8],
        recorder: &mut Recorder,
    ) {
        if direction == Direction::Backend
            && let Some(handshake) = &mut self.encrypted.handshake
            && let Some(agreed) = handshake.take(bytes)
        {
            let facts = Arc::make_mut(&mut self.facts);
            facts.tls_version = Some(agreed.version);
            facts.tls_cipher = agreed.cipher;
            self.encrypted.handshake = None;
        }
        self.encrypted.unread += bytes.len() as u64;
        if self.encrypted.unread > HANDSHAKE_BYTES {
            self.opaque(at, Unreadable::NoPlaintext, recorder);
        }
    }

    /// Whether a segment's channel is the one that is read. Plaintext takes the place of the socket's bytes for good.
    pub(crate) fn is_of_channel(&mut self, header: &SegmentHeader) -> bool {
        if header.channel == self.encrypted.channel {
            return true;
        }
        if self.encrypted.channel != SOCKET {
            return false;
        }
        self.read_plaintext(header.channel);
        true
    }

    /// The connection is over: what the kernel side counted of the channel that is read.
    pub(crate) fn ends(&mut self, close: &CloseFact) -> (u64, u64) {
        if close.channel != SOCKET && self.encrypted.channel == SOCKET {
            // Plaintext was read, and none of it got here.
            self.read_plaintext(close.channel);
        }
        if self.encrypted.channel == SOCKET {
            (close.received, close.sent)
        } else {
            (close.plain_received, close.plain_sent)
        }
    }

    /// The connection is over and nothing was read of it under encryption.
    pub(crate) fn ended_unread(&mut self, at: Nanos, recorder: &mut Recorder) {
        self.opaque(at, Unreadable::NothingSaid, recorder);
    }

    /// Some plaintext went by unseen before this place, and nobody knows how much.
    pub(crate) fn probe_missed(
        &mut self,
        at: Nanos,
        direction: Direction,
        offset: u64,
        recorder: &mut Recorder,
    ) {
        let gap = Gap {
            reason: "probe_missed",
            direction,
            bytes_missing: None,
            detail: "encrypted bytes passed outside of the probed functions".to_owned(),
        };
        let told = self.event_since(self.last_heard(direction), at, Body::Gap(gap));
        recorder.events.push_back(told);
        self.session.handle_gap(direction, at, offset, None);
        self.poll(recorder);
    }

    /// Tells once that a session cannot be read.
    fn opaque(&mut self, at: Nanos, reason: Unreadable, recorder: &mut Recorder) {
        if let Some(kind) = self.encrypted.awaited.take() {
            recorder
                .events
                .push_back(self.event(at, Body::Opaque { kind, reason }));
        }
    }

    fn read_plaintext(&mut self, channel: u8) {
        let (kind, flag) = if channel == ebpf_abi::Channel::Tls as u8 {
            (EncryptionKind::Tls, SOCKET_PROBED_TLS)
        } else {
            (EncryptionKind::Gss, SOCKET_PROBED_GSS)
        };
        self.encrypted.channel = channel;
        self.encrypted.awaited = None;
        self.encrypted.handshake = None;
        Arc::make_mut(&mut self.facts).encryption = Some(kind);
        let whole = !self.facts.opened_before_attach && self.encrypted.probed & flag != 0;
        let kept = self.encrypted.kept.clone();
        let (session, stream) = if whole {
            (Session::new(kept.limits.clone()), ByteStream::from_start())
        } else {
            (Session::mid_stream(kept.limits.clone()), ByteStream::mid_stream())
        };
        self.session = read(session, &kept);
        (self.frontend, self.backend) = (stream, stream);
        self.joining = !whole;
        self.let_in |= !whole;
        if !whole {
            self.assertions = Assertions::new(true);
        }
    }
}
