//! What has no name: by reason, role and database.
//!
//! Owns which events count as unattributed: those of a session, or statements, whose principal is not known or has no
//! confidence. Refuses to be about names that are wrong: nothing here can tell.

use serde::{Deserialize, Serialize};

use anyhow::Context as _;

use super::{
    Store,
    page::{MAX_ROWS, Page},
    question::{Question, Span, in_words},
};

/// What nobody is named for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Unattributed {
    /// When.
    #[serde(flatten)]
    pub span: Span,
}

impl Question for Unattributed {
    const PATH: &'static str = "/api/v1/unattributed";
    const KIND: &'static str = "unattributed";
    type Answer = Page;

    fn words(&self) -> String {
        in_words(self)
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Page> {
        let session = store.session().await.context("cannot open the store")?;
        let chosen = self.span.of(session.table("events").await?)?;
        session.register_table("chosen", chosen.into_view())?;
        store.collect(session.sql(UNATTRIBUTED).await?, MAX_ROWS).await
    }
}

/// Numbers in reasons (processes, cgroups) are not what makes two of them different. `percent` is of all statements of the time.
const UNATTRIBUTED: &str = "WITH every AS (SELECT *, CASE WHEN principal IS NULL OR principal = 'unknown' OR confidence = 'none' THEN true END AS nobody \
      FROM chosen WHERE session_id IS NOT NULL OR executions IS NOT NULL), \
    whole AS (SELECT sum(executions) AS statements FROM every) \
    SELECT regexp_replace(coalesce(reason, 'no reason is told'), '\\b[0-9]+\\b', 'n', 'g') AS reason, login_role, database, \
      coalesce(sum(executions), 0) AS statements, \
      coalesce(sum(executions), 0) * 10000 / nullif(first_value(whole.statements), 0) / 100.0 AS percent, \
      count(DISTINCT concat(agent, ' ', session_id)) FILTER (WHERE session_id IS NOT NULL) AS sessions, \
      count(*) FILTER (WHERE kind = 'auth_failure') AS refused_logins, \
      min(ts_start) AS first_seen, max(ts_start) AS last_seen, \
      first_value(event_id ORDER BY ts_start NULLS LAST, log_index, seq) AS first_event, \
      last_value(event_id ORDER BY ts_start NULLS FIRST, log_index, seq) AS last_event \
    FROM every CROSS JOIN whole WHERE nobody GROUP BY 1, 2, 3 \
    ORDER BY statements DESC, sessions DESC, 1, 2, 3";
