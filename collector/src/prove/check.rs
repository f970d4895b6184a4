//! Whether a proof holds, by public keys alone.
//!
//! Owns the steps that the form names, in that order: from the checkpoint's signature down to the event. Reads no folder.

use std::path::Path;

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use evidence::{Checkpoint, Hash, MAX_EVENTS, WitnessKey, leaf, leaf_hash, log_entry, root_by};
use prost::Message;
use proto::{
    json,
    v1::{self, BatchHeader, SignedBatch},
    whole,
};
use serde::Serialize;
use serde_json::Value;

use super::file::{self, Leaf, MAX_BYTES, Proof};
use crate::{log::Origin, query::printable, verify::Options};

/// What a proof shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProofReport {
    /// Whether it holds.
    pub ok: bool,
    /// What it is of.
    pub event_id: String,
    /// The log that has it.
    pub origin: String,
    /// That log's key.
    pub verifier_key: String,
    /// Whether that key was given, and not taken from the proof.
    pub compared_with_known_key: bool,
    /// The agent's key, hexadecimal.
    pub agent_key: String,
    /// The entry of the log.
    pub log_index: u64,
    /// Entries under the checkpoint.
    pub tree_size: u64,
    /// Its root, base64.
    pub root: String,
    /// The witnesses that cosigned, and when, in seconds since the Unix epoch: those that were given, else as the proof names
    /// them.
    pub cosigned_by: Vec<(String, u64)>,
    /// Whether witnesses were given, and not taken from the proof.
    pub compared_with_known_witnesses: bool,
    /// The event, in its JSON form.
    pub event: Value,
    /// What does not hold.
    pub wrong: Option<String>,
}

/// Checks a file.
///
/// # Errors
///
/// When it cannot be read.
pub fn verify(path: &Path, options: &Options) -> anyhow::Result<ProofReport> {
    let read = || -> anyhow::Result<Vec<u8>> {
        let length = std::fs::metadata(path)?.len();
        ensure!(
            length <= MAX_BYTES,
            "it takes {length} bytes, more than any proof ({MAX_BYTES})"
        );
        Ok(std::fs::read(path)?)
    };
    let bytes = read().with_context(|| format!("cannot read the proof {}", path.display()))?;
    Ok(check(&bytes, options))
}

/// Checks the bytes of a proof.
#[must_use]
pub fn check(bytes: &[u8], options: &Options) -> ProofReport {
    match Proof::from_bytes(bytes).and_then(|proof| holds(&proof, options)) {
        Ok(report) => report,
        Err(wrong) => ProofReport {
            wrong: Some(format!("{wrong:#}")),
            ..ProofReport::default()
        },
    }
}

fn holds(proof: &Proof, options: &Options) -> anyhow::Result<ProofReport> {
    let origin = Origin::of_key(&proof.log.verifier_key).context("log.verifier_key")?;
    ensure!(
        options.origin_keys.is_empty() || options.origin_keys.contains(&origin.verifier_key),
        "the log's key is {}, expected {}",
        origin.verifier_key,
        options.origin_keys.join(" or ")
    );
    let (checkpoint, cosigned_by) = checkpoint(proof, options)?;
    proof.agent.check(&origin.key()?).context("agent")?;
    let header_bytes = file::bytes("batch.header", &proof.batch.header)?;
    let signature = file::bytes("batch.signature", &proof.batch.signature)?;
    let header = BatchHeader::decode(header_bytes.as_slice()).context("batch.header is none")?;
    let keys = proof.agent.keys().context("agent")?;
    ensure!(
        evidence::check_signature(&header_bytes, &signature, keys.of(header.sequence)),
        "batch.signature is not the agent's over batch.header"
    );
    ensure!(
        header.agent_id == proof.agent.agent_id,
        "the batch is of agent {:?}, expected {:?}",
        header.agent_id,
        proof.agent.agent_id
    );
    let entry = log_entry(&SignedBatch {
        header: header_bytes.into(),
        signature: signature.into(),
        payload: bytes::Bytes::new(),
    });
    let path = file::path("log.path", &proof.log.path)?;
    let found = root_by(&leaf_hash(&entry), proof.log.index, checkpoint.size, &path);
    ensure!(
        found == Some(checkpoint.root),
        "the entry leads to the root {}, expected the checkpoint's {}",
        shown(found),
        checkpoint.root_base64()
    );
    let event = event(proof, &header)?;
    Ok(ProofReport {
        ok: true,
        event_id: proof.event_id.clone(),
        origin: origin.origin,
        verifier_key: origin.verifier_key,
        compared_with_known_key: !options.origin_keys.is_empty(),
        agent_key: hex::encode(keys.of(header.sequence).as_bytes()),
        log_index: proof.log.index,
        tree_size: checkpoint.size,
        root: checkpoint.root_base64(),
        cosigned_by,
        compared_with_known_witnesses: !options.witnesses.is_empty(),
        event,
        wrong: None,
    })
}

/// The checkpoint, and who of those that count cosigned it.
fn checkpoint(proof: &Proof, options: &Options) -> anyhow::Result<(Checkpoint, Vec<(String, u64)>)> {
    let (note, key) = (proof.log.checkpoint.as_bytes(), &proof.log.verifier_key);
    let named = proof.witnesses.iter().map(|text| Ok(WitnessKey::parse(text)?));
    let named = named.collect::<anyhow::Result<Vec<_>>>().context("witnesses")?;
    let (checkpoint, cosigned) = Checkpoint::open_cosigned(note, key, &named).context("log.checkpoint")?;
    ensure!(
        cosigned.len() == named.len(),
        "{} of the {} witnesses that it names cosigned",
        cosigned.len(),
        named.len()
    );
    let cosigned = match options.witnesses.is_empty() {
        true => cosigned,
        false => {
            Checkpoint::open_kept(note, key, &options.witnesses)
                .context("log.checkpoint")?
                .1
        }
    };
    ensure!(
        cosigned.len() >= options.cosigned_by,
        "{} of the given witnesses cosigned the checkpoint, expected {}",
        cosigned.len(),
        options.cosigned_by
    );
    let by = cosigned
        .into_iter()
        .map(|cosigned| (cosigned.witness, cosigned.unix_s));
    Ok((checkpoint, by.collect()))
}

/// The event, if it and what it names are leaves of the batch.
fn event(proof: &Proof, header: &BatchHeader) -> anyhow::Result<Value> {
    let (events, definitions) = (header.event_count, header.definition_count);
    ensure!(
        events <= MAX_EVENTS && definitions <= MAX_EVENTS,
        "the batch counts {events} events and {definitions} definitions, expected at most {MAX_EVENTS} of each"
    );
    let size = u64::from(events) + u64::from(definitions);
    ensure!(
        proof.event.place < events,
        "the event's place is {}, expected one below {events}",
        proof.event.place
    );
    let seq = header.first_event_seq.saturating_add(proof.event.place.into());
    let id = json::event_id(&header.agent_id, seq);
    ensure!(
        proof.event_id == id,
        "event_id is {:?}, expected {id:?}",
        proof.event_id
    );
    let message = in_batch("event", &proof.event, proof.event.place.into(), size, header)?;
    let own = v1::Event::decode(message.as_slice()).context("event.message is none")?;
    let mut named: Vec<u32> = own.party.into_iter().chain(own.template).collect();
    named.sort_unstable();
    named.dedup();
    let places: Vec<u32> = proof.definitions.iter().map(|leaf| leaf.place).collect();
    ensure!(
        places == named,
        "definitions {places:?} are there, expected those that the event names: {named:?}"
    );
    // In their places, so that the event finds them; nothing is made of the others.
    let last = named.last().map_or(0, |last| *last as usize + 1);
    ensure!(
        last <= definitions as usize,
        "the event names definition {}, expected one below {definitions}",
        last.saturating_sub(1)
    );
    let mut at_hand = vec![Vec::new(); last];
    for leaf in &proof.definitions {
        let place = u64::from(events) + u64::from(leaf.place);
        let message = in_batch("definitions", leaf, place, size, header)?;
        if let Some(slot) = at_hand.get_mut(leaf.place as usize) {
            *slot = message;
        }
    }
    let event =
        whole::event(seq, &message, &at_hand).map_err(|refused| anyhow::anyhow!("the event {refused}"))?;
    Ok(serde_json::from_str(&json::event(&header.agent_id, &event))?)
}

/// The message of a leaf, if it is at this place of the batch's tree.
fn in_batch(name: &str, of: &Leaf, place: u64, size: u64, header: &BatchHeader) -> anyhow::Result<Vec<u8>> {
    let message = file::bytes(name, &of.message)?;
    let salt = file::bytes(name, &of.salt)?;
    let length = salt.len();
    let salt = salt.try_into();
    let salt = salt.map_err(|_| anyhow::anyhow!("the salt of {name} takes {length} bytes, expected 16"))?;
    let path = file::path(name, &of.path)?;
    let found = root_by(&leaf(&salt, &message), place, size, &path);
    ensure!(
        found.is_some_and(|found| found.as_slice() == header.events_root),
        "{name} {} leads to the root {}, expected the batch's {}",
        of.place,
        shown(found),
        BASE64_STANDARD.encode(&header.events_root)
    );
    Ok(message)
}

fn shown(root: Option<Hash>) -> String {
    root.map_or_else(
        || "of no tree of this size".to_owned(),
        |root| BASE64_STANDARD.encode(root),
    )
}

impl ProofReport {
    pub(crate) fn text(&self, file: &Path) -> String {
        if let Some(wrong) = &self.wrong {
            return format!(
                "WRONG: {} proves nothing\n  {}\n",
                file.display(),
                printable(wrong)
            );
        }
        let mut text = format!(
            "OK: {} proves {}\n  log        {}, entry {}\n  key        {}\n  checkpoint {} entries, root {}\n  agent key  {}\n",
            file.display(),
            self.event_id,
            self.origin,
            self.log_index,
            self.verifier_key,
            self.tree_size,
            self.root,
            self.agent_key
        );
        for (witness, unix_s) in &self.cosigned_by {
            let when = i64::try_from(*unix_s)
                .ok()
                .and_then(|at| jiff::Timestamp::from_second(at).ok());
            let when = when.map_or_else(|| unix_s.to_string(), |when| when.to_string());
            text += &format!("  cosigned   by {} at {when}\n", printable(witness));
        }
        if !self.compared_with_known_key {
            text += "  the log's key was taken from the proof itself (--origin-key KEY): compare it with the one you know\n";
        }
        if !self.compared_with_known_witnesses {
            text += "  no witness was named (--witness KEY): whether the log shows others another history, this cannot tell\n";
        }
        text + &format!("{}\n", printable(&self.event.to_string()))
    }
}
