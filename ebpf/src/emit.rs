//! Writing records to the rings, and counting what did not fit.
//!
//! Records are built in the ring itself: nothing is copied twice, and no buffer is shared that a program on the same
//! processor could overwrite half-way (probes in user space can be preempted).

use core::{arch::asm, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated::{bpf_probe_read_user, bpf_ringbuf_query},
};
use ebpf_abi::{CHUNK_MAX, Counter, ENVIRONMENT_MAX, EnvironmentFact, Record, SegmentHeader};

use crate::maps::{COUNTERS, FACTS, SEGMENTS};

#[inline(always)]
pub fn count(counter: Counter, by: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // The target has the instruction, but the compiler gives it no atomic type yet.
        // SAFETY: a slot that the lookup proved, aligned like every array value.
        unsafe {
            asm!("lock *(u64 *)({value} + 0) += {by}", value = in(reg) value, by = in(reg) by);
        }
    }
}

#[inline(always)]
pub fn fact<T: Record + 'static>(record: &T) -> bool {
    fact_with(|room: &mut MaybeUninit<T>| {
        room.write(*record);
        Some(())
    })
}

/// Builds a fact in place; `None` gives its room back. False if it was not told.
#[inline(always)]
pub fn fact_with<T: Record + 'static>(fill: impl FnOnce(&mut MaybeUninit<T>) -> Option<()>) -> bool {
    let Some(mut entry) = FACTS.reserve_untyped::<T>(0) else {
        count(Counter::FactsLost, 1);
        return false;
    };
    if fill(&mut entry).is_none() {
        entry.discard(0);
        return false;
    }
    entry.submit(0);
    true
}

#[repr(C)]
struct Environment<const ROOM: usize> {
    fact: EnvironmentFact,
    variables: [u8; ROOM],
}

/// Writes an environment with its bytes from user memory.
#[inline(always)]
pub fn environment(fact: &EnvironmentFact, from: u64) -> Option<()> {
    const SMALL: usize = 2 * 1024;
    const MIDDLE: usize = 8 * 1024;
    let length = fact.length as usize;
    if length <= SMALL {
        return write_environment::<SMALL>(fact, from);
    }
    if length <= MIDDLE {
        return write_environment::<MIDDLE>(fact, from);
    }
    write_environment::<ENVIRONMENT_MAX>(fact, from)
}

#[inline(always)]
fn write_environment<const ROOM: usize>(fact: &EnvironmentFact, from: u64) -> Option<()> {
    let Some(mut entry) = FACTS.reserve_untyped::<Environment<ROOM>>(0) else {
        count(Counter::FactsLost, 1);
        return None;
    };
    let room = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record.
    unsafe { (*room).fact = *fact };
    // As for payload.
    let mut bounded = core::hint::black_box(fact.length) & (2 * ENVIRONMENT_MAX as u32 - 1);
    if bounded > ROOM as u32 {
        bounded = ROOM as u32;
    }
    // SAFETY: there is room for that many bytes, and the helper copies with fault handling.
    let copied = unsafe {
        bpf_probe_read_user(
            ptr::addr_of_mut!((*room).variables).cast(),
            bounded,
            from as *const _,
        )
    };
    if copied != 0 {
        entry.discard(0);
        return None;
    }
    entry.submit(0);
    Some(())
}

/// What became of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Yes,
    RingFull,
    CopyFault,
}

#[repr(C)]
struct Sized<const ROOM: usize> {
    header: SegmentHeader,
    payload: [u8; ROOM],
}

/// Payload bytes of the records of each size; with the header they are powers of two where that matters.
const SMALL: usize = 256 - size_of::<SegmentHeader>();
const MIDDLE: usize = 1024 - size_of::<SegmentHeader>();
const LARGE: usize = 4096 - size_of::<SegmentHeader>();
/// What a backend reads or writes at once.
const BUFFER: usize = 8192;

/// Writes a segment: the header and `size` bytes from user memory.
#[inline(always)]
pub fn segment(header: &SegmentHeader, from: u64, size: u32) -> Written {
    let bytes = size as usize;
    if bytes <= SMALL {
        return write::<SMALL>(header, from, size, BPF_RB_NO_WAKEUP);
    }
    if bytes <= MIDDLE {
        return write::<MIDDLE>(header, from, size, BPF_RB_NO_WAKEUP);
    }
    if bytes <= LARGE {
        return write::<LARGE>(header, from, size, BPF_RB_NO_WAKEUP);
    }
    let fill = Fill::now();
    // Bulk data may not take the last quarter: a flood of it on one connection cannot push out others' statements.
    if fill.waiting > fill.size - fill.size / 4 {
        count(Counter::RingFull, 1);
        count(Counter::RingFullBytes, u64::from(size));
        return Written::RingFull;
    }
    // The reader comes by at least every 20 ms, so that nobody is woken for a record: an interrupt costs more than
    // all the rest. Only bulk data can fill the ring before.
    let wake = if fill.waiting > fill.size / 4 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    if bytes <= BUFFER {
        return write::<BUFFER>(header, from, size, wake);
    }
    write::<CHUNK_MAX>(header, from, size, wake)
}

/// Writes a segment without payload.
#[inline(always)]
pub fn notice(header: &SegmentHeader) -> Written {
    write::<0>(header, 0, 0, BPF_RB_NO_WAKEUP)
}

#[inline(always)]
fn write<const ROOM: usize>(header: &SegmentHeader, from: u64, size: u32, wake: u32) -> Written {
    let Some(mut entry) = SEGMENTS.reserve_untyped::<Sized<ROOM>>(0) else {
        count(Counter::RingFull, 1);
        count(Counter::RingFullBytes, u64::from(size));
        return Written::RingFull;
    };
    let room = entry.as_mut_ptr();
    // SAFETY: the ring gave room for a whole record.
    unsafe { (*room).header = *header };
    if ROOM > 0 {
        // Masked behind the compiler's back, so that the verifier sees a bound which that cannot reason away.
        let mut bounded = core::hint::black_box(size) & (2 * CHUNK_MAX as u32 - 1);
        if bounded > ROOM as u32 {
            bounded = ROOM as u32;
        }
        // SAFETY: the payload has room for that many bytes, and the helper copies with fault handling.
        let copied = unsafe {
            bpf_probe_read_user(
                ptr::addr_of_mut!((*room).payload).cast(),
                bounded,
                from as *const _,
            )
        };
        if copied != 0 {
            entry.discard(0);
            count(Counter::CopyFault, 1);
            return Written::CopyFault;
        }
    }
    entry.submit(u64::from(wake));
    Written::Yes
}

/// Bytes of the segment ring that wait to be read, of how many.
struct Fill {
    waiting: u64,
    size: u64,
}

impl Fill {
    #[inline(always)]
    fn now() -> Self {
        let ring = ptr::from_ref(&SEGMENTS).cast_mut().cast();
        // SAFETY: the map is valid for the life of the program.
        unsafe {
            Self {
                waiting: bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)),
                size: bpf_ringbuf_query(ring, u64::from(BPF_RB_RING_SIZE)),
            }
        }
    }
}
