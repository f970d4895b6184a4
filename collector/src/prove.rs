//! `pgwitness-collector prove`: one event, and everything that shows it to be in the log, in one file.
//!
//! Owns how a proof is put together from an evidence folder. Its form is `file`; whether one holds is `check`, which takes
//! nothing from here, and looks at every proof before it is written.

mod check;
mod file;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use prost::Message;
use proto::v1;

use crate::{
    log::{self, Places, TreeFiles, folder_checkpoint},
    verify::Options,
};
pub use check::{ProofReport, check, verify};
pub use file::{Batch, Leaf, LogPlace, Proof};

/// Writes a proof of one event: a file that anybody can check with public keys alone (verify --proof).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The event's id, as in `SELECT event_id FROM events`: the agent's id, a dash, and a number.
    pub event_id: String,
    /// The data folder, or a copy of it; only `evidence` in it is read. A collector may be writing it.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to write the proof [default: stdout].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let data = args.data.clone();
    let data = data.unwrap_or_else(|| crate::config::Config::default().data);
    let (proof, report) = proven(&log::evidence_in(&data)?, &args.event_id)?;
    match &args.out {
        None => print!("{}", String::from_utf8_lossy(&proof.to_bytes()?)),
        Some(path) => {
            std::fs::write(path, proof.to_bytes()?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!(
                "{}: {} is entry {} of {}, under its checkpoint of {} entries",
                path.display(),
                args.event_id,
                proof.log.index,
                report.origin,
                report.tree_size
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A proof of an event, and what its check says: one that does not hold is none.
pub(crate) fn proven(evidence: &Path, event_id: &str) -> anyhow::Result<(Proof, ProofReport)> {
    let proof = prove(evidence, event_id)?;
    let report = check(&proof.to_bytes()?, &Options::default());
    match &report.wrong {
        None => Ok((proof, report)),
        Some(wrong) => {
            bail!("the evidence does not prove {event_id}: {wrong}; verify says where it is damaged")
        }
    }
}

/// Puts the proof of an event together.
///
/// # Errors
///
/// When the event is not in the log or not yet under a checkpoint, or when what is needed cannot be read.
pub fn prove(evidence: &Path, event_id: &str) -> anyhow::Result<Proof> {
    let parts = event_id.rsplit_once('-');
    let parts = parts.and_then(|(agent, seq)| Some((agent, seq.parse::<u64>().ok()?)));
    let Some((agent, seq)) = parts else {
        bail!("{event_id:?} is no event's id: it is an agent's id, a dash, and a number, as in db1-17")
    };
    let known = folder_checkpoint(evidence)?;
    let entry = log::entry_of(evidence, agent, seq)?;
    let entry = entry.with_context(|| {
        format!(
            "event {event_id} is not in the log {}, or its payload was removed by retention",
            known.origin.origin
        )
    })?;
    let (note, checkpoint) = known.newest_over(entry);
    ensure!(
        entry < checkpoint.size,
        "event {event_id} is entry {entry} of the log, whose checkpoint has {} entries: ask again when it is under one",
        checkpoint.size
    );
    let (batch, opened) = Places::new(evidence).read_with(entry)?;
    let place = u32::try_from(seq - opened.header.first_event_seq)?;
    let nth = usize::try_from(place)?;
    ensure!(
        !opened.is_event_erased(nth),
        "event {event_id} was erased: nothing but the hash of its leaf is left (SELECT event FROM events WHERE kind = 'erasure')"
    );
    let event = opened.events.get(nth).context("the batch has no such event")?;
    let own = v1::Event::decode(event.clone()).context("the event is malformed")?;
    let mut named: Vec<u32> = own.party.into_iter().chain(own.template).collect();
    named.sort_unstable();
    named.dedup();
    let behind = opened.header.event_count;
    let places: Vec<u32> = std::iter::once(place)
        .chain(named.iter().map(|name| behind + name))
        .collect();
    let mut disclosed = evidence::disclose(&batch, &places, &log::limits())?.into_iter();
    let event = disclosed.next().context("the batch has no such event")?;
    Ok(Proof {
        format: file::FORMAT.to_owned(),
        event_id: event_id.to_owned(),
        event: Leaf::of(place, &event),
        definitions: named
            .iter()
            .zip(disclosed)
            .map(|(name, leaf)| Leaf::of(*name, &leaf))
            .collect(),
        batch: Batch {
            header: BASE64_STANDARD.encode(&batch.header),
            signature: BASE64_STANDARD.encode(&batch.signature),
        },
        agent: log::agent_record(evidence, agent)?,
        log: LogPlace {
            verifier_key: known.origin.verifier_key.clone(),
            index: entry,
            path: file::encode(&TreeFiles::new(evidence, checkpoint.size).inclusion(entry)?),
            checkpoint: String::from_utf8(note.clone()).context("the checkpoint is no text")?,
        },
        witnesses: known.witnesses_on(note),
    })
}
