//! A file that is read again when it changes, while the program runs.
//!
//! Owns the decision when: a file that is replaced, or written to, is read once it stood still from one look to the next, so
//! that who writes it in place is not interrupted. Refuses to know what is in it, and to keep time.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A file, and how it was when it was read and looked at.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    most: u64,
    read: Option<Stamp>,
    seen: Option<Stamp>,
}

/// What tells a file from the one that was there before, and from itself before it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Watched {
    /// Reads a file of at most `most` bytes.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no file, is larger, or no UTF-8.
    pub fn open(path: &Path, most: u64) -> io::Result<(Self, String)> {
        // Before its contents: what is written in between shows as a change.
        let stamp = Stamp::of(path);
        let watched = Self {
            path: path.to_owned(),
            most,
            read: stamp,
            seen: stamp,
        };
        let text = watched.text()?;
        Ok((watched, text))
    }

    /// Its place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at it: its text, or why there is none, if it is another one than was read and stood still since the last look.
    pub fn look(&mut self) -> Option<io::Result<String>> {
        let stamp = Stamp::of(&self.path);
        let stands_still = stamp == self.seen;
        self.seen = stamp;
        if !stands_still || stamp == self.read {
            return None;
        }
        self.read = stamp;
        Some(self.text())
    }

    fn text(&self) -> io::Result<String> {
        let found = fs::metadata(&self.path)?;
        if !found.is_file() || found.len() > self.most {
            let most = self.most;
            return Err(io::Error::other(format!("it is no file of at most {most} bytes")));
        }
        let mut text = String::new();
        fs::File::open(&self.path)?
            .take(self.most)
            .read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Stamp {
    /// `None` if there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: (found.dev(), found.ino()),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_or_written_to_is_read_again() {
        let folder = std::env::temp_dir().join(format!("watched-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (file, next) = (folder.join("file"), folder.join("next"));
        fs::write(&file, "one").expect("written");
        let (mut watched, text) = Watched::open(&file, 10).expect("readable");
        assert_eq!(text, "one");
        assert!(watched.look().is_none(), "nothing changed");
        fs::write(&next, "other").expect("written");
        fs::rename(&next, &file).expect("replaced");
        assert!(watched.look().is_none(), "it may still be being written");
        let look = |watched: &mut Watched| watched.look().map(Result::ok);
        assert_eq!(look(&mut watched), Some(Some("other".to_owned())));
        assert!(watched.look().is_none());
        fs::write(&file, "more than it may have").expect("written");
        assert!(watched.look().is_none());
        assert_eq!(look(&mut watched), Some(None), "too large");
        fs::remove_file(&file).expect("it was there");
        assert!(watched.look().is_none());
        assert_eq!(look(&mut watched), Some(None), "gone");
        assert!(watched.look().is_none(), "told once");
        assert!(Watched::open(&folder, 10).is_err() && Watched::open(&file, 10).is_err());
        fs::remove_dir_all(&folder).expect("it was there");
    }
}
