//! What a pooler does with its sockets: no payload, but from or into which memory, how much, and in which order.
//!
//! Runs behind the kernel's socket functions (tier A) for processes that are marked as a pooler's. Offsets of TCP come from
//! the kernel's own counters and are true whenever the socket is first seen; Unix sockets are counted here. What is kept of a
//! socket is its own, what is kept of a call its thread's: any number of threads may be at it.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE, task_struct},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_probe_read_user, bpf_sk_storage_get,
        bpf_skc_to_tcp_sock, bpf_task_pt_regs,
    },
    programs::BtfTracePointContext,
};
use ebpf_abi::{
    BUFFERS_MAX, Channel, Client, CloseFact, Counter, Direction, FRONT, FactKind, LOST_RECEIVED, LOST_SENT,
    SOCKET_MID_STREAM, SOCKET_POOLER, SOCKET_UNCOUNTED, SocketRole, TRANSFER_END, TRANSFER_LOST,
    TRANSFER_NONE, TRANSFER_UNPROVEN, Transfer, Walk,
};

use crate::{
    call::{self, Call, read_user},
    client::{self, About},
    emit,
    kernel::{Address, Place as _, Typed, offset},
    maps::{NEW, OLD_SOCKETS, OTHER, POOLED, Pooled, THREADS, TOLD, TRANSFERS, Thread, UNTOLD},
    sockets::{self, AF_INET, AF_INET6, AF_UNIX},
};

const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;

/// A call of a pooler on a socket returned `result`: bytes, or the negative of an error.
#[inline(always)]
pub fn transferred(
    ctx: &BtfTracePointContext,
    current: *mut task_struct,
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
    let flags = if result > 0 {
        0
    } else {
        nothing(result, direction)?
    };
    let length = if result > 0 { result as u32 } else { 0 };
    let task = Typed(current.cast_const().cast());
    let (tgid, id): (u32, u32) = (task.read(offset!(task_tgid))?, task.read(offset!(task_pid))?);
    let Some(thread) = thread(id) else {
        emit::count(Counter::TransfersLost, 1);
        return None;
    };
    // SAFETY: `sk` is the tracepoint's own trusted argument; a new value is zeroed.
    let kept = unsafe {
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        bpf_sk_storage_get(
            ptr::from_ref(&POOLED).cast_mut().cast(),
            sk,
            ptr::null_mut(),
            create,
        )
    };
    if kept.is_null() {
        // The number is used all the same, so that the hole shows.
        next(thread);
        emit::count(Counter::TransfersLost, 1);
        return None;
    }
    // SAFETY: the helper gave a value of this type. Two threads at one socket use one direction each, or take turns.
    let kept = unsafe { &mut *kept.cast::<Pooled>() };
    let sock = Address::of(sk.cast_const());
    if kept.stage == OTHER {
        return None;
    }
    if kept.stage == NEW {
        let met = Met {
            sock,
            family,
            // SAFETY: as above.
            cookie: unsafe { bpf_get_socket_cookie(sk) },
            direction,
            length,
        };
        kept.stage = match meet(kept, &met) {
            Some(true) => UNTOLD,
            Some(false) => OTHER,
            // The kernel's counters moved while they were read: next time.
            None => NEW,
        };
    }
    if kept.stage == UNTOLD && tell(kept, sock, tgid) {
        kept.stage = TOLD;
    }
    if kept.stage != UNTOLD && kept.stage != TOLD {
        if kept.stage == NEW {
            next(thread);
        }
        return None;
    }
    let position = if length == 0 {
        // Nothing passed. What passed unseen before it, the next bytes show.
        match direction {
            Direction::Received => kept.client.received,
            Direction::Sent => kept.client.sent,
        }
    } else if kept.client.family == AF_UNIX {
        client::advance(&mut kept.client, sock, direction, length)?
    } else {
        // SAFETY: as above.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
        if tcp.is_null() {
            return None;
        }
        client::advance(
            &mut kept.client,
            Typed(tcp.cast_const().cast()),
            direction,
            length,
        )?
    };
    if kept.stage == UNTOLD {
        next(thread);
        kept.client.lost |= lost_flag(direction);
        emit::count(Counter::TransfersLost, 1);
        return None;
    }
    // SAFETY: the helper takes the current task.
    let registers = Typed(unsafe { bpf_task_pt_regs(current) } as *const u8);
    let call = Call::read(registers)?;
    // SAFETY: the lookup proved the value; it is this thread's own.
    let walk = unsafe { &mut (*thread).walk };
    // As for servers: the file behind the descriptor must be this very socket's.
    let known = call.direction().is_some_and(|way| way as u8 == direction as u8)
        && call::file_of(task, call.descriptor) == Some(kept.client.file)
        && call.begin(walk).is_some();
    let transfer = Transfer {
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: kept.client.cookie,
        offset: position,
        buffer: 0,
        tgid,
        thread: id,
        order: 0,
        length,
        front: [0; FRONT],
        direction: direction as u8,
        channel: Channel::Socket as u8,
        flags: if known { flags } else { flags | TRANSFER_UNPROVEN },
        reserved: [0; 5],
    };
    if known && length > 0 {
        each_buffer(kept, thread, &transfer);
    } else {
        let buffer = if known { first_buffer(thread) } else { 0 };
        give(kept, thread, &transfer, buffer, length, position);
    }
    Some(())
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

/// What is kept of the calling thread.
#[inline(always)]
fn thread(id: u32) -> Option<*mut Thread> {
    if let Some(kept) = THREADS.get_ptr_mut(id) {
        return Some(kept);
    }
    let new = Thread {
        order: 0,
        reserved: 0,
        walk: Walk::default(),
    };
    THREADS.insert(id, new, u64::from(BPF_ANY)).ok()?;
    THREADS.get_ptr_mut(id)
}

/// The number of a thread's next record.
#[inline(always)]
fn next(thread: *mut Thread) -> u32 {
    // SAFETY: a lookup proved the value; it is the calling thread's own.
    unsafe {
        (*thread).order = (*thread).order.wrapping_add(1);
        (*thread).order
    }
}

/// A socket that a pooler was not yet seen to use.
struct Met {
    sock: Address,
    family: u16,
    cookie: u64,
    direction: Direction,
    /// Bytes of the call, counted by the kernel already.
    length: u32,
}

/// Where the streams of a socket stand, and which end it is. False if statements cannot go over it.
#[inline(always)]
fn meet(kept: &mut Pooled, met: &Met) -> Option<bool> {
    let sock = met.sock;
    let file: u64 = sock.follow(offset!(sock_socket))?.read(offset!(socket_file))?;
    let is_tcp = met.family != AF_UNIX && sock.read::<u16>(offset!(sock_protocol))? == IPPROTO_TCP;
    kept.client = Client {
        sock: sock.0,
        file,
        cookie: met.cookie,
        family: if is_tcp { met.family } else { AF_UNIX },
        ..Client::default()
    };
    kept.client.channel = Channel::Socket as u8;
    kept.flags = SOCKET_POOLER;
    if is_tcp {
        return counted(kept, met);
    }
    if met.family == AF_UNIX {
        // A socket pair: between two threads of its own.
        if !sockets::is_named(sock) && !sockets::is_named(sock.follow(offset!(unix_peer))?) {
            return Some(false);
        }
    } else {
        kept.flags |= SOCKET_UNCOUNTED;
    }
    if is_old(sock) {
        kept.flags |= SOCKET_MID_STREAM;
    }
    Some(true)
}

/// Whether a socket may have been open before its process was marked.
#[inline(always)]
fn is_old(sock: Address) -> bool {
    /// The key that stands for all of them, while they are listed.
    const ALL: u64 = 0;
    let number = sockets::inode(sock).unwrap_or(ALL);
    // SAFETY: the values are not looked at.
    unsafe { OLD_SOCKETS.get(ALL).is_some() || OLD_SOCKETS.get(number).is_some() }
}

/// Takes over the kernel's own count of a TCP socket's bytes, from before the call, which `client::advance` adds.
#[inline(always)]
fn counted(kept: &mut Pooled, met: &Met) -> Option<bool> {
    let (received, copied_seq) = sockets::received(met.sock)?;
    let (mut sent, write_seq) = sockets::sent(met.sock)?;
    if role(kept, met.sock)? as u8 == SocketRole::Connected as u8 {
        // Its SYN was acknowledged and counted, too.
        sent = sent.wrapping_sub(1);
    }
    let (taken, given) = match met.direction {
        Direction::Received => (met.length, 0),
        Direction::Sent => (0, met.length),
    };
    let client = &mut kept.client;
    client.received = received.wrapping_sub(u64::from(taken));
    client.copied_seq = copied_seq.wrapping_sub(taken);
    client.sent = sent.wrapping_sub(u64::from(given));
    client.write_seq = write_seq.wrapping_sub(given);
    if client.received != 0 || client.sent != 0 {
        kept.flags |= SOCKET_MID_STREAM;
    }
    Some(true)
}

/// Which end of its connection the socket is.
#[inline(always)]
fn role(kept: &Pooled, sock: Address) -> Option<SocketRole> {
    if kept.client.family != AF_UNIX {
        return sockets::tcp_role(sock);
    }
    if kept.flags & SOCKET_UNCOUNTED != 0 {
        let connects = client::is_connecting(sock);
        return Some(if connects {
            SocketRole::Connected
        } else {
            SocketRole::Unknown
        });
    }
    Some(if sockets::is_named(sock) {
        SocketRole::Accepted
    } else {
        SocketRole::Connected
    })
}

/// Tells the socket. False if there was no room for it.
#[inline(always)]
fn tell(kept: &Pooled, sock: Address, tgid: u32) -> bool {
    let client = &kept.client;
    let Some(role) = role(kept, sock) else {
        return false;
    };
    let about = About {
        server: tgid,
        tgid,
        cookie: client.cookie,
        family: if kept.flags & SOCKET_UNCOUNTED != 0 {
            AF_INET
        } else {
            client.family
        },
        role,
        flags: kept.flags,
        sequence: client.copied_seq.wrapping_sub(client.received as u32),
        answer: client.write_seq.wrapping_sub(client.sent as u32),
    };
    emit::fact_with(|room| client::tell(sock, &about, room))
}

/// One record for each buffer of the call. The position is read back from the map in every turn, as in `copy`.
#[inline(always)]
fn each_buffer(kept: &mut Pooled, thread: *mut Thread, transfer: &Transfer) {
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
            give(kept, thread, transfer, at, size, transfer.offset + done);
        }
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*walk).done, done + u64::from(size)) };
    }
}

/// Address of the first buffer of a call that moved nothing.
#[inline(always)]
fn first_buffer(thread: *mut Thread) -> u64 {
    // SAFETY: a lookup proved the value.
    let walk = unsafe { &(*thread).walk };
    if walk.left != 0 {
        return walk.base;
    }
    read_user(walk.vector).unwrap_or(0)
}

/// Writes a record. `buffer` is 0 if it is not known.
#[inline(always)]
fn give(kept: &mut Pooled, thread: *mut Thread, about: &Transfer, buffer: u64, length: u32, offset: u64) {
    let lost = if about.direction == Direction::Received as u8 {
        LOST_RECEIVED
    } else {
        LOST_SENT
    };
    let order = next(thread);
    let Some(mut entry) = TRANSFERS.reserve_untyped::<Transfer>(0) else {
        if length > 0 {
            kept.client.lost |= lost;
        }
        emit::count(Counter::TransfersLost, 1);
        return;
    };
    let room = entry.as_mut_ptr();
    let mut flags = about.flags;
    if kept.client.lost & lost != 0 {
        flags |= TRANSFER_LOST;
        kept.client.lost &= !lost;
    }
    let mut front = buffer;
    if length > 0 && buffer == 0 {
        flags |= TRANSFER_UNPROVEN;
    }
    // SAFETY: the ring gave room for a whole record.
    unsafe {
        *room = Transfer {
            buffer,
            offset,
            order,
            length,
            flags,
            ..*about
        };
        if length == 0 {
            front = 0;
        }
        if front != 0 {
            // Masked behind the compiler's back, so that the verifier sees a bound which that cannot reason away.
            let mut bounded = core::hint::black_box(length) & (2 * FRONT as u32 - 1);
            if length >= FRONT as u32 || bounded > FRONT as u32 {
                bounded = FRONT as u32;
            }
            if bpf_probe_read_user((&raw mut (*room).front).cast(), bounded, front as *const _) != 0 {
                emit::count(Counter::CopyFault, 1);
                (*room).buffer = 0;
                (*room).front = [0; FRONT];
                (*room).flags = flags | TRANSFER_UNPROVEN;
            }
        }
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

#[inline(always)]
fn lost_flag(direction: Direction) -> u8 {
    match direction {
        Direction::Received => LOST_RECEIVED,
        Direction::Sent => LOST_SENT,
    }
}

/// A TCP socket of whichever process reached its end. Told if it is a pooler's, and the pooler reads no more from it: after
/// a reset what came before can still be read.
#[inline(always)]
pub fn closed(ctx: &BtfTracePointContext) -> Option<()> {
    /// `include/net/sock.h`
    const SHUTDOWN_MASK: u8 = 3;
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    // SAFETY: `sk` is the tracepoint's own trusted argument.
    let kept =
        unsafe { bpf_sk_storage_get(ptr::from_ref(&POOLED).cast_mut().cast(), sk, ptr::null_mut(), 0) };
    if kept.is_null() {
        return None;
    }
    // SAFETY: the helper gave a value of this type.
    let kept = unsafe { &*kept.cast::<Pooled>() };
    if kept.stage != TOLD {
        return None;
    }
    let sock = Address::of(sk.cast_const());
    let is_held = sock.follow(offset!(sock_socket)).is_some();
    if is_held && sock.read::<u8>(offset!(sock_shutdown))? & SHUTDOWN_MASK != SHUTDOWN_MASK {
        return None;
    }
    let client = &kept.client;
    emit::fact(&CloseFact {
        kind: FactKind::Close as u32,
        channel: client.channel,
        flags: client.lost,
        reserved: 0,
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: client.cookie,
        received: client.received,
        sent: client.sent,
        plain_received: client.plain_received,
        plain_sent: client.plain_sent,
    });
    Some(())
}
