//! Transactions and savepoints: what of the settings they keep, and what they change back.

use super::{super::stacked::Stacked, Assertions, SAVEPOINTS};

/// Savepoints that are remembered: each is a name that the client chooses. The server itself keeps up to 64 open
/// ones of a session cheaply (`PGPROC_MAX_CACHED_SUBXIDS`).
const MAX_SAVEPOINTS: usize = 1_024;

impl Assertions {
    pub(super) fn savepoint(&mut self, name: &str) {
        if self.savepoints.len() >= MAX_SAVEPOINTS {
            return self.lose(SAVEPOINTS);
        }
        self.savepoints.push(name.into());
    }

    /// `RELEASE` ends the innermost savepoint of this name and all within it; `ROLLBACK TO` undoes them and begins that
    /// one again.
    pub(super) fn end_savepoint(&mut self, name: &str, release: bool) {
        self.failed = false;
        let Some(index) = self.savepoints.iter().rposition(|other| **other == *name) else {
            // One that was not seen: everything since is within it.
            if !self.bottomless {
                self.lose(SAVEPOINTS);
            } else if release {
                self.end_levels(2, true);
            } else {
                self.end_levels(1, false);
            }
            self.savepoints.clear();
            return;
        };
        self.end_levels(index + 2, release);
        self.savepoints.truncate(if release { index } else { index + 1 });
    }

    pub(super) fn end_transaction(&mut self, commit: bool) {
        self.end_levels(1, commit);
        self.savepoints.clear();
        (self.failed, self.bottomless, self.in_block) = (false, false, false);
        if std::mem::take(&mut self.procedure) {
            self.unseen = Stacked::new(self.now());
        }
    }

    pub(super) fn end_levels(&mut self, lowest: usize, commit: bool) {
        for level in (lowest..=self.level()).rev() {
            self.end_level(level, commit);
        }
    }

    pub(super) fn end_level(&mut self, level: usize, commit: bool) {
        let mut changed = self.unseen.end(level, commit);
        for (_, setting) in &mut self.changed {
            changed |= setting.end(level, commit);
        }
        if changed {
            self.shown = None;
        }
    }

    pub(super) fn level(&self) -> usize {
        1 + self.savepoints.len()
    }
}
