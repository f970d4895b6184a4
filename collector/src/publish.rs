//! Checkpoints to others: witnesses that cosign them, and places outside where they are kept.
//!
//! Owns when, and what is told when it fails. All of it goes on beside the log, which never waits for anybody here: a witness
//! or a place that does not answer is told once an outage, counted, and tried again. What contradicts the log (somebody holds
//! a later checkpoint of it, or one of another history) is an alarm: that is what all this is for.

mod http;
mod push;
mod s3;
mod witness;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use evidence::{Checkpoint, WitnessKey};
use tokio::sync::watch;

use crate::{
    config::PublishConfig,
    log::{Log, Origin, Status},
    metrics::{Alarm, Metrics},
};
use push::Target;
use witness::Witness;

/// Shows checkpoints to others for as long as it runs.
pub struct Publisher {
    log: Arc<Log>,
    evidence: PathBuf,
    metrics: Arc<Metrics>,
    interval: Duration,
    origin: Origin,
    witnesses: Vec<Known<Witness>>,
    targets: Vec<Known<Target>>,
}

/// Somebody outside, and how it went.
struct Known<T> {
    name: String,
    it: T,
    /// Entries under the checkpoint that it has; `None` before the first.
    has: Option<u64>,
    /// Told of already.
    failing: bool,
}

/// Why a checkpoint did not go out.
#[derive(Debug)]
enum Problem {
    /// For now.
    Away(anyhow::Error),
    /// What is held there is not this log's past.
    Contradiction(String),
}

/// A checkpoint as it goes out.
#[derive(Clone, Debug)]
struct Outgoing {
    note: Vec<u8>,
    checkpoint: Checkpoint,
    origin: Origin,
    evidence: PathBuf,
}

type Outcome<T> = Result<T, Problem>;

impl Publisher {
    /// For a log; `None` where nobody is to be shown anything.
    ///
    /// # Errors
    ///
    /// When the configuration names what cannot be used.
    pub fn new(
        log: &Arc<Log>,
        evidence: PathBuf,
        metrics: Arc<Metrics>,
        config: &PublishConfig,
    ) -> anyhow::Result<Option<Self>> {
        let (mut witnesses, mut targets) = (Vec::new(), Vec::new());
        for witness in &config.witness {
            let key = WitnessKey::parse(&witness.key).context("publish.witness")?;
            let it = Witness::new(&witness.url, key).context("publish.witness")?;
            witnesses.push(Known::new(&witness.url, it));
        }
        for target in &config.push {
            let it = Target::new(target).context("publish.push")?;
            targets.push(Known::new(&target.url, it));
        }
        if witnesses.is_empty() && targets.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            log: Arc::clone(log),
            origin: Origin::read(&evidence)?,
            evidence,
            metrics,
            interval: Duration::from_millis(config.interval_ms),
            witnesses,
            targets,
        }))
    }

    /// Runs until the log has ended.
    pub async fn run(mut self, mut status: watch::Receiver<Status>) {
        loop {
            if let Err(error) = self.round().await {
                tracing::error!(error = format!("{error:#}"), "the checkpoint could not be read");
            }
            tokio::time::sleep(self.interval).await;
            if status.has_changed().is_err() {
                break;
            }
            status.mark_unchanged();
        }
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let note = tokio::fs::read(self.evidence.join("checkpoint")).await?;
        let checkpoint = Checkpoint::open(&note, &self.origin.verifier_key)?;
        let out = Outgoing {
            note,
            checkpoint,
            origin: self.origin.clone(),
            evidence: self.evidence.clone(),
        };
        let (size, out, metrics) = (out.checkpoint.size, &out, &self.metrics);
        let asked = self.witnesses.iter_mut().filter(|known| known.has != Some(size));
        let asked = asked.map(|known| async move {
            let outcome = known.it.ask(out).await;
            known.heard(size, outcome, metrics)
        });
        let pushed = self.targets.iter_mut().filter(|known| known.has != Some(size));
        let pushed = pushed.map(|known| async move {
            let outcome = known.it.push(out).await;
            known.heard(size, outcome, metrics)
        });
        let (lines, _) = tokio::join!(
            futures::future::join_all(asked),
            futures::future::join_all(pushed)
        );
        let lines: Vec<u8> = lines.into_iter().flatten().flatten().collect();
        if !lines.is_empty() {
            let note = [out.note.as_slice(), &lines].concat();
            let keys = self
                .witnesses
                .iter()
                .map(|known| known.it.key().clone())
                .collect();
            self.log.cosigned(note, keys).await?;
            self.metrics.cosigned.inc();
        }
        Ok(())
    }
}

impl<T> Known<T> {
    fn new(name: &str, it: T) -> Self {
        Self {
            name: name.to_owned(),
            it,
            has: None,
            failing: false,
        }
    }

    fn heard<A>(&mut self, size: u64, outcome: Outcome<A>, metrics: &Metrics) -> Option<A> {
        let place = self.name.as_str();
        match outcome {
            Ok(answer) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(place, "checkpoints go out again");
                }
                self.has = Some(size);
                return Some(answer);
            }
            Err(Problem::Contradiction(what)) => {
                metrics.publish_failures.inc();
                metrics.alarm(Alarm::RolledBack, "", format!("{place}: {what}"));
            }
            Err(Problem::Away(error)) => {
                metrics.publish_failures.inc();
                if !std::mem::replace(&mut self.failing, true) {
                    let error = format!("{error:#}");
                    tracing::error!(
                        place,
                        error,
                        "a checkpoint did not go out; it is tried again, and nothing waits for it"
                    );
                }
            }
        }
        None
    }
}

impl Outgoing {
    /// Whether this log goes on from a checkpoint of it that is held elsewhere.
    async fn goes_on_from(&self, held: Checkpoint) -> Outcome<()> {
        let (now, evidence) = (self.checkpoint.clone(), self.evidence.clone());
        if held.size > now.size {
            return Err(Problem::Contradiction(format!(
                "a checkpoint of {} entries is held there, this log has {}: it was rolled back",
                held.size, now.size
            )));
        }
        let shown = tokio::task::spawn_blocking(move || {
            let path = crate::log::TreeFiles::new(&evidence, now.size).consistency(held.size)?;
            let goes_on = evidence::is_consistent(held.size, &held.root, now.size, &now.root, &path);
            anyhow::Ok((goes_on, held.size))
        });
        match shown.await.map_err(anyhow::Error::from).and_then(|shown| shown) {
            Ok((true, _)) => Ok(()),
            Ok((false, size)) => Err(Problem::Contradiction(format!(
                "the checkpoint of {size} entries that is held there is of another history than this log's"
            ))),
            Err(error) => Err(Problem::Away(error)),
        }
    }

    /// `<log's name>-<entries>`, in as many digits as sort by number.
    fn name(&self) -> String {
        let name = self.origin.origin.replace('/', "-");
        format!("{name}-{:020}.checkpoint", self.checkpoint.size)
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::Away(error)
    }
}
