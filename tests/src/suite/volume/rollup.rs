//! pgbench as fast as it can, by its own scripts and by both protocols: all is put together, and the numbers are pgbench's own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Found;
use super::scene::{Scene, bytes_below, event, of};
use crate::screen::progress;

/// Name, script, protocol, statements of one transaction.
const RUNS: [(&str, &str, &str, u64); 4] = [
    ("select-simple", "select-only", "simple", 1),
    ("select-prepared", "select-only", "prepared", 1),
    ("tpcb-simple", "tpcb-like", "simple", 7),
    ("tpcb-prepared", "tpcb-like", "prepared", 7),
];

/// Beginnings of the statements of these scripts as they are recorded: what is executed once in each transaction.
const TPCB: [&str; 7] = [
    "BEGIN",
    "UPDATE pgbench_accounts",
    "SELECT abalance FROM pgbench_accounts",
    "UPDATE pgbench_tellers",
    "UPDATE pgbench_branches",
    "INSERT INTO pgbench_history",
    "END",
];
const SELECT_ONLY: [&str; 1] = ["SELECT abalance FROM pgbench_accounts"];

const POLICY: &str = "[[rule]]\nname = \"bench\"\nkeep = \"rollup\"\ndatabase = \"shop\"\n";

/// As the agent's default is.
const WINDOW_S: u64 = 10;

/// What a statement may take in log and store together.
const MOST_BYTES: f64 = 2.0;

pub(super) async fn run(seconds: u64, full: bool, keep: bool) -> Result<Found> {
    let mut found = Found::default();
    let mut rates = Vec::new();
    for (name, script, protocol, statements) in RUNS {
        let mut scene = Scene::open(POLICY, WINDOW_S).await?;
        let duration = seconds.to_string();
        let arguments = [
            "-b", script, "-M", protocol, "-c", "4", "-j", "2", "-T", &duration,
        ];
        let bench = scene.bench(name, &arguments)?;
        let transactions = bench.finish(Duration::from_secs(seconds + 60)).await?;
        let history = scene.rows("pgbench_history").await?;
        scene.tap.stop().await?;
        let sent = transactions * statements;
        found.statements += sent;
        let texts: &[&str] = if statements == 1 { &SELECT_ONLY } else { &TPCB };
        judge(&mut found, &scene, name, texts, transactions)?;
        if statements > 1 {
            found.equal(&format!("{name}: rows of pgbench_history"), transactions, history);
        }
        let bytes = kept_bytes(&scene)?;
        let rate = bytes as f64 / sent.max(1) as f64;
        if full && rate > MOST_BYTES {
            found
                .wrong
                .push(format!("{name}: {rate:.2} bytes a statement are kept"));
        }
        let line = json!({ "run": name, "statements": sent, "seconds": seconds, "bytes": bytes,
            "bytes_per_statement": (rate * 1000.0).round() / 1000.0,
            "events": scene.stored("SELECT count(*) AS n FROM events ORDER BY n")? });
        progress(&format!("  {line}"));
        rates.push(line);
        scene.close(keep);
    }
    found.more.insert("runs".to_owned(), Value::Array(rates));
    Ok(found)
}

/// Every statement, its rows and the end of its transaction, to the last one.
fn judge(found: &mut Found, scene: &Scene, name: &str, texts: &[&str], transactions: u64) -> Result<()> {
    let whose = format!("principal LIKE '%/unit/%{name}%' AND outcome = 'ok' AND confidence = 'observed'");
    for text in texts {
        let told_of = |what: &str| {
            scene.stored(&format!(
                "SELECT {what} AS n FROM queries WHERE {whose} AND upper(statement) LIKE upper('{text}%') ORDER BY n"
            ))
        };
        let told = told_of("sum(executions)")?;
        found.told += told;
        found.equal(&format!("{name}: {text}"), told, transactions);
        if text.starts_with("SELECT") {
            found.equal(
                &format!("{name}: rows of {text}"),
                told_of("sum(rows)")?,
                transactions,
            );
        }
        if text.starts_with("UPDATE") || text.starts_with("INSERT") {
            found.equal(
                &format!("{name}: rows that {text} changed"),
                told_of("sum(rows_affected)")?,
                transactions,
            );
        }
    }
    // Of the roll-ups the ends stand in the event.
    let sql = format!(
        "SELECT event FROM queries WHERE kind = 'rollup' AND principal LIKE '%/unit/%{name}%' ORDER BY agent, seq"
    );
    let mut ends = [0; 3];
    for row in scene.answer(&sql)? {
        let event = event(&row)?;
        let number = |key: &str| of(&event, &format!("/rollup/{key}"));
        let durations = event.pointer("/rollup/durations").and_then(Value::as_array);
        let measured: u64 = durations.into_iter().flatten().filter_map(Value::as_u64).sum();
        found.equal(&format!("{name}: durations"), measured, number("executions"));
        for (sum, key) in ends.iter_mut().zip(["executions", "committed", "open"]) {
            *sum += number(key);
        }
    }
    let [executions, committed, open] = ends;
    found.equal(
        &format!("{name}: executions by their end"),
        committed + open,
        executions,
    );
    for (what, sql) in [
        ("gaps", "SELECT count(*) AS n FROM gaps ORDER BY n"),
        (
            "failures",
            "SELECT count(*) AS n FROM queries WHERE outcome <> 'ok' ORDER BY n",
        ),
    ] {
        found.equal(&format!("{name}: {what}"), scene.stored(sql)?, 0);
    }
    let (content, said) = scene.tap.verify()?;
    ensure!(content, "verify: {said}");
    Ok(())
}

/// Log and store together; what is in memory only is brought to the disk by a rebuild.
fn kept_bytes(scene: &Scene) -> Result<u64> {
    let data = scene.tap.collector_data();
    let output = Command::new(scene.tap.collector_binary())
        .args(["rebuild", "--data"])
        .arg(&data)
        .output()
        .context("running pgwitness-collector rebuild")?;
    ensure!(
        output.status.success(),
        "rebuild: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(bytes_below(&data.join("evidence"))? + bytes_below(&data.join("store"))?)
}
