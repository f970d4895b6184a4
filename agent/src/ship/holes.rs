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

    /// Takes in one that follows at once, unless the record was told of one of both alone. Whether it did.
    fn takes_in(&mut self, next: &Self) -> bool {
        let alike = self.reason == next.reason && self.to + 1 == next.from;
        if !alike || self.said.is_some() || next.said.is_some() {
            return false;
        }
        self.to = next.to;
        self.events = self.events.zip(next.events).map(|(events, more)| events + more);
        self.bytes += next.bytes;
        self.last_ns = self.last_ns.max(next.last_ns);
        true
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

    /// Adds one, durably. What its batches said of others is gone with them, and is said again.
    ///
    /// # Errors
    ///
    /// If it cannot be kept: then nothing may be deleted.
    pub(super) fn add(&mut self, hole: Hole) -> io::Result<()> {
        let before = self.holes.clone();
        for other in &mut self.holes {
            let gone = |said: &u64| (hole.from..=hole.to).contains(said);
            other.said = other.said.filter(|said| !gone(said));
        }
        self.holes.push(hole);
        // An outage of days is one hole, and not one for each file.
        self.holes.dedup_by(|hole, before| before.takes_in(hole));
        let kept = self.write();
        if kept.is_err() {
            self.holes = before;
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
        // Each alone: batches between them are there.
        for n in 0..40 {
            holes
                .add(Hole::new("spool_dropped", &(n * 20 + 1..=n * 20 + 10)))
                .expect("kept");
        }
        let mut holes = Holes::read(folder.path());
        assert_eq!((holes.newest(), holes.unsaid().len()), (790, IN_ONE_HEADER));
        let said: Vec<v1::GivenUp> = holes.unsaid().into_iter().map(|(said, _)| said).collect();
        holes.said(&said, 1000);
        assert_eq!(holes.unsaid().len(), 8);
        holes.acknowledged(999);
        assert_eq!(Holes::read(folder.path()).unsaid().len(), IN_ONE_HEADER);
        holes.acknowledged(1000);
        let holes = Holes::read(folder.path());
        assert_eq!(holes.unsaid().first().map(|(said, _)| said.from), Some(641));
    }

    #[test]
    fn what_follows_at_once_is_one_hole_unless_it_was_told_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut holes = Holes::read(folder.path());
        let hole = |from, to, events| Hole {
            events,
            bytes: 100,
            ..Hole::new("spool_dropped", &(from..=to))
        };
        let told = |holes: &Holes| -> Vec<(u64, u64, u64)> {
            let unsaid = holes.unsaid().into_iter();
            unsaid
                .map(|(said, _)| (said.from, said.to, said.events))
                .collect()
        };
        holes.add(hole(1, 8, Some(24))).expect("kept");
        holes.add(hole(9, 16, Some(30))).expect("kept");
        assert_eq!(told(&holes), [(1, 16, 54)]);
        let given_up: Vec<v1::GivenUp> = holes.unsaid().into_iter().map(|(said, _)| said).collect();
        holes.said(&given_up, 60);
        holes.add(hole(17, 24, Some(24))).expect("kept");
        assert_eq!(told(&holes), [(17, 24, 24)], "the first is in a header");
        // That header is gone, too.
        holes.add(hole(25, 60, None)).expect("kept");
        assert_eq!(told(&holes), [(1, 60, 0)]);
        assert_eq!(Holes::read(folder.path()).newest(), 60);
    }
}
