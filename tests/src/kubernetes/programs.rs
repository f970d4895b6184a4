//! Where the programs of a cluster are: `cargo xtask setup --kubernetes` built them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A folder with `bin` and `cni`.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those in the cache.
    ///
    /// # Errors
    /// When they were not built.
    pub fn find() -> Result<Self> {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?;
        Self::in_folder(cache.join("pgwitness/kubernetes"))
    }

    /// Those of one folder.
    ///
    /// # Errors
    /// When they are not there.
    pub fn in_folder(folder: PathBuf) -> Result<Self> {
        let programs = Self { folder };
        for name in NEEDED {
            ensure!(
                programs.program(name).is_file(),
                "{} is not there: `cargo xtask setup --kubernetes` builds it",
                programs.program(name).display()
            );
        }
        Ok(programs)
    }

    /// One of them.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries().join(name)
    }

    /// Where containerd finds what it starts.
    pub(super) fn binaries(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// What gives pods their networks.
    pub(super) fn plugins(&self) -> PathBuf {
        self.folder.join("cni")
    }
}

/// Helm is asked for when it is used.
const NEEDED: [&str; 10] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];
