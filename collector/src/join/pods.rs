//! Names of pods for what has none yet.
//!
//! Owns what waits for the word of a cluster's API server: sessions that their own hosts found to be a container's, what was joined to
//! one, and sessions of which nothing is known but an address; and what is said then. A pod is said first, as an event of the
//! collector's own chain, and names rest on that event alone, so that they can be made again. How a name follows is
//! `attribution`'s, pure. Events wait for nothing here: a pod that is not known, or not known yet, has no name.
//!
//! **Bounds.** 200,000 sessions and amendments that wait, the newest, of at most 256 MiB; of 500,000 sessions it is known that
//! they were seen; 100,000 pods that were said. What is pushed out before it was named is counted.
//!
//! **What an agent can do.** It can say that its processes are in whatever pod it knows the uid of: a host is believed about its own
//! processes, as about everything else. It cannot give a pod another name.

mod address;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use ::cluster::Uid;
use attribution::{
    POD_UID, client_pod_uid, client_session, in_pod, is_by_pod_uid, is_same_container, own_pod_uid,
    passed_on, pod_uid, remote_address,
};
use compact_str::CompactString;
use datafusion::common::HashMap;
use prost::Message;
use proto::{
    json,
    v1::{self, event},
};

use crate::{
    cluster::{Cluster, Known},
    store::Amendments,
};
use record::Record;
use waiting::{Of, Saying, Waiting};

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Without one, nothing waits.
    cluster: Option<Arc<Cluster>>,
    /// By number, in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    bytes: usize,
    /// Of those, the ones that wait for a pod, by its uid.
    by_uid: HashMap<CompactString, BTreeSet<u64>>,
    /// The ones that wait for an address to be whose it is.
    by_address: BTreeSet<u64>,
    /// Sessions that were seen, and whether with a pod's uid, in the order in which they came.
    seen: HashMap<(Arc<str>, CompactString), bool>,
    seen_order: VecDeque<(Arc<str>, CompactString)>,
    /// What was said of pods, by their uids.
    told: HashMap<CompactString, Told>,
    told_order: VecDeque<CompactString>,
    /// Pods on their way into the log.
    telling: HashMap<CompactString, ()>,
    /// Pods, by uid, of which something came that was not looked at yet.
    due: HashMap<CompactString, ()>,
    /// Pods, by uid, that are known and wait for what owns their owners, and since when.
    maturing: HashMap<CompactString, u64>,
    /// The cluster's words when all was looked at last, and when that was.
    words: u64,
    looked: u64,
    forgotten: u64,
}

/// A pod that was said.
#[derive(Debug)]
struct Told {
    /// The event.
    seq: u64,
    pod: v1::KubernetesPod,
}

/// What became of one that waits.
enum Outcome {
    /// It is to be said.
    Name(Box<v1::Event>),
    /// Its pod is to be said first.
    Tell(Box<Known>),
    /// It needs no name, or gets none.
    Done,
    Wait,
}

impl Pods {
    pub(super) fn of(cluster: Arc<Cluster>) -> Self {
        Self {
            cluster: Some(cluster),
            ..Self::default()
        }
    }

    /// Whether an attribution may get the name of a pod.
    pub(super) fn may_name(&self, attribution: &v1::Attribution) -> bool {
        self.cluster.is_some() && own_pod_uid(attribution).is_some()
    }

    /// A session is told of; false if what is said of it is larger than anything honest.
    pub(super) fn see_session(
        &mut self,
        agent: &Arc<str>,
        record: &Record,
        session: &v1::Session,
        attribution: &v1::Attribution,
        now: u64,
    ) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        // What a pooler passed on is looked up by the session of its client, of which the same host may have told nothing else.
        let client = passed_on(attribution);
        let id = client_session(attribution).unwrap_or(&session.id);
        let uid = client
            .as_ref()
            .map_or_else(|| own_pod_uid(attribution), client_pod_uid);
        let (attribution, is_own) = (client.as_ref().unwrap_or(attribution), client.is_none());
        if id.len() > super::MAX_SESSION_ID_BYTES {
            return false;
        }
        let of = match (uid, remote_address(session, attribution)) {
            (Some(uid), _) if is_uid(uid) => Of::Uid(uid.into()),
            (None, Some(address)) if is_own && cluster.counts(address, agent) => Of::Address {
                address,
                at: record.ts_start_ns,
            },
            _ => return true,
        };
        let key = (Arc::clone(agent), CompactString::from(id));
        let by_uid = matches!(of, Of::Uid(_));
        match self.seen.get(&key) {
            // Its host may have found out more since.
            Some(known) if *known || !by_uid => return true,
            Some(_) => {}
            None => self.seen_order.push_back(key.clone()),
        }
        self.seen.insert(key, by_uid);
        let Some(encoded) = super::small(attribution) else {
            return false;
        };
        self.wait(Waiting {
            agent: Arc::clone(agent),
            session: id.into(),
            events: Box::default(),
            input: json::event_id(agent, record.seq),
            amended: false,
            attribution: encoded,
            of,
            since: now,
        });
        true
    }

    /// This collector said whose a session, or statements, are.
    pub(super) fn see_amended(
        &mut self,
        own: &str,
        seq: u64,
        of: &v1::Amendment,
        attribution: &v1::Attribution,
        now: u64,
    ) {
        if self.cluster.is_none() {
            return;
        }
        if let Some(uid) = pod_uid(attribution).filter(|uid| is_uid(uid))
            && let Some(encoded) = super::small(attribution)
        {
            self.wait(Waiting {
                agent: of.agent_id.as_str().into(),
                session: of.session.as_str().into(),
                events: of.events.as_slice().into(),
                input: json::event_id(own, seq),
                amended: true,
                attribution: encoded,
                of: Of::Uid(uid.into()),
                since: now,
            });
        }
    }

    /// This collector said a pod.
    pub(super) fn see_told(&mut self, seq: u64, pod: &v1::KubernetesPod) {
        if self.cluster.is_none() {
            return;
        }
        let Some(uid) = pod.pod.as_ref().map(|pod| CompactString::from(pod.uid.as_str())) else {
            return;
        };
        self.telling.remove(&uid);
        self.due.insert(uid.clone(), ());
        let told = Told {
            seq,
            pod: pod.clone(),
        };
        if self.told.insert(uid.clone(), told).is_none() {
            self.told_order.push_back(uid);
        }
        while self.told_order.len() > MAX_TOLD {
            if let Some(oldest) = self.told_order.pop_front() {
                self.told.remove(&oldest);
            }
        }
    }

    fn wait(&mut self, one: Waiting) {
        let place = self.next;
        self.next += 1;
        self.bytes += one.bytes();
        match &one.of {
            Of::Uid(uid) => {
                self.by_uid.entry(uid.clone()).or_default().insert(place);
                self.due.insert(uid.clone(), ());
            }
            Of::Address { .. } => {
                self.by_address.insert(place);
            }
        }
        self.waiting.insert(place, one);
    }

    fn take_out(&mut self, place: u64) {
        let Some(one) = self.waiting.remove(&place) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(one.bytes());
        self.by_address.remove(&place);
        if let Of::Uid(uid) = &one.of
            && let Some(places) = self.by_uid.get_mut(uid)
        {
            places.remove(&place);
            if places.is_empty() {
                self.by_uid.remove(uid);
            }
        }
    }

    /// Lets go of what is too much; gives how many that were.
    pub(super) fn forget_excess(&mut self) -> u64 {
        while (self.waiting.len() > MAX_WAITING || self.bytes > MAX_BYTES)
            && let Some((oldest, _)) = self.waiting.first_key_value()
        {
            let oldest = *oldest;
            self.take_out(oldest);
            self.forgotten += 1;
        }
        while self.seen_order.len() > MAX_SEEN {
            if let Some(oldest) = self.seen_order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        std::mem::take(&mut self.forgotten)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether something came that was not looked at yet.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What is said next: names, and the pods that they rest on, which come first.
    pub(super) fn decide(&mut self, own: &str, standing: &Amendments, now: u64) -> Vec<v1::Event> {
        let Some(cluster) = self.cluster.clone() else {
            return Vec::new();
        };
        let mut saying = Saying::default();
        let words = cluster.words();
        let pause = if self.by_uid.len() < MANY {
            LOOK_NS
        } else {
            10 * LOOK_NS
        };
        let is_news = words != self.words || !self.maturing.is_empty();
        let all = now.saturating_sub(self.looked) >= pause && is_news;
        let uids: Vec<CompactString> = if all {
            (self.words, self.looked) = (words, now);
            let by_uid = &self.by_uid;
            self.maturing.retain(|uid, _| by_uid.contains_key(uid));
            self.due.clear();
            self.by_uid.keys().cloned().collect()
        } else {
            self.due.drain().map(|(uid, ())| uid).collect()
        };
        for uid in uids {
            if saying.is_full() {
                self.due.insert(uid, ());
            } else {
                self.decide_pod(&uid, own, standing, &cluster, now, &mut saying);
            }
        }
        self.decide_addresses(own, standing, &cluster, now, &mut saying);
        saying.events
    }

    /// Decides about all that wait for a pod.
    fn decide_pod(
        &mut self,
        uid: &CompactString,
        own: &str,
        standing: &Amendments,
        cluster: &Cluster,
        now: u64,
        saying: &mut Saying,
    ) {
        let places = self.by_uid.get(uid).into_iter().flatten().copied();
        let (over, places): (Vec<u64>, Vec<u64>) = places.partition(|place| self.is_over(*place, standing));
        for place in over {
            self.take_out(place);
        }
        if places.is_empty() {
            return;
        }
        if self.is_contested(uid, cluster) {
            for place in places {
                self.take_out(place);
            }
            return;
        }
        if !self.told.contains_key(uid) {
            if let Some(known) = cluster.by_uid(uid) {
                // Since it is known: the API server may have been silent for longer than its pods have to wait.
                let since = *self.maturing.entry(uid.clone()).or_insert(now);
                // The API server tells of a pod before it has a node, and this one ran on one.
                let has_node = known.told.pod.as_ref().is_some_and(|pod| !pod.node.is_empty());
                let is_whole = known.told.owners_complete && has_node;
                if is_whole || known.gone || now.saturating_sub(since) >= OWNERS_NS {
                    self.maturing.remove(uid);
                    self.tell(uid, known.told, now, saying);
                }
            }
            return;
        }
        for place in places {
            if saying.is_full() {
                self.due.insert(uid.clone(), ());
                return;
            }
            let outcome = self.by_its_uid(place, own, now);
            self.settle(place, outcome, now, saying);
        }
    }

    fn settle(&mut self, place: u64, outcome: Outcome, now: u64, saying: &mut Saying) {
        match outcome {
            Outcome::Name(event) => {
                saying.push(*event);
                self.take_out(place);
            }
            Outcome::Tell(known) => {
                let uid = known
                    .told
                    .pod
                    .as_ref()
                    .map(|pod| CompactString::from(pod.uid.as_str()));
                if let Some(uid) = uid {
                    self.tell(&uid, known.told, now, saying);
                }
            }
            Outcome::Done => self.take_out(place),
            Outcome::Wait => {}
        }
    }

    /// Says a pod, unless that is on its way.
    fn tell(&mut self, uid: &CompactString, pod: v1::KubernetesPod, now: u64, saying: &mut Saying) {
        if self.telling.insert(uid.clone(), ()).is_none() {
            saying.push(v1::Event {
                ts_start_ns: now,
                ts_end_ns: now,
                body: Some(event::Body::KubernetesPod(pod)),
                ..v1::Event::default()
            });
        }
    }

    /// Whether one is named already, before a restart perhaps, or what it would name was taken back.
    fn is_over(&self, place: u64, standing: &Amendments) -> bool {
        let Some(one) = self.waiting.get(&place) else {
            return true;
        };
        let before = match json::summed(&one.events).next() {
            Some(seq) => standing.of_statement(&one.agent, seq),
            None => standing.standing(&one.agent, &one.session),
        };
        before.is_some_and(|before| {
            let of = |recorded: v1::Attribution| is_same_container(&before, &recorded);
            let is_same = v1::Attribution::decode(one.attribution.as_ref()).is_ok_and(of);
            is_by_pod_uid(&before) || one.amended && !is_same
        })
    }

    /// Whether two pods were told of under a uid, or by now another one than was said here.
    fn is_contested(&self, uid: &str, cluster: &Cluster) -> bool {
        let of = |told: &v1::KubernetesPod| {
            let pod = told.pod.clone().unwrap_or_default();
            (pod.namespace, pod.name, pod.service_account)
        };
        let differs = |told: &Told| {
            cluster
                .by_uid(uid)
                .is_some_and(|known| of(&known.told) != of(&told.pod))
        };
        cluster.is_contested(uid) || self.told.get(uid).is_some_and(differs)
    }

    fn by_its_uid(&self, place: u64, own: &str, now: u64) -> Outcome {
        let Some(one) = self.waiting.get(&place) else {
            return Outcome::Done;
        };
        let Of::Uid(uid) = &one.of else {
            return Outcome::Done;
        };
        let Some(told) = self.told.get(uid) else {
            return Outcome::Wait;
        };
        let recorded = v1::Attribution::decode(one.attribution.as_ref()).unwrap_or_default();
        let pod_event = json::event_id(own, told.seq);
        match in_pod(&recorded, &pod_event, &told.pod) {
            Some(named) => Outcome::Name(Box::new(one.event(named, POD_UID, pod_event, now))),
            None => Outcome::Done,
        }
    }
}

/// Whether it may be a pod's, of which an agent can say anything.
fn is_uid(text: &str) -> bool {
    text.parse::<Uid>().is_ok()
}

/// How often all that waits is looked at, if the API server said anything; where that are very many, ten times less often.
const LOOK_NS: u64 = 1_000_000_000;
const MANY: usize = 10_000;

/// What waits for a name, and its memory.
const MAX_WAITING: usize = 200_000;
const MAX_BYTES: usize = 256 << 20;

/// Sessions that are known to have been seen.
const MAX_SEEN: usize = 500_000;

/// Pods that were said; about a kilobyte each.
const MAX_TOLD: usize = 100_000;

/// How long a pod waits to be said for what owns its owner, which the API server tells in another watch.
const OWNERS_NS: u64 = 5_000_000_000;
