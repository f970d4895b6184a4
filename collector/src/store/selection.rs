//! All events that are wanted, as a stream: what exports are made of.
//!
//! Owns which events, and that memory stays bounded: rows come batch by batch, in no promised order, and without the limits of a page. The store is
//! asked as it was when the question came.

use anyhow::{Context as _, anyhow, ensure};
use datafusion::{
    execution::SendableRecordBatchStream,
    functions_nested::expr_fn::array_has,
    prelude::{SessionContext, col, lit},
};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    columns::COLUMNS,
    events::Shown,
    page::{MAX_SQL_BYTES, in_one_line},
    question::{Span, principal_is},
};

/// Which events; an absent field wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Selection {
    /// `query`, `gap`, …
    pub kind: Option<String>,
    /// A principal, or a pattern with `*` and `?`.
    pub principal: Option<String>,
    /// An object as statements name it, exactly.
    pub object: Option<String>,
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// A predicate over the columns of `events`, as behind WHERE.
    #[serde(rename = "where")]
    pub predicate: Option<String>,
}

/// Their rows.
pub(crate) struct Selected {
    /// Batch by batch.
    pub(crate) rows: SendableRecordBatchStream,
    /// Makes the JSON form of the column `event`.
    pub(crate) shown: Shown,
    /// Keeps the files there that the rows come from.
    pub(crate) session: SessionContext,
}

impl Store {
    /// The JSON form alone of these events (`whole`), or all other columns.
    ///
    /// # Errors
    ///
    /// With what is wrong with the predicate.
    pub(crate) async fn all_of(&self, which: &Selection, whole: bool) -> anyhow::Result<Selected> {
        let session = self.session().await.context("cannot open the store")?;
        let mut rows = which.span.of(session.table("events").await?)?;
        if let Some(kind) = &which.kind {
            rows = rows.filter(col("kind").eq(lit(kind.as_str())))?;
        }
        if let Some(principal) = &which.principal {
            rows = rows.filter(principal_is(principal))?;
        }
        if let Some(object) = &which.object {
            rows = rows.filter(array_has(col("objects"), lit(object.as_str())))?;
        }
        let failed = |error| {
            let error = in_one_line(&error);
            match which.predicate {
                Some(_) => anyhow!(
                    "not answered: {error} (--where takes a predicate over the columns of events: SHOW COLUMNS FROM events)"
                ),
                None => anyhow!("not answered: {error}"),
            }
        };
        if let Some(predicate) = &which.predicate {
            ensure!(
                predicate.len() <= MAX_SQL_BYTES,
                "the predicate is longer than {MAX_SQL_BYTES} bytes"
            );
            let predicate = rows.parse_sql_expr(predicate).map_err(failed)?;
            rows = rows.filter(predicate).map_err(failed)?;
        }
        let columns: Vec<&str> = if whole {
            vec!["event"]
        } else {
            let stored = COLUMNS.iter().map(|(name, _)| *name);
            stored
                .chain(["event_id", "amended_by", "expected", "unexpected_because"])
                .collect()
        };
        let rows = rows
            .select_columns(&columns)?
            .execute_stream()
            .await
            .map_err(failed)?;
        Ok(Selected {
            rows,
            shown: self.shown(),
            session,
        })
    }
}
