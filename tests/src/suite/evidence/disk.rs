//! What a disk may hold after the power failed: everything that was synced, and of the rest whatever the disk liked.
//!
//! Owns the model, which is as strict as POSIX lets a disk be: writes behind a file's last sync are there, missing or torn, each for
//! itself; changes of a folder behind its last sync are there up to some point. A file's name is durable by its folder's sync alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::trace::{Deed, Done};

/// How much of what was not synced is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nothing: the program was killed, the machine went on.
    Kept,
    /// All of it.
    Gone,
    /// By chance.
    Mixed,
}

/// What a name in a folder stands for.
#[derive(Clone, Copy, Debug)]
enum Node {
    File(usize),
    Folder,
}

/// Changes of one folder, in order; a change is a name with what it stands for from then on.
#[derive(Default)]
struct Folder {
    changes: Vec<(usize, PathBuf, Option<Node>)>,
    synced: Option<usize>,
}

/// Writes into `root` (which is empty) what a disk may hold behind the first `count` operations.
///
/// # Errors
/// When it cannot be written.
pub(super) fn make(
    done: &[Done],
    count: usize,
    mood: Mood,
    random: &mut StdRng,
    from: &Path,
    root: &Path,
) -> Result<()> {
    let past = done.get(..count).unwrap_or(done);
    let folders = folders(past);
    let files = files(past, mood, random);
    let mut chosen: BTreeMap<PathBuf, Node> = BTreeMap::new();
    for folder in folders.values() {
        let durable = folder
            .changes
            .iter()
            .filter(|(at, ..)| folder.synced.is_some_and(|synced| *at <= synced))
            .count();
        let until = match mood {
            Mood::Kept => folder.changes.len(),
            Mood::Gone => durable,
            Mood::Mixed => random.gen_range(durable..=folder.changes.len()),
        };
        for (_, path, node) in folder.changes.iter().take(until) {
            match node {
                Some(node) => _ = chosen.insert(path.clone(), *node),
                None => _ = chosen.remove(path),
            }
        }
    }
    // Sorted: a folder comes before what is in it. What is in a folder that is not there is not there either.
    for (path, node) in &chosen {
        let target = root.join(path.strip_prefix(from).context("a path elsewhere")?);
        if path == from || target.parent().is_none_or(|parent| !parent.is_dir()) {
            continue;
        }
        match node {
            Node::Folder => {
                fs::create_dir(&target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o700))?;
            }
            Node::File(file) => {
                fs::write(&target, files.get(file).map_or(&[][..], Vec::as_slice))?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
            }
        }
    }
    Ok(())
}

/// What a file holds behind the first `count` operations while the machine runs; `None` where there is none, or nothing in it.
pub(super) fn held(done: &[Done], count: usize, path: &Path) -> Option<Vec<u8>> {
    let past = done.get(..count).unwrap_or(done);
    let changes = folders(past).remove(path.parent()?)?.changes;
    let node = changes.iter().rev().find(|(_, name, _)| name == path)?.2;
    let Some(Node::File(file)) = node else { return None };
    // Nothing is by chance here.
    let mut random = StdRng::seed_from_u64(0);
    files(past, Mood::Kept, &mut random)
        .remove(&file)
        .filter(|bytes| !bytes.is_empty())
}

fn folders(past: &[Done]) -> BTreeMap<PathBuf, Folder> {
    let mut folders: BTreeMap<PathBuf, Folder> = BTreeMap::new();
    let mut names: BTreeMap<PathBuf, Node> = BTreeMap::new();
    let mut change = |names: &mut BTreeMap<PathBuf, Node>, at: usize, path: &Path, node: Option<Node>| {
        let parent = path.parent().unwrap_or(path).to_owned();
        folders
            .entry(parent)
            .or_default()
            .changes
            .push((at, path.to_owned(), node));
        match node {
            Some(node) => _ = names.insert(path.to_owned(), node),
            None => _ = names.remove(path),
        }
    };
    let mut synced = Vec::new();
    for (at, one) in past.iter().enumerate() {
        match &one.what {
            Deed::Create { path, file } => change(&mut names, at, path, Some(Node::File(*file))),
            Deed::Folder { path } => change(&mut names, at, path, Some(Node::Folder)),
            Deed::Remove { path } => change(&mut names, at, path, None),
            Deed::Rename { from, to, keeps } => {
                let Some(node) = names.get(from).copied() else {
                    continue;
                };
                change(&mut names, at, to, Some(node));
                if !keeps {
                    change(&mut names, at, from, None);
                }
            }
            Deed::SyncFolder { path } => synced.push((at, path)),
            Deed::Write { .. } | Deed::Resize { .. } | Deed::SyncFile { .. } => {}
        }
    }
    for (at, path) in synced {
        folders.entry(path.clone()).or_default().synced = Some(at);
    }
    folders
}

/// What each file holds.
fn files(past: &[Done], mood: Mood, random: &mut StdRng) -> BTreeMap<usize, Vec<u8>> {
    let mut synced: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, one) in past.iter().enumerate() {
        if let Deed::SyncFile { file } = one.what {
            synced.insert(file, at);
        }
    }
    // Where an appended write goes is decided by all that was written before it, on the disk or not.
    let mut lengths: BTreeMap<usize, u64> = BTreeMap::new();
    let mut files: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for (at, one) in past.iter().enumerate() {
        match &one.what {
            Deed::Create { file, .. } => _ = files.entry(*file).or_default(),
            Deed::Resize { file, length } => {
                lengths.insert(*file, *length);
                let durable = synced.get(file).is_some_and(|synced| at <= *synced);
                if durable || mood == Mood::Kept || (mood == Mood::Mixed && random.gen_bool(0.5)) {
                    files
                        .entry(*file)
                        .or_default()
                        .resize(usize::try_from(*length).unwrap_or(0), 0);
                }
            }
            Deed::Write { file, offset, bytes } => {
                let length = lengths.entry(*file).or_default();
                let offset = if *offset == u64::MAX { *length } else { *offset };
                *length = (*length).max(offset + bytes.len() as u64);
                let durable = synced.get(file).is_some_and(|synced| at <= *synced);
                let kept = if durable || mood == Mood::Kept {
                    bytes.len()
                } else if mood == Mood::Gone {
                    continue;
                } else {
                    match random.gen_range(0..3) {
                        0 => continue,
                        1 => bytes.len(),
                        _ => random.gen_range(0..=bytes.len()),
                    }
                };
                put(
                    files.entry(*file).or_default(),
                    offset,
                    bytes.get(..kept).unwrap_or(bytes),
                );
            }
            _ => {}
        }
    }
    files
}

/// Bytes at a place; what was never written before it is zeros.
fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let Some(until) = from.checked_add(bytes.len()) else {
        return;
    };
    if file.len() < until {
        file.resize(until, 0);
    }
    if let Some(place) = file.get_mut(from..until) {
        place.copy_from_slice(bytes);
    }
}
