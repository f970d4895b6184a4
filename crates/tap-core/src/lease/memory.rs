//! What of a process' memory holds bytes that came from its sockets.

use std::{collections::BTreeMap, ops::Range};

use ebpf_abi::FRONT;

/// Received bytes that are kept track of, in pieces of memory: a pooler has a buffer of some KiB for each connection that it
/// is busy with. What is beyond is forgotten, the lowest addresses first; it is then told as not known.
const REGIONS: usize = 16_384;

/// Bytes that lie where a receive has put them.
#[derive(Clone, Copy, Debug)]
struct Region {
    end: u64,
    /// Which socket they came from, and where in its stream the first of them stands.
    socket: u64,
    offset: u64,
    /// The first bytes of that receive, as far as they lie in what is left of it or before.
    front: Front,
}

/// The first bytes of a call, and where they lay.
#[derive(Clone, Copy, Debug)]
struct Front {
    at: u64,
    bytes: [u8; FRONT],
    length: usize,
}

/// Bytes that were sent, and where they had come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// How many.
    pub(super) length: u64,
    /// The socket that they were received on, and their offset in its stream.
    pub(super) from: Option<(u64, u64)>,
    /// Received bytes were there, and these are others.
    pub(super) changed: bool,
}

/// The memory of one process.
#[derive(Debug, Default)]
pub(super) struct Memory {
    regions: BTreeMap<u64, Region>,
}

impl Memory {
    /// A socket's bytes were put there: whatever was known of the place is over.
    pub(super) fn received(&mut self, at: Range<u64>, socket: u64, offset: u64, front: [u8; FRONT]) {
        self.clear(&at);
        let region = Region {
            end: at.end,
            socket,
            offset,
            front: Front::new(&at, front),
        };
        self.regions.insert(at.start, region);
        if self.regions.len() > REGIONS {
            self.regions.pop_first();
        }
    }

    /// A socket's bytes were moved there from elsewhere in its buffer.
    pub(super) fn moved(&mut self, at: Range<u64>, socket: u64, offset: u64) {
        self.clear(&at);
        let front = Front {
            at: at.start,
            bytes: [0; FRONT],
            length: 0,
        };
        let region = Region {
            end: at.end,
            socket,
            offset,
            front,
        };
        self.regions.insert(at.start, region);
    }

    /// Bytes were sent from there. They are told in order, and known no longer: a pooler passes on each once.
    pub(super) fn sent(&mut self, at: Range<u64>, front: [u8; FRONT], tell: &mut impl FnMut(Origin)) {
        let front = Front::new(&at, front);
        let mut place = at.start;
        while place < at.end {
            let from = self
                .regions
                .range(..=place)
                .next_back()
                .map(|(start, region)| (*start, *region))
                .filter(|(_, region)| region.end > place);
            if let Some((start, region)) = from {
                let end = region.end.min(at.end);
                let is_same = region.front.agrees(&front);
                tell(Origin {
                    length: end - place,
                    from: is_same.then(|| (region.socket, region.offset + (place - start))),
                    changed: !is_same,
                });
                place = end;
            } else {
                let next = self.regions.range(place..).next().map(|(start, _)| *start);
                let end = next.unwrap_or(at.end).min(at.end);
                tell(Origin {
                    length: end - place,
                    from: None,
                    changed: false,
                });
                place = end;
            }
        }
        self.clear(&at);
    }

    /// Something was not seen: nothing is known of any place.
    pub(super) fn forget(&mut self) {
        self.regions.clear();
    }

    fn clear(&mut self, at: &Range<u64>) {
        // The one that begins before may reach into it, or beyond its end.
        if let Some((start, region)) = self.regions.range_mut(..at.start).next_back() {
            let (start, whole) = (*start, *region);
            if whole.end > at.start {
                region.end = at.start;
                self.keep_behind(start, whole, at.end);
            }
        }
        while let Some((start, region)) = self.regions.range(at.start..at.end).next() {
            let (start, region) = (*start, *region);
            self.regions.remove(&start);
            self.keep_behind(start, region, at.end);
        }
    }

    fn keep_behind(&mut self, start: u64, region: Region, behind: u64) {
        if region.end > behind {
            let rest = Region {
                offset: region.offset + (behind - start),
                ..region
            };
            self.regions.insert(behind, rest);
        }
    }
}

impl Front {
    fn new(at: &Range<u64>, bytes: [u8; FRONT]) -> Self {
        let length = usize::try_from(at.end - at.start).unwrap_or(FRONT).min(FRONT);
        Self {
            at: at.start,
            bytes,
            length,
        }
    }

    /// Where both tell of the same place they tell the same.
    fn agrees(&self, other: &Self) -> bool {
        let (first, second) = if self.at <= other.at {
            (self, other)
        } else {
            (other, self)
        };
        let Ok(shift) = usize::try_from(second.at - first.at) else {
            return true;
        };
        let ends = (first.length.saturating_sub(shift)).min(second.length);
        (0..ends).all(|index| first.bytes.get(shift + index) == second.bytes.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: [u8; FRONT] = [0; FRONT];

    fn sent(memory: &mut Memory, at: Range<u64>, front: [u8; FRONT]) -> Vec<(u64, Option<(u64, u64)>)> {
        let mut told = Vec::new();
        memory.sent(at, front, &mut |origin| told.push((origin.length, origin.from)));
        told
    }

    #[test]
    fn bytes_are_where_they_came_from_until_they_were_passed_on() {
        let mut memory = Memory::default();
        memory.received(100..200, 7, 1_000, NO);
        memory.received(200..250, 7, 1_100, NO);
        assert_eq!(
            sent(&mut memory, 90..120, NO),
            [(10, None), (20, Some((7, 1_000)))]
        );
        assert_eq!(
            sent(&mut memory, 110..220, NO),
            [(10, None), (80, Some((7, 1_020))), (20, Some((7, 1_100)))]
        );
        assert_eq!(
            sent(&mut memory, 220..260, NO),
            [(30, Some((7, 1_120))), (10, None)]
        );
        assert!(memory.regions.is_empty());
    }

    #[test]
    fn a_place_holds_what_came_last() {
        let mut memory = Memory::default();
        memory.received(100..200, 7, 0, NO);
        memory.received(120..140, 8, 500, NO);
        assert_eq!(
            sent(&mut memory, 100..200, NO),
            [(20, Some((7, 0))), (20, Some((8, 500))), (60, Some((7, 40)))]
        );
    }

    #[test]
    fn other_bytes_in_the_same_place_came_from_elsewhere() {
        let front = *b"Q\0\0\0\x0eselect 1;\0\0";
        let mut memory = Memory::default();
        memory.received(100..115, 7, 0, *b"Q\0\0\0\x0eselect 2;\0\0");
        assert_eq!(sent(&mut memory, 100..115, front), [(15, None)]);
        memory.received(100..115, 7, 15, front);
        assert_eq!(sent(&mut memory, 100..115, front), [(15, Some((7, 15)))]);
        // What is beyond the first bytes is not compared.
        memory.received(100..150, 7, 30, front);
        assert_eq!(
            sent(&mut memory, 120..150, *b"something else..")[0],
            (30, Some((7, 50)))
        );
        memory.received(100..150, 7, 30, front);
        assert_eq!(sent(&mut memory, 105..150, *b"select 3;.......")[0], (45, None));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut memory = Memory::default();
        for n in 0..2 * REGIONS as u64 {
            memory.received(n * 10..n * 10 + 5, n, 0, NO);
        }
        assert_eq!(memory.regions.len(), REGIONS);
    }
}
