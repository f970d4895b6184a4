//! Connections as a capture may have them: complete in any order, or with packets missing.

use std::net::{IpAddr, Ipv4Addr};

use ebpf_abi::{CloseFact, Direction, SOCKET_MID_STREAM, SocketFact};
use proptest::prelude::*;

use crate::{connections::Connections, fuzz, link::Packet, record::Record, summary::Summary};

const CLIENT: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000);
const SERVER: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5432);
const STARTUP: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0ann\0\0";

/// A packet that is kept.
#[derive(Clone, Debug)]
struct Sent {
    from_client: bool,
    offset: u64,
    acknowledges: u64,
    bytes: Vec<u8>,
    fin: bool,
}

/// What came out.
#[derive(Default)]
struct Seen {
    sockets: Vec<SocketFact>,
    closes: Vec<CloseFact>,
    /// From the client, from the server: bytes by their place; what is missing.
    streams: [Vec<Option<u8>>; 2],
    order: Vec<(bool, u64, usize)>,
    summary: Summary,
}

struct Capture {
    connections: Connections,
    seen: Seen,
    bases: [u32; 2],
}

impl Capture {
    fn new(bases: [u32; 2], ports: &[u16]) -> Self {
        Self {
            connections: Connections::new(ports.to_vec()),
            seen: Seen::default(),
            bases,
        }
    }

    fn begin(&mut self) {
        let [client, server] = self.bases;
        self.raw(true, client.wrapping_sub(1), None, b"", |packet| {
            packet.syn = true;
        });
        self.raw(false, server.wrapping_sub(1), Some(client), b"", |packet| {
            packet.syn = true;
        });
    }

    fn raw(
        &mut self,
        from_client: bool,
        sequence: u32,
        acknowledges: Option<u32>,
        payload: &[u8],
        set: impl FnOnce(&mut Packet<'_>),
    ) {
        let (source, destination) = if from_client {
            (CLIENT, SERVER)
        } else {
            (SERVER, CLIENT)
        };
        let mut packet = Packet {
            at: 1,
            source,
            destination,
            sequence,
            acknowledges,
            syn: false,
            fin: false,
            rst: false,
            payload,
            cut: 0,
        };
        set(&mut packet);
        let Self {
            connections, seen, ..
        } = self;
        let mut summary = seen.summary;
        connections.handle(&packet, &mut summary, &mut |record| seen.take(&record));
        connections.assert_bounds();
        seen.summary = summary;
    }

    fn sent(&mut self, sent: &Sent) {
        let (own, other) = (
            self.bases[usize::from(!sent.from_client)],
            self.bases[usize::from(sent.from_client)],
        );
        let (sequence, number) = (
            own.wrapping_add(sent.offset as u32),
            other.wrapping_add(sent.acknowledges as u32),
        );
        self.raw(sent.from_client, sequence, Some(number), &sent.bytes, |packet| {
            packet.fin = sent.fin;
        });
    }

    fn finish(mut self) -> Seen {
        let seen = &mut self.seen;
        let mut summary = seen.summary;
        self.connections
            .finish(&mut summary, &mut |record| seen.take(&record));
        self.seen.summary = summary;
        self.seen
    }
}

impl Seen {
    fn take(&mut self, record: &Record<'_>) {
        match record {
            Record::Socket(fact) => self.sockets.push(*fact),
            Record::Close(fact) => self.closes.push(*fact),
            Record::Segment(header, bytes) => {
                let from_client = header.direction == Direction::Received as u8;
                let stream = &mut self.streams[usize::from(!from_client)];
                assert!(header.offset >= stream.len() as u64, "handed on twice");
                stream.resize(header.offset as usize, None);
                stream.extend(bytes.iter().map(|byte| Some(*byte)));
                if !bytes.is_empty() {
                    self.order.push((from_client, header.offset, bytes.len()));
                }
            }
            Record::Clock { .. } | Record::Exit { .. } => {}
        }
    }
}

fn known(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().map(|byte| Some(*byte)).collect()
}

/// A conversation: turns of one end, each cut into packets.
fn conversation() -> impl Strategy<Value = (Vec<Sent>, [Vec<u8>; 2])> {
    let turn = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..4);
    prop::collection::vec((any::<bool>(), turn), 1..12).prop_map(|turns| {
        let mut streams = [Vec::new(), Vec::new()];
        let mut sent = Vec::new();
        let mut send = |from_client: bool, bytes: &[u8]| {
            let offset = streams[usize::from(!from_client)].len() as u64;
            sent.push(Sent {
                from_client,
                offset,
                acknowledges: streams[usize::from(from_client)].len() as u64,
                bytes: bytes.to_vec(),
                fin: false,
            });
            streams[usize::from(!from_client)].extend_from_slice(bytes);
        };
        send(true, STARTUP);
        for (from_client, packets) in &turns {
            for packet in packets {
                send(*from_client, packet);
            }
        }
        (sent, streams)
    })
}

fn ends(streams: &[Vec<u8>; 2]) -> [Sent; 2] {
    let [client, server] = [streams[0].len() as u64, streams[1].len() as u64];
    let end = |from_client, offset, acknowledges| Sent {
        from_client,
        offset,
        acknowledges,
        bytes: Vec::new(),
        fin: true,
    };
    [end(true, client, server), end(false, server, client + 1)]
}

proptest! {
    #[test]
    fn any_order_with_copies_comes_out_as_the_streams(
        (sent, streams) in conversation(),
        bases in any::<[u32; 2]>(),
        wrap in any::<bool>(),
        extra in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_usize..40), 0..12),
        seed in any::<u64>(),
        by_port in any::<bool>(),
    ) {
        let bases = if wrap { bases.map(|base| u32::MAX - base % 64) } else { bases };
        let mut packets = sent.clone();
        // Copies that are cut elsewhere.
        for (which, from, length) in &extra {
            let model = which.get(&sent);
            let stream = &streams[usize::from(!model.from_client)];
            let from = from.index(stream.len());
            let to = (from + length).min(stream.len());
            // Whoever sends this again knows no less than who sent it last.
            let last = sent.iter().rfind(|other| other.from_client == model.from_client);
            packets.push(Sent {
                offset: from as u64,
                bytes: stream[from..to].to_vec(),
                acknowledges: last.map_or(0, |last| last.acknowledges),
                ..model.clone()
            });
        }
        let mut order: Vec<usize> = (0..packets.len()).collect();
        order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        let mut capture = Capture::new(bases, if by_port { &[5432] } else { &[] });
        capture.begin();
        for at in order {
            capture.sent(&packets[at]);
        }
        let seen = capture.finish();
        prop_assert_eq!(&seen.streams, &[known(&streams[0]), known(&streams[1])]);
        prop_assert_eq!(seen.sockets.len(), 1);
        prop_assert_eq!(seen.sockets[0].flags, 0);
        prop_assert_eq!((seen.summary.gaps, seen.summary.differing_overlaps, seen.summary.implausible), (0, 0, 0));
    }

    #[test]
    fn an_answer_never_comes_before_what_it_acknowledges(
        (sent, streams) in conversation(),
        seed in any::<u64>(),
    ) {
        let mut order: Vec<usize> = (0..sent.len()).collect();
        order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        let mut capture = Capture::new([1, 1 << 31], &[]);
        capture.begin();
        for at in order {
            capture.sent(&sent[at]);
        }
        for end in ends(&streams) {
            capture.sent(&end);
        }
        let seen = capture.finish();
        let mut positions = [0, 0];
        for (from_client, offset, length) in seen.order {
            let of = |other: &&Sent| other.from_client == from_client && other.offset == offset;
            let packet = sent.iter().find(of).expect("handed on as it was sent");
            prop_assert_eq!(packet.bytes.len(), length);
            prop_assert!(positions[usize::from(from_client)] >= packet.acknowledges);
            positions[usize::from(!from_client)] = offset + length as u64;
        }
        prop_assert_eq!(seen.closes.len(), 1);
        let counts = (seen.closes[0].received as usize, seen.closes[0].sent as usize);
        prop_assert_eq!(counts, (streams[0].len(), streams[1].len()));
    }

    #[test]
    fn packets_that_are_missing_are_gaps_of_their_size(
        (sent, streams) in conversation(),
        bases in any::<[u32; 2]>(),
        lost in prop::collection::vec(any::<bool>(), 64),
    ) {
        let mut expected = [known(&streams[0]), known(&streams[1])];
        let mut capture = Capture::new(bases, &[5432]);
        capture.begin();
        for (packet, lost) in sent.iter().zip(lost) {
            if lost {
                let from = packet.offset as usize;
                expected[usize::from(!packet.from_client)][from..from + packet.bytes.len()].fill(None);
            } else {
                capture.sent(packet);
            }
        }
        for end in ends(&streams) {
            capture.sent(&end);
        }
        let seen = capture.finish();
        let missing = expected.iter().flatten().filter(|byte| byte.is_none()).count();
        prop_assert_eq!(&seen.streams, &expected);
        prop_assert_eq!(seen.summary.missing_bytes, missing as u64);
        prop_assert_eq!(seen.closes.len(), 1);
    }

    #[test]
    fn whatever_packets_come(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        fuzz::fuzz_tcp(&data);
    }

    #[test]
    fn whatever_a_file_holds(data in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz::fuzz_pcap(&data);
        fuzz::fuzz_segments(&data);
    }
}

#[test]
fn what_the_network_lost_is_waited_for_and_what_the_capture_missed_is_not() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    let at = 100 + STARTUP.len() as u32;
    // 20 bytes are lost on their way; two hundred packets later they are sent again.
    for turn in 0..200 {
        capture.raw(true, at + 20 + turn * 10, Some(200), &[b'x'; 10], |_| {});
        capture.raw(false, 200, Some(at), b"", |_| {});
    }
    assert_eq!(capture.seen.streams[0].len(), STARTUP.len());
    capture.raw(true, at, Some(200), &[b'y'; 20], |_| {});
    assert_eq!(capture.seen.streams[0].len(), STARTUP.len() + 2020);
    assert_eq!(capture.seen.summary.gaps, 0);
    // 20 more are not captured, but the server has them.
    let at = at + 2020;
    capture.raw(true, at + 20, Some(200), &[b'z'; 10], |_| {});
    for _ in 0..70 {
        capture.raw(false, 200, Some(at + 30), b"", |_| {});
    }
    assert_eq!(
        (capture.seen.summary.gaps, capture.seen.summary.missing_bytes),
        (1, 20)
    );
    assert_eq!(capture.seen.streams[0].len(), STARTUP.len() + 2050);
}

#[test]
fn a_connection_that_was_open_before_is_known_by_what_it_shows() {
    let mut capture = Capture::new([0, 0], &[]);
    // The end of some rows, as a server's packet, shows nothing; a byte that keeps the connection alive, too.
    capture.raw(false, 5_000, Some(900), b"rows that end here", |_| {});
    capture.raw(true, 899, Some(5_018), b"\0", |_| {});
    assert!(capture.seen.sockets.is_empty());
    assert_eq!(capture.seen.summary.unrecognised, 1);
    capture.raw(true, 900, Some(5_018), b"Q\0\0\0\x0dselect 1\0", |_| {});
    // The first of two packets of the answer is missing: 30 bytes.
    capture.raw(
        false,
        5_048,
        Some(914),
        b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
        |_| {},
    );
    capture.raw(true, 914, Some(5_068), b"X\0\0\0\x04", |_| {});
    let seen = capture.finish();
    assert_eq!(seen.sockets.len(), 1);
    assert_eq!(
        (seen.sockets[0].flags, seen.sockets[0].local_port),
        (SOCKET_MID_STREAM, 5432)
    );
    assert_eq!((seen.summary.unrecognised, seen.summary.mid_stream), (0, 1));
    assert_eq!((seen.summary.gaps, seen.summary.missing_bytes), (1, 30));
    assert_eq!(seen.streams[0].len(), 19);
}

#[test]
fn a_connection_whose_first_packet_is_missing_still_tells_its_size() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(false, 200, Some(140), b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", |_| {});
    let seen = capture.finish();
    assert_eq!((seen.sockets.len(), seen.sockets[0].flags), (1, 0));
    assert_eq!(seen.streams[0], vec![None; 40]);
    assert_eq!(seen.streams[1].len(), 15);
}

#[test]
fn a_client_cannot_end_the_record_of_its_connection() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    let at = 100 + STARTUP.len() as u32;
    // A server heeds neither: it answers what it has.
    capture.raw(true, at + 7, None, b"", |packet| packet.rst = true);
    capture.raw(true, 5_000_000, None, b"", |packet| packet.syn = true);
    capture.raw(false, 200, Some(at), b"", |_| {});
    capture.raw(true, at, Some(200), b"X\0\0\0\x04", |_| {});
    let seen = capture.finish();
    assert_eq!((seen.sockets.len(), seen.closes.len()), (1, 0));
    assert_eq!(seen.streams[0].len(), STARTUP.len() + 5);
}

#[test]
fn acknowledgements_that_are_always_captured_first_are_no_loss() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    let at = 100 + STARTUP.len() as u32;
    for turn in 0..500 {
        capture.raw(false, 200, Some(at + turn * 10 + 20), b"", |_| {});
        capture.raw(true, at + turn * 10, Some(200), &[b'x'; 10], |_| {});
    }
    let seen = capture.seen;
    assert_eq!(
        (seen.summary.gaps, seen.streams[0].len()),
        (0, STARTUP.len() + 5000)
    );
}

#[test]
fn other_protocols_are_left_alone_and_counted() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(true, 100, Some(200), b"GET / HTTP/1.1\r\n\r\n", |_| {});
    capture.raw(false, 200, Some(118), b"HTTP/1.1 200 OK\r\n\r\n", |_| {});
    let seen = capture.finish();
    assert!(seen.sockets.is_empty());
    assert_eq!((seen.summary.unrecognised, seen.summary.connections), (1, 0));
    // On another port than those asked for, not even PostgreSQL is followed.
    let mut capture = Capture::new([100, 200], &[6432]);
    capture.begin();
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    assert_eq!(capture.finish().summary.unrecognised, 1);
}

#[test]
fn ports_that_are_used_again_are_another_connection() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    capture.raw(true, 100 + STARTUP.len() as u32, Some(200), b"", |packet| {
        packet.rst = true;
    });
    assert_eq!(capture.seen.closes.len(), 1);
    assert_eq!(capture.seen.closes[0].received, STARTUP.len() as u64);
    // What comes late of the first is nothing new.
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    assert_eq!(capture.seen.sockets.len(), 1);
    capture.bases = [7_000_000, 9_000_000];
    capture.seen.streams = Default::default();
    capture.begin();
    capture.raw(true, 7_000_000, Some(9_000_000), STARTUP, |_| {});
    let seen = capture.finish();
    assert_eq!(seen.sockets.len(), 2);
    assert_eq!((seen.sockets[0].cookie, seen.sockets[1].cookie), (1, 2));
}

#[test]
fn what_was_cut_off_is_missing_and_a_reset_elsewhere_is_not_heeded() {
    let mut capture = Capture::new([100, 200], &[]);
    capture.begin();
    capture.raw(true, 100, Some(200), STARTUP, |_| {});
    let at = 100 + STARTUP.len() as u32;
    capture.raw(true, at - 50, Some(200), b"", |packet| packet.rst = true);
    assert!(capture.seen.closes.is_empty());
    capture.raw(true, at, Some(200), b"Q\0\0\x01\0select", |packet| {
        packet.cut = 246;
    });
    assert_eq!(
        (capture.seen.summary.gaps, capture.seen.summary.missing_bytes),
        (1, 246)
    );
    capture.raw(true, at + 257, Some(200), b"X\0\0\0\x04", |_| {});
    assert_eq!(capture.seen.streams[0].len(), STARTUP.len() + 257 + 5);
}
