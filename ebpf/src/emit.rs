//! Writing records to the rings, and counting what did not fit.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use ebpf_abi::{Counter, Record};

use crate::maps::{COUNTERS, FACTS, SEGMENTS, Scratch};

#[inline(always)]
pub fn count(counter: Counter, by: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU slot that the lookup proved; programs on one CPU do not preempt each other here,
        // and an interrupt that does can only make the count late, in another slot.
        unsafe { *value += by };
    }
}

#[inline(always)]
pub fn fact<T: Record>(record: &T) {
    // SAFETY: the map is valid for the life of the program, and the record is initialised without padding.
    let result = unsafe {
        bpf_ringbuf_output(
            ptr::from_ref(&FACTS).cast_mut().cast(),
            ptr::from_ref(record).cast_mut().cast(),
            size_of::<T>() as u64,
            0,
        )
    };
    if result < 0 {
        count(Counter::FactsLost, 1);
    }
}

/// Writes the scratch's header and `length` bytes of its payload. `length` must be at most `CHUNK_MAX`.
#[inline(always)]
pub fn segment(scratch: *mut Scratch, length: u64) -> bool {
    let size = size_of::<ebpf_abi::SegmentHeader>() as u64 + length;
    // SAFETY: the scratch is larger than any size that the caller's bound allows; the verifier checks it.
    let result = unsafe {
        bpf_ringbuf_output(
            ptr::from_ref(&SEGMENTS).cast_mut().cast(),
            scratch.cast(),
            size,
            0,
        )
    };
    if result < 0 {
        count(Counter::RingFull, 1);
        return false;
    }
    count(Counter::Segments, 1);
    count(Counter::Bytes, length);
    true
}
