//! One captured TCP connection: is it PostgreSQL's, which end is the server, when is it over; what is handed on of it is
//! in `delivery`.
//!
//! A packet says how much its sender had received. Both streams are therefore handed on in an order that can have
//! happened at either end: no answer before the request that it acknowledges. What the other end acknowledged and no
//! packet brought, was missed by the capture: it is told as missing, with its exact size, after some patience, because
//! captures mix up packets. A hole that nobody acknowledged is the network's, and its sender will fill it.

mod delivery;

use std::net::IpAddr;

use ebpf_abi::{CloseFact, FactKind, PeerProcess, SOCKET_MID_STREAM, SocketFact, SocketRole, UNIX_PATH_MAX};

use crate::{
    link::{End, Packet},
    record::Record,
    server,
    stream::Stream,
    summary::Summary,
};

/// Where records go.
pub(crate) type Sink<'a> = dyn FnMut(Record<'_>) + 'a;

/// What all connections share while a packet is taken.
pub(crate) struct Around<'a> {
    pub(crate) ports: &'a [u16],
    pub(crate) summary: &'a mut Summary,
    pub(crate) next_cookie: &'a mut u64,
    pub(crate) sink: &'a mut Sink<'a>,
}

/// Memory for packets of one connection that wait for others: as much as a receive buffer for a fast line over some
/// distance.
pub(crate) const HELD_EACH: usize = 16 << 20;

/// Memory for packets of a connection that is not known to be PostgreSQL's yet.
const HELD_OPENING: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its beginning was seen; what passes is held until it shows what it is.
    Opening,
    /// Its beginning was not seen, and nothing yet that shows what it is.
    Looking,
    /// It is PostgreSQL's.
    Followed { cookie: u64 },
    /// It is not, or not of the ports asked for.
    Foreign,
    /// It is over.
    Closed,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A connection. Which end is the client is a guess until it is known to be PostgreSQL's.
#[derive(Debug)]
pub(crate) struct Connection {
    client: End,
    server: End,
    from_client: Stream,
    from_server: Stream,
    state: State,
    /// The sequence number of the client's SYN, if that was seen.
    syn: Option<u32>,
    is_counted_as_unrecognised: bool,
    /// Time of the newest packet.
    newest: u64,
    /// Its number in the whole capture.
    pub(crate) last: u64,
}

impl Connection {
    /// A connection of which this is the first packet.
    pub(crate) fn new(packet: &Packet<'_>, ports: &[u16]) -> Self {
        let answers = packet.syn && packet.acknowledges.is_some();
        let from_server = answers
            || (!packet.syn && ports.contains(&packet.source.1) && !ports.contains(&packet.destination.1));
        let (client, server) = if from_server {
            (packet.destination, packet.source)
        } else {
            (packet.source, packet.destination)
        };
        let data = packet.sequence.wrapping_add(1);
        let (from_client, from_server, syn) = match packet.acknowledges {
            _ if !packet.syn => (Stream::default(), Stream::default(), None),
            None => (
                Stream::starting_at(data),
                Stream::default(),
                Some(packet.sequence),
            ),
            Some(number) => (
                Stream::starting_at(number),
                Stream::starting_at(data),
                Some(number.wrapping_sub(1)),
            ),
        };
        let state = if !ports.is_empty() && !ports.contains(&server.1) {
            State::Foreign
        } else if packet.syn {
            State::Opening
        } else {
            State::Looking
        };
        Self {
            client,
            server,
            from_client,
            from_server,
            state,
            syn,
            is_counted_as_unrecognised: false,
            newest: packet.at,
            last: 0,
        }
    }

    /// Whether this packet can only be of a newer connection between the same ends.
    pub(crate) fn is_succeeded_by(&self, packet: &Packet<'_>) -> bool {
        let side = self.side(packet);
        if packet.syn {
            let data = packet.sequence.wrapping_add(1);
            return match (packet.acknowledges, self.stream(side).base) {
                // Within a connection it is not heeded (RFC 5961, 4.2), unless the server answers it.
                (None, _) => {
                    self.cookie().is_none() && (self.syn != Some(packet.sequence) || side != Side::Client)
                }
                (Some(_), Some(base)) => base != data,
                (Some(_), None) => self.syn.is_none(),
            };
        }
        // Nothing follows an end, except that a capture may have missed the next beginning, or that a reset was not
        // heeded by those whom it was meant for.
        let stream = self.stream(side);
        let behind = stream
            .place(packet.sequence)
            .map(|at| at.saturating_add_unsigned(packet.payload.len() as u64));
        self.state == State::Closed
            && !packet.payload.is_empty()
            && behind.is_none_or(|behind| u64::try_from(behind).is_ok_and(|behind| behind > stream.next))
    }

    /// Memory that is held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.from_client.held_bytes() + self.from_server.held_bytes()
    }

    /// Whether something waits for a packet that may not come.
    pub(crate) fn waits(&self) -> bool {
        self.waiting_since().is_some()
    }

    /// Whether what it waits for is given up.
    pub(crate) fn has_waited(&self, now: u64) -> bool {
        self.waiting_since()
            .is_some_and(|since| now.saturating_sub(since) > delivery::PATIENCE_NS)
    }

    fn waiting_since(&self) -> Option<u64> {
        let since = [&self.from_client, &self.from_server].map(Stream::waiting_since);
        since.into_iter().flatten().min()
    }

    /// What goes first when room is needed: what is over, then what is not known to be PostgreSQL's.
    pub(crate) fn worth(&self) -> (u8, u64) {
        let rank = match self.state {
            State::Closed => 0,
            State::Foreign | State::Looking | State::Opening => 1,
            State::Followed { .. } => 2,
        };
        (rank, self.last)
    }

    pub(crate) fn cookie(&self) -> Option<u64> {
        match self.state {
            State::Followed { cookie } => Some(cookie),
            _ => None,
        }
    }

    /// Takes a packet.
    pub(crate) fn handle(&mut self, packet: &Packet<'_>, around: &mut Around<'_>) {
        self.newest = packet.at;
        if packet.syn && packet.acknowledges.is_some() && self.side(packet) == Side::Server {
            self.from_server
                .base
                .get_or_insert(packet.sequence.wrapping_add(1));
        }
        if self.state == State::Looking {
            self.look(packet, around);
        } else if self.state == State::Opening && !around.ports.is_empty() {
            self.announce(0, around);
        }
        match self.state {
            State::Opening => {
                self.take(packet, around);
                self.judge(packet, around);
            }
            State::Followed { .. } => self.take(packet, around),
            State::Foreign if !packet.payload.is_empty() => self.unrecognised(around),
            State::Looking | State::Foreign | State::Closed => {}
        }
        if packet.rst && self.state != State::Closed && self.ends_here(packet) {
            self.close(around);
        }
    }

    /// The capture goes on without it: nothing more is waited for.
    pub(crate) fn give_up_waiting(&mut self, around: &mut Around<'_>) {
        self.settle(around);
        if self.cookie().is_some() {
            self.close_if_complete(around);
        }
    }

    fn settle(&mut self, around: &mut Around<'_>) {
        if self.cookie().is_none() {
            return;
        }
        loop {
            self.drain(around);
            if !self.give_up_overdue(around) && !self.give_up_hole(around) {
                break;
            }
        }
        self.from_client.stop_waiting();
        self.from_server.stop_waiting();
    }

    /// It is over.
    pub(crate) fn close(&mut self, around: &mut Around<'_>) {
        self.settle(around);
        if let Some(cookie) = self.cookie() {
            let ended = |stream: &Stream| stream.end.map_or(stream.next, |end| end.max(stream.next));
            (around.sink)(Record::Close(CloseFact {
                kind: FactKind::Close as u32,
                at: self.newest,
                cookie,
                received: ended(&self.from_client),
                sent: ended(&self.from_server),
                ..CloseFact::default()
            }));
        }
        self.from_client.forget();
        self.from_server.forget();
        self.state = State::Closed;
    }

    /// Whether a reset is exactly where its sender stands: others are not heeded (RFC 5961, 3.2), and a client must not
    /// end a record by one.
    fn ends_here(&self, packet: &Packet<'_>) -> bool {
        let stream = self.stream(self.side(packet));
        let place = stream
            .place(packet.sequence)
            .and_then(|at| u64::try_from(at).ok());
        let stands = [
            stream.next,
            stream.acknowledged,
            stream.end.map_or(stream.next, |end| end + 1),
        ];
        stream.base.is_none()
            || place
                .is_some_and(|at| stands.contains(&at) || (at > stream.next && stream.first_held().is_some()))
    }

    /// Decides by what a connection whose beginning was not seen shows in one packet.
    fn look(&mut self, packet: &Packet<'_>, around: &mut Around<'_>) {
        let payload = packet.payload;
        // A single byte can be one that keeps a connection alive and means nothing.
        if payload.len() < 2 {
            return;
        }
        let side = self.side(packet);
        let whole_startup = server::begins(payload) == Some(true)
            && (payload.first() == Some(&0x16)
                || payload
                    .first_chunk()
                    .is_some_and(|length| u32::from_be_bytes(*length) as usize == payload.len()));
        let by_port = !around.ports.is_empty();
        let sender = match side {
            _ if whole_startup => Side::Client,
            _ if server::requests(payload) => Side::Client,
            _ if server::answers(payload) => Side::Server,
            side if by_port => side,
            _ => {
                // Where it stands, so that the other side's beginning is known when this side shows what it is.
                let behind = packet
                    .sequence
                    .wrapping_add(payload.len() as u32)
                    .wrapping_add(packet.cut);
                self.stream_mut(side).base = Some(behind);
                return self.unrecognised(around);
            }
        };
        if by_port
            && sender != side
            && around.ports.contains(&self.server.1)
            && !around.ports.contains(&self.client.1)
        {
            return self.unrecognised(around);
        }
        if sender != side {
            std::mem::swap(&mut self.client, &mut self.server);
            std::mem::swap(&mut self.from_client, &mut self.from_server);
        }
        let other = sender.other();
        let seen_of_other = self.stream(other).base;
        *self.stream_mut(sender) = Stream::starting_at(packet.sequence);
        *self.stream_mut(other) = Stream::starting_at(later(seen_of_other, packet.acknowledges));
        if whole_startup {
            self.announce(0, around);
        } else {
            self.announce(SOCKET_MID_STREAM, around);
            around.summary.mid_stream += 1;
            self.pin(around);
        }
    }

    /// Decides by what a connection whose beginning was seen shows.
    fn judge(&mut self, packet: &Packet<'_>, around: &mut Around<'_>) {
        let front = self.from_client.front(0, usize::from(u16::MAX));
        let begins = server::begins(&front);
        let shows = server::requests(packet.payload) || server::answers(packet.payload);
        if begins == Some(true) || (begins.is_none() && shows) {
            self.announce(0, around);
            self.drain(around);
            self.be_patient(around);
        } else if begins == Some(false) || self.held_bytes() > HELD_OPENING {
            self.state = State::Foreign;
            self.from_client.forget();
            self.from_server.forget();
            self.unrecognised(around);
        }
    }

    fn unrecognised(&mut self, around: &mut Around<'_>) {
        if !self.is_counted_as_unrecognised {
            self.is_counted_as_unrecognised = true;
            around.summary.unrecognised += 1;
        }
    }

    fn announce(&mut self, flags: u8, around: &mut Around<'_>) {
        let cookie = *around.next_cookie;
        *around.next_cookie += 1;
        self.state = State::Followed { cookie };
        around.summary.connections += 1;
        if std::mem::take(&mut self.is_counted_as_unrecognised) {
            around.summary.unrecognised -= 1;
        }
        let (family, remote) = address(self.client.0);
        let (_, local) = address(self.server.0);
        (around.sink)(Record::Socket(SocketFact {
            kind: FactKind::Socket as u32,
            tgid: 0,
            at: self.newest,
            cookie,
            server: 0,
            netns: 0,
            family,
            local_port: self.server.1,
            remote_port: self.client.1,
            role: SocketRole::Accepted as u8,
            flags,
            local,
            remote,
            peer: PeerProcess::default(),
            sequence: self.from_client.base.unwrap_or(0),
            answer: self.from_server.base.unwrap_or(0),
            client_inode: 0,
            path_length: 0,
            path: [0; UNIX_PATH_MAX],
        }));
    }

    /// Says where both streams begin, so that a first packet that is missing shows.
    fn pin(&mut self, around: &mut Around<'_>) {
        for side in [Side::Client, Side::Server] {
            self.emit(side, self.newest, &[], around);
        }
    }

    fn side(&self, packet: &Packet<'_>) -> Side {
        if packet.source == self.client {
            Side::Client
        } else {
            Side::Server
        }
    }

    fn stream(&self, side: Side) -> &Stream {
        match side {
            Side::Client => &self.from_client,
            Side::Server => &self.from_server,
        }
    }

    fn stream_mut(&mut self, side: Side) -> &mut Stream {
        self.both_mut(side).0
    }

    fn both_mut(&mut self, side: Side) -> (&mut Stream, &mut Stream) {
        match side {
            Side::Client => (&mut self.from_client, &mut self.from_server),
            Side::Server => (&mut self.from_server, &mut self.from_client),
        }
    }
}

/// The later of two sequence numbers.
fn later(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) if one.wrapping_sub(other).cast_signed() < 0 => Some(other),
        (one, other) => one.or(other),
    }
}

/// An address as the kernel side writes it.
fn address(address: IpAddr) -> (u16, [u8; 16]) {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            (AF_INET, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(address) => (AF_INET6, address.octets()),
    }
}
