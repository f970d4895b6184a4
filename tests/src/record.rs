//! What pgwitness recorded, as its own commands tell it.
//!
//! Owns the reading of rows from `pgwitness-collector query` (offline) and from `POST /api/v1/query` (live). It refuses
//! to open the evidence folder itself. Separate from `tap`, which runs the programs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// One recorded execution request, the columns that the suites compare.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Recorded {
    /// Nanoseconds since the Unix epoch.
    #[serde(skip)]
    pub at_ns: i64,
    /// Of the connection.
    pub session_id: Option<String>,
    /// As the server named itself in BackendKeyData.
    pub backend_pid: Option<u32>,
    /// Who was asserted, and how that is known.
    pub principal: Option<String>,
    /// `unit`, `process`, …
    pub principal_kind: Option<String>,
    /// `observed`, `joined`, …
    pub confidence: Option<String>,
    /// `tcp-owner`, `unix-peer-cred`, …
    pub method: Option<String>,
    /// As written: `SELECT`, …
    pub command: Option<String>,
    /// The text, redacted or clear.
    pub statement: Option<String>,
    /// `simple` or `extended`.
    pub protocol: Option<String>,
    /// Position in a simple query string.
    pub statement_index: Option<u32>,
    /// `ok`, `error`, …
    pub outcome: Option<String>,
    /// Returned to the client.
    pub rows: Option<u64>,
    /// By the command tag.
    pub rows_affected: Option<u64>,
    /// When it failed.
    pub sqlstate: Option<String>,
}

impl Recorded {
    /// Reads one row of [`queries`].
    ///
    /// # Errors
    /// When a column has another type than documented.
    pub fn from_row(row: Value) -> Result<Self> {
        let at_ns = nanoseconds(row.get("ts_start").unwrap_or(&Value::Null))
            .with_context(|| format!("ts_start of {row}"))?;
        let recorded: Self = serde_json::from_value(row).context("a row of `events`")?;
        Ok(Self { at_ns, ..recorded })
    }
}

/// All execution requests of a role, in the order in which its sessions sent them.
#[must_use]
pub fn queries(role: &str) -> String {
    format!(
        "SELECT ts_start, session_id, backend_pid, principal, principal_kind, confidence, method, command, \
         statement, protocol, statement_index, outcome, \"rows\", rows_affected, sqlstate FROM events \
         WHERE kind = 'query' AND login_role = '{role}' ORDER BY agent, seq"
    )
}

/// Runs SQL over a stopped collector's folder: one row an object. `sql` must be ordered, and have no limit of its own:
/// one answer is capped by the collector, so the rows are fetched page by page.
///
/// # Errors
/// When the collector refuses, or prints something else than JSON lines.
pub fn query_folder(collector: &Path, data: &Path, sql: &str) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    loop {
        let sql = format!("{sql} LIMIT {PAGE} OFFSET {}", rows.len());
        let (page, cut) = ask_folder(collector, data, &sql)?;
        ensure!(
            !cut,
            "pgwitness-collector query cut its answer to {} rows",
            page.len()
        );
        let last = page.len() < PAGE;
        rows.extend(page);
        if last {
            return Ok(rows);
        }
    }
}

/// Runs SQL over a stopped collector's folder once. The answer may be cut at the collector's caps: a caller that asks
/// in order can go on behind the last row that it got.
///
/// # Errors
/// As [`query_folder`].
pub fn query_folder_page(collector: &Path, data: &Path, sql: &str) -> Result<Vec<Value>> {
    ask_folder(collector, data, sql).map(|(rows, _)| rows)
}

fn ask_folder(collector: &Path, data: &Path, sql: &str) -> Result<(Vec<Value>, bool)> {
    let output = Command::new(collector)
        .args(["query", "--format", "json", "--data"])
        .arg(data)
        .arg(sql)
        .output()
        .context("running pgwitness-collector query")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "pgwitness-collector query failed: {complaint}"
    );
    Ok((json_lines(&output.stdout)?, complaint.contains("only the first")))
}

/// Runs SQL on a running collector.
///
/// # Errors
/// When it does not answer, or not with rows.
pub fn query_live(http_port: u16, sql: &str) -> Result<Vec<Value>> {
    let body = serde_json::json!({ "sql": sql }).to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", http_port)).context("connecting to the collector")?;
    stream.set_read_timeout(Some(LIVE_PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked (RFC 1945).
    write!(
        stream,
        "POST /api/v1/query HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .context("reading the collector's answer")?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("not an HTTP answer")?;
    ensure!(
        head.split(' ').nth(1) == Some("200"),
        "the collector answered {body}"
    );
    let page: Page = serde_json::from_str(body).context("the collector's answer")?;
    let object = |row: Vec<Value>| Value::Object(page.columns.iter().cloned().zip(row).collect());
    Ok(page.rows.into_iter().map(object).collect())
}

/// The answer of `POST /api/v1/query`.
#[derive(Deserialize)]
struct Page {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

fn json_lines(bytes: &[u8]) -> Result<Vec<Value>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| serde_json::from_slice(line).context("a row that is not JSON"))
        .collect()
}

/// `2026-11-21T02:06:04.370123456Z`, with or without the zone (UTC then), or already a number of nanoseconds.
fn nanoseconds(value: &Value) -> Result<i64> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let text = value.as_str().context("neither text nor a number")?;
    let zoned = if text.ends_with('Z') || text.contains('+') {
        text.to_owned()
    } else {
        format!("{text}Z")
    };
    let time: jiff::Timestamp = zoned.parse().context("not a time")?;
    i64::try_from(time.as_nanosecond()).context("out of range")
}

/// Rows a question; the collector's own caps are 10,000 rows and 32 MiB, and whole events take several KiB.
const PAGE: usize = 4_000;
const LIVE_PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_records() {
        let row = serde_json::json!({"ts_start": "2026-11-21T02:06:04.370123456", "backend_pid": 7,
            "statement": "select 1", "statement_index": 0, "rows": 1, "rows_affected": null, "more": "x"});
        let recorded = Recorded::from_row(row).unwrap();
        assert_eq!(
            (recorded.backend_pid, recorded.rows, recorded.rows_affected),
            (Some(7), Some(1), None)
        );
        assert_eq!(recorded.at_ns % 1_000_000_000, 370_123_456);
        assert_eq!(json_lines(b"{\"a\":1}\n\n{\"a\":2}\n").unwrap().len(), 2);
        assert!(json_lines(b"no").is_err());
    }
}
