//! What an event's own row says of its subjects: of which object and column, by which rule and key, and whether that is all.
//!
//! Owns that form, and the function that judges a row by it for one question. So the statements that cannot be excluded are counted in
//! one pass over the events; only filters, of which there are few, are looked for in the table `subjects`. Refuses to know any
//! token.

use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray, Int8Array},
        datatypes::{DataType, Int64Type},
    },
    common::{HashSet, exec_err},
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use proto::v1;

use super::{
    subjects::known_tokens,
    who::{Asked, Place},
};

/// The column of `events`.
pub(super) const NAME: &str = "subject_ways";

/// What is told of an asked column's values by an event, from nothing to all.
pub(super) const NOTHING: i8 = 0;
/// Something, under another key or by another rule.
pub(super) const ELSEWHERE: i8 = 1;
/// Some of its values can be looked for.
pub(super) const SOME: i8 = 2;
/// All that it touched.
pub(super) const ALL: i8 = 3;

/// Between the parts of a way: names may have any other character.
const BETWEEN: char = '\u{1f}';

/// Of each subject, how it is told; each way once, in order.
pub(super) fn of(subjects: &[v1::Subject]) -> Box<[CompactString]> {
    let mut ways: Vec<CompactString> = subjects.iter().map(way).collect();
    ways.sort_unstable();
    ways.dedup();
    ways.into()
}

fn way(subject: &v1::Subject) -> CompactString {
    let (tokens, whole) = known_tokens(subject);
    let values = if !subject.filter.is_empty() {
        "filter"
    } else if tokens.is_empty() {
        "none"
    } else {
        "tokens"
    };
    let all = if subject.complete && whole { "all" } else { "some" };
    let plain = |name: &str| name.replace(BETWEEN, "?");
    let (object, column) = (plain(&subject.object), plain(&subject.column));
    let (family, key) = (plain(&subject.family), plain(&subject.key));
    format_compact!("{object}{BETWEEN}{column}{BETWEEN}{family}{BETWEEN}{key}{BETWEEN}{values}{BETWEEN}{all}")
}

/// `told(subject_ways)`: one of the numbers above. What a filter denies is not in it.
pub(super) fn told(asked: &Asked) -> ScalarUDF {
    let asked = asked.clone();
    create_udf(
        "told",
        vec![DataType::new_list(DataType::Utf8, true)],
        DataType::Int8,
        Volatility::Immutable,
        Arc::new(move |arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [ways] = columns.as_slice() else {
                return exec_err!("told takes the ways of an event's subjects");
            };
            let ways = ways.as_list::<i32>();
            let texts = ways.values().as_string::<i32>();
            let of_row = |row: usize| {
                if ways.is_null(row) {
                    return NOTHING;
                }
                let start = ways.value_offsets().get(row).copied().unwrap_or_default() as usize;
                let texts = (start..start + ways.value_length(row) as usize).map(|n| texts.value(n));
                texts.map(|way| told_by(way, &asked)).max().unwrap_or(NOTHING)
            };
            let told: Int8Array = (0..ways.len()).map(|row| Some(of_row(row))).collect();
            Ok(ColumnarValue::Array(Arc::new(told)))
        }),
    )
}

/// What one way tells.
pub(super) fn told_by(way: &str, asked: &Asked) -> i8 {
    let mut parts = way.split(BETWEEN);
    let mut next = || parts.next().unwrap_or_default();
    let (object, column, family, key, values, all) = (next(), next(), next(), next(), next(), next());
    if object != asked.object || column != asked.column {
        return NOTHING;
    }
    let searchable = asked
        .tokens
        .iter()
        .any(|sought| sought.family == family && sought.key == key);
    match (values, all) {
        ("none", "all") => ALL,
        ("tokens", "all") if searchable => ALL,
        _ if searchable => SOME,
        _ => ELSEWHERE,
    }
}

/// The object that a way is of.
pub(super) fn object_of(way: &str) -> &str {
    way.split(BETWEEN).next().unwrap_or_default()
}

/// Whether a way leaves open which values were touched, so that only the event itself can be judged.
pub(super) fn is_in_part(way: &str) -> bool {
    let mut parts = way.rsplit(BETWEEN);
    let (all, values) = (parts.next(), parts.next());
    all != Some("all") || values == Some("filter")
}

/// `is_one_of(log_index, seq)`: whether it is one of these events.
pub(super) fn is_one_of(events: HashSet<Place>) -> ScalarUDF {
    create_udf(
        "is_one_of",
        vec![DataType::Int64, DataType::Int64],
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(move |arguments: &[ColumnarValue]| {
            let columns = ColumnarValue::values_to_arrays(arguments)?;
            let [entries, seqs] = columns.as_slice() else {
                return exec_err!("is_one_of takes a log entry and a number");
            };
            let places = entries
                .as_primitive::<Int64Type>()
                .iter()
                .zip(seqs.as_primitive::<Int64Type>());
            let settled = places.map(|(entry, seq)| Some(events.contains(&(entry?, seq?))));
            Ok(ColumnarValue::Array(Arc::new(settled.collect::<BooleanArray>())))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{question::Span, who::Sought};

    fn asked() -> Asked {
        Asked {
            object: "public.customers".into(),
            column: "id".into(),
            tokens: vec![Sought {
                key: "k1".into(),
                family: "integer".into(),
                token: "00".repeat(16),
            }],
            span: Span::default(),
        }
    }

    fn subject(key: &str, tokens: usize, complete: bool) -> v1::Subject {
        v1::Subject {
            object: "public.customers".into(),
            column: "id".into(),
            family: "integer".into(),
            key: key.into(),
            tokens: (0..tokens).map(|n| vec![n as u8; 16]).collect(),
            complete,
            ..Default::default()
        }
    }

    #[test]
    fn what_is_told_is_all_only_where_it_can_be_looked_for_and_is_whole() {
        let told = |subject: &v1::Subject| told_by(&way(subject), &asked());
        assert_eq!(told(&subject("k1", 2, true)), ALL);
        assert_eq!(told(&subject("k1", 0, true)), ALL);
        assert_eq!(told(&subject("k1", 2, false)), SOME);
        assert_eq!(told(&subject("k2", 2, true)), ELSEWHERE);
        let short = v1::Subject {
            tokens: vec![vec![1; 3]],
            ..subject("k1", 0, true)
        };
        assert_eq!(told(&short), SOME, "a token that cannot be looked up");
        let filtered = v1::Subject {
            filter: vec![1],
            ..subject("k1", 0, true)
        };
        assert_eq!(
            told(&filtered),
            SOME,
            "what the filter denies is another question"
        );
        let other = v1::Subject {
            object: "public.orders".into(),
            ..subject("k1", 2, true)
        };
        assert_eq!(told(&other), NOTHING);
    }

    #[test]
    fn a_name_cannot_pass_for_the_end_of_a_way() {
        let hostile = v1::Subject {
            column: format!("id{BETWEEN}integer{BETWEEN}k1{BETWEEN}tokens{BETWEEN}all"),
            ..subject("k2", 1, true)
        };
        assert_eq!(told_by(&way(&hostile), &asked()), NOTHING);
    }
}
