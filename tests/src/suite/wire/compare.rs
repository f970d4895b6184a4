//! The comparison: what the servers' logs say against what was recorded, session by session and in order.
//!
//! Owns the pairing of sessions and requests, and the counting of every difference and of every rule that was needed.
//! It refuses to forgive: what no rule of `docs/truth.md` explains is a difference. Pure, but for the question whether
//! two parameter texts are the same value, which is handed on for the server to answer.

use std::collections::BTreeMap;

use super::events::{self, Event, Request};
use super::figures::{Figures, shortened};
use super::params::{self, Doubt};
use super::text::{self, Verdict};
use super::witness::{Kind, Logged, Session};
use crate::alignment::align;

/// Parameter texts that differ, by role: where, and how often.
pub(super) type Doubts = BTreeMap<(String, Doubt), u64>;

/// Compares all sessions; figures by login role.
pub(super) fn compare(
    logged: &[Session],
    recorded: &[events::Session],
) -> (BTreeMap<String, Figures>, Doubts) {
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    let mut doubts = Doubts::new();
    let mut ours: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for session in recorded {
        let nearest = logged
            .iter()
            .filter(|logged| logged.pid == session.pid)
            .min_by_key(|logged| session.began_ns.abs_diff(logged.began_ns));
        match nearest {
            Some(logged) => ours.entry(&logged.id).or_default().extend(&session.requests),
            None => {
                let figures = all.entry(session.role.clone()).or_default();
                figures.extra += session.requests.len() as u64;
                figures.note(|| format!("extra: backend {} is unknown to the log", session.pid));
            }
        }
    }
    for session in logged {
        let figures = all.entry(session.role.clone()).or_default();
        let ours = ours.remove(session.id.as_str()).unwrap_or_default();
        let mut comparison = Comparison {
            session,
            figures,
            doubts: &mut doubts,
            portals: BTreeMap::new(),
        };
        comparison.run(&ours);
    }
    (all, doubts)
}

struct Comparison<'a> {
    session: &'a Session,
    figures: &'a mut Figures,
    doubts: &'a mut Doubts,
    /// Rows that each portal has given, by where its first Execute began.
    portals: BTreeMap<u64, u64>,
}

impl Comparison<'_> {
    fn run(&mut self, recorded: &[&Request]) {
        let theirs = &self.session.requests;
        self.figures.statements += theirs.len() as u64;
        self.figures.sessions += u64::from(!theirs.is_empty());
        self.figures.recorded_events += recorded.iter().map(|request| request.len() as u64).sum::<u64>();
        let mut ours = Vec::with_capacity(recorded.len());
        for request in recorded {
            match unlogged(request) {
                Some(rule) => self.figures.rule(rule),
                None => ours.push(*request),
            }
        }
        for step in align(theirs, &ours, |theirs, ours| same(theirs, ours)) {
            let theirs = step.logged.and_then(|index| theirs.get(index));
            let ours = step.recorded.and_then(|index| ours.get(index)).copied();
            match (theirs, ours) {
                (Some(theirs), Some(ours)) if step.equal || alike(theirs, ours) => {
                    self.request(theirs, ours, step.equal);
                }
                (theirs, ours) => {
                    if let Some(theirs) = theirs {
                        self.figures.missing += 1;
                        let pid = self.session.pid;
                        self.figures
                            .note(|| format!("missing: {theirs:?} of backend {pid}"));
                    }
                    if let Some(ours) = ours {
                        self.figures.extra += 1;
                        let pid = self.session.pid;
                        self.figures
                            .note(|| format!("extra: {} in backend {pid}", told(ours)));
                    }
                }
            }
        }
    }

    fn request(&mut self, theirs: &Logged, ours: &Request, is_same: bool) {
        match verdict(theirs, ours) {
            Verdict::SameBy(rules) if is_same => rules.iter().for_each(|rule| self.figures.rule(rule)),
            Verdict::Same if is_same => {}
            _ => {
                self.figures.wrong_text += 1;
                self.figures
                    .note(|| format!("text: log {theirs:?}, record {}", told(ours)));
            }
        }
        let Some(first) = ours.first() else { return };
        self.names(theirs, first);
        self.source(theirs, ours);
        self.params(theirs, first);
        self.outcome(theirs, ours);
    }

    /// Statement and portal, and whether the portal was continued.
    fn names(&mut self, theirs: &Logged, ours: &Event) {
        let Kind::Execute {
            statement,
            portal,
            fetch,
        } = &theirs.kind
        else {
            return;
        };
        let is_named =
            cut(statement) == cut(&ours.statement.name) && cut(portal) == cut(&ours.statement.portal);
        let is_cursor = ours.is_cursor() && !portal.is_empty();
        let first = ours.stream.continues.unwrap_or(ours.stream.request_from);
        let given = self.portals.entry(first).or_default();
        let is_at_start = *given == 0;
        *given += ours.result.rows.unwrap_or_default();
        let rule = match (*fetch, ours.stream.continues.is_some()) {
            (true, true) | (false, false) => None,
            (true, false) if is_cursor => Some("cursor_moved_by_sql"),
            // The log says `fetch` once the portal has given a row; the record, once it has been executed.
            (false, true) if is_at_start => Some("continued_at_start"),
            _ => {
                self.figures.wrong_text += 1;
                self.figures
                    .note(|| format!("continued: log {fetch}, record {}", describe(ours)));
                None
            }
        };
        if let Some(rule) = rule {
            self.figures.rule(rule);
        }
        if !is_named {
            self.figures.wrong_text += 1;
            self.figures
                .note(|| format!("names: log {statement:?}/{portal:?}, record {}", describe(ours)));
        }
    }

    /// The log names what the first EXECUTE of a string runs, by the whole string in which it was prepared.
    fn source(&mut self, theirs: &Logged, ours: &Request) {
        let Some(prepared) = &theirs.prepared else { return };
        let source = ours.iter().find_map(|event| event.statement.source.as_deref());
        if source.is_some_and(|source| text::contains(prepared, source)) {
            self.figures.rule("execute_by_source");
        } else {
            self.figures.wrong_text += 1;
            self.figures
                .note(|| format!("prepared: log {prepared:?}, record {}", told(ours)));
        }
    }

    fn params(&mut self, theirs: &Logged, ours: &Event) {
        let Some(logged) = &theirs.params else {
            if ours.params.is_empty() {
                return;
            }
            let rule = match (&theirs.kind, theirs.sqlstate.as_deref()) {
                (Kind::FunctionCall { .. }, _) => "function_call_without_params",
                (Kind::Refused { .. }, _) => "refused_without_params",
                (_, Some(IN_FAILED_TRANSACTION)) => "aborted_without_params",
                _ => {
                    self.figures.wrong_params += 1;
                    self.figures
                        .note(|| format!("params: none in the log, record {}", describe(ours)));
                    return;
                }
            };
            self.figures.rule(rule);
            return;
        };
        let found = params::compare(logged, &ours.params, theirs.text.as_deref());
        self.figures.params_compared += found.compared;
        for (oid, count) in found.raw {
            self.figures.raw(oid, count);
        }
        for _ in 0..found.truncated {
            self.figures.rule("param_truncated");
        }
        for doubt in found.doubts {
            *self.doubts.entry((self.session.role.clone(), doubt)).or_default() += 1;
        }
        if let Some(wrong) = found.wrong {
            self.figures.wrong_params += 1;
            self.figures
                .note(|| format!("params: {wrong}: {}", describe(ours)));
        }
    }

    fn outcome(&mut self, theirs: &Logged, ours: &Request) {
        let sqlstate = ours
            .iter()
            .find_map(|event| event.result.sqlstate.as_deref().filter(|state| !state.is_empty()));
        let Some(last) = ours.last() else { return };
        let outcome = last.result.outcome.as_str();
        let expected: &[&str] = match theirs.sqlstate.as_deref() {
            None => &["ok", "suspended"],
            Some(QUERY_CANCELED) => &["canceled"],
            Some(_) => &["error"],
        };
        let mut is_right = sqlstate == theirs.sqlstate.as_deref() && expected.contains(&outcome);
        if !is_right && self.session.broken && outcome == "unanswered" && sqlstate.is_none() {
            self.figures.rule("client_left");
            is_right = true;
        }
        if let Kind::Refused { phase: Some(phase) } = theirs.kind
            && phase != last.result.phase
        {
            is_right = false;
        }
        if !is_right {
            self.figures.wrong_outcome += 1;
            self.figures.note(|| {
                let state = &theirs.sqlstate;
                format!(
                    "outcome: log {state:?} ({:?}), record {}",
                    theirs.kind,
                    told(ours)
                )
            });
        }
    }
}

/// Requests that the server runs and does not log, by rule.
fn unlogged(request: &Request) -> Option<&'static str> {
    let [event] = request.as_slice() else {
        return None;
    };
    let is_over = event.stream.continues.is_some();
    if event.protocol == "replication" && is_over {
        return Some("replication_stream_end");
    }
    let is_empty = event.text().is_some_and(text::is_empty);
    (event.is_extended() && is_empty && event.result.outcome == "ok").then_some("empty_execute")
}

/// Whether these two are the same request: kind and text.
fn same(theirs: &Logged, ours: &Request) -> bool {
    alike(theirs, ours) && verdict(theirs, ours).is_same()
}

/// Whether they are of the same kind.
fn alike(theirs: &Logged, ours: &Request) -> bool {
    let Some(first) = ours.first() else {
        return false;
    };
    match &theirs.kind {
        Kind::Simple => first.protocol == "simple",
        Kind::Execute { .. } => first.is_extended(),
        Kind::FunctionCall { oid } => first.protocol == "function_call" && first.function_oid == Some(*oid),
        Kind::Replication => first.protocol == "replication",
        Kind::Refused { .. } => {
            let failed = ours.last().and_then(|event| event.result.sqlstate.as_deref());
            failed == theirs.sqlstate.as_deref()
        }
    }
}

fn verdict(theirs: &Logged, ours: &Request) -> Verdict {
    let Some(first) = ours.first() else {
        return Verdict::Different;
    };
    let Some(log) = theirs.text.as_deref() else {
        return match theirs.kind {
            Kind::FunctionCall { .. } => Verdict::Same,
            _ => Verdict::SameBy(vec!["refused_without_text"]),
        };
    };
    match &theirs.kind {
        Kind::Simple | Kind::Replication => text::string(log, ours),
        Kind::Execute { portal, .. } if first.is_cursor() && !portal.is_empty() => {
            let same = text::whole(log, first);
            // The server logs the whole string that declared the cursor, the record has the declaration.
            match first.text().is_some_and(|text| text::contains(log, text)) {
                true if !same.is_same() => Verdict::SameBy(vec!["cursor_by_declaration"]),
                _ => same,
            }
        }
        Kind::Execute { .. } => text::whole(log, first),
        Kind::Refused { .. } if first.protocol == "simple" => text::string(log, ours),
        Kind::Refused { .. } => text::whole(log, first),
        Kind::FunctionCall { .. } => Verdict::Same,
    }
}

/// The server itself compares 63 bytes of a name (`NAMEDATALEN` - 1), and the record keeps as many.
fn cut(name: &str) -> &[u8] {
    name.as_bytes().get(..63).unwrap_or(name.as_bytes())
}

fn told(request: &Request) -> String {
    let events: Vec<_> = request.iter().map(describe).collect();
    events.join(" + ")
}

fn describe(event: &Event) -> String {
    let result = &event.result;
    format!(
        "[{} {} {} {:?} rows {:?} from {} continues {:?} {}/{} source {:?} params {}] {}",
        event.protocol,
        result.phase,
        result.outcome,
        result.sqlstate,
        result.rows,
        event.stream.request_from,
        event.stream.continues,
        event.statement.name,
        event.statement.portal,
        event.statement.source,
        event.params.len(),
        event.text().map_or("(text unknown)".to_owned(), |text| format!(
            "{:?}",
            shortened(text)
        )),
    )
}

/// `in_failed_sql_transaction`, `query_canceled` (manual, appendix "PostgreSQL Error Codes").
const IN_FAILED_TRANSACTION: &str = "25P02";
const QUERY_CANCELED: &str = "57014";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::wire::events::Param;

    fn logged(kind: Kind, text: &str) -> Logged {
        Logged {
            kind,
            text: Some(text.to_owned()),
            ..Logged::default()
        }
    }

    fn execute(fetch: bool) -> Kind {
        Kind::Execute {
            statement: "s".to_owned(),
            portal: String::new(),
            fetch,
        }
    }

    fn log() -> Vec<Session> {
        let mut with_params = logged(execute(false), "select $1");
        with_params.params = Some(vec![Some("1".to_owned()), None]);
        let mut failed = logged(Kind::Simple, "select 1/0");
        failed.sqlstate = Some("22012".to_owned());
        let mut unnamed = logged(Kind::Refused { phase: None }, "");
        unnamed.text = None;
        unnamed.sqlstate = Some("26000".to_owned());
        vec![Session {
            id: "a".to_owned(),
            pid: 7,
            role: "r".to_owned(),
            requests: vec![
                logged(Kind::Simple, "begin; select 1"),
                with_params,
                failed,
                unnamed,
            ],
            ..Session::default()
        }]
    }

    fn event(protocol: &str, text: &str) -> Event {
        let mut event = Event::default();
        event.protocol = protocol.to_owned();
        event.statement.text = Some(text.to_owned());
        event.statement.text_known = true;
        event.result.outcome = "ok".to_owned();
        event
    }

    fn failed(mut event: Event, sqlstate: &str) -> Event {
        event.result.outcome = "error".to_owned();
        event.result.sqlstate = Some(sqlstate.to_owned());
        event
    }

    fn record() -> Vec<events::Session> {
        let mut with_params = event("extended", "select $1");
        with_params.statement.name = "s".to_owned();
        let one = Param {
            value: Some("1".to_owned()),
            ..Param::default()
        };
        let null = Param {
            null: true,
            ..Param::default()
        };
        with_params.params = vec![one, null];
        let mut unnamed = failed(event("extended", ""), "26000");
        unnamed.statement.text = None;
        unnamed.statement.text_known = false;
        let mut empty = event("extended", " ; ");
        empty.statement.name = "s".to_owned();
        vec![events::Session {
            pid: 7,
            role: "r".to_owned(),
            began_ns: 5,
            requests: vec![
                vec![event("simple", "begin"), event("simple", "select 1")],
                vec![with_params],
                vec![empty],
                vec![failed(event("simple", "select 1/0"), "22012")],
                vec![unnamed],
            ],
        }]
    }

    fn found(change: impl FnOnce(&mut Vec<Request>)) -> (Figures, Doubts) {
        let mut record = record();
        change(&mut record[0].requests);
        let (mut figures, doubts) = compare(&log(), &record);
        (figures.remove("r").unwrap_or_default(), doubts)
    }

    #[test]
    fn equal_sides_have_no_difference_and_name_their_rules() {
        let (figures, doubts) = found(|_| {});
        assert_eq!(figures.differences(), 0, "{:?}", figures.examples);
        assert_eq!((figures.statements, figures.params_compared), (4, 2));
        assert!(doubts.is_empty());
        let rules: Vec<_> = figures.rules.keys().map(String::as_str).collect();
        assert_eq!(
            rules,
            ["empty_execute", "refused_without_text", "string_of_statements"]
        );
    }

    #[test]
    fn each_difference_is_counted_once() {
        let counts = |figures: &Figures| {
            [
                figures.missing,
                figures.extra,
                figures.wrong_text,
                figures.wrong_params,
                figures.wrong_outcome,
            ]
        };
        let of = |change: fn(&mut Vec<Request>)| counts(&found(change).0);
        assert_eq!(of(|all| drop(all.remove(1))), [1, 0, 0, 0, 0]);
        assert_eq!(of(|all| all.insert(1, all[1].clone())), [0, 1, 0, 0, 0]);
        assert_eq!(of(|all| drop(all[0].pop())), [0, 0, 1, 0, 0]);
        assert_eq!(
            of(|all| all[1][0].statement.text = Some("select  $1".to_owned())),
            [0, 0, 1, 0, 0]
        );
        assert_eq!(of(|all| all[1][0].statement.name.clear()), [0, 0, 1, 0, 0]);
        assert_eq!(of(|all| all[1][0].stream.continues = Some(1)), [0, 0, 0, 0, 0]);
        assert_eq!(of(|all| all[1][0].params.truncate(1)), [0, 0, 0, 1, 0]);
        assert_eq!(of(|all| all[1][0].params.swap(0, 1)), [0, 0, 0, 1, 0]);
        assert_eq!(of(|all| all[3][0].result.sqlstate = None), [0, 0, 0, 0, 1]);
        assert_eq!(
            of(|all| all[1][0].result.outcome = "unknown".to_owned()),
            [0, 0, 0, 0, 1]
        );
        // Another value is the server's to judge.
        let (figures, doubts) = found(|all| all[1][0].params[0].value = Some("01".to_owned()));
        assert_eq!((figures.differences(), doubts.len()), (0, 1));
    }

    #[test]
    fn a_session_that_the_log_does_not_know_is_extra() {
        let mut record = record();
        record[0].pid = 8;
        let (figures, _) = compare(&log(), &record);
        assert_eq!((figures["r"].extra, figures["r"].missing), (5, 4));
    }
}
