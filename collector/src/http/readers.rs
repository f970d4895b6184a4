//! Where people are awaited, with TLS or without, and under which names.

use std::{io, net::SocketAddr, sync::Arc};

use axum::serve::Listener;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{guard::host_name, origin::Wire};
use crate::{
    metrics::Metrics,
    trust::{Connection, Tls, admit_connections},
};

/// What accepts them.
pub(crate) enum Readers {
    Plain(TcpListener),
    Tls {
        connections: ReceiverStream<io::Result<Connection>>,
        local: SocketAddr,
    },
}

/// Hosts under which a collector may be asked, beside loopback.
#[derive(Clone, Default)]
pub struct Names {
    given: Arc<[String]>,
    tls: Option<Arc<Tls>>,
}

impl Readers {
    /// Accepts until the collector stops.
    pub(crate) fn of(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        metrics: &Arc<Metrics>,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(match tls {
            None => Self::Plain(listener),
            Some(tls) => Self::Tls {
                connections: admit_connections(listener, tls, Arc::clone(metrics), stopped),
                local,
            },
        })
    }
}

impl Listener for Readers {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        match self {
            Self::Plain(listener) => {
                let (stream, address) = Listener::accept(listener).await;
                (Box::new(stream), address)
            }
            Self::Tls { connections, .. } => loop {
                match connections.next().await {
                    Some(Ok(connection)) => {
                        let address = connection.address;
                        return (Box::new(connection), address);
                    }
                    Some(Err(_)) => {}
                    // It stops, and so does whoever waits here.
                    None => std::future::pending().await,
                }
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(listener) => listener.local_addr(),
            Self::Tls { local, .. } => Ok(*local),
        }
    }
}

impl Names {
    /// Those of the settings, and those of the certificate as it is now.
    pub(crate) fn of(given: &[String], tls: Option<Arc<Tls>>) -> Self {
        Self {
            given: given.into(),
            tls,
        }
    }

    /// Whether a host, as `Host` has it, is one of them.
    pub(super) fn hold(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        let certified = self.tls.as_ref().map(|tls| tls.hosts()).unwrap_or_default();
        self.given
            .iter()
            .chain(certified.iter())
            .any(|known| matches(known, name))
    }
}

/// Names by RFC 6125, section 6.4.3: `*` stands for the first label, and for no more. Addresses by what they mean.
fn matches(known: &str, name: &str) -> bool {
    let address = |text: &str| text.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok();
    if let Some(of_known) = address(known) {
        return address(name) == Some(of_known);
    }
    match known.strip_prefix("*.") {
        Some(domain) => name
            .split_once('.')
            .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(domain)),
        None => known.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_and_a_star_is_one_label() {
        let names = Names::of(
            &["audit.example", "*.db.example", "192.0.2.7", "2001:db8::1"].map(str::to_owned),
            None,
        );
        for good in [
            "audit.example",
            "AUDIT.example:7480",
            "a.db.example",
            "192.0.2.7:80",
            "[2001:db8::1]:7480",
        ] {
            assert!(names.hold(good), "{good}");
        }
        for bad in [
            "",
            "example",
            "evil.audit.example",
            "audit.example.evil",
            "audit.example:x",
            "db.example",
            ".db.example",
            "a.b.db.example",
            "192.0.2.8",
            "[2001:db8::2]",
            "*.db.example:80:80",
        ] {
            assert!(!names.hold(bad), "{bad}");
        }
    }
}
