//! Which recorded statement is which of the log's.
//!
//! Owns the join: sessions by backend and time, requests by order and text, statements of one string by order. Pure.

use super::audit::{self, Audited};
use super::record::{self, Event};
use crate::alignment::align;

/// A recorded statement with what pgAudit wrote while it ran.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) event: &'a Event,
    /// The string that it was sent in.
    pub(super) whole: &'a str,
    pub(super) lines: Vec<Audited>,
}

/// What a log and a record have in common.
#[derive(Debug, Default)]
pub(super) struct Paired<'a> {
    pub(super) pairs: Vec<Pair<'a>>,
    /// Requests of the log that no recorded one could be found for.
    pub(super) missing: Vec<&'a str>,
    /// Statements of strings whose lines could not be told apart.
    pub(super) unaligned: u64,
}

/// Joins the sessions of one role.
pub(super) fn pair<'a>(
    logged: &'a [audit::Session],
    recorded: &'a [record::Session],
    role: &str,
) -> Paired<'a> {
    let mut paired = Paired::default();
    for session in logged.iter().filter(|session| session.role == role) {
        let nearest = recorded
            .iter()
            .filter(|ours| ours.pid == session.pid && ours.role == role)
            .min_by_key(|ours| ours.began_ns.abs_diff(session.began_ns));
        let ours = nearest.map(|ours| ours.requests.as_slice()).unwrap_or_default();
        for step in align(&session.requests, ours, same) {
            let request = step.logged.and_then(|at| session.requests.get(at));
            let events = step.recorded.and_then(|at| ours.get(at));
            match (request, events) {
                (Some(request), Some(events)) if step.equal => take(request, events, &mut paired),
                (Some(request), _) => paired.missing.push(&request.text),
                // What the server refused to parse is in the record and not among its statements.
                (None, _) => {}
            }
        }
    }
    paired
}

fn take<'a>(request: &'a audit::Request, events: &'a [Event], paired: &mut Paired<'a>) {
    let whole = request.text.as_str();
    if let [event] = events {
        let lines = request
            .groups
            .iter()
            .flat_map(|group| group.lines.clone())
            .collect();
        paired.pairs.push(Pair { event, whole, lines });
    } else if events.len() == request.groups.len() {
        let pairs = events.iter().zip(&request.groups);
        paired.pairs.extend(pairs.map(|(event, group)| Pair {
            event,
            whole,
            lines: group.lines.clone(),
        }));
    } else {
        // One of them has no line (it failed), or several (a rule ran): whose is whose?
        paired.unaligned += events.len() as u64;
    }
}

/// Whether a recorded request is the logged one: its statements are the string, but for separators, comments, and
/// passwords, which are masked in the clear, too.
fn same(logged: &audit::Request, events: &Vec<Event>) -> bool {
    let mut rest = logged.text.as_str();
    for event in events {
        if event.is_extended() != logged.is_extended {
            return false;
        }
        for (at, piece) in event.text().split("'***'").enumerate() {
            let Some(found) = rest.find(piece) else {
                return false;
            };
            let (skipped, after) = rest.split_at(found);
            if at == 0 && !is_separator(skipped) {
                return false;
            }
            rest = after.get(piece.len()..).unwrap_or_default();
        }
    }
    is_separator(rest) || events.last().is_some_and(Event::failed)
}

/// Nothing but white space, semicolons and comments.
fn is_separator(text: &str) -> bool {
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
    while !rest.is_empty() {
        let end = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.rfind("*/").map_or(rest.len(), |end| end + 2)
        } else {
            return false;
        };
        rest = rest
            .get(end..)
            .unwrap_or_default()
            .trim_start_matches(|c: char| c.is_whitespace() || c == ';');
    }
    true
}
