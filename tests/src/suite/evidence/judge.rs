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
    let rows = rows.iter().map(Row::of).collect::<Result<Vec<Row<'_>>>>()?;
    compare(rows, agents, sums);
    Ok(())
}

/// Each event of the journals once in the store's rows, which are in order, and nothing else.
fn compare(rows: Vec<Row<'_>>, agents: &[Agent], sums: &mut Sums) {
    let mut rows = rows.into_iter().peekable();
    for agent in agents {
        for seq in 1..=agent.events() {
            let (mut found, mut other) = (0, 0);
            while let Some(row) = rows.next_if(|row| (row.agent, row.seq) <= (agent.id.as_str(), seq)) {
                if (row.agent, row.seq) == (agent.id.as_str(), seq) && row.session == mark(&agent.id, seq) {
                    found += 1;
                } else {
                    other += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_twice_or_of_nobody_is_counted() {
        let mut agents = vec![Agent::new("truth-0", 1), Agent::new("truth-1", 2)];
        for agent in &mut agents {
            agent.make(3, 0);
        }
        let marks: Vec<(String, u64, String)> = agents
            .iter()
            .flat_map(|agent| (1..=3).map(|seq| (agent.id.clone(), seq, mark(&agent.id, seq))))
            .collect();
        let row = |index: usize| {
            let (agent, seq, session) = marks.get(index).unwrap();
            Row {
                agent,
                seq: *seq,
                session,
            }
        };
        let judged = |places: &[usize]| {
            let mut sums = Sums::default();
            compare(
                places.iter().map(|place| row(*place)).collect(),
                &agents,
                &mut sums,
            );
            (sums.lost_events, sums.duplicated)
        };
        assert_eq!(judged(&[0, 1, 2, 3, 4, 5]), (0, 0));
        assert_eq!(judged(&[0, 2, 3, 4, 5]), (1, 0));
        assert_eq!(judged(&[0, 1, 1, 2, 3, 4, 5]), (0, 1));
        assert_eq!(judged(&[0, 1, 2, 3, 4]), (1, 0));
        let mut sums = Sums::default();
        let mut rows: Vec<Row<'_>> = (0..6).map(row).collect();
        rows.push(Row {
            agent: "truth-9",
            seq: 1,
            session: "?",
        });
        if let Some(first) = rows.first_mut() {
            first.session = "another";
        }
        compare(rows, &agents, &mut sums);
        assert_eq!((sums.lost_events, sums.duplicated), (1, 2));
    }
}
