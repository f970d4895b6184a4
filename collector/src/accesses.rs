//! Who was shown what: each question that is answered is an event of the collector's own chain.
//!
//! Owns the rate, and how long an answer waits. The first question of its kind is durable before its answer goes out, or half a
//! second has passed; what repeats within a minute is counted and told then, so that a page that asks every few seconds does not fill
//! the log. Beyond so many that differ, they are told by who and kind alone. Refuses to fail a question: an answer that cannot be
//! recorded is given, and the log says so in an error.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use proto::v1::{self, event::Body};
use tokio::sync::{Notify, oneshot};

use crate::log::{Originator, unix_ns};

/// Who asks, what, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// As far as it is known.
    pub who: String,
    /// Where from.
    pub address: String,
    /// By their own word.
    pub purpose: String,
    /// "query", "events", …
    pub kind: &'static str,
    /// The SQL text, or the parameters.
    pub text: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered {
    /// Rows that were shown.
    pub rows: u64,
    /// It was refused, or failed.
    pub failed: bool,
}

/// Where questions are told.
#[derive(Debug, Default)]
pub struct Accesses {
    asked: Mutex<HashMap<(Question, bool), Asked>>,
    due: Notify,
}

/// Questions that are alike.
#[derive(Debug)]
struct Asked {
    first_ns: u64,
    last_ns: u64,
    rows: u64,
    /// Since it was told.
    times: u64,
    told: Option<Instant>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Accesses {
    /// Tells a question that was asked at `since_ns` and can be answered now. Returns when that is durable, or takes too long.
    pub async fn answered(&self, mut question: Question, answered: Answered, since_ns: u64) {
        for text in [
            &mut question.text,
            &mut question.purpose,
            &mut question.who,
            &mut question.address,
        ] {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        }
        let (done, durable) = oneshot::channel();
        {
            let mut asked = self.asked();
            if asked.len() >= MAX_APART && !asked.contains_key(&(question.clone(), answered.failed)) {
                question = Question {
                    kind: question.kind,
                    who: question.who,
                    ..Question::default()
                };
            }
            let one = asked.entry((question, answered.failed)).or_insert_with(|| Asked {
                first_ns: since_ns,
                last_ns: since_ns,
                rows: 0,
                times: 0,
                told: None,
                waiting: Vec::new(),
            });
            if one.times == 0 {
                one.first_ns = since_ns;
            }
            one.last_ns = unix_ns();
            one.rows += answered.rows;
            one.times += 1;
            if one.told.is_some() {
                return;
            }
            one.waiting.push(done);
        }
        self.due.notify_one();
        // Gone, or too slow: the answer waits no longer.
        _ = tokio::time::timeout(PATIENCE, durable).await;
    }

    /// Says them in the collector's own chain for as long as the log takes them.
    pub async fn tell(self: Arc<Self>, originator: Arc<tokio::sync::Mutex<Originator>>) {
        loop {
            _ = tokio::time::timeout(Duration::from_secs(1), self.due.notified()).await;
            if !self.say(&originator, Instant::now()).await {
                return;
            }
        }
    }

    /// Says what was not said yet, at the end.
    pub async fn say_all(&self, originator: &tokio::sync::Mutex<Originator>) {
        self.say(originator, Instant::now() + QUIET).await;
    }

    async fn say(&self, originator: &tokio::sync::Mutex<Originator>, now: Instant) -> bool {
        let (events, waiting) = self.take(now);
        if events.is_empty() {
            return true;
        }
        match originator.lock().await.say(events).await {
            Ok(_) => {
                for done in waiting {
                    // Whoever waited may have given up.
                    _ = done.send(());
                }
                true
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "who asks what is not recorded any more"
                );
                false
            }
        }
    }

    /// What is to be told now, and who waits for it.
    fn take(&self, now: Instant) -> (Vec<v1::Event>, Vec<oneshot::Sender<()>>) {
        let mut asked = self.asked();
        let quiet =
            |told: Option<Instant>| told.is_some_and(|told| now.saturating_duration_since(told) < QUIET);
        let (mut events, mut waiting) = (Vec::new(), Vec::new());
        for ((question, failed), one) in asked.iter_mut() {
            if one.times == 0 || quiet(one.told) {
                continue;
            }
            events.push(event(question, *failed, one));
            (one.times, one.rows) = (0, 0);
            one.told = Some(now);
            waiting.append(&mut one.waiting);
        }
        asked.retain(|_, one| one.times > 0 || quiet(one.told));
        (events, waiting)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<(Question, bool), Asked>> {
        // Nothing panics while it holds the lock with a change half made.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(question: &Question, failed: bool, of: &Asked) -> v1::Event {
    let body = Body::Inquiry(v1::Inquiry {
        who: question.who.clone(),
        address: question.address.clone(),
        purpose: question.purpose.clone(),
        kind: question.kind.to_owned(),
        question: question.text.clone(),
        rows: of.rows,
        failed,
        times: of.times,
    });
    v1::Event {
        ts_start_ns: of.first_ns,
        ts_end_ns: of.last_ns,
        body: Some(body),
        ..v1::Event::default()
    }
}

/// How long what repeats is only counted.
const QUIET: Duration = Duration::from_secs(60);

/// How long an answer waits for its record.
const PATIENCE: Duration = Duration::from_millis(500);

/// Questions that are told apart within that time: each takes some kilobytes at its cap.
const MAX_APART: usize = 1024;

/// Longest text that is kept of a question.
const MAX_TEXT_BYTES: usize = 4096;

#[cfg(test)]
impl Accesses {
    /// Kind, text, purpose and who of each question that was asked, the rows that it was answered with, and whether it failed.
    pub(crate) fn asked_so_far(&self) -> Vec<(String, String, String, String, u64, bool)> {
        let asked = self.asked();
        let of = |((question, failed), one): (&(Question, bool), &Asked)| {
            let Question {
                who,
                purpose,
                kind,
                text,
                ..
            } = question.clone();
            (kind.to_owned(), text, purpose, who, one.rows, *failed)
        };
        asked.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(text: &str) -> Question {
        Question {
            who: "local".to_owned(),
            kind: "query",
            text: text.to_owned(),
            ..Question::default()
        }
    }

    fn inquiries(events: &[v1::Event]) -> Vec<(String, u64, u64)> {
        let of = |event: &v1::Event| match &event.body {
            Some(Body::Inquiry(of)) => (of.question.clone(), of.rows, of.times),
            other => panic!("{other:?}"),
        };
        let mut all: Vec<_> = events.iter().map(of).collect();
        all.sort();
        all
    }

    async fn ask(accesses: &Accesses, text: &str, rows: u64) {
        let answered = Answered { rows, failed: false };
        // Nobody tells it here: the answer waits only so long.
        tokio::time::timeout(Duration::ZERO, accesses.answered(question(text), answered, 7))
            .await
            .ok();
    }

    #[tokio::test]
    async fn a_question_is_told_at_once_and_what_repeats_is_counted() {
        let accesses = Accesses::default();
        let start = Instant::now();
        ask(&accesses, "SELECT 1", 3).await;
        let (told, waiting) = accesses.take(start);
        assert_eq!(inquiries(&told), [("SELECT 1".to_owned(), 3, 1)]);
        assert_eq!((told[0].ts_start_ns, waiting.len()), (7, 1));
        for _ in 0..10 {
            ask(&accesses, "SELECT 1", 2).await;
        }
        ask(&accesses, "SELECT 2", 1).await;
        let (told, _) = accesses.take(start + QUIET / 2);
        assert_eq!(inquiries(&told), [("SELECT 2".to_owned(), 1, 1)]);
        let (told, waiting) = accesses.take(start + QUIET);
        assert_eq!(inquiries(&told), [("SELECT 1".to_owned(), 20, 10)]);
        assert!(waiting.is_empty(), "what repeats is not waited for");
        assert!(accesses.take(start + QUIET * 4).0.is_empty() && accesses.asked().is_empty());
    }

    #[tokio::test]
    async fn a_flood_takes_no_room() {
        let accesses = Accesses::default();
        for n in 0..5000 {
            ask(&accesses, &format!("{n} {}", "x".repeat(10_000)), 1).await;
        }
        let (told, _) = accesses.take(Instant::now());
        assert!(told.len() <= MAX_APART + 1, "{}", told.len());
        let all = inquiries(&told);
        assert_eq!(all.iter().map(|(_, _, times)| times).sum::<u64>(), 5000);
        assert!(all.iter().all(|(text, ..)| text.len() <= MAX_TEXT_BYTES));
    }
}
