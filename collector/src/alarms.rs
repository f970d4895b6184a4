//! What somebody must look at: counted, and said in the collector's own chain.
//!
//! Owns the rate. Whoever refuses something raises an alarm and goes on; a flood of refusals must neither fill the log nor hold
//! anybody up. The first of a kind and an agent is told at once, the following ones are counted and told once a minute.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
};
use proto::v1;
use tokio::sync::Notify;

use crate::log::{Originator, unix_ns};

/// How long what repeats is only counted.
const QUIET: Duration = Duration::from_secs(60);

/// Kinds and agents that are told apart within that time: an agent's id costs nobody anything who is not let in. Beyond, alarms are
/// told by their kind alone.
const MAX_APART: usize = 256;

/// Longest detail that is kept.
const MAX_DETAIL_BYTES: usize = 512;

/// Labels of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AlarmLabels {
    /// What happened.
    pub kind: Alarm,
}

/// What somebody must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Alarm {
    /// An agent with the id of another one, and another key.
    OtherKey,
    /// A batch that does not hold, or does not follow the one before.
    RefusedBatch,
    /// An agent said what only the collector may say.
    ForeignAmendment,
    /// An agent that was never enrolled, or whose certificate was replaced.
    UnknownAgent,
    /// An agent that was turned out.
    RevokedAgent,
    /// A certificate that is no good here, or names somebody else.
    WrongCertificate,
    /// An enrolment token that was used, is over, or never was.
    BadToken,
    /// A witness knows more of the log than the log itself.
    RolledBack,
    /// An agent whose clock differs by more than five minutes.
    ClockSkew,
}

impl Alarm {
    /// As in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherKey => "other_key",
            Self::RefusedBatch => "refused_batch",
            Self::ForeignAmendment => "foreign_amendment",
            Self::UnknownAgent => "unknown_agent",
            Self::RevokedAgent => "revoked_agent",
            Self::WrongCertificate => "wrong_certificate",
            Self::BadToken => "bad_token",
            Self::RolledBack => "rolled_back",
            Self::ClockSkew => "clock_skew",
        }
    }
}

/// Where alarms are raised.
#[derive(Debug, Default)]
pub struct Alarms {
    /// By kind.
    pub counted: Family<AlarmLabels, Counter>,
    raised: Mutex<HashMap<(Alarm, String), Raised>>,
    due: Notify,
}

/// Alarms of one kind about one agent.
#[derive(Debug)]
struct Raised {
    detail: String,
    first_ns: u64,
    last_ns: u64,
    /// Since it was told.
    times: u64,
    told: Option<Instant>,
}

impl Alarms {
    /// Raises one. Never waits. `detail` is for people, and says nothing secret.
    pub fn raise(&self, kind: Alarm, agent_id: &str, detail: impl Into<String>) {
        self.counted.get_or_create(&AlarmLabels { kind }).inc();
        let mut detail: String = detail.into();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
        let agent_id = if evidence::is_agent_id(agent_id) {
            agent_id
        } else {
            ""
        };
        let mut raised = self.raised();
        let mut key = (kind, agent_id.to_owned());
        if raised.len() >= MAX_APART && !raised.contains_key(&key) {
            key.1.clear();
        }
        let now = unix_ns();
        let one = raised.entry(key).or_insert_with(|| Raised {
            detail: String::new(),
            first_ns: now,
            last_ns: now,
            times: 0,
            told: None,
        });
        if one.times == 0 {
            tracing::error!(agent = agent_id, kind = kind.name(), detail, "ALARM");
            one.first_ns = now;
            one.detail = detail;
        }
        one.last_ns = now;
        one.times += 1;
        let at_once = one.told.is_none();
        drop(raised);
        if at_once {
            self.due.notify_one();
        }
    }

    /// Says them in the collector's own chain for as long as the log takes them.
    pub async fn tell(self: Arc<Self>, originator: Arc<tokio::sync::Mutex<Originator>>) {
        loop {
            _ = tokio::time::timeout(Duration::from_secs(1), self.due.notified()).await;
            let events = self.take(Instant::now());
            if events.is_empty() {
                continue;
            }
            if let Err(error) = originator.lock().await.alarm(events).await {
                tracing::error!(error = format!("{error:#}"), "alarms are not recorded any more");
                return;
            }
        }
    }

    /// What is to be told now.
    fn take(&self, now: Instant) -> Vec<(v1::Alarm, u64, u64)> {
        let mut raised = self.raised();
        let quiet =
            |told: Option<Instant>| told.is_some_and(|told| now.saturating_duration_since(told) < QUIET);
        let mut due = Vec::new();
        for ((kind, agent_id), one) in raised.iter_mut() {
            if one.times == 0 || quiet(one.told) {
                continue;
            }
            let alarm = v1::Alarm {
                kind: kind.name().to_owned(),
                agent_id: agent_id.clone(),
                detail: std::mem::take(&mut one.detail),
                times: std::mem::take(&mut one.times),
            };
            due.push((alarm, one.first_ns, one.last_ns));
            one.told = Some(now);
        }
        raised.retain(|_, one| one.times > 0 || quiet(one.told));
        due.sort_by_key(|(_, first_ns, _)| *first_ns);
        due
    }

    fn raised(&self) -> MutexGuard<'_, HashMap<(Alarm, String), Raised>> {
        // Nothing panics while it holds the lock.
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_minute() {
        let alarms = Alarms::default();
        let start = Instant::now();
        alarms.raise(Alarm::RefusedBatch, "db1", "the first");
        let told = alarms.take(start);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0.times, told[0].0.detail.as_str()), (1, "the first"));
        for n in 0..10_000 {
            alarms.raise(Alarm::RefusedBatch, "db1", format!("number {n}"));
        }
        assert!(alarms.take(start + QUIET / 2).is_empty());
        let told = alarms.take(start + QUIET);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0.times, told[0].0.detail.as_str()), (10_000, "number 0"));
        assert!(alarms.take(start + QUIET).is_empty(), "told once");
        assert!(alarms.take(start + QUIET * 3).is_empty());
        assert!(alarms.raised().is_empty(), "forgotten when it is over");
    }

    #[test]
    fn names_that_anybody_can_make_up_take_no_room() {
        let alarms = Alarms::default();
        for n in 0..10_000 {
            alarms.raise(Alarm::UnknownAgent, &format!("a{n}"), "x".repeat(10_000));
        }
        let told = alarms.take(Instant::now());
        assert!(told.len() <= MAX_APART + 1, "{}", told.len());
        assert_eq!(told.iter().map(|(alarm, ..)| alarm.times).sum::<u64>(), 10_000);
        assert!(
            told.iter()
                .all(|(alarm, ..)| alarm.detail.len() <= MAX_DETAIL_BYTES)
        );
        alarms.raise(Alarm::UnknownAgent, "../no id", "");
        assert_eq!(alarms.take(Instant::now() + QUIET)[0].0.agent_id, "");
    }
}
