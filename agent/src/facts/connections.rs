//! Who is at the client's end of a connection: the owner that the kernel recorded at `connect`, the peer that it keeps on
//! a Unix socket, or an address of another host.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use attribution::{Ends, Pair, Peer, Process, Translated};
use ebpf_abi::{OwnerFact, PEER_CRED, SocketFact};
use tap_core::{Endpoint, SessionFacts, Transport};

use super::{
    cgroups::Cgroups,
    old_sockets::{self, Held, NotHeld},
    processes::{self, Processes},
};
use crate::broker::Broker;

/// Owners that wait for the server's end: most connections of a host are not the database's.
const OWNERS: usize = 65_536;

/// Addresses of this host change rarely.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(5);

/// Both ends, and the first sequence numbers of their data: one connection and no other. The client's alone would not do: the
/// kernel makes it of addresses, ports and a clock that ticks every 64 ns, and the same private addresses may connect in two
/// network namespaces within one tick; the answers to them differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    client: ([u8; 16], u16),
    server: ([u8; 16], u16),
    sequence: u32,
    answer: u32,
}

impl Addresses {
    fn of(fact: &OwnerFact) -> Self {
        Self {
            client: (fact.local, fact.local_port),
            server: (fact.remote, fact.remote_port),
            sequence: fact.sequence,
            answer: fact.answer,
        }
    }
}

/// The server's address tells no two connections of a client's port apart that the rest does not.
impl Hash for Addresses {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            client: (address, port),
            server: (_, server_port),
            sequence,
            answer: _,
        } = self;
        let ports = u32::from(*port) << 16 | u32::from(*server_port);
        state.write(address);
        state.write_u64(u64::from(*sequence) << 32 | u64::from(ports));
    }
}

/// Who opened a connection: as the kernel names it, and all that was known of it at that moment. It may run another
/// program, or have ended, by the time the server reads.
struct Opened {
    fact: OwnerFact,
    process: Option<Arc<Process>>,
}

/// Owners of connections that a server has not been seen to use yet.
pub struct Connections {
    broker: Broker,
    owners: HashMap<Addresses, Opened>,
    /// The same connections by both first sequence numbers, which nothing translates.
    by_fingerprint: HashMap<u64, Addresses>,
    order: VecDeque<Addresses>,
    local: HashSet<IpAddr>,
    local_read: Option<Instant>,
}

impl Connections {
    /// None yet.
    pub fn new(broker: Broker) -> Self {
        Self {
            broker,
            owners: HashMap::new(),
            by_fingerprint: HashMap::new(),
            order: VecDeque::new(),
            local: HashSet::new(),
            local_read: None,
        }
    }

    /// A process of this host opened a connection, some time ago.
    pub fn opened(&mut self, fact: &OwnerFact) {
        self.opened_by(fact, None);
    }

    /// A process of this host opened a connection just now.
    pub fn opened_by(&mut self, fact: &OwnerFact, process: Option<Arc<Process>>) {
        let opened = Opened { fact: *fact, process };
        let pair = Addresses::of(fact);
        if let Some(fingerprint) = fact.fingerprint() {
            self.by_fingerprint.insert(fingerprint, pair);
        }
        if self.owners.insert(pair, opened).is_none() {
            self.order.push_back(pair);
        }
        while self.order.len() > OWNERS {
            if let Some(oldest) = self.order.pop_front() {
                self.take(&oldest);
            }
        }
    }

    fn take(&mut self, pair: &Addresses) -> Option<Opened> {
        let opened = self.owners.remove(pair)?;
        if let Some(fingerprint) = opened.fact.fingerprint()
            && let Entry::Occupied(entry) = self.by_fingerprint.entry(fingerprint)
            && entry.get() == pair
        {
            entry.remove();
        }
        Some(opened)
    }

    /// The owner of a connection whose addresses are translated on the way.
    fn translated(&mut self, socket: &SocketFact) -> Option<Opened> {
        let pair = *self.by_fingerprint.get(&socket.fingerprint()?)?;
        self.take(&pair)
    }

    /// Who began to speak over a connection, and when it was opened. Its owner stays for the server's end.
    pub fn client(&self, flow: &OwnerFact, processes: &mut Processes, cgroups: &mut Cgroups) -> (Peer, u64) {
        let opened = self.owners.get(&Addresses::of(flow));
        let is_same = |opened: &&Opened| {
            let kept = &opened.fact;
            (kept.tgid, kept.start, kept.netns) == (flow.tgid, flow.start, flow.netns)
        };
        let opened = opened.filter(is_same);
        let process = opened.and_then(|opened| opened.process.clone());
        let peer = owner(flow, process, Pair::OfClient(ends_of(flow)), processes, cgroups);
        (peer, opened.map_or(flow.at, |opened| opened.fact.at))
    }

    /// What is known of the client behind a server's socket.
    pub fn peer(
        &mut self,
        socket: &SocketFact,
        session: &SessionFacts,
        processes: &mut Processes,
        cgroups: &mut Cgroups,
    ) -> Peer {
        let peer = self.found(socket, session, processes, cgroups);
        let process = match &peer {
            Peer::TcpOwner { process, .. }
            | Peer::TcpHolder { process, .. }
            | Peer::UnixPeer { process, .. } => process,
            _ => return peer,
        };
        if !cgroups.is_outside(process.cgroup_id) {
            return peer;
        }
        match session.client {
            Endpoint::Inet(address, _) if !address.is_loopback() => Peer::Address(address),
            _ => Peer::Unknown {
                reason: "its client is outside of the cgroup that this agent is for".to_owned(),
            },
        }
    }

    fn found(
        &mut self,
        socket: &SocketFact,
        session: &SessionFacts,
        processes: &mut Processes,
        cgroups: &mut Cgroups,
    ) -> Peer {
        match (session.transport, &session.client, &session.server) {
            (Transport::Unix, _, Endpoint::Unix(path)) => unix_peer(socket, path, processes, cgroups),
            (_, Endpoint::Inet(address, port), Endpoint::Inet(server, server_port)) => {
                let pair = Addresses {
                    client: (socket.remote, socket.remote_port),
                    server: (socket.local, socket.local_port),
                    sequence: socket.sequence,
                    answer: socket.answer,
                };
                let of_server = Ends {
                    client: (*address, *port).into(),
                    server: (*server, *server_port).into(),
                };
                let straight = self.take(&pair).map(|opened| (opened, Pair::OfServer(of_server)));
                let found = straight.or_else(|| {
                    let opened = self.translated(socket)?;
                    let of_client = ends_of(&opened.fact);
                    let both = Box::new(Translated { of_client, of_server });
                    Some((opened, Pair::Translated(both)))
                });
                match found {
                    Some((Opened { fact, process }, pair)) => owner(&fact, process, pair, processes, cgroups),
                    None if session.opened_before_attach => {
                        let ends = old_sockets::Connection {
                            backend: session.backend_pid,
                            server: of_server.server,
                            client: of_server.client,
                        };
                        self.holder(&ends, processes, cgroups)
                    }
                    None if self.is_local(*address) => Peer::Unknown {
                        reason: "no connect() was recorded for this connection".to_owned(),
                    },
                    None => Peer::Address(*address),
                }
            }
            _ => Peer::Unknown {
                reason: "the socket is of an unknown kind".to_owned(),
            },
        }
    }

    /// What can be said of a connection that was open before anybody watched.
    fn holder(
        &mut self,
        ends: &old_sockets::Connection,
        processes: &mut Processes,
        cgroups: &mut Cgroups,
    ) -> Peer {
        let older = |reason: &str| Peer::Unknown {
            reason: format!("the connection is older than the agent, and {reason}"),
        };
        match self.broker.holder(ends) {
            Ok(Held { pid, netns, socket }) => match processes.living(pid, cgroups) {
                Some(process) => Peer::TcpHolder {
                    process,
                    pair: Pair::OfClient(Ends {
                        client: ends.client,
                        server: ends.server,
                    }),
                    netns,
                    socket,
                },
                None => older("its client was gone before it was looked at"),
            },
            Err(NotHeld::Unclear(reason)) => older(&reason),
            Err(NotHeld::Elsewhere | NotHeld::Over) if !self.is_local(ends.client.ip()) => {
                Peer::Address(ends.client.ip())
            }
            Err(NotHeld::Elsewhere) => older("no process of this host was seen to hold its other end"),
            Err(NotHeld::Over) => older("it was over before it was looked at"),
        }
    }

    fn is_local(&mut self, address: IpAddr) -> bool {
        if address.is_loopback() {
            return true;
        }
        if self.local_read.is_none_or(|at| at.elapsed() > ADDRESSES_INTERVAL) {
            self.local_read = Some(Instant::now());
            // Should no answer come, those that were known hold on.
            if let Ok(addresses) = self.broker.addresses() {
                self.local = addresses.into_iter().collect();
            }
        }
        self.local.contains(&address)
    }
}

/// Both ends of a connection, as its client knows them.
fn ends_of(fact: &OwnerFact) -> Ends {
    let end = |bytes, port| SocketAddr::new(tap_core::address(fact.family, bytes), port);
    Ends {
        client: end(fact.local, fact.local_port),
        server: end(fact.remote, fact.remote_port),
    }
}

/// Who opened a connection, as it was then.
fn owner(
    fact: &OwnerFact,
    known: Option<Arc<Process>>,
    pair: Pair,
    processes: &mut Processes,
    cgroups: &mut Cgroups,
) -> Peer {
    let named = Named {
        pid: fact.tgid,
        start: fact.start,
        cgroup_id: fact.cgroup_id,
        uid: fact.uid,
        login_uid: fact.login_uid,
    };
    Peer::TcpOwner {
        process: as_it_was(&named, known, &fact.comm, processes, cgroups),
        pair,
        netns: fact.netns,
    }
}

fn unix_peer(socket: &SocketFact, path: &str, processes: &mut Processes, cgroups: &mut Cgroups) -> Peer {
    let peer = &socket.peer;
    if peer.tgid == 0 {
        return Peer::Unknown {
            reason: "the kernel keeps no peer on this Unix socket".to_owned(),
        };
    }
    let path = path.into();
    if peer.start == 0 {
        // The process was gone when the server first read: only its pid is left, so the time must decide.
        return match processes.find_ended(peer.tgid, socket.at) {
            Some(process) if process.uid == peer.uid => Peer::UnixPeer { process, path },
            _ => Peer::Unknown {
                reason: format!("process {} had ended before the server read from it", peer.tgid),
            },
        };
    }
    let changed = match peer.changed {
        0 => None,
        flags if flags & PEER_CRED != 0 => Some("ran another program or changed its user"),
        _ => Some("was moved to another cgroup"),
    };
    if let Some(changed) = changed {
        // Whoever connects and then becomes something else would be named for what it became.
        return Peer::Unknown {
            reason: format!(
                "process {} {changed} between its connect and the server's first read",
                peer.tgid
            ),
        };
    }
    let named = Named {
        pid: peer.tgid,
        start: peer.start,
        cgroup_id: peer.cgroup_id,
        uid: peer.uid,
        login_uid: peer.login_uid,
    };
    Peer::UnixPeer {
        process: as_it_was(&named, None, &peer.comm, processes, cgroups),
        path,
    }
}

/// A process as a connection names it.
struct Named {
    pid: u32,
    start: u64,
    cgroup_id: u64,
    uid: u32,
    /// `u32::MAX` if it has none.
    login_uid: u32,
}

/// All that is known of it, as the user, with the login and in the cgroup that it was when it connected.
fn as_it_was(
    named: &Named,
    known: Option<Arc<Process>>,
    comm: &[u8],
    processes: &mut Processes,
    cgroups: &mut Cgroups,
) -> Arc<Process> {
    let known = known
        .filter(|process| process.pid == named.pid)
        .or_else(|| processes.find(named.pid, named.start))
        .or_else(|| {
            processes
                .read(named.pid, Some(named.start), cgroups)
                .map(Arc::new)
        });
    let process = known.unwrap_or_else(|| {
        Arc::new(Process {
            pid: named.pid,
            start_ns: named.start,
            comm: processes::text(comm).into(),
            uid: named.uid,
            ..Process::default()
        })
    });
    let process = processes.completed(process);
    let is_there = process.cgroup_id == named.cgroup_id && process.cgroup_path.is_some();
    let is_that_user = process.uid == named.uid;
    let login_uid = Some(named.login_uid).filter(|uid| *uid != u32::MAX);
    let is_that_login = process.login_uid == login_uid;
    if is_there && is_that_user && is_that_login {
        return process;
    }
    // What it is known by dates from its last fork or exec.
    let mut process = Arc::unwrap_or_clone(process);
    if !is_there {
        let path = cgroups
            .path(named.cgroup_id)
            .map(|path| processes.cgroup_path(path));
        process.enter(named.cgroup_id, path);
        if process.container.is_none() {
            process.container = process
                .hosts_container_id()
                .and_then(|id| processes.container(id));
        }
    }
    if !is_that_user {
        process.uid = named.uid;
        process.user = processes.user(named.uid);
    }
    if !is_that_login {
        process.login_uid = login_uid;
        process.login_user = login_uid.and_then(|uid| processes.user(uid));
        process.audit_session = None;
    }
    Arc::new(process)
}

#[cfg(test)]
mod tests;
