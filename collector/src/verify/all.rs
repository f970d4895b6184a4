//! `verify --all`: the folders of several collectors, and the chains of the agents that delivered to them.
//!
//! Owns the join of an agent's chain over several logs. A batch may stand in two logs, after a failover; it is the same one,
//! or its agent signed two histories. What is in no folder is named, and whether its agent says that it gave it up. Whichever log a batch
//! is in, the key that signed it is the one that the chain before it announces.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use ed25519_dalek::VerifyingKey;
use proto::v1::GivenUp;
use serde::Serialize;

use super::{Options, Report, scanned};
use crate::log::{AgentKeys, Kept, Link, Origin, Scanned, covered};

/// What was found in all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AllReport {
    /// Whether each holds, and no chain has a hole or two histories.
    pub ok: bool,
    /// One for each folder, in the order given.
    pub logs: Vec<Report>,
    /// Agents in all.
    pub agents: u64,
    /// Different batches in all.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Batches that stand in more than one log.
    pub in_several: u64,
    /// Batches that are in no folder, and of which nobody says why.
    pub missing: Vec<Missing>,
    /// Batches that are in no folder because their agent gave them up before a collector had acknowledged them, by its word.
    pub given_up: Vec<Missing>,
    /// Where the chains contradict each other.
    pub wrong: Option<String>,
}

/// A hole in an agent's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Whose.
    pub agent_id: String,
    /// The first batch that is missing.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Events in them, by the numbers of those before and behind.
    pub events: u64,
}

/// One agent's chain over all logs.
#[derive(Default)]
struct Joined<'a> {
    /// By sequence, with the log that it is in.
    links: BTreeMap<u64, (Link, usize)>,
    given_up: Vec<GivenUp>,
    /// Keys whose announcements are shown beside a log, by the first batch of each.
    shown: BTreeMap<u64, &'a VerifyingKey>,
}

/// Checks evidence folders, each and together.
///
/// # Errors
///
/// When one of them cannot be found, or a kept checkpoint is of none.
pub fn verify_all(folders: &[PathBuf], options: &Options) -> anyhow::Result<AllReport> {
    let mut report = AllReport::default();
    let mut whole = Vec::new();
    let mut compared = 0;
    for folder in folders {
        let kept = of_this_log(folder, options)?;
        compared += kept.len();
        let options = Options {
            kept,
            origin_keys: options.origin_keys.clone(),
            witnesses: options.witnesses.clone(),
            state: None,
            ..*options
        };
        match scanned(folder, &options, None, true) {
            Ok((scanned, checked)) => {
                report.logs.push(Report::of(&scanned, checked, &options));
                whole.push(scanned);
            }
            Err(wrong) => report.logs.push(Report::wrong(wrong, &options)),
        }
    }
    ensure!(
        compared >= options.kept.len(),
        "one of the checkpoints (--checkpoint) is of none of these logs"
    );
    if whole.len() == folders.len() {
        let joined = report.join(&whole);
        report.wrong = joined.err();
    }
    report.ok = report.logs.iter().all(|log| log.ok) && report.wrong.is_none() && report.missing.is_empty();
    Ok(report)
}

/// The kept checkpoints that say to be of this folder's log.
fn of_this_log(evidence: &Path, options: &Options) -> anyhow::Result<Vec<Kept>> {
    let origin = Origin::read(evidence).context("origin")?;
    let of_it = |note: &[u8]| note.starts_with(format!("{}\n", origin.origin).as_bytes());
    Ok(options
        .kept
        .iter()
        .filter(|kept| of_it(&kept.note))
        .cloned()
        .collect())
}

impl AllReport {
    fn join(&mut self, logs: &[Scanned]) -> Result<(), String> {
        let mut agents: BTreeMap<&str, Joined<'_>> = BTreeMap::new();
        for (nth, log) in logs.iter().enumerate() {
            for (agent, links) in &log.contents.links {
                let joined = agents.entry(agent).or_default();
                for link in links {
                    match joined.links.entry(link.sequence) {
                        Entry::Vacant(place) => _ = place.insert((*link, nth)),
                        Entry::Occupied(found) => {
                            let (known, first) = found.get();
                            let other = logs.get(*first).map_or("", |log| &log.origin.origin);
                            if known.key != link.key {
                                return Err(another_key(agent, link.sequence, &log.origin.origin));
                            }
                            if known.hash != link.hash {
                                return Err(format!(
                                    "agent {agent} signed two batches {}: entry {} of {other}, entry {} of {}",
                                    link.sequence, known.entry, link.entry, log.origin.origin
                                ));
                            }
                            self.in_several += 1;
                        }
                    }
                }
            }
        }
        for (agent, joined) in &mut agents {
            for log in logs {
                let given_up = log.contents.given_up.get(*agent);
                joined.given_up.extend(given_up.into_iter().flatten());
                let keys = log.keys.get(*agent);
                joined.shown.extend(keys.into_iter().flat_map(AgentKeys::shown));
            }
        }
        self.agents = agents.len() as u64;
        for (agent, joined) in &agents {
            self.follow(agent, joined, logs)?;
        }
        Ok(())
    }

    /// One agent's chain, in order.
    fn follow(&mut self, agent: &str, joined: &Joined<'_>, logs: &[Scanned]) -> Result<(), String> {
        let mut before: Option<&Link> = None;
        for (link, nth) in joined.links.values() {
            self.batches += 1;
            self.events += u64::from(link.event_count);
            let expected = before.map_or(1, |before| before.sequence + 1);
            let next_event =
                before.map_or(1, |before| before.first_event_seq + u64::from(before.event_count));
            // A key that changed in a hole is announced by what is shown of it; where batches are just missing, nobody can tell.
            let of_hole = joined.shown.range(expected..=link.sequence).next_back();
            let announced = before.and_then(|before| before.next_key.as_ref());
            if let (Some(announced), Some(shown)) = (announced, joined.shown.get(&expected))
                && announced != *shown
            {
                return Err(format!(
                    "agent {agent} signed two batches {}, which announce different keys",
                    expected - 1
                ));
            }
            let known = of_hole
                .map(|(_, key)| *key)
                .or(announced)
                .or(before.map(|before| &before.key));
            let hole = Missing {
                agent_id: agent.to_owned(),
                from: expected,
                to: link.sequence - 1,
                events: link.first_event_seq.saturating_sub(next_event),
            };
            let is_missing = link.sequence != expected && !covered(&joined.given_up, hole.from, hole.to);
            if !is_missing && known.is_some_and(|known| *known != link.key) {
                let origin = logs.get(*nth).map_or("", |log| &log.origin.origin);
                return Err(another_key(agent, link.sequence, origin));
            }
            if is_missing {
                self.missing.push(hole);
            } else if link.sequence != expected {
                self.given_up.push(hole);
            } else if link.previous != before.map_or([0; 32], |before| before.hash) {
                return Err(format!(
                    "batch {} of agent {agent} names another predecessor than batch {}",
                    link.sequence,
                    expected - 1
                ));
            } else if before.is_some_and(|before| before.event_count > 0)
                && link.event_count > 0
                && link.first_event_seq != next_event
            {
                return Err(format!(
                    "batch {} of agent {agent} begins at event {}, expected {next_event}",
                    link.sequence, link.first_event_seq
                ));
            }
            before = Some(link);
        }
        Ok(())
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            text += &match &log.wrong {
                Some(wrong) => format!("WRONG: {wrong}\n"),
                None => format!(
                    "OK: {}: {} batches, {} events, root {} at {}\n",
                    log.origin, log.batches, log.events, log.root, log.tree_size
                ),
            };
        }
        if self.logs.iter().any(|log| log.wrong.is_some()) {
            return text + "the agents' chains were not joined: not every folder verifies\n";
        }
        if let Some(wrong) = &self.wrong {
            return text + &format!("WRONG: {wrong}\n");
        }
        text += &format!(
            "{}: {} agents, {} batches ({} of them in more than one log), {} events\n",
            if self.ok {
                "OK, together"
            } else {
                "WRONG, together"
            },
            self.agents,
            self.batches,
            self.in_several,
            self.events
        );
        for hole in &self.missing {
            text += &format!(
                "  batches {} to {} of agent {} are in none of these folders\n",
                hole.from, hole.to, hole.agent_id
            );
        }
        for hole in &self.given_up {
            text += &format!(
                "  batches {} to {} of agent {}, {} events, are in none of these folders: the agent says that it gave them up before a \
                 collector had acknowledged them\n",
                hole.from, hole.to, hole.agent_id, hole.events
            );
        }
        if self.logs.iter().any(|log| !log.compared_with_kept_checkpoint) {
            text += "  without a checkpoint kept elsewhere of each log (--checkpoint FILE), a folder rolled back whole \
                     would verify too\n";
        }
        text
    }
}

fn another_key(agent: &str, sequence: u64, origin: &str) -> String {
    format!(
        "batch {sequence} of agent {agent} in {origin} is signed with another key than the chain before it announces"
    )
}
