//! A user's token: `pgwu1_` and 256 random bits in base64url, so that scanners for secrets know it where it should not be.

use std::fmt;

use ::trust::{Digest, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use rand::RngCore as _;

/// What every one begins with.
const FORM: &str = "pgwu1_";

/// What opens a role.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UserToken([u8; 32]);

impl UserToken {
    /// A new one.
    pub(super) fn new() -> Self {
        let mut secret = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut secret);
        Self(secret)
    }

    /// From its text; `None` if it is of another form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let secret = BASE64.decode(text.strip_prefix(FORM)?).ok()?;
        secret.try_into().ok().map(Self)
    }

    /// What is kept of it. It is random and long enough that nobody can try them all, so that a plain SHA-256 is as good as a slow hash.
    pub(super) fn digest(&self) -> Digest {
        digest(&self.0)
    }
}

impl fmt::Display for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserToken(…)")
    }
}
