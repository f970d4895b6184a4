//! The ledger: each statement of the server's log is recorded, or it is told missing, or it is neither.
//!
//! Owns the judgement of runs in which something was lost: agents that ended, sessions that were there before. It
//! refuses to forgive silence: what is not recorded has to lie within the time of a gap event of its own session.
//! Statements are told apart by a number of twelve digits that occurs once, in their text or among their parameters, so
//! that nothing has to be aligned. Separate from `compare`, which wants everything recorded. Pure, but for `read`.

mod events;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::compare::{program_of, unit_of};
use crate::csvlog::{Encryption, LoggedSession, LoggedStatement, StatementKind};
pub use events::{Gap, Record, Request, Seen, read};

/// What came of the statements of a log. What must be zero is said by [`Ledger::none`].
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Ledger {
    /// Statements with a number in the log, within the time that counts.
    pub statements: u64,
    /// Sessions that ran them.
    pub sessions: u64,
    /// Recorded.
    pub recorded: u64,
    /// Not recorded, and within a gap of their session.
    pub told_missing: u64,
    /// Not recorded, and nothing says so.
    pub untold: u64,
    /// Recorded, and not in the log; or twice.
    pub extra: u64,
    /// Recorded with another text.
    pub wrong_text: u64,
    /// Recorded under another principal than the program's.
    pub wrong_principal: u64,
    /// Recorded without a principal.
    pub unknown_principal: u64,
    /// Sessions with another role, database or encryption than the log's.
    pub wrong_session: u64,
    /// Sessions whose role, database or encryption is not known.
    pub unknown_session: u64,
    /// Bytes of the statements that are not recorded, by the log (only what was asked for: see [`Expected`]).
    pub bytes_lost: u64,
    /// Bytes that gaps tell of the same sessions.
    pub bytes_told: u64,
    /// Sessions in which less is told than was lost, or more than that and what was recorded in the same moments.
    pub wrong_bytes: u64,
    /// Gaps of the log's sessions by their reason.
    pub reasons: BTreeMap<String, u64>,
    /// The first few of each kind in words.
    #[serde(skip)]
    pub examples: Vec<String>,
}

/// What the ledger is to expect.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The role whose sessions count.
    pub role: &'a str,
    /// Program name to its unit's name.
    pub units: &'a BTreeMap<String, String>,
    /// Statements before this time do not count (nanoseconds since the Unix epoch).
    pub from_ns: i64,
    /// The programs that send nothing but one Query message a statement over TCP: what their gaps tell must be the
    /// statements' bytes.
    pub counted: &'a BTreeSet<String>,
}

impl Ledger {
    /// Whether nothing is wrong. What is told missing, or said to be unknown, is not wrong.
    #[must_use]
    pub fn none(&self) -> bool {
        let counts = [
            self.untold,
            self.extra,
            self.wrong_text,
            self.wrong_principal,
            self.wrong_session,
            self.wrong_bytes,
        ];
        counts.iter().all(|count| *count == 0)
    }

    /// Adds another part's.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.statements, other.statements),
            (&mut self.sessions, other.sessions),
            (&mut self.recorded, other.recorded),
            (&mut self.told_missing, other.told_missing),
            (&mut self.untold, other.untold),
            (&mut self.extra, other.extra),
            (&mut self.wrong_text, other.wrong_text),
            (&mut self.wrong_principal, other.wrong_principal),
            (&mut self.unknown_principal, other.unknown_principal),
            (&mut self.wrong_session, other.wrong_session),
            (&mut self.unknown_session, other.unknown_session),
            (&mut self.bytes_lost, other.bytes_lost),
            (&mut self.bytes_told, other.bytes_told),
            (&mut self.wrong_bytes, other.wrong_bytes),
        ] {
            *sum += count;
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    /// The same, with the other's examples.
    pub fn add_with_examples(&mut self, other: Self) {
        self.add(&other);
        self.examples.extend(other.examples);
    }

    fn note(&mut self, kind: &str, example: impl FnOnce() -> String) {
        let said = self
            .examples
            .iter()
            .filter(|known| known.starts_with(kind))
            .count();
        if said < EXAMPLES {
            self.examples.push(format!("{kind}: {}", example()));
        }
    }
}

/// Judges a record by a log.
#[must_use]
pub fn judge(logged: &[LoggedSession], record: &Record, expected: Expected<'_>) -> Ledger {
    let mut ledger = Ledger::default();
    for (session, seen) in pair(logged, record, expected.role, &mut ledger) {
        judge_session(session, &seen, &record.host_gaps, expected, &mut ledger);
    }
    ledger
}

/// Judges what is said of the sessions themselves, whatever they ran: role, database, encryption.
#[must_use]
pub fn judge_sessions(logged: &[LoggedSession], record: &Record, role: &str) -> Ledger {
    let mut ledger = Ledger::default();
    for (session, seen) in pair(logged, record, role, &mut ledger) {
        for gap in seen.iter().flat_map(|seen| &seen.gaps) {
            *ledger.reasons.entry(gap.reason.clone()).or_default() += 1;
        }
        for (reason, _) in seen.iter().filter_map(|seen| seen.opaque.as_ref()) {
            *ledger.reasons.entry(reason.clone()).or_default() += 1;
        }
        judge_facts(session, &seen, &mut ledger);
    }
    ledger
}

/// Each of the role's sessions in the log, with what was recorded of it. Backend pids are reused: a recorded session is
/// the log's of the same pid that began last before its first event's end.
fn pair<'a>(
    logged: &'a [LoggedSession],
    record: &'a Record,
    role: &str,
    ledger: &mut Ledger,
) -> Vec<(&'a LoggedSession, Vec<&'a Seen>)> {
    let mut by_pid: BTreeMap<u32, Vec<&LoggedSession>> = BTreeMap::new();
    for session in logged {
        by_pid.entry(session.backend_pid).or_default().push(session);
    }
    let mut pairs: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for seen in record.sessions.values() {
        let candidates = by_pid.get(&seen.pid).into_iter().flatten();
        let began = candidates.filter(|session| session.started_ns <= seen.first_ns.saturating_add(SLACK_NS));
        if let Some(session) = began.max_by_key(|session| session.started_ns) {
            pairs.entry(session.id.as_str()).or_default().push(seen);
            continue;
        }
        let count = seen
            .requests
            .iter()
            .filter(|request| request.number.is_some())
            .count() as u64;
        ledger.extra += count;
        if count > 0 {
            ledger.note("extra", || {
                format!("{count} requests of backend {}, unknown to the log", seen.pid)
            });
        }
    }
    let ours = logged.iter().filter(|session| session.role == role);
    ours.map(|session| (session, pairs.remove(session.id.as_str()).unwrap_or_default()))
        .collect()
}

fn judge_session(
    session: &LoggedSession,
    seen: &[&Seen],
    host: &[Gap],
    expected: Expected<'_>,
    ledger: &mut Ledger,
) {
    let mut requests: BTreeMap<u64, Vec<&Request>> = BTreeMap::new();
    for request in seen.iter().flat_map(|seen| &seen.requests) {
        if let Some(number) = request.number {
            requests.entry(number).or_default().push(request);
        }
    }
    // A session that cannot be read is told once, for as long as it lasts or until something of it is read.
    let opaque: Vec<Gap> = seen.iter().filter_map(|seen| seen.opaque()).collect();
    let gaps: Vec<&Gap> = seen.iter().flat_map(|seen| &seen.gaps).chain(&opaque).collect();
    for gap in &gaps {
        *ledger.reasons.entry(gap.reason.clone()).or_default() += 1;
    }
    let program = session
        .statements
        .iter()
        .find_map(|statement| program_of(&statement.text));
    let unit = program
        .and_then(|program| expected.units.get(program))
        .map(String::as_str);
    // Bytes of what is not recorded; and of what may be told missing, though it is recorded (the collector had it before it
    // could say so to an agent that was killed) or does not count (the agent took bytes before it said that it was ready).
    let (mut lost, mut both) = (0, 0);
    let (mut counts, mut all_simple) = (0, true);
    for statement in &session.statements {
        let Some(number) = number_of(statement) else {
            continue;
        };
        let found = requests.get_mut(&number).and_then(Vec::pop);
        let is_covered = gaps.iter().any(|gap| gap.covers(statement.at_ns));
        if statement.at_ns < expected.from_ns {
            if is_covered {
                both += statement.text.len() as u64 + 6;
            }
            continue;
        }
        counts += 1;
        all_simple &= statement.kind == StatementKind::Simple;
        match found {
            Some(request) => {
                ledger.recorded += 1;
                if is_covered {
                    both += statement.text.len() as u64 + 6;
                }
                judge_request(statement, request, unit, ledger);
            }
            // What cannot be put down to a session is told of the agent itself.
            None if gaps
                .iter()
                .copied()
                .chain(host)
                .any(|gap| gap.covers(statement.at_ns)) =>
            {
                ledger.told_missing += 1;
                // Query: kind, length, text, terminator (manual, 55.7).
                lost += statement.text.len() as u64 + 6;
            }
            None => {
                ledger.untold += 1;
                ledger.note("untold", || untold(session, statement, &gaps));
                lost += statement.text.len() as u64 + 6;
            }
        }
    }
    let left: usize = requests.values().map(Vec::len).sum();
    ledger.extra += left as u64;
    if left > 0 {
        ledger.note("extra", || {
            format!("{left} requests of session {} that the log has not", session.id)
        });
    }
    ledger.statements += counts;
    if counts == 0 {
        return;
    }
    ledger.sessions += 1;
    judge_facts(session, seen, ledger);
    if all_simple && program.is_some_and(|program| expected.counted.contains(program)) {
        let told = gaps
            .iter()
            .filter(|gap| gap.hides_requests())
            .filter_map(|gap| gap.bytes)
            .sum::<u64>();
        ledger.bytes_lost += lost;
        ledger.bytes_told += told;
        if told < lost || told > lost + both {
            ledger.wrong_bytes += 1;
            ledger.note("bytes", || {
                let of: Vec<_> = gaps
                    .iter()
                    .filter(|gap| gap.hides_requests())
                    .map(|gap| (&gap.reason, gap.bytes))
                    .collect();
                format!(
                    "session {}: {lost} bytes by the log, {told} by its gaps {of:?}",
                    session.id
                )
            });
        }
    }
}

fn judge_request(statement: &LoggedStatement, request: &Request, unit: Option<&str>, ledger: &mut Ledger) {
    if let Some(text) = &request.text
        && !same_text(text, request.truncated, &statement.text)
    {
        ledger.wrong_text += 1;
        ledger.note("text", || {
            format!("log {:?}, record {:?}", cut(&statement.text), cut(text))
        });
    }
    match request.principal.as_deref() {
        None | Some("unknown") => ledger.unknown_principal += 1,
        Some(principal) if unit.is_some_and(|unit| unit_of(principal) != Some(unit)) => {
            ledger.wrong_principal += 1;
            ledger.note("principal", || {
                format!("{principal}, expected {unit:?}, for {:?}", cut(&statement.text))
            });
        }
        Some(_) => {}
    }
}

/// Role, database and encryption, which an agent that came later has to find out in other ways.
fn judge_facts(session: &LoggedSession, seen: &[&Seen], ledger: &mut Ledger) {
    let Some(seen) = seen.iter().rev().find(|seen| !seen.requests.is_empty()) else {
        return;
    };
    let encryption = match &session.encryption {
        Encryption::None => ("none", "", ""),
        Encryption::Gss => ("gss", "", ""),
        Encryption::Tls { version, cipher } => ("tls", version.as_str(), cipher.as_str()),
    };
    let pairs = [
        ("role", session.role.as_str(), seen.role.as_str()),
        ("database", &session.database, &seen.database),
        ("encryption", encryption.0, &seen.encryption),
        ("version of TLS", encryption.1, &seen.tls_version),
        ("cipher", encryption.2, &seen.tls_cipher),
    ];
    for (what, theirs, ours) in pairs {
        if theirs == ours || (theirs.is_empty() && ours.is_empty()) {
            continue;
        }
        if ours.is_empty() {
            ledger.unknown_session += 1;
            ledger.note("session", || {
                format!(
                    "{what} of session {} is not known, the log says {theirs}",
                    session.id
                )
            });
        } else {
            ledger.wrong_session += 1;
            ledger.note("session", || {
                format!("{what} of session {}: log {theirs}, record {ours}", session.id)
            });
        }
    }
}

fn untold(session: &LoggedSession, statement: &LoggedStatement, gaps: &[&Gap]) -> String {
    let near = gaps.iter().min_by_key(|gap| gap.distance(statement.at_ns));
    let near = near.map(|gap| {
        format!(
            "; the nearest gap ({}) is {} ms away",
            gap.reason,
            gap.distance(statement.at_ns) / 1_000_000
        )
    });
    format!(
        "{:?} of backend {} at {}{}",
        cut(&statement.text),
        session.backend_pid,
        crate::screen::clock(statement.at_ns),
        near.unwrap_or_else(|| "; its session has no gap".to_owned())
    )
}

fn cut(text: &str) -> String {
    text.chars().take(EXAMPLE_LENGTH).collect()
}

fn number_of(statement: &LoggedStatement) -> Option<u64> {
    number_in(&statement.text).or_else(|| number_in(&statement.params))
}

/// The first number of exactly [`DIGITS`] digits.
fn number_in(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .find(|run| run.len() == DIGITS)
        .and_then(|run| run.parse().ok())
}

fn same_text(recorded: &str, truncated: bool, logged: &str) -> bool {
    let (recorded, logged) = (essence(recorded), essence(logged));
    recorded == logged || (truncated && logged.starts_with(&recorded))
}

/// Without what the splitting of a string takes away.
fn essence(text: &str) -> String {
    text.chars().filter(|c| *c != ';' && !c.is_whitespace()).collect()
}

/// Of the numbers that tell statements apart. pgbench draws them at random: below 1,000 in a session, the same one twice
/// is a chance of one in two million.
pub const DIGITS: usize = 12;
/// The log has milliseconds, cut off, and is written a moment after the request was read: on a busy machine, the server
/// may be put to sleep in between.
const SLACK_NS: i64 = 50_000_000;
/// Characters of a text that are shown.
const EXAMPLE_LENGTH: usize = 100;
/// Of each kind.
const EXAMPLES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> LoggedSession {
        let statement = |second: i64, number: u64| LoggedStatement {
            at_ns: second * 1_000_000_000,
            text: format!("select {number} /* program=shop */"),
            ..LoggedStatement::default()
        };
        LoggedSession {
            backend_pid: 7,
            id: "a".to_owned(),
            role: "app_user".to_owned(),
            database: "shop".to_owned(),
            statements: vec![
                statement(1, 100_000_000_001),
                statement(5, 100_000_000_002),
                statement(9, 100_000_000_003),
            ],
            closed: true,
            ..LoggedSession::default()
        }
    }

    fn seen(numbers: &[u64]) -> Seen {
        let request = |number: &u64| Request {
            number: Some(*number),
            text: Some(format!("select {number} /* program=shop */")),
            principal: Some("spiffe://local/host/h/unit/shop.service".to_owned()),
            ..Request::default()
        };
        Seen {
            pid: 7,
            first_ns: 1_000_000_000,
            role: "app_user".to_owned(),
            database: "shop".to_owned(),
            encryption: "none".to_owned(),
            requests: numbers.iter().map(request).collect(),
            ..Seen::default()
        }
    }

    fn gap(from: i64, to: i64, bytes: u64) -> Gap {
        Gap {
            reason: "agent_restart".to_owned(),
            direction: Some("frontend".to_owned()),
            from_ns: from * 1_000_000_000,
            to_ns: to * 1_000_000_000,
            bytes: Some(bytes),
        }
    }

    fn judged(seen: Seen) -> Ledger {
        judged_by(&Record {
            sessions: BTreeMap::from([("x".to_owned(), seen)]),
            ..Record::default()
        })
    }

    fn judged_by(record: &Record) -> Ledger {
        judged_from(record, 0)
    }

    fn judged_from(record: &Record, from_ns: i64) -> Ledger {
        let units = BTreeMap::from([("shop".to_owned(), "shop.service".to_owned())]);
        let counted = BTreeSet::from(["shop".to_owned()]);
        let expected = Expected {
            role: "app_user",
            units: &units,
            from_ns,
            counted: &counted,
        };
        judge(&[log()], record, expected)
    }

    #[test]
    fn what_is_not_recorded_has_to_be_told() {
        let all = judged(seen(&[100_000_000_001, 100_000_000_002, 100_000_000_003]));
        assert_eq!(
            (all.recorded, all.told_missing, all.untold, all.none()),
            (3, 0, 0, true),
            "{all:?}"
        );
        let silent = judged(seen(&[100_000_000_001, 100_000_000_003]));
        assert_eq!((silent.recorded, silent.untold, silent.none()), (2, 1, false));
        // Of the right bytes, at the right time.
        let mut told = seen(&[100_000_000_001, 100_000_000_003]);
        told.gaps.push(gap(4, 6, 44));
        let told = judged(told);
        assert_eq!(
            (told.told_missing, told.untold, told.bytes_told, told.none()),
            (1, 0, 44, true),
            "{told:?}"
        );
        let mut elsewhere = seen(&[100_000_000_001, 100_000_000_003]);
        elsewhere.gaps.push(gap(6, 8, 44));
        assert_eq!(judged(elsewhere).untold, 1);
        let host = Record {
            sessions: BTreeMap::from([("x".to_owned(), seen(&[100_000_000_001, 100_000_000_003]))]),
            host_gaps: vec![gap(4, 6, 0)],
            ..Record::default()
        };
        assert_eq!(judged_by(&host).untold, 0);
        let mut short = seen(&[100_000_000_001, 100_000_000_003]);
        short.gaps.push(gap(4, 6, 43));
        assert_eq!(judged(short).wrong_bytes, 1);
        // What does not count yet may be told missing.
        let mut early = seen(&[100_000_000_003]);
        early.gaps.push(gap(4, 6, 44));
        let host = Record {
            sessions: BTreeMap::from([("x".to_owned(), early)]),
            ..Record::default()
        };
        let early = judged_from(&host, 5_500_000_000);
        assert_eq!(
            (early.statements, early.bytes_told, early.none()),
            (1, 44, true),
            "{early:?}"
        );
        // Lost answers hide no request.
        let mut answers = seen(&[100_000_000_001, 100_000_000_003]);
        answers.gaps.push(Gap {
            direction: Some("backend".to_owned()),
            ..gap(4, 6, 44)
        });
        assert_eq!(judged(answers).untold, 1);
    }

    #[test]
    fn what_is_recorded_has_to_be_right() {
        let twice = judged(seen(&[
            100_000_000_001,
            100_000_000_001,
            100_000_000_002,
            100_000_000_003,
        ]));
        assert_eq!((twice.extra, twice.none()), (1, false));
        let numbers = [100_000_000_001, 100_000_000_002, 100_000_000_003];
        let mut text = seen(&numbers);
        text.requests[0].text = Some("select 100000000001".to_owned());
        assert_eq!(judged(text).wrong_text, 1);
        let mut principal = seen(&numbers);
        principal.requests[0].principal = Some("spiffe://local/host/h/unit/b.service".to_owned());
        assert_eq!(judged(principal).wrong_principal, 1);
        let mut role = seen(&numbers);
        role.role = "postgres".to_owned();
        assert_eq!(judged(role).wrong_session, 1);
        let mut unknown = seen(&numbers);
        unknown.encryption = String::new();
        let unknown = judged(unknown);
        assert_eq!((unknown.unknown_session, unknown.none()), (1, true));
        let mut stranger = seen(&numbers);
        stranger.pid = 8;
        assert_eq!(judged(stranger).extra, 3);
    }

    #[test]
    fn numbers_are_found_in_texts_and_values() {
        assert_eq!(
            number_in("where id = 5 and 123456789012::bigint > 0"),
            Some(123_456_789_012)
        );
        assert_eq!(number_in("$1 = '5', $2 = '123456789012'"), Some(123_456_789_012));
        assert_eq!(number_in("1234567890123"), None);
    }
}
