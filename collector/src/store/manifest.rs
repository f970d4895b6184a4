//! Which Parquet files count: one small object, replaced whole, that makes a seal happen all at once.
//!
//! Owns `sealed.json` and what is done on opening: files that it does not name are left-overs of a seal that a crash
//! cut short, and are deleted; if a file that it names is missing or has another size, nothing in the store can be
//! trusted and it starts empty (the evidence log refills it). Refuses to repair.

use std::collections::HashMap;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use serde::{Deserialize, Serialize};

/// The state of the sealed part of the store.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Version of the columns and of this object; another one makes the store start empty.
    format: u32,
    /// Log entries `0..entries` are in `files`, each exactly once.
    pub(crate) entries: u64,
    /// In no particular order.
    pub(crate) files: Vec<SealedFile>,
    /// The same of the table `subjects`; a seal without any has none.
    pub(crate) subjects: Vec<SealedFile>,
    /// What is put together of `files`, at most one of a day.
    pub(crate) uses: Vec<UsesFile>,
    /// What the log's entries below this one say to be erased is in no file.
    pub(crate) erased_to: u64,
}

/// One Parquet file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct SealedFile {
    /// Below the store's root.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// The uses of a day, which are made of other files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct UsesFile {
    /// `date=2026-05-10`.
    pub(crate) date: String,
    pub(crate) file: SealedFile,
    /// What of it could be called something else.
    pub(crate) nameable: SealedFile,
    /// Paths of the events' files that it covers, all of their rows.
    pub(crate) of: Vec<String>,
    /// Amendments of log entries before this one are in it.
    pub(crate) built_to: u64,
}

impl Manifest {
    pub(crate) fn empty() -> Self {
        Self {
            format: FORMAT,
            ..Self::default()
        }
    }

    /// The manifest as the store's files bear it out; deletes what it does not account for.
    pub(crate) async fn open(store: &dyn ObjectStore) -> anyhow::Result<Self> {
        let mut manifest = Self::read(store).await?;
        let mut found = found(store).await?;
        // These can be made again of the others.
        let is_there = |file: &SealedFile| found.get(&file.path) == Some(&file.bytes);
        manifest
            .uses
            .retain(|uses| is_there(&uses.file) && is_there(&uses.nameable));
        let damaged = manifest
            .all()
            .find(|file| !is_there(file))
            .map(|file| file.path.clone());
        if let Some(file) = damaged {
            tracing::warn!(
                file,
                "a sealed file is missing or damaged: the store is refilled from the evidence log"
            );
            manifest = Self::empty();
            manifest.write(store).await?;
        }
        for file in manifest.all() {
            found.remove(&file.path);
        }
        remove(store, found.into_keys()).await?;
        Ok(manifest)
    }

    /// All files that count.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SealedFile> {
        let uses = self.uses.iter().flat_map(|uses| [&uses.file, &uses.nameable]);
        self.files.iter().chain(&self.subjects).chain(uses)
    }

    /// Replaces the stored manifest: from here on, the files that it names count.
    pub(crate) async fn write(&self, store: &dyn ObjectStore) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        store
            .put(&Path::from(NAME), PutPayload::from(bytes))
            .await
            .context("cannot write the store's manifest")?;
        Ok(())
    }

    /// What the store says that it has, unchecked.
    pub(crate) async fn read(store: &dyn ObjectStore) -> anyhow::Result<Self> {
        let bytes = match store.get(&Path::from(NAME)).await {
            Ok(found) => found.bytes().await.context("cannot read the store's manifest")?,
            Err(object_store::Error::NotFound { .. }) => return Ok(Self::empty()),
            Err(error) => return Err(error).context("cannot read the store's manifest"),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(manifest) if manifest.format == FORMAT => Ok(manifest),
            _ => {
                tracing::warn!(
                    "the store's manifest is of another version or damaged: the store is refilled from the evidence log"
                );
                Ok(Self::empty())
            }
        }
    }
}

/// The files that are there, counted or not, and their bytes.
pub(super) async fn found(store: &dyn ObjectStore) -> anyhow::Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    for folder in [EVENTS, SUBJECTS, USES] {
        let mut list = store.list(Some(&Path::from(folder)));
        while let Some(meta) = list.try_next().await.context("cannot list the store's files")? {
            found.insert(meta.location.to_string(), meta.size);
        }
    }
    Ok(found)
}

/// Deletes these files; of those that are not there, nothing is left to do.
pub(super) async fn remove(
    store: &dyn ObjectStore,
    paths: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    // All at once: a bucket takes many of them with one request.
    let paths: Vec<_> = paths.into_iter().map(|path| Ok(Path::from(path))).collect();
    let mut removed = store.delete_stream(futures::stream::iter(paths).boxed());
    while let Some(one) = removed.next().await {
        match one {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error).context("cannot delete files of the store"),
        }
    }
    Ok(())
}

/// Raised whenever the columns or the manifest change; old stores are then refilled from the log.
const FORMAT: u32 = 11;

/// The manifest's name below the store's root.
pub(crate) const NAME: &str = "sealed.json";

/// The folder of the Parquet files below the store's root.
pub(crate) const EVENTS: &str = "events";

/// The same of the table `subjects`.
pub(crate) const SUBJECTS: &str = "subjects";

/// And of what is put together.
pub(crate) const USES: &str = "uses";
