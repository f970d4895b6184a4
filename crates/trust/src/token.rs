//! The operator's token: `pgw1:AGENT:PIN:SECRET`. The pin is the digest of the authority's certificate, so that the agent is
//! sure of the collector before it says the secret; the secret is what the collector knows the digest of.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use rand::RngCore as _;

use crate::{Digest, digest};

/// What leads an agent to its first certificate, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Whom it is for.
    pub agent_id: String,
    /// SHA-256 of the authority's certificate.
    pub pin: Digest,
    /// 256 random bits, which nobody can guess: a plain digest is enough to keep it by.
    pub secret: [u8; 32],
}

/// Why a text is no token. Never says the token.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is no enrolment token: it is one line, pgw1:…, as `pgwitness-collector agent add` prints it")]
pub struct TokenError;

const FORM: &str = "pgw1";

impl Token {
    /// A new one for an agent.
    #[must_use]
    pub fn new(agent_id: &str, pin: Digest) -> Self {
        let mut secret = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut secret);
        Self {
            agent_id: agent_id.to_owned(),
            pin,
            secret,
        }
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        digest(&self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pin, secret) = (BASE64.encode(self.pin), BASE64.encode(self.secret));
        write!(f, "{FORM}:{}:{pin}:{secret}", self.agent_id)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, …)", self.agent_id)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split(':').collect();
        let [FORM, agent_id, pin, secret] = parts.as_slice() else {
            return Err(TokenError);
        };
        let bytes = |text: &str| {
            let bytes = BASE64.decode(text).map_err(|_| TokenError)?;
            Digest::try_from(bytes.as_slice()).map_err(|_| TokenError)
        };
        Ok(Self {
            agent_id: (*agent_id).to_owned(),
            pin: bytes(pin)?,
            secret: bytes(secret)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written_and_never_printed_by_accident() {
        let token = Token::new("db1", [7; 32]);
        assert_eq!(token.to_string().parse::<Token>(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&BASE64.encode(token.secret)));
        assert_ne!(token.secret, Token::new("db1", [7; 32]).secret);
        let whole = token.to_string();
        for cut in 0..whole.len() {
            assert_eq!(whole[..cut].parse::<Token>(), Err(TokenError), "{cut}");
        }
        for wrong in ["", "pgw2:a:b:c", "pgw1:db1:AAAA:AAAA", &format!("{whole}:")] {
            assert_eq!(wrong.parse::<Token>(), Err(TokenError));
        }
    }
}
