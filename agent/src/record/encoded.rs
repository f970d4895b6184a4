//! Events in the form in which they go into a batch: what each says itself, and by reference what others say, too.
//!
//! Owns that form. Which definition a batch says already, and where, stands with the definition: looking that up costs an
//! event nothing. Refuses to be kept: an event is written into a batch as soon as it is made.

use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use evidence::Contents;
use prost::Message as _;
use proto::v1;

use super::writer::Writer;
use crate::clock::Clock;

/// An event that lacks nothing but its number.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// All fields but `seq`, `party` and `template`.
    pub(super) bytes: Vec<u8>,
    pub(super) party: Option<Rc<Definition>>,
    pub(super) template: Option<Rc<Definition>>,
    /// `ts_start_ns`.
    pub first_ns: u64,
    /// `ts_end_ns`.
    pub last_ns: u64,
}

/// Something that several events say alike.
#[derive(Debug)]
pub(super) struct Definition {
    /// An encoded `Definition`.
    bytes: Vec<u8>,
    /// The batch that it was said in last, and where there.
    said: Cell<(u64, u32)>,
}

impl Definition {
    pub(super) fn new(definition: &v1::Definition) -> Rc<Self> {
        Self::of(definition.encode_to_vec())
    }

    pub(super) fn of(bytes: Vec<u8>) -> Rc<Self> {
        Rc::new(Self {
            bytes,
            said: Cell::default(),
        })
    }

    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

impl Encoded {
    /// Of any event; its number is dropped.
    pub fn of(event: &v1::Event) -> Self {
        let event = v1::Event {
            seq: 0,
            ..event.clone()
        };
        Self {
            bytes: event.encode_to_vec(),
            party: None,
            template: None,
            first_ns: event.ts_start_ns,
            last_ns: event.ts_end_ns,
        }
    }

    /// An event of the agent itself.
    pub fn own(at_boot_ns: u64, clock: Clock, body: v1::event::Body) -> Self {
        Self::of(&super::own_event(at_boot_ns, clock, body))
    }

    /// An event of the agent itself, of all the time since `from_boot_ns`.
    pub fn own_since(from_boot_ns: u64, to_boot_ns: u64, clock: Clock, body: v1::event::Body) -> Self {
        let event = super::own_event(to_boot_ns, clock, body);
        Self::of(&v1::Event {
            ts_start_ns: clock.utc(from_boot_ns),
            ..event
        })
    }

    /// The whole event under this number; `None` cannot be: what was encoded here can be decoded.
    pub fn whole(&self, number: u64) -> Option<v1::Event> {
        let mut gathered = Gathered::default();
        gathered.add(self);
        let definitions: Vec<&[u8]> = gathered.contents.definitions().collect();
        let event = gathered.contents.events().next()?;
        proto::whole::event(number, event, &definitions).ok()
    }

    /// Bytes that it takes at the most.
    pub fn size(&self) -> usize {
        let definitions = [&self.party, &self.template].into_iter().flatten();
        self.bytes.len() + definitions.map(|definition| definition.size()).sum::<usize>()
    }
}

/// Events of one batch to be, with all that they name.
#[derive(Debug)]
pub struct Gathered {
    /// Tells it from all others of this process.
    number: u64,
    /// What will be sealed.
    pub contents: Contents,
    /// When the first event began.
    pub first_ns: u64,
    /// When the last one ended.
    pub last_ns: u64,
    /// Room to write in.
    names: Writer,
}

impl Default for Gathered {
    fn default() -> Self {
        /// From 1: a definition that was never said says 0.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            contents: Contents::default(),
            first_ns: 0,
            last_ns: 0,
            names: Writer::default(),
        }
    }
}

// Numbers of the fields in event.proto.
const PARTY: u32 = 30;
const TEMPLATE: u32 = 31;

impl Gathered {
    /// Adds an event, and what it names if that was not said yet.
    pub fn add(&mut self, event: &Encoded) {
        if self.contents.is_empty() {
            self.first_ns = event.first_ns;
        }
        self.last_ns = event.last_ns;
        self.names.bytes.clear();
        for (field, definition) in [(PARTY, &event.party), (TEMPLATE, &event.template)] {
            if let Some(definition) = definition {
                let place = self.place(definition);
                self.names.present(field, place.into());
            }
        }
        self.contents.event(&[&event.bytes, &self.names.bytes]);
    }

    fn place(&mut self, definition: &Definition) -> u32 {
        let (number, place) = definition.said.get();
        if number == self.number {
            return place;
        }
        let place = self.contents.definition(&definition.bytes);
        definition.said.set((self.number, place));
        place
    }
}
