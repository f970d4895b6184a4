//! Checking batches, several at a time.
//!
//! Owns what is checked of a batch alone: its seal, its leaves, and that its events stand on definitions that it has.
//! Answers are taken in the order of the questions, so that the first thing that is wrong is the first in the log, however
//! many threads look.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Scope,
};

use ed25519_dalek::VerifyingKey;
use evidence::{Limits, Seal, check_erased, check_header, check_leaves, is_as_sealed};
use proto::v1::{BatchHeader, LogRestored, SignedBatch, event};
use sha2::{Digest, Sha256};

use super::removed::{Reduced, Word};
use record::{Body, Decoder, Record};

/// How much of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    /// Signature, leaves and events; else only that the payload is the header's.
    pub(super) signed: bool,
    /// There is one; else its header is all that can be checked.
    pub(super) payload: bool,
    /// What a collector says of its log in it.
    pub(super) said: bool,
}

/// A batch that holds.
pub(super) struct Checked {
    pub(super) seal: Seal,
    pub(super) amends: bool,
    /// It begins with this: the log was made of a backup.
    pub(super) restored: Option<Box<LogRestored>>,
    /// What is said of removals.
    pub(super) words: Vec<Word>,
    /// Its payload is not the one that was signed: leaves of it were erased.
    pub(super) reduced: Option<Reduced>,
}

impl Checked {
    /// One of which nothing but the seal is told.
    pub(super) fn sealed(seal: Seal, amends: bool) -> Self {
        Self {
            seal,
            amends,
            restored: None,
            words: Vec::new(),
            reduced: None,
        }
    }
}

pub(super) type Outcome = Result<Checked, String>;

/// An answer that is there, or will be.
pub(super) enum Answer {
    Now(Box<Outcome>),
    Later(Receiver<Outcome>),
}

/// Whoever checks.
pub(super) enum Workers {
    Here(Checker),
    There(SyncSender<Job>),
}

pub(super) struct Job {
    batch: SignedBatch,
    key: VerifyingKey,
    claimed: BatchHeader,
    how: How,
    reply: SyncSender<Outcome>,
}

impl Workers {
    pub(super) fn start<'scope>(threads: usize, scope: &'scope Scope<'scope, '_>) -> Self {
        if threads <= 1 {
            return Self::Here(Checker::default());
        }
        let (jobs, taken) = sync_channel::<Job>(threads);
        let taken = Arc::new(Mutex::new(taken));
        for _ in 0..threads {
            let taken = Arc::clone(&taken);
            scope.spawn(move || {
                let mut checker = Checker::default();
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { break };
                    // Nobody waits for it where something was wrong before.
                    _ = job
                        .reply
                        .send(checker.check(&job.batch, &job.key, job.claimed, job.how));
                }
            });
        }
        Self::There(jobs)
    }

    /// Has a batch checked whose header, as far as it is to be believed, is `claimed`.
    pub(super) fn check(
        &mut self,
        batch: SignedBatch,
        key: VerifyingKey,
        claimed: BatchHeader,
        how: How,
    ) -> Answer {
        match self {
            Self::Here(checker) => Answer::now(checker.check(&batch, &key, claimed, how)),
            Self::There(jobs) => {
                let (reply, answer) = sync_channel(1);
                let job = Job {
                    batch,
                    key,
                    claimed,
                    how,
                    reply,
                };
                match jobs.send(job) {
                    Ok(()) => Answer::Later(answer),
                    Err(_) => Answer::now(Err(GONE.to_owned())),
                }
            }
        }
    }
}

impl Answer {
    pub(super) fn now(outcome: Outcome) -> Self {
        Self::Now(Box::new(outcome))
    }

    pub(super) fn wait(self) -> Outcome {
        match self {
            Self::Now(outcome) => *outcome,
            Self::Later(answer) => answer.recv().unwrap_or_else(|_| Err(GONE.to_owned())),
        }
    }
}

/// What can only be a fault of this program.
const GONE: &str = "could not be checked: the thread that checks batches has ended";

/// One thread's.
#[derive(Default)]
pub(super) struct Checker {
    limits: Limits,
    /// Says whether each event stands on definitions that its batch has.
    decoder: Decoder,
}

impl Checker {
    fn check(&mut self, batch: &SignedBatch, key: &VerifyingKey, claimed: BatchHeader, how: How) -> Outcome {
        let seal = match how.signed {
            true => check_header(batch, key, &self.limits).map_err(|error| error.to_string())?,
            // The tree is over it.
            false => Seal {
                header_hash: evidence::header_hash(&batch.header),
                header: claimed,
            },
        };
        if !how.payload {
            return Ok(Checked::sealed(seal, false));
        }
        let whole = is_as_sealed(batch, &seal.header);
        if whole && !how.signed && !how.said {
            return Ok(Checked::sealed(seal, false));
        }
        let opened = match whole {
            true => check_leaves(batch, seal, &self.limits),
            false => check_erased(batch, seal, &self.limits),
        };
        let opened = opened.map_err(|error| error.to_string())?;
        let (mut own_amends, mut words, mut restored) = (false, Vec::new(), None);
        if how.said {
            let records = self.decoder.decode(&opened)?.records;
            own_amends = records.iter().any(amends);
            words = records.iter().filter_map(word).collect();
            restored = records.into_iter().next().and_then(restores);
        } else {
            self.decoder.check(&opened)?;
        }
        let reduced = (!whole).then(|| Reduced {
            digest: Sha256::digest(&batch.payload).into(),
            erased: opened.erased,
        });
        let seal = Seal {
            header: opened.header,
            header_hash: opened.header_hash,
        };
        Ok(Checked {
            restored,
            words,
            reduced,
            ..Checked::sealed(seal, own_amends)
        })
    }
}

fn word(record: &Record) -> Option<Word> {
    match &record.body {
        Body::Other(body) => Word::of(body),
        _ => None,
    }
}

fn restores(record: Record) -> Option<Box<LogRestored>> {
    match record.body {
        Body::Other(body) => match *body {
            event::Body::LogRestored(restored) => Some(Box::new(restored)),
            _ => None,
        },
        _ => None,
    }
}

fn amends(record: &Record) -> bool {
    match &record.body {
        Body::Other(body) => matches!(**body, event::Body::Amendment(_)),
        _ => false,
    }
}
