//! What the agent says of the kernel that runs: `pgwitness-agent doctor`.
//!
//! Owns the reading of it. Separate because suites ask less of kernels that have less, and say so.

use std::process::Command;

use anyhow::{Context, Result};

use crate::tap::sibling;

/// Its verdict.
#[derive(Debug)]
pub(crate) struct Doctor {
    /// All of it.
    pub(crate) said: String,
    /// Whether nothing is missing.
    pub(crate) passed: bool,
    /// The tier that the agent takes by itself.
    default_tier: Option<String>,
}

impl Doctor {
    /// Asks the agent beside this program.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn ask() -> Result<Self> {
        let output = Command::new(sibling("pgwitness-agent")?)
            .arg("doctor")
            .env_clear()
            .output()
            .context("running pgwitness-agent doctor")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok(Self::of(said, output.status.success()))
    }

    fn of(said: String, passed: bool) -> Self {
        // `  tier A: loads and attaches; used by default`
        let default_tier = said.lines().find_map(|line| {
            let (tier, rest) = line.trim().strip_prefix("tier ")?.split_once(": ")?;
            rest.contains("used by default").then(|| tier.to_owned())
        });
        Self {
            said,
            passed,
            default_tier,
        }
    }

    /// Whether the agent takes tier A here.
    pub(crate) fn has_tier_a(&self) -> bool {
        self.default_tier.as_deref() == Some("A")
    }

    /// Whether nothing is missing and this kernel has tier B alone: poolers are not followed then, and it is not told whose
    /// connections lead to other hosts. An agent whose tier A fails on a kernel that has it is no such case.
    pub(crate) fn has_tier_b_alone(&self) -> bool {
        self.passed && self.default_tier.as_deref() == Some("B")
    }

    /// In one line: the tier, or what is missing.
    pub(crate) fn verdict(&self) -> String {
        match (self.passed, &self.default_tier) {
            (true, Some(tier)) => format!("nothing is missing, tier {tier}"),
            (true, None) => "nothing is missing".to_owned(),
            (false, _) => {
                let missing = self
                    .said
                    .split_once("missing:")
                    .map_or("", |(_, missing)| missing);
                format!("missing: {}", missing.trim())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_says_which_tier_or_what_is_missing() {
        let said = "hooks\n  tier A: loads and attaches; used by default\n  tier B: loads and attaches; used with --tier\n";
        let doctor = Doctor::of(said.to_owned(), true);
        assert!(doctor.has_tier_a() && !doctor.has_tier_b_alone());
        assert_eq!(doctor.verdict(), "nothing is missing, tier A");
        let said =
            "hooks\n  tier A: this kernel has no tracepoint\n  tier B: loads and attaches; used by default\n";
        assert!(Doctor::of(said.to_owned(), true).has_tier_b_alone());
        assert!(!Doctor::of(said.to_owned(), false).has_tier_b_alone());
        let doctor = Doctor::of("hooks\n\nmissing:\n  - no BTF\n".to_owned(), false);
        assert_eq!(
            (doctor.has_tier_a(), doctor.verdict()),
            (false, "missing: - no BTF".to_owned())
        );
    }
}
