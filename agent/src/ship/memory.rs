//! The newest batch that each collector acknowledged, kept on disk: with it a collector that was rolled back to an older
//! state is found out, also by an agent that was restarted since, and one that comes new is told how far others came.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use evidence::Hash;

/// How often the file is written at the most: writing it takes longer than all else that a batch costs.
const PAUSE: Duration = Duration::from_millis(250);

/// The file, and what stands in it, or will before this is dropped. A line for each collector: sequence, hash of the header, and its
/// place as the configuration has it.
pub struct Memory {
    path: PathBuf,
    newest: BTreeMap<String, (u64, Hash)>,
    /// `newest` is not in the file yet.
    unwritten: bool,
    written: Option<Instant>,
}

impl Memory {
    /// Reads what a former run left in the state folder. A line that cannot be understood counts as none.
    pub fn read(state_folder: &Path) -> Self {
        let path = state_folder.join("acknowledged");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let newest = text.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (sequence, hash) = (words.next()?, words.next()?);
            let mut bytes = Hash::default();
            hex::decode_to_slice(hash, &mut bytes).ok()?;
            Some((words.next()?.to_owned(), (sequence.parse().ok()?, bytes)))
        });
        Self {
            newest: newest.collect(),
            path,
            unwritten: false,
            written: None,
        }
    }

    /// The newest batch that this collector acknowledged, and its header's hash.
    pub fn of(&self, collector: &str) -> Option<(u64, Hash)> {
        self.newest.get(collector).copied()
    }

    /// The newest batch that any collector acknowledged, and which did.
    pub fn newest(&self) -> Option<(u64, &str)> {
        let all = self.newest.iter();
        all.map(|(collector, (sequence, _))| (*sequence, collector.as_str()))
            .max()
    }

    /// A batch was acknowledged.
    pub fn acknowledged(&mut self, collector: &str, sequence: u64, hash: Hash) {
        if sequence == 0 || self.of(collector) == Some((sequence, hash)) {
            return;
        }
        match self.newest.get_mut(collector) {
            Some(newest) => *newest = (sequence, hash),
            None => _ = self.newest.insert(collector.to_owned(), (sequence, hash)),
        }
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
        if !self.unwritten {
            return;
        }
        // Not synced, and no error if it fails: an older memory finds less, and never accuses falsely.
        let _ = self.replace(false);
        self.unwritten = false;
        self.written = Some(Instant::now());
    }

    /// Makes durable what is known.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn sync(&mut self) -> io::Result<()> {
        self.replace(true)?;
        self.unwritten = false;
        Ok(())
    }

    fn replace(&self, durable: bool) -> io::Result<()> {
        let lines = self.newest.iter();
        let lines = lines
            .map(|(collector, (sequence, hash))| format!("{sequence} {} {collector}\n", hex::encode(hash)));
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(lines.collect::<String>().as_bytes())?;
        if durable {
            file.sync_data()?;
        }
        fs::rename(&beside, &self.path)
    }

    /// What is wrong with a collector that holds this much, in words; `None` if nothing is.
    pub fn objection(&self, collector: &str, sequence: u64, hash: &Hash) -> Option<String> {
        let (known, known_hash) = self.of(collector)?;
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
        assert_eq!(memory.objection("a", 0, &[0; 32]), None);
        for sequence in 1..=7 {
            memory.acknowledged("a", sequence, [sequence as u8; 32]);
        }
        memory.acknowledged("unix:/a folder/b", 9, [9; 32]);
        assert!(memory.due().is_some());
        drop(memory);
        let memory = Memory::read(folder.path());
        assert_eq!(memory.due(), None);
        assert_eq!(memory.newest(), Some((9, "unix:/a folder/b")));
        assert_eq!(memory.objection("a", 7, &[7; 32]), None);
        assert_eq!(
            memory.objection("a", 9, &[9; 32]),
            None,
            "acknowledgements can be lost on the way"
        );
        assert!(memory.objection("a", 6, &[6; 32]).is_some());
        assert!(memory.objection("a", 7, &[8; 32]).is_some());
        assert_eq!(
            memory.objection("another", 0, &[0; 32]),
            None,
            "it never had anything"
        );
        fs::write(folder.path().join("acknowledged"), "nonsense").expect("written");
        assert_eq!(Memory::read(folder.path()).objection("a", 0, &[0; 32]), None);
    }
}
