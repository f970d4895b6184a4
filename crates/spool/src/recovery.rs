//! Reading a folder that a former run left, whatever happened to it.

use std::{collections::VecDeque, io, ops::RangeInclusive};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    disk::{Disk, File, read_exact},
    files::{BEGINNING, Found, Held, Name, frame},
    frame::{Broken, FRONT, Frame},
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Frames that count.
    pub frames: u64,
    /// Sequence of the newest one; 0 if there is none.
    pub newest: u64,
    /// What the newest one says.
    pub newest_body: Option<Bytes>,
    /// What did not count and is gone, oldest file first.
    pub cuts: Vec<Cut>,
    /// Sequences between the oldest frame and the newest that are not there: a file was damaged, or taken away. Such of frames that
    /// were acknowledged are no loss.
    pub missing: Vec<RangeInclusive<u64>>,
}

/// The end of a file that did not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Name of the file.
    pub file: String,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes that were cut off.
    pub bytes: u64,
    /// What was wrong there; `None`: a later file takes its place.
    pub why: Option<Broken>,
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file system says no; it can be tried again.
    #[error("the spool cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Another version of this program wrote it.
    #[error("{file} is of another version of the format: {found:?}, expected {:?}", BEGINNING.escape_ascii().to_string())]
    Version {
        /// Name of the file.
        file: String,
        /// What it begins with.
        found: String,
    },
}

/// What a folder holds.
pub(crate) struct Folder {
    /// Files that hold a frame, oldest first.
    pub(crate) files: VecDeque<Held>,
    /// Files in which nothing counts and that could not be removed, with their sizes.
    pub(crate) dead: Vec<(Name, u64)>,
    /// The highest number of a file.
    pub(crate) number: u64,
    /// Frames of the newest file, if it cannot be said that they are durable.
    pub(crate) doubtful: Vec<Frame>,
}

/// Reads a folder, and takes away for good what does not count: what is written from here on never stands beside it.
pub(crate) fn recover<D: Disk>(disk: &D) -> Result<(Folder, Recovered), OpenError> {
    let mut names: Vec<Name> = disk.list()?.iter().filter_map(|name| Name::parse(name)).collect();
    names.sort_unstable();
    let number = names.last().map_or(0, |name| name.number);
    let mut recovered = Recovered::default();
    let (mut files, mut empty, mut newest) = (VecDeque::<Held>::new(), Vec::new(), Vec::new());
    // Backwards: what a later file says counts, unless it was to take an earlier one's place and did not come as far.
    for name in names.into_iter().rev() {
        let behind = files.get(1).map_or(u64::MAX, |later| later.name.first);
        let mut found = read(disk, name, behind, files.len() < 2)?;
        if let Some(later) = files.front().map(|later| later.name.first..later.next) {
            if found.held.next > later.end && name.first <= later.start {
                empty.extend(files.pop_front().map(|later| (later.name, later.size)));
            } else if found.held.next > later.start {
                found = read(disk, name, later.start, false)?;
            }
        }
        recovered.cuts.extend(found.cut);
        if found.held.next == name.first {
            empty.push((name, found.held.size));
            continue;
        }
        if files.is_empty() {
            newest = found.frames;
        }
        files.push_front(found.held);
    }
    recovered.frames = files.iter().map(|file| file.next - file.name.first).sum();
    recovered.cuts.reverse();
    let last = files.back().map(|file| (file.name.first, file.next - 1));
    let doubtful = match settle(disk, files.back_mut(), &mut empty) {
        Ok(()) => Vec::new(),
        // What stands there is not believed: it is written anew, to a file that counts instead.
        Err(_) => newest.clone(),
    };
    for (before, after) in files.iter().zip(files.iter().skip(1)) {
        if before.next < after.name.first {
            recovered.missing.push(before.next..=after.name.first - 1);
        }
    }
    recovered.newest = last.map_or(0, |(_, newest)| newest);
    recovered.newest_body = newest.pop().map(|frame| frame.body());
    let folder = Folder {
        files,
        dead: empty,
        number,
        doubtful,
    };
    Ok((folder, recovered))
}

/// Makes durable what counts, and then that the rest is gone.
fn settle<D: Disk>(disk: &D, newest: Option<&mut Held>, empty: &mut Vec<(Name, u64)>) -> io::Result<()> {
    if let Some(newest) = newest {
        // Of the newest file alone nobody knows whether it is durable.
        let mut file = disk.open(&newest.name.to_string())?;
        if newest.end < newest.size {
            file.truncate(newest.end)?;
            newest.size = newest.end;
        }
        file.sync()?;
    }
    disk.sync()?;
    if empty.is_empty() {
        return Ok(());
    }
    while let Some((name, _)) = empty.last() {
        disk.remove(&name.to_string())?;
        empty.pop();
    }
    disk.sync()
}

/// What is in a file.
struct InFile {
    held: Held,
    cut: Option<Cut>,
    /// If they were asked for.
    frames: Vec<Frame>,
}

/// Reads a file up to its end, to `limit`, or to what is no frame.
fn read<D: Disk>(disk: &D, name: Name, limit: u64, keep: bool) -> Result<InFile, OpenError> {
    let file = disk.open(&name.to_string())?;
    let size = file.size()?;
    let mut held = Held {
        name,
        next: name.first,
        end: 0,
        size,
    };
    let mut frames = Vec::new();
    let mut beginning = [0; BEGINNING.len()];
    let whole = read_exact(&file, 0, &mut beginning)?;
    let mut why = Some(Broken::Beginning);
    if whole && beginning == BEGINNING {
        held.end = BEGINNING.len() as u64;
        why = loop {
            if held.next >= limit {
                break None;
            }
            match frame(&file, size, held.end, held.next)? {
                Found::End => break None,
                Found::Broken(broken) => break Some(broken),
                Found::Frame(body) => {
                    if keep {
                        frames.push(Frame::new(held.next, body.len(), |bytes| {
                            bytes.extend_from_slice(&body);
                        }));
                    }
                    held.end += (FRONT + body.len()) as u64;
                    held.next += 1;
                }
            }
        };
    } else if whole && beginning.starts_with(FAMILY) && beginning.last().is_some_and(u8::is_ascii_digit) {
        return Err(OpenError::Version {
            file: name.to_string(),
            found: beginning.escape_ascii().to_string(),
        });
    }
    let cut = (held.end < size).then(|| Cut {
        file: name.to_string(),
        offset: held.end,
        bytes: size - held.end,
        why,
    });
    Ok(InFile { held, cut, frames })
}

/// What files of every version begin with, and a digit behind that. Without one a write was torn there.
const FAMILY: &[u8] = b"pgwitness spool";
