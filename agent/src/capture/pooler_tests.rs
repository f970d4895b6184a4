//! What the kernel side tells of a pooler's socket calls, call by call. This process is the pooler, and looks at what was
//! told of it. Needs root, for eBPF; is skipped without it, and says so.

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{
            fs::MetadataExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    sync::{Mutex, PoisonError},
};

use ebpf_abi::{
    BUFFERS_MAX, Channel, CloseFact, Direction, FactKind, Record as _, SOCKET_MID_STREAM, SOCKET_POOLER,
    SocketFact, SocketRole, TRANSFER_END, TRANSFER_NONE, TRANSFER_UNPROVEN, Transfer,
};
use nix::{
    sys::socket::{MsgFlags, recv},
    unistd::geteuid,
};

use super::*;
use crate::facts::old_sockets::sockets_of;

/// One tap at a time: each sees what all threads of this process do.
static ALONE: Mutex<()> = Mutex::new(());

/// The tap, with this process marked; `None` where it cannot be.
fn tap() -> Option<Tap> {
    if !geteuid().is_root() {
        eprintln!("not run without root: the kernel side is attached");
        return None;
    }
    let sizes = Sizes {
        segments: 1 << 20,
        facts: 4 << 20,
        processes: 64,
        connections: 1024,
        transfers: 1 << 20,
    };
    let wishes = Wishes {
        poolers: 1,
        ..Wishes::default()
    };
    match Tap::attach(sizes, None, AtReturn::Unconfined, wishes, std::iter::empty()) {
        Ok(tap) if tap.tier == Tier::A => Some(tap),
        Ok(_) => {
            eprintln!("not run: this kernel has tier B only");
            None
        }
        Err(problem) => panic!("{problem}"),
    }
}

fn mark(tap: &mut Tap) {
    let own = std::process::id();
    tap.targets
        .mark_pooler(own, || sockets_of(own))
        .expect("room for a process");
}

/// What was told of one socket.
#[derive(Default)]
struct Told {
    sockets: Vec<SocketFact>,
    transfers: Vec<Transfer>,
    closes: Vec<CloseFact>,
}

fn told(tap: &mut Tap) -> Told {
    let mut told = Told::default();
    while tap.facts.next(|fact| match FactKind::of(fact) {
        Some(FactKind::Socket) => told.sockets.extend(SocketFact::read(fact)),
        Some(FactKind::Close) => told.closes.extend(CloseFact::read(fact)),
        _ => {}
    }) {}
    while tap
        .transfers
        .next(|transfer| told.transfers.extend(Transfer::read(transfer)))
    {}
    told
}

impl Told {
    fn socket(&self, cookie: u64) -> &SocketFact {
        let mut all = self.sockets.iter().filter(|fact| fact.cookie == cookie);
        let only = all.next().expect("a socket that is told");
        assert!(all.next().is_none(), "told once");
        assert_eq!(only.flags & SOCKET_POOLER, SOCKET_POOLER);
        assert_eq!((only.tgid, only.server), (std::process::id(), std::process::id()));
        only
    }

    /// The calls of one socket: direction, offset, address, length, front, flags.
    fn calls(&self, cookie: u64) -> Vec<(u8, u64, u64, u32, Vec<u8>, u8)> {
        let of = self.transfers.iter().filter(|transfer| transfer.cookie == cookie);
        of.map(|transfer| {
            assert_eq!(transfer.channel, Channel::Socket as u8);
            (
                transfer.direction,
                transfer.offset,
                transfer.buffer,
                transfer.length,
                transfer.front.to_vec(),
                transfer.flags,
            )
        })
        .collect()
    }
}

fn cookie(socket: &impl AsRawFd) -> u64 {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes as many bytes as there is room for.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    cookie
}

fn address<T>(buffer: &[T]) -> u64 {
    buffer.as_ptr() as u64
}

fn front(bytes: &[u8]) -> Vec<u8> {
    let mut front = [0; 16];
    let kept = bytes.len().min(16);
    front[..kept].copy_from_slice(&bytes[..kept]);
    front.to_vec()
}

const RECEIVED: u8 = Direction::Received as u8;
const SENT: u8 = Direction::Sent as u8;

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    (client, server)
}

#[test]
fn each_call_is_told_with_its_buffer_and_its_place() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut tap) = tap() else { return };
    mark(&mut tap);
    let (mut client, mut server) = tcp();
    let (of_client, of_server) = (cookie(&client), cookie(&server));
    server.set_nonblocking(true).expect("set");
    let request = b"as long as it is, and longer than a front".to_vec();
    let mut into = vec![0_u8; 256];
    // Nothing there; then something, looked at and taken.
    assert!(server.read(&mut into).is_err());
    client.write_all(&request).expect("written");
    server.set_nonblocking(false).expect("set");
    recv(server.as_raw_fd(), &mut into, MsgFlags::MSG_PEEK).expect("looked at");
    assert_eq!(server.read(&mut into).expect("read"), request.len());
    // Several buffers, one of them empty.
    let parts = [b"one".as_slice(), b"", b"three, which is longer than 16"];
    let vectors = parts.map(IoSlice::new);
    assert_eq!(server.write_vectored(&vectors).expect("written"), 33);
    let (mut first, mut second) = ([0_u8; 5], [0_u8; 64]);
    let mut vectors = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(client.read_vectored(&mut vectors).expect("read"), 33);
    // More than are told one by one.
    let many = vec![[b'm'; 10]; BUFFERS_MAX as usize + 4];
    let vectors: Vec<IoSlice<'_>> = many.iter().map(|part| IoSlice::new(part)).collect();
    assert_eq!(server.write_vectored(&vectors).expect("written"), 200);
    // The end.
    let name = (
        client.local_addr().expect("a name"),
        client.peer_addr().expect("a name"),
    );
    drop(client);
    // What it did not read ended in a reset.
    assert!(server.read(&mut into).is_err());
    drop(server);
    let told = told(&mut tap);

    let nothing = vec![0; 16];
    let mut expected = vec![
        (RECEIVED, 0, address(&into), 0, nothing.clone(), TRANSFER_NONE),
        (RECEIVED, 0, address(&into), 41, front(&request), 0),
        (SENT, 0, address(parts[0]), 3, front(parts[0]), 0),
        (SENT, 3, address(parts[2]), 30, front(parts[2]), 0),
    ];
    for (index, part) in many.iter().take(BUFFERS_MAX as usize).enumerate() {
        let at = 33 + 10 * index as u64;
        expected.push((SENT, at, address(part), 10, front(part), 0));
    }
    let behind = 33 + 10 * u64::from(BUFFERS_MAX);
    expected.push((SENT, behind, 0, 40, nothing.clone(), TRANSFER_UNPROVEN));
    expected.push((RECEIVED, 41, address(&into), 0, nothing, TRANSFER_END));
    assert_eq!(told.calls(of_server), expected);
    assert_eq!(
        told.calls(of_client),
        [
            (SENT, 0, address(&request), 41, front(&request), 0),
            (RECEIVED, 0, address(&first), 5, front(b"oneth"), 0),
            (
                RECEIVED,
                5,
                address(&second),
                28,
                front(b"ree, which is longer"),
                0
            ),
        ]
    );
    let own = thread_id();
    let mut orders = told.transfers.iter().filter(|transfer| transfer.thread == own);
    let first = orders.next().expect("a call").order;
    for (index, transfer) in orders.enumerate() {
        assert_eq!(transfer.order, first + 1 + index as u32, "no hole");
    }
    let (connected, accepted) = (told.socket(of_client), told.socket(of_server));
    assert_eq!(connected.role, SocketRole::Connected as u8);
    assert_eq!(accepted.role, SocketRole::Accepted as u8);
    assert_eq!((connected.flags | accepted.flags) & SOCKET_MID_STREAM, 0);
    assert_eq!(
        (connected.local_port, connected.remote_port),
        (name.0.port(), name.1.port())
    );
    assert!(connected.numbers().is_some() && connected.numbers() == accepted.numbers());
    for cookie in [of_client, of_server] {
        assert!(told.closes.iter().any(|close| close.cookie == cookie), "{cookie}");
    }
}

/// As in records.
fn thread_id() -> u32 {
    u32::try_from(nix::unistd::gettid().as_raw()).expect("positive")
}

#[test]
fn a_tcp_connection_has_its_place_and_its_end_whenever_it_is_met() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut client, mut server) = tcp();
    let mut into = [0_u8; 64];
    client.write_all(b"twelve bytes").expect("written");
    server.read_exact(&mut into[..12]).expect("read");
    server.write_all(b"seven b").expect("written");
    client.read_exact(&mut into[..7]).expect("read");
    // Some of it is in the queue still.
    client.write_all(b"waiting").expect("written");
    let Some(mut tap) = tap() else { return };
    mark(&mut tap);
    server.read_exact(&mut into[..7]).expect("read");
    client.write_all(b"more").expect("written");
    server.write_all(b"an answer").expect("written");
    client.read_exact(&mut into[..9]).expect("read");
    let told = told(&mut tap);
    let place = |cookie| {
        let calls = told.calls(cookie).into_iter();
        calls
            .map(|(direction, offset, _, length, ..)| (direction, offset, length))
            .collect::<Vec<_>>()
    };
    assert_eq!(place(cookie(&server)), [(RECEIVED, 12, 7), (SENT, 7, 9)]);
    assert_eq!(place(cookie(&client)), [(SENT, 19, 4), (RECEIVED, 7, 9)]);
    let (connected, accepted) = (told.socket(cookie(&client)), told.socket(cookie(&server)));
    assert_eq!(connected.role, SocketRole::Connected as u8);
    assert_eq!(accepted.role, SocketRole::Accepted as u8);
    assert_eq!(
        connected.flags & accepted.flags & SOCKET_MID_STREAM,
        SOCKET_MID_STREAM
    );
    assert!(connected.numbers().is_some() && connected.numbers() == accepted.numbers());
    assert_eq!(connected.fingerprint(), None);
}

#[test]
fn unix_sockets_are_known_by_the_connecting_end() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    let pair = || {
        let client = UnixStream::connect(&path).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        (client, server)
    };
    let mut old = pair();
    old.0.write_all(b"not seen").expect("written");
    let Some(mut tap) = tap() else { return };
    mark(&mut tap);
    let mut new = pair();
    let mut among_threads = UnixStream::pair().expect("a pair");
    let mut into = [0_u8; 64];
    for (client, server) in [&mut old, &mut new, &mut among_threads] {
        client.write_all(b"said").expect("written");
        assert!(server.read(&mut into).is_ok());
    }
    let told = told(&mut tap);
    for (ends, flags, first) in [(&old, SOCKET_MID_STREAM, 12), (&new, 0, 4)] {
        let (connected, accepted) = (told.socket(cookie(&ends.0)), told.socket(cookie(&ends.1)));
        assert_eq!(connected.role, SocketRole::Connected as u8);
        assert_eq!(accepted.role, SocketRole::Accepted as u8);
        assert_eq!(connected.flags & SOCKET_MID_STREAM, flags);
        assert_eq!(accepted.flags & SOCKET_MID_STREAM, flags);
        assert_eq!(connected.client_inode, inode(&ends.0));
        assert_eq!(accepted.client_inode, inode(&ends.0));
        for end in [connected, accepted] {
            let named = &end.path[..end.path_length as usize];
            let named = named.split(|byte| *byte == 0).next().unwrap_or_default();
            assert_eq!(named, path.as_os_str().as_encoded_bytes());
            assert_eq!(end.peer.tgid, std::process::id());
        }
        let calls = told.calls(cookie(&ends.1));
        assert_eq!((calls[0].1, calls[0].3), (0, first));
    }
    let pair = cookie(&among_threads.0);
    assert!(told.sockets.iter().all(|fact| fact.cookie != pair));
    assert!(told.calls(pair).is_empty());
}

fn inode(socket: &UnixStream) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd()))
        .expect("a socket")
        .ino()
}

#[test]
fn threads_are_counted_apart() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut tap) = tap() else { return };
    mark(&mut tap);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let (mut client, mut server) = tcp();
                let mut into = [0_u8; 32];
                for round in 0..200_u64 {
                    client.write_all(&round.to_ne_bytes()).expect("written");
                    server.read_exact(&mut into[..8]).expect("read");
                }
                (thread_id(), cookie(&client), cookie(&server))
            })
        })
        .collect();
    let ended: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("done"))
        .collect();
    let told = told(&mut tap);
    for (thread, client, server) in ended {
        let own = told.transfers.iter().filter(|transfer| transfer.thread == thread);
        let orders: Vec<u32> = own.map(|transfer| transfer.order).collect();
        assert_eq!(orders, (1..=400).collect::<Vec<u32>>());
        for (cookie, direction) in [(client, SENT), (server, RECEIVED)] {
            let calls = told.calls(cookie);
            let places: Vec<(u8, u64)> = calls.iter().map(|call| (call.0, call.1)).collect();
            let expected: Vec<(u8, u64)> = (0..200).map(|round| (direction, round * 8)).collect();
            assert_eq!(places, expected);
        }
    }
}

#[test]
fn a_full_ring_shows_as_a_hole_and_is_told_with_what_comes_next() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut tap) = tap() else { return };
    mark(&mut tap);
    let (mut client, mut server) = tcp();
    let mut into = [0_u8; 32];
    // A record takes 80 bytes of the ring's MiB.
    for _ in 0..8000 {
        client.write_all(b"said").expect("written");
        server.read_exact(&mut into[..4]).expect("read");
    }
    let lost = tap.counters.read().at(ebpf_abi::Counter::TransfersLost as usize);
    let before = told(&mut tap);
    let kept = before
        .transfers
        .iter()
        .filter(|transfer| [cookie(&client), cookie(&server)].contains(&transfer.cookie))
        .count() as u64;
    assert!(kept < 16_000, "the ring was full");
    assert!(lost >= 16_000 - kept, "{lost} of {kept}");
    client.write_all(b"said").expect("written");
    server.read_exact(&mut into[..4]).expect("read");
    let after = told(&mut tap);
    for cookie in [cookie(&client), cookie(&server)] {
        let last = before
            .transfers
            .iter()
            .rfind(|transfer| transfer.cookie == cookie);
        let next = after.transfers.iter().find(|transfer| transfer.cookie == cookie);
        let (last, next) = (last.expect("some were told"), next.expect("told again"));
        assert_eq!(next.flags, ebpf_abi::TRANSFER_LOST);
        assert_eq!(next.offset, 8000 * 4, "TCP's own count");
        assert!(next.order > last.order + 2, "{} {}", next.order, last.order);
    }
}
