//! What is kept of a connection from one run of the agent to the next, and the facts that it stands for.

use std::net::IpAddr;

use attribution::Peer;
use ebpf_abi::{OwnerFact, SOCKET_MID_STREAM, SocketFact, SocketRole, UNIX_PATH_MAX};
use tap_core::Endpoint;

use crate::progress::{KeptOwner, KeptSession};

pub(super) fn address(endpoint: &Endpoint) -> Vec<u8> {
    match endpoint {
        Endpoint::Inet(IpAddr::V4(address), _) => address.octets().to_vec(),
        Endpoint::Inet(IpAddr::V6(address), _) => address.octets().to_vec(),
        Endpoint::Unix(_) => Vec::new(),
    }
}

pub(super) fn port(endpoint: &Endpoint) -> u32 {
    match endpoint {
        Endpoint::Inet(_, port) => u32::from(*port),
        Endpoint::Unix(_) => 0,
    }
}

/// The announcement of a connection, as the kernel side would have made it.
pub(super) fn socket_fact(cookie: u64, at: u64, session: &KeptSession) -> SocketFact {
    const AF_UNIX: u16 = 1;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    fn copied<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut copy = [0; N];
        copy.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        copy
    }
    let port = |port: u32| u16::try_from(port).unwrap_or(0);
    SocketFact {
        kind: ebpf_abi::FactKind::Socket as u32,
        tgid: session.backend_pid,
        at,
        cookie,
        server: session.server_pid,
        netns: session.netns,
        family: match session.client.len() {
            0 => AF_UNIX,
            4 => AF_INET,
            _ => AF_INET6,
        },
        local_port: port(session.server_port),
        remote_port: port(session.client_port),
        role: SocketRole::Accepted as u8,
        flags: SOCKET_MID_STREAM,
        local: copied(&session.server),
        remote: copied(&session.client),
        peer: ebpf_abi::PeerProcess::default(),
        sequence: 0,
        answer: 0,
        client_inode: 0,
        path_length: u32::try_from(session.path.len().min(UNIX_PATH_MAX)).unwrap_or(0),
        path: copied(session.path.as_bytes()),
    }
}

/// Who the kernel saw connect, as it is kept.
pub(super) fn kept_owner(peer: &Peer) -> Option<KeptOwner> {
    let Peer::TcpOwner { process, netns, .. } = peer else {
        return None;
    };
    Some(KeptOwner {
        pid: process.pid,
        start: process.start_ns,
        cgroup_id: process.cgroup_id,
        uid: process.uid,
        netns: *netns,
        login_uid: process.login_uid,
    })
}

/// The record of a `connect`, as the kernel side made it in a former run.
pub(super) fn owner_fact(owner: &KeptOwner, of: &SocketFact) -> OwnerFact {
    OwnerFact {
        kind: ebpf_abi::FactKind::Owner as u32,
        tgid: owner.pid,
        start: owner.start,
        cgroup_id: owner.cgroup_id,
        uid: owner.uid,
        netns: owner.netns,
        family: of.family,
        local_port: of.remote_port,
        remote_port: of.local_port,
        sequence: of.sequence,
        answer: of.answer,
        login_uid: owner.login_uid.unwrap_or(u32::MAX),
        local: of.remote,
        remote: of.local,
        ..OwnerFact::default()
    }
}
