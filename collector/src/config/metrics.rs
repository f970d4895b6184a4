//! Where metrics are served by themselves: `[metrics]`. They are also at `http.listen`, for those who may ask.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Metrics and health, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Nowhere without one. Another address than loopback takes `insecure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Whoever reaches that address reads the counters: for a network that says by itself who does.
    #[serde(default)]
    pub insecure: bool,
}

impl MetricsConfig {
    pub(super) fn effective(&self) -> String {
        match self.listen {
            Some(address) => format!(
                "\n[metrics]\nlisten = {:?}\ninsecure = {}\n",
                address.to_string(),
                self.insecure
            ),
            None => "\n[metrics]\n# without listen, metrics are at http.listen alone\n".to_owned(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.listen {
            Some(address) if !address.ip().is_loopback() && !self.insecure => Err(ConfigError::Value {
                key: "metrics.listen",
                value: address.to_string(),
                expected: "nobody is asked there who he is: it must be a loopback address, or say metrics.insecure = true if whoever \
                           reaches it may read the counters",
            }),
            _ => Ok(()),
        }
    }
}
