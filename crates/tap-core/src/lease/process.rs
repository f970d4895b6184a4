//! One process of a pooler: its threads, its memory, and what it did with its sockets.

use std::{collections::BTreeSet, ops::Range};

use ebpf_abi::{
    Channel, Direction, FRONT, TRANSFER_END, TRANSFER_LOST, TRANSFER_NONE, TRANSFER_UNPROVEN, Transfer,
};

use lease::{Passed, Piece, Source};

use super::{
    End, Kind,
    hidden::Hidden,
    memory::{Memory, Origin},
    server::Server,
};
use crate::cookies::{ByCookie, ById};

/// Threads of a process that are remembered. A thread that is not begins anew.
const THREADS: usize = 1_024;

/// A process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) kind: Kind,
    pub(super) servers: ByCookie<Server>,
    pub(super) clients: ByCookie<Client>,
    /// It ended.
    pub(super) is_over: bool,
    memory: Memory,
    /// Clients whose words nobody sees.
    hidden: BTreeSet<u64>,
    threads: ById<Turn>,
}

/// A connection of a client's.
#[derive(Debug, Default)]
pub(super) struct Client {
    channel: u8,
    /// Nothing more comes of it: it said goodbye, or its connection is over.
    pub(super) ended: bool,
    /// The first byte of the newest receive: the type of a message, where it begins one; 0 in a startup packet.
    newest: u8,
    /// How the newest receive began, and its length, until the same was sent to a server.
    said: Option<([u8; FRONT], u32)>,
    /// Bytes went between it and a server.
    served: bool,
    buffer: Buffer,
    hidden: Hidden,
    /// Bytes of it may lie in memory that nobody saw received. An answer that it got ends the doubt.
    unsure: bool,
}

/// A connection on its way to another process: one of the two.
pub(super) struct Connection {
    client: Option<Client>,
    server: Option<Server>,
}

/// PgBouncer's buffer of a connection, as its receives show it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buffer {
    /// Where it begins; 0 before the first receive.
    base: u64,
    /// Behind the last byte that was received into it.
    end: u64,
    /// The offset of the byte behind that in the connection's stream.
    offset: u64,
}

/// PgBouncer moves what is left of a packet to the front of its buffer if it is no longer than this (`SBUF_SMALL_PKT`).
const MOVED_MAX: u64 = 64;

impl Buffer {
    /// It is about to receive at an address. What it has moved to before it did, and the offset of that.
    fn receives_at(&mut self, address: u64) -> Option<(Range<u64>, u64)> {
        let before = *self;
        if address == before.end {
            return None;
        }
        let moved = address.checked_sub(before.base).unwrap_or(u64::MAX);
        if before.base == 0 || moved == 0 || moved > MOVED_MAX || moved > before.offset {
            // Another buffer, or an empty one.
            self.base = address;
            return None;
        }
        self.end = address;
        Some((before.base..address, before.offset - moved))
    }
}

/// What a thread is at: the socket that it looked at last, and since when.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    order: u32,
    socket: u64,
}

impl Process {
    /// A socket was told.
    pub(super) fn socket(&mut self, cookie: u64, end: End, mid_stream: bool, counted: bool) {
        match end {
            End::Client => {
                self.clients.entry(cookie).or_insert_with(|| Client {
                    unsure: mid_stream,
                    ..Client::default()
                });
            }
            End::Server => {
                self.servers
                    .entry(cookie)
                    .or_insert_with(|| Server::new(mid_stream, counted));
            }
        }
    }

    /// A connection is over. What is known of a server's goes with its last question.
    pub(super) fn closed(&mut self, cookie: u64) {
        if let Some(client) = self.clients.get_mut(&cookie) {
            client.ended = true;
            self.hidden.remove(&cookie);
        }
        if let Some(server) = self.servers.get_mut(&cookie) {
            server.traffic.end();
        }
    }

    /// Another process has a connection from now on.
    pub(super) fn give(&mut self, cookie: u64) -> Connection {
        self.hidden.remove(&cookie);
        Connection {
            client: self.clients.remove(&cookie),
            server: self.servers.remove(&cookie),
        }
    }

    /// It is this one.
    pub(super) fn take(&mut self, cookie: u64, connection: Connection) {
        if let Some(mut client) = connection.client {
            client.buffer = Buffer::default();
            if client.hidden.is_hidden() {
                self.hidden.insert(cookie);
            }
            self.clients.insert(cookie, client);
        }
        if let Some(mut server) = connection.server {
            server.buffer = Buffer::default();
            self.servers.insert(cookie, server);
        }
    }

    /// The process ended, and all its connections with it.
    pub(super) fn over(&mut self) {
        self.is_over = true;
        self.lost();
        for client in self.clients.values_mut() {
            client.ended = true;
        }
        for server in self.servers.values_mut() {
            server.traffic.end();
        }
    }

    /// Calls were not seen.
    pub(super) fn lost(&mut self) {
        self.memory.forget();
        self.threads.clear();
        for client in self.clients.values_mut() {
            client.unsure = true;
        }
        for server in self.servers.values_mut() {
            server.lost();
        }
    }

    /// A call.
    pub(super) fn transfer(&mut self, transfer: &Transfer) {
        let turn = self.turn(transfer);
        let is_receive = transfer.direction == Direction::Received as u8;
        if transfer.flags & TRANSFER_END != 0 {
            self.closed(transfer.cookie);
        }
        if self.clients.contains_key(&transfer.cookie) {
            if is_receive {
                self.received_of_client(transfer);
            } else {
                self.sent_to_client(transfer, turn);
            }
        } else if self.servers.contains_key(&transfer.cookie) {
            if is_receive {
                self.received_of_server(transfer);
            } else {
                self.sent_to_server(transfer, turn);
            }
        }
    }

    /// What the thread was at before this call, 0 if at nothing; `None` if that is not known. A receive is at its own socket
    /// from now on.
    fn turn(&mut self, transfer: &Transfer) -> Option<u64> {
        let known = self.threads.get(&transfer.thread).copied();
        let before = match known {
            Some(turn) if turn.order.wrapping_add(1) == transfer.order => Some(turn.socket),
            None if transfer.order == 1 => None,
            // A thread that is older than the tap, or calls that were lost.
            _ => {
                self.lost();
                None
            }
        };
        let is_known = before.is_some() || transfer.order == 1;
        let is_receive = transfer.direction == Direction::Received as u8;
        let socket = if is_receive {
            transfer.cookie
        } else {
            before.unwrap_or(0)
        };
        if known.is_none() && self.threads.len() >= THREADS {
            self.threads.clear();
        }
        let turn = Turn {
            order: transfer.order,
            socket,
        };
        self.threads.insert(transfer.thread, turn);
        // The thread goes on to something else: what it has not passed on by now it will not.
        if is_receive
            && before != Some(transfer.cookie)
            && let Some(server) = before.and_then(|socket| self.servers.get_mut(&socket))
        {
            server.left();
        }
        is_known.then(|| before.unwrap_or(0))
    }

    fn received_of_client(&mut self, transfer: &Transfer) {
        let Some(client) = self.clients.get_mut(&transfer.cookie) else {
            return;
        };
        if !client.takes(transfer) {
            return;
        }
        if client.channel != Channel::Socket as u8 {
            self.hidden.remove(&transfer.cookie);
        }
        client.hidden.asks(transfer);
        let buffer = client.buffer;
        let buffer = self.look_at(buffer, transfer);
        let Some(client) = self.clients.get_mut(&transfer.cookie) else {
            return;
        };
        client.buffer = buffer;
        if transfer.length == 0 {
            return;
        }
        let [newest, ..] = transfer.front;
        client.newest = newest;
        client.said = Some((transfer.front, transfer.length));
        // Terminate, alone: nothing follows it.
        client.ended |= newest == b'X' && transfer.length == 5;
        self.put(transfer);
    }

    fn received_of_server(&mut self, transfer: &Transfer) {
        let Some(server) = self.servers.get_mut(&transfer.cookie) else {
            return;
        };
        if !server.takes(transfer) {
            return;
        }
        server.hidden.answers(transfer);
        let buffer = server.buffer;
        let buffer = self.look_at(buffer, transfer);
        let Some(server) = self.servers.get_mut(&transfer.cookie) else {
            return;
        };
        server.buffer = buffer;
        if transfer.length > 0 {
            server.read(transfer.offset, u64::from(transfer.length), transfer.at);
            self.put(transfer);
        }
    }

    /// What a receive says of where the connection's bytes lie.
    fn look_at(&mut self, mut buffer: Buffer, transfer: &Transfer) -> Buffer {
        if self.kind != Kind::PgBouncer || transfer.flags & TRANSFER_UNPROVEN != 0 || transfer.buffer == 0 {
            return buffer;
        }
        if let Some((at, offset)) = buffer.receives_at(transfer.buffer) {
            self.memory.moved(at, transfer.cookie, offset);
        }
        if transfer.length > 0 {
            buffer.end = transfer.buffer.saturating_add(u64::from(transfer.length));
            buffer.offset = transfer.offset.saturating_add(u64::from(transfer.length));
        }
        buffer
    }

    fn put(&mut self, transfer: &Transfer) {
        if let Some(at) = place(transfer) {
            self.memory
                .received(at, transfer.cookie, transfer.offset, transfer.front);
        } else {
            // Bytes lie somewhere, perhaps where others lay.
            self.memory.forget();
        }
    }

    fn sent_to_server(&mut self, transfer: &Transfer, turn: Option<u64>) {
        let sole = self.sole_client().filter(|client| self.says(*client, transfer));
        let Some(server) = self.servers.get_mut(&transfer.cookie) else {
            return;
        };
        if !server.takes(transfer) || transfer.length == 0 {
            return;
        }
        server.hidden.asks(transfer);
        let begins = transfer.offset;
        server.jump(begins, transfer.flags & TRANSFER_LOST != 0);
        let clients = &self.clients;
        let at = turn.and_then(|socket| clients.get(&socket));
        // Whose words nobody sees may have said it, whoever the thread was at as far as is seen.
        let is_seen = self.hidden.is_empty();
        let is_sure = is_seen && turn.is_some() && at.is_none_or(|client| !client.unsure);
        let turn = turn.filter(|_| at.is_some());
        let logs_in = at
            // Startup packets begin with a zero; passwords are of type p.
            .is_some_and(|client| !client.served && matches!(client.newest, 0 | b'p'));
        let piece = |range: Range<u64>, source: Source| Piece {
            range,
            source,
            turn,
            sole,
            logs_in,
        };
        let Some(place) = place(transfer) else {
            server.wrote(piece(
                begins..begins + u64::from(transfer.length),
                Source::Unknown,
            ));
            return;
        };
        let mut offset = begins;
        let mut of_client = None;
        self.memory.sent(place, transfer.front, &mut |origin: Origin| {
            let range = offset..offset + origin.length;
            offset = range.end;
            let from = origin.from.filter(|(socket, _)| clients.contains_key(socket));
            of_client = from.map(|(client, _)| client).or(of_client);
            let source = match from {
                Some((client, offset)) => Source::Client { client, offset },
                None if is_sure && !origin.changed => Source::Own,
                None => Source::Unsure,
            };
            server.wrote(piece(range, source));
        });
        if let Some(client) = of_client.and_then(|client| self.clients.get_mut(&client)) {
            client.served = true;
        }
    }

    fn sent_to_client(&mut self, transfer: &Transfer, turn: Option<u64>) {
        let Some(client) = self.clients.get_mut(&transfer.cookie) else {
            return;
        };
        if !client.takes(transfer) {
            return;
        }
        client.hidden.answers(transfer);
        if client.hidden.is_hidden() && !client.ended {
            self.hidden.insert(transfer.cookie);
        }
        let at_server = turn.filter(|socket| self.servers.contains_key(socket));
        if transfer.flags & TRANSFER_NONE != 0 {
            // The client takes nothing now: what its server has said waits.
            if let Some(server) = at_server.and_then(|socket| self.servers.get_mut(&socket)) {
                server.blocked = true;
            }
            return;
        }
        let servers = &mut self.servers;
        let mut by_memory = false;
        if let Some(at) = place(transfer) {
            self.memory.sent(at, transfer.front, &mut |origin: Origin| {
                let Some((socket, offset)) = origin.from else {
                    return;
                };
                if let Some(server) = servers.get_mut(&socket) {
                    by_memory = true;
                    (client.unsure, client.served) = (false, true);
                    server.blocked = false;
                    server.traffic.passed(Passed {
                        range: offset..offset + origin.length,
                        client: Some(transfer.cookie),
                        by_memory: true,
                    });
                }
            });
        }
        if !by_memory
            && transfer.length > 0
            && let Some(server) = at_server.and_then(|socket| servers.get_mut(&socket))
        {
            server.blocked &= !server.traffic.passed_somehow(transfer.cookie);
        }
    }

    /// Whether what is sent begins as what the client has just said: a pooler that copies says other things on its own
    /// account, and its client's startup packet was none of them.
    fn says(&mut self, client: u64, sent: &Transfer) -> bool {
        let said = self
            .clients
            .get_mut(&client)
            .and_then(|client| client.said.take());
        said.is_some_and(|(front, length)| {
            let both = front.iter().zip(&sent.front);
            both.take(length.min(sent.length) as usize)
                .all(|(said, sent)| said == sent)
        })
    }

    /// The only client that the process has.
    fn sole_client(&self) -> Option<u64> {
        if self.kind != Kind::Pgpool {
            return None;
        }
        let mut open = self.clients.iter().filter(|(_, client)| !client.ended);
        let (cookie, _) = open.next()?;
        open.next().is_none().then_some(*cookie)
    }
}

impl Client {
    /// Whether the transfer is one of plaintext. Encrypted connections begin in the clear.
    fn takes(&mut self, transfer: &Transfer) -> bool {
        if is_encrypted(self.channel, transfer) {
            self.channel = transfer.channel;
            self.hidden.is_seen();
        }
        self.channel == transfer.channel
    }
}

/// Whether this is the first of an encrypted connection's plaintext.
pub(super) fn is_encrypted(channel: u8, transfer: &Transfer) -> bool {
    channel != transfer.channel && transfer.channel != Channel::Socket as u8
}

/// Where in the process' memory the bytes of a call lay.
fn place(transfer: &Transfer) -> Option<Range<u64>> {
    let is_known = transfer.buffer != 0 && transfer.flags & TRANSFER_UNPROVEN == 0;
    let end = transfer.buffer.checked_add(u64::from(transfer.length))?;
    is_known.then_some(transfer.buffer..end)
}
