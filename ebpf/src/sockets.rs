//! What a socket is: its ends, its namespace, its peer, and how far its streams have come.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use ebpf_abi::{PEER_CGROUP, PEER_CRED, PeerProcess, SocketFact, SocketRole, UNIX_PATH_MAX};

use crate::{
    client,
    kernel::{Address, Place, offset},
    process,
};

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

#[inline(always)]
pub fn netns(sock: Address) -> Option<u32> {
    sock.follow(offset!(sock_net))?.read(offset!(net_ns_inum))
}

/// Fills in local and remote address; IPv4 in the first four bytes.
#[inline(always)]
pub fn addresses(sock: Address, family: u16, local: &mut [u8; 16], remote: &mut [u8; 16]) -> Option<()> {
    if family == AF_INET6 {
        *local = sock.read(offset!(sock_v6_rcv_saddr))?;
        *remote = sock.read(offset!(sock_v6_daddr))?;
        return Some(());
    }
    *local = [0; 16];
    *remote = [0; 16];
    local[..4].copy_from_slice(&sock.read::<u32>(offset!(sock_rcv_saddr))?.to_ne_bytes());
    remote[..4].copy_from_slice(&sock.read::<u32>(offset!(sock_daddr))?.to_ne_bytes());
    Some(())
}

/// `copied_seq`: the sequence number behind the last byte that the process has taken out of the receive queue. The
/// kernel counts the other end's FIN as a byte; here it is none.
#[inline(always)]
pub fn copied_seq(sock: impl Place) -> Option<u32> {
    /// `include/net/sock.h`
    const RCV_SHUTDOWN: u8 = 1;
    let copied: u32 = sock.read(offset!(tcp_copied_seq))?;
    let ended = sock.read::<u8>(offset!(sock_shutdown))? & RCV_SHUTDOWN != 0;
    // The FIN is the last of all: it was taken if nothing is left.
    if ended && sock.read::<u32>(offset!(tcp_rcv_nxt))? == copied {
        return Some(copied.wrapping_sub(1));
    }
    Some(copied)
}

/// Bytes that the process has taken out of the receive queue since the connection began, and the sequence number
/// that says so.
#[inline(always)]
pub fn received(sock: Address) -> Option<(u64, u32)> {
    let copied = copied_seq(sock)?;
    // The kernel's receive path moves both together but not at once: read until nothing moved in between.
    for _ in 0..4 {
        let next: u32 = sock.read(offset!(tcp_rcv_nxt))?;
        let bytes: u64 = sock.read(offset!(tcp_bytes_received))?;
        if sock.read::<u32>(offset!(tcp_rcv_nxt))? == next {
            return Some((bytes.wrapping_sub(u64::from(next.wrapping_sub(copied))), copied));
        }
    }
    None
}

/// Bytes that the process has put into the send queue, and the sequence number that says so. Only true of an
/// accepted socket: a connected one has counted its SYN, too.
#[inline(always)]
pub fn sent(sock: Address) -> Option<(u64, u32)> {
    let written: u32 = sock.read(offset!(tcp_write_seq))?;
    for _ in 0..4 {
        let unacknowledged: u32 = sock.read(offset!(tcp_snd_una))?;
        let acknowledged: u64 = sock.read(offset!(tcp_bytes_acked))?;
        if sock.read::<u32>(offset!(tcp_snd_una))? == unacknowledged {
            return Some((
                acknowledged.wrapping_add(u64::from(written.wrapping_sub(unacknowledged))),
                written,
            ));
        }
    }
    None
}

/// Which end of its connection a TCP socket is, by the kernel's counts: the one that connected has had its SYN acknowledged,
/// which counts as a byte (RFC 9293), and the count of sent payload knows nothing of it.
#[inline(always)]
pub fn tcp_role(sock: Address) -> Option<SocketRole> {
    if client::is_connecting(sock) {
        return Some(SocketRole::Connected);
    }
    for _ in 0..4 {
        let next: u32 = sock.read(offset!(tcp_snd_nxt))?;
        let unacknowledged: u32 = sock.read(offset!(tcp_snd_una))?;
        let acknowledged: u64 = sock.read(offset!(tcp_bytes_acked))?;
        let sent: u64 = sock.read(offset!(tcp_bytes_sent))?;
        let again: u64 = sock.read(offset!(tcp_bytes_retrans))?;
        let still: u32 = sock.read(offset!(tcp_snd_una))?;
        if still == unacknowledged && sock.read::<u32>(offset!(tcp_snd_nxt))? == next {
            let passed = acknowledged.wrapping_add(u64::from(next.wrapping_sub(unacknowledged)));
            return Some(match passed.wrapping_sub(sent.wrapping_sub(again)) {
                0 => SocketRole::Accepted,
                1 => SocketRole::Connected,
                _ => SocketRole::Unknown,
            });
        }
    }
    None
}

/// Local port, and remote port as it stands in the socket.
#[inline(always)]
pub fn ports(sock: Address) -> Option<u32> {
    let local: u16 = sock.read(offset!(sock_num))?;
    let remote: u16 = sock.read(offset!(sock_dport))?;
    Some(u32::from(local) << 16 | u32::from(remote))
}

/// Whether a Unix socket has a name. The accepting end of a connection shares that of the listener that it came from, a
/// connecting end has none.
#[inline(always)]
pub fn is_named(sock: Address) -> bool {
    sock.follow(offset!(unix_addr)).is_some()
}

/// Inode number of a socket that a process holds.
#[inline(always)]
pub fn inode(sock: Address) -> Option<u64> {
    sock.follow(offset!(sock_socket))?
        .follow(offset!(socket_file))?
        .follow(offset!(file_inode))?
        .read(offset!(inode_ino))
}

/// Fills in peer of a Unix connection, the path of its accepting end, and the inode number of the connecting one.
#[inline(always)]
pub fn unix(sock: Address, fact: &mut SocketFact) {
    let _ = peer(sock, &mut fact.peer);
    let other = sock.follow(offset!(unix_peer));
    let (accepting, connecting) = if is_named(sock) {
        (Some(sock), other)
    } else {
        (other, Some(sock))
    };
    fact.client_inode = connecting.and_then(inode).unwrap_or(0);
    let Some(address) = accepting.and_then(|sock| sock.follow(offset!(unix_addr))) else {
        return;
    };
    let Some(length) = address.read::<u32>(offset!(unix_address_len)) else {
        return;
    };
    // Behind the address family; masked, so that the verifier sees a bound that the compiler cannot drop.
    let mut used = length.wrapping_sub(2) & 127;
    if used > UNIX_PATH_MAX as u32 {
        used = 0;
    }
    let name = address.plus(offset!(unix_address_name)).plus(2);
    // SAFETY: the destination has room for `used` bytes, and the helper copies with fault handling.
    let copied = unsafe { bpf_probe_read_kernel(fact.path.as_mut_ptr().cast(), used, name.0 as *const _) };
    fact.path_length = if copied == 0 { used } else { 0 };
}

/// The process at the other end, from `sk_peer_pid`.
#[inline(always)]
fn peer(sock: Address, peer: &mut PeerProcess) -> Option<()> {
    let pid = sock.follow(offset!(sock_peer_pid))?;
    // `numbers[0].nr`: as the initial namespace sees it.
    peer.tgid = pid.read(offset!(pid_numbers))?;
    peer.login_uid = u32::MAX;
    if let Some(cred) = sock.follow(offset!(sock_peer_cred)) {
        peer.uid = cred.read(offset!(cred_uid)).unwrap_or(u32::MAX);
    }
    // `tasks[PIDTYPE_PID].first` is the leader's `pid_links[PIDTYPE_PID]` while the process lives.
    if let Some(link) = pid.follow(offset!(pid_tasks)) {
        let task = Address(link.0.wrapping_sub(u64::from(offset!(task_pid_links))));
        peer.start = task.read(offset!(task_start_boottime)).unwrap_or(0);
        peer.cgroup_id = process::cgroup_id(task).unwrap_or(0);
        peer.comm = task.read(offset!(task_comm)).unwrap_or([0; 16]);
        // The socket holds a reference, so that the address cannot be another's by now.
        peer.login_uid = process::login_uid(task);
        let then: u64 = sock.read(offset!(sock_peer_cred)).unwrap_or(0);
        let now: u64 = task.read(offset!(task_cred)).unwrap_or(0);
        peer.changed = if then == now { 0 } else { PEER_CRED };
        let made_in = sock.follow(offset!(unix_peer)).and_then(made_in);
        if made_in.is_some_and(|cgroup| cgroup != peer.cgroup_id) {
            peer.changed |= PEER_CGROUP;
        }
    }
    Some(())
}

/// Id of the cgroup, in the unified hierarchy, in which a socket was made; `None` where the kernel does not keep it.
#[inline(always)]
fn made_in(sock: Address) -> Option<u64> {
    /// Up to Linux 5.15 a word that is no pointer, and one that is but without a reference, are marked
    /// (`include/linux/cgroup-defs.h`, `sock_cgroup_data`).
    const IS_DATA: u64 = 1;
    const MARKS: u64 = 3;
    if offset!(sock_cgroup) == 0 {
        return None;
    }
    let word: u64 = sock.read(offset!(sock_cgroup))?;
    if word & IS_DATA != 0 || word & !MARKS == 0 {
        return None;
    }
    Address(word & !MARKS)
        .follow(offset!(cgroup_kn))?
        .read(offset!(kernfs_node_id))
}
