//! Ends of connections that wait for their other ends, in the order in which they came.
//!
//! Owns the bounds: how many are kept, how large they may be together, and how many of one connection; what came first goes
//! first. Refuses to judge: it finds what may fit, `attribution::join` says what does.

use std::{collections::VecDeque, net::SocketAddr};

use attribution::End;
use datafusion::common::HashMap;

/// Something that has an end.
pub(super) trait Kept {
    fn end(&self) -> &End;
    /// Memory behind it.
    fn bytes(&self) -> usize;
}

/// The kept ends, each under a number of its own.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    kept: VecDeque<T>,
    /// Number of the first one.
    first: u64,
    bytes: usize,
    by_fingerprint: HashMap<(u32, u32), Alike>,
    by_addresses: HashMap<(SocketAddr, SocketAddr), Alike>,
}

/// Ends that have something in common.
#[derive(Clone, Debug, Default)]
struct Alike {
    places: Vec<u64>,
    /// There were more than are kept.
    crowded: bool,
}

/// What may be the other end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fitting {
    /// In order.
    pub(super) places: Vec<u64>,
    /// There were more of the same fingerprint, or of the same addresses where there is none of the same fingerprint: nobody
    /// can say which it is.
    pub(super) crowded: bool,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            first: 0,
            bytes: 0,
            by_fingerprint: HashMap::default(),
            by_addresses: HashMap::default(),
        }
    }
}

impl<T: Kept> Shelf<T> {
    /// Keeps it, under the number that is given back; and whether it can be found by all that it has.
    pub(super) fn push(&mut self, one: T) -> (u64, bool) {
        let place = self.first + self.kept.len() as u64;
        let end = *one.end();
        self.bytes += one.bytes();
        self.kept.push_back(one);
        (place, self.index(place, &end))
    }

    /// Puts another in the place of one whose end has the same addresses.
    pub(super) fn replace(&mut self, place: u64, one: T) -> bool {
        let end = *one.end();
        let bytes = one.bytes();
        let Some(kept) = self.get_mut(place) else {
            return false;
        };
        let before = std::mem::replace(kept, one);
        self.bytes = (self.bytes + bytes).saturating_sub(before.bytes());
        if let Some(pair) = before.end().fingerprint {
            remove(&mut self.by_fingerprint, &pair, place);
        }
        self.index(place, &end)
    }

    /// Makes it findable by what its end has.
    fn index(&mut self, place: u64, end: &End) -> bool {
        let found = end
            .fingerprint
            .is_none_or(|pair| self.by_fingerprint.entry(pair).or_default().add(place));
        self.by_addresses
            .entry((end.client, end.server))
            .or_default()
            .add(place)
            && found
    }

    pub(super) fn get(&self, place: u64) -> Option<&T> {
        self.kept
            .get(usize::try_from(place.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn get_mut(&mut self, place: u64) -> Option<&mut T> {
        self.kept
            .get_mut(usize::try_from(place.checked_sub(self.first)?).ok()?)
    }

    /// What has the same fingerprint or the same addresses.
    pub(super) fn fitting(&self, end: &End) -> Fitting {
        let none = Alike::default();
        let exact = end.fingerprint.and_then(|pair| self.by_fingerprint.get(&pair));
        let plain = self.by_addresses.get(&(end.client, end.server));
        let (exact, plain) = (exact.unwrap_or(&none), plain.unwrap_or(&none));
        let mut places = [exact.places.as_slice(), &plain.places].concat();
        places.sort_unstable();
        places.dedup();
        Fitting {
            places,
            crowded: exact.crowded || exact.places.is_empty() && plain.crowded,
        }
    }

    /// Takes out what came first, as long as there is too much.
    pub(super) fn pop_excess(&mut self, most: usize) -> Option<T> {
        if self.kept.len() <= most && self.bytes <= MAX_BYTES {
            return None;
        }
        let one = self.kept.pop_front()?;
        let place = self.first;
        self.first += 1;
        self.bytes = self.bytes.saturating_sub(one.bytes());
        let end = one.end();
        if let Some(pair) = end.fingerprint {
            remove(&mut self.by_fingerprint, &pair, place);
        }
        remove(&mut self.by_addresses, &(end.client, end.server), place);
        Some(one)
    }
}

impl Alike {
    fn add(&mut self, place: u64) -> bool {
        if self.places.contains(&place) {
            return true;
        }
        self.crowded |= self.places.len() >= MAX_ALIKE;
        if !self.crowded {
            self.places.push(place);
        }
        !self.crowded
    }
}

fn remove<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Alike>, key: &K, place: u64) {
    if let Some(alike) = index.get_mut(key) {
        alike.places.retain(|other| *other != place);
        if alike.places.is_empty() {
            index.remove(key);
        }
    }
}

/// Memory of the ends of one side, and about as much again for finding them.
pub(super) const MAX_BYTES: usize = 256 << 20;

/// Ends that have a fingerprint or both addresses in common: whoever tells of more is not told apart any longer, and must
/// not push out the others.
pub(super) const MAX_ALIKE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    struct One(End, usize);

    impl Kept for One {
        fn end(&self) -> &End {
            &self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    fn end(port: u16, fingerprint: Option<u32>) -> End {
        End {
            client: SocketAddr::from(([10, 0, 0, 5], port)),
            server: SocketAddr::from(([10, 0, 0, 9], 5432)),
            fingerprint: fingerprint.map(|number| (number, 1)),
            at: 1,
        }
    }

    #[test]
    fn what_came_first_goes_first_and_is_not_found_any_longer() {
        let mut shelf = Shelf::default();
        for port in 1..=5 {
            shelf.push(One(end(port, Some(port.into())), 10));
        }
        assert_eq!(shelf.fitting(&end(9, Some(1))).places, [0]);
        assert_eq!(shelf.fitting(&end(2, Some(1))).places, [0, 1]);
        assert_eq!(shelf.pop_excess(4).map(|one| one.0.client.port()), Some(1));
        assert!(shelf.pop_excess(4).is_none());
        assert_eq!(shelf.fitting(&end(2, Some(1))).places, [1]);
        assert!(shelf.get(0).is_none() && shelf.get(5).is_none());
        assert_eq!(shelf.get(4).map(|one| one.0.client.port()), Some(5));
        shelf.push(One(end(6, None), MAX_BYTES));
        let left = std::iter::from_fn(|| shelf.pop_excess(100)).count();
        assert_eq!((left, shelf.bytes), (4, MAX_BYTES));
        assert!(shelf.by_fingerprint.is_empty() && shelf.by_addresses.len() == 1);
    }

    #[test]
    fn a_crowd_pushes_nobody_out() {
        let mut shelf = Shelf::default();
        for _ in 0..MAX_ALIKE {
            assert!(shelf.push(One(end(1, Some(7)), 1)).1);
        }
        assert!(!shelf.fitting(&end(1, Some(7))).crowded);
        assert!(!shelf.push(One(end(1, Some(7)), 1)).1);
        let fitting = shelf.fitting(&end(1, Some(7)));
        assert_eq!((fitting.places.len(), fitting.crowded), (MAX_ALIKE, true));
        // By the addresses there is a crowd, by the fingerprint one.
        shelf.push(One(end(1, Some(8)), 1));
        let exact = shelf.fitting(&end(1, Some(8)));
        assert!(!exact.crowded && exact.places.contains(&17));
    }
}
