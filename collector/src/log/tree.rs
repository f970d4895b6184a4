//! Hashes of the tree, read from the files below `evidence/tile`.
//!
//! Owns which file a hash is in, while a collector may be writing: a partial tile may have become a full one. What is read
//! is believed here; whoever makes a proof of it checks that proof before it is handed on.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use evidence::{Hash, NodePlace};

/// The tree of one size.
pub(crate) struct TreeFiles {
    evidence: PathBuf,
    size: u64,
    /// By path of the full tile. A proof needs a few dozen at the most.
    read: HashMap<String, Vec<u8>>,
}

impl TreeFiles {
    pub(crate) fn new(evidence: &Path, size: u64) -> Self {
        Self {
            evidence: evidence.to_owned(),
            size,
            read: HashMap::new(),
        }
    }

    /// The path from entry `index` to the root.
    pub(crate) fn inclusion(&mut self, index: u64) -> anyhow::Result<Vec<Hash>> {
        let size = self.size;
        evidence::inclusion(index, size, &mut |level, n| self.node(level, n))
    }

    /// What shows that the tree goes on from its first `old` entries.
    pub(crate) fn consistency(&mut self, old: u64) -> anyhow::Result<Vec<Hash>> {
        let size = self.size;
        evidence::consistency(old, size, &mut |level, n| self.node(level, n))
    }

    fn node(&mut self, level: u32, n: u64) -> anyhow::Result<Hash> {
        let place = NodePlace::of(level, n, self.size)
            .with_context(|| format!("a tree of {} has no node {n} at level {level}", self.size))?;
        if !self.read.contains_key(&place.base) {
            let tile = self.tile(&place)?;
            self.read.insert(place.base.clone(), tile);
        }
        let tile = self.read.get(&place.base).map_or(&[][..], Vec::as_slice);
        place
            .hash(tile)
            .ok_or_else(|| anyhow!("{} is too short", place.path()))
    }

    fn tile(&self, place: &NodePlace) -> anyhow::Result<Vec<u8>> {
        let read = |path: &str| fs::read(self.evidence.join(path));
        let tile = match read(&place.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => read(&place.base),
            other => other,
        };
        tile.with_context(|| format!("cannot read {}", place.path()))
    }
}
