//! Batches that are gone before a collector acknowledged them: given up because the spool was full, or not to be read any more.
//!
//! Owns what is known of them until the record says it: the next batch that is sealed names them in its header, and has an event
//! about each. Kept in a file that is durable before anything is deleted, so that no end in between makes a silence. Refuses to
//! decide what is given up.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use proto::v1;
use serde::{Deserialize, Serialize};

use crate::record::Encoded;

/// Holes that one header names: some 30 bytes each, and a header takes 4 KiB.
const IN_ONE_HEADER: usize = 32;

/// Batches that are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hole {
    /// Reason of the gap that tells of it.
    pub(super) reason: String,
    /// The first batch.
    pub(super) from: u64,
    /// The last.
    pub(super) to: u64,
    /// Events in them, if that can be known.
    pub(super) events: Option<u64>,
    /// Bytes of the spool that they took, or that cannot be read.
    pub(super) bytes: u64,
    /// When the first event began, nanoseconds since the Unix epoch.
    pub(super) first_ns: u64,
    /// When the last one ended.
    pub(super) last_ns: u64,
    /// The batch that says so. Not kept: it is found in the spool again, or nobody has it.
    #[serde(skip)]
    said: Option<u64>,
}

/// The holes that the record does not tell of yet.
pub(super) struct Holes {
    path: PathBuf,
    holes: Vec<Hole>,
}

impl Hole {
    pub(super) fn new(reason: &str, batches: &RangeInclusive<u64>) -> Self {
        Self {
            reason: reason.to_owned(),
            from: *batches.start(),
            to: *batches.end(),
            events: None,
            bytes: 0,
            first_ns: 0,
            last_ns: 0,
            said: None,
        }
    }

    fn event(&self) -> Encoded {
        let gap = v1::Gap {
            reason: self.reason.clone(),
            events_missing: self.events,
            detail: format!(
                "batches {} to {} of the spool, {} bytes, were not acknowledged and exist no more",
                self.from, self.to, self.bytes
            ),
            ..v1::Gap::default()
        };
        Encoded::of(&v1::Event {
            ts_start_ns: self.first_ns,
            ts_end_ns: self.last_ns,
            body: Some(v1::event::Body::Gap(gap)),
            ..v1::Event::default()
        })
    }
}

impl Holes {
    /// Reads what a former run left. A file that cannot be understood counts as none.
    pub(super) fn read(state: &Path) -> Self {
        let path = state.join("given-up");
        let holes = fs::read(&path).ok();
        let holes = holes.and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            path,
            holes: holes.unwrap_or_default(),
        }
    }

    /// Sequence of the newest batch that is known to be gone; 0 if none is.
    pub(super) fn newest(&self) -> u64 {
        self.holes.iter().map(|hole| hole.to).max().unwrap_or(0)
    }

    /// Whether the record has something to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.holes.is_empty()
    }

    /// Adds one, durably.
    ///
    /// # Errors
    ///
    /// If it cannot be kept: then nothing may be deleted.
    pub(super) fn add(&mut self, hole: Hole) -> io::Result<()> {
        self.holes.push(hole);
        let kept = self.write();
        if kept.is_err() {
            self.holes.pop();
        }
        kept
    }

    /// What the next batch is to say: its header, and its events.
    pub(super) fn unsaid(&self) -> Vec<(v1::GivenUp, Encoded)> {
        let unsaid = self.holes.iter().filter(|hole| hole.said.is_none());
        unsaid
            .take(IN_ONE_HEADER)
            .map(|hole| {
                let given_up = v1::GivenUp {
                    from: hole.from,
                    to: hole.to,
                    events: hole.events.unwrap_or(0),
                };
                (given_up, hole.event())
            })
            .collect()
    }

    /// That batch says these.
    pub(super) fn said(&mut self, given_up: &[v1::GivenUp], by: u64) {
        for hole in &mut self.holes {
            if given_up
                .iter()
                .any(|one| (one.from, one.to) == (hole.from, hole.to))
            {
                hole.said = Some(by);
            }
        }
    }

    /// These batches are gone, too, and with them what they said.
    pub(super) fn unsay(&mut self, batches: &RangeInclusive<u64>) {
        for hole in &mut self.holes {
            hole.said = hole.said.filter(|said| !batches.contains(said));
        }
    }

    /// Everything up to this batch is acknowledged: what it says is in the record.
    pub(super) fn acknowledged(&mut self, sequence: u64) {
        let before = self.holes.len();
        self.holes
            .retain(|hole| hole.said.is_none_or(|said| said > sequence));
        if self.holes.len() < before {
            // Should it fail, the next run finds nothing that says it, and says it again.
            let _ = self.write();
        }
    }

    /// Numbers behind this one are given anew: nothing of them is gone.
    pub(super) fn renumbered(&mut self, behind: u64) {
        self.holes.retain(|hole| hole.to <= behind);
        let _ = self.write();
    }

    fn write(&self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&self.holes)?)?;
        file.sync_data()?;
        fs::rename(&beside, &self.path)?;
        self.path
            .parent()
            .map_or(Ok(()), |state| File::open(state)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_known_until_the_record_says_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut holes = Holes::read(folder.path());
        assert!(holes.is_empty());
        for n in 0..40 {
            holes
                .add(Hole::new("spool_dropped", &(n * 10 + 1..=n * 10 + 10)))
                .expect("kept");
        }
        let mut holes = Holes::read(folder.path());
        assert_eq!((holes.newest(), holes.unsaid().len()), (400, IN_ONE_HEADER));
        let said: Vec<v1::GivenUp> = holes.unsaid().into_iter().map(|(said, _)| said).collect();
        holes.said(&said, 500);
        assert_eq!(holes.unsaid().len(), 8);
        holes.unsay(&(490..=510));
        assert_eq!(
            holes.unsaid().len(),
            IN_ONE_HEADER,
            "the batch that said it is gone, too"
        );
        holes.said(&said, 500);
        holes.acknowledged(499);
        assert_eq!(Holes::read(folder.path()).newest(), 400);
        holes.acknowledged(500);
        let holes = Holes::read(folder.path());
        assert_eq!(holes.unsaid().first().map(|(said, _)| said.from), Some(321));
    }
}
