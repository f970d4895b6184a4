//! Which processes are poolers: the kernel side marks by name, the broker looks at the executable, and puts its probes into
//! the library that encrypts.

use ebpf_abi::SocketFact;
use tracing::info;

use super::Witness;
use crate::{broker::NoAnswer, facts::poolers::Pooler};

/// When a program has loaded its libraries, in nanoseconds after it began. A pooler that begins takes longer until it has
/// clients.
const LOADED_NS: u64 = 50_000_000;

impl Witness {
    /// The poolers that are followed.
    pub fn poolers(&self) -> impl Iterator<Item = (u32, &Pooler)> {
        self.poolers.iter().map(|(pid, pooler)| (*pid, pooler))
    }

    /// Has the poolers followed that run already.
    pub(super) fn find_poolers(&mut self) -> anyhow::Result<()> {
        let running = self.broker.poolers()?;
        self.poolers
            .retain(|pid, _| running.iter().any(|(running, _)| running == pid));
        for (pid, pooler) in running {
            self.recognised(pid, pooler);
        }
        Ok(())
    }

    /// A program began that is named like a pooler.
    pub(super) fn pooler_began(&mut self, pid: u32, at: u64) {
        self.look_at_pooler(pid);
        self.loading.push((at + LOADED_NS, pid));
    }

    /// Looks again at those that have loaded their libraries meanwhile.
    pub(super) fn look_at_loaded(&mut self, now: u64) {
        while let Some((at, pid)) = self.loading.first().copied().filter(|(at, _)| *at <= now) {
            self.loading.retain(|waiting| *waiting != (at, pid));
            self.look_at_pooler(pid);
        }
    }

    /// Whether the process of this socket is a pooler. One that was forked is never seen to begin a program, and asked about
    /// when it first uses a socket.
    pub(super) fn is_pooler(&mut self, fact: &SocketFact) -> bool {
        self.poolers.contains_key(&fact.tgid) || self.look_at_pooler(fact.tgid)
    }

    /// A process ended, or runs another program.
    pub(super) fn no_pooler(&mut self, pid: u32) {
        if self.poolers.remove(&pid).is_some() {
            self.broker.ended(pid);
        }
    }

    fn look_at_pooler(&mut self, pid: u32) -> bool {
        match self.broker.pooler(pid) {
            Ok(Some(pooler)) => self.recognised(pid, pooler),
            // The kernel side took the mark back, or the process has ended.
            Ok(None) => return false,
            // It is named like one: better a hop too many than a relay's name for what it passed on.
            Err(NoAnswer) => {}
        }
        true
    }

    fn recognised(&mut self, pid: u32, pooler: Pooler) {
        if self.poolers.get(&pid) != Some(&pooler) {
            info!(
                "following a pooler: {pid} ({}, {})",
                pooler.program,
                pooler.encryption()
            );
        }
        self.poolers.insert(pid, pooler);
    }
}
