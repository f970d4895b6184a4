//! An agent is killed while executions wait for their equals, and while others are left out: what it had not told is a gap of each
//! session, as long as what is missing.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Found;
use super::scene::{Scene, event, of};

/// Half of it waits, half is left out: five and six digits are of one length each, so that bytes can be counted as statements.
const SCRIPT: &str = "\\set aid random(10000, 99999)\n\\set tid random(1, 9)\n\
                      SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n\
                      SELECT tbalance FROM pgbench_tellers WHERE tid = :tid;\n";
const POLICY: &str = "[[rule]]\nkeep = \"off\"\nname = \"tellers\"\nobject = \"pgbench_tellers\"\n[[rule]]\nkeep = \"rollup\"\n";
/// Bytes of the two requests as sent: tag, length, text, zero.
const ACCOUNTS: u64 = 5 + "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;".len() as u64 + 1;
const TELLERS: u64 = 5 + "SELECT tbalance FROM pgbench_tellers WHERE tid = 1;".len() as u64 + 1;
const CLIENTS: u64 = 2;
const SECONDS: u64 = 24;
/// So long that what waits at the kill is seconds old.
const WINDOW_S: u64 = 4;

pub(super) async fn run(keep: bool) -> Result<Found> {
    let mut found = Found::default();
    let mut scene = Scene::open(POLICY, WINDOW_S).await?;
    let script = scene.script(SCRIPT)?.display().to_string();
    let duration = SECONDS.to_string();
    // Over TCP the kernel counts, so that it is known how many bytes are missing.
    let port = scene.cluster.port().to_string();
    let arguments = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-f",
        &script,
        "-c",
        "2",
        "-R",
        "300",
        "-T",
        &duration,
    ];
    let bench = scene.bench("killed", &arguments)?;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        scene.tap.agent.kill().await?;
        scene.tap.agent.start().await?;
    }
    let transactions = bench.finish(Duration::from_secs(SECONDS + 60)).await?;
    scene.tap.stop().await?;
    let sent = transactions * (ACCOUNTS + TELLERS);
    let told = |what: &str| {
        scene.stored(&format!(
            "SELECT sum({what}) AS n FROM queries WHERE principal LIKE '%killed%' AND statement LIKE '%abalance%' ORDER BY n"
        ))
    };
    let (executions, bytes) = (told("executions")?, told("bytes_in")?);
    let left_out = left_out(&scene)?;
    let missing = missing(&scene)?;
    // Nothing that was sent is silent: it is told, left out by a number that is told, or in a gap.
    let accounted = bytes + left_out * TELLERS + missing;
    (found.statements, found.told, found.left_out) = (transactions * 2, executions, left_out);
    if accounted < sent {
        found
            .wrong
            .push(format!("{sent} bytes were sent, {accounted} are accounted for"));
    }
    if executions > transactions || left_out > transactions {
        found.wrong.push(format!(
            "{executions} told and {left_out} left out of {transactions} each"
        ));
    }
    if missing == 0 {
        found
            .wrong
            .push("nothing was missed: the kill hit nothing".to_owned());
    }
    let gaps = scene.stored(
        "SELECT count(DISTINCT session_id) AS n FROM gaps WHERE gap_reason = 'agent_restart' AND bytes_missing > 0 ORDER BY n",
    )?;
    found.equal("sessions with a gap", gaps, CLIENTS);
    found.more.extend([
        ("bytes_sent".to_owned(), json!(sent)),
        ("bytes_told".to_owned(), json!(bytes)),
        ("bytes_left_out".to_owned(), json!(left_out * TELLERS)),
        ("bytes_missing".to_owned(), json!(missing)),
    ]);
    scene.close(keep);
    Ok(found)
}

/// The heartbeats of each run of the agent count from its start: the newest of each, together.
fn left_out(scene: &Scene) -> Result<u64> {
    let rows = scene.answer(
        "SELECT kind, event FROM events WHERE kind IN ('heartbeat', 'agent_start') ORDER BY agent, seq",
    )?;
    let (mut sum, mut newest) = (0, 0);
    for row in rows {
        let event = event(&row)?;
        match event
            .pointer("/heartbeat/counters/left_out")
            .and_then(Value::as_u64)
        {
            Some(count) => newest = count,
            None => sum += std::mem::take(&mut newest),
        }
    }
    Ok(sum + newest)
}

/// Bytes of requests that gaps tell of: missed, or seen and not understood.
fn missing(scene: &Scene) -> Result<u64> {
    let rows = scene.answer("SELECT seq, event FROM gaps ORDER BY agent, seq")?;
    let mut sum = 0;
    for row in rows {
        let event = event(&row)?;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/loss/direction") != "frontend" {
            continue;
        }
        sum += of(&event, "/loss/bytes_missing");
        let detail = text("/loss/detail");
        if let Some((bytes, _)) = detail.split_once(" bytes were seen") {
            sum += bytes.parse::<u64>().unwrap_or(0);
        }
    }
    Ok(sum)
}
