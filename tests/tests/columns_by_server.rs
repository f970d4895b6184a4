//! The columns in `tests/corpus/meaning/columns.tsv` against those that PostgreSQL itself finds in the same statements: a
//! function with a body in `BEGIN ATOMIC` depends on every column that its statements name, and `pg_depend` tells which.
//!
//! What is not exact must name no other column; what is exact must name just these.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use pgwitness_tests::cluster::{Cluster, Witness};
use tokio_postgres::Client;

/// Commands that no function can hold, or whose columns are those of the query in them.
const NOT_ASKED: [&str; 8] = [
    "COPY",
    "PREPARE",
    "DECLARE",
    "CREATE",
    "TRUNCATE",
    "LOCK",
    "EXPLAIN",
    "SELECT name INTO",
];

/// Parts of statements whose dependencies say something else, with the reason.
const OTHERWISE: [(&str, &str); 7] = [
    ("SELECT customers FROM", "a whole row depends on no column"),
    ("row_to_json(c)", "the same"),
    ("to_jsonb(c.*)", "the same"),
    ("count(c.*)", "the same"),
    ("DO UPDATE SET", "`excluded` depends on all columns"),
    (
        "MERGE INTO customers c USING orders",
        "actions of MERGE are not looked into before PostgreSQL 17",
    ),
    ("0x2a", "such numbers are read since PostgreSQL 16"),
];

/// Columns by table; of a line of the corpus also whether that is exact.
type Named = BTreeMap<String, BTreeSet<String>>;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_finds_the_same_columns() {
    let mut cluster = match Cluster::init(Witness::Silent) {
        Ok(cluster) => cluster,
        Err(error) => return eprintln!("not run: {error:#}"),
    };
    cluster.start().await.unwrap();
    let admin = cluster.superuser("postgres").await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/meaning");
    let tables = fs::read_to_string(folder.join("columns.sql")).expect("in the repository");
    admin.batch_execute(&tables).await.unwrap();
    let all = all_columns(&admin).await;
    let corpus = fs::read_to_string(folder.join("columns.tsv")).expect("in the repository");
    let (mut asked, mut wrong) = (0, Vec::new());
    for line in corpus.lines() {
        let Some((sql, said)) = line.split_once('\t') else {
            continue;
        };
        let skipped = NOT_ASKED.iter().any(|head| sql.starts_with(head))
            || OTHERWISE.iter().any(|(part, _)| sql.contains(part));
        if skipped {
            continue;
        }
        asked += 1;
        match dependencies(&admin, sql).await {
            Ok(found) => {
                wrong.extend(compare(said, &found, &all).map(|table| format!("{sql}: {table}: {found:?}")));
            }
            Err(error) => wrong.push(format!("{sql}: {error:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 180, "{asked}");
    println!(
        "{asked} statements name the columns that {} finds in them",
        cluster.version()
    );
}

async fn all_columns(admin: &Client) -> Named {
    let rows = admin
        .query(
            "SELECT attrelid::regclass::text, attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                WHERE attnum > 0 AND relkind = 'r' AND relnamespace IN ('public'::regnamespace, 's'::regnamespace)",
            &[],
        )
        .await
        .unwrap();
    let mut all = Named::new();
    for row in rows {
        all.entry(plain(row.get(0))).or_default().insert(row.get(1));
    }
    all
}

/// What the server finds in a statement.
async fn dependencies(admin: &Client, sql: &str) -> Result<Named, tokio_postgres::Error> {
    let prepared = admin.prepare(sql).await?;
    let types: Vec<&str> = prepared
        .params()
        .iter()
        .map(tokio_postgres::types::Type::name)
        .collect();
    let function = format!(
        "CREATE FUNCTION asked({}) RETURNS void LANGUAGE sql BEGIN ATOMIC {sql}; END",
        types.join(",")
    );
    admin.batch_execute("BEGIN").await?;
    let found = async {
        admin.batch_execute(&function).await?;
        let rows = admin
            .query(
                "SELECT refobjid::regclass::text, attname::text FROM pg_depend
                    LEFT JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid AND refobjsubid > 0
                    WHERE classid = 'pg_proc'::regclass AND objid = 'asked'::regproc AND refclassid = 'pg_class'::regclass",
                &[],
            )
            .await?;
        let mut found = Named::new();
        for row in rows {
            let columns = found.entry(plain(row.get(0))).or_default();
            columns.extend(row.get::<_, Option<String>>(1));
        }
        Ok(found)
    };
    let found = found.await;
    admin.batch_execute("ROLLBACK").await?;
    found
}

/// Tables of which something else is said than the server finds.
fn compare<'a>(said: &'a str, found: &'a Named, all: &'a Named) -> impl Iterator<Item = String> + 'a {
    let mut named: BTreeMap<String, (BTreeSet<String>, bool)> = BTreeMap::new();
    for object in said.split("; ") {
        let Some(rest) = ["read ", "write "]
            .iter()
            .find_map(|access| object.strip_prefix(access))
        else {
            continue;
        };
        let name = rest.split(['(', ' ']).next().unwrap_or_default();
        let name = plain(name.to_owned());
        let rest = rest
            .split_once(name.rsplit('.').next().unwrap_or_default())
            .map_or("", |(_, rest)| rest);
        let list = |from: &str| {
            let list = from.strip_prefix('(').and_then(|list| list.split_once(')'));
            list.map_or("", |(list, _)| list)
                .split(',')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let entry = named
            .entry(name.clone())
            .or_insert_with(|| (BTreeSet::new(), true));
        entry.0.extend(list(rest));
        entry.0.extend(
            rest.split_once(" by")
                .map(|(_, by)| list(by))
                .into_iter()
                .flatten(),
        );
        if object.contains(" all") {
            entry.0.extend(all.get(&name).into_iter().flatten().cloned());
        }
        entry.1 &= !object.contains(" inexact");
    }
    // System columns have no number here.
    for (columns, _) in named.values_mut() {
        columns.retain(|column| !matches!(column.as_str(), "" | "ctid" | "xmin"));
    }
    let tables: BTreeSet<String> = named.keys().chain(found.keys()).cloned().collect();
    tables.into_iter().filter(move |table| {
        let none = (BTreeSet::new(), true);
        let (said, exact) = named.get(table).unwrap_or(&none);
        let empty = BTreeSet::new();
        let found = found.get(table).unwrap_or(&empty);
        if *exact {
            said != found
        } else {
            !said.is_subset(found)
        }
    })
}

/// A table's name as both sides write it.
fn plain(name: String) -> String {
    let name = name.replace('"', "");
    name.strip_prefix("public.")
        .map_or_else(|| name.clone(), str::to_owned)
}
