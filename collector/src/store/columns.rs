//! The columns of `events`: one table that says what each is called, what type it has and where its value is taken.
//!
//! Owns the Arrow schema and the way from records to columns; both come from [`COLUMNS`], so they cannot differ. What
//! repeats (batch, party, template, manner) is a *part*, whose columns are filled once for
//! each distinct one; `chunk` puts the two together. Refuses to fill gaps: what an event does not know is NULL.
//! Numbers are signed 64-bit, because that is what SQL arithmetic expects; a larger one (none that is honest) is cut
//! off at the largest. `event_id` and `event`, which follow from others, are made by `session` when asked for, and so is
//! what a file says of parties and templates (`parts`).

use std::sync::{Arc, LazyLock};

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder, TimestampNanosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use proto::v1;

use super::manner::Manner;
use record::Record;

mod table;

pub(super) use table::{COLUMNS, query};

/// The schema of `events` as it is stored; every column may be NULL.
pub(crate) fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Looked for one value at a time, of very many: a file has these columns of its own; what else it says of parties,
/// templates and manners is read out of them when it is asked for.
pub(super) const SOUGHT: &[&str] = &["principal", "fingerprint", "session_id"];

/// Of little variety within a row group, so that their range alone says whether it can hold an answer: the same. Keeping the
/// range of any other text costs more at each seal than it saves.
pub(super) const NARROWING: &[&str] = &["kind", "agent", "login_role", "database"];

/// How a column is filled.
pub(super) enum Column {
    /// Of each event.
    Time(fn(&Record) -> Option<u64>),
    /// Of each event.
    Number(fn(&Record) -> Option<u64>),
    /// Of each batch.
    Batch(Get<Batch>),
    /// Of each session as it was known, with whose it is.
    Party(Get<v1::Party>),
    /// Of each statement.
    Template(Get<v1::Query>),
    /// Of each way in which events went.
    Manner(Get<Manner>),
}

/// Where a part's column takes its values.
pub(super) enum Get<T> {
    Number(fn(&T) -> Option<u64>),
    Flag(fn(&T) -> Option<bool>),
    /// Text that the part holds.
    Text(for<'a> fn(&'a T) -> Option<&'a str>),
    /// Text that is made for the column.
    Made(fn(&T) -> Option<String>),
    List(fn(&T) -> Option<Vec<String>>),
}

/// What is the same for all events of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) log_index: u64,
    pub(super) agent: Arc<str>,
    pub(super) sequence: u64,
}

impl Column {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            // Written as an offset, which needs no table of time zones.
            Self::Time(_) => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Self::Number(_) => DataType::Int64,
            Self::Batch(get) => get.data_type(),
            Self::Party(get) => get.data_type(),
            Self::Template(get) => get.data_type(),
            Self::Manner(get) => get.data_type(),
        }
    }
}

impl<T> Get<T> {
    fn data_type(&self) -> DataType {
        match self {
            Self::Number(_) => DataType::Int64,
            Self::Flag(_) => DataType::Boolean,
            Self::Text(_) | Self::Made(_) => DataType::Utf8,
            Self::List(_) => DataType::new_list(DataType::Utf8, true),
        }
    }

    /// The column's value of each part.
    pub(super) fn values(&self, parts: &[&T]) -> ArrayRef {
        let parts = parts.iter().copied();
        match self {
            Self::Number(get) => Arc::new(parts.map(|p| get(p).map(signed)).collect::<Int64Array>()),
            Self::Flag(get) => Arc::new(parts.map(get).collect::<BooleanArray>()),
            Self::Text(get) => Arc::new(parts.map(get).collect::<StringArray>()),
            Self::Made(get) => Arc::new(parts.map(get).collect::<StringArray>()),
            Self::List(get) => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for part in parts {
                    let list = get(part);
                    for value in list.iter().flatten() {
                        lists.values().append_value(value);
                    }
                    lists.append(list.is_some());
                }
                Arc::new(lists.finish())
            }
        }
    }
}

pub(super) fn times<'a>(
    records: impl Iterator<Item = &'a Record>,
    get: fn(&Record) -> Option<u64>,
) -> ArrayRef {
    let times: TimestampNanosecondArray = records.map(|record| get(record).map(signed)).collect();
    Arc::new(times.with_timezone(UTC))
}

pub(super) fn numbers<'a>(
    records: impl Iterator<Item = &'a Record>,
    get: fn(&Record) -> Option<u64>,
) -> ArrayRef {
    Arc::new(
        records
            .map(|record| get(record).map(signed))
            .collect::<Int64Array>(),
    )
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

const UTC: &str = "+00:00";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields: Vec<Field> = COLUMNS
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type(), true))
        .collect();
    Arc::new(Schema::new(fields))
});
