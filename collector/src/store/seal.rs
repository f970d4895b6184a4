//! From the tail's rows to Parquet files, one for each hour that they fall into, and one of their subjects.
//!
//! Owns partitioning, order within a file and the Parquet settings. Refuses to decide when: that is the store's.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use anyhow::Context;
use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch, UInt32Array},
        datatypes::{DataType, Int32Type},
    },
    parquet::{
        arrow::{
            ArrowWriter,
            arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves},
        },
        basic::{Compression, Encoding, ZstdLevel},
        file::{
            properties::{EnabledStatistics, WriterProperties},
            writer::SerializedFileWriter,
        },
        schema::types::ColumnPath,
    },
};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use super::{
    chunk::Chunk,
    columns::{NARROWING, SOUGHT},
    dictionary::{self, Told},
    manifest::{EVENTS, Manifest, SUBJECTS, SealedFile},
    parts, subjects,
};

/// Writes rows of the log entries `first..next` and adds the files to the manifest; nothing counts before that is written.
pub(crate) async fn write(
    store: &dyn ObjectStore,
    chunks: Vec<Arc<Chunk>>,
    (first, next): (u64, u64),
    into: &mut Manifest,
) -> anyhow::Result<()> {
    let encoded = tokio::task::spawn_blocking(move || encode(&chunks))
        .await
        .context("sealing was interrupted")??;
    let name = format!("{first:012}-{:012}.parquet", next.saturating_sub(1));
    for (hour, bytes, rows) in encoded.events {
        let path = format!("{EVENTS}/{hour}/{name}");
        into.files.push(put(store, path, bytes, rows).await?);
    }
    if let Some((bytes, rows)) = encoded.subjects {
        let path = format!("{SUBJECTS}/{name}");
        into.subjects.push(put(store, path, bytes, rows).await?);
    }
    Ok(())
}

pub(super) async fn put(
    store: &dyn ObjectStore,
    path: String,
    bytes: Vec<u8>,
    rows: u64,
) -> anyhow::Result<SealedFile> {
    let size = bytes.len() as u64;
    store
        .put(&Path::from(path.as_str()), PutPayload::from(bytes))
        .await
        .with_context(|| format!("cannot write {path}: is there space left?"))?;
    Ok(SealedFile {
        path,
        bytes: size,
        rows,
    })
}

/// The files of a seal.
#[derive(Default)]
struct Encoded {
    /// One a partition: its folder, its bytes, its rows.
    events: Vec<(String, Vec<u8>, u64)>,
    /// Bytes and rows.
    subjects: Option<(Vec<u8>, u64)>,
}

fn encode(chunks: &[Arc<Chunk>]) -> anyhow::Result<Encoded> {
    let all = match chunks {
        [] => return Ok(Encoded::default()),
        [one] => Arc::clone(one),
        chunks => Arc::new(Chunk::merged(chunks)?),
    };
    let mut events = Vec::new();
    for (hour, rows) in partitions(&all.starts()) {
        let part = all.file_rows(&UInt32Array::from(rows))?;
        events.push((folder(hour), file(&part)?, part.num_rows() as u64));
    }
    let rows = all.subjects.rows() as u64;
    Ok(Encoded {
        events,
        subjects: subjects::file(&all)?.map(|bytes| (bytes, rows)),
    })
}

/// A file of these rows, which have the columns of [`parts::file_schema`].
pub(super) fn file(rows: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let mut file = Events::new()?;
    for first in (0..rows.num_rows()).step_by(ROW_GROUP_ROWS) {
        file.row_group(&rows.slice(first, ROW_GROUP_ROWS.min(rows.num_rows() - first)))?;
    }
    file.finish()
}

/// A file of events that is being written.
pub(super) struct Events {
    file: SerializedFileWriter<Vec<u8>>,
    columns: ArrowRowGroupWriterFactory,
    groups: usize,
}

impl Events {
    pub(super) fn new() -> anyhow::Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), parts::file_schema(), Some(properties()?))?;
        let (file, columns) = writer.into_serialized_writer()?;
        Ok(Self {
            file,
            columns,
            groups: 0,
        })
    }

    /// Adds a row group of these rows.
    pub(super) fn row_group(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        let descriptions = self.file.schema_descr().columns().to_vec();
        let writers = self.columns.create_column_writers(self.groups)?;
        self.groups += 1;
        let mut group = self.file.next_row_group()?;
        let fields = parts::file_schema();
        let columns = fields
            .fields()
            .iter()
            .zip(rows.columns())
            .zip(writers)
            .zip(&descriptions);
        for (((field, column), mut writer), description) in columns {
            if let Some(coded) = column.as_dictionary_opt::<Int32Type>() {
                let encoded = dictionary::encode(coded, description, level()?, told(field.name()))?;
                group.append_column(&encoded.bytes, encoded.close)?;
                continue;
            }
            for leaf in compute_leaves(field, column)? {
                writer.write(&leaf)?;
            }
            writer.close()?.append_to_row_group(&mut group)?;
        }
        group.close()?;
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(self.file.into_inner()?)
    }
}

/// What a column with repeating values says of itself.
fn told(name: &str) -> Told {
    Told {
        range: SOUGHT.contains(&name) || NARROWING.contains(&name),
        filter: SOUGHT.contains(&name),
    }
}

/// Row numbers by hour since the epoch (`None`: no time known), in order of time within each.
fn partitions(starts: &[Option<i64>]) -> BTreeMap<Option<i64>, Vec<u32>> {
    let mut rows: Vec<(Option<i64>, u32)> = starts.iter().copied().zip(0..).collect();
    // Batches of few agents come in order of time each: a sort that finds such runs does little more than to merge them.
    rows.sort();
    let mut hours: BTreeMap<Option<i64>, Vec<u32>> = BTreeMap::new();
    for (time, row) in &rows {
        hours
            .entry(time.map(|ns| ns.div_euclid(HOUR_NS)))
            .or_default()
            .push(*row);
    }
    if hours.len() > MAX_HOURS && rows.len() < hours.len() * HOUR_ROWS {
        return BTreeMap::from([(None, rows.into_iter().map(|(_, row)| row).collect())]);
    }
    hours
}

pub(super) fn folder(hour: Option<i64>) -> String {
    let start = hour.and_then(|hour| jiff::Timestamp::from_second(hour.checked_mul(3600)?).ok());
    match start {
        Some(start) => start.strftime("date=%Y-%m-%d/hour=%H").to_string(),
        None => "date=mixed/hour=mixed".to_owned(),
    }
}

/// The hours since the epoch in which the rows of a file began, by its path: one, or those of a day; none where that is not known.
pub(super) fn hours_in(path: &str) -> Option<Range<i64>> {
    let (_, path) = path.split_once("date=")?;
    let (date, hour) = path.split_once("/hour=")?;
    let (hour, _) = hour.split_once('/')?;
    let date: jiff::civil::Date = date.parse().ok()?;
    let days = date
        .since(jiff::civil::Date::constant(1970, 1, 1))
        .ok()?
        .get_days();
    let first = i64::from(days) * 24;
    if hour == ALL_HOURS {
        return Some(first..first + 24);
    }
    let hour = first + hour.parse::<i64>().ok()?;
    Some(hour..hour + 1)
}

/// In place of the hour, where a file is of a whole day.
pub(super) const ALL_HOURS: &str = "all";

fn properties() -> anyhow::Result<WriterProperties> {
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(level()?));
    for field in parts::file_schema().fields() {
        let column = ColumnPath::from(field.name().as_str());
        properties = match field.data_type() {
            DataType::Int64 | DataType::Timestamp(..) => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
            _ => properties.set_column_statistics_enabled(column, EnabledStatistics::None),
        };
    }
    Ok(properties.build())
}

fn level() -> anyhow::Result<ZstdLevel> {
    Ok(ZstdLevel::try_new(ZSTD_LEVEL)?)
}

pub(super) const HOUR_NS: i64 = 3_600_000_000_000;

/// Hours of one seal that get a file of their own, and rows that an hour has on average where it is of more. Times come from
/// agents: one that invents them must not be able to make a file for each event. Beyond it, the seal's rows lie in one file,
/// which is slower to search and no less right.
const MAX_HOURS: usize = 48;
const HOUR_ROWS: usize = 256;

/// Rows of a row group: small enough that a search by time or principal skips most of an hour.
pub(super) const ROW_GROUP_ROWS: usize = 32 * 1024;

/// Parquet's usual trade of time for space.
const ZSTD_LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fall_into_their_hours_in_order_of_time() {
        let hour = 3_600_000_000_000;
        let parts = partitions(&[Some(hour * 2 + 5), Some(hour + 1), Some(hour * 2 + 3), None]);
        assert_eq!(
            parts,
            BTreeMap::from([(None, vec![3]), (Some(1), vec![1]), (Some(2), vec![2, 0])])
        );
        assert_eq!(folder(Some(494_000)), "date=2026-05-10/hour=08");
        assert_eq!(folder(None), "date=mixed/hour=mixed");
        let path = |hour| format!("{EVENTS}/{}/0-1.parquet", folder(hour));
        for hour in [-30, 0, 494_000 / 3600, 500_000] {
            assert_eq!(hours_in(&path(Some(hour))), Some(hour..hour + 1));
        }
        assert_eq!(
            hours_in("events/date=1970-01-02/hour=all/0-1.parquet"),
            Some(24..48)
        );
        assert_eq!(hours_in(&path(None)), None);
    }

    #[test]
    fn invented_times_do_not_make_a_file_each() {
        let times: Vec<_> = (1..=100).map(|n| Some(n * HOUR_NS)).collect();
        let parts = partitions(&times);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts.values().map(Vec::len).sum::<usize>(), 100);
        // Those of a site that was not heard of for long, or of a log that is read anew, are not invented.
        let times: Vec<_> = (0..100 * HOUR_ROWS as i64)
            .map(|n| Some(n % 100 * HOUR_NS))
            .collect();
        assert_eq!(partitions(&times).len(), 100);
    }
}
