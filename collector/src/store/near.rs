//! Of files of events, the pages that may hold certain log entries.
//!
//! Owns which rows are read at all where the entries are known: what a file says of the entries of each of its pages decides. A question
//! that names thousands of them, all over a year, reads a page for each, and not all that lies between. Refuses to leave out a page of
//! which nothing is said, and to tell which rows are meant: that is asked of each row that was read.

use std::sync::Arc;

use datafusion::{
    catalog::Session,
    common::{DataFusionError, Result, runtime::SpawnedTask},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfig,
            parquet::{ParquetAccessPlan, RowGroupAccess, metadata::DFParquetMetadata},
        },
        source::DataSourceExec,
    },
    parquet::{
        arrow::arrow_reader::{RowSelection, RowSelector},
        file::{
            metadata::{ParquetMetaData, RowGroupMetaData},
            page_index::column_index::ColumnIndexMetaData,
        },
    },
    physical_plan::ExecutionPlan,
};

use super::{erase::entries_of, sealed::FOOTER_BYTES};

/// Whether a file may have rows of these log entries, which are in order.
pub(super) fn has_some_of(file: &str, entries: &[i64]) -> bool {
    entries_of(file).is_none_or(|(first, last)| some_within(entries, first.cast_signed(), last.cast_signed()))
}

/// The same plan over the same files, of which it reads only what may be of these log entries, which are in order.
pub(super) async fn only(
    plan: Arc<dyn ExecutionPlan>,
    state: &dyn Session,
    entries: &Arc<[i64]>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let config = plan
        .downcast_ref::<DataSourceExec>()
        .and_then(|exec| exec.data_source().downcast_ref::<FileScanConfig>());
    let Some(config) = config else {
        return Ok(plan);
    };
    let runtime = state.runtime_env();
    let objects = runtime.object_store(&config.object_store_url)?;
    let known = runtime.cache_manager.get_file_metadata_cache();
    // Each on a task of its own, because most of it is taking the footers apart.
    let ask = |file: &PartitionedFile| {
        let (objects, known) = (Arc::clone(&objects), Arc::clone(&known));
        let (file, entries) = (file.object_meta.clone(), Arc::clone(entries));
        SpawnedTask::spawn(async move {
            let footer = DFParquetMetadata::new(objects.as_ref(), &file)
                .with_metadata_size_hint(Some(FOOTER_BYTES))
                .with_file_metadata_cache(Some(known));
            Ok::<_, DataFusionError>(access(footer.fetch_metadata().await?.as_ref(), &entries))
        })
    };
    let groups = config.file_groups.iter();
    let asked: Vec<Vec<_>> = groups.map(|group| group.iter().map(ask).collect()).collect();
    let mut config = config.clone();
    for (group, asked) in config.file_groups.iter_mut().zip(asked) {
        let mut files = Vec::with_capacity(asked.len());
        for (file, access) in group.iter().zip(asked) {
            let access = access
                .join_unwind()
                .await
                .map_err(|error| DataFusionError::External(error.into()))??;
            files.push(file.clone().with_extension(access));
        }
        *group = FileGroup::new(files);
    }
    Ok(DataSourceExec::from_data_source(config))
}

/// What of a file may be of these entries.
fn access(file: &ParquetMetaData, entries: &[i64]) -> ParquetAccessPlan {
    let schema = file.file_metadata().schema_descr();
    let column = schema.columns().iter().position(|column| column.name() == ENTRY);
    let groups = file.row_groups().iter().enumerate();
    let groups = groups.map(|(number, group)| match column {
        Some(column) => of_group(file, (number, group), column, entries),
        None => RowGroupAccess::Scan,
    });
    ParquetAccessPlan::new(groups.collect())
}

fn of_group(
    file: &ParquetMetaData,
    (number, group): (usize, &RowGroupMetaData),
    column: usize,
    entries: &[i64],
) -> RowGroupAccess {
    let index = file
        .column_index()
        .and_then(|groups| groups.get(number)?.get(column));
    let pages = file
        .offset_index()
        .and_then(|groups| groups.get(number)?.get(column));
    let (Some(ColumnIndexMetaData::INT64(index)), Some(pages)) = (index, pages) else {
        return RowGroupAccess::Scan;
    };
    let starts = pages.page_locations().iter().map(|page| page.first_row_index);
    let ends = starts.clone().skip(1).chain([group.num_rows()]);
    let mut selectors = Vec::with_capacity(pages.page_locations().len());
    let mut bounds = index.min_values_iter().zip(index.max_values_iter());
    for (start, end) in starts.zip(ends) {
        let Ok(rows) = usize::try_from(end - start) else {
            return RowGroupAccess::Scan;
        };
        let is_meant = match bounds.next() {
            Some((Some(first), Some(last))) => some_within(entries, *first, *last),
            _ => true,
        };
        selectors.push(if is_meant {
            RowSelector::select(rows)
        } else {
            RowSelector::skip(rows)
        });
    }
    if selectors.iter().all(|page| page.skip) {
        return RowGroupAccess::Skip;
    }
    RowGroupAccess::Selection(RowSelection::from(selectors))
}

fn some_within(entries: &[i64], first: i64, last: i64) -> bool {
    let next = entries.partition_point(|entry| *entry < first);
    entries.get(next).is_some_and(|entry| *entry <= last)
}

/// The column with an event's log entry.
const ENTRY: &str = "log_index";

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::array::{ArrayRef, Int64Array, RecordBatch},
        parquet::{
            arrow::ArrowWriter,
            file::{
                metadata::{PageIndexPolicy, ParquetMetaDataReader},
                properties::WriterProperties,
            },
        },
    };

    use super::*;

    /// A file of two row groups of four pages of two rows each, with entries 0, 0, 10, 10, 20 and so on.
    fn file() -> ParquetMetaData {
        let entries = Int64Array::from_iter_values((0..16).map(|row| row / 2 * 10));
        let rows = RecordBatch::try_from_iter([(ENTRY, Arc::new(entries) as ArrayRef)]).unwrap();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_max_row_group_row_count(Some(8))
            .set_write_batch_size(1)
            .set_data_page_row_count_limit(2)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        let bytes = bytes::Bytes::from(writer.into_inner().unwrap());
        let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        reader.try_parse(&bytes).unwrap();
        reader.finish().unwrap()
    }

    fn selected(file: &ParquetMetaData, entries: &[i64]) -> Vec<Vec<bool>> {
        let plan = access(file, entries);
        let of_group = |group: &RowGroupAccess| match group {
            RowGroupAccess::Skip => Vec::new(),
            RowGroupAccess::Scan => vec![true; 8],
            RowGroupAccess::Selection(selection) => {
                let runs = selection.iter();
                runs.flat_map(|run| vec![!run.skip; run.row_count]).collect()
            }
        };
        plan.inner().iter().map(of_group).collect()
    }

    #[test]
    fn of_a_file_only_pages_are_read_that_may_hold_the_entries() {
        let file = file();
        let nothing: Vec<bool> = Vec::new();
        let page = |number: usize| (0..8).map(|row| row / 2 == number).collect::<Vec<bool>>();
        assert_eq!(selected(&file, &[10]), [page(1), nothing.clone()]);
        assert_eq!(selected(&file, &[0, 70]), [page(0), page(3)]);
        // Between two pages, and behind the last.
        assert_eq!(selected(&file, &[15, 71]), [nothing.clone(), nothing.clone()]);
        assert_eq!(selected(&file, &[]), [nothing.clone(), nothing]);
    }

    #[test]
    fn of_a_file_that_says_nothing_of_its_pages_everything_is_read() {
        let silent = file().into_builder().set_column_index(None).build();
        assert_eq!(selected(&silent, &[10]), vec![vec![true; 8]; 2]);
    }

    #[test]
    fn a_file_is_opened_if_its_name_does_not_exclude_it() {
        let opened = |first: i64, last: i64| {
            let path = format!("events/date=2026-05-10/hour=all/{first}-{last}.parquet");
            has_some_of(&path, &[5, 6, 7, 20])
        };
        assert!(opened(7, 9) && opened(0, 5) && opened(6, 6) && opened(10, 30));
        assert!(!opened(8, 19) && !opened(0, 4) && !opened(21, 90));
        assert!(has_some_of("events/of-another-name.parquet", &[5]));
    }
}
