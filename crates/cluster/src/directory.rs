//! All pods of a cluster: by their uids, and by the addresses that they had.
//!
//! Owns when a pod is gone, how long it stays known after that, and how many there may be. Words on pods come as lists
//! ([`Directory::begin`], [`Directory::see`] for each, [`Directory::finish`]) and as changes since ([`Directory::see`],
//! [`Directory::gone`]); saying one twice changes nothing. Times are nanoseconds since the Unix epoch.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
};

use crate::{
    Chain, MAX_ADDRESSES, Middle, Owners, Pod, Sighting, Uid,
    held::{ENDING_NS, Had, LATE_NS},
    texts::Texts,
};

/// The pods that are known.
#[derive(Debug)]
pub struct Directory {
    pods: HashMap<Uid, Pod>,
    by_address: HashMap<IpAddr, Vec<Uid>>,
    /// Those that went, in the order in which they did.
    gone: VecDeque<(u64, Uid)>,
    replica_sets: Owners,
    jobs: Owners,
    texts: Texts,
    /// How long one that is gone stays known.
    keep: u64,
    /// Of the newest list.
    list: u32,
    /// When the list or a change was heard last; of what comes late after a break, nothing is.
    heard: u64,
    /// A list is being read, or none was yet.
    listing: bool,
    /// When it was noticed last that changes are not heard: those from before it may still come.
    broken: Option<u64>,
    refused: u64,
}

/// What became of a word on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is known by now.
    Known,
    /// It is told of differently than before under the same uid: from now on, that names no pod.
    Contested,
    /// There are too many.
    Refused,
}

/// Whose an address was.
#[derive(Debug)]
pub enum Holder<'a> {
    /// This pod's, and surely no other's.
    One(&'a Pod),
    /// Two may have had it.
    Several,
    /// No pod's.
    Nobody,
    /// Not all pods are known at the moment.
    NotKnown,
}

impl Directory {
    /// One without pods, in which those that are gone stay known for `keep` nanoseconds.
    #[must_use]
    pub fn new(keep: u64) -> Self {
        Self {
            pods: HashMap::new(),
            by_address: HashMap::new(),
            gone: VecDeque::new(),
            replica_sets: Owners::default(),
            jobs: Owners::default(),
            texts: Texts::default(),
            keep,
            list: 0,
            heard: 0,
            listing: true,
            broken: None,
            refused: 0,
        }
    }

    /// A list of all pods begins; one that was begun before comes to nothing.
    pub const fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
        self.listing = true;
    }

    /// The list is over: what it did not name went at some time since the last word was heard.
    pub fn finish(&mut self, now: u64) {
        // What was on its way when the last word came is not in it, and that word itself may have been late.
        let (list, heard) = (self.list, self.heard.min(now).saturating_sub(LATE_NS));
        let absent = self.pods.values_mut();
        for pod in absent.filter(|pod| pod.list != list && pod.gone.is_none()) {
            pod.release(heard, now);
            pod.gone = Some(now);
            self.gone.push_back((now, pod.uid()));
        }
        self.heard = self.heard.max(now);
        self.listing = false;
        self.broken = None;
    }

    /// What changes is not heard at the moment: nothing is said of addresses until all of it may have come ([`LATE_NS`]), or all
    /// pods are listed anew.
    pub const fn interrupted(&mut self, now: u64) {
        self.broken = Some(now);
    }

    /// Time has passed without another break.
    pub fn settle(&mut self, now: u64) {
        self.broken = self.broken.filter(|broken| now.saturating_sub(*broken) < LATE_NS);
    }

    /// A pod is told of, in a list or because it changed.
    pub fn see(&mut self, sighting: &Sighting, listed: bool, now: u64) -> Seen {
        self.hear(listed, now);
        let full = self.pods.len() >= MAX_PODS && !self.pods.contains_key(&sighting.uid);
        if full && !self.forget_oldest() {
            self.refused += 1;
            // Its addresses could be taken for another's.
            return Seen::Refused;
        }
        let (texts, list) = (&mut self.texts, self.list);
        let mut before = Vec::new();
        let pod = match self.pods.entry(sighting.uid) {
            Entry::Occupied(known) => {
                let pod = known.into_mut();
                if pod.held.len() >= MAX_ADDRESSES {
                    before.extend(pod.held.iter().map(|held| held.address));
                }
                pod.update(texts, sighting, now, list);
                pod
            }
            Entry::Vacant(place) => place.insert(Pod::new(texts, sighting, now, list)),
        };
        before.retain(|address| pod.held.iter().all(|held| held.address != *address));
        for address in before {
            unlist(&mut self.by_address, address, &sighting.uid);
        }
        for held in &pod.held {
            let of_it = self.by_address.entry(held.address).or_default();
            if !of_it.contains(&sighting.uid) {
                of_it.reserve_exact(1);
                of_it.push(sighting.uid);
            }
        }
        if pod.is_contested() {
            return Seen::Contested;
        }
        Seen::Known
    }

    /// A pod was deleted. It stays known for a while.
    pub fn gone(&mut self, uid: Uid, now: u64) {
        self.hear(false, now);
        // Behind a break, it may have gone at any time since.
        let sure = match self.broken {
            Some(_) => self.heard.min(now).saturating_sub(LATE_NS),
            None => now.saturating_sub(ENDING_NS),
        };
        if let Some(pod) = self.pods.get_mut(&uid)
            && pod.gone.is_none()
        {
            pod.release(sure, now);
            pod.gone = Some(now);
            self.gone.push_back((now, uid));
        }
    }

    /// A word that is no part of a list says that all before it was heard.
    fn hear(&mut self, listed: bool, now: u64) {
        self.settle(now);
        if !listed && self.broken.is_none() {
            self.heard = self.heard.max(now);
        }
    }

    /// Forgets pods, and what owned them, that went longer ago than they stay known.
    pub fn forget(&mut self, now: u64) {
        let until = now.saturating_sub(self.keep);
        let mut any = false;
        while self.gone.front().is_some_and(|(gone, _)| *gone <= until) {
            any |= self.forget_oldest();
        }
        self.replica_sets.forget(until);
        self.jobs.forget(until);
        if any {
            self.texts.sweep();
        }
    }

    /// Whether one that had gone was forgotten.
    fn forget_oldest(&mut self) -> bool {
        while let Some((gone, uid)) = self.gone.pop_front() {
            // It may have been told of again since.
            if self.pods.get(&uid).is_none_or(|pod| pod.gone != Some(gone)) {
                continue;
            }
            if let Some(pod) = self.pods.remove(&uid) {
                for held in &pod.held {
                    unlist(&mut self.by_address, held.address, &uid);
                }
                return true;
            }
        }
        false
    }

    /// The pod of a uid; one that is contested is no pod's.
    #[must_use]
    pub fn by_uid(&self, uid: &Uid) -> Option<&Pod> {
        self.pods.get(uid).filter(|pod| !pod.is_contested())
    }

    /// Whether two pods were told of under this uid.
    #[must_use]
    pub fn is_contested(&self, uid: &Uid) -> bool {
        self.pods.get(uid).is_some_and(Pod::is_contested)
    }

    /// The pod that had an address at a moment.
    #[must_use]
    pub fn holder(&self, address: IpAddr, at: u64) -> Holder<'_> {
        if !self.is_whole() || self.refused > 0 {
            return Holder::NotKnown;
        }
        let of_it = self.by_address.get(&address).into_iter().flatten();
        let mut holders = of_it
            .filter_map(|uid| self.pods.get(uid))
            .map(|pod| (pod, pod.had(address, at)))
            .filter(|(_, had)| *had != Had::No);
        match (holders.next(), holders.next()) {
            (None, _) => Holder::Nobody,
            (Some((pod, Had::Yes)), None) => Holder::One(pod),
            // It was, or it was not.
            (Some(_), _) => Holder::Several,
        }
    }

    /// What owns a pod, as far as that is known by now.
    #[must_use]
    pub fn chain(&self, pod: &Pod) -> Chain {
        let Some((owner, uid)) = &pod.controller else {
            return Chain {
                owners: Vec::new(),
                is_whole: true,
            };
        };
        let mut owners = vec![owner.clone()];
        let middle = [
            (Middle::ReplicaSet, &self.replica_sets),
            (Middle::Job, &self.jobs),
        ];
        let middle = middle
            .into_iter()
            .find(|(middle, _)| middle.kind() == &*owner.kind);
        let is_whole = match (middle, uid) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((_, known)), Some(uid)) => match known.owner_of(uid) {
                None => false,
                Some(above) => {
                    owners.extend(above.cloned());
                    true
                }
            },
        };
        Chain { owners, is_whole }
    }

    /// What stands between pods and workloads is told of, in a list or because it changed; false if there are too many.
    pub fn see_owner(&mut self, middle: Middle, uid: Uid, owner: Option<(&str, &str)>) -> bool {
        let known = match middle {
            Middle::ReplicaSet => &mut self.replica_sets,
            Middle::Job => &mut self.jobs,
        };
        known.see(&mut self.texts, uid, owner)
    }

    /// The objects of this kind, for their lists and their ends.
    pub const fn owners(&mut self, middle: Middle) -> &mut Owners {
        match middle {
            Middle::ReplicaSet => &mut self.replica_sets,
            Middle::Job => &mut self.jobs,
        }
    }

    /// How many pods are known, with those that are gone.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether all pods of the cluster are known, and what changes is heard.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        !self.listing && self.broken.is_none()
    }

    /// How many pods were refused, because there were too many.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

/// The pod had this address, and it is not asked for it any longer.
fn unlist(by_address: &mut HashMap<IpAddr, Vec<Uid>>, address: IpAddr, uid: &Uid) {
    if let Some(of_it) = by_address.get_mut(&address) {
        of_it.retain(|other| other != uid);
        if of_it.is_empty() {
            by_address.remove(&address);
        }
    }
}

/// Pods that are known at a time. Kubernetes is made for 150,000 (<https://kubernetes.io/docs/setup/best-practices/cluster-large/>),
/// and those that went within the hour come on top; one takes about 800 bytes.
pub const MAX_PODS: usize = 400_000;
