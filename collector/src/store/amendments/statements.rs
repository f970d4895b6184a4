//! Statements of one agent that have an amendment of their own, by their numbers.

use std::collections::BTreeMap;

/// For each statement its amendment's place; the newest [`MOST`], by number.
#[derive(Debug, Default)]
pub(super) struct Statements {
    blocks: BTreeMap<u64, Block>,
    count: usize,
}

/// Statements whose numbers differ in the lower bits only.
#[derive(Debug, Default)]
struct Block {
    /// Ascending.
    lows: Vec<u16>,
    places: Vec<u32>,
}

impl Statements {
    /// Returns the place that it had before.
    pub(super) fn insert(&mut self, seq: u64, place: u32) -> Option<u32> {
        let (high, low) = (seq >> 16, seq as u16);
        let block = self.blocks.entry(high).or_default();
        let before = match block.lows.binary_search(&low) {
            Ok(at) => block
                .places
                .get_mut(at)
                .map(|known| std::mem::replace(known, place)),
            Err(at) => {
                block.lows.insert(at, low);
                block.places.insert(at, place);
                self.count += 1;
                None
            }
        };
        while self.count > MOST
            && let Some((_, oldest)) = self.blocks.pop_first()
        {
            self.count -= oldest.lows.len();
        }
        before
    }

    pub(super) fn get(&self, seq: u64) -> Option<u32> {
        let block = self.blocks.get(&(seq >> 16))?;
        let at = block.lows.binary_search(&(seq as u16)).ok()?;
        block.places.get(at).copied()
    }
}

/// Statements that are found, of one agent: some 200 MB.
const MOST: usize = 32_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_is_found_in_whatever_order_it_came() {
        let mut statements = Statements::default();
        for seq in [70_000, 3, 65_536, 65_535, 9, u64::MAX] {
            assert_eq!(statements.insert(seq, 1), None);
        }
        assert_eq!(statements.insert(9, 2), Some(1));
        assert_eq!((statements.get(9), statements.get(65_535)), (Some(2), Some(1)));
        assert_eq!((statements.get(u64::MAX), statements.get(4)), (Some(1), None));
        assert_eq!(statements.count, 6);
    }
}
