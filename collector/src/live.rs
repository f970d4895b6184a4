//! Events as they arrive: what the store takes in, and the broadcast that live views listen to.
//!
//! Owns the bounded channel between ingest and watchers. Refuses to wait: a watcher that cannot keep up loses the
//! oldest events and is told how many, and ingest never notices.

use std::sync::Arc;

use proto::v1;
use serde_json::Value;
use tokio::sync::broadcast;

/// One event as the evidence log holds it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The agent that recorded it.
    pub agent: Arc<str>,
    /// The batch that carried it.
    pub batch_sequence: u64,
    /// The event itself.
    pub event: v1::Event,
}

/// One event on its way to watchers: its JSON form as one line, and what watchers filter by.
#[derive(Debug)]
pub struct Sighting {
    /// `query`, `gap`, …
    pub kind: String,
    /// Absent where the event has no attribution.
    pub principal: Option<String>,
    /// pgAudit's class, of queries only.
    pub class: Option<String>,
    /// The JSON form, without line breaks.
    pub json: String,
}

/// Which sightings a watcher wants; an absent field wants all.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Filter {
    /// The kind, exactly.
    pub kind: Option<String>,
    /// Part of the principal.
    pub principal: Option<String>,
    /// The class, in any case.
    pub class: Option<String>,
}

/// The broadcast's sending side.
#[derive(Debug)]
pub struct Live(broadcast::Sender<Arc<Sighting>>);

impl Default for Live {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Live {
    /// From now on, everything that is published, up to [`BACKLOG`] events behind.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Sighting>> {
        self.0.subscribe()
    }

    /// Hands an event to whoever watches; free when nobody does.
    pub fn publish(&self, event: &Value, json: &str) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let sighting = Sighting {
            kind: text("/kind").unwrap_or_default(),
            principal: text("/attribution/principal"),
            class: text("/meaning/class"),
            json: json.to_owned(),
        };
        // Nobody listening any more is no error.
        let _ = self.0.send(Arc::new(sighting));
    }
}

impl Filter {
    /// Whether this watcher wants the event.
    pub fn wants(&self, one: &Sighting) -> bool {
        let kind = self.kind.as_ref().is_none_or(|kind| *kind == one.kind);
        let class = self.class.as_ref().is_none_or(|class| {
            one.class
                .as_ref()
                .is_some_and(|found| found.eq_ignore_ascii_case(class))
        });
        let principal = self.principal.as_ref().is_none_or(|part| {
            one.principal
                .as_ref()
                .is_some_and(|found| found.contains(part.as_str()))
        });
        kind && class && principal
    }
}

/// Events a watcher may fall behind before it loses the oldest: a second or so of a busy database, and a bounded
/// amount of memory (events are shared, not copied, between watchers).
pub const BACKLOG: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_a_conjunction_and_absent_ones_want_all() {
        let one = Sighting {
            kind: "query".into(),
            principal: Some("spiffe://td/host/h/unit/shop.service".into()),
            class: Some("READ".into()),
            json: "{}".into(),
        };
        assert!(Filter::default().wants(&one));
        let mut filter = Filter {
            principal: Some("shop".into()),
            class: Some("read".into()),
            ..Default::default()
        };
        assert!(filter.wants(&one));
        filter.kind = Some("gap".into());
        assert!(!filter.wants(&one));
        assert!(
            !Filter {
                principal: Some("other".into()),
                ..Default::default()
            }
            .wants(&one)
        );
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_lost_and_ingest_goes_on() {
        let live = Live::default();
        let mut slow = live.subscribe();
        for n in 0..BACKLOG + 10 {
            live.publish(&serde_json::json!({ "kind": "query" }), &n.to_string());
        }
        assert!(matches!(
            slow.recv().await,
            Err(broadcast::error::RecvError::Lagged(10))
        ));
        assert_eq!(slow.recv().await.unwrap().json, "10");
    }
}
