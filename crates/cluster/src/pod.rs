//! A pod: what is said of it, and what is kept.

use std::{net::IpAddr, sync::Arc};

use crate::{
    Uid,
    held::{Had, Held, LATE_NS},
    texts::Texts,
};

/// A pod as the API server told of it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its uid, as its cgroups have it.
    pub uid: Uid,
    /// Where it lives.
    pub namespace: String,
    /// Its name, which another pod may have later.
    pub name: String,
    /// Whose rights it has; empty for the pods of a kubelet's own files.
    pub service_account: String,
    /// What owns it.
    pub controller: Option<Controller>,
    /// Where it runs; empty as long as that is not decided.
    pub node: String,
    /// Those that were chosen.
    pub labels: Vec<(String, String)>,
    /// The same.
    pub annotations: Vec<(String, String)>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It uses its node's network: its addresses are the node's.
    pub host_network: bool,
    /// When its node took it in, in nanoseconds since the Unix epoch. It may wait for its addresses then.
    pub started: Option<u64>,
    /// When the first of its containers began: it had its addresses by then.
    pub running: Option<u64>,
    /// When the last of its containers ended for good.
    pub ended: Option<u64>,
}

/// What owns a pod, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// "ReplicaSet", "StatefulSet", …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<Uid>,
}

/// A workload that owns pods, or owns what owns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// "Deployment", "CronJob", …
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// What owns a pod, and what owns that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// From the pod upwards.
    pub owners: Vec<Owner>,
    /// That is all; else somebody else may stand above.
    pub is_whole: bool,
}

/// What is known of a pod.
#[derive(Debug)]
pub struct Pod {
    uid: Uid,
    name: Box<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
    node: Arc<str>,
    pub(crate) controller: Option<(Owner, Option<Uid>)>,
    labels: Box<[(Arc<str>, Arc<str>)]>,
    annotations: Box<[(Arc<str>, Arc<str>)]>,
    pub(crate) held: Vec<Held>,
    host_network: bool,
    /// Two different pods were told of under this uid: it names none.
    contested: bool,
    ended: Option<u64>,
    /// When it was deleted, or found missing.
    pub(crate) gone: Option<u64>,
    /// When it was told of last.
    pub(crate) seen: u64,
    /// Of the newest list that named it, or before which it was told of.
    pub(crate) list: u32,
}

impl Pod {
    /// The pod of a first sighting.
    pub(crate) fn new(texts: &mut Texts, sighting: &Sighting, now: u64, list: u32) -> Self {
        let mut pod = Self {
            uid: sighting.uid,
            name: sighting.name.as_str().into(),
            namespace: texts.get(&sighting.namespace),
            service_account: texts.get(&sighting.service_account),
            node: texts.get(&sighting.node),
            controller: None,
            labels: Box::default(),
            annotations: Box::default(),
            held: Vec::new(),
            host_network: sighting.host_network,
            contested: false,
            ended: None,
            gone: None,
            seen: now,
            list,
        };
        pod.take(texts, sighting, began(sighting, now), now, list);
        pod
    }

    /// What is said of it again.
    pub(crate) fn update(&mut self, texts: &mut Texts, sighting: &Sighting, now: u64, list: u32) {
        let same = *self.name == *sighting.name
            && *self.namespace == *sighting.namespace
            && *self.service_account == *sighting.service_account
            && self.host_network == sighting.host_network;
        if !same {
            self.contested = true;
            self.release(now, now);
            self.list = list;
            return;
        }
        // Its containers may have begun with another address than the one that it has got since.
        let since = if self.gone.take().is_none() && self.held.is_empty() {
            began(sighting, now)
        } else {
            now
        };
        self.take(texts, sighting, since, now, list);
    }

    fn take(&mut self, texts: &mut Texts, sighting: &Sighting, since: u64, now: u64, list: u32) {
        let before = self.seen;
        self.seen = before.max(now);
        self.list = list;
        if !sighting.node.is_empty() {
            self.node = texts.get(&sighting.node);
        }
        if let Some(controller) = &sighting.controller {
            let owner = Owner {
                kind: texts.get(&controller.kind),
                name: texts.get(&controller.name),
            };
            self.controller = Some((owner, controller.uid));
        }
        self.labels = chosen(texts, &sighting.labels);
        self.annotations = chosen(texts, &sighting.annotations);
        // What has ended does not live again.
        self.ended = self.ended.or(sighting.ended);
        if self.host_network || self.contested {
            return;
        }
        if let Some(ended) = self.ended {
            // Its addresses are free, though it is told of with them as long as somebody keeps it. One that began and ended between
            // two words had them, too.
            for address in sighting.addresses.iter().take(MAX_ADDRESSES) {
                if !self.held.iter().any(|held| held.address == *address) {
                    self.hold(*address, sighting, since);
                }
            }
            return self.release(ended.min(now), ended.min(now));
        }
        for held in self.held.iter_mut().filter(|held| held.over.is_none()) {
            if !sighting.addresses.contains(&held.address) {
                // At some time since it was told of with it.
                held.end(before.saturating_sub(LATE_NS), now);
            }
        }
        for address in sighting.addresses.iter().take(MAX_ADDRESSES) {
            let has = |held: &Held| held.address == *address && held.over.is_none();
            if !self.held.iter().any(has) {
                self.hold(*address, sighting, since);
            }
        }
    }

    fn hold(&mut self, address: IpAddr, sighting: &Sighting, from: u64) {
        if self.held.len() >= MAX_ADDRESSES {
            self.held.remove(0);
        }
        // One or two are all that most have.
        self.held.reserve_exact(1);
        self.held.push(Held {
            address,
            // The word on it may be late, and others count by then.
            maybe: sighting.started.unwrap_or(0).min(from),
            from,
            over: None,
        });
    }

    /// It has its addresses no more: surely until `sure`, perhaps until `latest`.
    pub(crate) fn release(&mut self, sure: u64, latest: u64) {
        for held in &mut self.held {
            held.end(sure, latest);
        }
    }

    /// Whether it had an address at a moment.
    pub(crate) fn had(&self, address: IpAddr, at: u64) -> Had {
        let of_it = self.held.iter().filter(|held| held.address == address);
        let had = of_it.map(|held| held.at(at)).max().unwrap_or(Had::No);
        if self.contested {
            had.min(Had::Perhaps)
        } else {
            had
        }
    }

    /// Its own addresses: from when on it had each, and until when it surely did if it has it no more.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u64, Option<u64>)> {
        self.held
            .iter()
            .map(|held| (held.address, held.from, held.over.map(|over| over.sure)))
    }

    /// Its uid.
    #[must_use]
    pub const fn uid(&self) -> Uid {
        self.uid
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it lives.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whose rights it has; empty for the pods of a kubelet's own files.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// Where it runs; empty if that is not known.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its chosen labels, by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Its chosen annotations, by name.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.annotations.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether two different pods were told of under its uid: then it names none.
    #[must_use]
    pub const fn is_contested(&self) -> bool {
        self.contested
    }

    /// When it was deleted, or found missing.
    #[must_use]
    pub const fn gone(&self) -> Option<u64> {
        self.gone
    }
}

/// Since when a pod that was told of with its first addresses surely had them.
fn began(sighting: &Sighting, now: u64) -> u64 {
    sighting.running.unwrap_or(now).min(now)
}

/// In order of their names; what is longer than a label may be is left out, for half of it would be another value.
fn chosen(texts: &mut Texts, pairs: &[(String, String)]) -> Box<[(Arc<str>, Arc<str>)]> {
    let fitting = pairs
        .iter()
        .filter(|(name, value)| name.len() <= MAX_TEXT && value.len() <= MAX_TEXT);
    let mut chosen: Vec<(Arc<str>, Arc<str>)> = fitting
        .take(MAX_CHOSEN)
        .map(|(name, value)| (texts.get(name), texts.get(value)))
        .collect();
    chosen.sort();
    chosen.into()
}

/// Longest name or value of a label or annotation that is kept. Labels have 317 and 63 bytes at most, annotations up to 256
/// kilobytes (<https://kubernetes.io/docs/concepts/overview/working-with-objects/>).
pub const MAX_TEXT: usize = 512;

/// Labels, and annotations, of one pod.
pub const MAX_CHOSEN: usize = 32;

/// Addresses of one pod over its life, the newest: one of each family is usual, and one stays for as long as the pod.
pub const MAX_ADDRESSES: usize = 8;
