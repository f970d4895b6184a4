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

/// Writes rows of the log entries `first..next` and adds the files to the manifest; nothing counts before that is written. From the hour `open_from`
/// on, more rows may come.
pub(crate) async fn write(
    store: &dyn ObjectStore,
    chunks: Vec<Arc<Chunk>>,
    (first, next): (u64, u64),
    open_from: i64,
    into: &mut Manifest,
) -> anyhow::Result<()> {
    let encoded = tokio::task::spawn_blocking(move || encode(&chunks, open_from))
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

fn encode(chunks: &[Arc<Chunk>], open_from: i64) -> anyhow::Result<Encoded> {
    let all = match chunks {
        [] => return Ok(Encoded::default()),
        [one] => Arc::clone(one),
        chunks => Arc::new(Chunk::merged(chunks)?),
    };
    let mut events = Vec::new();
    for (span, rows) in partitions(&all.starts(), open_from) {
        let part = all.file_rows(&UInt32Array::from(rows))?;
        events.push((span.folder(), file(&part)?, part.num_rows() as u64));
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

/// In which the rows of a file began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Partition {
    /// Of some, no time is known; or they are few of many hours.
    Mixed,
    /// A day since the epoch, which is over.
    Day(i64),
    /// An hour since the epoch.
    Hour(i64),
}

impl Partition {
    /// That of an hour: of a day that is over, that day.
    fn of(hour: i64, open_from: i64) -> Self {
        match hour.div_euclid(DAY_HOURS) {
            day if day < open_from.div_euclid(DAY_HOURS) => Self::Day(day),
            _ => Self::Hour(hour),
        }
    }

    pub(super) fn folder(self) -> String {
        let start = |hours: i64| jiff::Timestamp::from_second(hours.checked_mul(3600)?).ok();
        let folder = match self {
            Self::Mixed => None,
            Self::Day(day) => day
                .checked_mul(DAY_HOURS)
                .and_then(start)
                .map(|day| format!("{}/hour={ALL_HOURS}", day.strftime("date=%Y-%m-%d"))),
            Self::Hour(hour) => start(hour).map(|hour| hour.strftime("date=%Y-%m-%d/hour=%H").to_string()),
        };
        folder.unwrap_or_else(|| "date=mixed/hour=mixed".to_owned())
    }
}

/// Row numbers by where they belong, in order of time within each.
fn partitions(starts: &[Option<i64>], open_from: i64) -> BTreeMap<Partition, Vec<u32>> {
    let mut rows: Vec<(Option<i64>, u32)> = starts.iter().copied().zip(0..).collect();
    // Batches of few agents come in order of time each: a sort that finds such runs does little more than to merge them.
    rows.sort();
    let mut spans: BTreeMap<Partition, Vec<u32>> = BTreeMap::new();
    for (time, row) in &rows {
        let span = time.map_or(Partition::Mixed, |ns| {
            Partition::of(ns.div_euclid(HOUR_NS), open_from)
        });
        spans.entry(span).or_default().push(*row);
    }
    if spans.len() > MAX_SPANS && rows.len() < spans.len() * SPAN_ROWS {
        return BTreeMap::from([(Partition::Mixed, rows.into_iter().map(|(_, row)| row).collect())]);
    }
    spans
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
    let first = i64::from(days) * DAY_HOURS;
    if hour == ALL_HOURS {
        return Some(first..first + DAY_HOURS);
    }
    let hour = first + hour.parse::<i64>().ok()?;
    Some(hour..hour + 1)
}

/// In place of the hour, where a file is of a whole day.
pub(super) const ALL_HOURS: &str = "all";

fn properties() -> anyhow::Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level()?))
        .set_data_page_row_count_limit(PAGE_ROWS);
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
const DAY_HOURS: i64 = 24;

/// Hours and days of one seal that get a file of their own, and rows that one has on average where there are more. Times come from
/// agents: one that invents them must not be able to make a file for each event. Beyond it, the seal's rows lie in one file,
/// which is slower to search and no less right.
const MAX_SPANS: usize = 48;
const SPAN_ROWS: usize = 256;

/// Rows of a row group: small enough that a search by time or principal skips most of an hour.
pub(super) const ROW_GROUP_ROWS: usize = 32 * 1024;

/// Rows of a page of numbers: what is read to find one event by its place in the log.
const PAGE_ROWS: usize = 4 * 1024;

/// Parquet's usual trade of time for space.
const ZSTD_LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fall_into_their_hours_and_days_in_order_of_time() {
        let starts = [
            Some(HOUR_NS * 2 + 5),
            Some(HOUR_NS + 1),
            Some(HOUR_NS * 2 + 3),
            None,
        ];
        let parts = partitions(&starts, 20);
        assert_eq!(
            parts,
            BTreeMap::from([
                (Partition::Mixed, vec![3]),
                (Partition::Hour(1), vec![1]),
                (Partition::Hour(2), vec![2, 0])
            ])
        );
        let parts = partitions(&starts, 24);
        assert_eq!(
            parts,
            BTreeMap::from([(Partition::Mixed, vec![3]), (Partition::Day(0), vec![1, 2, 0])]),
            "the day is over"
        );
        assert_eq!(Partition::Hour(494_000).folder(), "date=2026-05-10/hour=08");
        assert_eq!(Partition::Day(494_000 / 24).folder(), "date=2026-05-10/hour=all");
        assert_eq!(Partition::Mixed.folder(), "date=mixed/hour=mixed");
        let path = |span: Partition| format!("{EVENTS}/{}/0-1.parquet", span.folder());
        for hour in [-30, 0, 494_000 / 3600, 500_000] {
            assert_eq!(hours_in(&path(Partition::Hour(hour))), Some(hour..hour + 1));
        }
        for day in [-3, 0, 1, 20_000] {
            assert_eq!(
                hours_in(&path(Partition::Day(day))),
                Some(day * 24..(day + 1) * 24)
            );
        }
        assert_eq!(hours_in(&path(Partition::Mixed)), None);
    }

    #[test]
    fn invented_times_do_not_make_a_file_each() {
        let parts = |times: &[Option<i64>]| partitions(times, 0);
        let times: Vec<_> = (1..=100).map(|n| Some(n * HOUR_NS)).collect();
        let few = parts(&times);
        assert_eq!(few.len(), 1);
        assert_eq!(few.values().map(Vec::len).sum::<usize>(), 100);
        // Those of a site that was not heard of for long are not invented.
        let times: Vec<_> = (0..100 * SPAN_ROWS as i64)
            .map(|n| Some(n % 100 * HOUR_NS))
            .collect();
        assert_eq!(parts(&times).len(), 100);
    }
}
