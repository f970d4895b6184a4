//! Who may deliver: the collector's own authority, its tokens, its agents, and what is said of each.
//!
//! Owns `<data>/trust` and the decision over each connection. The commands (`agent`, `ca`) write that folder, the running
//! collector reads it again when it changes; so neither needs the other. Refuses to look at batches: their signatures are
//! `ingest`'s and the log's.

mod api_server;
mod authorities;
mod commands;
mod enrolment;
mod listener;
mod registry;
mod service_account;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::trust::Digest;
use tokio::sync::watch;

pub(crate) use authorities::{Authorities, Own, Tls, certificates, private};
pub use commands::{AgentArgs, CaArgs, agent, ca};
pub(crate) use commands::{Which, date};
pub(crate) use enrolment::EnrolmentService;
pub(crate) use listener::{Connection, admit_connections};
pub(crate) use registry::{Registry, make_folder, read, read_all, remove, write};
pub(crate) use service_account::Reviewer;

use crate::alarms::Alarm;

/// How often it is looked whether the folder has changed: so long an agent that is turned out goes on.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Who is at the other end of a TLS connection.
#[derive(Clone, Debug)]
pub struct Peer(pub(crate) Option<Arc<Shown>>);

/// A certificate whose chain holds.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Agents that it names.
    pub(crate) agents: Vec<String>,
    pub(crate) digest: Digest,
    /// Seconds since the Unix epoch.
    pub(crate) not_after: u64,
}

/// Why an agent may not deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it is told as.
    pub alarm: Alarm,
    /// For people: what was expected, and what to do.
    pub reason: String,
}

/// What the operator wants of an agent that is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Another certificate: the authority is changing.
    Renew,
    /// Another batch key.
    RotateKey,
}

/// The decision over connections.
#[derive(Clone, Debug)]
pub struct Admission {
    registry: Option<Registry>,
    /// Agents' certificates are of the collector's own authority, so that it knows each that is good.
    own: bool,
    changes: watch::Receiver<u64>,
}

impl Admission {
    /// Everybody may deliver: for a collector that nobody else can reach.
    #[must_use]
    pub fn everybody() -> Self {
        Self {
            registry: None,
            own: false,
            changes: watch::channel(0).1,
        }
    }

    /// By what `<data>/trust` says. It is looked at again for as long as this, or a copy of it, is there. `own`: certificates are the
    /// collector's own authority's.
    #[must_use]
    pub fn by(data: &Path, own: bool) -> Self {
        let registry = Registry::in_data(data);
        let (say, changes) = watch::channel(0);
        let looked_at = registry.clone();
        tokio::spawn(async move {
            let mut before = looked_at.changed();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let now = looked_at.changed();
                if now != before {
                    before = now;
                    say.send_modify(|times| *times += 1);
                }
                if say.is_closed() {
                    return;
                }
            }
        });
        Self {
            registry: Some(registry),
            own,
            changes,
        }
    }

    /// Changes when something may be decided differently.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        changes
    }

    /// Whether this agent may deliver over this connection.
    pub(crate) fn admit(&self, peer: Option<&Peer>, agent_id: &str) -> Result<(), Refusal> {
        let refuse = |alarm, reason: String| Err(Refusal { alarm, reason });
        let Some(registry) = &self.registry else {
            return Ok(());
        };
        let known = match registry.agent(agent_id) {
            Ok(known) => known,
            // Nobody is let in by a file that cannot be read.
            Err(error) => return refuse(Alarm::UnknownAgent, format!("{error:#}")),
        };
        if let Some(known) = &known
            && let Some(revoked) = &known.revoked
        {
            return refuse(
                Alarm::RevokedAgent,
                format!("the agent {agent_id:?} is revoked ({})", revoked.reason),
            );
        }
        let Some(Peer(shown)) = peer else { return Ok(()) };
        let Some(shown) = shown else {
            return refuse(
                Alarm::UnknownAgent,
                "the agent showed no certificate: enrol it first (pgwitness-agent enroll)".to_owned(),
            );
        };
        if !shown.agents.iter().any(|name| name == agent_id) {
            return refuse(
                Alarm::WrongCertificate,
                format!(
                    "it says that it is {agent_id:?}, but its certificate is of {:?}",
                    shown.agents
                ),
            );
        }
        if !self.own {
            return Ok(());
        }
        let Some(known) = known else {
            return refuse(
                Alarm::UnknownAgent,
                format!("no agent {agent_id:?} was enrolled here"),
            );
        };
        if !known.holds(&shown.digest) {
            return refuse(
                Alarm::WrongCertificate,
                format!("the certificate of {agent_id:?} was replaced by a newer one"),
            );
        }
        Ok(())
    }

    /// What is to be said to an agent that signs by `key`.
    pub(crate) fn wishes(&self, peer: Option<&Peer>, agent_id: &str, key: &[u8]) -> Vec<Wish> {
        let known = self
            .registry
            .as_ref()
            .map(|registry| (registry, registry.agent(agent_id)));
        let Some((registry, Ok(Some(known)))) = known else {
            return Vec::new();
        };
        let mut wishes = Vec::new();
        if known.rotate_key.as_deref() == Some(hex::encode(key).as_str()) {
            wishes.push(Wish::RotateKey);
        }
        let newest = registry.newest_authority().map(hex::encode);
        if self.own && peer.is_some() && newest.is_some() && known.authority != newest {
            wishes.push(Wish::Renew);
        }
        wishes
    }
}

impl Peer {
    /// How long its certificate is good for yet.
    pub(crate) fn remaining(&self) -> Duration {
        let not_after = self.0.as_ref().map_or(0, |shown| shown.not_after);
        Duration::from_secs(not_after.saturating_sub(unix_s()))
    }
}

/// The folder.
pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("trust")
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
