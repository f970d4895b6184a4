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
            bpf_skc_to_tcp_sock, bpf_task_pt_regs,
        },
    },
    programs::{BtfTracePointContext, RawTracePointContext},
};
use ebpf_abi::{
    Channel, Client, Counter, Direction, MissingReason, PROBE_MISSED_RECEIVED, PROBE_MISSED_SENT,
    SegmentHeader, TARGET_POOLER, Target,
};

use crate::{
    call::{self, Call, MSG_PEEK},
    client::{self, Met},
    connect, copy, emit,
    kernel::{self, Address, Place as _, Typed, offset},
    maps::TARGETS,
    pooler, process,
    sockets::AF_UNIX,
};

/// Bytes that may leave an encrypted connection outside of any encryption function: the alert with which TLS says
/// goodbye (RFC 5246 and 8446, "close_notify") under the longest padding.
const GOODBYE: u64 = 128;

/// Tier A, behind `sock_recvmsg` and `sock_sendmsg`.
pub fn transferred(ctx: &BtfTracePointContext, direction: Direction) {
    // Every socket call on the host comes by here: what costs least first.
    let length: i32 = ctx.arg(1);
    // Of poolers it counts, too, that there was nothing.
    if length <= 0 && !pooler::were_seen() {
        return;
    }
    let flags: i32 = ctx.arg(2);
    if is_receive(direction) && flags as u64 & MSG_PEEK != 0 {
        return;
    }
    // SAFETY: the helper has no precondition.
    let task: *mut task_struct = unsafe { bpf_get_current_task_btf() };
    let is_servers = try_transferred(ctx, task, direction, length);
    if length > 0 && is_servers == Some(false) && !is_receive(direction) {
        let _ = introduced(ctx, task, length as u32);
    }
}

/// Returns whether the socket is one over which a server serves its client; a server's process has others, too.
#[inline(always)]
fn try_transferred(
    ctx: &BtfTracePointContext,
    current: *mut task_struct,
    direction: Direction,
    result: i32,
) -> Option<bool> {
    let task = Typed(current.cast_const().cast());
    let tgid: u32 = task.read(offset!(task_tgid))?;
    if !process::may_be_marked(tgid) {
        return Some(false);
    }
    let Some(target) = TARGETS.get_ptr_mut(tgid) else {
        return Some(false);
    };
    // SAFETY: the lookup proved the value; a process' entry is used by its own thread, and by nobody else at once.
    let target = unsafe { &mut *target };
    if kernel::follows_poolers() && target.flags & TARGET_POOLER != 0 {
        let _ = pooler::transferred(ctx, current, target, direction, result);
        return Some(false);
    }
    if result <= 0 {
        return None;
    }
    let length = result as u32;
    let thread: u32 = task.read(offset!(task_pid))?;
    // SAFETY: the helper takes the current task.
    let registers = Typed(unsafe { bpf_task_pt_regs(current) } as *const u8);
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let sock = Address::of(sk.cast_const());
    if target.client.sock != sock.0 {
        if target.client.other == sock.0 {
            return Some(false);
        }
        let file: u64 = sock.follow(offset!(sock_socket))?.read(offset!(socket_file))?;
        let met = Met {
            sock,
            file,
            descriptor: Call::read(registers)?.descriptor,
            // SAFETY: `sk` is the tracepoint's own trusted argument.
            cookie: unsafe { bpf_get_socket_cookie(sk) },
            tgid,
            direction,
            length,
        };
        if !client::meet(target, &met)? {
            target.client.other = sock.0;
            return Some(false);
        }
    }
    let client = &mut target.client;
    let position = if client.family == AF_UNIX {
        client::advance(client, sock, direction, length)?
    } else {
        // SAFETY: `sk` is the tracepoint's own trusted argument.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
        if tcp.is_null() {
            return None;
        }
        client::advance(client, Typed(tcp.cast_const().cast()), direction, length)?
    };
    if is_encrypted(target, thread, direction, length) {
        return None;
    }
    let mut header = header(&target.client, tgid, direction);
    let call = Call::read(registers)?;
    // A familiar system call alone proves nothing (io_uring completes other sockets' calls in any context): the file
    // behind the descriptor must be the socket's own.
    let known = call.direction().is_some_and(|way| way as u8 == direction as u8)
        && call::file_of(task, call.descriptor) == Some(target.client.file)
        && call.begin(&mut target.walk).is_some();
    hand_over(target, &mut header, known, position, length);
    Some(true)
}

/// A process sends, and not as a server to its client: whether these are the first bytes of its connection, and begin as a
/// client of PostgreSQL does ("Message Formats": StartupMessage, SSLRequest, GSSENCRequest, CancelRequest). Every send on
/// the host comes by here: the counts decide first.
#[inline(always)]
fn introduced(ctx: &BtfTracePointContext, current: *mut task_struct, length: u32) -> Option<()> {
    /// `MAX_STARTUP_PACKET_LENGTH` of the server, and the word that holds the length.
    const LONGEST: u32 = 10_000 + 4;
    const SHORTEST: u32 = 8;
    const REQUESTS: core::ops::RangeInclusive<u32> = 80_877_102..=80_877_104;
    /// Protocol 3, whatever its minor version.
    const MAJOR: u32 = 3;
    if !kernel::tells_flows() || !(SHORTEST..=LONGEST).contains(&length) {
        return None;
    }
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    // SAFETY: `sk` is the tracepoint's own trusted argument.
    let tcp = Typed(unsafe { bpf_skc_to_tcp_sock(sk) }.cast_const().cast());
    if tcp.0.is_null() {
        return None;
    }
    // In this order what is acknowledged meanwhile is left out; in the other it would count twice, and the first bytes be taken
    // for later ones.
    let acknowledged: u64 = tcp.read(offset!(tcp_bytes_acked))?;
    let unacknowledged: u32 = tcp.read(offset!(tcp_snd_una))?;
    let written: u32 = tcp.read(offset!(tcp_write_seq))?;
    // The one that connects has sent its SYN, too.
    if acknowledged + u64::from(written.wrapping_sub(unacknowledged)) > u64::from(length) + 1 {
        return None;
    }
    // SAFETY: the helper takes the current task.
    let call = Call::read(Typed(unsafe { bpf_task_pt_regs(current) } as *const u8))?;
    let sock = Address::of(sk.cast_const());
    let file: u64 = sock.follow(offset!(sock_socket))?.read(offset!(socket_file))?;
    let is_send = call
        .direction()
        .is_some_and(|way| way as u8 == Direction::Sent as u8);
    if !is_send || call::file_of(Typed(current.cast_const().cast()), call.descriptor) != Some(file) {
        return None;
    }
    let [size, code] = call.front()?.map(u32::from_be);
    if size < SHORTEST || size > length || code >> 16 != MAJOR && !REQUESTS.contains(&code) {
        return None;
    }
    connect::speaks(sock)
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
    if !process::may_be_marked((ids >> 32) as u32) {
        return;
    }
    let Some(target) = TARGETS.get_ptr_mut((ids >> 32) as u32) else {
        return;
    };
    // SAFETY: as in `try_transferred`.
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
    let sock = Address(target.client.sock);
    let position = client::advance(&mut target.client, sock, direction, length)?;
    if is_encrypted(target, ids as u32, direction, length) {
        return None;
    }
    let mut header = header(&target.client, (ids >> 32) as u32, direction);
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
        client.lost |= PROBE_MISSED_RECEIVED | PROBE_MISSED_SENT;
    }
    true
}

/// A header that lacks offset, length and what is missing.
#[inline(always)]
pub fn header(client: &Client, tgid: u32, direction: Direction) -> SegmentHeader {
    SegmentHeader {
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: client.cookie,
        offset: 0,
        tgid,
        length: 0,
        missing: 0,
        direction: direction as u8,
        reason: MissingReason::None as u8,
        channel: client.channel,
        flags: client.lost & direction.lost(),
    }
}

#[inline(always)]
fn is_receive(direction: Direction) -> bool {
    direction as u8 == Direction::Received as u8
}
