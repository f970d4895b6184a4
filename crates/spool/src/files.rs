//! Names of files, and the frames in them one after the other.

use std::io;

use bytes::Bytes;

use crate::{
    disk::{File, read_exact},
    frame::{Broken, FRONT, Front},
};

/// What a file begins with. The last character is the version of the format.
pub(crate) const BEGINNING: [u8; 16] = *b"pgwitness spool1";

/// A file that holds frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) name: Name,
    /// Sequence behind its newest frame that counts; that of the first if it holds none.
    pub(crate) next: u64,
    /// Bytes up to the end of that frame.
    pub(crate) end: u64,
    /// Bytes that it takes.
    pub(crate) size: u64,
}

/// A file's name: the order of files, and what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) number: u64,
    /// Sequence of the first frame.
    pub(crate) first: u64,
}

impl Name {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (number, first) = name.strip_suffix(".spool")?.split_once('-')?;
        let parsed = Self {
            number: number.parse().ok()?,
            first: first.parse().ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:010}-{:020}.spool", self.number, self.first)
    }
}

/// What was found at a place in a file.
pub(crate) enum Found {
    /// This frame's body.
    Frame(Bytes),
    /// The file ends here.
    End,
    /// Something else.
    Broken(Broken),
}

/// Reads the frame at `offset` of a file of `size` bytes.
pub(crate) fn frame<F: File>(file: &F, size: u64, offset: u64, expected: u64) -> io::Result<Found> {
    if offset == size {
        return Ok(Found::End);
    }
    let mut bytes = [0; FRONT];
    if !read_exact(file, offset, &mut bytes)? {
        return Ok(Found::Broken(Broken::Short));
    }
    let front = Front::read(&bytes);
    let behind = offset + FRONT as u64;
    let length = match front.body(expected, size.saturating_sub(behind)) {
        Ok(length) => length,
        Err(broken) => return Ok(Found::Broken(broken)),
    };
    let mut body = vec![0; length];
    if !read_exact(file, behind, &mut body)? {
        return Ok(Found::Broken(Broken::Short));
    }
    Ok(match front.check(&body) {
        Ok(()) => Found::Frame(body.into()),
        Err(broken) => Found::Broken(broken),
    })
}

/// Where the frame behind the one at `offset` begins, by its front alone: nothing is checked but that it can be one.
pub(crate) fn skip<F: File>(file: &F, size: u64, offset: u64, expected: u64) -> io::Result<Option<u64>> {
    let mut bytes = [0; FRONT];
    if !read_exact(file, offset, &mut bytes)? {
        return Ok(None);
    }
    let behind = offset + FRONT as u64;
    let length = Front::read(&bytes).body(expected, size.saturating_sub(behind));
    Ok(length.ok().map(|length| behind + length as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        let name = Name { number: 7, first: 12 };
        assert_eq!(name.to_string(), "0000000007-00000000000000000012.spool");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for other in [
            "7-12.spool",
            "0000000007-00000000000000000012.spoo",
            "+000000007-00000000000000000012.spool",
            "agent.key",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
