//! Finished parts on disk, so that a run can be resumed and its sums still add up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figures::Figures;
use crate::screen::progress;

/// One program against one version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PartResult {
    pub(super) version: String,
    pub(super) part: String,
    /// Why it could not be run.
    pub(super) unavailable: Option<String>,
    /// Why its program failed, though it could run.
    pub(super) failed: Option<String>,
    pub(super) figures: Figures,
}

impl PartResult {
    pub(super) fn new(version: &str, part: &str) -> Self {
        Self {
            version: version.to_owned(),
            part: part.to_owned(),
            ..Self::default()
        }
    }

    /// Tells people.
    pub(super) fn report(&self) {
        let figures = &self.figures;
        let (requests, differences) = (figures.statements, figures.differences());
        progress(&format!(
            "  {}: {requests} requests logged, {} events, {} in journals: {differences} differences",
            self.part, figures.recorded_events, figures.journal_statements
        ));
        for problem in self.failed.iter().chain(&figures.examples) {
            progress(&format!("    {problem}"));
        }
    }
}

/// The folder of finished parts.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
}

impl State {
    /// Begins anew, unless an earlier run is to be resumed.
    ///
    /// # Errors
    /// When the folder cannot be made or emptied.
    pub(super) fn open(folder: &Path, resume: bool) -> Result<Self> {
        if !resume && folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Whether a part is done.
    pub(super) fn has(&self, version: &str, part: &str) -> bool {
        self.path(version, part).is_file()
    }

    /// Keeps a part's result.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn put(&self, result: &PartResult) -> Result<()> {
        let path = self.path(&result.version, &result.part);
        let unfinished = path.with_extension("part");
        fs::write(&unfinished, serde_json::to_vec_pretty(result)?)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// All finished parts.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn all(&self) -> Result<Vec<PartResult>> {
        let mut paths: Vec<_> = fs::read_dir(&self.folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let read = |path: &PathBuf| -> Result<PartResult> {
            serde_json::from_slice(&fs::read(path)?).with_context(|| format!("reading {}", path.display()))
        };
        paths.iter().map(read).collect()
    }

    fn path(&self, version: &str, part: &str) -> PathBuf {
        self.folder
            .join(format!("{}-{part}.json", version.replace(' ', "-")))
    }
}
