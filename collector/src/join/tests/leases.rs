//! Statements that a pooler on another host passed on: both orders, waiting, third hosts, contest, restarts and nonsense.

use ::attribution::{LEASE_VERSION, pooler_traffic};
use ::lease::{Kind, Passed, Piece, Source, Traffic};

use super::*;

/// What a made-up pooler does with one connection, and what both its hosts tell of it.
pub(super) struct Bouncer {
    fingerprint: u64,
    traffic: Traffic,
    wrote: u64,
    read: u64,
    offsets: HashMap<u64, u64>,
    /// Places of what came over it.
    places: Vec<(u64, u64, u64)>,
}

const REQUEST: u64 = 15;
const ANSWER: u64 = 66;

impl Bouncer {
    pub(super) fn new(fingerprint: u64) -> Self {
        Self {
            fingerprint,
            traffic: Traffic::new(false),
            wrote: 0,
            read: 0,
            offsets: HashMap::default(),
            places: Vec::new(),
        }
    }

    /// A client's statement, or the pooler's own, whose answer nobody has yet.
    fn ask(&mut self, client: Option<u64>) {
        let range = self.wrote..self.wrote + REQUEST;
        self.wrote = range.end;
        let source = client.map_or(Source::Own, |client| {
            let offset = self.offsets.entry(client).or_default();
            *offset += REQUEST;
            Source::Client {
                client,
                offset: *offset - REQUEST,
            }
        });
        self.traffic.wrote(Piece {
            range: range.clone(),
            source,
            turn: client,
            sole: None,
            logs_in: false,
        });
        self.places.push((range.start, range.end, self.read + ANSWER));
    }

    fn answer(&mut self, client: Option<u64>) {
        self.traffic.read(self.read, ANSWER);
        if client.is_some() {
            self.traffic.passed(Passed {
                range: self.read..self.read + ANSWER,
                client,
                by_memory: true,
            });
        }
        self.traffic.settle();
        self.read += ANSWER;
    }

    pub(super) fn lease(&mut self, client: Option<u64>) {
        self.ask(client);
        self.answer(client);
    }

    /// What the pooler's host tells, as number `seq`.
    pub(super) fn told(&mut self, seq: u64) -> v1::Event {
        let portion = self.traffic.drain(|_| false);
        v1::Event {
            seq,
            ts_start_ns: AT,
            attribution: Some(attribution(
                &unit("pgbouncer"),
                PrincipalKind::Unit,
                Confidence::Observed,
            )),
            body: Some(event::Body::PoolerTraffic(v1::PoolerTraffic {
                fingerprint: Some(self.fingerprint),
                connection: format!("p-s{}", self.fingerprint),
                ..pooler_traffic(Kind::PgBouncer, &portion, |client| format!("p-{client}"))
            })),
            ..Default::default()
        }
    }

    /// The statements from the `nth` on, as the server's host tells them.
    pub(super) fn statements(&self, nth: usize, seq: u64) -> Vec<v1::Event> {
        let places = self.places.iter().skip(nth).zip(seq..);
        let event = |(place, seq): (&(u64, u64, u64), u64)| v1::Event {
            body: Some(event::Body::Query(v1::Query {
                protocol: v1::Protocol::Simple.into(),
                stream: Some(v1::StreamRange {
                    request_from: place.0,
                    request_to: place.1,
                    response_to: place.2,
                    ..Default::default()
                }),
                ..Default::default()
            })),
            ..session(
                seq,
                &format!("b-{}", self.fingerprint),
                "10.0.0.5:6432",
                Some(self.fingerprint),
            )
        };
        places.map(event).collect()
    }
}

/// A client of the pooler, on its host.
pub(super) fn client(seq: u64, number: u64) -> v1::Event {
    v1::Event {
        session: Some(v1::Session {
            id: format!("p-{number}"),
            ..Default::default()
        }),
        body: Some(event::Body::PoolerClient(v1::PoolerClient::default())),
        ..flow(seq, &format!("s{number}"), CLIENT, SERVER, None)
    }
}

/// What each statement is called: number, principal and match.
fn names(told: &[(v1::Amendment, v1::Attribution)]) -> Vec<(u64, String, String)> {
    let mut names: Vec<_> = told
        .iter()
        .flat_map(|(amendment, attribution)| {
            let name = (attribution.principal.clone(), amendment.r#match.clone());
            proto::json::summed(&amendment.events).map(move |seq| (seq, name.0.clone(), name.1.clone()))
        })
        .collect();
    names.sort();
    names
}

fn named(seq: u64, who: &str, how: &str) -> (u64, String, String) {
    let who = if who == "unknown" {
        who.to_owned()
    } else {
        unit(who)
    };
    (seq, who, how.to_owned())
}

#[test]
fn each_statement_goes_to_its_client_whichever_host_is_heard_first() {
    for order in 0..3 {
        let mut place = Place::new();
        let mut bouncer = Bouncer::new(7);
        bouncer.lease(None);
        for n in [1, 2, 1] {
            bouncer.lease(Some(n));
        }
        let traffic = vec![client(1, 1), client(2, 2), bouncer.told(3)];
        let statements = bouncer.statements(0, 11);
        match order {
            0 => {
                place.see("db", statements);
                assert!(place.told().is_empty());
                place.see("pool", traffic);
            }
            1 => {
                place.see("pool", traffic);
                assert!(place.told().is_empty());
                place.see("db", statements);
            }
            _ => {
                place.see("db", statements[..2].to_vec());
                place.see("pool", traffic);
                place.see("db", statements[2..].to_vec());
            }
        }
        let told = place.told();
        assert_eq!(
            names(&told),
            [
                named(11, "pgbouncer", "own"),
                named(12, "s1", "lease"),
                named(13, "s2", "lease"),
                named(14, "s1", "lease")
            ]
        );
        assert_eq!(told.len(), 3, "one for each of whom they are");
        let (amendment, attribution) = told
            .iter()
            .find(|(_, attribution)| attribution.principal == unit("s1"))
            .unwrap();
        assert_eq!(
            (amendment.agent_id.as_str(), amendment.session.as_str()),
            ("db", "")
        );
        assert_eq!(amendment.inputs, ["pool-1", "pool-3"]);
        assert_eq!(amendment.join_version, LEASE_VERSION);
        assert_eq!(attribution.confidence, i32::from(Confidence::Joined));
        let [hop] = attribution.hops.as_slice() else {
            panic!("{:?}", attribution.hops)
        };
        assert_eq!(
            (hop.name.as_str(), hop.session.as_str()),
            (unit("pgbouncer").as_str(), "p-1")
        );
        assert!(place.told().is_empty());
        // The same again, after a restart.
        let mut later = place.restarted();
        let mut again = Bouncer::new(7);
        for n in [None, Some(1), Some(2), Some(1)] {
            again.lease(n);
        }
        later.see("pool", vec![client(1, 1), client(2, 2), again.told(3)]);
        later.see("db", again.statements(0, 11));
        assert!(later.told().is_empty());
    }
}

#[test]
fn what_is_not_told_yet_is_waited_for_and_then_said_to_be_missing() {
    let mut place = Place::new();
    let mut bouncer = Bouncer::new(7);
    bouncer.ask(Some(1));
    place.see("pool", vec![client(1, 1), bouncer.told(2)]);
    place.see("db", bouncer.statements(0, 1));
    assert!(place.told().is_empty(), "the answer is under way");
    bouncer.answer(Some(1));
    bouncer.ask(Some(1));
    place.see("pool", vec![bouncer.told(3)]);
    let told = place.told();
    assert_eq!(names(&told), [named(1, "s1", "lease")]);
    assert_eq!(told[0].0.inputs, ["pool-1", "pool-2", "pool-3"]);
    // The pooler was not seen to send it, for a minute.
    bouncer.ask(Some(2));
    let mut unseen = bouncer.statements(2, 3);
    place.see("db", bouncer.statements(1, 2)[..1].to_vec());
    place.see("db", std::mem::take(&mut unseen));
    assert!(place.told().is_empty());
    place.now += 61_000_000_000;
    let told = place.told();
    // Of the first one the request is known, of the second nothing.
    assert_eq!(
        names(&told),
        [named(2, "s1", "lease"), named(3, "unknown", "undecided")]
    );
    let undecided = told
        .iter()
        .find(|(amendment, _)| amendment.r#match == "undecided")
        .unwrap();
    assert!(
        undecided.1.reason.ends_with("the pooler was not seen to send it"),
        "{}",
        undecided.1.reason
    );
    assert_eq!(undecided.1.hops[0].name, unit("pgbouncer"));
}

#[test]
fn a_client_on_a_third_host_is_called_as_that_host_says() {
    let mut place = Place::new();
    let mut bouncer = Bouncer::new(7);
    bouncer.lease(Some(1));
    let remote = v1::Event {
        session: session(1, "p-1", CLIENT, Some(99)).session,
        ..session(1, "p-1", CLIENT, Some(99))
    };
    let remote = v1::Event {
        body: Some(event::Body::PoolerClient(v1::PoolerClient::default())),
        ..remote
    };
    place.see("pool", vec![remote, bouncer.told(2)]);
    place.see("db", bouncer.statements(0, 1));
    assert!(place.told().is_empty(), "the third host may say more");
    place.see("web", vec![flow(1, "shop", CLIENT, "10.0.0.5:6432", Some(99))]);
    let session = place.told();
    assert_eq!((session.len(), session[0].0.session.as_str()), (1, "p-1"));
    let told = place.told();
    assert_eq!(names(&told), [named(1, "shop", "lease")]);
    assert_eq!(told[0].0.inputs, ["pool-1", "collector-x-1", "pool-2"]);
    // Where it says nothing, the address has to do.
    let mut other = Bouncer::new(8);
    other.lease(Some(2));
    let client = v1::Event {
        seq: 3,
        body: Some(event::Body::PoolerClient(v1::PoolerClient::default())),
        ..super::session(3, "p-2", CLIENT, Some(98))
    };
    place.see("pool", vec![client, other.told(4)]);
    place.see("db", other.statements(0, 2));
    assert!(place.told().is_empty());
    place.now += 10_000_000_000;
    let told = place.told();
    assert_eq!(told[0].1.principal, "spiffe://td/addr/10.0.0.5");
    assert_eq!(told[0].1.confidence, i32::from(Confidence::Inferred));
}

#[test]
fn where_two_poolers_lay_claim_to_a_connection_neither_is_believed() {
    let mut place = Place::new();
    let (mut bouncer, mut evil) = (Bouncer::new(7), Bouncer::new(7));
    bouncer.lease(Some(1));
    evil.lease(Some(2));
    place.see("pool", vec![client(1, 1), bouncer.told(2)]);
    place.see("db", bouncer.statements(0, 1));
    assert_eq!(names(&place.told()), [named(1, "s1", "lease")]);
    place.see("evil", vec![client(1, 2), evil.told(2)]);
    let told = place.told();
    assert_eq!((told.len(), told[0].0.r#match.as_str()), (1, "several poolers"));
    assert_eq!(
        (told[0].0.session.as_str(), told[0].1.principal.as_str()),
        ("b-7", "spiffe://td/addr/10.0.0.5")
    );
    assert!(place.amendments.is_taken_back("db", "b-7"));
    bouncer.lease(Some(1));
    place.see("pool", vec![bouncer.told(3)]);
    place.see("db", bouncer.statements(1, 2));
    assert!(place.told().is_empty());
    // A claim that stood from the start takes nothing back; nor does a second server's, which gets no names.
    let (mut bouncer, mut evil) = (Bouncer::new(8), Bouncer::new(8));
    bouncer.lease(Some(1));
    evil.lease(Some(2));
    place.see("evil", vec![evil.told(3)]);
    place.see("pool", vec![bouncer.told(4)]);
    place.see("db", bouncer.statements(0, 3));
    assert!(place.told().is_empty());
    let mut bouncer = Bouncer::new(9);
    bouncer.lease(Some(1));
    place.see("pool", vec![bouncer.told(5)]);
    place.see("db", bouncer.statements(0, 4));
    place.see("mirror", bouncer.statements(0, 1));
    assert!(place.told().is_empty());
}

#[test]
fn nonsense_names_nobody() {
    let mut place = Place::new();
    let mut bouncer = Bouncer::new(7);
    bouncer.lease(Some(1));
    let whole = bouncer.told(1);
    let with = |change: fn(&mut v1::PoolerTraffic)| {
        let mut event = whole.clone();
        if let Some(event::Body::PoolerTraffic(traffic)) = &mut event.body {
            change(traffic);
        }
        event
    };
    let nonsense = [
        with(|traffic| traffic.fingerprint = None),
        with(|traffic| traffic.written = vec![u64::MAX, 5]),
        with(|traffic| traffic.clients.clear()),
        with(|traffic| traffic.connection = "x".repeat(200)),
        with(|traffic| traffic.written_from = Some(u64::MAX)),
        v1::Event {
            attribution: None,
            ..whole.clone()
        },
        v1::Event {
            session: None,
            ..client(1, 1)
        },
    ];
    for event in nonsense {
        place.see("pool", vec![event]);
    }
    place.see("db", bouncer.statements(0, 1));
    place.now += 100_000_000_000;
    for (_, attribution) in place.told() {
        assert_eq!(attribution.principal, "unknown");
    }
    assert!(place.metrics.join_refused.get() >= 4);
    // A client that nobody introduced.
    let mut bouncer = Bouncer::new(8);
    bouncer.lease(Some(5));
    place.see("pool", vec![bouncer.told(2)]);
    place.see("db", bouncer.statements(0, 2));
    assert!(place.told().is_empty(), "it may be told of yet");
    place.now += 5_000_000_000;
    assert_eq!(names(&place.told()), [named(2, "unknown", "undecided")]);
}

#[test]
fn a_portion_that_is_missing_is_not_filled() {
    let mut place = Place::new();
    let mut bouncer = Bouncer::new(7);
    bouncer.lease(Some(1));
    place.see("pool", vec![client(1, 1), client(2, 2), bouncer.told(3)]);
    bouncer.lease(Some(2));
    let lost = bouncer.told(4);
    bouncer.lease(Some(1));
    place.see("pool", vec![bouncer.told(5)]);
    place.see("db", bouncer.statements(0, 1));
    let told = place.told();
    let got = names(&told);
    assert_eq!(got[1], named(2, "unknown", "undecided"));
    assert_eq!(got[2], named(3, "s1", "lease"));
    drop(lost);
}

#[test]
fn a_second_of_many_statements_makes_one_amendment_a_client() {
    let mut place = Place::new();
    let mut connections: Vec<Bouncer> = (1..=5).map(Bouncer::new).collect();
    place.see("pool", (1..=10).map(|n| client(n, n)).collect());
    let mut seq = 0;
    for (nth, bouncer) in connections.iter_mut().enumerate() {
        for n in 0..200 {
            bouncer.lease(Some((n * 7 + nth as u64) % 10 + 1));
        }
        place.see("db", bouncer.statements(0, seq + 1));
        seq += 200;
        place.see("pool", vec![bouncer.told(10 + nth as u64 + 1)]);
    }
    let told = place.told();
    assert_eq!(told.len(), 10);
    let got = names(&told);
    assert_eq!(got.len(), 1000);
    for (seq, who, _) in got {
        let (nth, n) = ((seq - 1) / 200, (seq - 1) % 200);
        assert_eq!(who, unit(&format!("s{}", (n * 7 + nth) % 10 + 1)));
        assert!(place.amendments.is_amended("db", seq));
    }
}
