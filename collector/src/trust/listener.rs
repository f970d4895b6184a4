//! TLS on a port: each connection is accepted on its own, so that one that says nothing holds up no other.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::trust::rustls;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{Peer, Shown, Tls};
use crate::{alarms::Alarm, metrics::Metrics};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Handshakes at a time; who comes beyond waits in the kernel's queue.
const HANDSHAKES: usize = 256;

/// How long nothing is accepted after the system could not: it is out of descriptors.
const REST: Duration = Duration::from_millis(100);

/// Of TLS, the first byte of a connection: a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// An accepted connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Where from.
    pub(crate) address: SocketAddr,
}

/// Accepts until the collector stops.
pub(crate) fn admit_connections(
    listener: TcpListener,
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let next = tokio::select! {
                next = listener.accept() => next,
                () = until(&mut stopped) => return,
            };
            let (stream, address) = match next {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let (tls, metrics, accepted) = (Arc::clone(&tls), Arc::clone(&metrics), accepted.clone());
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(PATIENCE, shake(stream, address, &tls)).await;
                drop(permit);
                match shaken {
                    // Nobody takes it where the server has ended.
                    Ok(Ok(connection)) => _ = accepted.send(Ok(connection)).await,
                    Ok(Err(error)) => tell(&error, address, &metrics),
                    Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn until(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is stopping too.
    _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn shake(stream: TcpStream, address: SocketAddr, tls: &Tls) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? > 0 && first != [HANDSHAKE] {
        return Err(io::Error::other(NotTls));
    }
    let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.map(|certificate| {
        let facts = ::trust::facts(certificate).map_err(io::Error::other)?;
        Ok::<_, io::Error>(Arc::new(Shown {
            agents: facts.agents,
            digest: ::trust::digest(certificate),
            not_after: facts.not_after,
        }))
    });
    let peer = Peer(shown.transpose()?);
    Ok(Connection {
        stream,
        peer,
        address,
    })
}

/// Somebody who speaks something else.
#[derive(Debug, thiserror::Error)]
#[error("it does not speak TLS; the URL of this port begins with https://")]
struct NotTls;

/// Says what went wrong; what somebody must look at is an alarm.
fn tell(error: &io::Error, address: SocketAddr, metrics: &Metrics) {
    let cause = error.get_ref();
    if let Some(rustls::Error::InvalidCertificate(why)) = cause.and_then(|cause| cause.downcast_ref()) {
        let detail = format!("a connection from {address} showed a certificate that is no good here: {why}");
        metrics.alarm(Alarm::WrongCertificate, "", detail);
    } else if cause.and_then(|cause| cause.downcast_ref::<NotTls>()).is_some() {
        tracing::warn!(%address, "a connection was turned away: {error}");
    } else {
        tracing::info!(%address, %error, "a TLS handshake failed");
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
