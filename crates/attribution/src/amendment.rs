//! What a session is called once the client's host has told whose the connection is.
//!
//! Owns the words and the confidence of a joined attribution. Pure: whoever has the two events that an amendment names
//! makes the same attribution of them. Refuses to put anything in the place of what one kernel saw at both ends, and to
//! call a connection after an address where a relay is known to be behind it.

use std::net::{IpAddr, SocketAddr};

use proto::v1::{self, Confidence, PrincipalKind};

use crate::{End, Match};

/// Of the rules here and in [`crate::join`]: raised with every change of what they answer.
pub const JOIN_VERSION: u32 = 1;

/// The method of every joined attribution.
pub const METHOD: &str = "flow-owner";

/// `Amendment.match` where an earlier one is taken back, because several hosts lay claim to the connection.
pub const TAKEN_BACK: &str = "several";

/// What the agent at one end told.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// The agent.
    pub agent: &'a str,
    /// The event that it told it with.
    pub event_id: &'a str,
    /// The end, as its host saw it.
    pub end: End,
    /// Whose the connection is, as far as that host can say.
    pub attribution: &'a v1::Attribution,
}

impl End {
    /// The end that an event tells of, `at` its time; `None` where the client has no address and port.
    #[must_use]
    pub fn of(
        client: Option<&v1::Endpoint>,
        server: Option<&v1::Endpoint>,
        fingerprint: Option<u64>,
        at: u64,
    ) -> Option<Self> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Some(Self {
            client: address(client?)?,
            server: server.and_then(address).unwrap_or(nowhere),
            fingerprint: fingerprint
                .filter(|pair| *pair != 0)
                .map(|pair| ((pair >> 32) as u32, pair as u32)),
            at,
        })
    }
}

fn address(of: &v1::Endpoint) -> Option<SocketAddr> {
    let address: IpAddr = of.addr.parse().ok()?;
    let port = u16::try_from(of.port).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// Whether a session that was recorded as `attribution` may be joined: its own host knows its client by the address only,
/// or has no process for it at all.
#[must_use]
pub fn may_be_joined(session: &v1::Session, attribution: &v1::Attribution) -> bool {
    session.transport == i32::from(v1::Transport::Tcp)
        && attribution.confidence != i32::from(Confidence::Observed)
        && attribution.process.is_none()
        && attribution.hops.is_empty()
        && (is_address(attribution) || !is_named(attribution))
}

/// Whether the client's host says more than the session's: a name, or that a relay is behind the address.
#[must_use]
pub fn says_more(session: &v1::Attribution, flow: &v1::Attribution) -> bool {
    is_named(flow) && !is_address(flow) || is_address(session) && !flow.hops.is_empty()
}

/// The attribution of a session whose two ends were matched; `None` where the client's host has nothing to add.
#[must_use]
pub fn amended(session: &Account<'_>, flow: &Account<'_>, how: Match) -> Option<v1::Attribution> {
    if !says_more(session.attribution, flow.attribution) {
        return None;
    }
    let limit = match how {
        Match::Fingerprint | Match::Translated => Confidence::Joined,
        Match::Pair => Confidence::Inferred,
    };
    let weakest = |confidence: i32| {
        // A level that this version does not know is none.
        let known = Confidence::try_from(confidence).unwrap_or(Confidence::None);
        i32::from(known.min(limit))
    };
    let own = flow.attribution;
    let named = is_named(own);
    let unknown = v1::Attribution {
        principal: UNKNOWN.to_owned(),
        reason: own.reason.clone(),
        ..v1::Attribution::default()
    };
    let who = v1::Attribution {
        principal: own.principal.clone(),
        kind: own.kind,
        confidence: weakest(own.confidence),
        process: own.process.clone(),
        container: own.container.clone(),
        pod: own.pod.clone(),
        put_in: own.put_in,
        ..v1::Attribution::default()
    };
    let hops = own.hops.iter().cloned().map(|hop| v1::Hop {
        confidence: weakest(hop.confidence),
        ..hop
    });
    Some(v1::Attribution {
        method: METHOD.to_owned(),
        evidence: evidence(session, flow, how),
        hops: hops.collect(),
        ..if named { who } else { unknown }
    })
}

/// The session that an event's name rests on, where that is not the event's own: the pooler's with the client whose
/// statement it passed on.
#[must_use]
pub fn client_session(recorded: &v1::Attribution) -> Option<&str> {
    let pooler = recorded.hops.last()?;
    Some(pooler.session.as_str()).filter(|session| !session.is_empty())
}

/// Who the client of a statement that a pooler passed on is by itself, as its host recorded it with the statement; `None` if no
/// pooler passed it on.
#[must_use]
pub fn passed_on(recorded: &v1::Attribution) -> Option<v1::Attribution> {
    client_session(recorded)?;
    let mut client = recorded.clone();
    let pooler = client.hops.pop()?;
    client.confidence = pooler.client_confidence;
    client.method = pooler.client_method;
    // The last is that the pooler passed it on.
    client.evidence.pop();
    Some(client)
}

/// What a statement is called whose client, by itself, has another name by now; `None` if no pooler passed it on.
#[must_use]
pub fn through(recorded: &v1::Attribution, client: &v1::Attribution) -> Option<v1::Attribution> {
    client_session(recorded)?;
    let confidence = Confidence::try_from(client.confidence).unwrap_or(Confidence::None);
    let mut through = client.clone();
    through.confidence = confidence.min(Confidence::Joined).into();
    // The last is that the pooler passed it on.
    through.evidence.extend(recorded.evidence.last().cloned());
    through.hops.extend(recorded.hops.iter().cloned().map(|mut hop| {
        if !hop.session.is_empty() {
            hop.client_confidence = client.confidence;
            hop.client_method.clone_from(&client.method);
        }
        hop
    }));
    Some(through)
}

/// The attribution as it was recorded, behind an amendment that no longer holds: `claims` hosts or workloads have told,
/// under different names, that the connection is theirs.
#[must_use]
pub fn taken_back(session: &Account<'_>, claims: usize) -> v1::Attribution {
    let mut recorded = session.attribution.clone();
    recorded.evidence.push(format!(
        "{claims} ends were told of that fit this connection, under different names: none of them is taken"
    ));
    recorded
}

fn evidence(session: &Account<'_>, flow: &Account<'_>, how: Match) -> Vec<String> {
    let (at_server, at_client) = (&session.end, &flow.end);
    let mut told = vec![format!(
        "{} saw the server's end (event {}): {} came to {}, recorded as {}",
        session.agent,
        session.event_id,
        at_server.client,
        at_server.server,
        if is_named(session.attribution) {
            &session.attribution.principal
        } else {
            UNKNOWN
        },
    )];
    told.push(format!(
        "{} saw the client's end (event {}): {} connected to {}",
        flow.agent, flow.event_id, at_client.client, at_client.server
    ));
    let own = flow.attribution.evidence.iter();
    told.extend(own.map(|fact| format!("{}: {fact}", flow.agent)));
    told.push(match how {
        Match::Fingerprint | Match::Translated => {
            "both ends have the same pair of first sequence numbers".to_owned()
        }
        Match::Pair => {
            "both ends have the same addresses and ports within two minutes; first sequence numbers are not known at \
             both"
                .to_owned()
        }
    });
    if how == Match::Translated {
        told.push(format!(
            "the client's address was translated on the way: the server saw {}, the client's host {}",
            at_server.client, at_client.client
        ));
    }
    if how != Match::Pair && at_server.server != at_client.server && !at_server.server.ip().is_unspecified() {
        told.push(format!(
            "the server's address was translated on the way: the client connected to {}, the server has {}",
            at_client.server, at_server.server
        ));
    }
    told
}

fn is_address(attribution: &v1::Attribution) -> bool {
    attribution.kind == i32::from(PrincipalKind::Remote)
}

/// Whether it has a principal, with a level that says so.
pub(crate) fn is_named(attribution: &v1::Attribution) -> bool {
    attribution.kind != i32::from(PrincipalKind::Unknown)
        && Confidence::try_from(attribution.confidence).is_ok_and(|known| known > Confidence::None)
        && !attribution.principal.is_empty()
        && attribution.principal != UNKNOWN
}

const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    fn named(principal: &str, kind: PrincipalKind, confidence: Confidence) -> v1::Attribution {
        v1::Attribution {
            principal: principal.to_owned(),
            kind: kind.into(),
            confidence: confidence.into(),
            ..Default::default()
        }
    }

    fn address_only() -> v1::Attribution {
        named(
            "spiffe://td/addr/10.0.0.5",
            PrincipalKind::Remote,
            Confidence::Inferred,
        )
    }

    fn unit() -> v1::Attribution {
        v1::Attribution {
            method: "tcp-owner".to_owned(),
            evidence: vec!["connect() recorded".to_owned()],
            process: Some(v1::Process {
                pid: 70,
                ..Default::default()
            }),
            put_in: true,
            ..named(
                "spiffe://td/host/web/unit/a.service",
                PrincipalKind::Unit,
                Confidence::Observed,
            )
        }
    }

    fn relay() -> v1::Attribution {
        v1::Attribution {
            principal: UNKNOWN.to_owned(),
            reason: "passed on by a proxy".to_owned(),
            hops: vec![v1::Hop {
                name: "spiffe://td/host/lb/unit/haproxy.service".to_owned(),
                role: "proxy".to_owned(),
                confidence: Confidence::Observed.into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn end(client: &str, server: &str) -> End {
        End {
            client: client.parse().expect("an address"),
            server: server.parse().expect("an address"),
            fingerprint: Some((7, 9)),
            at: 1,
        }
    }

    fn join(session: &v1::Attribution, flow: &v1::Attribution, how: Match) -> Option<v1::Attribution> {
        let at_server = Account {
            agent: "db",
            event_id: "db-4",
            end: end("10.0.0.1:6000", "10.0.0.9:5432"),
            attribution: session,
        };
        let at_client = Account {
            agent: "web",
            event_id: "web-2",
            end: end("192.168.1.2:40000", "10.96.0.1:5432"),
            attribution: flow,
        };
        amended(&at_server, &at_client, how)
    }

    #[test]
    fn the_client_hosts_word_is_taken_with_the_weakest_level() {
        let joined = join(&address_only(), &unit(), Match::Translated).expect("an attribution");
        assert_eq!(joined.principal, "spiffe://td/host/web/unit/a.service");
        assert_eq!(joined.kind, i32::from(PrincipalKind::Unit));
        assert_eq!(joined.confidence, i32::from(Confidence::Joined));
        assert_eq!(joined.method, "flow-owner");
        assert_eq!(joined.process.as_ref().map(|process| process.pid), Some(70));
        assert!(joined.put_in && joined.reason.is_empty());
        let told = joined.evidence.join("\n");
        for expected in [
            "db saw the server's end (event db-4): 10.0.0.1:6000 came to 10.0.0.9:5432, recorded as spiffe://td/addr/10.0.0.5",
            "web saw the client's end (event web-2): 192.168.1.2:40000 connected to 10.96.0.1:5432",
            "web: connect() recorded",
            "both ends have the same pair of first sequence numbers",
            "the client's address was translated on the way: the server saw 10.0.0.1:6000, the client's host 192.168.1.2:40000",
            "the server's address was translated on the way: the client connected to 10.96.0.1:5432, the server has 10.0.0.9:5432",
        ] {
            assert!(
                joined.evidence.iter().any(|fact| fact == expected),
                "{expected} is not in\n{told}"
            );
        }
        let pair = join(&address_only(), &unit(), Match::Pair).expect("an attribution");
        assert_eq!(pair.confidence, i32::from(Confidence::Inferred));
        let weak = v1::Attribution {
            confidence: Confidence::Inferred.into(),
            ..unit()
        };
        let weak = join(&address_only(), &weak, Match::Fingerprint).expect("an attribution");
        assert_eq!(weak.confidence, i32::from(Confidence::Inferred));
        let strange = v1::Attribution {
            confidence: 99,
            ..unit()
        };
        assert_eq!(join(&address_only(), &strange, Match::Fingerprint), None);
    }

    #[test]
    fn a_relay_takes_the_name_from_an_address_and_from_nothing_else() {
        let joined = join(&address_only(), &relay(), Match::Fingerprint).expect("an attribution");
        assert_eq!((joined.principal.as_str(), joined.kind), ("unknown", 0));
        assert_eq!(joined.confidence, i32::from(Confidence::None));
        assert_eq!(joined.reason, "passed on by a proxy");
        assert_eq!(joined.hops[0].confidence, i32::from(Confidence::Joined));
        let nothing = v1::Attribution {
            principal: UNKNOWN.to_owned(),
            ..Default::default()
        };
        assert_eq!(join(&nothing, &relay(), Match::Fingerprint), None);
        assert_eq!(join(&address_only(), &nothing, Match::Fingerprint), None);
        assert_eq!(join(&address_only(), &address_only(), Match::Fingerprint), None);
    }

    #[test]
    fn only_what_its_own_host_cannot_say_may_be_joined() {
        let tcp = v1::Session {
            transport: v1::Transport::Tcp.into(),
            ..Default::default()
        };
        assert!(may_be_joined(&tcp, &address_only()));
        assert!(may_be_joined(&tcp, &v1::Attribution::default()));
        assert!(!may_be_joined(&v1::Session::default(), &address_only()), "no TCP");
        assert!(!may_be_joined(&tcp, &unit()), "observed");
        assert!(
            !may_be_joined(&tcp, &relay()),
            "its relay is on the server's host"
        );
        let held = named(
            "spiffe://td/host/db/unit/b.service",
            PrincipalKind::Unit,
            Confidence::Inferred,
        );
        assert!(!may_be_joined(&tcp, &held), "its process is on the server's host");
    }

    #[test]
    fn ends_are_read_from_events_as_they_are_meant() {
        let endpoint = |addr: &str, port| v1::Endpoint {
            addr: addr.to_owned(),
            port,
        };
        let mapped = End::of(
            Some(&endpoint("::ffff:10.0.0.1", 6000)),
            Some(&endpoint("10.0.0.9", 5432)),
            Some(7 << 32 | 9),
            1,
        );
        assert_eq!(mapped, Some(end("10.0.0.1:6000", "10.0.0.9:5432")));
        for (addr, port) in [("", 1), ("10.0.0.1", 0), ("10.0.0.1", 65_536), ("/run/x", 5432)] {
            assert_eq!(End::of(Some(&endpoint(addr, port)), None, None, 1), None);
        }
        let alone = End::of(Some(&endpoint("10.0.0.1", 1)), None, Some(0), 1).expect("an end");
        assert!(alone.server.ip().is_unspecified() && alone.fingerprint.is_none());
    }

    #[test]
    fn a_pooled_statement_is_called_as_its_client_is_by_now() {
        let pooled = v1::Attribution {
            evidence: vec![
                "the connection comes from 10.0.0.5".to_owned(),
                "passed on".to_owned(),
            ],
            hops: vec![
                relay().hops.remove(0),
                v1::Hop {
                    name: "pgbouncer".to_owned(),
                    session: "b-7".to_owned(),
                    client_confidence: Confidence::Inferred.into(),
                    client_method: "address".to_owned(),
                    ..Default::default()
                },
            ],
            method: "lease".to_owned(),
            ..address_only()
        };
        assert_eq!(client_session(&pooled), Some("b-7"));
        let client = join(&address_only(), &unit(), Match::Fingerprint).expect("it says more");
        let shown = through(&pooled, &client).expect("a pooler passed it on");
        assert_eq!(
            (&shown.principal, shown.confidence),
            (&client.principal, client.confidence)
        );
        assert_eq!(shown.process, unit().process);
        assert_eq!(shown.evidence.last().map(String::as_str), Some("passed on"));
        assert_eq!(shown.hops.len(), 2);
        let pooler = &shown.hops[1];
        assert_eq!(
            (pooler.session.as_str(), pooler.client_method.as_str()),
            ("b-7", METHOD)
        );
        assert_eq!(pooler.client_confidence, i32::from(Confidence::Joined));
        for straight in [address_only(), relay()] {
            assert_eq!(client_session(&straight), None);
            assert_eq!(through(&straight, &client), None);
        }
    }
}
