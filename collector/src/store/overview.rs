//! The questions that the page asks again and again: key figures, principals, newest events.
//!
//! Owns their SQL. Refuses to put text from outside into it: filters are expressions, times are numbers that were
//! parsed before.

use anyhow::Context;
use datafusion::{
    functions::expr_fn::contains,
    prelude::{DataFrame, SessionContext, col, lit},
};
use serde_json::{Map, Value};

use super::{
    Store,
    page::Page,
    question::time,
    seal::{HOUR_NS, hours_in},
    session,
};
use crate::live::Filter;

impl Store {
    /// Key figures of the queries and gaps since `since_ns` (Unix nanoseconds), as one JSON object.
    pub async fn overview(&self, since_ns: i64) -> anyhow::Result<Map<String, Value>> {
        let sql = overview_sql(since_ns);
        self.ask(async |session| session.sql(&sql).await, 1)
            .await
            .map(first_row)
    }

    /// When the first event of the record began, RFC 3339.
    pub async fn begins(&self) -> anyhow::Result<Option<String>> {
        let first = self
            .snapshot()
            .files
            .iter()
            .filter_map(|file| Some(hours_in(file)?.end))
            .min();
        // Whatever else there is, it cannot be later than all of this hour.
        let within = first.map_or("true".to_owned(), |end| {
            let end = end.saturating_mul(HOUR_NS);
            format!("ts_start < to_timestamp_nanos({end})")
        });
        let sql = format!("SELECT min(ts_start) FROM events WHERE {within}");
        let page = self.ask(async |session| session.sql(&sql).await, 1).await?;
        let begins = page.rows.first().and_then(|row| row.first()?.as_str());
        Ok(begins.map(str::to_owned))
    }

    /// What each principal did since `since_ns`, the busiest first.
    pub async fn principals(&self, since_ns: i64) -> anyhow::Result<Page> {
        let source = format!("(SELECT * FROM queries WHERE {})", since(since_ns));
        let sql = format!(
            "{} ORDER BY statements DESC, principal LIMIT {MAX_PRINCIPALS}",
            session::principals(&source)
        );
        self.ask(async |session| session.sql(&sql).await, MAX_PRINCIPALS)
            .await
    }

    /// The newest events that `filter` wants since `since_ns`, newest first, in their JSON form.
    pub async fn newest(
        &self,
        filter: &Filter,
        since_ns: Option<i64>,
        limit: usize,
    ) -> anyhow::Result<Vec<Value>> {
        let hours = self
            .snapshot()
            .files
            .iter()
            .filter_map(|file| Some(hours_in(file)?.start))
            .max();
        // From the end on backwards, until there are enough.
        let back = |hours_back: &i64| {
            let ns = hours?.saturating_sub(*hours_back).saturating_mul(HOUR_NS);
            (since_ns.is_none_or(|since| since < ns)).then_some(Some(ns))
        };
        let mut tries: Vec<Option<i64>> = BACKWARDS.iter().filter_map(back).collect();
        tries.push(since_ns);
        let mut page = Page::default();
        for since_ns in tries {
            let ask = async |session: &SessionContext| newest(session, filter, since_ns, limit).await;
            page = self.ask(ask, limit).await?;
            if page.rows.len() >= limit {
                break;
            }
        }
        page.rows
            .into_iter()
            .flatten()
            .filter_map(|event| event.as_str().map(serde_json::from_str))
            .collect::<Result<_, _>>()
            .context("an event in the store is not JSON")
    }

    async fn ask(
        &self,
        plan: impl AsyncFnOnce(&SessionContext) -> datafusion::common::Result<DataFrame>,
        max_rows: usize,
    ) -> anyhow::Result<Page> {
        let session = self.session().await.context("cannot open the store")?;
        self.collect(plan(&session).await?, max_rows).await
    }
}

async fn newest(
    session: &SessionContext,
    filter: &Filter,
    since_ns: Option<i64>,
    limit: usize,
) -> datafusion::common::Result<DataFrame> {
    let mut events = session.table("events").await?;
    if let Some(ns) = since_ns {
        events = events.filter(col("ts_start").gt_eq(time(ns)))?;
    }
    if let Some(kind) = &filter.kind {
        events = events.filter(col("kind").eq(lit(kind.as_str())))?;
    }
    if let Some(class) = &filter.class {
        events = events.filter(col("class").eq(lit(class.to_ascii_uppercase())))?;
    }
    if let Some(part) = &filter.principal {
        events = events.filter(contains(col("principal"), lit(part.as_str())))?;
    }
    events
        .sort(vec![
            col("ts_start").sort(false, false),
            col("log_index").sort(false, false),
            col("seq").sort(false, false),
        ])?
        .limit(0, Some(limit))?
        .select_columns(&["event"])
}

fn since(ns: i64) -> String {
    format!("ts_start >= to_timestamp_nanos({ns})")
}

fn overview_sql(since_ns: i64) -> String {
    // Of other kinds than statements and roll-ups of them, `executions` is NULL.
    let statements = |of: &str| format!("coalesce(sum(executions) FILTER (WHERE {of}), 0)");
    let named = |level: &str| statements(&format!("{NAMED} AND confidence = '{level}'"));
    format!(
        "SELECT coalesce(sum(executions), 0) AS statements, \
         {errors} AS errors, \
         count(DISTINCT principal) FILTER (WHERE executions IS NOT NULL AND {NAMED}) AS principals, \
         count(DISTINCT login_role) FILTER (WHERE executions IS NOT NULL) AS roles, \
         {attributed} AS attributed, \
         {observed} AS observed, \
         {joined} AS joined, \
         {inferred} AS inferred, \
         {asserted} AS asserted, \
         sum(rows) AS rows, \
         count(*) FILTER (WHERE kind = 'gap') AS gaps, \
         coalesce(sum(bytes_missing) FILTER (WHERE kind = 'gap'), 0) AS bytes_missing, \
         count(*) FILTER (WHERE kind = 'gap' AND bytes_missing IS NULL) AS gaps_of_unknown_size, \
         count(*) FILTER (WHERE kind = 'opaque_session') AS opaque_sessions, \
         count(*) FILTER (WHERE kind = 'auth_failure') AS auth_failures, \
         count(*) FILTER (WHERE kind = 'alarm') AS alarms \
         FROM events WHERE {since}",
        errors = statements("outcome = 'error'"),
        attributed = statements(NAMED),
        observed = named("observed"),
        joined = named("joined"),
        inferred = named("inferred"),
        asserted = named("asserted"),
        since = since(since_ns)
    )
}

fn first_row(page: Page) -> Map<String, Value> {
    let row = page.rows.into_iter().next().unwrap_or_default();
    page.columns.into_iter().zip(row).collect()
}

/// A statement counts as attributed when it has a name and a confidence.
const NAMED: &str = "principal IS NOT NULL AND principal <> 'unknown' AND confidence <> 'none'";

/// Principals in one answer: more than any page shows.
const MAX_PRINCIPALS: usize = 1000;

/// How many hours before the newest one the newest events are looked for in, one after the other, before all are looked at.
const BACKWARDS: &[i64] = &[0, 24, 24 * 30];
