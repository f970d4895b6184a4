//! A tokio-postgres program that keeps a journal: what it executed and what it got, by itself.
//!
//! usage: truth-journal (connection settings come from the PG* environment, the journal's path from PGW_JOURNAL, how
//! often to repeat everything from PGW_ROUNDS)

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context, Result, bail, ensure};
use pgwitness_tests::channel::{Channel, Relay, is_encrypted};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, NoTls, Row};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let mut config = Config::new();
    config
        .host(variable("PGHOST")?)
        .port(variable("PGPORT")?.parse()?)
        .user(variable("PGUSER")?)
        .password(variable("PGPASSWORD")?)
        .dbname(variable("PGDATABASE")?);
    let rounds = std::env::var("PGW_ROUNDS").map_or(Ok(1), |rounds| rounds.parse())?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(variable("PGW_JOURNAL")?)?;
    for _ in 0..rounds {
        let (client, connection, _relay) = connect(&config).await.context("connecting")?;
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let mut journal = Journal {
            file: file.try_clone()?,
            pid,
        };
        repertoire(client, &mut journal).await?;
        connection.await??;
    }
    Ok(())
}

/// The relay has to live as long as its connection.
async fn connect(config: &Config) -> Result<(Client, JoinHandle<Result<(), Error>>, Option<Relay>)> {
    if !is_encrypted() {
        let (client, connection) = config.connect(NoTls).await?;
        return Ok((client, tokio::spawn(connection), None));
    }
    let Channel::Tls(relay) = Channel::open()? else {
        bail!("TLS was asked for");
    };
    let stream = relay.stream()?;
    stream.set_nonblocking(true)?;
    let (client, connection) = config
        .connect_raw(tokio::net::UnixStream::from_std(stream)?, NoTls)
        .await?;
    Ok((client, tokio::spawn(connection), Some(relay)))
}

/// The file, and whose backend it speaks of.
struct Journal {
    file: File,
    pid: i32,
}

impl Journal {
    fn write(&mut self, number: u32, claims: Value) -> Result<()> {
        let mut entry = json!({ "d": NAME, "j": number, "pid": self.pid });
        let claims = claims.as_object().context("claims are an object")?.clone();
        entry
            .as_object_mut()
            .context("an entry is an object")?
            .extend(claims);
        writeln!(self.file, "{entry}").context("writing the journal")
    }

    fn rows(&mut self, number: u32, answer: &Result<Vec<Row>, Error>, params: Value) -> Result<()> {
        match answer {
            Ok(rows) => self.write(number, json!({ "rows": rows.len(), "params": params })),
            Err(error) => self.failed(number, error, params),
        }
    }

    fn failed(&mut self, number: u32, error: &Error, params: Value) -> Result<()> {
        let state = error.code().context("an error of the server")?.code();
        // A value that Parse or Bind refused was never bound.
        let claims = if params.is_null() {
            json!({ "sqlstate": state })
        } else {
            json!({ "sqlstate": state, "params": params })
        };
        self.write(number, claims)
    }
}

fn mark(text: &str, number: u32) -> String {
    format!("{text} /* d={NAME} j={number} */")
}

async fn repertoire(mut client: Client, journal: &mut Journal) -> Result<()> {
    let none = json!([]);
    client
        .batch_execute(&format!(
            "{};{}",
            mark("CREATE TEMP TABLE truth_journal (id int, v text, b bytea)", 1),
            mark("INSERT INTO truth_journal VALUES (0, 'zero')", 2)
        ))
        .await?;
    journal.write(1, json!({}))?;
    journal.write(2, json!({ "affected": 1 }))?;

    let insert = client
        .prepare(&mark("INSERT INTO truth_journal VALUES ($1, $2, $3)", 3))
        .await?;
    for number in 0..20_i32 {
        let text = (number % 3 != 0).then(|| format!("it's {number}; 'ä'"));
        let bytes = vec![0_u8, 255, u8::try_from(number)?];
        let affected = client.execute(&insert, &[&number, &text, &bytes]).await?;
        let shown = format!("\\x00ff{number:02x}");
        journal.write(
            3,
            json!({ "affected": affected, "params": [number.to_string(), text, shown] }),
        )?;
    }

    let text = mark("SELECT id, v FROM truth_journal WHERE id < $1 ORDER BY id", 4);
    for limit in [3_i32, 100, -1] {
        let answer = client.query(&text, &[&limit]).await;
        journal.rows(4, &answer, json!([limit.to_string()]))?;
    }
    let values: [&(dyn ToSql + Sync); 6] = [
        &7_i16,
        &-9_000_000_000_i64,
        &1.5_f64,
        &true,
        &"text",
        &Option::<i32>::None,
    ];
    let text = mark(
        "SELECT $1::int2, $2::int8, $3::float8, $4::bool, $5::text, $6::int4",
        5,
    );
    let answer = client.query(&text, &values).await;
    journal.rows(5, &answer, json!(["7", "-9000000000", "1.5", "t", "text", null]))?;

    // Failures of each phase.
    let answer = client.query(&mark("SELECT nothing FROM nowhere", 6), &[]).await;
    journal.rows(6, &answer, none.clone())?;
    let text = mark("SELECT 1 / $1::int4", 7);
    for divisor in [1_i32, 0, 2] {
        let answer = client.query(&text, &[&divisor]).await;
        journal.rows(7, &answer, json!([divisor.to_string()]))?;
    }

    // A portal that is continued: its rows come over several Executes.
    let text = mark("SELECT g FROM generate_series(1, $1::int4) g", 8);
    let statement = client.prepare(&text).await?;
    let transaction = client.transaction().await?;
    let portal = transaction.bind(&statement, &[&25_i32]).await?;
    let mut rows = 0;
    loop {
        let page = transaction.query_portal(&portal, 10).await?;
        rows += page.len();
        if page.len() < 10 {
            break;
        }
    }
    ensure!(rows == 25, "the portal gave {rows} rows");
    transaction.commit().await?;
    journal.write(8, json!({ "rows": rows, "params": ["25"] }))?;

    // Requests on their way at the same time.
    let text = mark("SELECT $1::int4 * 2", 9);
    let statement = client.prepare(&text).await?;
    let numbers = [1_i32, 2, 3];
    let [first, second, third] = numbers.each_ref().map(|number| [number as &(dyn ToSql + Sync)]);
    let answers = tokio::join!(
        client.query(&statement, &first),
        client.query(&statement, &second),
        client.query(&statement, &third)
    );
    for (number, answer) in numbers.iter().zip([answers.0, answers.1, answers.2]) {
        journal.rows(9, &answer, json!([number.to_string()]))?;
    }

    let transaction = client.transaction().await?;
    let answer = transaction.query(&mark("SELECT 1/0", 10), &[]).await;
    journal.rows(10, &answer, none.clone())?;
    // Refused at Parse: parameters were never bound.
    let answer = transaction.query(&mark("SELECT 'refused'", 11), &[]).await;
    journal.rows(11, &answer, none)?;
    transaction.rollback().await?;
    let messages = client
        .simple_query(&format!(
            "{};{}",
            mark("SELECT 1", 12),
            mark("SELECT 2 WHERE false", 13)
        ))
        .await?;
    ensure!(!messages.is_empty(), "no answer to a string");
    journal.write(12, json!({ "rows": 1 }))?;
    journal.write(13, json!({ "rows": 0 }))?;
    Ok(())
}

/// In markers and journal.
const NAME: &str = "tokio-postgres";
