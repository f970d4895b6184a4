//! The log's entries as its static files hold them: headers and signatures, also of batches whose payloads are gone.
//!
//! Owns reading `evidence/tile/entries` in order, while a collector may be writing. What is read is believed here; whoever needs to
//! know makes the tree of it.

use std::{
    collections::VecDeque,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use evidence::{TILE_WIDTH, bundle_path};
use prost::Message;
use proto::v1::SignedBatch;

/// Entries from the first one on.
pub(crate) struct Bundles {
    evidence: PathBuf,
    next: u64,
    read: VecDeque<Vec<u8>>,
}

impl Bundles {
    pub(crate) fn new(evidence: &Path) -> Self {
        Self {
            evidence: evidence.to_owned(),
            next: 0,
            read: VecDeque::new(),
        }
    }

    /// The next entry: as the tree has it, and as a batch without its payload.
    pub(crate) fn next_entry(&mut self) -> anyhow::Result<(Vec<u8>, SignedBatch)> {
        if self.read.is_empty() {
            self.read = self.bundle(self.next / TILE_WIDTH as u64)?;
        }
        let entry = self.next;
        let bytes = self.read.pop_front();
        let bytes = bytes.with_context(|| format!("entry {entry} is in no file below tile/entries"))?;
        let batch =
            SignedBatch::decode(bytes.as_slice()).with_context(|| format!("entry {entry} is no batch"))?;
        self.next += 1;
        Ok((bytes, batch))
    }

    fn bundle(&self, nth: u64) -> anyhow::Result<VecDeque<Vec<u8>>> {
        let path = bundle_path(nth);
        let bytes = match fs::read(self.evidence.join(&path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.partial(&path)?,
            read => read.with_context(|| format!("cannot read {path}"))?,
        };
        let (mut rest, mut entries) = (bytes.as_slice(), VecDeque::new());
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            let entry = behind.split_at_checked(length);
            let (entry, behind) = entry.ok_or_else(|| anyhow!("{path} ends inside an entry"))?;
            entries.push_back(entry.to_vec());
            rest = behind;
        }
        Ok(entries)
    }

    /// The widest partial file of a bundle.
    fn partial(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let folder = self.evidence.join(format!("{path}.p"));
        let widths = fs::read_dir(&folder).with_context(|| format!("there is no {path}"))?;
        let width =
            |file: std::io::Result<fs::DirEntry>| file.ok()?.file_name().to_str()?.parse::<usize>().ok();
        let widest = widths.filter_map(width).max();
        let widest = widest.with_context(|| format!("there is no {path}"))?;
        fs::read(folder.join(widest.to_string())).with_context(|| format!("cannot read {path}.p/{widest}"))
    }
}
