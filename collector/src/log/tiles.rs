//! The files below `evidence/tile`: writing them, and comparing them with the tree that the batches make.
//!
//! Owns which tile files must, may and must not exist. Their contents are `evidence::Tiling`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use evidence::{TILE_WIDTH, Tile};

use super::{folder::Folder, scan::Wrong};

/// Writes tiles so that they are durable.
pub(crate) fn write<'a>(folder: &Folder, tiles: impl IntoIterator<Item = &'a Tile>) -> anyhow::Result<()> {
    tiles
        .into_iter()
        .try_for_each(|tile| folder.write(&folder.evidence().join(tile.path()), &tile.bytes))
}

/// Removes the partial tiles of a place whose full tile a checkpoint covers, as the specification allows.
pub(crate) fn remove_partial(folder: &Folder, full: &Tile) -> std::io::Result<()> {
    match fs::remove_dir_all(folder.evidence().join(format!("{}.p", full.base))) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The tile files that are there, each crossed off when it was found to be right.
pub(crate) struct TileFiles {
    evidence: PathBuf,
    /// Paths not compared yet.
    full: BTreeSet<String>,
    /// Widths not compared yet, by the full tile's path.
    partial: BTreeMap<String, BTreeSet<usize>>,
}

impl TileFiles {
    /// Lists the files; one that cannot be a tile is wrong already.
    pub(crate) fn list(evidence: &Path) -> Result<Self, Wrong> {
        let mut files = Self {
            evidence: evidence.to_owned(),
            full: BTreeSet::new(),
            partial: BTreeMap::new(),
        };
        if evidence.join("tile").is_dir() {
            files.list_below("tile")?;
        }
        Ok(files)
    }

    /// Compares a full tile with its file and with the partial tiles left beside it.
    pub(crate) fn full(&mut self, tile: &Tile, must_exist: bool) -> Result<(), Wrong> {
        if self.full.remove(&tile.base) {
            self.compare(&tile.base, &tile.bytes)?;
        } else if must_exist {
            return Err(Wrong::new(tile.base.clone(), None, "the file is missing"));
        }
        self.compare_partial(tile)
    }

    /// Says that these are the checkpoint's partial tiles: each file, or the full tile that it became, must exist.
    pub(crate) fn require(&self, tiles: &[Tile]) -> Result<(), Wrong> {
        for tile in tiles {
            let narrow = self
                .partial
                .get(&tile.base)
                .is_some_and(|widths| widths.contains(&tile.width));
            if !narrow && !self.full.contains(&tile.base) {
                return Err(Wrong::new(tile.path(), None, "the file is missing"));
            }
        }
        Ok(())
    }

    /// Compares the partial tiles of the whole tree; what is left then is not part of the log.
    pub(crate) fn finish(&mut self, tiles: &[Tile]) -> Result<(), Wrong> {
        tiles.iter().try_for_each(|tile| self.compare_partial(tile))?;
        let partial = self
            .partial
            .iter()
            .find_map(|(base, widths)| Some((base, widths.first()?)));
        let left = partial
            .map(|(base, width)| format!("{base}.p/{width}"))
            .or_else(|| self.full.first().cloned());
        left.map_or(Ok(()), |path| {
            Err(Wrong::new(
                path,
                None,
                "not part of the tree that the batches make",
            ))
        })
    }

    fn compare_partial(&mut self, tile: &Tile) -> Result<(), Wrong> {
        let Some(widths) = self.partial.get_mut(&tile.base) else {
            return Ok(());
        };
        for width in std::mem::take(widths) {
            match tile.narrowed(width) {
                Some(bytes) => self.compare(&format!("{}.p/{width}", tile.base), bytes)?,
                // Wider than the tree: left for `finish` to name.
                None => _ = self.partial.entry(tile.base.clone()).or_default().insert(width),
            }
        }
        Ok(())
    }

    fn compare(&self, path: &str, expected: &[u8]) -> Result<(), Wrong> {
        let wrong = |offset: Option<u64>, what: &str| Wrong::new(path, offset, what);
        let file = self.evidence.join(path);
        let length = fs::metadata(&file)
            .map_err(|error| wrong(None, &error.to_string()))?
            .len();
        if length != expected.len() as u64 {
            return Err(wrong(
                None,
                &format!("takes {length} bytes, expected {}", expected.len()),
            ));
        }
        let found = fs::read(&file).map_err(|error| wrong(None, &error.to_string()))?;
        match found
            .iter()
            .zip(expected)
            .position(|(found, expected)| found != expected)
        {
            None => Ok(()),
            Some(at) => {
                let byte = |bytes: &[u8]| bytes.get(at).copied().unwrap_or_default();
                let (found, expected) = (byte(&found), byte(expected));
                let what = format!(
                    "differs from the tree that the batches make: {found:02x}, expected {expected:02x}"
                );
                Err(wrong(Some(at as u64), &what))
            }
        }
    }

    fn list_below(&mut self, path: &str) -> Result<(), Wrong> {
        let wrong = |error: std::io::Error| Wrong::new(path, None, error.to_string());
        for file in fs::read_dir(self.evidence.join(path)).map_err(wrong)? {
            let file = file.map_err(wrong)?;
            let name = format!("{path}/{}", file.file_name().to_string_lossy());
            let kind = file.file_type().map_err(wrong)?;
            if kind.is_dir() {
                self.list_below(&name)?;
                continue;
            }
            match name.rsplit_once(".p/") {
                _ if !kind.is_file() => return Err(Wrong::new(name, None, "not a file")),
                None => _ = self.full.insert(name),
                Some((base, width)) => match width.parse::<usize>() {
                    Ok(number) if number < TILE_WIDTH && number.to_string() == width => {
                        self.partial.entry(base.to_owned()).or_default().insert(number);
                    }
                    _ => return Err(Wrong::new(name, None, "not part of a log")),
                },
            }
        }
        Ok(())
    }
}
