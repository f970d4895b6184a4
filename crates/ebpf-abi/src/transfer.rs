//! Socket calls of a process that passes statements on: no payload, but from or into which memory, and in which order.

use crate::Record;

/// Bytes of a call's front that are in its record: type and length of a message, and what follows. Enough to see that bytes
/// that were written are those that were received, as far as memory and order say so already.
pub const FRONT: usize = 16;

/// Buffers of one vectored call that are told, a record each; what is beyond is told as one record without a buffer.
pub const BUFFERS_MAX: u32 = 16;

/// A call of a pooler's thread on one of its sockets: bytes that it received or sent, or that there were none.
///
/// All records of a thread, in the order of `order`, are what it did with its sockets: a hole in that order is a loss.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// When the call returned, in nanoseconds since boot.
    pub at: u64,
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// Offset of the first byte in the plaintext stream of this direction, from 0 at the start of the connection.
    pub offset: u64,
    /// Address of the first byte in the process' memory, also where there was none to receive; 0 if that is not known or not
    /// proven.
    pub buffer: u64,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub thread: u32,
    /// Number of this record among those of its thread, from 1.
    pub order: u32,
    /// Bytes; 0 if there were none ([`TRANSFER_NONE`], [`TRANSFER_END`]).
    pub length: u32,
    /// The first bytes; what is behind `length` is zero.
    pub front: [u8; FRONT],
    /// A [`crate::Direction`], seen from the pooler.
    pub direction: u8,
    /// A [`crate::Channel`].
    pub channel: u8,
    /// Or'ed [`TRANSFER_NONE`], [`TRANSFER_END`], [`TRANSFER_LOST`], [`TRANSFER_UNPROVEN`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for Transfer {}

/// Flag of [`Transfer`]: the socket had nothing to give, or took nothing (`EAGAIN`).
pub const TRANSFER_NONE: u8 = 1;

/// Flag of [`Transfer`]: the other end has closed, or the connection failed.
pub const TRANSFER_END: u8 = 2;

/// Flag of [`Transfer`]: bytes of this socket passed before it, in this direction, in calls that were not told.
pub const TRANSFER_LOST: u8 = 4;

/// Flag of [`Transfer`]: the buffer is not proven to be this socket's, so that `buffer` and `front` are zero.
pub const TRANSFER_UNPROVEN: u8 = 8;

const _: () = assert!(size_of::<Transfer>() == 72);
