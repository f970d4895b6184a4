//! Several files of one table put together into one, in the order that each of them has.
//!
//! Owns the order, and reading and writing row group by row group, so that it takes the memory of a row group of each file
//! and not that of all rows. Refuses to leave a row out, or to know why files are put together.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use datafusion::{
    arrow::{
        array::RecordBatch,
        compute::interleave_record_batch,
        datatypes::{DataType, Field, Schema, SchemaRef},
        row::{RowConverter, Rows, SortField},
    },
    parquet::arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
};

use super::{
    parts,
    seal::{Events, ROW_GROUP_ROWS},
    subjects,
};

/// Which table files are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Their rows are in order of time.
    Events,
    /// Their rows are in the order of their tokens.
    Subjects,
}

impl Table {
    /// What its rows are in the order of; rows without one come first.
    fn order(self) -> &'static str {
        match self {
            Self::Events => "ts_start",
            Self::Subjects => subjects::TOKEN,
        }
    }

    /// What its files are read as: text that repeats stays what it is in the file, each value once.
    fn read_as(self) -> SchemaRef {
        match self {
            Self::Events => coded(&parts::file_schema()),
            Self::Subjects => subjects::schema(),
        }
    }
}

/// The same columns, text by its distinct values.
pub(super) fn coded(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => {
            let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            Arc::new(Field::new(field.name(), text, true))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// All rows of these files, as one, and how many they are.
///
/// # Errors
///
/// When one of them is no file of this table.
pub(super) fn merge(table: Table, files: Vec<Bytes>) -> anyhow::Result<(Vec<u8>, u64)> {
    let mut sources = Sources::over(table, files)?;
    let mut written = 0;
    let bytes = match table {
        Table::Events => {
            let mut file = Events::new()?;
            while let Some(rows) = sources.next(LARGE_GROUP_ROWS)? {
                written += rows.num_rows() as u64;
                file.row_group(&rows)?;
            }
            file.finish()?
        }
        Table::Subjects => {
            let mut file =
                ArrowWriter::try_new(Vec::new(), subjects::schema(), Some(subjects::properties()?))?;
            while let Some(rows) = sources.next(ROW_GROUP_ROWS)? {
                written += rows.num_rows() as u64;
                file.write(&rows)?;
            }
            file.into_inner()?
        }
    };
    Ok((bytes, written))
}

/// The files, read as far as is needed.
struct Sources {
    order: RowConverter,
    by: usize,
    open: Vec<Source>,
}

/// One file, and its next row.
struct Source {
    rest: ParquetRecordBatchReader,
    rows: RecordBatch,
    keys: Rows,
    at: usize,
}

impl Sources {
    fn over(table: Table, files: Vec<Bytes>) -> anyhow::Result<Self> {
        let schema = table.read_as();
        let by = schema.index_of(table.order())?;
        let mut sources = Self {
            order: RowConverter::new(vec![SortField::new(schema.field(by).data_type().clone())])?,
            by,
            open: Vec::with_capacity(files.len()),
        };
        for file in files {
            let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
            let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
            let rest = reader.with_batch_size(ROW_GROUP_ROWS).build()?;
            let mut source = Source {
                rest,
                rows: RecordBatch::new_empty(Arc::clone(&schema)),
                keys: sources.order.empty_rows(0, 0),
                at: 0,
            };
            if source.read(&sources.order, by)? {
                sources.open.push(source);
            }
        }
        Ok(sources)
    }

    /// So many rows, or as many as there are left.
    fn next(&mut self, most: usize) -> anyhow::Result<Option<RecordBatch>> {
        // What rows are taken from, and for each source, which of that it is at.
        let mut batches: Vec<RecordBatch> = self.open.iter().map(|source| source.rows.clone()).collect();
        let mut of: Vec<usize> = (0..batches.len()).collect();
        let mut taken = Vec::with_capacity(most);
        while taken.len() < most {
            let heads = self.open.iter().enumerate();
            let first = heads.min_by(|(_, a), (_, b)| a.keys.row(a.at).cmp(&b.keys.row(b.at)));
            let Some(place) = first.map(|(place, _)| place) else {
                break;
            };
            let (Some(source), Some(batch)) = (self.open.get_mut(place), of.get_mut(place)) else {
                break;
            };
            taken.push((*batch, source.at));
            source.at += 1;
            if source.at < source.rows.num_rows() {
                continue;
            }
            if source.read(&self.order, self.by)? {
                *batch = batches.len();
                batches.push(source.rows.clone());
            } else {
                self.open.remove(place);
                of.remove(place);
            }
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let rows = interleave_record_batch(&batches, &taken).context("rows of files do not fit together")?;
        Ok(Some(rows))
    }
}

impl Source {
    /// Reads on; false: that was all.
    fn read(&mut self, order: &RowConverter, by: usize) -> anyhow::Result<bool> {
        for rows in self.rest.by_ref() {
            let rows = rows?;
            if rows.num_rows() > 0 {
                self.keys = order.convert_columns(&[Arc::clone(rows.column(by))])?;
                self.rows = rows;
                self.at = 0;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Rows of a row group of events that are put together: what repeats is there once in each, and a question takes it apart once in
/// each.
const LARGE_GROUP_ROWS: usize = 4 * ROW_GROUP_ROWS;
