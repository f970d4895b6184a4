//! Rows that have to go: out of the files, out of what the store knows, and which they are.
//!
//! Owns the way from a question to log entries and numbers, and files written anew without some rows. The evidence loses its
//! payloads first; until the store has followed, its manifest says so, and the next start does it again. Refuses to decide what may
//! go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{AsArray, BooleanArray, RecordBatch},
        compute::{concat_batches, filter_record_batch},
        datatypes::Int64Type,
    },
    common::Result,
    parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    prelude::{DataFrame, col, lit},
};
use futures::StreamExt;
use object_store::{ObjectStoreExt, path::Path};
use proto::v1;

use super::{
    Store,
    manifest::{self, SealedFile},
    merge::coded,
    parts,
    question::time,
    seal, subjects,
    who::Asked,
};

/// Events, by the log entry that holds them and their numbers.
pub type Events = BTreeMap<u64, BTreeSet<u64>>;

/// What is gone.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    /// These.
    pub events: Events,
    /// And whatever the log's entries before this one held.
    pub below: u64,
}

impl Gone {
    pub(super) fn takes(&self, entry: u64, seq: u64) -> bool {
        entry < self.below || self.events.get(&entry).is_some_and(|seqs| seqs.contains(&seq))
    }

    /// Something of these entries.
    fn touches(&self, (first, last): (u64, u64)) -> bool {
        first < self.below || self.events.range(first..=last).next().is_some()
    }
}

/// Which events are meant.
#[derive(Clone, Debug)]
pub enum Selected {
    /// These: agent and number.
    Ids(Vec<(String, u64)>),
    /// All that surely touched a record; also those whose filter may stand for it.
    Record {
        /// Whose.
        asked: Asked,
        /// Those as well.
        possible: bool,
    },
    /// All that are this principal's, as answers show it.
    Principal(String),
    /// All that began before; Unix nanoseconds.
    Before(i64),
}

impl Store {
    /// The events that are meant, as far as the store knows them, and whether there are more.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or does not hold all that the log does.
    pub async fn select(&self, selected: &Selected) -> anyhow::Result<(Events, bool)> {
        if let Some(entry) = self.status().behind_from {
            anyhow::bail!(
                "the store does not hold entry {entry} of the log and what follows: restart the collector first"
            );
        }
        let session = self.session().await.context("cannot open the store")?;
        let events = session.table("events").await?;
        let rows = match selected {
            Selected::Record { asked, possible } => {
                asked.check()?;
                let (found, more) = asked.find(&session).await?;
                let meant = found.into_iter().filter(|(_, found)| found.sure || *possible);
                let mut events = Events::new();
                for ((entry, seq), _) in meant {
                    events
                        .entry(entry.cast_unsigned())
                        .or_default()
                        .insert(seq.cast_unsigned());
                }
                return Ok((events, more));
            }
            Selected::Ids(ids) => {
                let of = |(agent, seq): &(String, u64)| {
                    col("agent")
                        .eq(lit(agent.as_str()))
                        .and(col("seq").eq(lit(seq.cast_signed())))
                };
                let any = ids.iter().map(of).reduce(datafusion::logical_expr::Expr::or);
                events.filter(any.context("no event is named")?)?
            }
            Selected::Principal(principal) => events.filter(col("principal").eq(lit(principal.as_str())))?,
            Selected::Before(ns) => events.filter(col("ts_start").lt(time(*ns)))?,
        };
        collect(rows).await.map_err(Into::into)
    }

    /// Removes rows for good, because the log's entry `act` says that their events were erased. What is not there changes nothing.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written; until that is done, the manifest does not say that it was.
    pub async fn erase(&self, gone: &Gone, act: u64) -> anyhow::Result<()> {
        // What is in memory alone goes the way of all rows first.
        self.seal().await?;
        // Nothing is being written that still has them.
        let _no_merge = self.compacting.lock().await;
        let _one = self.sealing.lock().await;
        let mut manifest = self.state().manifest.clone();
        if manifest.erased_to > act {
            return Ok(());
        }
        let suffix = format!("e{act}");
        for (of_events, files) in [(true, &mut manifest.files), (false, &mut manifest.subjects)] {
            let mut kept = Vec::with_capacity(files.len());
            for file in files.drain(..) {
                kept.extend(self.without(file, gone, of_events, &suffix).await?);
            }
            *files = kept;
        }
        // What they are called depends on amendments, of which some may be gone.
        let files: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
        let amended = self.amendments.has_one_of(gone);
        manifest
            .uses
            .retain(|uses| !amended && uses.of.iter().all(|of| files.contains(of.as_str())));
        manifest.erased_to = act + 1;
        manifest.write(&self.objects).await?;
        self.uses().retain(&manifest);
        let stay: BTreeSet<String> = manifest.all().map(|file| file.path.clone()).collect();
        {
            let mut state = self.state();
            state.manifest = manifest;
            state.retired.clear();
        }
        self.amendments.forget(gone);
        // Whatever lies there: also what a seal left that could not write its manifest.
        let found = manifest::found(&self.objects).await?;
        let left = found.into_keys().filter(|path| !stay.contains(path));
        manifest::remove(&self.objects, left).await
    }

    /// The principal that answers show for an event, where that is another than it was recorded with.
    pub(crate) fn amended_principal(&self, agent: &str, event: &v1::Event) -> Option<String> {
        let shown = self.shown();
        let amends = shown.amends(
            agent,
            event.seq,
            event.session.as_ref(),
            event.attribution.as_ref(),
        )?;
        shown.principal(amends)
    }

    /// Whether the rows that the log's entry `act` took are gone from the store.
    pub(crate) fn has_erased(&self, act: u64) -> bool {
        self.state().manifest.erased_to > act
    }

    /// The file without the rows of these events: itself, another one, or none.
    async fn without(
        &self,
        file: SealedFile,
        gone: &Gone,
        of_events: bool,
        suffix: &str,
    ) -> anyhow::Result<Option<SealedFile>> {
        let entries = entries_of(&file.path)
            .with_context(|| format!("{} is no name of a file of the store", file.path))?;
        if !gone.touches(entries) {
            return Ok(Some(file));
        }
        if entries.1 < gone.below {
            return Ok(None);
        }
        let read = self.objects.get(&Path::from(file.path.as_str())).await?;
        let bytes = read
            .bytes()
            .await
            .with_context(|| format!("cannot read {}", file.path))?;
        let gone = gone.clone();
        let rest = tokio::task::spawn_blocking(move || rest(bytes, &gone, of_events)).await??;
        let Some((bytes, rows)) = rest else {
            return Ok(Some(file));
        };
        if rows == 0 {
            return Ok(None);
        }
        let path = without_rows(&file.path, suffix);
        Ok(Some(seal::put(&self.objects, path, bytes, rows).await?))
    }
}

/// Log entries and numbers of these rows.
async fn collect(rows: DataFrame) -> Result<(Events, bool)> {
    let rows = rows
        .select_columns(&["log_index", "seq"])?
        .limit(0, Some(MAX_SELECTED + 1))?;
    let (mut events, mut count) = (Events::new(), 0);
    let mut stream = rows.execute_stream().await?;
    while let Some(batch) = stream.next().await {
        for place in places(&batch?) {
            count += 1;
            if count <= MAX_SELECTED {
                events.entry(place.0).or_default().insert(place.1);
            }
        }
    }
    Ok((events, count > MAX_SELECTED))
}

/// Log entry and number of each row.
fn places(batch: &RecordBatch) -> Vec<(u64, u64)> {
    let column = |name| Some(batch.column_by_name(name)?.as_primitive::<Int64Type>());
    let (Some(entries), Some(seqs)) = (column("log_index"), column("seq")) else {
        return Vec::new();
    };
    let rows = entries.values().iter().zip(seqs.values());
    rows.map(|(entry, seq)| (entry.cast_unsigned(), seq.cast_unsigned()))
        .collect()
}

/// A file's rows that stay, as a file, and how many they are; nothing where all of them do.
fn rest(file: Bytes, gone: &Gone, of_events: bool) -> anyhow::Result<Option<(Vec<u8>, u64)>> {
    let mut options = ArrowReaderOptions::new();
    if of_events {
        // As a seal has them, so that files are written the same way.
        options = options.with_schema(coded(&parts::file_schema()));
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    let schema = Arc::clone(reader.schema());
    let (mut left, mut stay_all) = (Vec::new(), true);
    for batch in reader.build()? {
        let batch = batch?;
        let places = places(&batch);
        ensure!(
            places.len() == batch.num_rows(),
            "a file without log entries and numbers"
        );
        let stays = |(entry, seq): &(u64, u64)| !gone.takes(*entry, *seq);
        let stay: BooleanArray = places.iter().map(|place| Some(stays(place))).collect();
        stay_all &= stay.true_count() == stay.len();
        left.push(filter_record_batch(&batch, &stay)?);
    }
    if stay_all {
        return Ok(None);
    }
    let left = concat_batches(&schema, &left)?;
    let rows = left.num_rows() as u64;
    let bytes = match of_events {
        true => seal::file(&left)?,
        false => subjects::file_of(&left)?,
    };
    Ok(Some((bytes, rows)))
}

/// Where a file lies that was written anew without some rows. One that was before has such an ending already.
fn without_rows(path: &str, suffix: &str) -> String {
    let stem = path.strip_suffix(".parquet").unwrap_or(path);
    let stem = match stem.rsplit_once(".e") {
        Some((stem, act)) if act.bytes().all(|byte| byte.is_ascii_digit()) => stem,
        _ => stem,
    };
    format!("{stem}.{suffix}.parquet")
}

/// The first and the last log entry of a file, by its name.
pub(super) fn entries_of(path: &str) -> Option<(u64, u64)> {
    let name = path.rsplit('/').next()?;
    let (stem, _) = name.split_once('.')?;
    let (first, last) = stem.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Events of one act: each takes some tens of bytes in memory. More take another act.
const MAX_SELECTED: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_anew_is_called_as_no_other_of_its_folder() {
        let folder = "events/date=2026-05-10/hour=all";
        let anew = |name: &str| without_rows(&format!("{folder}/{name}.parquet"), "e7");
        assert_eq!(anew("0-1"), format!("{folder}/0-1.e7.parquet"));
        assert_eq!(anew("0-1.e3"), format!("{folder}/0-1.e7.parquet"));
        assert_eq!(anew("0-1.mea12"), format!("{folder}/0-1.mea12.e7.parquet"));
        assert_eq!(anew("0-1.mea12.e3"), format!("{folder}/0-1.mea12.e7.parquet"));
    }
}
