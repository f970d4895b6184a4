use ebpf_abi::{FactKind, PeerProcess, SocketRole, UNIX_PATH_MAX};

use super::*;
use crate::broker::in_a_thread;

const LOOPBACK: [u8; 16] = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The server's end of a connection from port 50000 of this host.
fn server_end(sequence: u32) -> SocketFact {
    SocketFact {
        kind: FactKind::Socket as u32,
        tgid: 10,
        at: 20,
        cookie: 30,
        server: 9,
        netns: 1,
        family: libc::AF_INET as u16,
        local_port: 5432,
        remote_port: 50_000,
        role: SocketRole::Accepted as u8,
        flags: 0,
        local: LOOPBACK,
        remote: LOOPBACK,
        peer: PeerProcess::default(),
        sequence,
        answer: 0,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    }
}

/// The client's end of the same ports, as process `tgid` opened it.
fn client_end(tgid: u32, sequence: u32) -> OwnerFact {
    OwnerFact {
        kind: FactKind::Owner as u32,
        tgid,
        at: 19,
        start: 5,
        cgroup_id: 0,
        uid: 0,
        netns: 1,
        family: libc::AF_INET as u16,
        local_port: 50_000,
        remote_port: 5432,
        reserved: 0,
        sequence,
        answer: 0,
        login_uid: u32::MAX,
        unused: 0,
        local: LOOPBACK,
        remote: LOOPBACK,
        comm: [0; 16],
    }
}

#[test]
fn the_first_sequence_number_tells_connections_of_the_same_ports_apart() {
    let broker = in_a_thread();
    let mut connections = Connections::new(broker.clone());
    // In two containers, say: the addresses are the same, and the ports happen to be.
    connections.opened(&client_end(100, 7_000));
    connections.opened(&client_end(200, 8_000));
    let (mut processes, mut cgroups) = (Processes::new(broker, Vec::new()), Cgroups::read());
    let mut client_of = |sequence| {
        let fact = server_end(sequence);
        let session = tap_core::session_facts(&fact);
        match connections.peer(&fact, &session, &mut processes, &mut cgroups) {
            Peer::TcpOwner { process, .. } => Some(process.pid),
            _ => None,
        }
    };
    assert_eq!(client_of(9_000), None, "nobody opened that one");
    assert_eq!(client_of(8_000), Some(200));
    assert_eq!(client_of(7_000), Some(100));
    assert_eq!(client_of(7_000), None, "told once");
}

#[test]
fn the_same_addresses_and_number_in_two_namespaces_are_two_connections() {
    let broker = in_a_thread();
    let mut connections = Connections::new(broker.clone());
    let (mut processes, mut cgroups) = (Processes::new(broker, Vec::new()), Cgroups::read());
    let opened = |tgid, netns, answer| OwnerFact {
        netns,
        answer,
        ..client_end(tgid, 7_000)
    };
    let process = |pid| {
        Some(Arc::new(Process {
            pid,
            start_ns: 5,
            ..Process::default()
        }))
    };
    connections.opened_by(&opened(100, 1, 3), process(100));
    connections.opened_by(&opened(200, 2, 4), process(200));
    for (tgid, netns, answer) in [(100, 1, 3), (200, 2, 4)] {
        let flow = opened(tgid, netns, answer);
        let (peer, _) = connections.client(&flow, &mut processes, &mut cgroups);
        let Peer::TcpOwner { process, .. } = peer else {
            panic!("{peer:?} is no owner")
        };
        assert_eq!(process.pid, tgid);
        let fact = SocketFact {
            answer,
            ..server_end(7_000)
        };
        let session = tap_core::session_facts(&fact);
        let peer = connections.peer(&fact, &session, &mut processes, &mut cgroups);
        let Peer::TcpOwner { process, .. } = peer else {
            panic!("{peer:?} is no owner")
        };
        assert_eq!(process.pid, tgid);
    }
}

#[test]
fn the_client_is_what_it_was_when_it_connected() {
    let broker = in_a_thread();
    let mut connections = Connections::new(broker.clone());
    let (mut processes, mut cgroups) = (Processes::new(broker, Vec::new()), Cgroups::read());
    let owner = client_end(100, 7_000);
    let connecting = Process {
        pid: owner.tgid,
        start_ns: owner.start,
        exe: Some("/usr/bin/first".into()),
        uid: owner.uid + 1,
        cgroup_id: owner.cgroup_id,
        cgroup_path: Some("/".into()),
        ..Process::default()
    };
    connections.opened_by(&owner, Some(Arc::new(connecting)));
    let fact = server_end(7_000);
    let session = tap_core::session_facts(&fact);
    let peer = connections.peer(&fact, &session, &mut processes, &mut cgroups);
    let Peer::TcpOwner { process, .. } = peer else {
        panic!("{peer:?} is no owner")
    };
    assert_eq!(process.exe.as_deref(), Some("/usr/bin/first"));
    assert_eq!(
        process.uid, owner.uid,
        "as at connect(2), not as at its last exec"
    );
}

#[test]
fn a_client_that_left_its_container_takes_no_name_along() {
    let broker = in_a_thread();
    let mut connections = Connections::new(broker.clone());
    let (mut processes, mut cgroups) = (Processes::new(broker, Vec::new()), Cgroups::read());
    let scope = |id: &str| format!("/system.slice/docker-{}.scope", id.repeat(64));
    cgroups.made(u64::MAX, scope("b"));
    let owner = OwnerFact {
        cgroup_id: u64::MAX,
        ..client_end(100, 7_000)
    };
    let known = Process {
        pid: owner.tgid,
        start_ns: owner.start,
        exe_sha256: Some([1; 32]),
        cgroup_id: u64::MAX - 1,
        cgroup_path: Some(scope("a").into()),
        container: Some(Arc::new(attribution::Container {
            name: Some("a".to_owned()),
            ..Default::default()
        })),
        ..Process::default()
    };
    connections.opened_by(&owner, Some(Arc::new(known)));
    let fact = server_end(7_000);
    let session = tap_core::session_facts(&fact);
    let peer = connections.peer(&fact, &session, &mut processes, &mut cgroups);
    let Peer::TcpOwner { process, .. } = peer else {
        panic!("{peer:?} is no owner")
    };
    assert_eq!(process.container_id(), Some("b".repeat(64).as_str()));
    assert_eq!(
        process.container, None,
        "nobody says what the other one is called"
    );
}

#[test]
fn where_addresses_are_translated_both_sequence_numbers_name_the_connection() {
    let broker = in_a_thread();
    let mut connections = Connections::new(broker.clone());
    let (mut processes, mut cgroups) = (Processes::new(broker, Vec::new()), Cgroups::read());
    let numbered = |tgid, sequence, answer| OwnerFact {
        answer,
        remote_port: 6001,
        ..client_end(tgid, sequence)
    };
    connections.opened(&numbered(100, 7_000, 1));
    connections.opened(&numbered(200, 7_001, 2));
    let mut client_of = |sequence, answer, flags| {
        let fact = SocketFact {
            answer,
            flags,
            ..server_end(sequence)
        };
        let session = tap_core::session_facts(&fact);
        match connections.peer(&fact, &session, &mut processes, &mut cgroups) {
            Peer::TcpOwner { process, pair, .. } => Some((process.pid, pair.to_string())),
            _ => None,
        }
    };
    assert_eq!(client_of(7_000, 2, 0), None, "one number alone names nobody");
    assert_eq!(client_of(2, 7_001, 0), None, "they are not the other way round");
    let (pid, pair) = client_of(7_001, 2, 0).expect("found");
    assert_eq!(pid, 200);
    assert!(
        pair.starts_with("127.0.0.1:50000 → 127.0.0.1:6001, here 127.0.0.1:50000 → 127.0.0.1:5432"),
        "{pair}"
    );
    assert_eq!(client_of(7_001, 2, 0), None, "told once");
}

#[test]
fn a_client_outside_of_the_agents_cgroup_is_as_on_another_host() {
    let broker = in_a_thread();
    let mut connections = Connections::new(broker.clone());
    let mut processes = Processes::new(broker, Vec::new());
    let mut cgroups = Cgroups::read().within(Some("/nodes/one"));
    cgroups.made(u64::MAX, "/nodes/two/system.slice/a.service".to_owned());
    cgroups.made(u64::MAX - 1, "/nodes/one/system.slice/a.service".to_owned());
    let elsewhere = [10, 9, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut peer_from = |address, cgroup_id| {
        connections.opened(&OwnerFact {
            local: address,
            cgroup_id,
            ..client_end(100, 7_000)
        });
        let fact = SocketFact {
            remote: address,
            ..server_end(7_000)
        };
        let session = tap_core::session_facts(&fact);
        connections.peer(&fact, &session, &mut processes, &mut cgroups)
    };
    let peer = peer_from(elsewhere, u64::MAX);
    assert!(
        matches!(peer, Peer::Address(address) if address.to_string() == "10.9.8.7"),
        "{peer:?}"
    );
    let peer = peer_from(LOOPBACK, u64::MAX);
    assert!(matches!(peer, Peer::Unknown { .. }), "{peer:?}");
    let peer = peer_from(elsewhere, u64::MAX - 1);
    let Peer::TcpOwner { process, .. } = peer else {
        panic!("{peer:?} is no owner")
    };
    assert_eq!(process.cgroup_path.as_deref(), Some("/system.slice/a.service"));
}
