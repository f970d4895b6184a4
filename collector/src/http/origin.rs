//! Where a server of HTTP is: the name and port that a URL begins with, and whom TLS believes there.
//!
//! Owns one request over a connection of its own. Refuses everything that is not needed: no redirects, no pool, no proxies.

use std::{io, net::IpAddr, path::Path, sync::Arc};

use ::trust::rustls::{ClientConfig, pki_types::ServerName};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::trust::certificates;

/// A connection, with TLS or without.
pub(crate) type Wire = Box<dyn Duplex>;

/// What a [`Wire`] can do.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// `http://host[:port]` or `https://host[:port]`.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Without the brackets of an address.
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("nobody can be reached there")]
    Unreachable(#[source] io::Error),
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("what came is no answer of HTTP/1")]
    Http(#[from] hyper::Error),
}

impl Origin {
    /// From a URL without a path, with or without a slash at the end. With `ca`, a PEM file, these authorities are believed; without,
    /// the system's.
    pub(crate) fn at(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let of_form = || format!("{url:?} is not of the form https://host:port or http://host:port");
        let (is_tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => bail!(of_form()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').with_context(of_form)?,
            None if host.contains(':') => bail!(of_form()),
            None => host,
        };
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ', '[', ']']) {
            bail!(of_form());
        }
        let port = match port {
            Some(port) => port.parse().ok().with_context(of_form)?,
            None if is_tls => 443,
            None => 80,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            tls: is_tls.then(|| believing(ca)).transpose()?,
        })
    }

    /// As the header `Host` has it, the port always with it.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// As a URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// Whether nobody is between.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Whether what is said cannot be read on the way.
    pub(crate) fn is_private(&self) -> bool {
        self.tls.is_some() || self.is_loopback()
    }

    /// Sends one request. The connection lives as long as the response's body.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let wire = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(wire).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> Result<Wire, Failed> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(Failed::Unreachable)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| Failed::Tls(io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(Failed::Tls)?))
    }
}

fn believing(ca: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    let authorities = match ca {
        Some(file) => certificates("the authorities (--ca, access.oidc.ca)", file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let config = ::trust::asking(authorities);
    Ok(Arc::new(config.context(
        "TLS cannot be checked: name the authorities in a PEM file (--ca, access.oidc.ca)",
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let authority = |url: &str| Origin::at(url, None).unwrap().authority();
        assert_eq!(authority("http://127.0.0.1:7480/"), "127.0.0.1:7480");
        assert_eq!(authority("http://[::1]:7480"), "[::1]:7480");
        assert_eq!(authority("http://[::1]"), "[::1]:80");
        assert_eq!(authority("http://localhost"), "localhost:80");
        for wrong in [
            "ftp://localhost",
            "localhost:7480",
            "http://",
            "http://:80",
            "http://a/b",
            "http://u@h",
            "http://h:x",
            "http://h:99999",
            "http://::1",
            "http://[::1",
        ] {
            assert!(Origin::at(wrong, None).is_err(), "{wrong}");
        }
        let is_private = |url: &str| Origin::at(url, None).unwrap().is_private();
        assert!(
            is_private("http://localhost") && is_private("http://[::1]:1") && !is_private("http://10.0.0.1")
        );
    }
}
