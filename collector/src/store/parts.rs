//! Parties and templates in files: each whole, in one column, where Parquet keeps what is equal once.
//!
//! To look up some thirty texts of each row in a dictionary of its own, column by column, was most of what a seal cost.
//! Owns what a file has instead, and the way back to the columns that SQL sees. Refuses to know what the columns mean:
//! that is `columns`', for files and tail alike.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array},
        compute::{cast, take},
        datatypes::{DataType, Field, Int32Type, Schema, SchemaRef},
    },
    common::{DataFusionError, Result, exec_err},
    logical_expr::{ColumnarValue, Expr, Volatility, create_udf},
    prelude::col,
};
use prost::Message;
use proto::v1;

use super::columns::{COLUMNS, Column, NARROWING, SOUGHT};

/// The columns that hold whole parts, behind all others.
pub(super) const PARTY: &str = "party";
pub(super) const TEMPLATE: &str = "template";

/// What a file has.
pub(super) fn file_schema() -> SchemaRef {
    SCHEMA.clone()
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let own = COLUMNS
        .iter()
        .filter(|(name, column)| whole(name, column).is_none())
        .map(|(name, column)| Field::new(*name, column.data_type(), true));
    let parts = [PARTY, TEMPLATE].map(|name| Field::new(name, part_type(), true));
    Arc::new(Schema::new(own.chain(parts).collect::<Vec<_>>()))
});

/// The column of a file that this one is read out of; `None` where the file has it as it is.
pub(super) fn whole(name: &str, column: &Column) -> Option<&'static str> {
    let own = SOUGHT.contains(&name) || NARROWING.contains(&name);
    match column {
        Column::Party(_) if !own => Some(PARTY),
        Column::Template(_) if !own => Some(TEMPLATE),
        _ => None,
    }
}

/// Parts as a file holds them.
pub(super) fn encoded<T: Message>(parts: &[&T]) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(
        parts.iter().map(|part| part.encode_to_vec()),
    ))
}

/// All columns, of the rows of a file.
pub(super) fn columns_of_files() -> Vec<Expr> {
    let column = |(n, (name, column)): (usize, &(&'static str, Column))| match whole(name, column) {
        None => col(*name),
        Some(part) => {
            let read = move |arguments: &[ColumnarValue]| read(n, arguments);
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

/// Column `n` of these parts.
fn read(n: usize, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let ([parts], Some((_, column))) = (arguments.as_slice(), COLUMNS.get(n)) else {
        return exec_err!("a part's column takes the part");
    };
    let parts = cast(parts, &part_type())?;
    let parts = parts.as_dictionary::<Int32Type>();
    let (used, keys) = used(parts.keys(), parts.values().len());
    let encoded = parts.values().as_binary::<i32>();
    let values = match column {
        Column::Party(get) => get.values(&decoded::<v1::Party>(encoded, &used)?.iter().collect::<Vec<_>>()),
        Column::Template(get) => {
            get.values(&decoded::<v1::Query>(encoded, &used)?.iter().collect::<Vec<_>>())
        }
        _ => return exec_err!("a column of no part"),
    };
    Ok(ColumnarValue::Array(take(&values, &keys, None)?))
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

fn decoded<T: Message + Default>(encoded: &BinaryArray, used: &[usize]) -> Result<Vec<T>> {
    let decode = |value: &usize| {
        T::decode(encoded.value(*value)).map_err(|error| DataFusionError::External(Box::new(error)))
    };
    used.iter().map(decode).collect()
}

/// The type of a part: what is equal is there once.
fn part_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Binary))
}
