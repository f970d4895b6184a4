//! The little that the collector says to the API server by itself: one request over a connection of its own, under its own account.
//!
//! Its token is read anew for each request, because kubelet replaces it; so are the authorities. Refuses answers beyond a bound.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header, header::HeaderValue};
use serde_json::Value;
use tokio::time::timeout;

use crate::{config::ServiceAccountConfig, http::origin::Origin};

/// How long an answer may take: an agent waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod with everything that is said of it stays below (etcd takes 1.5 MiB for an object).
const MAX_ANSWER_BYTES: usize = 2 << 20;

/// Where the API server is, and by what the collector is known there.
#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    url: String,
    credentials: PathBuf,
}

impl ApiServer {
    /// As configured, or as Kubernetes tells the programs of its pods.
    ///
    /// # Errors
    ///
    /// If this is not in a pod, and nothing is configured.
    pub(super) fn of(config: &ServiceAccountConfig) -> anyhow::Result<Self> {
        let url = match &config.api {
            Some(url) => url.clone(),
            None => in_cluster().context(
                "trust.service_account: this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set): set trust.service_account.api",
            )?,
        };
        let server = Self {
            url,
            credentials: config.credentials.clone(),
        };
        // What is wrong with it is said at the start.
        server.origin()?;
        Ok(server)
    }

    fn origin(&self) -> anyhow::Result<Origin> {
        let origin = Origin::at(&self.url, Some(&self.credentials.join("ca.crt")))?;
        ensure!(
            origin.is_private(),
            "a token is not sent to {}, where it could be read on the way: use https://",
            self.url
        );
        Ok(origin)
    }

    /// Sends a request, and gives status and body of the answer.
    ///
    /// # Errors
    ///
    /// If there is no answer, or none of JSON.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let asked = timeout(PATIENCE, self.send(method, path, content_type, body)).await;
        asked
            .unwrap_or_else(|_| {
                Err(anyhow::anyhow!(
                    "it gave no answer within {} seconds",
                    PATIENCE.as_secs()
                ))
            })
            .with_context(|| format!("the API server at {} cannot be asked", self.url))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let origin = self.origin()?;
        let file = self.credentials.join("token");
        let token = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
        bearer.set_sensitive(true);
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, origin.authority())
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from(body)))?;
        let answer = origin.send(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?;
        let said = serde_json::from_slice(&body.to_bytes())
            .with_context(|| format!("it answers {status}, and no JSON"))?;
        Ok((status, said))
    }
}

/// By the variables that every container has.
fn in_cluster() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    Some(match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    })
}
