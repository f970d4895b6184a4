//! Parties, templates and manners in files: each whole, in one column, where Parquet keeps what is equal once.
//!
//! To look up some thirty texts of each row in a dictionary of its own, column by column, was most of what a seal cost.
//! Owns what a file has instead, and the way back to the columns that SQL sees. Refuses to know what the columns mean:
//! that is `columns`', for files and tail alike.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, RecordBatch},
        compute::{cast, take},
        datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef},
    },
    common::{DataFusionError, Result, exec_err},
    logical_expr::{ColumnarValue, Expr, Volatility, create_udf},
    prelude::col,
};
use prost::{DecodeError, Message};
use proto::v1;

use super::{
    amendments::{Stored, stripped},
    columns::{COLUMNS, Column, Get, NARROWING, SOUGHT},
    manner::{Amends, Manner},
};

/// The columns that hold whole parts, behind all others.
pub(super) const PARTY: &str = "party";
const TEMPLATE: &str = "template";
pub(super) const MANNER: &str = "manner";

/// What a file has.
pub(super) fn file_schema() -> SchemaRef {
    SCHEMA.clone()
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let own = COLUMNS
        .iter()
        .filter(|(name, column)| whole(name, column).is_none())
        .map(|(name, column)| Field::new(*name, column.data_type(), true));
    let parts = [PARTY, TEMPLATE, MANNER].map(|name| Field::new(name, part_type(), true));
    Arc::new(Schema::new(own.chain(parts).collect::<Vec<_>>()))
});

/// The column of a file that this one is read out of; `None` where the file has it as it is.
pub(super) fn whole(name: &str, column: &Column) -> Option<&'static str> {
    let own = SOUGHT.contains(&name) || NARROWING.contains(&name);
    match column {
        Column::Party(_) if !own => Some(PARTY),
        Column::Template(_) if !own => Some(TEMPLATE),
        Column::Manner(_) if !own => Some(MANNER),
        _ => None,
    }
}

/// The parts as a file holds them, in the order of its columns: what no column says of them is left out, because each row's
/// part is compared with those known.
pub(super) fn whole_parts(
    parties: &[&v1::Party],
    templates: &[&v1::Query],
    manners: &[&Manner],
) -> [ArrayRef; WHOLE] {
    let party = |party: &&v1::Party| {
        let mut party = v1::Party::clone(party);
        party.attribution = party.attribution.map(stripped);
        party.encode_to_vec()
    };
    let template = |template: &&v1::Query| {
        let mut template = v1::Query::clone(template);
        if let Some(statement) = &mut template.statement {
            statement.source.clear();
        }
        template.encode_to_vec()
    };
    let manner = |manner: &&Manner| MannerInFile::from(*manner).encode_to_vec();
    [
        Arc::new(BinaryArray::from_iter_values(parties.iter().map(party))),
        Arc::new(BinaryArray::from_iter_values(templates.iter().map(template))),
        Arc::new(BinaryArray::from_iter_values(manners.iter().map(manner))),
    ]
}

/// Columns of whole parts.
pub(super) const WHOLE: usize = 3;

/// A manner as a file holds it, but for its kind, which is a column.
#[derive(Clone, PartialEq, Message)]
struct MannerInFile {
    #[prost(int32, tag = "1")]
    encryption: i32,
    #[prost(string, tag = "2")]
    tag: String,
    #[prost(int32, optional, tag = "3")]
    phase: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    outcome: Option<i32>,
    #[prost(string, tag = "5")]
    sqlstate: String,
    #[prost(string, tag = "6")]
    tx_status: String,
    #[prost(int32, optional, tag = "7")]
    tx_final: Option<i32>,
    #[prost(string, tag = "8")]
    gap_reason: String,
    #[prost(string, tag = "9")]
    end_user: String,
    #[prost(string, tag = "10")]
    amends_agent: String,
    #[prost(string, tag = "11")]
    amends_session: String,
    #[prost(uint64, repeated, tag = "12")]
    amends_events: Vec<u64>,
    #[prost(bool, tag = "13")]
    takes_back: bool,
    #[prost(string, repeated, tag = "14")]
    subject_ways: Vec<String>,
}

impl From<&Manner> for MannerInFile {
    fn from(manner: &Manner) -> Self {
        let amends = manner.amends.as_ref();
        Self {
            encryption: manner.encryption,
            tag: manner.tag.to_string(),
            phase: manner.phase,
            outcome: manner.outcome,
            sqlstate: manner.sqlstate.to_string(),
            tx_status: manner.tx_status.to_string(),
            tx_final: manner.tx_final,
            gap_reason: manner.gap_reason.to_string(),
            end_user: manner.end_user.to_string(),
            amends_agent: amends.map_or_else(String::new, |of| of.agent.to_string()),
            amends_session: amends.map_or_else(String::new, |of| of.session.to_string()),
            amends_events: amends.map_or_else(Vec::new, |of| of.events.to_vec()),
            takes_back: amends.is_some_and(|of| of.takes_back),
            subject_ways: manner.subject_ways.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<MannerInFile> for Manner {
    fn from(manner: MannerInFile) -> Self {
        Self {
            kind: "",
            encryption: manner.encryption,
            tag: manner.tag.into(),
            phase: manner.phase,
            outcome: manner.outcome,
            sqlstate: manner.sqlstate.into(),
            tx_status: manner.tx_status.into(),
            tx_final: manner.tx_final,
            gap_reason: manner.gap_reason.into(),
            end_user: manner.end_user.into(),
            subject_ways: manner.subject_ways.into_iter().map(Into::into).collect(),
            amends: (!manner.amends_agent.is_empty()).then(|| {
                Box::new(Amends {
                    agent: manner.amends_agent.into(),
                    session: manner.amends_session.into(),
                    events: manner.amends_events.into(),
                    takes_back: manner.takes_back,
                })
            }),
        }
    }
}

/// All columns, of the rows of a file.
pub(super) fn columns_of_files() -> Vec<Expr> {
    let decoded = Arc::new(Decoded::default());
    let column = |(n, (name, column)): (usize, &(&'static str, Column))| match whole(name, column) {
        None => col(*name),
        Some(part) => {
            let decoded = Arc::clone(&decoded);
            let read = move |arguments: &[ColumnarValue]| read(n, &decoded, arguments);
            let function = create_udf(
                &format!("{part}_{name}"),
                vec![part_type()],
                column.data_type(),
                Volatility::Immutable,
                Arc::new(read),
            );
            function.call(vec![col(part)]).alias(*name)
        }
    };
    COLUMNS.iter().enumerate().map(column).collect()
}

/// The parts of the row groups that one question is at: each is asked for many columns, of many batches of rows.
#[derive(Default)]
struct Decoded {
    parties: Lately<v1::Party>,
    templates: Lately<v1::Query>,
    manners: Lately<Manner>,
}

/// The parts of a few dictionaries, the newest first.
struct Lately<T>(Mutex<VecDeque<(BinaryArray, Arc<Vec<T>>)>>);

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Lately<T> {
    /// All parts of this dictionary.
    fn of(
        &self,
        dictionary: &BinaryArray,
        decode: impl Fn(&[u8]) -> std::result::Result<T, DecodeError>,
    ) -> Result<Arc<Vec<T>>> {
        // What is kept keeps its buffers: another dictionary cannot lie where it does.
        let same = |other: &BinaryArray| {
            other.len() == dictionary.len()
                && other.values().as_ptr() == dictionary.values().as_ptr()
                && other.value_offsets().as_ptr() == dictionary.value_offsets().as_ptr()
        };
        let kept = |lately: &VecDeque<(BinaryArray, Arc<Vec<T>>)>| {
            let found = lately.iter().find(|(other, _)| same(other));
            found.map(|(_, parts)| Arc::clone(parts))
        };
        if let Some(parts) = kept(&self.lately()) {
            return Ok(parts);
        }
        let decoded: std::result::Result<Vec<T>, DecodeError> = dictionary
            .iter()
            .map(|value| decode(value.unwrap_or_default()))
            .collect();
        let parts = Arc::new(decoded.map_err(external)?);
        let mut lately = self.lately();
        lately.push_front((dictionary.clone(), Arc::clone(&parts)));
        lately.truncate(KEPT);
        Ok(parts)
    }

    fn lately(&self) -> MutexGuard<'_, VecDeque<(BinaryArray, Arc<Vec<T>>)>> {
        // Nothing panics while it holds the lock with a change half made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dictionaries whose parts are kept: those of a row group for each thread that reads.
const KEPT: usize = 4;

/// Of how many values in a dictionary one has to be asked for, so that all are decoded and kept.
const FEW: usize = 8;

/// Column `n` of these parts.
fn read(n: usize, decoded: &Decoded, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let ([parts], Some((_, column))) = (arguments.as_slice(), COLUMNS.get(n)) else {
        return exec_err!("a part's column takes the part");
    };
    let parts = cast(parts, &part_type())?;
    let parts = parts.as_dictionary::<Int32Type>();
    let encoded = parts.values().as_binary::<i32>();
    let (used, keys) = used(parts.keys(), encoded.len());
    if used.len() * FEW >= encoded.len() {
        let values = match column {
            Column::Party(get) => values(
                get,
                &decoded.parties.of(encoded, |bytes| v1::Party::decode(bytes))?,
            ),
            Column::Template(get) => values(
                get,
                &decoded.templates.of(encoded, |bytes| v1::Query::decode(bytes))?,
            ),
            Column::Manner(get) => values(get, &decoded.manners.of(encoded, manner)?),
            _ => return exec_err!("a column of no part"),
        };
        return Ok(ColumnarValue::Array(take(&values, parts.keys(), None)?));
    }
    let values = match column {
        Column::Party(get) => values(get, &few(encoded, &used, |bytes| v1::Party::decode(bytes))?),
        Column::Template(get) => values(get, &few(encoded, &used, |bytes| v1::Query::decode(bytes))?),
        Column::Manner(get) => values(get, &few(encoded, &used, manner)?),
        _ => return exec_err!("a column of no part"),
    };
    Ok(ColumnarValue::Array(take(&values, &keys, None)?))
}

fn manner(bytes: &[u8]) -> std::result::Result<Manner, DecodeError> {
    MannerInFile::decode(bytes).map(Manner::from)
}

fn external(error: DecodeError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn values<T>(get: &Get<T>, parts: &[T]) -> ArrayRef {
    get.values(&parts.iter().collect::<Vec<_>>())
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

fn few<T>(
    encoded: &BinaryArray,
    used: &[usize],
    decode: impl Fn(&[u8]) -> std::result::Result<T, DecodeError>,
) -> Result<Vec<T>> {
    let values = used.iter().map(|value| decode(encoded.value(*value)));
    values.collect::<std::result::Result<_, _>>().map_err(external)
}

/// The amendments among rows of a file; columns: number, log entry, party, manner.
pub(super) fn amendments(rows: &RecordBatch, into: &mut Vec<Stored>) -> Result<()> {
    let [seqs, entries, parties, manners] = rows.columns() else {
        return exec_err!("an amendment is four columns");
    };
    let (seqs, entries) = (
        seqs.as_primitive::<Int64Type>(),
        entries.as_primitive::<Int64Type>(),
    );
    let (parties, manners) = (
        cast(parties, &DataType::Binary)?,
        cast(manners, &DataType::Binary)?,
    );
    let (parties, manners) = (parties.as_binary::<i32>(), manners.as_binary::<i32>());
    for row in 0..rows.num_rows() {
        if parties.is_null(row) || manners.is_null(row) {
            continue;
        }
        let party = v1::Party::decode(parties.value(row)).map_err(external)?;
        let manner = MannerInFile::decode(manners.value(row)).map_err(external)?;
        if let Some(attribution) = party.attribution {
            into.push(Stored {
                log_index: entries.value(row).cast_unsigned(),
                seq: seqs.value(row).cast_unsigned(),
                agent: manner.amends_agent,
                session: manner.amends_session.into(),
                attribution,
                events: manner.amends_events.into(),
                takes_back: manner.takes_back,
            });
        }
    }
    Ok(())
}

/// The type of a part: what is equal is there once.
fn part_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Binary))
}
