//! Server and pooler on two hosts: a network namespace, a cgroup and an agent each.
//!
//! Owns namespaces, the wire between them, and what the agents have to be told so that neither sees both ends.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::suite::identity::networks::Networks;
use crate::tap::{Settings, Tier};
use crate::unit::cgroup2_mount;

/// The two hosts of a scene.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) networks: Networks,
    run: String,
}

impl Hosts {
    /// Makes them.
    pub(super) fn make(run: &str) -> Result<Self> {
        let mut networks = Networks::new();
        for name in [SERVERS_HOST, CLIENTS_HOST] {
            networks.add(name)?;
        }
        let address = |address: &str| format!("{address}/24");
        let (server, client) = (address(SERVERS_ADDRESS), address(CLIENTS_ADDRESS));
        networks.wire((SERVERS_HOST, Some(&server)), (CLIENTS_HOST, Some(&client)))?;
        Ok(Self {
            networks,
            run: run.to_owned(),
        })
    }

    /// The run's name for units of a host.
    pub(super) fn run(&self, host: &str) -> String {
        format!("{}.slice/{host}", self.run)
    }

    /// Puts the server into its host's cgroup; its later backends are born there.
    pub(super) fn take_server(&self, cluster: &Cluster) -> Result<()> {
        let folder = self.folder(SERVERS_HOST)?.join("postgresql.service");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let pids = fs::read_to_string(cluster.data().join("postmaster.pid"))?;
        let pid = pids.lines().next().context("postmaster.pid is empty")?;
        Ok(fs::write(folder.join("cgroup.procs"), pid)?)
    }

    /// An agent that has to do with one host alone.
    pub(super) fn settings(&self, host: &str) -> Settings {
        Settings {
            keys: vec![
                ("TAP__WITHIN", format!("/{}.slice", self.run(host))),
                ("AGENT__HOST", host.to_owned()),
            ],
            ..Settings::clear(Tier::Auto)
        }
    }

    fn folder(&self, host: &str) -> Result<PathBuf> {
        Ok(cgroup2_mount()?.join(format!("{}.slice", self.run(host))))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // From the leaves up; what is left of others stays.
        for host in [SERVERS_HOST, CLIENTS_HOST] {
            if let Ok(folder) = self.folder(host) {
                for path in [folder.join("postgresql.service"), folder.clone()] {
                    drop(fs::remove_dir(path));
                }
                drop(folder.parent().map(fs::remove_dir));
            }
        }
    }
}

/// Where the server is, and its agent.
pub(super) const SERVERS_HOST: &str = "db";
/// Where pooler and clients are, and theirs.
pub(super) const CLIENTS_HOST: &str = "app";
pub(super) const SERVERS_ADDRESS: &str = "10.97.1.2";
const CLIENTS_ADDRESS: &str = "10.97.1.3";
