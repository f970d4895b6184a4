//! Checkpoints that a log must contain: the cosigned one in its folder, and those that were kept elsewhere.
//!
//! Owns what each says when it does not fit.

use evidence::{Checkpoint, Hash};

use super::{COSIGNED, Kept, Restored, Wrong};
use crate::log::Origin;

/// A checkpoint that the log must contain.
pub(super) struct Known {
    /// What to call it.
    pub(super) name: String,
    pub(super) checkpoint: Checkpoint,
    /// It says to be of another log; this one must have been made of a backup of that one.
    pub(super) foreign: Option<Vec<u8>>,
    /// The root that was found at its size.
    pub(super) found: Option<Hash>,
}

impl Known {
    pub(super) fn new(name: &str, checkpoint: Checkpoint) -> Self {
        Self {
            name: name.to_owned(),
            checkpoint,
            foreign: None,
            found: None,
        }
    }

    /// One that was kept elsewhere.
    pub(super) fn of(kept: &Kept, origin: &Origin) -> Result<Self, Wrong> {
        let said = Checkpoint::parse(&kept.note).filter(|said| said.origin != origin.origin);
        if let Some(checkpoint) = said {
            let foreign = Some(kept.note.clone());
            return Ok(Self {
                foreign,
                ..Self::new(&kept.name, checkpoint)
            });
        }
        let opened = Checkpoint::open_kept(&kept.note, &origin.verifier_key, &[]);
        let opened = opened.map_err(|error| does_not_fit(&kept.name, &error))?;
        Ok(Self::new(&kept.name, opened.0))
    }

    /// Checks one that says to be of another log.
    pub(super) fn is_of_backup(&self, origin: &Origin, restored: &[Restored]) -> Result<(), Wrong> {
        let Some(note) = &self.foreign else {
            return Ok(());
        };
        let (said, of) = (&self.checkpoint, |key: &str| {
            Checkpoint::open_kept(note, key, &[])
        });
        let Some(restored) = restored.iter().find(|old| of(&old.verifier_key).is_ok()) else {
            let found = of(&origin.verifier_key).map_or_else(|error| error.to_string(), |_| String::new());
            return Err(does_not_fit(&self.name, &found));
        };
        if said.size > restored.tree_size {
            let what = format!(
                "rolled back: the backup of {} that this log was made of has {} entries, the checkpoint kept elsewhere \
                 ({}) has {}",
                restored.origin, restored.tree_size, self.name, said.size
            );
            return Err(Wrong::new("payload", None, what));
        }
        match self.found == Some(said.root) {
            true => Ok(()),
            false => Err(self.another_history()),
        }
    }

    pub(super) fn another_history(&self) -> Wrong {
        let (size, name) = (self.checkpoint.size, self.name.as_str());
        if name == COSIGNED {
            let what = "its root is not the one of the batches in payload/";
            return Wrong::new(COSIGNED, None, what);
        }
        let what =
            format!("the log's first {size} entries are not those of the checkpoint kept elsewhere ({name})");
        Wrong::new("payload", None, what)
    }
}

fn does_not_fit(name: &str, why: &dyn std::fmt::Display) -> Wrong {
    let what = format!("the one kept elsewhere ({name}) does not fit: {why}");
    Wrong::new("checkpoint", None, what)
}
