//! The comparison: what the server's log says against what pgwitness recorded.
//!
//! Owns the matching of sessions and statements and the counting of every difference. It refuses to forgive: what
//! cannot be matched is missing or extra. Pure, so that each kind of difference is tested with made-up records.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::alignment::align;
use crate::csvlog::{LoggedSession, LoggedStatement};
use crate::record::Recorded;

/// The differences, counted. All but `statements` and `sessions` must be zero.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Differences {
    /// Execution requests in the server's log.
    pub statements: u64,
    /// Sessions in the server's log that ran any.
    pub sessions: u64,
    /// In the log, not recorded.
    pub missing: u64,
    /// Recorded, not in the log.
    pub extra: u64,
    /// Recorded with another text.
    pub wrong_text: u64,
    /// Recorded with another count of rows than pgAudit's.
    pub wrong_rows: u64,
    /// Recorded with another result than the log's: an SQLSTATE on one side only, or two different ones.
    pub wrong_outcome: u64,
    /// Recorded under another principal than the program that the log's comment names.
    pub wrong_principal: u64,
    /// Recorded as unknown, or less surely than `observed`; through a pooler `joined`.
    pub unknown_principal: u64,
    /// Log sessions in which no comment names the program: the suite's own mistake.
    pub unwitnessed: u64,
    /// The first few differences in words.
    #[serde(skip)]
    pub examples: Vec<String>,
}

impl Differences {
    /// Whether the record is the log's equal.
    #[must_use]
    pub fn none(&self) -> bool {
        let counts = [
            self.missing,
            self.extra,
            self.wrong_text,
            self.wrong_rows,
            self.wrong_outcome,
            self.wrong_principal,
            self.unknown_principal,
            self.unwitnessed,
        ];
        counts.iter().all(|count| *count == 0)
    }

    /// Adds another part's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.statements, other.statements),
            (&mut self.sessions, other.sessions),
            (&mut self.missing, other.missing),
            (&mut self.extra, other.extra),
            (&mut self.wrong_text, other.wrong_text),
            (&mut self.wrong_rows, other.wrong_rows),
            (&mut self.wrong_outcome, other.wrong_outcome),
            (&mut self.wrong_principal, other.wrong_principal),
            (&mut self.unknown_principal, other.unknown_principal),
            (&mut self.unwitnessed, other.unwitnessed),
        ] {
            *sum += count;
        }
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// What a comparison is to expect.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The role whose sessions are compared.
    pub role: &'a str,
    /// Program name (as in `/* program=NAME */`) to its unit's name.
    pub units: &'a BTreeMap<String, String>,
    /// Whether texts are recorded in the clear. If not, statements are matched by order and command.
    pub texts: bool,
    /// Programs that come through a pooler.
    pub pooled: Option<Pooled<'a>>,
}

/// Programs that share a pooler's connections in transaction mode. The log's comments name the program of each statement; of
/// one without a comment the others of its transaction do, which is one client's; the rest is the pooler's own.
#[derive(Clone, Copy, Debug)]
pub struct Pooled<'a> {
    /// Their names. What else there is comes straight to the server.
    pub programs: &'a BTreeSet<String>,
    /// The pooler's unit.
    pub pooler: &'a str,
}

/// Who a statement is to be recorded under, and how sure that has to be.
#[derive(Clone, Copy, Debug)]
struct Named<'a> {
    unit: Option<&'a str>,
    confidence: &'static str,
}

/// Compares a log with a record (any order; rows of other roles must be gone from `recorded`).
#[must_use]
pub fn compare(logged: &[LoggedSession], recorded: &[Recorded], expected: Expected<'_>) -> Differences {
    let mut differences = Differences::default();
    let logged: Vec<_> = logged
        .iter()
        .filter(|session| session.role == expected.role)
        .collect();
    let mut ours = pair_sessions(&logged, recorded, &mut differences);
    for session in logged {
        let strings = ours.remove(session.id.as_str()).unwrap_or_default();
        differences.statements += session.statements.len() as u64;
        differences.sessions += u64::from(!session.statements.is_empty());
        compare_session(session, &strings, expected, &mut differences);
    }
    differences
}

/// The program that a statement's comment names.
#[must_use]
pub fn program_of(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(PROGRAM_KEY)?;
    rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .next()
}

/// The last part of a principal: `…/unit/<name>`.
#[must_use]
pub fn unit_of(principal: &str) -> Option<&str> {
    principal.rsplit_once("/unit/").map(|(_, unit)| unit)
}

/// One execution request as recorded: the statements of a simple query string together, or one Execute.
type Request<'a> = Vec<&'a Recorded>;

/// Backend pids are reused, so a recorded session belongs to the log session of its pid that began nearest to it.
fn pair_sessions<'a>(
    logged: &[&'a LoggedSession],
    recorded: &'a [Recorded],
    differences: &mut Differences,
) -> BTreeMap<&'a str, Vec<Request<'a>>> {
    let mut by_session: BTreeMap<(&str, u32), Vec<&Recorded>> = BTreeMap::new();
    for event in recorded {
        let session = event.session_id.as_deref().unwrap_or_default();
        by_session
            .entry((session, event.backend_pid.unwrap_or_default()))
            .or_default()
            .push(event);
    }
    let mut pairs: BTreeMap<&str, Vec<Request<'_>>> = BTreeMap::new();
    for ((_, pid), events) in by_session {
        let began = events.first().map_or(0, |event| event.at_ns);
        let nearest = logged
            .iter()
            .filter(|session| session.backend_pid == pid)
            .min_by_key(|session| began.abs_diff(session.started_ns));
        let requests = requests(&events);
        if let Some(session) = nearest {
            pairs.entry(session.id.as_str()).or_default().extend(requests);
        } else {
            differences.extra += requests.len() as u64;
            differences.note(|| {
                format!(
                    "extra: {} requests of backend {pid}, unknown to the log",
                    requests.len()
                )
            });
        }
    }
    pairs
}

fn requests<'a>(events: &[&'a Recorded]) -> Vec<Request<'a>> {
    let mut requests: Vec<Request<'a>> = Vec::new();
    for event in events {
        let follows = event.statement_index.unwrap_or_default() > 0;
        match requests.last_mut() {
            Some(request) if follows && event.protocol.as_deref() != Some("extended") => request.push(event),
            _ => requests.push(vec![event]),
        }
    }
    requests
}

fn compare_session(
    session: &LoggedSession,
    ours: &[Request<'_>],
    expected: Expected<'_>,
    differences: &mut Differences,
) {
    let programs: BTreeSet<&str> = session
        .statements
        .iter()
        .filter_map(|s| program_of(&s.text))
        .collect();
    let pooled = expected
        .pooled
        .filter(|pooled| programs.iter().all(|name| pooled.programs.contains(*name)));
    let named: Vec<Named<'_>> = match pooled {
        Some(pooled) => named_each(session, expected.units, pooled.pooler),
        None => {
            let unit = match (
                programs.len(),
                programs.first().and_then(|name| expected.units.get(*name)),
            ) {
                (1, Some(unit)) => Some(unit.as_str()),
                _ => None,
            };
            let observed = Named {
                unit,
                confidence: "observed",
            };
            vec![observed; session.statements.len()]
        }
    };
    if named.iter().any(|named| named.unit.is_none()) {
        differences.unwitnessed += 1;
        differences.note(|| format!("unwitnessed: session {} names {programs:?}", session.id));
    }
    let theirs_keys: Vec<_> = session
        .statements
        .iter()
        .map(|s| key(&s.text, expected.texts))
        .collect();
    let our_keys: Vec<_> = ours
        .iter()
        .map(|request| key(&joined(request), expected.texts))
        .collect();
    for step in align(&theirs_keys, &our_keys, |theirs, ours| theirs == ours) {
        let theirs = step
            .logged
            .and_then(|index| session.statements.get(index).zip(named.get(index)));
        let ours = step.recorded.and_then(|index| ours.get(index));
        match (theirs, ours) {
            (Some((theirs, named)), Some(ours)) => {
                if !step.equal {
                    differences.wrong_text += 1;
                    differences.note(|| format!("text: log {:?}, record {:?}", theirs.text, joined(ours)));
                }
                compare_request(theirs, ours, *named, differences);
            }
            (Some((theirs, _)), None) => {
                differences.missing += 1;
                differences.note(|| format!("missing: {:?} of session {}", theirs.text, session.id));
            }
            (None, Some(ours)) => {
                differences.extra += 1;
                differences.note(|| format!("extra: {:?} in session {}", joined(ours), session.id));
            }
            (None, None) => {}
        }
    }
}

/// Statement by statement of a connection that several programs share.
fn named_each<'a>(
    session: &LoggedSession,
    units: &'a BTreeMap<String, String>,
    pooler: &'a str,
) -> Vec<Named<'a>> {
    let mut named = Vec::with_capacity(session.statements.len());
    let mut rest = session.statements.as_slice();
    while let Some(first) = rest.first() {
        let is_end = |statement: &LoggedStatement| {
            ["COMMIT", "ROLLBACK", "END", "ABORT"].contains(&key(&statement.text, false).as_str())
        };
        let length = if ["BEGIN", "START"].contains(&key(&first.text, false).as_str()) {
            let end = rest.iter().position(is_end);
            end.map_or(rest.len(), |end| end + 1)
        } else {
            1
        };
        let (transaction, behind) = rest.split_at(length.min(rest.len()));
        let programs: BTreeSet<&str> = transaction.iter().filter_map(|s| program_of(&s.text)).collect();
        let name = match (programs.len(), programs.first()) {
            (0, _) if transaction.len() == 1 => Named {
                unit: Some(pooler),
                confidence: "observed",
            },
            (1, Some(program)) => Named {
                unit: units.get(*program).map(String::as_str),
                confidence: "joined",
            },
            _ => Named {
                unit: None,
                confidence: "joined",
            },
        };
        named.extend(transaction.iter().map(|_| name));
        rest = behind;
    }
    named
}

fn compare_request(
    theirs: &LoggedStatement,
    ours: &Request<'_>,
    Named { unit, confidence }: Named<'_>,
    differences: &mut Differences,
) {
    for event in ours {
        let principal = event.principal.as_deref().unwrap_or("unknown");
        if principal == "unknown" || event.confidence.as_deref() != Some(confidence) {
            differences.unknown_principal += 1;
            differences.note(|| {
                format!(
                    "unknown: {principal} ({:?}) for {:?}",
                    event.confidence, theirs.text
                )
            });
        } else if unit.is_some_and(|unit| unit_of(principal) != Some(unit)) {
            differences.wrong_principal += 1;
            differences.note(|| format!("principal: {principal}, expected {unit:?}, for {:?}", theirs.text));
        }
    }
    let sqlstate = ours
        .iter()
        .find_map(|event| event.sqlstate.as_deref().filter(|state| !state.is_empty()));
    if sqlstate != theirs.sqlstate.as_deref() {
        differences.wrong_outcome += 1;
        differences.note(|| {
            format!(
                "outcome: log {:?}, record {sqlstate:?}: {:?}",
                theirs.sqlstate, theirs.text
            )
        });
    }
    let (audited, counted) = (audited_rows(theirs), counted_rows(ours));
    if audited != counted {
        differences.wrong_rows += 1;
        differences.note(|| format!("rows: log {audited:?}, record {counted:?}: {:?}", theirs.text));
    }
}

/// The rows rule. pgAudit reports the executor's count: rows returned for a SELECT (also one that writes in a WITH),
/// rows changed for the others; so a SELECT is held against the DataRows counted on the wire, a write against its
/// command tag. Only these commands run through the executor by themselves (COPY, EXPLAIN, PREPARE, DECLARE report
/// 0, FETCH nothing), and only those that ended well have a count.
fn audited_rows(theirs: &LoggedStatement) -> Vec<Option<u64>> {
    let counted = |command: &str| command == "SELECT" || WRITES.contains(&command);
    theirs
        .audited
        .iter()
        .filter(|audited| counted(&audited.command))
        .map(|audited| Some(audited.rows))
        .collect()
}

fn counted_rows(ours: &Request<'_>) -> Vec<Option<u64>> {
    ours.iter()
        .filter(|event| event.outcome.as_deref() == Some("ok"))
        .filter_map(|event| match event.command.as_deref().unwrap_or_default() {
            "SELECT" | "VALUES" | "TABLE" | "WITH" => Some(event.rows),
            command if WRITES.contains(&command) => Some(event.rows_affected),
            _ => None,
        })
        .collect()
}

/// What the agent wrote for one request, as one text.
fn joined(request: &Request<'_>) -> String {
    let texts: Vec<_> = request
        .iter()
        .filter_map(|event| event.statement.as_deref())
        .collect();
    texts.join(";")
}

/// What two texts are compared by. In the clear: the text without the separators and white space that the splitting
/// of a string into statements takes away. Redacted: the command word alone.
fn key(text: &str, clear: bool) -> String {
    if clear {
        return text.chars().filter(|c| *c != ';' && !c.is_whitespace()).collect();
    }
    let mut rest = text.trim_start();
    while let Some((_, after)) = rest
        .strip_prefix("/*")
        .and_then(|comment| comment.split_once("*/"))
    {
        rest = after.trim_start();
    }
    rest.split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase()
}

/// In every statement of a suite's programs. Not `program:NAME`: pgbench takes `:NAME` for a variable, in comments too.
pub const PROGRAM_KEY: &str = "program=";
const WRITES: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "MERGE"];
/// Enough to see what is wrong without drowning the terminal.
const EXAMPLES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csvlog::{Audited, StatementKind};

    const SELECT: &str = "select 1 /* program=shop */";
    const INSERT: &str = "insert into t values (1), (2) /* program=shop */";

    fn log() -> Vec<LoggedSession> {
        let statement = |text: &str, command: &str, rows| LoggedStatement {
            at_ns: 0,
            text: text.to_owned(),
            kind: StatementKind::Simple,
            params: String::new(),
            sqlstate: None,
            audited: vec![Audited {
                command: command.to_owned(),
                rows,
            }],
        };
        let mut string = statement(&format!("{SELECT}; {INSERT};"), "SELECT", 1);
        string.audited.push(Audited {
            command: "INSERT".to_owned(),
            rows: 2,
        });
        let mut failed = statement("select 1/0", "", 0);
        failed.audited.clear();
        failed.sqlstate = Some("22012".to_owned());
        let session = |id: &str, started_ns| LoggedSession {
            backend_pid: 7,
            id: id.to_owned(),
            role: "app_user".to_owned(),
            database: "shop".to_owned(),
            started_ns,
            statements: vec![
                statement(SELECT, "SELECT", 1),
                statement(INSERT, "INSERT", 2),
                string.clone(),
                failed.clone(),
            ],
            closed: true,
            ..LoggedSession::default()
        };
        let mut other = session("c", 5);
        other.role = "postgres".to_owned();
        // The same pid twice, a long time apart.
        vec![session("a", 1_000), session("b", 1_000_000), other]
    }

    fn record() -> Vec<Recorded> {
        let event = |session: &str,
                     at_ns,
                     index,
                     text: &str,
                     command: &str,
                     rows,
                     changed,
                     sqlstate: Option<&str>| Recorded {
            at_ns,
            session_id: Some(session.to_owned()),
            backend_pid: Some(7),
            principal: Some("spiffe://local/host/h/unit/run-shop.service".to_owned()),
            principal_kind: Some("unit".to_owned()),
            confidence: Some("observed".to_owned()),
            method: None,
            command: Some(command.to_owned()),
            statement: Some(text.to_owned()),
            protocol: Some("simple".to_owned()),
            statement_index: Some(index),
            outcome: Some(if sqlstate.is_some() { "error" } else { "ok" }.to_owned()),
            rows,
            rows_affected: changed,
            sqlstate: sqlstate.map(str::to_owned),
        };
        [("x", 1_100), ("y", 1_000_100)]
            .into_iter()
            .flat_map(|(session, at)| {
                [
                    event(session, at, 0, SELECT, "SELECT", Some(1), None, None),
                    event(session, at + 1, 0, INSERT, "INSERT", None, Some(2), None),
                    event(session, at + 2, 0, SELECT, "SELECT", Some(1), None, None),
                    event(session, at + 2, 1, INSERT, "INSERT", None, Some(2), None),
                    event(
                        session,
                        at + 3,
                        0,
                        "select 1/0",
                        "SELECT",
                        Some(0),
                        None,
                        Some("22012"),
                    ),
                ]
            })
            .collect()
    }

    fn differences(change: impl FnOnce(&mut Vec<Recorded>)) -> Differences {
        let mut recorded = record();
        change(&mut recorded);
        let units = BTreeMap::from([("shop".to_owned(), "run-shop.service".to_owned())]);
        let mut found = compare(
            &log(),
            &recorded,
            Expected {
                role: "app_user",
                units: &units,
                texts: true,
                pooled: None,
            },
        );
        found.examples.clear();
        found
    }

    fn only(set: impl FnOnce(&mut Differences)) -> Differences {
        let mut expected = Differences {
            statements: 8,
            sessions: 2,
            ..Differences::default()
        };
        set(&mut expected);
        expected
    }

    #[test]
    fn equal_records_show_no_difference() {
        let found = differences(|_| ());
        assert_eq!(found, only(|_| ()));
        assert!(found.none());
    }

    #[test]
    fn each_kind_of_difference_is_counted() {
        let missing = differences(|events| drop(events.remove(1)));
        assert_eq!(missing, only(|d| d.missing = 1));
        assert!(!missing.none());
        let extra = differences(|events| events.insert(1, events[0].clone()));
        assert_eq!(extra, only(|d| d.extra = 1));
        let text =
            differences(|events| events[1].statement = Some("insert into u values (1), (2)".to_owned()));
        assert_eq!(text, only(|d| d.wrong_text = 1));
        let rows = differences(|events| events[0].rows = Some(2));
        assert_eq!(rows, only(|d| d.wrong_rows = 1));
        let affected = differences(|events| events[3].rows_affected = None);
        assert_eq!(affected, only(|d| d.wrong_rows = 1));
        let outcome = differences(|events| events[4].sqlstate = None);
        assert_eq!(outcome, only(|d| d.wrong_outcome = 1));
        let principal = differences(|events| {
            events[0].principal = Some("spiffe://local/host/h/unit/b.service".to_owned());
        });
        assert_eq!(principal, only(|d| d.wrong_principal = 1));
        let unknown = differences(|events| events[0].principal = Some("unknown".to_owned()));
        assert_eq!(unknown, only(|d| d.unknown_principal = 1));
        let unsure = differences(|events| events[0].confidence = Some("asserted".to_owned()));
        assert_eq!(unsure, only(|d| d.unknown_principal = 1));
    }

    /// Two programs over one connection, and the pooler's own word between them.
    #[test]
    fn behind_a_pooler_each_statement_has_a_program_of_its_own() {
        let texts = [
            ("SELECT 1 /* program=shop */", "shop", "joined"),
            ("SET application_name='x'", "bouncer", "observed"),
            ("BEGIN", "ledger", "joined"),
            ("SELECT 2 /* program=ledger */", "ledger", "joined"),
            ("COMMIT", "ledger", "joined"),
            ("SELECT 3 /* program=shop */", "shop", "joined"),
        ];
        let logged = LoggedSession {
            backend_pid: 7,
            id: "a".to_owned(),
            role: "app_user".to_owned(),
            statements: texts
                .iter()
                .map(|(text, ..)| LoggedStatement {
                    text: (*text).to_owned(),
                    ..LoggedStatement::default()
                })
                .collect(),
            ..LoggedSession::default()
        };
        let record: Vec<Recorded> = texts
            .iter()
            .map(|(text, program, confidence)| Recorded {
                session_id: Some("x".to_owned()),
                backend_pid: Some(7),
                principal: Some(format!("spiffe://local/host/h/unit/{program}.service")),
                confidence: Some((*confidence).to_owned()),
                statement: Some((*text).to_owned()),
                ..Recorded::default()
            })
            .collect();
        let units: BTreeMap<String, String> = ["shop", "ledger"]
            .map(|name| (name.to_owned(), format!("{name}.service")))
            .into();
        let programs: BTreeSet<String> = units.keys().cloned().collect();
        let found = |record: &[Recorded]| {
            let pooled = Pooled {
                programs: &programs,
                pooler: "bouncer.service",
            };
            compare(
                std::slice::from_ref(&logged),
                record,
                Expected {
                    role: "app_user",
                    units: &units,
                    texts: true,
                    pooled: Some(pooled),
                },
            )
        };
        assert!(found(&record).none(), "{:?}", found(&record));
        for (index, other) in [(0, 3), (1, 0), (2, 0), (4, 0), (5, 3)] {
            let mut swapped = record.clone();
            swapped[index].principal.clone_from(&record[other].principal);
            assert_eq!(found(&swapped).wrong_principal, 1, "{index}");
        }
        let mut sure = record.clone();
        sure[0].confidence = Some("observed".to_owned());
        assert_eq!(found(&sure).unknown_principal, 1, "nobody saw both of its ends");
    }

    #[test]
    fn whole_sessions_are_missing_or_extra() {
        assert_eq!(differences(|events| events.truncate(5)), only(|d| d.missing = 4));
        let stray = differences(|events| {
            let other = Recorded {
                backend_pid: Some(8),
                session_id: Some("z".to_owned()),
                ..events[0].clone()
            };
            events.push(other);
        });
        assert_eq!(stray, only(|d| d.extra = 1));
    }

    #[test]
    fn redacted_texts_are_matched_by_their_command() {
        assert_eq!(key("/* program=x */ select * from t", false), "SELECT");
        assert_eq!(
            program_of("select 1 /* program=orders-api */"),
            Some("orders-api")
        );
        assert_eq!(unit_of("spiffe://td/host/h/unit/a.service"), Some("a.service"));
    }
}
