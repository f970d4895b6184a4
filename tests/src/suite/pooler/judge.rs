//! The comparison: whose each statement is by the witnesses, and who is recorded.
//!
//! Pure, so that every kind of fault is tested with made-up records. A wrong name is worse than none: what is unknown with
//! a reason counts against the share that has to be joined, what has another's name makes the suite fail.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::journal::Journals;
use super::record::{Gap, Recorded, Request};
use super::server_log::{Said, Session};
use super::truth::{Owner, Truth};

/// What is to be found.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// Ends of the principals of the poolers themselves.
    pub(super) poolers: Vec<String>,
    /// Whether statements may be missing: an agent was not there all the time.
    pub(super) lossy: bool,
    /// Whether another process stands between client and pooler, under the client's principal.
    pub(super) relayed: bool,
    /// Which part of what is recorded must be linked to its client; if not said, only that nothing is wrong counts.
    pub(super) share: Option<f64>,
    /// When the tap was there, in nanoseconds since the Unix epoch: what is missing after that has to be told.
    pub(super) from_ns: i64,
}

/// What the comparison found, in statements.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Findings {
    /// Of clients, through the pooler, as the server logged them.
    pub(super) statements: u64,
    /// Of these, those that are byte for byte the same of many clients, as are their answers.
    pub(super) identical_statements: u64,
    /// Of these, those that are recorded.
    pub(super) recorded: u64,
    /// Recorded under the client's own principal, surely.
    pub(super) joined: u64,
    /// Under its own principal, less surely: the link is as sure, but not who the client is.
    pub(super) inferred: u64,
    /// Given back to its client by a lease, whoever that is known to be.
    pub(super) linked: u64,
    /// Unknown, and the reason says that several clients may have sent it.
    pub(super) ambiguous: u64,
    /// Unknown, with a reason (ambiguous ones among them).
    pub(super) unknown: u64,
    pub(super) unknown_without_reason: u64,
    /// Another's name.
    pub(super) wrong_principal: u64,
    /// The right principal, and another process of it.
    pub(super) wrong_process: u64,
    /// The pooler's own, and those of them that are recorded as its own.
    pub(super) own: u64,
    pub(super) own_named: u64,
    /// A person that another client's `SET` named.
    pub(super) foreign_shown: u64,
    /// Whom a client speaks for, rightly.
    pub(super) end_users: u64,
    /// In the server's log, and not recorded.
    pub(super) missing: u64,
    /// Of these, sent while the tap was there, and in the time of no gap of their session or of the agent.
    pub(super) untold: u64,
    /// Recorded, and not in the server's log.
    pub(super) extra: u64,
    /// Whose client is known by a ticket, a mark or the pooler's log.
    pub(super) witnessed: u64,
    /// By the pooler's log and an anchor, both the same.
    pub(super) confirmed: u64,
    /// The same of everybody and no log of the pooler: judged by the clients' counts and times alone.
    pub(super) by_time: u64,
    /// Of these, recorded of a client that had no such request open then, or oftener than it sent it.
    pub(super) impossible: u64,
    /// The suite's own fault: witnesses that contradict one another.
    pub(super) disagreements: u64,
    /// Statements that pgAudit has a line of, all under one role; and principals that pgwitness names for them.
    pub(super) audited: u64,
    pub(super) audited_named: u64,
    pub(super) principals: BTreeSet<String>,
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) methods: BTreeMap<String, u64>,
    #[serde(skip)]
    pub(super) examples: BTreeMap<&'static str, Vec<String>>,
}

impl Findings {
    /// Whether everything that must be zero is.
    pub(super) fn none(&self, expected: &Expected) -> bool {
        let faults = [
            self.wrong_principal,
            self.wrong_process,
            self.unknown_without_reason,
            self.foreign_shown,
            self.impossible,
            self.disagreements,
            self.extra,
            self.untold,
            if expected.lossy { 0 } else { self.missing },
        ];
        let is_seen = self.statements > self.missing;
        faults.iter().all(|count| *count == 0)
            && is_seen
            && expected
                .share
                .is_none_or(|share| self.linked_share().is_some_and(|found| found >= share))
    }

    /// Linked, of all that clients sent and that is recorded.
    pub(super) fn linked_share(&self) -> Option<f64> {
        self.share(self.linked)
    }

    /// Joined, of all that clients sent and that is recorded.
    pub(super) fn joined_share(&self) -> Option<f64> {
        self.share(self.joined)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of statements are small")]
    fn share(&self, part: u64) -> Option<f64> {
        (self.recorded > 0).then(|| part as f64 / self.recorded as f64)
    }

    /// Adds another part's counts.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.statements, other.statements),
            (&mut self.identical_statements, other.identical_statements),
            (&mut self.recorded, other.recorded),
            (&mut self.joined, other.joined),
            (&mut self.inferred, other.inferred),
            (&mut self.linked, other.linked),
            (&mut self.ambiguous, other.ambiguous),
            (&mut self.unknown, other.unknown),
            (&mut self.unknown_without_reason, other.unknown_without_reason),
            (&mut self.wrong_principal, other.wrong_principal),
            (&mut self.wrong_process, other.wrong_process),
            (&mut self.own, other.own),
            (&mut self.own_named, other.own_named),
            (&mut self.foreign_shown, other.foreign_shown),
            (&mut self.end_users, other.end_users),
            (&mut self.missing, other.missing),
            (&mut self.untold, other.untold),
            (&mut self.extra, other.extra),
            (&mut self.witnessed, other.witnessed),
            (&mut self.confirmed, other.confirmed),
            (&mut self.by_time, other.by_time),
            (&mut self.impossible, other.impossible),
            (&mut self.disagreements, other.disagreements),
            (&mut self.audited, other.audited),
            (&mut self.audited_named, other.audited_named),
        ] {
            *sum += count;
        }
        self.principals.extend(other.principals.iter().cloned());
        for (sums, counts) in [
            (&mut self.reasons, &other.reasons),
            (&mut self.methods, &other.methods),
        ] {
            for (name, count) in counts {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
    }

    fn example(&mut self, what: &'static str, text: impl FnOnce() -> String) {
        let examples = self.examples.entry(what).or_default();
        if examples.len() < EXAMPLES {
            examples.push(text());
        }
    }
}

/// What was recorded.
pub(super) struct Record {
    /// The requests of each session.
    pub(super) requests: Vec<Vec<Request>>,
    /// What was told to be missing.
    pub(super) gaps: Vec<Gap>,
}

/// Compares.
pub(super) fn judge(
    journals: &Journals,
    sessions: &[Session],
    truth: &Truth,
    record: &Record,
    expected: &Expected,
) -> Findings {
    let mut findings = Findings {
        disagreements: truth.disagreements.len() as u64,
        confirmed: truth.confirmed,
        ..Findings::default()
    };
    for disagreement in &truth.disagreements {
        findings.example("disagreements", || disagreement.clone());
    }
    let mut unsure = Vec::new();
    for ((session, owners), requests) in sessions.iter().zip(&truth.owners).zip(&record.requests) {
        let gaps: Vec<&Gap> = record.gaps.iter().filter(|gap| gap.is_of(session.pid)).collect();
        for (said, request) in pairs(&session.statements, requests) {
            let said = said.and_then(|index| Some((session.statements.get(index)?, owners.get(index)?)));
            let request = request.and_then(|index| requests.get(index));
            let Some((said, owner)) = said else {
                findings.extra += 1;
                findings.example("extra", || {
                    let text = super::short(request.map_or("", Request::text));
                    format!("backend {}: recorded and not logged: {text}", session.pid)
                });
                continue;
            };
            count(&mut findings, said, owner);
            let Some(request) = request else {
                findings.missing += 1;
                let told = said.at_ns < expected.from_ns || gaps.iter().any(|gap| gap.covers(said.at_ns));
                findings.untold += u64::from(!told);
                findings.example(if told { "missing" } else { "untold" }, || {
                    format!(
                        "backend {}: logged and not recorded: {}",
                        session.pid,
                        super::short(&said.text)
                    )
                });
                continue;
            };
            let mut right = true;
            for one in &request.statements {
                let judged = Judged {
                    journals,
                    expected,
                    session,
                    said,
                    owner,
                };
                right &= judged.judge(one, &mut findings);
            }
            // One request has one client.
            if let Some(one) = request.statements.first() {
                judged_request(one, owner, said, right, &mut findings);
                if *owner == Owner::Unsure && name(one) != "unknown" {
                    unsure.push((one, said));
                }
            }
        }
    }
    if !expected.relayed {
        by_time(journals, &unsure, &mut findings);
    }
    findings
}

fn count(findings: &mut Findings, said: &Said, owner: &Owner) {
    if *owner == Owner::Pooler {
        findings.own += 1;
        return;
    }
    findings.statements += 1;
    let marked = super::journal::mark(&said.text).or_else(|| super::journal::mark(&said.params));
    findings.identical_statements += u64::from(marked.is_none() && said.text != super::TICKET);
    match owner {
        Owner::Unsure => findings.by_time += 1,
        _ => findings.witnessed += 1,
    }
    findings.audited += u64::from(said.audited);
}

/// Counted once a request.
fn judged_request(one: &Recorded, owner: &Owner, said: &Said, right: bool, findings: &mut Findings) {
    let named = name(one) != "unknown";
    if *owner == Owner::Pooler {
        return;
    }
    findings.recorded += 1;
    *findings
        .methods
        .entry(one.method.clone().unwrap_or_default())
        .or_default() += 1;
    if named {
        findings.principals.insert(name(one).to_owned());
        findings.audited_named += u64::from(said.audited);
        if !right {
            return;
        }
        findings.linked += u64::from(one.method.as_deref() == Some("lease"));
        let sure = matches!(one.confidence.as_deref(), Some("joined" | "observed"));
        *if sure {
            &mut findings.joined
        } else {
            &mut findings.inferred
        } += 1;
        return;
    }
    let reason = one.reason.as_deref().unwrap_or_default();
    if !reason.is_empty() {
        findings.unknown += 1;
        findings.ambiguous += u64::from(AMBIGUOUS.iter().any(|word| reason.contains(word)));
        *findings.reasons.entry(general(reason)).or_default() += 1;
    }
}

struct Judged<'a> {
    journals: &'a Journals,
    expected: &'a Expected,
    session: &'a Session,
    said: &'a Said,
    owner: &'a Owner,
}

impl Judged<'_> {
    /// Whether its name is not wrong.
    fn judge(&self, one: &Recorded, findings: &mut Findings) -> bool {
        let wrong = findings.wrong_principal;
        let client = match self.owner {
            Owner::Client(index) => self.journals.connections.get(*index),
            _ => None,
        };
        let unit = |program: &str| format!("/unit/{program}.service");
        let right = match self.owner {
            Owner::Client(_) => client.map(|client| unit(&client.program)),
            Owner::Program(program) => Some(unit(program)),
            Owner::Pooler | Owner::Unsure => None,
        };
        let principal = name(one);
        if principal == "unknown" {
            if one.reason.as_deref().unwrap_or_default().is_empty() {
                findings.unknown_without_reason += 1;
                findings.example("unknown without reason", || self.describe(one));
            }
        } else if let Some(right) = &right {
            if !principal.ends_with(right.as_str()) {
                findings.wrong_principal += 1;
                findings.example("wrong principal", || self.describe(one));
            } else if let (Some(client), Some(pid)) = (client, one.pid)
                && !self.expected.relayed
                && pid != client.pid
            {
                findings.wrong_process += 1;
                findings.example("wrong process", || self.describe(one));
            }
        } else {
            // A client's, whoever that is, is no pooler's own, and the other way round.
            let is_pooler = self
                .expected
                .poolers
                .iter()
                .any(|pooler| principal.ends_with(pooler.as_str()));
            if is_pooler == (*self.owner == Owner::Pooler) {
                findings.own_named += u64::from(is_pooler);
            } else {
                findings.wrong_principal += 1;
                findings.example("wrong principal", || self.describe(one));
            }
        }
        let is_right = findings.wrong_principal == wrong;
        let Some(end_user) = &one.end_user else {
            return is_right;
        };
        let program = match (self.owner, client) {
            (_, Some(client)) => Some(client.program.as_str()),
            (Owner::Unsure, _) => principal
                .rsplit_once("/unit/")
                .and_then(|(_, unit)| unit.strip_suffix(".service")),
            _ => None,
        };
        if program == Some(end_user) {
            findings.end_users += 1;
        } else {
            findings.foreign_shown += 1;
            findings.example("foreign", || {
                format!("end user {end_user}: {}", self.describe(one))
            });
        }
        is_right
    }

    fn describe(&self, one: &Recorded) -> String {
        let owner = match self.owner {
            Owner::Client(index) => self
                .journals
                .connections
                .get(*index)
                .map_or("?", |client| client.key.as_str()),
            Owner::Program(name) => name,
            Owner::Pooler => "the pooler",
            Owner::Unsure => "one of several",
        };
        format!(
            "backend {}, {}: sent by {owner}; recorded {} {} {} pid {:?} {}",
            self.session.pid,
            super::short(&self.said.text),
            name(one),
            one.confidence.as_deref().unwrap_or_default(),
            one.method.as_deref().unwrap_or_default(),
            one.pid,
            one.reason.as_deref().unwrap_or_default()
        )
    }
}

/// What nobody names: it must be recorded of a process that had such a request open at that time, and no oftener than it
/// sent it. That finds names given at random, not two that were exchanged while both waited.
fn by_time(journals: &Journals, unsure: &[(&Recorded, &Said)], findings: &mut Findings) {
    let mut open: HashMap<(u32, &str), Vec<(u64, u64)>> = HashMap::new();
    for connection in &journals.connections {
        for group in &connection.groups {
            let to = group.answered_ns.unwrap_or(u64::MAX);
            for text in &group.texts {
                open.entry((connection.pid, text))
                    .or_default()
                    .push((group.sent_ns, to));
            }
        }
    }
    for spans in open.values_mut() {
        spans.sort_unstable();
    }
    let mut used: HashMap<(u32, &str), usize> = HashMap::new();
    for (one, said) in unsure {
        let Some(pid) = one.pid else { continue };
        let key = (pid, said.text.as_str());
        let spans = open.get(&key).map_or([].as_slice(), Vec::as_slice);
        let until = spans.partition_point(|(from, _)| *from <= one.end_ns.saturating_add(SLACK_NS));
        let before = spans.get(..until).unwrap_or_default();
        let possible = before
            .iter()
            .rev()
            .take(AT_ONCE)
            .any(|(_, to)| to.saturating_add(SLACK_NS) >= one.start_ns);
        let count = used.entry(key).or_default();
        *count += 1;
        if !possible || *count > spans.len() {
            findings.impossible += 1;
            findings.example("impossible", || {
                format!(
                    "{} of pid {pid}, {}: it had none open",
                    super::short(&said.text),
                    name(one)
                )
            });
        }
    }
}

fn name(one: &Recorded) -> &str {
    one.principal
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("unknown")
}

/// A reason without the numbers and names that are different each time.
fn general(reason: &str) -> String {
    let (front, rest) = reason.split_once(" (").unwrap_or((reason, ""));
    let behind = rest.split_once(')').map_or(rest, |(_, behind)| behind);
    format!("{front}{behind}")
        .split(' ')
        .filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Which statement is which request. Both are in the session's order; where they differ, the nearest place is looked for
/// behind which they are equal again for a while.
fn pairs(said: &[Said], requests: &[Request]) -> Vec<(Option<usize>, Option<usize>)> {
    let same = |left: usize, right: usize| match (said.get(left), requests.get(right)) {
        (Some(said), Some(request)) => {
            let at = request
                .statements
                .first()
                .map_or(0, |one| i64::try_from(one.start_ns).unwrap_or_default());
            request.is(&said.text) && at.abs_diff(said.at_ns) < APART_NS
        }
        _ => false,
    };
    let again = |left: usize, right: usize| {
        let rest = (said.len() - left.min(said.len())).min(requests.len() - right.min(requests.len()));
        rest > 0 && (0..rest.min(STRETCH)).all(|step| same(left + step, right + step))
    };
    let (mut left, mut right, mut found) = (0, 0, Vec::new());
    while left < said.len() && right < requests.len() {
        if same(left, right) {
            found.push((Some(left), Some(right)));
            (left, right) = (left + 1, right + 1);
            continue;
        }
        let near = (1..=NEAR).flat_map(|far| (0..=far).map(move |more| (far - more, more)));
        let lost = (NEAR + 1..=said.len() - left).map(|lost| (lost, 0));
        let gained = (NEAR + 1..=requests.len() - right).map(|gained| (0, gained));
        let step = near
            .chain(lost)
            .chain(gained)
            .find(|(lost, gained)| again(left + lost, right + gained));
        let (lost, gained) = step.unwrap_or((said.len() - left, requests.len() - right));
        found.extend((left..left + lost).map(|index| (Some(index), None)));
        found.extend((right..right + gained).map(|index| (None, Some(index))));
        (left, right) = (left + lost, right + gained);
    }
    found.extend((left..said.len()).map(|index| (Some(index), None)));
    found.extend((right..requests.len()).map(|index| (None, Some(index))));
    found
}

/// How a reason says that there are candidates.
const AMBIGUOUS: [&str; 4] = ["several", "ambig", "candidate", "more than one"];
/// Equal statements in a row that show that both are at the same place again.
const STRETCH: usize = 10;
/// Statements lost and gained at one place.
const NEAR: usize = 12;
/// The server's log has milliseconds, and a pipeline is read long before it is run.
const APART_NS: u64 = 2_000_000_000;
/// Both clocks are the host's; the agent converts from another of the kernel's.
const SLACK_NS: u64 = 5_000_000;
/// Requests of one process with one text that are open at the same time.
const AT_ONCE: usize = 256;
const EXAMPLES: usize = 4;

#[cfg(test)]
mod tests;
