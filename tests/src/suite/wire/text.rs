//! Whether a recorded text is the logged one.
//!
//! Owns the few ways in which the two may differ and still be the same text, each with a name under which it is
//! counted; the arguments are in `docs/truth.md`. Everything else is compared byte by byte: white space, quotes and
//! comments too.

use sha2::{Digest, Sha256};

use super::events::{Event, Request};

/// How a comparison came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// The same by these rules.
    SameBy(Vec<&'static str>),
    Different,
}

impl Verdict {
    pub(super) fn is_same(&self) -> bool {
        *self != Self::Different
    }
}

/// The whole text of a line against one event.
pub(super) fn whole(log: &str, event: &Event) -> Verdict {
    let Some(text) = event.text() else {
        return Verdict::Different;
    };
    if event.statement.truncated {
        let kept = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let is_front = log.starts_with(kept) && event.statement.original_bytes == Some(log.len() as u64);
        let hash = sha256(log.as_bytes());
        return match is_front && event.statement.sha256.as_deref() == Some(&hash) {
            true => Verdict::SameBy(vec!["truncated_by_hash"]),
            false => Verdict::Different,
        };
    }
    match front(log, text) {
        Some((taken, rules)) if taken == log.len() => verdict(rules),
        _ => Verdict::Different,
    }
}

/// A simple query string against the statements that were recorded of it.
pub(super) fn string(log: &str, request: &Request) -> Verdict {
    if let [event] = request.as_slice() {
        let same = whole(log, event);
        if same.is_same() {
            return same;
        }
    }
    if request.len() > 1 && request.iter().all(|event| whole(log, event).is_same()) {
        return Verdict::SameBy(vec!["string_recorded_whole"]);
    }
    let (mut rest, mut all_rules) = (log, Vec::new());
    for event in request {
        let Some(text) = event.text() else {
            return Verdict::Different;
        };
        let Some((taken, rules)) = find(&mut rest, text) else {
            return Verdict::Different;
        };
        rest = rest.get(taken..).unwrap_or_default();
        all_rules.extend(rules);
    }
    while let Some(length) = separator(rest) {
        rest = rest.get(length..).unwrap_or_default();
    }
    if !rest.is_empty() {
        // The rest of a string is not run when a statement of it failed.
        if request.last().is_none_or(|event| event.result.outcome == "ok") {
            return Verdict::Different;
        }
        all_rules.push("string_ended_by_error");
    }
    all_rules.push("string_of_statements");
    verdict(all_rules)
}

fn verdict(mut rules: Vec<&'static str>) -> Verdict {
    rules.dedup();
    match rules.is_empty() {
        true => Verdict::Same,
        false => Verdict::SameBy(rules),
    }
}

/// Whether a statement stands somewhere in a string.
pub(super) fn contains(log: &str, statement: &str) -> bool {
    let mut starts = log.char_indices().map(|(start, _)| start);
    log.contains(statement)
        || starts.any(|start| front(log.get(start..).unwrap_or_default(), statement).is_some())
}

/// Whether the first word behind comments is this one.
pub(super) fn begins_with_word(text: &str, word: &str) -> bool {
    let mut rest = text;
    while let Some(length) = separator(rest) {
        rest = rest.get(length..).unwrap_or_default();
    }
    let first = rest.get(..word.len());
    first.is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// Nothing but separators: the server answers it with EmptyQueryResponse.
pub(super) fn is_empty(text: &str) -> bool {
    let mut rest = text;
    while let Some(length) = separator(rest) {
        rest = rest.get(length..).unwrap_or_default();
    }
    rest.is_empty()
}

/// Goes over separators to where `text` begins; gives how much of the log's text it takes.
fn find(rest: &mut &str, text: &str) -> Option<(usize, Vec<&'static str>)> {
    loop {
        if let Some(found) = front(rest, text) {
            return Some(found);
        }
        let length = separator(rest)?;
        *rest = rest.get(length..).unwrap_or_default();
    }
}

/// White space, a semicolon, or a comment at the front: what stands between statements.
fn separator(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    if first == ';' || first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut rest = text.strip_prefix("/*")?;
    let mut depth = 1;
    while depth > 0 {
        let next = rest.find(['*', '/'])?;
        rest = rest.get(next..)?;
        let (step, change) = match rest.get(..2) {
            Some("/*") => (2, 1),
            Some("*/") => (2, -1),
            _ => (1, 0),
        };
        depth += change;
        rest = rest.get(step..)?;
    }
    Some(text.len() - rest.len())
}

/// Whether `log` begins with what `text` stands for: bytes of `log` taken, and the rules that it needed.
fn front(log: &str, text: &str) -> Option<(usize, Vec<&'static str>)> {
    if log.starts_with(text) {
        return Some((text.len(), Vec::new()));
    }
    let (mut rest, mut ours, mut rules) = (log, text, Vec::new());
    while !ours.is_empty() {
        if let Some(after) = ours.strip_prefix("'***'").filter(|_| !rest.starts_with("'***'")) {
            rest = rest.get(literal(rest)?..)?;
            ours = after;
            rules.push("password_masked");
            continue;
        }
        let (mine, theirs) = (ours.chars().next()?, rest.chars().next()?);
        if mine != theirs {
            // Bytes that are not UTF-8: each stands for a character that only the server could decode.
            if mine != char::REPLACEMENT_CHARACTER || theirs.is_ascii() {
                return None;
            }
            rules.push("not_utf8");
        }
        (ours, rest) = (ours.get(mine.len_utf8()..)?, rest.get(theirs.len_utf8()..)?);
    }
    (!rules.is_empty()).then(|| (log.len() - rest.len(), rules))
}

/// Length of the literal at the front.
fn literal(text: &str) -> Option<usize> {
    let quote = text.find('\'').filter(|at| *at <= 2)?;
    let mut at = quote + 1;
    loop {
        at += text.get(at..)?.find('\'')? + 1;
        match text.get(at..)?.starts_with('\'') {
            true => at += 1,
            false => return Some(at),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str, outcome: &str) -> Event {
        let mut event = Event::default();
        event.statement.text = Some(text.to_owned());
        event.result.outcome = outcome.to_owned();
        event
    }

    #[test]
    fn a_string_is_its_statements_and_nothing_else() {
        let log = "begin ;/* a; /* b */ */ select 1; -- end\n select 2; ";
        let ok = |text: &str| event(text, "ok");
        let all = vec![ok("begin"), ok("/* a; /* b */ */ select 1"), ok("select 2")];
        let by = |rules: &[&'static str]| Verdict::SameBy(rules.to_vec());
        assert_eq!(string(log, &all), by(&["string_of_statements"]));
        let without_comment = vec![ok("begin"), ok("select 1"), ok("select 2")];
        assert!(string(log, &without_comment).is_same());
        assert_eq!(string(log, &all[..2].to_vec()), Verdict::Different);
        let failed = vec![ok("begin"), event("/* a; /* b */ */ select 1", "error")];
        assert_eq!(
            string(log, &failed),
            by(&["string_ended_by_error", "string_of_statements"])
        );
        assert_eq!(
            string(log, &vec![ok("begin"), ok("select 3"), ok("select 2")]),
            Verdict::Different
        );
        assert_eq!(string("", &vec![ok("")]), Verdict::Same);
    }

    #[test]
    fn what_stands_for_a_text_is_named() {
        let log = "alter role r password 'it''s' -- é";
        let masked = event("alter role r password '***' -- é", "ok");
        assert_eq!(whole(log, &masked), Verdict::SameBy(vec!["password_masked"]));
        assert_eq!(
            whole("select 'é'", &event("select '\u{fffd}'", "ok")),
            Verdict::SameBy(vec!["not_utf8"])
        );
        assert_eq!(
            whole("select 'e'", &event("select '\u{fffd}'", "ok")),
            Verdict::Different
        );
        assert_eq!(whole("select 1", &event("select  1", "ok")), Verdict::Different);
    }

    #[test]
    fn a_cut_text_is_told_by_its_hash() {
        let log = "select 'aaaaaaaaaa'";
        let mut cut = event("select 'aa", "ok");
        cut.statement.truncated = true;
        cut.statement.original_bytes = Some(log.len() as u64);
        assert_eq!(whole(log, &cut), Verdict::Different);
        cut.statement.sha256 = Some(sha256(log.as_bytes()));
        assert!(whole(log, &cut).is_same());
    }
}
