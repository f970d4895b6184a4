//! The inventory that is in effect: who is expected to do what, as a file says it now.
//!
//! Owns the file's reading at the start and again whenever it changes, and what is said of that. The judgement is the
//! crate `inventory`'s; `judge` puts it to questions. Refuses to be part of the record: marks are made when somebody asks, by
//! the file of that moment, so that a corrected file clears false alarms of the past, too.

mod judge;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use inventory::Inventory;
use tokio::time::MissedTickBehavior;

pub use judge::{Asked, Judge, Verdict, day, with_mark};

use crate::metrics::Metrics;

/// What is expected, and where that is written.
#[derive(Debug)]
pub struct Expectations {
    file: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    judge: Arc<Judge>,
    /// When it was read.
    since: jiff::Timestamp,
    /// Of the file that `judge` or `problem` comes from.
    stamp: Option<Stamp>,
    /// Why the file, as it is now, is not in effect.
    problem: Option<String>,
}

/// What tells a file from the one that was there before, and from itself before it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

/// How it stands, for status pages.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExpectationsStatus {
    /// The file.
    pub file: String,
    /// Entries in effect.
    pub principals: usize,
    /// When they were read (RFC 3339).
    pub since: String,
    /// Why the file, as it is now, is not in effect: the former one is. Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Expectations {
    /// Reads `file`.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is no inventory; one line that says where.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        // Before its contents: what is written in between shows as a change.
        let stamp = Stamp::of(file);
        let current = Current {
            judge: Arc::new(Judge::new(read(file)?)),
            since: jiff::Timestamp::now(),
            stamp,
            problem: None,
        };
        Ok(Self {
            file: file.to_owned(),
            current: Mutex::new(current),
        })
    }

    /// Judges by what is in effect now.
    pub fn judge(&self) -> Arc<Judge> {
        Arc::clone(&self.current().judge)
    }

    /// How it stands.
    pub fn status(&self) -> ExpectationsStatus {
        let current = self.current();
        ExpectationsStatus {
            file: self.file.display().to_string(),
            principals: current.judge.inventory().len(),
            since: current.since.to_string(),
            problem: current.problem.clone(),
        }
    }

    /// Looks after the file for as long as this is polled.
    pub async fn watch(self: Arc<Self>, metrics: Arc<Metrics>) {
        self.count(&metrics);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = Stamp::of(&self.file);
        loop {
            ticks.tick().await;
            let here = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || here.look(before)).await;
            // It does not panic; were it to, the former inventory stays in effect.
            let Ok((stamp, changed)) = looked else { continue };
            before = stamp;
            if changed {
                self.count(&metrics);
            }
        }
    }

    /// Reads the file again if it is another one than that in effect and has stood still since the last look: who writes
    /// it in place is not interrupted. Its stamp, and whether anything changed.
    fn look(&self, before: Option<Stamp>) -> (Option<Stamp>, bool) {
        let stamp = Stamp::of(&self.file);
        if stamp != before || stamp == self.current().stamp {
            return (stamp, false);
        }
        let found = read(&self.file);
        let mut current = self.current();
        current.stamp = stamp;
        match found {
            Ok(inventory) => {
                tracing::info!(file = %self.file.display(), principals = inventory.len(), "the inventory was read anew");
                current.judge = Arc::new(Judge::new(inventory));
                current.since = jiff::Timestamp::now();
                current.problem = None;
            }
            Err(error) => {
                let problem = format!("{error:#}");
                tracing::error!("{problem}; the former inventory stays in effect");
                current.problem = Some(problem);
            }
        }
        (stamp, true)
    }

    fn count(&self, metrics: &Metrics) {
        let current = self.current();
        let principals = i64::try_from(current.judge.inventory().len()).unwrap_or(i64::MAX);
        metrics.inventory_principals.set(principals);
        metrics.inventory_unusable.set(current.problem.is_some().into());
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // It is whole between any two statements that change it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    /// `None` if there is no such file.
    fn of(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        Some(Self {
            inode: (found.dev(), found.ino()),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Reads an inventory.
///
/// # Errors
///
/// If the file cannot be read or is no inventory; one line that says where.
pub fn read(file: &Path) -> anyhow::Result<Inventory> {
    let unreadable = || format!("cannot read the inventory {}", file.display());
    let found = fs::metadata(file).with_context(unreadable)?;
    if !found.is_file() || found.len() > MAX_FILE_BYTES {
        bail!(
            "the inventory {} is no file of at most {MAX_FILE_BYTES} bytes",
            file.display()
        );
    }
    let mut text = String::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .with_context(unreadable)?;
    Inventory::parse(&text).with_context(|| format!("the inventory {} cannot be used", file.display()))
}

/// How often the file is looked at: a change is in effect after twice this time at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Some hundred thousand principals.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> String {
        format!("[[principal]]\nid = \"{id}\"\nowner = \"t\"\n")
    }

    /// As the watching task does it, once the file stands still.
    fn look(here: &Expectations) -> bool {
        here.look(Stamp::of(&here.file)).1
    }

    #[test]
    fn a_file_that_is_replaced_or_written_to_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inventory.toml");
        fs::write(&file, entry("spiffe://x/a")).unwrap();
        let here = Expectations::open(&file).unwrap();
        assert!(!look(&here), "nothing changed");
        let next = folder.path().join("next");
        fs::write(&next, entry("spiffe://x/b")).unwrap();
        fs::rename(&next, &file).unwrap();
        assert!(!here.look(None).1, "it may still be being written");
        assert!(look(&here) && !look(&here));
        assert!(here.judge().inventory().entries()[0].is_about("spiffe://x/b"));
        fs::write(&file, entry("spiffe://x/c") + &entry("spiffe://x/d")).unwrap();
        assert!(look(&here));
        assert_eq!(here.status().principals, 2);
    }

    #[test]
    fn what_cannot_be_used_leaves_the_former_in_effect_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inventory.toml");
        assert!(Expectations::open(&file).is_err());
        assert!(Expectations::open(folder.path()).is_err(), "a folder");
        fs::write(&file, entry("spiffe://x/a")).unwrap();
        let here = Expectations::open(&file).unwrap();
        let metrics = Metrics::default();
        for (broken, told) in [(Some("[[principle]]\n"), "principle"), (None, "cannot read")] {
            match broken {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            assert!(look(&here));
            let status = here.status();
            assert_eq!(status.principals, 1);
            let problem = status.problem.unwrap();
            assert!(problem.contains(told) && !problem.contains('\n'), "{problem}");
            here.count(&metrics);
            let text = metrics.encode();
            assert!(
                text.contains("pgwitness_collector_inventory_unusable 1\n"),
                "{text}"
            );
        }
        fs::write(&file, entry("spiffe://x/b")).unwrap();
        assert!(look(&here));
        assert!(here.status().problem.is_none());
        here.count(&metrics);
        assert!(metrics.encode().contains("inventory_unusable 0\n"));
    }
}
