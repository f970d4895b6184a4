//! What is expected, in SQL: the columns `expected` and `unexpected_because`, and the table `inventory`.
//!
//! Owns the way from the inventory that is in effect when a question is asked to its columns. Rows are judged one distinct
//! combination at a time, because millions of rows share few. Refuses to store any of it: a corrected file
//! changes the marks of what was recorded long ago.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Date32Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
        },
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
    },
    common::{Result, exec_err},
    logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, create_udf},
    prelude::{DataFrame, col, lit},
    scalar::ScalarValue,
};
use inventory::Entry;
use jiff::civil::{Date, date};

use crate::expectations::{Asked, Judge, Verdict, day};

/// `events`, with the marks in front of the column `event`. They are NULL where there is no inventory.
pub(super) fn marked(events: DataFrame, judge: Option<&Arc<Judge>>) -> Result<DataFrame> {
    let mut marks = Some(COLUMNS.map(|(name, of)| mark(name, of, judge).alias(name)));
    let mut shown = Vec::new();
    for field in events.schema().fields() {
        if field.name() == "event" {
            shown.extend(marks.take().into_iter().flatten());
        }
        shown.push(col(field.name()));
    }
    shown.extend(marks.into_iter().flatten());
    events.select(shown)
}

/// What a column says of a verdict.
type Of = fn(&Verdict) -> Option<&str>;

const COLUMNS: [(&str, Of); 2] = [
    ("expected", |verdict| Some(verdict.mark)),
    ("unexpected_because", |verdict| verdict.because.as_deref()),
];

/// What is judged; whose session it is decides whether anything is.
const JUDGED: [&str; 7] = [
    "session_id",
    "client_session",
    "principal",
    "login_role",
    "database",
    "client_addr",
    "ts_start",
];

fn mark(name: &str, of: Of, judge: Option<&Arc<Judge>>) -> Expr {
    match judge {
        Some(judge) => function(name, of, Arc::clone(judge)).call(JUDGED.map(col).to_vec()),
        None => lit(ScalarValue::Utf8(None)),
    }
}

fn function(name: &str, of: Of, judge: Arc<Judge>) -> ScalarUDF {
    let mut types = vec![DataType::Utf8; JUDGED.len() - 1];
    types.push(DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())));
    create_udf(
        name,
        types,
        DataType::Utf8,
        // One question has one inventory.
        Volatility::Immutable,
        Arc::new(move |arguments| judged(&judge, of, arguments)),
    )
}

fn judged(judge: &Judge, of: Of, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let [sessions, clients, principals, roles, databases, addresses, times] = arguments.as_slice() else {
        return exec_err!("a mark takes {} columns", JUDGED.len());
    };
    let [principals, roles, databases, addresses] =
        [principals, roles, databases, addresses].map(AsArray::as_string::<i32>);
    let times = times.as_primitive::<TimestampNanosecondType>();
    let mut known: HashMap<Asked<'_>, Arc<Verdict>> = HashMap::new();
    let mut marks = StringBuilder::new();
    for row in 0..sessions.len() {
        if sessions.is_null(row) {
            marks.append_null();
            continue;
        }
        let asked = Asked {
            principal: text(principals, row),
            role: text(roles, row),
            database: text(databases, row),
            // Of a pooled statement that is the pooler's.
            address: text(addresses, row).filter(|_| clients.is_null(row)),
            day: times.is_valid(row).then(|| day(times.value(row))),
        };
        let verdict = known.entry(asked).or_insert_with(|| judge.verdict(&asked));
        marks.append_option(of(verdict));
    }
    Ok(ColumnarValue::Array(Arc::new(marks.finish())))
}

fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// The table `inventory`: a row for each entry that is in effect; none where there is no inventory.
pub(super) fn entries(judge: Option<&Arc<Judge>>) -> Result<RecordBatch> {
    let entries = judge.map_or(&[][..], |judge| judge.inventory().entries());
    let texts = |of: fn(&Entry) -> Option<&str>| -> ArrayRef {
        Arc::new(entries.iter().map(of).collect::<StringArray>())
    };
    let days = |of: fn(&Entry) -> Option<Date>| -> ArrayRef {
        Arc::new(
            entries
                .iter()
                .map(|entry| of(entry).map(since_1970))
                .collect::<Date32Array>(),
        )
    };
    let lists = |of: fn(&Entry) -> Option<Vec<String>>| -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for entry in entries {
            let list = of(entry);
            for value in list.iter().flatten() {
                lists.values().append_value(value);
            }
            lists.append(list.is_some());
        }
        Arc::new(lists.finish())
    };
    let columns = vec![
        texts(|entry| Some(&entry.principal)),
        texts(|entry| Some(&entry.owner)),
        texts(|entry| entry.purpose.as_deref()),
        texts(|entry| entry.approved_by.as_deref()),
        days(|entry| entry.approved_on),
        lists(|entry| entry.roles.clone()),
        lists(|entry| entry.databases.clone()),
        lists(|entry| {
            let networks = entry.from.as_ref()?.iter();
            Some(networks.map(ToString::to_string).collect())
        }),
        days(|entry| entry.credential.as_ref()?.rotated),
        days(|entry| entry.credential.as_ref()?.expires),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&ENTRIES), columns)?)
}

static ENTRIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    let (text, day) = (DataType::Utf8, DataType::Date32);
    let list = DataType::new_list(DataType::Utf8, true);
    let fields = [
        ("id", &text),
        ("owner", &text),
        ("purpose", &text),
        ("approved_by", &text),
        ("approved_on", &day),
        ("roles", &list),
        ("databases", &list),
        ("networks", &list),
        ("credential_rotated", &day),
        ("credential_expires", &day),
    ];
    Arc::new(Schema::new(
        fields
            .map(|(name, of)| Field::new(name, of.clone(), true))
            .to_vec(),
    ))
});

/// Days from 1970-01-01, as Arrow counts them.
fn since_1970(on: Date) -> i32 {
    // The crate's range of dates, years -9999 to 9999, is some seven million days.
    on.since(date(1970, 1, 1)).map_or(0, |span| span.get_days())
}
