//! What `verify` says of a folder.
//!
//! Owns the words, and that what was not checked is said as plainly as what was.

use std::path::Path;

use serde::Serialize;

use super::Options;
use crate::{
    join,
    log::{Elsewhere, Restored, Scanned, Wrong},
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether everything holds.
    pub ok: bool,
    /// `pgwitness/<name>`.
    pub origin: String,
    /// The key that the log is signed with, `<origin>+<id>+<key>`.
    pub verifier_key: String,
    /// Whether that key was given, and not taken from the folder.
    pub compared_with_known_key: bool,
    /// Agents whose keys are known.
    pub agents: u64,
    /// Batches, those beyond the checkpoint too.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Entries under the checkpoint.
    pub tree_size: u64,
    /// The checkpoint's root, base64.
    pub root: String,
    /// Batches beyond the checkpoint: checked by signature and chain alone.
    pub not_yet_under_a_checkpoint: u64,
    /// Bytes of a record that was cut short at the end and never acknowledged.
    pub unfinished_bytes: u64,
    /// Batches of which an earlier run had read all, and this one only the header.
    pub checked_earlier: u64,
    /// Whether a checkpoint from elsewhere was compared; without one, a folder rolled back whole cannot be found out.
    pub compared_with_kept_checkpoint: bool,
    /// Entries under the newest checkpoint that witnesses cosigned.
    pub cosigned_size: Option<u64>,
    /// The witnesses that did, as the folder names them.
    pub cosigned_by: Vec<String>,
    /// Batches that are in the chains of agents and not in this log.
    pub elsewhere: Vec<Elsewhere>,
    /// Of which logs it was made, by backups of them.
    pub restored: Vec<Restored>,
    /// Sessions named by what two hosts saw, each made again from the two events that it names.
    pub amendments: u64,
    /// Of those, made by rules that this version does not have: not made again.
    pub amendments_not_checked: u64,
    /// Statements named by what a pooler's host saw, each decided again from the events that its amendment names.
    pub amended_statements: u64,
    /// Acts of erasure that the collector's own chain tells.
    pub erasures: u64,
    /// Events that they took: of them nothing but the leaf's hash is left.
    pub erased_events: u64,
    /// Amendments that rest on something that was erased or removed: not made again.
    pub amendments_of_erased: u64,
    /// The newest removal of payloads, as the collector's own chain tells it.
    pub removed: Option<Removed>,
    /// The first thing that is wrong.
    pub wrong: Option<Wrong>,
}

/// Payloads that are gone by retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Those of so many entries, the log's first. Their headers are there, and were checked.
    pub entries: u64,
    /// Everything in them had ended by then, RFC 3339.
    pub at: Option<String>,
    /// Why.
    pub reason: String,
}

impl Report {
    pub(super) fn of(scanned: &Scanned, checked: join::Checked, options: &Options) -> Self {
        let (size, batches) = (scanned.checkpoint.size, scanned.tiling.size());
        let cosigned = scanned.cosigned.as_ref();
        Self {
            ok: true,
            origin: scanned.origin.origin.clone(),
            verifier_key: scanned.origin.verifier_key.clone(),
            compared_with_known_key: !options.origin_keys.is_empty(),
            agents: scanned.keys.len() as u64,
            batches,
            events: scanned.events,
            tree_size: size,
            root: scanned.checkpoint.root_base64(),
            not_yet_under_a_checkpoint: batches - size,
            unfinished_bytes: scanned.torn.as_ref().map_or(0, |torn| torn.bytes),
            checked_earlier: scanned.checked_earlier,
            compared_with_kept_checkpoint: !options.kept.is_empty(),
            cosigned_size: cosigned.map(|(size, _)| *size),
            cosigned_by: cosigned.map_or_else(Vec::new, |(_, by)| {
                by.iter().map(|cosigned| cosigned.witness.clone()).collect()
            }),
            elsewhere: scanned.elsewhere.clone(),
            restored: scanned.restored.clone(),
            amendments: checked.amendments,
            amendments_not_checked: checked.of_other_rules,
            amended_statements: checked.statements,
            erasures: scanned.removals.erasures,
            erased_events: scanned
                .removals
                .erased
                .values()
                .map(|events| events.len() as u64)
                .sum(),
            amendments_of_erased: checked.of_erased,
            removed: scanned.removals.retention.as_ref().map(|(_, retention)| Removed {
                entries: retention.end_entry,
                at: proto::json::time(retention.before_ns),
                reason: retention.reason.clone(),
            }),
            wrong: None,
        }
    }

    pub(super) fn wrong(wrong: Wrong, options: &Options) -> Self {
        Self {
            wrong: Some(wrong),
            compared_with_known_key: !options.origin_keys.is_empty(),
            compared_with_kept_checkpoint: !options.kept.is_empty(),
            ..Self::default()
        }
    }

    pub(super) fn text(&self, evidence: &Path) -> String {
        if let Some(wrong) = &self.wrong {
            return format!("WRONG: {} does not verify\n  {wrong}\n", evidence.display());
        }
        let mut text = format!(
            "OK: {} verifies\n  origin     {}\n  key        {}\n  agents     {}\n  batches    {}\n  events     {}\n  tree size  {}\n  root       {}\n",
            evidence.display(),
            self.origin,
            self.verifier_key,
            self.agents,
            self.batches,
            self.events,
            self.tree_size,
            self.root
        );
        for line in self.remarks() {
            text += &format!("  {line}\n");
        }
        text
    }

    fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut told = |count: u64, what: &str| {
            if count > 0 {
                lines.push(format!("{count} {what}"));
            }
        };
        told(
            self.amendments - self.amendments_not_checked,
            "sessions were named by what two hosts saw; each follows from the events that it names",
        );
        told(
            self.amended_statements,
            "statements were named by what a pooler's host saw; each follows from the events that name it",
        );
        told(
            self.erased_events,
            "events were erased, as the collector's own chain says, with reasons (kind erasure); everything else still holds",
        );
        told(
            self.amendments_of_erased,
            "of these names rest on something that was erased, and cannot be checked any more",
        );
        told(
            self.amendments_not_checked,
            "were named by rules of another version, which this program cannot repeat",
        );
        told(
            self.not_yet_under_a_checkpoint,
            "batches are not yet under a checkpoint: their signatures and chains hold",
        );
        told(self.unfinished_bytes, "bytes at the end are an unfinished record");
        told(
            self.checked_earlier,
            "batches were read whole by an earlier run (--state): of them, this one read headers and tree alone",
        );
        if let Some(removed) = &self.removed {
            lines.push(format!(
                "the payloads of its first {} entries, of before {}, were removed by retention: of them headers and tree were checked ({})",
                removed.entries,
                removed.at.as_deref().unwrap_or("an unknown time"),
                removed.reason
            ));
        }
        for gap in &self.elsewhere {
            let why = match gap.given_up {
                true => "the agent says that it gave them up before a collector had acknowledged them",
                false => "look at all collectors' folders together (--all)",
            };
            lines.push(format!(
                "batches {} to {} of agent {} are not in this log: {why}",
                gap.from, gap.to, gap.agent_id
            ));
        }
        for old in &self.restored {
            lines.push(format!(
                "its first {} entries are a backup of {} ({}); what was acknowledged behind that is not here",
                old.tree_size, old.origin, old.verifier_key
            ));
        }
        if let Some(size) = self.cosigned_size {
            lines.push(format!(
                "its first {size} entries were cosigned by {} (keys as the folder names them)",
                self.cosigned_by.join(", ")
            ));
        }
        lines.push(match self.compared_with_kept_checkpoint {
            true => "it contains the checkpoint that was kept elsewhere".to_owned(),
            false => "no checkpoint from elsewhere was given (--checkpoint FILE): a folder rolled back whole to an older \
                      state would verify too"
                .to_owned(),
        });
        if !self.compared_with_known_key {
            lines.push(
                "the log's key was taken from the folder (--origin-key KEY): a folder made anew under another key would \
                 verify too"
                    .to_owned(),
            );
        }
        lines
    }
}
