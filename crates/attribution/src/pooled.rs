//! Whose a statement is that a pooler passed on: the client's own attribution, with the pooler as a hop.
//!
//! Owns what a lease makes of the two. Pure, as the join that it goes on from; refuses to find leases, and to pick one of
//! several that may be.

use std::sync::Arc;

use crate::{Attribution, Confidence, Fact, Hop, HopClient, Host, Principal, Process, Relay};

/// The method of what is a client's.
const LEASE: &str = "lease";

/// The method of what is the pooler's own.
pub const POOLER: &str = "pooler";

/// Candidates that are named; how many more there are is told.
const CANDIDATES: usize = 8;

/// What is known of a statement on a pooler's connection to a server.
#[derive(Clone, Copy, Debug)]
pub enum Lease<'a> {
    /// A client's.
    Client {
        /// Who is at the other end of the client's connection to the pooler.
        client: &'a Attribution,
        /// That connection, by the id that it has in records.
        session: &'a Arc<str>,
        /// How it is known.
        shown: Shown,
    },
    /// The pooler's own: what it says to set up, check and clean its connections, and what belongs to the connection itself.
    Own,
    /// Not known.
    Undecided {
        /// Why.
        reason: &'a str,
        /// Whose it may be, as far as that is known: attributions, and the ids of their sessions at the pooler.
        candidates: &'a [(&'a Attribution, &'a Arc<str>)],
    },
}

/// What shows that a statement is a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shown {
    /// Its request was sent to the server from where the client's bytes had been received, and the answer to the client from
    /// where the server's had been.
    Both,
    /// The same of the request alone.
    Request,
    /// The pooler wrote the request anew, right behind a receive from the client, who got the answer.
    Answer,
    /// The process had no other client.
    Sole,
}

/// A pooler as a hop of whatever it passes on, under the name that any workload has.
#[must_use]
pub fn pooler(host: &Host, process: &Arc<Process>) -> Hop {
    Hop {
        relay: Relay::Pooler,
        principal: Principal::of_process(host, process).unwrap_or_else(|_| Principal::unknown()),
        confidence: Confidence::Observed,
        process: Arc::clone(process),
        client: None,
    }
}

/// Names whoever a statement on a pooler's connection to a server is from. Never anybody but the client of the lease, or the
/// pooler where that says so itself.
#[must_use]
pub fn through_pooler(pooler: &Hop, lease: &Lease<'_>) -> Attribution {
    match lease {
        Lease::Client {
            client,
            session,
            shown,
        } => of_client(pooler, client, session, *shown),
        Lease::Own => own(pooler),
        Lease::Undecided { reason, candidates } => undecided(pooler, reason, candidates),
    }
}

fn of_client(pooler: &Hop, client: &Attribution, session: &Arc<str>, shown: Shown) -> Attribution {
    // A chain is as sure as its weakest link; a lease is what two observations say together. What the pooler is called, if that
    // is not known, says nothing of whose the bytes are.
    let is_named = pooler.principal != Principal::unknown();
    let link = if is_named {
        pooler.confidence
    } else {
        Confidence::Joined
    };
    let confidence = client.confidence.min(link).min(Confidence::Joined);
    let mut answer = client.clone();
    answer.method = LEASE;
    answer.confidence = confidence;
    if confidence == Confidence::None {
        answer.principal = Principal::unknown();
        if answer.reason.is_empty() {
            "nothing is known of the pooler's client".clone_into(&mut answer.reason);
        }
    }
    answer.evidence.push(Fact::Leased {
        session: Arc::clone(session),
        shown,
    });
    answer.hops.push(Hop {
        client: Some(HopClient {
            session: Arc::clone(session),
            confidence: client.confidence,
            method: client.method,
        }),
        ..pooler.clone()
    });
    answer
}

fn own(pooler: &Hop) -> Attribution {
    let process = &pooler.process;
    let mut evidence = vec![
        Fact::PoolersOwn,
        Fact::Process {
            pid: process.pid,
            start_ns: process.start_ns,
        },
    ];
    evidence.extend(process.cgroup_path.as_ref().map(|path| Fact::Cgroup {
        id: process.cgroup_id,
        path: path.clone(),
    }));
    let is_named = pooler.principal != Principal::unknown();
    Attribution {
        principal: pooler.principal.clone(),
        confidence: if is_named {
            pooler.confidence
        } else {
            Confidence::None
        },
        method: POOLER,
        reason: if is_named {
            String::new()
        } else {
            "the pooler's own, and its process has no name".to_owned()
        },
        evidence,
        process: Some(Arc::clone(process)),
        hops: Vec::new(),
    }
}

fn undecided(pooler: &Hop, reason: &str, candidates: &[(&Attribution, &Arc<str>)]) -> Attribution {
    let named = candidates.iter().take(CANDIDATES);
    let mut evidence: Vec<Fact> = named
        .map(|(who, session)| Fact::Candidate {
            principal: who.principal.id.as_str().into(),
            session: Arc::clone(session),
        })
        .collect();
    if candidates.len() > CANDIDATES {
        evidence.push(Fact::MoreCandidates(candidates.len() - CANDIDATES));
    }
    let exe = pooler.process.exe.as_deref().unwrap_or(&pooler.process.comm);
    Attribution {
        principal: Principal::unknown(),
        confidence: Confidence::None,
        method: "none",
        reason: format!(
            "passed on by a {} ({exe}, {}): {reason}",
            pooler.relay.name(),
            pooler.principal.id
        ),
        evidence,
        process: Some(Arc::clone(&pooler.process)),
        hops: vec![pooler.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ends, Pair, Peer, PrincipalKind, attribute};

    fn host() -> Host {
        Host {
            trust_domain: "example.org".into(),
            name: "db1".into(),
        }
    }

    fn process(pid: u32, cgroup: Option<&str>, exe: &str) -> Arc<Process> {
        Arc::new(Process {
            pid,
            start_ns: u64::from(pid) * 1000,
            exe: Some(exe.into()),
            cgroup_path: cgroup.map(Into::into),
            ..Process::default()
        })
    }

    fn bouncer() -> Hop {
        pooler(
            &host(),
            &process(20, Some("/system.slice/pgbouncer.service"), "/usr/sbin/pgbouncer"),
        )
    }

    fn connected(process: Arc<Process>) -> Attribution {
        let end = |port| ([127, 0, 0, 1], port).into();
        let pair = Pair::OfServer(Ends {
            client: end(50_000),
            server: end(6432),
        });
        let peer = Peer::TcpOwner {
            process,
            pair,
            netns: 1,
        };
        attribute(&host(), &peer)
    }

    fn session(id: &str) -> Arc<str> {
        id.into()
    }

    fn leased(client: &Attribution, shown: Shown) -> Attribution {
        let session = session("b-7");
        through_pooler(
            &bouncer(),
            &Lease::Client {
                client,
                session: &session,
                shown,
            },
        )
    }

    #[test]
    fn a_client_is_named_as_if_it_had_come_itself_and_the_pooler_is_a_hop() {
        let client = connected(process(70, Some("/system.slice/shop.service"), "/usr/bin/shop"));
        assert_eq!(client.confidence, Confidence::Observed);
        let answer = leased(&client, Shown::Both);
        assert_eq!(
            answer.principal.id,
            "spiffe://example.org/host/db1/unit/shop.service"
        );
        assert_eq!((answer.confidence, answer.method), (Confidence::Joined, "lease"));
        assert_eq!(
            answer.process.as_ref().map(|process| process.pid),
            Some(70),
            "the client's"
        );
        let [hop] = &answer.hops[..] else {
            panic!("{:?}", answer.hops)
        };
        assert_eq!(
            hop.principal.id,
            "spiffe://example.org/host/db1/unit/pgbouncer.service"
        );
        let behind = hop
            .client
            .as_ref()
            .map(|client| (&*client.session, client.confidence, client.method));
        assert_eq!(behind, Some(("b-7", Confidence::Observed, "tcp-owner")));
        assert_eq!(hop.confidence, Confidence::Observed);
        let evidence: Vec<String> = answer.evidence.iter().map(Fact::to_string).collect();
        assert_eq!(evidence.len(), client.evidence.len() + 1);
        assert!(evidence[0].starts_with("connect() recorded"), "{evidence:?}");
        let last = evidence.last().unwrap();
        assert!(last.contains("b-7") && last.contains("memory"), "{last}");
    }

    #[test]
    fn it_is_never_surer_than_its_weakest_link() {
        let remote = attribute(&host(), &Peer::Address([10, 0, 0, 5].into()));
        let answer = leased(&remote, Shown::Both);
        assert_eq!(answer.principal.id, "spiffe://example.org/addr/10.0.0.5");
        assert_eq!(answer.confidence, Confidence::Inferred);
        let client = connected(process(70, Some("/system.slice/shop.service"), "/usr/bin/shop"));
        for shown in [Shown::Both, Shown::Request, Shown::Answer, Shown::Sole] {
            assert!(leased(&client, shown).confidence <= Confidence::Joined);
        }
    }

    #[test]
    fn what_is_not_known_of_the_client_does_not_become_known() {
        let unknown = attribute(
            &host(),
            &Peer::Unknown {
                reason: "no connect() was recorded".to_owned(),
            },
        );
        let answer = leased(&unknown, Shown::Both);
        assert_eq!(answer.principal, Principal::unknown());
        assert_eq!(answer.confidence, Confidence::None);
        assert_eq!(answer.reason, "no connect() was recorded");
        let proxy = connected(process(80, Some("/system.slice/lb.service"), "/usr/sbin/haproxy"));
        let answer = leased(&proxy, Shown::Both);
        assert_eq!(answer.principal, Principal::unknown());
        let relays: Vec<Relay> = answer.hops.iter().map(|hop| hop.relay).collect();
        assert_eq!(
            relays,
            [Relay::Proxy, Relay::Pooler],
            "from the client to the server"
        );
    }

    #[test]
    fn a_chain_of_poolers_goes_hop_by_hop() {
        let client = connected(process(70, Some("/system.slice/shop.service"), "/usr/bin/shop"));
        let first = leased(&client, Shown::Both);
        let second = leased(&first, Shown::Answer);
        assert_eq!(second.principal, client.principal);
        assert_eq!(second.confidence, Confidence::Joined);
        assert_eq!(second.hops.len(), 2);
        let own = leased(&through_pooler(&bouncer(), &Lease::Own), Shown::Both);
        assert_eq!(
            own.principal,
            bouncer().principal,
            "the one in front said it itself"
        );
        assert_eq!(own.hops.len(), 1);
    }

    #[test]
    fn the_poolers_own_is_the_poolers() {
        let answer = through_pooler(&bouncer(), &Lease::Own);
        assert_eq!(answer.principal, bouncer().principal);
        assert_eq!(
            (answer.method, answer.confidence),
            ("pooler", Confidence::Observed)
        );
        assert!(answer.hops.is_empty() && answer.reason.is_empty());
        let nameless = pooler(&host(), &process(20, None, "/usr/sbin/pgbouncer"));
        let answer = through_pooler(&nameless, &Lease::Own);
        assert_eq!(answer.principal, Principal::unknown());
        assert_eq!(answer.confidence, Confidence::None);
        assert!(!answer.reason.is_empty());
    }

    #[test]
    fn candidates_are_named_and_none_is_picked() {
        let clients: Vec<Attribution> = (0..12)
            .map(|number| {
                let cgroup = format!("/system.slice/shop{number}.service");
                connected(process(70 + number, Some(&cgroup), "/usr/bin/shop"))
            })
            .collect();
        let sessions: Vec<Arc<str>> = (0..12).map(|number| session(&format!("b-{number}"))).collect();
        let candidates: Vec<(&Attribution, &Arc<str>)> = clients.iter().zip(&sessions).collect();
        for some in [&candidates[..], &candidates[..1], &[]] {
            let answer = through_pooler(
                &bouncer(),
                &Lease::Undecided {
                    reason: "nobody saw to whom the answer went",
                    candidates: some,
                },
            );
            assert_eq!(answer.principal, Principal::unknown());
            assert_eq!(answer.principal.kind, PrincipalKind::Unknown);
            assert_eq!(answer.confidence, Confidence::None);
            assert!(answer.reason.ends_with("nobody saw to whom the answer went"));
            assert_eq!(answer.hops.len(), 1);
            assert_eq!(answer.process.as_ref().map(|process| process.pid), Some(20));
            let named = some.len().min(CANDIDATES);
            assert_eq!(
                answer.evidence.len(),
                named + usize::from(some.len() > CANDIDATES)
            );
        }
    }

    /// Whoever is named is the client of the lease, or the pooler where it said something itself.
    #[test]
    fn nobody_else_is_ever_named() {
        let clients = [
            connected(process(70, Some("/system.slice/a.service"), "/usr/bin/a")),
            connected(process(71, None, "/usr/bin/b")),
            connected(process(72, Some("/user.slice"), "/usr/bin/psql")),
            connected(process(73, Some("/system.slice/lb.service"), "/usr/sbin/haproxy")),
            attribute(&host(), &Peer::Address([10, 0, 0, 5].into())),
        ];
        let nameless = Hop {
            principal: Principal::unknown(),
            confidence: Confidence::None,
            ..bouncer()
        };
        let odyssey = pooler(&host(), &process(21, None, "/usr/bin/odyssey"));
        let poolers = [bouncer(), odyssey, nameless];
        let id = session("b-1");
        for hop in &poolers {
            for client in &clients {
                for shown in [Shown::Both, Shown::Request, Shown::Answer, Shown::Sole] {
                    let lease = Lease::Client {
                        client,
                        session: &id,
                        shown,
                    };
                    let answer = through_pooler(hop, &lease);
                    // Also behind one that has no name itself.
                    assert_eq!(answer.principal, client.principal);
                    assert!(answer.confidence <= client.confidence);
                    assert_eq!(
                        answer.principal == Principal::unknown(),
                        !answer.reason.is_empty()
                    );
                    assert_eq!(
                        answer.principal == Principal::unknown(),
                        answer.confidence == Confidence::None
                    );
                }
                let candidates = [(client, &id)];
                let lease = Lease::Undecided {
                    reason: "r",
                    candidates: &candidates,
                };
                assert_eq!(through_pooler(hop, &lease).principal, Principal::unknown());
            }
            assert_eq!(through_pooler(hop, &Lease::Own).principal, hop.principal);
        }
    }
}
