//! Who touched a record, and what could not be excluded.
//!
//! Owns the two questions' order: first the tokens' own table, which tells the events, then those events. What is looked for is
//! a token; which value it stands for nobody tells here. Text from outside stands in expressions, never in SQL. Refuses to be
//! surer than the record: whoever is not excluded is counted, with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray},
        datatypes::Int64Type,
    },
    common::{DFSchema, Result},
    functions_aggregate::expr_fn::{count, max, min},
    functions_nested::expr_fn::array_has,
    logical_expr::{Expr, not, when},
    prelude::{DataFrame, SessionContext, col, lit},
    scalar::ScalarValue,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    Store, columns,
    erase::entries_of,
    holding::{may_hold, token},
    page::Page,
    parts::{Derived, MANNER, TEMPLATE},
    question::{self, Question, Span},
    session::{subjects_of, uses_of},
    touching::{self, HIDDEN},
    uses::table,
    ways::{self, ALL, ELSEWHERE, NOTHING, SOME},
};

/// Whose record is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Asked {
    /// As the classification names it: `public.customers`.
    pub object: String,
    /// Its identifying column.
    pub column: String,
    /// What its value became, under each key and by each rule.
    pub tokens: Vec<Sought>,
    /// When.
    #[serde(flatten)]
    pub span: Span,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sought {
    /// Id of its key.
    pub key: String,
    /// The rule by which the value was brought into one form.
    pub family: String,
    /// 32 hexadecimal digits, lower-case.
    pub token: String,
}

/// Which rules and keys made tokens of an object's values.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct OfObject {
    /// As the classification names it.
    pub object: String,
    /// When.
    #[serde(flatten)]
    pub span: Span,
}

/// By which rule and under which key an object's values became tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Made {
    /// The identifying column.
    pub column: String,
    /// Absent: nothing but that there was no record, or that it is not known which.
    pub family: Option<String>,
    /// Id of the key; absent as the family.
    pub key: Option<String>,
    /// Tokens, and filters.
    pub values: u64,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Answer {
    /// A row for each sort of statement that touched it, the sure ones first, then the newest.
    pub touched: Page,
    /// A row for each principal and reason for which some of its statements cannot be excluded.
    pub not_excluded: Page,
    /// Gaps in that time.
    pub gaps: u64,
    /// Sessions that could not be read.
    pub opaque_sessions: u64,
    /// Statements that an agent left out by its volume policy, from its start up to some moment of that time; 0: none did.
    pub left_out: u64,
    /// Times, at whatever time, that an agent came from another collector: what it delivered there is in another record.
    pub moved: u64,
    /// Acts, at whatever time, that took events out of this record: erasures, and removals for their age.
    pub removals: u64,
    /// Time of the first and of the last event of that time, RFC 3339.
    pub seen: [Option<String>; 2],
    /// Events that touched it beyond the [`MAX_FOUND`] that were looked at.
    pub more: bool,
    /// What is not excluded was not counted, because that took too long: nothing is said of any other statement.
    pub not_counted: bool,
}

impl question::Answer for Vec<Made> {
    fn rows(&self) -> usize {
        self.len()
    }
}

impl question::Answer for Answer {
    fn rows(&self) -> usize {
        self.touched.rows.len()
    }
}

impl Question for OfObject {
    const PATH: &'static str = "/api/v1/subjects";
    const KIND: &'static str = "subjects";
    type Answer = Vec<Made>;

    fn words(&self) -> String {
        self.object.clone()
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Vec<Made>> {
        store.made_of(&self.object, self.span).await
    }
}

impl Question for Asked {
    const PATH: &'static str = "/api/v1/who";
    const KIND: &'static str = "who";
    type Answer = Answer;

    fn words(&self) -> String {
        format!("{} {}, {} tokens", self.object, self.column, self.tokens.len())
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Answer> {
        store.who(self).await
    }

    async fn answer_within(&self, store: &Store, longest: Duration) -> anyhow::Result<Answer> {
        store.who_within(self, Some(longest * 2 / 3)).await
    }
}

impl Store {
    /// By which rules and under which keys the values of an object's identifying columns became tokens.
    ///
    /// # Errors
    ///
    /// When the store cannot be read in time.
    pub async fn made_of(&self, object: &str, span: Span) -> anyhow::Result<Vec<Made>> {
        let session = self.session().await.context("cannot open the store")?;
        let of = session.table("subjects").await?;
        let of = span.of(of.filter(col("object").eq(lit(object)))?)?;
        session.register_table("made", of.into_view())?;
        let page = self.collect(session.sql(MADE).await?, MAX_MADE).await?;
        ensure!(
            !page.truncated,
            "{object} has more than {MAX_MADE} columns, rules and keys"
        );
        let text =
            |value: Option<&serde_json::Value>| value.and_then(|value| value.as_str()).map(str::to_owned);
        let made = page.rows.iter().map(|row| Made {
            column: text(row.first()).unwrap_or_default(),
            family: text(row.get(1)),
            key: text(row.get(2)),
            values: row.get(3).and_then(serde_json::Value::as_u64).unwrap_or_default(),
        });
        Ok(made.collect())
    }

    /// Who touched a record, and what could not be excluded.
    ///
    /// # Errors
    ///
    /// If a token is none, or there are too many, or the store cannot be read in time.
    pub async fn who(&self, asked: &Asked) -> anyhow::Result<Answer> {
        self.who_within(asked, None).await
    }

    /// The same, without a count of what is not excluded if that takes longer: it looks at all statements of the time, while the
    /// record itself is looked up.
    pub(super) async fn who_within(
        &self,
        asked: &Asked,
        counting: Option<Duration>,
    ) -> anyhow::Result<Answer> {
        asked.check()?;
        // Before the files are chosen: none of those is put together from names that this does not have.
        let view = self.amendments.view();
        let now = self.snapshot();
        let session = self.reading(&now);
        touching::register(&session);
        session.register_udf(may_hold());
        session.register_udf(ways::told(asked));
        let subjects = subjects_of(&session, &now)?;
        session.register_table("subjects", subjects.into_view())?;

        let (found, more) = asked.find(&session).await?;
        session.register_batch("found", batch(&found)?)?;
        let mut answer = Answer {
            more,
            ..Answer::default()
        };
        if !found.is_empty() {
            let ranges = ranges(&found);
            let of_them = |file: &&String| {
                let entries = entries_of(file).map(|(first, last)| first.cast_signed()..=last.cast_signed());
                entries.is_none_or(|entries| {
                    found
                        .range((*entries.start(), i64::MIN)..=(*entries.end(), i64::MAX))
                        .next()
                        .is_some()
                })
            };
            let files: Vec<String> = now.files.iter().filter(of_them).cloned().collect();
            let near = within(
                self.events(&session, &files, &now.chunks, &[], view.clone())?,
                &ranges,
            )?;
            // The engine would keep all of these in memory for a join: so only those that are meant come to it.
            let places = found.keys().copied().collect();
            let near = near.filter(ways::is_one_of(places).call(vec![col("log_index"), col("seq")]))?;
            session.register_table("near", near.into_view())?;
            answer.touched = self.collect(session.sql(TOUCHED).await?, MAX_ROWS).await?;
        }
        let denied = asked.denied(&session).await?;
        let settled = found.into_keys().chain(denied).collect();
        let settled = ways::is_one_of(settled).call(vec![col("log_index"), col("seq")]);

        let of_span = now.uses_in(asked.span);
        let uses = uses_of(&session, &of_span)?;
        let files = now.files_in(asked.span, &of_span);
        let derived = asked.derived(&session)?;
        let events = self.events(&session, &files, &now.chunks, &derived, view.clone())?;
        let events = asked.span.of(events)?;
        let statements = asked.open_statements(events.clone(), settled.clone())?;
        let in_uses = asked.open_uses(uses.clone(), settled)?;
        session.register_table("statements", statements.union(in_uses)?.into_view())?;
        let not_excluded = session.sql(&not_excluded()).await?;
        let counted = self.collect(not_excluded, MAX_ROWS);
        match counting {
            None => answer.not_excluded = counted.await?,
            Some(longest) => match timeout(longest, counted).await {
                Ok(counted) => answer.not_excluded = counted?,
                Err(_) => answer.not_counted = true,
            },
        }

        // Some of it is of that time, some of all.
        let all = now.uses_in(Span::default());
        let rest = self.events(
            &session,
            &now.files_in(Span::default(), &all),
            &now.chunks,
            &[],
            view,
        )?;
        for (name, events, uses) in [("seen", events, uses), ("ever", rest, uses_of(&session, &all)?)] {
            let kinds = events.aggregate(vec![col("kind")], kinds_of_events())?;
            let kinds = kinds.union(uses.filter(col("kind").is_not_null())?.select(kinds_of_uses())?)?;
            session.register_table(name, kinds.into_view())?;
        }
        let seen = self.collect(session.sql(SEEN).await?, 1).await?;
        let row = seen.rows.first().map(Vec::as_slice).unwrap_or_default();
        let count = |n: usize| row.get(n).and_then(serde_json::Value::as_u64).unwrap_or_default();
        let time = |n: usize| row.get(n).and_then(|time| time.as_str()).map(str::to_owned);
        (answer.gaps, answer.opaque_sessions, answer.left_out) = (count(0), count(1), count(4));
        (answer.moved, answer.removals) = (count(5), count(6));
        answer.seen = [time(2), time(3)];
        Ok(answer)
    }
}

/// What is asked of the events of each kind, under the names of [`kinds_of_uses`].
fn kinds_of_events() -> Vec<Expr> {
    vec![
        count(lit(1)).alias("executions"),
        max(col("left_out")).alias("left_out"),
        min(col("ts_start")).alias("first_seen"),
        max(col("ts_start")).alias("last_seen"),
    ]
}

fn kinds_of_uses() -> Vec<Expr> {
    ["kind", "executions", "left_out", "first_seen", "last_seen"]
        .map(col)
        .to_vec()
}

impl Asked {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.tokens.len() > MAX_TOKENS {
            bail!("{} tokens at once: at most {MAX_TOKENS}", self.tokens.len());
        }
        for sought in &self.tokens {
            let lower = !sought.token.bytes().any(|byte| byte.is_ascii_uppercase());
            ensure!(
                lower && token(&sought.token).is_some(),
                "a token is 32 hexadecimal digits, lower-case"
            );
        }
        Ok(())
    }

    /// What is told of the column's values.
    async fn entries(&self, session: &SessionContext) -> Result<DataFrame> {
        let of = session.table("subjects").await?;
        let of = of.filter(col("object").eq(lit(self.object.as_str())))?;
        self.span
            .of(of.filter(col("column_name").eq(lit(self.column.as_str())))?)
    }

    /// The events that touched it, and whether there are more than are looked at.
    pub(super) async fn find(
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
    async fn denied(&self, session: &SessionContext) -> Result<Vec<Place>> {
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

    /// What each statement is judged by: it is the same for all that share a template, or a manner.
    fn derived(&self, session: &SessionContext) -> Result<Vec<Derived>> {
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
    fn open_statements(&self, events: DataFrame, settled: Expr) -> Result<DataFrame> {
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
    fn open_uses(&self, uses: DataFrame, settled: Expr) -> Result<DataFrame> {
        let name = table::name_of(&self.object);
        let uses = uses
            .filter(col("name").eq(lit(name)).or(col("name").is_null()))?
            .filter(col("kind").is_null().and(col("refused").is_false()))?
            .select(vec![
                col("name"),
                col("principal"),
                col("confidence"),
                col("command"),
                col("first_seen"),
                col("last_seen"),
                col("executions"),
                settled.alias("settled"),
                table::told_of(self).call(vec![col("ways")]).alias("told"),
                table::names_it(self).call(vec![col("things")]).alias("names_it"),
                col("hidden"),
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
pub(super) type Place = (i64, i64);

/// How an event touched the record.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// By a token, not by a filter.
    pub(super) sure: bool,
    sources: BTreeSet<String>,
}

fn batch(found: &BTreeMap<Place, Found>) -> Result<RecordBatch> {
    let sources = |one: &Found| one.sources.iter().cloned().collect::<Vec<_>>().join(", ");
    let columns: [(&str, ArrayRef); 4] = [
        (
            "log_index",
            std::sync::Arc::new(found.keys().map(|place| place.0).collect::<Int64Array>()),
        ),
        (
            "seq",
            std::sync::Arc::new(found.keys().map(|place| place.1).collect::<Int64Array>()),
        ),
        (
            "sure",
            std::sync::Arc::new(found.values().map(|one| Some(one.sure)).collect::<BooleanArray>()),
        ),
        (
            "sources",
            std::sync::Arc::new(
                found
                    .values()
                    .map(|one| Some(sources(one)))
                    .collect::<StringArray>(),
            ),
        ),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The rows of these log entries: what files and row groups say of their entries passes over most of them.
fn within(rows: DataFrame, ranges: &[(i64, i64)]) -> Result<DataFrame> {
    rows.filter(any(ranges
        .iter()
        .map(|(first, last)| col("log_index").between(lit(*first), lit(*last)))))
}

/// The log entries of `found`, in a few spans with the widest gaps between them.
fn ranges(found: &BTreeMap<Place, Found>) -> Vec<(i64, i64)> {
    let mut entries: Vec<i64> = found.keys().map(|place| place.0).collect();
    entries.dedup();
    let mut gaps: Vec<(i64, usize)> = entries
        .windows(2)
        .enumerate()
        .filter_map(|(n, pair)| Some((pair.last()? - pair.first()?, n + 1)))
        .collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let mut ends: Vec<usize> = gaps.into_iter().take(MAX_RANGES - 1).map(|(_, n)| n).collect();
    ends.push(entries.len());
    ends.sort_unstable();
    let mut from = 0;
    let mut ranges = Vec::with_capacity(ends.len());
    for to in ends {
        let span = entries.get(from..to).unwrap_or_default();
        if let (Some(first), Some(last)) = (span.first(), span.last()) {
            ranges.push((*first, *last));
        }
        from = to;
    }
    ranges
}

const MADE: &str =
    "SELECT column_name, family, key_id, count(*) AS rows FROM made GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

const TOUCHED: &str = "SELECT coalesce(e.principal, 'unknown') AS principal, e.confidence, e.method, f.sure, f.sources, \
    e.kind, e.class, e.command, e.outcome, sum(e.executions) AS statements, sum(e.rows) AS rows, sum(e.rows_affected) AS rows_affected, \
    min(e.ts_start) AS first_seen, max(e.ts_start) AS last_seen, e.login_role, e.database, e.statement, \
    last_value(e.event_id ORDER BY e.ts_start) AS last_event \
    FROM near e JOIN found f ON e.log_index = f.log_index AND e.seq = f.seq \
    GROUP BY e.principal, e.confidence, e.method, f.sure, f.sources, e.kind, e.class, e.command, e.outcome, e.login_role, \
    e.database, e.statement ORDER BY f.sure DESC, last_seen DESC, principal";

/// The reasons on the object come first; of the others, it is not known whether they have to do with it. What does not know
/// something is never taken for what has nothing to do with it.
fn not_excluded() -> String {
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

/// What a collector says of itself is nothing that was seen.
const SEEN: &str = "SELECT coalesce(sum(executions) FILTER (WHERE kind = 'gap'), 0) AS gaps, \
    coalesce(sum(executions) FILTER (WHERE kind = 'opaque_session'), 0) AS opaque_sessions, \
    min(first_seen) FILTER (WHERE kind NOT IN ('access', 'alarm', 'erasure', 'hold', 'retention', 'log_restored')), \
    max(last_seen) FILTER (WHERE kind NOT IN ('access', 'alarm', 'erasure', 'hold', 'retention', 'log_restored')), \
    max(left_out), (SELECT coalesce(sum(executions), 0) FROM ever WHERE kind = 'collector_change') AS moved, \
    (SELECT coalesce(sum(executions), 0) FROM ever WHERE kind IN ('erasure', 'retention')) AS removals FROM seen";

/// Keys and rules at once; more keys than anybody keeps.
const MAX_TOKENS: usize = 256;

/// Events that are looked at one by one: each takes some hundred bytes. The newest ones are.
const MAX_FOUND: usize = 200_000;

/// Events that filters exclude; each takes 16 bytes in memory.
const MAX_DENIED: usize = 1_000_000;

/// Spans of log entries that a question names: as many as the engine compares with the range of a row group.
const MAX_RANGES: usize = 16;

/// Rows of each part of an answer: sorts of statements, not statements.
const MAX_ROWS: usize = 1000;

/// Columns, rules and keys of one object.
const MAX_MADE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_far_apart_are_in_spans_of_their_own() {
        let found =
            |entries: &mut dyn Iterator<Item = i64>| entries.map(|n| ((n, 1), Found::default())).collect();
        assert_eq!(ranges(&found(&mut std::iter::empty())), []);
        assert_eq!(ranges(&found(&mut [7].into_iter())), [(7, 7)]);
        let near = ranges(&found(&mut (0..100)));
        assert_eq!(
            (near.len(), near[0].0, near[MAX_RANGES - 1].1),
            (MAX_RANGES, 0, 99)
        );
        let far = ranges(&found(
            &mut (0..20).map(|n| if n < 10 { n } else { n + 1_000_000 }),
        ));
        assert!(far.contains(&(1_000_010, 1_000_010)) || far.iter().any(|(first, _)| *first == 1_000_010));
        assert!(far.iter().all(|(first, last)| last - first < 100), "{far:?}");
        assert!(far.len() <= MAX_RANGES);
    }
}
