//! What waits and what is told: a pooler with two clients, their backend's session, and a second pooler in front.

use std::sync::Arc;

use attribution::{Attribution, Confidence, Host, Principal, Process};
use ebpf_abi::{Channel, Direction, FRONT, FactKind, PeerProcess, UNIX_PATH_MAX};
use proto::v1;
use tap_core::{Body, Event, Final, Query, SessionFacts, Times, TransactionEnd, lease::Kind};

use super::*;
use crate::record::tests::answered;

const POOLER: u32 = 20;
const FRONT_POOLER: u32 = 30;
const BACKEND: u64 = 5;
const SERVER: u64 = 9;
const ANN: u64 = 80;
const BOB: u64 = 81;
const BUFFER: u64 = 0x7f_9802c;
const OTHER: u64 = 0x7f_9903c;
const OWN: u64 = 0x55_ed480;
const QUERY: [u8; FRONT] = *b"Q\0\0\0\x0eselect 1;\0\0";

fn host() -> Host {
    Host {
        trust_domain: "td".into(),
        name: "h".into(),
    }
}

fn unit(pid: u32, name: &str, exe: &str) -> Arc<Process> {
    Arc::new(Process {
        pid,
        exe: Some(exe.into()),
        cgroup_path: Some(format!("/system.slice/{name}.service").as_str().into()),
        ..Process::default()
    })
}

fn named(name: &str) -> Attribution {
    Attribution {
        principal: Principal {
            kind: attribution::PrincipalKind::Unit,
            id: name.to_owned(),
        },
        confidence: Confidence::Observed,
        method: "tcp-owner",
        reason: String::new(),
        evidence: Vec::new(),
        process: None,
        hops: Vec::new(),
    }
}

pub(super) fn socket(cookie: u64, tgid: u32, role: SocketRole, numbers: (u32, u32)) -> SocketFact {
    SocketFact {
        kind: FactKind::Socket as u32,
        tgid,
        at: 0,
        cookie,
        server: tgid,
        netns: 0,
        family: 2,
        local_port: 6432,
        remote_port: 0,
        role: role as u8,
        flags: 0,
        local: [0; 16],
        remote: [0; 16],
        peer: PeerProcess::default(),
        // As seen from this end.
        sequence: if role == SocketRole::Connected {
            numbers.1
        } else {
            numbers.0
        },
        answer: if role == SocketRole::Connected {
            numbers.0
        } else {
            numbers.1
        },
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    }
}

struct Scene {
    pooled: Pooled,
    order: HashMap<u32, u32>,
    counts: HashMap<(u64, u8), u64>,
    session: Arc<SessionFacts>,
    number: u64,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            pooled: Pooled::new(),
            order: HashMap::new(),
            counts: HashMap::new(),
            session: Arc::new(session_facts(&socket(BACKEND, 7, SocketRole::Accepted, (1, 2)))),
            number: 0,
            now: 1_000,
        };
        scene.program(POOLER, "pgbouncer");
        for (cookie, name) in [(ANN, "ann"), (BOB, "bob")] {
            scene.client(cookie, POOLER, named(name), (cookie as u32, 1));
        }
        scene
    }

    fn program(&mut self, tgid: u32, unit_name: &str) {
        let process = unit(tgid, unit_name, "/usr/sbin/pgbouncer");
        let hop = attribution::pooler(&host(), &process);
        self.pooled.book.add_program(tgid, hop, 0);
        self.pooled.tracker.handle_program(tgid, Kind::PgBouncer);
    }

    fn client(&mut self, cookie: u64, tgid: u32, who: Attribution, numbers: (u32, u32)) {
        let fact = socket(cookie, tgid, SocketRole::Accepted, numbers);
        let key = Key::of(&fact);
        self.pooled
            .book
            .add_client(cookie, tgid, key, format!("b-{cookie:x}").into(), who);
        self.pooled.tracker.handle_socket(&fact, End::Client);
    }

    fn server(&mut self, cookie: u64, tgid: u32, numbers: (u32, u32)) {
        let fact = socket(cookie, tgid, SocketRole::Connected, numbers);
        self.pooled.book.add_server(cookie, tgid, Key::of(&fact));
        self.pooled.tracker.handle_socket(&fact, End::Server);
    }

    /// The backend's end is told, as the kernel recorded its connect.
    fn backend(&mut self) {
        let process = unit(POOLER, "pgbouncer", "/usr/sbin/pgbouncer");
        let peer = attribution::Peer::UnixPeer {
            process,
            path: "/run/x".into(),
        };
        let peer = attribution::attribute(&host(), &peer);
        let fact = socket(BACKEND, 7, SocketRole::Accepted, (1, 2));
        self.pooled.accepted(&fact, &peer, self.now);
    }

    fn both_ends() -> Self {
        let mut scene = Self::new();
        scene.server(SERVER, POOLER, (1, 2));
        scene.backend();
        scene
    }

    fn call(&mut self, tgid: u32, cookie: u64, direction: Direction, buffer: u64, length: u32) {
        let order = self.order.entry(tgid).or_default();
        *order += 1;
        let offset = self.counts.entry((cookie, direction as u8)).or_default();
        self.pooled.tracker.handle_transfer(&Transfer {
            at: u64::from(*order),
            cookie,
            offset: *offset,
            buffer,
            tgid,
            thread: tgid,
            order: *order,
            length,
            front: QUERY,
            direction: direction as u8,
            channel: Channel::Socket as u8,
            flags: if length == 0 { ebpf_abi::TRANSFER_NONE } else { 0 },
            reserved: [0; 5],
        });
        *offset += u64::from(length);
    }

    /// A pooler passes a request of 15 bytes on, and its answer of 66.
    fn pass(&mut self, tgid: u32, client: u64, server: u64) {
        self.ask(tgid, client, server);
        self.reply(tgid, client, server);
    }

    fn ask(&mut self, tgid: u32, client: u64, server: u64) {
        self.call(tgid, client, Direction::Received, BUFFER, 15);
        self.call(tgid, client, Direction::Received, BUFFER + 15, 0);
        self.call(tgid, server, Direction::Sent, BUFFER, 15);
    }

    fn reply(&mut self, tgid: u32, client: u64, server: u64) {
        self.call(tgid, server, Direction::Received, BUFFER, 66);
        self.call(tgid, client, Direction::Sent, BUFFER, 66);
    }

    /// The pooler says something itself: as long as the others, so that nothing but memory tells.
    fn own(&mut self, tgid: u32, server: u64) {
        self.call(tgid, server, Direction::Sent, OWN, 15);
        self.call(tgid, server, Direction::Received, OTHER, 66);
        self.call(tgid, ANN, Direction::Received, BUFFER, 0);
    }

    fn event(&self, body: Body) -> Event {
        Event {
            times: Times {
                start: self.now,
                first_response: None,
                end: self.now,
            },
            session: Arc::clone(&self.session),
            body,
        }
    }

    fn statement(&mut self, change: impl FnOnce(&mut Query)) {
        let mut query = answered("select 1", "SELECT 1");
        let from = self.number * 15;
        self.number += 1;
        query.number = self.number;
        query.transaction = self.number;
        query.request = from..from + 15;
        query.response_to = self.number * 66;
        change(&mut query);
        let event = self.event(Body::Query(Box::new(query)));
        assert!(self.pooled.keep(event, self.now).is_none(), "it waits");
    }

    fn told(&mut self) -> Option<(Event, Option<Arc<v1::Attribution>>)> {
        self.pooled.next(BACKEND, self.now, true, false)
    }

    /// Principal and method of the next event.
    fn who(&mut self) -> Option<(String, String)> {
        let (_, who) = self.told()?;
        let who = who.expect("a name of its own");
        Some((who.principal.clone(), who.method.clone()))
    }
}

fn lease(name: &str) -> Option<(String, String)> {
    Some((name.to_owned(), "lease".to_owned()))
}

const BOUNCER: &str = "spiffe://td/host/h/unit/pgbouncer.service";

#[test]
fn each_statement_goes_back_to_the_client_that_sent_it() {
    let mut scene = Scene::both_ends();
    for client in [ANN, BOB, BOB, ANN] {
        scene.statement(|_| {});
        assert_eq!(scene.who(), None, "nothing of it was seen");
        scene.ask(POOLER, client, SERVER);
        assert_eq!(scene.who(), None, "the answer was not");
        scene.reply(POOLER, client, SERVER);
        let (event, who) = scene.told().expect("it is decided");
        let who = who.expect("somebody");
        assert_eq!(who.principal, if client == ANN { "ann" } else { "bob" });
        assert_eq!(who.confidence(), v1::Confidence::Joined);
        let [hop] = &who.hops[..] else {
            panic!("{:?}", who.hops)
        };
        assert_eq!((hop.name.as_str(), hop.role.as_str()), (BOUNCER, "pooler"));
        assert_eq!(hop.session, format!("b-{client:x}"));
        let Body::Query(query) = event.body else {
            panic!("a query")
        };
        assert_eq!(query.client.map(|range| range.end - range.start), Some(15));
        assert_eq!((scene.pooled.events, scene.pooled.bytes), (0, 0));
    }
}

#[test]
fn events_are_told_in_their_order() {
    let mut scene = Scene::both_ends();
    let open = scene.event(Body::SessionOpen);
    assert!(scene.pooled.keep(open, scene.now).is_none());
    scene.statement(|_| {});
    scene.statement(|_| {});
    assert!(scene.pooled.holds(BACKEND));
    assert_eq!(scene.who(), Some((BOUNCER.to_owned(), "pooler".to_owned())));
    scene.ask(POOLER, ANN, SERVER);
    assert_eq!(scene.who(), None);
    scene.reply(POOLER, ANN, SERVER);
    scene.own(POOLER, SERVER);
    assert_eq!(scene.who(), lease("ann"));
    assert_eq!(scene.who(), Some((BOUNCER.to_owned(), "pooler".to_owned())));
    assert!(!scene.pooled.holds(BACKEND));
    assert_eq!(scene.pooled.waiting, [BACKEND], "until the round is over");
}

#[test]
fn what_is_never_decided_is_told_without_a_name() {
    let mut scene = Scene::both_ends();
    scene.statement(|_| {});
    scene.now += WAIT_NS - 1;
    assert!(scene.told().is_none());
    assert_eq!(scene.pooled.oldest(), Some(1_000));
    scene.now += 1;
    let waits = scene.pooled.next(BACKEND, scene.now, false, false);
    assert!(waits.is_none(), "what decides it may still be in the ring");
    let (_, who) = scene.told().expect("it has waited for long enough");
    let who = who.expect("a reason");
    assert_eq!((who.principal.as_str(), who.hops.len()), ("unknown", 1));
    assert!(who.reason.contains("was not seen to send it"), "{}", who.reason);
    // And at once where nothing is waited for.
    scene.statement(|_| {});
    let given_up = scene.pooled.next(BACKEND, scene.now, true, true);
    assert_eq!(given_up.and_then(|(_, who)| who).unwrap().principal, "unknown");
}

#[test]
fn a_transaction_is_its_statements_and_a_cancel_is_nobodys() {
    let mut scene = Scene::both_ends();
    let end = |number| {
        Body::Transaction(TransactionEnd {
            number,
            how: Final::Committed,
            statements: 2,
        })
    };
    for (client, transaction) in [(ANN, 1), (BOB, 2), (ANN, 3), (BOB, 3)] {
        scene.pass(POOLER, client, SERVER);
        scene.statement(|query| query.transaction = transaction);
        scene.told().expect("it is decided");
        let event = scene.event(end(transaction));
        scene.pooled.keep(event, scene.now);
        let who = scene.who().expect("it waits for nothing").0;
        match (client, transaction) {
            (ANN, 1 | 3) => assert_eq!(who, "ann"),
            (BOB, 2) => assert_eq!(who, "bob"),
            _ => assert_eq!(who, "unknown", "two clients' statements"),
        }
    }
    let event = scene.event(end(77));
    scene.pooled.keep(event, scene.now);
    assert_eq!(scene.who().expect("told").0, "unknown");
    let event = scene.event(Body::Cancel {
        victim: 1,
        session: None,
    });
    scene.pooled.keep(event, scene.now);
    assert_eq!(scene.who().expect("told").0, "unknown");
}

#[test]
fn the_poolers_end_may_be_told_later() {
    let mut scene = Scene::new();
    scene.backend();
    let event = scene.event(Body::SessionOpen);
    scene.pooled.keep(event, scene.now);
    assert!(scene.told().is_none());
    scene.server(SERVER, POOLER, (1, 2));
    assert_eq!(scene.who().expect("told").0, BOUNCER);
}

#[test]
fn another_connection_is_not_taken_for_it() {
    let mut scene = Scene::new();
    scene.server(SERVER, POOLER, (1, 3));
    scene.backend();
    scene.statement(|_| {});
    scene.pass(POOLER, ANN, SERVER);
    assert!(scene.told().is_none());
    scene.now += WAIT_NS;
    let (_, who) = scene.told().expect("given up");
    let who = who.expect("a reason");
    assert_eq!(who.principal, "unknown");
    assert!(
        who.reason.contains("end of the connection is not known"),
        "{}",
        who.reason
    );
    // Two that could be meant are as none.
    for cookie in [90, 91] {
        scene.server(cookie, POOLER, (1, 2));
    }
    assert_eq!(
        scene.pooled.book.leading(Key::Numbers(1 << 32 | 2)),
        None,
        "never a pick"
    );
}

#[test]
fn a_pooler_that_is_not_tapped_costs_its_sessions_a_moment_once() {
    let mut scene = Scene::new();
    scene.pooled.book = Book::default();
    scene.backend();
    scene.statement(|_| {});
    assert!(scene.told().is_none());
    scene.now += SIGN_NS;
    let (_, who) = scene.told().expect("no sign of it");
    assert!(who.is_none(), "as the session was named");
    scene.statement(|_| {});
    assert!(scene.told().is_some(), "at once");
}

#[test]
fn whoever_is_no_poolers_waits_for_nothing() {
    let mut scene = Scene::new();
    let fact = socket(BACKEND, 7, SocketRole::Accepted, (1, 2));
    scene.pooled.accepted(&fact, &named("shop"), scene.now);
    let event = scene.event(Body::SessionOpen);
    assert!(scene.pooled.keep(event, scene.now).is_some());
    scene.pooled.session_over(BACKEND);
    assert!(scene.pooled.accepted.is_empty() && scene.pooled.keys.is_empty());
}

#[test]
fn a_chain_is_followed_hop_by_hop() {
    const INNER: u64 = 82;
    const OUTER_SERVER: u64 = 40;
    const SHOP: u64 = 41;
    let mut scene = Scene::both_ends();
    // In front of the pooler is another one: its connection to a server is the pooler's client.
    scene.program(FRONT_POOLER, "front");
    scene.client(INNER, POOLER, named("unknown"), (50, 51));
    scene.server(OUTER_SERVER, FRONT_POOLER, (50, 51));
    scene.client(SHOP, FRONT_POOLER, named("shop"), (60, 61));
    scene.statement(|_| {});
    scene.ask(FRONT_POOLER, SHOP, OUTER_SERVER);
    scene.pass(POOLER, INNER, SERVER);
    scene.reply(FRONT_POOLER, SHOP, OUTER_SERVER);
    let (_, who) = scene.told().expect("it is decided");
    let who = who.expect("somebody");
    assert_eq!(who.principal, "shop");
    assert_eq!(who.confidence(), v1::Confidence::Joined);
    let hops: Vec<(&str, &str)> = who
        .hops
        .iter()
        .map(|hop| (hop.name.as_str(), hop.session.as_str()))
        .collect();
    assert_eq!(
        hops,
        [
            ("spiffe://td/host/h/unit/front.service", "b-29"),
            (BOUNCER, "b-52")
        ],
        "from the client to the server"
    );
    // Statements that the second one spreads over its connections are not asked about in the first one's order.
    scene.ask(FRONT_POOLER, SHOP, OUTER_SERVER);
    scene.reply(FRONT_POOLER, SHOP, OUTER_SERVER);
    for from in [15, 0, 15] {
        let asked = tap_core::lease::Asked {
            request: from..from + 15,
            response_to: None,
            began: 0,
            simple: true,
            last: false,
        };
        let decision = scene.pooled.tracker.look(OUTER_SERVER, &asked);
        assert!(
            matches!(&decision, tap_core::lease::Decision::Client(leased) if leased.client == SHOP),
            "{from}: {decision:?}"
        );
    }
    scene.pass(POOLER, INNER, SERVER);
    scene.statement(|_| {});
    assert_eq!(scene.who(), lease("shop"));
    // What the one in front says itself is that one's.
    scene.statement(|_| {});
    scene.call(FRONT_POOLER, OUTER_SERVER, Direction::Sent, OWN, 15);
    scene.pass(POOLER, INNER, SERVER);
    scene.call(FRONT_POOLER, OUTER_SERVER, Direction::Received, OTHER, 66);
    scene.call(FRONT_POOLER, SHOP, Direction::Received, BUFFER, 0);
    scene.now += WAIT_NS;
    let (_, who) = scene.told().expect("it is decided");
    let principal = who.expect("somebody").principal.clone();
    assert_ne!(principal, "shop");
}

#[test]
fn a_client_that_is_gone_is_named_still() {
    let mut scene = Scene::both_ends();
    scene.statement(|_| {});
    scene.pass(POOLER, ANN, SERVER);
    scene.pooled.closed(ANN);
    scene.pooled.closed(SERVER);
    scene.pooled.exited(POOLER);
    assert_eq!(scene.who(), lease("ann"));
}

#[test]
fn a_successor_that_takes_connections_over_is_the_pooler_from_then_on() {
    let mut scene = Scene::both_ends();
    scene.program(FRONT_POOLER, "successor");
    let book = &mut scene.pooled.book;
    assert!(!book.used(ANN, POOLER), "as before");
    assert!(book.used(ANN, FRONT_POOLER) && book.used(SERVER, FRONT_POOLER));
    assert_eq!(book.program_of(SERVER), Some(FRONT_POOLER));
    scene.pooled.exited(POOLER);
    let book = &mut scene.pooled.book;
    assert!(book.gone(ANN), "it went on");
    assert!(!book.gone(BOB), "it ended with its process");
}

#[test]
fn sockets_are_bounded() {
    let mut scene = Scene::new();
    for cookie in 1_000..1_000 + 3 * SOCKETS_TRIED {
        scene.client(cookie, POOLER, named("x"), (cookie as u32, 1));
        if cookie % 2 == 0 {
            scene.pooled.closed(cookie);
        }
    }
    assert!(scene.pooled.book.sockets() <= book::SOCKETS);
}

const SOCKETS_TRIED: u64 = 40_000;

#[test]
fn what_a_client_left_behind_is_not_the_next_ones() {
    let mut scene = Scene::both_ends();
    let claims = || {
        Some(Arc::new(tap_core::Asserted {
            claims: vec![tap_core::Claim {
                says: tap_core::END_USER.into(),
                value: "ann's user".into(),
                source: tap_core::Source::Set("app.end_user".into()),
                set_by: Some(tap_core::SetBy {
                    statement: 1,
                    request_from: 0,
                    index: 0,
                    lease: None,
                }),
                possibly_stale: false,
            }],
            ..tap_core::Asserted::default()
        }))
    };
    let mut seen = Vec::new();
    for (number, client) in [(1, ANN), (2, ANN), (3, BOB), (4, ANN)] {
        scene.pass(POOLER, client, SERVER);
        scene.statement(|query| query.asserted = if number > 1 { claims() } else { None });
        let (event, _) = scene.told().expect("it is decided");
        let Body::Query(query) = event.body else {
            panic!("a query")
        };
        let asserted = query.asserted.unwrap_or_default();
        seen.push((asserted.end_user().is_some(), asserted.foreign.len()));
    }
    assert_eq!(seen, [(false, 0), (true, 0), (false, 1), (true, 0)]);
}
