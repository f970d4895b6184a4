//! The agent's batch key, and the one that follows it.
//!
//! A change begins on the collector's wish: a new key is made and kept beside the old one, and the next batch, which the old one
//! signs, announces it. Only when that batch is acknowledged the new key takes the old one's place on disk, so that whatever
//! comes in between, one of both is what the collector expects, and says so when the agent connects again. The announcing headers are
//! kept: by them another collector, which does not have these batches, can follow.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use proto::v1::{BatchHeader, SignedBatch};
use tracing::{info, warn};

use super::files::put;

/// The keys.
#[derive(Debug)]
pub struct Keyring {
    /// `agent.key`; none for keys that are kept nowhere.
    path: Option<PathBuf>,
    current: SigningKey,
    next: Option<SigningKey>,
    /// The batch that announced `next`, if one did.
    announced: Option<u64>,
    /// The headers that announced keys, with their signatures and without payload, the oldest first.
    changes: Vec<SignedBatch>,
}

/// Changes that are kept: as many as a collector keeps keys of an agent.
const CHANGES: usize = 255;

/// By what an agent introduces itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Greeting {
    /// The newest public key.
    pub public_key: Vec<u8>,
    /// The one before it, as long as it is not known whether the collector knows of the change.
    pub former_key: Vec<u8>,
    /// The headers, without payload, that led from key to key.
    pub key_changes: Vec<SignedBatch>,
}

impl Keyring {
    /// The key that is in `path`, with what a change left beside it.
    ///
    /// # Errors
    ///
    /// If there is another file that is no key.
    pub fn open(path: PathBuf, current: SigningKey) -> anyhow::Result<Self> {
        let beside = beside(&path);
        let next = match fs::read_to_string(&beside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            text => {
                let mut seed = [0; 32];
                let text = text.with_context(|| format!("cannot read {}", beside.display()))?;
                if hex::decode_to_slice(text.trim(), &mut seed).is_err() {
                    bail!(
                        "{} is not a key of 64 hexadecimal digits: restore it",
                        beside.display()
                    );
                }
                Some(SigningKey::from_bytes(&seed))
            }
        };
        // Without them a collector that missed a change says so: no reason not to begin.
        let changes = fs::read_to_string(changes(&path)).unwrap_or_default();
        Ok(Self {
            path: Some(path),
            current,
            next,
            announced: None,
            changes: changes.lines().filter_map(change).collect(),
        })
    }

    /// Signs the next batch.
    pub fn signer(&self) -> &SigningKey {
        match &self.next {
            Some(next) if self.announced.is_some() => next,
            _ => &self.current,
        }
    }

    /// Signs this batch anew: what announced the next key is signed by the one before it.
    pub fn signer_of(&self, sequence: u64) -> &SigningKey {
        match &self.next {
            Some(next) if self.announced.is_some_and(|announced| announced < sequence) => next,
            _ => &self.current,
        }
    }

    /// Whether a batch that lies on this host can be this agent's: signed by a key that is here, or the one that announced it.
    pub fn may_have_signed(&self, batch: &SignedBatch, next_key: &[u8]) -> bool {
        let signed = |key: &SigningKey| {
            evidence::check_signature(&batch.header, &batch.signature, &key.verifying_key())
        };
        signed(&self.current)
            || self.next.as_ref().is_some_and(signed)
            || next_key == self.current.verifying_key().as_bytes()
    }

    /// For a collector that is told that everything up to `acknowledged` is with others: which batches announced what up to there. What
    /// announced a key behind that comes to it by itself.
    pub fn greeting(&self, acknowledged: u64) -> Greeting {
        let public = |key: &SigningKey| key.verifying_key().as_bytes().to_vec();
        let (public_key, former_key) = match &self.next {
            Some(next) => (public(next), public(&self.current)),
            None => (public(&self.current), Vec::new()),
        };
        let with_others = |change: &&SignedBatch| sequence(change) <= acknowledged;
        Greeting {
            public_key,
            former_key,
            key_changes: self.changes.iter().filter(with_others).cloned().collect(),
        }
    }

    /// What the next batch is to announce.
    pub fn announcement(&self) -> Option<[u8; 32]> {
        let next = self.next.as_ref().filter(|_| self.announced.is_none());
        next.map(|next| next.verifying_key().to_bytes())
    }

    /// That batch announces the next key.
    pub fn was_announced(&mut self, by: &SignedBatch) {
        let announcing = SignedBatch {
            header: by.header.clone(),
            signature: by.signature.clone(),
            ..SignedBatch::default()
        };
        self.announced = Some(sequence(&announcing));
        // It may have been sealed anew, under another number.
        self.changes.retain(|change| next_key(change) != next_key(by));
        self.changes.push(announcing);
        self.changes.drain(..self.changes.len().saturating_sub(CHANGES));
        if let Some(path) = &self.path {
            let lines = self.changes.iter();
            let lines = lines.map(|change| {
                format!(
                    "{} {}\n",
                    hex::encode(&change.header),
                    hex::encode(&change.signature)
                )
            });
            if let Err(problem) = put(&changes(path), &lines.collect::<String>()) {
                warn!("another collector cannot follow this change of the batch key: {problem:#}");
            }
        }
    }

    /// Whether the key that batches up to this one announced is to take the old one's place.
    pub fn changes_by(&self, acknowledged: u64) -> bool {
        self.announced.is_some_and(|announced| announced <= acknowledged)
    }

    /// The collector wishes for another key than this. Whether a change begins.
    ///
    /// # Errors
    ///
    /// If the new key cannot be kept: then nothing changes.
    pub fn replace(&mut self, public_key: &[u8]) -> anyhow::Result<bool> {
        if self.next.is_some() || public_key != self.current.verifying_key().as_bytes() {
            return Ok(false);
        }
        let next = SigningKey::generate(&mut rand::rngs::OsRng);
        if let Some(path) = &self.path {
            put(&beside(path), &format!("{}\n", hex::encode(next.to_bytes())))?;
        }
        self.next = Some(next);
        Ok(true)
    }

    /// Everything up to this batch is acknowledged.
    ///
    /// # Errors
    ///
    /// If the new key cannot take the old one's place on disk: the next start does it.
    pub fn acknowledged(&mut self, sequence: u64) -> anyhow::Result<()> {
        match self.changes_by(sequence) {
            true => self.promote(),
            false => Ok(()),
        }
    }

    /// The collector says by which key the next batch has to be signed, and nothing is sealed yet.
    ///
    /// # Errors
    ///
    /// As [`Self::acknowledged`].
    pub fn settle(&mut self, public_key: &[u8]) -> anyhow::Result<()> {
        match &self.next {
            Some(next) if next.verifying_key().as_bytes() == public_key => self.promote(),
            _ => Ok(()),
        }
    }

    fn promote(&mut self) -> anyhow::Result<()> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        self.current = next;
        self.announced = None;
        info!("batches are signed by another key from here on");
        if let Some(path) = &self.path {
            fs::rename(beside(path), path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        Ok(())
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("key.next")
}

fn changes(path: &Path) -> PathBuf {
    path.with_extension("key.changes")
}

/// A line of that file: header and signature, in hexadecimal.
fn change(line: &str) -> Option<SignedBatch> {
    let (header, signature) = line.split_once(' ')?;
    Some(SignedBatch {
        header: hex::decode(header).ok()?.into(),
        signature: hex::decode(signature).ok()?.into(),
        ..SignedBatch::default()
    })
}

fn sequence(batch: &SignedBatch) -> u64 {
    BatchHeader::decode(batch.header.clone()).map_or(0, |header| header.sequence)
}

fn next_key(batch: &SignedBatch) -> Option<Vec<u8>> {
    let header = BatchHeader::decode(batch.header.clone()).ok()?;
    Some(header.next_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(path: &Path) -> SigningKey {
        let mut seed = [0; 32];
        let text = fs::read_to_string(path).expect("there");
        hex::decode_to_slice(text.trim(), &mut seed).expect("a key");
        SigningKey::from_bytes(&seed)
    }

    #[test]
    fn a_change_survives_an_end_at_any_point() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.key");
        let old = SigningKey::from_bytes(&[7; 32]);
        put(&path, &hex::encode(old.to_bytes())).expect("written");
        let open = || Keyring::open(path.clone(), stored(&path)).expect("opened");
        let public = |key: &SigningKey| key.verifying_key().as_bytes().to_vec();
        let shown = |keys: &Keyring| {
            let greeting = keys.greeting(u64::MAX);
            (greeting.public_key, greeting.former_key)
        };

        let mut keys = open();
        assert_eq!(shown(&keys), (public(&old), Vec::new()));
        assert!(!keys.replace(&[1; 32]).expect("nothing"), "another key is meant");
        assert!(keys.replace(&public(&old)).expect("made"));
        assert!(!keys.replace(&public(&old)).expect("nothing"), "asked twice");
        let next = keys.announcement().expect("to be said");
        assert_eq!(keys.signer().to_bytes(), old.to_bytes(), "the old one announces");

        // Ended before it was announced: the collector knows the old one, and it is announced again.
        let mut keys = open();
        assert_eq!(shown(&keys), (next.to_vec(), public(&old)));
        keys.settle(&public(&old)).expect("nothing");
        assert_eq!(keys.announcement(), Some(next));
        keys.was_announced(&announcing(5, &next));
        assert_eq!(keys.signer().verifying_key().to_bytes(), next);
        assert_eq!(keys.announcement(), None, "said once");

        // Ended before it was acknowledged, and the collector has the batch.
        let mut lost = open();
        lost.settle(&next).expect("promoted");
        assert_eq!(shown(&lost), (next.to_vec(), Vec::new()));
        assert_eq!(public(&stored(&path)), next);
        assert_eq!(shown(&open()), (next.to_vec(), Vec::new()));

        // And the way it goes without an end.
        put(&beside(&path), &hex::encode([9; 32])).expect("written");
        let mut keys = open();
        let next = keys.announcement().expect("to be said");
        keys.was_announced(&announcing(9, &next));
        keys.acknowledged(8).expect("nothing");
        assert_ne!(public(&stored(&path)), next);
        keys.acknowledged(9).expect("promoted");
        assert_eq!(public(&stored(&path)), next);
        assert!(!beside(&path).exists());
        assert_eq!(keys.signer().verifying_key().to_bytes(), next);
        // Whoever has neither batch is shown both headers, whoever gets the newer one by itself only the first.
        let keys = open();
        let changes: Vec<u64> = keys.greeting(u64::MAX).key_changes.iter().map(sequence).collect();
        assert_eq!(changes, [5, 9]);
        assert_eq!(keys.greeting(8).key_changes.len(), 1);
        assert!(keys.greeting(4).key_changes.is_empty());
    }

    fn announcing(sequence: u64, next: &[u8; 32]) -> SignedBatch {
        let header = BatchHeader {
            sequence,
            next_key: next.to_vec(),
            ..BatchHeader::default()
        };
        SignedBatch {
            header: header.encode_to_vec().into(),
            signature: vec![1; 64].into(),
            payload: vec![2; 9].into(),
        }
    }
}
