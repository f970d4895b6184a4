//! The queue itself: appending, syncing, reading, acknowledging.
//!
//! Owns which bytes are believed to be durable. What is not is kept in memory, too, so that it can be written again.

use std::{collections::VecDeque, io, ops::RangeInclusive};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    disk::{Disk, File, write_all},
    files::{BEGINNING, Found, Held, Name, frame, skip},
    frame::{BODY_BYTES, Broken, Frame},
    recovery::{OpenError, Recovered, recover},
};

/// How much a spool may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes at which a file is followed by the next: what is acknowledged is given back in pieces of this size.
    pub file_bytes: u64,
}

impl Limits {
    /// So many bytes in all, in files of an eighth of that and of 16 MiB at the most: small enough that what is acknowledged soon goes,
    /// large enough that a file costs nothing beside its content.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self {
            bytes,
            file_bytes: (bytes / 8).min(16 << 20),
        }
    }
}

/// The queue. See the crate's documentation for what holds.
#[derive(Debug)]
pub struct Spool<D: Disk> {
    disk: D,
    limits: Limits,
    /// Oldest first. Each holds a frame at least.
    files: VecDeque<Held>,
    /// The newest of them, if it is appended to.
    open: Option<D::File>,
    /// Files in which nothing counts, with their sizes: they go as soon as what took their place is durable.
    dead: Vec<(Name, u64)>,
    /// The highest number that a file has had.
    number: u64,
    newest: u64,
    acknowledged: u64,
    /// Up to there everything that is not acknowledged is durable.
    synced: u64,
    /// Frames behind that, but for acknowledged ones; the newest frame is kept in any case.
    unsynced: VecDeque<Frame>,
    unsynced_bytes: u64,
    /// The open file's name may not be durable.
    unnamed: bool,
    /// A sync failed: the frames in `unsynced` have to be written anew.
    in_doubt: bool,
    /// Where reading goes on.
    cursor: Option<Cursor<D::File>>,
}

#[derive(Debug)]
struct Cursor<F> {
    name: Name,
    file: F,
    offset: u64,
    sequence: u64,
}

/// Why a frame was not taken.
#[derive(Debug, Error)]
pub enum AppendError {
    /// It is not the one that follows.
    #[error("frame {found} does not follow, expected {expected}")]
    Sequence {
        /// What would follow.
        expected: u64,
        /// Its own.
        found: u64,
    },
    /// Longer than a frame can be, or empty.
    #[error("a body of {0} bytes, where 1 to {BODY_BYTES} are possible")]
    Length(u64),
    /// It would take the spool beyond its bound.
    #[error("the spool is full: {used} of {limit} bytes")]
    Full {
        /// Bytes in use.
        used: u64,
        /// The bound.
        limit: u64,
    },
    /// The file system says no.
    #[error("cannot write to the spool: {0}")]
    Io(#[from] io::Error),
}

/// Why a frame was not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not there: acknowledged and removed, or never appended.
    #[error("frame {0} is not in the spool")]
    Missing(u64),
    /// It was there, and is no longer what was appended.
    #[error("frame {sequence} is damaged, in {file} at {offset}: {why}")]
    Damaged {
        /// Which.
        sequence: u64,
        /// Name of the file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: Broken,
    },
    /// The file system says no.
    #[error("cannot read the spool: {0}")]
    Io(#[from] io::Error),
}

impl<D: Disk> Spool<D> {
    /// Opens a folder and makes durable what is there, as far as [`Spool::synced`] says.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or another version of the format is found; nothing is lost by either.
    pub fn open(disk: D, limits: Limits) -> Result<(Self, Recovered), OpenError> {
        let (folder, recovered) = recover(&disk)?;
        let doubtful: VecDeque<Frame> = folder.doubtful.into();
        let spool = Self {
            disk,
            limits,
            files: folder.files,
            dead: folder.dead,
            open: None,
            number: folder.number,
            newest: recovered.newest,
            acknowledged: 0,
            synced: if doubtful.is_empty() { recovered.newest } else { 0 },
            unsynced_bytes: doubtful.iter().map(Frame::size).sum(),
            unnamed: false,
            in_doubt: !doubtful.is_empty(),
            unsynced: doubtful,
            cursor: None,
        };
        Ok((spool, recovered))
    }

    /// The sequence that a frame must have to be appended: behind the newest, or behind what was acknowledged if that is more.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.newest.max(self.acknowledged) + 1
    }

    /// Sequence of the oldest frame that is there and not acknowledged.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        let first = self.files.front()?.name.first;
        let oldest = first.max(self.acknowledged + 1);
        (oldest <= self.newest).then_some(oldest)
    }

    /// Sequence of the oldest frame that is there, acknowledged or not; 0 if there is none. What was before it is acknowledged.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.files.front().map_or(0, |file| file.name.first)
    }

    /// The frames of the oldest file that are not acknowledged, and the bytes that it takes: what the spool can do without, at a
    /// loss. `None` if there is no later file.
    #[must_use]
    pub fn oldest_file(&self) -> Option<(RangeInclusive<u64>, u64)> {
        let file = self.files.front().filter(|_| self.files.len() > 1)?;
        let from = file.name.first.max(self.acknowledged + 1);
        (from < file.next).then_some((from..=file.next - 1, file.size))
    }

    /// Sequence of the newest frame, acknowledged or not; 0 if there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Up to which frame everything that is not acknowledged is durable.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Bytes that the files take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let dead: u64 = self.dead.iter().map(|(_, size)| size).sum();
        self.files.iter().map(|file| file.size).sum::<u64>() + dead
    }

    /// Bytes that are not durable, and are kept in memory for that.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// Whether [`Spool::sync`] would make something durable that is not acknowledged, or let files go that are.
    #[must_use]
    pub fn wants_sync(&self) -> bool {
        let unsynced = self.newest > self.synced.max(self.acknowledged);
        let goes = self
            .files
            .front()
            .is_some_and(|file| self.files.len() > 1 && file.next <= self.acknowledged + 1);
        unsynced || goes || self.in_doubt || !self.dead.is_empty()
    }

    /// Appends a frame with one write, as a rule. It is durable when [`Spool::sync`] says so, and survives the end of this
    /// process from here on.
    ///
    /// # Errors
    ///
    /// It was not taken, and everything else is as it was. It can be tried again with the same bytes.
    pub fn append(&mut self, frame: &Frame) -> Result<(), AppendError> {
        let expected = self.next();
        if frame.sequence() != expected {
            let found = frame.sequence();
            return Err(AppendError::Sequence { expected, found });
        }
        let body = frame.body().len();
        if body == 0 || body > BODY_BYTES {
            return Err(AppendError::Length(body as u64));
        }
        if self.bytes() + frame.size() > self.limits.bytes {
            // Files may go as soon as a later frame is durable.
            if self.wants_sync() {
                self.sync()?;
            }
            let used = self.bytes();
            if used + frame.size() > self.limits.bytes {
                let limit = self.limits.bytes;
                return Err(AppendError::Full { used, limit });
            }
        }
        if self.in_doubt {
            self.write_anew()?;
        }
        let fits = self.files.back().is_some_and(|file| {
            self.open.is_some() && file.size < self.limits.file_bytes && file.next == expected
        });
        if fits {
            self.write(frame)?;
        } else {
            if self.newest > self.synced.max(self.acknowledged) {
                // A later file never holds frames while earlier ones may vanish.
                self.sync()?;
            }
            self.begin(std::slice::from_ref(frame))?;
        }
        self.newest = expected;
        self.unsynced_bytes += frame.size();
        self.unsynced.push_back(frame.clone());
        self.forget_acknowledged();
        Ok(())
    }

    /// Makes everything durable that was appended.
    ///
    /// # Errors
    ///
    /// It is as little durable as before; the next call writes it anew.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.newest {
            if !self.in_doubt {
                self.in_doubt = self.sync_open().is_err();
            }
            if self.in_doubt {
                self.write_anew()?;
                self.in_doubt = self.sync_open().is_err();
                if self.in_doubt {
                    return Err(io::Error::other("what was written anew cannot be synced either"));
                }
            }
            self.synced = self.newest;
            self.unsynced.clear();
            self.unsynced_bytes = 0;
        }
        let disk = &self.disk;
        self.dead.retain(|(name, _)| {
            let removed = disk.remove(&name.to_string());
            removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        self.remove_acknowledged();
        Ok(())
    }

    /// Reads a frame, from where the one before it was read if it follows that.
    ///
    /// # Errors
    ///
    /// If it is not there, damaged, or the file system refuses.
    pub fn read(&mut self, sequence: u64) -> Result<Bytes, ReadError> {
        // What a doubtful file says of it is not asked.
        if let Some(first) = self.unsynced.front().map(Frame::sequence)
            && let Some(index) = sequence.checked_sub(first)
            && let Some(frame) = self.unsynced.get(usize::try_from(index).unwrap_or(usize::MAX))
        {
            return Ok(frame.body());
        }
        let held = self
            .files
            .iter()
            .find(|file| (file.name.first..file.next).contains(&sequence));
        let held = held.ok_or(ReadError::Missing(sequence))?;
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.name == held.name && cursor.sequence <= sequence => cursor,
            _ => Cursor {
                name: held.name,
                file: self.disk.open(&held.name.to_string())?,
                offset: BEGINNING.len() as u64,
                sequence: held.name.first,
            },
        };
        let damaged = |offset, why| ReadError::Damaged {
            sequence,
            file: held.name.to_string(),
            offset,
            why,
        };
        while cursor.sequence < sequence {
            let next = skip(&cursor.file, held.end, cursor.offset, cursor.sequence)?;
            cursor.offset = next.ok_or_else(|| damaged(cursor.offset, Broken::Short))?;
            cursor.sequence += 1;
        }
        match frame(&cursor.file, held.end, cursor.offset, sequence)? {
            Found::Frame(body) => {
                cursor.offset += (crate::FRONT + body.len()) as u64;
                cursor.sequence += 1;
                self.cursor = Some(cursor);
                Ok(body)
            }
            Found::End => Err(damaged(cursor.offset, Broken::Short)),
            Found::Broken(why) => Err(damaged(cursor.offset, why)),
        }
    }

    /// Everything up to this sequence is safe elsewhere. Files go when that is all that they hold.
    pub fn acknowledge(&mut self, sequence: u64) {
        if sequence <= self.acknowledged {
            return;
        }
        self.acknowledged = sequence;
        self.forget_acknowledged();
        self.remove_acknowledged();
    }

    /// What was acknowledged behind this sequence is needed again, as far as it is there.
    pub fn forgotten(&mut self, sequence: u64) {
        self.acknowledged = self.acknowledged.min(sequence);
    }

    /// Writes to the open file, whose last bytes may be those of an earlier attempt.
    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let (Some(file), Some(held)) = (&mut self.open, self.files.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = write_all(file, held.end, frame.bytes());
        if let Err(error) = written {
            // To give the room back; what stays of it is overwritten with the same bytes, or no frame.
            let cut = file.truncate(held.end);
            held.size = file.size().unwrap_or(held.end + frame.size());
            return Err(cut.err().unwrap_or(error));
        }
        held.end += frame.size();
        held.size = held.end;
        held.next += 1;
        Ok(())
    }

    /// Begins a file with these frames, with one write if there is one.
    fn begin(&mut self, frames: &[Frame]) -> io::Result<()> {
        let Some(first) = frames.first() else {
            return Ok(());
        };
        let name = Name {
            number: self.number + 1,
            first: first.sequence(),
        };
        // Whatever becomes of it, no other file gets this number.
        self.number = name.number;
        let mut file = self.disk.create(&name.to_string())?;
        let bytes: Vec<&[u8]> = frames.iter().map(Frame::bytes).collect();
        let bytes = [BEGINNING.as_slice(), &bytes.concat()].concat();
        if let Err(error) = write_all(&mut file, 0, &bytes) {
            // What stays of it is the same frames, whole or not.
            if self.disk.remove(&name.to_string()).is_err() {
                self.dead.push((name, file.size().unwrap_or(bytes.len() as u64)));
            }
            return Err(error);
        }
        let end = bytes.len() as u64;
        self.files.push_back(Held {
            name,
            next: first.sequence() + frames.len() as u64,
            end,
            size: end,
        });
        self.open = Some(file);
        self.unnamed = true;
        Ok(())
    }

    /// Writes what is not durable to a new file, because the one in which it is cannot be believed.
    fn write_anew(&mut self) -> io::Result<()> {
        self.open = None;
        let frames: Vec<Frame> = self.unsynced.iter().cloned().collect();
        let Some(first) = frames.first().map(Frame::sequence) else {
            self.in_doubt = false;
            return Ok(());
        };
        self.begin(&frames)?;
        self.in_doubt = false;
        let Some(anew) = self.files.pop_back() else {
            return Ok(());
        };
        self.cursor = None;
        while let Some(old) = self.files.back_mut().filter(|file| file.next > first) {
            // It is read up to there only, as recovery would.
            old.next = first.max(old.name.first);
            if old.next > old.name.first {
                break;
            }
            // Nothing of it counts. It may hold what was durable, so that it stays until the new one is.
            self.dead.push((old.name, old.size));
            self.files.pop_back();
        }
        self.files.push_back(anew);
        Ok(())
    }

    fn sync_open(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.open {
            file.sync()?;
        }
        if self.unnamed {
            self.disk.sync()?;
            self.unnamed = false;
        }
        Ok(())
    }

    fn forget_acknowledged(&mut self) {
        while self.unsynced.len() > 1
            && let Some(frame) = self
                .unsynced
                .pop_front_if(|frame| frame.sequence() <= self.acknowledged)
        {
            self.unsynced_bytes -= frame.size();
        }
    }

    fn remove_acknowledged(&mut self) {
        while let Some(file) = self.files.front()
            && self.files.len() > 1
            && file.next <= self.acknowledged + 1
            && file.next <= self.synced
        {
            let removed = self.disk.remove(&file.name.to_string());
            if removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                // Tried again with the next acknowledgement.
                return;
            }
            self.files.pop_front();
        }
    }
}
