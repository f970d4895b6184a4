//! The volume policy that is in effect: a file, read at the start and again when it changes.
//!
//! Owns what is said of that, in the log and in the record. What the policy means is the crate `volume`'s.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use proto::v1;
use settings::Watched;
use sha2::{Digest as _, Sha256};
use subjects::Classification;
use tap_core::Sensitive;
use tracing::{error, info};
use volume::{MAX_FILE_BYTES, Policy, Volume};

use crate::config::VolumeConfig;

/// How often the file is looked at: a change is in effect after twice this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Of what is wrong with a file, this many characters stand in the record.
const PROBLEM: usize = 300;

/// The file.
#[derive(Debug)]
pub struct PolicyFile {
    watched: Watched,
    /// Of the one in effect.
    sha256: Vec<u8>,
    rules: usize,
    looked: Instant,
    refused: u64,
    /// What is sensitive beside.
    classification: Classification,
}

/// What is to be told, and the policy that is in effect from now on, if there is a new one.
pub struct Change {
    /// For the record.
    pub event: v1::ConfigChange,
    /// `None`: what was in effect stays.
    pub policy: Option<Policy>,
}

/// Reads the policy that a configuration names. What the classification of `sensitive` names is sensitive for it, too.
///
/// # Errors
///
/// One line that says what is wrong, and in which line of the file.
pub fn open(
    config: &VolumeConfig,
    sensitive: Option<&Sensitive>,
) -> anyhow::Result<Option<(PolicyFile, Volume)>> {
    let Some(path) = &config.policy else {
        return Ok(None);
    };
    let unreadable = || format!("cannot read the volume policy {}", path.display());
    let (watched, text) = Watched::open(path, MAX_FILE_BYTES).with_context(unreadable)?;
    let classification = sensitive.map(|sensitive| sensitive.classification.clone());
    let classification = classification.unwrap_or_default();
    let policy = parse(path, &text, &classification)?;
    let file = PolicyFile {
        watched,
        sha256: Sha256::digest(&text).to_vec(),
        rules: policy.len(),
        looked: Instant::now(),
        refused: 0,
        classification,
    };
    let window_ns = config.window_s.saturating_mul(1_000_000_000);
    Ok(Some((file, Volume::new(policy, window_ns))))
}

fn parse(path: &Path, text: &str, classification: &Classification) -> anyhow::Result<Policy> {
    Policy::parse(text, classification)
        .with_context(|| format!("the volume policy {} cannot be used", path.display()))
}

impl PolicyFile {
    /// What the record says of it at the start.
    pub fn at_start(&self) -> v1::ConfigChange {
        self.change(self.sha256.clone(), Vec::new(), String::new())
    }

    /// Changed files that could not be used, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Looks at the file, if it is time.
    pub fn look(&mut self) -> Option<Change> {
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        let found = self.watched.look()?;
        let path = self.watched.path().to_owned();
        let unreadable = || format!("cannot read the volume policy {}", path.display());
        let text = found.with_context(unreadable);
        let sha256 = text.as_ref().map(|text| Sha256::digest(text).to_vec());
        let sha256 = sha256.unwrap_or_default();
        let former = self.sha256.clone();
        match text.and_then(|text| parse(&path, &text, &self.classification)) {
            // Written anew as it was: nothing changed.
            Ok(_) if sha256 == former => None,
            Ok(policy) => {
                info!(
                    rules = policy.len(),
                    "the volume policy {} was read anew",
                    path.display()
                );
                self.rules = policy.len();
                self.sha256.clone_from(&sha256);
                Some(Change {
                    event: self.change(sha256, former, String::new()),
                    policy: Some(policy),
                })
            }
            Err(problem) => {
                self.refused += 1;
                error!("{problem:#}; the former volume policy stays in effect");
                let problem = format!("{problem:#}").chars().take(PROBLEM).collect();
                Some(Change {
                    event: self.change(sha256, former, problem),
                    policy: None,
                })
            }
        }
    }

    fn change(&self, sha256: Vec<u8>, former_sha256: Vec<u8>, problem: String) -> v1::ConfigChange {
        v1::ConfigChange {
            part: "volume_policy".to_owned(),
            file: self.watched.path().display().to_string(),
            sha256,
            former_sha256,
            rules: u32::try_from(self.rules).unwrap_or(u32::MAX),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_file_is_told_and_a_broken_one_leaves_the_former() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("volume.toml");
        let config = |path: &Path| VolumeConfig {
            policy: Some(path.to_owned()),
            window_s: 10,
        };
        assert!(open(&config(&path), None).is_err(), "there is none");
        fs::write(&path, "[[rule]]\nkeep = \"rollup\"\n").expect("written");
        let (mut file, volume) = open(&config(&path), None)
            .expect("a policy")
            .expect("one is named");
        assert_eq!((volume.policy().len(), file.at_start().rules), (1, 1));
        let mut look = |text: &str| {
            fs::write(&path, text).expect("written");
            let mut found = None;
            for _ in 0..2 {
                file.looked = Instant::now().checked_sub(LOOK_EVERY).expect("a while ago");
                found = found.or(file.look());
            }
            found
        };
        let broken = look("[[rule]]\nkeep = \"some\"\n").expect("it changed");
        assert!(
            broken.policy.is_none() && broken.event.problem.contains("line 2"),
            "{}",
            broken.event.problem
        );
        assert_eq!((broken.event.rules, broken.event.former_sha256.len()), (1, 32));
        let whole = look("[[rule]]\nkeep = \"full\"\n[[rule]]\nkeep = \"off\"\n").expect("it changed");
        assert_eq!(
            (whole.event.rules, whole.policy.map(|policy| policy.len())),
            (2, Some(2))
        );
        assert_ne!(whole.event.sha256, whole.event.former_sha256);
        assert!(
            look("[[rule]]\nkeep = \"full\"\n[[rule]]\nkeep = \"off\"\n").is_none(),
            "the same"
        );
        assert_eq!(file.refused(), 1);
    }
}
