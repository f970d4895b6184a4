//! Rows of the tail, with what repeats kept once.
//!
//! Owns the in-memory form: columns of their own for what differs in every event, and parts (sessions, statements, …)
//! that rows point to, so that thirty columns cost a row four numbers. A query gets the columns that it asks for, spelt
//! out; a file gets them as dictionaries. Refuses to know where rows go.

use std::sync::{Arc, OnceLock};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, RecordBatchOptions,
            UInt32Array, new_empty_array,
        },
        compute::{concat, take},
        datatypes::{DataType, Field, Int32Type, Schema, TimestampNanosecondType},
        error::ArrowError,
    },
    common::HashMap,
};
use proto::v1;

use super::{
    columns::{self, Batch, COLUMNS, Column},
    manner::Manner,
    parts::{self, WHOLE},
    subjects::Subjects,
};
use record::{Record, Records, Weighed};

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
    keys: [Int32Array; PARTS],
    /// The distinct ones.
    parts: Parts,
    /// In the order of `COLUMNS`: of the rows, or of the distinct parts. These are made when they are asked for: a file needs
    /// few of them, and most chunks are in a file before anybody asks for others.
    columns: Vec<OnceLock<ArrayRef>>,
    /// The distinct parties, templates and manners whole, as files hold them.
    whole: OnceLock<[ArrayRef; WHOLE]>,
    /// Whose records the rows touched.
    pub(super) subjects: Subjects,
}

/// Sorts of parts, and their places in `Chunk::keys`.
const BATCH: usize = 0;
const PARTY: usize = 1;
const TEMPLATE: usize = 2;
const MANNER: usize = 3;
const PARTS: usize = 4;

/// What rows share, each once.
#[derive(Debug, Default)]
struct Parts {
    batches: Vec<Arc<Batch>>,
    parties: Vec<Arc<Weighed<v1::Party>>>,
    templates: Vec<Arc<Weighed<v1::Query>>>,
    manners: Vec<Arc<Manner>>,
}

impl Parts {
    /// A column of them.
    fn column(&self, column: &Column) -> ArrayRef {
        match column {
            // Of rows, and made with them.
            Column::Time(_) | Column::Number(_) => new_empty_array(&column.data_type()),
            Column::Batch(get) => get.values(&each(&self.batches)),
            Column::Party(get) => get.values(&messages(&self.parties)),
            Column::Template(get) => get.values(&messages(&self.templates)),
            Column::Manner(get) => get.values(&each(&self.manners)),
        }
    }

    /// Memory that they take, about: as they are, as columns, and as a file holds them.
    fn bytes(&self) -> usize {
        fn of<T>(parts: &[Arc<Weighed<T>>]) -> usize {
            parts.iter().map(|part| size_of::<T>() + part.encoded_len()).sum()
        }
        3 * (of(&self.parties) + of(&self.templates) + self.manners.len() * size_of::<Manner>())
    }
}

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
        let records = || entries.clone().flat_map(|entry| &entry.records);
        let columns = COLUMNS.iter().map(|(_, column)| match column {
            Column::Time(get) => columns::times(records(), *get).into(),
            Column::Number(get) => columns::numbers(records(), *get).into(),
            _ => OnceLock::new(),
        });
        Self {
            rows,
            columns: columns.collect(),
            // In the order of the constants above.
            keys: [
                batches.keys.into(),
                parties.keys.into(),
                templates.keys.into(),
                manners.keys.into(),
            ],
            parts: Parts {
                batches: batches.parts,
                parties: parties.parts,
                templates: templates.parts,
                manners: manners.parts,
            },
            whole: OnceLock::new(),
            subjects: Subjects::of(records()),
        }
    }

    /// All rows of `chunks`, in their order.
    pub(super) fn merged(chunks: &[Arc<Self>]) -> Result<Self, ArrowError> {
        let mut batches = Shared::default();
        let mut parties = Shared::default();
        let mut templates = Shared::default();
        let mut manners = Manners::default();
        for chunk in chunks {
            let [of_batch, of_party, of_template, of_manner] = &chunk.keys;
            batches.add_all(&chunk.parts.batches, of_batch);
            parties.add_all(&chunk.parts.parties, of_party);
            templates.add_all(&chunk.parts.templates, of_template);
            manners.add_all(&chunk.parts.manners, of_manner);
        }
        let columns = COLUMNS.iter().enumerate().map(|(n, (_, column))| {
            if part_of(column).is_some() {
                return Ok(OnceLock::new());
            }
            let columns = chunks.iter().map(|chunk| chunk.column(n));
            let columns: Vec<&dyn Array> = columns
                .map(|column| column.map(AsRef::as_ref))
                .collect::<Result<_, _>>()?;
            concat(&columns).map(OnceLock::from)
        });
        let columns = columns.collect::<Result<_, ArrowError>>()?;
        let mut before = 0;
        let mut subjects = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            subjects.push((before, &chunk.subjects));
            before += u32::try_from(chunk.rows).map_err(|_| too_large())?;
        }
        Ok(Self {
            subjects: Subjects::merged(&subjects)?,
            rows: chunks.iter().map(|chunk| chunk.rows).sum(),
            keys: [
                batches.keys.into(),
                parties.keys.into(),
                templates.keys.into(),
                manners.keys.into(),
            ],
            parts: Parts {
                batches: batches.parts,
                parties: parties.parts,
                templates: templates.parts,
                manners: manners.parts,
            },
            columns,
            whole: OnceLock::new(),
        })
    }

    /// When each row began.
    pub(super) fn starts(&self) -> Vec<Option<i64>> {
        match self.columns.first().and_then(OnceLock::get) {
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
        let whole = self.whole.get_or_init(|| {
            parts::whole_parts(
                &messages(&self.parts.parties),
                &messages(&self.parts.templates),
                &each(&self.parts.manners),
            )
        });
        for (part, values) in [PARTY, TEMPLATE, MANNER].into_iter().zip(whole) {
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
        let of_rows = COLUMNS.iter().zip(&self.columns);
        let of_rows = of_rows.filter(|((_, column), _)| part_of(column).is_none());
        let of_rows = of_rows.filter_map(|(_, made)| made.get().map(Array::get_array_memory_size));
        let keys = self.keys.iter().map(Array::get_array_memory_size);
        of_rows.chain(keys).sum::<usize>() + self.parts.bytes() + self.subjects.bytes()
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
        let (made, (_, column)) = self.columns.get(n).zip(COLUMNS.get(n)).ok_or_else(none)?;
        Ok(made.get_or_init(|| self.parts.column(column)))
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

fn each<T>(parts: &[Arc<T>]) -> Vec<&T> {
    parts.iter().map(AsRef::as_ref).collect()
}

fn messages<T>(parts: &[Arc<Weighed<T>>]) -> Vec<&T> {
    parts.iter().map(|part| &***part).collect()
}

/// Distinct parts that records share, told apart by where they lie: two that are equal in content only are kept twice,
/// which costs space and changes no answer.
struct Shared<T> {
    found: HashMap<*const T, i32>,
    newest: Option<(*const T, i32)>,
    parts: Vec<Arc<T>>,
    keys: Vec<Option<i32>>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            found: HashMap::default(),
            newest: None,
            parts: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl<T> Shared<T> {
    fn add(&mut self, part: Option<&Arc<T>>) {
        let key = part.map(|part| self.key(part));
        self.keys.push(key);
    }

    /// Rows that have these.
    fn add_all(&mut self, parts: &[Arc<T>], keys: &Int32Array) {
        let places: Vec<i32> = parts.iter().map(|part| self.key(part)).collect();
        self.keys.extend(moved(keys, &places));
    }

    fn key(&mut self, part: &Arc<T>) -> i32 {
        let place = Arc::as_ptr(part);
        if let Some((newest, key)) = self.newest
            && newest == place
        {
            return key;
        }
        let next = self.parts.len();
        let key = *self.found.entry(place).or_insert(next as i32);
        if key as usize == next {
            self.parts.push(Arc::clone(part));
        }
        self.newest = Some((place, key));
        key
    }
}

/// Keys of parts that have other places now.
fn moved(keys: &Int32Array, places: &[i32]) -> impl Iterator<Item = Option<i32>> {
    let place = |key: i32| places.get(usize::try_from(key).ok()?).copied();
    keys.iter().map(move |key| key.and_then(place))
}

/// The same for manners, which are told apart by content.
#[derive(Default)]
struct Manners {
    found: HashMap<Arc<Manner>, i32>,
    parts: Vec<Arc<Manner>>,
    keys: Vec<Option<i32>>,
}

impl Manners {
    /// Rows that have these.
    fn add_all(&mut self, manners: &[Arc<Manner>], keys: &Int32Array) {
        let places = manners.iter().map(|manner| {
            if let Some(key) = self.found.get(manner) {
                return *key;
            }
            let key = self.parts.len() as i32;
            self.found.insert(Arc::clone(manner), key);
            self.parts.push(Arc::clone(manner));
            key
        });
        let places: Vec<i32> = places.collect();
        self.keys.extend(moved(keys, &places));
    }

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
