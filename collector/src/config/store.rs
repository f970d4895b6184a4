//! Where the store lies: `[store]`.

use std::path::PathBuf;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Where the store lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `s3://bucket/prefix`; without one, the store is a folder of the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The server that speaks S3, `https://…` [default: Amazon's of the region].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region [default: us-east-1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the endpoint may be `http://…`: what is stored can be read on the way.
    #[serde(default)]
    pub allow_http: bool,
    /// A file with the access key's id and the secret, a line each [default: the variables `AWS_…`, or what the host is given].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// Authorities of the endpoint's certificate beside the system's, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl StoreConfig {
    /// The bucket, and what the names of all objects in it begin with.
    pub(crate) fn bucket(&self) -> Option<(&str, Path)> {
        let place = self.url.as_deref()?.strip_prefix("s3://")?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_name) || prefix.contains(['?', '#', ' ']) {
            return None;
        }
        Some((bucket, Path::parse(prefix).ok()?))
    }

    pub(super) fn effective(&self) -> String {
        let mut text = "\n[store]\n".to_owned();
        let Some(url) = &self.url else {
            return text + "# without url, the store is a folder of the data folder\n";
        };
        text += &format!("url = {url:?}\n");
        for (name, value) in [("endpoint", &self.endpoint), ("region", &self.region)] {
            if let Some(value) = value {
                text += &format!("{name} = {value:?}\n");
            }
        }
        text += &format!("allow_http = {}\n", self.allow_http);
        for (name, file) in [("credentials", &self.credentials), ("ca", &self.ca)] {
            if let Some(file) = file {
                text += &format!("{name} = {:?}\n", file.display().to_string());
            }
        }
        text
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: &str, expected| {
            let value = format!("{value:?}");
            Err(ConfigError::Value { key, value, expected })
        };
        let Some(url) = &self.url else {
            if *self != Self::default() {
                let expected = "without it the store is a folder, and no other key of [store] means anything: set it, or \
                                leave them out";
                return refuse("store.url", "", expected);
            }
            return Ok(());
        };
        if self.bucket().is_none() {
            return refuse("store.url", url, "it must be of the form s3://bucket/prefix");
        }
        match &self.endpoint {
            Some(endpoint) if endpoint.starts_with("http://") && !self.allow_http => {
                let expected = "whoever is on the way reads what is stored: use https://, or say store.allow_http = true";
                refuse("store.endpoint", endpoint, expected)
            }
            Some(endpoint) if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") => {
                refuse(
                    "store.endpoint",
                    endpoint,
                    "it must be of the form https://host:port",
                )
            }
            _ => Ok(()),
        }
    }
}
