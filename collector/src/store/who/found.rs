//! Which events touched a record, by the tokens' own table.
//!
//! Owns the look-up: what is surely it, what may be it by a filter, and what a filter says that it is not. What else may have
//! touched it is [`super::open`]'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::bail;
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray},
        datatypes::Int64Type,
    },
    common::Result,
    logical_expr::Expr,
    prelude::{DataFrame, SessionContext, col, lit},
    scalar::ScalarValue,
};

use super::{Asked, Sought};
use crate::store::holding::may_hold;

impl Asked {
    /// What is told of the column's values.
    async fn entries(&self, session: &SessionContext) -> Result<DataFrame> {
        let of = session.table("subjects").await?;
        let of = of.filter(col("object").eq(lit(self.object.as_str())))?;
        self.span
            .of(of.filter(col("column_name").eq(lit(self.column.as_str())))?)
    }

    /// The events that touched it, and whether there are more than are looked at.
    pub(in crate::store) async fn find(
        &self,
        session: &SessionContext,
    ) -> anyhow::Result<(BTreeMap<Place, Found>, bool)> {
        if self.tokens.is_empty() {
            return Ok(<_>::default());
        }
        let tokens = self.tokens.iter().map(|sought| lit(sought.token.as_str()));
        let under_its_key = |sought: &Sought| {
            let token = col("token").eq(lit(sought.token.as_str()));
            token.and(sought.is_of_row())
        };
        // Two questions, because the index of pages answers what is asked of one column.
        let sure = self
            .entries(session)
            .await?
            .filter(col("token").in_list(tokens.collect(), false))?
            .filter(any(self.tokens.iter().map(under_its_key)))?;
        let possible = self.entries(session).await?.filter(col("token").is_null())?;
        let possible = possible
            .filter(col("filter").is_not_null())?
            .filter(self.held())?;
        let mut found: BTreeMap<Place, Found> = BTreeMap::new();
        for (rows, sure) in [(sure, true), (possible, false)] {
            let columns = ["log_index", "seq", "sources"];
            let newest = vec![col("log_index").sort(false, false), col("seq").sort(false, false)];
            let rows = rows.select_columns(&columns)?.sort(newest)?;
            let rows = rows.limit(0, Some(MAX_FOUND + 1))?;
            for batch in rows.collect().await? {
                let [entries, seqs, sources] = batch.columns() else {
                    bail!("expected three columns");
                };
                let (entries, seqs) = (
                    entries.as_primitive::<Int64Type>(),
                    seqs.as_primitive::<Int64Type>(),
                );
                let sources = sources.as_list::<i32>();
                for row in 0..batch.num_rows() {
                    let one = found.entry((entries.value(row), seqs.value(row))).or_default();
                    one.sure |= sure;
                    let said = sources.value(row);
                    let said = said.as_string::<i32>().iter().flatten();
                    one.sources.extend(said.map(str::to_owned));
                }
            }
        }
        let more = found.len() > MAX_FOUND;
        while found.len() > MAX_FOUND {
            // The oldest.
            found.pop_first();
        }
        Ok((found, more))
    }

    /// Whether the row's filter may hold one of the tokens.
    fn held(&self) -> Expr {
        let held = |sought: &Sought| may_hold().call(vec![col("filter"), lit(sought.token.as_str())]);
        any(self.tokens.iter().map(held))
    }

    /// Events of which a filter of all that they touched says that none of the tokens is in it; of very many, some: the others are not
    /// excluded.
    pub(super) async fn denied(&self, session: &SessionContext) -> Result<Vec<Place>> {
        if self.tokens.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.entries(session).await?;
        // The first of these leaves out nearly all rows, by what pages say of their NULLs.
        let rows = rows
            .filter(col("token").is_null())?
            .filter(col("filter").is_not_null())?
            .filter(col("complete").and(any(self.tokens.iter().map(Sought::is_of_row))))?
            .filter(self.held().is_false())?
            .select_columns(&["log_index", "seq"])?
            .limit(0, Some(MAX_DENIED))?;
        let mut places = Vec::new();
        for batch in rows.collect().await? {
            let column = |name| batch.column_by_name(name).map(AsArray::as_primitive::<Int64Type>);
            if let (Some(entries), Some(seqs)) = (column("log_index"), column("seq")) {
                places.extend(
                    entries
                        .values()
                        .iter()
                        .copied()
                        .zip(seqs.values().iter().copied()),
                );
            }
        }
        Ok(places)
    }
}

impl Sought {
    /// Whether a row of `subjects` is of its key and rule.
    fn is_of_row(&self) -> Expr {
        let key = col("key_id").eq(lit(self.key.as_str()));
        key.and(col("family").eq(lit(self.family.as_str())))
    }
}

fn any(of: impl Iterator<Item = Expr>) -> Expr {
    // Of none it is not known, which the engine tells apart from what can only be false.
    of.reduce(Expr::or)
        .unwrap_or_else(|| lit(ScalarValue::Boolean(None)))
}

/// Log entry and number of an event.
pub(in crate::store) type Place = (i64, i64);

/// How an event touched the record.
#[derive(Debug, Default, PartialEq)]
pub(in crate::store) struct Found {
    /// By a token, not by a filter.
    pub(in crate::store) sure: bool,
    sources: BTreeSet<String>,
}

pub(super) fn batch(found: &BTreeMap<Place, Found>) -> Result<RecordBatch> {
    let sources = |one: &Found| one.sources.iter().cloned().collect::<Vec<_>>().join(", ");
    let columns: [(&str, ArrayRef); 4] = [
        (
            "log_index",
            Arc::new(found.keys().map(|place| place.0).collect::<Int64Array>()),
        ),
        (
            "seq",
            Arc::new(found.keys().map(|place| place.1).collect::<Int64Array>()),
        ),
        (
            "sure",
            Arc::new(found.values().map(|one| Some(one.sure)).collect::<BooleanArray>()),
        ),
        (
            "sources",
            Arc::new(
                found
                    .values()
                    .map(|one| Some(sources(one)))
                    .collect::<StringArray>(),
            ),
        ),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Those that were found, with what is known of each.
pub(super) const TOUCHED: &str = "SELECT coalesce(e.principal, 'unknown') AS principal, e.confidence, e.method, f.sure, f.sources, \
    e.kind, e.class, e.command, e.outcome, sum(e.executions) AS statements, sum(e.rows) AS rows, sum(e.rows_affected) AS rows_affected, \
    min(e.ts_start) AS first_seen, max(e.ts_start) AS last_seen, e.login_role, e.database, e.statement, \
    last_value(e.event_id ORDER BY e.ts_start) AS last_event \
    FROM near e JOIN found f ON e.log_index = f.log_index AND e.seq = f.seq \
    GROUP BY e.principal, e.confidence, e.method, f.sure, f.sources, e.kind, e.class, e.command, e.outcome, e.login_role, \
    e.database, e.statement ORDER BY f.sure DESC, last_seen DESC, principal";

/// Events that are looked at one by one: each takes some hundred bytes. The newest ones are.
const MAX_FOUND: usize = 200_000;

/// Events that filters exclude; each takes 16 bytes in memory.
const MAX_DENIED: usize = 1_000_000;
