//! The join against both orders, translation, equal addresses, contest, restarts and forgery.

use proto::v1::{Confidence, PrincipalKind};

use super::*;

mod cost;
mod leases;
mod pods;

const AT: u64 = 1_795_225_200_000_000_000;
const OWN: &str = "collector-x";

/// A join, and the log that it speaks in.
struct Place {
    joiner: Joiner,
    amendments: Arc<Amendments>,
    metrics: Arc<Metrics>,
    entries: u64,
    said: u64,
    now: u64,
}

impl Place {
    fn new() -> Self {
        Self::with(Arc::default(), 0, 0)
    }

    fn with(amendments: Arc<Amendments>, entries: u64, said: u64) -> Self {
        amendments.believe(OWN);
        let metrics = Arc::new(Metrics::default());
        Self {
            joiner: Joiner::new(OWN, Arc::clone(&amendments), Arc::clone(&metrics)),
            amendments,
            metrics,
            entries,
            said,
            now: AT,
        }
    }

    /// After a restart: what was said is known, what waited is not.
    fn restarted(&self) -> Self {
        Self::with(Arc::clone(&self.amendments), self.entries, self.said)
    }

    fn see(&mut self, agent: &str, events: Vec<v1::Event>) {
        let records = Records::of(agent, 1, events);
        self.joiner.see_at(self.entries, &records, self.now);
        self.entries += 1;
    }

    /// What is decided now; it goes into the log.
    fn told(&mut self) -> Vec<(v1::Amendment, v1::Attribution)> {
        self.now += 1_000_000_000;
        let mut events = self.joiner.decide(self.now);
        for event in &mut events {
            self.said += 1;
            event.seq = self.said;
        }
        if !events.is_empty() {
            self.see(OWN, events.clone());
        }
        let parts = |event: v1::Event| match event.body {
            Some(event::Body::Amendment(amendment)) => Some((amendment, event.attribution?)),
            _ => None,
        };
        events.into_iter().filter_map(parts).collect()
    }

    /// Principals that were given.
    fn names(&mut self) -> Vec<String> {
        self.told()
            .into_iter()
            .map(|(_, attribution)| attribution.principal)
            .collect()
    }
}

fn endpoint(text: &str) -> Option<v1::Endpoint> {
    let (addr, port) = text.rsplit_once(':').unwrap();
    Some(v1::Endpoint {
        addr: addr.to_owned(),
        port: port.parse().unwrap(),
    })
}

fn attribution(principal: &str, kind: PrincipalKind, confidence: Confidence) -> v1::Attribution {
    v1::Attribution {
        principal: principal.to_owned(),
        kind: kind.into(),
        confidence: confidence.into(),
        ..Default::default()
    }
}

fn session(seq: u64, id: &str, client: &str, fingerprint: Option<u64>) -> v1::Event {
    let address = client.rsplit_once(':').unwrap().0;
    v1::Event {
        seq,
        ts_start_ns: AT,
        session: Some(v1::Session {
            id: id.to_owned(),
            transport: v1::Transport::Tcp.into(),
            client: endpoint(client),
            server: endpoint("10.0.0.9:5432"),
            fingerprint,
            ..Default::default()
        }),
        attribution: Some(attribution(
            &format!("spiffe://td/addr/{address}"),
            PrincipalKind::Remote,
            Confidence::Inferred,
        )),
        body: Some(event::Body::SessionOpen(v1::SessionOpen {})),
        ..Default::default()
    }
}

fn flow(seq: u64, who: &str, client: &str, server: &str, fingerprint: Option<u64>) -> v1::Event {
    v1::Event {
        seq,
        ts_start_ns: AT - 1_000_000,
        attribution: Some(attribution(
            &format!("spiffe://td/host/web/unit/{who}.service"),
            PrincipalKind::Unit,
            Confidence::Observed,
        )),
        body: Some(event::Body::FlowOwner(v1::FlowOwner {
            client: endpoint(client),
            server: endpoint(server),
            fingerprint,
            network_namespace: 0,
        })),
        ..Default::default()
    }
}

const CLIENT: &str = "10.0.0.5:50000";
const SERVER: &str = "10.0.0.9:5432";

fn unit(who: &str) -> String {
    format!("spiffe://td/host/web/unit/{who}.service")
}

#[test]
fn whichever_side_comes_first_the_session_is_named_once() {
    for server_first in [true, false] {
        let mut place = Place::new();
        let steps = [
            ("db", session(1, "b-1", CLIENT, Some(77))),
            ("web", flow(1, "shop", CLIENT, SERVER, Some(77))),
        ];
        let (one, other) = if server_first { (0, 1) } else { (1, 0) };
        place.see(steps[one].0, vec![steps[one].1.clone()]);
        assert!(place.told().is_empty());
        place.see(steps[other].0, vec![steps[other].1.clone()]);
        let told = place.told();
        let [(amendment, attribution)] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!(
            (amendment.agent_id.as_str(), amendment.session.as_str()),
            ("db", "b-1")
        );
        assert_eq!(amendment.inputs, ["db-1", "web-1"]);
        assert_eq!(
            (amendment.r#match.as_str(), amendment.join_version),
            ("fingerprint", 1)
        );
        assert_eq!(attribution.principal, unit("shop"));
        assert_eq!(attribution.confidence, i32::from(Confidence::Joined));
        // All of it again, and once more by an agent that was started anew.
        for (agent, event) in &steps {
            place.see(agent, vec![event.clone()]);
        }
        place.see("web", vec![flow(9, "shop", CLIENT, SERVER, Some(77))]);
        place.see("db", vec![session(8, "b-1", CLIENT, Some(77))]);
        assert!(place.told().is_empty());
    }
}

#[test]
fn translation_of_either_address_changes_nothing_and_is_said() {
    let mut place = Place::new();
    place.see("db", vec![session(1, "b-1", "10.0.0.1:61000", Some(77))]);
    place.see(
        "web",
        vec![flow(1, "shop", "192.168.7.2:40000", "10.96.0.1:5432", Some(77))],
    );
    let told = place.told();
    assert_eq!(told[0].0.r#match, "translated");
    let words = told[0].1.evidence.join("\n");
    assert!(
        words.contains("the client's address was translated on the way: the server saw 10.0.0.1:61000, the client's host 192.168.7.2:40000")
            && words.contains("the client connected to 10.96.0.1:5432, the server has 10.0.0.9:5432"),
        "{words}"
    );
    // Only the server's address (DNAT).
    place.see("db", vec![session(2, "b-2", CLIENT, Some(78))]);
    place.see("web", vec![flow(2, "jobs", CLIENT, "10.96.0.1:5432", Some(78))]);
    let told = place.told();
    assert_eq!(
        (told[0].0.r#match.as_str(), told[0].1.principal.clone()),
        ("fingerprint", unit("jobs"))
    );
}

#[test]
fn two_hosts_with_the_same_private_address_do_not_collide() {
    let mut place = Place::new();
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(1))]);
    place.see("app", vec![flow(1, "jobs", CLIENT, SERVER, Some(2))]);
    place.see(
        "db",
        vec![
            session(1, "b-1", CLIENT, Some(2)),
            session(2, "b-2", CLIENT, Some(1)),
        ],
    );
    assert_eq!(place.names(), [unit("jobs"), unit("shop")]);
    // Where the session knows no fingerprint, nobody can say which.
    place.see("db", vec![session(3, "b-3", CLIENT, None)]);
    assert!(place.told().is_empty());
}

#[test]
fn addresses_and_time_alone_give_the_weaker_level() {
    let mut place = Place::new();
    place.see("db", vec![session(1, "b-1", CLIENT, None)]);
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(5))]);
    let told = place.told();
    assert_eq!(
        (told[0].0.r#match.as_str(), told[0].1.confidence),
        ("pair", Confidence::Inferred.into())
    );
    // The fingerprint becomes known.
    place.see("db", vec![session(2, "b-1", CLIENT, Some(5))]);
    let told = place.told();
    assert_eq!(
        (told[0].0.r#match.as_str(), told[0].1.confidence),
        ("fingerprint", Confidence::Joined.into())
    );
    assert_eq!(told[0].0.inputs, ["db-2", "web-1"]);
}

#[test]
fn a_name_that_another_host_claims_too_is_taken_back_for_good() {
    let mut place = Place::new();
    place.see("db", vec![session(1, "b-1", CLIENT, Some(77))]);
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(77))]);
    assert_eq!(place.names(), [unit("shop")]);
    // A second agent of the same host says the same.
    place.see("web2", vec![flow(1, "shop", CLIENT, SERVER, Some(77))]);
    assert!(place.told().is_empty());
    place.see("evil", vec![flow(1, "other", CLIENT, SERVER, Some(77))]);
    let told = place.told();
    assert_eq!(told[0].0.r#match, "several");
    assert_eq!(told[0].1.principal, "spiffe://td/addr/10.0.0.5");
    // It stays so, also where one of the claims is forgotten.
    let mut later = place.restarted();
    later.see("db", vec![session(2, "b-1", CLIENT, Some(77))]);
    later.see("evil", vec![flow(2, "other", CLIENT, SERVER, Some(77))]);
    assert!(later.told().is_empty());
    // Before anything was said, it is said that neither is taken; flows of other connections have nothing to do with that.
    place.see("web", vec![flow(2, "shop", CLIENT, SERVER, Some(78))]);
    place.see("evil", vec![flow(2, "other", CLIENT, SERVER, Some(78))]);
    place.see("db", vec![session(3, "b-2", CLIENT, Some(78))]);
    let told = place.told();
    assert_eq!(told[0].0.inputs, ["db-3", "evil-2", "web-2"]);
    assert_eq!(
        (told.len(), told[0].1.principal.as_str()),
        (1, "spiffe://td/addr/10.0.0.5")
    );
    assert!(place.told().is_empty(), "once");
}

#[test]
fn another_claim_after_a_restart_takes_back_what_the_first_gave() {
    let mut place = Place::new();
    place.see("db", vec![session(1, "b-1", CLIENT, Some(77))]);
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(77))]);
    assert_eq!(place.names(), [unit("shop")]);
    let mut later = place.restarted();
    later.see("db", vec![session(2, "b-1", CLIENT, Some(77))]);
    later.see("evil", vec![flow(1, "other", CLIENT, SERVER, Some(77))]);
    assert_eq!(later.told()[0].0.r#match, "several");
    // By guessed addresses alone it does not get that far.
    place.see("evil", vec![flow(2, "other", CLIENT, SERVER, None)]);
    assert!(place.told().is_empty());
}

#[test]
fn a_restart_in_between_joins_what_was_not_and_nothing_twice() {
    let mut place = Place::new();
    let before = vec![
        session(1, "b-1", CLIENT, Some(1)),
        session(2, "b-2", CLIENT, Some(2)),
    ];
    place.see("db", before.clone());
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(1))]);
    assert_eq!(place.names(), [unit("shop")]);
    // Decided, and killed before it was durable.
    place.see("web", vec![flow(2, "jobs", CLIENT, SERVER, Some(2))]);
    assert_eq!(place.joiner.decide(AT).len(), 1);
    let mut later = place.restarted();
    later.see("db", before);
    later.see(
        "web",
        vec![
            flow(1, "shop", CLIENT, SERVER, Some(1)),
            flow(2, "jobs", CLIENT, SERVER, Some(2)),
        ],
    );
    assert_eq!(later.names(), [unit("jobs")]);
    assert!(later.told().is_empty());
}

#[test]
fn what_is_on_the_way_is_not_said_again() {
    let mut place = Place::new();
    place.see("db", vec![session(1, "b-1", CLIENT, None)]);
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(5))]);
    assert_eq!(place.joiner.decide(AT).len(), 1);
    place.see("db", vec![session(2, "b-1", CLIENT, Some(5))]);
    assert!(place.joiner.decide(AT).is_empty(), "the first is not durable yet");
}

#[test]
fn an_agents_own_amendments_are_believed_by_nobody() {
    let mut place = Place::new();
    place.see("db", vec![session(1, "b-1", CLIENT, Some(77))]);
    let forged = v1::Event {
        seq: 1,
        attribution: Some(attribution(
            &unit("evil"),
            PrincipalKind::Unit,
            Confidence::Observed,
        )),
        body: Some(event::Body::Amendment(v1::Amendment {
            agent_id: "db".into(),
            session: "b-1".into(),
            r#match: "fingerprint".into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    place.see("evil", vec![forged.clone()]);
    place.see("db", vec![forged]);
    assert!(place.amendments.is_empty());
    assert!(
        place
            .metrics
            .encode()
            .contains("alarms_total{kind=\"ForeignAmendment\"} 2")
    );
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(77))]);
    assert_eq!(place.names(), [unit("shop")]);
}

#[test]
fn only_sessions_that_their_host_cannot_name_are_joined() {
    let mut place = Place::new();
    let observed = v1::Event {
        attribution: Some(attribution(
            &unit("local"),
            PrincipalKind::Unit,
            Confidence::Observed,
        )),
        ..session(1, "b-1", CLIENT, Some(1))
    };
    let unix = v1::Event {
        session: session(2, "b-2", CLIENT, Some(2))
            .session
            .map(|session| v1::Session {
                transport: v1::Transport::Unix.into(),
                ..session
            }),
        ..session(2, "b-2", CLIENT, Some(2))
    };
    // Any event introduces its session.
    let refused = v1::Event {
        body: Some(event::Body::AuthFailure(v1::AuthFailure::default())),
        ..session(3, "b-3", CLIENT, Some(3))
    };
    let too_long = session(4, &"x".repeat(MAX_SESSION_ID_BYTES + 1), CLIENT, Some(4));
    place.see("db", vec![observed, unix, refused, too_long]);
    let flows = (1..=4).map(|n| flow(n, "shop", CLIENT, SERVER, Some(n)));
    place.see("web", flows.collect());
    let told = place.told();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0.session, "b-3");
    assert_eq!(place.metrics.join_refused.get(), 1);
}

#[test]
fn a_relay_takes_the_place_of_an_address() {
    let mut place = Place::new();
    let relay = v1::Event {
        attribution: Some(v1::Attribution {
            principal: "unknown".into(),
            reason: "passed on by a proxy".into(),
            hops: vec![v1::Hop {
                name: unit("haproxy"),
                role: "proxy".into(),
                confidence: Confidence::Observed.into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..flow(1, "", CLIENT, SERVER, Some(1))
    };
    let nothing = v1::Event {
        attribution: Some(v1::Attribution {
            principal: "unknown".into(),
            ..Default::default()
        }),
        ..flow(2, "", CLIENT, SERVER, Some(2))
    };
    place.see("lb", vec![relay.clone(), nothing]);
    place.see(
        "db",
        vec![
            session(1, "b-1", CLIENT, Some(1)),
            session(2, "b-2", CLIENT, Some(2)),
        ],
    );
    let told = place.told();
    assert_eq!(told.len(), 1);
    let attribution = &told[0].1;
    assert_eq!(
        (attribution.principal.as_str(), attribution.hops.len()),
        ("unknown", 1)
    );
    assert_eq!(attribution.reason, "passed on by a proxy");
    place.see("lb", vec![v1::Event { seq: 3, ..relay }]);
    assert!(place.told().is_empty());
}

#[test]
fn a_storm_comes_out_in_bounded_batches_and_whole() {
    let mut place = Place::new();
    let client = |n: u64| format!("10.1.{}.{}:{}", n / 250, n % 250 + 1, 40_000 + n % 1000);
    let sessions = (1..=2500).map(|n| session(n, &format!("b-{n}"), &client(n), Some(n)));
    place.see("db", sessions.collect());
    let flows = (1..=2500).map(|n| flow(n, &format!("s{n}"), &client(n), SERVER, Some(n)));
    place.see("web", flows.collect());
    let mut told = Vec::new();
    for expected in [1000, 1000, 500, 0] {
        let batch = place.told();
        assert_eq!(batch.len(), expected);
        told.extend(batch);
    }
    for (amendment, attribution) in told {
        let n = amendment.session.strip_prefix("b-").unwrap();
        assert_eq!(attribution.principal, unit(&format!("s{n}")));
    }
}
