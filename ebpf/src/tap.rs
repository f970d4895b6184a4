//! The tap at the socket: bytes of a tapped process' socket call, with their place in the connection's stream.
//!
//! Two tiers give the same segments. Tier A runs behind the kernel's own socket functions, tier B behind every system
//! call of the host, for kernels without the former.

use aya_ebpf::{
    EbpfContext as _,
    bindings::task_struct,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_task, bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
            bpf_task_pt_regs,
        },
    },
    programs::{BtfTracePointContext, RawTracePointContext},
};
use ebpf_abi::{
    Channel, Client, Counter, Direction, LOST_RECEIVED, LOST_SENT, MissingReason, PROBE_MISSED,
    SegmentHeader, Target,
};

use crate::{
    call::{self, Call, MSG_PEEK},
    client::{self, Met},
    copy, emit,
    kernel::{Address, offset},
    maps::TARGETS,
};

/// Bytes that may leave an encrypted connection outside of any encryption function: the alert with which TLS says
/// goodbye (RFC 5246 and 8446, "close_notify") under the longest padding.
const GOODBYE: u64 = 128;

/// Tier A, behind `sock_recvmsg` and `sock_sendmsg`.
pub fn transferred(ctx: &BtfTracePointContext, direction: Direction) {
    // Every socket call on the host comes by here: what costs least first.
    let length: i32 = ctx.arg(1);
    if length <= 0 {
        return;
    }
    let ids = bpf_get_current_pid_tgid();
    let Some(target) = TARGETS.get_ptr_mut((ids >> 32) as u32) else {
        return;
    };
    let flags: i32 = ctx.arg(2);
    if is_receive(direction) && flags as u64 & MSG_PEEK != 0 {
        return;
    }
    // SAFETY: the lookup proved the value; a process' entry is used by its own thread, and by nobody else at once.
    let _ = try_transferred(ctx, unsafe { &mut *target }, ids, direction, length as u32);
}

#[inline(always)]
fn try_transferred(
    ctx: &BtfTracePointContext,
    target: &mut Target,
    ids: u64,
    direction: Direction,
    length: u32,
) -> Option<()> {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let sock = Address::of(sk.cast_const());
    // SAFETY: the helpers have no precondition; the task is the current one.
    let (task, registers) = unsafe {
        let task: *mut task_struct = bpf_get_current_task_btf();
        (
            Address::of(task.cast_const()),
            Address(bpf_task_pt_regs(task) as u64),
        )
    };
    if target.client.sock != sock.0 {
        if target.client.other == sock.0 {
            return None;
        }
        let file: u64 = sock.follow(offset!(sock_socket))?.read(offset!(socket_file))?;
        let met = Met {
            sock,
            file,
            descriptor: Call::read(registers)?.descriptor,
            // SAFETY: `sk` is the tracepoint's own trusted argument.
            cookie: unsafe { bpf_get_socket_cookie(sk) },
            tgid: (ids >> 32) as u32,
            direction,
            length,
        };
        if !client::meet(target, &met)? {
            target.client.other = sock.0;
            return None;
        }
    }
    let position = client::advance(&mut target.client, direction, length)?;
    if is_encrypted(target, ids as u32, direction, length) {
        return None;
    }
    let mut header = header(&target.client, ids, direction);
    let call = Call::read(registers)?;
    // A familiar system call alone proves nothing (io_uring completes other sockets' calls in any context): the file
    // behind the descriptor must be the socket's own.
    let known = call.direction().is_some_and(|way| way as u8 == direction as u8)
        && call::file_of(task, call.descriptor) == Some(target.client.file)
        && call.begin(&mut target.walk).is_some();
    hand_over(target, &mut header, known, position, length);
    Some(())
}

/// The bytes of a call, or that they could not be had.
#[inline(always)]
fn hand_over(target: &mut Target, header: &mut SegmentHeader, known: bool, position: u64, length: u32) {
    if known {
        let walk = &raw mut target.walk;
        return copy::copy(&mut target.client, walk, header, position, length);
    }
    emit::count(Counter::UnsupportedCall, 1);
    let reason = MissingReason::UnsupportedCall;
    copy::missing(&mut target.client, header, position, length, reason);
}

/// Tier B, behind every system call: `TP_PROTO(struct pt_regs *regs, long ret)`.
pub fn returned(ctx: &RawTracePointContext) {
    // SAFETY: the context is an array of the prototype's two arguments.
    let (registers, result) = unsafe {
        let arguments = ctx.as_ptr().cast::<u64>();
        (Address(*arguments), *arguments.add(1) as i64)
    };
    // Calls on sockets return an `int`.
    if result <= 0 || result > i64::from(i32::MAX) {
        return;
    }
    let ids = bpf_get_current_pid_tgid();
    let Some(target) = TARGETS.get_ptr_mut((ids >> 32) as u32) else {
        return;
    };
    // SAFETY: as above.
    let _ = try_returned(unsafe { &mut *target }, registers, ids, result as u32);
}

#[inline(always)]
fn try_returned(target: &mut Target, registers: Address, ids: u64, length: u32) -> Option<()> {
    let call = Call::read(registers)?;
    let direction = call.direction()?;
    if call.peeks() {
        return None;
    }
    // SAFETY: the helper has no precondition.
    let task = Address(unsafe { bpf_get_current_task() });
    let file = call::file_of(task, call.descriptor)?;
    if file == 0 || file == target.client.other {
        return None;
    }
    if file != target.client.file {
        let Some(sock) = socket_of(file) else {
            target.client.other = file;
            return None;
        };
        let met = Met {
            sock,
            file,
            descriptor: call.descriptor,
            cookie: 0,
            tgid: (ids >> 32) as u32,
            direction,
            length,
        };
        if !client::meet(target, &met)? {
            target.client.other = file;
            return None;
        }
    }
    let position = client::advance(&mut target.client, direction, length)?;
    if is_encrypted(target, ids as u32, direction, length) {
        return None;
    }
    let mut header = header(&target.client, ids, direction);
    let known = call.begin(&mut target.walk).is_some();
    hand_over(target, &mut header, known, position, length);
    Some(())
}

/// The `struct sock` behind a file, if it is a socket.
#[inline(always)]
fn socket_of(file: u64) -> Option<Address> {
    /// `include/uapi/linux/stat.h`
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    let file = Address(file);
    let mode: u16 = file.follow(offset!(file_inode))?.read(offset!(inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    file.follow(offset!(file_private))?.follow(offset!(socket_sk))
}

/// Whether the bytes at the socket are cipher text, whose plaintext is read elsewhere.
#[inline(always)]
fn is_encrypted(target: &mut Target, thread: u32, direction: Direction, length: u32) -> bool {
    let (client, call) = (&mut target.client, &target.call);
    let inside = call.thread == thread;
    if client.channel == Channel::Socket as u8 {
        if inside {
            client.channel = call.channel;
        }
        return inside;
    }
    if inside {
        return true;
    }
    // A probe did not fire, or the connection says goodbye: what comes next will tell.
    client.outside += u64::from(length);
    if is_receive(direction) || client.outside > GOODBYE {
        emit::count(Counter::ProbeMissed, client.outside);
        client.outside = 0;
        client.lost |= PROBE_MISSED;
    }
    true
}

/// A header that lacks offset, length and what is missing.
#[inline(always)]
pub fn header(client: &Client, ids: u64, direction: Direction) -> SegmentHeader {
    let own = if is_receive(direction) {
        LOST_RECEIVED
    } else {
        LOST_SENT
    };
    SegmentHeader {
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: client.cookie,
        offset: 0,
        tgid: (ids >> 32) as u32,
        length: 0,
        missing: 0,
        direction: direction as u8,
        reason: MissingReason::None as u8,
        channel: client.channel,
        flags: client.lost & (own | PROBE_MISSED),
    }
}

#[inline(always)]
fn is_receive(direction: Direction) -> bool {
    direction as u8 == Direction::Received as u8
}
