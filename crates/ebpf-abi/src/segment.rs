//! Payload as it passed a socket call.

use crate::Record;

/// Bytes in one segment at the most: what a backend reads or writes at once (8 KiB) fits twice.
pub const CHUNK_MAX: usize = 16 * 1024;

/// Segments that one socket call may be cut into; what is beyond is reported as missing. Bounds the work that
/// is done inside a system call of the server: 1 MiB.
pub const CHUNKS_MAX: u32 = 64;

/// Which way bytes went, seen from the tapped process.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received by the tapped process.
    Received = 0,
    /// Sent by the tapped process.
    Sent = 1,
}

impl Direction {
    /// The flags that are about this direction.
    #[inline(always)]
    pub const fn lost(self) -> u8 {
        match self {
            Self::Received => LOST_RECEIVED | PROBE_MISSED_RECEIVED,
            Self::Sent => LOST_SENT | PROBE_MISSED_SENT,
        }
    }
}

/// Why bytes of a call are not in the segment.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// Nothing is missing.
    None = 0,
    /// The payload could not be copied from user memory.
    CopyFault = 1,
    /// The buffer of the call is not known, or not proven to belong to this socket.
    UnsupportedCall = 2,
    /// The call was longer than [`CHUNKS_MAX`] segments.
    CallCap = 3,
}

/// Where the bytes were taken.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// At the socket.
    Socket = 0,
    /// In the server's TLS functions: plaintext.
    Tls = 1,
    /// In the server's GSSAPI functions: plaintext.
    Gss = 2,
}

/// Flag: received bytes before this place found the ring full.
pub const LOST_RECEIVED: u8 = 1;

/// Flag: sent bytes before this place found the ring full.
pub const LOST_SENT: u8 = 2;

/// Flag: encrypted bytes passed outside of any probed function, so received plaintext may have been missed; nobody knows
/// how much.
pub const PROBE_MISSED_RECEIVED: u8 = 4;

/// Flag: the same of sent plaintext.
pub const PROBE_MISSED_SENT: u8 = 8;

/// The front of every record in the segment ring; `length` payload bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SegmentHeader {
    /// When the call returned.
    pub at: u64,
    /// The kernel's socket cookie: unique on this host until it restarts.
    pub cookie: u64,
    /// Offset of the first byte in this direction's stream, from 0 at the start of the connection.
    pub offset: u64,
    /// The tapped process.
    pub tgid: u32,
    /// Payload bytes that follow.
    pub length: u32,
    /// Bytes of the call, behind the payload, that were not captured.
    pub missing: u32,
    /// A [`Direction`].
    pub direction: u8,
    /// A [`MissingReason`].
    pub reason: u8,
    /// A [`Channel`].
    pub channel: u8,
    /// Or'ed flags: why bytes before this record are missing, if some are.
    pub flags: u8,
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for SegmentHeader {}

const _: () = assert!(size_of::<SegmentHeader>() == 40);
