//! The form of a file of uses, and the functions by which SQL makes and reads it.
//!
//! A row is of one object's bare name, or of none: what a statement may have touched without naming it, and what it is not known to have touched at all,
//! stands there. Lists are texts in it, which are compared and sorted as they are: `joined` puts them together so that no two lists become the
//! same text, whatever names hold. Owns that. Rows of a kind of event, for how many there were, have `kind` and nothing else.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanArray, Int8Array, ListBuilder, RecordBatch, StringArray,
            StringBuilder,
        },
        compute::cast,
        datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit},
    },
    common::exec_err,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
    parquet::{
        basic::{Compression, Encoding, ZstdLevel},
        file::properties::WriterProperties,
        schema::types::ColumnPath,
    },
    prelude::SessionContext,
};

use super::super::{
    touching::things,
    ways::{self, told_by},
    who::Asked,
};

/// The columns of a file.
pub(in crate::store) fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let repeated = |name: &str| Field::new(name, repeated(), true);
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let time = |name: &str| Field::new(name, time.clone(), true);
    Arc::new(Schema::new(vec![
        text("kind"),
        text("name"),
        repeated("principal"),
        repeated("confidence"),
        repeated("command"),
        repeated("hidden"),
        Field::new("refused", DataType::Boolean, true),
        repeated("things"),
        repeated("ways"),
        number("log_index"),
        number("seq"),
        number("executions"),
        number("left_out"),
        time("first_seen"),
        time("last_seen"),
    ]))
}

/// Rows of these columns, whose texts were made one by one.
pub(super) fn as_stored(rows: &RecordBatch) -> datafusion::common::Result<RecordBatch> {
    let schema = schema();
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| cast(column, field.data_type());
    let columns = rows.columns().iter().zip(schema.fields()).map(column);
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The type of texts that many rows have: each is there once, and is judged once.
fn repeated() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

pub(super) fn properties() -> anyhow::Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for field in schema().fields() {
        if let DataType::Int64 | DataType::Timestamp(..) = field.data_type() {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(properties.build())
}

/// Makes the functions known that files are made with.
pub(super) fn register_making(session: &SessionContext) {
    for function in [things_of(), ways_of(), told_in_part(), uses_of()] {
        session.register_udf(function);
    }
}

/// `things_of(objects, object_access)`: what `touched` gives, as one text; NULL where a statement named nothing.
fn things_of() -> ScalarUDF {
    let texts = DataType::new_list(DataType::Utf8, true);
    let arguments = vec![texts.clone(), texts];
    function("things_of", arguments, DataType::Utf8, |columns| {
        let [objects, access] = columns else {
            return exec_err!("things_of takes the objects and how each was used");
        };
        let text = |row| {
            let things = things(objects, access, row);
            (!things.is_empty()).then(|| joined(things.iter().map(String::as_str)))
        };
        Ok(Arc::new((0..objects.len()).map(text).collect::<StringArray>()))
    })
}

/// `ways_of(subject_ways)`: these, as one text.
fn ways_of() -> ScalarUDF {
    let texts = DataType::new_list(DataType::Utf8, true);
    function("ways_of", vec![texts], DataType::Utf8, |columns| {
        let [ways] = columns else {
            return exec_err!("ways_of takes the ways of an event's subjects");
        };
        let text = |ways: Option<Arc<dyn Array>>| Some(joined(ways?.as_string::<i32>().iter().flatten()));
        Ok(Arc::new(
            ways.as_list::<i32>().iter().map(text).collect::<StringArray>(),
        ))
    })
}

/// `told_in_part(subject_ways)`: whether not all of the event's values can be looked for, so that it has to be judged by itself.
fn told_in_part() -> ScalarUDF {
    let texts = DataType::new_list(DataType::Utf8, true);
    function("told_in_part", vec![texts], DataType::Boolean, |columns| {
        let [ways] = columns else {
            return exec_err!("told_in_part takes the ways of an event's subjects");
        };
        let in_part = |ways: Option<Arc<dyn Array>>| {
            Some(ways.is_some_and(|ways| ways.as_string::<i32>().iter().flatten().any(ways::is_in_part)))
        };
        Ok(Arc::new(
            ways.as_list::<i32>()
                .iter()
                .map(in_part)
                .collect::<BooleanArray>(),
        ))
    })
}

/// `uses_of(hidden, things, ways)`: a text for each bare name of a statement's objects, with the things and ways that are of it, and one without
/// a name, with all of them, where it may have touched more or named nothing.
fn uses_of() -> ScalarUDF {
    let texts = DataType::new_list(DataType::Utf8, true);
    function("uses_of", vec![DataType::Utf8; 3], texts, |columns| {
        let [hidden, things, ways] = columns else {
            return exec_err!("uses_of takes why more may have been touched, the things and the ways");
        };
        let (things, ways) = (things.as_string::<i32>(), ways.as_string::<i32>());
        let mut lists = ListBuilder::new(StringBuilder::new());
        let text_of = |texts: &StringArray, row| texts.is_valid(row).then(|| texts.value(row).to_owned());
        for row in 0..hidden.len() {
            let (things, ways) = (text_of(things, row), text_of(ways, row));
            for one in each(hidden.is_valid(row), things.as_deref(), ways.as_deref()) {
                lists.values().append_value(one);
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    })
}

fn each(hidden: bool, things: Option<&str>, ways: Option<&str>) -> Vec<String> {
    let mut names: BTreeMap<&str, [Vec<&str>; 2]> = BTreeMap::new();
    for thing in things.into_iter().flat_map(|text| text.split(ITEM)) {
        let (_, object) = thing.split_once(' ').unwrap_or(("", thing));
        let [things, _] = names.entry(bare(object)).or_default();
        things.push(thing);
    }
    for way in ways.into_iter().flat_map(|text| text.split(ITEM)) {
        let [_, ways] = names.entry(bare(ways::object_of(way))).or_default();
        ways.push(way);
    }
    let item = ITEM.to_string();
    let mut texts = Vec::with_capacity(names.len() + 1);
    if hidden || names.is_empty() {
        let (things, ways) = (things.unwrap_or_default(), ways.unwrap_or_default());
        texts.push(format!("{PART}{things}{PART}{ways}"));
    }
    let named = |(name, [things, ways]): (&str, [Vec<&str>; 2])| {
        format!("{name}{PART}{}{PART}{}", things.join(&item), ways.join(&item))
    };
    texts.extend(names.into_iter().map(named));
    texts
}

/// `names_it(things)`: whether one of them is the object that is asked for.
pub(in crate::store) fn names_it(asked: &Asked) -> ScalarUDF {
    let whole = asked.object.clone();
    function(
        "uses_name_it",
        vec![repeated()],
        DataType::Boolean,
        move |columns| {
            let [things] = columns else {
                return exec_err!("uses_name_it takes a text of things");
            };
            let bare = bare(&whole);
            let is_it = |thing: Cow<'_, str>| {
                let object = thing.split_once(' ').map(|(_, object)| object);
                object.is_some_and(|object| object == whole || object == bare)
            };
            let judge = |things: &str| apart(things).any(is_it);
            Ok(Arc::new(
                once_each(things, false, judge).collect::<BooleanArray>(),
            ))
        },
    )
}

/// `told_of(ways)`: as `told` of an event's own.
pub(in crate::store) fn told_of(asked: &Asked) -> ScalarUDF {
    let asked = asked.clone();
    function("told_of", vec![repeated()], DataType::Int8, move |columns| {
        let [ways] = columns else {
            return exec_err!("told_of takes a text of ways");
        };
        let judge = |ways: &str| {
            apart(ways)
                .map(|way| told_by(&way, &asked))
                .max()
                .unwrap_or(ways::NOTHING)
        };
        Ok(Arc::new(
            once_each(ways, ways::NOTHING, judge).collect::<Int8Array>(),
        ))
    })
}

/// Judges each text once, however many rows have it.
fn once_each<T: Copy>(
    texts: &ArrayRef,
    of_none: T,
    judge: impl Fn(&str) -> T,
) -> impl Iterator<Item = Option<T>> {
    let texts = texts.as_dictionary::<Int32Type>();
    let values = texts.values().as_string::<i32>();
    let mut judged: Vec<Option<T>> = vec![None; values.len()];
    (0..texts.len()).map(move |row| {
        let Some((key, known)) = texts.key(row).and_then(|key| Some((key, judged.get_mut(key)?))) else {
            return Some(of_none);
        };
        Some(*known.get_or_insert_with(|| judge(values.value(key))))
    })
}

fn function(
    name: &str,
    arguments: Vec<DataType>,
    returned: DataType,
    of: impl Fn(&[Arc<dyn Array>]) -> datafusion::common::Result<Arc<dyn Array>> + Send + Sync + 'static,
) -> ScalarUDF {
    create_udf(
        name,
        arguments,
        returned,
        Volatility::Immutable,
        Arc::new(move |arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            Ok(ColumnarValue::Array(of(&columns)?))
        }),
    )
}

/// An object's name as files are looked up by: without its schema, as it stands in texts.
pub(in crate::store) fn name_of(object: &str) -> String {
    escaped(bare(object)).into_owned()
}

/// A name without its schema.
fn bare(object: &str) -> &str {
    object.rsplit_once('.').map_or(object, |(_, bare)| bare)
}

/// A list as one text; another list is another text.
fn joined<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for (place, item) in items.enumerate() {
        if place > 0 {
            text.push(ITEM);
        }
        text.push_str(&escaped(item));
    }
    text
}

/// The list of a text that `joined` made; of an empty one, none.
pub(in crate::store) fn apart(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let items = (!text.is_empty()).then(|| text.split(ITEM));
    items.into_iter().flatten().map(plain)
}

fn escaped(item: &str) -> Cow<'_, str> {
    if !item.contains([ESCAPE, ITEM, PART]) {
        return Cow::Borrowed(item);
    }
    let mut text = String::with_capacity(item.len() + 2);
    for c in item.chars() {
        match c {
            ESCAPE => text.extend([ESCAPE, 'e']),
            ITEM => text.extend([ESCAPE, 'i']),
            PART => text.extend([ESCAPE, 'p']),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut item = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let next = match c {
            ESCAPE => chars.next(),
            c => Some(c),
        };
        item.extend(match (c, next) {
            (ESCAPE, Some('e')) => Some(ESCAPE),
            (ESCAPE, Some('i')) => Some(ITEM),
            (ESCAPE, Some('p')) => Some(PART),
            (_, next) => next,
        });
    }
    Cow::Owned(item)
}

/// Between items of a list, between the parts of a use, and before what stands for one of these in a name.
const ITEM: char = '\u{1e}';
pub(super) const PART: char = '\u{1d}';
const ESCAPE: char = '\u{1b}';

/// Rows of a page: what is read of a file in which an object has few.
const PAGE_ROWS: usize = 2048;

const ROW_GROUP_ROWS: usize = 256 * 1024;

/// As the events' files.
const ZSTD_LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_out_of_its_text_whatever_names_hold() {
        let hostile = ["a", "", "\u{1e}", "\u{1d}x", "\u{1b}", "\u{1b}i", "é\u{1b}\u{1e}"];
        for first in hostile {
            for second in hostile {
                let text = joined([first, second].into_iter());
                assert!(!text.contains(PART));
                assert_eq!(apart(&text).collect::<Vec<_>>(), [first, second]);
            }
        }
    }

    #[test]
    fn a_statement_has_a_use_for_each_name_and_one_without_where_more_may_have_been_touched() {
        let things = joined(["read a.x", "read b.x", "write y"].into_iter());
        let split = |text: String| text.split(PART).map(str::to_owned).collect::<Vec<_>>();
        let of = |hidden| {
            each(hidden, Some(&things), None)
                .into_iter()
                .map(split)
                .collect::<Vec<_>>()
        };
        let x = joined(["read a.x", "read b.x"].into_iter());
        assert_eq!(
            of(false),
            [
                vec!["x".to_owned(), x.clone(), String::new()],
                vec!["y".into(), "write y".into(), String::new()]
            ]
        );
        assert_eq!(of(true)[0], ["", &things, ""]);
        assert_eq!(each(false, None, None), [format!("{PART}{PART}")]);
    }
}
