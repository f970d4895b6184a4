//! What cannot be excluded: statements that are not known to have nothing to do with the record.
//!
//! Owns what a statement is judged by, alone or put together with others, and the reasons. Refuses to take what does not know
//! something for what has nothing to do with the record.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, Result},
    functions_nested::expr_fn::array_has,
    logical_expr::{Expr, not, when},
    prelude::{DataFrame, SessionContext, cast, col, lit},
};

use super::Asked;
use crate::store::{
    columns,
    parts::{Derived, MANNER, TEMPLATE},
    touching::HIDDEN,
    uses::table,
    ways::{self, ALL, ELSEWHERE, NOTHING, SOME},
};

impl Asked {
    /// What each statement is judged by: it is the same for all that share a template, or a manner.
    pub(super) fn derived(&self, session: &SessionContext) -> Result<Vec<Derived>> {
        let schema = DFSchema::try_from(columns::schema().as_ref().clone())?;
        let of_manner = ways::told(self).call(vec![col(ways::NAME)]);
        let refused = col("phase").eq(lit("parse")).and(col("outcome").eq(lit("error")));
        Ok(vec![
            Derived {
                name: "names_it",
                part: TEMPLATE,
                of: self.names_it(),
            },
            Derived {
                name: "hidden",
                part: TEMPLATE,
                of: session.parse_sql_expr(HIDDEN, &schema)?,
            },
            Derived {
                name: "told",
                part: MANNER,
                // What was not understood by the server touched nothing.
                of: when(refused, lit(ALL)).otherwise(of_manner)?,
            },
        ])
    }

    /// The statements that are not known to have nothing to do with the record, with what [`not_excluded`] judges them by.
    pub(super) fn open_statements(&self, events: DataFrame, settled: Expr) -> Result<DataFrame> {
        // Of most statements nothing more has to be read.
        let related = col("names_it").or(col("told").gt(lit(NOTHING)));
        let statements = events
            .filter(col("executions").is_not_null())?
            .filter(col("told").not_eq(lit(ALL)))?
            .filter(related.or(col("hidden").is_not_null()))?;
        statements.select(vec![
            col("principal"),
            col("confidence"),
            col("command"),
            col("ts_start").alias("first_seen"),
            col("ts_start").alias("last_seen"),
            col("executions"),
            settled.alias("settled"),
            col("told"),
            col("names_it"),
            col("hidden"),
        ])
    }

    /// The same of what is put together: what is of the object stands under its name, and what may have touched it
    /// without naming it, under none.
    pub(super) fn open_uses(&self, uses: DataFrame, settled: Expr) -> Result<DataFrame> {
        let name = table::name_of(&self.object);
        // As statements have them.
        let text = |name: &str| cast(col(name), DataType::Utf8).alias(name);
        let uses = uses
            .filter(col("name").eq(lit(name)).or(col("name").is_null()))?
            .filter(col("kind").is_null().and(col("refused").is_false()))?
            .select(vec![
                col("name"),
                text("principal"),
                text("confidence"),
                text("command"),
                col("first_seen"),
                col("last_seen"),
                col("executions"),
                settled.alias("settled"),
                table::told_of(self).call(vec![col("ways")]).alias("told"),
                table::names_it(self).call(vec![col("things")]).alias("names_it"),
                text("hidden"),
            ])?;
        let related = col("names_it").or(col("told").gt(lit(NOTHING)));
        let hidden = col("name").is_null().and(col("hidden").is_not_null());
        let uses = uses.filter(col("told").not_eq(lit(ALL)))?.filter(
            col("name")
                .is_not_null()
                .and(related.clone())
                .or(hidden.and(not(related))),
        )?;
        uses.drop_columns(&["name"])
    }

    /// Whether a statement names the object: as the classification does, or without its schema.
    fn names_it(&self) -> Expr {
        let (_, bare) = self.object.rsplit_once('.').unwrap_or(("", &self.object));
        let named = |name: &str| array_has(col("objects"), lit(name));
        named(&self.object).or(named(bare))
    }
}

/// The reasons on the object come first; of the others, it is not known whether they have to do with it. What does not know
/// something is never taken for what has nothing to do with it.
pub(super) fn not_excluded() -> String {
    format!(
        "WITH judged AS (SELECT s.principal, s.confidence, s.command, s.first_seen, s.last_seen, s.executions, \
      CASE WHEN s.settled THEN NULL \
           WHEN s.told = {SOME} THEN 'not all of its records are known' \
           WHEN s.told = {ELSEWHERE} THEN 'its records are of another key or type, or not known' \
           WHEN s.names_it THEN 'its records are not known' \
           ELSE s.hidden END AS because, CASE WHEN s.names_it OR s.told > {NOTHING} THEN true END AS on_object \
    FROM statements s), \
    counted AS (SELECT on_object, principal, confidence, because, sum(executions) AS statements, \
      array_sort(array_agg(DISTINCT command) FILTER (WHERE command IS NOT NULL)) AS commands, \
      min(first_seen) AS first_seen, max(last_seen) AS last_seen \
      FROM judged WHERE because IS NOT NULL GROUP BY on_object, principal, confidence, because) \
    SELECT coalesce(on_object, false) AS on_object, coalesce(principal, 'unknown') AS principal, confidence, because, \
    statements, commands, first_seen, last_seen FROM counted ORDER BY 1 DESC, statements DESC, 2, 4"
    )
}
