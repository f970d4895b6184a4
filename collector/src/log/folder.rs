//! The data folder: where everything lies, who may use it, and how a file gets there whole.
//!
//! Owns paths, the lock and durable writes. Temporary files lie outside `evidence/`, so that nothing unfinished is
//! ever part of the record.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// A collector's data folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

/// Held for as long as a collector uses the folder; the kernel lets go of it when the process ends, however it ends.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Creates what is missing, readable for this user only.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for path in [
            self.root.clone(),
            self.evidence(),
            self.agents(),
            self.payload(),
            self.aside(),
            self.erasing(),
            self.tmp(),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .with_context(|| {
                    format!(
                        "cannot create {}: name a folder that this user may write with --data",
                        path.display()
                    )
                })?;
        }
        for left in fs::read_dir(self.tmp())? {
            fs::remove_file(left?.path())?;
        }
        // What is written into a new folder is only as durable as the folder's own entry.
        sync_folder(&self.evidence())?;
        sync_folder(&self.root)?;
        Ok(())
    }

    /// Takes the folder for this process alone.
    pub(crate) fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| {
                format!(
                    "cannot write {}: name a folder that this user may write",
                    path.display()
                )
            })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, nix::Error::EWOULDBLOCK)) => {
                bail!(
                    "another collector is using {}: stop it, or name another folder",
                    self.root.display()
                )
            }
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    pub(crate) fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    pub(crate) fn agents(&self) -> PathBuf {
        self.evidence().join("agents")
    }

    pub(crate) fn payload(&self) -> PathBuf {
        self.evidence().join("payload")
    }

    /// The segment whose first record is log entry `first`.
    pub(crate) fn segment(&self, first: u64) -> PathBuf {
        self.payload().join(segment_name(first))
    }

    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    /// The collector's private key: beside the evidence, not in it, so that a copy of the evidence cannot sign.
    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("collector.key")
    }

    /// Segments that lost events, and wait for the log to say so.
    pub(crate) fn erasing(&self) -> PathBuf {
        self.root.join("erasing")
    }

    pub(crate) fn erasing_segment(&self, first: u64) -> PathBuf {
        self.erasing().join(segment_name(first))
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Writes a file so that after a crash it is there whole, or as it was before. One writer at a time.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let unfinished = self.tmp().join("next");
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(Path::new("/"));
            create_folder(folder)?;
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            sync_folder(folder)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Name of the segment whose first record is log entry `first`.
pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:012}.seg")
}

/// Makes a folder's list of files durable.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Segments by name, which is their order, with the log entry that each begins at.
pub(crate) fn segments(evidence: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let folder = evidence.join("payload");
    let mut found = Vec::new();
    let list = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for file in list {
        let path = file?.path();
        let first = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        match first.filter(|first| {
            path.file_name()
                .is_some_and(|name| name == segment_name(*first).as_str())
        }) {
            Some(first) => found.push((first, path)),
            None => bail!("{} is not a payload segment", path.display()),
        }
    }
    found.sort();
    Ok(found)
}

/// Creates a folder and makes its entry, and those of the parents that were missing, durable.
fn create_folder(path: &Path) -> std::io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                create_folder(parent)?;
            }
            create_folder(path)
        }
        Err(error) => Err(error),
    }
}
