//! Names of pods: late, joined, contested, by address, forged, and of names that are used again.

use ::cluster::{Controller, Directory, Middle, Sighting};

use super::*;
use crate::config::KubernetesConfig;

const UID: &str = "00000001-1b2c-4d5e-8f90-a1b2c3d4e5f6";
const OTHER: &str = "00000002-1b2c-4d5e-8f90-a1b2c3d4e5f6";
const SECOND: u64 = 1_000_000_000;

fn cluster() -> Arc<Cluster> {
    let config = KubernetesConfig {
        in_cluster: true,
        trust_domain: "example.org".to_owned(),
        pod_networks: vec!["10.0.0.0/16".parse().unwrap()],
        ..KubernetesConfig::default()
    };
    let cluster = Cluster::new(config, Arc::default());
    cluster.hear_at(AT - 100 * SECOND, |directory, now| {
        directory.begin();
        directory.finish(now);
    });
    cluster.see_clock("db", AT + SECOND, AT);
    Arc::new(cluster)
}

fn place(cluster: &Arc<Cluster>) -> Place {
    let mut place = Place::new();
    let joiner = Joiner::new(OWN, Arc::clone(&place.amendments), Arc::clone(&place.metrics));
    place.joiner = joiner.naming_pods(Arc::clone(cluster));
    place
}

/// What the API server says of a pod that nobody owns.
fn sighting(uid: &str, account: &str, address: &str) -> Sighting {
    Sighting {
        uid: uid.parse().unwrap(),
        namespace: "shop".to_owned(),
        name: "orders-0".to_owned(),
        service_account: account.to_owned(),
        controller: None,
        node: "n1".to_owned(),
        labels: Vec::new(),
        annotations: Vec::new(),
        addresses: vec![address.parse().unwrap()],
        host_network: false,
        started: Some(AT - 50 * SECOND),
        running: Some(AT - 48 * SECOND),
        ended: None,
    }
}

/// The API server tells of a pod.
fn hear(cluster: &Cluster, uid: &str, account: &str, address: &str) {
    let sighting = sighting(uid, account, address);
    cluster.hear_at(AT, |directory, now| {
        directory.see(&sighting, false, now);
    });
}

fn contained(uid: &str) -> v1::Attribution {
    v1::Attribution {
        method: "tcp-owner".to_owned(),
        pod: Some(v1::Pod {
            uid: uid.to_owned(),
            ..Default::default()
        }),
        container: Some(v1::Container {
            id: format!("container-{uid}"),
            ..Default::default()
        }),
        process: Some(v1::Process::default()),
        ..attribution(
            &format!("spiffe://td/host/n1/container/container-{uid}"),
            PrincipalKind::Container,
            Confidence::Observed,
        )
    }
}

/// A session that its own host found to be a container's.
fn own(seq: u64, id: &str, uid: &str) -> v1::Event {
    v1::Event {
        attribution: Some(contained(uid)),
        ..session(seq, id, CLIENT, None)
    }
}

/// A statement that a pooler of the same host passed on for this client's session.
fn pooled(seq: u64, id: &str, client: &str, uid: &str) -> v1::Event {
    let mut recorded = contained(uid);
    let hop = v1::Hop {
        role: "pooler".to_owned(),
        session: client.to_owned(),
        client_confidence: recorded.confidence,
        client_method: std::mem::replace(&mut recorded.method, attribution::LEASE.to_owned()),
        ..Default::default()
    };
    recorded.confidence = Confidence::Joined.into();
    recorded.evidence.push("a pooler passed it on".to_owned());
    recorded.hops.push(hop);
    v1::Event {
        attribution: Some(recorded),
        ..session(seq, id, CLIENT, None)
    }
}

fn remote(seq: u64, id: &str) -> v1::Event {
    let mut event = session(seq, id, CLIENT, Some(77));
    if let Some(attribution) = &mut event.attribution {
        attribution.method = "address".to_owned();
    }
    event
}

const ORDERS: &str = "spiffe://example.org/ns/shop/sa/orders";

/// The principals that are given, however many batches that takes.
fn names(place: &mut Place) -> Vec<String> {
    (0..4).flat_map(|_| place.names()).collect()
}

#[test]
fn a_pod_may_be_told_of_before_its_session_and_after() {
    for late in [false, true] {
        let cluster = cluster();
        let mut place = place(&cluster);
        if late {
            place.see("db", vec![own(1, "b-1", UID)]);
            assert_eq!(names(&mut place), [""; 0]);
            hear(&cluster, UID, "orders", "10.0.0.5");
        } else {
            hear(&cluster, UID, "orders", "10.0.0.5");
            place.see("db", vec![own(1, "b-1", UID)]);
        }
        assert_eq!(names(&mut place), [ORDERS], "late: {late}");
        place.see("db", vec![own(2, "b-1", UID)]);
        assert_eq!(names(&mut place), [""; 0], "once");
        // Another session of the pod rests on the same word.
        let before = place.said;
        place.see("db", vec![own(3, "b-2", UID)]);
        assert_eq!(names(&mut place), [ORDERS]);
        assert_eq!(place.said, before + 1);
    }
}

#[test]
fn a_client_of_which_only_a_pooler_tells_gets_the_name_of_its_pod() {
    let event = pooled(1, "s-1", "c-1", UID);
    let recorded = event.attribution.clone().unwrap();
    let client = attribution::passed_on(&recorded).unwrap();
    assert_eq!(
        (&client.method, &client.hops),
        (&contained(UID).method, &Vec::new())
    );
    let shown = attribution::through(&recorded, &client).unwrap();
    assert_eq!(
        (shown.confidence, shown.evidence, shown.hops),
        (recorded.confidence, recorded.evidence, recorded.hops)
    );

    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    place.see("db", vec![event, pooled(2, "s-2", "c-1", UID)]);
    assert_eq!(names(&mut place), [ORDERS], "once for all of its statements");
}

/// All clients of the pooler in front come to the other one in one session.
#[test]
fn what_a_pooler_in_front_of_another_says_itself_names_nobody_behind_it() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "bouncer", "10.0.0.5");
    let mut event = pooled(1, "s-1", "c-2", UID);
    for hop in event.attribution.iter_mut().flat_map(|own| &mut own.hops) {
        attribution::POOLER.clone_into(&mut hop.client_method);
    }
    place.see("db", vec![event]);
    assert_eq!(names(&mut place), [""; 0]);
}

#[test]
fn a_pod_waits_for_its_node() {
    let cluster = cluster();
    let mut place = place(&cluster);
    place.see("db", vec![own(1, "b-1", UID)]);
    let mut pod = sighting(UID, "orders", "10.0.0.5");
    let node = std::mem::take(&mut pod.node);
    cluster.hear_at(AT, |directory, now| {
        directory.see(&pod, false, now);
    });
    assert_eq!(names(&mut place), [""; 0], "it was not given to a node yet");
    pod.node = node;
    cluster.hear_at(AT, |directory, now| {
        directory.see(&pod, false, now);
    });
    place.now += 2 * SECOND;
    assert_eq!(names(&mut place), [ORDERS]);
}

#[test]
fn a_pod_waits_for_its_owners_owner_however_long_the_server_was_silent() {
    let cluster = cluster();
    let mut place = place(&cluster);
    place.see("db", vec![own(1, "b-1", UID)]);
    place.now += 60 * SECOND;
    assert_eq!(names(&mut place), [""; 0]);
    let mut pod = sighting(UID, "orders", "10.0.0.5");
    pod.controller = Some(Controller {
        kind: "ReplicaSet".to_owned(),
        name: "orders-7d9f".to_owned(),
        uid: OTHER.parse().ok(),
    });
    cluster.hear_at(AT, |directory, now| {
        directory.see(&pod, false, now);
    });
    assert_eq!(names(&mut place), [""; 0], "the other watch is behind");
    cluster.hear_at(AT, |directory, _| {
        let above = Some(("Deployment", "orders"));
        directory.see_owner(Middle::ReplicaSet, OTHER.parse().unwrap(), above);
    });
    let told: Vec<_> = (0..4).flat_map(|_| place.told()).collect();
    let [(_, attribution)] = told.as_slice() else {
        panic!("{told:?}");
    };
    let owners = attribution.pod.iter().flat_map(|pod| &pod.owners);
    let kinds: Vec<&str> = owners.map(|owner| owner.kind.as_str()).collect();
    assert_eq!(kinds, ["ReplicaSet", "Deployment"]);
}

#[test]
fn a_name_rests_on_what_was_said_of_the_pod() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    place.see("db", vec![own(5, "b-1", UID)]);
    let told: Vec<_> = (0..4).flat_map(|_| place.told()).collect();
    let [(amendment, attribution)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(amendment.inputs, ["db-5", "collector-x-1"]);
    assert_eq!((&*amendment.r#match, amendment.join_version), ("pod-uid", 5));
    assert_eq!(attribution.confidence, i32::from(Confidence::Observed));
    assert_eq!(attribution.method, "tcp-owner");
    let pod = attribution.pod.as_ref().expect("the pod");
    assert_eq!((&*pod.name, &*pod.node), ("orders-0", "n1"));
}

#[test]
fn pods_of_one_name_are_never_mixed() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    place.see("db", vec![own(1, "b-1", UID), own(2, "b-2", OTHER)]);
    assert_eq!(names(&mut place), [ORDERS]);
    hear(&cluster, OTHER, "reports", "10.0.0.6");
    assert_eq!(names(&mut place), ["spiffe://example.org/ns/shop/sa/reports"]);
}

#[test]
fn a_uid_of_which_another_pod_is_told_names_nobody_any_more() {
    for forgotten in [false, true] {
        let cluster = cluster();
        let mut place = place(&cluster);
        hear(&cluster, UID, "orders", "10.0.0.5");
        place.see("db", vec![own(1, "b-1", UID)]);
        assert_eq!(names(&mut place), [ORDERS]);
        if forgotten {
            cluster.hear_at(AT, |directory, now| {
                directory.gone(UID.parse().unwrap(), now);
                directory.forget(now + 100_000 * SECOND);
            });
        }
        hear(&cluster, UID, "admin", "10.0.0.5");
        place.see("db", vec![own(2, "b-2", UID)]);
        assert_eq!(names(&mut place), [""; 0], "forgotten: {forgotten}");
    }
}

#[test]
fn a_joined_session_gets_the_name_and_loses_it_with_the_join() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.9.0.5");
    let of_pod = |seq, uid: &str| v1::Event {
        attribution: Some(contained(uid)),
        ..flow(seq, "x", CLIENT, SERVER, Some(77))
    };
    place.see("db", vec![remote(1, "b-1")]);
    place.see("n1", vec![of_pod(1, UID)]);
    let given = names(&mut place);
    assert_eq!(
        given,
        [contained(UID).principal, ORDERS.to_owned()],
        "first whose it is, then what that is called"
    );
    let standing = place.amendments.standing("db", "b-1").expect("a name");
    assert_eq!(standing.principal, ORDERS);
    assert_eq!(standing.confidence, i32::from(Confidence::Joined));
    // Another host lays claim to the connection.
    place.see("n2", vec![of_pod(1, OTHER)]);
    let given = names(&mut place);
    assert_eq!(given, ["spiffe://td/addr/10.0.0.5"]);
    let standing = place.amendments.standing("db", "b-1").expect("an amendment");
    assert_eq!(standing.principal, "spiffe://td/addr/10.0.0.5");
}

#[test]
fn an_address_counts_if_nobody_told_of_the_connection() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    place.see("db", vec![remote(1, "b-1")]);
    assert_eq!(names(&mut place), [""; 0], "it waits to be joined");
    place.now += 30 * SECOND;
    let told: Vec<_> = (0..4).flat_map(|_| place.told()).collect();
    let [(amendment, attribution)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        (&*amendment.r#match, &*attribution.method),
        ("pod-address", "pod-address")
    );
    assert_eq!(attribution.principal, ORDERS);
    assert_eq!(attribution.confidence, i32::from(Confidence::Inferred));
    // Whoever connected knows better, however late.
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(77))]);
    assert_eq!(names(&mut place), [unit("shop")]);
    let standing = place.amendments.standing("db", "b-1").expect("a name");
    assert_eq!(standing.principal, unit("shop"));
}

#[test]
fn an_address_is_no_name_of_statements_that_a_pooler_elsewhere_passed_on() {
    let cluster = cluster();
    let mut place = place(&cluster);
    cluster.see_clock("pool", AT, AT);
    hear(&cluster, UID, "orders", "10.0.0.5");
    let client = v1::Event {
        body: Some(event::Body::PoolerClient(v1::PoolerClient::default())),
        ..remote(1, "p-1")
    };
    place.see("pool", vec![client]);
    place.now += 30 * SECOND;
    assert_eq!(names(&mut place), [ORDERS]);
    let mut bouncer = leases::Bouncer::new(7);
    bouncer.lease(Some(1));
    place.see("pool", vec![bouncer.told(2)]);
    place.see("db", bouncer.statements(0, 1));
    assert_eq!(names(&mut place), ["spiffe://td/addr/10.0.0.5"]);
}

#[test]
fn an_address_does_not_count_where_two_hosts_claim_the_connection() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    place.see("web", vec![flow(1, "shop", CLIENT, SERVER, Some(77))]);
    place.see("evil", vec![flow(1, "other", CLIENT, SERVER, Some(77))]);
    place.see("db", vec![remote(1, "b-1")]);
    let address = "spiffe://td/addr/10.0.0.5";
    assert_eq!(names(&mut place), [address]);
    place.now += 30 * SECOND;
    assert_eq!(names(&mut place), [""; 0]);
    let standing = place.amendments.standing("db", "b-1").expect("an amendment");
    assert_eq!(standing.principal, address);
}

#[test]
fn while_the_api_server_is_silent_one_address_is_looked_up_for_all() {
    let cluster = cluster();
    let mut place = place(&cluster);
    cluster.hear_at(AT, Directory::interrupted);
    let joined = v1::Event {
        session: session(2, "b-2", "10.0.0.5:50001", Some(78)).session,
        ..remote(2, "b-2")
    };
    place.see("db", vec![remote(1, "b-1"), joined]);
    place.see("web", vec![flow(1, "shop", "10.0.0.5:50001", SERVER, Some(78))]);
    assert_eq!(names(&mut place), [unit("shop")]);
    place.now += 30 * SECOND;
    assert_eq!(names(&mut place), [""; 0]);
    assert_eq!(place.joiner.pods().waiting(), 2, "the second is not come to");
    let pod = sighting(UID, "orders", "10.0.0.5");
    cluster.hear_at(AT + 30 * SECOND, |directory, now| {
        directory.see(&pod, false, now);
    });
    assert_eq!(names(&mut place), [ORDERS]);
    assert_eq!(place.joiner.pods().waiting(), 0);
}

#[test]
fn what_is_no_uid_waits_for_nothing() {
    let cluster = cluster();
    let mut place = place(&cluster);
    place.see("db", vec![own(1, "b-1", &"0".repeat(10_000)), own(2, "b-2", UID)]);
    assert_eq!(names(&mut place), [""; 0]);
    assert_eq!(place.joiner.pods().waiting(), 1);
}

#[test]
fn an_address_counts_for_nobody_whose_clock_is_not_ours() {
    for off in [Some(5), None] {
        let cluster = cluster();
        let mut place = place(&cluster);
        hear(&cluster, UID, "orders", "10.0.0.5");
        let agent = if let Some(seconds) = off {
            cluster.see_clock("db", AT - seconds * SECOND, AT);
            "db"
        } else {
            "never-heard"
        };
        place.see(agent, vec![remote(1, "b-1")]);
        place.now += 30 * SECOND;
        assert_eq!(names(&mut place), [""; 0], "{off:?}");
    }
}

#[test]
fn an_address_that_two_pods_had_names_nobody() {
    let cluster = cluster();
    let mut place = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    hear(&cluster, OTHER, "reports", "10.0.0.5");
    place.see("db", vec![remote(1, "b-1")]);
    place.now += 30 * SECOND;
    assert_eq!(names(&mut place), [""; 0]);
}

#[test]
fn nobody_but_the_collector_says_what_a_pod_is() {
    let cluster = cluster();
    let mut place = place(&cluster);
    let forged = v1::Event {
        seq: 1,
        ts_start_ns: AT,
        body: Some(event::Body::KubernetesPod(v1::KubernetesPod {
            pod: Some(v1::Pod {
                uid: UID.to_owned(),
                name: "orders-0".to_owned(),
                namespace: "kube-system".to_owned(),
                service_account: "admin".to_owned(),
                ..Default::default()
            }),
            trust_domain: "example.org".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    place.see("evil", vec![forged]);
    place.see("db", vec![own(1, "b-1", UID)]);
    assert_eq!(names(&mut place), [""; 0]);
    assert!(place.metrics.encode().contains("ForeignAmendment\"} 1"));
}

#[test]
fn a_restart_names_nothing_twice() {
    let cluster = cluster();
    let mut before = place(&cluster);
    hear(&cluster, UID, "orders", "10.0.0.5");
    before.see("db", vec![own(1, "b-1", UID)]);
    assert_eq!(names(&mut before), [ORDERS]);
    let mut after = before.restarted();
    let joiner = Joiner::new(OWN, Arc::clone(&after.amendments), Arc::clone(&after.metrics));
    after.joiner = joiner.naming_pods(Arc::clone(&cluster));
    after.see("db", vec![own(2, "b-1", UID)]);
    assert_eq!(names(&mut after), [""; 0]);
}
