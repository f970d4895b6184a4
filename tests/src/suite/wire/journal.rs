//! What the clients themselves say that they ran and got: the journals of the driver programs.
//!
//! Owns the reading of journals and their comparison with the recorded statements, found by the marker
//! `/* d=NAME j=N */` in their text. A journal witnesses what no server log can: each statement inside a string, rows,
//! rows affected, copied bytes, and values as the program gave them. Separate from `compare`, whose witness is the log.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::compare::Doubts;
use super::events::{Event, Session};
use super::figures::Figures;
use super::params::{self, Doubt};

/// One execution of a marked statement, as the client saw it. A key that is absent is no claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    d: String,
    j: u64,
    pid: u32,
    rows: Option<u64>,
    affected: Option<u64>,
    sqlstate: Option<String>,
    copy_bytes: Option<u64>,
    params: Option<Vec<Option<String>>>,
}

/// Backend, program and number of the text: executions of it are compared in order.
type Key = (u32, String, u64);

/// Reads a journal: one JSON object a line.
///
/// # Errors
/// When a line is not one.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("a journal's line: {line}")))
        .collect()
}

/// Compares a journal with the sessions of one role.
pub(super) fn compare(entries: &[Entry], sessions: &[&Session], figures: &mut Figures, doubts: &mut Doubts) {
    let mut executions = executions(sessions);
    for entry in entries {
        figures.journal_statements += 1;
        let key = (entry.pid, entry.d.clone(), entry.j);
        match executions.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(execution) => check(entry, &execution, figures, doubts),
            None => {
                figures.missing += 1;
                figures.note(|| format!("missing: {entry:?} of a journal"));
            }
        }
    }
    for (key, left) in executions.into_iter().filter(|(_, left)| !left.is_empty()) {
        figures.extra += left.len() as u64;
        figures.note(|| format!("extra: {} executions of {key:?} that no journal has", left.len()));
    }
}

/// One execution of a marked text: its own event, and those that went on fetching from its portal or cursor.
#[derive(Debug)]
struct Execution<'a> {
    event: &'a Event,
    rows: u64,
    sqlstate: Option<&'a str>,
    role: &'a str,
}

impl<'a> Execution<'a> {
    fn new(event: &'a Event, role: &'a str) -> Self {
        Self {
            event,
            rows: event.result.rows.unwrap_or_default(),
            sqlstate: sqlstate(event),
            role,
        }
    }

    fn go_on(&mut self, event: &'a Event) {
        self.rows += event.result.rows.unwrap_or_default();
        self.sqlstate = self.sqlstate.or(sqlstate(event));
    }
}

fn sqlstate(event: &Event) -> Option<&str> {
    event.result.sqlstate.as_deref().filter(|state| !state.is_empty())
}

fn executions<'a>(sessions: &[&'a Session]) -> BTreeMap<Key, VecDeque<Execution<'a>>> {
    let mut all: BTreeMap<Key, VecDeque<Execution<'a>>> = BTreeMap::new();
    for session in sessions {
        for request in &session.requests {
            let is_shared = request.len() > 1 && request.windows(2).all(same_text);
            for (index, event) in request.iter().enumerate() {
                let own = event.text().and_then(marker);
                let fetched = event.statement.source.as_deref().and_then(marker);
                let Some((d, j)) = own.or(fetched) else { continue };
                let list = all.entry((session.pid, d.to_owned(), j)).or_default();
                // Every event of a string that is recorded whole carries the marker.
                let is_repeated = is_shared && index > 0;
                let runs_cursor = event.is_cursor() && !event.statement.portal.is_empty();
                let goes_on = event.stream.continues.is_some() || own.is_none() || is_repeated || runs_cursor;
                match list.back_mut().filter(|_| goes_on) {
                    Some(first) => first.go_on(event),
                    None => list.push_back(Execution::new(event, &session.role)),
                }
            }
        }
    }
    all
}

fn same_text(pair: &[Event]) -> bool {
    match pair {
        [one, other] => one.text() == other.text(),
        _ => false,
    }
}

fn check(entry: &Entry, execution: &Execution<'_>, figures: &mut Figures, doubts: &mut Doubts) {
    let event = execution.event;
    if entry.sqlstate.as_deref() != execution.sqlstate {
        figures.wrong_outcome += 1;
        figures.note(|| format!("outcome: {entry:?}, record {}", described(execution)));
    }
    if entry.sqlstate.is_none() {
        counts(entry, execution, figures);
    }
    let Some(claimed) = &entry.params else { return };
    if claimed.len() != event.params.len() {
        figures.wrong_params += 1;
        figures.note(|| format!("params: {entry:?}, record {:?}", event.params));
        return;
    }
    for (number, (theirs, ours)) in (1..).zip(claimed.iter().zip(&event.params)) {
        figures.params_compared += 1;
        match (theirs, &ours.value) {
            (None, _) if ours.null => {}
            (Some(_), _) if ours.raw => figures.raw(ours.oid, 1),
            (Some(theirs), Some(value)) if !ours.null => {
                if params::is_front(ours, value, theirs) {
                    figures.rule("param_truncated");
                } else if theirs != value {
                    let doubt = Doubt::new(number, ours, event.text(), theirs, value);
                    *doubts.entry((execution.role.to_owned(), doubt)).or_default() += 1;
                }
            }
            _ => {
                figures.wrong_params += 1;
                figures.note(|| format!("params: {entry:?}, record {ours:?}"));
            }
        }
    }
}

/// Rows, rows affected, bytes copied.
fn counts(entry: &Entry, execution: &Execution<'_>, figures: &mut Figures) {
    let event = execution.event;
    let affected = event.result.rows_affected.or_else(|| event.tag_count());
    let is_right = |theirs: Option<u64>, ours| theirs.is_none() || theirs == ours;
    if is_right(entry.rows, Some(execution.rows))
        && is_right(entry.affected, affected)
        && is_right(entry.copy_bytes, event.result.copy_bytes)
    {
        return;
    }
    figures.wrong_rows += 1;
    figures.note(|| format!("rows: {entry:?}, record {}", described(execution)));
}

fn described(execution: &Execution<'_>) -> String {
    let text = execution.event.text().unwrap_or("(text unknown)");
    let result = &execution.event.result;
    format!(
        "rows {}, {:?}, {} {}, copied {:?}: {text:?}",
        execution.rows, execution.sqlstate, result.phase, result.outcome, result.copy_bytes
    )
}

/// `/* d=NAME j=N */`: the first one in a text.
fn marker(text: &str) -> Option<(&str, u64)> {
    let (_, rest) = text.split_once("/* d=")?;
    let (marker, _) = rest.split_once(" */")?;
    let (name, number) = marker.split_once(" j=")?;
    Some((name, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str, rows: u64) -> Event {
        let mut event = Event::default();
        event.statement.text = Some(text.to_owned());
        event.result.rows = Some(rows);
        event.result.outcome = "ok".to_owned();
        event
    }

    #[test]
    fn executions_are_found_by_their_marker() {
        let mut more = event("select /* d=x j=1 */", 2);
        more.stream.continues = Some(5);
        let mut fetch = event("fetch 2 from c", 2);
        fetch.statement.source = Some("declare c cursor for select /* d=x j=2 */".to_owned());
        let session = Session {
            pid: 7,
            role: "r".to_owned(),
            began_ns: 0,
            requests: vec![
                vec![event("begin", 0), event("select /* d=x j=1 */", 1)],
                vec![more],
                vec![event("declare c cursor for select /* d=x j=2 */", 0)],
                vec![fetch],
                vec![event("select /* d=x j=1 */", 9)],
            ],
        };
        let journal = "{\"d\":\"x\",\"j\":1,\"pid\":7,\"rows\":3}\n{\"d\":\"x\",\"j\":2,\"pid\":7,\"rows\":2}\n\
                       {\"d\":\"x\",\"j\":1,\"pid\":7,\"rows\":8}\n{\"d\":\"x\",\"j\":4,\"pid\":7}\n";
        let mut figures = Figures::default();
        compare(
            &parse(journal).unwrap(),
            &[&session],
            &mut figures,
            &mut Doubts::new(),
        );
        let seen = (
            figures.journal_statements,
            figures.wrong_rows,
            figures.missing,
            figures.extra,
        );
        assert_eq!(seen, (4, 1, 1, 0));
    }
}
