//! psql: one script with everything that it can say, and the ways in which its sessions end.
//!
//! Owns the script's marks and the journal that psql's own variables (`ROW_COUNT`, `SQLSTATE`) make of them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::site::{Ran, Site};
use crate::program::Route;

/// The script, over the Unix socket and over TCP.
pub(super) async fn script(site: &Site<'_>) -> Result<Ran> {
    for route in [Route::Unix, Route::Tcp] {
        run(site, SCRIPT, route).await?;
    }
    Ok(Ran::Done)
}

/// The script once: for comparisons of one recording with another.
pub(super) async fn once(site: &Site<'_>) -> Result<Ran> {
    run(site, SCRIPT, Route::Tcp).await?;
    Ok(Ran::Done)
}

/// Texts in other encodings, texts that are too long to be kept, and sessions that end before their answers.
pub(super) async fn edges(site: &Site<'_>) -> Result<Ran> {
    encodings(site).await?;
    long_texts(site).await?;
    ends(site).await?;
    Ok(Ran::Done)
}

/// Replication commands by hand, and SQL beside them.
pub(super) async fn replication(site: &Site<'_>) -> Result<Ran> {
    let physical = "IDENTIFY_SYSTEM;\nSHOW wal_level;\nCREATE_REPLICATION_SLOT wire_physical PHYSICAL RESERVE_WAL;\n\
                    TIMELINE_HISTORY 1;\nSELECT 1;\nNONSENSE here;\nDROP_REPLICATION_SLOT wire_physical;\n\
                    DROP_REPLICATION_SLOT wire_physical;\n";
    let logical = "IDENTIFY_SYSTEM;\nCREATE_REPLICATION_SLOT wire_logical TEMPORARY LOGICAL test_decoding EXPORT_SNAPSHOT;\n\
                   SELECT 1, 'sql in a walsender';\nSHOW work_mem;\nBEGIN;\nSELECT 1/0;\nIDENTIFY_SYSTEM;\nROLLBACK;\n\
                   DROP_REPLICATION_SLOT wire_logical;\nSELECT 2 AS \"after\";\n";
    for (mode, script) in [("true", physical), ("database", logical)] {
        let mut psql = site.client("psql", Route::Tcp);
        psql.args(["-X", "-q", "-f"])
            .arg(site.file("replication.sql", script.as_bytes())?)
            .arg(format!("dbname={} replication={mode}", site.role));
        site.run(psql).await?;
    }
    let mut psql = site.client("psql", Route::Unix);
    psql.args(["-X", "-q", "-o", "/dev/null", "-c", "BASE_BACKUP FAST"])
        .arg(format!("dbname={} replication=true", site.role));
    site.run(psql).await?;
    Ok(Ran::Done)
}

async fn run(site: &Site<'_>, script: &str, route: Route) -> Result<()> {
    let (marked, claims) = mark(script);
    let path = site.file("script.sql", marked.as_bytes())?;
    let mut psql = site.client("psql", route);
    psql.args(["-X", "-q", "-f"]).arg(path);
    let ended = site.succeed(psql).await?;
    write_journal(site, &claims, &ended.stdout)
}

/// A claim that a line of the script makes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    /// psql tells rows, rows affected or neither.
    Told(char),
    /// The script knows: `=N` after `r`, `a` or `e`.
    Known(char, String),
    Run,
}

/// Replaces the script's tokens by markers; gives the claims by their number. Behind each line with claims psql is
/// made to print them.
fn mark(script: &str) -> (String, Vec<Claim>) {
    let mut claims = Vec::new();
    let mut marked = format!("SELECT pg_backend_pid() AS pid \\gset\n\\echo {PREFIX} pid :pid\n");
    let (mut waiting, mut copying) = (String::new(), false);
    for line in script.lines() {
        let first = claims.len();
        let is_comment = line.starts_with("--");
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('@').filter(|_| !is_comment) {
            let length = after.find([' ', ';']).unwrap_or(after.len());
            let (token, next) = after.split_at(length);
            let mut characters = token.chars();
            let (letter, value) = (characters.next().unwrap_or('m'), characters.as_str());
            claims.push(match (letter, value.strip_prefix('=')) {
                ('m', _) => Claim::Run,
                (letter, Some(value)) => Claim::Known(letter, value.to_owned()),
                (letter, None) => Claim::Told(letter),
            });
            marked.push_str(before);
            marked.push_str(&format!("/* d=psql j={} */", claims.len()));
            rest = next;
        }
        marked.push_str(rest);
        marked.push('\n');
        for number in first + 1..=claims.len() {
            waiting.push_str(&format!("\\echo {PREFIX} {number} :ROW_COUNT :SQLSTATE\n"));
        }
        // Its data follows first.
        copying |= line.contains("FROM STDIN") && claims.len() > first;
        copying &= line != "\\.";
        if !copying {
            marked.push_str(&waiting);
            waiting.clear();
        }
    }
    (marked, claims)
}

fn write_journal(site: &Site<'_>, claims: &[Claim], said: &str) -> Result<()> {
    let mut journal = OpenOptions::new()
        .create(true)
        .append(true)
        .open(site.journal())?;
    let mut pid = 0_u32;
    for line in said.lines() {
        let Some(told) = line.strip_prefix(PREFIX) else {
            continue;
        };
        let words: Vec<_> = told.split_whitespace().collect();
        match words.as_slice() {
            ["pid", number] => pid = number.parse().context("a backend's pid")?,
            [number, count, sqlstate] => {
                let number: usize = number.parse().context("a claim's number")?;
                let claim = claims.get(number.wrapping_sub(1)).context("a claim")?;
                let entry = entry(number, claim, pid, count, sqlstate);
                writeln!(journal, "{entry}")?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn entry(number: usize, claim: &Claim, pid: u32, count: &str, sqlstate: &str) -> Value {
    let (mut rows, mut affected, mut state) = (None, None, None);
    let mut counts = |letter, count: &str| match letter {
        'r' => rows = count.parse::<u64>().ok(),
        'a' => affected = count.parse::<u64>().ok(),
        _ => {}
    };
    match claim {
        Claim::Told(_) if sqlstate != SUCCESS => state = Some(sqlstate),
        Claim::Told(letter) => counts(*letter, count),
        Claim::Known('e', value) => state = Some(value.as_str()),
        Claim::Known(letter, value) => counts(*letter, value),
        Claim::Run => {}
    }
    json!({ "d": "psql", "j": number, "pid": pid, "rows": rows, "affected": affected, "sqlstate": state })
}

/// Bytes that are not UTF-8 are what the client's encoding says that they are.
async fn encodings(site: &Site<'_>) -> Result<()> {
    let scripts: [(&str, &[u8]); 4] = [
        (
            "LATIN1",
            b"SELECT 'caf\xe9' AS \"\xfcber\";\nSELECT 'plain';\nSELECT 'one'\\; SELECT '\xe4';\n",
        ),
        // The same bytes would be other characters in UTF-8.
        ("LATIN1", "SELECT 'é';\n".as_bytes()),
        ("WIN1251", b"SELECT '\xcf\xf0\xe8\xe2\xe5\xf2';\n"),
        ("UTF8", b"SELECT 'not utf-8: \xe9\xff';\nSELECT 'good again';\n"),
    ];
    for (encoding, script) in scripts {
        let mut psql = site.client("psql", Route::Tcp);
        psql.env("PGCLIENTENCODING", encoding);
        psql.args(["-X", "-q", "-f"])
            .arg(site.file("encoding.sql", script)?);
        site.run(psql).await?;
    }
    let mut set =
        b"SET client_encoding = 'LATIN1';\nSELECT 'caf\xe9';\nSET client_encoding TO 'UTF8';\n".to_vec();
    set.extend("SELECT 'café';\n".as_bytes());
    let mut psql = site.client("psql", Route::Unix);
    psql.args(["-X", "-q", "-f"])
        .arg(site.file("encoding.sql", &set)?);
    site.run(psql).await.map(drop)
}

/// Beyond what is kept of a text: one statement, and several of one string.
async fn long_texts(site: &Site<'_>) -> Result<()> {
    let long = "x".repeat(2 << 20);
    let script = format!(
        "SELECT length('{long}');\nSELECT length('{long}')\\; SELECT 2\\; SELECT 1/0;\n\
         SELECT length('{}é{long}');\nSELECT length('{}');\n",
        "y".repeat((1 << 20) - 16),
        "z".repeat(1 << 19),
    );
    let mut psql = site.client("psql", Route::Tcp);
    psql.args(["-X", "-q", "-f"])
        .arg(site.file("long.sql", script.as_bytes())?);
    site.succeed(psql).await.map(drop)
}

/// Canceled, terminated, timed out, killed.
async fn ends(site: &Site<'_>) -> Result<()> {
    let statement = |text: &str, route| {
        let mut psql = site.client("psql", route);
        psql.args(["-X", "-q", "-c", text]);
        psql
    };
    for route in [Route::Tcp, Route::Unix] {
        let text = "SELECT 'canceled', pg_sleep(60)";
        interrupt(site, statement(text, route), Signal::SIGINT).await?;
    }
    interrupt(
        site,
        statement("SELECT 'left alone', pg_sleep(2)", Route::Tcp),
        Signal::SIGKILL,
    )
    .await?;
    let several = "SELECT 'one'; SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5); SELECT 'never'";
    site.run(statement(several, Route::Tcp)).await?;
    let mut idle = site.client("psql", Route::Tcp);
    let script = "SET idle_in_transaction_session_timeout = '200ms';\nBEGIN;\nSELECT 'then nothing';\n\\! sleep 0.6\n\
                  SELECT 'to nobody';\n";
    idle.args(["-X", "-q", "-f"])
        .arg(site.file("idle.sql", script.as_bytes())?);
    site.run(idle).await?;
    // Wrong names and passwords: no session, no statement.
    let mut nobody = site.client("psql", Route::Tcp);
    nobody
        .env("PGPASSWORD", "wrong")
        .args(["-X", "-c", "SELECT 'never'"]);
    site.run(nobody).await?;
    let mut nowhere = site.client("psql", Route::Tcp);
    nowhere
        .env("PGDATABASE", "nowhere")
        .args(["-X", "-c", "SELECT 'never'"]);
    site.run(nowhere).await?;
    let mut single = site.client("psql", Route::Unix);
    single.args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1"]);
    single.args([
        "-c",
        "CREATE TABLE wire_single (a int)",
        "-c",
        "SELECT 1/0",
        "-c",
        "SELECT 2",
    ]);
    site.run(single).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn interrupt(site: &Site<'_>, command: Command, signal: Signal) -> Result<()> {
    let mut started = site.start(command)?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    started.process.signal(signal)?;
    site.finish(started).await.map(drop)
}

/// Makes psql's journal lines unlike anything else that it prints.
const PREFIX: &str = "@JOURNAL";
const SUCCESS: &str = "00000";
const SCRIPT: &str = include_str!("../../../programs/wire.sql");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_markers_and_claims() {
        let script =
            "SELECT 1 @r;\nBEGIN @m \\; INSERT @a=2 \\; COMMIT;\nCOPY t FROM STDIN @a;\n1\n\\.\n-- @r\n";
        let (marked, claims) = mark(script);
        assert_eq!(
            claims,
            [
                Claim::Told('r'),
                Claim::Run,
                Claim::Known('a', "2".to_owned()),
                Claim::Told('a')
            ]
        );
        let lines: Vec<_> = marked.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "SELECT 1 /* d=psql j=1 */;",
                "\\echo @JOURNAL 1 :ROW_COUNT :SQLSTATE",
                "BEGIN /* d=psql j=2 */ \\; INSERT /* d=psql j=3 */ \\; COMMIT;",
                "\\echo @JOURNAL 2 :ROW_COUNT :SQLSTATE",
                "\\echo @JOURNAL 3 :ROW_COUNT :SQLSTATE",
                "COPY t FROM STDIN /* d=psql j=4 */;",
                "1",
                "\\.",
                "\\echo @JOURNAL 4 :ROW_COUNT :SQLSTATE",
                "-- @r",
            ]
        );
    }
}
