//! What a statement touched, one thing a row: the way from an event's lists to rows that can be counted.
//!
//! Owns two functions that SQL sees. `touched(objects, object_access)` is a list of what the statement named, each thing and
//! way once, as `read public.customers`; of a statement that named nothing, one NULL, so that `unnest` loses no statement.
//! `columns_of(thing, objects, columns)` are the names of those of `columns` that are that object's. Refuses to say that a statement
//! touched nothing else: that is [`HIDDEN`]'s.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, ListBuilder, StringBuilder},
        datatypes::DataType,
    },
    common::exec_err,
    functions::expr_fn::ends_with,
    logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, create_udf},
    prelude::{SessionContext, lit},
};

/// Why a statement may have touched what it does not name, as SQL over the columns of `events`; NULL where it did not.
pub(super) const HIDDEN: &str = "CASE WHEN class = 'FUNCTION' OR protocol IN ('function_call', 'replication') THEN 'it ran what is not seen' \
     WHEN text_known IS NOT TRUE THEN 'its text is not known' \
     WHEN parsed IS NOT TRUE AND (class IS NULL OR class IN ('READ', 'WRITE')) THEN 'its text is not understood' END";

/// Whether a statement takes privileges, or reaches beyond the data, as SQL over the columns of `events`.
pub(super) const PRIVILEGED: &str = "coalesce(class IN ('ROLE', 'DDL') OR command IN ('ALTER SYSTEM', 'SET ROLE', 'SET SESSION AUTHORIZATION', \
     'LOAD', 'CHECKPOINT', 'DO'), false)";

/// Makes the functions known.
pub(super) fn register(session: &SessionContext) {
    session.register_udf(touched());
    session.register_udf(columns_of());
}

/// Whether `object`, a column, is the object that is asked for: under its whole name, without its schema, or, where no schema is
/// asked for, in any.
pub(super) fn is_object(object: Expr, asked: &str) -> Expr {
    let named = |name: &str| object.clone().eq(lit(name));
    match asked.rsplit_once('.') {
        Some((_, bare)) => named(asked).or(named(bare)),
        None => named(asked).or(ends_with(object.clone(), lit(format!(".{asked}")))),
    }
}

fn touched() -> ScalarUDF {
    let texts = DataType::new_list(DataType::Utf8, true);
    create_udf(
        "touched",
        vec![texts.clone(), texts.clone()],
        texts,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [objects, access] = columns.as_slice() else {
                return exec_err!("touched takes the objects and how each was used");
            };
            let mut lists = ListBuilder::new(StringBuilder::new());
            for row in 0..objects.len() {
                let mut things: Vec<String> = texts_of(objects, row)
                    .into_iter()
                    .zip(texts_of(access, row))
                    .map(|(object, access)| format!("{access} {object}"))
                    .collect();
                things.sort_unstable();
                things.dedup();
                if things.is_empty() {
                    lists.values().append_null();
                }
                for thing in things {
                    lists.values().append_value(thing);
                }
                lists.append(true);
            }
            Ok(ColumnarValue::Array(Arc::new(lists.finish())))
        }),
    )
}

fn columns_of() -> ScalarUDF {
    let texts = DataType::new_list(DataType::Utf8, true);
    create_udf(
        "columns_of",
        vec![DataType::Utf8, texts.clone(), texts.clone()],
        texts,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [things, objects, columns] = columns.as_slice() else {
                return exec_err!("columns_of takes a thing, the objects and the columns");
            };
            let things = things.as_string::<i32>();
            let mut lists = ListBuilder::new(StringBuilder::new());
            for row in 0..things.len() {
                let thing = things.is_valid(row).then(|| things.value(row));
                if let Some((_, object)) = thing.and_then(|thing| thing.split_once(' ')) {
                    let all = texts_of(objects, row);
                    for column in texts_of(columns, row) {
                        if let Some(name) = name_in(object, &all, &column) {
                            lists.values().append_value(name);
                        }
                    }
                }
                lists.append(true);
            }
            Ok(ColumnarValue::Array(Arc::new(lists.finish())))
        }),
    )
}

/// What `column` is called in `object`, if it is one of it and of no object with a longer name: `a.b.c` is `c` of `a.b`, and not
/// `b.c` of `a`.
fn name_in<'a>(object: &str, objects: &[String], column: &'a str) -> Option<&'a str> {
    let within = |object: &str| column.strip_prefix(object)?.strip_prefix('.');
    let name = within(object)?;
    let longer = |other: &String| other.len() > object.len() && within(other).is_some();
    (!objects.iter().any(longer)).then_some(name)
}

/// A row's list; empty where it is NULL.
fn texts_of(lists: &ArrayRef, row: usize) -> Vec<String> {
    let lists = lists.as_list::<i32>();
    if lists.is_null(row) {
        return Vec::new();
    }
    let list = lists.value(row);
    let texts = list.as_string::<i32>().iter().flatten();
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_of_the_longest_object_that_its_name_begins_with() {
        let objects = ["sales", "sales.orders", "public.sales"].map(str::to_owned);
        for (object, column, name) in [
            ("sales.orders", "sales.orders.id", Some("id")),
            ("sales", "sales.orders.id", None),
            ("sales", "sales.id", Some("id")),
            ("public.sales", "public.sales.a.b", Some("a.b")),
            ("public.sales", "public.salesman.id", None),
        ] {
            assert_eq!(name_in(object, &objects, column), name, "{column} of {object}");
        }
    }
}
