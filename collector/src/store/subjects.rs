//! The table `subjects`: whose records events touched, a row for each token.
//!
//! Owns its columns, how a chunk holds them, and its files. It is a table of its own because of how it is asked: by one token among
//! millions. Its files are in the order of the tokens, so that Parquet's own index of pages leaves one page of each column
//! to read. Refuses to know what a token stands for.
//!
//! An event has a row for each token of each of its subjects, a row for each filter, and where a subject has neither, one that
//! says just that.

use std::{
    hash::Hash,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, FixedSizeBinaryArray,
            FixedSizeBinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions,
            StringArray, StringBuilder, UInt32Array,
        },
        compute::{SortOptions, concat, sort_to_indices, take},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
        error::ArrowError,
    },
    common::HashMap,
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, Encoding, ZstdLevel},
        file::properties::{EnabledStatistics, WriterProperties},
        schema::types::ColumnPath,
    },
};
use proto::v1;

use super::chunk::Chunk;
use record::Record;

/// What of an event stands in each of its rows, in front of all other columns.
pub(super) const OF_EVENT: [&str; 4] = ["ts_start", "agent", "seq", "log_index"];

/// The columns in files and tail.
pub(super) fn schema() -> SchemaRef {
    SCHEMA.clone()
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let columns = [
        ("ts_start", time),
        ("agent", DataType::Utf8),
        ("seq", DataType::Int64),
        ("log_index", DataType::Int64),
        ("object", DataType::Utf8),
        ("column_name", DataType::Utf8),
        ("family", DataType::Utf8),
        ("key_id", DataType::Utf8),
        (TOKEN, DataType::Utf8),
        (FILTER, DataType::Binary),
        ("filter_values", DataType::Int64),
        ("complete", DataType::Boolean),
        ("sources", DataType::new_list(DataType::Utf8, true)),
    ];
    let fields = columns.map(|(name, of)| Field::new(name, of, true));
    Arc::new(Schema::new(fields.to_vec()))
});

/// 32 hexadecimal digits.
pub(super) const TOKEN: &str = "token";

/// As `Subject.filter`.
pub(super) const FILTER: &str = "filter";

/// Those of a chunk's events: four numbers and sixteen bytes a row.
#[derive(Debug)]
pub(super) struct Subjects {
    /// The event, by its place in the chunk.
    events: UInt32Array,
    /// What the token is one of, by its place in `values`.
    of: Int32Array,
    tokens: FixedSizeBinaryArray,
    filters: BinaryArray,
    /// Of the distinct subjects, each but for its tokens; in the order of the schema.
    values: [ArrayRef; VALUES],
}

/// Columns that are the same for all tokens of a subject.
const VALUES: usize = 7;

/// A subject without its tokens and filter.
#[derive(PartialEq, Eq, Hash)]
struct Named<'a> {
    object: &'a str,
    column: &'a str,
    family: &'a str,
    key: &'a str,
    filter_values: u64,
    complete: bool,
    sources: &'a [String],
}

impl Subjects {
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut places = HashMap::<Named<'_>, i32>::default();
        let mut named = Vec::new();
        let (mut events, mut of) = (Vec::new(), Vec::new());
        let mut tokens = FixedSizeBinaryBuilder::new(TOKEN_BYTES);
        let mut filters = BinaryBuilder::new();
        for (event, record) in (0..).zip(records) {
            for subject in &record.subjects {
                let (known, whole) = known_tokens(subject);
                let description = Named {
                    object: &subject.object,
                    column: &subject.column,
                    family: &subject.family,
                    key: &subject.key,
                    filter_values: subject.filter_values,
                    complete: subject.complete && whole,
                    sources: &subject.sources,
                };
                let next = places.len();
                let place = *places.entry(description).or_insert_with(|| {
                    named.push((subject, whole));
                    next as i32
                });
                let mut row = |token: Option<&[u8]>, filter: Option<&[u8]>| {
                    events.push(event);
                    of.push(place);
                    let kept = token.map(|token| tokens.append_value(token));
                    if !matches!(kept, Some(Ok(()))) {
                        tokens.append_null();
                    }
                    filters.append_option(filter);
                };
                let filter = (!subject.filter.is_empty()).then_some(subject.filter.as_slice());
                if known.is_empty() || filter.is_some() {
                    row(None, filter);
                }
                for token in known {
                    row(Some(token), None);
                }
            }
        }
        Self {
            events: events.into(),
            of: of.into(),
            tokens: tokens.finish(),
            filters: filters.finish(),
            values: values(&named),
        }
    }

    /// All rows of `chunks`, in their order, the events of each counted from the place that is said with it.
    pub(super) fn merged(chunks: &[(u32, &Self)]) -> Result<Self, ArrowError> {
        let (mut events, mut of, mut before) = (Vec::new(), Vec::new(), 0);
        for (first, chunk) in chunks {
            events.extend(chunk.events.values().iter().map(|event| event + first));
            of.extend(chunk.of.values().iter().map(|place| place + before));
            before += chunk.values.first().map_or(0, Array::len) as i32;
        }
        let all = |part: &dyn Fn(&Self) -> ArrayRef| -> Result<ArrayRef, ArrowError> {
            let parts: Vec<ArrayRef> = chunks.iter().map(|(_, chunk)| part(chunk)).collect();
            concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
        };
        let mut values = Vec::with_capacity(VALUES);
        for n in 0..VALUES {
            values.push(all(&|chunk| match chunk.values.get(n) {
                Some(column) => Arc::clone(column),
                None => Arc::new(Int64Array::from(Vec::<i64>::new())),
            })?);
        }
        let values = <[ArrayRef; VALUES]>::try_from(values).map_err(|_| wrong("a column is missing"))?;
        Ok(Self {
            events: events.into(),
            of: of.into(),
            tokens: all(&|chunk| Arc::new(chunk.tokens.clone()))?
                .as_fixed_size_binary()
                .clone(),
            filters: all(&|chunk| Arc::new(chunk.filters.clone()))?.as_binary().clone(),
            values,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.events.len()
    }

    /// Memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.values.iter().map(Array::get_array_memory_size).sum();
        values
            + self.events.get_array_memory_size()
            + self.of.get_array_memory_size()
            + self.tokens.get_array_memory_size()
            + self.filters.get_array_memory_size()
    }

    /// The columns at these places of the schema, of these rows, spelt out.
    fn batch(
        &self,
        chunk: &Chunk,
        rows: &UInt32Array,
        projection: &[usize],
    ) -> Result<RecordBatch, ArrowError> {
        let events = take(&self.events, rows, None)?;
        let of = take(&self.of, rows, None)?;
        let column = |n: &usize| -> Result<ArrayRef, ArrowError> {
            let field = SCHEMA.field(*n).name().as_str();
            if OF_EVENT.contains(&field) {
                return chunk.of_events(field, events.as_primitive());
            }
            match field {
                TOKEN => {
                    let tokens = take(&self.tokens, rows, None)?;
                    let tokens = tokens.as_fixed_size_binary().iter();
                    Ok(Arc::new(
                        tokens
                            .map(|token| token.map(hex::encode))
                            .collect::<StringArray>(),
                    ))
                }
                FILTER => take(&self.filters, rows, None),
                // Behind those of the event, and with two in between.
                _ => {
                    let place = n - OF_EVENT.len();
                    let place = if place < KEY_COLUMNS { place } else { place - 2 };
                    let values = self.values.get(place).ok_or_else(|| wrong("no such column"))?;
                    take(values, &of, None)
                }
            }
        };
        let columns = projection.iter().map(column).collect::<Result<_, _>>()?;
        let schema = Arc::new(SCHEMA.project(projection)?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema, columns, &options)
    }
}

/// Columns of `values` in front of token and filter.
const KEY_COLUMNS: usize = 4;

/// The tokens of the right length, and whether that is all: with another one, something was touched that cannot be looked up.
pub(super) fn known_tokens(subject: &v1::Subject) -> (Vec<&[u8]>, bool) {
    let right = |token: &&[u8]| token.len() == TOKEN_BYTES as usize;
    let known: Vec<&[u8]> = subject.tokens.iter().map(Vec::as_slice).filter(right).collect();
    let whole = known.len() == subject.tokens.len();
    (known, whole)
}

/// Bytes of a token: HMAC-SHA-256, cut to half.
const TOKEN_BYTES: i32 = 16;

fn values(named: &[(&v1::Subject, bool)]) -> [ArrayRef; VALUES] {
    let texts = |of: fn(&v1::Subject) -> &str| -> ArrayRef {
        let texts = named.iter().map(|(subject, _)| of(subject));
        Arc::new(
            texts
                .map(|text| (!text.is_empty()).then_some(text))
                .collect::<StringArray>(),
        )
    };
    let filters = named.iter().map(|(subject, _)| {
        let values = i64::try_from(subject.filter_values).unwrap_or(i64::MAX);
        (values != 0).then_some(values)
    });
    let complete = named
        .iter()
        .map(|(subject, whole)| Some(subject.complete && *whole));
    let mut sources = ListBuilder::new(StringBuilder::new());
    for (subject, _) in named {
        sources.append_value(subject.sources.iter().map(Some));
    }
    [
        texts(|subject| &subject.object),
        texts(|subject| &subject.column),
        texts(|subject| &subject.family),
        texts(|subject| &subject.key),
        Arc::new(filters.collect::<Int64Array>()),
        Arc::new(complete.collect::<BooleanArray>()),
        Arc::new(sources.finish()),
    ]
}

/// The rows of a chunk that is in no file yet, spelt out some at a time.
pub(super) fn spelt(
    chunk: Arc<Chunk>,
    projection: Vec<usize>,
) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send {
    let count = chunk.subjects.rows();
    (0..count).step_by(SPELT_ROWS).map(move |from| {
        let to = count.min(from + SPELT_ROWS);
        let rows = UInt32Array::from_iter_values(from as u32..to as u32);
        chunk.subjects.batch(&chunk, &rows, &projection)
    })
}

/// A file of the rows of `chunk`, in the order of their tokens; nothing where it has none.
pub(super) fn file(chunk: &Chunk) -> anyhow::Result<Option<Vec<u8>>> {
    let subjects = &chunk.subjects;
    if subjects.rows() == 0 {
        return Ok(None);
    }
    // Rows without a token are few, and looked at for their filters: together.
    let order = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let order = sort_to_indices(&subjects.tokens, Some(order), None)?;
    let all: Vec<usize> = (0..SCHEMA.fields().len()).collect();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties()?))?;
    for from in (0..order.len()).step_by(SPELT_ROWS) {
        let rows = order.slice(from, SPELT_ROWS.min(order.len() - from));
        writer.write(&subjects.batch(chunk, &rows, &all)?)?;
    }
    Ok(Some(writer.into_inner()?))
}

/// A file of these rows, which have its columns, as they are.
pub(super) fn file_of(rows: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties()?))?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

/// How its files are written.
pub(super) fn properties() -> anyhow::Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for field in SCHEMA.fields() {
        let (column, name) = (ColumnPath::from(field.name().as_str()), field.name().as_str());
        properties = match field.data_type() {
            DataType::Int64 | DataType::Timestamp(..) => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
            // Each another; what two neighbours begin with alike is left to the compression.
            DataType::Utf8 if name == TOKEN => properties.set_column_dictionary_enabled(column, false),
            // Whether a page has any is all that its index is for, and its least and greatest are kilobytes.
            DataType::Binary => properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_statistics_enabled(column, EnabledStatistics::Chunk),
            _ => properties,
        };
    }
    Ok(properties.build())
}

fn wrong(what: &str) -> ArrowError {
    ArrowError::SchemaError(what.to_owned())
}

/// Rows that are spelt out at a time.
const SPELT_ROWS: usize = 8192;

/// Rows of a page: what a look-up reads of a file that has the token, and of most that have it not. Some 40 KiB of tokens.
const PAGE_ROWS: usize = 2048;

/// Rows of a row group: its index of pages is read with the file's footer.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// As the events' files.
const ZSTD_LEVEL: i32 = 3;
