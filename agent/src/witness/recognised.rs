//! Which processes are poolers: the kernel side marks by name, the broker looks at the executable.

use ebpf_abi::SocketFact;
use tracing::info;

use super::Witness;
use crate::broker::NoAnswer;

impl Witness {
    /// Has the poolers followed that run already.
    pub(super) fn find_poolers(&mut self) -> anyhow::Result<()> {
        let running = self.broker.poolers()?;
        self.poolers
            .retain(|pid, _| running.iter().any(|(running, _)| running == pid));
        for (pid, program) in running {
            self.recognised(pid, program);
        }
        Ok(())
    }

    /// Whether the process of this socket is a pooler. It is asked about when it first uses a socket: one that was forked is
    /// never seen to begin a program.
    pub(super) fn is_pooler(&mut self, fact: &SocketFact) -> bool {
        if self.poolers.contains_key(&fact.tgid) {
            return true;
        }
        match self.broker.pooler(fact.tgid) {
            Ok(Some(program)) => self.recognised(fact.tgid, program),
            // The kernel side took the mark back, or the process has ended.
            Ok(None) => return false,
            // It is named like one: better a hop too many than a relay's name for what it passed on.
            Err(NoAnswer) => {}
        }
        true
    }

    /// A process ended, or runs another program.
    pub(super) fn no_pooler(&mut self, pid: u32) {
        self.poolers.remove(&pid);
    }

    fn recognised(&mut self, pid: u32, program: String) {
        let said = format!("following a pooler: {program} ({pid})");
        if self.poolers.insert(pid, program).is_none() {
            info!("{said}");
        }
    }
}
