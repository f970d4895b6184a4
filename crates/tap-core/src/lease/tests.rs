//! What a pooler does with its sockets, call by call, as strace showed it of PgBouncer 1.18; and what it must not be taken for.

use std::collections::HashMap;

use ebpf_abi::{Channel, Direction, FRONT, FactKind, SocketRole, TRANSFER_END, TRANSFER_NONE};

use super::*;

const PROCESS: u32 = 7119;
const SERVER: u64 = 9;
/// Three clients' sockets.
const A: u64 = 80;
const B: u64 = 81;
const C: u64 = 82;
/// Buffers for what is received, and where the pooler writes its own.
const BUFFERS: [u64; 4] = [0x7f_9802c, 0x7f_9903c, 0x7f_9a04c, 0x7f_9b05c];
/// No candidates.
const NONE: [u64; 0] = [];
const OWN: u64 = 0x55_ed480;
const QUERY: [u8; FRONT] = *b"Q\0\0\0\x0eselect 1;\0\0";
const SET: [u8; FRONT] = *b"Q\0\0\0\x1eSET applica";
const ANSWER: [u8; FRONT] = *b"T\0\0\0\x21\0\x01?column?\0";

struct Pooler {
    poolers: Poolers,
    order: u32,
    thread: u32,
    process: u32,
    channel: Channel,
    /// Bytes received and sent, by socket.
    counts: HashMap<u64, [u64; 2]>,
}

impl Pooler {
    fn new(kind: Kind) -> Self {
        let mut poolers = Poolers::new();
        poolers.handle_program(PROCESS, kind);
        for client in [A, B, C] {
            poolers.handle_socket(&socket(client, 0), End::Client);
        }
        poolers.handle_socket(&socket(SERVER, 0), End::Server);
        Self {
            poolers,
            order: 0,
            thread: PROCESS,
            process: PROCESS,
            channel: Channel::Socket,
            counts: HashMap::new(),
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
        let count = &mut self.counts.entry(cookie).or_default()[direction as usize];
        let transfer = Transfer {
            at: u64::from(self.order),
            cookie,
            offset: *count,
            buffer,
            tgid: self.process,
            thread: self.thread,
            order: self.order,
            length,
            front,
            direction: direction as u8,
            channel: self.channel as u8,
            flags,
            reserved: [0; 5],
        };
        *count += u64::from(length);
        self.poolers.handle_transfer(&transfer);
    }

    fn receive(&mut self, cookie: u64, buffer: u64, length: u32, front: [u8; FRONT]) {
        self.call(cookie, Direction::Received, buffer, length, front, 0);
    }

    fn nothing(&mut self, cookie: u64) {
        self.call(cookie, Direction::Received, 1, 0, [0; FRONT], TRANSFER_NONE);
    }

    fn send(&mut self, cookie: u64, buffer: u64, length: u32, front: [u8; FRONT]) {
        self.call(cookie, Direction::Sent, buffer, length, front, 0);
    }

    /// A client is given the server and has its request sent from where it waited.
    fn activate(&mut self, client: u64, buffer: u64) {
        self.nothing(client);
        self.send(SERVER, buffer, 15, QUERY);
    }

    fn answer(&mut self, client: u64, buffer: u64) {
        self.receive(SERVER, buffer, 66, ANSWER);
        self.send(client, buffer, 66, ANSWER);
    }

    fn ask(&mut self, request: std::ops::Range<u64>, response_to: u64) -> Decision {
        let asked = Asked {
            request,
            response_to: Some(response_to),
            began: 0,
            simple: true,
            last: false,
        };
        self.poolers.decide(SERVER, &asked)
    }
}

fn socket(cookie: u64, flags: u8) -> SocketFact {
    SocketFact {
        kind: FactKind::Socket as u32,
        tgid: PROCESS,
        at: 0,
        cookie,
        server: PROCESS,
        netns: 0,
        family: 2,
        local_port: 6432,
        remote_port: 0,
        role: SocketRole::Unknown as u8,
        flags,
        local: [0; 16],
        remote: [0; 16],
        peer: ebpf_abi::PeerProcess::default(),
        sequence: 0,
        answer: 0,
        client_inode: 0,
        path_length: 0,
        path: [0; ebpf_abi::UNIX_PATH_MAX],
    }
}

fn of(client: u64, range: std::ops::Range<u64>, by: By) -> Decision {
    Decision::Client(Leased { client, range, by })
}

fn candidates(decision: Decision) -> Vec<u64> {
    match decision {
        Decision::Undecided { candidates, .. } => candidates,
        other => panic!("not undecided: {other:?}"),
    }
}

#[test]
fn equal_requests_that_waited_go_back_to_their_clients() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    // The parameters of A differ, so the pooler first says so; B and C have to wait.
    pooler.receive(A, BUFFERS[1], 15, QUERY);
    pooler.send(SERVER, OWN, 31, SET);
    pooler.receive(B, BUFFERS[0], 15, QUERY);
    pooler.receive(C, BUFFERS[2], 15, QUERY);
    pooler.receive(SERVER, BUFFERS[3], 39, *b"S\0\0\0\x19application");
    assert_eq!(pooler.ask(0..31, 39), Decision::NotYet);
    pooler.activate(A, BUFFERS[1]);
    assert_eq!(pooler.ask(0..31, 39), Decision::Own);
    assert_eq!(pooler.ask(31..46, 105), Decision::NotYet);
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(pooler.ask(31..46, 105), of(A, 0..15, By::Both));
    pooler.activate(B, BUFFERS[0]);
    pooler.answer(B, BUFFERS[0]);
    pooler.activate(C, BUFFERS[2]);
    // A's next request takes the place from where C's was just sent.
    pooler.receive(A, BUFFERS[2], 15, QUERY);
    pooler.answer(C, BUFFERS[0]);
    pooler.activate(A, BUFFERS[2]);
    pooler.answer(A, BUFFERS[0]);
    assert_eq!(pooler.ask(46..61, 171), of(B, 0..15, By::Both));
    assert_eq!(pooler.ask(61..76, 237), of(C, 0..15, By::Both));
    assert_eq!(pooler.ask(76..91, 303), of(A, 15..30, By::Both));
}

#[test]
fn statements_of_one_string_share_its_request() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[0]);
    for response_to in [30, 60, 66] {
        assert_eq!(pooler.ask(0..15, response_to), of(A, 0..15, By::Both));
    }
}

#[test]
fn a_pipeline_is_divided_by_what_is_asked() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(B, BUFFERS[0], 45, QUERY);
    pooler.send(SERVER, BUFFERS[0], 30, QUERY);
    pooler.send(SERVER, BUFFERS[0] + 30, 15, QUERY);
    pooler.answer(B, BUFFERS[1]);
    pooler.answer(B, BUFFERS[1]);
    assert_eq!(pooler.ask(0..15, 40), of(B, 0..15, By::Both));
    assert_eq!(pooler.ask(15..30, 66), of(B, 15..30, By::Both));
    assert_eq!(pooler.ask(30..45, 132), of(B, 30..45, By::Both));
}

#[test]
fn what_is_left_is_moved_to_the_front_before_more_is_received() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(B, BUFFERS[0], 30, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(B, BUFFERS[1]);
    // The second request waited; it is at the front now, where the first was.
    pooler.call(
        B,
        Direction::Received,
        BUFFERS[0] + 15,
        0,
        [0; FRONT],
        TRANSFER_NONE,
    );
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(B, BUFFERS[1]);
    assert_eq!(pooler.ask(0..15, 66), of(B, 0..15, By::Both));
    assert_eq!(pooler.ask(15..30, 132), of(B, 15..30, By::Both));
    // An answer whose end is moved.
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 4096, ANSWER);
    pooler.send(A, BUFFERS[1], 4066, ANSWER);
    pooler.receive(SERVER, BUFFERS[1] + 30, 36, [7; FRONT]);
    pooler.send(A, BUFFERS[1], 66, [8; FRONT]);
    assert_eq!(pooler.ask(30..45, 132 + 4096), of(A, 0..15, By::Both));
    assert_eq!(pooler.ask(30..45, 132 + 4096 + 36), of(A, 0..15, By::Both));
}

#[test]
fn cipher_text_is_nobodys_word() {
    let ssl = [0, 0, 0, 8, 4, 210, 22, 47, 0, 0, 0, 0, 0, 0, 0, 0];
    let accepted = [b'S', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cipher = [23, 3, 3, 0, 40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    // The client's side: what the pooler sends on is its own as far as memory shows.
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 8, ssl);
    pooler.send(A, OWN, 1, accepted);
    pooler.receive(A, BUFFERS[0], 45, cipher);
    pooler.send(SERVER, OWN, 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.nothing(B);
    assert_eq!(candidates(pooler.ask(0..15, 66)), [A]);
    // Nor is anything else surely the pooler's, as long as such a client is there: its calls may not be seen at all.
    pooler.send(SERVER, OWN, 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.nothing(A);
    assert_eq!(candidates(pooler.ask(15..30, 132)), [B]);
    pooler.poolers.handle_close(A);
    pooler.nothing(B);
    pooler.send(SERVER, OWN, 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.nothing(C);
    assert_eq!(pooler.ask(30..45, 198), Decision::Own);
    // The server's side: the backend's offsets are of another stream.
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.send(SERVER, OWN, 8, ssl);
    pooler.receive(SERVER, BUFFERS[1], 1, accepted);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, OWN, 45, cipher);
    pooler.receive(SERVER, BUFFERS[1], 90, cipher);
    pooler.send(A, OWN, 66, ANSWER);
    pooler.nothing(B);
    assert_eq!(pooler.ask(10..25, 50), Decision::NotYet);
    assert!(pooler.poolers.drain(SERVER).is_none());
    // Once the plaintext is seen, it counts.
    pooler.channel = Channel::Tls;
    pooler.counts.clear();
    pooler.receive(A, BUFFERS[2], 15, QUERY);
    pooler.send(SERVER, BUFFERS[2], 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.send(A, BUFFERS[1], 66, ANSWER);
    assert_eq!(pooler.ask(0..15, 66), of(A, 0..15, By::Both));
}

#[test]
fn a_refused_encryption_leaves_the_connection_in_the_clear() {
    let gss = [0, 0, 0, 8, 4, 210, 22, 48, 0, 0, 0, 0, 0, 0, 0, 0];
    let refused = [b'N', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.send(SERVER, OWN, 8, gss);
    pooler.receive(SERVER, BUFFERS[1], 1, refused);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(pooler.ask(8..23, 67), of(A, 0..15, By::Both));
}

#[test]
fn a_successor_takes_the_connections_over() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[0]);
    pooler.process = PROCESS + 1;
    (pooler.thread, pooler.order) = (PROCESS + 1, 0);
    pooler.poolers.handle_program(PROCESS + 1, Kind::PgBouncer);
    pooler.receive(A, BUFFERS[1], 15, QUERY);
    pooler.send(SERVER, BUFFERS[1], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    pooler.poolers.handle_exit(PROCESS);
    for number in 0..2 {
        let from = number * 15;
        assert_eq!(
            pooler.ask(from..from + 15, 66 + number * 66),
            of(A, from..from + 15, By::Both)
        );
    }
}

#[test]
fn a_client_that_is_gone_before_its_answer_still_sent_its_request() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.call(A, Direction::Received, 1, 0, [0; FRONT], TRANSFER_END);
    pooler.receive(SERVER, BUFFERS[0], 66, ANSWER);
    assert_eq!(pooler.ask(0..15, 66), Decision::NotYet);
    pooler.nothing(B);
    assert_eq!(pooler.ask(0..15, 66), of(A, 0..15, By::Request));
}

#[test]
fn an_answer_that_waits_for_a_slow_client_is_awaited() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.call(A, Direction::Sent, BUFFERS[1], 0, [0; FRONT], TRANSFER_NONE);
    pooler.nothing(B);
    assert_eq!(pooler.ask(0..15, 66), Decision::NotYet);
    pooler.send(A, BUFFERS[1], 66, ANSWER);
    assert_eq!(pooler.ask(0..15, 66), of(A, 0..15, By::Both));
}

#[test]
fn request_and_answer_have_to_agree() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(B, BUFFERS[1]);
    assert_eq!(candidates(pooler.ask(0..15, 66)), [A, B]);
    // Both clients' bytes in one request.
    let behind = *b"t 1;\0\0\0\0\0\0\0\0\0\0\0\0";
    pooler.receive(A, BUFFERS[0], 10, QUERY);
    pooler.receive(B, BUFFERS[0] + 10, 5, behind);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(candidates(pooler.ask(15..30, 132)), [A, B]);
    // What lies in the first place is not what A sent.
    pooler.receive(A, BUFFERS[0], 10, SET);
    pooler.receive(B, BUFFERS[0] + 10, 5, behind);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(candidates(pooler.ask(30..45, 198)), [B, A]);
}

#[test]
fn the_last_read_alone_names_nobody() {
    for kind in [Kind::Other, Kind::Pgpool, Kind::PgBouncer] {
        let mut pooler = Pooler::new(kind);
        // It copies: what it sends lies elsewhere.
        pooler.receive(A, BUFFERS[0], 15, QUERY);
        pooler.receive(B, BUFFERS[1], 15, QUERY);
        pooler.send(SERVER, OWN, 15, QUERY);
        pooler.receive(SERVER, BUFFERS[2], 66, ANSWER);
        pooler.send(A, OWN, 66, ANSWER);
        pooler.nothing(SERVER);
        assert!(candidates(pooler.ask(0..15, 66)).contains(&B), "{kind:?}");
    }
}

#[test]
fn one_place_for_all_is_no_proof() {
    let mut pooler = Pooler::new(Kind::Other);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.receive(B, BUFFERS[0], 15, QUERY);
    pooler.nothing(SERVER);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(B, BUFFERS[1]);
    assert_eq!(candidates(pooler.ask(0..15, 66)), [B]);
}

#[test]
fn a_request_written_anew_needs_turn_and_answer() {
    let prepared = Asked {
        request: 0..20,
        response_to: Some(66),
        began: 0,
        simple: false,
        last: false,
    };
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 40, *b"P\0\0\0\x27name\0select");
    pooler.nothing(A);
    pooler.send(SERVER, OWN, 20, *b"B\0\0\0\x13\0PGBOUNCER_");
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(pooler.poolers.decide(SERVER, &prepared), of(A, 0..0, By::Answer));

    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 40, *b"P\0\0\0\x27name\0select");
    pooler.receive(B, BUFFERS[2], 15, QUERY);
    pooler.send(SERVER, OWN, 20, *b"B\0\0\0\x13\0PGBOUNCER_");
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(candidates(pooler.poolers.decide(SERVER, &prepared)), [B, A]);
}

#[test]
fn what_is_asked_about_whoever_logs_in_is_the_poolers_own() {
    let asked = |request: std::ops::Range<u64>, response_to| Asked {
        request,
        response_to: Some(response_to),
        began: 0,
        simple: false,
        last: false,
    };
    let query = *b"P\0\0\0\x27\0SELECT use";
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 60, *b"\0\0\0\x3c\0\x03\0\0user\0app");
    pooler.send(SERVER, OWN, 80, query);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.nothing(B);
    assert_eq!(pooler.poolers.decide(SERVER, &asked(0..80, 66)), Decision::Own);
    // Later on a receive may begin with anything.
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    pooler.receive(A, BUFFERS[0], 60, [0; FRONT]);
    pooler.send(SERVER, OWN, 80, query);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.nothing(B);
    assert_eq!(
        pooler.poolers.decide(SERVER, &asked(95..175, 198)),
        Decision::NotYet
    );
    let last = Asked {
        last: true,
        ..asked(95..175, 198)
    };
    assert_eq!(candidates(pooler.poolers.decide(SERVER, &last)), [A]);
    // It goes on to get answers: this one it did not ask for.
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(pooler.poolers.decide(SERVER, &asked(95..175, 198)), Decision::Own);
}

#[test]
fn an_answer_that_passed_unseen_is_not_the_poolers() {
    let prepared = Asked {
        request: 0..20,
        response_to: Some(66),
        began: 0,
        simple: false,
        last: true,
    };
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 40, *b"P\0\0\0\x27name\0select");
    pooler.nothing(A);
    pooler.send(SERVER, OWN, 20, *b"B\0\0\0\x13\0PGBOUNCER_");
    // The answer, and that A got it.
    pooler.order += 2;
    for (cookie, direction) in [(SERVER, Direction::Received), (A, Direction::Sent)] {
        pooler.counts.entry(cookie).or_default()[direction as usize] += 66;
    }
    for _ in 0..2 {
        pooler.receive(A, BUFFERS[0], 15, QUERY);
        pooler.send(SERVER, BUFFERS[0], 15, QUERY);
        pooler.answer(A, BUFFERS[1]);
    }
    assert_eq!(candidates(pooler.poolers.decide(SERVER, &prepared)), [A]);
    assert_eq!(pooler.ask(35..50, 198), of(A, 55..70, By::Both));
}

#[test]
fn the_only_client_of_a_process_is_whose_it_is() {
    let mut pooler = Pooler::new(Kind::Pgpool);
    pooler.poolers.handle_close(B);
    pooler.poolers.handle_close(C);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, OWN, 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.send(A, OWN, 66, ANSWER);
    assert_eq!(pooler.ask(0..15, 66), of(A, 0..0, By::Sole));
    // What it sets up for the client while that logs in; then it greets the client.
    pooler.receive(A, BUFFERS[0], 60, *b"\0\0\0\x3c\0\x03\0\0user\0app");
    pooler.send(SERVER, OWN, 31, SET);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.send(A, OWN, 400, *b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16a\0");
    pooler.nothing(SERVER);
    assert_eq!(candidates(pooler.ask(15..46, 132)), [A]);
    // The same again, which the client did not say twice.
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    for from in [46, 61] {
        pooler.send(SERVER, OWN, 15, QUERY);
        pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
        pooler.send(A, OWN, 66, ANSWER);
        let is_the_clients =
            pooler.ask(from..from + 15, 132 + (from - 46) / 15 * 66 + 66) == of(A, 0..0, By::Sole);
        assert_eq!(is_the_clients, from == 46);
    }
}

#[test]
fn what_was_not_seen_is_not_guessed() {
    // A call was lost: the request may lie where something else was received before.
    let mut pooler = Pooler::new(Kind::PgBouncer);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.order += 1;
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.receive(SERVER, BUFFERS[1], 66, ANSWER);
    pooler.nothing(B);
    assert_eq!(candidates(pooler.ask(0..15, 66)), NONE);
    // The doubt goes with an answer that the client got.
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(SERVER, BUFFERS[0], 15, QUERY);
    pooler.answer(A, BUFFERS[1]);
    assert_eq!(pooler.ask(15..30, 132), of(A, 15..30, By::Both));
    pooler.nothing(A);
    pooler.send(SERVER, OWN, 15, SET);
    pooler.receive(SERVER, BUFFERS[1], 39, [0; FRONT]);
    pooler.nothing(B);
    assert_eq!(pooler.ask(30..45, 171), Decision::Own);
    // Bytes that passed unseen.
    pooler.counts.entry(SERVER).or_default()[1] += 15;
    pooler.send(SERVER, OWN, 15, SET);
    pooler.receive(SERVER, BUFFERS[1], 39, [0; FRONT]);
    pooler.nothing(B);
    assert_eq!(candidates(pooler.ask(45..60, 210)), NONE);
    assert_eq!(candidates(pooler.ask(0..15, 66)), NONE, "forgotten");
    pooler.poolers.handle_exit(PROCESS);
    assert_eq!(candidates(pooler.ask(75..90, 300)), NONE);
}

#[test]
fn a_connection_older_than_the_tap_counts_where_the_kernel_counts() {
    let mut pooler = Pooler::new(Kind::PgBouncer);
    let older = 10;
    pooler
        .poolers
        .handle_socket(&socket(older, SOCKET_MID_STREAM), End::Server);
    pooler.counts.insert(older, [5_000, 700]);
    pooler.receive(A, BUFFERS[0], 15, QUERY);
    pooler.send(older, BUFFERS[0], 15, QUERY);
    pooler.receive(older, BUFFERS[0], 66, ANSWER);
    pooler.send(A, BUFFERS[0], 66, ANSWER);
    let ask = |request, response_to| Asked {
        request,
        response_to: Some(response_to),
        began: 0,
        simple: true,
        last: false,
    };
    assert_eq!(
        candidates(pooler.poolers.decide(older, &ask(680..700, 5_000))),
        NONE
    );
    assert_eq!(
        pooler.poolers.decide(older, &ask(700..715, 5_066)),
        of(A, 0..15, By::Both)
    );
}
