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
