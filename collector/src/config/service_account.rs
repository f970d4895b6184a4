//! By which account of Kubernetes agents enrol themselves: `[trust.service_account]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// An account whose pods are agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountConfig {
    /// Namespace of the account.
    pub namespace: String,
    /// Its name. No other account's pods are let in.
    pub name: String,
    /// Whom tokens have to be for: this collector, and nobody else.
    #[serde(default = "audience")]
    pub audience: String,
    /// The `ConfigMap` of that namespace into which the collector writes its authorities' certificates, by which agents know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<String>,
    /// The API server, `https://host:port` [default: the one of the cluster that this runs in].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The folder with the collector's own `token` and `ca.crt`.
    #[serde(default = "credentials")]
    pub credentials: PathBuf,
}

fn audience() -> String {
    "pgwitness-collector".to_owned()
}

/// Where Kubernetes puts them.
fn credentials() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount".into()
}

impl ServiceAccountConfig {
    pub(super) fn effective(&self) -> String {
        let mut text = format!(
            "\n[trust.service_account]\nnamespace = {:?}\nname = {:?}\naudience = {:?}\ncredentials = {:?}\n",
            self.namespace,
            self.name,
            self.audience,
            self.credentials.display().to_string()
        );
        for (key, value) in [("publish", &self.publish), ("api", &self.api)] {
            if let Some(value) = value {
                text += &format!("{key} = {value:?}\n");
            }
        }
        text
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        const NAME: &str = "it must be a name as Kubernetes has them: letters, digits, dots and hyphens";
        let names = [
            ("trust.service_account.namespace", Some(&self.namespace)),
            ("trust.service_account.name", Some(&self.name)),
            ("trust.service_account.publish", self.publish.as_ref()),
        ];
        for (key, name) in names {
            if let Some(name) = name.filter(|name| !is_name(name)) {
                let value = format!("{name:?}");
                return Err(ConfigError::Value {
                    key,
                    value,
                    expected: NAME,
                });
            }
        }
        if self.audience.is_empty() {
            return Err(ConfigError::Value {
                key: "trust.service_account.audience",
                value: "\"\"".to_owned(),
                expected: "tokens that are for everybody open nothing here: name whom they are for",
            });
        }
        Ok(())
    }
}

/// Whether this can be a name, and so stand in a path of the API (RFC 1123, as Kubernetes takes it).
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (1..=253).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}
