//! What was decided, and how it is gathered into amendments.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use attribution::{Whose, leased};
use compact_str::CompactString;
use lease::{By, Decision};
use proto::v1;

/// What the statements of one amendment have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) at_server: Arc<str>,
    pub(super) at_pooler: Arc<str>,
    /// The pooler's own attribution, encoded.
    pub(super) pooler: Arc<[u8]>,
    pub(super) whose: Said,
}

/// A decision, its clients by their sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::join) enum Said {
    Client(CompactString, Shown),
    Own,
    Undecided(&'static str, Vec<CompactString>),
}

/// A [`By`], in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::join) struct Shown(u8);

/// Statements of a group, and what they rest on.
#[derive(Debug, Default)]
pub(super) struct Grouped {
    pub(super) seqs: BTreeSet<u64>,
    pub(super) inputs: BTreeSet<u64>,
}

/// What goes into the next batch.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) groups: BTreeMap<Group, Grouped>,
    statements: usize,
    bytes: usize,
}

impl Gathered {
    pub(super) fn add(&mut self, group: Group, seq: u64, inputs: impl Iterator<Item = u64>) {
        self.statements += 1;
        let own = size_of::<Group>() + group.pooler.len();
        let grouped = match self.groups.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                // What an honest client's attribution takes; at the cap of all, the batch is 64 MB.
                self.bytes += own + crate::join::MAX_ATTRIBUTION_BYTES / 16;
                place.insert(Grouped::default())
            }
        };
        grouped.seqs.insert(seq);
        grouped.inputs.extend(inputs);
    }

    pub(super) fn is_full(&self) -> bool {
        self.statements >= BATCH || self.bytes >= crate::join::BATCH_BYTES
    }
}

impl Said {
    /// What is decided, if it is; `session` names clients.
    pub(in crate::join) fn of<'a>(decision: Decision, session: impl Fn(u64) -> &'a str) -> Option<Self> {
        Some(match decision {
            Decision::NotYet => return None,
            Decision::Client(leased) => {
                let by = match leased.by {
                    By::Both => 0,
                    By::Request => 1,
                    By::Answer => 2,
                    By::Sole => 3,
                };
                Self::Client(session(leased.client).into(), Shown(by))
            }
            Decision::Own => Self::Own,
            Decision::Undecided { reason, candidates } => {
                let candidates = candidates.into_iter().map(|client| session(client).into());
                Self::Undecided(reason, candidates.collect())
            }
        })
    }

    /// The attribution that follows. `client`: the one of that client, where it is one.
    pub(in crate::join) fn attribution(
        &self,
        seen: (&str, &str),
        pooler: &v1::Attribution,
        client: Option<&v1::Attribution>,
    ) -> (v1::Attribution, &'static str) {
        let candidates: Vec<&str>;
        let whose = match (self, client) {
            (Self::Client(session, shown), Some(attribution)) => Whose::Client {
                session,
                attribution,
                by: shown.by(),
            },
            (Self::Client(session, _), None) => {
                candidates = vec![session];
                Whose::Undecided {
                    reason: "who the client is was not told",
                    candidates: &candidates,
                }
            }
            (Self::Own, _) => Whose::Own,
            (Self::Undecided(reason, sessions), _) => {
                candidates = sessions.iter().map(CompactString::as_str).collect();
                Whose::Undecided {
                    reason,
                    candidates: &candidates,
                }
            }
        };
        (leased(seen, pooler, whose), whose.name())
    }
}

impl Shown {
    fn by(self) -> By {
        match self.0 {
            0 => By::Both,
            1 => By::Request,
            2 => By::Answer,
            _ => By::Sole,
        }
    }
}

/// Statements that are decided about at a time.
const BATCH: usize = 100_000;
