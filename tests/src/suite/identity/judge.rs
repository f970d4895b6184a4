//! The comparison: what a client is by its own journal, and what was recorded of it.
//!
//! Pure. A name is right if it is the one that the suite expects of the case; the facts of the process behind it are
//! right if they are those that the connecting process wrote down. Whoever speaks later over the same connection
//! changes neither.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::journal::{Facts, Line, Process, Recorded};

/// What has to be recorded of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) who: Who,
    /// The user id on the host, where the client knows another one (user namespaces).
    pub(super) uid: Option<u32>,
    /// The path on the host, where the client knows another one (cgroup namespaces).
    pub(super) cgroup: Option<String>,
    /// Whether statements may be missing: the agent was not there all the time, or the client did not wait.
    pub(super) lossy: bool,
    /// Whether the process was put into its container from outside.
    pub(super) put_in: bool,
    /// Whether the process behind it is who holds the connection, not who opened it: the agent came later.
    pub(super) held: bool,
    /// Whether the server's process id that the client was told is a pooler's own.
    pub(super) pooled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The principal ends in this, and is observed.
    Named(String),
    /// The same, or less sure of it, or unknown with a reason: the agent came later.
    NamedOrUnknown(String),
    /// Unknown, passed on by a relay of this kind.
    BehindRelay(&'static str),
    /// Passed on by a pooler that is followed: the principal ends in this, and is joined.
    Pooled(String),
    /// The principal ends in this, and is inferred.
    Inferred(String),
    /// A client of another host with an agent.
    Elsewhere {
        /// The principal, once joined, ends in this.
        named: String,
        /// Before, or if the other host's agent missed it, it is this address (as the server sees it), inferred; or unknown with a
        /// reason.
        address: String,
        /// Whether it counts for the share of those that have to be joined: nothing hides its address, and no agent was
        /// ended.
        counts: bool,
    },
}

impl Expected {
    pub(super) fn named(end: impl Into<String>) -> Self {
        Self::of(Who::Named(end.into()))
    }

    pub(super) fn of(who: Who) -> Self {
        Self {
            who,
            uid: None,
            cgroup: None,
            lossy: false,
            put_in: false,
            held: false,
            pooled: false,
        }
    }

    /// The same, and statements may be missing.
    pub(super) fn lossy(self) -> Self {
        Self { lossy: true, ..self }
    }

    /// The same, and the process may be who holds the connection.
    pub(super) fn held(self, held: bool) -> Self {
        Self { held, ..self }
    }
}

/// What the comparison found, in connections.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Findings {
    pub(super) connections: u64,
    /// Expected to be observed.
    pub(super) same_host: u64,
    /// Of these, those that are.
    pub(super) same_host_observed: u64,
    pub(super) observed: u64,
    pub(super) joined: u64,
    pub(super) inferred: u64,
    pub(super) unknown_with_reason: u64,
    pub(super) unknown_without_reason: u64,
    /// Unknown, as it has to be behind a relay.
    pub(super) relayed: u64,
    /// On other hosts, their addresses not hidden, and no agent was ended meanwhile.
    pub(super) cross_host: u64,
    /// Of these, those that are joined.
    pub(super) cross_host_joined: u64,
    /// Connections whose recorded name was amended later.
    pub(super) amended: u64,
    /// A name, and not the right one.
    pub(super) wrong_principal: u64,
    /// Surer or less sure than can be.
    pub(super) wrong_confidence: u64,
    /// A fact about the process, and not the right one.
    pub(super) wrong_process: u64,
    /// Recorded of another backend.
    pub(super) wrong_session: u64,
    /// Put into a container from outside, and that is not said; or said of one that was not.
    pub(super) wrong_put_in: u64,
    /// A fact that is not there: the executable of a process that was named by something else.
    pub(super) missing_facts: u64,
    /// A statement that was answered and is not recorded.
    pub(super) missing: u64,
    /// Recorded, and in no journal.
    pub(super) extra: u64,
    /// Clients that did not get through: a fault of the suite.
    pub(super) failed_clients: u64,
    /// Clients whose program lived less than 50 ms.
    pub(super) under_50_ms: u64,
    /// Complaints by case.
    pub(super) wrong_cases: BTreeMap<String, u64>,
    pub(super) reasons: BTreeMap<String, u64>,
    /// What could not be tried, and why.
    #[serde(skip)]
    pub(super) unavailable: Vec<(String, String)>,
    /// One of each case.
    #[serde(skip)]
    pub(super) examples: BTreeMap<String, String>,
}

impl Findings {
    /// Whether everything that must be zero is.
    pub(super) fn none(&self) -> bool {
        self.unknown_without_reason
            + self.wrong_principal
            + self.wrong_confidence
            + self.wrong_process
            + self.wrong_session
            + self.wrong_put_in
            + self.missing
            + self.extra
            + self.failed_clients
            == 0
            && self.observed_share().is_none_or(|share| share >= OBSERVED_SHARE)
            && self.joined_share().is_none_or(|share| share >= JOINED_SHARE)
    }

    /// Of the clients on other hosts with an agent whose addresses nothing hides.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(super) fn joined_share(&self) -> Option<f64> {
        (self.cross_host > 0).then(|| self.cross_host_joined as f64 / self.cross_host as f64)
    }

    /// Of the clients on this host that were not there before the agent.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(super) fn observed_share(&self) -> Option<f64> {
        (self.same_host > 0).then(|| self.same_host_observed as f64 / self.same_host as f64)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.same_host += other.same_host;
        self.same_host_observed += other.same_host_observed;
        self.observed += other.observed;
        self.joined += other.joined;
        self.inferred += other.inferred;
        self.unknown_with_reason += other.unknown_with_reason;
        self.unknown_without_reason += other.unknown_without_reason;
        self.relayed += other.relayed;
        self.cross_host += other.cross_host;
        self.cross_host_joined += other.cross_host_joined;
        self.amended += other.amended;
        self.wrong_principal += other.wrong_principal;
        self.wrong_confidence += other.wrong_confidence;
        self.wrong_process += other.wrong_process;
        self.wrong_session += other.wrong_session;
        self.missing_facts += other.missing_facts;
        self.missing += other.missing;
        self.extra += other.extra;
        self.failed_clients += other.failed_clients;
        self.wrong_put_in += other.wrong_put_in;
        self.under_50_ms += other.under_50_ms;
        self.unavailable.extend(other.unavailable.iter().cloned());
        for (case, count) in &other.wrong_cases {
            *self.wrong_cases.entry(case.clone()).or_default() += count;
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    fn example(&mut self, case: &str, text: impl FnOnce() -> String) {
        *self.wrong_cases.entry(case.to_owned()).or_default() += 1;
        if self.examples.len() < EXAMPLES && !self.examples.contains_key(case) {
            self.examples.insert(case.to_owned(), text());
        }
    }
}

/// Compares. `recorded` is by mark.
pub(super) fn judge(
    expected: &BTreeMap<String, Expected>,
    journal: &[Line],
    recorded: &HashMap<String, Vec<Recorded>>,
) -> Findings {
    let mut findings = Findings::default();
    let mut marks = 0;
    for line in journal {
        let (Some(expected), None) = (expected.get(&line.case), &line.error) else {
            findings.failed_clients += 1;
            findings.example(&line.case, || format!("a client failed: {line:?}"));
            continue;
        };
        findings.connections += 1;
        findings.under_50_ms += u64::from(line.life_us < SHORT_US);
        let events = recorded.get(&line.mark).map(Vec::as_slice).unwrap_or_default();
        marks += u64::from(!events.is_empty());
        if events.len() < line.said as usize && !expected.lossy {
            findings.missing += 1;
            findings.example(&line.case, || {
                format!(
                    "{}: {} of {} statements are recorded",
                    line.mark,
                    events.len(),
                    line.said
                )
            });
        }
        if !events.is_empty() {
            connection(&mut findings, expected, line, events);
        }
    }
    findings.extra = recorded.len() as u64 - marks;
    if findings.extra > 0 {
        findings.example("extra", || {
            "something is recorded that is in no journal".to_owned()
        });
    }
    findings
}

/// One connection that something is recorded of: every statement has to be right, and all have the same name.
fn connection(findings: &mut Findings, expected: &Expected, line: &Line, events: &[Recorded]) {
    let (mut sure, mut wrong) = (None, Vec::new());
    for event in events {
        let said = &event.attribution;
        let complaint = match &expected.who {
            _ if line.backend != event.backend() && line.backend != 0 && !expected.pooled => {
                Some(Complaint::Session)
            }
            Who::Named(end) | Who::NamedOrUnknown(end) | Who::Inferred(end) | Who::Pooled(end) => {
                let is_named = said.principal != UNKNOWN;
                if is_named && !said.principal.ends_with(end.as_str()) {
                    Some(Complaint::Principal)
                } else if !is_named && said.reason.is_empty() {
                    Some(Complaint::Reason)
                } else if is_named && !may_be(&expected.who, &said.confidence) {
                    Some(Complaint::Confidence)
                } else {
                    None
                }
            }
            Who::Elsewhere { named, address, .. } => {
                let is_joined = said.principal.ends_with(named.as_str());
                if said.principal == UNKNOWN {
                    said.reason.is_empty().then_some(Complaint::Reason)
                } else if !is_joined && !said.principal.ends_with(&format!("/addr/{address}")) {
                    Some(Complaint::Principal)
                } else {
                    let may_be = matches!(said.confidence.as_str(), "inferred")
                        || is_joined && said.confidence == "joined";
                    (!may_be).then_some(Complaint::Confidence)
                }
            }
            Who::BehindRelay(kind) => {
                if said.principal != UNKNOWN {
                    Some(Complaint::Principal)
                } else if !said.reason.starts_with(&format!("passed on by a {kind} (")) {
                    Some(Complaint::Reason)
                } else {
                    None
                }
            }
        };
        let process = said
            .process
            .as_ref()
            .filter(|_| !matches!(expected.who, Who::BehindRelay(_)));
        let process = process.map(|process| line_differences(expected, line, process));
        if process.as_ref().is_some_and(|process| process.exe_missing) {
            wrong.push(Complaint::Missing);
        }
        if process.is_some_and(|process| !process.wrong.is_empty()) {
            wrong.push(Complaint::Process);
        }
        wrong.extend(complaint);
        let told = said.evidence.iter().any(|fact| fact.starts_with(PUT_IN));
        if TELLS_PUT_IN && told != expected.put_in {
            wrong.push(Complaint::PutIn);
        }
        // The least sure statement speaks for the connection.
        let confidence = rank(&said.confidence);
        sure = Some(sure.map_or(confidence, |least: usize| least.min(confidence)));
        if !said.reason.is_empty() {
            *findings.reasons.entry(general(&said.reason)).or_default() += 1;
        }
    }
    wrong.sort();
    wrong.dedup();
    let relayed = matches!(expected.who, Who::BehindRelay(_));
    findings.amended += u64::from(
        events
            .iter()
            .any(|event| !event.attribution.amended_by.is_empty()),
    );
    if let Who::Elsewhere { counts: true, .. } = expected.who {
        findings.cross_host += 1;
        findings.cross_host_joined += u64::from(sure == Some(3));
        if sure != Some(3) {
            findings.example(&line.case, || describe(expected, line, events, &wrong));
        }
    }
    if matches!(expected.who, Who::Named(_)) {
        findings.same_host += 1;
        findings.same_host_observed += u64::from(sure == Some(4));
    }
    match sure {
        Some(4) => findings.observed += 1,
        Some(3) => findings.joined += 1,
        Some(1 | 2) => findings.inferred += 1,
        _ if relayed => findings.relayed += 1,
        _ if !wrong.contains(&Complaint::Reason) => findings.unknown_with_reason += 1,
        _ => {}
    }
    for complaint in &wrong {
        *match complaint {
            Complaint::Principal => &mut findings.wrong_principal,
            Complaint::Reason => &mut findings.unknown_without_reason,
            Complaint::Confidence => &mut findings.wrong_confidence,
            Complaint::Process => &mut findings.wrong_process,
            Complaint::Session => &mut findings.wrong_session,
            Complaint::PutIn => &mut findings.wrong_put_in,
            Complaint::Missing => &mut findings.missing_facts,
        } += 1;
    }
    let unknown_here = sure == Some(0) && matches!(expected.who, Who::Named(_));
    if wrong.iter().any(|complaint| *complaint != Complaint::Missing) || unknown_here {
        findings.example(&line.case, || describe(expected, line, events, &wrong));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Complaint {
    Principal,
    Reason,
    Confidence,
    Process,
    Session,
    PutIn,
    Missing,
}

/// Facts that are not the journal's.
#[derive(Debug, Default)]
struct Differences {
    wrong: Vec<String>,
    exe_missing: bool,
}

fn line_differences(expected: &Expected, line: &Line, process: &Process) -> Differences {
    let holds = expected.held && line.speaker.pid == process.pid;
    differences(
        expected,
        if holds { &line.speaker } else { &line.client },
        process,
    )
}

fn differences(expected: &Expected, client: &Facts, process: &Process) -> Differences {
    let mut found = Differences {
        exe_missing: process.exe.is_empty(),
        ..Differences::default()
    };
    let mut check = |name: &str, journal: &str, recorded: &str| {
        if journal != recorded {
            found
                .wrong
                .push(format!("{name} is {journal}, recorded {recorded}"));
        }
    };
    let number = |number: u64| number.to_string();
    check("pid", &number(client.pid.into()), &number(process.pid.into()));
    check(
        "start",
        &number(client.ticks),
        &number(process.start_ns / TICK_NS),
    );
    let uid = expected.uid.unwrap_or(client.uid);
    check("uid", &number(uid.into()), &number(process.uid.into()));
    let login = Some(client.login_uid).filter(|uid| *uid != u32::MAX);
    check(
        "login uid",
        &format!("{login:?}"),
        &format!("{:?}", process.login_uid),
    );
    let cgroup = expected.cgroup.as_deref().unwrap_or(&client.cgroup);
    if !process.cgroup_path.is_empty() {
        check("cgroup", cgroup, &process.cgroup_path);
    }
    if !process.exe.is_empty() {
        check("exe", &client.exe, &process.exe);
    }
    found
}

fn may_be(who: &Who, confidence: &str) -> bool {
    match who {
        Who::Named(_) | Who::BehindRelay(_) => confidence == "observed",
        Who::NamedOrUnknown(_) => matches!(confidence, "observed" | "joined" | "inferred"),
        Who::Inferred(_) => confidence == "inferred",
        Who::Pooled(_) => confidence == "joined",
        Who::Elsewhere { .. } => matches!(confidence, "joined" | "inferred"),
    }
}

fn rank(confidence: &str) -> usize {
    CONFIDENCES
        .iter()
        .position(|name| *name == confidence)
        .unwrap_or(0)
}

/// A reason without the numbers and names that are different each time.
fn general(reason: &str) -> String {
    let front = reason.split(" (").next().unwrap_or(reason);
    let words = front.split(' ').map(|word| {
        let number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        if number { "N" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn describe(expected: &Expected, line: &Line, events: &[Recorded], wrong: &[Complaint]) -> String {
    let mut text = format!(
        "{} {wrong:?}: expected {:?}; it is {:?}",
        line.mark, expected.who, line.client
    );
    if line.speaker != line.client {
        text += &format!(", then {:?}", line.speaker);
    }
    if let Some(event) = events.last() {
        let said = &event.attribution;
        text += &format!(
            "; recorded {} {} {} {:?}",
            said.principal, said.confidence, said.method, said.reason
        );
        if let Some(process) = &said.process {
            text += &format!(
                ", backend {}, {:?}",
                event.backend(),
                line_differences(expected, line, process)
            );
        }
        text += &format!(" {:?}", said.evidence);
    }
    text
}

/// From the least sure to the surest.
const CONFIDENCES: [&str; 5] = ["none", "asserted", "inferred", "joined", "observed"];
const UNKNOWN: &str = "unknown";
/// Of those clients that one kernel sees at both ends.
const OBSERVED_SHARE: f64 = 0.999;
/// Of those clients that the agents of two hosts see, one end each.
const JOINED_SHARE: f64 = 0.995;
/// As `/proc` counts (`USER_HZ` is 100 on every architecture).
const TICK_NS: u64 = 10_000_000;
const SHORT_US: u64 = 50_000;
const EXAMPLES: usize = 40;
/// How the evidence says it.
const PUT_IN: &str = "put into the container from outside";
/// Whether the agent fills in what that takes: the first process of a process' pid namespace.
pub(super) const TELLS_PUT_IN: bool = true;

#[cfg(test)]
mod tests;
