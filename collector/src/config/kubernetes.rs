//! Whose pods are named: `[kubernetes]`.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The cluster whose API server is asked for the names of pods; without one, pods have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// The collector runs in the cluster, and asks with the token of its own service account, which is read again when it changes.
    pub in_cluster: bool,
    /// It runs elsewhere, and asks as this file says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the principals of the cluster's pods hang: `spiffe://<trust_domain>/ns/…`.
    pub trust_domain: String,
    /// Networks in which an address is a pod's of this cluster, whichever agent saw it: `["10.244.0.0/16"]`. A session of which no
    /// agent saw the client gets the name of the pod that had its address, as `inferred`. Without one, addresses have no names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_networks: Vec<IpNet>,
    /// Labels of pods that are told, 32 at most.
    pub labels: Vec<String>,
    /// Annotations of pods that are told, 32 at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
    /// Minutes for which a deleted pod stays known, 1 to 10,080.
    pub keep_minutes: u32,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        let labels = ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app"];
        Self {
            in_cluster: false,
            kubeconfig: None,
            trust_domain: "cluster.local".to_owned(),
            pod_networks: Vec::new(),
            labels: labels.map(str::to_owned).to_vec(),
            annotations: Vec::new(),
            keep_minutes: 60,
        }
    }
}

impl KubernetesConfig {
    /// Whether an API server is asked.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.in_cluster || self.kubeconfig.is_some()
    }

    pub(super) fn effective(&self) -> String {
        if !self.is_on() {
            return "\n[kubernetes]\nin_cluster = false\n# without in_cluster or kubeconfig, pods have no names\n".to_owned();
        }
        let mut text = format!("\n[kubernetes]\nin_cluster = {}\n", self.in_cluster);
        if let Some(file) = &self.kubeconfig {
            text += &format!("kubeconfig = {:?}\n", file.display().to_string());
        }
        let networks: Vec<String> = self.pod_networks.iter().map(ToString::to_string).collect();
        text += &format!(
            "trust_domain = {:?}\npod_networks = {networks:?}\nlabels = {:?}\nannotations = {:?}\nkeep_minutes = {}\n",
            self.trust_domain, self.labels, self.annotations, self.keep_minutes
        );
        text
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, expected| Err(ConfigError::Value { key, value, expected });
        if self.in_cluster
            && let Some(file) = &self.kubeconfig
        {
            let expected = "one cluster is asked: leave it out where kubernetes.in_cluster = true";
            return refuse("kubernetes.kubeconfig", file.display().to_string(), expected);
        }
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if self.trust_domain.is_empty()
            || self.trust_domain.len() > 255
            || !self.trust_domain.bytes().all(is_name)
        {
            let expected = "it must be 1 to 255 characters of [a-z0-9._-]";
            return refuse(
                "kubernetes.trust_domain",
                format!("{:?}", self.trust_domain),
                expected,
            );
        }
        for (key, names) in [
            ("kubernetes.labels", &self.labels),
            ("kubernetes.annotations", &self.annotations),
        ] {
            if names.len() > cluster::MAX_CHOSEN {
                return refuse(key, format!("{} names", names.len()), "there may be 32 at most");
            }
        }
        if !(1..=10_080).contains(&self.keep_minutes) {
            let value = self.keep_minutes.to_string();
            return refuse("kubernetes.keep_minutes", value, "it must be 1 to 10080");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<KubernetesConfig, String> {
        let config: KubernetesConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn it_is_off_until_a_cluster_is_named() {
        assert!(!read("{}").expect("defaults").is_on());
        let text = r#"{"in_cluster": true, "pod_networks": ["10.244.0.0/16"]}"#;
        let inside = read(text).expect("a cluster");
        assert!(inside.is_on());
        let shown = inside.effective();
        assert!(shown.contains("pod_networks = [\"10.244.0.0/16\"]"), "{shown}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            r#"{"in_cluster": true, "kubeconfig": "/etc/kube"}"#,
            r#"{"trust_domain": "a/b"}"#,
            r#"{"trust_domain": ""}"#,
            r#"{"keep_minutes": 0}"#,
            r#"{"pod_networks": ["10.244.0.0/99"]}"#,
            r#"{"pods": true}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
