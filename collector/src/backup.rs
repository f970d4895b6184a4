//! `pgwitness-collector backup` and `restore`: a copy of the evidence, and a log that goes on from one.
//!
//! Owns what is copied, and in which order, while a collector may be writing. A copy ends where its checkpoint ends, so it
//! is a log by itself, and is verified before it counts. A restored log is another log, under a name and a key of its own: what
//! was acknowledged behind the backup is not in it, and a log that carried on under the old name would be one that was rolled
//! back. It begins with the entries of the old one and says so in its next entry. The signing key is not copied: a backup
//! lets nobody sign.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use evidence::Tiling;

use crate::{
    config::Config,
    log::{self, Bundles, Folder, Log, LogOptions, Opened, Originator, SegmentHeads},
    metrics::Metrics,
    verify::{Options, Report, verify_with},
};

/// Copies the evidence, also while the collector is serving, and verifies the copy. The store is not copied: it is made anew.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The collector's data folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to put the copy: a folder that is not there yet, or is empty.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// Makes a data folder of a backup: a new log that begins with the entries of the old one, and names it.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup, as `backup` made it, or any copy of a data folder.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// The new data folder: not there yet, or empty.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Name of the new log; not the old one's [default: made up].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A checkpoint of the old log that was kept elsewhere: the backup must contain it.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
}

/// Runs `backup`.
pub fn run_backup(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let data = args.data.clone().unwrap_or_else(|| Config::default().data);
    let report = backup(&log::evidence_in(&data)?, &args.to)?;
    println!(
        "{}: {} batches, {} events of {} up to its checkpoint of {} entries; the copy verifies",
        args.to.display(),
        report.batches,
        report.events,
        report.origin,
        report.tree_size
    );
    println!("the signing key is not in it (collector.key): a restored log gets one of its own");
    Ok(ExitCode::SUCCESS)
}

/// Runs `restore`.
pub async fn run_restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let report = restore(&args.from, &args.data, args.name, &args.checkpoint).await?;
    println!(
        "{}: the log {} begins with the {} entries of {} and says so in the next one",
        args.data.display(),
        report.origin,
        report.tree_size,
        report
            .restored
            .last()
            .map_or("nothing", |restored| &restored.origin)
    );
    println!(
        "agents that delivered more than that say so when they connect; start it with: serve --data {}",
        args.data.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Copies the evidence up to its newest checkpoint.
///
/// # Errors
///
/// When something cannot be read or written, or the copy does not verify.
pub fn backup(evidence: &Path, to: &Path) -> anyhow::Result<Report> {
    let folder = empty_folder(to)?;
    // What may change comes before what it rests on: the cosigned checkpoint is never newer than the log's.
    let cosigned = read_if_there(&evidence.join("cosigned"))?;
    let known = log::folder_checkpoint(evidence)?;
    let (note, checkpoint) = known.newest();
    copy_entries(evidence, &folder, checkpoint.size)?;
    for name in ["origin", "witnesses"] {
        if let Some(bytes) = read_if_there(&evidence.join(name))? {
            folder.write(&folder.evidence().join(name), &bytes)?;
        }
    }
    for file in fs::read_dir(evidence.join("agents"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default();
        folder.write(&folder.agents().join(name), &fs::read(&path)?)?;
    }
    if let Some(cosigned) = cosigned {
        folder.write(&folder.evidence().join("cosigned"), &cosigned)?;
    }
    folder.write(&folder.evidence().join("checkpoint"), note)?;
    let report = verify_with(&folder.evidence(), &Options::default())?;
    if let Some(wrong) = &report.wrong {
        bail!("the copy does not verify: {wrong}; verify --data says whether the original does");
    }
    Ok(report)
}

/// Makes a new log of a backup.
///
/// # Errors
///
/// When the backup does not verify, or something cannot be written.
pub async fn restore(
    from: &Path,
    data: &Path,
    name: Option<String>,
    kept: &[PathBuf],
) -> anyhow::Result<Report> {
    let evidence = log::evidence_in(from)?;
    let kept = kept.iter().map(|path| {
        let note = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.display().to_string();
        Ok(log::Kept { name, note })
    });
    let options = Options {
        kept: kept.collect::<anyhow::Result<_>>()?,
        ..Options::default()
    };
    let old = verify_with(&evidence, &options)?;
    if let Some(wrong) = &old.wrong {
        bail!(
            "the backup {} does not verify, so nothing is made of it: {wrong}",
            from.display()
        );
    }
    let name = name.unwrap_or_else(|| hex::encode(rand::random::<[u8; 4]>()));
    let known = log::folder_checkpoint(&evidence)?;
    let (note, checkpoint) = known.newest();
    ensure!(
        checkpoint.origin != format!("{}{name}", evidence::ORIGIN_PREFIX),
        "the restored log cannot have the old one's name {name:?}: choose another with --name"
    );
    let folder = empty_folder(data)?;
    copy_entries(&evidence, &folder, checkpoint.size)?;
    log::adopt(&folder, &evidence, &name, checkpoint)?;
    let options = LogOptions {
        name: Some(name),
        ..Config::default().log_options()
    };
    let (data, metrics) = (data.to_owned(), Arc::new(Metrics::default()));
    let runtime = tokio::runtime::Handle::current();
    let opened = tokio::task::spawn_blocking(move || {
        let _runtime = runtime.enter();
        Log::open(&data, options, metrics)
    });
    let Opened {
        log, durable, ended, ..
    } = opened.await??;
    drop(durable);
    let said = async {
        let mut originator = Originator::enrol(&log).await?;
        originator
            .restored(note, checkpoint, &known.origin.verifier_key)
            .await
    };
    let said = said.await;
    log.close().await;
    ended.await??;
    said?;
    let report = verify_with(&folder.evidence(), &Options::default())?;
    match &report.wrong {
        None => Ok(report),
        Some(wrong) => bail!("the restored log does not verify: {wrong}"),
    }
}

/// A data folder that holds nothing yet.
fn empty_folder(path: &Path) -> anyhow::Result<Folder> {
    let holds = fs::read_dir(path).is_ok_and(|mut list| list.next().is_some());
    ensure!(!holds, "{} is not empty: name a new folder", path.display());
    let folder = Folder::new(path);
    folder.create()?;
    Ok(folder)
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Copies the records of the first `size` entries, and writes the tiles that they make.
fn copy_entries(evidence: &Path, to: &Folder, size: u64) -> anyhow::Result<()> {
    let (mut tiling, mut full) = (Tiling::default(), Vec::new());
    let segments = log::segments(evidence)?;
    // Of what was removed by retention, the tree is made of the headers that stay.
    let begins = segments.first().map_or(0, |(first, _)| *first);
    let mut bundles = Bundles::new(evidence);
    while tiling.size() < begins.min(size) {
        tiling.push(&bundles.next_entry()?.0, &mut full)?;
    }
    for (first, path) in segments {
        if first >= size {
            break;
        }
        let mut heads = SegmentHeads::open(&path)?;
        let mut length = 0;
        while tiling.size() < size
            && let Some((entry, end)) = heads.next_head()?
        {
            tiling.push(&entry, &mut full)?;
            length = end;
        }
        copy_prefix(&path, &to.segment(first), length)?;
        full.drain(..)
            .try_for_each(|tile| to.write(&to.evidence().join(tile.path()), &tile.bytes))?;
    }
    ensure!(
        tiling.size() == size,
        "payload/ holds {} entries, the checkpoint has {size}: verify --data says where it is damaged",
        tiling.size()
    );
    tiling
        .partial()
        .iter()
        .try_for_each(|tile| to.write(&to.evidence().join(tile.path()), &tile.bytes))
}

fn copy_prefix(from: &Path, to: &Path, length: u64) -> anyhow::Result<()> {
    use std::io::Read as _;
    let copy = || -> std::io::Result<u64> {
        let mut whole = fs::File::open(from)?.take(length);
        let mut copy = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
        let copied = std::io::copy(&mut whole, &mut copy)?;
        copy.sync_all()?;
        Ok(copied)
    };
    let copied = copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    ensure!(
        copied == length,
        "{} became shorter while it was copied",
        from.display()
    );
    Ok(())
}
