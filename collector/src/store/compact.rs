//! Small files put together: what a question costs grows with their number.
//!
//! Owns which files become one, when, and when those that they were go: not while a question reads them. A row is written anew once
//! or twice in its life. Refuses to change what any question is answered: the rows are the same, and a file that would hold another
//! number of them counts for nothing.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use object_store::{ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};

use super::{
    Store, background,
    erase::entries_of,
    manifest::{self, Manifest, SealedFile},
    merge::{Table, merge},
    seal::{self, ALL_HOURS},
};

/// Held by whoever reads files, for as long as it does.
#[derive(Debug, Default)]
pub(super) struct Reading;

/// Files that count no more, and are there still for those who read them.
#[derive(Debug, Default)]
pub(super) struct Retired(VecDeque<Old>);

#[derive(Debug)]
struct Old {
    files: Vec<SealedFile>,
    /// Those who began to read when they counted; whoever reads older ones stands before.
    readers: Weak<Reading>,
    since: Instant,
}

impl Retired {
    pub(super) fn add(&mut self, files: Vec<SealedFile>, readers: &Arc<Reading>) {
        self.0.push_back(Old {
            files,
            readers: Arc::downgrade(readers),
            since: Instant::now(),
        });
    }

    /// Those that nobody reads any more, and that have been here for so long; none is in here afterwards.
    fn unread(&mut self, age: Duration) -> Vec<SealedFile> {
        let mut files = Vec::new();
        while let Some(old) = self.0.front() {
            if old.readers.strong_count() > 0 || old.since.elapsed() < age {
                break;
            }
            files.extend(self.0.pop_front().into_iter().flat_map(|old| old.files));
        }
        files
    }

    /// Those could not be deleted: another time.
    fn put_back(&mut self, files: Vec<SealedFile>) {
        self.0.push_front(Old {
            files,
            readers: Weak::new(),
            since: Instant::now(),
        });
    }

    /// Forgets all of them, read or not: they are deleted by who calls this.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Files that should be one.
#[derive(Debug, PartialEq)]
struct Due {
    table: Table,
    folder: String,
    files: Vec<SealedFile>,
}

impl Store {
    /// Puts files together as long as some should be.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written: those that were there still count.
    pub async fn compact(&self) -> anyhow::Result<()> {
        ensure!(self.writable, "the store was opened for reading");
        loop {
            let _one = self.compacting.lock().await;
            let due = due(
                &self.state().manifest,
                &self.open_hours(),
                self.options.compact_files,
            );
            let Some(due) = due else { return Ok(()) };
            self.merge(due).await?;
        }
    }

    /// The folder of the first hour of which events may still come.
    pub(super) fn open_hours(&self) -> String {
        seal::Partition::Hour(self.options.open_from()).folder()
    }

    /// Deletes what compaction has left, unless somebody reads it still.
    pub(super) async fn sweep(&self) -> anyhow::Result<()> {
        let unread = self.state().retired.unread(self.options.keep_retired);
        let paths: Vec<String> = unread.iter().map(|file| file.path.clone()).collect();
        let removed = manifest::remove(&self.objects, paths).await;
        if removed.is_err() {
            self.state().retired.put_back(unread);
        }
        removed
    }

    async fn merge(&self, due: Due) -> anyhow::Result<()> {
        let mut read = Vec::with_capacity(due.files.len());
        for file in &due.files {
            let found = self.objects.get(&Path::from(file.path.as_str())).await?;
            let bytes = found.bytes().await;
            read.push(bytes.with_context(|| format!("cannot read {}", file.path))?);
        }
        let table = due.table;
        let (bytes, rows) = background::run(async move { merge(table, read) }).await??;
        let before: u64 = due.files.iter().map(|file| file.rows).sum();
        ensure!(
            rows == before,
            "{before} rows of {} would become {rows}: they stay as they are",
            due.folder
        );
        let merged = seal::put(&self.objects, name(&due)?, bytes, rows).await?;

        let _no_seal = self.sealing.lock().await;
        let mut manifest = self.state().manifest.clone();
        let files = match due.table {
            Table::Events => &mut manifest.files,
            Table::Subjects => &mut manifest.subjects,
        };
        files.retain(|file| !due.files.contains(file));
        files.push(merged);
        manifest.write(&self.objects).await?;
        self.state().replaced(manifest, due.files);
        Ok(())
    }
}

/// Compacts, puts together by the day, and sweeps beside everything else, and ends with the store.
pub(super) async fn when_due(store: Weak<Store>) {
    loop {
        let Some(pause) = store.upgrade().map(|here| here.options.compact_every) else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(here) = store.upgrade() else { return };
        let done = async {
            here.compact().await?;
            here.put_uses_together().await?;
            here.sweep().await
        }
        .await;
        if let Err(error) = done {
            tracing::warn!(
                error = format!("{error:#}"),
                "files of the store were not put together; it is tried again"
            );
        }
    }
}

/// The first files that should be one. Of an hour or a day that is over, two are enough; of one to which more is added, `many`.
fn due(manifest: &Manifest, open_from: &str, many: usize) -> Option<Due> {
    for (table, files) in [
        (Table::Events, &manifest.files),
        (Table::Subjects, &manifest.subjects),
    ] {
        let mut folders: BTreeMap<Cow<'_, str>, Vec<&SealedFile>> = BTreeMap::new();
        for file in files {
            let (folder, _) = file.path.rsplit_once('/')?;
            folders.entry(of_day(folder, open_from)).or_default().push(file);
        }
        for (folder, mut files) in folders {
            let hour = folder.split_once('/').map(|(_, hour)| hour);
            let over = hour.is_some_and(|hour| hour < open_from);
            files.sort_by_key(|file| file.rows);
            let run = (0..files.len())
                .map(|first| run(files.get(first..).unwrap_or_default()))
                .find(|run| run.len() >= if over { 2 } else { many.max(2) });
            if let Some(run) = run {
                return Some(Due {
                    table,
                    folder: folder.into_owned(),
                    files: run.iter().copied().cloned().collect(),
                });
            }
        }
    }
    None
}

/// The folder that a file of this one may go to: when a day is over, that of all of its hours. Questions over months open days.
fn of_day<'a>(folder: &'a str, open_from: &str) -> Cow<'a, str> {
    let day_is_over = |(day, _): &(&str, &str)| {
        let date = day.split_once('/').map(|(_, date)| date);
        date.zip(open_from.split('/').next())
            .is_some_and(|(date, open)| date < open)
    };
    match folder.rsplit_once('/').filter(day_is_over) {
        Some((day, _)) => Cow::Owned(format!("{day}/hour={ALL_HOURS}")),
        None => Cow::Borrowed(folder),
    }
}

/// Of files in order of their rows, the first ones that belong together: not more than one file holds, and none that would be written
/// anew for the sake of a few rows.
fn run<'a, 'b>(files: &'b [&'a SealedFile]) -> &'b [&'a SealedFile] {
    let mut rows = 0;
    let fits = |file: &&&SealedFile| {
        let fits = rows == 0 || (file.rows <= rows * UNLIKE && rows + file.rows <= MAX_ROWS);
        rows += file.rows;
        fits
    };
    let count = files.iter().take_while(fits).count();
    files.get(..count).unwrap_or_default()
}

/// Where it will lie. Made of the same files it is called the same, and of others otherwise: those of a day may be of the same
/// log entries.
fn name(due: &Due) -> anyhow::Result<String> {
    let mut entries = Vec::with_capacity(due.files.len());
    let mut made_of = Sha256::new();
    for file in &due.files {
        let of = entries_of(&file.path);
        entries.push(of.with_context(|| format!("{} is no name of a file of the store", file.path))?);
        made_of.update(&file.path);
        made_of.update([0]);
    }
    let first = entries.iter().map(|(first, _)| *first).min().unwrap_or_default();
    let last = entries.iter().map(|(_, last)| *last).max().unwrap_or_default();
    let made_of = hex::encode(made_of.finalize().get(..8).unwrap_or_default());
    Ok(format!(
        "{}/{first:012}-{last:012}.m{made_of}.parquet",
        due.folder
    ))
}

/// Rows of a file, at the most: some 30 MB.
const MAX_ROWS: u64 = 1024 * 1024;

/// How many times larger a file may be than those that it is put together with.
const UNLIKE: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, rows: u64) -> SealedFile {
        SealedFile {
            path: path.to_owned(),
            bytes: 1,
            rows,
        }
    }

    fn manifest(events: &[(&str, u64)]) -> Manifest {
        let mut manifest = Manifest::empty();
        manifest.files = events.iter().map(|(path, rows)| file(path, *rows)).collect();
        manifest
    }

    fn paths(due: Option<Due>) -> Vec<String> {
        let files = due.map(|due| due.files).unwrap_or_default();
        files.into_iter().map(|file| file.path).collect()
    }

    const NOW: &str = "date=2026-05-10/hour=08";

    #[test]
    fn hours_that_are_over_become_one_file_and_open_ones_wait_for_more() {
        let old = [
            ("events/date=2026-05-10/hour=07/0-1.parquet", 10),
            ("events/date=2026-05-10/hour=07/2-3.parquet", 20),
            ("events/date=2026-05-10/hour=06/4-5.parquet", 30),
        ];
        assert_eq!(paths(due(&manifest(&old), NOW, 8)), [old[0].0, old[1].0]);
        let next_day = due(&manifest(&old), "date=2026-05-11/hour=00", 8).unwrap();
        assert_eq!(next_day.folder, "events/date=2026-05-10/hour=all");
        assert_eq!(
            next_day.files.len(),
            3,
            "and when the day is over, all of its hours"
        );
        let new: Vec<String> = (0..8).map(|n| format!("events/{NOW}/{n}-{n}.parquet")).collect();
        let new: Vec<(&str, u64)> = new.iter().map(|path| (path.as_str(), 10)).collect();
        assert_eq!(due(&manifest(&new[..7]), NOW, 8), None);
        assert_eq!(paths(due(&manifest(&new), NOW, 8)).len(), 8);
    }

    #[test]
    fn a_large_file_is_not_written_anew_for_the_sake_of_a_few_rows() {
        let path = |n: u64| format!("events/date=2026-05-10/hour=07/{n}-{n}.parquet");
        let paths_of: Vec<String> = (0..4).map(path).collect();
        let of = |rows: &[u64]| {
            let files: Vec<(&str, u64)> = paths_of
                .iter()
                .map(String::as_str)
                .zip(rows.iter().copied())
                .collect();
            paths(due(&manifest(&files), NOW, 8))
        };
        assert!(of(&[1_000, 1]).is_empty());
        assert_eq!(of(&[1_000, 1, 3]), [path(1), path(2)]);
        assert_eq!(of(&[1_000, 300]), [path(1), path(0)]);
        assert_eq!(
            of(&[1, 1_000, 1_000]),
            [path(1), path(2)],
            "one that is unlike holds up no others"
        );
        assert!(
            of(&[MAX_ROWS, MAX_ROWS / 2]).is_empty(),
            "no file grows without end"
        );
    }

    #[test]
    fn what_is_made_of_other_files_is_called_otherwise() {
        let of = |hours: [u64; 2]| {
            let files =
                hours.map(|hour| file(&format!("events/date=2026-05-10/hour={hour:02}/0-1.parquet"), 10));
            let folder = "events/date=2026-05-10/hour=all".to_owned();
            name(&Due {
                table: Table::Events,
                folder,
                files: files.to_vec(),
            })
            .unwrap()
        };
        assert_ne!(
            of([7, 8]),
            of([9, 10]),
            "of the same log entries, and of as many rows"
        );
        assert_eq!(entries_of(&of([7, 8])), Some((0, 1)));
    }

    #[test]
    fn what_is_read_stays_and_what_stands_behind_it_too() {
        let (mut retired, old, new) = (Retired::default(), Arc::default(), Arc::default());
        retired.add(vec![file("a", 1)], &old);
        retired.add(vec![file("b", 1)], &new);
        drop(new);
        assert!(retired.unread(Duration::ZERO).is_empty());
        drop(old);
        assert!(retired.unread(Duration::from_secs(60)).is_empty());
        let unread = retired.unread(Duration::ZERO);
        assert_eq!(unread.len(), 2);
        retired.put_back(unread);
        assert_eq!(retired.unread(Duration::ZERO).len(), 2);
        assert!(retired.unread(Duration::ZERO).is_empty());
    }
}
