//! The comparison: whose each connection is by the database's log and the API server's word, and what was recorded of it.
//!
//! Pure. A name is right if it is that of the pod's service account; a connection that kept its container's name, its address or none is not
//! named, which counts against the shares, and is wrong only if that container is another pod's. How late a name was is the time from the
//! statement to the first amendment with it, without the time in which nobody could have known it: while the API server was away or the
//! proxy refused, and while the proxy held back a word on that pod.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::proxy::Held;
use super::record::{Attribution, Record, Statement};
use super::truth::{Pod, Said, Truth};

/// What the comparison found, in connections: each has one statement that counts.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Findings {
    pub(super) connections: u64,
    /// Statements that were recorded: one each.
    pub(super) statements: u64,
    /// Through PgBouncer.
    pub(super) pooled: u64,
    /// A name, and not the right one.
    pub(super) wrong_principal: u64,
    /// The same of names that stood for a while.
    pub(super) wrong_meanwhile: u64,
    /// By the name of their service account.
    pub(super) named: u64,
    /// By name, uid and node.
    pub(super) pod_right: u64,
    pub(super) namespace_right: u64,
    pub(super) account_right: u64,
    /// All owners, to the top.
    pub(super) owner_right: u64,
    /// In the log, and not recorded.
    pub(super) missing: u64,
    /// Recorded more than once.
    pub(super) twice: u64,
    /// Recorded, and not in the log.
    pub(super) extra: u64,
    /// What the kubelet told a client is not what the API server says: a fault of the suite.
    pub(super) witnesses_differ: u64,
    /// Put into a pod by `kubectl exec`, and that is not said.
    pub(super) exec_not_said: u64,
    /// Of pods that the proxy never told the collector of.
    pub(super) unheard: u64,
    /// Pods that connected.
    pub(super) pods: u64,
    /// Names, in their namespaces, and addresses that several of them had, one after the other.
    pub(super) names_used_again: u64,
    pub(super) addresses_used_again: u64,
    /// How late names were that came later than the statement.
    pub(super) amended: u64,
    pub(super) amended_seconds_p99: f64,
    pub(super) amended_seconds_max: f64,
    /// The same with the time in which nobody could have known.
    pub(super) amended_seconds_max_in_all: f64,
    /// Connections by the kind of their workload, and by the confidence of their names.
    pub(super) kinds: BTreeMap<String, u64>,
    pub(super) confidences: BTreeMap<String, u64>,
    /// Why connections have no name.
    pub(super) unknown: BTreeMap<String, u64>,
    /// One of each complaint.
    #[serde(skip)]
    pub(super) examples: BTreeMap<&'static str, String>,
}

/// What was known when.
pub(super) struct Known<'a> {
    pub(super) truth: &'a Truth,
    /// Of the cluster's pods.
    pub(super) trust_domain: &'a str,
    /// From and to, when the API server did not answer the collector.
    pub(super) away: &'a [(i64, i64)],
    pub(super) held: &'a Held,
}

impl Known<'_> {
    fn name_of(&self, pod: &Pod) -> String {
        format!(
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, pod.namespace, pod.account
        )
    }
}

/// Compares.
pub(super) fn judge(said: &[Said], record: &Record, known: &Known<'_>) -> Findings {
    let mut found = Findings::default();
    let mut lates = Vec::new();
    let mut late_in_all = 0_i64;
    let mut marks = BTreeSet::new();
    for one in said {
        marks.insert(one.mark.as_str());
        found.connections += 1;
        found.pooled += u64::from(one.way == "pooled");
        *found.kinds.entry(one.kind.clone()).or_default() += 1;
        let Some(pod) = known.truth.pod(&one.uid) else {
            found.witnesses_differ += 1;
            found.example("witnesses differ", || format!("nobody made the pod of {one:?}"));
            continue;
        };
        let claims = [&pod.namespace, &pod.name, &pod.account, &pod.node].map(String::as_str);
        if claims.join("/") != one.claims {
            found.witnesses_differ += 1;
            found.example("witnesses differ", || format!("{one:?} is {pod:?}"));
        }
        let statements = record.statements.get(&one.mark).map(Vec::as_slice);
        let Some([statement, others @ ..]) = statements else {
            found.missing += 1;
            found.example("missing", || format!("{one:?} is not recorded"));
            continue;
        };
        found.statements += 1;
        if !others.is_empty() {
            found.twice += 1;
            found.example("twice", || format!("{one:?}: {statement:?} {others:?}"));
        }
        if !known.held.contains_key(&one.uid) {
            found.unheard += 1;
            found.example("unheard", || format!("the collector was not told of {one:?}"));
        }
        compare(&mut found, one, pod, statement, known);
        let expected = known.name_of(pod);
        let other = record
            .names_of(statement)
            .find(|name| name.contains("/ns/") && *name != expected);
        if let Some(other) = other {
            found.wrong_meanwhile += 1;
            found.example("wrong meanwhile", || format!("{one:?} was {other}"));
        }
        if let Some(named) = record.named_at(statement).filter(|at| *at > statement.at_ns) {
            let span = (statement.at_ns, named);
            let unknowable = known.held.get(&one.uid).into_iter().flatten().chain(known.away);
            lates.push(outside(span, unknowable.copied()));
            late_in_all = late_in_all.max(span.1 - span.0);
            if lates.last().is_some_and(|late| *late > LATE_NS) {
                found.example("late", || format!("{one:?}: {statement:?} was named at {named}"));
            }
        }
    }
    let recorded = record.statements.keys();
    found.extra = recorded.filter(|mark| !marks.contains(mark.as_str())).count() as u64;
    let uids: BTreeSet<&str> = said.iter().map(|one| one.uid.as_str()).collect();
    found.pods = uids.len() as u64;
    (found.addresses_used_again, found.names_used_again) = known.truth.used_again(uids.into_iter());
    lates.sort_unstable();
    found.amended = lates.len() as u64;
    found.amended_seconds_max = seconds(lates.last().copied());
    found.amended_seconds_p99 = seconds(lates.get(lates.len().saturating_mul(99) / 100).copied());
    found.amended_seconds_max_in_all = seconds(Some(late_in_all));
    found
}

fn compare(found: &mut Findings, one: &Said, pod: &Pod, statement: &Statement, known: &Known<'_>) {
    let who = &statement.attribution;
    let expected = known.name_of(pod);
    let is_named = who.principal == expected;
    if is_named {
        found.named += 1;
        *found.confidences.entry(who.confidence.clone()).or_default() += 1;
    } else if may_stand(who, &one.uid) {
        let why = match who.reason.as_str() {
            "" => format!("{} {}", who.kind, who.method),
            reason => general(reason),
        };
        *found.unknown.entry(why).or_default() += 1;
        found.example("not named", || format!("{one:?} of {pod:?}: {who:?}"));
    } else {
        found.wrong_principal += 1;
        found.example("wrong principal", || format!("{one:?} is {expected}: {who:?}"));
    }
    let told = &who.pod;
    let owners: Vec<(String, String)> = told
        .owners
        .iter()
        .map(|owner| (owner.kind.clone(), owner.name.clone()))
        .collect();
    let is_pod = told.uid == one.uid && told.name == pod.name && told.node == pod.node;
    found.pod_right += u64::from(is_pod);
    found.namespace_right += u64::from(told.namespace == pod.namespace);
    found.account_right += u64::from(told.service_account == pod.account);
    let is_owned = is_named && owners == known.truth.owners(pod);
    found.owner_right += u64::from(is_owned);
    if is_named && !(is_pod && is_owned) {
        found.example("wrong pod", || {
            format!(
                "{one:?} of {pod:?}, owned by {:?}: {told:?}",
                known.truth.owners(pod)
            )
        });
    }
    if is_named && one.kind == EXEC && !who.put_in {
        found.exec_not_said += 1;
        found.example("exec", || format!("{one:?}: {who:?}"));
    }
}

/// Whether a connection may be shown so that has no name: unknown, as an address, or as its own pod's container.
fn may_stand(who: &Attribution, uid: &str) -> bool {
    match who.kind.as_str() {
        "" | "unknown" => who.principal == "unknown" || who.principal.is_empty(),
        "remote" => true,
        "container" => who.pod.uid == uid,
        _ => false,
    }
}

/// Nanoseconds of a span that are in none of these.
fn outside((from, to): (i64, i64), others: impl Iterator<Item = (i64, i64)>) -> i64 {
    let mut others: Vec<(i64, i64)> = others.collect();
    others.sort_unstable();
    let (mut counted, mut at) = (0, from);
    for (begin, end) in others {
        if end <= at || begin >= to {
            continue;
        }
        counted += begin.saturating_sub(at).max(0);
        at = end;
    }
    counted + to.saturating_sub(at).max(0)
}

impl Findings {
    /// Whether all is as it must be.
    pub(super) fn none(&self) -> bool {
        self.wrong_principal
            + self.wrong_meanwhile
            + self.missing
            + self.twice
            + self.extra
            + self.witnesses_differ
            + self.exec_not_said
            == 0
            && self.shares().iter().all(|(_, share)| *share >= LEAST_SHARE)
            && self.amended_seconds_max <= seconds(Some(LATE_NS))
    }

    /// Of all connections.
    pub(super) fn shares(&self) -> [(&'static str, f64); 5] {
        let share = |count: u64| count as f64 / self.connections.max(1) as f64;
        [
            ("named_share", share(self.named)),
            ("pod_share", share(self.pod_right)),
            ("namespace_share", share(self.namespace_right)),
            ("account_share", share(self.account_right)),
            ("owner_share", share(self.owner_right)),
        ]
    }

    fn example(&mut self, what: &'static str, text: impl FnOnce() -> String) {
        self.examples.entry(what).or_insert_with(text);
    }
}

/// A reason without what is different each time.
fn general(reason: &str) -> String {
    let front = reason.split(" (").next().unwrap_or(reason);
    let words = front.split(' ').map(|word| {
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { "N" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn seconds(nanoseconds: Option<i64>) -> f64 {
    (nanoseconds.unwrap_or(0) / 1_000_000) as f64 / 1000.0
}

/// What the suite calls a program that was put into a pod.
pub(super) const EXEC: &str = "exec";
/// Of connections that are told of rightly.
const LEAST_SHARE: f64 = 0.999;
/// How late a name may come.
pub(super) const LATE_NS: i64 = 10_000_000_000;

#[cfg(test)]
mod tests;
