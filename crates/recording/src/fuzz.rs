//! The bodies of the fuzz targets, here so that unit tests run the same code: bytes become packets in any order, or a
//! file, and what must hold of whatever comes out is asserted.

use std::{
    collections::HashMap,
    io::Cursor,
    net::{IpAddr, Ipv4Addr},
};

use ebpf_abi::{Direction, SOCKET_MID_STREAM};

use crate::{
    connections::Connections,
    format::{Format, unpacked},
    link::Packet,
    record::Record,
    segments,
    source::{Input, Source},
    summary::Summary,
};

/// Packets of a few connections: reordered, repeated, overlapping, cut, across the wrap of sequence numbers. What is
/// handed on must be what was sent at that place. Panics if it is not.
pub fn fuzz_tcp(data: &[u8]) {
    let mut connections = Connections::new(vec![SERVER]);
    let mut summary = Summary::default();
    let mut checker = Checker::default();
    let mut hosts: [Host; 3] = std::array::from_fn(|_| Host::default());
    let mut at = 0;
    let mut steps = data.chunks_exact(5);
    for step in &mut steps {
        let &[what, which, back, ahead, length] = step else {
            break;
        };
        let number = u16::from(which % 3);
        let Some(host) = hosts.get_mut(usize::from(number)) else {
            break;
        };
        at += u64::from(which) << 20;
        let from_client = what & 1 == 0;
        let mut packet = Packet {
            at,
            source: (ADDRESS, if from_client { number + 1 } else { SERVER }),
            destination: (ADDRESS, if from_client { SERVER } else { number + 1 }),
            sequence: 0,
            acknowledges: None,
            syn: false,
            fin: what & 0x70 == 0x70,
            rst: what & 0xf0 == 0x80,
            payload: &[],
            cut: if what & 0x0e == 0x0e { u32::from(ahead) } else { 0 },
        };
        let mut handle = |packet: &Packet<'_>| {
            connections.handle(packet, &mut summary, &mut |record| checker.check(&record));
            connections.assert_bounds();
        };
        if !host.is_open || what & 0xfc == 0xf0 {
            // Another connection between the same ends, whose numbers soon wrap.
            *host = Host {
                is_open: true,
                client: host.client.wrapping_add(u32::MAX - u32::from(back)),
                ..Host::default()
            };
            packet.source = (ADDRESS, number + 1);
            packet.destination = (ADDRESS, SERVER);
            (packet.syn, packet.fin, packet.rst, packet.cut) = (true, false, false, 0);
            packet.sequence = host.client.wrapping_sub(1);
            handle(&packet);
            packet.acknowledges = Some(host.client);
            packet.sequence = server_base(host.client).wrapping_sub(1);
            std::mem::swap(&mut packet.source, &mut packet.destination);
            handle(&packet);
            continue;
        }
        let base = if from_client {
            host.client
        } else {
            server_base(host.client)
        };
        let (own, other) = if from_client {
            (&mut host.sent_by_client, host.sent_by_server)
        } else {
            (&mut host.sent_by_server, host.sent_by_client)
        };
        let offset = own.saturating_sub(u32::from(back)) + u32::from(ahead >> 4);
        packet.sequence = base.wrapping_add(offset);
        let other_base = if from_client {
            server_base(host.client)
        } else {
            host.client
        };
        packet.acknowledges = Some(other_base.wrapping_add(other.saturating_sub(u32::from(ahead & 15))));
        let payload: Vec<u8> = (0..u32::from(length))
            .map(|at| content(from_client, packet.sequence.wrapping_add(at)))
            .collect();
        packet.payload = &payload;
        *own = (*own).max(offset + u32::from(length) + packet.cut);
        handle(&packet);
    }
    connections.finish(&mut summary, &mut |record| checker.check(&record));
    connections.assert_bounds();
    assert_eq!(summary.bytes, checker.bytes, "bytes are counted wrong");
    assert_eq!(summary.missing_bytes, checker.missing, "gaps are counted wrong");
    assert_eq!(summary.differing_overlaps, 0, "all copies were the same");
}

/// A capture file. Panics if an invariant breaks.
pub fn fuzz_pcap(data: &[u8]) {
    /// pcap with microseconds and with nanoseconds, of Ethernet and of raw IP; pcapng; as the data says.
    const FRONTS: [&[u8]; 4] = [
        b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0",
        b"\xa1\xb2\x3c\x4d\0\x02\0\x04\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\x65",
        b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0",
        b"",
    ];
    let Some((&head, data)) = data.split_first() else {
        return;
    };
    let front = FRONTS.get(usize::from(head % 4)).copied().unwrap_or_default();
    let file = [front, data].concat();
    let ports = if head & 4 == 0 { Vec::new() } else { vec![SERVER] };
    let mut source = Source::new(ports);
    let mut checker = Checker {
        only_order: true,
        ..Checker::default()
    };
    let mut sink = |record: Record<'_>| checker.check(&record);
    let Ok(file) = unpacked(Cursor::new(file)) else {
        return;
    };
    let Ok(mut input) = Input::new(file, None) else {
        return;
    };
    while let Ok(true) = source.step(&mut input, &mut sink) {}
    source.finish(&mut sink);
}

/// A segment recording: what is read and written again is the same. Panics if it is not.
pub fn fuzz_segments(data: &[u8]) {
    let file = [segments::MAGIC, data].concat();
    let Ok(mut reader) = segments::Reader::new(file.as_slice()) else {
        return;
    };
    let Ok(mut writer) = segments::Writer::new(Vec::new()) else {
        return;
    };
    while let Ok(Some(record)) = reader.read() {
        assert!(writer.write(&record).is_ok(), "memory takes everything");
    }
    let again = writer.finish().unwrap_or_default();
    assert_eq!(
        file.get(..again.len()),
        Some(again.as_slice()),
        "another record was read"
    );
    let Ok(mut input) = Input::new(Box::new(Cursor::new(file)), Some(Format::Segments)) else {
        return;
    };
    let mut source = Source::new(Vec::new());
    while let Ok(true) = source.step(&mut input, &mut |_| {}) {}
}

const SERVER: u16 = 5432;
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What two ends of a connection did.
#[derive(Default)]
struct Host {
    is_open: bool,
    /// Number of the client's first byte.
    client: u32,
    sent_by_client: u32,
    sent_by_server: u32,
}

fn server_base(client: u32) -> u32 {
    client.rotate_left(7) ^ 0x5bd1_e995
}

/// What is sent at a place: so that bytes which moved show.
fn content(from_client: bool, sequence: u32) -> u8 {
    let mixed = (sequence ^ u32::from(from_client)).wrapping_mul(0x9e37_79b1);
    (mixed >> 24) as u8
}

/// Where the streams of each connection stand, by what was handed on.
#[derive(Default)]
struct Checker {
    /// Bases of both streams, if they are known, and positions.
    open: HashMap<u64, [(Option<u32>, u64); 2]>,
    bytes: u64,
    missing: u64,
    /// It is not known what was sent.
    only_order: bool,
}

impl Checker {
    fn check(&mut self, record: &Record<'_>) {
        match record {
            Record::Socket(fact) => {
                let server = (fact.flags & SOCKET_MID_STREAM == 0).then(|| server_base(fact.sequence));
                let known = self
                    .open
                    .insert(fact.cookie, [(Some(fact.sequence), 0), (server, 0)]);
                assert!(known.is_none(), "a cookie was used again");
            }
            Record::Segment(header, bytes) => {
                assert_eq!(header.length as usize, bytes.len(), "length");
                let streams = self.open.get_mut(&header.cookie);
                let from_client = header.direction == Direction::Received as u8;
                let stream = streams.and_then(|streams| streams.get_mut(usize::from(!from_client)));
                let Some((base, position)) = stream else {
                    panic_of("a segment of no connection");
                    return;
                };
                if bytes.is_empty() {
                    assert!(header.offset >= *position, "it went back");
                    self.missing += header.offset - *position;
                }
                assert!(
                    bytes.is_empty() || header.offset == *position,
                    "a gap that was not told"
                );
                *position = header.offset + bytes.len() as u64;
                self.bytes += bytes.len() as u64;
                if let (Some(base), false) = (base, self.only_order) {
                    let first = base.wrapping_add(header.offset as u32);
                    for (sequence, byte) in (0..).map(|at| first.wrapping_add(at)).zip(*bytes) {
                        assert_eq!(content(from_client, sequence), *byte, "bytes moved");
                    }
                }
            }
            Record::Close(fact) => {
                let [client, server] = self.open.remove(&fact.cookie).unwrap_or_default();
                assert!(
                    fact.received >= client.1 && fact.sent >= server.1,
                    "less than was handed on"
                );
            }
            Record::Clock { .. } | Record::Exit { .. } => {}
        }
    }
}

#[expect(clippy::panic, reason = "this is what a fuzz target is for")]
fn panic_of(what: &str) {
    panic!("{what}");
}
