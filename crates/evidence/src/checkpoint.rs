//! Checkpoints: origin, size and root of the log (<https://c2sp.org/tlog-checkpoint>) in a signed note
//! (<https://c2sp.org/signed-note>).
//!
//! Owns text and signature. The note itself is the crate `signed_note`; this adds that exactly one signature, the
//! collector's, is there and that the bytes are the only ones that say what they say.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use signed_note::{Note, Signer, StandardVerifier, VerifierList};
use thiserror::Error;

use crate::batch::Hash;

/// What every origin begins with; the collector's name follows.
pub const ORIGIN_PREFIX: &str = "pgwitness/";

/// The state of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: `pgwitness/<name>`, also the name of the key that signs.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// Why a checkpoint is not one, or not this log's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// The origin's public key does not parse.
    #[error("the verifier key is malformed: {0}")]
    Key(String),
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Note(String),
    /// The signature is not there, is not alone, or does not hold.
    #[error("the signature does not hold: {0}")]
    Signature(String),
    /// The signed text is no checkpoint.
    #[error("the text is not a checkpoint")]
    Text,
    /// A checkpoint of another log.
    #[error("the checkpoint is of {found}, expected {expected}")]
    Origin {
        /// The log that was asked for.
        expected: String,
        /// The text's first line.
        found: String,
    },
    /// The same said in other bytes than the ones that are written.
    #[error("not in canonical encoding")]
    Canonical,
}

/// The public key of an origin as signed notes write it: `<origin>+<key id>+<key>`.
#[must_use]
pub fn verifier_key(origin: &str, key: &VerifyingKey) -> String {
    signed_note::new_ed25519_verifier_key(origin, key)
}

impl Checkpoint {
    /// The three lines that are signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            BASE64_STANDARD.encode(self.root)
        )
    }

    /// The signed note.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, CheckpointError> {
        let mut note = Note::new(self.text().as_bytes(), &[])
            .map_err(|error| CheckpointError::Note(error.to_string()))?;
        let id = key_id(&self.origin, &key.verifying_key());
        note.add_sigs(&[&OriginKey {
            origin: &self.origin,
            id,
            key,
        }])
        .map_err(|error| CheckpointError::Signature(error.to_string()))?;
        Ok(note.to_bytes())
    }

    /// Reads a signed note and checks it under the origin's public key.
    pub fn open(note: &[u8], verifier_key: &str) -> Result<Self, CheckpointError> {
        let verifier =
            StandardVerifier::new(verifier_key).map_err(|error| CheckpointError::Key(error.to_string()))?;
        let expected = signed_note::Verifier::name(&verifier).to_owned();
        let parsed = Note::from_bytes(note).map_err(|error| CheckpointError::Note(error.to_string()))?;
        let (held, unknown) = parsed
            .verify(&VerifierList::new(vec![Box::new(verifier)]))
            .map_err(|error| CheckpointError::Signature(error.to_string()))?;
        if held.len() != 1 || !unknown.is_empty() {
            return Err(CheckpointError::Signature(
                "a signature of an unknown key is beside it".to_owned(),
            ));
        }
        let checkpoint = Self::parse(parsed.text()).ok_or(CheckpointError::Text)?;
        if checkpoint.origin != expected {
            return Err(CheckpointError::Origin {
                expected,
                found: checkpoint.origin,
            });
        }
        let signature: Vec<u8> = held.iter().flat_map(signed_note::Signature::to_bytes).collect();
        if note != [checkpoint.text().as_bytes(), b"\n", &signature].concat() {
            return Err(CheckpointError::Canonical);
        }
        Ok(checkpoint)
    }

    /// The root as checkpoints write it.
    #[must_use]
    pub fn root_base64(&self) -> String {
        BASE64_STANDARD.encode(self.root)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
        Some(Self {
            origin: origin.to_owned(),
            size: size.parse().ok()?,
            root,
        })
    }
}

/// Type byte of Ed25519 in a note's key.
const ED25519: u8 = 1;

fn key_id(origin: &str, key: &VerifyingKey) -> u32 {
    signed_note::key_id(origin, &[&[ED25519], key.as_bytes().as_slice()].concat())
}

struct OriginKey<'a> {
    origin: &'a str,
    id: u32,
    key: &'a SigningKey,
}

impl Signer for OriginKey<'_> {
    fn name(&self) -> &str {
        self.origin
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Checkpoint, SigningKey, String) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let verifier = verifier_key("pgwitness/test", &key.verifying_key());
        (
            Checkpoint {
                origin: "pgwitness/test".to_owned(),
                size: 923_748,
                root: [0x5a; 32],
            },
            key,
            verifier,
        )
    }

    #[test]
    fn what_is_signed_opens() {
        let (checkpoint, key, verifier) = sample();
        let note = checkpoint.sign(&key).unwrap();
        assert_eq!(Checkpoint::open(&note, &verifier), Ok(checkpoint));
    }

    #[test]
    fn any_other_byte_does_not_open() {
        let (checkpoint, key, verifier) = sample();
        let note = checkpoint.sign(&key).unwrap();
        for at in 0..note.len() {
            for value in 0..=255 {
                let mut other = note.clone();
                other[at] = value;
                assert!(
                    value == note[at] || Checkpoint::open(&other, &verifier).is_err(),
                    "byte {at} as {value}"
                );
            }
            assert!(Checkpoint::open(&note[..at], &verifier).is_err(), "cut at {at}");
        }
        let doubled = [
            note.as_slice(),
            note.split(|b| *b == b'\n').nth(4).unwrap(),
            b"\n",
        ]
        .concat();
        assert!(
            Checkpoint::open(&doubled, &verifier).is_err(),
            "a signature twice"
        );
    }

    #[test]
    fn another_log_s_checkpoint_does_not_open() {
        let (mut checkpoint, key, verifier) = sample();
        checkpoint.origin = "pgwitness/other".to_owned();
        assert!(Checkpoint::open(&checkpoint.sign(&key).unwrap(), &verifier).is_err());
    }
}
