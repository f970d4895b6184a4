//! The queue between the tap and delivery: bounded, never blocking, and honest about what it had to drop.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prost::Message as _;
use proto::v1;
use tokio::sync::Notify;

use crate::control::Fill;

/// Events that wait for delivery.
pub struct Outbox {
    queue: Mutex<Queue>,
    ready: Notify,
    bytes_max: u64,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<(v1::Event, u64)>,
    bytes: u64,
    /// Dropped since the last gap event that said so.
    untold: u64,
    accepted: u64,
    dropped: u64,
}

/// What one event costs in memory beyond its encoding: strings and vectors of the decoded form.
const OVERHEAD: u64 = 512;

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
    pub fn push(&self, event: v1::Event) {
        let bytes = event.encoded_len() as u64 + OVERHEAD;
        let mut queue = self.lock();
        if queue.bytes + bytes > self.bytes_max {
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
            let at = event.ts_start_ns;
            let told = v1::Event {
                ts_start_ns: at,
                ts_end_ns: at,
                body: Some(v1::event::Body::Gap(gap)),
                ..v1::Event::default()
            };
            queue.untold = 0;
            queue.add(told, OVERHEAD);
        }
        queue.add(event, bytes);
        drop(queue);
        self.ready.notify_one();
    }

    /// Takes up to `most` events from the front.
    pub fn take(&self, most: usize) -> Vec<v1::Event> {
        let mut queue = self.lock();
        let count = most.min(queue.events.len());
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let Some((event, bytes)) = queue.events.pop_front() else {
                break;
            };
            queue.bytes -= bytes;
            taken.push(event);
        }
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
    fn add(&mut self, event: v1::Event, bytes: u64) {
        self.bytes += bytes;
        self.accepted += 1;
        self.events.push_back((event, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> v1::Event {
        v1::Event {
            ts_start_ns: 1,
            ..v1::Event::default()
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told() {
        let outbox = Outbox::new(3 * (OVERHEAD + 2));
        for _ in 0..5 {
            outbox.push(event());
        }
        assert_eq!(outbox.totals(), (3, 2));
        assert_eq!(outbox.take(usize::MAX).len(), 3);
        outbox.push(event());
        let taken = outbox.take(usize::MAX);
        assert_eq!(taken.len(), 2);
        let Some(v1::event::Body::Gap(gap)) = &taken[0].body else {
            panic!("a gap comes first")
        };
        assert_eq!((gap.reason.as_str(), gap.events_missing), ("queue_full", Some(2)));
    }
}
