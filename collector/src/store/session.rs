//! One question, one DataFusion session: sealed files and tail as they were at the moment of asking, read-only.
//!
//! Owns the tables that SQL sees:
//!
//! | table | rows |
//! |---|---|
//! | `events` | everything; the column `event` is shown in its JSON form |
//! | `subjects` | whose records statements touched: one for each token |
//! | `queries` | the events of kind `query` and `rollup`; `sum(executions)` counts statements |
//! | `sessions` | one for each session: role, database, principals, statements, rows, first and last seen |
//! | `principals` | one for each principal: roles, databases, objects, statements, rows, errors, first and last seen |
//! | `inventory` | one for each entry of the inventory that is in effect |
//! | `gaps` | what was not seen: gaps and opaque sessions |
//!
//! Refuses everything but reading: one SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE.

use std::sync::Arc;

use datafusion::{
    arrow::{array::RecordBatch, datatypes::DataType},
    common::Result,
    functions::expr_fn::concat,
    logical_expr::Expr,
    prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext, cast, col, lit},
};

use futures::StreamExt;

use super::{
    Snapshot, Store,
    amended::Amended,
    amendments::View,
    chunk::Chunk,
    columns::COLUMNS,
    compact::Reading,
    events,
    every::every,
    holding,
    manifest::UsesFile,
    marks,
    parts::{self, Derived},
    sealed::{EventFiles, sealed},
    subjects, touching,
    unsealed::{Table, Unsealed},
    uses::{self, table},
};

impl Store {
    /// A session over the store as it is now.
    pub(super) async fn session(&self) -> Result<SessionContext> {
        let now = self.snapshot();
        let session = self.reading(&now);
        self.fill(&session, &now).await?;
        Ok(session)
    }

    /// A session for whoever stays: [`Store::renew`] gives it its tables, before each question anew.
    pub(crate) fn lasting(&self, catalog: &str) -> SessionContext {
        let config = config().with_default_catalog_and_schema(catalog, "public");
        SessionContext::new_with_config_rt(config, self.runtime.clone())
    }

    /// Gives a session the tables as they are now.
    pub(crate) async fn renew(&self, session: &SessionContext) -> Result<()> {
        self.release(session)?;
        let now = self.snapshot();
        let state = session.state_ref();
        state.write().config_mut().set_extension(Arc::clone(&now.reading));
        self.fill(session, &now).await
    }

    /// Takes them again: what they hold can go, once the answers that read it have ended.
    pub(crate) fn release(&self, session: &SessionContext) -> Result<()> {
        for table in TABLES {
            session.deregister_table(*table)?;
        }
        let state = session.state_ref();
        state.write().config_mut().set_extension(Arc::new(Reading));
        Ok(())
    }

    async fn fill(&self, session: &SessionContext, now: &Snapshot) -> Result<()> {
        let view = self.amendments.view();
        let events = self.events(session, EventFiles::all(&now.files), &now.chunks, &[], view)?;
        session.register_udf(holding::may_hold());
        session.register_udaf(every());
        touching::register(session);
        let subjects = subjects_of(session, now)?;
        session.register_table("subjects", subjects.into_view())?;
        let judge = self.judge();
        let events = marks::marked(events, judge.as_ref())?;
        session.register_table("events", events.into_view())?;
        session.register_batch("inventory", marks::entries(judge.as_ref())?)?;
        for (name, sql) in [
            ("queries", QUERIES.to_owned()),
            ("sessions", SESSIONS.to_owned()),
            ("gaps", GAPS.to_owned()),
            ("principals", principals("queries")),
        ] {
            let view = session.sql(&sql).await?.into_view();
            session.register_table(name, view)?;
        }
        Ok(())
    }

    /// The events of these files and chunks, under the names that `view` has for them, with columns that follow from theirs.
    pub(super) fn events(
        &self,
        session: &SessionContext,
        files: EventFiles,
        chunks: &[Arc<Chunk>],
        derived: &[Derived],
        view: View,
    ) -> Result<DataFrame> {
        let stored = COLUMNS.iter().map(|(name, _)| col(*name));
        let also = derived.iter().map(|one| one.of.clone().alias(one.name));
        let chunks = chunks.to_vec();
        let unsealed = session.read_table(Arc::new(Unsealed {
            table: Table::Events,
            chunks,
        }))?;
        let mut events = unsealed.select(stored.chain(also).collect::<Vec<_>>())?;
        if !files.is_empty() {
            let sealed = session.read_table(Arc::new(files))?;
            events = sealed
                .select(parts::columns_of_files(session, derived)?)?
                .union(events)?;
        }
        let mut shown = shown_columns(&Amended::new(view));
        shown.extend(derived.iter().map(|one| col(one.name)));
        events.select(shown)
    }

    /// From now on, what `originator` said and says of sessions counts, and nobody else's word. To be called before
    /// anything is appended.
    ///
    /// # Errors
    ///
    /// When the store's files cannot be read.
    pub async fn believe(&self, originator: &str) -> Result<()> {
        self.amendments.believe(originator);
        let now = self.snapshot();
        if now.files.is_empty() {
            return Ok(());
        }
        let session = self.reading(&now);
        let columns = parts::columns_of_files(&session, &[])?;
        let columns = columns
            .into_iter()
            .filter(|column| AMENDMENT.contains(&column.name_for_alias().unwrap_or_default().as_str()));
        let rows = session
            .read_table(sealed(&now.files, parts::file_schema())?)?
            .filter(
                col("kind")
                    .eq(lit("attribution"))
                    .and(col("agent").eq(lit(originator))),
            )?
            .select(
                columns
                    .chain([col(parts::PARTY), col(parts::MANNER)])
                    .collect::<Vec<_>>(),
            )?;
        let mut batches = rows.execute_stream().await?;
        let mut stored = Vec::new();
        while let Some(batch) = batches.next().await {
            parts::amendments(&batch?, &mut stored)?;
        }
        for one in &stored {
            self.uses().named(
                one.log_index,
                &[uses::Named::new(&one.agent, &one.session, &one.events)],
            );
        }
        self.amendments.take_stored(stored);
        Ok(())
    }

    /// A session that keeps the files which it reads, to the end of its last answer.
    pub(super) fn reading(&self, now: &Snapshot) -> SessionContext {
        let config = config().with_extension(Arc::clone(&now.reading));
        SessionContext::new_with_config_rt(config, self.runtime.clone())
    }
}

/// The table `subjects`.
pub(super) fn subjects_of(session: &SessionContext, now: &Snapshot) -> Result<DataFrame> {
    let chunks = now.chunks.clone();
    let mut subjects = session.read_table(Arc::new(Unsealed {
        table: Table::Subjects,
        chunks,
    }))?;
    if !now.subjects.is_empty() {
        let sealed = sealed(&now.subjects, subjects::schema())?;
        subjects = session.read_table(sealed)?.union(subjects)?;
    }
    subjects.select(shown_subjects())
}

/// What is put together in these files; none has none.
pub(super) fn uses_of(session: &SessionContext, files: &[&UsesFile]) -> Result<DataFrame> {
    if files.is_empty() {
        return session.read_batch(RecordBatch::new_empty(table::schema()));
    }
    let paths: Vec<String> = files.iter().map(|uses| uses.file.path.clone()).collect();
    session.read_table(sealed(&paths, table::schema())?)
}

/// The columns of a file that say which event an amendment is, in the order that [`parts::amendments`] takes them in.
const AMENDMENT: &[&str] = &["seq", "log_index"];

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(true);
    let parquet = &mut config.options_mut().execution.parquet;
    parquet.pushdown_filters = true;
    // Text columns keep the type that the tail has.
    parquet.schema_force_view_types = false;
    config
}

/// The stored columns as they are shown, and those that follow from them.
fn shown_columns(amended: &Amended) -> Vec<Expr> {
    let mut event_id = Some(event_id());
    let mut shown = Vec::new();
    for (name, _) in COLUMNS {
        if *name == "agent" {
            shown.extend(event_id.take());
        }
        shown.push(amended.column(name));
    }
    shown.push(amended.amended_by());
    let name = events::name_function().call(vec![col("log_index"), col("seq")]);
    shown.push(name.alias("event"));
    shown
}

/// The columns of `subjects` as they are shown.
fn shown_subjects() -> Vec<Expr> {
    let schema = subjects::schema();
    let mut shown: Vec<Expr> = schema.fields().iter().map(|field| col(field.name())).collect();
    shown.insert(1, event_id());
    shown
}

/// An event's name, of a row with its agent and number.
fn event_id() -> Expr {
    let seq = cast(col("seq"), DataType::Utf8);
    concat(vec![col("agent"), lit("-"), seq]).alias("event_id")
}

/// Plans `sql`, which comes from outside.
pub(super) async fn plan(session: &SessionContext, sql: &str) -> Result<DataFrame> {
    session.sql_with_options(sql, read_only()).await
}

/// What statements from outside may do.
pub(crate) fn read_only() -> SQLOptions {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

/// What each principal of `source` (a table or a query in parentheses, written by this program) did.
pub(super) fn principals(source: &str) -> String {
    format!(
        "SELECT coalesce(principal, 'unknown') AS principal, max(principal_kind) AS principal_kind, every(confidence) AS confidence, \
                max(method) AS method, max(reason) AS reason, every(login_role) AS roles, every(database) AS databases, \
                every(application_name) AS application_names, max(exe) AS exe, max(command_line) AS command_line, \
                sum(executions) AS statements, sum(rows) AS rows, sum(rows_affected) AS rows_affected, \
                coalesce(sum(executions) FILTER (WHERE outcome = 'error'), 0) AS errors, every(objects) AS objects, \
                min(ts_start) AS first_seen, max(ts_start) AS last_seen \
         FROM {source} GROUP BY 1"
    )
}

/// The tables of a session.
const TABLES: &[&str] = &[
    "events",
    "subjects",
    "queries",
    "sessions",
    "principals",
    "inventory",
    "gaps",
];

const QUERIES: &str = "SELECT * FROM events WHERE kind IN ('query', 'rollup')";

const GAPS: &str = "SELECT * FROM events WHERE kind IN ('gap', 'opaque_session')";

const SESSIONS: &str = "SELECT agent, session_id, max(backend_pid) AS backend_pid, max(login_role) AS login_role, \
    max(database) AS database, max(application_name) AS application_name, max(transport) AS transport, \
    max(encryption) AS encryption, max(client_addr) AS client_addr, max(client_port) AS client_port, \
    array_sort(array_agg(DISTINCT principal) FILTER (WHERE principal IS NOT NULL)) AS principals, \
    max(amended_by) AS amended_by, \
    CASE WHEN bool_or(expected = 'unexpected') THEN 'unexpected' \
         WHEN bool_or(expected = 'not in inventory') THEN 'not in inventory' ELSE max(expected) END AS expected, \
    nullif(array_to_string(array_sort(array_agg(DISTINCT unexpected_because) \
         FILTER (WHERE unexpected_because IS NOT NULL)), '; '), '') AS unexpected_because, \
    coalesce(sum(executions), 0) AS statements, sum(rows) AS rows, \
    bool_or(kind = 'session_close') AS closed, min(ts_start) AS first_seen, max(ts_start) AS last_seen \
    FROM events WHERE session_id IS NOT NULL GROUP BY agent, session_id";
