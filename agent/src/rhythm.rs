//! How often the ring of segments is looked at.
//!
//! Each look takes the processor from whoever has it: with a server on the same processors, statements that are under way then wait
//! until it is over. So the fewer the better, as long as the ring has room for what comes meanwhile.

use std::time::{Duration, Instant};

use ebpf_abi::SegmentHeader;

/// What comes is recorded after this long at the latest, and an agent with nothing to do looks this often.
const LONGEST: Duration = Duration::from_millis(20);
const SHORTEST: Duration = Duration::from_millis(1);

/// The part of the ring that may be full at a look, as its divisor. The kernel side wakes at a fourth.
const PART: u64 = 8;

/// What was taken, and when.
pub(crate) struct Rhythm {
    looked: Instant,
    taken: (u64, u64),
    ring_bytes: u64,
}

impl Rhythm {
    /// Of a ring of that size.
    pub(crate) fn of(ring_bytes: u64) -> Self {
        Self {
            looked: Instant::now(),
            taken: (0, 0),
            ring_bytes,
        }
    }

    /// The time until the next look. `taken` are segments and their payload's bytes, all until now.
    pub(crate) fn pause(&mut self, taken: (u64, u64)) -> Duration {
        let now = Instant::now();
        let (segments, bytes) = (taken.0 - self.taken.0, taken.1 - self.taken.1);
        let filled = segments * size_of::<SegmentHeader>() as u64 + bytes;
        let since = now - self.looked;
        (self.looked, self.taken) = (now, taken);
        pause(since, filled, self.ring_bytes)
    }
}

/// As long as it takes to fill the part, at the rate of late.
fn pause(since: Duration, filled: u64, ring_bytes: u64) -> Duration {
    let nanos = since.as_nanos() * u128::from(ring_bytes / PART) / u128::from(filled.max(1));
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_has_room_until_the_next_look() {
        const RING: u64 = 16 << 20;
        let after_ten_ms = |filled| pause(Duration::from_millis(10), filled, RING);
        assert_eq!(after_ten_ms(0), LONGEST);
        assert_eq!(after_ten_ms(RING / 16), LONGEST);
        assert_eq!(after_ten_ms(RING / 4), Duration::from_millis(5));
        assert_eq!(after_ten_ms(10 * RING), SHORTEST);
        assert_eq!(pause(Duration::ZERO, 0, RING), SHORTEST);
    }

    #[test]
    fn only_what_came_since_the_last_look_counts() {
        let mut rhythm = Rhythm::of(1 << 30);
        std::thread::sleep(LONGEST);
        assert_eq!(rhythm.pause((1 << 20, 1 << 20)), LONGEST);
        std::thread::sleep(LONGEST);
        assert_eq!(rhythm.pause((1 << 20, 1 << 20)), LONGEST);
    }
}
