//! How the agent reaches its collector: over mutual TLS, or in the clear on the same host; and how it comes to the certificates.
//!
//! Owns the agent's TLS key and certificates. The batch key is `identity`'s; what is delivered is `ship`'s. Everything is read when
//! a connection is made, so that what was renewed or replaced counts from the next one on.

mod enroll;
mod files;
mod keyring;
mod renew;
mod service_account;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ::trust::rustls::{ClientConfig, pki_types::ServerName};
use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Notify};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

pub use enroll::{Args, run};
pub use files::Files;
pub use keyring::{Greeting, Keyring};
pub use renew::renew;

use crate::{broker::Broker, config::Config};

/// What URLs of collectors that speak TLS begin with.
pub const TLS: &str = "https://";

/// How long it may take to connect, TLS and all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a collector on another host that says nothing is asked whether it is there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(10);

/// The way to one collector.
#[derive(Debug)]
pub struct Connector {
    collector: String,
    /// Its place in the configuration, from 0.
    nth: usize,
    tls: Option<(Place, Files)>,
    /// Says what addresses a name has.
    broker: Option<Broker>,
    /// The collector asks for a renewal.
    pub renewal: Notify,
}

/// A collector's place behind `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl Place {
    /// Reads a URL; `None` if it is none that begins with `https://` and names host and port.
    pub fn of(url: &str) -> Option<Self> {
        let rest = url.strip_prefix(TLS)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':')?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_name = |name: &str| {
            (1..=253).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        };
        if host.parse::<IpAddr>().is_err() && !is_name(host) {
            return None;
        }
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Its address, where that is what it is given by.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl Connector {
    /// The ways that the configuration says, in its order; what they take is read once, so that what is missing is said at the start.
    ///
    /// # Errors
    ///
    /// If this host is not enrolled at one of them, or a file cannot be used.
    pub fn open(config: &Config, broker: &Option<Broker>) -> anyhow::Result<Vec<Self>> {
        let collectors = config.delivery.collectors.iter().enumerate();
        let ways = collectors.map(|(nth, collector)| {
            let tls = Place::of(collector).map(|place| {
                let files = Files::of(config, &place);
                files.client().map(|_| (place, files))
            });
            Ok(Self {
                collector: collector.clone(),
                nth,
                tls: tls.transpose()?,
                broker: broker.clone(),
                renewal: Notify::new(),
            })
        });
        ways.collect()
    }

    /// The collector's URL.
    pub fn collector(&self) -> &str {
        &self.collector
    }

    /// The agent's name, where its certificate says that.
    ///
    /// # Errors
    ///
    /// If the certificate names another one than is set, or several and none is.
    pub fn agent_id(&self, set: Option<&str>) -> anyhow::Result<Option<String>> {
        let Some((_, files)) = &self.tls else {
            return Ok(set.map(str::to_owned));
        };
        let names = files.agents()?;
        match (set, names.as_slice()) {
            (Some(set), names) if names.iter().any(|name| name == set) => Ok(Some(set.to_owned())),
            (Some(set), names) => bail!(
                "this agent is {set:?}, by agent.id or its certificate for another collector, but the one for {} is of {names:?}: leave \
                 agent.id out, and enrol everywhere under one name",
                self.collector
            ),
            (None, [name]) => Ok(Some(name.clone())),
            (None, names) => bail!(
                "the certificate for {} names {names:?}: say in agent.id which of these this agent is",
                self.collector
            ),
        }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// If the collector cannot be reached, is another one, or does not let this agent in.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        let Some((place, files)) = &self.tls else {
            let endpoint = Endpoint::from_shared(self.collector.clone())?.connect_timeout(PATIENCE);
            return Ok(endpoint.connect().await?);
        };
        let (client, name) = (files.client()?, files.name(place)?);
        let addresses = self.addresses(place).await?;
        connect(client, name, addresses).await
    }

    async fn addresses(&self, place: &Place) -> anyhow::Result<Vec<SocketAddr>> {
        let addresses = match (place.address(), self.broker.clone()) {
            (Some(address), _) => vec![address],
            (None, Some(broker)) => {
                let nth = self.nth;
                tokio::task::spawn_blocking(move || broker.collector(nth))
                    .await?
                    .unwrap_or_default()
            }
            (None, None) => bail!("nobody says what addresses {} has", place.host),
        };
        if addresses.is_empty() {
            bail!(
                "no address of {} is known: does this host find the name (getent hosts {0})?",
                place.host
            );
        }
        Ok(addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, place.port))
            .collect())
    }

    /// What to do about a problem, where it says that by itself to nobody who does not know TLS.
    pub fn advice(&self, problem: &anyhow::Error) -> Option<&'static str> {
        if let Some(status) = problem.downcast_ref::<tonic::Status>()
            && matches!(
                status.code(),
                tonic::Code::PermissionDenied | tonic::Code::Unauthenticated
            )
        {
            return Some("it does not let this agent deliver");
        }
        let text = format!("{problem:#} {problem:?}");
        if self.tls.is_some() {
            return advice(&text);
        }
        // Somebody is there, and hangs up.
        let hung_up = !text.contains("refused") && text.contains("transport error");
        hung_up.then_some("if the collector speaks TLS there, its URL begins with https://, and this host has to be enrolled")
    }
}

/// What an error of TLS asks for.
fn advice(text: &str) -> Option<&'static str> {
    let known = [
        (
            "InvalidContentType",
            "no TLS is spoken there: is it the collector's port, and does the collector have trust.tls?",
        ),
        (
            "corrupt message",
            "no TLS is spoken there: is it the collector's port, and does the collector have trust.tls?",
        ),
        (
            "UnknownIssuer",
            "what answers there is not the collector that this host was enrolled with. If it was set up anew, or its \
                           authority was replaced while this host was away, enrol again (pgwitness-collector agent add); if not, somebody \
                           is in between",
        ),
        (
            "NotValidForName",
            "the collector's certificate is for another name than the URL's",
        ),
        (
            "UnknownCA",
            "the collector does not take this host's certificate: enrol again (pgwitness-collector agent add)",
        ),
        (
            "DecryptError",
            "the collector does not take this host's certificate: enrol again (pgwitness-collector agent add)",
        ),
        (
            "CertificateExpired",
            "this host's certificate has expired (is the clock right?): enrol again (pgwitness-collector agent add)",
        ),
        (
            "received fatal alert: BadCertificate",
            "the collector does not take this host's certificate: enrol again",
        ),
        ("ProtocolVersion", "the other end does not speak TLS 1.3"),
    ];
    known
        .iter()
        .find(|(sign, _)| text.contains(sign))
        .map(|(_, advice)| *advice)
}

/// Connects over TLS to the first of these addresses that answers.
async fn connect(
    client: ClientConfig,
    name: ServerName<'static>,
    addresses: Vec<SocketAddr>,
) -> anyhow::Result<Channel> {
    let tls = TlsConnector::from(Arc::new(client));
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, name, addresses) = (tls.clone(), name.clone(), addresses.clone());
        async move {
            let connected = tokio::time::timeout(PATIENCE, async {
                let stream = TcpStream::connect(addresses.as_slice()).await?;
                stream.set_nodelay(true)?;
                tls.connect(name, stream).await
            });
            let stream = connected
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The scheme is what tonic takes it for: what is in it is encrypted by the connector.
    let endpoint = Endpoint::from_static("http://collector")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .keep_alive_while_idle(true);
    endpoint
        .connect_with_connector(connector)
        .await
        .context("cannot connect")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_host_and_port() {
        let place = |host: &str, port| {
            Some(Place {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!(
            Place::of("https://collector.example:7433"),
            place("collector.example", 7433)
        );
        assert_eq!(Place::of("https://10.0.0.5:7433/"), place("10.0.0.5", 7433));
        assert_eq!(Place::of("https://[fd00::1]:7433"), place("fd00::1", 7433));
        for wrong in [
            "http://10.0.0.5:7433",
            "https://10.0.0.5",
            "https://:7433",
            "https://a/b:7433",
            "https://a:0",
            "https://a:7433/x",
            "https://user@a:1",
        ] {
            assert_eq!(Place::of(wrong), None, "{wrong}");
        }
    }
}
