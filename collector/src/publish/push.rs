//! Keeping checkpoints elsewhere: a folder, an HTTP server, an object store.
//!
//! Owns what is written where. A folder keeps the newest one of each log and is looked at first: what is held there must be
//! this log's past. A server gets each under a name of its own, and is trusted to keep what it has.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use evidence::Checkpoint;
use hyper::Method;

use super::{Outcome, Outgoing, http::Server, s3::Bucket};
use crate::config::PushConfig;

/// A place for checkpoints.
#[derive(Debug)]
pub(super) enum Target {
    /// A folder, best one that this host cannot change at will.
    Folder(PathBuf),
    /// PUT below a URL.
    Http(Server),
    /// The same, as an object store wants it.
    S3(Bucket),
}

impl Target {
    pub(super) fn new(config: &PushConfig) -> anyhow::Result<Self> {
        if let Some(folder) = config.url.strip_prefix("file://") {
            if !folder.starts_with('/') {
                bail!("{:?} is not of the form file:///folder", config.url);
            }
            return Ok(Self::Folder(folder.into()));
        }
        if let Some(rest) = config.url.strip_prefix("s3+") {
            let server = Server::at(rest)?;
            return Ok(Self::S3(Bucket::new(server, config)?));
        }
        Ok(Self::Http(Server::at(&config.url)?))
    }

    /// Puts a checkpoint there.
    pub(super) async fn push(&self, out: &Outgoing) -> Outcome<()> {
        match self {
            Self::Folder(folder) => keep(folder, out).await,
            Self::Http(server) => {
                let kind = ("content-type".to_owned(), "text/plain; charset=utf-8".to_owned());
                let name = format!("/{}", out.name());
                let answer = server.send(Method::PUT, &name, &[kind], out.note.clone()).await?;
                taken(answer.status)
            }
            Self::S3(bucket) => taken(bucket.put(&out.name(), out.note.clone()).await?.status),
        }
    }
}

fn taken(status: hyper::StatusCode) -> Outcome<()> {
    match status.is_success() {
        true => Ok(()),
        false => Err(anyhow!("it answers {status}").into()),
    }
}

/// Replaces the newest checkpoint in a folder, if this log goes on from it.
async fn keep(folder: &std::path::Path, out: &Outgoing) -> Outcome<()> {
    let path = folder.join(format!("{}.checkpoint", out.origin.origin.replace('/', "-")));
    match tokio::fs::read(&path).await {
        Ok(held) => {
            let held = Checkpoint::open_kept(&held, &out.origin.verifier_key, &[]);
            let (held, _) = held.with_context(|| format!("{} is not of this log", path.display()))?;
            out.goes_on_from(held).await?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(anyhow!(error)
                .context(format!("cannot read {}", path.display()))
                .into());
        }
    }
    let (note, beside) = (out.note.clone(), path.with_extension("new"));
    let written = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&note)?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    });
    let written = written.await.map_err(|error| anyhow!(error))?;
    written.with_context(|| format!("cannot write below {}", folder.display()))?;
    Ok(())
}
