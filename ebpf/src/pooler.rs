//! What a pooler does with its sockets: no payload, but from or into which memory, how much, and in which order.
//!
//! Runs behind the kernel's socket functions (tier A) for processes that are marked as a pooler's. What is kept of a socket
//! is its own (`pooled`), what is kept of a call its thread's (`transfer`): any number of threads may be at it.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, task_struct},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_skc_to_tcp_sock, bpf_task_pt_regs},
    programs::BtfTracePointContext,
};
use ebpf_abi::{
    Channel, Counter, Direction, SOCKET_MID_STREAM, SOCKET_PROBED_TLS, TARGET_PROBED_TLS, TRANSFER_END,
    TRANSFER_NONE, TRANSFER_UNPROVEN, Target,
};

use crate::{
    call::{self, Call},
    client, emit,
    kernel::{self, Address, Place as _, Typed, offset},
    maps::{OTHER, POOLERS_SEEN, Pooled, SESSIONS, Session, SessionKey, Thread},
    pooled::{self, Met},
    sockets::{AF_INET, AF_INET6, AF_UNIX},
    transfer::{self, About, Buffer},
};

const SOCK_STREAM: u16 = 1;

/// Whether this host has, or had, a pooler that is followed.
#[inline(always)]
pub fn were_seen() -> bool {
    if !kernel::follows_poolers() {
        return false;
    }
    let seen = POOLERS_SEEN.get_ptr(0);
    // SAFETY: the lookup proved the value.
    seen.is_some_and(|seen| unsafe { ptr::read_volatile(seen) } != 0)
}

/// A process is taken for a pooler's.
#[inline(always)]
pub fn seen() {
    // The map has this place.
    let _ = POOLERS_SEEN.set(0, 1, u64::from(BPF_ANY));
}

/// A call of a pooler's thread on a socket that returned.
struct Returned {
    sk: *mut core::ffi::c_void,
    current: *mut task_struct,
    direction: Direction,
    family: u16,
    /// Bytes.
    length: u32,
    /// `TRANSFER_…` flags of a call that moved none.
    flags: u8,
    tgid: u32,
    thread: u32,
}

/// A call of a pooler on a socket returned `result`: bytes, or the negative of an error.
#[inline(always)]
pub fn transferred(
    ctx: &BtfTracePointContext,
    current: *mut task_struct,
    target: &Target,
    direction: Direction,
    result: i32,
) -> Option<()> {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let typed = Typed(sk.cast_const().cast());
    let family: u16 = typed.read(offset!(sock_family))?;
    if family != AF_UNIX && family != AF_INET && family != AF_INET6 {
        return None;
    }
    if typed.read::<u16>(offset!(sock_type))? != SOCK_STREAM {
        return None;
    }
    let task = Typed(current.cast_const().cast());
    let returned = Returned {
        sk,
        current,
        direction,
        family,
        length: if result > 0 { result as u32 } else { 0 },
        flags: if result > 0 {
            0
        } else {
            nothing(result, direction)?
        },
        tgid: task.read(offset!(task_tgid))?,
        thread: task.read(offset!(task_pid))?,
    };
    let Some(thread) = transfer::thread(returned.thread) else {
        emit::count(Counter::TransfersLost, 1);
        return None;
    };
    if followed(&returned, target, thread).is_none() {
        // Its number is used all the same, so that the hole shows.
        transfer::next(thread);
        emit::count(Counter::TransfersLost, 1);
    }
    Some(())
}

/// `None` if it could not be told.
#[inline(always)]
fn followed(returned: &Returned, target: &Target, thread: *mut Thread) -> Option<()> {
    let &Returned {
        sk,
        direction,
        length,
        ..
    } = returned;
    let met = Met {
        family: returned.family,
        probed: target.flags & TARGET_PROBED_TLS != 0,
        direction,
        length,
    };
    let kept = pooled::kept(sk, &met)?;
    if kept.stage == OTHER {
        return Some(());
    }
    let position = if length > 0 {
        advance(kept, sk, direction, length)?
    } else {
        // Nothing passed. What passed unseen before it, the next bytes show.
        match direction {
            Direction::Received => kept.client.received,
            Direction::Sent => kept.client.sent,
        }
    };
    if in_encryption(kept, thread, returned) {
        return Some(());
    }
    if !pooled::is_told(kept, sk, returned.tgid) {
        transfer::lose(&mut kept.client.lost, direction);
        return None;
    }
    // SAFETY: the helper takes the current task.
    let call = Call::read(Typed(unsafe { bpf_task_pt_regs(returned.current) } as *const u8))?;
    // SAFETY: the lookup proved the value; it is this thread's own.
    let walk = unsafe { &mut (*thread).walk };
    // As for servers: the file behind the descriptor must be this very socket's.
    let task = Typed(returned.current.cast_const().cast());
    let known = call.direction().is_some_and(|way| way as u8 == direction as u8)
        && call::file_of(task, call.descriptor) == Some(kept.client.file)
        && call.begin(walk).is_some();
    let about = About {
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: kept.client.cookie,
        tgid: returned.tgid,
        thread: returned.thread,
        direction: direction as u8,
        channel: Channel::Socket as u8,
        flags: if known {
            returned.flags
        } else {
            returned.flags | TRANSFER_UNPROVEN
        },
    };
    let buffer = Buffer {
        at: if known { transfer::first_buffer(thread) } else { 0 },
        length,
        offset: position,
    };
    let lost = &mut kept.client.lost;
    if known && length > 0 && transfer::is_vectored(thread) {
        transfer::each_buffer(lost, thread, &about, &buffer);
    } else {
        transfer::give(lost, thread, &about, &buffer);
    }
    if returned.flags & TRANSFER_END != 0 {
        let _ = pooled::ended(kept, Address::of(sk.cast_const()));
    }
    Some(())
}

/// Where in the stream the bytes of a call begin.
#[inline(always)]
fn advance(kept: &mut Pooled, sk: *mut core::ffi::c_void, direction: Direction, length: u32) -> Option<u64> {
    if kept.client.family == AF_UNIX {
        return client::advance(&mut kept.client, Address::of(sk.cast_const()), direction, length);
    }
    // SAFETY: `sk` is the tracepoint's own trusted argument.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
    if tcp.is_null() {
        return None;
    }
    client::advance(
        &mut kept.client,
        Typed(tcp.cast_const().cast()),
        direction,
        length,
    )
}

/// Whether a call on a socket is an encryption function's, or of a connection that one has: what passes is cipher text. The
/// first such call says which connection the function is about.
#[inline(always)]
fn in_encryption(kept: &mut Pooled, thread: *mut Thread, returned: &Returned) -> bool {
    // SAFETY: a lookup proved the value; it is the calling thread's own.
    let address = unsafe { (*thread).call.session };
    if address == 0 {
        // The handshake came before; what comes now is goodbye.
        return kept.client.channel != Channel::Socket as u8;
    }
    // SAFETY: as above.
    unsafe { (*thread).said = u32::from(returned.flags) };
    kept.client.channel = Channel::Tls as u8;
    let key = SessionKey {
        tgid: u64::from(returned.tgid),
        address,
    };
    if kept.session == key {
        return true;
    }
    kept.session = key;
    let session = Session {
        cookie: kept.client.cookie,
        received: 0,
        sent: 0,
        lost: 0,
        // Of a connection that is no older than the tap, and yet older than the probes, it is not known where its plaintext
        // began.
        told: u8::from(
            pooled::is_told(kept, returned.sk, returned.tgid)
                && kept.flags & (SOCKET_PROBED_TLS | SOCKET_MID_STREAM) != 0,
        ),
        reserved: [0; 6],
    };
    if SESSIONS.insert(key, session, u64::from(BPF_ANY)).is_err() {
        emit::count(Counter::TransfersLost, 1);
    }
    true
}

/// What a call without bytes says; `None` if it says nothing.
#[inline(always)]
fn nothing(result: i32, direction: Direction) -> Option<u8> {
    /// `include/uapi/asm-generic/errno-base.h`, `errno.h`, and `include/linux/errno.h`: it may be tried again.
    const AGAIN: [i32; 6] = [-4, -11, -12, -14, -105, -115];
    const RESTART: core::ops::RangeInclusive<i32> = -516..=-512;
    if result == 0 {
        return match direction {
            Direction::Received => Some(TRANSFER_END),
            Direction::Sent => None,
        };
    }
    let mut again = RESTART.contains(&result);
    for error in AGAIN {
        again |= result == error;
    }
    Some(if again { TRANSFER_NONE } else { TRANSFER_END })
}
