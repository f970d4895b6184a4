//! Checkpoints: origin, size and root of the log (<https://c2sp.org/tlog-checkpoint>) in a signed note
//! (<https://c2sp.org/signed-note>).
//!
//! Owns text and signature. The note itself is the crate `signed_note`; this adds, for what the collector writes, that
//! no signature is there but its own and those of known witnesses, and that the bytes are the only ones that say what they
//! say. What comes from elsewhere may carry signatures of anybody (`open_kept`), as the specification wants it.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use signed_note::{Note, Signer, StandardVerifier, Verifier, VerifierList};
use thiserror::Error;

use crate::{
    batch::Hash,
    cosignature::{Cosigned, WitnessKey},
};

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

    /// Reads a signed note and checks it under the origin's public key; no other signature may be there.
    pub fn open(note: &[u8], verifier_key: &str) -> Result<Self, CheckpointError> {
        Self::open_cosigned(note, verifier_key, &[]).map(|(checkpoint, _)| checkpoint)
    }

    /// The same of a note that these witnesses may have cosigned: the log's signature comes first, each is there once, and
    /// no other is.
    pub fn open_cosigned(
        note: &[u8],
        verifier_key: &str,
        witnesses: &[WitnessKey],
    ) -> Result<(Self, Vec<Cosigned>), CheckpointError> {
        let opened = Opened::read(note, verifier_key, witnesses)?;
        if opened.unknown > 0 {
            return Err(CheckpointError::Signature(
                "a signature of an unknown key is beside it".to_owned(),
            ));
        }
        if note != [opened.checkpoint.text().as_bytes(), b"\n", &opened.signatures].concat() {
            return Err(CheckpointError::Canonical);
        }
        Ok((opened.checkpoint, opened.cosigned))
    }

    /// Reads a checkpoint that was kept elsewhere, in whatever form: the log's signature must hold, and those of the
    /// witnesses that are named; all others are ignored.
    pub fn open_kept(
        note: &[u8],
        verifier_key: &str,
        witnesses: &[WitnessKey],
    ) -> Result<(Self, Vec<Cosigned>), CheckpointError> {
        let opened = Opened::read(note, verifier_key, witnesses)?;
        Ok((opened.checkpoint, opened.cosigned))
    }

    /// The root as checkpoints write it.
    #[must_use]
    pub fn root_base64(&self) -> String {
        BASE64_STANDARD.encode(self.root)
    }

    /// Reads the text of a checkpoint. Lines behind the third are not looked at: they say nothing of the tree.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.split('\n');
        let (origin, digits, root) = (lines.next()?, lines.next()?, lines.next()?);
        let size: u64 = digits.parse().ok()?;
        if origin.is_empty() || size.to_string() != digits {
            return None;
        }
        Some(Self {
            origin: origin.to_owned(),
            size,
            root: BASE64_STANDARD.decode(root).ok()?.try_into().ok()?,
        })
    }
}

/// A note whose known signatures hold.
struct Opened {
    checkpoint: Checkpoint,
    cosigned: Vec<Cosigned>,
    /// The known ones as a note writes them, the log's first.
    signatures: Vec<u8>,
    unknown: usize,
}

impl Opened {
    fn read(note: &[u8], verifier_key: &str, witnesses: &[WitnessKey]) -> Result<Self, CheckpointError> {
        let verifier =
            StandardVerifier::new(verifier_key).map_err(|error| CheckpointError::Key(error.to_string()))?;
        let (expected, id) = (verifier.name().to_owned(), verifier.key_id());
        let parsed = Note::from_bytes(note).map_err(|error| CheckpointError::Note(error.to_string()))?;
        let mut known: Vec<Box<dyn Verifier>> = vec![Box::new(verifier)];
        known.extend(witnesses.iter().map(|witness| Box::new(witness.clone()) as _));
        let (held, unknown) = parsed
            .verify(&VerifierList::new(known))
            .map_err(|error| CheckpointError::Signature(error.to_string()))?;
        let (own, others): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|signature| signature.name() == expected && signature.id() == id);
        if own.len() != 1 {
            return Err(CheckpointError::Signature(
                "the log's own is not there".to_owned(),
            ));
        }
        let checkpoint = Checkpoint::parse(parsed.text()).ok_or(CheckpointError::Text)?;
        if checkpoint.origin != expected {
            return Err(CheckpointError::Origin {
                expected,
                found: checkpoint.origin,
            });
        }
        let cosigned = others.iter().filter_map(|signature| {
            let witness = witnesses
                .iter()
                .find(|witness| witness.name() == signature.name())?;
            let unix_s = witness.time_of(parsed.text(), signature.signature())?;
            Some(Cosigned {
                witness: witness.name().to_owned(),
                unix_s,
            })
        });
        Ok(Self {
            cosigned: cosigned.collect(),
            checkpoint,
            signatures: own
                .iter()
                .chain(&others)
                .flat_map(signed_note::Signature::to_bytes)
                .collect(),
            unknown: unknown.len(),
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
    fn cosignatures_hold_or_the_note_does_not() {
        let (checkpoint, key, verifier) = sample();
        let witness_key = SigningKey::from_bytes(&[8; 32]);
        let witness = WitnessKey::new("witness.example/w1", witness_key.verifying_key()).unwrap();
        let line = crate::cosign(witness.name(), &witness_key, &checkpoint.text(), 1_700_000_000).unwrap();
        let own = checkpoint.sign(&key).unwrap();
        let note = [own.as_slice(), &line].concat();
        let known = std::slice::from_ref(&witness);
        let (opened, cosigned) = Checkpoint::open_cosigned(&note, &verifier, known).unwrap();
        assert_eq!(opened, checkpoint);
        assert_eq!(
            cosigned,
            [Cosigned {
                witness: "witness.example/w1".to_owned(),
                unix_s: 1_700_000_000
            }]
        );
        assert!(Checkpoint::open(&note, &verifier).is_err(), "an unknown witness");
        assert_eq!(
            Checkpoint::open_kept(&note, &verifier, &[]).unwrap(),
            (checkpoint.clone(), Vec::new()),
            "from elsewhere, signatures of unknown keys are ignored"
        );
        for at in 0..note.len() {
            let mut other = note.clone();
            other[at] ^= 1 << (at % 8);
            assert!(
                Checkpoint::open_cosigned(&other, &verifier, known).is_err(),
                "byte {at}"
            );
        }
        let twice = [note.as_slice(), &line].concat();
        assert!(Checkpoint::open_cosigned(&twice, &verifier, known).is_err());
        let (text, signatures) = note.split_at(checkpoint.text().len() + 1);
        let own_line = &signatures[..signatures.len() - line.len()];
        let swapped = [text, &line, own_line].concat();
        assert!(Checkpoint::open_cosigned(&swapped, &verifier, known).is_err());
        let alone = [text, &line].concat();
        assert!(
            Checkpoint::open_kept(&alone, &verifier, known).is_err(),
            "no word of the log"
        );
    }

    #[test]
    fn another_log_s_checkpoint_does_not_open() {
        let (mut checkpoint, key, verifier) = sample();
        checkpoint.origin = "pgwitness/other".to_owned();
        assert!(Checkpoint::open(&checkpoint.sign(&key).unwrap(), &verifier).is_err());
    }
}
