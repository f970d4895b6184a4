//! Users of an OpenID Connect issuer: its signed tokens (RFC 7519), by the keys that it publishes.
//!
//! Owns which claims count, and how strictly. Only signatures of asymmetric keys are looked at, and only by a key whose kind, curve and
//! purpose fit: what a token says of itself chooses among the issuer's keys and no further. Refuses what cannot be checked.

mod keys;
mod signatures;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{By, Pass, Refusal, Role};
use crate::config::OidcConfig;
use keys::Keys;
pub(crate) use keys::may_be_asked;

/// Who is believed, and what their claims mean.
#[derive(Debug)]
pub(super) struct Issuer {
    settings: OidcConfig,
    keys: Keys,
}

impl Issuer {
    pub(super) fn new(settings: OidcConfig) -> anyhow::Result<Self> {
        signatures::install();
        Ok(Self {
            keys: Keys::of(&settings)?,
            settings,
        })
    }

    /// Whose token this is.
    pub(super) async fn check(&self, token: &str) -> Result<Pass, Refusal> {
        let wrong = |text: &str| Refusal::Wrong(text.to_owned());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(wrong("this token is too long"));
        }
        let header = decode_header(token).map_err(|_| wrong("this token is not known here"))?;
        // RFC 7515, section 4.1.11: what must be understood, and is not, makes it invalid.
        if !ALGORITHMS.contains(&header.alg) || header.crit.is_some() {
            return Err(wrong("this token is signed in a way that is not taken here"));
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.settings.audience]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims = decode::<Map<String, Value>>(token, &key, &validation);
        let claims = claims.map_err(|error| wrong(why(error.kind())))?.claims;
        // One issuer, not a list of them that has it among others.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.settings.issuer) {
            return Err(wrong("this token is of another issuer"));
        }
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let user = claim(&claims, &self.settings.user_claim).and_then(Value::as_str);
        let user = user.filter(|user| {
            !user.is_empty() && user.len() <= MAX_USER_BYTES && !user.chars().any(char::is_control)
        });
        let user = user.ok_or_else(|| {
            let name = &self.settings.user_claim;
            Refusal::Wrong(format!(
                "this token does not say who it is of: it has no claim {name:?}"
            ))
        })?;
        Ok(Pass {
            who: format!("oidc:{user}@{}", self.settings.issuer),
            role: self.role(&claims),
            by: By::Issuer((expires as u64).saturating_add(LEEWAY_S)),
        })
    }

    /// The highest of those that the token's values stand for.
    fn role(&self, claims: &Map<String, Value>) -> Option<Role> {
        let said = claim(claims, &self.settings.role_claim)?;
        let one = std::slice::from_ref(said);
        let all = said.as_array().map_or(one, Vec::as_slice).iter();
        all.filter_map(|value| self.settings.roles.get(value.as_str()?))
            .max()
            .copied()
    }
}

/// A claim by its name; one within another with dots between them, as in `realm_access.roles`.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(whole) = claims.get(name) {
        return Some(whole);
    }
    let (first, rest) = name.split_once('.')?;
    claim(claims.get(first)?.as_object()?, rest)
}

fn why(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "this token has expired",
        ErrorKind::ImmatureSignature => "this token is not good yet",
        ErrorKind::InvalidAudience => "this token is for another audience",
        ErrorKind::InvalidIssuer => "this token is of another issuer",
        ErrorKind::MissingRequiredClaim(_) => "this token lacks one of exp, iss and aud",
        _ => "this token does not hold",
    }
}

/// Those of asymmetric keys. `none` is no algorithm to the library, and HMAC would make of a public key a secret.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Clocks differ: seconds.
const LEEWAY_S: u64 = 60;

/// Longest token that is looked at: issuers with hundreds of groups stay below.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Longest name of a user. OpenID Connect allows 255 characters in `sub`.
const MAX_USER_BYTES: usize = 256;

#[cfg(test)]
impl Issuer {
    /// The same, which asks for keys more often, or more rarely.
    pub(super) fn asking_every(self, pause: std::time::Duration) -> Self {
        Self {
            keys: self.keys.every(pause),
            ..self
        }
    }
}
