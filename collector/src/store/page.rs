//! A page: the bounded answer to one question, as JSON values.
//!
//! Owns the limits of an answer and the way from Arrow to JSON. Refuses to be endless: what does not fit is cut off
//! and `truncated` says so.

use anyhow::{Context, anyhow, bail};
use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type},
        util::display::array_value_to_string,
    },
    error::DataFusionError,
    prelude::DataFrame,
};
use futures::StreamExt;
use serde_json::Value;

use super::{
    Store,
    events::{self, Shown},
    question::{self, Question, Span},
    session,
    touching::PRIVILEGED,
};

/// A question in SQL.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// One SELECT, WITH, EXPLAIN, SHOW or DESCRIBE.
    pub sql: String,
}

impl Question for Sql {
    const PATH: &'static str = "/api/v1/query";
    const KIND: &'static str = "query";
    type Answer = Page;

    fn words(&self) -> String {
        self.sql.clone()
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Page> {
        store.query(&self.sql, MAX_ROWS).await
    }
}

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Page {
    /// The columns' names.
    pub columns: Vec<String>,
    /// Values in the columns' order. Times are RFC 3339 in UTC.
    pub rows: Vec<Vec<Value>>,
    /// Whether the answer has more rows than are here.
    pub truncated: bool,
}

impl question::Answer for Page {
    fn rows(&self) -> usize {
        self.rows.len()
    }
}

impl Store {
    /// Answers one read-only SQL statement with at most `max_rows` rows.
    ///
    /// # Errors
    ///
    /// With what is wrong with the statement.
    pub async fn query(&self, sql: &str, max_rows: usize) -> anyhow::Result<Page> {
        if sql.len() > MAX_SQL_BYTES {
            bail!("the statement is longer than {MAX_SQL_BYTES} bytes");
        }
        let session = self.session().await.context("cannot open the store")?;
        let plan = session::plan(&session, sql).await.map_err(|error| {
            anyhow!(
                "not answered: {} (answered is one SELECT, WITH, EXPLAIN, SHOW or DESCRIBE; SHOW TABLES and SHOW \
                 COLUMNS FROM events say what there is)",
                in_one_line(&error)
            )
        })?;
        self.collect(plan, max_rows).await
    }

    /// The answers to questions of this program about one moment of the store: each sees the events of `span` as the table `chosen`, with
    /// what takes privileges in a column `privileged`, and their subjects as `chosen_subjects`.
    pub(crate) async fn pages<const N: usize>(
        &self,
        span: Span,
        questions: &[&str; N],
    ) -> anyhow::Result<[Page; N]> {
        let session = self.session().await.context("cannot open the store")?;
        let chosen = span.of(session.table("events").await?)?;
        session.register_table("chosen_events", chosen.into_view())?;
        let chosen = format!("SELECT *, {PRIVILEGED} AS privileged FROM chosen_events");
        session.register_table("chosen", session.sql(&chosen).await?.into_view())?;
        let subjects = span.of(session.table("subjects").await?)?;
        session.register_table("chosen_subjects", subjects.into_view())?;
        let mut pages = std::array::from_fn(|_| Page::default());
        for (page, sql) in pages.iter_mut().zip(questions) {
            *page = self.collect(session.sql(sql).await?, MAX_ROWS).await?;
        }
        Ok(pages)
    }

    /// Runs a plan of this program or of [`Store::query`].
    pub(super) async fn collect(&self, plan: DataFrame, max_rows: usize) -> anyhow::Result<Page> {
        collect(plan, max_rows, self.shown()).await
    }
}

async fn collect(plan: DataFrame, max_rows: usize, mut shown: Shown) -> anyhow::Result<Page> {
    let mut page = Page {
        columns: plan.schema().fields().iter().map(|f| f.name().clone()).collect(),
        ..Page::default()
    };
    let failed = |error| anyhow!("not answered: {}", in_one_line(&error));
    let mut stream = plan.execute_stream().await.map_err(failed)?;
    let mut bytes = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        // Where it shows events, it reads files: not on the threads that serve everybody.
        let room = Room {
            rows: max_rows - page.rows.len(),
            bytes: MAX_PAGE_BYTES.saturating_sub(bytes),
        };
        let part;
        (part, shown) = tokio::task::spawn_blocking(move || (rows(&batch, room, &mut shown), shown)).await?;
        let part = part?;
        page.rows.extend(part.rows);
        bytes += part.bytes;
        if part.truncated {
            page.truncated = true;
            break;
        }
    }
    Ok(page)
}

/// What may still be added to a page.
struct Room {
    rows: usize,
    bytes: usize,
}

/// A part of a page.
struct Part {
    rows: Vec<Vec<Value>>,
    bytes: usize,
    truncated: bool,
}

fn rows(batch: &RecordBatch, room: Room, shown: &mut Shown) -> anyhow::Result<Part> {
    let mut part = Part {
        rows: Vec::new(),
        bytes: 0,
        truncated: false,
    };
    for row in 0..batch.num_rows() {
        if part.rows.len() >= room.rows || part.bytes >= room.bytes {
            part.truncated = true;
            break;
        }
        let values = values(batch, row, shown)?;
        part.bytes += values.iter().map(weight).sum::<usize>();
        part.rows.push(values);
    }
    Ok(part)
}

/// What an engine's error comes from, without the lists that some have behind their first line.
pub(crate) fn in_one_line(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    text.lines().next().unwrap_or_default().trim_end().to_owned()
}

pub(crate) fn values(batch: &RecordBatch, row: usize, shown: &mut Shown) -> anyhow::Result<Vec<Value>> {
    batch
        .columns()
        .iter()
        .map(|column| value(column.as_ref(), row, shown))
        .collect()
}

fn value(array: &dyn Array, row: usize, shown: &mut Shown) -> anyhow::Result<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::List(_) => {
            let list = array.as_list::<i32>().value(row);
            (0..list.len())
                .map(|item| value(list.as_ref(), item, shown))
                .collect::<anyhow::Result<Vec<_>>>()?
                .into()
        }
        name if *name == events::NAME => shown.json(array.as_fixed_size_binary().value(row))?.into(),
        _ => array_value_to_string(array, row)?.into(),
    })
}

/// About as many bytes as the value takes as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(weight).sum::<usize>() + 3,
        _ => 8,
    }
}

/// Longest statement: far beyond what a person writes, far below what would trouble the parser.
pub const MAX_SQL_BYTES: usize = 64 * 1024;

/// Rows of an answer over HTTP: what a person can use; more is an export.
pub const MAX_ROWS: usize = 10_000;

/// Size of an answer; statements can be long, and the whole page is held in memory.
const MAX_PAGE_BYTES: usize = 32 * 1024 * 1024;
