//! What a former run left: the spool, the end of the chain in it, a key that waits to be announced.

use evidence::{Chain, Tip};
use prost::Message as _;
use proto::v1;
use spool::{Limits, Recovered, Spool, disk::Real};
use tracing::{error, info, warn};

use super::sealer::{Sealer, Waiting, end_of};

impl Sealer {
    /// Opens the spool, and goes on behind its newest batch if that is surely the newest.
    pub(super) fn recover(&mut self) -> anyhow::Result<()> {
        let (mut spool, recovered) = Spool::open(self.place.folder()?, Limits::of(self.with.spool_bytes))?;
        for cut in &recovered.cuts {
            warn!(
                "{} bytes of the spool's file {} do not count, from {} on: {}",
                cut.bytes,
                cut.file,
                cut.offset,
                cut.why.map_or_else(
                    || "a later file took their place".to_owned(),
                    |why| why.to_string()
                )
            );
        }
        if let Some(newest) = &recovered.newest_body {
            let batch = v1::SignedBatch::decode(newest.clone())?;
            let header = v1::BatchHeader::decode(batch.header.clone())?;
            let own = header.agent_id == self.with.agent_id;
            if !own || !self.with.keyring.may_have_signed(&batch, &header.next_key) {
                anyhow::bail!(
                    "it holds batches of another agent's, or signed with another key: move the folder away"
                );
            }
            self.tip = Tip {
                sequence: header.sequence,
                header_hash: evidence::header_hash(&batch.header),
                event_seq: end_of(&header),
            };
        }
        self.began = self.tip.sequence;
        // What was removed was acknowledged, or noted as given up, whatever the memory knows of it.
        self.acknowledged = self.acknowledged.max(spool.first().saturating_sub(1));
        spool.acknowledge(self.acknowledged);
        if self.with.keyring.announcement().is_some() || !self.holes.is_empty() {
            self.look_through(&mut spool)?;
        }
        if let Err(problem) = self.with.keyring.acknowledged(self.acknowledged) {
            error!("{problem:#}");
        }
        self.announce(&mut spool, &recovered);
        self.spool = Some(spool);
        let is_sure = match self.tip.sequence {
            0 => self.with.new_key,
            newest => self.place.is_sure() && newest >= self.acknowledged,
        };
        if is_sure {
            self.go_on_behind(self.tip);
        } else {
            info!("where the chain of batches ends is known when a collector has said how far it came");
        }
        Ok(())
    }

    /// A key that waits to be announced may have been, in a batch that waits here; what was given up may be said in one.
    fn look_through(&mut self, spool: &mut Spool<Real>) -> anyhow::Result<()> {
        for sequence in spool.first().max(1)..=spool.newest() {
            // What is damaged is seen when it is needed.
            let Ok(body) = spool.read(sequence) else { continue };
            let batch = v1::SignedBatch::decode(body)?;
            let header = v1::BatchHeader::decode(batch.header.clone())?;
            let announcement = self.with.keyring.announcement();
            if announcement.is_some_and(|key| header.next_key == key) {
                self.with.keyring.was_announced(&batch);
            }
            self.holes.said(&header.given_up, sequence);
        }
        Ok(())
    }

    /// What a former run left for the collector.
    fn announce(&mut self, spool: &mut Spool<Real>, recovered: &Recovered) {
        let Some(oldest) = spool.oldest() else { return };
        info!(
            "{} batches of a former run wait in the spool for a collector",
            recovered.newest - oldest + 1
        );
        let header = spool
            .read(oldest)
            .ok()
            .and_then(|body| v1::BatchHeader::decode(v1::SignedBatch::decode(body).ok()?.header).ok());
        self.waiting.push_back(Waiting {
            sequence: oldest,
            at_unix_s: header.map_or(0, |header| header.last_ns / 1_000_000_000),
            taken: 0,
        });
    }

    /// From here on batches are sealed behind this one.
    pub(super) fn go_on_behind(&mut self, tip: Tip) {
        self.tip = tip;
        self.chain = Some(Chain::behind(&self.with.agent_id, tip.sequence, tip.header_hash));
        if self.spool.is_some()
            && let Err(problem) = self.place.note(false)
        {
            warn!(
                "after a loss of power a collector will have to say where the chain of batches ends: {problem}"
            );
        }
    }
}
