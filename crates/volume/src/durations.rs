//! How long executions took, by powers of two.

/// A histogram of durations: bucket k counts those of at least 2^k nanoseconds and less than 2^(k+1). 0 ns counts as 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations([u64; 64]);

impl Default for Durations {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Durations {
    /// One took that long.
    pub fn add(&mut self, ns: u64) {
        let bucket = ns.max(1).ilog2();
        if let Some(count) = self.0.get_mut(bucket as usize) {
            *count += 1;
        }
    }

    /// The first bucket that counts any, and the counts from there to the last such one.
    #[must_use]
    pub fn counts(&self) -> (u32, &[u64]) {
        let is_used = |count: &u64| *count > 0;
        let first = self.0.iter().position(is_used).unwrap_or(0);
        let end = self.0.iter().rposition(is_used).map_or(first, |last| last + 1);
        (first as u32, self.0.get(first..end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_bucket_of_its_power_of_two() {
        let mut durations = Durations::default();
        assert_eq!(durations.counts(), (0, &[][..]));
        for ns in [1023, 1024, 2047, 2048, 8192] {
            durations.add(ns);
        }
        assert_eq!(durations.counts(), (9, &[1, 2, 1, 0, 1][..]));
        durations.add(0);
        durations.add(u64::MAX);
        let (first, counts) = durations.counts();
        assert_eq!((first, counts.len(), counts.iter().sum::<u64>()), (0, 64, 7));
    }
}
