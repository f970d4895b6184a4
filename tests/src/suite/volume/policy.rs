//! Another policy while pgbench runs: from full to roll-ups to their number alone, and a file that is none. Each statement is told
//! in one of the ways, and each change is.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Found;
use super::scene::{Scene, event};

const ROLLUP: &str = "[[rule]]\nkeep = \"rollup\"\n";
const OFF: &str =
    "[[rule]]\nname = \"noise\"\nkeep = \"off\"\nclass = \"READ\"\nobject = \"pgbench_accounts\"\n";
const BROKEN: &str = "[[rule]]\nkeep = \"nothing\"\n";
const SENSITIVE: &str = "sensitive = [\"public.pgbench_accounts\"]\n[[rule]]\nkeep = \"off\"\n";

/// Longer than a change takes to be in effect.
const EACH: Duration = Duration::from_secs(4);
const SECONDS: u64 = 20;

pub(super) async fn run(keep: bool) -> Result<Found> {
    let mut found = Found::default();
    let mut scene = Scene::open("", 1).await?;
    let duration = SECONDS.to_string();
    let bench = scene.bench(
        "reload",
        &["-b", "select-only", "-c", "2", "-R", "400", "-T", &duration],
    )?;
    for policy in [ROLLUP, BROKEN, OFF, SENSITIVE] {
        tokio::time::sleep(EACH).await;
        scene.replace_policy(policy)?;
    }
    let transactions = bench.finish(Duration::from_secs(SECONDS + 60)).await?;
    scene.tap.stop().await?;
    let of = |kind: &str| {
        scene.stored(&format!(
            "SELECT sum(executions) AS n FROM events WHERE kind = '{kind}' AND principal LIKE '%reload%' \
             AND statement LIKE '%abalance%' ORDER BY n"
        ))
    };
    let (full, rolled) = (of("query")?, of("rollup")?);
    let left_out = left_out(&scene)?;
    (found.statements, found.told, found.left_out) = (transactions, full + rolled, left_out);
    found.equal(
        "statements told and left out",
        full + rolled + left_out,
        transactions,
    );
    for (what, count) in [("full", full), ("rolled up", rolled), ("left out", left_out)] {
        if count < 100 {
            found.wrong.push(format!("{count} statements are {what}"));
        }
    }
    // At the start, three that are in effect, and one that is not.
    let changes =
        scene.answer("SELECT event FROM events WHERE kind = 'config_change' ORDER BY agent, seq")?;
    let problems = changes
        .iter()
        .filter(|row| row.to_string().contains("\\\"problem\\\""))
        .count();
    found.equal("changes of the policy", changes.len() as u64, 5);
    found.equal("policies that are none", problems as u64, 1);
    found.equal(
        "gaps",
        scene.stored("SELECT count(*) AS n FROM gaps ORDER BY n")?,
        0,
    );
    found.more.extend([
        ("full".to_owned(), json!(full)),
        ("rolled_up".to_owned(), json!(rolled)),
        ("left_out".to_owned(), json!(left_out)),
        ("changes".to_owned(), json!(changes.len())),
    ]);
    scene.close(keep);
    Ok(found)
}

/// As the newest heartbeat says, by the rule's name.
fn left_out(scene: &Scene) -> Result<u64> {
    let rows = scene.answer("SELECT seq, event FROM events WHERE kind = 'heartbeat' ORDER BY agent, seq")?;
    let newest = rows.last().context("no heartbeat")?;
    let event = event(newest)?;
    let rules = event.pointer("/heartbeat/left_out").and_then(Value::as_array);
    let named = rules
        .into_iter()
        .flatten()
        .filter(|rule| rule.get("rule").and_then(Value::as_str) == Some("noise"));
    Ok(named
        .filter_map(|rule| rule.get("statements").and_then(Value::as_u64))
        .sum())
}
