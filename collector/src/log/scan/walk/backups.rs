//! Of which backups a log was made.
//!
//! Owns what is believed of that: the word of the log's own chain, and of those that it leads to.

use evidence::Checkpoint;
use proto::v1::LogRestored;

use super::{Restored, Walk};
use crate::log::originator::predecessor;

impl Walk<'_> {
    /// Checks what a collector says of the backup that its log was made of. Of chains that only might be a collector's, what
    /// does not hold says nothing: any agent may call itself so.
    pub(super) fn restored(&mut self, by: &str, restored: &LogRestored, entry: u64) -> Result<(), String> {
        let of = Checkpoint::open_kept(restored.checkpoint.as_bytes(), &restored.verifier_key, &[]);
        let of = of.map_err(|error| format!("the checkpoint of the backup does not hold: {error}"));
        let of = of.and_then(|(of, _)| match of.size == entry && of.root == self.done.tiling.root() {
            true => Ok(of),
            false => Err(format!(
                "it says that the log was made of a backup of {} entries, which are not the {entry} before it",
                of.size
            )),
        });
        let of = match of {
            Ok(of) => of,
            Err(wrong) if self.own.as_deref() == Some(by) => return Err(wrong),
            Err(_) => return Ok(()),
        };
        self.done.restored.push(Restored {
            by: by.to_owned(),
            own: predecessor(restored, &self.done.keys),
            origin: of.origin,
            verifier_key: restored.verifier_key.clone(),
            tree_size: of.size,
        });
        Ok(())
    }

    /// Keeps of the backups those that this log goes back to, the oldest first; and the chains whose word counts by that.
    pub(super) fn predecessors(&mut self) -> Vec<String> {
        let mut own: Vec<String> = self.own.iter().cloned().collect();
        let mut restored = Vec::new();
        while let Some(last) = own.last()
            && let Some(of) = self.done.restored.iter().find(|restored| restored.by == *last)
        {
            restored.insert(0, of.clone());
            match of.own.clone().filter(|before| !own.contains(before)) {
                Some(before) => own.push(before),
                None => break,
            }
        }
        self.done.restored = restored;
        own
    }
}
