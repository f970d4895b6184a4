//! One request over HTTP/1, for checkpoints: small both ways.
//!
//! Owns the address and the caps. No TLS: who needs it puts a proxy that speaks it on this machine. What goes out is signed
//! and no secret, and what comes back is signed by a witness or only says that it was taken.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Where to send.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `host[:port]`, as the URL has it.
    pub(super) host: String,
    /// Of the URL, without a slash at its end.
    pub(super) path: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Server {
    /// From `http://host[:port][/path]`.
    pub(super) fn at(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!(
                "{url:?} does not begin with http://: TLS is not spoken here, put a proxy on this machine that does"
            )
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        ensure!(
            !host.is_empty() && !rest.contains(['?', '#', '@', ' ', '\r', '\n']),
            "{url:?} is not of the form http://host[:port]/path"
        );
        let path = match path {
            "" => String::new(),
            path => format!("/{path}"),
        };
        Ok(Self {
            host: host.to_owned(),
            path,
        })
    }

    /// Sends one request to a path below the URL's.
    pub(super) async fn send(
        &self,
        method: Method,
        below: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let sent = async {
            let named = match self.host.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => self.host.clone(),
                _ => format!("{}:80", self.host),
            };
            let stream = TcpStream::connect(&named)
                .await
                .with_context(|| format!("cannot connect to {named}"))?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let mut request = Request::builder()
                .method(method)
                .uri(format!("{}{below}", self.path))
                .header(header::HOST, &self.host);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let answer = sender
                .send_request(request.body(Full::new(Bytes::from(body)))?)
                .await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("its answer cannot be read: {error}"))?;
            anyhow::Ok(Answer {
                status,
                body: body.to_bytes(),
            })
        };
        let answer = timeout(PATIENCE, sent).await;
        answer.with_context(|| format!("no answer within {} seconds", PATIENCE.as_secs()))?
    }
}

/// How long one request may take. The next round comes anyway.
const PATIENCE: Duration = Duration::from_secs(10);

/// Far more than the cosignatures of one witness, or any refusal.
const MAX_ANSWER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let server = Server::at("http://witness:8080/a/b/").unwrap();
        assert_eq!(
            (server.host.as_str(), server.path.as_str()),
            ("witness:8080", "/a/b")
        );
        assert_eq!(Server::at("http://witness").unwrap().path, "");
        for wrong in [
            "https://witness",
            "witness",
            "http://",
            "http:///x",
            "http://u@h/x",
            "http://h/x?y",
            "http://h/a b",
        ] {
            assert!(Server::at(wrong).is_err(), "{wrong}");
        }
    }
}
