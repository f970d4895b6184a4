//! Proof that whoever enrols has the batch key that it says, made for this token and this TLS key alone.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::digest;

/// What the signature covers first, so that it can never be taken for one over a batch.
const CONTEXT: &[u8] = b"pgwitness enrolment v1\n";

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// No key of that kind, or one for which anybody could sign.
    #[error("public_key is not a usable Ed25519 public key")]
    Key,
    /// The signature is of something else.
    #[error("the signature is not the batch key's over this request")]
    Signature,
}

/// The signature for an enrolment.
#[must_use]
pub fn proof(key: &SigningKey, agent_id: &str, secret: &[u8], csr: &[u8]) -> [u8; 64] {
    key.sign(&covered(agent_id, secret, csr)).to_bytes()
}

/// Checks it; the batch key.
///
/// # Errors
///
/// If the key is none, or the signature is not its own over just this.
pub fn check_proof(
    public_key: &[u8],
    signature: &[u8],
    agent_id: &str,
    secret: &[u8],
    csr: &[u8],
) -> Result<VerifyingKey, ProofError> {
    let key = VerifyingKey::try_from(public_key).map_err(|_| ProofError::Key)?;
    if key.is_weak() {
        return Err(ProofError::Key);
    }
    let signature = Signature::from_slice(signature).map_err(|_| ProofError::Signature)?;
    key.verify_strict(&covered(agent_id, secret, csr), &signature)
        .map_err(|_| ProofError::Signature)?;
    Ok(key)
}

fn covered(agent_id: &str, secret: &[u8], csr: &[u8]) -> Vec<u8> {
    let (secret, csr) = (digest(secret), digest(csr));
    [CONTEXT, agent_id.as_bytes(), b"\n", &secret, &csr].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_request() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = key.verifying_key();
        let signature = proof(&key, "db1", b"secret", b"csr");
        let check =
            |id: &str, secret: &[u8], csr: &[u8]| check_proof(public.as_bytes(), &signature, id, secret, csr);
        assert_eq!(check("db1", b"secret", b"csr"), Ok(public));
        assert_eq!(check("db2", b"secret", b"csr"), Err(ProofError::Signature));
        assert_eq!(check("db1", b"other", b"csr"), Err(ProofError::Signature));
        assert_eq!(check("db1", b"secret", b"other"), Err(ProofError::Signature));
        assert_eq!(
            check_proof(&[0; 32], &signature, "db1", b"secret", b"csr"),
            Err(ProofError::Key)
        );
        assert_eq!(
            check_proof(b"short", &signature, "db1", b"secret", b"csr"),
            Err(ProofError::Key)
        );
    }
}
