//! Names by servers' catalogs: what is found goes to the pipeline, and what the agent itself asked for it is left out.

use super::Witness;
use crate::catalog::looks::Looks;

/// Under which name statements of the agent's own connections are told as left out. No policy's rule can have it.
pub(super) const OWN: &str = "(the agent's own: catalog)";

impl Witness {
    /// From here on, catalogs are looked at.
    pub fn look_at_catalogs(&mut self, looks: Option<Looks>) {
        self.looks = looks;
    }

    /// Takes what was found since, and has looked at what is due.
    pub fn go_on_looking(&mut self) {
        if let Some(looks) = &mut self.looks {
            looks.go_on(&mut self.tap);
        }
    }

    /// A process has ended.
    pub(super) fn catalog_process_ended(&mut self, pid: u32) {
        if let Some(looks) = &mut self.looks {
            looks.ended(pid);
        }
    }

    /// Statements of the agent's own connections.
    pub(super) fn own_left_out(&self) -> u64 {
        self.looks.as_ref().map_or(0, Looks::left_out)
    }
}
