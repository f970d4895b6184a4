//! Who touched a record, and what could not be excluded.
//!
//! Owns the two questions' order: first the tokens' own table, which tells the events (`found`), then those events, then all others
//! (`open`). What is looked for is a token; which value it stands for nobody tells here. Text from outside stands in expressions,
//! never in SQL. Refuses to be surer than the record: whoever is not excluded is counted, with the reason.

mod found;
mod open;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use datafusion::{
    functions_aggregate::expr_fn::{count, max, min},
    logical_expr::Expr,
    prelude::{col, lit},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    Store,
    holding::{may_hold, token},
    page::Page,
    question::{self, Question, Span},
    sealed::EventFiles,
    session::{subjects_of, uses_of},
    touching, ways,
};
pub(super) use found::Place;
use found::{TOUCHED, batch};

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
    /// Events that touched it beyond those that were looked at: the newest 200,000.
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
            let entries = found.keys().map(|place| place.0).collect();
            let files = EventFiles::near(&now.files, entries);
            let near = self.events(&session, files, &now.chunks, &[], view.clone())?;
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
        let events = self.events(
            &session,
            EventFiles::all(&files),
            &now.chunks,
            &derived,
            view.clone(),
        )?;
        let events = asked.span.of(events)?;
        let statements = asked.open_statements(events.clone(), settled.clone())?;
        let in_uses = asked.open_uses(uses.clone(), settled)?;
        session.register_table("statements", statements.union(in_uses)?.into_view())?;
        let not_excluded = session.sql(&open::not_excluded()).await?;
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
            EventFiles::all(&now.files_in(Span::default(), &all)),
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
}

const MADE: &str =
    "SELECT column_name, family, key_id, count(*) AS rows FROM made GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
/// What a collector says of itself is nothing that was seen.
const SEEN: &str = "SELECT coalesce(sum(executions) FILTER (WHERE kind = 'gap'), 0) AS gaps, \
    coalesce(sum(executions) FILTER (WHERE kind = 'opaque_session'), 0) AS opaque_sessions, \
    min(first_seen) FILTER (WHERE kind NOT IN ('access', 'alarm', 'erasure', 'hold', 'retention', 'log_restored')), \
    max(last_seen) FILTER (WHERE kind NOT IN ('access', 'alarm', 'erasure', 'hold', 'retention', 'log_restored')), \
    max(left_out), (SELECT coalesce(sum(executions), 0) FROM ever WHERE kind = 'collector_change') AS moved, \
    (SELECT coalesce(sum(executions), 0) FROM ever WHERE kind IN ('erasure', 'retention')) AS removals FROM seen";

/// Keys and rules at once; more keys than anybody keeps.
const MAX_TOKENS: usize = 256;

/// Rows of each part of an answer: sorts of statements, not statements.
const MAX_ROWS: usize = 1000;

/// Columns, rules and keys of one object.
const MAX_MADE: usize = 1000;
