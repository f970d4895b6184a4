//! What the agent's knowledge of a large host takes, and how fast a socket's owner gets its name from it.
//!
//! The facts go in as the kernel's do: forks and execs, one by one, into the structures that the agent keeps them in; what `/proc`
//! and the runtimes would say is answered by a thread of ours. Memory is what the whole process takes more than before, the
//! allocator's share included. A look-up is all that the tap does when a server uses a new connection: from the pair of
//! addresses to its owner, the owner's process, and the attribution with its evidence. Every name is compared with the one
//! that it has to be. What follows once a session, the record's message with its words, is measured for itself.

mod host;

use std::ops::RangeFrom;

use anyhow::{Context as _, ensure};
use attribution::{Attribution, Confidence, Host, attribute};
use ebpf_abi::{FactKind, OwnerFact, PeerProcess, SocketFact, SocketRole, UNIX_PATH_MAX};
use nix::{
    sys::time::{TimeSpec, TimeValLike as _},
    time::{ClockId, clock_gettime},
};
use pgwitness_agent::{facts::connections::Connections, record};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::json;

use self::host::{Client, Known};
use crate::figures::{confidence, machine, median, rounded};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

/// Processes, and containers that most of them are in: a node of the largest size.
const PROCESSES: usize = 50_000;
const PODS: usize = 5_000;

/// What they may take, and a look-up.
const RSS_MAX_MIB: f64 = 32.0;
const LOOKUP_MAX_NS: f64 = 1000.0;

/// Connections that wait in the rings together.
const AT_A_TIME: usize = 64;

/// How often every process is looked up.
const ROUNDS: usize = 21;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (processes, pods, rounds) = match args.quick {
        true => (PROCESSES / 10, PODS / 10, 3),
        false => (PROCESSES, PODS, ROUNDS),
    };
    eprintln!("{}", machine());
    let mut known = Known::new()?;
    // What every agent takes once: buffers of the channel, both threads' heaps.
    known.warm_up();
    let before = rss_mib()?;
    let mut clients = known.fill(processes, pods);
    let rss = rss_mib()? - before;
    ensure!(
        known.processes.known() >= processes,
        "only {} processes are known",
        known.processes.known()
    );
    eprintln!("{processes} processes in {pods} pods and on the host: {rss:.1} MiB");
    let host = Host {
        trust_domain: "pgwitness.local".to_owned(),
        name: "node1".to_owned(),
    };
    let mut connections = Connections::new(known.broker());
    let mut random = StdRng::seed_from_u64(7);
    let mut numbers = 1..;
    let wrong = check(&mut connections, &mut known, &host, &clients, &mut numbers);
    let (mut opened, mut times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        clients.shuffle(&mut random);
        let of_round = round(&mut connections, &mut known, &host, &clients, &mut numbers)?;
        opened.push(of_round.opened);
        times.push(of_round.looked_up);
    }
    let words = words(&mut connections, &mut known, &host, &clients, &mut numbers)?;
    let lookup = median(&times);
    let [low, high] = confidence(&times);
    let result = json!({
        "lookup_ns": rounded(lookup, 0),
        "lookup_ns_ci95": [rounded(low, 0), rounded(high, 0)],
        "lookup_ns_fastest_slowest": [
            rounded(times.iter().copied().fold(f64::MAX, f64::min), 0),
            rounded(times.iter().copied().fold(f64::MIN, f64::max), 0),
        ],
        "owner_ns": rounded(median(&opened), 0),
        "words_ns": rounded(words, 0),
        "processes": processes,
        "pods": pods,
        "agent_rss_mib": rounded(rss, 1),
        "bytes_per_process": rounded(rss * MIB / processes as f64, 0),
        "wrong": wrong,
        "rounds": rounds,
        "quick": args.quick,
        "machine": machine(),
        "unavailable": {"collector_rss_mib": "not measured: what the collector's join keeps of connections is not part of this command"},
    });
    if args.json {
        println!("{result}");
    } else {
        println!(
            "{processes} processes, {pods} pods: {rss:.1} MiB resident ({:.0} bytes a process)\n\
             a look-up: {lookup:.0} ns of processor time, median of {rounds} rounds (95 %: {low:.0} to {high:.0}); wrong names: {wrong}\n\
             and before, to keep who opened the connection: {:.0} ns; behind, to put it into the record's words: {words:.0} ns\n\
             not measured: the collector's memory",
            rss * MIB / processes as f64,
            median(&opened)
        );
    }
    ensure!(wrong == 0, "{wrong} look-ups gave a wrong name");
    ensure!(
        rss <= RSS_MAX_MIB,
        "the facts take {rss:.1} MiB, more than {RSS_MAX_MIB} MiB"
    );
    ensure!(
        lookup < LOOKUP_MAX_NS,
        "a look-up takes {lookup:.0} ns, {LOOKUP_MAX_NS} ns or more"
    );
    Ok(())
}

/// Has a thousand clients connect, so many times; how many connections that were.
pub(crate) fn look_up(times: u32) -> anyhow::Result<u64> {
    let mut known = Known::new()?;
    let clients = known.fill(1000, 100);
    let host = Host {
        trust_domain: "pgwitness.local".to_owned(),
        name: "node1".to_owned(),
    };
    let mut connections = Connections::new(known.broker());
    let mut numbers = 1..;
    for _ in 0..times {
        round(&mut connections, &mut known, &host, &clients, &mut numbers)?;
    }
    Ok(clients.len() as u64 * u64::from(times))
}

/// Looks every client up once, as for its first connection, and counts names that are not what they have to be.
fn check(
    connections: &mut Connections,
    known: &mut Known,
    host: &Host,
    clients: &[Client],
    numbers: &mut RangeFrom<u32>,
) -> usize {
    let mut wrong = 0;
    for (client, n) in clients.iter().zip(numbers) {
        let found = looked_up(connections, known, host, client, n);
        let right = found.principal.id == client.principal(host) && found.confidence == Confidence::Observed;
        if !right && wrong == 0 {
            eprintln!(
                "{} is taken for {}: {}",
                client.principal(host),
                found.principal.id,
                found.reason
            );
        }
        wrong += usize::from(!right);
    }
    wrong
}

fn looked_up(
    connections: &mut Connections,
    known: &mut Known,
    host: &Host,
    client: &Client,
    n: u32,
) -> Attribution {
    let (owner, socket) = ends(client, n);
    let process = known.processes.find(owner.tgid, owner.start);
    connections.opened_by(&owner, process);
    let session = tap_core::session_facts(&socket);
    let peer = connections.peer(&socket, &session, &mut known.processes, &mut known.cgroups);
    attribute(host, &peer)
}

/// Nanoseconds of processor time that it takes to put an answer into the record's message.
fn words(
    connections: &mut Connections,
    known: &mut Known,
    host: &Host,
    clients: &[Client],
    numbers: &mut RangeFrom<u32>,
) -> anyhow::Result<f64> {
    let mut spent = 0;
    for clients in clients.chunks(AT_A_TIME) {
        let answers: Vec<_> = clients
            .iter()
            .zip(&mut *numbers)
            .map(|(client, n)| looked_up(connections, known, host, client, n))
            .collect();
        let start = processor_time()?;
        for answer in &answers {
            std::hint::black_box(record::attribution(answer));
        }
        spent += (processor_time()? - start).num_nanoseconds();
    }
    Ok(spent as f64 / clients.len().max(1) as f64)
}

/// Nanoseconds of processor time that the tap takes for a connection: when its client opens it, and when the server uses it.
struct Times {
    opened: f64,
    looked_up: f64,
}

/// Has every client connect, some at a time, as they wait in the rings.
fn round(
    connections: &mut Connections,
    known: &mut Known,
    host: &Host,
    clients: &[Client],
    numbers: &mut RangeFrom<u32>,
) -> anyhow::Result<Times> {
    let (mut opened, mut looked_up) = (0, 0);
    for clients in clients.chunks(AT_A_TIME) {
        let ends: Vec<_> = clients
            .iter()
            .zip(&mut *numbers)
            .map(|(client, n)| {
                let (owner, socket) = ends(client, n);
                (owner, socket, tap_core::session_facts(&socket))
            })
            .collect();
        let start = processor_time()?;
        for (owner, ..) in &ends {
            let process = known.processes.find(owner.tgid, owner.start);
            connections.opened_by(owner, process);
        }
        let between = processor_time()?;
        for (_, socket, session) in &ends {
            let peer = connections.peer(socket, session, &mut known.processes, &mut known.cgroups);
            std::hint::black_box(attribute(host, &peer));
        }
        opened += (between - start).num_nanoseconds();
        looked_up += (processor_time()? - between).num_nanoseconds();
    }
    let count = clients.len().max(1) as f64;
    Ok(Times {
        opened: opened as f64 / count,
        looked_up: looked_up as f64 / count,
    })
}

/// Both ends of a client's connection number `n`; ports are used again, first sequence numbers are not.
fn ends(client: &Client, n: u32) -> (OwnerFact, SocketFact) {
    let [a, b, c, d] = (0x0a00_0001 + n / 50_000).to_be_bytes();
    let mut local = [0; 16];
    local[..4].copy_from_slice(&[a, b, c, d]);
    let mut remote = [0; 16];
    remote[..4].copy_from_slice(&[10, 255, 0, 1]);
    let port = 10_000 + (n % 50_000) as u16;
    let owner = OwnerFact {
        kind: FactKind::Owner as u32,
        tgid: client.pid,
        at: client.start + 1,
        start: client.start,
        cgroup_id: client.cgroup_id,
        uid: client.uid,
        netns: 1,
        family: nix::libc::AF_INET as u16,
        local_port: port,
        remote_port: 5432,
        sequence: n,
        answer: u32::MAX - n,
        local,
        remote,
        ..OwnerFact::default()
    };
    let socket = SocketFact {
        kind: FactKind::Socket as u32,
        tgid: 1,
        at: client.start + 2,
        cookie: u64::from(n) + 1,
        server: 1,
        netns: 1,
        family: nix::libc::AF_INET as u16,
        local_port: 5432,
        remote_port: port,
        role: SocketRole::Accepted as u8,
        flags: 0,
        local: remote,
        remote: local,
        peer: PeerProcess::default(),
        sequence: n,
        answer: u32::MAX - n,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    };
    (owner, socket)
}

/// What this thread has used: other work on the machine makes it slower, but is not counted.
fn processor_time() -> anyhow::Result<TimeSpec> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?)
}

/// Memory of this process that is in the machine's (`VmRSS`, proc(5)).
fn rss_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<f64>()
            .ok()
    });
    Ok(kib.context("the kernel does not say what this process takes")? / 1024.0)
}

const MIB: f64 = 1_048_576.0;
