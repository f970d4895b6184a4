//! The newest batch that a collector acknowledged, kept on disk: with it a collector that was rolled back to an older
//! state is found out, also by an agent that was restarted since.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use evidence::Hash;

/// How often the file is written at the most: writing it takes longer than all else that a batch costs.
const PAUSE: Duration = Duration::from_millis(250);

/// The file, and what stands in it, or will before this is dropped.
pub struct Memory {
    path: PathBuf,
    newest: Option<(u64, Hash)>,
    /// `newest` is not in the file yet.
    unwritten: bool,
    written: Option<Instant>,
}

impl Memory {
    /// Reads what a former run left in the state folder. A file that cannot be understood counts as none.
    pub fn read(state_folder: &Path) -> Self {
        let path = state_folder.join("acknowledged");
        let newest = fs::read_to_string(&path).ok().and_then(|text| {
            let (sequence, hash) = text.trim().split_once(' ')?;
            let mut bytes = Hash::default();
            hex::decode_to_slice(hash, &mut bytes).ok()?;
            Some((sequence.parse().ok()?, bytes))
        });
        Self {
            path,
            newest,
            unwritten: false,
            written: None,
        }
    }

    /// The newest batch that was acknowledged, and its header's hash.
    pub fn newest(&self) -> Option<(u64, Hash)> {
        self.newest
    }

    /// A batch was acknowledged.
    pub fn acknowledged(&mut self, sequence: u64, hash: Hash) {
        if sequence == 0 || self.newest == Some((sequence, hash)) {
            return;
        }
        self.newest = Some((sequence, hash));
        self.unwritten = true;
        if self.written.is_none_or(|written| written.elapsed() >= PAUSE) {
            self.write();
        }
    }

    /// When [`Memory::write`] has something to do, if it has.
    pub fn due(&self) -> Option<Instant> {
        self.written
            .map(|written| written + PAUSE)
            .filter(|_| self.unwritten)
    }

    /// Writes what is not in the file yet.
    pub fn write(&mut self) {
        let Some((sequence, hash)) = self.newest.filter(|_| self.unwritten) else {
            return;
        };
        let text = format!("{sequence} {}\n", hex::encode(hash));
        let beside = self.path.with_extension("new");
        // Not synced, and no error if it fails: an older memory finds less, and never accuses falsely.
        if fs::write(&beside, text).is_ok() {
            let _ = fs::rename(&beside, &self.path);
        }
        self.unwritten = false;
        self.written = Some(Instant::now());
    }

    /// What is wrong with a collector that holds this much, in words; `None` if nothing is.
    pub fn objection(&self, sequence: u64, hash: &Hash) -> Option<String> {
        let (known, known_hash) = self.newest?;
        if sequence < known {
            return Some(format!(
                "batches up to {known} were acknowledged, but the collector holds {sequence}"
            ));
        }
        (sequence == known && *hash != known_hash)
            .then(|| format!("the collector holds another batch {known} than the one that was acknowledged"))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_forgot_is_found_out_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut memory = Memory::read(folder.path());
        assert_eq!(memory.objection(0, &[0; 32]), None);
        for sequence in 1..=7 {
            memory.acknowledged(sequence, [sequence as u8; 32]);
        }
        assert!(memory.due().is_some());
        drop(memory);
        let memory = Memory::read(folder.path());
        assert_eq!(memory.due(), None);
        assert_eq!(memory.objection(7, &[7; 32]), None);
        assert_eq!(
            memory.objection(9, &[9; 32]),
            None,
            "acknowledgements can be lost on the way"
        );
        assert!(memory.objection(6, &[6; 32]).is_some());
        assert!(memory.objection(7, &[8; 32]).is_some());
        fs::write(folder.path().join("acknowledged"), "nonsense").expect("written");
        assert_eq!(Memory::read(folder.path()).objection(0, &[0; 32]), None);
    }
}
