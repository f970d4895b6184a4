//! The views over PostgreSQL's protocol: for psql, Grafana's PostgreSQL data source, and whatever else speaks it.
//!
//! Owns connections: how many there are, and that each ends with the collector. Who is let in `login` decides, what a statement may do
//! `statements`; the protocol's messages are pgwire's, the catalogue that clients look at is datafusion-postgres'. The same rights, limits
//! and record of questions hold as over HTTP. Refuses everything that is not reading.

mod answer;
mod errors;
mod login;
mod prepared;
mod statements;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use datafusion_postgres::pgwire::{
    api::{ConnectionManager, PgWireServerHandlers, cancel::DefaultCancelHandler},
    tokio::{TlsAcceptor, process_socket},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use crate::{
    access::{Access, Turns},
    accesses::Accesses,
    metrics::Metrics,
    store::Store,
    trust::Tls,
};
use errors::Errors;
use login::Login;
use statements::Statements;

/// What answers are made from, and who gets them.
pub(crate) struct Sql {
    pub(crate) store: Arc<Store>,
    pub(crate) access: Arc<Access>,
    pub(crate) accesses: Option<Arc<Accesses>>,
    pub(crate) questions: Turns,
    pub(crate) metrics: Arc<Metrics>,
    /// Without one, there is no TLS.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// What all connections share.
struct Shared {
    sql: Sql,
    /// Of those who were let in.
    connections: Turns,
    /// Who may cancel what.
    running: Arc<ConnectionManager>,
    /// Kibibytes of answers that are being read.
    room: Arc<Semaphore>,
}

impl Sql {
    /// Answers until the collector stops.
    pub(crate) async fn serve(self, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
        let shared = Arc::new(Shared {
            sql: self,
            connections: Turns::new("connections", CONNECTIONS, CONNECTIONS_OF_EACH),
            running: Arc::new(ConnectionManager::new()),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        });
        let sockets = Arc::new(Semaphore::new(SOCKETS));
        let mut open = JoinSet::new();
        loop {
            let next = tokio::select! {
                next = accept(&listener, &sockets) => next,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            // Those that ended are let go of.
            while open.try_join_next().is_some() {}
            let (stream, address, socket) = match next {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let shared = Arc::clone(&shared);
            open.spawn(async move {
                shared.attend(stream, address).await;
                drop(socket);
            });
        }
        // Whoever waits for an answer now sees the connection end.
        open.shutdown().await;
    }
}

impl Shared {
    async fn attend(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let acceptor = self.sql.tls.as_ref().map(|tls| {
            // Whoever negotiates names this protocol, and no other.
            let mut config = tls.config().as_ref().clone();
            config.alpn_protocols = vec![b"postgresql".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let handlers = Handlers {
            login: Arc::new(Login(Arc::clone(&self))),
            statements: Arc::new(Statements::new(Arc::clone(&self))),
            cancel: Arc::new(DefaultCancelHandler::new(Arc::clone(&self.running))),
        };
        if let Err(error) = process_socket(stream, acceptor, handlers).await {
            tracing::debug!(%address, %error, "a connection ended");
        }
    }
}

/// The next one, as soon as there is room for it.
async fn accept(
    listener: &TcpListener,
    sockets: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let socket = Arc::clone(sockets).acquire_owned().await;
    let socket = socket.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, socket))
}

/// Of one connection.
struct Handlers {
    login: Arc<Login>,
    statements: Arc<Statements>,
    cancel: Arc<DefaultCancelHandler>,
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl datafusion_postgres::pgwire::api::query::SimpleQueryHandler> {
        Arc::clone(&self.statements)
    }

    fn extended_query_handler(
        &self,
    ) -> Arc<impl datafusion_postgres::pgwire::api::query::ExtendedQueryHandler> {
        Arc::clone(&self.statements)
    }

    fn startup_handler(&self) -> Arc<impl datafusion_postgres::pgwire::api::auth::StartupHandler> {
        Arc::clone(&self.login)
    }

    fn cancel_handler(&self) -> Arc<impl datafusion_postgres::pgwire::api::cancel::CancelHandler> {
        Arc::clone(&self.cancel)
    }

    fn error_handler(&self) -> Arc<impl datafusion_postgres::pgwire::api::ErrorHandler> {
        Arc::new(Errors)
    }
}

/// What the views are in: the database that clients are told.
const DATABASE: &str = "pgwitness";

/// Connections at once: each holds a catalogue of some megabytes, and a dashboard holds a few.
const CONNECTIONS: usize = 48;

/// Of one user.
const CONNECTIONS_OF_EACH: usize = 32;

/// Those included who have not said who they are; who comes beyond waits in the kernel's queue.
const SOCKETS: usize = 512;

/// Of answers that are being read, in all: one more is refused.
const ROOM_KIB: usize = 256 * 1024;

/// How long nothing is accepted after the system could not.
const REST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
