//! The command line's side of the API: one HTTP/1 request to a collector on this machine.
//!
//! Owns the address and the connection. Refuses everything that the API does not need: no TLS, no redirects, no pool.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1, header, header::HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::PURPOSE;

/// Where a collector answers: `http://<host>:<port>`.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    authority: String,
    /// Why it is asked.
    purpose: Option<String>,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nobody listens there.
    #[error("no collector answers at http://{authority}: is it running? (pgwitness-collector serve)")]
    Unreachable {
        authority: String,
        #[source]
        source: std::io::Error,
    },
    /// The connection ended, or what came was not HTTP/1.
    #[error(
        "what listens at {authority} does not answer as a collector: --url takes its http.listen, not its grpc.listen"
    )]
    Broken {
        authority: String,
        #[source]
        source: hyper::Error,
    },
    /// It accepted, and said nothing.
    #[error("what listens at {authority} gave no answer within {} seconds: --url takes a collector's http.listen", longest.as_secs())]
    Silent { authority: String, longest: Duration },
}

impl Collector {
    /// From `http://host[:port]`, with or without a slash at the end.
    pub(crate) fn at(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| {
            format!("{url:?} does not begin with http://: give a URL as in {DEFAULT_URL}")
        })?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
            bail!("{url:?} is not of the form http://host:port: give a URL as in {DEFAULT_URL}");
        }
        let has_port = rest
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self {
            authority: if has_port {
                rest.to_owned()
            } else {
                format!("{rest}:80")
            },
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
        let unreachable = |source| Unanswered::Unreachable {
            authority: self.authority.clone(),
            source,
        };
        let broken = |source| Unanswered::Broken {
            authority: self.authority.clone(),
            source,
        };
        let silent = |_| Unanswered::Silent {
            authority: self.authority.clone(),
            longest,
        };
        let stream = async {
            match self.authority.parse::<SocketAddr>() {
                Ok(address) => TcpStream::connect(address).await,
                Err(_) => TcpStream::connect(&self.authority).await,
            }
        };
        let stream = timeout(longest, stream).await.map_err(silent)?;
        let stream = TokioIo::new(stream.map_err(unreachable)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        tokio::spawn(connection);
        let mut request = Request::builder().uri(path).header(header::HOST, &self.authority);
        if let Some(purpose) = &self.purpose {
            request = request.header(
                PURPOSE,
                HeaderValue::from_bytes(purpose.as_bytes())
                    .map_err(|error| unreachable(std::io::Error::other(error)))?,
            );
        }
        if body.is_some() {
            request = request
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/json");
        }
        let invalid = |error| unreachable(std::io::Error::other(error));
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(invalid)?;
        let answer = timeout(longest, sender.send_request(request)).await;
        answer.map_err(silent)?.map_err(broken)
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
    fn urls() {
        assert_eq!(
            Collector::at("http://127.0.0.1:7480/").unwrap().authority,
            "127.0.0.1:7480"
        );
        assert_eq!(
            Collector::at("http://[::1]:7480").unwrap().authority,
            "[::1]:7480"
        );
        assert_eq!(
            Collector::at("http://localhost").unwrap().authority,
            "localhost:80"
        );
        for wrong in [
            "https://localhost",
            "localhost:7480",
            "http://",
            "http://a/b",
            "http://u@h",
        ] {
            assert!(Collector::at(wrong).is_err(), "{wrong}");
        }
        assert_eq!(percent("a b&ü=~"), "a%20b%26%C3%BC%3D~");
    }
}
