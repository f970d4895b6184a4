//! Where the spool lies in the state folder, and whether its newest batch is surely the newest that was ever sent.
//!
//! Owns the folders `spool`, `spool-anew`, `spool-gone` and the file `chain`. After a loss of power the spool may lack batches that a
//! collector has, because what is acknowledged promptly is never synced: then the chain's end is in doubt, and nothing is sealed
//! before a collector has said how far it came. The file says which boot wrote to the spool, whether all of it was synced in
//! the end, and to whom batches went: that collector alone knows which of the newest were sent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use spool::disk::Real;

/// The places.
#[derive(Clone, Debug)]
pub(super) struct Place {
    state: PathBuf,
    boot: String,
    /// The collector that batches go to; of a former run, until this one has one.
    used: Option<Used>,
}

/// A collector that batches went to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// As the configuration has it.
    pub(super) collector: String,
    /// Names its log; empty if it did not say.
    pub(super) origin: String,
}

impl Place {
    pub(super) fn new(state: &Path, boot: &str) -> Self {
        let said = fs::read_to_string(state.join(CHAIN)).unwrap_or_default();
        let mut words = said.trim_end().splitn(4, ' ').skip(2);
        let used = words.next().zip(words.next()).map(|(origin, collector)| Used {
            collector: collector.to_owned(),
            origin: if origin == NO_ORIGIN { "" } else { origin }.to_owned(),
        });
        Self {
            state: state.to_owned(),
            boot: boot.to_owned(),
            used,
        }
    }

    /// The collector that batches went to last.
    pub(super) fn used(&self) -> Option<&Used> {
        self.used.as_ref()
    }

    /// Batches go to this collector from here on.
    pub(super) fn uses(&mut self, used: Used) {
        self.used = Some(used);
    }

    /// The spool's folder, after a change of folders that was under way has been ended.
    pub(super) fn folder(&self) -> io::Result<Real> {
        let (now, anew) = (self.state.join(NOW), self.state.join(ANEW));
        match (now.exists(), anew.exists()) {
            // It was complete, or the old one would be there.
            (false, true) => fs::rename(&anew, &now)?,
            (true, true) => fs::remove_dir_all(&anew)?,
            _ => {}
        }
        remove(&self.state.join(GONE))?;
        Real::folder(&now)
    }

    /// An empty folder for a spool that is to replace the one in use.
    pub(super) fn anew(&self) -> io::Result<Real> {
        let anew = self.state.join(ANEW);
        remove(&anew)?;
        Real::folder(&anew)
    }

    /// The new folder, which is complete and durable, is the one in use from here on.
    pub(super) fn replace(&self) -> io::Result<Real> {
        let (now, gone) = (self.state.join(NOW), self.state.join(GONE));
        remove(&gone)?;
        fs::rename(&now, &gone)?;
        fs::rename(self.state.join(ANEW), &now)?;
        File::open(&self.state)?.sync_all()?;
        remove(&gone)?;
        Real::folder(&now)
    }

    /// Whether a former run's end of the chain holds: it was of this boot, or synced everything.
    pub(super) fn is_sure(&self) -> bool {
        let said = fs::read_to_string(self.state.join(CHAIN)).unwrap_or_default();
        let mut words = said.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some(boot), Some(how)) => boot == self.boot || how == CLEAN,
            _ => false,
        }
    }

    /// This boot writes to the spool from here on; or it has ended, and everything is synced.
    pub(super) fn note(&self, clean: bool) -> io::Result<()> {
        let beside = self.state.join("chain.new");
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&beside)?;
        write!(file, "{} {}", self.boot, if clean { CLEAN } else { "open" })?;
        if let Some(Used { collector, origin }) = &self.used {
            let origin = if origin.is_empty() { NO_ORIGIN } else { origin };
            write!(file, " {origin} {collector}")?;
        }
        writeln!(file)?;
        file.sync_data()?;
        fs::rename(&beside, self.state.join(CHAIN))?;
        File::open(&self.state)?.sync_all()
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const NOW: &str = "spool";
const ANEW: &str = "spool-anew";
const GONE: &str = "spool-gone";
const CHAIN: &str = "chain";
const CLEAN: &str = "clean";
const NO_ORIGIN: &str = "-";

#[cfg(test)]
mod tests {
    use spool::disk::Disk as _;

    use super::*;

    #[test]
    fn a_chain_is_sure_in_the_same_boot_or_after_a_good_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |boot| Place::new(folder.path(), boot);
        assert!(!place("a").is_sure(), "nothing is known");
        place("a").note(false).expect("noted");
        assert!(place("a").is_sure() && !place("b").is_sure());
        place("a").note(true).expect("noted");
        assert!(place("a").is_sure() && place("b").is_sure());
        place("b").note(false).expect("noted");
        assert!(place("b").is_sure() && !place("c").is_sure());
    }

    #[test]
    fn who_was_used_last_is_known_to_the_next_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut place = Place::new(folder.path(), "a");
        place.note(false).expect("noted");
        assert_eq!(Place::new(folder.path(), "a").used(), None);
        for origin in ["", "pgwitness/one"] {
            let used = Used {
                collector: "unix:/a folder/grpc".to_owned(),
                origin: origin.to_owned(),
            };
            place.uses(used.clone());
            place.note(false).expect("noted");
            assert!(place.is_sure());
            assert_eq!(Place::new(folder.path(), "b").used(), Some(&used));
        }
    }

    #[test]
    fn a_change_of_folders_is_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::new(folder.path(), "a");
        let names = |disk: Real| disk.list().expect("listed");
        place.folder().expect("made").create("old").expect("made");
        // Ended on the way: what was begun does not count.
        place.anew().expect("made").create("half").expect("made");
        assert_eq!(names(place.folder().expect("there")), ["old"]);
        place.anew().expect("made").create("new").expect("made");
        assert_eq!(names(place.replace().expect("replaced")), ["new"]);
        // Ended between the two steps of the change.
        place.anew().expect("made").create("newer").expect("made");
        fs::rename(folder.path().join(NOW), folder.path().join(GONE)).expect("renamed");
        assert_eq!(names(place.folder().expect("there")), ["newer"]);
        assert!(!folder.path().join(GONE).exists());
    }
}
