//! Who touched what: objects and columns, by principal.
//!
//! Owns the question that `what` (of a principal) and `who` (of an object, without a record) ask. Refuses to leave statements out: one that
//! names nothing has a row without an object, and one that may have touched more than it names has another, with the reason.

use serde::{Deserialize, Serialize};

use datafusion::{
    common::DFSchema,
    prelude::{SessionContext, col},
};

use super::{
    Store, columns,
    every::every,
    page::{MAX_ROWS, Page},
    parts::{Derived, TEMPLATE},
    question::{Question, Span, in_words, principal_is},
    sealed::EventFiles,
    touching::{self, HIDDEN, is_object, names},
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
        // Before the files are chosen, as everywhere.
        let view = store.amendments.view();
        let now = store.snapshot();
        let session = store.reading(&now);
        touching::register(&session);
        session.register_udaf(every());
        let files = EventFiles::all(&now.files);
        let events = store.events(&session, files, &now.chunks, &self.derived(&session)?, view)?;
        let mut chosen = self.span.of(events)?.filter(col("executions").is_not_null())?;
        if let Some(principal) = &self.principal {
            chosen = chosen.filter(principal_is(principal))?;
        }
        if self.object.is_some() {
            chosen = chosen.filter(col(RELATED))?;
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

impl What {
    /// Of an object: whether a statement names it, or may have touched what it does not name. It is the same for all that share a template, and most
    /// statements are left out by it.
    fn derived(&self, session: &SessionContext) -> anyhow::Result<Vec<Derived>> {
        let Some(object) = &self.object else {
            return Ok(Vec::new());
        };
        let schema = DFSchema::try_from(columns::schema().as_ref().clone())?;
        let hidden = session.parse_sql_expr(HIDDEN, &schema)?.is_not_null();
        Ok(vec![Derived {
            name: RELATED,
            part: TEMPLATE,
            of: names(object).call(vec![col("objects")]).or(hidden),
        }])
    }
}

/// The column that [`What::derived`] makes.
const RELATED: &str = "related";

/// The statements of a table, a row for each thing that they touched: `thing` with its parts `access` and `object`. What may have been
/// touched beyond that is in a row of its own, without a thing and with `because`.
pub(super) fn things(table: &str) -> String {
    format!(
        "WITH s AS (SELECT coalesce(principal, 'unknown') AS principal, confidence, CASE WHEN session_id IS NOT NULL THEN concat(agent, ' ', session_id) END AS session, \
           log_index, seq, event_id, ts_start, command, outcome, executions, rows, rows_affected, objects, object_access, \
           columns_read, columns_written, columns_filtered, columns_exact, {HIDDEN} AS hidden FROM {table}), \
         a AS (SELECT *, unnest(CASE WHEN hidden IS NOT NULL AND coalesce(cardinality(objects), 0) > 0 \
           THEN array_append(touched(objects, object_access), arrow_cast(NULL, 'Utf8')) ELSE touched(objects, object_access) END) AS thing FROM s) \
         SELECT *, split_part(thing, ' ', 1) AS access, substr(thing, strpos(thing, ' ') + 1) AS object, \
           CASE WHEN thing IS NULL THEN hidden END AS because FROM a"
    )
}

/// One pass over the statements.
const WHAT: &str = "SELECT principal, every(confidence) FILTER (WHERE confidence IS NOT NULL) AS confidence, object, access, \
      every(columns_of(thing, objects, CASE WHEN access = 'write' THEN columns_written ELSE columns_read END)) AS columns, \
      every(columns_of(thing, objects, columns_filtered)) AS filtered, bool_and(columns_exact) AS columns_exact, \
      every(command) FILTER (WHERE command IS NOT NULL) AS commands, sum(executions) AS statements, \
      coalesce(sum(executions) FILTER (WHERE outcome = 'error'), 0) AS failed, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
      coalesce(CAST(cardinality(every(session) FILTER (WHERE session IS NOT NULL)) AS BIGINT), 0) AS sessions, \
      min(ts_start) AS first_seen, max(ts_start) AS last_seen, event_of(max(in_order(ts_start, log_index, seq, event_id))) AS last_event, because \
    FROM one GROUP BY principal, thing, object, access, because \
    ORDER BY principal, object NULLS LAST, access, because NULLS FIRST";
