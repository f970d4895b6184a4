//! The issuer's public keys: found by discovery (OpenID Connect Discovery 1.0, section 4) or in a file, and kept for an hour.
//!
//! Owns how often it is asked: when what is known is too old, and for a key that is not known, but never more often than every few seconds,
//! because whoever sends a token chooses the key that it names. Keys that could not be fetched again open nothing any more.

use std::{
    fs,
    path::PathBuf,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, header};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::Refusal;
use crate::{config::OidcConfig, http::origin::Origin};

/// The issuer's keys.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
    known: RwLock<Option<Known>>,
    /// When it was asked last; held while it is asked.
    asked: tokio::sync::Mutex<Option<Instant>>,
    /// Between two times that it is asked.
    pause: Duration,
}

#[derive(Debug)]
enum Source {
    Discovery { issuer: String, ca: Option<PathBuf> },
    File(PathBuf),
}

#[derive(Debug)]
struct Known {
    since: Instant,
    keys: Vec<Jwk>,
}

/// What is needed of the issuer's description.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// RFC 7517, section 5.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    pub(super) fn of(settings: &OidcConfig) -> anyhow::Result<Self> {
        let source = match &settings.jwks {
            Some(file) => Source::File(file.clone()),
            None => Source::Discovery {
                issuer: settings.issuer.clone(),
                ca: settings.ca.clone(),
            },
        };
        if let Source::File(file) = &source {
            // At the start it must be good; later it refuses, and says so.
            read(file)?;
        }
        Ok(Self {
            source,
            known: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
            pause: PAUSE,
        })
    }

    /// The key of this id that fits the algorithm.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Refusal> {
        if let Some(key) = self.known(id) {
            return fitting(&key, algorithm);
        }
        let mut asked = self.asked.lock().await;
        // Somebody else may have asked meanwhile.
        if self.known(id).is_none() && asked.is_none_or(|asked| asked.elapsed() >= self.pause) {
            *asked = Some(Instant::now());
            match self.fetch().await {
                Ok(keys) => {
                    let since = Instant::now();
                    *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Known { since, keys });
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the keys of access.oidc.issuer cannot be had: its users are not let in by keys that are not known"
                    );
                }
            }
        }
        match self.known(id) {
            Some(key) => fitting(&key, algorithm),
            None if self.is_known() => Err(Refusal::Wrong(
                "this token is signed by a key that its issuer does not show".to_owned(),
            )),
            None => Err(Refusal::Unavailable(
                "the issuer's keys cannot be had now, so no token of it can be checked: try again, the collector's log says why"
                    .to_owned(),
            )),
        }
    }

    /// By its id, or the only one if none is named.
    fn known(&self, id: Option<&str>) -> Option<Jwk> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let keys = &known.as_ref().filter(|known| known.since.elapsed() < KEPT)?.keys;
        match (id, keys.as_slice()) {
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
            (id, keys) => keys
                .iter()
                .find(|key| key.common.key_id.as_deref() == id)
                .cloned(),
        }
    }

    fn is_known(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| known.since.elapsed() < KEPT)
    }

    async fn fetch(&self) -> anyhow::Result<Vec<Jwk>> {
        match &self.source {
            Source::File(file) => read(file),
            Source::Discovery { issuer, ca } => {
                let place = format!(
                    "{}/.well-known/openid-configuration",
                    issuer.trim_end_matches('/')
                );
                let found: Discovered = serde_json::from_slice(&get(&place, ca.as_deref()).await?)
                    .with_context(|| format!("{place} is no description of an issuer"))?;
                // Section 4.3: it must be whom it was asked about.
                ensure!(
                    found.issuer == *issuer,
                    "{place} is of another issuer: {:?}",
                    found.issuer
                );
                ensure!(
                    may_be_asked(&found.jwks_uri),
                    "its keys are at {:?}: only https:// is sure to be the issuer",
                    found.jwks_uri
                );
                parse(&get(&found.jwks_uri, ca.as_deref()).await?)
            }
        }
    }
}

/// Whether what comes from there is the issuer's: TLS says so, or nobody is between.
pub(crate) fn may_be_asked(url: &str) -> bool {
    url.starts_with("https://")
        || url.strip_prefix("http://").is_some_and(|rest| {
            let base = rest.split_once('/').map_or(rest, |(base, _)| base);
            Origin::at(&format!("http://{base}"), None).is_ok_and(|origin| origin.is_loopback())
        })
}

fn fitting(key: &Jwk, algorithm: Algorithm) -> Result<DecodingKey, Refusal> {
    let fits = match &key.algorithm {
        AlgorithmParameters::RSA(_) => RSA.contains(&algorithm),
        AlgorithmParameters::EllipticCurve(of) => match of.curve {
            EllipticCurve::P256 => algorithm == Algorithm::ES256,
            EllipticCurve::P384 => algorithm == Algorithm::ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(of) => {
            of.curve == EllipticCurve::Ed25519 && algorithm == Algorithm::EdDSA
        }
        _ => false,
    };
    let common = &key.common;
    let said = common
        .key_algorithm
        .is_none_or(|of| of.to_string().parse() == Ok(algorithm));
    let signs = common
        .public_key_use
        .as_ref()
        .is_none_or(|of| *of == PublicKeyUse::Signature);
    let wrong = || Refusal::Wrong("this token is signed in a way that its key is not for".to_owned());
    match fits && said && signs {
        true => DecodingKey::from_jwk(key).map_err(|_| wrong()),
        false => Err(wrong()),
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<Jwk>> {
    let describe = || format!("access.oidc.jwks: {} cannot be used", file.display());
    parse(&fs::read(file).with_context(describe)?).with_context(describe)
}

/// What cannot be read of a set is passed over: issuers show keys for other purposes, too.
fn parse(text: &[u8]) -> anyhow::Result<Vec<Jwk>> {
    let set: Set = serde_json::from_slice(text).context("it is no set of keys (JWKS)")?;
    let keys = set.keys.into_iter().take(MAX_KEYS);
    let keys: Vec<Jwk> = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
    ensure!(!keys.is_empty(), "there is no key in it that can be used");
    Ok(keys)
}

async fn get(url: &str, ca: Option<&std::path::Path>) -> anyhow::Result<Bytes> {
    let asked = async {
        let (base, path) = url
            .match_indices('/')
            .nth(2)
            .map_or((url, "/"), |(at, _)| url.split_at(at));
        let origin = Origin::at(base, ca)?;
        let request = Request::get(path)
            .header(header::HOST, origin.authority())
            .header(header::ACCEPT, "application/json")
            .body(Full::default())?;
        let answer = origin.send(request).await?;
        ensure!(
            answer.status() == hyper::StatusCode::OK,
            "it answers {}, and nothing else is followed",
            answer.status()
        );
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?;
        Ok(body.to_bytes())
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer
        .with_context(|| format!("no answer within {} seconds", PATIENCE.as_secs()))
        .flatten()
        .with_context(|| format!("cannot get {url}"))
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// How long keys are good that were fetched: one that the issuer takes back opens nothing after that.
const KEPT: Duration = Duration::from_secs(3600);

/// Between two times that the issuer is asked.
const PAUSE: Duration = Duration::from_secs(10);

/// How long one of its answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Far more than a description or a set of keys takes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Keys of a set that are looked at.
const MAX_KEYS: usize = 256;

#[cfg(test)]
impl Keys {
    /// The same, asked more often.
    pub(super) fn every(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}
