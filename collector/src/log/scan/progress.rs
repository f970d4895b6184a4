//! How far a walk has come.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::super::folder;

/// How often it is told: often enough to see that it lives, seldom enough to cost nothing.
const PAUSE: Duration = Duration::from_secs(3);

/// How far a walk has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Batches that were checked.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of payload segments that were read or, where an earlier run had, passed over.
    pub bytes: u64,
    /// Bytes of all.
    pub of_bytes: u64,
    /// When it began.
    pub began: Instant,
    told: Instant,
}

impl Progress {
    pub(super) fn begin(evidence: &Path) -> Self {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let segments = folder::segments(evidence).unwrap_or_default();
        let now = Instant::now();
        Self {
            batches: 0,
            events: 0,
            bytes: 0,
            of_bytes: segments.iter().map(|(_, path)| length(path)).sum(),
            began: now,
            told: now,
        }
    }

    /// Whether it is time to tell again.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.told.elapsed() >= PAUSE;
        if due {
            self.told = Instant::now();
        }
        due
    }
}

/// One line for people.
impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        write!(
            f,
            "{:3} % · {} of {} MB · {} batches · {} events · {:.0} events/s",
            (self.bytes * 100).checked_div(self.of_bytes).unwrap_or(100),
            self.bytes / 1_000_000,
            self.of_bytes / 1_000_000,
            self.batches,
            self.events,
            self.events as f64 / seconds
        )
    }
}
