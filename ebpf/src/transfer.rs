//! Writing what poolers did: a record for each buffer of a call, numbered by thread.

use core::{mem::offset_of, ptr};

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
pub fn each_buffer(lost: &mut u8, thread: *mut Thread, about: &About, whole: &Buffer) {
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
        if done >= u64::from(whole.length) {
            return;
        }
        let behind = whole.length - done as u32;
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
                offset: whole.offset + done,
            };
            give(lost, thread, about, &buffer);
        }
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*walk).done, done + u64::from(size)) };
    }
}

/// Whether a call has several buffers.
#[inline(always)]
pub fn is_vectored(thread: *mut Thread) -> bool {
    // SAFETY: a lookup proved the value.
    unsafe { (*thread).walk.left == 0 }
}

/// Address of the first buffer of a call.
#[inline(always)]
pub fn first_buffer(thread: *mut Thread) -> u64 {
    // SAFETY: a lookup proved the value.
    let walk = unsafe { &(*thread).walk };
    if is_vectored(thread) {
        return read_user(walk.vector).unwrap_or(0);
    }
    walk.base
}

/// Bytes that lie together.
pub struct Buffer {
    /// Their address; 0 if it is not known.
    pub at: u64,
    pub length: u32,
    /// Where they stand in the stream.
    pub offset: u64,
}

/// A call, as all of its records tell it.
pub struct About {
    /// When it returned.
    pub at: u64,
    pub cookie: u64,
    pub tgid: u32,
    pub thread: u32,
    pub direction: u8,
    pub channel: u8,
    pub flags: u8,
}

/// Writes a record. `lost` is what was lost of its connection.
#[inline(always)]
pub fn give(lost: &mut u8, thread: *mut Thread, about: &About, buffer: &Buffer) {
    let here = flag(about.direction == Direction::Received as u8);
    let order = next(thread);
    let Some(mut entry) = TRANSFERS.reserve_untyped::<Transfer>(0) else {
        if buffer.length > 0 {
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
    let room = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record.
    unsafe {
        (*room).at = about.at;
        (*room).cookie = about.cookie;
        (*room).offset = buffer.offset;
        (*room).buffer = buffer.at;
        (*room).tgid = about.tgid;
        (*room).thread = about.thread;
        (*room).order = order;
        (*room).length = buffer.length;
        clear_front(room);
        if buffer.length > 0 && !copy_front(room, buffer) {
            (*room).buffer = 0;
            clear_front(room);
            flags |= TRANSFER_UNPROVEN;
        }
        let ends = [about.direction, about.channel, flags, 0, 0, 0, 0, 0];
        (&raw mut (*room).direction)
            .cast::<u64>()
            .write_volatile(u64::from_ne_bytes(ends));
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// In words, and volatile: the compiler would write it byte by byte, in a loop.
#[inline(always)]
unsafe fn clear_front(room: *mut Transfer) {
    const _: () = assert!(offset_of!(Transfer, front) % 8 == 0 && FRONT == 16);
    const _: () = assert!(offset_of!(Transfer, direction) + 8 == size_of::<Transfer>());
    // SAFETY: the caller has room for a record, aligned like all in a ring.
    unsafe {
        let words = (&raw mut (*room).front).cast::<u64>();
        words.write_volatile(0);
        words.add(1).write_volatile(0);
    }
}

/// Copies the first bytes of a buffer. False if its address is not known, or there is nothing.
#[inline(always)]
unsafe fn copy_front(room: *mut Transfer, buffer: &Buffer) -> bool {
    if buffer.at == 0 {
        return false;
    }
    // Masked behind the compiler's back, so that the verifier sees a bound which that cannot reason away.
    let mut bounded = core::hint::black_box(buffer.length) & (2 * FRONT as u32 - 1);
    if buffer.length > FRONT as u32 || bounded > FRONT as u32 {
        bounded = FRONT as u32;
    }
    // SAFETY: the record has room for that many bytes, and the helper copies with fault handling.
    let copied = unsafe {
        let front = (&raw mut (*room).front).cast();
        bpf_probe_read_user(front, bounded, buffer.at as *const _)
    };
    if copied != 0 {
        emit::count(Counter::CopyFault, 1);
    }
    copied == 0
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
