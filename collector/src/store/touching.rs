//! What a statement touched, one thing a row: the way from an event's lists to rows that can be counted.
//!
//! Owns functions that SQL sees. `touched(objects, object_access)` is a list of what the statement named, each thing and
//! way once, as `read public.customers`; of a statement that named nothing, one NULL, so that `unnest` loses no statement.
//! `columns_of(thing, objects, columns)` are the names of those of `columns` that are that object's. `in_order(ts_start, log_index, seq, event_id)` is a text
//! that sorts as events do, those without a time first, and ends in the event's id, which `event_of` takes out again: the least or
//! the greatest of texts is found without keeping events. Refuses to say that a statement
//! touched nothing else: that is [`HIDDEN`]'s.

use std::{fmt::Write, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, ListBuilder, StringArray, StringBuilder},
        datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType},
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
    session.register_udf(in_order());
    session.register_udf(event_of());
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

/// `names(objects)`: whether one of them is the object that is asked for, as [`is_object`] has it.
pub(super) fn names(asked: &str) -> ScalarUDF {
    let asked = asked.to_owned();
    create_udf(
        "names",
        vec![DataType::new_list(DataType::Utf8, true)],
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(move |arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [objects] = columns.as_slice() else {
                return exec_err!("names takes a list of objects");
            };
            let is_it = |object: &&str| match asked.rsplit_once('.') {
                Some((_, bare)) => *object == asked || *object == bare,
                None => object
                    .strip_suffix(&asked)
                    .is_some_and(|schema| schema.is_empty() || schema.ends_with('.')),
            };
            let found = (0..objects.len()).map(|row| texts_of(objects, row).iter().any(is_it));
            Ok(ColumnarValue::Array(Arc::new(
                found.map(Some).collect::<BooleanArray>(),
            )))
        }),
    )
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
                let things = things(objects, access, row);
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

/// Each thing and way of a row once, in order.
pub(super) fn things(objects: &ArrayRef, access: &ArrayRef, row: usize) -> Vec<String> {
    let mut things: Vec<String> = texts_of(objects, row)
        .into_iter()
        .zip(texts_of(access, row))
        .map(|(object, access)| format!("{access} {object}"))
        .collect();
    things.sort_unstable();
    things.dedup();
    things
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
                        if let Some(name) = name_in(object, &all, column) {
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

fn in_order() -> ScalarUDF {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    create_udf(
        "in_order",
        vec![time, DataType::Int64, DataType::Int64, DataType::Utf8],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [times, entries, seqs, ids] = columns.as_slice() else {
                return exec_err!("in_order takes a time, a log entry, a number and an event's id");
            };
            let times = times.as_primitive::<TimestampNanosecondType>();
            let (entries, seqs) = (
                entries.as_primitive::<Int64Type>(),
                seqs.as_primitive::<Int64Type>(),
            );
            let ids = ids.as_string::<i32>();
            let mut texts = StringBuilder::with_capacity(ids.len(), ids.len() * (3 * DIGITS + 24));
            for row in 0..ids.len() {
                // None of them is negative; what is not there comes before what is.
                for number in [
                    times.is_valid(row).then(|| times.value(row)),
                    Some(entries.value(row)),
                    Some(seqs.value(row)),
                ] {
                    let _ = match number {
                        Some(number) => write!(texts, "{:0DIGITS$}", number.max(0)),
                        None => write!(texts, "{:DIGITS$}", ""),
                    };
                }
                texts.append_value(ids.value(row));
            }
            Ok(ColumnarValue::Array(Arc::new(texts.finish())))
        }),
    )
}

fn event_of() -> ScalarUDF {
    create_udf(
        "event_of",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(|arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [texts] = columns.as_slice() else {
                return exec_err!("event_of takes what in_order gives");
            };
            let ids = texts
                .as_string::<i32>()
                .iter()
                .map(|text| text?.get(3 * DIGITS..));
            Ok(ColumnarValue::Array(Arc::new(ids.collect::<StringArray>())))
        }),
    )
}

/// Of the largest 64-bit number.
const DIGITS: usize = 20;

/// What `column` is called in `object`, if it is one of it and of no object with a longer name: `a.b.c` is `c` of `a.b`, and not
/// `b.c` of `a`.
fn name_in<'a>(object: &str, objects: &[&str], column: &'a str) -> Option<&'a str> {
    let within = |object: &str| column.strip_prefix(object)?.strip_prefix('.');
    let name = within(object)?;
    let longer = |other: &&str| other.len() > object.len() && within(other).is_some();
    (!objects.iter().any(longer)).then_some(name)
}

/// A row's list; empty where it is NULL.
fn texts_of(lists: &ArrayRef, row: usize) -> Vec<&str> {
    let lists = lists.as_list::<i32>();
    if lists.is_null(row) {
        return Vec::new();
    }
    let texts = lists.values().as_string::<i32>();
    let places = lists.value_offsets().get(row..=row + 1);
    let (start, end) = match places {
        Some(&[start, end]) => (start as usize, end as usize),
        _ => (0, 0),
    };
    let of_row = (start..end).filter(|place| texts.is_valid(*place));
    of_row.map(|place| texts.value(place)).collect()
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::col;

    use super::*;

    #[tokio::test]
    async fn events_are_in_order_as_texts_are() {
        let session = SessionContext::new();
        register(&session);
        let sql = "SELECT event_of(max(o)) AS last, event_of(min(o)) AS first FROM (SELECT in_order(arrow_cast(ts, 'Timestamp(Nanosecond, Some(\"+00:00\"))'), \
            arrow_cast(e, 'Int64'), arrow_cast(s, 'Int64'), id) AS o FROM (VALUES (9, 3, 1, 'a-1'), (10, 2, 10, 'b-10'), (10, 2, 9, 'b-9'), \
            (NULL, 99, 99, 'c-99')) AS t (ts, e, s, id))";
        let found = session.sql(sql).await.unwrap().collect().await.unwrap();
        let text = |n: usize| found[0].column(n).as_string::<i32>().value(0).to_owned();
        assert_eq!((text(0), text(1)), ("b-10".to_owned(), "c-99".to_owned()));
    }

    #[tokio::test]
    async fn a_list_names_an_object_where_one_of_it_is_the_object() {
        for asked in ["public.sales", "sales", "a.sales"] {
            let session = SessionContext::new();
            session.register_udf(names(asked));
            for object in [
                "sales",
                "public.sales",
                "wholesales",
                "a.sales",
                "sales.a",
                "public.a",
            ] {
                let sql =
                    format!("SELECT names(make_array('other', o)), o FROM (VALUES ('{object}')) AS t (o)");
                let rows = session.sql(&sql).await.unwrap();
                let named = rows.clone().collect().await.unwrap()[0]
                    .column(0)
                    .as_boolean()
                    .value(0);
                let is_it = rows.filter(is_object(col("o"), asked)).unwrap();
                let is_it = is_it.count().await.unwrap() == 1;
                assert_eq!(named, is_it, "{object} is {asked}");
            }
        }
    }

    #[test]
    fn a_column_is_of_the_longest_object_that_its_name_begins_with() {
        let objects = ["sales", "sales.orders", "public.sales"];
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
