//! Poolers that are made up, with clients that all say the same, in every order that chance gives: whatever is decided is true.
//! What a real pooler does was taken from strace (see the unit tests of `lease`).

use std::collections::{HashMap, VecDeque};

use ebpf_abi::{
    Channel, Direction, FRONT, FactKind, PeerProcess, SOCKET_MID_STREAM, SocketFact, SocketRole,
    TRANSFER_END, TRANSFER_NONE, Transfer, UNIX_PATH_MAX,
};
use proptest::prelude::*;
use tap_core::lease::{Asked, By, Coded, Decision, End, Kind, Poolers, Portion, Traffic, decide};

const PROCESS: u32 = 7_119;
const FIRST_CLIENT: u64 = 100;
const FIRST_SERVER: u64 = 10;
const REQUEST: u32 = 15;
const ANSWER: u32 = 66;
const SET: u32 = 31;
const OWN: u64 = 0x55_ed480;
const FRONT_OF_REQUEST: [u8; FRONT] = *b"Q\0\0\0\x0eselect 1;\0\0";
const FRONT_OF_SET: [u8; FRONT] = *b"Q\0\0\0\x1eSET applica";
const FRONT_OF_ANSWER: [u8; FRONT] = *b"T\0\0\0\x21\0\x01?column?\0";

/// How a made-up pooler treats memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// A buffer for each connection that has something in it, the one that was freed last first.
    Buffers,
    /// Copies what it received to where nothing is ever received.
    Copies,
    /// Receives and sends at one place, requests at one and answers at another, and keeps elsewhere what waits.
    Places,
}

/// A statement that went over a server connection, and whose it really is; `None`: the pooler's own.
struct Truth {
    server: u64,
    client: Option<u64>,
    asked: Asked,
}

struct Pooler {
    poolers: Poolers,
    manner: Manner,
    order: u32,
    at: u64,
    counts: HashMap<u64, [u64; 2]>,
    free: Vec<u64>,
    /// Clients whose request was read and waits, with its buffer.
    waiting: VecDeque<(u64, u64)>,
    busy: HashMap<u64, u64>,
    idle: Vec<u64>,
    truths: Vec<Truth>,
    /// Calls that are not told.
    lose: Vec<bool>,
    /// After so many calls what is known is handed on, if it ever is.
    hand_on_after: Option<u32>,
    portions: HashMap<u64, Vec<Portion>>,
}

impl Pooler {
    fn new(
        manner: Manner,
        kind: Kind,
        clients: u64,
        servers: u64,
        mid_stream: bool,
        lose: Vec<bool>,
    ) -> Self {
        let mut poolers = Poolers::new();
        poolers.handle_program(PROCESS, kind);
        for client in 0..clients {
            poolers.handle_socket(&socket(FIRST_CLIENT + client, mid_stream), End::Client);
        }
        for server in 0..servers {
            poolers.handle_socket(&socket(FIRST_SERVER + server, mid_stream), End::Server);
        }
        Self {
            poolers,
            manner,
            order: 0,
            at: 0,
            counts: HashMap::new(),
            free: (0..clients + servers).map(|n| 0x7f_0000 + n * 0x1010).collect(),
            waiting: VecDeque::new(),
            busy: HashMap::new(),
            idle: (0..servers).map(|server| FIRST_SERVER + server).collect(),
            truths: Vec::new(),
            lose,
            hand_on_after: None,
            portions: HashMap::new(),
        }
    }

    fn call(
        &mut self,
        cookie: u64,
        direction: Direction,
        buffer: u64,
        length: u32,
        front: [u8; FRONT],
        flags: u8,
    ) {
        self.order += 1;
        self.at += 10;
        let [received, sent] = self.counts.entry(cookie).or_default();
        let count = match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        };
        let transfer = Transfer {
            at: self.at,
            cookie,
            offset: *count,
            buffer,
            tgid: PROCESS,
            thread: PROCESS,
            order: self.order,
            length,
            front,
            direction: direction as u8,
            channel: Channel::Socket as u8,
            flags,
            reserved: [0; 5],
        };
        *count += u64::from(length);
        let is_lost = self.lose.iter().cycle().nth(self.order as usize % 300) == Some(&true);
        if !is_lost {
            self.poolers.handle_transfer(&transfer);
        }
        if self
            .hand_on_after
            .is_some_and(|after| self.order.is_multiple_of(after))
        {
            self.hand_on();
        }
    }

    /// All that is known goes into a record, and is read from there.
    fn hand_on(&mut self) {
        for server in FIRST_SERVER..FIRST_CLIENT {
            if let Some((_, portion)) = self.poolers.drain(server) {
                let bare = Portion {
                    written: Vec::new(),
                    passed: Vec::new(),
                    ended: Vec::new(),
                    ..portion.clone()
                };
                let read = Coded::of(&portion).pieces(bare);
                assert_eq!(read, Some(portion.clone()));
                self.portions.entry(server).or_default().push(portion);
            }
        }
    }

    /// What is decided of everything where it was seen.
    fn decided_here(mut self) -> Vec<Decision> {
        let truths = std::mem::take(&mut self.truths);
        let decide = |truth: &Truth| self.poolers.decide(truth.server, &last(&truth.asked));
        truths.iter().map(decide).map(without_reason).collect()
    }

    /// The same from what was handed on: all of it, or as little as `least` that begins before the statement.
    fn decided_elsewhere(&self, kind: Kind, least: bool) -> Vec<Decision> {
        let decide = |truth: &Truth| {
            let portions = self.portions.get(&truth.server).map_or(&[][..], Vec::as_slice);
            let begins = |portion: &Portion| portion.begins_before(&truth.asked);
            let from = portions
                .iter()
                .rposition(begins)
                .filter(|_| least)
                .unwrap_or_default();
            let mut traffic = Traffic::default();
            let mut ended = Vec::new();
            for portion in portions.iter().skip(from) {
                traffic.absorb(portion);
                ended.extend_from_slice(&portion.ended);
            }
            decide(
                kind,
                &traffic,
                |client| !ended.contains(&client),
                &last(&truth.asked),
            )
        };
        self.truths.iter().map(decide).map(without_reason).collect()
    }

    fn buffer(&mut self, of_server: bool) -> u64 {
        match self.manner {
            Manner::Buffers => self.free.pop().unwrap_or_default(),
            Manner::Copies => 0x7f_0000 + u64::from(self.order) * 0x1000,
            Manner::Places if of_server => 0x7f_9000,
            Manner::Places => 0x7f_0000,
        }
    }

    fn give_back(&mut self, buffer: u64) {
        if self.manner == Manner::Buffers {
            self.free.push(buffer);
        }
    }

    /// From where what lies in `buffer` is sent.
    fn from(&self, buffer: u64) -> u64 {
        if self.manner == Manner::Copies {
            OWN
        } else {
            buffer
        }
    }

    /// A client's request comes in.
    fn request(&mut self, client: u64) {
        let is_busy = self.busy.values().any(|busy| *busy == client);
        if is_busy || self.waiting.iter().any(|(waiting, _)| *waiting == client) {
            return;
        }
        let buffer = self.buffer(false);
        self.call(client, Direction::Received, buffer, REQUEST, FRONT_OF_REQUEST, 0);
        if let Some(server) = self.idle.pop() {
            self.forward(client, server, buffer);
        } else {
            self.waiting.push_back((client, buffer));
        }
    }

    fn forward(&mut self, client: u64, server: u64, buffer: u64) {
        self.send(server, Some(client), self.from(buffer), REQUEST, FRONT_OF_REQUEST);
        self.give_back(buffer);
        self.busy.insert(server, client);
    }

    /// The pooler's own words, whose answer it keeps.
    fn speak(&mut self, server: u64) {
        self.send(server, None, OWN, SET, FRONT_OF_SET);
        let buffer = self.buffer(true);
        self.call(server, Direction::Received, buffer, ANSWER, FRONT_OF_ANSWER, 0);
        self.give_back(buffer);
    }

    fn send(&mut self, server: u64, client: Option<u64>, buffer: u64, length: u32, front: [u8; FRONT]) {
        let [answered, asked] = self.counts.get(&server).copied().unwrap_or_default();
        self.call(server, Direction::Sent, buffer, length, front, 0);
        let asked = Asked {
            request: asked..asked + u64::from(length),
            response_to: Some(answered + u64::from(ANSWER)),
            began: self.at + 1,
            simple: true,
            last: false,
        };
        self.truths.push(Truth {
            server,
            client,
            asked,
        });
    }

    /// A server answers; who waits longest is next.
    fn answer(&mut self, server: u64, slow: bool, own: bool) {
        let Some(client) = self.busy.remove(&server) else {
            return;
        };
        let buffer = self.buffer(true);
        self.call(server, Direction::Received, buffer, ANSWER, FRONT_OF_ANSWER, 0);
        let from = self.from(buffer);
        if slow {
            self.call(client, Direction::Sent, from, 0, [0; FRONT], TRANSFER_NONE);
        }
        self.call(client, Direction::Sent, from, ANSWER, FRONT_OF_ANSWER, 0);
        self.give_back(buffer);
        let Some((next, buffer)) = self.waiting.pop_front() else {
            self.idle.push(server);
            return;
        };
        if own {
            self.speak(server);
        }
        self.call(
            next,
            Direction::Received,
            buffer + u64::from(REQUEST),
            0,
            [0; FRONT],
            TRANSFER_NONE,
        );
        self.forward(next, server, buffer);
    }

    /// A client that waits goes away.
    fn give_up(&mut self, client: u64) {
        if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == client) {
            let Some((_, buffer)) = self.waiting.remove(index) else {
                return;
            };
            self.call(client, Direction::Received, buffer, 0, [0; FRONT], TRANSFER_END);
            self.give_back(buffer);
        }
    }

    /// Asks about everything: how many were named, and whether any was given to somebody else. `shift`: the backend's end
    /// counts from elsewhere.
    fn judge(mut self, shift: u64) -> (usize, usize) {
        let (mut named, mut clients) = (0, 0);
        for truth in std::mem::take(&mut self.truths) {
            let mut asked = truth.asked;
            asked.request = asked.request.start + shift..asked.request.end + shift;
            asked.response_to = asked.response_to.map(|to| to + shift);
            let mut decision = self.poolers.decide(truth.server, &asked);
            if decision == Decision::NotYet {
                asked.last = true;
                decision = self.poolers.decide(truth.server, &asked);
            }
            clients += usize::from(truth.client.is_some());
            match (decision, truth.client) {
                (Decision::Client(leased), client) => {
                    assert_eq!(Some(leased.client), client, "by {:?}", leased.by);
                    if leased.by == By::Both {
                        assert_eq!((leased.range.end - leased.range.start) as u32, REQUEST);
                    }
                    named += 1;
                }
                (Decision::Own, client) => assert_eq!(client, None),
                (Decision::Undecided { .. }, _) => {}
                (Decision::NotYet, _) => assert!(!asked.last, "asked for the last time"),
            }
        }
        (named, clients)
    }

    fn play(&mut self, steps: &[(u8, u8)], clients: u64, servers: u64) {
        for (what, whom) in steps {
            let client = FIRST_CLIENT + u64::from(*whom) % clients;
            let server = FIRST_SERVER + u64::from(*whom) % servers;
            match what % 8 {
                0..=3 => self.request(client),
                4 | 5 => self.answer(server, false, what & 8 != 0),
                6 => self.answer(server, true, what & 8 != 0),
                _ => self.give_up(client),
            }
        }
        // All that is under way comes to its end.
        for server in 0..servers {
            self.answer(FIRST_SERVER + server, false, false);
        }
    }
}

fn last(asked: &Asked) -> Asked {
    Asked {
        last: true,
        ..asked.clone()
    }
}

fn socket(cookie: u64, mid_stream: bool) -> SocketFact {
    SocketFact {
        kind: FactKind::Socket as u32,
        tgid: PROCESS,
        at: 0,
        cookie,
        server: PROCESS,
        netns: 0,
        family: 1,
        local_port: 0,
        remote_port: 0,
        role: SocketRole::Unknown as u8,
        flags: if mid_stream { SOCKET_MID_STREAM } else { 0 },
        local: [0; 16],
        remote: [0; 16],
        peer: PeerProcess::default(),
        sequence: 0,
        answer: 0,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    }
}

/// Of a connection of which every call was lost each end has its own reason to know nothing.
fn without_reason(decision: Decision) -> Decision {
    match decision {
        Decision::Undecided { candidates, .. } => Decision::Undecided {
            reason: "",
            candidates,
        },
        other => other,
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec(any::<(u8, u8)>(), 1..400)
}

proptest! {
    #[test]
    fn each_statement_goes_back_to_its_client(steps in steps(), clients in 1_u64..12, servers in 1_u64..4) {
        let mut pooler = Pooler::new(Manner::Buffers, Kind::PgBouncer, clients, servers, false, Vec::new());
        pooler.play(&steps, clients, servers);
        // What was under way at the end has no answer for its client yet, and is known by its request.
        let (named, of_clients) = pooler.judge(0);
        prop_assert_eq!(named, of_clients);
    }

    #[test]
    fn what_was_lost_makes_no_wrong_name(
        steps in steps(),
        clients in 1_u64..12,
        lose in prop::collection::vec(prop::bool::weighted(0.05), 1..300),
    ) {
        let mut pooler = Pooler::new(Manner::Buffers, Kind::PgBouncer, clients, 2, false, lose);
        pooler.play(&steps, clients, 2);
        pooler.judge(0);
    }

    #[test]
    fn a_pooler_of_another_manner_makes_none(steps in steps(), clients in 1_u64..12, kind in 0..2, copies: bool) {
        let manner = if copies { Manner::Copies } else { Manner::Places };
        let kind = if kind == 0 { Kind::Other } else { Kind::Pgpool };
        let mut pooler = Pooler::new(manner, kind, clients, 2, false, Vec::new());
        pooler.play(&steps, clients, 2);
        pooler.judge(0);
    }

    #[test]
    fn whoever_decides_later_and_elsewhere_decides_the_same(
        steps in steps(),
        clients in 1_u64..12,
        after in 1_u32..60,
        lose in prop::collection::vec(prop::bool::weighted(0.02), 0..300),
        kind in 0_usize..3,
    ) {
        let (manner, kind) = [
            (Manner::Buffers, Kind::PgBouncer),
            (Manner::Places, Kind::Other),
            (Manner::Copies, Kind::Pgpool),
        ][kind];
        let play = |hand_on_after| {
            let mut pooler = Pooler::new(manner, kind, clients, 2, false, lose.clone());
            pooler.hand_on_after = hand_on_after;
            pooler.play(&steps, clients, 2);
            pooler.hand_on();
            pooler
        };
        let (whole, pieces) = (play(None), play(Some(after)));
        let mut here = Pooler::new(manner, kind, clients, 2, false, lose.clone());
        here.play(&steps, clients, 2);
        let here = here.decided_here();
        prop_assert_eq!(&whole.decided_elsewhere(kind, false), &here);
        prop_assert_eq!(&pieces.decided_elsewhere(kind, false), &here);
        prop_assert_eq!(&pieces.decided_elsewhere(kind, true), &here);
    }

    #[test]
    fn older_connections_are_aligned_or_not_named(
        steps in steps(),
        clients in 1_u64..12,
        shift in 0_u64..100_000,
        lose in prop::collection::vec(prop::bool::weighted(0.02), 0..300),
    ) {
        let mut pooler = Pooler::new(Manner::Buffers, Kind::PgBouncer, clients, 1, true, lose);
        pooler.play(&steps, clients, 1);
        pooler.judge(shift);
    }
}

#[test]
fn alignment_costs_a_few_statements() {
    let mut pooler = Pooler::new(Manner::Buffers, Kind::PgBouncer, 4, 1, true, Vec::new());
    for round in 0..100 {
        pooler.request(FIRST_CLIENT + round % 4);
        pooler.answer(FIRST_SERVER, false, false);
    }
    let (named, of_clients) = pooler.judge(77_000);
    assert_eq!(of_clients, 100);
    assert!(named >= 95, "{named}");
}
