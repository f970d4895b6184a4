//! The command line's side of the API: one HTTP/1 request to a collector.
//!
//! Owns what goes with each request: whose it is, and what for. Refuses to say a token where it could be read on the way.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, header, header::HeaderValue};
use tokio::time::timeout;

use super::{
    PURPOSE,
    origin::{Failed, Origin},
};

/// Where a collector answers.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    origin: Origin,
    /// `Bearer TOKEN`
    authorization: Option<HeaderValue>,
    /// Why it is asked.
    purpose: Option<String>,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nobody listens there.
    #[error("no collector answers at {url}: is it running? (pgwitness-collector serve)")]
    Unreachable {
        url: String,
        #[source]
        source: std::io::Error,
    },
    /// The certificate is not good, or there is no TLS.
    #[error(
        "what listens at {url} is not believed: its certificate must be of an authority of the system or of --ca FILE, and name this host"
    )]
    Tls {
        url: String,
        #[source]
        source: std::io::Error,
    },
    /// The connection ended, or what came was not HTTP/1.
    #[error(
        "what listens at {url} does not answer as a collector: --url takes its http.listen, not its grpc.listen, with https:// if it has \
         http.tls"
    )]
    Broken {
        url: String,
        #[source]
        source: hyper::Error,
    },
    /// It accepted, and said nothing.
    #[error("what listens at {url} gave no answer within {} seconds: --url takes a collector's http.listen", longest.as_secs())]
    Silent { url: String, longest: Duration },
    /// The purpose cannot stand in a header.
    #[error("this cannot be asked")]
    Malformed(#[from] hyper::http::Error),
}

impl Collector {
    /// Asks at an origin, with a token if there is one.
    pub(crate) fn at(origin: Origin, token: Option<&str>) -> anyhow::Result<Self> {
        let authorization = token.map(|token| {
            ensure!(
                origin.is_private(),
                "a token is not sent to {}, where it could be read on the way: use https://",
                origin.url()
            );
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .context("the token has characters that no token has")?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self {
            origin,
            authorization: authorization.transpose()?,
            purpose: None,
        })
    }

    /// The same, asked for a purpose, which is told.
    pub(crate) fn for_purpose(self, purpose: Option<&str>) -> Self {
        let purpose = purpose.map(str::to_owned);
        Self { purpose, ..self }
    }

    /// Sends one request; a `body` makes it a POST of JSON. The connection lives as long as the response's body.
    pub(crate) async fn ask(
        &self,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.ask_for(path, body, ANSWER_TIMEOUT).await
    }

    /// The same, of an answer that may be so long in coming.
    pub(crate) async fn ask_for(
        &self,
        path: &str,
        body: Option<String>,
        longest: Duration,
    ) -> Result<Response<Incoming>, Unanswered> {
        let url = self.origin.url();
        let mut request = Request::builder()
            .uri(path)
            .header(header::HOST, self.origin.authority());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(purpose) = &self.purpose {
            request = request.header(PURPOSE, purpose.as_bytes());
        }
        if body.is_some() {
            request = request
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        match timeout(longest, self.origin.send(request)).await {
            Ok(answer) => answer.map_err(|failed| match failed {
                Failed::Unreachable(source) => Unanswered::Unreachable { url, source },
                Failed::Tls(source) => Unanswered::Tls { url, source },
                Failed::Http(source) => Unanswered::Broken { url, source },
            }),
            Err(_) => Err(Unanswered::Silent { url, longest }),
        }
    }
}

/// The whole body, up to [`MAX_ANSWER_BYTES`].
pub(crate) async fn read(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    match body.collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => bail!("the collector's answer could not be read: {error}"),
    }
}

/// What the command line keeps of one answer: above the collector's own limit, escapes included.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// How long an answer may be in coming, unless it is known to take longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where `serve` listens unless told otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:7480";

/// Percent-encodes a value of a query string: everything but RFC 3986's unreserved characters.
pub(crate) fn percent(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_said_only_where_nobody_reads_it() {
        let at = |url: &str| Collector::at(Origin::at(url, None).unwrap(), Some("pgwu1_x"));
        assert!(at("http://127.0.0.1:7480").is_ok() && at("http://localhost").is_ok());
        let error = at("http://collector.example:7480").expect_err("in the clear");
        assert!(error.to_string().contains("use https://"), "{error}");
        let collector = at("http://[::1]:7480").unwrap();
        assert!(!format!("{collector:?}").contains("pgwu1_x"));
    }

    #[test]
    fn values_of_query_strings() {
        assert_eq!(percent("a b&ü=~"), "a%20b%26%C3%BC%3D~");
    }
}
