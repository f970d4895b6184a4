//! The agent's batch key, and the one that follows it.
//!
//! A change begins on the collector's wish: a new key is made and kept beside the old one, and the next batch, which the old one
//! signs, announces it. Only when that batch is acknowledged the new key takes the old one's place on disk, so that whatever
//! comes in between, one of both is what the collector expects, and says so when the agent connects again.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use tracing::info;

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
        Ok(Self {
            path: Some(path),
            current,
            next,
            announced: None,
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
    pub fn may_have_signed(&self, batch: &proto::v1::SignedBatch, next_key: &[u8]) -> bool {
        let signed = |key: &SigningKey| {
            evidence::check_signature(&batch.header, &batch.signature, &key.verifying_key())
        };
        signed(&self.current)
            || self.next.as_ref().is_some_and(signed)
            || next_key == self.current.verifying_key().as_bytes()
    }

    /// Public keys for a greeting: the newest that there is, and the one before it, empty if it is the only one.
    pub fn greeting(&self) -> (Vec<u8>, Vec<u8>) {
        let public = |key: &SigningKey| key.verifying_key().as_bytes().to_vec();
        match &self.next {
            Some(next) => (public(next), public(&self.current)),
            None => (public(&self.current), Vec::new()),
        }
    }

    /// What the next batch is to announce.
    pub fn announcement(&self) -> Option<[u8; 32]> {
        let next = self.next.as_ref().filter(|_| self.announced.is_none());
        next.map(|next| next.verifying_key().to_bytes())
    }

    /// That batch was sealed.
    pub fn was_announced(&mut self, sequence: u64) {
        self.announced = Some(sequence);
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
        match self.announced {
            Some(announced) if announced <= sequence => self.promote(),
            _ => Ok(()),
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

fn beside(path: &std::path::Path) -> PathBuf {
    path.with_extension("key.next")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(path: &std::path::Path) -> SigningKey {
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

        let mut keys = open();
        assert_eq!(keys.greeting(), (public(&old), Vec::new()));
        assert!(!keys.replace(&[1; 32]).expect("nothing"), "another key is meant");
        assert!(keys.replace(&public(&old)).expect("made"));
        assert!(!keys.replace(&public(&old)).expect("nothing"), "asked twice");
        let next = keys.announcement().expect("to be said");
        assert_eq!(keys.signer().to_bytes(), old.to_bytes(), "the old one announces");

        // Ended before it was announced: the collector knows the old one, and it is announced again.
        let mut keys = open();
        assert_eq!(keys.greeting(), (next.to_vec(), public(&old)));
        keys.settle(&public(&old)).expect("nothing");
        assert_eq!(keys.announcement(), Some(next));
        keys.was_announced(5);
        assert_eq!(keys.signer().verifying_key().to_bytes(), next);
        assert_eq!(keys.announcement(), None, "said once");

        // Ended before it was acknowledged, and the collector has the batch.
        let mut lost = open();
        lost.settle(&next).expect("promoted");
        assert_eq!(lost.greeting(), (next.to_vec(), Vec::new()));
        assert_eq!(public(&stored(&path)), next);
        assert_eq!(open().greeting(), (next.to_vec(), Vec::new()));

        // And the way it goes without an end.
        put(&beside(&path), &hex::encode([9; 32])).expect("written");
        let mut keys = open();
        let next = keys.announcement().expect("to be said");
        keys.was_announced(9);
        keys.acknowledged(8).expect("nothing");
        assert_ne!(public(&stored(&path)), next);
        keys.acknowledged(9).expect("promoted");
        assert_eq!(public(&stored(&path)), next);
        assert!(!beside(&path).exists());
        assert_eq!(keys.signer().verifying_key().to_bytes(), next);
    }
}
