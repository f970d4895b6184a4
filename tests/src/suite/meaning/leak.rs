//! A hundred thousand secrets, and a search for each in everything that agent and collector wrote.
//!
//! Owns the runs, with the default redaction and with tokens, and the search: through every byte of every file as it lies there, through
//! every recorded event as the collector tells it (files may be compressed), and through both metrics. All secrets of a
//! run begin alike, so that one search finds any of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::Plan;
use super::scene::Client;
use super::secret::Secrets;
use crate::cluster::{Cluster, Witness, server_binaries};
use crate::record::{query_folder_page, query_live};
use crate::screen::progress;
use crate::suite::settle;
use crate::tap::{Redaction, Settings, Tap};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Searched {
    /// Statements with secrets in them.
    pub(super) statements: u64,
    /// `query` events of who sent them.
    pub(super) events: u64,
    /// Files, events and metrics with a secret in them.
    pub(super) leaks: u64,
    /// Events that name records by tokens.
    pub(super) tokens: u64,
}

/// What becomes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing is kept of them.
    Redact,
    /// Those of the tables with secrets in them become tokens.
    Token,
}

/// Runs it.
///
/// # Errors
/// When server, agent or collector fail.
pub(super) async fn run(plan: &Plan, mode: Mode) -> Result<Searched> {
    let mut cluster = Cluster::init_for(server_binaries()?, Witness::Audit, &[])?;
    let mut settings = Settings::from(Redaction::Default);
    let files = TempDir::with_prefix("pgwitness-secrets-")?;
    if mode == Mode::Token {
        classify(files.path(), &mut settings)?;
    }
    let mut tap = Tap::start(&cluster.data(), settings).await?;
    cluster.start().await?;
    let client = Client::prepare(&cluster, ROLE).await?;
    let mut secrets = Secrets::new(u64::from(std::process::id()));
    let wanted = if plan.full { FULL } else { SHORT };
    let mut statements = 0;
    for number in 0..wanted.div_ceil(SCRIPT) {
        let (script, count) = secrets.script(SCRIPT, number == 0);
        let file = client.folder().join("secrets.sql");
        fs::write(&file, script)?;
        client.script(&file).await?;
        statements += count;
    }
    statements += bound(&cluster, &mut secrets, wanted / 20).await?;
    settle(&tap).await?;
    let mut places = Vec::new();
    for (name, port) in [
        ("the agent's metrics", tap.agent.metrics_port()),
        ("the collector's metrics", tap.http_port()),
    ] {
        let told = metrics(port)?;
        ensure!(told.contains("pgwitness"), "no metrics at {port}");
        places.extend(secrets.is_in(told.as_bytes()).then(|| name.to_owned()));
    }
    let live = query_live(
        tap.http_port(),
        "SELECT event FROM events ORDER BY seq DESC LIMIT 2000",
    )?;
    places.extend(
        secrets
            .is_in(Value::Array(live).to_string().as_bytes())
            .then(|| "the collector's answer".to_owned()),
    );
    tap.stop().await?;
    cluster.stop().await?;
    in_files(tap.folder(), &secrets, &mut places)?;
    let (events, tokens) = in_events(&tap, &secrets, &mut places)?;
    for place in places.iter().take(SHOWN) {
        progress(&format!("  LEAK in {place}"));
    }
    progress(&format!(
        "  {statements} statements with secrets, {events} events, {} leaks",
        places.len()
    ));
    if plan.keep {
        progress(&format!("  kept: {}", tap.keep().display()));
    }
    Ok(Searched {
        statements,
        events,
        leaks: places.len() as u64,
        tokens,
    })
}

/// Has values of all columns that hold secrets made into tokens.
fn classify(folder: &Path, settings: &mut Settings) -> Result<()> {
    let entry = |(table, column, of): (&str, &str, &str)| {
        format!(
            "[[column]]\nobject = \"public.{table}\"\ncolumn = \"{column}\"\ntype = \"{of}\"\nsubject = true\nmode = \"token\"\n"
        )
    };
    let columns: String = [
        ("vault", "note", "text"),
        ("vault", "code", "bigint"),
        ("vault", "raw", "bytea"),
        ("once", "code", "bigint"),
        ("once", "note", "text"),
    ]
    .map(entry)
    .concat();
    let (classification, key) = (folder.join("columns.toml"), folder.join("key"));
    fs::write(&classification, columns)?;
    let digits: String = (0..32_u8)
        .map(|byte| format!("{:02x}", byte.wrapping_mul(37)))
        .collect();
    fs::write(&key, format!("leak {digits}\n"))?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    settings.keys.extend([
        ("SUBJECTS__CLASSIFICATION", classification.display().to_string()),
        ("SUBJECTS__TOKEN_KEY", key.display().to_string()),
    ]);
    Ok(())
}

/// Values as parameters, in text and in binary, right and wrong ones.
async fn bound(cluster: &Cluster, secrets: &mut Secrets, count: u64) -> Result<u64> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(cluster.socket_folder())
        .port(cluster.port())
        .user(ROLE)
        .password(cluster.password())
        .dbname(ROLE)
        .connect(tokio_postgres::NoTls)
        .await?;
    tokio::spawn(connection);
    let select = client
        .prepare("SELECT id FROM vault WHERE note = $1 AND code = $2")
        .await?;
    let insert = client
        .prepare("INSERT INTO vault (note, code, raw) VALUES ($1, $2, $3)")
        .await?;
    let wrong = client.prepare("SELECT $1::text::int").await?;
    for _ in 0..count {
        let (text, number) = (secrets.text(), secrets.number());
        client.query(&select, &[&text, &number]).await?;
        client
            .execute(&insert, &[&text, &number, &text.as_bytes()])
            .await?;
        // The server's error has the value in it.
        ensure!(
            client.query(&wrong, &[&text]).await.is_err(),
            "a secret is no number"
        );
    }
    Ok(3 * count)
}

fn metrics(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connecting to the metrics")?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}

fn in_files(folder: &Path, secrets: &Secrets, places: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            in_files(&path, secrets, places)?;
        } else if kind.is_file() {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            places.extend(secrets.is_in(&bytes).then(|| path.display().to_string()));
        }
    }
    Ok(())
}

/// Searches every event; how many execution requests are among them, and how many of these name records.
fn in_events(tap: &Tap, secrets: &Secrets, places: &mut Vec<String>) -> Result<(u64, u64)> {
    let (mut last, mut queries, mut tokens) = (-1_i64, 0, 0);
    loop {
        let sql = format!("SELECT * FROM events WHERE seq > {last} ORDER BY seq LIMIT 4000");
        let rows = query_folder_page(tap.collector_binary(), &tap.collector_data(), &sql)?;
        let Some(row) = rows.last() else {
            return Ok((queries, tokens));
        };
        last = row.get("seq").and_then(Value::as_i64).context("seq")?;
        for row in &rows {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            queries += u64::from(text("kind") == "query" && text("login_role") == ROLE);
            tokens += u64::from(text("event").contains(r#""tokens":["#));
            if secrets.is_in(row.to_string().as_bytes()) {
                places.push(format!(
                    "an event of kind {}: {}",
                    text("kind"),
                    text("statement")
                ));
            }
        }
    }
}

const ROLE: &str = "m_leak";
/// Statements of psql: the issue's hundred thousand, and what a check of a commit can wait for.
const FULL: u64 = 100_000;
const SHORT: u64 = 2_000;
/// Statements of one script.
const SCRIPT: u64 = 5_000;
const SHOWN: usize = 20;
