//! The tap in the server's encryption functions (`be_tls_read` and its like in `src/backend/libpq`): their plaintext,
//! emitted at return with the length that was really taken.
//!
//! An entry that a `longjmp` left without return is overwritten by the thread's next one.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    programs::{ProbeContext, RetProbeContext},
};
use ebpf_abi::{
    Channel, Counter, Direction, PROBE_MISSED_RECEIVED, PROBE_MISSED_SENT, ProbedCall, Target, Walk,
};

use crate::{copy, emit, maps::TARGETS, tap};

/// `ssize_t f(Port *port, void *buffer, size_t length, …)` is entered.
pub fn entered(ctx: &ProbeContext, channel: Channel, direction: Direction) {
    let ids = bpf_get_current_pid_tgid();
    let Some(target) = TARGETS.get_ptr_mut((ids >> 32) as u32) else {
        return;
    };
    // SAFETY: the lookup proved the value; a process' entry is used by its own thread, and by nobody else at once.
    let target = unsafe { &mut *target };
    target.call = ProbedCall {
        buffer: ctx.arg::<u64>(1).unwrap_or(0),
        thread: ids as u32,
        channel: channel as u8,
        direction: direction as u8,
        reserved: 0,
    };
}

/// The function that was entered last returns. One program serves all of them, because the entry says which it was.
pub fn returned(ctx: &RetProbeContext) {
    let ids = bpf_get_current_pid_tgid();
    let Some(target) = TARGETS.get_ptr_mut((ids >> 32) as u32) else {
        return;
    };
    // SAFETY: as above.
    let target = unsafe { &mut *target };
    let call = target.call;
    target.call.thread = 0;
    if call.thread != ids as u32 {
        return;
    }
    let length: i64 = ctx.ret::<u64>() as i64;
    if length > 0 && length <= i64::from(i32::MAX) {
        let direction = if call.direction == Direction::Received as u8 {
            Direction::Received
        } else {
            Direction::Sent
        };
        transferred(target, ids, direction, call.buffer, length as u32);
    }
}

#[inline(always)]
fn transferred(target: &mut Target, ids: u64, direction: Direction, buffer: u64, length: u32) {
    let client = &mut target.client;
    if client.cookie == 0 || client.channel == Channel::Socket as u8 {
        // No call on its socket was seen since the tap was attached: what was buffered before.
        emit::count(Counter::PlaintextUnplaced, u64::from(length));
        return;
    }
    if client.outside > 0 {
        // It was no goodbye.
        emit::count(Counter::ProbeMissed, client.outside);
        client.outside = 0;
        client.lost |= PROBE_MISSED_RECEIVED | PROBE_MISSED_SENT;
    }
    let position = match direction {
        Direction::Received => &mut client.plain_received,
        Direction::Sent => &mut client.plain_sent,
    };
    let offset = *position;
    *position += u64::from(length);
    let mut header = tap::header(client, (ids >> 32) as u32, direction);
    target.walk = Walk {
        base: buffer,
        left: u64::MAX,
        vector: 0,
        vectors: 0,
        done: 0,
    };
    let walk = &raw mut target.walk;
    copy::copy(&mut target.client, walk, &mut header, offset, length);
}
