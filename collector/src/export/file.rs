//! An export's file: under another name until it is whole.
//!
//! Owns that name, and that nothing is left of an export that ended early: by an error, or because somebody pressed Ctrl-C.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;

use super::Pieces;
use crate::progress::Progress;

/// Writes all pieces to `path`.
///
/// # Errors
///
/// If something is there (and is not to be replaced), it cannot be written, the pieces end early, or somebody interrupts: then there is no file.
pub(super) async fn write(pieces: Pieces, path: &Path, replace: bool) -> anyhow::Result<()> {
    let taken = || {
        if !replace && path.symlink_metadata().is_ok() {
            bail!("{} is there already: --force replaces it", path.display());
        }
        Ok(())
    };
    taken()?;
    let mut half = Half::beside(path)?;
    let written = async {
        copy(pieces, &mut half.file).await?;
        half.file.flush()?;
        half.file.get_ref().sync_all()?;
        anyhow::Ok(())
    };
    tokio::select! {
        done = written => done?,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            bail!("interrupted: {} was not written", path.display());
        }
    }
    taken()?;
    half.becomes(path)
}

/// Writes all pieces to standard output.
pub(super) async fn print(pieces: Pieces) -> anyhow::Result<()> {
    let done = copy(pieces, &mut io::stdout().lock()).await;
    match done {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

async fn copy(mut pieces: Pieces, to: &mut impl Write) -> anyhow::Result<()> {
    let (mut written, mut progress) = (0_usize, Progress::default());
    while let Some(piece) = pieces.next().await {
        let piece = piece?.bytes;
        to.write_all(&piece)
            .context("cannot write the export: is there space left?")?;
        written += piece.len();
        progress.tell(|| format!("{:.1} MiB written", written as f64 / f64::from(1 << 20)));
    }
    to.flush()
        .context("cannot write the export: is there space left?")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<io::Error>();
    problem.is_some_and(|problem| problem.kind() == io::ErrorKind::BrokenPipe)
}

/// A file that is not whole yet; dropping it removes it.
struct Half {
    path: Option<PathBuf>,
    file: BufWriter<File>,
}

impl Half {
    /// In the same folder, so that it can get its name at once.
    fn beside(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_name().context("--output is no file's name")?;
        let mut half = std::ffi::OsString::from(".");
        half.push(name);
        half.push(format!(".{}.part", std::process::id()));
        let half = path.with_file_name(half);
        let file = OpenOptions::new().write(true).create_new(true).open(&half);
        let file = file.with_context(|| format!("cannot write {}", half.display()))?;
        Ok(Self {
            path: Some(half),
            file: BufWriter::new(file),
        })
    }

    fn becomes(mut self, path: &Path) -> anyhow::Result<()> {
        if let Some(half) = &self.path {
            fs::rename(half, path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(half) = &self.path {
            // Whoever finds it knows by its name that it is not whole.
            _ = fs::remove_file(half);
        }
    }
}
