//! All connections of a capture, by their two ends. Owns how many there can be and how much memory they hold together.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use crate::{
    connection::{Around, Connection, Sink},
    link::{End, Packet},
    summary::Summary,
};

/// Connections that are kept: a busy pooler has some thousands, and a capture of a whole network many more, most of
/// them short and none of PostgreSQL's. One takes up to 5 KiB beside what it holds.
const CONNECTIONS: usize = 65_536;

/// The part of them that goes when there is no room: one in eight, so that room is not made for each new one.
const CROWDED_OUT: usize = CONNECTIONS / 8;

/// Memory for packets of all connections that wait for others.
const HELD: usize = 256 << 20;

/// Packets between two looks at who waits for too long.
const SWEEP: u64 = 1024;

/// All connections of a capture.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    ports: Vec<u16>,
    table: HashMap<(End, End), Connection>,
    /// Those who wait for something.
    waiting: HashSet<(End, End)>,
    held: usize,
    next_cookie: u64,
    packets: u64,
}

impl Connections {
    /// An empty one. If there are ports, then these are the servers', and other connections are left alone.
    pub(crate) fn new(ports: Vec<u16>) -> Self {
        Self {
            ports,
            next_cookie: 1,
            ..Self::default()
        }
    }

    /// Takes a packet.
    pub(crate) fn handle(&mut self, packet: &Packet<'_>, summary: &mut Summary, sink: &mut Sink<'_>) {
        self.packets += 1;
        let key = key(packet);
        if self.table.len() >= CONNECTIONS && !self.table.contains_key(&key) {
            self.make_room(summary, sink);
        }
        let mut around = Around {
            ports: &self.ports,
            summary,
            next_cookie: &mut self.next_cookie,
            sink,
        };
        let mut held = self.held;
        let connection = match self.table.entry(key) {
            Entry::Vacant(entry) => entry.insert(Connection::new(packet, &self.ports)),
            Entry::Occupied(entry) => {
                let connection = entry.into_mut();
                held -= connection.held_bytes();
                if connection.is_succeeded_by(packet) {
                    connection.close(&mut around);
                    *connection = Connection::new(packet, &self.ports);
                }
                connection
            }
        };
        connection.last = self.packets;
        connection.handle(packet, &mut around);
        if held + connection.held_bytes() > HELD {
            connection.give_up_waiting(&mut around);
        }
        self.held = held + connection.held_bytes();
        if connection.waits() {
            self.waiting.insert(key);
        } else {
            self.waiting.remove(&key);
        }
        if self.packets.is_multiple_of(SWEEP) {
            self.sweep(packet.at, summary, sink);
        }
    }

    /// The capture is over. Connections that are open stay so.
    pub(crate) fn finish(&mut self, summary: &mut Summary, sink: &mut Sink<'_>) {
        let mut connections: Vec<_> = self.table.drain().map(|(_, connection)| connection).collect();
        connections.sort_by_key(Connection::cookie);
        for mut connection in connections {
            connection.give_up_waiting(&mut Around {
                ports: &self.ports,
                summary,
                next_cookie: &mut self.next_cookie,
                sink,
            });
        }
        self.waiting.clear();
        self.held = 0;
    }

    /// Panics if what is held is not what is counted, or more than it may be.
    pub(crate) fn assert_bounds(&self) {
        let held: usize = self.table.values().map(Connection::held_bytes).sum();
        assert_eq!(held, self.held, "held bytes are counted wrong");
        assert!(held <= HELD, "{held} bytes are held");
        assert!(
            self.table.len() <= CONNECTIONS,
            "{} connections",
            self.table.len()
        );
    }

    fn sweep(&mut self, now: u64, summary: &mut Summary, sink: &mut Sink<'_>) {
        let Self {
            table,
            waiting,
            held,
            next_cookie,
            ports,
            ..
        } = self;
        waiting.retain(|key| {
            let Some(connection) = table.get_mut(key) else {
                return false;
            };
            if !connection.has_waited(now) {
                return true;
            }
            *held -= connection.held_bytes();
            connection.give_up_waiting(&mut Around {
                ports,
                summary,
                next_cookie,
                sink,
            });
            *held += connection.held_bytes();
            false
        });
    }

    fn make_room(&mut self, summary: &mut Summary, sink: &mut Sink<'_>) {
        let mut by_worth: Vec<_> = self
            .table
            .iter()
            .map(|(key, connection)| (connection.worth(), *key))
            .collect();
        if by_worth.len() > CROWDED_OUT {
            by_worth.select_nth_unstable(CROWDED_OUT);
            by_worth.truncate(CROWDED_OUT);
        }
        by_worth.sort_unstable();
        for (_, key) in by_worth {
            let Some(mut connection) = self.table.remove(&key) else {
                continue;
            };
            self.waiting.remove(&key);
            self.held -= connection.held_bytes();
            summary.crowded_out += u64::from(connection.cookie().is_some());
            connection.close(&mut Around {
                ports: &self.ports,
                summary,
                next_cookie: &mut self.next_cookie,
                sink,
            });
        }
    }
}

fn key(packet: &Packet<'_>) -> (End, End) {
    let (one, other) = (packet.source, packet.destination);
    if one <= other { (one, other) } else { (other, one) }
}
