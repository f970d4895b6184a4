//! What stands between pods and the workloads that people know: replica sets, and the jobs of cron jobs.
//!
//! Owns each one's owner, by uid. Of these objects nothing else is asked for: their metadata is enough.

use std::collections::{HashMap, VecDeque};

use crate::{Owner, Uid, texts::Texts};

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// Of a deployment.
    ReplicaSet,
    /// Of a cron job, or of nobody.
    Job,
}

impl Middle {
    /// As owner references name it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
        }
    }
}

/// The objects of one kind.
#[derive(Debug, Default)]
pub struct Owners {
    known: HashMap<Uid, Known>,
    /// When they went.
    gone: VecDeque<(u64, Uid)>,
    /// Of the newest list.
    list: u32,
}

#[derive(Debug)]
struct Known {
    owner: Option<Owner>,
    list: u32,
    gone: Option<u64>,
}

impl Owners {
    /// A list begins.
    pub const fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// One was seen, in a list or because it changed; false if there are too many.
    pub(crate) fn see(&mut self, texts: &mut Texts, uid: Uid, owner: Option<(&str, &str)>) -> bool {
        if self.known.len() >= MAX_OWNERS && !self.known.contains_key(&uid) && !self.forget_oldest() {
            return false;
        }
        let owner = owner.map(|(kind, name)| Owner {
            kind: texts.get(kind),
            name: texts.get(name),
        });
        let known = Known {
            owner,
            list: self.list,
            gone: None,
        };
        self.known.insert(uid, known);
        true
    }

    /// The list is over: what it did not name is gone.
    pub fn finish(&mut self, now: u64) {
        let list = self.list;
        let absent = self.known.iter_mut();
        for (uid, known) in absent.filter(|(_, known)| known.list != list && known.gone.is_none()) {
            known.gone = Some(now);
            self.gone.push_back((now, *uid));
        }
    }

    /// One was deleted.
    pub fn gone(&mut self, uid: Uid, now: u64) {
        if let Some(known) = self.known.get_mut(&uid)
            && known.gone.is_none()
        {
            known.gone = Some(now);
            self.gone.push_back((now, uid));
        }
    }

    /// Forgets what went at this time or before.
    pub(crate) fn forget(&mut self, until: u64) {
        while self.gone.front().is_some_and(|(gone, _)| *gone <= until) {
            self.forget_oldest();
        }
    }

    /// Whether one that had gone was forgotten.
    fn forget_oldest(&mut self) -> bool {
        while let Some((gone, uid)) = self.gone.pop_front() {
            // It may have been seen again since.
            if self.known.get(&uid).is_some_and(|known| known.gone == Some(gone)) {
                self.known.remove(&uid);
                return true;
            }
        }
        false
    }

    /// Whose it is: `None` if it is not known, `Some(None)` if it is nobody's.
    pub(crate) fn owner_of(&self, uid: &Uid) -> Option<Option<&Owner>> {
        self.known.get(uid).map(|known| known.owner.as_ref())
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Objects of one kind. A cluster of 100,000 pods has some ten old replica sets to each of some ten thousand deployments; one
/// takes about 150 bytes.
pub const MAX_OWNERS: usize = 300_000;
