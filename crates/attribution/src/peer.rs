//! The join itself: from what is known of the client's end of a connection to an attribution.

use std::{net::IpAddr, sync::Arc};

use crate::{Attribution, Confidence, Fact, Hop, Host, Pair, Principal, Process, Relay};

/// What was recorded about the client's end.
#[derive(Clone, Debug)]
pub enum Peer {
    /// The kernel recorded who called `connect`, under this very pair of addresses in this network namespace.
    TcpOwner {
        /// The process that connected.
        process: Arc<Process>,
        /// The pair, for people.
        pair: Pair,
        /// Inode number of the namespace.
        netns: u32,
    },
    /// Nobody saw the `connect`, but only one process holds the client's end of this very connection.
    TcpHolder {
        /// The process that holds it.
        process: Arc<Process>,
        /// The pair, for people.
        pair: Pair,
        /// Inode number of the namespace that the client's end is in.
        netns: u32,
        /// Inode number of the client's socket.
        socket: u64,
    },
    /// The kernel keeps the connecting process on the socket.
    UnixPeer {
        /// The process that connected.
        process: Arc<Process>,
        /// The socket's path, for people.
        path: Arc<str>,
    },
    /// The connection comes from another host.
    Address(IpAddr),
    /// Nothing that would prove anything.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Names the client of a connection. Pure: the same facts always give the same answer.
#[must_use]
pub fn attribute(host: &Host, peer: &Peer) -> Attribution {
    // Who holds a socket need not be who opened it.
    let (process, method, confidence, observation) = match peer {
        Peer::TcpOwner { process, pair, netns } => {
            let fact = Fact::Connected {
                pair: pair.clone(),
                netns: *netns,
            };
            (process, "tcp-owner", Confidence::Observed, fact)
        }
        Peer::TcpHolder {
            process,
            pair,
            netns,
            socket,
        } => {
            let fact = Fact::Held {
                pair: pair.clone(),
                socket: *socket,
                netns: *netns,
            };
            (process, "tcp-holder", Confidence::Inferred, fact)
        }
        Peer::UnixPeer { process, path } => {
            let fact = Fact::Credentials(Arc::clone(path));
            (process, "unix-peer-cred", Confidence::Observed, fact)
        }
        Peer::Address(address) => {
            return Attribution {
                principal: Principal::of_address(host, *address),
                confidence: Confidence::Inferred,
                method: "address",
                reason: String::new(),
                evidence: vec![Fact::Address(*address)],
                process: None,
                hops: Vec::new(),
            };
        }
        Peer::Unknown { reason } => return unknown(reason.clone(), Vec::new(), None),
    };
    let mut evidence = Vec::with_capacity(FACTS);
    evidence.push(observation);
    evidence.push(Fact::Process {
        pid: process.pid,
        start_ns: process.start_ns,
    });
    let name = Principal::of_process(host, process);
    if let Some(relay) = Relay::of(process) {
        return behind_relay(relay, name, confidence, evidence, process);
    }
    match name {
        Ok(principal) => {
            evidence.extend(process.cgroup_path.as_ref().map(|path| Fact::Cgroup {
                id: process.cgroup_id,
                path: path.clone(),
            }));
            evidence.extend(process.put_in_beside().map(|first| Fact::PutIn(first.pid)));
            Attribution {
                principal,
                confidence,
                method,
                reason: String::new(),
                evidence,
                process: Some(Arc::clone(process)),
                hops: Vec::new(),
            }
        }
        Err(reason) => unknown(reason, evidence, Some(Arc::clone(process))),
    }
}

/// Most that one rests on.
const FACTS: usize = 4;

fn unknown(reason: String, evidence: Vec<Fact>, process: Option<Arc<Process>>) -> Attribution {
    Attribution {
        principal: Principal::unknown(),
        confidence: Confidence::None,
        method: "none",
        reason,
        evidence,
        process,
        hops: Vec::new(),
    }
}

/// A relay is a hop: whose statements it passes on is not known at this end of it.
fn behind_relay(
    relay: Relay,
    name: Result<Principal, String>,
    confidence: Confidence,
    evidence: Vec<Fact>,
    process: &Arc<Process>,
) -> Attribution {
    let principal = name.unwrap_or_else(|_| Principal::unknown());
    let exe = process.exe.as_deref().unwrap_or(&process.comm);
    let reason = format!("passed on by a {} ({exe}, {})", relay.name(), principal.id);
    let hop = Hop {
        relay,
        principal,
        confidence,
        process: Arc::clone(process),
        client: None,
    };
    Attribution {
        hops: vec![hop],
        ..unknown(reason, evidence, Some(Arc::clone(process)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ancestor, Descent, Ends, First};

    fn host() -> Host {
        Host {
            trust_domain: "example.org".into(),
            name: "db1".into(),
        }
    }

    fn pair() -> Pair {
        let end = |port| ([127, 0, 0, 1], port).into();
        Pair::OfServer(Ends {
            client: end(50_000),
            server: end(5432),
        })
    }

    #[test]
    fn both_local_transports_are_observed() {
        let process = Arc::new(Process {
            cgroup_path: Some("/system.slice/a.service".into()),
            ..Process::default()
        });
        let peers = [
            Peer::TcpOwner {
                process: Arc::clone(&process),
                pair: pair(),
                netns: 1,
            },
            Peer::UnixPeer {
                process,
                path: "/run/.s.PGSQL.5432".into(),
            },
        ];
        for peer in peers {
            let answer = attribute(&host(), &peer);
            assert_eq!(
                answer.principal.id,
                "spiffe://example.org/host/db1/unit/a.service"
            );
            assert_eq!(answer.confidence, Confidence::Observed);
        }
    }

    #[test]
    fn evidence_says_all_that_the_answer_rests_on() {
        let cgroup = format!("/system.slice/docker-{}.scope", "a".repeat(64));
        let first = First {
            pid: 50,
            cgroup_path: cgroup.as_str().into(),
        };
        let parent = Ancestor {
            pid: 40,
            start_ns: 1,
            exe: "/bin/x".into(),
        };
        let process = Arc::new(Process {
            pid: 70,
            start_ns: 2,
            cgroup_id: 3,
            cgroup_path: Some(cgroup.as_str().into()),
            descent: Descent::new([Arc::new(parent)].into(), Some(Arc::new(first))),
            ..Process::default()
        });
        let peer = Peer::TcpOwner {
            process,
            pair: pair(),
            netns: 1,
        };
        let words: Vec<String> = attribute(&host(), &peer)
            .evidence
            .iter()
            .map(Fact::to_string)
            .collect();
        assert_eq!(
            words,
            [
                "connect() recorded by the kernel: 127.0.0.1:50000 → 127.0.0.1:5432 in network namespace 1",
                "process 70 started at 2 ns since boot",
                &format!("cgroup 3 is {cgroup}"),
                "put into the container from outside: it does not descend from the first process there, 50",
            ]
        );
    }

    #[test]
    fn who_only_holds_a_socket_is_inferred() {
        let process = Arc::new(Process {
            cgroup_path: Some("/system.slice/a.service".into()),
            ..Process::default()
        });
        let peer = Peer::TcpHolder {
            process,
            pair: pair(),
            netns: 1,
            socket: 17,
        };
        let answer = attribute(&host(), &peer);
        assert_eq!(
            (answer.principal.id.as_str(), answer.confidence, answer.method),
            (
                "spiffe://example.org/host/db1/unit/a.service",
                Confidence::Inferred,
                "tcp-holder"
            )
        );
        assert!(
            answer.evidence[0]
                .to_string()
                .contains("socket 17 in network namespace 1")
        );
    }

    #[test]
    fn what_is_not_known_says_why() {
        let answer = attribute(
            &host(),
            &Peer::Unknown {
                reason: "opened before the agent".into(),
            },
        );
        assert_eq!(
            (answer.principal.id.as_str(), answer.reason.as_str()),
            ("unknown", "opened before the agent")
        );
        assert_eq!(answer.confidence, Confidence::None);
        let nameless = Arc::new(Process {
            cgroup_id: 7,
            ..Process::default()
        });
        let answer = attribute(
            &host(),
            &Peer::UnixPeer {
                process: nameless,
                path: "".into(),
            },
        );
        assert_eq!(answer.principal.id, "unknown");
        assert!(answer.reason.contains("cgroup 7"));
    }

    #[test]
    fn a_relay_is_a_hop_and_never_the_principal() {
        let process = Arc::new(Process {
            exe: Some("/usr/sbin/haproxy".into()),
            cgroup_path: Some("/system.slice/haproxy.service".into()),
            ..Process::default()
        });
        let answer = attribute(
            &host(),
            &Peer::UnixPeer {
                process,
                path: "".into(),
            },
        );
        assert_eq!(answer.principal.id, "unknown");
        assert!(
            answer
                .reason
                .starts_with("passed on by a proxy (/usr/sbin/haproxy, ")
        );
        assert_eq!(
            answer.hops[0].principal.id,
            "spiffe://example.org/host/db1/unit/haproxy.service"
        );
        assert_eq!(answer.hops[0].confidence, Confidence::Observed);
    }

    #[test]
    fn another_host_is_inferred_from_its_address() {
        let answer = attribute(&host(), &Peer::Address("10.0.0.5".parse().expect("an address")));
        assert_eq!(answer.principal.id, "spiffe://example.org/addr/10.0.0.5");
        assert_eq!(answer.confidence, Confidence::Inferred);
    }
}
