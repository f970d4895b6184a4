//! Who is let in: the password is a token, as it is shown over HTTP.
//!
//! Owns the start of a connection, up to whoever is behind it. A token says itself whose it is; the user that is named beside it must be
//! the same, or `token`, so that nobody reads another name in a client's window than the record has. Where no token is needed, none is
//! asked for.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use axum::http::StatusCode;
use datafusion_postgres::pgwire::{
    api::{
        ClientInfo, ConnectionHandle, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator,
        RandomPidSecretKeyGenerator,
        auth::{
            DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
            save_startup_parameters_to_metadata,
        },
    },
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage, startup::Authentication},
};
use futures::{Sink, SinkExt as _};

use super::{Shared, errors, statements::Purpose};
use crate::access::{Asker, Pass, Refusal, Role};

/// Lets in whoever connects, once.
pub(super) struct Login(pub(super) Arc<Shared>);

impl Login {
    async fn let_in<C>(&self, client: &mut C, pass: Pass) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !pass.may(NEEDS) {
            return Err(self.forbidden(client, pass).await);
        }
        let address = client.socket_addr().ip().to_string();
        let user = Asker::new(pass.clone(), address, String::new(), String::new()).user();
        let turn = self.0.connections.now(&user);
        let turn =
            turn.map_err(|refused| errors::fatal(errors::TOO_MANY_CONNECTIONS, refused.to_string()))?;
        let (pid, key) = RandomPidSecretKeyGenerator::default().generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        let (handle, guard) = self.0.running.register(pid, key);
        let of_session = client.session_extensions();
        of_session.insert::<Arc<ConnectionHandle>>(handle);
        of_session.insert(guard);
        of_session.insert(turn);
        of_session.insert(pass);
        finish_authentication(client, &parameters()).await
    }

    /// Whoever is known and has another role asked in vain, which is recorded.
    async fn forbidden<C: ClientInfo + Send>(&self, client: &C, pass: Pass) -> PgWireError {
        let error = match pass.role() {
            Some(role) => format!(
                "this needs the role {NEEDS}, and the role of {} is {role}",
                pass.who()
            ),
            None => format!("this needs the role {NEEDS}, and {} has no role here", pass.who()),
        };
        self.count(StatusCode::FORBIDDEN);
        let address = client.socket_addr().ip().to_string();
        let asker = Asker::new(pass, address, Purpose::of(client), "sql".to_owned());
        let mut asked = asker.asks("forbidden", self.0.sql.accesses.as_ref());
        asked.answered(None).await;
        errors::fatal(errors::INSUFFICIENT_PRIVILEGE, error)
    }

    fn count(&self, as_over_http: StatusCode) {
        self.0.sql.metrics.refused_request(as_over_http);
    }

    fn refusal(&self, refusal: &Refusal) -> PgWireError {
        match refusal {
            Refusal::Unavailable(_) => errors::fatal(errors::CANNOT_CONNECT_NOW, refusal.to_string()),
            Refusal::Missing | Refusal::Wrong(_) => {
                self.count(StatusCode::UNAUTHORIZED);
                errors::fatal(
                    errors::INVALID_PASSWORD,
                    format!("{refusal}: the password is a token"),
                )
            }
        }
    }
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                let elsewhere = !client.socket_addr().ip().is_loopback();
                if elsewhere && !client.is_secure() {
                    let why = "from other hosts this collector is asked over TLS: sslmode=require, or better verify-full";
                    return Err(errors::fatal(errors::INVALID_AUTHORIZATION, why.to_owned()));
                }
                let access = &self.0.sql.access;
                if access.needed().map_err(|refusal| self.refusal(&refusal))? {
                    client.set_state(PgWireConnectionState::AuthenticationInProgress);
                    let ask = PgWireBackendMessage::Authentication(Authentication::CleartextPassword);
                    return Ok(client.send(ask).await?);
                }
                let pass = access.admit_with(None).await;
                self.let_in(client, pass.map_err(|refusal| self.refusal(&refusal))?)
                    .await
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let token = message.into_password()?.password;
                let pass = self.0.sql.access.admit_with(Some(token.trim())).await;
                let pass = pass.map_err(|refusal| self.refusal(&refusal))?;
                let named = client.metadata().get(METADATA_USER).map_or("", String::as_str);
                if pass.is_somebody() && ![ANYBODY, pass.who()].contains(&named) {
                    self.count(StatusCode::UNAUTHORIZED);
                    let why = format!("this token is not that of {named}: name its user, or {ANYBODY}");
                    return Err(errors::fatal(errors::INVALID_PASSWORD, why));
                }
                self.let_in(client, pass).await
            }
            _ => Ok(()),
        }
    }
}

/// What clients are told of the server. Its version is one whose catalogue they know how to ask.
fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = concat!("15.0 (pgwitness ", env!("CARGO_PKG_VERSION"), ")").to_owned();
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    parameters
}

/// What SQL needs over HTTP, too.
const NEEDS: Role = Role::Analyst;

/// The user whose token says who it is.
const ANYBODY: &str = "token";
