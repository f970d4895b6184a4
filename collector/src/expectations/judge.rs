//! One inventory, asked about what was seen, again and again.
//!
//! Owns the memory of its answers: millions of events differ in few of the things that are asked about. Everything that is
//! asked may be hostile text; it is bounded here.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use inventory::{Entry, Inventory, Mark, Seen};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use proto::v1;
use serde_json::{Map, Value, json};

/// An inventory and its answers so far.
#[derive(Debug)]
pub struct Judge {
    inventory: Inventory,
    answers: Mutex<HashMap<Kept, Arc<Verdict>>>,
}

/// What is asked about an event.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Whose it is; `None` counts as "unknown".
    pub principal: Option<&'a str>,
    /// The role that it logged in as.
    pub role: Option<&'a str>,
    /// The database.
    pub database: Option<&'a str>,
    /// The client's address, in text; anything but an IP address is none.
    pub address: Option<&'a str>,
    /// The day (UTC), counted from 1970-01-01; `None` if the time is not known, and then no credential has expired.
    pub day: Option<i64>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `expected`, `unexpected` or `not in inventory`.
    pub mark: &'static str,
    /// Why it is unexpected.
    pub because: Option<String>,
    /// What the entry that decided says of itself, as JSON.
    about: Map<String, Value>,
}

/// An [`Asked`] that can be kept.
#[derive(Debug, Hash, PartialEq, Eq)]
struct Kept([Option<String>; 4], Option<i64>);

impl Judge {
    /// One without answers.
    #[must_use]
    pub fn new(inventory: Inventory) -> Self {
        Self {
            inventory,
            answers: Mutex::default(),
        }
    }

    /// What it judges by.
    #[must_use]
    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The answer to one question.
    pub fn verdict(&self, asked: &Asked<'_>) -> Arc<Verdict> {
        let Asked {
            principal,
            role,
            database,
            address,
            day,
        } = *asked;
        let texts = [principal, role, database, address];
        if texts.iter().flatten().map(|text| text.len()).sum::<usize>() > KEPT_BYTES {
            return Arc::new(self.judged(asked));
        }
        let kept = Kept(texts.map(|text| text.map(str::to_owned)), day);
        {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = answers.get(&kept) {
                return Arc::clone(known);
            }
        }
        // Not under the lock: with a long inventory it takes a while.
        let verdict = Arc::new(self.judged(asked));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= KEPT_ANSWERS {
            answers.clear();
        }
        answers.insert(kept, Arc::clone(&verdict));
        verdict
    }

    /// The answer about an event; `None` if it is of no session. Whose it is says `amended`, where it was amended.
    pub fn of_event(&self, event: &v1::Event, amended: Option<&v1::Attribution>) -> Option<Arc<Verdict>> {
        let session = event.session.as_ref().filter(|session| !session.id.is_empty())?;
        let attribution = amended.or(event.attribution.as_ref());
        // A pooled statement comes from the pooler's address, whoever sent it.
        let is_pooled = attribution.and_then(attribution::client_session).is_some();
        let client = session.client.as_ref().filter(|_| !is_pooled);
        let time = i64::try_from(event.ts_start_ns).ok().filter(|time| *time != 0);
        Some(self.verdict(&Asked {
            principal: attribution.and_then(|attribution| text(&attribution.principal)),
            role: text(&session.login_role),
            database: text(&session.database),
            address: client.and_then(|client| text(&client.addr)),
            day: time.map(day),
        }))
    }

    fn judged(&self, asked: &Asked<'_>) -> Verdict {
        let seen = Seen {
            principal: asked.principal.unwrap_or(UNKNOWN),
            role: asked.role,
            database: asked.database,
            from: asked
                .address
                .and_then(|text| text.parse::<IpAddr>().ok())
                .map(|address| address.to_canonical()),
            on: asked.day.and_then(date).unwrap_or(Date::MIN),
        };
        let mark = self.inventory.judge(&seen);
        let (because, entry) = match &mark {
            Mark::Expected(entry) => (None, Some(*entry)),
            Mark::Unexpected(entry, surprises) => {
                let words: Vec<String> = surprises.iter().map(ToString::to_string).collect();
                (Some(cut(words.join("; "))), Some(*entry))
            }
            Mark::NotListed => (None, None),
        };
        Verdict {
            mark: mark.name(),
            because,
            about: entry.map(about).unwrap_or_default(),
        }
    }
}

/// The JSON form of an event with the mark that it has.
#[must_use]
pub fn with_mark(mut event: String, verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else { return event };
    let mut marked = Map::new();
    marked.insert("mark".into(), json!(verdict.mark));
    if let Some(because) = &verdict.because {
        marked.insert("because".into(), json!(because));
    }
    marked.extend(verdict.about.clone());
    // It is an object, and never an empty one.
    if event.ends_with('}') {
        event.pop();
        event.push_str(&format!(",\"inventory\":{}}}", Value::Object(marked)));
    }
    event
}

/// The day of a time in Unix nanoseconds.
#[must_use]
pub const fn day(unix_ns: i64) -> i64 {
    unix_ns.div_euclid(DAY_NS)
}

fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

fn date(day: i64) -> Option<Date> {
    let at = Timestamp::from_second(day.checked_mul(86_400)?).ok()?;
    Some(at.to_zoned(TimeZone::UTC).date())
}

fn about(entry: &Entry) -> Map<String, Value> {
    let mut about = Map::new();
    about.insert("owner".into(), json!(entry.owner));
    for (name, value) in [
        ("purpose", entry.purpose.clone()),
        ("approved_by", entry.approved_by.clone()),
        ("approved_on", entry.approved_on.map(|on| on.to_string())),
    ] {
        if let Some(value) = value {
            about.insert(name.into(), json!(value));
        }
    }
    about
}

/// Roles and databases are clients' texts, and of any length.
fn cut(mut text: String) -> String {
    if text.len() > BECAUSE_BYTES {
        let end = text.floor_char_boundary(BECAUSE_BYTES);
        text.truncate(end);
        text.push('…');
    }
    text
}

const UNKNOWN: &str = "unknown";

const DAY_NS: i64 = 86_400_000_000_000;

/// Answers kept: a day's combinations of a large site. With [`KEPT_BYTES`] it bounds what hostile names can take.
const KEPT_ANSWERS: usize = 16_384;

/// Longest question whose answer is kept.
const KEPT_BYTES: usize = 1024;

/// Longest reason: names of roles and databases have at most 63 bytes in an ordinary build of PostgreSQL.
const BECAUSE_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[[principal]]\nid = \"spiffe://x/a\"\nowner = \"team\"\npurpose = \"shop\"\napproved_by = \"eve\"\n\
        roles = [\"app\"]\nfrom = [\"10.0.0.0/8\"]\ncredential = { expires = 2026-06-30 }\n";

    fn judge() -> Judge {
        Judge::new(Inventory::parse(TEXT).unwrap())
    }

    fn asked<'a>(principal: &'a str, role: &'a str) -> Asked<'a> {
        Asked {
            principal: Some(principal),
            role: Some(role),
            database: Some("shop"),
            address: Some("::ffff:10.0.0.5"),
            day: Some(day(1_782_777_600_000_000_000)),
        }
    }

    #[test]
    fn who_has_no_name_is_never_expected() {
        let judge = judge();
        for principal in [None, Some("unknown"), Some("")] {
            let one = Asked {
                principal,
                ..asked("", "app")
            };
            assert_eq!(judge.verdict(&one).mark, "not in inventory");
        }
    }

    #[test]
    fn answers_are_those_of_the_inventory_also_when_they_are_remembered() {
        let judge = judge();
        for _ in 0..2 {
            assert_eq!(
                judge.verdict(&asked("spiffe://x/a", "app")).mark,
                "expected",
                "an IPv4 address in IPv6's form, on the last day"
            );
            let late = Asked {
                day: asked("", "").day.map(|day| day + 1),
                ..asked("spiffe://x/a", "other")
            };
            let verdict = judge.verdict(&late);
            assert_eq!(
                (verdict.mark, verdict.because.as_deref()),
                (
                    "unexpected",
                    Some("role other is not listed; the credential expired on 2026-06-30")
                )
            );
        }
        let never = Asked {
            day: None,
            ..asked("spiffe://x/a", "app")
        };
        assert_eq!(judge.verdict(&never).mark, "expected");
    }

    #[test]
    fn long_names_are_neither_kept_nor_repeated() {
        let judge = judge();
        let long = "ü".repeat(1 << 20);
        let verdict = judge.verdict(&asked("spiffe://x/a", &long));
        assert!(verdict.because.as_ref().unwrap().len() < 2 * BECAUSE_BYTES);
        assert!(judge.answers.lock().unwrap().is_empty());
        for n in 0..=KEPT_ANSWERS {
            judge.verdict(&asked("spiffe://x/a", &n.to_string()));
        }
        assert!(judge.answers.lock().unwrap().len() <= KEPT_ANSWERS);
    }

    #[test]
    fn a_pooled_statement_is_not_judged_by_the_poolers_address() {
        let judge = judge();
        let mut event = v1::Event {
            ts_start_ns: 1_782_777_600_000_000_000,
            session: Some(v1::Session {
                id: "b-1".into(),
                login_role: "app".into(),
                client: Some(v1::Endpoint {
                    addr: "192.168.0.1".into(),
                    port: 50_000,
                }),
                ..Default::default()
            }),
            attribution: Some(v1::Attribution {
                principal: "spiffe://x/a".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(judge.of_event(&event, None).unwrap().mark, "unexpected");
        if let Some(attribution) = &mut event.attribution {
            attribution.hops.push(v1::Hop {
                session: "b-7".into(),
                ..Default::default()
            });
        }
        assert_eq!(judge.of_event(&event, None).unwrap().mark, "expected");
    }

    #[test]
    fn the_json_form_tells_the_mark_and_whose_it_is() {
        let judge = judge();
        let mut event = v1::Event {
            ts_start_ns: 1_782_777_600_000_000_000,
            session: Some(v1::Session {
                id: "s".into(),
                login_role: "a\"b".into(),
                ..Default::default()
            }),
            attribution: Some(v1::Attribution {
                principal: "spiffe://x/a".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let verdict = judge.of_event(&event, None);
        let told = with_mark(proto::json::event("db1", &event), verdict.as_deref());
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            told["inventory"],
            json!({"mark": "unexpected", "because": "role a\"b is not listed", "owner": "team", "purpose": "shop",
                "approved_by": "eve"})
        );
        let other = v1::Attribution {
            principal: "spiffe://x/else".into(),
            ..Default::default()
        };
        let amended = judge.of_event(&event, Some(&other));
        assert_eq!(amended.map(|verdict| verdict.mark), Some("not in inventory"));
        event.session = None;
        assert!(judge.of_event(&event, None).is_none());
    }
}
