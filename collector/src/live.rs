//! Events as they arrive: what the store takes in, and the broadcast that live views listen to.
//!
//! Owns the bounded channel between ingest and watchers. Refuses to wait: a watcher that cannot keep up loses the
//! oldest events and is told how many, and ingest never notices.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use proto::{json, whole};
use tokio::sync::broadcast;

use crate::{
    expectations::{Judge, with_mark},
    store::{Amends, Shown},
};
use record::Records;

/// One event on its way to watchers: what they filter by, and its JSON form for those that want it.
#[derive(Default)]
pub struct Sighting {
    /// `query`, `gap`, …
    pub kind: &'static str,
    /// Absent where the event has no attribution.
    pub principal: Option<String>,
    /// pgAudit's class, of queries only.
    pub class: Option<String>,
    agent: Arc<str>,
    seq: u64,
    encoded: Bytes,
    definitions: Arc<[Bytes]>,
    /// Of a session that has another name by now.
    amended: Option<(Shown, Amends)>,
    judge: Option<Arc<Judge>>,
    json: OnceLock<String>,
}

impl Sighting {
    /// The JSON form, without line breaks; made when it is first asked for. Reads the evidence log where the session was
    /// [amended](Self::is_amended).
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| {
            // It was decoded before it came here.
            let event = whole::event(self.seq, &self.encoded, &self.definitions).unwrap_or_default();
            let amended = self.amended.clone().and_then(|(mut shown, amends)| {
                let form = shown.form(&self.agent, &event, Some(amends));
                form.inspect_err(|error| {
                    tracing::error!(error = format!("{error:#}"), "an amendment cannot be read");
                })
                .ok()
            });
            amended.unwrap_or_else(|| {
                let verdict = self.judge.as_ref().and_then(|judge| judge.of_event(&event, None));
                with_mark(json::event(&self.agent, &event), verdict.as_deref())
            })
        })
    }

    /// Whether its session has another name than the one that it was recorded with.
    #[must_use]
    pub fn is_amended(&self) -> bool {
        self.amended.is_some()
    }
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

    /// Hands events to whoever watches, under the names that `shown` has for their sessions and with its marks; free when
    /// nobody does.
    pub(crate) fn publish(&self, events: &Records, shown: impl FnOnce() -> Shown) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let shown = shown();
        let judge = shown.judge();
        // Copies, not parts of the whole batch, which the slowest watcher would keep in memory.
        let definitions: Arc<[Bytes]> = events
            .definitions
            .iter()
            .map(|definition| Bytes::copy_from_slice(definition))
            .collect();
        for (record, encoded) in events.records.iter().zip(&events.encoded) {
            let party = record.party.as_ref();
            let attribution = party.and_then(|party| party.attribution.as_ref());
            let session = party.and_then(|party| party.session.as_ref());
            let amends = shown.amends(&events.agent, record.seq, session, attribution);
            let principal = match amends {
                Some(amends) => shown.principal(amends),
                None => attribution.map(|attribution| attribution.principal.clone()),
            };
            let sighting = Sighting {
                kind: record.kind(),
                principal: principal.filter(|principal| !principal.is_empty()),
                amended: amends.map(|amends| (shown.clone(), amends)),
                class: record.meaning().and_then(|meaning| json::class(meaning.class)),
                agent: Arc::clone(&events.agent),
                seq: record.seq,
                encoded: Bytes::copy_from_slice(encoded),
                definitions: Arc::clone(&definitions),
                judge: judge.clone(),
                json: OnceLock::new(),
            };
            // Nobody listening any more is no error.
            _ = self.0.send(Arc::new(sighting));
        }
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
    use proto::v1;

    use super::*;

    #[test]
    fn filters_are_a_conjunction_and_absent_ones_want_all() {
        let one = Sighting {
            kind: "query",
            principal: Some("spiffe://td/host/h/unit/shop.service".into()),
            class: Some("READ".into()),
            ..Default::default()
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
        for seq in 0..BACKLOG as u64 + 10 {
            let event = v1::Event {
                seq,
                ..Default::default()
            };
            live.publish(&Records::of("a", 1, vec![event]), Shown::default);
        }
        assert!(matches!(
            slow.recv().await,
            Err(broadcast::error::RecvError::Lagged(10))
        ));
        let next = slow.recv().await.unwrap();
        assert_eq!(
            next.json(),
            r#"{"kind":"unknown","event_id":"a-10","agent":"a","seq":10}"#
        );
    }
}
