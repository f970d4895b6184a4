//! What the join costs.

use super::*;

/// By hand.
#[test]
#[ignore = "a measurement"]
fn what_it_costs() {
    let mut place = Place::new();
    let statement = |seq: u64| v1::Event {
        body: Some(event::Body::Query(v1::Query::default())),
        ..session(seq, &format!("b-{}", seq % 100), CLIENT, Some(seq % 100))
    };
    let decoded = Records::of("db", 1, (1..=10_000).map(statement).collect());
    // As a batch has them: a hundred parties, which its events share.
    let parties: Vec<_> = decoded
        .records
        .iter()
        .take(100)
        .map(|record| record.party.clone())
        .collect();
    let mut shared = decoded;
    for (nth, record) in shared.records.iter_mut().enumerate() {
        record.party = parties[nth % 100].clone();
    }
    let started = std::time::Instant::now();
    for entry in 0..100 {
        place.joiner.see(entry, &shared);
    }
    println!("a statement: {} ns", started.elapsed().as_nanos() / 1_000_000);
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    place.entries = 100;
    let client = |n: u64| format!("10.{}.{}.{}:{}", n / 62_500, n / 250 % 250, n % 250, 40_000);
    for n in 0..200_u64 {
        let numbers = || n * 1000 + 1000..n * 1000 + 2000;
        place.see(
            "db",
            numbers()
                .map(|n| session(n, &format!("b-{n}"), &client(n), Some(n)))
                .collect(),
        );
        place.see(
            "web",
            numbers()
                .map(|n| flow(n, "shop", &client(n), SERVER, Some(n + 1_000_000)))
                .collect(),
        );
    }
    println!(
        "200,000 sessions and 200,000 connections: {} MiB",
        (resident() - before) >> 20
    );
    let started = std::time::Instant::now();
    let decided = place.joiner.decide(AT).len();
    println!(
        "decided about all in {:?}: {decided} amendments",
        started.elapsed()
    );
}

/// By hand.
#[test]
#[ignore = "a measurement"]
fn what_a_lease_costs() {
    use super::leases::{Bouncer, client};
    let mut place = Place::new();
    place.see("pool", (1..=50).map(|n| client(n, n)).collect());
    let (mut seen, mut decided, mut bytes, mut portions, mut seq) = (0, 0, 0, 0, 0);
    for second in 0..20_u64 {
        for connection in 0..20_u64 {
            let mut bouncer = Bouncer::new(1 + second * 20 + connection);
            for n in 0..500 {
                bouncer.lease(Some((n * 7 + connection) % 50 + 1));
            }
            let statements = Records::of("db", 1, bouncer.statements(0, seq + 1));
            let event = bouncer.told(51 + second * 20 + connection);
            portions += event.encoded_len();
            let portion = Records::of("pool", 1, vec![event]);
            let started = std::time::Instant::now();
            place.joiner.see_at(place.entries, &statements, place.now);
            place.joiner.see_at(place.entries + 1, &portion, place.now);
            seen += started.elapsed().as_nanos();
            place.entries += 2;
            seq += 500;
        }
        place.now += 1_000_000_000;
        let started = std::time::Instant::now();
        let events = place.joiner.decide(place.now);
        decided += started.elapsed().as_nanos();
        bytes += events.iter().map(v1::Event::encoded_len).sum::<usize>();
        assert_eq!(events.len(), 50);
    }
    let leases = u128::from(seq);
    println!(
        "{leases} leases, 10,000 a second: {} ns to take one in, {} ns to decide it",
        seen / leases,
        decided / leases
    );
    println!(
        "{} bytes each of the pooler's, {} of amendments",
        portions / seq as usize,
        bytes / seq as usize
    );
}
