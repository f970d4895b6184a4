//! The sockets of poolers: which end of their connection they are, how far their streams have come, and when they are over.
//!
//! Offsets of TCP come from the kernel's own counters and are true whenever a socket is first seen; Unix sockets are counted
//! from there on.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_storage_get},
    programs::BtfTracePointContext,
};
use ebpf_abi::{
    Channel, Client, CloseFact, Direction, FactKind, SOCKET_MID_STREAM, SOCKET_POOLER, SOCKET_PROBED_TLS,
    SOCKET_UNCOUNTED, SocketRole,
};

use crate::{
    client::{self, About},
    emit,
    kernel::{Address, Place as _, offset},
    maps::{NEW, OLD_SOCKETS, OTHER, POOLED, Pooled, SESSIONS, TOLD, UNTOLD},
    sockets::{self, AF_INET, AF_UNIX},
};

const IPPROTO_TCP: u16 = 6;

/// A call by which a socket may be met.
pub struct Met {
    pub family: u16,
    /// Whether its process' encryption functions are probed.
    pub probed: bool,
    pub direction: Direction,
    /// Bytes of the call, counted by the kernel already.
    pub length: u32,
}

/// What is kept of a socket, which is the tracepoint's own trusted argument.
#[inline(always)]
pub fn kept<'a>(sk: *mut core::ffi::c_void, met: &Met) -> Option<&'a mut Pooled> {
    let kept = storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
    if kept.is_null() {
        return None;
    }
    // SAFETY: the helper gave a value of this type, zeroed if it is new. Two threads at one socket use one direction each, or
    // take turns.
    let kept = unsafe { &mut *kept };
    if kept.stage == NEW {
        // SAFETY: `sk` is the tracepoint's own trusted argument.
        let cookie = unsafe { bpf_get_socket_cookie(sk) };
        // Counters that moved while they were read are read again at the next call.
        kept.stage = if meet(kept, Address::of(sk.cast_const()), cookie, met)? {
            UNTOLD
        } else {
            OTHER
        };
    }
    Some(kept)
}

/// Whether the socket is told, or could be now.
#[inline(always)]
pub fn is_told(kept: &mut Pooled, sk: *mut core::ffi::c_void, tgid: u32) -> bool {
    if kept.stage == UNTOLD && tell(kept, Address::of(sk.cast_const()), tgid) {
        kept.stage = TOLD;
    }
    kept.stage == TOLD
}

#[inline(always)]
fn storage(sk: *mut core::ffi::c_void, flags: u64) -> *mut Pooled {
    let map = ptr::from_ref(&POOLED).cast_mut().cast();
    // SAFETY: the map is valid for the life of the program, and `sk` is a tracepoint's own trusted argument.
    unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), flags) }.cast()
}

/// Where the streams of a socket stand, and which end it is. False if statements cannot go over it.
#[inline(always)]
fn meet(kept: &mut Pooled, sock: Address, cookie: u64, met: &Met) -> Option<bool> {
    let file: u64 = sock.follow(offset!(sock_socket))?.read(offset!(socket_file))?;
    let is_tcp = met.family != AF_UNIX && sock.read::<u16>(offset!(sock_protocol))? == IPPROTO_TCP;
    kept.client = Client {
        sock: sock.0,
        file,
        cookie,
        family: if is_tcp { met.family } else { AF_UNIX },
        ..Client::default()
    };
    kept.client.channel = Channel::Socket as u8;
    kept.flags = SOCKET_POOLER;
    if met.probed {
        kept.flags |= SOCKET_PROBED_TLS;
    }
    if is_tcp {
        return counted(kept, sock, met);
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
fn counted(kept: &mut Pooled, sock: Address, met: &Met) -> Option<bool> {
    let (received, copied_seq) = sockets::received(sock)?;
    let (mut sent, write_seq) = sockets::sent(sock)?;
    if role(kept, sock)? as u8 == SocketRole::Connected as u8 {
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
    let (mut sequence, mut answer) = (0, 0);
    if client.family != AF_UNIX {
        sequence = client.copied_seq.wrapping_sub(client.received as u32);
        answer = client.write_seq.wrapping_sub(client.sent as u32);
    }
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
        sequence,
        answer,
    };
    emit::fact_with(|room| client::tell(sock, &about, room))
}

/// A TCP socket of whichever process reached its end. Told if it is a pooler's, and the pooler reads no more from it: after
/// a reset what came before can still be read.
#[inline(always)]
pub fn closed(ctx: &BtfTracePointContext) -> Option<()> {
    /// `include/net/sock.h`
    const SHUTDOWN_MASK: u8 = 3;
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let kept = storage(sk, 0);
    if kept.is_null() {
        return None;
    }
    // SAFETY: the helper gave a value of this type.
    let kept = unsafe { &mut *kept };
    let sock = Address::of(sk.cast_const());
    let is_held = sock.follow(offset!(sock_socket)).is_some();
    if is_held && sock.read::<u8>(offset!(sock_shutdown))? & SHUTDOWN_MASK != SHUTDOWN_MASK {
        return None;
    }
    over(kept);
    Some(())
}

/// A call found the end of a socket: nothing more can come if the connection is no more.
#[inline(always)]
pub fn ended(kept: &mut Pooled, sock: Address) -> Option<()> {
    /// `include/net/tcp_states.h`
    const TCP_CLOSE: u8 = 7;
    if kept.client.family != AF_UNIX && sock.read::<u8>(offset!(sock_state))? == TCP_CLOSE {
        over(kept);
    }
    Some(())
}

/// Tells that a connection is over, once.
#[inline(always)]
fn over(kept: &mut Pooled) {
    if kept.session.address != 0 {
        let _ = SESSIONS.remove(kept.session);
    }
    if kept.stage != TOLD {
        return;
    }
    kept.stage = OTHER;
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
}
