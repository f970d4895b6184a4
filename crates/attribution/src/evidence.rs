//! The facts that an attribution rests on, and the words for them.
//!
//! Separate from the join, because words are made once, where an event is written down: the join only says which facts
//! they are.

use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{CgroupPath, Shown};

/// A fact that an attribution rests on. [`Display`] has its words, as they stand in records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The kernel recorded who called `connect`.
    Connected {
        /// The connection.
        pair: Pair,
        /// Inode number of the client's network namespace.
        netns: u32,
    },
    /// Nobody saw the `connect`; one process alone held the client's end later.
    Held {
        /// The connection.
        pair: Pair,
        /// Inode number of the client's socket.
        socket: u64,
        /// Inode number of the client's network namespace.
        netns: u32,
    },
    /// The kernel keeps who connected on a Unix socket of this path.
    Credentials(Arc<str>),
    /// The connection comes from this address of another host.
    Address(IpAddr),
    /// Which process that was.
    Process {
        /// Process id in the initial namespace.
        pid: u32,
        /// Start, in nanoseconds since boot.
        start_ns: u64,
    },
    /// In which cgroup it was.
    Cgroup {
        /// Id in the unified hierarchy.
        id: u64,
        /// Its path.
        path: CgroupPath,
    },
    /// It was put into its container, whose first process has this id in the initial namespace.
    PutIn(u32),
    /// A former run of the agent recorded the `connect`.
    FormerRun,
    /// A pooler passed it on for this client.
    Leased {
        /// The client's session at the pooler.
        session: Arc<str>,
        /// How that is known.
        shown: Shown,
    },
    /// It is the pooler's own, or belongs to its connection.
    PoolersOwn,
    /// It may be this client's.
    Candidate {
        /// Its principal, or "unknown".
        principal: Arc<str>,
        /// Its session at the pooler.
        session: Arc<str>,
    },
    /// So many more may have said it.
    MoreCandidates(usize),
}

/// Both ends of a TCP connection, as somebody sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The end that connected.
    pub client: SocketAddr,
    /// The end that accepted.
    pub server: SocketAddr,
}

/// What names a TCP connection to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pair {
    /// As its client has it.
    OfClient(Ends),
    /// As its server has it.
    OfServer(Ends),
    /// As both have it: addresses are translated on the way, and it was found by the first sequence numbers.
    Translated(Box<Translated>),
}

/// One connection under two pairs of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// As its client has it.
    pub of_client: Ends,
    /// As its server has it.
    pub of_server: Ends,
}

impl Display for Fact {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { pair, netns } => {
                write!(
                    f,
                    "connect() recorded by the kernel: {pair} in network namespace {netns}"
                )
            }
            Self::Held { pair, socket, netns } => write!(
                f,
                "open before the agent, and held by one process when it looked: {pair}, socket {socket} in network \
                 namespace {netns}"
            ),
            Self::Credentials(path) => {
                write!(f, "peer credentials kept by the kernel on the socket {path}")
            }
            Self::Address(address) => write!(
                f,
                "the connection comes from {address}, which is not an address of this host"
            ),
            Self::Process { pid, start_ns } => {
                write!(f, "process {pid} started at {start_ns} ns since boot")
            }
            Self::Cgroup { id, path } => write!(f, "cgroup {id} is {}", &**path),
            Self::PutIn(first) => write!(
                f,
                "put into the container from outside: it does not descend from the first process there, {first}"
            ),
            Self::FormerRun => f.write_str("recorded by a former run of the agent"),
            Self::Leased { session, shown } => leased(f, session, *shown),
            Self::PoolersOwn => f.write_str("the pooler's own, or its connection's: no client's"),
            Self::Candidate { principal, session } => {
                write!(f, "may be of {principal}, the pooler's session {session}")
            }
            Self::MoreCandidates(more) => write!(f, "or of {more} more"),
        }
    }
}

fn leased(f: &mut Formatter<'_>, session: &str, shown: Shown) -> fmt::Result {
    match shown {
        Shown::Both => write!(
            f,
            "the pooler sent the request from the memory into which it had received it in its session {session}, and the \
             answer to that session from the memory into which it had received that"
        ),
        Shown::Request => write!(
            f,
            "the pooler sent the request from the memory into which it had received it in its session {session}; of the \
             answer that was not seen"
        ),
        Shown::Answer => write!(
            f,
            "the pooler wrote the request anew right behind a receive in its session {session}, and the answer went there"
        ),
        Shown::Sole => write!(
            f,
            "the pooler's process had no client but that of its session {session}"
        ),
    }
}

impl Display for Ends {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { client, server } = self;
        write!(f, "{client} → {server}")
    }
}

impl Display for Pair {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfClient(ends) => ends.fmt(f),
            Self::OfServer(ends) => bare(f, ends),
            Self::Translated(both) => {
                write!(f, "{}, here ", both.of_client)?;
                bare(f, &both.of_server)?;
                f.write_str(" (the same connection by the first sequence numbers of both ends)")
            }
        }
    }
}

/// The server's view has addresses of IPv6 without brackets, as records always had them.
fn bare(f: &mut Formatter<'_>, Ends { client, server }: &Ends) -> fmt::Result {
    let ((client, port), (server, server_port)) =
        ((client.ip(), client.port()), (server.ip(), server.port()));
    write!(f, "{client}:{port} → {server}:{server_port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Ends {
        Ends {
            client: client.parse().expect("an end"),
            server: server.parse().expect("an end"),
        }
    }

    /// Records of years are read side by side: these words stay.
    #[test]
    fn each_fact_has_its_words() {
        let here = ends("10.0.0.5:50000", "10.0.0.9:5432");
        let facts = [
            (
                Fact::Connected {
                    pair: Pair::OfServer(here),
                    netns: 7,
                },
                "connect() recorded by the kernel: 10.0.0.5:50000 → 10.0.0.9:5432 in network namespace 7",
            ),
            (
                Fact::Held {
                    pair: Pair::OfClient(here),
                    socket: 17,
                    netns: 7,
                },
                "open before the agent, and held by one process when it looked: 10.0.0.5:50000 → 10.0.0.9:5432, socket \
                 17 in network namespace 7",
            ),
            (
                Fact::Credentials("/run/postgresql/.s.PGSQL.5432".into()),
                "peer credentials kept by the kernel on the socket /run/postgresql/.s.PGSQL.5432",
            ),
            (
                Fact::Address("10.0.0.5".parse().expect("an address")),
                "the connection comes from 10.0.0.5, which is not an address of this host",
            ),
            (
                Fact::Process {
                    pid: 25_344,
                    start_ns: 5_673_795_636_021,
                },
                "process 25344 started at 5673795636021 ns since boot",
            ),
            (
                Fact::Cgroup {
                    id: 1,
                    path: "/system.slice/a.service".into(),
                },
                "cgroup 1 is /system.slice/a.service",
            ),
            (
                Fact::PutIn(50),
                "put into the container from outside: it does not descend from the first process there, 50",
            ),
            (Fact::FormerRun, "recorded by a former run of the agent"),
            (
                Fact::Leased {
                    session: "b-7".into(),
                    shown: Shown::Both,
                },
                "the pooler sent the request from the memory into which it had received it in its session b-7, and the \
                 answer to that session from the memory into which it had received that",
            ),
            (
                Fact::Leased {
                    session: "b-7".into(),
                    shown: Shown::Request,
                },
                "the pooler sent the request from the memory into which it had received it in its session b-7; of the \
                 answer that was not seen",
            ),
            (
                Fact::Leased {
                    session: "b-7".into(),
                    shown: Shown::Answer,
                },
                "the pooler wrote the request anew right behind a receive in its session b-7, and the answer went there",
            ),
            (
                Fact::Leased {
                    session: "b-7".into(),
                    shown: Shown::Sole,
                },
                "the pooler's process had no client but that of its session b-7",
            ),
            (
                Fact::PoolersOwn,
                "the pooler's own, or its connection's: no client's",
            ),
            (
                Fact::Candidate {
                    principal: "spiffe://td/host/h/unit/a.service".into(),
                    session: "b-7".into(),
                },
                "may be of spiffe://td/host/h/unit/a.service, the pooler's session b-7",
            ),
            (Fact::MoreCandidates(3), "or of 3 more"),
        ];
        for (fact, words) in facts {
            assert_eq!(fact.to_string(), words);
        }
    }

    #[test]
    fn a_pair_is_told_as_whoever_saw_it_has_it() {
        let v6 = ends("[fd00::5]:50000", "[fd00::9]:5432");
        assert_eq!(Pair::OfClient(v6).to_string(), "[fd00::5]:50000 → [fd00::9]:5432");
        assert_eq!(Pair::OfServer(v6).to_string(), "fd00::5:50000 → fd00::9:5432");
        let translated = Translated {
            of_client: ends("127.0.0.1:50000", "127.0.0.1:6001"),
            of_server: ends("127.0.0.1:50000", "127.0.0.1:5432"),
        };
        assert_eq!(
            Pair::Translated(Box::new(translated)).to_string(),
            "127.0.0.1:50000 → 127.0.0.1:6001, here 127.0.0.1:50000 → 127.0.0.1:5432 (the same connection by the first \
             sequence numbers of both ends)"
        );
    }
}
