//! Writing what poolers did: a record for each buffer of a call, numbered by thread.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_probe_read_user,
};
use ebpf_abi::{
    BUFFERS_MAX, Counter, Direction, FRONT, LOST_RECEIVED, LOST_SENT, TRANSFER_LOST, TRANSFER_UNPROVEN,
    Transfer, Walk,
};

use crate::{
    call::read_user,
    emit,
    maps::{Encrypting, THREADS, TRANSFERS, Thread},
};

/// What is kept of the calling thread.
#[inline(always)]
pub fn thread(id: u32) -> Option<*mut Thread> {
    if let Some(kept) = THREADS.get_ptr_mut(id) {
        return Some(kept);
    }
    let new = Thread {
        order: 0,
        said: 0,
        call: Encrypting::default(),
        walk: Walk::default(),
    };
    THREADS.insert(id, new, u64::from(BPF_ANY)).ok()?;
    THREADS.get_ptr_mut(id)
}

/// What is kept of the calling thread, if something is.
#[inline(always)]
pub fn known_thread(id: u32) -> Option<*mut Thread> {
    THREADS.get_ptr_mut(id)
}

/// The number of a thread's next record.
#[inline(always)]
pub fn next(thread: *mut Thread) -> u32 {
    // SAFETY: a lookup proved the value; it is the calling thread's own.
    unsafe {
        (*thread).order = (*thread).order.wrapping_add(1);
        (*thread).order
    }
}

/// One record for each buffer of the call. The position is read back from the map in every turn, as in `copy`.
#[inline(always)]
pub fn each_buffer(lost: &mut u8, thread: *mut Thread, transfer: &Transfer) {
    // SAFETY: a lookup proved the value.
    let walk = unsafe { &raw mut (*thread).walk };
    for turn in 0..=BUFFERS_MAX {
        // SAFETY: as above.
        let Walk {
            base,
            left,
            vector,
            vectors,
            done,
        } = unsafe { ptr::read_volatile(walk) };
        if done >= u64::from(transfer.length) {
            return;
        }
        let behind = transfer.length - done as u32;
        let (mut at, mut size) = (base, behind);
        if left == 0 {
            let next = if vectors == 0 || turn == BUFFERS_MAX {
                None
            } else {
                // `struct iovec`: base, length
                read_user::<[u64; 2]>(vector)
            };
            at = 0;
            if let Some([base, length]) = next {
                at = base;
                if length < u64::from(behind) {
                    size = length as u32;
                }
            }
            // SAFETY: as above.
            unsafe {
                ptr::write_volatile(&raw mut (*walk).vector, vector + 16);
                ptr::write_volatile(&raw mut (*walk).vectors, vectors.wrapping_sub(1));
            }
        }
        if size > 0 {
            let buffer = Buffer {
                at,
                length: size,
                offset: transfer.offset + done,
            };
            give(lost, thread, transfer, &buffer);
        }
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*walk).done, done + u64::from(size)) };
    }
}

/// Address of the first buffer of a call that moved nothing.
#[inline(always)]
pub fn first_buffer(thread: *mut Thread) -> u64 {
    // SAFETY: a lookup proved the value.
    let walk = unsafe { &(*thread).walk };
    if walk.left != 0 {
        return walk.base;
    }
    read_user(walk.vector).unwrap_or(0)
}

/// Bytes that lie together.
pub struct Buffer {
    /// Their address; 0 if it is not known.
    pub at: u64,
    pub length: u32,
    /// Where they stand in the stream.
    pub offset: u64,
}

/// Writes a record. `lost` is what was lost of its connection.
#[inline(always)]
pub fn give(lost: &mut u8, thread: *mut Thread, about: &Transfer, buffer: &Buffer) {
    let &Buffer { at, length, offset } = buffer;
    let here = flag(about.direction == Direction::Received as u8);
    let order = next(thread);
    let Some(mut entry) = TRANSFERS.reserve_untyped::<Transfer>(0) else {
        if length > 0 {
            *lost |= here;
        }
        emit::count(Counter::TransfersLost, 1);
        return;
    };
    let mut flags = about.flags;
    if *lost & here != 0 {
        flags |= TRANSFER_LOST;
        *lost &= !here;
    }
    if length > 0 && at == 0 {
        flags |= TRANSFER_UNPROVEN;
    }
    let room = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record.
    unsafe {
        *room = Transfer {
            buffer: at,
            offset,
            order,
            length,
            flags,
            ..*about
        };
    }
    if length > 0 && at != 0 {
        // Masked behind the compiler's back, so that the verifier sees a bound which that cannot reason away.
        let mut bounded = core::hint::black_box(length) & (2 * FRONT as u32 - 1);
        if length > FRONT as u32 || bounded > FRONT as u32 {
            bounded = FRONT as u32;
        }
        // SAFETY: the record has room for that many bytes, and the helper copies with fault handling.
        unsafe {
            if bpf_probe_read_user((&raw mut (*room).front).cast(), bounded, at as *const _) != 0 {
                emit::count(Counter::CopyFault, 1);
                (*room).buffer = 0;
                (*room).front = [0; FRONT];
                (*room).flags = flags | TRANSFER_UNPROVEN;
            }
        }
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Bytes passed in this direction that are not told: the next record says so.
#[inline(always)]
pub fn lose(lost: &mut u8, direction: Direction) {
    *lost |= flag(direction as u8 == Direction::Received as u8);
}

#[inline(always)]
fn flag(received: bool) -> u8 {
    if received { LOST_RECEIVED } else { LOST_SENT }
}
