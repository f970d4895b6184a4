//! What a collector holds of the chain, against what this agent knows of it.
//!
//! Owns the judgement, and what follows from it: as a rule nothing but where to go on, which is behind what any collector has. One
//! that forgot is objected to, and gets what is still there. One that is ahead is followed; so is one that holds something else, which is
//! objected to, because the agent cannot mend that. Batches that it does not have then get new places behind what it holds: the same
//! content, another header.

use anyhow::{Context as _, bail};
use evidence::{Chain, Tip, reseal};
use prost::Message as _;
use proto::v1;
use spool::{Limits, ReadError, Spool};
use tracing::{error, warn};

use super::{
    place::Used,
    sealer::{Sealer, end_of, framed, held},
};
use crate::{
    clock::{Clock, boot_ns},
    record::Encoded,
};

/// How a collector's newest batch stands to the own chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The own chain goes on behind it, or has gone on so far that it cannot be compared.
    Follows,
    /// It is newer than all that is known here.
    Ahead,
    /// Under this number something else is known here.
    Differs,
}

impl Sealer {
    /// Brings the chain behind what a collector holds, which is used from here on; returns the sequence that it needs next.
    pub(super) fn align(&mut self, collector: &str, resume: &v1::Resume) -> anyhow::Result<u64> {
        let held = held(resume).context("the collector's hash is not 32 bytes")?;
        if self.chain.is_none() {
            self.may_settle(collector, &held)?;
        }
        let relation = self.relation(&held)?;
        if self.chain.is_none() && held.sequence >= self.tip.sequence {
            // Nothing is sealed that would have to be signed by another one.
            self.with.keyring.settle(&resume.public_key)?;
        }
        let forgot = self.memory.objection(collector, held.sequence, &held.header_hash);
        match (relation, &forgot) {
            (Relation::Follows, None) => {}
            (_, Some(objection)) => self.object(objection),
            (Relation::Differs, None) if held.sequence <= self.began => self.object(&format!(
                "the collector holds another batch {} than the one that was sealed",
                held.sequence
            )),
            // It is what was acknowledged, by the memory's word: a state folder without its spool.
            (Relation::Ahead, None)
                if self.memory.of(collector) == Some((held.sequence, held.header_hash)) => {}
            (Relation::Ahead | Relation::Differs, None) => {
                let detail = format!(
                    "the collector holds batches up to {}, and this agent knew of those up to {}",
                    held.sequence, self.began
                );
                warn!("the chain goes on behind what the collector holds: {detail}");
                self.tell("chain_followed", &detail);
            }
        }
        if relation == Relation::Follows {
            if self.chain.is_none() {
                self.go_on_behind(self.tip);
            }
            if forgot.is_some() {
                self.take_back(held.sequence);
            }
        } else {
            self.follow(held)?;
        }
        self.memory
            .acknowledged(collector, held.sequence, held.header_hash);
        self.acknowledge(held.sequence);
        // What others have it does not get any more: its log leaps.
        let next = self.acknowledged + 1;
        self.pass_over_unreadable(next)?;
        self.uses(collector, &resume.origin, held.sequence);
        Ok(next)
    }

    /// After a loss of power, whether this collector can say where the chain ends. Batches went to one at a time, and what went to others
    /// before it was durable here by then: so the last one knows, and another would begin a second history. Only where the spool is gone
    /// that one can know less than was acknowledged; then whoever acknowledged the newest has to be there, too.
    fn may_settle(&mut self, collector: &str, held: &Tip) -> anyhow::Result<()> {
        let of_ours = |asked: &&str| self.with.collectors.iter().any(|one| one == asked);
        let used = self.place.used().map(|used| used.collector.as_str());
        let (used, newest) = (used.filter(of_ours), self.memory.newest());
        let more = newest.filter(|(acknowledged, _)| held.sequence.max(self.tip.sequence) < *acknowledged);
        let asked = match (used, more) {
            (Some(used), _) if used != collector && !self.knows_less => Some(used),
            (_, more) => more.map(|(_, by)| by).filter(of_ours),
        };
        match asked {
            Some(asked) if asked != collector => {
                self.knows_less |= used == Some(collector);
                bail!(
                    "where the chain of batches ends only {asked} can say, to which they went before the host stopped: until it \
                     answers, nothing is sealed (if it is gone for good, take it out of delivery.collectors)"
                )
            }
            _ => Ok(()),
        }
    }

    fn relation(&mut self, held: &Tip) -> anyhow::Result<Relation> {
        if held.sequence > self.tip.sequence {
            return Ok(Relation::Ahead);
        }
        let own = if held.sequence == self.tip.sequence {
            self.tip.header_hash.to_vec()
        } else {
            match self.header(held.sequence + 1) {
                Ok(header) => header.previous,
                Err(ReadError::Io(problem)) => return Err(problem).context("the spool cannot be read"),
                Err(_) => return Ok(Relation::Follows),
            }
        };
        Ok(if own == held.header_hash {
            Relation::Follows
        } else {
            Relation::Differs
        })
    }

    /// A collector holds less than it acknowledged: it gets again what is still in the spool.
    fn take_back(&mut self, held: u64) {
        let Some(spool) = &mut self.spool else { return };
        let needed = held.max(spool.first().saturating_sub(1));
        if needed < self.acknowledged {
            self.acknowledged = needed;
            spool.forgotten(needed);
        }
    }

    /// Batches go to this collector from here on. What went to another one before is made durable first: after a loss of power only
    /// this one is asked.
    fn uses(&mut self, collector: &str, origin: &str, held: u64) {
        let used = Used {
            collector: collector.to_owned(),
            origin: origin.to_owned(),
        };
        let former = self.place.used().cloned();
        if former.as_ref() == Some(&used) {
            return;
        }
        self.place.uses(used);
        // Without a spool nothing of this run's end will be believed.
        let noted = self.spool.as_mut().map(|spool| {
            spool.sync()?;
            self.memory.sync()?;
            self.place.note(false)
        });
        if let Some(Err(problem)) = noted {
            warn!(
                "to whom batches go cannot be noted: after a loss of power the wrong collector may be asked where their chain ends: \
                 {problem}"
            );
        }
        let former = former.map(|former| former.origin).unwrap_or_default();
        if !former.is_empty() && former != origin {
            let change = v1::CollectorChange {
                origin: origin.to_owned(),
                former_origin: former,
                held,
                acknowledged: self.acknowledged,
            };
            let body = v1::event::Body::CollectorChange(change);
            self.with
                .outbox
                .push(&Encoded::own(boot_ns(), Clock::now(), body));
        }
    }

    pub(super) fn header(&mut self, sequence: u64) -> Result<v1::BatchHeader, ReadError> {
        let batch = self.read(sequence)?;
        v1::BatchHeader::decode(batch.header).map_err(|_| ReadError::Missing(sequence))
    }

    /// The collector's record is not the one that acknowledged. The agent cannot mend that; it says so, in the log of
    /// this host and, signed, in the record itself.
    fn object(&mut self, objection: &str) {
        if self.objected.as_deref() == Some(objection) {
            return;
        }
        error!("the collector's record was rolled back or replaced: {objection}");
        self.tell("record_rolled_back", objection);
        self.objected = Some(objection.to_owned());
    }

    /// Goes on behind what the collector holds. Batches that it cannot have are given places behind that, in a new spool that
    /// takes the old one's place when it is whole.
    fn follow(&mut self, held: Tip) -> anyhow::Result<()> {
        // Those that were there when this run began are the collector's, if it came so far.
        let first = held.sequence.min(self.began) + 1;
        let mut chain = Chain::behind(&self.with.agent_id, held.sequence, held.header_hash);
        let (mut tip, mut moved) = (held, Vec::new());
        let mut anew = match &self.spool {
            Some(_) => {
                let (mut anew, _) = Spool::open(self.place.anew()?, Limits::of(self.with.spool_bytes))?;
                anew.acknowledge(held.sequence);
                Some(anew)
            }
            None => None,
        };
        let (mut unspooled, mut announced) = (Vec::new(), None);
        for sequence in first..=self.tip.sequence {
            let batch = match self.read(sequence) {
                Ok(batch) => batch,
                Err(ReadError::Io(problem)) => return Err(problem).context("the spool cannot be read"),
                // Acknowledged and removed; or damaged, which was told.
                Err(_) => continue,
            };
            let signer = self.with.keyring.signer_of(sequence);
            let resealed = reseal(&mut chain, signer, &batch, tip.event_seq + 1, held.sequence);
            let Some((batch, header)) = resealed else { continue };
            if !header.next_key.is_empty() {
                announced = Some(batch.clone());
            }
            tip = Tip {
                sequence: header.sequence,
                header_hash: chain.previous,
                event_seq: end_of(&header).max(tip.event_seq),
            };
            moved.push((sequence, tip.sequence));
            let frame = framed(tip.sequence, &batch);
            match &mut anew {
                Some(anew) if unspooled.is_empty() => {
                    if anew.append(&frame).is_err() {
                        unspooled.push(frame);
                    }
                }
                _ => unspooled.push(frame),
            }
            if unspooled.len() > super::sealer::WINDOW {
                bail!("there is no room to give the batches that wait new places: is the disk full?");
            }
        }
        if let Some(mut anew) = anew {
            anew.sync().context("the spool cannot be written anew")?;
            drop(anew);
            // From here on the old one is gone, whatever fails.
            self.spool = None;
            let disk = self.place.replace().context("the spool cannot be written anew")?;
            let (mut spool, _) = Spool::open(disk, Limits::of(self.with.spool_bytes))?;
            spool.acknowledge(held.sequence);
            self.spool = Some(spool);
        }
        if let Some(announced) = announced {
            self.with.keyring.was_announced(&announced);
        }
        self.unspooled = unspooled.into();
        self.began = held.sequence;
        self.acknowledged = held.sequence;
        self.holes.renumbered(held.sequence);
        self.go_on_behind(tip);
        self.moved(&moved);
        Ok(())
    }
}
