//! The join of what two hosts saw: a session on the server's, and whose the connection is on the client's.
//!
//! Owns the ends that wait for each other, whichever comes first, and what is said when they have met: an amendment, in the
//! collector's own chain. How two ends are matched and what follows from it is `attribution`'s, pure; nothing here decides
//! by time. Never amended: what one kernel saw at both ends, and what was amended to the same already, which
//! [`Amendments`] knows for all time.
//!
//! **Bounds.** The newest 200,000 sessions and 200,000 connections are kept, of each side at most 256 MiB; what is pushed out
//! before it was joined is counted. After a restart the newest 256 MiB of the evidence log are read again, beside everything
//! else, and nothing is amended before that is done: so a collector that was killed makes the amendments that it did not
//! come to, and none twice.
//!
//! **Nobody waits in a circle.** The log's thread waits for whoever reads the durable batches (`serve::feed`). That one
//! calls [`Joiner::see`], which takes a lock for as long as it takes to look up a few keys, and waits for nothing else; no
//! code awaits, or calls the log, while it holds that lock. [`Joiner::tell`] is a task of its own: it alone waits for the
//! log, for as long as it likes, and nobody waits for it. What it has not come to yet lies among the kept sessions, so there
//! is no queue between the two that could be full.
//!
//! **Names of pods.** What is found out here, and what hosts say of containers themselves, gets the names of pods as soon as the cluster's
//! API server has told of them ([`pods`]).
//!
//! **What an agent can do.** It can claim any connection whose fingerprint it knows, or whose addresses it guesses (that
//! gives `inferred` at most); where another claim stands against its own, neither is taken, and a name that was given is
//! taken back. Amendments of its own are recorded, counted as an alarm, and believed by nobody.

mod check;
mod decision;
mod leases;
mod pods;
mod shelf;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::anyhow;
use attribution::{End, POD_ADDRESS, POD_VERSION, may_be_joined};
use compact_str::CompactString;
use datafusion::common::HashMap;
use prost::Message;
use proto::v1::{self, event};
use tokio::sync::Notify;

use crate::{
    cluster::Cluster,
    log::{self, Originator},
    metrics::{Alarm, Metrics},
    store::Amendments,
};
pub(crate) use check::{Checked, check};
use decision::Waiting;
use leases::Leases;
use pods::Pods;
use record::{Body, Decoder, Record, Records, Weighed};

/// The join.
pub struct Joiner {
    /// Agent id of the collector's own chain.
    own: String,
    amendments: Arc<Amendments>,
    metrics: Arc<Metrics>,
    waiting: Mutex<Waiting>,
    leases: Mutex<Leases>,
    pods: Mutex<Pods>,
    /// Something may have met.
    due: Notify,
    stopped: AtomicBool,
}

/// The collector's own chain, which alarms share.
type Speaker = Arc<tokio::sync::Mutex<Originator>>;

/// A session, as its server's host told of it.
#[derive(Debug)]
struct Session {
    agent: Arc<str>,
    id: CompactString,
    /// Of the event that told of it.
    seq: u64,
    end: End,
    /// Encoded.
    attribution: Box<[u8]>,
    /// It waits for a decision.
    due: bool,
    /// Its amendment is on the way.
    telling: bool,
    /// It was matched at least once.
    met: bool,
}

/// A connection, as its client's host told of it.
#[derive(Debug)]
struct Flow {
    agent: Arc<str>,
    seq: u64,
    end: End,
    /// Who it is by that: what two claims differ in.
    claim: Box<str>,
    /// Encoded.
    attribution: Box<[u8]>,
    met: bool,
}

impl Joiner {
    /// A join that knows of `amendments`, those that `own`, the collector's own chain, has made.
    #[must_use]
    pub fn new(own: &str, amendments: Arc<Amendments>, metrics: Arc<Metrics>) -> Self {
        Self {
            own: own.to_owned(),
            amendments,
            metrics,
            waiting: Mutex::default(),
            leases: Mutex::default(),
            pods: Mutex::default(),
            due: Notify::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// The same, with the names of a cluster's pods.
    #[must_use]
    pub fn naming_pods(self, cluster: Arc<Cluster>) -> Self {
        Self {
            pods: Mutex::new(Pods::of(cluster)),
            ..self
        }
    }

    /// Ends a recall that is going on; what was not come to is left to the next start.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Takes in the log entry `log_index`, which became durable.
    pub fn see(&self, log_index: u64, records: &Records) {
        self.see_at(log_index, records, log::unix_ns());
    }

    fn see_at(&self, log_index: u64, records: &Records, now: u64) {
        let foreign = self.take_in(log_index, records, now);
        if foreign > 0 {
            let detail = format!(
                "{foreign} events in its batch {} that only a collector may make: they are recorded, and not believed",
                records.batch_sequence
            );
            self.metrics
                .alarm(Alarm::ForeignAmendment, &records.agent, detail);
        }
    }

    /// Takes in a log entry; gives how many events in it only the collector may make, and did not.
    fn take_in(&self, log_index: u64, records: &Records, now: u64) -> u64 {
        // What was said stands before anything else is decided about it.
        self.amendments.take(log_index, records);
        let own = *records.agent == *self.own;
        let mut foreign = 0;
        let mut waiting = self.waiting();
        let mut leases = self.leases();
        let mut pods = self.pods();
        let mut parties = Parties::default();
        for record in &records.records {
            self.see_party(&mut waiting, &mut pods, &mut parties, &records.agent, record, now);
            let body = match &record.body {
                Body::Other(body) => body.as_ref(),
                Body::Query(query) => {
                    if let Some(party) = parties.pooled(record) {
                        let simple = query.template.protocol == i32::from(v1::Protocol::Simple);
                        leases.see_statement(&records.agent, party, record.seq, &query.place, simple, now);
                    }
                    continue;
                }
                // Only what no other host can know better is rolled up.
                Body::Rollup(_) | Body::Unknown => continue,
            };
            match body {
                event::Body::FlowOwner(flow) => self.see_flow(&mut waiting, &records.agent, record, flow),
                event::Body::PoolerTraffic(_) | event::Body::PoolerClient(_) => {
                    self.see_pooler(&mut leases, &pods, &records.agent, record, body, now);
                }
                event::Body::Amendment(of) if own => {
                    // What a pod is called is no decision of these.
                    if of.join_version != POD_VERSION {
                        waiting.was_told(&of.agent_id, &of.session);
                    }
                    let party = record.party.as_ref();
                    if let Some(attribution) = party.and_then(|party| party.attribution.as_ref()) {
                        // Statements are named once, and whoever connected may yet say better.
                        if of.r#match != POD_ADDRESS {
                            leases.see_amended(&of.agent_id, &of.session, record.seq, attribution);
                        }
                        pods.see_amended(&self.own, record.seq, of, attribution, now);
                    }
                }
                event::Body::KubernetesPod(told) if own => pods.see_told(record.seq, told),
                event::Body::Amendment(_)
                | event::Body::Erasure(_)
                | event::Body::Hold(_)
                | event::Body::Retention(_)
                | event::Body::KubernetesPod(_)
                    if !own =>
                {
                    foreign += 1;
                }
                _ => {}
            }
        }
        let forgotten = waiting.forget_excess() + leases.forget_excess() + pods.forget_excess();
        self.metrics.join_forgotten.inc_by(forgotten);
        if waiting.is_due() || leases.is_due() || pods.is_due() {
            self.due.notify_one();
        }
        foreign
    }

    /// What a pooler's host tells.
    fn see_pooler(
        &self,
        leases: &mut Leases,
        pods: &Pods,
        agent: &Arc<str>,
        record: &Record,
        body: &event::Body,
        now: u64,
    ) {
        let Some(party) = &record.party else { return };
        let Some(attribution) = &party.attribution else {
            return;
        };
        let taken = match (body, &party.session) {
            (event::Body::PoolerTraffic(of), _) if of.connection.len() <= MAX_SESSION_ID_BYTES => {
                leases.see_traffic(agent, record.seq, of, attribution)
            }
            (event::Body::PoolerClient(_), Some(session)) if session.id.len() <= MAX_SESSION_ID_BYTES => {
                let may_be_amended = may_be_joined(session, attribution) || pods.may_name(attribution);
                leases.see_client(agent, record.seq, &session.id, attribution, may_be_amended, now)
            }
            _ => false,
        };
        if !taken {
            self.metrics.join_refused.inc();
        }
    }

    fn see_flow(&self, waiting: &mut Waiting, agent: &Arc<str>, record: &Record, flow: &v1::FlowOwner) {
        let attribution = record.party.as_ref().and_then(|party| party.attribution.as_ref());
        let end = End::of(
            flow.client.as_ref(),
            flow.server.as_ref(),
            flow.fingerprint,
            record.ts_start_ns,
        );
        let (Some(attribution), Some(end)) = (attribution, end) else {
            return;
        };
        let Some(claim) = decision::claim(attribution) else {
            return;
        };
        let Some(encoded) = small(attribution) else {
            self.metrics.join_refused.inc();
            return;
        };
        let findable = waiting.add_flow(Flow {
            agent: Arc::clone(agent),
            seq: record.seq,
            end,
            claim,
            attribution: encoded,
            met: false,
        });
        if !findable {
            self.metrics.join_refused.inc();
        }
    }

    /// Any event tells of its session.
    fn see_party(
        &self,
        waiting: &mut Waiting,
        pods: &mut Pods,
        parties: &mut Parties,
        agent: &Arc<str>,
        record: &Record,
        now: u64,
    ) {
        let Some(party) = parties.fresh(record) else {
            return;
        };
        let (Some(session), Some(attribution)) = (&party.session, &party.attribution) else {
            return;
        };
        if session.id.is_empty() || record.ts_start_ns == 0 {
            return;
        }
        if session.id.len() <= MAX_SESSION_ID_BYTES
            && !pods.see_session(agent, record, session, attribution, now)
        {
            self.metrics.join_refused.inc();
        }
        if !may_be_joined(session, attribution) {
            return;
        }
        let end = End::of(
            session.client.as_ref(),
            session.server.as_ref(),
            session.fingerprint,
            record.ts_start_ns,
        );
        let Some(end) = end else { return };
        if waiting.knows(agent, &session.id, &end) {
            return;
        }
        let encoded = small(attribution).filter(|_| session.id.len() <= MAX_SESSION_ID_BYTES);
        let findable = encoded.is_some_and(|attribution| {
            waiting.add_session(Session {
                agent: Arc::clone(agent),
                id: session.id.as_str().into(),
                seq: record.seq,
                end,
                attribution,
                due: false,
                telling: false,
                met: false,
            })
        });
        if !findable {
            self.metrics.join_refused.inc();
        }
    }

    /// Reads the newest part of the log again, up to entry `until`. Blocks while it does.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn recall(&self, evidence: &Path, until: u64) -> anyhow::Result<()> {
        let from = log::newest_from(evidence, RECALLED_BYTES)?;
        let mut decoder = Decoder::default();
        for batch in log::read_batches(evidence, from) {
            let (log_index, opened) = batch?;
            if log_index >= until || self.stopped.load(Ordering::Relaxed) {
                break;
            }
            let records = decoder.decode(&opened);
            let records = records.map_err(|reason| anyhow!("entry {log_index} of the log: {reason}"))?;
            // Whatever is wrong with it was told when it came.
            self.take_in(log_index, &records, log::unix_ns());
        }
        Ok(())
    }

    /// Recalls what `evidence` holds up to entry `until`, then says what has met, batch by batch, for as long as the log
    /// takes it.
    pub async fn tell(self: Arc<Self>, originator: Speaker, evidence: PathBuf, until: u64) {
        let here = Arc::clone(&self);
        let recalled = tokio::task::spawn_blocking(move || here.recall(&evidence, until)).await;
        if let Err(error) = recalled.map_err(anyhow::Error::from).flatten() {
            tracing::error!(error = format!("{error:#}"), "what happened before is not joined");
        }
        if let Err(error) = Arc::clone(&self).say_what_met(originator).await
            && !self.stopped.load(Ordering::Relaxed)
        {
            tracing::error!(
                error = format!("{error:#}"),
                "nothing more is joined until the collector is started again"
            );
        }
    }

    async fn say_what_met(self: Arc<Self>, originator: Speaker) -> anyhow::Result<()> {
        loop {
            // Statements wait for a time, too.
            _ = tokio::time::timeout(TICK, self.due.notified()).await;
            // A storm of sessions shares batches and fsyncs.
            tokio::time::sleep(GATHER).await;
            loop {
                let here = Arc::clone(&self);
                let events = tokio::task::spawn_blocking(move || here.decide(log::unix_ns())).await?;
                let count = events.len() as u64;
                if count == 0 {
                    break;
                }
                originator.lock().await.say(events).await?;
                self.metrics.amendments.inc_by(count);
            }
        }
    }

    /// The next amendments, not more than go into one batch.
    fn decide(&self, now: u64) -> Vec<v1::Event> {
        let mut events = self
            .waiting()
            .decide(&self.amendments, now, BATCH_EVENTS, BATCH_BYTES);
        events.extend(self.leases().decide(&self.own, &self.amendments, now));
        events.extend(self.pods().decide(&self.own, &self.amendments, now));
        events
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock with a change half made.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parties of a batch that were looked at: most events share theirs with others.
#[derive(Default)]
struct Parties {
    newest: Option<*const Weighed<v1::Party>>,
    seen: HashMap<*const Weighed<v1::Party>, ()>,
    /// The newest one that was looked at for statements, and its fingerprint where a pooler may be behind it.
    looked_at: Option<(*const Weighed<v1::Party>, Option<u64>)>,
}

impl Parties {
    fn fresh<'a>(&mut self, record: &'a Record) -> Option<&'a v1::Party> {
        let party = record.party.as_ref()?;
        let place = Arc::as_ptr(party);
        if self.newest.replace(place) == Some(place) || self.seen.insert(place, ()).is_some() {
            return None;
        }
        Some(party)
    }

    /// The party of a statement that a pooler on another host may have passed on, and the connection's fingerprint.
    fn pooled<'a>(&mut self, record: &'a Record) -> Option<(u64, &'a Arc<Weighed<v1::Party>>)> {
        let party = record.party.as_ref()?;
        let place = Arc::as_ptr(party);
        let fingerprint = match self.looked_at {
            Some((newest, fingerprint)) if newest == place => fingerprint,
            _ => {
                let fingerprint = match (&party.session, &party.attribution) {
                    (Some(session), Some(attribution))
                        if session.id.len() <= MAX_SESSION_ID_BYTES
                            && may_be_joined(session, attribution) =>
                    {
                        session.fingerprint.filter(|known| *known != 0)
                    }
                    _ => None,
                };
                self.looked_at = Some((place, fingerprint));
                fingerprint
            }
        };
        Some((fingerprint?, party))
    }
}

/// An attribution to be kept; `None` if it is larger than any honest one.
fn small(attribution: &v1::Attribution) -> Option<Box<[u8]>> {
    (attribution.encoded_len() <= MAX_ATTRIBUTION_BYTES).then(|| attribution.encode_to_vec().into())
}

/// Longest session id that is joined; agents make some 25 bytes.
const MAX_SESSION_ID_BYTES: usize = 128;

/// Largest attribution that is joined: a process with a long command line and all of its ancestors takes a few kilobytes.
const MAX_ATTRIBUTION_BYTES: usize = 64 << 10;

/// Newest part of the log that is read again at a start.
const RECALLED_BYTES: u64 = 256 << 20;

/// How often what waits for a time is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long what has met waits for others to share a batch.
const GATHER: Duration = Duration::from_millis(50);

/// Amendments of one batch, and about their bytes: far below what a batch may hold.
const BATCH_EVENTS: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests;
