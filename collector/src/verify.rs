//! `pgwitness-collector verify`: whether the evidence is what was acknowledged.
//!
//! Owns the report. The check itself is the log's own walk, in full depth, so that the program that writes and the one
//! that verifies cannot disagree about what a log is.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde::Serialize;

use crate::{
    join,
    log::{self, Depth, Wrong, scan},
};

/// Checks the evidence in a data folder, offline: every byte of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data folder, or a copy of it; only `evidence` in it is read.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A checkpoint of this log that was kept elsewhere: the log must still contain it.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether everything holds.
    pub ok: bool,
    /// `pgwitness/<name>`.
    pub origin: String,
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
    /// Whether a checkpoint from elsewhere was compared; without one, a folder rolled back whole cannot be found out.
    pub compared_with_kept_checkpoint: bool,
    /// Sessions named by what two hosts saw, each made again from the two events that it names.
    pub amendments: u64,
    /// Of those, made by rules that this version does not have: not made again.
    pub amendments_not_checked: u64,
    /// Statements named by what a pooler's host saw, each decided again from the events that its amendment names.
    pub amended_statements: u64,
    /// The first thing that is wrong.
    pub wrong: Option<Wrong>,
}

/// Runs the command; exits with 1 where something is wrong.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let data = args
        .data
        .clone()
        .unwrap_or_else(|| crate::config::Config::default().data);
    let evidence = log::evidence_in(&data)?;
    let kept = args.checkpoint.as_ref().map(|path| {
        std::fs::read(path).with_context(|| format!("cannot read the checkpoint {}", path.display()))
    });
    let report = verify(&evidence, kept.transpose()?.as_deref());
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.text(&evidence));
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Checks an evidence folder; `kept` is a checkpoint from elsewhere.
#[must_use]
pub fn verify(evidence: &Path, kept: Option<&[u8]>) -> Report {
    let compared_with_kept_checkpoint = kept.is_some();
    let scanned = scan(evidence, Depth::Events, kept)
        .and_then(|scanned| join::check(evidence, &scanned.contents).map(|checked| (scanned, checked)));
    match scanned {
        Err(wrong) => Report {
            wrong: Some(wrong),
            compared_with_kept_checkpoint,
            ..Report::default()
        },
        Ok((scanned, checked)) => Report {
            amendments: checked.amendments,
            amendments_not_checked: checked.of_other_rules,
            amended_statements: checked.statements,
            ok: true,
            origin: scanned.origin.origin,
            agents: scanned.keys.len() as u64,
            batches: scanned.tiling.size(),
            events: scanned.events,
            tree_size: scanned.checkpoint.size,
            root: scanned.checkpoint.root_base64(),
            not_yet_under_a_checkpoint: scanned.tiling.size() - scanned.checkpoint.size,
            unfinished_bytes: scanned.torn.map_or(0, |torn| torn.bytes),
            compared_with_kept_checkpoint,
            wrong: None,
        },
    }
}

impl Report {
    fn text(&self, evidence: &Path) -> String {
        if let Some(wrong) = &self.wrong {
            return format!("WRONG: {} does not verify\n  {wrong}\n", evidence.display());
        }
        let mut text = format!(
            "OK: {} verifies\n  origin     {}\n  agents     {}\n  batches    {}\n  events     {}\n  tree size  {}\n  root       {}\n",
            evidence.display(),
            self.origin,
            self.agents,
            self.batches,
            self.events,
            self.tree_size,
            self.root
        );
        if self.amendments > 0 {
            text += &format!(
                "  {} sessions were named by what two hosts saw; each follows from the events that it names\n",
                self.amendments - self.amendments_not_checked
            );
        }
        if self.amended_statements > 0 {
            text += &format!(
                "  {} statements were named by what a pooler's host saw; each follows from the events that name it\n",
                self.amended_statements
            );
        }
        if self.amendments_not_checked > 0 {
            text += &format!(
                "  {} were named by rules of another version, which this program cannot repeat\n",
                self.amendments_not_checked
            );
        }
        if self.not_yet_under_a_checkpoint > 0 {
            text += &format!(
                "  {} batches are not yet under a checkpoint: their signatures and chains hold\n",
                self.not_yet_under_a_checkpoint
            );
        }
        if self.unfinished_bytes > 0 {
            text += &format!(
                "  {} bytes at the end are an unfinished record\n",
                self.unfinished_bytes
            );
        }
        if self.compared_with_kept_checkpoint {
            text += "  it contains the checkpoint that was kept elsewhere\n";
        } else {
            text += "  no checkpoint from elsewhere was given (--checkpoint FILE): a folder rolled back whole to an \
                     older state would verify too\n";
        }
        text
    }
}
