//! The seam to the file system: what a spool asks of a folder, and two that answer.
//!
//! Owns no policy. [`Real`] is a folder; [`Faulty`] is one in memory, that fails, fills up and loses power as a seed says.

mod faulty;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

pub use faulty::{Faults, Faulty, FaultyFile};

/// A folder of plain files. What was written is there for later calls at once, and after a loss of power only if it was
/// synced before: the file's bytes by [`File::sync`], the file's name, and that it is gone, by [`Disk::sync`].
pub trait Disk: Send + 'static {
    /// An open file.
    type File: File;

    /// Names of the files.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file that must not be there yet.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file that is there.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which files there are.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + 'static {
    /// Its size in bytes.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn size(&self) -> io::Result<u64>;

    /// Writes at this place with one call; returns how many bytes were taken.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Reads from this place with one call; returns how many bytes there were.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Cuts it to this size.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn truncate(&mut self, size: u64) -> io::Result<()>;

    /// Makes its bytes and its size durable. After an error nobody knows which of them are, and another call that succeeds
    /// does not change that.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the operating system's.
#[derive(Clone, Debug)]
pub struct Real(PathBuf);

impl Real {
    /// This folder; it is made if it is not there, for its owner alone.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn folder(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Disk for Real {
    type File = fs::File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(self.0.join(name))
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        OpenOptions::new().read(true).write(true).open(self.0.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes all of it, in as many calls as it takes.
pub(crate) fn write_all<F: File>(file: &mut F, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => {
                offset += taken as u64;
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills the buffer; false if the file ends before.
pub(crate) fn read_exact<F: File>(file: &F, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<bool> {
    while !buffer.is_empty() {
        match file.read_at(offset, buffer) {
            Ok(0) => return Ok(false),
            Ok(taken) => {
                offset += taken as u64;
                buffer = buffer.get_mut(taken..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
