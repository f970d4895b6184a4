//! What a collector says of what it removed and of what must stay, and what payloads were found to be without.
//!
//! Owns the judgement. A payload that is not the one that its header names is as wrong as any other change, unless the
//! collector's own chain says that it was made so, by digests that lead from the header's to the one that is there. What the
//! chain says was erased must be gone. Refuses to believe anybody else's chain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use evidence::Hash;
use proto::v1::{self, BatchHeader, event::Body};

use super::Wrong;

/// What the collector said: its own batch, and the word.
pub(super) struct Said {
    pub(super) by: String,
    pub(super) entry: u64,
    pub(super) word: Word,
}

/// What can be said of removals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Erasure(v1::Erasure),
    Hold(v1::Hold),
    Retention(v1::Retention),
}

/// A payload that lost leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reduced {
    /// SHA-256 of what is there.
    pub(super) digest: Hash,
    /// Places of its erased leaves.
    pub(super) erased: Vec<u32>,
}

/// The same, and where it lies.
struct Found {
    reduced: Reduced,
    /// Digest of what was signed.
    signed: Vec<u8>,
    first_event_seq: u64,
    event_count: u32,
    segment: Arc<str>,
    offset: u64,
}

/// What was found on the way.
#[derive(Default)]
pub(super) struct Finds {
    reduced: BTreeMap<u64, Found>,
    said: Vec<Said>,
    /// The entry that the first payload is of, and the root of the tree over those before.
    pub(super) begins: Option<(u64, Hash)>,
}

/// What is gone from a log by its collector's word, and what must stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removals {
    /// Numbers of erased events, by the entry that held them.
    pub(crate) erased: BTreeMap<u64, Vec<u64>>,
    /// Acts of erasure.
    pub(crate) erasures: u64,
    /// The entry that says the newest of them.
    pub(crate) newest_erasure: Option<u64>,
    /// Entries of which something is said to be erased, and that are not as they have to be: with the digest to come.
    pub(crate) unfinished: BTreeMap<u64, Hash>,
    /// Holds, as they were said last, in the order of their first word.
    pub(crate) holds: Vec<v1::Hold>,
    /// The newest removal of payloads, and the entry that says it.
    pub(crate) retention: Option<(u64, v1::Retention)>,
    /// Payloads of entries below this one are said to be removed, and some are still there.
    pub(crate) to_remove: Option<u64>,
    /// Payloads of entries below this one are gone.
    pub(crate) begins: u64,
}

impl Removals {
    /// Whether the payloads begin where it was said that they do.
    fn judge_beginning(&mut self, begins: Option<(u64, Hash)>, removed: u64) -> Result<(), Wrong> {
        let (begins, root) = begins.unwrap_or_default();
        let said = self.retention.as_ref().map(|(_, retention)| retention);
        let end = said.map_or(0, |retention| retention.end_entry);
        if begins > end.max(removed) {
            let what = format!(
                "the payloads of entries {end} to {} are missing, and nobody said that they were removed",
                begins - 1
            );
            return Err(Wrong::new("payload", None, what).of_entry(end));
        }
        if said.is_some_and(|said| begins == end && said.root != root) {
            let what = format!(
                "the {begins} entries whose payloads are gone are not those that were said to be removed"
            );
            return Err(Wrong::new("payload", None, what));
        }
        self.to_remove = (begins < end).then_some(end);
        Ok(())
    }

    /// The erased events, by entry and number.
    pub(crate) fn events(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let of = |(entry, seqs): (&u64, &Vec<u64>)| (*entry, seqs.iter().copied().collect());
        self.erased.iter().map(of).collect()
    }
}

impl Word {
    /// What a body says, if that is of removals.
    pub(crate) fn of(body: &Body) -> Option<Self> {
        match body {
            Body::Erasure(of) => Some(Self::Erasure(of.clone())),
            Body::Hold(of) => Some(Self::Hold(of.clone())),
            Body::Retention(of) => Some(Self::Retention(of.clone())),
            _ => None,
        }
    }
}

impl Finds {
    pub(super) fn say(&mut self, by: &str, entry: u64, words: Vec<Word>) {
        let by = || by.to_owned();
        self.said.extend(words.into_iter().map(|word| Said {
            by: by(),
            entry,
            word,
        }));
    }

    pub(super) fn reduced(
        &mut self,
        entry: u64,
        reduced: Reduced,
        header: &BatchHeader,
        (segment, offset): (&Arc<str>, u64),
    ) {
        let found = Found {
            reduced,
            signed: header.payload_digest.clone(),
            first_event_seq: header.first_event_seq,
            event_count: header.event_count,
            segment: Arc::clone(segment),
            offset,
        };
        self.reduced.insert(entry, found);
    }

    /// Where the payloads begin that all chains that may be a collector's leave.
    pub(super) fn said_to_begin(&self) -> u64 {
        let ends = self.said.iter().map(|said| match &said.word {
            Word::Retention(retention) => retention.end_entry,
            _ => 0,
        });
        ends.max().unwrap_or(0)
    }

    /// What is removed by the word of `own`. Of payloads below `read_from` an earlier run knows, and that those below `removed` were
    /// removed.
    pub(super) fn judge(self, own: &[String], (read_from, removed): (u64, u64)) -> Result<Removals, Wrong> {
        let begins = self.begins.map_or(0, |(begins, _)| begins);
        let from = read_from.max(begins);
        let mut removals = Removals {
            begins,
            ..Removals::default()
        };
        // By entry: the digests that were said, each behind the one before, and the places.
        let mut expected: BTreeMap<u64, Expected> = BTreeMap::new();
        for Said { by, entry, word } in self.said {
            if !own.contains(&by) {
                continue;
            }
            match word {
                Word::Erasure(erasure) => {
                    removals.erasures += 1;
                    removals.newest_erasure = Some(entry);
                    for batch in erasure.batches.into_iter().filter(|batch| batch.entry >= from) {
                        let of = expected.entry(batch.entry).or_default();
                        of.said(batch).map_err(|what| {
                            Wrong::new("payload", None, format!("the erasure in entry {entry} {what}"))
                        })?;
                    }
                }
                Word::Hold(hold) => hold_again(&mut removals.holds, hold),
                Word::Retention(retention) => removals.retention = Some((entry, retention)),
            }
        }
        removals.judge_beginning(self.begins, removed)?;
        for (entry, found) in &self.reduced {
            let wrong = |what: &str| Wrong::new(&*found.segment, found.offset, what).of_entry(*entry);
            let Some(of) = expected.remove(entry) else {
                return Err(wrong(
                    "the payload's digest is not the header's, and nobody said that anything of it was erased",
                ));
            };
            if of.first != found.signed {
                return Err(wrong(
                    "what was erased of it was of another payload than the header's",
                ));
            }
            if of.last != found.reduced.digest {
                // It may stand between two erasures, of which the last was not carried out.
                match of.passed.contains(&found.reduced.digest.to_vec()) {
                    true => _ = removals.unfinished.insert(*entry, digest(&of.last)),
                    false => return Err(wrong("the payload is not the one that was said to be left of it")),
                }
            } else if of.places != found.reduced.erased {
                return Err(wrong("other leaves of it are erased than was said"));
            }
            let numbers = of.places.iter().filter(|place| **place < found.event_count);
            let numbers = numbers.map(|place| found.first_event_seq + u64::from(*place));
            removals.erased.insert(*entry, numbers.collect());
        }
        let untouched = expected.iter().map(|(entry, of)| (*entry, digest(&of.last)));
        removals.unfinished.extend(untouched);
        Ok(removals)
    }
}

/// What was said of one entry.
#[derive(Default)]
struct Expected {
    first: Vec<u8>,
    /// Between the first and the last.
    passed: Vec<Vec<u8>>,
    last: Vec<u8>,
    places: Vec<u32>,
}

impl Expected {
    fn said(&mut self, batch: v1::ErasedBatch) -> Result<(), String> {
        if self.first.is_empty() {
            self.first.clone_from(&batch.former_digest);
        } else if self.last != batch.former_digest {
            return Err(format!(
                "is of another payload of entry {} than there was",
                batch.entry
            ));
        } else {
            self.passed.push(std::mem::take(&mut self.last));
        }
        if batch.digest.len() != size_of::<Hash>() {
            return Err(format!("says no digest of entry {}", batch.entry));
        }
        self.last = batch.digest;
        self.places.extend(batch.places);
        self.places.sort_unstable();
        self.places.dedup();
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or_default()
}

/// Takes in what was said of a hold: the newest word counts.
pub(crate) fn hold_again(holds: &mut Vec<v1::Hold>, hold: v1::Hold) {
    match holds.iter_mut().find(|known| known.id == hold.id) {
        Some(known) => *known = hold,
        None => holds.push(hold),
    }
}
