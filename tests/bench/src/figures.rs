//! Medians, their confidence, and the machine that they were taken on.

use std::{fs, path::Path};

use anyhow::Result;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

/// The middle value; the upper one of two. Not a number if there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// 95 % confidence interval of the median, by the bootstrap: the medians of many samples drawn from the values with
/// replacement. With the same values it is the same.
pub(crate) fn confidence(values: &[f64]) -> [f64; 2] {
    const SAMPLES: usize = 10_000;
    let mut random = StdRng::seed_from_u64(95);
    let mut medians: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let sample: Vec<f64> = values
                .iter()
                .filter_map(|_| values.get(random.gen_range(0..values.len())).copied())
                .collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * SAMPLES as f64) as usize;
        medians.get(index).copied().unwrap_or(f64::NAN)
    };
    [at(0.025), at(0.975)]
}

/// A number with so many decimal places; null where it is none.
pub(crate) fn rounded(value: f64, places: i32) -> Value {
    let scale = 10_f64.powi(places);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() {
        json!(rounded)
    } else {
        Value::Null
    }
}

/// Processor, number of cores, and kernel.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// Bytes of the files in a folder, and below.
pub(crate) fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            bytes_in(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_narrows() {
        let few = [0.9, 1.0, 1.1];
        let many: Vec<f64> = (0..60).map(|n| 0.9 + 0.1 * f64::from(n % 3)).collect();
        let ([low, high], [narrow_low, narrow_high]) = (confidence(&few), confidence(&many));
        assert!(low <= median(&few) && median(&few) <= high);
        assert!(narrow_high - narrow_low <= high - low);
        assert_eq!(rounded(f64::NAN, 2), Value::Null);
        assert_eq!(rounded(1.256, 2), json!(1.26));
    }
}
