//! What happened in a session, or by a principal, in order.
//!
//! Owns the order, which is total (time, agent, number), so that a page begins exactly where the one before it ended, and what stands between:
//! what the agents of these events did not see. Refuses to be an export: it is for reading, a page at a time.

use anyhow::{Context as _, bail, ensure};
use datafusion::{
    functions::expr_fn::coalesce,
    logical_expr::Expr,
    prelude::{SessionContext, col, lit},
    scalar::ScalarValue,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Store,
    page::{MAX_ROWS, Page},
    question::{Question, Span, in_words, principal_is, time},
    touching::PRIVILEGED,
};

/// A page of what happened; `session`, `principal` or both are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Timeline {
    /// Id of a session, also of one at a pooler.
    pub session: Option<String>,
    /// A principal, or a pattern with `*` and `?`.
    pub principal: Option<String>,
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// Behind this event.
    pub after: Option<String>,
    /// Rows of a page; 0: as many as fit.
    pub limit: usize,
}

impl Question for Timeline {
    const PATH: &'static str = "/api/v1/timeline";
    const KIND: &'static str = "timeline";
    type Answer = Page;

    fn words(&self) -> String {
        in_words(self)
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Page> {
        ensure!(
            self.session.is_some() || self.principal.is_some(),
            "whose timeline? name a session or a principal"
        );
        let limit = match self.limit {
            0 => MAX_ROWS,
            limit => limit.min(MAX_ROWS),
        };
        let session = store.session().await.context("cannot open the store")?;
        let mut chosen = self.span.of(session.table("events").await?)?;
        if let Some(id) = &self.session {
            let id = || lit(id.as_str());
            chosen = chosen.filter(col("session_id").eq(id()).or(col("client_session").eq(id())))?;
        }
        if let Some(principal) = &self.principal {
            // Of what belongs to nobody, nobody is the principal.
            let somebodys = col("session_id")
                .is_not_null()
                .or(col("executions").is_not_null());
            chosen = chosen.filter(principal_is(principal).and(somebodys))?;
        }
        session.register_table("chosen", chosen.into_view())?;
        let of_agents = self.span.of(session.table("events").await?)?;
        session.register_table("of_agents", of_agents.into_view())?;
        let mut rows = session.sql(&timeline()).await?;
        if let Some(after) = &self.after {
            rows = rows.filter(behind(&session, after).await?)?;
        }
        let order = [beginning(), col("agent"), col("seq")].map(|by| by.sort(true, true));
        let shown = rows
            .sort(order.to_vec())?
            .limit(0, Some(limit + 1))?
            .select_columns(SHOWN)?;
        store.collect(shown, limit).await
    }
}

/// When an event began; what has no time comes first.
fn beginning() -> Expr {
    coalesce(vec![col("ts_start"), time(0)])
}

/// What stands behind an event in the order of timelines.
async fn behind(session: &SessionContext, event_id: &str) -> anyhow::Result<Expr> {
    let (agent, seq) = parts(event_id)?;
    let number = i64::try_from(seq).unwrap_or(i64::MAX);
    let of = session.table("events").await?;
    let of = of.filter(col("agent").eq(lit(agent)).and(col("seq").eq(lit(number))))?;
    let of = of.select(vec![beginning().alias("began")])?.limit(0, Some(1))?;
    let found = of.collect().await?;
    let began = found.iter().find(|batch| batch.num_rows() > 0).and_then(|batch| {
        let column = batch.columns().first()?;
        ScalarValue::try_from_array(column, 0).ok()
    });
    let Some(began) = began else {
        bail!("there is no event {event_id}");
    };
    let (began, agent, number) = (lit(began), lit(agent), lit(number));
    let same_agent = col("agent").eq(agent.clone()).and(col("seq").gt(number));
    let later = col("agent").gt(agent).or(same_agent);
    Ok(beginning().gt(began.clone()).or(beginning().eq(began).and(later)))
}

/// Agent and number of an event's id.
///
/// # Errors
///
/// If it is none.
pub fn parts(event_id: &str) -> anyhow::Result<(&str, u64)> {
    let parts = event_id
        .rsplit_once('-')
        .and_then(|(agent, seq)| Some((agent, seq.parse::<u64>().ok()?)));
    let allowed = |agent: &str| {
        agent
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    match parts {
        Some((agent, seq)) if allowed(agent) => Ok((agent, seq)),
        _ => bail!("{event_id:?} is no event's id: it is an agent's id, a dash, and a number, as in db1-17"),
    }
}

impl Timeline {
    /// Where the next page begins: [`Timeline::after`] of it. `None` if this was the last.
    #[must_use]
    pub fn next(page: &Page) -> Option<&str> {
        let place = page.columns.iter().position(|column| column == "event_id")?;
        let last = page.rows.last().filter(|_| page.truncated)?;
        last.get(place).and_then(Value::as_str)
    }
}

/// What is shown of an event.
const SHOWN: &[&str] = &[
    "ts_start",
    "kind",
    "mark",
    "principal",
    "confidence",
    "login_role",
    "effective_role",
    "database",
    "session_id",
    "class",
    "command",
    "objects",
    "outcome",
    "sqlstate",
    "executions",
    "rows",
    "rows_affected",
    "duration_ns",
    "bytes_missing",
    "statement",
    "event_id",
];

/// What agents tell of themselves, and means that something may not be here: that they did not record, or told another collector.
const OF_AGENT: &str = "'agent_start', 'agent_stop', 'agent_pause', 'agent_resume', 'collector_change'";

/// What was chosen, and what the agents that recorded it did not see meanwhile: their own gaps, and when they did not record.
/// `mark` is what a reader must not overlook.
fn timeline() -> String {
    format!(
        "WITH bounds AS (SELECT agent AS of_agent, min(ts_start) AS began, max(coalesce(ts_end, ts_start)) AS ended \
      FROM chosen GROUP BY agent), \
    of_agent AS (SELECT e.* FROM of_agents e JOIN bounds b ON e.agent = b.of_agent \
      WHERE e.session_id IS NULL AND e.kind IN ('gap', {OF_AGENT}) \
      AND e.ts_start <= b.ended AND coalesce(e.ts_end, e.ts_start) >= b.began), \
    every AS (SELECT * FROM chosen UNION ALL SELECT * FROM of_agent) \
    SELECT *, nullif(array_to_string(make_array(\
        CASE WHEN {PRIVILEGED} THEN 'privileged' END, \
        CASE WHEN kind = 'gap' THEN concat('not seen: ', gap_reason) \
          WHEN kind = 'opaque_session' THEN concat('not readable: ', gap_reason) \
          WHEN kind IN ({OF_AGENT}) THEN replace(kind, '_', ' ') \
          WHEN kind = 'auth_failure' THEN 'refused' \
          WHEN kind = 'session_error' THEN 'error' \
          WHEN outcome <> 'ok' THEN outcome END, \
        CASE WHEN tx_final = 'rolled_back' THEN 'rolled back' END), ', '), '') AS mark FROM every"
    )
}
