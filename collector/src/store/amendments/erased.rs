//! Amendments that were erased.
//!
//! Owns what goes with one, and what is kept of it in memory: its place alone. Refuses to let an older name stand again because a
//! newer one went.

use std::sync::Arc;

use datafusion::common::HashMap;

use super::{Amendments, Entry, Inner};
use crate::store::erase::{Events, Gone};

impl Amendments {
    /// Adds to these events, where amendments of a session are among them, all others of that session, and with those of statements the
    /// names of pods that go on from them, and the older ones that they came in place of: an older one must not stand again because a newer one went.
    pub(crate) fn with_their_like(&self, events: &mut Events) {
        let inner = self.read();
        let is_meant = |events: &Events, entry: &Entry| {
            let seqs = events.get(&entry.log_index);
            seqs.is_some_and(|seqs| seqs.contains(&entry.seq))
        };
        for newest in inner.newest.values().flat_map(HashMap::values) {
            let mut next = Some(*newest);
            let chain = std::iter::from_fn(|| {
                let entry = inner.list.get(next? as usize)?;
                next = entry.before;
                Some(entry)
            });
            let chain: Vec<&Entry> = chain.collect();
            if chain.iter().any(|entry| is_meant(events, entry)) {
                for entry in chain {
                    events.entry(entry.log_index).or_default().insert(entry.seq);
                }
            }
        }
        // The name of a pod repeats what it goes on from.
        for (newer, older) in &inner.replaced {
            let entry = |place: u32| inner.list.get(place as usize);
            if let (Some(newer), Some(older)) = (entry(*newer), entry(*older))
                && newer.upon.is_some()
                && is_meant(events, older)
            {
                events.entry(newer.log_index).or_default().insert(newer.seq);
            }
        }
        // What an older one replaced itself comes behind it.
        for (newer, older) in inner.replaced.iter().rev() {
            let entry = |place: u32| inner.list.get(place as usize);
            if let (Some(newer), Some(older)) = (entry(*newer), entry(*older))
                && is_meant(events, newer)
            {
                events.entry(older.log_index).or_default().insert(older.seq);
            }
        }
    }

    /// Whether one of these is an amendment that stands.
    pub(in crate::store) fn has_one_of(&self, gone: &Gone) -> bool {
        let inner = self.read();
        let mut all = inner.list.iter().filter(|entry| !entry.gone);
        all.any(|entry| gone.takes(entry.log_index, entry.seq))
    }

    /// Forgets those that were erased, by their log entries and numbers.
    pub(in crate::store) fn forget(&self, gone: &Gone) {
        self.write(|inner| inner.forget(gone));
    }
}

impl Inner {
    /// Their places stay, because others are counted on behind them.
    fn forget(&mut self, gone: &Gone) {
        let mut left = vec![false; self.faces.len()];
        for entry in &mut self.list {
            entry.gone |= gone.takes(entry.log_index, entry.seq);
            if !entry.gone
                && let Some(left) = left.get_mut(entry.face as usize)
            {
                *left = true;
            }
        }
        for (face, _) in self.faces.iter_mut().zip(left).filter(|(_, left)| !left) {
            self.known.remove(&*face);
            *face = Arc::default();
        }
    }
}
