//! From a captured frame to a TCP segment of a connection: link layer, VLAN tags, IP and its extension headers.
//!
//! Says of every frame that is none why it is none. Keeps no state: IP fragments are told and not put together,
//! because a server's segments are not fragmented (both ends agree on a segment size that fits the path).

use std::net::IpAddr;

use etherparse::{LaxIpSlice, TcpHeaderSlice, ip_number};

/// One end of a connection.
pub(crate) type End = (IpAddr, u16);

/// A TCP segment as it was captured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) source: End,
    pub(crate) destination: End,
    pub(crate) sequence: u32,
    pub(crate) acknowledges: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes behind the payload that the capture cut off.
    pub(crate) cut: u32,
}

/// Why a frame is no [`Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// A link layer that is not known here.
    Link,
    /// Not TCP over IP.
    NotTcp,
    /// A part of an IP packet.
    Fragment,
    /// Its headers are cut off or wrong.
    Damaged,
}

/// Reads a frame. `cut` bytes of it were not captured.
pub(crate) fn packet(link: u16, at: u64, frame: &[u8], cut: u32) -> Result<Packet<'_>, Unread> {
    ip(at, network(link, frame)?, cut)
}

/// The numbers of <https://www.tcpdump.org/linktypes.html>.
const NULL: u16 = 0;
const ETHERNET: u16 = 1;
const RAW: [u16; 3] = [12, 14, 101];
const LOOP: u16 = 108;
const LINUX_SLL: u16 = 113;
const IPV4: u16 = 228;
const IPV6: u16 = 229;
const LINUX_SLL2: u16 = 276;

/// VLAN tags that are stepped over: customer and provider tag, and as many again.
const TAGS: usize = 4;

/// What the link layer carries, if that is IP.
fn network(link: u16, frame: &[u8]) -> Result<&[u8], Unread> {
    let (protocol, payload) = match link {
        ETHERNET => (frame.get(12..14), frame.get(14..)),
        LINUX_SLL => (frame.get(14..16), frame.get(16..)),
        LINUX_SLL2 => (frame.get(0..2), frame.get(20..)),
        // A family in front, whose numbers differ between systems: the version in the IP header says the same.
        NULL | LOOP => return frame.get(4..).ok_or(Unread::Damaged),
        IPV4 | IPV6 => return Ok(frame),
        raw if RAW.contains(&raw) => return Ok(frame),
        _ => return Err(Unread::Link),
    };
    let (Some(mut protocol), Some(mut payload)) = (protocol, payload) else {
        return Err(Unread::Damaged);
    };
    for _ in 0..=TAGS {
        match protocol {
            [0x08, 0x00] | [0x86, 0xdd] => return Ok(payload),
            // 802.1Q, 802.1ad, and the number that was used before the latter.
            [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00] => {
                let (Some(inner), Some(rest)) = (payload.get(2..4), payload.get(4..)) else {
                    return Err(Unread::Damaged);
                };
                (protocol, payload) = (inner, rest);
            }
            _ => break,
        }
    }
    Err(Unread::NotTcp)
}

fn ip(at: u64, bytes: &[u8], cut: u32) -> Result<Packet<'_>, Unread> {
    let (ip, wrong) = LaxIpSlice::from_slice(bytes).map_err(|_| Unread::Damaged)?;
    if ip.is_fragmenting_payload() {
        return Err(Unread::Fragment);
    }
    if wrong.is_some() {
        return Err(Unread::Damaged);
    }
    let carried = ip.payload();
    if carried.ip_number != ip_number::TCP {
        return Err(Unread::NotTcp);
    }
    // The header tells the length, unless the segment was captured before the network card would have cut it up.
    let told = match &ip {
        LaxIpSlice::Ipv4(ip) => u32::from(ip.header().total_len()),
        LaxIpSlice::Ipv6(ip) if ip.header().payload_length() == 0 => 0,
        LaxIpSlice::Ipv6(ip) => u32::from(ip.header().payload_length()) + 40,
    };
    let captured = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let cut = if told == 0 {
        cut
    } else {
        told.saturating_sub(captured)
    };
    let tcp = TcpHeaderSlice::from_slice(carried.payload).map_err(|_| Unread::Damaged)?;
    let payload = carried.payload.get(tcp.slice().len()..).unwrap_or_default();
    Ok(Packet {
        at,
        source: (ip.source_addr(), tcp.source_port()),
        destination: (ip.destination_addr(), tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledges: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload,
        cut,
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const PAYLOAD: &[u8] = b"some payload";

    fn v4() -> Vec<u8> {
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40_000, 5432, 7, 1000)
            .ack(9);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, PAYLOAD).expect("memory");
        bytes
    }

    fn v6() -> Vec<u8> {
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .tcp(40_000, 5432, 7, 1000)
            .ack(9);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, PAYLOAD).expect("memory");
        bytes
    }

    fn framed(front: &[u8], ip: &[u8]) -> Vec<u8> {
        [front, ip].concat()
    }

    #[test]
    fn every_link_layer_comes_to_the_same_segment() {
        let ethernet = |rest: &[u8]| [[0; 12].as_slice(), rest].concat();
        let sll = |protocol: &[u8]| [[0; 14].as_slice(), protocol].concat();
        let sll2 = |protocol: &[u8]| [protocol, [0; 18].as_slice()].concat();
        for (ip, ether_type) in [(v4(), [8_u8, 0]), (v6(), [0x86, 0xdd])] {
            let table: Vec<(u16, Vec<u8>)> = vec![
                (0, vec![2, 0, 0, 0]),
                (1, ethernet(&ether_type)),
                (1, ethernet(&[[0x81, 0, 0, 5].as_slice(), &ether_type].concat())),
                (
                    1,
                    ethernet(&[[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6].as_slice(), &ether_type].concat()),
                ),
                (12, vec![]),
                (101, vec![]),
                (108, vec![0, 0, 0, 2]),
                (113, sll(&ether_type)),
                (276, sll2(&ether_type)),
            ];
            for (link, front) in table {
                let frame = framed(&front, &ip);
                let packet = packet(link, 3, &frame, 0).expect("a segment");
                assert_eq!((packet.source.1, packet.destination.1), (40_000, 5432), "{link}");
                assert_eq!((packet.sequence, packet.acknowledges), (7, Some(9)));
                assert_eq!((packet.payload, packet.cut, packet.at), (PAYLOAD, 0, 3));
                // What a frame is padded with is not payload; what is cut off is told.
                let padded = framed(&frame, &[0xff; 6]);
                assert_eq!(
                    super::packet(link, 0, &padded, 0).expect("padded").payload,
                    PAYLOAD
                );
                let cut = super::packet(link, 0, &frame[..frame.len() - 5], 5).expect("cut");
                assert_eq!((cut.payload, cut.cut), (&PAYLOAD[..PAYLOAD.len() - 5], 5));
                for short in 0..frame.len() - PAYLOAD.len() {
                    assert!(
                        super::packet(link, 0, &frame[..short], 0).is_err(),
                        "{link} {short}"
                    );
                }
            }
        }
        assert_eq!(packet(228, 0, &v4(), 0).expect("raw").payload, PAYLOAD);
        assert_eq!(packet(229, 0, &v6(), 0).expect("raw").payload, PAYLOAD);
        assert_eq!(packet(9, 0, &v4(), 0).err(), Some(Unread::Link));
    }

    #[test]
    fn a_segment_without_length_has_that_of_the_frame() {
        let mut ip = v4();
        ip[2..4].copy_from_slice(&[0, 0]);
        let packet = packet(101, 0, &ip, 100).expect("to be cut up by the network card");
        assert_eq!((packet.payload, packet.cut), (PAYLOAD, 100));
    }

    #[test]
    fn other_packets_say_what_they_are() {
        let mut fragment = v4();
        fragment[6] = 0x20;
        assert_eq!(packet(101, 0, &fragment, 0).err(), Some(Unread::Fragment));
        let mut udp = v4();
        udp[9] = 17;
        assert_eq!(packet(101, 0, &udp, 0).err(), Some(Unread::NotTcp));
        let arp = [[0; 12].as_slice(), &[8, 6], &[0; 28]].concat();
        assert_eq!(packet(1, 0, &arp, 0).err(), Some(Unread::NotTcp));
        let mut behind_options = v6();
        behind_options[6] = 60;
        behind_options[5] += 8;
        behind_options.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(
            packet(101, 0, &behind_options, 0)
                .expect("extension headers")
                .payload,
            PAYLOAD
        );
    }
}
