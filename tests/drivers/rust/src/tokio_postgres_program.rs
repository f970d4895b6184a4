//! tokio-postgres: typed binary values, requests that are sent before earlier ones are answered, portals with a limit
//! of rows, COPY both ways, the simple protocol, errors of every stage.

mod journal;

use std::fs::File;
use std::future::Future;
use std::io::BufReader;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt as _, TryStreamExt as _, pin_mut};
use journal::{Claim, Journal, rounds, values};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

struct Session {
    journal: Journal,
    client: Client,
    pid: i32,
}

/// A value and the text that the server prints for it.
type Value<'a> = (&'a (dyn ToSql + Sync), Option<&'a str>);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut journal = Journal::open("tokiopg")?;
    for _ in 0..rounds() {
        let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
        let mut config = Config::new();
        config
            .host(variable("PGHOST")?)
            .port(variable("PGPORT")?.parse()?)
            .user(variable("PGUSER")?)
            .password(variable("PGPASSWORD")?)
            .dbname(variable("PGDATABASE")?);
        let (client, driver) = if variable("PGSSLMODE")? == "disable" {
            let (client, connection) = config.connect(NoTls).await?;
            (client, tokio::spawn(connection))
        } else {
            config.ssl_mode(SslMode::Require);
            let (client, connection) = config.connect(MakeRustlsConnect::new(trusting()?)).await?;
            (client, tokio::spawn(connection))
        };
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let mut session = Session { journal, client, pid };
        session.round().await?;
        drop(session.client);
        driver.await??;
        journal = session.journal;
    }
    Ok(())
}

/// Trusts the authority in PGSSLROOTCERT alone.
fn trusting() -> Result<ClientConfig> {
    let path = std::env::var("PGSSLROOTCERT").context("PGSSLROOTCERT")?;
    let mut file = BufReader::new(File::open(&path).with_context(|| path.clone())?);
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut file) {
        roots.add(certificate?)?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

impl Session {
    async fn round(&mut self) -> Result<()> {
        self.simple("SET /**/ TIME ZONE 'UTC'", &[]).await?;
        self.values().await?;
        self.changes().await?;
        self.pipelined().await?;
        self.portals().await?;
        self.failures().await?;
        self.strings().await?;
        self.copies().await?;
        self.big().await?;
        self.simple("DROP TABLE /**/ tokiopg_t", &[]).await
    }

    async fn query(&self, text: &str, params: &[Value<'_>]) -> Result<usize> {
        let marked = self.journal.mark(text);
        let rows = self.client.query(&marked, &bound(params)).await?.len();
        self.line(
            &marked,
            Claim {
                rows: Some(rows),
                params: claimed(params),
                ..Claim::default()
            },
        )?;
        Ok(rows)
    }

    async fn change(&self, text: &str, params: &[Value<'_>]) -> Result<u64> {
        let marked = self.journal.mark(text);
        let affected = self.client.execute(&marked, &bound(params)).await?;
        self.line(
            &marked,
            Claim {
                affected: Some(affected),
                params: claimed(params),
                ..Claim::default()
            },
        )?;
        Ok(affected)
    }

    async fn fails<T, F: Future<Output = Result<T, Error>>>(
        &self,
        sqlstate: &str,
        marked: &str,
        does: F,
    ) -> Result<()> {
        let state = does
            .await
            .err()
            .and_then(|error| error.code().map(|code| code.code().to_owned()));
        ensure!(
            state.as_deref() == Some(sqlstate),
            "{marked}: expected {sqlstate}, got {state:?}"
        );
        self.line(
            marked,
            Claim {
                sqlstate: state,
                ..Claim::default()
            },
        )
    }

    fn line(&self, marked: &str, claim: Claim) -> Result<()> {
        self.journal.line(marked, self.pid, claim)
    }

    async fn values(&self) -> Result<()> {
        let moment = UNIX_EPOCH + Duration::new(1_709_209_815, 123_456_000);
        let cases: [(&str, Value<'_>); 14] = [
            ("int2", (&-3_i16, Some("-3"))),
            ("int4", (&70_000_i32, Some("70000"))),
            ("int8", (&(1_i64 << 62), Some("4611686018427387904"))),
            ("float4", (&-0.25_f32, Some("-0.25"))),
            ("float8", (&1.5_f64, Some("1.5"))),
            ("bool", (&true, Some("t"))),
            (
                "text",
                (&"it's \"quoted\" \\ ümlaut", Some("it's \"quoted\" \\ ümlaut")),
            ),
            ("text", (&"", Some(""))),
            ("text", (&None::<&str>, None)),
            ("bytea", (&&[0_u8, 1, 255, 92, 39][..], Some("\\x0001ff5c27"))),
            ("int4[]", (&vec![Some(1_i32), None, Some(3)], Some("{1,NULL,3}"))),
            ("oid", (&4_000_000_000_u32, Some("4000000000"))),
            ("timestamptz", (&moment, Some("2024-02-29 12:30:15.123456+00"))),
            (
                "inet",
                (&"10.1.2.3".parse::<std::net::IpAddr>()?, Some("10.1.2.3")),
            ),
        ];
        for (kind, value) in cases {
            ensure!(
                self.query(&format!("SELECT /**/ $1::{kind}"), &[value]).await? == 1,
                "{kind}"
            );
        }
        let marked = self.journal.mark("SELECT /**/ $1::int4 + $2");
        let statement = self
            .client
            .prepare_typed(&marked, &[Type::INT4, Type::INT4])
            .await?;
        for number in 0..6_i32 {
            let sum: i32 = self.client.query_one(&statement, &[&number, &1]).await?.get(0);
            ensure!(sum == number + 1, "prepared");
            let params = values(&[&number.to_string(), "1"]);
            self.line(
                &marked,
                Claim {
                    rows: Some(1),
                    params,
                    ..Claim::default()
                },
            )?;
        }
        let marked = self.journal.mark("SELECT /**/ $1, $2");
        let typed: [(&(dyn ToSql + Sync), Type); 2] = [(&"typed", Type::TEXT), (&7_i64, Type::INT8)];
        ensure!(
            self.client.query_typed(&marked, &typed).await?.len() == 1,
            "typed"
        );
        self.line(
            &marked,
            Claim {
                rows: Some(1),
                params: values(&["typed", "7"]),
                ..Claim::default()
            },
        )
    }

    async fn changes(&self) -> Result<()> {
        self.simple("CREATE TEMP TABLE tokiopg_t /**/ (id int8, name text)", &[])
            .await?;
        let one = self
            .change(
                "INSERT INTO tokiopg_t /**/ VALUES ($1, $2)",
                &[(&1_i64, Some("1")), (&"one", Some("one"))],
            )
            .await?;
        let many = self
            .change(
                "INSERT INTO tokiopg_t /**/ SELECT generate_series(10, $1::int8)",
                &[(&19_i64, Some("19"))],
            )
            .await?;
        let changed = self
            .change(
                "UPDATE tokiopg_t /**/ SET name = $1 WHERE id > 5",
                &[(&"big", Some("big"))],
            )
            .await?;
        let none = self
            .change("DELETE FROM tokiopg_t /**/ WHERE id = -1", &[])
            .await?;
        ensure!((one, many, changed, none) == (1, 10, 10, 0), "changes");
        Ok(())
    }

    /// All are sent before the first is answered; one of them fails, each has a Sync of its own.
    async fn pipelined(&self) -> Result<()> {
        let marked = self
            .journal
            .mark("SELECT /**/ generate_series(1, $1::int4), 'piped'");
        let statement = self.client.prepare(&marked).await?;
        let bad = self.journal.mark("SELECT /**/ 1 / $1::int4, 'piped'");
        let divide = self.client.prepare(&bad).await?;
        let numbers: Vec<i32> = (0..20).collect();
        let jobs = numbers.iter().map(|number| {
            let statement = if *number == 0 { &divide } else { &statement };
            let client = &self.client;
            async move { client.query(statement, &[number]).await }
        });
        for (number, result) in numbers.iter().zip(join_all(jobs).await) {
            let params = values(&[&number.to_string()]);
            if *number == 0 {
                let sqlstate = result
                    .err()
                    .and_then(|error| error.code().map(|code| code.code().to_owned()));
                ensure!(sqlstate.as_deref() == Some("22012"), "piped error: {sqlstate:?}");
                self.line(
                    &bad,
                    Claim {
                        sqlstate,
                        params,
                        ..Claim::default()
                    },
                )?;
            } else {
                let rows = Some(result?.len());
                ensure!(rows == usize::try_from(*number).ok(), "piped rows");
                self.line(
                    &marked,
                    Claim {
                        rows,
                        params,
                        ..Claim::default()
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Portals that are executed in parts, two of them in turns.
    async fn portals(&mut self) -> Result<()> {
        let first = self
            .journal
            .mark("SELECT /**/ n, repeat('x', 50) FROM generate_series(1, $1::int4) n");
        let second = self.journal.mark("SELECT /**/ n FROM generate_series(1, 25) n");
        let transaction = self.client.transaction().await?;
        let one = transaction.bind(&first, &[&60_i32]).await?;
        let two = transaction.bind(&second, &[]).await?;
        let mut rows = (0, 0);
        for _ in 0..3 {
            rows.0 += transaction.query_portal(&one, 20).await?.len();
            rows.1 += transaction.query_portal(&two, 7).await?.len();
        }
        rows.0 += transaction.query_portal(&one, 0).await?.len();
        ensure!(rows == (60, 21), "portals: {rows:?}");
        transaction.commit().await?;
        let claim = Claim {
            rows: Some(60),
            params: values(&["60"]),
            ..Claim::default()
        };
        self.line(&first, claim)?;
        self.line(
            &second,
            Claim {
                rows: Some(21),
                params: values(&[]),
                ..Claim::default()
            },
        )
    }

    async fn failures(&mut self) -> Result<()> {
        for (sqlstate, text) in [
            ("42P01", "SELECT /**/ * FROM no_such_table"),
            ("42601", "SELECT /**/ FROM WHERE"),
        ] {
            let marked = self.journal.mark(text);
            self.fails(sqlstate, &marked, self.client.query(&marked, &[]))
                .await?;
        }
        let bad = self.journal.mark("SELECT /**/ $1::text::int4");
        self.fails("22P02", &bad, self.client.query(&bad, &[&"no number"]))
            .await?;
        let insert = self.journal.mark("INSERT INTO tokiopg_t /**/ VALUES (77)");
        let divide = self.journal.mark("SELECT /**/ 2 / 0");
        let aborted = self.journal.mark("SELECT /**/ 'in a failed transaction'");
        let mut transaction = self.client.transaction().await?;
        ensure!(transaction.execute(&insert, &[]).await? == 1, "insert");
        let savepoint = transaction.savepoint("s").await?;
        ensure!(savepoint.query(&divide, &[]).await.is_err(), "division");
        ensure!(savepoint.simple_query(&aborted).await.is_err(), "aborted");
        savepoint.rollback().await?;
        transaction.rollback().await?;
        self.line(
            &insert,
            Claim {
                affected: Some(1),
                ..Claim::default()
            },
        )?;
        self.line(
            &divide,
            Claim {
                sqlstate: Some("22012".to_owned()),
                ..Claim::default()
            },
        )?;
        self.line(
            &aborted,
            Claim {
                sqlstate: Some("25P02".to_owned()),
                ..Claim::default()
            },
        )?;
        ensure!(
            self.query("SELECT /**/ id FROM tokiopg_t WHERE id = 77", &[])
                .await?
                == 0,
            "rolled back"
        );
        Ok(())
    }

    /// A string of statements; `rows` are those of each in turn, `None` where it gives none.
    async fn simple(&self, text: &str, rows: &[Option<usize>]) -> Result<()> {
        let marked = self.journal.mark(text);
        let messages = self.client.simple_query(&marked).await?;
        let got = messages
            .iter()
            .filter(|message| matches!(message, SimpleQueryMessage::Row(_)))
            .count();
        ensure!(got == rows.iter().flatten().sum::<usize>(), "{text}: {got} rows");
        let parts = marked.split(';').filter(|part| part.contains(" j="));
        for (index, part) in parts.enumerate() {
            let rows = rows.get(index).copied().flatten();
            self.line(
                part,
                Claim {
                    rows,
                    ..Claim::default()
                },
            )?;
        }
        Ok(())
    }

    async fn strings(&self) -> Result<()> {
        let text = "SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; ; UPDATE tokiopg_t /**/ SET name = name WHERE id = 1";
        self.simple(text, &[Some(1), Some(2), None]).await?;
        let marked = self
            .journal
            .mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'");
        ensure!(
            self.client.simple_query(&marked).await.is_err(),
            "the string did not fail"
        );
        let mut parts = marked.split(';');
        self.line(parts.next().unwrap_or_default(), Claim::default())?;
        self.line(
            parts.next().unwrap_or_default(),
            Claim {
                sqlstate: Some("22012".to_owned()),
                ..Claim::default()
            },
        )?;
        self.client.batch_execute("").await?;
        self.client.execute("", &[]).await?;
        Ok(())
    }

    async fn copies(&self) -> Result<()> {
        let marked = self.journal.mark("COPY tokiopg_t /**/ FROM STDIN");
        let sink = self.client.copy_in(&marked).await?;
        pin_mut!(sink);
        let mut copied = 0;
        for number in 1000..1300 {
            let line = format!("{number}\tcopied\n");
            copied += line.len();
            sink.send(Bytes::from(line)).await?;
        }
        let affected = Some(sink.finish().await?);
        self.line(
            &marked,
            Claim {
                affected,
                copied: Some(copied),
                ..Claim::default()
            },
        )?;
        for format in ["text", "csv", "binary"] {
            let text = format!(
                "COPY (SELECT * FROM tokiopg_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT {format})"
            );
            let marked = self.journal.mark(&text);
            let stream = self.client.copy_out(&marked).await?;
            let blocks: Vec<Bytes> = stream.try_collect().await?;
            let copied = Some(blocks.iter().map(Bytes::len).sum());
            self.line(
                &marked,
                Claim {
                    affected: Some(300),
                    copied,
                    ..Claim::default()
                },
            )?;
        }
        Ok(())
    }

    async fn big(&self) -> Result<()> {
        let value = "abc'def ".repeat(3 * 1024 * 1024 / 8);
        self.query("SELECT /**/ length($1::text)", &[(&value, Some(&value))])
            .await?;
        self.query("SELECT /**/ repeat('z', 3000000)", &[]).await?;
        self.query("SELECT /**/ n, n::text FROM generate_series(1, 5000) n", &[])
            .await?;
        self.simple(
            &format!("SELECT /**/ length('{}')", "z".repeat(3_000_000)),
            &[Some(1)],
        )
        .await
    }
}

fn bound<'a>(params: &[Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|(value, _)| *value).collect()
}

fn claimed(params: &[Value<'_>]) -> Option<Vec<Option<String>>> {
    Some(params.iter().map(|(_, text)| text.map(str::to_owned)).collect())
}
