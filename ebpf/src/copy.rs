//! Bytes of user memory into segments: one buffer or several, cut into pieces, with what could not be had reported.

use core::ptr;

use ebpf_abi::{
    CHUNK_MAX, CHUNKS_MAX, Client, Counter, Direction, LOST_RECEIVED, LOST_SENT, MissingReason,
    SegmentHeader, Walk,
};

use crate::{
    call::read_user,
    emit::{self, Written},
};

/// Copies `length` bytes from where `walk` stands. `header` is complete but for offset, length and what is missing.
///
/// The position is read back from the map in every turn: so the verifier takes it for any value, and walks each turn
/// once.
#[inline(always)]
pub fn copy(client: &mut Client, walk: *mut Walk, header: &mut SegmentHeader, offset: u64, length: u32) {
    for _ in 0..CHUNKS_MAX {
        // SAFETY: `walk` points into a map value that a lookup proved.
        let Walk {
            mut base,
            mut left,
            vector,
            vectors,
            done,
        } = unsafe { ptr::read_volatile(walk) };
        if done >= u64::from(length) {
            return;
        }
        let behind = length - done as u32;
        if left == 0 {
            let next = if vectors == 0 {
                None
            } else {
                // `struct iovec`: base, length
                read_user::<u64>(vector).zip(read_user::<u64>(vector + 8))
            };
            let Some((next_base, next_left)) = next else {
                emit::count(Counter::UnsupportedCall, 1);
                return missing(
                    client,
                    header,
                    offset + done,
                    behind,
                    MissingReason::UnsupportedCall,
                );
            };
            (base, left) = (next_base, next_left);
            // SAFETY: as above.
            unsafe {
                ptr::write_volatile(&raw mut (*walk).vector, vector + 16);
                ptr::write_volatile(&raw mut (*walk).vectors, vectors - 1);
            }
        }
        let mut size = if left < u64::from(behind) {
            left as u32
        } else {
            behind
        };
        if size > CHUNK_MAX as u32 {
            size = CHUNK_MAX as u32;
        }
        if size > 0 {
            header.offset = offset + done;
            header.length = size;
            match emit::segment(header, base, size) {
                Written::Yes => taken(client, header),
                Written::RingFull => full(client, header),
                Written::CopyFault => {
                    return missing(client, header, offset + done, behind, MissingReason::CopyFault);
                }
            }
        }
        // SAFETY: as above.
        unsafe {
            ptr::write_volatile(&raw mut (*walk).base, base + u64::from(size));
            ptr::write_volatile(&raw mut (*walk).left, left - u64::from(size));
            ptr::write_volatile(&raw mut (*walk).done, done + u64::from(size));
        }
    }
    // SAFETY: as above.
    let done = unsafe { ptr::read_volatile(&raw const (*walk).done) };
    if done < u64::from(length) {
        emit::count(Counter::CallCap, 1);
        missing(
            client,
            header,
            offset + done,
            length - done as u32,
            MissingReason::CallCap,
        );
    }
}

/// Writes a segment without payload that says what is missing.
#[inline(always)]
pub fn missing(
    client: &mut Client,
    header: &mut SegmentHeader,
    offset: u64,
    bytes: u32,
    reason: MissingReason,
) {
    header.offset = offset;
    header.length = 0;
    header.missing = bytes;
    header.reason = reason as u8;
    match emit::notice(header) {
        Written::Yes => taken(client, header),
        _ => full(client, header),
    }
}

/// What was lost before has been told with this segment: of its own direction.
#[inline(always)]
fn taken(client: &mut Client, header: &mut SegmentHeader) {
    client.lost &= !header.flags;
    header.flags = 0;
}

/// What comes next in this direction tells that the ring was full.
#[inline(always)]
fn full(client: &mut Client, header: &mut SegmentHeader) {
    let lost = if header.direction == Direction::Received as u8 {
        LOST_RECEIVED
    } else {
        LOST_SENT
    };
    client.lost |= lost;
    header.flags |= lost;
}
