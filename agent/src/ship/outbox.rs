//! The queue between the tap and delivery: bounded, never blocking, and honest about what it had to drop.
//!
//! Events are gathered into batches as they come, so that what waits is what will be sealed, and delivery is handed
//! hundreds of events at a time.

use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::v1;
use tokio::sync::Notify;

use crate::{
    control::Fill,
    record::{Encoded, Gathered},
};

/// Events in one batch at the most: enough to make signing and definitions cheap, few enough to be durable soon.
const BATCH_EVENTS: usize = 2048;

/// Bytes in one batch, about: far below what a collector takes.
const BATCH_BYTES: usize = 1 << 20;

/// Events that wait for delivery.
pub struct Outbox {
    queue: Mutex<Queue>,
    ready: Notify,
    bytes_max: u64,
}

#[derive(Default)]
struct Queue {
    /// Batches that take no more.
    full: VecDeque<Gathered>,
    /// Bytes of those.
    full_bytes: u64,
    /// Events in those.
    full_events: usize,
    open: Gathered,
    /// Dropped since the last gap event that said so.
    untold: u64,
    /// From when on.
    untold_since_ns: u64,
    /// Until when.
    untold_until_ns: u64,
    accepted: u64,
    dropped: u64,
}

impl Outbox {
    /// An empty one that holds at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            queue: Mutex::default(),
            ready: Notify::new(),
            bytes_max,
        }
    }

    /// Takes an event, or counts it as dropped if there is no room.
    pub fn push(&self, event: &Encoded) {
        let bytes = event.size() as u64;
        let mut queue = self.lock();
        let was = queue.state();
        if queue.bytes() + bytes > self.bytes_max {
            if queue.untold == 0 {
                queue.untold_since_ns = event.first_ns;
            }
            queue.untold_until_ns = queue.untold_until_ns.max(event.last_ns);
            queue.dropped += 1;
            queue.untold += 1;
            return;
        }
        if queue.untold > 0 {
            let gap = v1::Gap {
                reason: "queue_full".to_owned(),
                events_missing: Some(queue.untold),
                detail: "the collector was away for longer than spool and queue could hold".to_owned(),
                ..v1::Gap::default()
            };
            let told = v1::Event {
                ts_start_ns: queue.untold_since_ns,
                ts_end_ns: queue.untold_until_ns,
                body: Some(v1::event::Body::Gap(gap)),
                ..v1::Event::default()
            };
            queue.untold = 0;
            queue.add(&Encoded::of(&told));
        }
        queue.add(event);
        let is = queue.state();
        drop(queue);
        if is != was {
            self.ready.notify_one();
        }
    }

    /// Takes the oldest batch: a full one, or what there is.
    pub fn take(&self) -> Option<Gathered> {
        let mut queue = self.lock();
        if let Some(batch) = queue.full.pop_front() {
            queue.full_bytes -= batch.contents.size() as u64;
            queue.full_events -= batch.contents.len();
            return Some(batch);
        }
        (!queue.open.contents.is_empty()).then(|| mem::take(&mut queue.open))
    }

    /// Waits until there is something to take.
    pub async fn ready(&self) {
        while self.is_empty() {
            self.ready.notified().await;
        }
    }

    /// Waits until a batch is full.
    pub async fn full(&self) {
        while self.lock().full.is_empty() {
            self.ready.notified().await;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events that wait now.
    pub fn len(&self) -> usize {
        let queue = self.lock();
        queue.full_events + queue.open.contents.len()
    }

    /// How full it is, as it counts.
    pub fn fill(&self) -> Fill {
        Fill {
            used: self.lock().bytes(),
            limit: self.bytes_max,
        }
    }

    /// How many events have to be taken until everything pushed so far has been: those accepted, and the gap that will tell
    /// of those that were dropped since.
    pub fn pushed(&self) -> u64 {
        let queue = self.lock();
        queue.accepted + u64::from(queue.untold > 0)
    }

    /// Events accepted and dropped since the start.
    pub fn totals(&self) -> (u64, u64) {
        let queue = self.lock();
        (queue.accepted, queue.dropped)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements that change it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, event: &Encoded) {
        self.accepted += 1;
        self.open.add(event);
        let contents = &self.open.contents;
        if contents.len() >= BATCH_EVENTS || contents.size() >= BATCH_BYTES {
            self.full_bytes += contents.size() as u64;
            self.full_events += contents.len();
            self.full.push_back(mem::take(&mut self.open));
        }
    }

    fn bytes(&self) -> u64 {
        self.full_bytes + self.open.contents.size() as u64
    }

    /// What delivery waits for: that there is something, and that there is a full batch. In between nobody is woken.
    fn state(&self) -> (bool, bool) {
        (!self.open.contents.is_empty(), !self.full.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Encoded {
        Encoded::of(&v1::Event {
            ts_start_ns: 1,
            ..v1::Event::default()
        })
    }

    fn whole(batch: &Gathered) -> Vec<v1::Event> {
        let definitions: Vec<&[u8]> = batch.contents.definitions().collect();
        let events = batch.contents.events().zip(1..);
        events
            .map(|(event, number)| proto::whole::event(number, event, &definitions).expect("an event"))
            .collect()
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told() {
        let mut batch = Gathered::default();
        for _ in 0..3 {
            batch.add(&event());
        }
        let outbox = Outbox::new(batch.contents.size() as u64);
        for _ in 0..5 {
            outbox.push(&event());
        }
        assert_eq!(outbox.totals(), (3, 2));
        assert_eq!(outbox.fill().used, outbox.fill().limit);
        assert_eq!(outbox.take().map(|batch| batch.contents.len()), Some(3));
        assert!(outbox.is_empty() && outbox.fill().used == 0);
        assert_eq!(outbox.pushed(), 4, "the gap is part of it");
        outbox.push(&event());
        assert_eq!(outbox.pushed(), 5);
        let taken = outbox.take().expect("a batch");
        let [first, _] = whole(&taken).try_into().expect("two events");
        let Some(v1::event::Body::Gap(gap)) = first.body else {
            panic!("a gap comes first")
        };
        assert_eq!((gap.reason.as_str(), gap.events_missing), ("queue_full", Some(2)));
    }

    #[tokio::test]
    async fn batches_come_out_in_order_and_full_ones_without_waiting() {
        let outbox = Outbox::new(u64::MAX);
        let events = BATCH_EVENTS * 2 + 3;
        for n in 0..events {
            let timed = v1::Event {
                ts_start_ns: n as u64 + 1,
                ts_end_ns: n as u64 + 2,
                ..v1::Event::default()
            };
            outbox.push(&Encoded::of(&timed));
        }
        assert_eq!(outbox.len(), events);
        outbox.full().await;
        outbox.ready().await;
        let mut next = 1;
        for expected in [BATCH_EVENTS, BATCH_EVENTS, 3] {
            let batch = outbox.take().expect("a batch");
            assert_eq!(batch.contents.len(), expected);
            assert_eq!((batch.first_ns, batch.last_ns), (next, next + expected as u64));
            next += expected as u64;
        }
        assert!(outbox.take().is_none());
        assert_eq!(outbox.fill().used, 0);
        let long = v1::Event {
            body: Some(v1::event::Body::Gap(v1::Gap {
                detail: "x".repeat(BATCH_BYTES),
                ..v1::Gap::default()
            })),
            ..v1::Event::default()
        };
        outbox.push(&Encoded::of(&long));
        outbox.full().await;
    }
}
