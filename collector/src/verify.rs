//! `pgwitness-collector verify`: whether the evidence is what was acknowledged.
//!
//! Owns the command. The check of a folder is the log's own walk, in full depth; what is said of it is `report`, several
//! collectors' folders together are `all`, and one event's proof is [`crate::prove`]'s.

mod all;
mod report;

use std::{
    io::IsTerminal,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use evidence::{Checkpoint, WitnessKey};
use serde::Serialize;

use crate::{
    join,
    log::{self, Ask, Depth, Kept, Progress, Scanned, State, Wrong, processors, scan},
    prove,
};
pub use all::{AllReport, Missing, verify_all};
pub use report::Report;

/// Checks the evidence in a data folder, offline: every byte of it. Or one event's proof, by public keys alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data folder, or a copy of it; only `evidence` in it is read.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["all", "proof"])]
    pub data: Option<PathBuf>,
    /// The data folders of all collectors that the same agents delivered to: each is checked, and the agents' chains are
    /// joined over all of them.
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with = "proof")]
    pub all: Vec<PathBuf>,
    /// A proof of one event, as `prove` writes it; no folder is read.
    #[arg(long, value_name = "FILE")]
    pub proof: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere: its log must still contain it. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// The log's key as you know it, `pgwitness/NAME+ID+KEY`; without it, the one in the folder or proof is believed.
    #[arg(long, value_name = "KEY")]
    pub origin_key: Vec<String>,
    /// A witness that you trust, `NAME+ID+KEY`. May be given several times.
    #[arg(long, value_name = "KEY")]
    pub witness: Vec<String>,
    /// How many of those witnesses must have cosigned [default: all that are given].
    #[arg(long, value_name = "N", requires = "witness")]
    pub cosigned_by: Option<usize>,
    /// Threads that check batches [default: one for each processor].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Where to note how far was checked: an interrupted run goes on from there, and a later one reads only what is new.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "proof"])]
    pub state: Option<PathBuf>,
    /// Says every few seconds how far it is, also where stderr is no terminal.
    #[arg(long)]
    pub progress: bool,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What is compared with, and how.
#[derive(Debug)]
pub struct Options {
    /// Checkpoints from elsewhere.
    pub kept: Vec<Kept>,
    /// Keys of logs, as `pgwitness/NAME+ID+KEY`; empty: the folder's own is believed.
    pub origin_keys: Vec<String>,
    /// Trusted witnesses.
    pub witnesses: Vec<WitnessKey>,
    /// How many of them must have cosigned.
    pub cosigned_by: usize,
    /// At least one.
    pub threads: usize,
    /// File of the state.
    pub state: Option<PathBuf>,
    /// Whether to say how far it is.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            origin_keys: Vec::new(),
            witnesses: Vec::new(),
            cosigned_by: 0,
            threads: processors(),
            state: None,
            progress: false,
        }
    }
}

/// Runs the command; exits with 1 where something is wrong.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = args.options()?;
    let (ok, text) = if let Some(file) = &args.proof {
        let report = prove::verify(file, &options)?;
        (report.ok, print(&report, args.json, report.text(file))?)
    } else if args.all.is_empty() {
        let data = args.data.clone();
        let data = data.unwrap_or_else(|| crate::config::Config::default().data);
        let evidence = log::evidence_in(&data)?;
        let report = verify_with(&evidence, &options)?;
        (report.ok, print(&report, args.json, report.text(&evidence))?)
    } else {
        let folders = args.all.iter().map(|data| log::evidence_in(data));
        let folders = folders.collect::<anyhow::Result<Vec<_>>>()?;
        let report = verify_all(&folders, &options)?;
        (report.ok, print(&report, args.json, report.text())?)
    };
    print!("{text}");
    Ok(match ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl Args {
    fn options(&self) -> anyhow::Result<Options> {
        let kept = self.checkpoint.iter().map(|path| {
            let note = std::fs::read(path);
            let note = note.with_context(|| format!("cannot read the checkpoint {}", path.display()))?;
            let name = path.display().to_string();
            Ok(Kept { name, note })
        });
        let witnesses = self.witness.iter().map(|key| Ok(WitnessKey::parse(key)?));
        let witnesses = witnesses.collect::<anyhow::Result<Vec<_>>>()?;
        let cosigned_by = self.cosigned_by.unwrap_or(witnesses.len());
        ensure!(
            cosigned_by <= witnesses.len(),
            "--cosigned-by asks for {cosigned_by} witnesses, --witness names {}",
            witnesses.len()
        );
        let threads = self.threads.unwrap_or_else(processors);
        ensure!(
            (1..=MAX_THREADS).contains(&threads),
            "--threads takes 1 to {MAX_THREADS}"
        );
        Ok(Options {
            kept: kept.collect::<anyhow::Result<_>>()?,
            origin_keys: self.origin_key.clone(),
            witnesses,
            cosigned_by,
            threads,
            state: self.state.clone(),
            progress: self.progress || std::io::stderr().is_terminal(),
        })
    }
}

/// Checks an evidence folder; `kept` is a checkpoint from elsewhere.
#[must_use]
pub fn verify(evidence: &Path, kept: Option<&[u8]>) -> Report {
    let kept = kept.map(|note| Kept {
        name: "kept".to_owned(),
        note: note.to_vec(),
    });
    let options = Options {
        kept: kept.into_iter().collect(),
        ..Options::default()
    };
    match scanned(evidence, &options, None, false) {
        Ok((scanned, checked)) => Report::of(&scanned, checked, &options),
        Err(wrong) => Report::wrong(wrong, &options),
    }
}

/// Checks an evidence folder.
///
/// # Errors
///
/// When the file of the state cannot be used; what is wrong with the evidence is in the report.
pub fn verify_with(evidence: &Path, options: &Options) -> anyhow::Result<Report> {
    let state = options.state.as_deref().map(State::read).transpose()?.flatten();
    match scanned(evidence, options, state, false) {
        Ok((scanned, checked)) => Ok(Report::of(&scanned, checked, options)),
        Err(wrong) => Ok(Report::wrong(wrong, options)),
    }
}

/// Checks an evidence folder, and tells how far it is until it is told to stop: then it says that something is wrong.
pub(crate) fn verify_telling(
    evidence: &Path,
    options: &Options,
    tell: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Report {
    match walked(evidence, options, None, false, &mut |progress, _| tell(progress)) {
        Ok((scanned, checked)) => Report::of(&scanned, checked, options),
        Err(wrong) => Report::wrong(wrong, options),
    }
}

/// The same, telling as the options say.
fn scanned(
    evidence: &Path,
    options: &Options,
    state: Option<State>,
    links: bool,
) -> Result<(Scanned, join::Checked), Wrong> {
    let reached = state.as_ref().map_or(0, |state| state.size);
    let mut told = |progress: &Progress, state: &State| {
        if options.progress {
            eprintln!("verify: {progress}");
        }
        // What an earlier run reached is not taken back while its headers are read again.
        if let Some(path) = options.state.as_deref().filter(|_| state.size >= reached)
            && let Err(error) = state.write(path)
        {
            eprintln!("verify: {error:#}");
        }
        ControlFlow::Continue(())
    };
    walked(evidence, options, state, links, &mut told)
}

/// The walk, and everything that is checked behind it.
fn walked(
    evidence: &Path,
    options: &Options,
    state: Option<State>,
    links: bool,
    told: &mut dyn FnMut(&Progress, &State) -> ControlFlow<()>,
) -> Result<(Scanned, join::Checked), Wrong> {
    let ask = Ask {
        depth: Depth::Events,
        kept: &options.kept,
        threads: options.threads,
        state,
        links,
        finishes: false,
        told,
    };
    let scanned = scan(evidence, ask)?;
    let key = &scanned.origin.verifier_key;
    if !options.origin_keys.is_empty() && !options.origin_keys.contains(key) {
        let what = format!(
            "the log is signed by {key}, expected {}",
            options.origin_keys.join(" or ")
        );
        return Err(Wrong::new("origin", None, what));
    }
    check_cosigned(evidence, key, options)?;
    let checked = join::check(evidence, &scanned.contents, scanned.removals.begins)?;
    Ok((scanned, checked))
}

/// Whether as many of the trusted witnesses cosigned as are asked for.
fn check_cosigned(evidence: &Path, key: &str, options: &Options) -> Result<(), Wrong> {
    if options.cosigned_by == 0 {
        return Ok(());
    }
    let note = std::fs::read(evidence.join("cosigned")).unwrap_or_default();
    let cosigned = Checkpoint::open_kept(&note, key, &options.witnesses);
    let count = cosigned.map_or(0, |(_, cosigned)| cosigned.len());
    if count >= options.cosigned_by {
        return Ok(());
    }
    let what = format!(
        "{count} of the given witnesses cosigned a checkpoint, expected {}",
        options.cosigned_by
    );
    Err(Wrong::new("cosigned", None, what))
}

fn print(report: &impl Serialize, json: bool, text: String) -> anyhow::Result<String> {
    Ok(match json {
        true => format!("{}\n", serde_json::to_string(report)?),
        false => text,
    })
}

/// Far more than any machine has processors for.
const MAX_THREADS: usize = 1024;
