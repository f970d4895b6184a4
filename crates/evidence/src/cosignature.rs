//! Cosignatures of witnesses on a checkpoint: `cosignature/v1`, timestamped Ed25519
//! (<https://c2sp.org/tlog-cosignature>).
//!
//! Owns the witness's key, what it signs, and its line in a note. Whether a witness may sign is the witness's to decide
//! (`path::is_consistent`); what a checkpoint says is `checkpoint`'s.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::checkpoint::CheckpointError;

/// Type byte of timestamped Ed25519 cosignatures (<https://c2sp.org/signed-note>, signature types).
const TIMESTAMPED_ED25519: u8 = 4;

/// Bytes of a `timestamped_signature`: the time and the signature.
const SIGNATURE_BYTES: usize = 8 + 64;

/// The public key of a witness, under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: u32,
    key: VerifyingKey,
}

/// A witness's statement that it saw the log go on consistently up to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The witness's name.
    pub witness: String,
    /// When it said so, seconds since the Unix epoch, by its own clock.
    pub unix_s: u64,
}

impl WitnessKey {
    /// A witness's key under its name, which must not be empty nor hold spaces or a plus.
    pub fn new(name: &str, key: VerifyingKey) -> Result<Self, CheckpointError> {
        if !signed_note::is_key_name_valid(name) {
            return Err(CheckpointError::Key(format!("{name:?} cannot name a witness")));
        }
        let id = signed_note::key_id(
            name,
            &[&[TIMESTAMPED_ED25519], key.as_bytes().as_slice()].concat(),
        );
        let name = name.to_owned();
        Ok(Self { name, id, key })
    }

    /// Reads `<name>+<key id>+<key>` with signature type 4.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = || {
            let expected = "expected <name>+<key id>+<base64 of type 4 and an Ed25519 key>";
            CheckpointError::Key(format!("{text:?}: {expected}"))
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| malformed())?;
        let Some((&TIMESTAMPED_ED25519, key)) = bytes.split_first() else {
            return Err(malformed());
        };
        let key = VerifyingKey::try_from(key).map_err(|_| malformed())?;
        let witness = Self::new(name, key)?;
        if key.is_weak() || witness.text() != text {
            return Err(malformed());
        }
        Ok(witness)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `<name>+<key id>+<key>`.
    #[must_use]
    pub fn text(&self) -> String {
        let key = [&[TIMESTAMPED_ED25519], self.key.as_bytes().as_slice()].concat();
        format!("{}+{:08x}+{}", self.name, self.id, BASE64_STANDARD.encode(key))
    }

    /// When the witness signed this note text; `None` if the signature is not its own.
    #[must_use]
    pub(crate) fn time_of(&self, text: &[u8], signature: &[u8]) -> Option<u64> {
        let (time, signature) = signature.split_first_chunk::<8>()?;
        let unix_s = u64::from_be_bytes(*time);
        // The specification's bound.
        i64::try_from(unix_s).ok()?;
        let signature = Signature::from_slice(signature).ok()?;
        let said = self.key.verify_strict(&message(text, unix_s), &signature);
        said.is_ok().then_some(unix_s)
    }
}

/// For notes: a signature is taken if it is the witness's.
impl signed_note::Verifier for WitnessKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        self.time_of(text, signature).is_some()
    }
}

/// A witness's line in the note whose text this is: what a witness answers with.
pub fn cosign(name: &str, key: &SigningKey, text: &str, unix_s: u64) -> Result<Vec<u8>, CheckpointError> {
    let witness = WitnessKey::new(name, key.verifying_key())?;
    let mut signature = Vec::with_capacity(SIGNATURE_BYTES);
    signature.extend(unix_s.to_be_bytes());
    signature.extend(key.sign(&message(text.as_bytes(), unix_s)).to_bytes());
    let line = signed_note::Signature::new(witness.name, witness.id, signature);
    let line = line.map_err(|error| CheckpointError::Note(error.to_string()))?;
    Ok(line.to_bytes())
}

fn message(text: &[u8], unix_s: u64) -> Vec<u8> {
    [format!("cosignature/v1\ntime {unix_s}\n").as_bytes(), text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
        let witness = WitnessKey::new("witness.example.com/w1", key).unwrap();
        assert_eq!(WitnessKey::parse(&witness.text()), Ok(witness.clone()));
        let log = crate::verifier_key("witness.example.com/w1", &key);
        assert!(WitnessKey::parse(&log).is_err(), "a log's key is no witness's");
        let text = witness.text();
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert!(WitnessKey::parse(&other).is_err(), "{other}");
        }
        for wrong in ["", "a+b", "w+00000000+", "w 1+00000000+BAAA"] {
            assert!(WitnessKey::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cosignature_is_of_one_text_one_time_and_one_key() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let witness = WitnessKey::new("w", key.verifying_key()).unwrap();
        let line = cosign("w", &key, "pgwitness/test\n1\nAAAA\n", 1_679_315_147).unwrap();
        let parsed = signed_note::Signature::from_bytes(line.strip_suffix(b"\n").unwrap()).unwrap();
        let text = b"pgwitness/test\n1\nAAAA\n".as_slice();
        assert_eq!(witness.time_of(text, parsed.signature()), Some(1_679_315_147));
        assert_eq!(
            witness.time_of(b"pgwitness/test\n2\nAAAA\n", parsed.signature()),
            None
        );
        for at in 0..SIGNATURE_BYTES {
            let mut other = parsed.signature().to_vec();
            other[at] ^= 1;
            assert_eq!(witness.time_of(text, &other), None, "byte {at}");
            assert_eq!(witness.time_of(text, &parsed.signature()[..at]), None);
        }
        let other = WitnessKey::new("w", SigningKey::from_bytes(&[4; 32]).verifying_key()).unwrap();
        assert_eq!(other.time_of(text, parsed.signature()), None);
    }
}
