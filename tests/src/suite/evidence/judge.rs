//! Whether a stopped collector holds what the journals say: every batch once, in order, and every event once in the store.
//!
//! Owns the comparison alone. What is acknowledged and held is judged in conversation, by the agents themselves.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Sums;
use super::agent::{Agent, mark};
use super::scene::Collector;
use crate::record::query_folder;

/// Compares, where every agent is through. `checkpoint` is one that somebody kept: the log must still contain it.
///
/// # Errors
/// When the collector's commands cannot be run.
pub(super) fn judge(
    collector: &Collector,
    agents: &[Agent],
    checkpoint: Option<&PathBuf>,
    sums: &mut Sums,
) -> Result<()> {
    for agent in agents {
        sums.acknowledged += agent.newest_acknowledged();
        sums.lost += agent.faults.lost;
        sums.out_of_order += agent.faults.out_of_order;
        sums.say(&agent.faults.said);
    }
    let mut more = Vec::new();
    if let Some(checkpoint) = checkpoint {
        more.extend(["--checkpoint", checkpoint.to_str().context("a path in UTF-8")?]);
    }
    let report = collector.verify(&collector.data(), &more)?;
    let ok = report.get("ok").and_then(serde_json::Value::as_bool) == Some(true);
    if !ok {
        sums.unverified += 1;
        sums.say(&[format!("verify: {}", report.get("wrong").unwrap_or(&report))]);
    }
    let sql = "SELECT agent, seq, session_id FROM events WHERE agent LIKE 'truth-%' ORDER BY agent, seq, session_id";
    let rows = query_folder(collector.program(), &collector.data(), sql)?;
    let mut rows = rows
        .iter()
        .map(Row::of)
        .collect::<Result<Vec<Row<'_>>>>()?
        .into_iter()
        .peekable();
    for agent in agents {
        for seq in 1..=agent.events() {
            let (mut found, mut other) = (0, 0);
            while let Some(row) = rows.next_if(|row| (row.agent, row.seq) <= (agent.id.as_str(), seq)) {
                if (row.agent, row.seq) != (agent.id.as_str(), seq) || row.session != mark(&agent.id, seq) {
                    other += 1;
                } else {
                    found += 1;
                }
            }
            sums.events += 1;
            sums.lost_events += u64::from(found == 0);
            sums.duplicated += u64::from(found > 1) + other;
            if found != 1 || other != 0 {
                sums.say(&[format!(
                    "{} event {seq} is {found} times in the store, {other} others",
                    agent.id
                )]);
            }
        }
    }
    let left = rows.count() as u64;
    if left > 0 {
        sums.duplicated += left;
        sums.say(&[format!("{left} events in the store that nobody sent")]);
    }
    Ok(())
}

struct Row<'a> {
    agent: &'a str,
    seq: u64,
    session: &'a str,
}

impl<'a> Row<'a> {
    fn of(row: &'a serde_json::Value) -> Result<Self> {
        let text = |name| row.get(name).and_then(serde_json::Value::as_str);
        Ok(Self {
            agent: text("agent").context("no agent")?,
            seq: row
                .get("seq")
                .and_then(serde_json::Value::as_u64)
                .context("no seq")?,
            session: text("session_id").unwrap_or_default(),
        })
    }
}
