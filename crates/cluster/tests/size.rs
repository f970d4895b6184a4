//! What 100,000 pods cost.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails by panicking")]

use std::alloc::System;

use cluster::{Controller, Directory, Middle, Seen, Sighting, Uid};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn uid(number: u32, kind: u32) -> Uid {
    format!("{number:08x}-{kind:04x}-4d5e-8f90-a1b2c3d4e5f6")
        .parse()
        .expect("a uid")
}

/// A pod of a deployment of 20 with labels as charts give them, two addresses, and names of usual length.
fn sighting(number: u32) -> Sighting {
    let (app, node) = (number / 20, number / 100);
    let label = |name: &str, value: String| (format!("app.kubernetes.io/{name}"), value);
    let [_, high, mid, low] = number.to_be_bytes();
    Sighting {
        uid: uid(number, 0),
        namespace: format!("team-{}", app / 50),
        name: format!("orders-service-{app}-7d9f5c6b8-x{number:05}"),
        service_account: format!("orders-service-{app}"),
        controller: Some(Controller {
            kind: "ReplicaSet".to_owned(),
            name: format!("orders-service-{app}-7d9f5c6b8"),
            uid: Some(uid(app, 1)),
        }),
        node: format!("ip-10-0-{node}.eu-central-1.compute.internal"),
        labels: vec![
            label("name", format!("orders-service-{app}")),
            label("instance", format!("orders-service-{app}-production")),
            label("version", "1.27.3".to_owned()),
            label("managed-by", "Helm".to_owned()),
            ("pod-template-hash".to_owned(), format!("7d9f5c{app:04}")),
        ],
        annotations: vec![("example.org/owner".to_owned(), format!("team-{}", app / 50))],
        addresses: vec![
            [10, high, mid, low].into(),
            [
                0xfd00,
                0,
                0,
                0,
                0,
                0,
                u16::from(high),
                u16::from_be_bytes([mid, low]),
            ]
            .into(),
        ],
        host_network: false,
        started: Some(1_000_000_000),
        running: Some(1_000_000_000),
        ended: None,
    }
}

#[test]
fn a_hundred_thousand_pods_take_less_than_200_mib() {
    let before = ALLOCATED.stats();
    let mut directory = Directory::new(3_600_000_000_000);
    directory.begin();
    for number in 0..100_000 {
        assert_eq!(directory.see(&sighting(number), true, 2_000_000_000), Seen::Known);
    }
    directory.finish(2_000_000_000);
    for app in 0..5_000 {
        let owner = format!("orders-service-{app}");
        let owner = Some(("Deployment", owner.as_str()));
        assert!(directory.see_owner(Middle::ReplicaSet, uid(app, 1), owner));
    }
    let after = ALLOCATED.stats();
    let allocated = after.bytes_allocated - before.bytes_allocated;
    let freed = after.bytes_deallocated - before.bytes_deallocated;
    let mib = (allocated - freed) >> 20;
    println!("{mib} MiB");
    assert!(mib < 200, "{mib} MiB");
    assert_eq!(directory.len(), 100_000);
    let pod = directory.by_uid(&uid(77_777, 0)).expect("a pod");
    assert!(directory.chain(pod).is_whole);
}
