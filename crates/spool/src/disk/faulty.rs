//! A folder in memory that behaves as badly as a real one may.
//!
//! Owns the difference between what a running program sees (the page cache) and what is left when the power goes: of each
//! write, cut, new name and removed name that was not synced, either nothing, or all, or of a write a piece, in any order.
//! Everything follows from a seed. Refuses to behave worse than a file system may: what was synced stays.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, File};

/// How often calls fail: of 1000 calls so many. The default is a disk without faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Writes that take a part only.
    pub short_write: u32,
    /// Writes that fail, after having taken a part or nothing.
    pub write: u32,
    /// Syncs of files and of the folder that fail.
    pub sync: u32,
    /// Other calls that fail: listing, making, opening, removing, cutting, reading.
    pub other: u32,
    /// Bytes that fit; `None`: no end.
    pub room: Option<u64>,
    /// Calls until the power goes: from then on all calls fail, until [`Faulty::power_on`]. `None`: it stays.
    pub power_off_after: Option<u64>,
}

/// The folder. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Faulty(Arc<Mutex<World>>);

/// An open file of it.
#[derive(Debug)]
pub struct FaultyFile {
    world: Arc<Mutex<World>>,
    inode: u64,
    /// Of the run in which it was opened.
    boot: u64,
}

#[derive(Debug)]
struct World {
    chance: Chance,
    faults: Faults,
    /// Counts losses of power: what was opened before is of no use behind one.
    boot: u64,
    off: bool,
    calls: u64,
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the folder was synced.
    renamed: Vec<(String, Option<u64>)>,
    next_inode: u64,
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, seeded, and good enough to choose faults.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn in_thousand(&mut self, share: u32) -> bool {
        self.next() % 1000 < u64::from(share)
    }
}

impl Faulty {
    /// An empty folder.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(World {
            chance: Chance(seed),
            faults,
            boot: 0,
            off: false,
            calls: 0,
            inodes: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            next_inode: 0,
        })))
    }

    /// From here on it fails like this.
    pub fn set(&self, faults: Faults) {
        let mut world = self.world();
        world.faults = faults;
        world.calls = 0;
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.world().off
    }

    /// The power goes, if it has not gone already, and comes back: what was not synced is there or not, as chance has it.
    pub fn power_on(&self) {
        self.world().lose_power();
    }

    /// Changes a byte of a file, as a bad disk does, in the cache and on it; false if there is no such byte.
    pub fn flip(&self, name: &str, offset: usize) -> bool {
        let world = &mut *self.world();
        let inode = world.names.get(name).and_then(|id| world.inodes.get_mut(id));
        inode.is_some_and(|inode| {
            let Some(byte) = inode.seen.get_mut(offset) else {
                return false;
            };
            *byte ^= 1;
            if let Some(byte) = inode.durable.get_mut(offset) {
                *byte ^= 1;
            }
            true
        })
    }

    /// Bytes that the files take now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.world().used()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Counts a call; an error if the power is off, or goes now.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        self.off |= self
            .faults
            .power_off_after
            .is_some_and(|after| self.calls > after);
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn other(&mut self) -> io::Result<()> {
        self.call()?;
        if self.chance.in_thousand(self.faults.other) {
            return Err(failed());
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|id| self.inodes.get(id));
        files.map(|inode| inode.seen.len() as u64).sum()
    }

    fn lose_power(&mut self) {
        self.boot += 1;
        self.off = false;
        self.calls = 0;
        self.faults.power_off_after = None;
        for (name, inode) in std::mem::take(&mut self.renamed) {
            if self.chance.below(2) == 0 {
                match inode {
                    Some(inode) => drop(self.durable_names.insert(name, inode)),
                    None => drop(self.durable_names.remove(&name)),
                }
            }
        }
        self.names.clone_from(&self.durable_names);
        let mut ids: Vec<u64> = self.inodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(inode) = self.inodes.get_mut(&id) {
                inode.settle(&mut self.chance);
                inode.seen.clone_from(&inode.durable);
            }
        }
    }
}

impl Inode {
    /// Some of what was not synced reaches the disk: a later change also where an earlier one does not.
    fn settle(&mut self, chance: &mut Chance) {
        for change in std::mem::take(&mut self.pending) {
            match (chance.below(4), change) {
                (0, _) => {}
                (1, Change::Write(offset, mut bytes)) => {
                    // Torn: the file may have grown already, and what was to be there is not.
                    let whole = bytes.len();
                    bytes.truncate(chance.below(whole + 1));
                    if chance.below(2) == 0 {
                        bytes.resize(whole, 0);
                    }
                    apply(&mut self.durable, &Change::Write(offset, bytes));
                }
                (_, change) => apply(&mut self.durable, &change),
            }
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Cut(size) => bytes.resize(*size, 0),
        Change::Write(offset, written) => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            if let Some(place) = bytes.get_mut(*offset..end) {
                place.copy_from_slice(written);
            }
        }
    }
}

fn failed() -> io::Error {
    io::Error::other("a fault was injected")
}

impl Disk for Faulty {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.other()?;
        Ok(world.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        let mut world = self.world();
        world.other()?;
        if world.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = world.next_inode;
        world.next_inode += 1;
        world.inodes.insert(inode, Inode::default());
        world.names.insert(name.to_owned(), inode);
        world.renamed.push((name.to_owned(), Some(inode)));
        let boot = world.boot;
        drop(world);
        Ok(FaultyFile {
            world: Arc::clone(&self.0),
            inode,
            boot,
        })
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let mut world = self.world();
        world.other()?;
        let inode = *world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyFile {
            world: Arc::clone(&self.0),
            inode,
            boot: world.boot,
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let world = &mut *self.world();
        world.other()?;
        world.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        world.renamed.push((name.to_owned(), None));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let world = &mut *self.world();
        world.call()?;
        if world.chance.in_thousand(world.faults.sync) {
            return Err(failed());
        }
        world.renamed.clear();
        world.durable_names = world.names.clone();
        Ok(())
    }
}

impl FaultyFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.boot != self.boot {
            return Err(io::Error::other("opened before the power went"));
        }
        Ok(world)
    }
}

impl File for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let mut world = self.world()?;
        world.other()?;
        Ok(world
            .inodes
            .get(&self.inode)
            .map_or(0, |inode| inode.seen.len() as u64))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = self.world()?;
        let world = &mut *guard;
        let cut_short = world.call();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let used = world.used();
        let Some(inode) = world.inodes.get(&self.inode) else {
            return Err(failed());
        };
        // What overwrites takes no room.
        let grows = (offset + bytes.len()).saturating_sub(inode.seen.len());
        let left = world
            .faults
            .room
            .map_or(u64::MAX, |room| room.saturating_sub(used));
        let fits = if grows as u64 <= left {
            bytes.len()
        } else {
            (bytes.len() - grows) + usize::try_from(left).unwrap_or(usize::MAX)
        };
        let mut taken = fits.min(bytes.len());
        let (fails, short) = match &cut_short {
            Err(_) => (true, true),
            Ok(()) => (
                world.chance.in_thousand(world.faults.write),
                world.chance.in_thousand(world.faults.short_write),
            ),
        };
        if fails || short {
            taken = world.chance.below(taken + 1);
        }
        let Some(inode) = world.inodes.get_mut(&self.inode) else {
            return Err(failed());
        };
        if taken > 0 {
            let change = Change::Write(offset, bytes.get(..taken).unwrap_or_default().to_vec());
            apply(&mut inode.seen, &change);
            inode.pending.push(change);
        }
        cut_short?;
        if fails {
            return Err(failed());
        }
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(taken)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world()?;
        world.other()?;
        let bytes = world.inodes.get(&self.inode).map(|inode| inode.seen.as_slice());
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let rest = bytes.and_then(|bytes| bytes.get(offset..)).unwrap_or_default();
        let taken = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(taken)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut world = self.world()?;
        world.other()?;
        let change = Change::Cut(usize::try_from(size).map_err(io::Error::other)?);
        if let Some(inode) = world.inodes.get_mut(&self.inode) {
            apply(&mut inode.seen, &change);
            inode.pending.push(change);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut guard = self.world()?;
        let world = &mut *guard;
        world.call()?;
        let fails = world.chance.in_thousand(world.faults.sync);
        let Some(inode) = world.inodes.get_mut(&self.inode) else {
            return Err(failed());
        };
        if fails {
            // The pages count as clean from here on, written or not; whether they are still in memory is open.
            inode.settle(&mut world.chance);
            if world.chance.below(2) == 0 {
                inode.seen.clone_from(&inode.durable);
            }
            return Err(failed());
        }
        inode.pending.clear();
        inode.durable.clone_from(&inode.seen);
        Ok(())
    }
}
