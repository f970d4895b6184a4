//! Payload segments that lose events: written anew beside the log, and put in the place of the old ones when the log says so.
//!
//! Owns `<data>/erasing`, where such segments wait. They are durable before the log says anything, so that what it says can
//! always be carried out; what waits there and was never said counts for nothing. Only closed segments are written anew: the newest
//! one is the log's thread's.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use evidence::Hash;
use prost::Message;
use proto::v1::BatchHeader;
use sha2::{Digest, Sha256};

use super::{
    folder::{self, Folder},
    frame::{self, Next, SegmentReader},
    scan::Removals,
};

/// Writes the segment that begins at entry `first` anew, with these payloads of its entries in place of theirs.
///
/// # Errors
///
/// When it cannot be read or written, or does not hold an entry that is named.
pub(crate) fn stage(folder: &Folder, first: u64, payloads: &BTreeMap<u64, Bytes>) -> anyhow::Result<()> {
    let (from, to) = (folder.segment(first), folder.erasing_segment(first));
    let place = |offset: u64| format!("{} at byte {offset}", from.display());
    let mut reader = SegmentReader::open(&from).with_context(|| place(0))?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&to)
        .with_context(|| format!("cannot write {}", to.display()))?;
    let mut writer = BufWriter::with_capacity(1 << 18, file);
    let (mut entry, mut changed) = (first, 0);
    loop {
        let offset = reader.offset;
        match reader.read().with_context(|| place(offset))? {
            Next::Record { mut batch } => {
                if let Some(payload) = payloads.get(&entry) {
                    batch.payload = payload.clone();
                    changed += 1;
                }
                writer.write_all(&frame::encode(&batch))?;
                entry += 1;
            }
            Next::End => break,
            Next::Torn => bail!("{}: the file ends inside a record", place(offset)),
            Next::Damaged(what) => bail!("{}: {what}", place(offset)),
        }
    }
    ensure!(
        changed == payloads.len(),
        "{} does not hold all entries that something is to be erased from",
        from.display()
    );
    writer.flush()?;
    writer.get_ref().sync_all()?;
    folder::sync_folder(&folder.erasing())?;
    Ok(())
}

/// Puts a segment that waits in the place of the one in the log.
///
/// # Errors
///
/// When that cannot be done durably.
pub(crate) fn put_in_place(folder: &Folder, first: u64) -> anyhow::Result<()> {
    let (from, to) = (folder.erasing_segment(first), folder.segment(first));
    let put = || -> std::io::Result<()> {
        fs::rename(&from, &to)?;
        folder::sync_folder(&folder.payload())?;
        folder::sync_folder(&folder.erasing())
    };
    put().with_context(|| format!("cannot put {} in the place of {}", from.display(), to.display()))
}

/// Removes the segments that hold nothing but entries below `end`.
///
/// # Errors
///
/// When one cannot be removed.
pub(crate) fn remove_below(folder: &Folder, end: u64) -> anyhow::Result<()> {
    let segments = folder::segments(&folder.evidence())?;
    // The oldest first: what is left never has a hole.
    for pair in segments.windows(2) {
        if let [(_, path), (next, _)] = pair
            && *next <= end
        {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
            folder::sync_folder(&folder.payload())?;
        }
    }
    Ok(())
}

/// Removes whatever waits.
///
/// # Errors
///
/// When it cannot be removed.
pub(crate) fn discard(folder: &Folder) -> anyhow::Result<()> {
    for left in fs::read_dir(folder.erasing())? {
        fs::remove_file(left?.path())?;
    }
    Ok(folder::sync_folder(&folder.erasing())?)
}

/// Finishes what a crash cut short: segments that wait take their place where the log says that they have to, and are removed
/// where it says nothing; segments that the log says to be removed are.
///
/// # Errors
///
/// When what the log says cannot be carried out.
pub(crate) fn finish(folder: &Folder, removals: &mut Removals) -> anyhow::Result<()> {
    let unfinished = std::mem::take(&mut removals.unfinished);
    if !unfinished.is_empty() {
        let mut left = unfinished.len();
        let segments = folder::segments(&folder.evidence())?;
        for (nth, (first, _)) in segments.iter().enumerate() {
            let end = segments.get(nth + 1).map_or(u64::MAX, |(next, _)| *next);
            let due: BTreeMap<u64, Hash> = unfinished
                .range(first..&end)
                .map(|(entry, to)| (*entry, *to))
                .collect();
            if due.is_empty() {
                continue;
            }
            let waiting = folder.erasing_segment(*first);
            let found = look(&waiting, *first, &due).with_context(|| {
                format!(
                    "what the log says to be erased is still in {}, and cannot be taken out",
                    folder.segment(*first).display()
                )
            })?;
            left -= due.len();
            removals.erased.extend(found);
            put_in_place(folder, *first)?;
            tracing::warn!(
                segment = first,
                entries = due.len(),
                "finished an erasure that was cut short"
            );
        }
        ensure!(
            left == 0,
            "{left} entries that something is said to be erased from are in no payload segment"
        );
    }
    if let Some(end) = removals.to_remove.take() {
        remove_below(folder, end)?;
        tracing::warn!(end, "finished a removal of payloads that was cut short");
    }
    discard(folder)
}

/// Whether a segment that waits holds what it has to; the numbers of the events that are gone from these entries.
fn look(path: &Path, first: u64, due: &BTreeMap<u64, Hash>) -> anyhow::Result<BTreeMap<u64, Vec<u64>>> {
    ensure!(File::open(path).is_ok(), "{} is not there", path.display());
    let mut reader = SegmentReader::open(path)?;
    let mut found = BTreeMap::new();
    let mut entry = first;
    while let Next::Record { batch } = reader.read()? {
        if let Some(digest) = due.get(&entry) {
            ensure!(
                Sha256::digest(&batch.payload).as_slice() == digest,
                "{} holds another payload of entry {entry}",
                path.display()
            );
            let header = BatchHeader::decode(batch.header.clone())?;
            let header_hash = evidence::header_hash(&batch.header);
            let seal = evidence::Seal { header, header_hash };
            let opened = evidence::check_erased(&batch, seal, &super::limits())?;
            let numbers = (0..opened.events.len()).filter(|place| opened.is_event_erased(*place));
            let numbers = numbers.map(|place| opened.header.first_event_seq + place as u64);
            found.insert(entry, numbers.collect());
        }
        entry += 1;
    }
    ensure!(found.len() == due.len(), "{} ends too early", path.display());
    Ok(found)
}
