//! The queue between the tap and delivery: bounded, never blocking, and honest about what it had to drop.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::v1;
use tokio::sync::Notify;

use crate::{control::Fill, record::Encoded};

/// Events that wait for delivery.
pub struct Outbox {
    queue: Mutex<Queue>,
    ready: Notify,
    bytes_max: u64,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Encoded>,
    bytes: u64,
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
    pub fn push(&self, event: Encoded) {
        let bytes = event.size() as u64;
        let mut queue = self.lock();
        if queue.bytes + bytes > self.bytes_max {
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
                detail: "the collector was away for longer than the queue could hold".to_owned(),
                ..v1::Gap::default()
            };
            let told = v1::Event {
                ts_start_ns: queue.untold_since_ns,
                ts_end_ns: queue.untold_until_ns,
                body: Some(v1::event::Body::Gap(gap)),
                ..v1::Event::default()
            };
            queue.untold = 0;
            queue.add(Encoded::of(&told));
        }
        queue.add(event);
        drop(queue);
        self.ready.notify_one();
    }

    /// Takes up to `most` events from the front.
    pub fn take(&self, most: usize) -> Vec<Encoded> {
        let mut queue = self.lock();
        let count = most.min(queue.events.len());
        let taken: Vec<Encoded> = queue.events.drain(..count).collect();
        queue.bytes -= taken.iter().map(|event| event.size() as u64).sum::<u64>();
        taken
    }

    /// Waits until there is something to take.
    pub async fn ready(&self) {
        while self.is_empty() {
            self.ready.notified().await;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().events.is_empty()
    }

    /// Events that wait now.
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// How full it is, as it counts.
    pub fn fill(&self) -> Fill {
        Fill {
            used: self.lock().bytes,
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
    fn add(&mut self, event: Encoded) {
        self.bytes += event.size() as u64;
        self.accepted += 1;
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn event() -> Encoded {
        Encoded::of(&v1::Event {
            ts_start_ns: 1,
            ..v1::Event::default()
        })
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told() {
        let outbox = Outbox::new(3 * event().size() as u64);
        for _ in 0..5 {
            outbox.push(event());
        }
        assert_eq!(outbox.totals(), (3, 2));
        assert_eq!(outbox.take(usize::MAX).len(), 3);
        assert_eq!(outbox.pushed(), 4, "the gap is part of it");
        outbox.push(event());
        assert_eq!(outbox.pushed(), 5);
        let taken = outbox.take(usize::MAX);
        assert_eq!(taken.len(), 2);
        let first = v1::Event::decode(taken[0].numbered(1)).expect("an event");
        let Some(v1::event::Body::Gap(gap)) = first.body else {
            panic!("a gap comes first")
        };
        assert_eq!((gap.reason.as_str(), gap.events_missing), ("queue_full", Some(2)));
    }
}
