//! The part of the way where there is no payload any more, and what is said of that.
//!
//! Owns the walk over headers alone, which the tree's own files have, and when an act that was said and not carried out is wrong.

use std::{path::Path, sync::Arc};

use evidence::log_entry;

use super::{AHEAD, Ahead, Walk, Wrong};
use crate::log::bundles::Bundles;

impl Walk<'_> {
    /// Goes through the entries whose payloads were removed, up to `end`: their headers are in the tree's own files.
    pub(super) fn without_payload(&mut self, evidence: &Path, end: u64) -> Result<(), Wrong> {
        let mut bundles = Bundles::new(evidence);
        while self.next_entry() < end {
            let number = self.next_entry();
            let file: Arc<str> = evidence::bundle_path(number / evidence::TILE_WIDTH as u64).into();
            let wrong = |what: String| Wrong::new(&*file, None, what).of_entry(number);
            let (entry, batch) = match bundles.next_entry() {
                Ok(read) => read,
                Err(error) => {
                    self.settle_all()?;
                    return Err(wrong(format!("{error:#}")));
                }
            };
            if log_entry(&batch) != entry {
                self.settle_all()?;
                return Err(wrong("the entry is not in canonical encoding".to_owned()));
            }
            let earlier = self.ask.state.as_ref().is_some_and(|state| number < state.size);
            let ahead = Ahead {
                segment: Arc::clone(&file),
                offset: 0,
                end: 0,
                entry,
                answer: self.hand_out(batch, number, earlier, false),
            };
            self.ahead.push_back(ahead);
            while self.ahead.len() > AHEAD * self.ask.threads {
                self.settle()?;
            }
        }
        self.settle_all()?;
        self.finds.begins = Some((end, self.done.tiling.root()));
        Ok(())
    }

    /// Judges what is gone.
    pub(super) fn removals(&mut self, own: &[String]) -> Result<(), Wrong> {
        let earlier = self.ask.state.as_ref();
        let earlier = earlier.map_or((0, 0), |state| (state.size, state.removed));
        self.said_to_begin = self.said_to_begin();
        self.done.removals = std::mem::take(&mut self.finds).judge(own, earlier)?;
        let removals = &self.done.removals;
        let erased = removals.unfinished.keys().next().copied();
        let removed = removals.to_remove.map(|_| removals.begins);
        match erased.or(removed).filter(|_| !self.ask.finishes) {
            Some(entry) => {
                let what = "its payload, or part of it, was said to be erased, and is still there: a collector that is started \
                            finishes that";
                Err(Wrong::new("payload", None, format!("entry {entry}: {what}")).of_entry(entry))
            }
            None => Ok(()),
        }
    }

    /// Where payloads begin, as far as it was said.
    pub(super) fn said_to_begin(&self) -> u64 {
        let earlier = self.ask.state.as_ref().map_or(0, |state| state.removed);
        earlier.max(self.said_to_begin).max(self.finds.said_to_begin())
    }
}
