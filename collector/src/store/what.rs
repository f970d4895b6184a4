//! Who touched what: objects and columns, by principal.
//!
//! Owns the question that `what` (of a principal) and `who` (of an object, without a record) ask. Refuses to leave statements out: one that
//! names nothing has a row without an object, and one that may have touched more than it names has another, with the reason.

use serde::{Deserialize, Serialize};

use anyhow::Context as _;
use datafusion::prelude::col;

use super::{
    Store,
    page::{MAX_ROWS, Page},
    question::{Question, Span, in_words, principal_is},
    touching::{HIDDEN, is_object},
};

/// What was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct What {
    /// By whom: a principal, or a pattern with `*` and `?`. Absent: anybody.
    pub principal: Option<String>,
    /// Of what: `public.customers`, or `customers` for one of any schema. Absent: everything. Then statements that surely have
    /// nothing to do with it are left out.
    pub object: Option<String>,
    /// When.
    #[serde(flatten)]
    pub span: Span,
}

impl Question for What {
    const PATH: &'static str = "/api/v1/what";
    const KIND: &'static str = "what";
    type Answer = Page;

    fn words(&self) -> String {
        in_words(self)
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Page> {
        let session = store.session().await.context("cannot open the store")?;
        let mut chosen = self.span.of(session.table("queries").await?)?;
        if let Some(principal) = &self.principal {
            chosen = chosen.filter(principal_is(principal))?;
        }
        session.register_table("chosen", chosen.into_view())?;
        let mut one = session.sql(&things("chosen")).await?;
        if let Some(object) = &self.object {
            // Without an object it may still be this one, if there is a reason.
            one = one.filter(is_object(col("object"), object).or(col("because").is_not_null()))?;
        }
        session.register_table("one", one.into_view())?;
        store.collect(session.sql(WHAT).await?, MAX_ROWS).await
    }
}

/// The statements of a table, a row for each thing that they touched: `thing` with its parts `access` and `object`. What may have been
/// touched beyond that is in a row of its own, without a thing and with `because`.
pub(super) fn things(table: &str) -> String {
    format!(
        "WITH s AS (SELECT coalesce(principal, 'unknown') AS principal, confidence, CASE WHEN session_id IS NOT NULL THEN concat(agent, ' ', session_id) END AS session, \
           log_index, seq, event_id, ts_start, command, outcome, executions, rows, rows_affected, objects, object_access, \
           columns_read, columns_written, columns_filtered, columns_exact, {HIDDEN} AS hidden FROM {table}), \
         t AS (SELECT *, unnest(touched(objects, object_access)) AS thing FROM s), \
         a AS (SELECT * FROM t UNION ALL SELECT *, arrow_cast(NULL, 'Utf8') AS thing FROM s \
           WHERE hidden IS NOT NULL AND coalesce(cardinality(objects), 0) > 0) \
         SELECT *, split_part(thing, ' ', 1) AS access, substr(thing, strpos(thing, ' ') + 1) AS object, \
           CASE WHEN thing IS NULL THEN hidden END AS because FROM a"
    )
}

/// What makes lists, and what counts what differs, is slow for each statement: so statements that are alike in all that is asked are put together
/// first.
const WHAT: &str = "WITH named AS (\
      SELECT DISTINCT principal, thing, objects, columns_filtered, \
        CASE WHEN access = 'write' THEN columns_written ELSE columns_read END AS columns_touched FROM one), \
    names AS (\
      SELECT principal, thing, \
        array_sort(array_agg(DISTINCT name) FILTER (WHERE used = 'touched' AND name IS NOT NULL)) AS columns, \
        array_sort(array_agg(DISTINCT name) FILTER (WHERE used = 'filtered' AND name IS NOT NULL)) AS filtered \
      FROM (SELECT principal, thing, 'touched' AS used, unnest(columns_of(thing, objects, columns_touched)) AS name FROM named \
            UNION ALL SELECT principal, thing, 'filtered' AS used, unnest(columns_of(thing, objects, columns_filtered)) AS name FROM named) \
      GROUP BY principal, thing), \
    alike AS (\
      SELECT principal, thing, object, access, because, confidence, command, session, \
        bool_and(columns_exact) AS columns_exact, sum(executions) AS statements, \
        sum(executions) FILTER (WHERE outcome = 'error') AS failed, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
        min(ts_start) AS first_seen, max(ts_start) AS last_seen, max(in_order(ts_start, log_index, seq, event_id)) AS last \
      FROM one GROUP BY principal, thing, object, access, because, confidence, command, session), \
    counted AS (\
      SELECT principal, thing, object, access, because, \
        array_sort(array_agg(DISTINCT confidence) FILTER (WHERE confidence IS NOT NULL)) AS confidence, \
        bool_and(columns_exact) AS columns_exact, \
        array_sort(array_agg(DISTINCT command) FILTER (WHERE command IS NOT NULL)) AS commands, \
        sum(statements) AS statements, coalesce(sum(failed), 0) AS failed, \
        sum(rows) AS rows, sum(rows_affected) AS rows_affected, count(DISTINCT session) AS sessions, \
        min(first_seen) AS first_seen, max(last_seen) AS last_seen, event_of(max(last)) AS last_event \
      FROM alike GROUP BY principal, thing, object, access, because) \
    SELECT c.principal, c.confidence, c.object, c.access, n.columns, n.filtered, c.columns_exact, c.commands, c.statements, c.failed, \
      c.rows, c.rows_affected, c.sessions, c.first_seen, c.last_seen, c.last_event, c.because \
    FROM counted c LEFT JOIN names n ON c.principal = n.principal AND c.thing = n.thing \
    ORDER BY c.principal, c.object NULLS LAST, c.access, c.because NULLS FIRST";
