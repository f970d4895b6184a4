//! What a server is asked: a fixed set of questions, each with a limit, all of them answered as of one moment.
//!
//! Names of the server's own are written with their schema, because `search_path` is the operator's. Nothing is written.

use anyhow::{Context as _, bail, ensure};
use tap_core::catalog::{
    MAX_COLUMNS, MAX_FUNCTIONS, MAX_GRANTS, MAX_NAME_BYTES, MAX_PATHS, MAX_RELATIONS, MAX_ROLES, MAX_SCHEMAS,
};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::protocol::{ROWS_BYTES, Said};
use crate::clock::boot_ns;

/// Everything that is asked, in the order in which it is told.
pub(super) async fn look(client: &Client, application: &str) -> anyhow::Result<(Said, Vec<Said>)> {
    // As the session would have it: neither of this role nor of this database, else the server's own cannot be seen.
    let path = rows(
        client,
        "RESET search_path; SELECT s.setting, s.source FROM pg_catalog.pg_settings s \
         WHERE s.name OPERATOR(pg_catalog.=) 'search_path'",
        1,
    )
    .await?;
    let path = path.first().and_then(|row| {
        let of_server = [
            "default",
            "configuration file",
            "command line",
            "environment variable",
        ];
        let source = row.get(1).filter(|source| of_server.contains(source));
        source.and(row.get(0)).map(str::to_owned)
    });
    let at = boot_ns();
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = ''")
        .await?;
    let asked = ask(client).await;
    client.batch_execute("ROLLBACK").await?;
    let (standby, parts) = asked?;
    let began = Said::Began {
        at,
        application: application.to_owned(),
        standby,
        path: path.filter(|path| path.len() <= MAX_PATH_BYTES),
    };
    Ok((began, parts))
}

async fn ask(client: &Client) -> anyhow::Result<(bool, Vec<Said>)> {
    let mut parts = Parts::default();
    let standby = rows(client, "SELECT pg_catalog.pg_is_in_recovery()", 1).await?;
    let standby = standby.first().and_then(|row| row.get(0)) == Some("t");
    parts.take(
        list(client, SCHEMAS, "schemas", MAX_SCHEMAS).await?,
        Said::Schemas,
        |row| Some((oid(row, 0)?, name(row, 1)?, truth(row, 2))),
    )?;
    parts.take(
        list(client, ROLES, "roles", MAX_ROLES).await?,
        Said::Roles,
        |row| Some((oid(row, 0)?, name(row, 1)?, truth(row, 2))),
    )?;
    let grants = list(client, GRANTS, "grants of schemas to roles", MAX_GRANTS).await?;
    parts.take(grants, Said::Grants, |row| Some((oid(row, 0)?, oid(row, 1)?)))?;
    let paths = list(client, PATHS, "settings of search_path", MAX_PATHS).await?;
    parts.take(paths, Said::Paths, |row| {
        let path = row.get(2)?.split_once('=')?.1;
        // A path that is too long leads nowhere: names of its sessions stay as written.
        let path = if path.len() <= MAX_PATH_BYTES { path } else { "," };
        Some((truth(row, 0), name(row, 1)?, path.to_owned()))
    })?;
    let relations = list(client, RELATIONS, "tables", MAX_RELATIONS).await?;
    parts.take(relations, Said::Relations, |row| {
        let kind = row.get(3)?.chars().next()?;
        Some((oid(row, 0)?, oid(row, 1)?, name(row, 2)?, kind, truth(row, 4)))
    })?;
    // What `*` stands for is told without them by results alone.
    if let Ok(columns) = list(client, COLUMNS, "columns", MAX_COLUMNS).await {
        parts.take(columns, Said::Columns, |row| {
            Some((oid(row, 0)?, row.get(1)?.parse().ok()?, name(row, 2)?))
        })?;
    }
    let functions = list(client, FUNCTIONS, "functions", MAX_FUNCTIONS).await?;
    parts.take(functions, Said::Functions, |row| {
        Some((oid(row, 0)?, name(row, 1)?))
    })?;
    Ok((standby, parts.0))
}

/// Bytes of a path that is followed: what a session sets is kept up to less.
const MAX_PATH_BYTES: usize = 4096;

/// One row more than there may be tells that there are too many.
async fn list(client: &Client, sql: &str, what: &str, most: usize) -> anyhow::Result<Vec<SimpleQueryRow>> {
    let rows = rows(client, &format!("{sql} LIMIT {}", most + 1), most + 1).await?;
    ensure!(
        rows.len() <= most,
        "it has more than {most} {what}, which is too much to be looked at"
    );
    Ok(rows)
}

async fn rows(client: &Client, sql: &str, most: usize) -> anyhow::Result<Vec<SimpleQueryRow>> {
    let answer = client.simple_query(sql).await.context("asking its catalog")?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let rows: Vec<_> = rows.collect();
    ensure!(rows.len() <= most, "it answered more rows than were asked for");
    Ok(rows)
}

/// Rows as they are told: no part longer than [`ROWS_BYTES`].
#[derive(Default)]
struct Parts(Vec<Said>);

impl Parts {
    fn take<T: serde::Serialize>(
        &mut self,
        rows: Vec<SimpleQueryRow>,
        part: impl Fn(Vec<T>) -> Said,
        read: impl Fn(&SimpleQueryRow) -> Option<T>,
    ) -> anyhow::Result<()> {
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let Some(told) = read(&row) else {
                bail!("it answered what is no row of a catalog");
            };
            let length = serde_json::to_string(&told)?.len() + 1;
            if bytes + length > ROWS_BYTES {
                self.0.push(part(std::mem::take(&mut gathered)));
                bytes = 0;
            }
            bytes += length;
            gathered.push(told);
        }
        if !gathered.is_empty() {
            self.0.push(part(gathered));
        }
        Ok(())
    }
}

fn oid(row: &SimpleQueryRow, column: usize) -> Option<u32> {
    row.get(column)?.parse().ok()
}

fn name(row: &SimpleQueryRow, column: usize) -> Option<String> {
    let name = row.get(column)?;
    (name.len() <= MAX_NAME_BYTES).then(|| name.to_owned())
}

fn truth(row: &SimpleQueryRow, column: usize) -> bool {
    row.get(column) == Some("t")
}

/// Of TOAST tables nobody speaks.
const SCHEMAS: &str = "SELECT n.oid, n.nspname, pg_catalog.has_schema_privilege('public', n.oid, 'USAGE') \
    FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.!~) '^pg_toast'";

const ROLES: &str = "SELECT r.oid, r.rolname, r.rolsuper FROM pg_catalog.pg_roles r";

const GRANTS: &str = "SELECT n.oid, r.oid FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles r \
    WHERE n.nspname OPERATOR(pg_catalog.!~) '^pg_(toast|temp)' AND NOT r.rolsuper \
    AND NOT pg_catalog.has_schema_privilege('public', n.oid, 'USAGE') \
    AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')";

const PATHS: &str = "SELECT s.setdatabase OPERATOR(pg_catalog.<>) 0, COALESCE(r.rolname, ''), c.c \
    FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c(c) \
    LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) s.setrole \
    LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase \
    WHERE c.c OPERATOR(pg_catalog.~) '^search_path=' AND (s.setdatabase OPERATOR(pg_catalog.=) 0 \
    OR d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())";

const RELATIONS: &str = "SELECT c.oid, c.relnamespace, c.relname, c.relkind, c.relispartition \
    FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.<>) 't'";

const COLUMNS: &str = "SELECT a.attrelid, a.attnum, a.attname FROM pg_catalog.pg_attribute a \
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped \
    AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.\"char\"[]) \
    AND n.nspname OPERATOR(pg_catalog.!~) '^(pg_|information_schema$)' ORDER BY a.attrelid, a.attnum";

const FUNCTIONS: &str =
    "SELECT p.pronamespace, p.proname FROM pg_catalog.pg_proc p GROUP BY p.pronamespace, p.proname";
