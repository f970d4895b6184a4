//! The tap itself: bytes of a tapped process' socket call, with their place in the connection's stream.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, task_struct},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_probe_read_user,
            bpf_sk_storage_get, bpf_task_pt_regs,
        },
    },
    programs::BtfTracePointContext,
};
use ebpf_abi::{
    CHUNK_MAX, CHUNKS_MAX, Counter, Direction, FactKind, MissingReason, PeerProcess, SOCKET_MID_STREAM,
    SegmentHeader, SocketFact, SocketRole, Target, UNIX_PATH_MAX,
};

use crate::{
    emit,
    kernel::{Address, offset},
    maps::{CONNECTING, SCRATCH, SOCKET_SCRATCH, SOCKETS, Scratch, SocketState, TARGETS},
    sockets::{self, AF_INET, AF_INET6, AF_UNIX, Sock},
};

const MSG_PEEK: i32 = 2;
const SOCK_STREAM: u16 = 1;

pub fn transferred(ctx: &BtfTracePointContext, direction: Direction) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // First of all, because every socket call on the host comes by here.
    // SAFETY: the value is copied at once.
    let Some(target) = (unsafe { TARGETS.get(tgid) }) else {
        return;
    };
    let target = *target;
    let length: i32 = ctx.arg(1);
    let flags: i32 = ctx.arg(2);
    if length <= 0 || (direction as u8 == Direction::Received as u8 && flags & MSG_PEEK != 0) {
        return;
    }
    let _ = try_transferred(ctx.arg(0), tgid, target, direction, length as u32);
}

#[inline(always)]
fn try_transferred(sk: Sock, tgid: u32, target: Target, direction: Direction, length: u32) -> Option<()> {
    let sock = Address::of(sk.cast_const());
    let family: u16 = sock.read(offset!(sock_family))?;
    if family != AF_INET && family != AF_INET6 && family != AF_UNIX {
        return None;
    }
    let mut new = SocketState::NEW;
    // SAFETY: `sk` is the tracepoint's own trusted argument; the storage is initialised from `new`.
    let state = unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(&SOCKETS).cast_mut().cast(),
            sk.cast(),
            ptr::from_mut(&mut new).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
        .cast::<SocketState>()
        .as_mut()
    };
    let Some(state) = state else {
        emit::count(Counter::SocketStateLost, 1);
        return None;
    };
    if state.cookie == 0 {
        announce(
            sk,
            sock,
            state,
            First {
                family,
                tgid,
                server: target,
                direction,
                length,
            },
        )?;
    }
    if state.role == SocketRole::Connected as u8 {
        return None;
    }
    let offset = advance(sock, state, direction, length)?;
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the lookup proved the slot; preemption is off in a tracepoint, so this CPU's slot is ours.
    let header = unsafe { &mut (*scratch).header };
    *header = SegmentHeader {
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: state.cookie,
        offset,
        tgid,
        length: 0,
        missing: 0,
        direction: direction as u8,
        reason: MissingReason::None as u8,
        reserved: 0,
    };
    let Some(buffer) = buffer(sock, length) else {
        emit::count(Counter::UnsupportedCall, 1);
        not_captured(scratch, offset, length, MissingReason::UnsupportedCall);
        return None;
    };
    copy_out(scratch, buffer, offset, length);
    Some(())
}

/// Cuts the buffer into segments. Each turn works on constants only, so that the verifier walks it once a turn.
#[inline(always)]
fn copy_out(scratch: *mut Scratch, buffer: u64, offset: u64, length: u32) {
    for turn in 0..CHUNKS_MAX {
        let done = turn * CHUNK_MAX as u32;
        let left = length - done;
        if left <= CHUNK_MAX as u32 {
            copy_chunk(
                scratch,
                buffer + u64::from(done),
                offset + u64::from(done),
                left,
                left,
            );
            return;
        }
        if !copy_chunk(
            scratch,
            buffer + u64::from(done),
            offset + u64::from(done),
            CHUNK_MAX as u32,
            left,
        ) {
            return;
        }
    }
    emit::count(Counter::CallCap, 1);
    let done = CHUNKS_MAX * CHUNK_MAX as u32;
    not_captured(
        scratch,
        offset + u64::from(done),
        length - done,
        MissingReason::CallCap,
    );
}

/// Writes one segment of `size` bytes; false if they could not be copied, with all that is `left` reported.
#[inline(always)]
fn copy_chunk(scratch: *mut Scratch, buffer: u64, offset: u64, size: u32, left: u32) -> bool {
    // Masked behind the compiler's back, so that the verifier sees a bound which that cannot reason away.
    let size = core::hint::black_box(size) & (2 * CHUNK_MAX as u32 - 1);
    if size > CHUNK_MAX as u32 {
        return false;
    }
    // SAFETY: the payload has room for `size` bytes, and the helper copies with fault handling.
    let copied = unsafe {
        bpf_probe_read_user(
            ptr::addr_of_mut!((*scratch).payload).cast(),
            size,
            buffer as *const _,
        )
    };
    if copied != 0 {
        emit::count(Counter::CopyFault, 1);
        not_captured(scratch, offset, left, MissingReason::CopyFault);
        return false;
    }
    // SAFETY: the caller's lookup proved the slot.
    let header = unsafe { &mut (*scratch).header };
    header.offset = offset;
    header.length = size;
    emit::segment(scratch, u64::from(size));
    true
}

/// Writes a segment without payload that says what is missing.
#[inline(always)]
fn not_captured(scratch: *mut Scratch, offset: u64, missing: u32, reason: MissingReason) {
    // SAFETY: the caller's lookup proved the slot.
    let header = unsafe { &mut (*scratch).header };
    header.offset = offset;
    header.length = 0;
    header.missing = missing;
    header.reason = reason as u8;
    emit::segment(scratch, 0);
}

/// Where in the stream the bytes of this call begin. For TCP by the kernel's own sequence numbers, so that bytes
/// that passed without a call that we saw (`splice`) show as a jump; Unix sockets have none and are counted here.
#[inline(always)]
fn advance(sock: Address, state: &mut SocketState, direction: Direction, length: u32) -> Option<u64> {
    let received = direction as u8 == Direction::Received as u8;
    let before = if received { state.received } else { state.sent };
    let mut after = before + u64::from(length);
    if state.family != AF_UNIX {
        if received {
            let now = sockets::copied_seq(sock)?;
            after = before + u64::from(now.wrapping_sub(state.copied_seq));
            state.copied_seq = now;
        } else {
            let now: u32 = sock.read(offset!(tcp_write_seq))?;
            after = before + u64::from(now.wrapping_sub(state.write_seq));
            state.write_seq = now;
        }
    }
    if received {
        state.received = after;
    } else {
        state.sent = after;
    }
    Some(after.wrapping_sub(u64::from(length)))
}

/// The call by which a socket was first used.
struct First {
    family: u16,
    tgid: u32,
    server: Target,
    direction: Direction,
    length: u32,
}

/// First use of a socket by a tapped process: take its zero, tell user space what it is.
#[inline(always)]
fn announce(sk: Sock, sock: Address, state: &mut SocketState, first: First) -> Option<()> {
    let First {
        family,
        tgid,
        server: target,
        direction,
        length,
    } = first;
    if sock.read::<u16>(offset!(sock_type))? != SOCK_STREAM {
        return None;
    }
    let scratch = SOCKET_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the lookup proved the slot, and this CPU's slot is ours while the program runs.
    let fact = unsafe { &mut (*scratch).fact };
    *fact = SocketFact {
        kind: FactKind::Socket as u32,
        tgid,
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        // SAFETY: `sk` is the tracepoint's own trusted argument.
        cookie: unsafe { bpf_get_socket_cookie(sk.cast()) },
        server: target.server,
        netns: sockets::netns(sock)?,
        family,
        local_port: 0,
        remote_port: 0,
        role: SocketRole::Unknown as u8,
        flags: 0,
        local: [0; 16],
        remote: [0; 16],
        peer: PeerProcess::default(),
        sequence: 0,
        reserved: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    };
    let is_receive = direction as u8 == Direction::Received as u8;
    if family == AF_UNIX {
        let accepted = sockets::unix(sock, fact);
        fact.role = if accepted {
            SocketRole::Accepted
        } else {
            SocketRole::Connected
        } as u8;
        if target.born_tapped == 0 {
            fact.flags = SOCKET_MID_STREAM;
        }
    } else {
        let (received, copied_seq) = sockets::received(sock)?;
        let (sent, write_seq) = sockets::sent(sock)?;
        // Count from before this call, which `advance` adds.
        let (taken, given) = if is_receive { (length, 0) } else { (0, length) };
        state.received = received.wrapping_sub(u64::from(taken));
        state.copied_seq = copied_seq.wrapping_sub(taken);
        state.sent = sent.wrapping_sub(u64::from(given));
        state.write_seq = write_seq.wrapping_sub(given);
        fact.sequence = copied_seq.wrapping_sub(received as u32);
        fact.local_port = sock.read(offset!(sock_num))?;
        fact.remote_port = u16::from_be(sock.read(offset!(sock_dport))?);
        sockets::addresses(sock, family, &mut fact.local, &mut fact.remote)?;
        // SAFETY: as above; only asked whether it is there.
        let connected = unsafe {
            !bpf_sk_storage_get(
                ptr::from_ref(&CONNECTING).cast_mut().cast(),
                sk.cast(),
                ptr::null_mut(),
                0,
            )
            .is_null()
        };
        // In this protocol the client speaks first.
        let fresh = state.received == 0 && state.sent == 0;
        fact.role = if connected || (fresh && !is_receive) {
            SocketRole::Connected
        } else if fresh {
            SocketRole::Accepted
        } else {
            SocketRole::Unknown
        } as u8;
        if !fresh {
            fact.flags = SOCKET_MID_STREAM;
        }
    }
    state.family = family;
    state.role = fact.role;
    state.cookie = fact.cookie;
    emit::fact(fact);
    Some(())
}

/// The user-space buffer of the system call that this task is in, if it is proven to be one of this very socket: a
/// familiar system call number alone proves nothing (io_uring completes other sockets' calls in any context).
#[inline(always)]
fn buffer(sock: Address, length: u32) -> Option<u64> {
    // SAFETY: the helpers have no precondition; the task is the current one.
    let (task, registers) = unsafe {
        let task: *mut task_struct = bpf_get_current_task_btf();
        (
            Address::of(task.cast_const()),
            Address(bpf_task_pt_regs(task) as u64),
        )
    };
    let call = SystemCall::read(registers)?;
    let vector = match call.number {
        READ | WRITE | SENDTO | RECVFROM => None,
        READV | WRITEV => Some(call.second),
        // `struct user_msghdr`: name, namelen, iov, iovlen
        SENDMSG | RECVMSG => Some(read_user::<u64>(call.second + 16)?),
        _ => return None,
    };
    // SAFETY of meaning: the file behind the descriptor must be the socket's own file.
    let table = task.follow(offset!(task_files))?.follow(offset!(files_fdt))?;
    let descriptor = call.first as u32;
    if descriptor >= table.read::<u32>(offset!(fdtable_max_fds))? {
        return None;
    }
    let files = table.follow(offset!(fdtable_fd))?;
    let file: u64 = Address(files.0 + u64::from(descriptor) * 8).read(0)?;
    let own: u64 = sock.follow(offset!(sock_socket))?.read(offset!(socket_file))?;
    if file == 0 || file != own {
        return None;
    }
    match vector {
        None => Some(call.second),
        // Several buffers: only a first one that holds the whole transfer is walked.
        Some(vector) => {
            let base = read_user::<u64>(vector)?;
            let size = read_user::<u64>(vector + 8)?;
            (size >= u64::from(length)).then_some(base)
        }
    }
}

#[inline(always)]
fn read_user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper copies with fault handling.
    unsafe { aya_ebpf::helpers::bpf_probe_read_user(address as *const T) }.ok()
}

struct SystemCall {
    number: u64,
    first: u64,
    second: u64,
}

#[cfg(bpf_target_arch = "x86_64")]
mod arch {
    //! `arch/x86/include/asm/ptrace.h` and `arch/x86/entry/syscalls/syscall_64.tbl`.
    pub const NUMBER: u32 = 120; // orig_ax
    pub const FIRST: u32 = 112; // di
    pub const SECOND: u32 = 104; // si
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
}

#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    //! `arch/arm64/include/asm/ptrace.h` and `include/uapi/asm-generic/unistd.h`.
    pub const NUMBER: u32 = 280; // syscallno
    pub const FIRST: u32 = 272; // orig_x0
    pub const SECOND: u32 = 8; // x1
    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
}
use arch::{READ, READV, RECVFROM, RECVMSG, SENDMSG, SENDTO, WRITE, WRITEV};

impl SystemCall {
    #[inline(always)]
    fn read(registers: Address) -> Option<Self> {
        Some(Self {
            number: registers.read::<u32>(arch::NUMBER)?.into(),
            first: registers.read(arch::FIRST)?,
            second: registers.read(arch::SECOND)?,
        })
    }
}
