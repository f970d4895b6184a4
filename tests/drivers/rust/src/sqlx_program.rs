//! sqlx: its cache of prepared statements, statements that are not kept, streams of rows, strings, transactions, COPY.

mod journal;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use journal::{Claim, Journal, rounds, values};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{Connection as _, Executor as _, Row as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let journal = Journal::open("sqlx")?;
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&variable("PGHOST")?)
        .port(variable("PGPORT")?.parse()?)
        .username(&variable("PGUSER")?)
        .password(&variable("PGPASSWORD")?)
        .database(&variable("PGDATABASE")?)
        .ssl_mode(variable("PGSSLMODE")?.parse::<PgSslMode>()?)
        .statement_cache_capacity(10);
    if let Some(root) = std::env::var_os("PGSSLROOTCERT") {
        options = options.ssl_root_cert(root);
    }
    for _ in 0..rounds() {
        let mut connection = PgConnection::connect_with(&options).await?;
        let pid = sqlx::query("SELECT pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?
            .get(0);
        let mut session = Session {
            journal: &journal,
            connection,
            pid,
        };
        session.round().await?;
        session.connection.close().await?;
    }
    Ok(())
}

struct Session<'a> {
    journal: &'a Journal,
    connection: PgConnection,
    pid: i32,
}

impl Session<'_> {
    async fn round(&mut self) -> Result<()> {
        self.change("SET /**/ TIME ZONE 'UTC'", None).await?;
        self.change("CREATE TEMP TABLE sqlx_t /**/ (id int8, name text)", None)
            .await?;
        for number in 0..25_i64 {
            let marked = self.journal.mark(&format!(
                "SELECT /**/ generate_series(1, $1::int8), '{}'",
                number % 12
            ));
            let rows = sqlx::query(&marked)
                .bind(number)
                .fetch_all(&mut self.connection)
                .await?
                .len();
            ensure!(i64::try_from(rows)? == number, "rows");
            let params = values(&[&number.to_string()]);
            self.line(
                &marked,
                Claim {
                    rows: Some(rows),
                    params,
                    ..Claim::default()
                },
            )?;
        }
        self.typed().await?;
        self.changes().await?;
        self.failures().await?;
        self.strings().await?;
        self.copies().await?;
        let big = "abc'def ".repeat(3 * 1024 * 1024 / 8);
        let marked = self.journal.mark("SELECT /**/ length($1::text)");
        sqlx::query(&marked)
            .bind(&big)
            .fetch_one(&mut self.connection)
            .await?;
        self.line(
            &marked,
            Claim {
                rows: Some(1),
                params: values(&[&big]),
                ..Claim::default()
            },
        )?;
        let marked = self
            .journal
            .mark("SELECT /**/ n, repeat('x', 100) FROM generate_series(1, 5000) n");
        let mut rows = 0;
        let mut stream = sqlx::query(&marked).fetch(&mut self.connection);
        while stream.try_next().await?.is_some() {
            rows += 1;
        }
        drop(stream);
        self.line(
            &marked,
            Claim {
                rows: Some(rows),
                params: values(&[]),
                ..Claim::default()
            },
        )?;
        self.change("DROP TABLE /**/ sqlx_t", None).await
    }

    fn line(&self, marked: &str, claim: Claim) -> Result<()> {
        self.journal.line(marked, self.pid, claim)
    }

    /// Without values sqlx keeps a prepared statement all the same.
    async fn change(&mut self, text: &str, wanted: Option<u64>) -> Result<()> {
        let marked = self.journal.mark(text);
        let done = sqlx::query(&marked).execute(&mut self.connection).await?;
        ensure!(
            wanted.is_none_or(|wanted| wanted == done.rows_affected()),
            "{text}"
        );
        self.line(
            &marked,
            Claim {
                affected: wanted,
                params: values(&[]),
                ..Claim::default()
            },
        )
    }

    async fn typed(&mut self) -> Result<()> {
        let marked = self.journal.mark(
            "SELECT /**/ $1::int2, $2::int4, $3::float8, $4::bool, $5::text, $6::text, $7::bytea, $8::int4[]",
        );
        for persistent in [true, false, true] {
            let query = sqlx::query(&marked)
                .bind(-3_i16)
                .bind(70_000_i32)
                .bind(1.5_f64)
                .bind(true);
            let query = query
                .bind("it's \"quoted\" \\ ümlaut")
                .bind(None::<String>)
                .bind(vec![0_u8, 1, 255])
                .bind(vec![1_i32, 2]);
            let row = query
                .persistent(persistent)
                .fetch_one(&mut self.connection)
                .await?;
            ensure!(row.get::<Option<String>, _>(5).is_none(), "null");
            let mut params = values(&[
                "-3",
                "70000",
                "1.5",
                "t",
                "it's \"quoted\" \\ ümlaut",
                "",
                "\\x0001ff",
                "{1,2}",
            ]);
            if let Some(null) = params.as_mut().and_then(|params| params.get_mut(5)) {
                *null = None;
            }
            self.line(
                &marked,
                Claim {
                    rows: Some(1),
                    params,
                    ..Claim::default()
                },
            )?;
        }
        Ok(())
    }

    async fn changes(&mut self) -> Result<()> {
        self.change(
            "INSERT INTO sqlx_t /**/ SELECT generate_series(1, 10), 'many'",
            Some(10),
        )
        .await?;
        self.change("UPDATE sqlx_t /**/ SET name = NULL WHERE id > 5", Some(5))
            .await?;
        self.change("DELETE FROM sqlx_t /**/ WHERE id = -1", Some(0))
            .await?;
        let insert = self.journal.mark("INSERT INTO sqlx_t /**/ VALUES ($1, $2)");
        let mut transaction = self.connection.begin().await?;
        sqlx::query(&insert)
            .bind(77_i64)
            .bind("x")
            .execute(&mut *transaction)
            .await?;
        let nested = transaction.begin().await?;
        nested.rollback().await?;
        transaction.rollback().await?;
        self.line(
            &insert,
            Claim {
                affected: Some(1),
                params: values(&["77", "x"]),
                ..Claim::default()
            },
        )?;
        self.change("UPDATE sqlx_t /**/ SET name = 'gone' WHERE id = 77", Some(0))
            .await
    }

    async fn failures(&mut self) -> Result<()> {
        for (sqlstate, text, params) in [
            ("42P01", "SELECT /**/ * FROM no_such_table", None),
            ("42601", "SELECT /**/ FROM WHERE", None),
            ("22012", "SELECT /**/ 1 / 0 AS x FROM generate_series(1, 1)", None),
            ("22012", "SELECT /**/ 1 / $1::int4", Some(0_i32)),
        ] {
            let marked = self.journal.mark(text);
            let query = match params {
                Some(value) => sqlx::query(&marked).bind(value),
                None => sqlx::query(&marked),
            };
            let state = query.fetch_all(&mut self.connection).await.err();
            let state = state.and_then(|error| {
                error
                    .as_database_error()
                    .and_then(|error| error.code().map(String::from))
            });
            ensure!(state.as_deref() == Some(sqlstate), "{text}: {state:?}");
            let params = params.and_then(|value| values(&[&value.to_string()]));
            self.line(
                &marked,
                Claim {
                    sqlstate: state,
                    params,
                    ..Claim::default()
                },
            )?;
        }
        Ok(())
    }

    async fn strings(&mut self) -> Result<()> {
        let marked = self.journal.mark(
            "SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE sqlx_t /**/ SET name = name WHERE id = 1",
        );
        self.connection.execute(sqlx::raw_sql(&marked)).await?;
        for (part, rows, affected) in [(0, Some(1), None), (1, Some(2), None), (2, None, Some(1))] {
            let part = marked.split(';').nth(part).unwrap_or_default();
            self.line(
                part,
                Claim {
                    rows,
                    affected,
                    ..Claim::default()
                },
            )?;
        }
        self.connection.execute(sqlx::raw_sql("")).await?;
        Ok(())
    }

    async fn copies(&mut self) -> Result<()> {
        let marked = self.journal.mark("COPY sqlx_t /**/ FROM STDIN");
        let text = "1000\tcopied\n".repeat(300);
        let mut sink = self.connection.copy_in_raw(&marked).await?;
        sink.send(text.as_bytes()).await?;
        let affected = Some(sink.finish().await?);
        self.line(
            &marked,
            Claim {
                affected,
                copied: Some(text.len()),
                ..Claim::default()
            },
        )?;
        let marked = self
            .journal
            .mark("COPY (SELECT * FROM sqlx_t WHERE name = 'copied') /**/ TO STDOUT");
        let blocks: Vec<_> = self.connection.copy_out_raw(&marked).await?.try_collect().await?;
        let copied = blocks.iter().map(|block| block.len()).sum();
        ensure!(copied == text.len(), "copied");
        self.line(
            &marked,
            Claim {
                affected: Some(300),
                copied: Some(copied),
                ..Claim::default()
            },
        )
    }
}
