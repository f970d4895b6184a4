//! The same questions, answered by going through every event of the evidence, with loops alone.
//!
//! Owns no index, no column and no SQL: what is not in an event as the agent sent it, and in the amendments of it, is not known here.

use std::collections::{BTreeMap, HashSet};

use proto::{json, whole};

use super::*;

mod figures;
mod reports;
mod seen;
mod who;

pub(super) use self::reports::dsar_of;
use self::{figures::grouped, seen::Seen};

/// A row of an answer: values by column, times as nanoseconds.
pub(super) type Row = BTreeMap<&'static str, Value>;

/// Every event, with the attribution that stands for it.
pub(super) struct Evidence {
    pub(super) events: Vec<Seen>,
}

impl Evidence {
    /// The log up to the entry `last`.
    pub(super) fn read(evidence: &Path, own: &str, last: u64) -> Self {
        let mut events = Vec::new();
        for read in read_batches(evidence, 0) {
            let (entry, batch) = read.unwrap();
            if entry > last {
                break;
            }
            let numbered = (batch.header.first_event_seq..).zip(&batch.events);
            for (place, (seq, encoded)) in numbered.enumerate() {
                if batch.is_event_erased(place) {
                    continue;
                }
                let event = whole::event(seq, encoded, &batch.definitions).unwrap();
                events.push(Seen {
                    agent: batch.header.agent_id.clone(),
                    entry,
                    stands: event.attribution.clone(),
                    event,
                });
            }
        }
        let said: Vec<(v1::Amendment, v1::Attribution)> = events
            .iter()
            .filter(|seen| seen.agent == own)
            .filter_map(|seen| match (&seen.event.body, &seen.event.attribution) {
                (Some(Body::Amendment(of)), Some(attribution)) => Some((of.clone(), attribution.clone())),
                _ => None,
            })
            .collect();
        for seen in &mut events {
            seen.amend(&said);
        }
        Self { events }
    }

    /// Agent and number of each.
    pub(super) fn ids(&self) -> impl Iterator<Item = (String, u64)> {
        self.events
            .iter()
            .map(|seen| (seen.agent.clone(), seen.event.seq))
    }

    fn within(&self, span: Span) -> impl Iterator<Item = &Seen> {
        self.events.iter().filter(move |seen| {
            let began = seen.event.ts_start_ns as i64;
            // Of what has no time it is not known whether it is in a span.
            let whole = span == Span::default();
            whole
                || began != 0
                    && span.since_ns.is_none_or(|since| began >= since)
                    && span.until_ns.is_none_or(|until| began < until)
        })
    }

    pub(super) fn exported(&self, which: &Selection) -> BTreeSet<(String, String)> {
        let wanted = |seen: &&Seen| {
            which.kind.as_ref().is_none_or(|kind| seen.kind() == kind)
                && which
                    .principal
                    .as_ref()
                    .is_none_or(|pattern| matches(pattern, &seen.principal()))
        };
        let named = |seen: &Seen| (seen.id(), seen.named().unwrap_or_default());
        self.within(which.span).filter(wanted).map(named).collect()
    }

    pub(super) fn principals(&self) -> Vec<Row> {
        let mut of: BTreeMap<String, Vec<&Seen>> = BTreeMap::new();
        for seen in self.events.iter().filter(|seen| seen.query().is_some()) {
            of.entry(seen.principal()).or_default().push(seen);
        }
        let row = |(principal, seen): (String, Vec<&Seen>)| {
            let mut row = counted(&seen);
            row.insert("principal", json!(principal));
            row.insert("roles", list(seen.iter().filter_map(|seen| seen.role())));
            row.insert("errors", json!(failed(&seen)));
            let objects = seen.iter().flat_map(|seen| seen.objects());
            row.insert("objects", list(objects.map(|(_, object)| object)));
            row
        };
        of.into_iter().map(row).collect()
    }

    pub(super) fn what(&self, asked: &What) -> Vec<Row> {
        type Thing = Option<(String, String)>;
        let mut of: BTreeMap<(String, Thing, Option<&str>), Vec<&Seen>> = BTreeMap::new();
        let mine = |seen: &&Seen| {
            asked
                .principal
                .as_ref()
                .is_none_or(|pattern| matches(pattern, &seen.principal()))
        };
        for seen in self.within(asked.span).filter(mine) {
            if seen.query().is_none() {
                continue;
            }
            let things: BTreeSet<(String, String)> = seen.objects().into_iter().collect();
            let hidden = seen.hidden();
            let named = things.iter().cloned().map(Some);
            let nothing = (things.is_empty() || hidden.is_some()).then_some(None);
            for thing in named.chain(nothing) {
                let because = if thing.is_none() { hidden } else { None };
                let wanted = asked.object.as_ref().is_none_or(|asked| match &thing {
                    Some((_, object)) => is_object(object, asked),
                    None => because.is_some(),
                });
                if wanted {
                    of.entry((seen.principal(), thing, because))
                        .or_default()
                        .push(seen);
                }
            }
        }
        let row = |((principal, thing, because), seen): ((String, Thing, Option<&str>), Vec<&Seen>)| {
            let mut row = counted(&seen);
            row.insert("principal", json!(principal));
            row.insert(
                "confidence",
                list(seen.iter().filter_map(|seen| seen.confidence())),
            );
            row.insert("failed", json!(failed(&seen)));
            row.insert("commands", list(seen.iter().filter_map(|seen| seen.command())));
            row.insert("sessions", json!(sessions(&seen)));
            row.insert("because", json!(because));
            row.insert("last_event", json!(newest(&seen).id()));
            let columns = |filtered: bool| {
                let (access, object) = thing.as_ref()?;
                let all = seen
                    .iter()
                    .flat_map(|seen| seen.columns(access, object, filtered));
                Some(list(all))
            };
            row.insert("columns", columns(false).unwrap_or_default());
            row.insert("filtered", columns(true).unwrap_or_default());
            let exact: Vec<bool> = seen.iter().filter_map(|seen| seen.columns_exact()).collect();
            row.insert(
                "columns_exact",
                json!((!exact.is_empty()).then(|| exact.iter().all(|exact| *exact))),
            );
            row.insert("access", json!(thing.as_ref().map(|(access, _)| access)));
            row.insert("object", json!(thing.as_ref().map(|(_, object)| object)));
            row
        };
        of.into_iter().map(row).collect()
    }

    pub(super) fn new_edges(&self, asked: NewEdges) -> Vec<Row> {
        let mut of: BTreeMap<(String, String, String), Vec<&Seen>> = BTreeMap::new();
        let is_looked_at = |seen: &&Seen| {
            let at_ns = seen.event.ts_start_ns as i64;
            at_ns < asked.since_ns || asked.until_ns.is_none_or(|until_ns| at_ns < until_ns)
        };
        let statements = self.events.iter().filter(|seen| seen.query().is_some());
        for seen in statements.filter(is_looked_at) {
            for (access, object) in seen.objects().into_iter().collect::<BTreeSet<_>>() {
                of.entry((seen.principal(), object, access))
                    .or_default()
                    .push(seen);
            }
        }
        let is_before = |seen: &&Seen| (seen.event.ts_start_ns as i64) < asked.since_ns;
        let mut rows = Vec::new();
        for ((principal, object, access), seen) in &of {
            if seen.iter().any(is_before) {
                continue;
            }
            let mut row = counted(seen);
            let known = of.iter().filter(|((who, what, _), seen)| {
                who == principal && what == object && seen.iter().any(is_before)
            });
            let known = known.map(|((_, _, access), _)| access.clone());
            row.insert("known_access", list(known));
            row.insert("principal", json!(principal));
            row.insert("object", json!(object));
            row.insert("access", json!(access));
            row.insert("failed", json!(failed(seen)));
            row.insert("commands", list(seen.iter().filter_map(|seen| seen.command())));
            row.insert("first_event", json!(oldest(seen).id()));
            rows.push(row);
        }
        rows
    }

    pub(super) fn unattributed(&self, asked: Unattributed) -> Vec<Row> {
        type Place = (String, Option<String>, Option<String>);
        let mut of: BTreeMap<Place, Vec<&Seen>> = BTreeMap::new();
        for seen in self
            .within(asked.span)
            .filter(|seen| seen.event.session.is_some() && seen.is_unattributed())
        {
            let reason = seen
                .stands
                .as_ref()
                .map(|who| who.reason.as_str())
                .unwrap_or_default();
            let words = reason
                .split(' ')
                .map(|word| if word.parse::<u64>().is_ok() { "n" } else { word });
            let reason = match reason {
                "" => "no reason is told".to_owned(),
                _ => words.collect::<Vec<_>>().join(" "),
            };
            let database = seen
                .event
                .session
                .as_ref()
                .map(|session| session.database.clone());
            of.entry((reason, seen.role(), database)).or_default().push(seen);
        }
        let row = |((reason, role, database), seen): (Place, Vec<&Seen>)| {
            let mut row = counted(&seen);
            let statements: u64 = seen.iter().map(|seen| seen.executions()).sum();
            let refused = seen
                .iter()
                .filter(|seen| matches!(seen.event.body, Some(Body::AuthFailure(_))));
            row.insert("refused_logins", json!(refused.count()));
            row.insert("sessions", json!(sessions(&seen)));
            row.insert("reason", json!(reason));
            row.insert("login_role", json!(role));
            row.insert("database", json!(database));
            row.insert("first_event", json!(oldest(&seen).id()));
            row.insert("last_event", json!(newest(&seen).id()));
            for counts in ["rows", "rows_affected"] {
                row.remove(counts);
            }
            row.insert("statements", json!(statements));
            row
        };
        of.into_iter().map(row).collect()
    }

    pub(super) fn timeline(&self, asked: &Timeline) -> Vec<Row> {
        let chosen: Vec<&Seen> = self
            .within(asked.span)
            .filter(|seen| {
                let session = asked.session.as_ref().is_none_or(|asked| {
                    seen.session().as_ref() == Some(asked) || seen.client_session().as_ref() == Some(asked)
                });
                let principal = asked.principal.as_ref().is_none_or(|pattern| {
                    seen.event.session.is_some() && matches(pattern, &seen.principal())
                });
                session && principal
            })
            .collect();
        let mut every = chosen.clone();
        for seen in self.within(asked.span) {
            let told = matches!(
                seen.event.body,
                Some(
                    Body::Gap(_)
                        | Body::AgentStart(_)
                        | Body::AgentStop(_)
                        | Body::AgentPause(_)
                        | Body::AgentResume(_)
                        | Body::CollectorChange(_)
                )
            );
            let (began, ended) = seen.times();
            let of_agent = || {
                chosen
                    .iter()
                    .filter(|other| other.agent == seen.agent)
                    .map(|other| other.times())
            };
            let meanwhile = || {
                let first = of_agent().map(|(began, _)| began).min()?;
                let last = of_agent().map(|(_, ended)| ended).max()?;
                Some(began <= last && ended >= first)
            };
            if told && seen.event.session.is_none() && meanwhile().unwrap_or(false) {
                every.push(seen);
            }
        }
        every.sort_by(|a, b| {
            let order = |seen: &Seen| (seen.event.ts_start_ns, seen.agent.clone(), seen.event.seq);
            order(a).cmp(&order(b))
        });
        let row = |seen: &&Seen| {
            let mut row = Row::new();
            row.insert("event_id", json!(seen.id()));
            row.insert("kind", json!(seen.kind()));
            row.insert("mark", json!(seen.mark()));
            row.insert("principal", json!(seen.named()));
            row.insert("session_id", json!(seen.session()));
            row
        };
        every.iter().map(row).collect()
    }
}

/// Statements, rows, and the first and the last time.
fn counted(seen: &[&Seen]) -> Row {
    let sum = |of: &dyn Fn(&v1::Result) -> Option<u64>| {
        let counts = seen.iter().filter_map(|seen| of(seen.result()?));
        counts.fold(None, |sum: Option<u64>, count| Some(sum.unwrap_or(0) + count))
    };
    let times = || {
        seen.iter()
            .map(|seen| seen.event.ts_start_ns)
            .filter(|time| *time != 0)
    };
    Row::from([
        (
            "statements",
            json!(seen.iter().map(|seen| seen.executions()).sum::<u64>()),
        ),
        ("rows", json!(sum(&|result| result.rows))),
        ("rows_affected", json!(sum(&|result| result.rows_affected))),
        ("first_seen", json!(times().min())),
        ("last_seen", json!(times().max())),
    ])
}

fn failed(seen: &[&Seen]) -> u64 {
    let failed = seen.iter().filter(|seen| seen.outcome() == Some("error"));
    failed.map(|seen| seen.executions()).sum()
}

fn sessions(seen: &[&Seen]) -> usize {
    let sessions: HashSet<_> = seen
        .iter()
        .filter_map(|seen| Some((&seen.agent, seen.session()?)))
        .collect();
    sessions.len()
}

fn order(seen: &Seen) -> (u64, u64, u64) {
    (seen.event.ts_start_ns, seen.entry, seen.event.seq)
}

fn newest<'a>(seen: &[&'a Seen]) -> &'a Seen {
    seen.iter().max_by_key(|seen| order(seen)).unwrap()
}

fn oldest<'a>(seen: &[&'a Seen]) -> &'a Seen {
    seen.iter().min_by_key(|seen| order(seen)).unwrap()
}

/// Each once, in order; nothing where there is none.
fn list(values: impl Iterator<Item = String>) -> Value {
    let values: BTreeSet<String> = values.collect();
    if values.is_empty() {
        Value::Null
    } else {
        json!(values)
    }
}

fn is_object(object: &str, asked: &str) -> bool {
    match asked.split_once('.') {
        Some((_, bare)) => object == asked || object == bare,
        None => object.split('.').next_back() == Some(asked),
    }
}

/// `*` and `?`, one character at a time.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) if matches(&pattern[1..], text) => true,
        (Some('*'), Some(first)) => matches(pattern, &text[first.len_utf8()..]),
        (Some(asked), Some(first)) if asked == '?' || asked == first => {
            matches(&pattern[asked.len_utf8()..], &text[first.len_utf8()..])
        }
        _ => false,
    }
}

/// What is compared of a timeline.
pub(super) const TIMELINE: &[&str] = &["event_id", "kind", "mark", "principal", "session_id"];

/// Some columns of a page; times as nanoseconds, lists without NULL, and NULL where nothing is left.
pub(super) fn rows(page: &Page, columns: &[&'static str]) -> Vec<Row> {
    let place = |name: &str| {
        page.columns
            .iter()
            .position(|column| column == name)
            .unwrap_or_else(|| panic!("no column {name}"))
    };
    let value = |row: &[Value], name: &'static str| match &row[place(name)] {
        Value::String(text) if name.ends_with("_seen") || ["first", "last", "seen_again"].contains(&name) => {
            json!(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond() as u64)
        }
        Value::Array(items) => list(items.iter().filter_map(Value::as_str).map(str::to_owned)),
        other => other.clone(),
    };
    let row = |row: &Vec<Value>| columns.iter().map(|name| (*name, value(row, name))).collect();
    page.rows.iter().map(row).collect()
}
