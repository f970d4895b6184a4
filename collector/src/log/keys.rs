//! An agent's keys, in the order in which it signed with them, and what shows that one follows the other.
//!
//! Owns the rule: a key is announced by a batch that the one before it signed. Where that batch is in another log, because the agent was
//! there meanwhile, its header is shown and kept. Refuses files, which are `identity`'s.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use evidence::Tip;
use prost::Message;
use proto::v1::{BatchHeader, SignedBatch};
use serde::{Deserialize, Serialize};

use super::Greeting;

/// Keys of an agent, at the most: they stand in one small file.
const MAX_KEYS: usize = 256;

/// Bytes of shown headers of an agent, at the most, in hexadecimal: some thirty changes that this log missed.
const MAX_SHOWN_BYTES: usize = 24 << 10;

/// A batch that announced a key, without what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Announced {
    /// An encoded `BatchHeader`, in hexadecimal.
    header: String,
    /// The agent's, in hexadecimal.
    signature: String,
}

/// An agent's keys, in the order in which it signed with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentKeys {
    pub(super) first: VerifyingKey,
    /// With the first batch that each signs, ascending.
    pub(super) later: Vec<(u64, VerifyingKey)>,
    /// By that batch: what announced the key, where the agent showed it because the log does not have it.
    pub(super) shown: BTreeMap<u64, Announced>,
}

impl Announced {
    pub(super) fn batch(&self) -> anyhow::Result<SignedBatch> {
        let bytes = |digits: &str| {
            let bytes = hex::decode(digits).context("what is shown of a key is malformed")?;
            ensure!(
                hex::encode(&bytes) == digits,
                "what is shown of a key is not in lower case"
            );
            Ok(Bytes::from(bytes))
        };
        Ok(SignedBatch {
            header: bytes(&self.header)?,
            signature: bytes(&self.signature)?,
            ..SignedBatch::default()
        })
    }
}

impl AgentKeys {
    /// Of an agent that has had one.
    pub(crate) fn new(first: VerifyingKey) -> Self {
        Self {
            first,
            later: Vec::new(),
            shown: BTreeMap::new(),
        }
    }

    /// The key that signs a batch.
    #[must_use]
    pub fn of(&self, batch: u64) -> &VerifyingKey {
        let later = self.later.iter().rev().find(|(from, _)| *from <= batch);
        later.map_or(&self.first, |(_, key)| key)
    }

    /// The key that signs what comes next.
    #[must_use]
    pub fn newest(&self) -> &VerifyingKey {
        self.later.last().map_or(&self.first, |(_, key)| key)
    }

    /// The first batches of those keys whose announcements are shown beside the log, with the keys.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (u64, &VerifyingKey)> {
        let shown = |(from, _): &&(u64, VerifyingKey)| self.shown.contains_key(from);
        self.later.iter().filter(shown).map(|(from, key)| (*from, key))
    }

    /// Follows by a batch of which only header and signature are there.
    ///
    /// # Errors
    ///
    /// If it is not signed by the newest key, or is no announcement of this agent's.
    pub(super) fn follow_shown(&mut self, agent_id: &str, batch: &SignedBatch) -> Result<(), String> {
        let header = BatchHeader::decode(batch.header.clone()).map_err(|error| error.to_string())?;
        if header.agent_id != agent_id || header.next_key.is_empty() {
            return Err("it is no announcement of this agent's".to_owned());
        }
        if !evidence::check_signature(&batch.header, &batch.signature, self.newest()) {
            return Err("it is not signed by the key before it".to_owned());
        }
        let announced = Announced {
            header: hex::encode(&batch.header),
            signature: hex::encode(&batch.signature),
        };
        let kept: usize = self.shown.values().map(|kept| kept.header.len()).sum();
        if kept + announced.header.len() > MAX_SHOWN_BYTES {
            return Err(format!(
                "more than {MAX_SHOWN_BYTES} bytes of changes that this log missed are shown"
            ));
        }
        if self.follow(&header)? {
            self.shown.insert(header.sequence.saturating_add(1), announced);
        }
        Ok(())
    }

    /// How many keys followed the first.
    pub(crate) fn rotations(&self) -> usize {
        self.later.len()
    }

    /// Takes in what a batch announces, if it does. Whether it is new.
    ///
    /// # Errors
    ///
    /// If it announces no key, another one than is known, or too many.
    pub fn follow(&mut self, header: &BatchHeader) -> Result<bool, String> {
        if header.next_key.is_empty() {
            return Ok(false);
        }
        let key = VerifyingKey::try_from(header.next_key.as_slice());
        let Some(key) = key.ok().filter(|key| !key.is_weak()) else {
            return Err(format!("batch {} announces what is no key", header.sequence));
        };
        let from = header.sequence.saturating_add(1);
        match self.later.iter().find(|(at, _)| *at >= from) {
            Some((at, known)) if *at == from && *known == key => Ok(false),
            Some(_) => Err(format!(
                "batch {} announces another key than is known",
                header.sequence
            )),
            None if self.later.len() >= MAX_KEYS => Err(format!("an agent has {MAX_KEYS} keys at the most")),
            None => {
                self.later.push((from, key));
                Ok(true)
            }
        }
    }
}

/// The keys that an agent has by its greeting: those that are known, and what it shows of changes that this log missed.
///
/// # Errors
///
/// If they do not lead to a key that it has: why, for the agent.
pub(crate) fn keys_by(known: &AgentKeys, tip: &Tip, greeting: &Greeting) -> Result<AgentKeys, String> {
    let mut keys = known.clone();
    let has = |keys: &AgentKeys| greeting.key == *keys.newest() || greeting.former == Some(*keys.newest());
    for change in &greeting.key_changes {
        if has(&keys) && greeting.former.is_none() {
            break;
        }
        let header = BatchHeader::decode(change.header.clone()).unwrap_or_default();
        // What comes yet announces by itself; of what came, the log knows.
        if (tip.sequence + 1..=greeting.acknowledged).contains(&header.sequence) {
            // Those before the key that is known do not fit, and need not.
            _ = keys.follow_shown(&greeting.agent_id, change);
        }
    }
    match (has(&keys), greeting.key_changes.is_empty()) {
        (true, _) => Ok(keys),
        (false, true) => Err(format!(
            "the agent id {:?} is enrolled with another key",
            greeting.agent_id
        )),
        (false, false) => Err(format!(
            "the agent id {:?} is enrolled with another key, and the changes of keys that the agent shows do not lead from it to this one",
            greeting.agent_id
        )),
    }
}
