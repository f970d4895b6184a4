//! What was made of parties, templates and manners while one question reads files.
//!
//! The same part stands in the dictionary of each row group in which it occurs, and a question asks the same of it each time. Owns the memory of that:
//! of each distinct part, by its bytes, what each column makes of it, so that it is decoded once for a column and not once for each row group.
//! Refuses to know what the columns are.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array},
        compute::{concat, take},
        datatypes::Int32Type,
    },
    common::{DataFusionError, HashMap, Result},
};
use prost::DecodeError;
use proto::v1;

use super::manner::Manner;

/// Of one question.
#[derive(Default)]
pub(super) struct Decoded {
    pub(super) parties: Lately<v1::Party>,
    pub(super) templates: Lately<v1::Query>,
    pub(super) manners: Lately<Manner>,
}

/// A part in the form that a file holds it in.
pub(super) trait Part: Sized {
    fn read(encoded: &[u8]) -> std::result::Result<Self, DecodeError>;
}

/// The parts of one sort.
pub(super) struct Lately<T> {
    memory: Mutex<Memory>,
    of: std::marker::PhantomData<fn() -> T>,
}

#[derive(Default)]
struct Memory {
    /// A few dictionaries, the newest first.
    dictionaries: VecDeque<Dictionary>,
    distinct: Distinct,
}

/// A row group's, and what was made of all that is in it.
struct Dictionary {
    values: BinaryArray,
    /// Which of the distinct ones each is.
    places: Int32Array,
    columns: HashMap<&'static str, ArrayRef>,
}

/// Parts in the order in which they were met.
#[derive(Default)]
struct Distinct {
    places: HashMap<Arc<[u8]>, i32>,
    encoded: Vec<Arc<[u8]>>,
    bytes: usize,
    /// Of the first of them, up to all.
    columns: HashMap<&'static str, ArrayRef>,
}

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self {
            memory: Mutex::default(),
            of: std::marker::PhantomData,
        }
    }
}

impl<T: Part> Lately<T> {
    /// A column of the rows that have these parts.
    pub(super) fn column(
        &self,
        name: &'static str,
        parts: &ArrayRef,
        make: impl Fn(&[&T]) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        let parts = parts.as_dictionary::<Int32Type>();
        let values = parts.values().as_binary::<i32>();
        if let Some(made) = self.memory().made(name, values) {
            return Ok(take(&made, parts.keys(), None)?);
        }
        let make = |encoded: &mut dyn Iterator<Item = &[u8]>| {
            let read = encoded.map(T::read);
            let read: Vec<T> = read.collect::<std::result::Result<_, _>>().map_err(external)?;
            make(&read.iter().collect::<Vec<_>>())
        };
        let (used, keys) = used(parts.keys(), values.len());
        if used.len() * FEW < values.len() {
            let made = make(&mut used.iter().map(|value| values.value(*value)))?;
            return Ok(take(&made, &keys, None)?);
        }
        let made = self.memory().make(name, values, make)?;
        Ok(take(&made, parts.keys(), None)?)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What fails or panics while it holds the lock leaves what is there as it is, or adds to it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// A column of this dictionary, if it was made.
    fn made(&self, name: &str, values: &BinaryArray) -> Option<ArrayRef> {
        let known = self.dictionaries.iter().find(|known| known.is_of(values))?;
        known.columns.get(name).cloned()
    }

    /// Makes a column of a whole dictionary: of what was not met before.
    fn make(
        &mut self,
        name: &'static str,
        values: &BinaryArray,
        make: impl Fn(&mut dyn Iterator<Item = &[u8]>) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        if self.distinct.bytes > MAX_BYTES {
            // Places of older dictionaries mean nothing without them.
            *self = Self::default();
        }
        let Self {
            dictionaries,
            distinct,
        } = self;
        let known = dictionaries.iter().position(|known| known.is_of(values));
        let known = known.unwrap_or_else(|| {
            dictionaries.truncate(KEPT - 1);
            dictionaries.push_front(Dictionary {
                values: values.clone(),
                places: values
                    .iter()
                    .map(|value| distinct.place(value.unwrap_or_default()))
                    .collect(),
                columns: HashMap::default(),
            });
            0
        });
        let all = distinct.column(name, make)?;
        let Some(known) = dictionaries.get_mut(known) else {
            return Ok(all);
        };
        let made = take(&all, &known.places, None)?;
        known.columns.insert(name, Arc::clone(&made));
        Ok(made)
    }
}

impl Dictionary {
    /// What is kept keeps its buffers: another dictionary cannot lie where it does.
    fn is_of(&self, values: &BinaryArray) -> bool {
        let own = &self.values;
        own.len() == values.len()
            && own.values().as_ptr() == values.values().as_ptr()
            && own.value_offsets().as_ptr() == values.value_offsets().as_ptr()
    }
}

impl Distinct {
    fn place(&mut self, value: &[u8]) -> Option<i32> {
        if let Some(place) = self.places.get(value) {
            return Some(*place);
        }
        let (place, value) = (self.encoded.len() as i32, Arc::<[u8]>::from(value));
        self.bytes += value.len();
        self.encoded.push(Arc::clone(&value));
        self.places.insert(value, place);
        Some(place)
    }

    /// The column of all of them.
    fn column(
        &mut self,
        name: &'static str,
        make: impl Fn(&mut dyn Iterator<Item = &[u8]>) -> Result<ArrayRef>,
    ) -> Result<ArrayRef> {
        let made = self.columns.get(name);
        let rest = self.encoded.get(made.map_or(0, Array::len)..).unwrap_or_default();
        let column = match made {
            Some(made) if rest.is_empty() => return Ok(Arc::clone(made)),
            Some(made) => concat(&[made, &make(&mut rest.iter().map(AsRef::as_ref))?])?,
            None => make(&mut rest.iter().map(AsRef::as_ref))?,
        };
        self.columns.insert(name, Arc::clone(&column));
        Ok(column)
    }
}

pub(super) fn external(error: DecodeError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Which of `count` values the keys name, and the keys as places among those: a question that leaves few rows needs few
/// parts, and a file's dictionary holds all.
fn used(keys: &Int32Array, count: usize) -> (Vec<usize>, Int32Array) {
    let mut places = vec![None; count];
    let mut used = Vec::new();
    let keys = keys.iter().map(|key| {
        let value = usize::try_from(key?).ok()?;
        let place = places.get_mut(value)?;
        Some(*place.get_or_insert_with(|| {
            used.push(value);
            (used.len() - 1) as i32
        }))
    });
    let keys = keys.collect();
    (used, keys)
}

/// Dictionaries of which it is kept what was made: those of a row group for each thread that reads.
const KEPT: usize = 4;

/// Of how many values in a dictionary one has to be asked for, so that all are decoded and kept.
const FEW: usize = 8;

/// Encoded parts of one sort; when there are more, all are forgotten, which costs decoding them once more.
const MAX_BYTES: usize = 16 * 1024 * 1024;
