//! A pooler's socket calls through the tracker, and nothing else.
//!
//! The calls are made up after what strace shows of PgBouncer 1.18 in transaction mode: 200 clients, five servers, always more
//! requests than servers, all of them the same; a buffer belongs to a connection while something is in it, the one that was
//! freed last is taken first. Each decision is checked: a tracker that decides nothing would be fast.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use ebpf_abi::{
    Channel, Direction, FRONT, FactKind, PeerProcess, SOCKET_POOLER, SocketFact, SocketRole, TRANSFER_NONE,
    Transfer, UNIX_PATH_MAX,
};
use tap_core::lease::{Asked, Decision, End, Kind, Poolers};

/// Nanoseconds of processor time a statement, one value a round.
pub(super) struct Tracking {
    pub(super) nanoseconds: Vec<f64>,
    pub(super) statements: usize,
    pub(super) transfers: usize,
}

pub(super) fn measure(rounds: usize, quick: bool) -> Result<Tracking> {
    let statements = if quick { 20_000 } else { 200_000 };
    let tape = Tape::record(statements);
    let mut nanoseconds = Vec::new();
    // The first is not counted: it fills caches.
    for round in 0..=rounds {
        let mut poolers = tape.poolers();
        let begun = processor_ns()?;
        let right = tape.play(&mut poolers);
        let used = processor_ns()?.saturating_sub(begun);
        ensure!(
            right == tape.clients.len(),
            "{right} of {} were decided rightly",
            tape.clients.len()
        );
        if round > 0 {
            nanoseconds.push(used as f64 / right as f64);
        }
    }
    let transfers = tape
        .steps
        .iter()
        .filter(|step| matches!(step, Step::Call(_)))
        .count();
    Ok(Tracking {
        nanoseconds,
        statements,
        transfers,
    })
}

enum Step {
    Call(Transfer),
    Ask(u64, Asked),
}

struct Tape {
    steps: Vec<Step>,
    /// Of each question, in their order.
    clients: Vec<u64>,
}

/// What is recorded, while it is.
struct Pooler {
    tape: Tape,
    order: u32,
    at: u64,
    counts: std::collections::HashMap<u64, [u64; 2]>,
    free: Vec<u64>,
}

impl Tape {
    fn record(statements: usize) -> Self {
        let mut pooler = Pooler {
            tape: Self {
                steps: Vec::new(),
                clients: Vec::new(),
            },
            order: 0,
            at: 1_000_000,
            counts: std::collections::HashMap::new(),
            free: (0..CLIENTS + SERVERS)
                .map(|number| 0x7f00_0000 + number * 0x1010)
                .collect(),
        };
        let mut idle: Vec<u64> = (0..SERVERS).map(|server| FIRST_SERVER + server).collect();
        let mut busy: VecDeque<(u64, u64)> = VecDeque::new();
        let mut waiting: VecDeque<(u64, u64)> = VecDeque::new();
        let mut next = 0;
        while pooler.tape.clients.len() < statements {
            // Clients ask as long as not all of them wait.
            while busy.len() + waiting.len() < (CLIENTS / 2) as usize {
                let client = FIRST_CLIENT + next % CLIENTS;
                next += 1;
                if busy.iter().chain(&waiting).any(|(one, _)| *one == client) {
                    continue;
                }
                let buffer = pooler.free.pop().unwrap_or_default();
                pooler.call(client, Direction::Received, buffer, REQUEST, 0);
                match idle.pop() {
                    Some(server) => {
                        pooler.call(server, Direction::Sent, buffer, REQUEST, 0);
                        pooler.free.push(buffer);
                        busy.push_back((client, server));
                    }
                    None => waiting.push_back((client, buffer)),
                }
            }
            let Some((client, server)) = busy.pop_front() else {
                break;
            };
            pooler.answer(client, server);
            match waiting.pop_front() {
                Some((client, buffer)) => {
                    pooler.call(
                        client,
                        Direction::Received,
                        buffer + u64::from(REQUEST),
                        0,
                        TRANSFER_NONE,
                    );
                    pooler.call(server, Direction::Sent, buffer, REQUEST, 0);
                    pooler.free.push(buffer);
                    busy.push_back((client, server));
                }
                None => idle.push(server),
            }
        }
        pooler.tape
    }

    fn poolers(&self) -> Poolers {
        let mut poolers = Poolers::new();
        poolers.handle_program(PROCESS, Kind::PgBouncer);
        for client in 0..CLIENTS {
            poolers.handle_socket(&socket(FIRST_CLIENT + client, SocketRole::Accepted), End::Client);
        }
        for server in 0..SERVERS {
            poolers.handle_socket(&socket(FIRST_SERVER + server, SocketRole::Connected), End::Server);
        }
        poolers
    }

    /// How many statements went to the right client.
    fn play(&self, poolers: &mut Poolers) -> usize {
        let mut clients = self.clients.iter();
        let mut right = 0;
        for step in &self.steps {
            match step {
                Step::Call(transfer) => poolers.handle_transfer(transfer),
                Step::Ask(server, asked) => {
                    let decision = poolers.decide(*server, asked);
                    let client = clients.next();
                    let is_right =
                        matches!(decision, Decision::Client(leased) if Some(&leased.client) == client);
                    right += usize::from(is_right);
                }
            }
        }
        right
    }
}

impl Pooler {
    /// The server's answer comes, and goes to the client.
    fn answer(&mut self, client: u64, server: u64) {
        let buffer = self.free.pop().unwrap_or_default();
        let began = self.at;
        self.call(server, Direction::Received, buffer, ANSWER, 0);
        self.call(client, Direction::Sent, buffer, ANSWER, 0);
        self.free.push(buffer);
        let [received, sent] = self.counts.get(&server).copied().unwrap_or_default();
        self.tape.steps.push(Step::Ask(
            server,
            Asked {
                request: sent - u64::from(REQUEST)..sent,
                response_to: Some(received),
                began,
                simple: true,
                last: false,
            },
        ));
        self.tape.clients.push(client);
    }

    fn call(&mut self, cookie: u64, direction: Direction, buffer: u64, length: u32, flags: u8) {
        self.order += 1;
        self.at += 1_000;
        let [received, sent] = self.counts.entry(cookie).or_default();
        let count = match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        };
        let front = match length {
            REQUEST => FRONT_OF_REQUEST,
            ANSWER => FRONT_OF_ANSWER,
            _ => [0; FRONT],
        };
        self.tape.steps.push(Step::Call(Transfer {
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
        }));
        *count += u64::from(length);
    }
}

fn socket(cookie: u64, role: SocketRole) -> SocketFact {
    SocketFact {
        kind: FactKind::Socket as u32,
        tgid: PROCESS,
        at: 0,
        cookie,
        server: 0,
        netns: 1,
        family: 2,
        local_port: 6432,
        remote_port: 40_000,
        role: role as u8,
        flags: SOCKET_POOLER,
        local: [0; 16],
        remote: [0; 16],
        peer: PeerProcess::default(),
        sequence: 1,
        answer: 1,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    }
}

/// Nanoseconds that this thread has run (Documentation/scheduler/sched-stats.rst).
fn processor_ns() -> Result<u64> {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").context("the thread's processor time")?;
    let first = text.split(' ').next().context("schedstat is empty")?;
    first.parse().context("schedstat")
}

const PROCESS: u32 = 7_119;
const CLIENTS: u64 = 200;
const SERVERS: u64 = 5;
const FIRST_CLIENT: u64 = 1_000;
const FIRST_SERVER: u64 = 10;
const REQUEST: u32 = 37;
const ANSWER: u32 = 82;
const FRONT_OF_REQUEST: [u8; FRONT] = *b"Q\0\0\0\x24SELECT v FR";
const FRONT_OF_ANSWER: [u8; FRONT] = *b"T\0\0\0\x1a\0\x01v\0\0\0\x40\x0f\0\x02\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_of_the_tape_is_decided_rightly() {
        let tape = Tape::record(3_000);
        assert_eq!(tape.play(&mut tape.poolers()), tape.clients.len());
        assert!(tape.clients.len() >= 3_000);
    }
}
