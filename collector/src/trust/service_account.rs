//! Agents that enrol themselves by the account that their pods have in Kubernetes.
//!
//! Owns the one question that decides: whether the API server vouches for a token (`TokenReview`), and whose it is. Nothing in a token is
//! believed otherwise; it is not even read here. And it tells agents whom to believe: the authorities' certificates, in a `ConfigMap`.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::{Registry, api_server::ApiServer, authorities::Own};
use crate::config::{ServiceAccountConfig, is_name};

/// Tokens that are asked about at a time: nobody who reaches the port can make the API server work for more.
const REVIEWS: usize = 8;

/// Longest token that is asked about; those of Kubernetes take some 1,500 bytes.
const TOKEN_BYTES: usize = 16 << 10;

/// How long it is waited behind a failure to write the authorities.
const PAUSE: Duration = Duration::from_secs(10);

/// The pod that a token was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentPod {
    pub(crate) uid: String,
    pub(crate) node: String,
}

/// What a token says of its pod, and the API server vouches for.
struct Claims {
    pod: String,
    uid: String,
}

/// Why a token opens nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unvouched {
    /// The API server does not vouch for it, or it is somebody else's.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error(transparent)]
    Unanswered(#[from] anyhow::Error),
}

/// Asks about tokens.
#[derive(Clone, Debug)]
pub(crate) struct Reviewer {
    server: ApiServer,
    config: ServiceAccountConfig,
    turns: Arc<Semaphore>,
}

impl Reviewer {
    /// For the account that is configured.
    ///
    /// # Errors
    ///
    /// If it is not known where to ask.
    pub(crate) fn new(config: &ServiceAccountConfig) -> anyhow::Result<Self> {
        Ok(Self {
            server: ApiServer::of(config)?,
            config: config.clone(),
            turns: Arc::new(Semaphore::new(REVIEWS)),
        })
    }

    /// The pod that a token is of, if the API server says now that it is one of the account's, and made for this collector.
    ///
    /// # Errors
    ///
    /// If it is not, or cannot be asked.
    pub(crate) async fn review(&self, token: &str) -> Result<AgentPod, Unvouched> {
        if token.len() > TOKEN_BYTES {
            return Err(refused("the token is longer than any of Kubernetes"));
        }
        let _turn = self.turns.acquire().await.context("the collector is stopping")?;
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.config.audience]},
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let (status, said) = self.server.ask(Method::POST, path, JSON, Some(&asked)).await?;
        if !status.is_success() {
            return Err(denied(status, &said, "create tokenreviews").into());
        }
        self.pod(self.vouched(&said)?).await
    }

    /// What a review says, if it says that the token is good.
    fn vouched(&self, said: &Value) -> Result<Claims, Unvouched> {
        let of = |path: &str| said.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if said.pointer("/status/authenticated") != Some(&Value::Bool(true)) {
            let why = of("/status/error");
            return Err(refused(&format!(
                "the API server does not vouch for this token: {why}"
            )));
        }
        // A server that knows nothing of audiences would vouch for tokens for anybody.
        let audiences = said.pointer("/status/audiences").and_then(Value::as_array);
        let is_ours = |audience: &Value| audience.as_str() == Some(self.config.audience.as_str());
        if !audiences.is_some_and(|audiences| audiences.iter().any(is_ours)) {
            return Err(refused("this token is not for this collector"));
        }
        let user = of("/status/user/username");
        let account = user
            .strip_prefix("system:serviceaccount:")
            .and_then(|user| user.split_once(':'));
        let expected = (self.config.namespace.as_str(), self.config.name.as_str());
        if account != Some(expected) {
            return Err(refused(&format!(
                "this token is of {user:?}: agents have the account {} of the namespace {}",
                expected.1, expected.0
            )));
        }
        // Of the values that go with a user, these are the token's own claims, which the API server signed.
        let extra = |key: &str| {
            let values = said
                .pointer("/status/user/extra")
                .and_then(|extra| extra.get(key));
            let value = values.and_then(|values| values.get(0)).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let claims = Claims {
            pod: extra("authentication.kubernetes.io/pod-name"),
            uid: extra("authentication.kubernetes.io/pod-uid"),
        };
        if claims.uid.is_empty() || !is_name(&claims.pod) {
            return Err(refused(
                "this token is of no pod: agents have one that kubelet made for theirs",
            ));
        }
        Ok(claims)
    }

    /// The pod itself says its node, which clusters before 1.30 do not say with the token; and that it is still there, which reviews say
    /// some seconds late.
    async fn pod(&self, claims: Claims) -> Result<AgentPod, Unvouched> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", self.config.namespace, claims.pod);
        let (status, said) = self.server.ask(Method::GET, &path, JSON, None).await?;
        if status == StatusCode::NOT_FOUND {
            return Err(refused("the pod of this token is gone"));
        }
        if !status.is_success() {
            return Err(denied(status, &said, "get pods").into());
        }
        let of = |path: &str| said.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if of("/metadata/uid") != claims.uid {
            return Err(refused("the pod of this token is gone, and another has its name"));
        }
        if of("/spec/serviceAccountName") != self.config.name {
            return Err(refused("the pod of this token has another account"));
        }
        match of("/spec/nodeName") {
            "" => Err(refused("the pod of this token is on no node yet")),
            node => Ok(AgentPod {
                uid: claims.uid,
                node: node.to_owned(),
            }),
        }
    }

    /// Writes the authorities' certificates for agents, now and whenever they change.
    pub(crate) async fn publish(self, registry: Registry, mut changes: watch::Receiver<u64>) {
        let Some(name) = self.config.publish.clone() else {
            return;
        };
        let mut written = None;
        let mut is_told = false;
        loop {
            match self.write(&registry, &name, &mut written).await {
                Ok(()) => {
                    is_told = false;
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "agents cannot be told by what they know this collector: new ones wait"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn write(
        &self,
        registry: &Registry,
        name: &str,
        written: &mut Option<String>,
    ) -> anyhow::Result<()> {
        let authorities = ::trust::to_pem(&Own::open(registry, "")?.certificates());
        if written.as_ref() == Some(&authorities) {
            return Ok(());
        }
        let path = format!("/api/v1/namespaces/{}/configmaps/{name}", self.config.namespace);
        let data = json!({"data": {(AUTHORITIES): authorities}});
        let (status, said) = self.server.ask(Method::PATCH, &path, MERGE, Some(&data)).await?;
        if !status.is_success() {
            return Err(denied(status, &said, &format!("patch the configmap {name}")));
        }
        tracing::info!(
            configmap = name,
            "agents can know this collector by its authorities"
        );
        *written = Some(authorities);
        Ok(())
    }
}

/// The name under which agents find the certificates.
const AUTHORITIES: &str = "authorities.pem";

const JSON: &str = "application/json";

/// RFC 7386: other keys of the object stay as they are.
const MERGE: &str = "application/merge-patch+json";

fn refused(why: &str) -> Unvouched {
    Unvouched::Refused(why.to_owned())
}

/// What the API server says of itself (`Status`), and what it did not let the collector do.
fn denied(status: StatusCode, said: &Value, what: &str) -> anyhow::Error {
    let message = said.get("message").and_then(Value::as_str).unwrap_or_default();
    anyhow::anyhow!("the API server answers {status} ({message}): may the collector's account {what}?")
}

#[cfg(test)]
mod tests;
