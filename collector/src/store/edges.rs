//! New edges: who touched what for the first time.
//!
//! Owns what an edge is: a principal, an object as statements name it, and how it was used. Reading and writing are two.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder},
        datatypes::Int32Type,
    },
    common::{Result, exec_err},
    prelude::{DataFrame, col},
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::{
    Store,
    page::{MAX_ROWS, Page},
    question::{Question, Span, in_words, time},
    sealed::EventFiles,
    session::uses_of,
    touching,
    uses::table,
    what::things,
};

/// Which edges were never seen before a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewEdges {
    /// The moment, in Unix nanoseconds.
    pub since_ns: i64,
    /// What began from then on is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ns: Option<i64>,
}

impl Question for NewEdges {
    const PATH: &'static str = "/api/v1/new-edges";
    const KIND: &'static str = "new_edges";
    type Answer = Page;

    fn words(&self) -> String {
        in_words(self)
    }

    async fn answer(&self, store: &Store) -> anyhow::Result<Page> {
        // Before the files are chosen: none of those is put together from names that this does not have.
        let view = store.amendments.view();
        let now = store.snapshot();
        let session = store.reading(&now);
        touching::register(&session);
        let (before, since) = (
            Span {
                since_ns: None,
                until_ns: Some(self.since_ns),
            },
            Span {
                since_ns: Some(self.since_ns),
                until_ns: self.until_ns,
            },
        );
        let is_before = col("ts_start").lt(time(self.since_ns));
        let statements = |files: &[String]| -> Result<DataFrame> {
            let events = store.events(&session, EventFiles::all(files), &now.chunks, &[], view.clone())?;
            events.filter(col("executions").is_not_null())
        };
        // What is new is in statements from then on, all of it.
        let mut rest = statements(&now.files_in(since, &[]))?.filter(is_before.clone().is_not_true())?;
        if let Some(until_ns) = self.until_ns {
            rest = rest.filter(col("ts_start").lt(time(until_ns)))?;
        }
        session.register_table("rest", rest.into_view())?;
        let one = session.sql(&things("rest")).await?;
        session.register_table("one", one.filter(col("thing").is_not_null())?.into_view())?;
        let fresh = session.sql(FRESH).await?.cache().await?;
        let mut known = Known::of(
            &fresh
                .clone()
                .select_columns(&["principal", "object"])?
                .collect()
                .await?,
        );
        session.register_table("fresh", fresh.into_view())?;

        let uses = now.uses_in(before);
        let former = statements(&now.files_in(before, &uses))?.filter(is_before)?;
        session.register_table("former", former.into_view())?;
        let mut rows = session.sql(FORMER).await?.execute_stream().await?;
        while let Some(batch) = rows.next().await {
            known.take(&batch?);
        }
        let named = uses_of(&session, &uses)?.filter(col("name").is_not_null())?;
        let mut rows = named
            .select_columns(&["principal", "things"])?
            .execute_stream()
            .await?;
        while let Some(batch) = rows.next().await {
            known.take_uses(&batch?)?;
        }
        session.register_batch("known", known.batch()?)?;
        store.collect(session.sql(NEW).await?, MAX_ROWS).await
    }
}

/// Of principals and objects that are asked about, in which ways each was used before.
#[derive(Default)]
struct Known {
    principals: HashMap<String, usize>,
    objects: HashMap<String, usize>,
    /// By principal and object; nothing of others.
    access: HashMap<(usize, usize), BTreeSet<String>>,
}

impl Known {
    /// Of these, nothing yet.
    fn of(asked: &[RecordBatch]) -> Self {
        let mut known = Self::default();
        let number = |texts: &mut HashMap<String, usize>, text: &str| {
            let next = texts.len();
            *texts.entry(text.to_owned()).or_insert(next)
        };
        for (principal, object) in asked.iter().flat_map(pairs) {
            let principal = number(&mut known.principals, principal);
            let object = number(&mut known.objects, object);
            known.access.entry((principal, object)).or_default();
        }
        known
    }

    fn take(&mut self, rows: &RecordBatch) {
        for (principal, thing) in pairs(rows) {
            if let Some(principal) = self.principals.get(principal).copied()
                && let Some((access, object)) = self.asked(thing)
            {
                self.add(principal, object, access);
            }
        }
    }

    /// What is put together: what each of its texts means is found once for all rows that share it.
    fn take_uses(&mut self, rows: &RecordBatch) -> Result<()> {
        let [principals, things] = rows.columns() else {
            return exec_err!("uses are principals and things");
        };
        let (principals, things) = (
            principals.as_dictionary::<Int32Type>(),
            things.as_dictionary::<Int32Type>(),
        );
        let number = |principal: Option<&str>| self.principals.get(principal.unwrap_or(UNKNOWN)).copied();
        let who: Vec<Option<usize>> = principals
            .values()
            .as_string::<i32>()
            .iter()
            .map(number)
            .collect();
        let nobody = number(None);
        let lists = things.values().as_string::<i32>();
        let mut what: Vec<Option<Vec<(usize, String)>>> = vec![None; lists.len()];
        for row in 0..rows.num_rows() {
            let principal = principals
                .key(row)
                .map_or(nobody, |key| who.get(key).copied().flatten());
            let (Some(principal), Some(key)) = (principal, things.key(row)) else {
                continue;
            };
            let Some(list) = what.get_mut(key) else { continue };
            let list = list.get_or_insert_with(|| {
                let asked = |thing: std::borrow::Cow<'_, str>| {
                    let (access, object) = self.asked(&thing)?;
                    Some((object, access.to_owned()))
                };
                table::apart(lists.value(key)).filter_map(asked).collect()
            });
            for (object, access) in list {
                self.add(principal, *object, access);
            }
        }
        Ok(())
    }

    /// How a thing is used, and which of the objects that are asked about it is.
    fn asked<'a>(&self, thing: &'a str) -> Option<(&'a str, usize)> {
        let (access, object) = thing.split_once(' ')?;
        Some((access, *self.objects.get(object)?))
    }

    fn add(&mut self, principal: usize, object: usize, access: &str) {
        if let Some(known) = self.access.get_mut(&(principal, object))
            && !known.contains(access)
        {
            known.insert(access.to_owned());
        }
    }

    fn batch(&self) -> Result<RecordBatch> {
        let texts = |numbers: &HashMap<String, usize>| {
            let mut texts = vec![String::new(); numbers.len()];
            for (text, number) in numbers {
                if let Some(place) = texts.get_mut(*number) {
                    place.clone_from(text);
                }
            }
            texts
        };
        let (principals, objects) = (texts(&self.principals), texts(&self.objects));
        let mut columns: [StringBuilder; 3] = Default::default();
        for ((principal, object), known) in &self.access {
            for access in known {
                let texts = [principals.get(*principal), objects.get(*object), Some(access)];
                for (column, text) in columns.iter_mut().zip(texts) {
                    column.append_option(text);
                }
            }
        }
        let [principals, objects, ways] = columns.map(|mut column| Arc::new(column.finish()) as ArrayRef);
        let columns = [("principal", principals), ("object", objects), ("access", ways)];
        Ok(RecordBatch::try_from_iter(columns)?)
    }
}

/// The texts of two columns, where both are there.
fn pairs(rows: &RecordBatch) -> impl Iterator<Item = (&str, &str)> {
    let column = |n: usize| {
        rows.columns()
            .get(n)
            .and_then(|column| column.as_string_opt::<i32>())
    };
    let rows = column(0)
        .zip(column(1))
        .map(|(first, second)| first.iter().zip(second));
    rows.into_iter()
        .flatten()
        .filter_map(|(first, second)| first.zip(second))
}

/// What principals did to objects, a thing a row. Statements alike come together first: what makes lists is slow for each.
const FRESH: &str = "WITH alike AS (\
      SELECT principal, thing, object, access, confidence, command, sum(executions) AS statements, \
        sum(executions) FILTER (WHERE outcome = 'error') AS failed, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
        min(ts_start) AS first_seen, max(ts_start) AS last_seen, \
        min(in_order(ts_start, log_index, seq, event_id)) FILTER (WHERE ts_start IS NOT NULL) AS first \
      FROM one GROUP BY principal, thing, object, access, confidence, command) \
    SELECT principal, object, access, \
      array_sort(array_agg(DISTINCT confidence) FILTER (WHERE confidence IS NOT NULL)) AS confidence, \
      array_sort(array_agg(DISTINCT command) FILTER (WHERE command IS NOT NULL)) AS commands, \
      sum(statements) AS statements, coalesce(sum(failed), 0) AS failed, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
      min(first_seen) AS first_seen, max(last_seen) AS last_seen, event_of(min(first)) AS first_event \
    FROM alike GROUP BY principal, thing, object, access HAVING min(first_seen) IS NOT NULL";

/// Who used what before, as often as it was: what repeats is not worth finding, as only what is asked about is kept.
const FORMER: &str = "SELECT coalesce(principal, 'unknown') AS who, unnest(touched(objects, object_access)) AS thing FROM former";

/// Who nobody is.
const UNKNOWN: &str = "unknown";

/// What was done to the object by the same principal before, in other ways, tells a new way from a new object.
const NEW: &str = "WITH before AS (SELECT principal, object, array_sort(array_agg(access)) AS known_access FROM known GROUP BY principal, object) \
    SELECT n.principal, n.confidence, n.object, n.access, b.known_access, n.commands, n.statements, n.failed, n.rows, n.rows_affected, \
      n.first_seen, n.last_seen, n.first_event \
    FROM fresh n LEFT JOIN before b ON n.principal = b.principal AND n.object = b.object \
    WHERE NOT EXISTS (SELECT 1 FROM known k WHERE k.principal = n.principal AND k.object = n.object AND k.access = n.access) \
    ORDER BY n.first_seen DESC, n.principal, n.object, n.access";
