//! Making a day's file of uses.
//!
//! Owns when, the SQL, and that a file counts only if nothing was said of its sessions while it was being made. One processor is enough
//! for it, and only what others leave of it: it is nobody's answer. Refuses to touch what it is made of.

use std::sync::Arc;

use anyhow::ensure;
use datafusion::{
    arrow::{array::AsArray, datatypes::Int64Type},
    common::DFSchema,
    parquet::arrow::ArrowWriter,
    prelude::SessionContext,
};
use futures::StreamExt;

use super::{
    Due, Nameable, digest,
    table::{self, PART},
};
use crate::store::{
    Store, amendments, background, columns,
    manifest::{USES, UsesFile},
    parts::{Derived, MANNER, TEMPLATE},
    seal,
    sealed::EventFiles,
    touching::HIDDEN,
};

impl Store {
    /// Puts days together as long as some should be.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written: nothing is lost by that but time.
    pub async fn put_uses_together(self: &Arc<Self>) -> anyhow::Result<()> {
        ensure!(self.writable, "the store was opened for reading");
        loop {
            // What came is made ready for questions first: this makes them shorter, and can be done at any time.
            if self.is_pressed() {
                return Ok(());
            }
            // Files are neither put together nor erased meanwhile.
            let _one = self.compacting.lock().await;
            let manifest = self.state().manifest.clone();
            let due = {
                let uses = self.uses();
                uses.due(&manifest, &self.open_hours(), self.options.uses_after)
            };
            let Some(due) = due else { return Ok(()) };
            let date = due.date.clone();
            if let Err(error) = self.put_day_together(due).await {
                self.uses().failed.insert(date.clone());
                return Err(error.context(format!("{date} is read statement by statement")));
            }
        }
    }

    async fn put_day_together(self: &Arc<Self>, due: Due) -> anyhow::Result<()> {
        self.uses().named_meanwhile = Some(Vec::new());
        let built_to = self.state().next;
        let (here, of) = (Arc::clone(self), due.of.clone());
        let made = background::run(async move { here.make(&of).await }).await;
        let named = self.uses().named_meanwhile.take().unwrap_or_default();
        let (bytes, rows, nameable) = made??;
        if named.iter().any(|named| nameable.has(named)) {
            // Another round makes it anew.
            self.uses().wait(&due.date);
            return Ok(());
        }
        let stem = format!("{USES}/{}/{built_to:012}", due.date);
        // Another one of the same moment would be another one's.
        let distinct = self
            .state()
            .manifest
            .uses
            .iter()
            .filter(|uses| uses.file.path.starts_with(&stem))
            .count();
        let stem = format!("{stem}-{distinct}");
        let packed = nameable.to_bytes();
        let uses = UsesFile {
            date: due.date,
            file: seal::put(&self.objects, format!("{stem}.parquet"), bytes, rows).await?,
            nameable: seal::put(&self.objects, format!("{stem}.nameable"), packed, 0).await?,
            of: due.of,
            built_to,
        };
        self.uses().add(&uses, nameable);

        let _no_seal = self.sealing.lock().await;
        let mut manifest = self.state().manifest.clone();
        let is_former = |former: &UsesFile| former.date == uses.date;
        let former: Vec<UsesFile> = manifest.uses.extract_if(.., |former| is_former(former)).collect();
        manifest.uses.push(uses);
        manifest.write(&self.objects).await?;
        self.uses().retain(&manifest);
        let former = former
            .into_iter()
            .flat_map(|former| [former.file, former.nameable]);
        self.state().replaced(manifest, former.collect());
        Ok(())
    }

    /// The rows of a file of these files' rows, how many they are, and what of them could be called something else.
    async fn make(&self, of: &[String]) -> anyhow::Result<(Vec<u8>, u64, Nameable)> {
        let view = self.amendments.view();
        let now = self.snapshot();
        let session = self.reading(&now);
        {
            let state = session.state_ref();
            state
                .write()
                .config_mut()
                .options_mut()
                .execution
                .target_partitions = 1;
        }
        table::register_making(&session);
        let day = self.events(&session, EventFiles::all(of), &[], &derived(&session)?, view)?;
        session.register_table("day", day.into_view())?;
        let kept = self.events(
            &session,
            EventFiles::all(of),
            &[],
            &[],
            amendments::View::default(),
        )?;
        session.register_table("recorded", kept.into_view())?;

        let mut rows = session.sql(&making()).await?.execute_stream().await?;
        let mut file = ArrowWriter::try_new(Vec::new(), table::schema(), Some(table::properties()?))?;
        let mut written = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            written += batch.num_rows() as u64;
            file.write(&table::as_stored(&batch)?)?;
        }
        let bytes = file.into_inner()?;

        let mut rows = session.sql(SESSIONS).await?.execute_stream().await?;
        let mut nameable = Nameable::default();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let [agents, names, first, last] = batch.columns() else {
                anyhow::bail!("expected four columns");
            };
            let (agents, names) = (agents.as_string::<i32>(), names.as_string::<i32>());
            let (first, last) = (
                first.as_primitive::<Int64Type>(),
                last.as_primitive::<Int64Type>(),
            );
            for row in 0..batch.num_rows() {
                let agent = agents.value(row);
                let own = (first.value(row).cast_unsigned(), last.value(row).cast_unsigned());
                nameable.sessions.push(digest(&[agent, names.value(row)]));
                let seqs = nameable.seqs.entry(digest(&[agent])).or_insert(own);
                *seqs = (seqs.0.min(own.0), seqs.1.max(own.1));
            }
        }
        nameable.sessions.sort_unstable();
        nameable.sessions.dedup();
        Ok((bytes, written, nameable))
    }
}

/// What follows from template or manner alone is worked out once for each.
fn derived(session: &SessionContext) -> anyhow::Result<Vec<Derived>> {
    let schema = DFSchema::try_from(columns::schema().as_ref().clone())?;
    let of = |name, part, sql: &str| -> anyhow::Result<Derived> {
        let of = session.parse_sql_expr(sql, &schema)?;
        Ok(Derived { name, part, of })
    };
    Ok(vec![
        of("things", TEMPLATE, "things_of(objects, object_access)")?,
        of("hidden", TEMPLATE, HIDDEN)?,
        of("ways", MANNER, "ways_of(subject_ways)")?,
        of("in_part", MANNER, "told_in_part(subject_ways)")?,
        of(
            "refused",
            MANNER,
            "CASE WHEN phase = 'parse' AND outcome = 'error' THEN true ELSE false END",
        )?,
    ])
}

/// Statements alike first, then one row for each name, then those alike again.
fn making() -> String {
    format!(
        "WITH alike AS (\
           SELECT principal, confidence, command, hidden, refused, things, ways, CASE WHEN in_part THEN log_index END AS log_index, \
             CASE WHEN in_part THEN seq END AS seq, sum(executions) AS executions, min(ts_start) AS first_seen, max(ts_start) AS last_seen \
           FROM day WHERE executions IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9), \
         spread AS (SELECT *, unnest(uses_of(hidden, things, ways)) AS entry FROM alike), \
         named AS (\
           SELECT nullif(split_part(entry, '{PART}', 1), '') AS name, principal, confidence, command, \
             CASE WHEN split_part(entry, '{PART}', 1) = '' THEN hidden END AS hidden, refused, \
             split_part(entry, '{PART}', 2) AS things, split_part(entry, '{PART}', 3) AS ways, log_index, seq, executions, first_seen, last_seen \
           FROM spread) \
         SELECT arrow_cast(NULL, 'Utf8') AS kind, name, principal, confidence, command, hidden, refused, things, ways, log_index, seq, \
           sum(executions) AS executions, arrow_cast(NULL, 'Int64') AS left_out, min(first_seen) AS first_seen, max(last_seen) AS last_seen \
         FROM named GROUP BY name, principal, confidence, command, hidden, refused, things, ways, log_index, seq \
         UNION ALL \
         SELECT kind, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, count(*), max(left_out), min(ts_start), max(ts_start) \
         FROM day GROUP BY kind \
         ORDER BY name NULLS FIRST"
    )
}

/// What its own kernel saw at both ends keeps its name, but for containers, which may be pods.
const SESSIONS: &str = "SELECT agent, coalesce(client_session, session_id) AS session, min(seq), max(seq) FROM recorded \
    WHERE (confidence IS NULL OR confidence <> 'observed' OR principal_kind = 'container') AND agent IS NOT NULL AND coalesce(client_session, session_id) IS NOT NULL GROUP BY 1, 2";
