//! The log's static files as C2SP tlog-tiles names and fills them (<https://c2sp.org/tlog-tiles>): hash tiles of 256
//! hashes for every eighth level of the tree, and bundles of 256 entries.
//!
//! Owns paths and contents. Writing the files, and deciding which of them must exist, is the log's. Own code because
//! the published crate `tlog_tiles` 0.2 speaks the paths of the Go checksum database, not these, and panics where it
//! is given wrong sizes; it serves the tests as an independent reader.

use thiserror::Error;

use crate::{
    batch::Hash,
    merkle::{Frontier, leaf_hash},
};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: usize = 256;

/// Longest entry: its length is written in two bytes.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;

/// One static file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Path of the full tile below the log's folder, e.g. `tile/0/x001/234` or `tile/entries/000`.
    pub base: String,
    /// Hashes or entries in it, 1 to 256.
    pub width: usize,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// An entry that no bundle can hold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an entry takes {0} bytes, more than {MAX_ENTRY_BYTES}")]
pub struct EntryTooLong(pub usize);

/// A tree that is cut into tiles as it grows: holds the right edge of it only, at most 255 hashes a level.
#[derive(Clone, Debug, Default)]
pub struct Tiling {
    tree: Frontier,
    /// Level `l` holds the hashes of the tree's level `8 * l` that no full tile holds yet.
    levels: Vec<Vec<Hash>>,
    /// The entries of the unfinished bundle, framed.
    bundle: Vec<u8>,
}

impl Tile {
    /// Where the file lies: the base, with its width where it is partial.
    #[must_use]
    pub fn path(&self) -> String {
        path(&self.base, self.width)
    }

    /// The content that the narrower tile at the same place has, if there can be one.
    #[must_use]
    pub fn narrowed(&self, width: usize) -> Option<&[u8]> {
        if width == 0 || width > self.width {
            return None;
        }
        if !self.base.starts_with(ENTRIES) {
            return self.bytes.get(..width * size_of::<Hash>());
        }
        let mut end = 0_usize;
        for _ in 0..width {
            let (high, low) = (self.bytes.get(end)?, self.bytes.get(end + 1)?);
            end += 2 + usize::from(u16::from_be_bytes([*high, *low]));
        }
        self.bytes.get(..end)
    }
}

/// Where a hash of the tree is to be had: the root over consecutive hashes of one tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlace {
    /// Path of the full tile, e.g. `tile/0/x001/234`.
    pub base: String,
    /// Width of the tile in a tree of the size that was asked for, 1 to 256.
    pub width: usize,
    /// The hashes of which it is the root: the first one's place in the tile, and how many.
    pub first: usize,
    /// A power of two, 1 to 128.
    pub count: usize,
}

impl NodePlace {
    /// The root over entries `n << level` to `(n + 1) << level` in a tree of `size`; `None` where it has not that many.
    #[must_use]
    pub fn of(level: u32, n: u64, size: u64) -> Option<Self> {
        let end = n.checked_add(1)?.checked_mul(1_u64.checked_shl(level)?)?;
        if end > size {
            return None;
        }
        let (row, within) = (level / 8, level % 8);
        let first = n << within;
        let tile = first / TILE_WIDTH as u64;
        let in_row = size.checked_shr(8 * row).unwrap_or(0);
        let width = (in_row - tile * TILE_WIDTH as u64).min(TILE_WIDTH as u64);
        Some(Self {
            base: base(&format!("tile/{row}"), tile),
            width: usize::try_from(width).ok()?,
            first: usize::try_from(first % TILE_WIDTH as u64).ok()?,
            count: 1 << within,
        })
    }

    /// The path of the tile as a tree of that size has it; the full tile may have taken its place.
    #[must_use]
    pub fn path(&self) -> String {
        path(&self.base, self.width)
    }

    /// The hash, from the tile's content; `None` where that is too short.
    #[must_use]
    pub fn hash(&self, tile: &[u8]) -> Option<Hash> {
        let (hashes, _) = tile.as_chunks::<{ size_of::<Hash>() }>();
        let row = hashes.get(self.first..self.first + self.count)?;
        let mut tree = Frontier::default();
        row.iter().for_each(|hash| tree.push(*hash));
        Some(tree.root())
    }
}

impl Tiling {
    /// Adds an entry; the tiles that it completes are appended to `full`.
    pub fn push(&mut self, entry: &[u8], full: &mut Vec<Tile>) -> Result<(), EntryTooLong> {
        let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong(entry.len()))?;
        let index = self.tree.size();
        self.bundle.extend(length.to_be_bytes());
        self.bundle.extend(entry);
        let mut hash = leaf_hash(entry);
        self.tree.push(hash);
        if self.tree.size().is_multiple_of(TILE_WIDTH as u64) {
            let bytes = std::mem::take(&mut self.bundle);
            full.push(Tile {
                base: base(ENTRIES, index >> 8),
                width: TILE_WIDTH,
                bytes,
            });
        }
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(row) = self.levels.get_mut(level) else {
                break;
            };
            row.push(hash);
            if row.len() < TILE_WIDTH {
                break;
            }
            let row = std::mem::take(row);
            let mut subtree = Frontier::default();
            row.iter().for_each(|hash| subtree.push(*hash));
            hash = subtree.root();
            let base = base(&format!("tile/{level}"), index >> (8 * (level + 1)));
            full.push(Tile {
                base,
                width: TILE_WIDTH,
                bytes: row.concat(),
            });
        }
        Ok(())
    }

    /// The partial tiles of the tree as it stands.
    #[must_use]
    pub fn partial(&self) -> Vec<Tile> {
        let size = self.tree.size();
        let width = usize::try_from(size % TILE_WIDTH as u64).unwrap_or(0);
        let entries = Tile {
            base: base(ENTRIES, size >> 8),
            width,
            bytes: self.bundle.clone(),
        };
        let hashes = self.levels.iter().enumerate().map(|(level, row)| Tile {
            base: base(&format!("tile/{level}"), size >> (8 * (level + 1))),
            width: row.len(),
            bytes: row.concat(),
        });
        std::iter::once(entries)
            .chain(hashes)
            .filter(|tile| tile.width > 0)
            .collect()
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }
}

/// Path of the full bundle with entries `256 * n` to `256 * n + 255`.
#[must_use]
pub fn bundle_path(n: u64) -> String {
    base(ENTRIES, n)
}

const ENTRIES: &str = "tile/entries";

fn path(base: &str, width: usize) -> String {
    if width == TILE_WIDTH {
        base.to_owned()
    } else {
        format!("{base}.p/{width}")
    }
}

/// Three digits a path element, all but the last with an `x` in front.
fn base(folder: &str, index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    format!("{folder}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(base("tile/0", 0), "tile/0/000");
        assert_eq!(base("tile/3", 1_234_067), "tile/3/x001/x234/067");
        let tile = Tile {
            base: base(ENTRIES, 5),
            width: 7,
            bytes: Vec::new(),
        };
        assert_eq!(tile.path(), "tile/entries/005.p/7");
    }

    #[test]
    fn a_tree_of_70000_has_the_specification_s_tiles() {
        // The specification's example: 273 full and one partial tile of width 112 at level 0, one full and one partial
        // of width 17 at level 1, one partial of width 1 at level 2.
        let (mut tiling, mut full) = (Tiling::default(), Vec::new());
        for n in 0_u32..70_000 {
            tiling.push(&n.to_be_bytes(), &mut full).unwrap();
        }
        let count = |folder: &str| full.iter().filter(|tile| tile.base.starts_with(folder)).count();
        assert_eq!(
            (
                count("tile/0/"),
                count("tile/1/"),
                count("tile/2/"),
                count(ENTRIES)
            ),
            (273, 1, 0, 273)
        );
        let partial: Vec<_> = tiling.partial().iter().map(Tile::path).collect();
        assert_eq!(
            partial,
            [
                "tile/entries/273.p/112",
                "tile/0/273.p/112",
                "tile/1/001.p/17",
                "tile/2/000.p/1"
            ]
        );
        assert_eq!(
            full.iter()
                .map(Tile::path)
                .filter(|path| path == "tile/1/000")
                .count(),
            1
        );
    }

    #[test]
    fn every_node_is_found_in_a_tile() {
        let size = 70_000_u64;
        let (mut tiling, mut full) = (Tiling::default(), Vec::new());
        for n in 0..size {
            tiling.push(&n.to_be_bytes(), &mut full).unwrap();
        }
        full.extend(tiling.partial());
        let files: std::collections::HashMap<_, _> =
            full.into_iter().map(|tile| (tile.path(), tile.bytes)).collect();
        let root = |from: u64, to: u64| {
            let mut tree = Frontier::default();
            (from..to).for_each(|n| tree.push(leaf_hash(&n.to_be_bytes())));
            tree.root()
        };
        for (level, n) in [
            (0, 0),
            (0, 69_999),
            (3, 5),
            (7, 545),
            (8, 0),
            (8, 272),
            (9, 135),
            (12, 16),
            (16, 0),
        ] {
            let place = NodePlace::of(level, n, size).unwrap();
            let hash = place.hash(&files[&place.path()]).unwrap();
            assert_eq!(hash, root(n << level, (n + 1) << level), "{level} {n}");
        }
        for (level, n) in [
            (0, 70_000),
            (8, 273),
            (16, 1),
            (17, 0),
            (63, 0),
            (64, 0),
            (200, 0),
            (3, u64::MAX),
        ] {
            assert_eq!(NodePlace::of(level, n, size), None, "{level} {n}");
        }
        let mut node = |level, n| {
            let place = NodePlace::of(level, n, size).ok_or(())?;
            place.hash(&files[&place.path()]).ok_or(())
        };
        let path = crate::inclusion(69_998, size, &mut node).unwrap();
        let leaf = leaf_hash(&69_998_u64.to_be_bytes());
        assert_eq!(crate::root_by(&leaf, 69_998, size, &path), Some(tiling.root()));
        let path = crate::consistency(12_345, size, &mut node).unwrap();
        assert!(crate::is_consistent(
            12_345,
            &root(0, 12_345),
            size,
            &tiling.root(),
            &path
        ));
    }

    #[test]
    fn narrowed_is_what_the_partial_tile_was() {
        let (mut tiling, mut full, mut seen) = (Tiling::default(), Vec::new(), Vec::new());
        for n in 0_usize..256 {
            tiling.push(&vec![7; n * 3], &mut full).unwrap();
            seen.extend(
                tiling
                    .partial()
                    .into_iter()
                    .filter(|tile| !tile.base.starts_with("tile/1")),
            );
        }
        assert_eq!(seen.len(), 2 * 255);
        for tile in seen {
            let whole = full.iter().find(|whole| whole.base == tile.base).unwrap();
            assert_eq!(whole.narrowed(tile.width), Some(tile.bytes.as_slice()));
            assert_eq!(whole.narrowed(0), None);
            assert_eq!(whole.narrowed(257), None);
        }
        assert_eq!(
            tiling.push(&vec![0; 65_536], &mut full),
            Err(EntryTooLong(65_536))
        );
    }
}
