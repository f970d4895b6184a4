//! New edges: who touched what for the first time.
//!
//! Owns what an edge is: a principal, an object as statements name it, and how it was used. Reading and writing are two.

use serde::{Deserialize, Serialize};

use anyhow::Context as _;
use datafusion::prelude::col;

use super::{
    Store,
    page::{MAX_ROWS, Page},
    question::{Question, in_words, time},
    what::things,
};

/// Which edges were never seen before a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewEdges {
    /// The moment, in Unix nanoseconds.
    pub since_ns: i64,
}

impl Question for NewEdges {
    const PATH: &'static str = "/api/v1/new-edges";
    const KIND: &'static str = "new_edges";
    type Answer = Page;

    fn words(&self) -> String {
        in_words(self)
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Page> {
        let session = store.session().await.context("cannot open the store")?;
        let queries = session.table("queries").await?;
        let before = col("ts_start").lt(time(self.since_ns));
        // What is new is in statements from then on, all of it.
        let rest = queries.clone().filter(before.clone().is_not_true())?;
        session.register_table("rest", rest.into_view())?;
        let one = session.sql(&things("rest")).await?;
        session.register_table("one", one.filter(col("thing").is_not_null())?.into_view())?;
        session.register_table("former", queries.filter(before)?.into_view())?;
        store.collect(session.sql(NEW).await?, MAX_ROWS).await
    }
}

/// What was done to the object by the same principal before, in other ways, tells a new way from a new object. Lists are made of few rows: so of all that was
/// before, what repeats is left out first.
const NEW: &str = "WITH known AS (SELECT DISTINCT principal, thing FROM (SELECT principal, unnest(things) AS thing FROM \
        (SELECT DISTINCT coalesce(principal, 'unknown') AS principal, touched(objects, object_access) AS things FROM former)) \
      WHERE thing IS NOT NULL), \
    before AS (SELECT principal, object, array_sort(array_agg(access)) AS known_access FROM \
        (SELECT principal, split_part(thing, ' ', 1) AS access, substr(thing, strpos(thing, ' ') + 1) AS object FROM known) \
      GROUP BY principal, object), \
    alike AS (\
      SELECT principal, thing, object, access, confidence, command, sum(executions) AS statements, \
        sum(executions) FILTER (WHERE outcome = 'error') AS failed, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
        min(ts_start) AS first_seen, max(ts_start) AS last_seen, \
        min(in_order(ts_start, log_index, seq, event_id)) FILTER (WHERE ts_start IS NOT NULL) AS first \
      FROM one GROUP BY principal, thing, object, access, confidence, command), \
    new AS (\
      SELECT principal, thing, object, access, \
        array_sort(array_agg(DISTINCT confidence) FILTER (WHERE confidence IS NOT NULL)) AS confidence, \
        array_sort(array_agg(DISTINCT command) FILTER (WHERE command IS NOT NULL)) AS commands, \
        sum(statements) AS statements, coalesce(sum(failed), 0) AS failed, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
        min(first_seen) AS first_seen, max(last_seen) AS last_seen, event_of(min(first)) AS first_event \
      FROM alike GROUP BY principal, thing, object, access) \
    SELECT n.principal, n.confidence, n.object, n.access, b.known_access, n.commands, n.statements, n.failed, n.rows, n.rows_affected, \
      n.first_seen, n.last_seen, n.first_event \
    FROM new n LEFT JOIN before b ON n.principal = b.principal AND n.object = b.object \
    WHERE n.first_seen IS NOT NULL AND NOT EXISTS (SELECT 1 FROM known k WHERE k.principal = n.principal AND k.thing = n.thing) \
    ORDER BY n.first_seen DESC, n.principal, n.object, n.access";
