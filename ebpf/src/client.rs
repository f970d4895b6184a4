//! The connection that a backend serves: found at its first use, followed by the kernel's own counts, told when the
//! process ends.
//!
//! A backend serves one client in its life; every other socket that it uses makes it a client itself
//! (`postgres_fdw`, `dblink`, a WAL receiver) and is not followed.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use ebpf_abi::{
    Channel, Client, CloseFact, Direction, FactKind, PeerProcess, SOCKET_MID_STREAM, SOCKET_PROBED_GSS,
    SOCKET_PROBED_TLS, SOCKET_UNCOUNTED, SocketFact, SocketRole, TARGET_BORN_TAPPED, TARGET_PROBED_GSS,
    TARGET_PROBED_TLS, TARGET_SOCKET_UNTOLD, Target,
};

use crate::{
    call, emit,
    kernel::{Address, Place, offset},
    maps::OWNERS,
    sockets::{self, AF_INET, AF_INET6, AF_UNIX},
};

const SOCK_STREAM: u16 = 1;
const IPPROTO_TCP: u16 = 6;

/// The socket by which a process was met.
pub struct Met {
    pub sock: Address,
    pub file: u64,
    pub descriptor: u32,
    /// The kernel's cookie, or 0 where this kernel does not give it.
    pub cookie: u64,
    pub tgid: u32,
    pub direction: Direction,
    /// Bytes of the call, counted by the kernel already.
    pub length: u32,
}

/// Whether a socket that the process was not yet seen to use is its client's. If so, it is told.
#[inline(always)]
pub fn meet(target: &mut Target, met: &Met) -> Option<bool> {
    let sock = met.sock;
    let family: u16 = sock.read(offset!(sock_family))?;
    if family != AF_INET && family != AF_INET6 && family != AF_UNIX {
        return Some(false);
    }
    if sock.read::<u16>(offset!(sock_type))? != SOCK_STREAM {
        return Some(false);
    }
    let is_receive = met.direction as u8 == Direction::Received as u8;
    let mut client = Client {
        sock: sock.0,
        file: met.file,
        descriptor: met.descriptor,
        cookie: met.cookie,
        family,
        ..target.client
    };
    if client.cookie == 0 {
        client.cookie = made_up_cookie();
    }
    client.received = 0;
    client.sent = 0;
    client.plain_received = 0;
    client.plain_sent = 0;
    client.channel = Channel::Socket as u8;
    client.lost = 0;
    client.outside = 0;
    let (mut sequence, mut answer) = (0, 0);
    let role;
    let mid_stream;
    let is_tcp = family != AF_UNIX && sock.read::<u16>(offset!(sock_protocol))? == IPPROTO_TCP;
    if !is_tcp {
        // A client's Unix socket has no name. Over IP (MPTCP) there are no counts, but the client speaks first.
        let is_client = if family == AF_UNIX {
            sock.follow(offset!(unix_addr)).is_none()
        } else {
            is_connecting(sock) || !is_receive && target.flags & TARGET_BORN_TAPPED != 0
        };
        if is_client {
            return Some(false);
        }
        client.family = AF_UNIX;
        role = SocketRole::Accepted;
        mid_stream = target.flags & TARGET_BORN_TAPPED == 0 || target.flags & TARGET_SOCKET_UNTOLD != 0;
    } else {
        if is_connecting(sock) {
            return Some(false);
        }
        let (received, copied_seq) = sockets::received(sock)?;
        let (sent, write_seq) = sockets::sent(sock)?;
        // Count from before this call, which `advance` adds.
        let (taken, given) = if is_receive {
            (met.length, 0)
        } else {
            (0, met.length)
        };
        client.received = received.wrapping_sub(u64::from(taken));
        client.copied_seq = copied_seq.wrapping_sub(taken);
        client.sent = sent.wrapping_sub(u64::from(given));
        client.write_seq = write_seq.wrapping_sub(given);
        sequence = copied_seq.wrapping_sub(received as u32);
        answer = write_seq.wrapping_sub(sent as u32);
        // In this protocol the client speaks first.
        let fresh = client.received == 0 && client.sent == 0;
        if fresh && !is_receive {
            return Some(false);
        }
        role = if fresh {
            SocketRole::Accepted
        } else {
            SocketRole::Unknown
        };
        mid_stream = !fresh;
    }
    let mut flags = if is_tcp || family == AF_UNIX {
        0
    } else {
        SOCKET_UNCOUNTED
    };
    if mid_stream {
        flags |= SOCKET_MID_STREAM;
    }
    if target.flags & TARGET_PROBED_TLS != 0 {
        flags |= SOCKET_PROBED_TLS;
    }
    if target.flags & TARGET_PROBED_GSS != 0 {
        flags |= SOCKET_PROBED_GSS;
    }
    let about = About {
        server: target.server,
        tgid: met.tgid,
        cookie: client.cookie,
        family,
        role,
        flags,
        sequence,
        answer,
    };
    if !emit::fact_with(|room| tell(sock, &about, room)) {
        // The next call tries again; by then the beginning is gone.
        target.flags |= TARGET_SOCKET_UNTOLD;
        return None;
    }
    target.client = client;
    Some(true)
}

/// What of a [`SocketFact`] does not stand in the socket.
pub struct About {
    pub server: u32,
    pub tgid: u32,
    pub cookie: u64,
    pub family: u16,
    pub role: SocketRole,
    pub flags: u8,
    pub sequence: u32,
    pub answer: u32,
}

#[inline(always)]
pub fn tell(sock: Address, about: &About, room: &mut MaybeUninit<SocketFact>) -> Option<()> {
    let room = room.as_mut_ptr();
    // SAFETY: all bit patterns are valid, and every field but the unused end of the path is written here.
    let fact = unsafe { &mut *room };
    fact.kind = FactKind::Socket as u32;
    fact.tgid = about.tgid;
    // SAFETY: the helper has no precondition.
    fact.at = unsafe { bpf_ktime_get_boot_ns() };
    fact.cookie = about.cookie;
    fact.server = about.server;
    fact.netns = sockets::netns(sock)?;
    fact.family = about.family;
    fact.local_port = 0;
    fact.remote_port = 0;
    fact.role = about.role as u8;
    fact.flags = about.flags;
    fact.local = [0; 16];
    fact.remote = [0; 16];
    fact.peer = PeerProcess::default();
    fact.sequence = about.sequence;
    fact.answer = about.answer;
    fact.client_inode = 0;
    fact.path_length = 0;
    if about.family == AF_UNIX {
        sockets::unix(sock, fact);
    } else {
        fact.local_port = sock.read(offset!(sock_num))?;
        fact.remote_port = u16::from_be(sock.read(offset!(sock_dport))?);
        sockets::addresses(sock, about.family, &mut fact.local, &mut fact.remote)?;
    }
    Some(())
}

/// Whether the socket is one that a process of this host connects or connected with.
#[inline(always)]
pub fn is_connecting(sock: Address) -> bool {
    // SAFETY: the value is only read, and at once.
    let Some(owner) = (unsafe { OWNERS.get(sock.0) }) else {
        return false;
    };
    // The address may have been another socket's, had its end gone unseen.
    sockets::ports(sock).is_some_and(|ports| ports == owner.ports)
}

/// Unique on this host until it restarts, and never one of the kernel's own, which count from 1.
#[inline(always)]
fn made_up_cookie() -> u64 {
    // SAFETY: the helpers have no precondition.
    let (now, processor) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_smp_processor_id()) };
    1 << 63 | (now << 10) & !(1 << 63) | u64::from(processor) & 0x3ff
}

/// Where in the stream the bytes of this call begin. For TCP by the kernel's own sequence numbers, so that bytes
/// that passed without a call that we saw (`splice`) show as a jump; Unix sockets have none and are counted here.
#[inline(always)]
pub fn advance(client: &mut Client, sock: impl Place, direction: Direction, length: u32) -> Option<u64> {
    let received = direction as u8 == Direction::Received as u8;
    let mut passed = length;
    if client.family != AF_UNIX {
        if received {
            let now = sockets::copied_seq(sock)?;
            let moved = now.wrapping_sub(client.copied_seq);
            // A connection that was reset looks like one whose FIN was taken, one byte short: it never goes back.
            if moved.wrapping_sub(length) as i32 >= 0 {
                passed = moved;
            }
            client.copied_seq = client.copied_seq.wrapping_add(passed);
        } else {
            let now: u32 = sock.read(offset!(tcp_write_seq))?;
            passed = now.wrapping_sub(client.write_seq);
            client.write_seq = now;
        }
    }
    let count = if received {
        &mut client.received
    } else {
        &mut client.sent
    };
    *count += u64::from(passed);
    Some(count.wrapping_sub(u64::from(length)))
}

/// The process ends: how far its client's streams came.
#[inline(always)]
pub fn end(task: Address, target: &mut Target) {
    let client = &mut target.client;
    if client.cookie == 0 {
        return;
    }
    // Only while the socket is certainly still this one: what passed since the last call that was seen.
    if call::file_of(task, client.descriptor) == Some(client.file) {
        let sock = Address(client.sock);
        let _ = advance(client, sock, Direction::Received, 0);
        let _ = advance(client, sock, Direction::Sent, 0);
    }
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
