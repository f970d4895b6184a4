//! Who may ask: users by tokens of this collector, users of an OpenID Connect issuer, and what their role opens.
//!
//! Owns the decision over each request, whose turn it is, and that it is told. The decision is made anew each time, from the files as they are: a token that is removed opens nothing
//! from then on. Where nobody is known and only this host can ask, everybody is `local` and may do everything. Refuses to let anybody in
//! by what cannot be read or reached.

mod asker;
mod commands;
mod oidc;
mod role;
mod token;
mod turn;
mod users;

use std::time::Duration;

use ::trust::Digest;
use anyhow::ensure;
use axum::http::{HeaderMap, header};

pub(crate) use asker::{Asked, Asker};
pub use commands::{UserArgs, user};
pub(crate) use oidc::may_be_asked;
pub use role::Role;
pub(crate) use turn::{Refused, Turns, within};

use crate::{config::Config, trust::unix_s};
use oidc::Issuer;
use users::Users;

/// Who is known, and whether a token is needed.
#[derive(Debug)]
pub struct Access {
    users: Option<Users>,
    issuer: Option<Issuer>,
    need: Need,
}

/// When a token is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Always,
    /// As soon as there is a user or an issuer.
    IfAnybody,
    Never,
}

/// Who asks, and what they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// `local`, a user's name, or `oidc:SUBJECT@ISSUER`.
    who: String,
    /// None of them may do nothing.
    role: Option<Role>,
    by: By,
}

/// What a pass rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Only this host can ask.
    Place,
    /// A token of this collector, by its digest.
    Token(Digest),
    /// An issuer's token, up to then: seconds since the Unix epoch.
    Issuer(u64),
}

/// Why somebody is not let in. Says nothing of the token.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// There was none.
    #[error("a token is needed here")]
    Missing,
    /// It opens nothing.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be checked now.
    #[error("{0}")]
    Unavailable(String),
}

impl Access {
    /// Everybody may do everything: for a collector that nobody else can reach.
    #[must_use]
    pub fn everybody() -> Self {
        Self {
            users: None,
            issuer: None,
            need: Need::Never,
        }
    }

    /// As it is configured.
    ///
    /// # Errors
    ///
    /// If others than this host could ask and nobody is known, or if what is configured cannot be used.
    pub fn by(config: &Config) -> anyhow::Result<Self> {
        let need = match config.access.required {
            _ if config.exposed() => Need::Always,
            Some(true) => Need::Always,
            Some(false) => Need::Never,
            None => Need::IfAnybody,
        };
        let access = Self {
            users: Some(Users::in_data(&config.data)),
            issuer: config.access.oidc.clone().map(Issuer::new).transpose()?,
            need,
        };
        ensure!(
            need != Need::Always || access.anybody()?,
            "a token is needed to ask this collector, and nobody has one: add a user first (pgwitness-collector user add NAME --role \
             admin --data {}), or set access.oidc",
            config.data.display()
        );
        Ok(access)
    }

    /// Who asks with these headers.
    ///
    /// # Errors
    ///
    /// If they are not let in.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Result<Pass, Refusal> {
        self.admit_with(bearer(headers)?).await
    }

    /// Who asks with this token, or with none.
    ///
    /// # Errors
    ///
    /// If they are not let in.
    pub(crate) async fn admit_with(&self, token: Option<&str>) -> Result<Pass, Refusal> {
        let needed = self.needed()?;
        match token {
            // Nobody is known: what was meant for another collector does no harm.
            _ if !needed && !self.anybody().map_err(unreadable)? => Ok(Pass::local()),
            None if !needed => Ok(Pass::local()),
            None => Err(Refusal::Missing),
            Some(token) => self.pass_of(token).await,
        }
    }

    /// Whether it is still good.
    pub(crate) fn holds(&self, pass: &Pass) -> bool {
        match pass.by {
            By::Place => self.needed().is_ok_and(|needed| !needed),
            By::Issuer(until) => unix_s() < until,
            By::Token(digest) => {
                let found = self.users.as_ref().map(|users| users.with(&digest));
                matches!(found, Some(Ok(Some(user))) if user.is_good() && Some(user.role) == pass.role)
            }
        }
    }

    /// Returns when it is good no longer.
    pub(crate) async fn until_over(&self, pass: &Pass) {
        while self.holds(pass) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn pass_of(&self, token: &str) -> Result<Pass, Refusal> {
        let wrong = |text: &str| Err(Refusal::Wrong(text.to_owned()));
        let Some(token) = token::UserToken::parse(token) else {
            return match &self.issuer {
                Some(issuer) => issuer.check(token).await,
                None => wrong("this token is not known here"),
            };
        };
        let found = self.users.as_ref().map(|users| users.with(&token.digest()));
        match found.transpose().map_err(unreadable)?.flatten() {
            Some(user) if user.is_good() => Ok(Pass {
                who: user.name,
                role: Some(user.role),
                by: By::Token(token.digest()),
            }),
            Some(_) => wrong("this token has expired"),
            None => wrong("this token is not known here, or was removed"),
        }
    }

    /// Whether a token is needed. What cannot be read is no reason to do without.
    pub(crate) fn needed(&self) -> Result<bool, Refusal> {
        match self.need {
            Need::Always => Ok(true),
            Need::Never => Ok(false),
            Need::IfAnybody => self.anybody().map_err(unreadable),
        }
    }

    fn anybody(&self) -> anyhow::Result<bool> {
        match &self.users {
            _ if self.issuer.is_some() => Ok(true),
            Some(users) => users.any(),
            None => Ok(false),
        }
    }
}

impl Pass {
    fn local() -> Self {
        Self {
            who: LOCAL.to_owned(),
            role: Some(Role::Admin),
            by: By::Place,
        }
    }

    /// As questions are recorded, and limits counted.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    /// Whether it says more than that somebody is on this host.
    pub(crate) fn is_somebody(&self) -> bool {
        self.by != By::Place
    }

    /// The role, if there is one.
    pub(crate) fn role(&self) -> Option<Role> {
        self.role
    }

    /// Whether that is enough.
    pub(crate) fn may(&self, needs: Role) -> bool {
        self.role.is_some_and(|role| role >= needs)
    }
}

/// The one token that a request shows (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let wrong = || Refusal::Wrong("one header is expected: Authorization: Bearer TOKEN".to_owned());
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else {
        return match headers.contains_key(header::AUTHORIZATION) {
            true => Err(wrong()),
            false => Ok(None),
        };
    };
    let (scheme, token) = one
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(wrong)?;
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(Some(token.trim())),
        false => Err(wrong()),
    }
}

fn unreadable(error: anyhow::Error) -> Refusal {
    tracing::error!(
        error = format!("{error:#}"),
        "users cannot be read: nobody is let in"
    );
    Refusal::Unavailable("users cannot be read on this collector".to_owned())
}

/// Whoever reached the loopback address.
const LOCAL: &str = "local";

/// How often it is looked whether a live view or an export may go on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests;
