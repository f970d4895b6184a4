//! From the kernel's capture times to UTC.

use nix::time::{ClockId, clock_gettime};

/// The difference between the two clocks at a moment; taken anew often, because UTC is adjusted.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: i128,
}

impl Clock {
    /// Compares the clocks now.
    pub fn now() -> Self {
        Self {
            offset_ns: i128::from(read(ClockId::CLOCK_REALTIME)) - i128::from(boot_ns()),
        }
    }

    /// The clock of times that are this much behind UTC.
    pub fn of_offset(offset_ns: i64) -> Self {
        Self {
            offset_ns: offset_ns.into(),
        }
    }

    /// How much later UTC is, in nanoseconds.
    pub fn offset_ns(self) -> i64 {
        i64::try_from(self.offset_ns).unwrap_or(0)
    }

    /// Nanoseconds since the Unix epoch, for nanoseconds since boot.
    pub fn utc(self, boot_ns: u64) -> u64 {
        u64::try_from(i128::from(boot_ns) + self.offset_ns).unwrap_or(0)
    }
}

/// Nanoseconds since boot, time asleep included: the clock of every captured record.
pub fn boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux that can run the tap.
    let Ok(time) = clock_gettime(clock) else { return 0 };
    u64::try_from(i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_becomes_utc() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_nanos();
        let ours = u128::from(Clock::now().utc(boot_ns()));
        assert!(ours.abs_diff(now) < 1_000_000_000);
    }
}
