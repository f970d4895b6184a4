//! What the collector itself has to say: its own chain in its own log.
//!
//! Owns the name and the key of that chain. The key is the log's own (`collector.key`, readable for the collector alone), so
//! that anybody can tell from the evidence whose word an amendment is: the chain whose key is the origin's. Its batches are
//! signed under their own context, go the way of any agent's, and are verified like them. No agent can have it: to enrol
//! under its name takes the first contact, which the collector makes before it listens, and to sign for it the key.
//! Refuses to decide what is said.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{anyhow, bail};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use evidence::{Chain, Checkpoint, ORIGIN_PREFIX, Seal};
use prost::Message;
use proto::v1;
use sha2::{Digest, Sha256};

use super::{
    Appended, Candidate, Log,
    identity::{self, Origin},
    keys::AgentKeys,
};

/// The collector's own chain. One writer at a time.
pub struct Originator {
    log: Arc<Log>,
    key: SigningKey,
    chain: Chain,
    next_event: u64,
}

impl Originator {
    /// Enrols the collector in its own log, or goes on where its chain stands.
    ///
    /// # Errors
    ///
    /// When the log has ended, or somebody else has its name: in a log that is older than this rule.
    pub async fn enrol(log: &Arc<Log>) -> anyhow::Result<Self> {
        let key = log.key.clone();
        let id = id(&log.status.borrow().origin);
        let tip = log.hello(id.clone(), key.verifying_key()).await?;
        let tip = tip.map_err(|reason| anyhow!("the collector cannot speak in its own log: {reason}"))?;
        let chain = match tip.sequence {
            0 => Chain::new(id),
            sequence => Chain::behind(id, sequence, tip.header_hash),
        };
        Ok(Self {
            log: Arc::clone(log),
            key,
            chain,
            next_event: tip.event_seq.saturating_add(1),
        })
    }

    /// The agent id of the chain.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.chain.agent_id
    }

    /// The number of the event that is said next.
    #[must_use]
    pub(crate) fn next_event(&self) -> u64 {
        self.next_event
    }

    /// Says that the log was made of a backup: the first thing to be said, in the entry behind those of the backup.
    ///
    /// # Errors
    ///
    /// As [`Originator::say`].
    pub(crate) async fn restored(
        &mut self,
        note: &[u8],
        checkpoint: &Checkpoint,
        verifier_key: &str,
    ) -> anyhow::Result<u64> {
        let now = super::unix_ns();
        let restored = v1::LogRestored {
            origin: checkpoint.origin.clone(),
            verifier_key: verifier_key.to_owned(),
            tree_size: checkpoint.size,
            root: checkpoint.root.to_vec(),
            checkpoint: String::from_utf8_lossy(note).into_owned(),
        };
        self.say(vec![v1::Event {
            ts_start_ns: now,
            ts_end_ns: now,
            body: Some(v1::event::Body::LogRestored(restored)),
            ..v1::Event::default()
        }])
        .await
    }

    /// Says alarms, each with the times when what it tells of began and was seen last.
    ///
    /// # Errors
    ///
    /// As [`Self::say`].
    pub async fn alarm(&mut self, alarms: Vec<(v1::Alarm, u64, u64)>) -> anyhow::Result<u64> {
        let events = alarms
            .into_iter()
            .map(|(alarm, ts_start_ns, ts_end_ns)| v1::Event {
                ts_start_ns,
                ts_end_ns,
                body: Some(v1::event::Body::Alarm(alarm)),
                ..v1::Event::default()
            });
        self.say(events.collect()).await
    }

    /// Says these events in one batch, and returns its entry in the log when that is durable. Their numbers are given here.
    ///
    /// # Errors
    ///
    /// When the log has ended or does not take the batch.
    pub async fn say(&mut self, events: Vec<v1::Event>) -> anyhow::Result<u64> {
        let count = events.len() as u64;
        let first_ns = events.iter().map(|event| event.ts_start_ns).min().unwrap_or(0);
        let last_ns = events.iter().map(|event| event.ts_end_ns).max().unwrap_or(0);
        let numbered = (self.next_event..).zip(events).map(|(seq, event)| {
            let event = v1::Event { seq, ..event };
            Bytes::from(event.encode_to_vec())
        });
        let contents: Vec<Bytes> = numbered.collect();
        let (mut chain, key, first) = (self.chain.clone(), self.key.clone(), self.next_event);
        let sealed = tokio::task::spawn_blocking(move || {
            let seed = rand::random();
            let batch = evidence::seal(&mut chain, &key, contents, first, first_ns, last_ns, None, seed);
            // What was sealed here is trusted no more than any agent's.
            let opened = evidence::open(&batch, &key.verifying_key(), &super::limits());
            opened.map(|opened| (chain, batch, opened))
        });
        let (chain, batch, opened) = sealed.await??;
        let events = super::decode_events(&opened).map_err(|reason| anyhow!("{reason}"))?;
        let seal = Seal {
            header: opened.header,
            header_hash: opened.header_hash,
        };
        let candidate = Candidate {
            batch,
            seal,
            events,
            stream_refused: Arc::default(),
        };
        let entry = match self.log.append(candidate).await?.await {
            Ok(Appended::Stored(entry)) => entry,
            Ok(Appended::Refused(reason)) => {
                bail!("the log does not take the collector's own batch: {reason}")
            }
            Ok(other) => bail!("the collector's own batch came out as {other:?}"),
            Err(_) => return Err(super::ended()),
        };
        self.chain = chain;
        self.next_event = first.saturating_add(count);
        Ok(entry)
    }
}

/// The agent id of the collector's own chain in an evidence folder, if it has one there.
pub(crate) fn originator(evidence: &Path) -> anyhow::Result<Option<String>> {
    let origin = Origin::read(evidence)?;
    own_among(&origin, &identity::read_agents(evidence)?)
}

/// The own chain of the log that another was restored from, if the folder knows it by the key that is named.
pub(super) fn predecessor(
    restored: &v1::LogRestored,
    agents: &BTreeMap<String, AgentKeys>,
) -> Option<String> {
    let of = Origin::of_key(&restored.verifier_key).ok()?;
    let id = id(&of.origin);
    let key = of.key().ok()?;
    agents
        .get(&id)
        .is_some_and(|keys| *keys.newest() == key)
        .then_some(id)
}

/// Whether a chain may be a collector's own: of this log, or of one that it was restored from.
pub(super) fn may_be_own(agent_id: &str) -> bool {
    agent_id.starts_with("collector-")
}

/// The same, of keys that were read.
pub(crate) fn own_among(
    origin: &Origin,
    agents: &BTreeMap<String, AgentKeys>,
) -> anyhow::Result<Option<String>> {
    let id = id(&origin.origin);
    let key = origin.key()?;
    let own = agents.get(&id).is_some_and(|keys| *keys.newest() == key);
    Ok(own.then_some(id))
}

/// `collector-<name of the log>`, as far as that is an agent's id.
fn id(origin: &str) -> String {
    let name = origin.strip_prefix(ORIGIN_PREFIX).unwrap_or(origin);
    let id = format!("collector-{name}");
    if evidence::is_agent_id(&id) {
        return id;
    }
    let digest = Sha256::digest(origin);
    format!("collector-{}", hex::encode(digest.get(..8).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_log_has_an_id_of_its_own() {
        assert_eq!(id("pgwitness/berlin"), "collector-berlin");
        let long = id(&format!("pgwitness/{}", "a".repeat(64)));
        assert!(evidence::is_agent_id(&long), "{long}");
        assert_ne!(long, id(&format!("pgwitness/{}", "b".repeat(64))));
    }
}
