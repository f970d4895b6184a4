//! How the demo looks: the server's log on the left, what pgwitness knows on the right.
//!
//! Owns the choice of a few telling lines and their columns. It refuses to count: the figures come from `compare`.

use std::collections::{BTreeMap, BTreeSet};

use super::customers::Answered;
use crate::cluster::APP_ROLE;
use crate::compare::{Differences, unit_of};
use crate::csvlog::{LoggedSession, LoggedStatement};
use crate::record::Recorded;
use crate::screen::{Look, Screen, cell, clock};

/// The trail of one run.
pub(super) struct Trail {
    screen: Screen,
}

impl Trail {
    pub(super) fn new() -> Self {
        Self {
            screen: Screen::stdout(),
        }
    }

    /// A few statements, spread over all principals, as both sides tell them.
    pub(super) fn side_by_side(&self, logged: &[LoggedSession], record: &[Recorded]) {
        let screen = self.screen;
        println!();
        println!("{}", screen.rule("the same statements, twice"));
        let left = cell("what PostgreSQL's own log knows", LEFT);
        println!(
            "{} │ {}",
            screen.paint(Look::Bold, &left),
            screen.paint(Look::Bold, "what pgwitness knows")
        );
        let heads = [("time (UTC)", 12), ("role", 8), ("statement", LEFT_TEXT)]
            .map(|(head, width)| cell(head, width));
        let right = [("program", PROGRAM), ("how", HOW), ("statement", RIGHT_TEXT)]
            .map(|(head, width)| cell(head, width));
        println!(
            "{} │ {}",
            screen.paint(Look::Dim, &heads.join(" ")),
            screen.paint(Look::Dim, &right.join(" "))
        );
        let tints = self.tints(record);
        for event in sample(record) {
            let logged = self.find(logged, event);
            let time = logged.map_or(event.at_ns, |statement| statement.at_ns);
            let text = logged.map_or_else(|| "(not found)".to_owned(), |statement| plain(&statement.text));
            let unit = unit(event);
            let tint = tints.get(unit.as_str()).copied().unwrap_or(Look::Bad);
            println!(
                "{} {} {} │ {} {} {}",
                screen.paint(Look::Dim, &clock(time)),
                cell(APP_ROLE, 8),
                cell(&text, LEFT_TEXT),
                screen.paint(tint, &cell(&unit, PROGRAM)),
                cell(event.confidence.as_deref().unwrap_or("none"), HOW),
                cell(&plain(event.statement.as_deref().unwrap_or("?")), RIGHT_TEXT),
            );
        }
    }

    /// All that pgAudit can say of who it was: role and address, which stand beside its lines in the log.
    pub(super) fn pgaudit(&self, logged: &[LoggedSession]) {
        let mut counts: BTreeMap<(&str, &str), (u64, BTreeSet<&str>)> = BTreeMap::new();
        for session in logged.iter().filter(|session| session.role == APP_ROLE) {
            let audited = session
                .statements
                .iter()
                .map(|statement| statement.audited.len() as u64);
            let host = session
                .client
                .rsplit_once(':')
                .map_or(session.client.as_str(), |(host, _)| host);
            let (lines, sessions) = counts.entry((&session.role, host)).or_default();
            *lines += audited.sum::<u64>();
            sessions.insert(&session.id);
        }
        println!();
        println!("{}", self.screen.rule("what pgAudit can say of who it was"));
        let heads = format!(
            "{:>10} {:>9}  {}  client",
            "statements",
            "sessions",
            cell("role", KNOWN)
        );
        println!("{}", self.screen.paint(Look::Dim, &heads));
        for ((role, host), (statements, sessions)) in &counts {
            println!(
                "{statements:>10} {:>9}  {}  {host}",
                sessions.len(),
                cell(role, KNOWN)
            );
        }
    }

    /// Who there was, in full, and how much each did.
    pub(super) fn principals(&self, record: &[Recorded]) {
        let mut counts: BTreeMap<(&str, String), (u64, u64)> = BTreeMap::new();
        for event in record {
            let principal = event.principal.as_deref().unwrap_or("unknown");
            let how =
                [event.confidence.as_deref(), event.method.as_deref()].map(|part| part.unwrap_or("none"));
            let count = counts.entry((principal, how.join(", "))).or_default();
            count.0 += 1;
            count.1 += event.rows.unwrap_or_default();
        }
        println!();
        println!(
            "{}",
            self.screen.rule(&format!("one role, {} programs", counts.len()))
        );
        let heads = format!(
            "{:>10} {:>9}  {}  principal",
            "statements",
            "rows",
            cell("how we know", KNOWN)
        );
        println!("{}", self.screen.paint(Look::Dim, &heads));
        let tints = self.tints(record);
        let hosts: BTreeSet<_> = counts
            .keys()
            .filter_map(|(principal, _)| host_of(principal))
            .collect();
        for ((principal, how), (statements, rows)) in &counts {
            let tint = tints.get(short(principal)).copied().unwrap_or(Look::Bad);
            // What all have in common is said once, below.
            let name = match host_of(principal) {
                Some(host) if hosts.len() == 1 => principal.strip_prefix(host).unwrap_or(principal),
                _ => principal,
            };
            let known = cell(how, KNOWN);
            println!(
                "{statements:>10} {rows:>9}  {known}  {}",
                self.screen.paint(tint, name)
            );
        }
        if let (1, Some(host)) = (hosts.len(), hosts.first()) {
            let note = format!("{:>10} {:>9}  {}  each under {host}", "", "", cell("", KNOWN));
            println!("{}", self.screen.paint(Look::Dim, &note));
        }
    }

    /// Who touched one customer, as an operator reads it, and what is wrong with that.
    pub(super) fn customer(&self, asked: &Answered) {
        println!();
        println!("{}", self.screen.rule("who touched customer 42?"));
        for line in asked.told.lines() {
            // As it is, for its columns: `cell` would draw blanks together.
            println!("{}", line.chars().take(ANSWER).collect::<String>());
        }
        for line in &asked.wrong {
            println!("  {}", self.screen.paint(Look::Bad, line));
        }
    }

    /// Whether it all holds.
    pub(super) fn verdict(&self, found: &Differences, verified: bool, said: &str) {
        println!();
        println!("{}", self.screen.rule("does it hold?"));
        for example in &found.examples {
            println!("  {}", self.screen.paint(Look::Bad, example));
        }
        let look = |good| if good { Look::Good } else { Look::Bad };
        let complete = format!("{} of {} statements missing", found.missing, found.statements);
        println!("  {}", self.screen.paint(look(found.missing == 0), &complete));
        let wrong = format!(
            "{} under a wrong name, {} without a name",
            found.wrong_principal, found.unknown_principal
        );
        println!(
            "  {}",
            self.screen
                .paint(look(found.wrong_principal + found.unknown_principal == 0), &wrong)
        );
        for line in said.lines() {
            println!("  {}", self.screen.paint(look(verified), line));
        }
        println!();
    }

    fn tints(&self, record: &[Recorded]) -> BTreeMap<String, Look> {
        let mut units: Vec<_> = record.iter().map(unit).collect();
        units.sort();
        units.dedup();
        units
            .into_iter()
            .enumerate()
            .map(|(number, unit)| (unit, Look::Tint(number)))
            .collect()
    }

    /// The log's line for an event: same backend, same text up to the first literal, nearest in time.
    fn find<'a>(&self, logged: &'a [LoggedSession], event: &Recorded) -> Option<&'a LoggedStatement> {
        let words = |text: &str| plain(text).split_whitespace().collect::<Vec<_>>().join(" ");
        let ours = words(event.statement.as_deref()?);
        let shown = ours.split('?').next().unwrap_or_default();
        logged
            .iter()
            .filter(|session| Some(session.backend_pid) == event.backend_pid)
            .flat_map(|session| &session.statements)
            .filter(|statement| words(&statement.text).starts_with(shown))
            .min_by_key(|statement| statement.at_ns.abs_diff(event.at_ns))
    }
}

/// The program's name in a principal that is a unit.
fn short(principal: &str) -> &str {
    let unit = unit_of(principal).unwrap_or(principal);
    unit.strip_suffix(".service").unwrap_or(unit)
}

fn unit(event: &Recorded) -> String {
    short(event.principal.as_deref().unwrap_or("unknown")).to_owned()
}

/// `spiffe://<trust domain>/host/<host>/` of a principal that is a unit.
fn host_of(principal: &str) -> Option<&str> {
    let (host, _) = principal.rsplit_once("unit/")?;
    Some(host)
}

/// Taken in turn from each principal, from its newest backwards; shown in the order of time.
fn sample(record: &[Recorded]) -> Vec<&Recorded> {
    let mut by_principal: BTreeMap<&str, Vec<&Recorded>> = BTreeMap::new();
    for event in record {
        by_principal
            .entry(event.principal.as_deref().unwrap_or("unknown"))
            .or_default()
            .push(event);
    }
    let mut chosen = Vec::new();
    for mut events in by_principal.into_values() {
        events.sort_by_key(|event| std::cmp::Reverse(event.at_ns));
        // The first of each kind of statement: five times the same line tells nothing.
        let mut seen = Vec::new();
        for event in events {
            let text = event.statement.as_deref().unwrap_or_default();
            // BEGIN and COMMIT tell nothing either.
            if seen.len() < OF_EACH && plain(text).contains(' ') && !seen.contains(&text) {
                seen.push(text);
                chosen.push(event);
            }
        }
    }
    chosen.sort_by_key(|event| event.at_ns);
    chosen
}

/// Without the comment that names the program: the log's reader has none to go by.
fn plain(text: &str) -> String {
    match text
        .split_once("/*")
        .and_then(|(before, rest)| Some((before, rest.split_once("*/")?.1)))
    {
        Some((before, after)) => format!("{} {}", before.trim(), after.trim()).trim().to_owned(),
        None => text.to_owned(),
    }
}

const OF_EACH: usize = 3;
const LEFT_TEXT: usize = 30;
const LEFT: usize = 12 + 1 + 8 + 1 + LEFT_TEXT;
const PROGRAM: usize = 14;
const HOW: usize = 8;
const RIGHT_TEXT: usize = 30;
const KNOWN: usize = 24;
/// Wider than the rest: a row of the answer says eleven things.
const ANSWER: usize = 160;
