//! Where people ask, and who may: `[http]`, `[sql]` and `[access]`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::access::Role;

/// Where people and programs ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Another address than loopback takes TLS, and somebody who is known.
    pub listen: SocketAddr,
    /// Hosts under which it is asked, beside loopback and those that the certificate names: requests that name another are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// An operator's certificate; without one, there is no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ReadersTls>,
}

/// Where the views are asked over PostgreSQL's protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlConfig {
    /// Nowhere without one. Another address than loopback takes the certificate of `http.tls`, and somebody who is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// What those who ask are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadersTls {
    /// In PEM, with those behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Whether a token is needed; if it is not set, it is as soon as there is a user or an issuer, and wherever others than this host can
    /// ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// An issuer whose users are let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
}

/// An OpenID Connect issuer, and what its tokens mean here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// As its tokens name it, `https://…`.
    pub issuer: String,
    /// Whom tokens have to be for.
    pub audience: String,
    /// The claim that says who somebody is.
    #[serde(default = "sub")]
    pub user_claim: String,
    /// The claim whose value, or values, say what they may; one within another with dots between them.
    pub role_claim: String,
    /// What these values open.
    pub roles: BTreeMap<String, Role>,
    /// The authorities of the issuer's certificate, in PEM; without it, the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Its keys in a file (JWKS); without it, they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<PathBuf>,
}

fn sub() -> String {
    "sub".to_owned()
}

impl HttpConfig {
    pub(super) fn effective(&self) -> String {
        let mut text = format!("\n[http]\nlisten = {:?}\n", self.listen.to_string());
        if !self.names.is_empty() {
            text += &format!("names = {:?}\n", self.names);
        }
        if let Some(ReadersTls { certificate, key }) = &self.tls {
            text += &format!(
                "\n[http.tls]\ncertificate = {:?}\nkey = {:?}\n",
                certificate.display().to_string(),
                key.display().to_string()
            );
        }
        text
    }

    /// Whether others than this host can ask: directly, or through what passes requests on.
    pub(super) fn exposed(&self) -> bool {
        !self.listen.ip().is_loopback() || !self.names.is_empty()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && self.tls.is_none() {
            let expected = "on another address than loopback people ask over TLS: set http.tls.certificate and http.tls.key";
            return Err(ConfigError::Value {
                key: "http.listen",
                value: self.listen.to_string(),
                expected,
            });
        }
        let is_name = |name: &String| !name.is_empty() && !name.contains(['/', ' ', '@', '?', '#', '*']);
        if let Some(name) = self.names.iter().find(|name| !is_name(name)) {
            return Err(ConfigError::Value {
                key: "http.names",
                value: format!("{name:?}"),
                expected: "it must be the name or the address of a host, without a port",
            });
        }
        Ok(())
    }
}

impl SqlConfig {
    pub(super) fn effective(&self) -> String {
        match self.listen {
            Some(address) => format!("\n[sql]\nlisten = {:?}\n", address.to_string()),
            None => "\n[sql]\n# without listen, there are no views over PostgreSQL's protocol\n".to_owned(),
        }
    }

    /// Whether others than this host can ask.
    pub(super) fn exposed(&self) -> bool {
        self.listen.is_some_and(|address| !address.ip().is_loopback())
    }

    pub(super) fn check(&self, http: &HttpConfig) -> Result<(), ConfigError> {
        match self.listen {
            Some(address) if self.exposed() && http.tls.is_none() => Err(ConfigError::Value {
                key: "sql.listen",
                value: address.to_string(),
                expected: "on another address than loopback people ask over TLS: set http.tls.certificate and http.tls.key",
            }),
            _ => Ok(()),
        }
    }
}

impl AccessConfig {
    pub(super) fn effective(&self) -> String {
        let mut text = "\n[access]\n".to_owned();
        text += &match self.required {
            Some(required) => format!("required = {required}\n"),
            None => "# a token is required as soon as there is a user or an issuer\n".to_owned(),
        };
        let Some(oidc) = &self.oidc else { return text };
        text += &format!(
            "\n[access.oidc]\nissuer = {:?}\naudience = {:?}\nuser_claim = {:?}\nrole_claim = {:?}\n",
            oidc.issuer, oidc.audience, oidc.user_claim, oidc.role_claim
        );
        for (name, file) in [("ca", &oidc.ca), ("jwks", &oidc.jwks)] {
            if let Some(file) = file {
                text += &format!("{name} = {:?}\n", file.display().to_string());
            }
        }
        text += "\n[access.oidc.roles]\n";
        for (value, role) in &oidc.roles {
            text += &format!("{value:?} = \"{role}\"\n");
        }
        text
    }

    pub(super) fn check(&self, exposed: bool) -> Result<(), ConfigError> {
        if self.required == Some(false) && exposed {
            let expected = "others than this host can ask (http.listen, http.names, sql.listen), so a token is needed: leave it out";
            return Err(ConfigError::Value {
                key: "access.required",
                value: "false".to_owned(),
                expected,
            });
        }
        let refuse = |key, value: &str, expected| {
            let value = format!("{value:?}");
            Err(ConfigError::Value { key, value, expected })
        };
        let Some(oidc) = &self.oidc else { return Ok(()) };
        if !crate::access::may_be_asked(&oidc.issuer) || oidc.issuer.contains(['?', '#', '@', ' ']) {
            let expected = "it must be the issuer as its tokens name it, https://…";
            return refuse("access.oidc.issuer", &oidc.issuer, expected);
        }
        if oidc.audience.is_empty() {
            return refuse(
                "access.oidc.audience",
                "",
                "it must be whom tokens are made out to",
            );
        }
        if oidc.roles.is_empty() {
            let expected =
                "it must say what a value of access.oidc.role_claim opens, as in { dba = \"analyst\" }";
            return refuse("access.oidc.roles", "", expected);
        }
        Ok(())
    }
}
