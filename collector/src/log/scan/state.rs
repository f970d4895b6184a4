//! What a run of `verify` had checked, for the next one.
//!
//! Owns the file's form: JSON, rewritten whole. It is the verifier's own, and is believed: whoever can write it can have
//! payloads left unread. What it cannot do is hide a change of what was signed: below its place all headers are read again
//! and have to make the same root. It belongs beside the checkpoint that is kept elsewhere, not into the folder.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use evidence::Hash;
use serde::{Deserialize, Serialize};

use super::Restored;

/// How far everything was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Which form this is.
    format: String,
    /// Of the log, with its key.
    pub(crate) verifier_key: String,
    /// Entries that were checked whole.
    pub(crate) size: u64,
    /// Root of the tree over them, base64.
    root: String,
    /// Those among them by which a collector amends something.
    pub(crate) amending: Vec<u64>,
    /// Of which backups the log was made.
    pub(crate) restored: Vec<Restored>,
    /// Payloads of entries below this one were said to be removed.
    pub(crate) removed: u64,
}

const FORMAT: &str = "pgwitness verify state v1";

impl State {
    pub(super) fn new(
        verifier_key: &str,
        size: u64,
        root: &Hash,
        amending: Vec<u64>,
        restored: Vec<Restored>,
        removed: u64,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            verifier_key: verifier_key.to_owned(),
            size,
            root: BASE64_STANDARD.encode(root),
            amending,
            restored,
            removed,
        }
    }

    /// Reads the file; `None` where there is none.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> anyhow::Result<Self> {
            let state: Self = serde_json::from_slice(&fs::read(path)?)?;
            ensure!(state.format == FORMAT, "it is not of the form {FORMAT:?}");
            Ok(state)
        };
        let hint = "name another file, or remove it and have everything checked again";
        read()
            .map(Some)
            .with_context(|| format!("cannot use the state {}: {hint}", path.display()))
    }

    /// Writes it so that it is there whole, or as it was.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&unfinished, path))
            .with_context(|| format!("cannot write the state {}", path.display()))
    }

    pub(super) fn is_root(&self, root: &Hash) -> bool {
        self.root == BASE64_STANDARD.encode(root)
    }
}
