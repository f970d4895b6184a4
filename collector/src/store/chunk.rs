//! Rows of the tail, with what repeats kept once.
//!
//! Owns the in-memory form: columns of their own for what differs in every event, and parts (sessions, statements, …)
//! that rows point to, so that thirty columns cost a row four numbers. A query gets the columns that it asks for, spelt
//! out; a file gets them as dictionaries. Refuses to know where rows go.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions,
            UInt32Array,
        },
        compute::{concat, take},
        datatypes::{DataType, Field, Int32Type, Schema, TimestampNanosecondType},
        error::ArrowError,
    },
    common::HashMap,
};

use super::{
    columns::{self, Batch, COLUMNS, Column},
    manner::Manner,
    parts::{self, WHOLE},
    subjects::Subjects,
};
use record::{Record, Records};

/// The rows of one log entry, not in columns yet.
#[derive(Debug)]
pub(super) struct Entry {
    batch: Arc<Batch>,
    records: Vec<Record>,
}

impl Entry {
    pub(super) fn new(log_index: u64, records: Records) -> Self {
        let batch = Batch {
            log_index,
            agent: records.agent,
            sequence: records.batch_sequence,
        };
        Self {
            batch: Arc::new(batch),
            records: records.records,
        }
    }
}

/// Rows in columns.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) rows: usize,
    /// For each sort of part, which one a row has.
    keys: Vec<Int32Array>,
    /// In the order of `COLUMNS`: of the rows, or of the distinct parts.
    columns: Vec<ArrayRef>,
    /// The distinct parties, templates and manners whole, as files hold them.
    whole: [ArrayRef; WHOLE],
    /// Whose records the rows touched.
    pub(super) subjects: Subjects,
}

/// Sorts of parts, and their places in `Chunk::keys`.
const BATCH: usize = 0;
const PARTY: usize = 1;
const TEMPLATE: usize = 2;
const MANNER: usize = 3;
const PARTS: usize = 4;

impl Chunk {
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Self {
        let mut batches = Shared::default();
        let mut parties = Shared::default();
        let mut templates = Shared::default();
        let mut manners = Manners::default();
        let mut rows = 0;
        for entry in entries.clone() {
            for record in &entry.records {
                rows += 1;
                batches.add(Some(&entry.batch));
                parties.add(record.party.as_ref());
                templates.add(columns::query(record).map(|query| &query.template));
                manners.add(Manner::of(record));
            }
        }
        let manner_list: Vec<&Manner> = manners.parts.iter().map(AsRef::as_ref).collect();
        let records = || entries.clone().flat_map(|entry| &entry.records);
        let columns = COLUMNS
            .iter()
            .map(|(_, column)| match column {
                Column::Time(get) => columns::times(records(), *get),
                Column::Number(get) => columns::numbers(records(), *get),
                Column::Batch(get) => get.values(&batches.parts),
                Column::Party(get) => get.values(&parties.parts),
                Column::Template(get) => get.values(&templates.parts),
                Column::Manner(get) => get.values(&manner_list),
            })
            .collect();
        // In the order of the constants above.
        let keys = vec![
            batches.keys.into(),
            parties.keys.into(),
            templates.keys.into(),
            manners.keys.into(),
        ];
        let whole = parts::whole_parts(&parties.parts, &templates.parts, &manner_list);
        Self {
            rows,
            keys,
            columns,
            whole,
            subjects: Subjects::of(records()),
        }
    }

    /// All rows of `chunks`, in their order.
    pub(super) fn merged(chunks: &[Arc<Self>]) -> Result<Self, ArrowError> {
        let mut keys = Vec::with_capacity(PARTS);
        for part in 0..PARTS {
            let column = COLUMNS
                .iter()
                .position(|(_, column)| part_of(column) == Some(part));
            let mut merged = Vec::new();
            let mut before = 0;
            for chunk in chunks {
                merged.extend(chunk.keys(part)?.iter().map(|key| key.map(|key| key + before)));
                let parts = match column {
                    Some(column) => chunk.column(column)?.len(),
                    None => 0,
                };
                before += i32::try_from(parts).map_err(|_| too_large())?;
            }
            keys.push(Int32Array::from(merged));
        }
        let columns = (0..COLUMNS.len())
            .map(|n| {
                let columns = chunks.iter().map(|chunk| chunk.column(n));
                let columns: Vec<&dyn Array> = columns
                    .map(|column| column.map(AsRef::as_ref))
                    .collect::<Result<_, _>>()?;
                concat(&columns)
            })
            .collect::<Result<_, _>>()?;
        let whole = |n: usize| {
            let of = |chunk: &'_ Arc<Self>| chunk.whole.get(n).cloned();
            let arrays: Vec<ArrayRef> = chunks.iter().filter_map(of).collect();
            concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>())
        };
        let whole = [whole(0)?, whole(1)?, whole(2)?];
        let mut before = 0;
        let mut subjects = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            subjects.push((before, &chunk.subjects));
            before += u32::try_from(chunk.rows).map_err(|_| too_large())?;
        }
        Ok(Self {
            subjects: Subjects::merged(&subjects)?,
            rows: chunks.iter().map(|chunk| chunk.rows).sum(),
            keys,
            columns,
            whole,
        })
    }

    /// When each row began.
    pub(super) fn starts(&self) -> Vec<Option<i64>> {
        match self.columns.first() {
            Some(times) => times.as_primitive::<TimestampNanosecondType>().iter().collect(),
            None => Vec::new(),
        }
    }

    /// The columns at these places of the schema, spelt out.
    pub(super) fn batch(&self, projection: &[usize]) -> Result<RecordBatch, ArrowError> {
        let schema = Arc::new(columns::schema().project(projection)?);
        let columns = projection
            .iter()
            .map(|n| self.spelt(*n))
            .collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(schema, columns, &options)
    }

    /// A column, spelt out, of the rows at these places.
    pub(super) fn of_events(&self, name: &str, rows: &UInt32Array) -> Result<ArrayRef, ArrowError> {
        let none = || ArrowError::SchemaError(format!("there is no column {name}"));
        let (n, (_, column)) = COLUMNS
            .iter()
            .enumerate()
            .find(|(_, (column, _))| *column == name)
            .ok_or_else(none)?;
        match part_of(column) {
            None => take(self.column(n)?, rows, None),
            Some(part) => take(self.column(n)?, &take(self.keys(part)?, rows, None)?, None),
        }
    }

    /// These rows as a file holds them, repeating text as dictionaries.
    pub(super) fn file_rows(&self, rows: &UInt32Array) -> Result<RecordBatch, ArrowError> {
        let keys = self
            .keys
            .iter()
            .map(|keys| Ok(take(keys, rows, None)?.as_primitive::<Int32Type>().clone()))
            .collect::<Result<Vec<_>, ArrowError>>()?;
        let dictionary = |part: usize, values: &ArrayRef| -> Result<ArrayRef, ArrowError> {
            let keys = keys
                .get(part)
                .ok_or_else(|| ArrowError::SchemaError(format!("there is no part {part}")))?;
            Ok(Arc::new(DictionaryArray::try_new(keys.clone(), values.clone())?))
        };
        let mut columns = Vec::new();
        for (n, (name, column)) in COLUMNS.iter().enumerate() {
            if parts::whole(name, column).is_some() {
                continue;
            }
            let values = self.column(n)?;
            columns.push(match part_of(column) {
                None => take(values, rows, None)?,
                Some(part) if *values.data_type() == DataType::Utf8 => dictionary(part, values)?,
                Some(part) => match keys.get(part) {
                    Some(keys) => take(values, keys, None)?,
                    None => continue,
                },
            });
        }
        for (part, values) in [PARTY, TEMPLATE, MANNER].into_iter().zip(&self.whole) {
            columns.push(dictionary(part, values)?);
        }
        let fields: Vec<Field> = parts::file_schema()
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let columns = self.columns.iter().map(Array::get_array_memory_size);
        let keys = self.keys.iter().map(Array::get_array_memory_size);
        let whole = self.whole.iter().map(Array::get_array_memory_size);
        columns.chain(keys).chain(whole).sum::<usize>() + self.subjects.bytes()
    }

    fn spelt(&self, n: usize) -> Result<ArrayRef, ArrowError> {
        let values = self.column(n)?;
        match COLUMNS.get(n).and_then(|(_, column)| part_of(column)) {
            None => Ok(values.clone()),
            Some(part) => take(values, self.keys(part)?, None),
        }
    }

    fn column(&self, n: usize) -> Result<&ArrayRef, ArrowError> {
        let none = || ArrowError::SchemaError(format!("there is no column {n}"));
        self.columns.get(n).ok_or_else(none)
    }

    fn keys(&self, part: usize) -> Result<&Int32Array, ArrowError> {
        let none = || ArrowError::SchemaError(format!("there is no part {part}"));
        self.keys.get(part).ok_or_else(none)
    }
}

/// Which part a column is of; `None`: of each event.
fn part_of(column: &Column) -> Option<usize> {
    match column {
        Column::Time(_) | Column::Number(_) => None,
        Column::Batch(_) => Some(BATCH),
        Column::Party(_) => Some(PARTY),
        Column::Template(_) => Some(TEMPLATE),
        Column::Manner(_) => Some(MANNER),
    }
}

fn too_large() -> ArrowError {
    ArrowError::InvalidArgumentError("too many rows for one file".to_owned())
}

/// Distinct parts that records share, told apart by where they lie: two that are equal in content only are kept twice,
/// which costs space and changes no answer.
struct Shared<'a, T> {
    found: HashMap<*const T, i32>,
    newest: Option<(*const T, i32)>,
    parts: Vec<&'a T>,
    keys: Vec<Option<i32>>,
}

impl<T> Default for Shared<'_, T> {
    fn default() -> Self {
        Self {
            found: HashMap::default(),
            newest: None,
            parts: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl<'a, T> Shared<'a, T> {
    fn add(&mut self, part: Option<&'a Arc<T>>) {
        let key = part.map(|part| {
            let place = Arc::as_ptr(part);
            if let Some((newest, key)) = self.newest
                && newest == place
            {
                return key;
            }
            let next = self.parts.len();
            let key = *self.found.entry(place).or_insert(next as i32);
            if key as usize == next {
                self.parts.push(part);
            }
            self.newest = Some((place, key));
            key
        });
        self.keys.push(key);
    }
}

/// The same for manners, which are told apart by content.
#[derive(Default)]
struct Manners {
    found: HashMap<Arc<Manner>, i32>,
    parts: Vec<Arc<Manner>>,
    keys: Vec<Option<i32>>,
}

impl Manners {
    fn add(&mut self, manner: Manner) {
        let newest = self.keys.last().copied().flatten();
        let same = newest.filter(|key| self.parts.get(*key as usize).is_some_and(|part| **part == manner));
        let key = same
            .or_else(|| self.found.get(&manner).copied())
            .unwrap_or_else(|| {
                let key = self.parts.len() as i32;
                let manner = Arc::new(manner);
                self.found.insert(Arc::clone(&manner), key);
                self.parts.push(manner);
                key
            });
        self.keys.push(Some(key));
    }
}
