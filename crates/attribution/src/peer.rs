//! The join itself: from what is known of the client's end of a connection to an attribution.

use std::{net::IpAddr, sync::Arc};

use crate::{Attribution, Confidence, Hop, Host, Principal, Process, Relay};

/// What was recorded about the client's end.
#[derive(Clone, Debug)]
pub enum Peer {
    /// The kernel recorded who called `connect`, under this very pair of addresses in this network namespace.
    TcpOwner {
        /// The process that connected.
        process: Arc<Process>,
        /// The pair, for people.
        pair: String,
        /// Inode number of the namespace.
        netns: u32,
    },
    /// Nobody saw the `connect`, but only one process holds the client's end of this very connection.
    TcpHolder {
        /// The process that holds it.
        process: Arc<Process>,
        /// The pair, for people.
        pair: String,
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
        path: String,
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
    let mut confidence = Confidence::Observed;
    let (process, method, observation) = match peer {
        Peer::TcpOwner { process, pair, netns } => (
            process,
            "tcp-owner",
            format!("connect() recorded by the kernel: {pair} in network namespace {netns}"),
        ),
        Peer::TcpHolder {
            process,
            pair,
            netns,
            socket,
        } => {
            // Who holds a socket need not be who opened it.
            confidence = Confidence::Inferred;
            let observation = format!(
                "open before the agent, and held by one process when it looked: {pair}, socket {socket} in network \
                 namespace {netns}"
            );
            (process, "tcp-holder", observation)
        }
        Peer::UnixPeer { process, path } => (
            process,
            "unix-peer-cred",
            format!("peer credentials kept by the kernel on the socket {path}"),
        ),
        Peer::Address(address) => {
            return Attribution {
                principal: Principal::of_address(host, *address),
                confidence: Confidence::Inferred,
                method: "address",
                reason: String::new(),
                evidence: vec![format!(
                    "the connection comes from {address}, which is not an address of this host"
                )],
                process: None,
                hops: Vec::new(),
            };
        }
        Peer::Unknown { reason } => return unknown(reason.clone(), Vec::new(), None),
    };
    let mut evidence = vec![
        observation,
        format!(
            "process {} started at {} ns since boot",
            process.pid, process.start_ns
        ),
    ];
    let name = Principal::of_process(host, process);
    if let Some(relay) = Relay::of(process) {
        return behind_relay(relay, name, confidence, evidence, process);
    }
    match name {
        Ok(principal) => {
            if let Some(path) = &process.cgroup_path {
                evidence.push(format!("cgroup {} is {}", process.cgroup_id, &**path));
            }
            if process.was_put_in() {
                let first = process.first.as_ref().map_or(0, |first| first.pid);
                evidence.push(format!(
                    "put into the container from outside: it does not descend from the first process there, {first}"
                ));
            }
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

fn unknown(reason: String, evidence: Vec<String>, process: Option<Arc<Process>>) -> Attribution {
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
    evidence: Vec<String>,
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
    };
    Attribution {
        hops: vec![hop],
        ..unknown(reason, evidence, Some(Arc::clone(process)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            trust_domain: "example.org".into(),
            name: "db1".into(),
        }
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
                pair: "a → b".into(),
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
    fn who_only_holds_a_socket_is_inferred() {
        let process = Arc::new(Process {
            cgroup_path: Some("/system.slice/a.service".into()),
            ..Process::default()
        });
        let peer = Peer::TcpHolder {
            process,
            pair: "a → b".into(),
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
        assert!(answer.evidence[0].contains("socket 17 in network namespace 1"));
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
                path: String::new(),
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
                path: String::new(),
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
