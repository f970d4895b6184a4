//! Who may ask a cluster's API, and where it is.
//!
//! Owns a random token for each user, the file of all tokens that the API server reads, and a configuration file for each user. The
//! users are called as Kubernetes' own roles have it, so that each component may do what it may elsewhere, and no more.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::RngCore as _;
use serde_json::json;

use super::node_name;

/// Somebody who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything.
    Admin,
    /// `kube-controller-manager`
    Controllers,
    /// `kube-scheduler`
    Scheduler,
    /// The kubelet of the node with this number.
    Kubelet(usize),
    /// `kube-proxy`
    Proxy,
}

impl User {
    fn file(self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Controllers => "controllers".to_owned(),
            Self::Scheduler => "scheduler".to_owned(),
            Self::Kubelet(number) => format!("kubelet-{number}"),
            Self::Proxy => "proxy".to_owned(),
        }
    }

    /// Name and group (Kubernetes, "Using RBAC Authorization" and "Using Node Authorization").
    fn name(self) -> (String, Option<&'static str>) {
        match self {
            Self::Admin => ("admin".to_owned(), Some("system:masters")),
            Self::Controllers => ("system:kube-controller-manager".to_owned(), None),
            Self::Scheduler => ("system:kube-scheduler".to_owned(), None),
            Self::Kubelet(number) => (format!("system:node:{}", node_name(number)), Some("system:nodes")),
            Self::Proxy => ("system:kube-proxy".to_owned(), None),
        }
    }
}

/// The files.
#[derive(Debug)]
pub(super) struct Access {
    folder: PathBuf,
    url: String,
}

impl Access {
    /// Makes them in a folder of their own below `folder`, for an API server at this place and so many nodes.
    pub(super) fn make(
        folder: &Path,
        authority: &Path,
        (address, port): (Ipv4Addr, u16),
        nodes: usize,
    ) -> Result<Self> {
        let access = Self {
            folder: folder.join("access"),
            url: format!("https://{address}:{port}"),
        };
        fs::create_dir(&access.folder).context("a folder for tokens")?;
        fs::set_permissions(&access.folder, fs::Permissions::from_mode(0o700))?;
        let mut tokens = String::new();
        let users = [User::Admin, User::Controllers, User::Scheduler, User::Proxy];
        for user in users.into_iter().chain((0..nodes).map(User::Kubelet)) {
            let (name, group) = user.name();
            let token = token();
            let group = group.map(|group| format!(",\"{group}\"")).unwrap_or_default();
            tokens += &format!("{token},{name},{name}{group}\n");
            let configuration = json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "cluster", "cluster": {
                    "server": access.url, "certificate-authority": authority,
                }}],
                "users": [{"name": "user", "user": {"token": token}}],
                "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
                "current-context": "context",
            });
            // YAML takes JSON as it is.
            fs::write(access.configuration(user), configuration.to_string())?;
            fs::write(access.token_file(user), token)?;
        }
        fs::write(access.tokens(), tokens)?;
        Ok(access)
    }

    /// `https://…`
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// All tokens, as the API server reads them (Kubernetes, "Static token file").
    pub(super) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens.csv")
    }

    /// One user's token alone.
    pub(super) fn token_file(&self, user: User) -> PathBuf {
        self.folder.join(format!("{}.token", user.file()))
    }

    /// What `KUBECONFIG` points at.
    pub(super) fn configuration(&self, user: User) -> PathBuf {
        self.folder.join(format!("{}.conf", user.file()))
    }
}

fn token() -> String {
    let mut bytes = [0_u8; 16];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
