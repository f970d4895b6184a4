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
        let one = session.sql(&things("queries")).await?;
        session.register_table("one", one.filter(col("thing").is_not_null())?.into_view())?;
        let since = || time(self.since_ns);
        let new = session
            .sql(EDGES)
            .await?
            .filter(col("first_seen").gt_eq(since()))?;
        session.register_table("new", new.into_view())?;
        let known = session.table("one").await?.filter(col("ts_start").lt(since()))?;
        session.register_table("known", known.into_view())?;
        store.collect(session.sql(NEW).await?, MAX_ROWS).await
    }
}

const EDGES: &str = "SELECT principal, object, access, \
    array_sort(array_agg(DISTINCT confidence) FILTER (WHERE confidence IS NOT NULL)) AS confidence, \
    array_sort(array_agg(DISTINCT command) FILTER (WHERE command IS NOT NULL)) AS commands, \
    sum(executions) AS statements, coalesce(sum(executions) FILTER (WHERE outcome = 'error'), 0) AS failed, \
    sum(rows) AS rows, sum(rows_affected) AS rows_affected, min(ts_start) AS first_seen, max(ts_start) AS last_seen, \
    first_value(event_id ORDER BY ts_start NULLS LAST, log_index, seq) AS first_event \
    FROM one GROUP BY principal, object, access";

/// What was done to the object by the same principal before, in other ways, tells a new way from a new object.
const NEW: &str = "WITH before AS (SELECT principal, object, array_sort(array_agg(DISTINCT access)) AS known_access FROM known \
      GROUP BY principal, object) \
    SELECT n.principal, n.confidence, n.object, n.access, b.known_access, n.commands, n.statements, n.failed, n.rows, n.rows_affected, \
      n.first_seen, n.last_seen, n.first_event \
    FROM new n LEFT JOIN before b ON n.principal = b.principal AND n.object = b.object \
    ORDER BY n.first_seen DESC, n.principal, n.object, n.access";
