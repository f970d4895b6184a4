//! What pgbench itself says of its transactions.
//!
//! Owns the reading of `--log` files: client, transaction, latency in microseconds or `failed`, script, time (manual,
//! pgbench).

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Transactions of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) transactions: u64,
    pub(super) errors: u64,
    /// Took longer than a second.
    pub(super) slow: u64,
    pub(super) worst_us: u64,
}

impl Load {
    /// Reads all files of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut load = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let text = std::fs::read_to_string(entry?.path())?;
            for line in text.lines() {
                load.take(line.split(' ').nth(2).context("a line of pgbench's journal")?);
            }
        }
        Ok(load)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.errors += other.errors;
        self.slow += other.slow;
        self.worst_us = self.worst_us.max(other.worst_us);
    }

    pub(super) fn line(&self) -> Value {
        json!({
            "transactions": self.transactions,
            "errors": self.errors,
            "slow": self.slow,
            "worst_ms": self.worst_us / 1000,
        })
    }

    fn take(&mut self, latency: &str) {
        let Ok(latency_us) = latency.parse::<u64>() else {
            self.errors += 1;
            return;
        };
        self.transactions += 1;
        self.slow += u64::from(latency_us > SLOW_US);
        self.worst_us = self.worst_us.max(latency_us);
    }
}

const SLOW_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_journal_counts_slow_and_failed() {
        let folder = TempDir::new().unwrap();
        std::fs::write(
            folder.path().join("pgbench.1"),
            "0 1 900 0 1 2\n1 1 1000001 0 1 2\n0 2 failed 0 1 2\n",
        )
        .unwrap();
        let load = Load::read(folder.path()).unwrap();
        assert_eq!(
            load,
            Load {
                transactions: 2,
                errors: 1,
                slow: 1,
                worst_us: 1_000_001
            }
        );
    }
}
