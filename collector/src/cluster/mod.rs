//! The pods of a Kubernetes cluster, as its API server tells of them.
//!
//! Owns what the collector knows of them by now: one watch serves all agents, none of which has a token or a right in the cluster. Who
//! asks gets pods in the form in which the collector tells them. What may be concluded is the crate `cluster`'s; which session has
//! which pod is the join's. Refuses to wait for the API server: what it has not said is not known.

mod object;
mod sighting;
mod watch;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::{Chain, Directory, Holder, Pod, SLACK_NS, Seen, Uid};
use proto::v1;

use crate::{config::KubernetesConfig, log, metrics::Metrics};

/// What is known of a cluster.
#[derive(Debug)]
pub struct Cluster {
    config: KubernetesConfig,
    directory: RwLock<Directory>,
    /// Grows with every word.
    words: AtomicU64,
    /// Agents of the log, and whether their clocks are ours: addresses are pods' by the collector's.
    clocks: RwLock<HashMap<String, bool>>,
    metrics: Arc<Metrics>,
}

/// A pod to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) told: v1::KubernetesPod,
    /// It is gone: nothing more will be heard of it.
    pub(crate) gone: bool,
}

/// Whose an address was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Had {
    /// This pod's.
    By(Box<Known>),
    /// No pod's, or nobody can say whose.
    Nobody,
    /// That may be known later.
    NotKnown,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    #[must_use]
    pub fn new(config: KubernetesConfig, metrics: Arc<Metrics>) -> Self {
        let keep = u64::from(config.keep_minutes) * 60 * 1_000_000_000;
        Self {
            config,
            directory: RwLock::new(Directory::new(keep)),
            words: AtomicU64::new(0),
            clocks: RwLock::default(),
            metrics,
        }
    }

    /// Hears what the API server says, for as long as the collector runs.
    pub async fn watch(self: Arc<Self>) {
        watch::watch(self).await;
    }

    /// How many words came; as long as it is the same, every answer is.
    pub(crate) fn words(&self) -> u64 {
        self.words.load(Ordering::Relaxed)
    }

    /// The pod of a uid.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<Known> {
        let uid: Uid = uid.parse().ok()?;
        self.read(|directory| directory.by_uid(&uid).map(|pod| self.known(directory, pod)))
    }

    /// Whether two pods were told of under this uid.
    pub(crate) fn is_contested(&self, uid: &str) -> bool {
        let uid = uid.parse::<Uid>();
        uid.is_ok_and(|uid| self.read(|directory| directory.is_contested(&uid)))
    }

    /// An agent that connected now said what time it is.
    pub(crate) fn see_clock(&self, agent: &str, told: u64, now: u64) {
        let is_ours = told.abs_diff(now) <= SLACK_NS;
        if !is_ours {
            tracing::warn!(
                agent,
                milliseconds = told.abs_diff(now) / 1_000_000,
                "an agent's clock is not the collector's: pods have no names by their addresses in what it tells"
            );
        }
        let mut clocks = self.clocks.write().unwrap_or_else(PoisonError::into_inner);
        clocks.insert(agent.to_owned(), is_ours);
    }

    /// Whether this address, which this agent saw, may be a pod's at the time that the agent says: not before the agent said what time
    /// it is.
    pub(crate) fn counts(&self, address: IpAddr, agent: &str) -> bool {
        let clocks = self.clocks.read().unwrap_or_else(PoisonError::into_inner);
        self.is_of_pods(address) && clocks.get(agent).is_some_and(|is_ours| *is_ours)
    }

    /// Whether addresses of this network are pods' own.
    fn is_of_pods(&self, address: IpAddr) -> bool {
        let mut networks = self.config.pod_networks.iter();
        networks.any(|network| network.contains(&address))
    }

    /// The pod that had an address, at this time.
    pub(crate) fn by_address(&self, address: IpAddr, at: u64) -> Had {
        if !self.is_of_pods(address) {
            return Had::Nobody;
        }
        self.read(|directory| match directory.holder(address, at) {
            Holder::One(pod) => Had::By(Box::new(self.known(directory, pod))),
            Holder::Several | Holder::Nobody => Had::Nobody,
            Holder::NotKnown => Had::NotKnown,
        })
    }

    fn known(&self, directory: &Directory, pod: &Pod) -> Known {
        let Chain { owners, is_whole } = directory.chain(pod);
        let owners = owners.iter().map(|owner| v1::Owner {
            kind: owner.kind.to_string(),
            name: owner.name.to_string(),
        });
        let addresses = pod.addresses().map(|(address, from_ns, to)| v1::PodAddress {
            addr: address.to_string(),
            from_ns,
            to_ns: to.unwrap_or(0),
        });
        Known {
            told: v1::KubernetesPod {
                pod: Some(v1::Pod {
                    uid: pod.uid().to_string(),
                    name: pod.name().to_owned(),
                    namespace: pod.namespace().to_owned(),
                    service_account: pod.service_account().to_owned(),
                    node: pod.node().to_owned(),
                    owners: owners.collect(),
                    labels: pod.labels().map(variable).collect(),
                    annotations: pod.annotations().map(variable).collect(),
                }),
                trust_domain: self.config.trust_domain.clone(),
                addresses: addresses.collect(),
                owners_complete: is_whole,
            },
            gone: pod.gone().is_some(),
        }
    }

    fn read<T>(&self, ask: impl FnOnce(&Directory) -> T) -> T {
        // Nothing panics while it holds the lock with a change half made.
        ask(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in a word that came now.
    fn hear(&self, take: impl FnOnce(&mut Directory, u64)) {
        self.hear_at(log::unix_ns(), take);
    }

    /// Takes in a word that came at this time.
    pub(crate) fn hear_at(&self, now: u64, take: impl FnOnce(&mut Directory, u64)) {
        let (known, is_whole) = {
            let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
            take(&mut directory, now);
            (directory.len(), directory.is_whole())
        };
        self.metrics.known_pods.set(signed(known as u64));
        self.metrics.cluster_is_whole.set(is_whole.into());
        self.words.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a word that is not believed, or not kept.
    fn count(&self, seen: Seen) {
        if seen != Seen::Known {
            self.metrics.refused_pods.inc();
        }
    }
}

fn variable((name, value): (&str, &str)) -> v1::Variable {
    v1::Variable {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
