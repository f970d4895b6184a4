//! Questions with a form of their own, and one way to ask each: of a store, or of a collector over HTTP.
//!
//! Owns what they share: where the API has them, the time that they are about, whom they are about. Text from outside
//! stands in expressions, never in SQL.

use std::{ops::Range, time::Duration};

use datafusion::{
    common::Result,
    functions::expr_fn::coalesce,
    logical_expr::Expr,
    prelude::{DataFrame, col, lit},
    scalar::ScalarValue,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Store, seal::HOUR_NS};

/// A question, and its answer.
pub trait Question: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Where the API has it: it is posted there as JSON.
    const PATH: &'static str;

    /// What it is called where it is recorded that it was asked.
    const KIND: &'static str;

    /// What comes back, as JSON.
    type Answer: Answer;

    /// Longest that a collector works on it. A folder is read for as long as whoever asks waits.
    const LONGEST: Duration = Duration::from_secs(30);

    /// What was asked, for that record: without values and tokens, which would outlive the erasure of what they stand for.
    fn words(&self) -> String;

    /// Answers it.
    ///
    /// # Errors
    ///
    /// With what is wrong with the question.
    fn answer(&self, store: &Store) -> impl Future<Output = anyhow::Result<Self::Answer>> + Send;

    /// The same within so long; what would take longer may leave out a part, and says so.
    ///
    /// # Errors
    ///
    /// As [`Question::answer`].
    fn answer_within(
        &self,
        store: &Store,
        _longest: Duration,
    ) -> impl Future<Output = anyhow::Result<Self::Answer>> + Send {
        self.answer(store)
    }
}

/// What a question is answered with.
pub trait Answer: Serialize + DeserializeOwned + Send + 'static {
    /// How many rows it shows, for the record of who was shown what.
    fn rows(&self) -> usize;
}

/// From then on, and up to then; Unix nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Span {
    /// The first moment.
    #[serde(default)]
    pub since_ns: Option<i64>,
    /// The first moment behind it.
    #[serde(default)]
    pub until_ns: Option<i64>,
}

impl Span {
    /// What began in it.
    pub(super) fn of(self, rows: DataFrame) -> Result<DataFrame> {
        let rows = match self.since_ns {
            Some(ns) => rows.filter(col("ts_start").gt_eq(time(ns)))?,
            None => rows,
        };
        match self.until_ns {
            Some(ns) => rows.filter(col("ts_start").lt(time(ns))),
            None => Ok(rows),
        }
    }

    /// Whether all of these hours since the epoch are in it.
    pub(super) fn has_all_of(self, hours: &Range<i64>) -> bool {
        self.since_ns.is_none_or(|since| since <= hours.start * HOUR_NS)
            && self.until_ns.is_none_or(|until| hours.end * HOUR_NS <= until)
    }

    /// Whether a moment of these hours is.
    pub(super) fn has_some_of(self, hours: &Range<i64>) -> bool {
        self.since_ns.is_none_or(|since| since < hours.end * HOUR_NS)
            && self.until_ns.is_none_or(|until| hours.start * HOUR_NS < until)
    }
}

/// A question's parameters, as JSON.
pub(crate) fn in_words(question: &impl Serialize) -> String {
    serde_json::to_string(question).unwrap_or_default()
}

/// A moment, from Unix nanoseconds.
pub(super) fn time(ns: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(ns), Some("+00:00".into())))
}

/// Rows of this principal: the whole of it, or with `*` for any text and `?` for any character. Whoever has no name is `unknown`.
pub(super) fn principal_is(pattern: &str) -> Expr {
    let principal = coalesce(vec![col("principal"), lit(UNKNOWN)]);
    if pattern == UNKNOWN {
        return principal.eq(lit(UNKNOWN));
    }
    if !pattern.contains(['*', '?']) {
        // The column alone: files that do not have the principal are passed over.
        return col("principal").eq(lit(pattern));
    }
    let mut like = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\\' => like.extend(['\\', c]),
            c => like.push(c),
        }
    }
    principal.like(lit(like))
}

/// Whoever has no name.
pub(super) const UNKNOWN: &str = "unknown";
