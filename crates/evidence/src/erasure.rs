//! A payload from which events were erased: their leaf hashes stay, and with them the root that was signed.
//!
//! Owns how a payload loses leaves, and the checks on one that did. The salts that are left stand in place of the seed, which
//! would give the others away; whoever has a leaf's hash without its salt learns nothing of what it was. Refuses to know whether
//! an erasure was allowed, and which definitions go with an event: both are the log's. What is left is authentic by the root
//! alone, so that a payload can be erased again and again.

use bytes::Bytes;
use prost::Message;
use proto::v1::{BatchPayload, Remains, SignedBatch};

use crate::{
    batch::{self, Hash, SALT_BYTES},
    merkle::Frontier,
    open::{BatchError, Limits, OpenedBatch, Seal, check_counts, unpack},
};

const BROKEN: BatchError = BatchError::Payload("what is left of its erased leaves does not fit together");

/// A payload's leaves, in the order of their places: events, and definitions behind them.
pub(crate) struct Leaves {
    payload: BatchPayload,
    /// Places of the erased ones, ascending, and their hashes.
    erased: Vec<(u32, Hash)>,
    /// Of the others, where the seed is gone.
    salts: Vec<[u8; SALT_BYTES]>,
}

impl Leaves {
    /// Unpacks a payload, which may be as an agent made it or have lost leaves.
    pub(crate) fn unpack(payload: &[u8], limits: &Limits) -> Result<Self, BatchError> {
        let bytes = Bytes::from(unpack(payload, limits.unpacked_bytes)?);
        let payload = BatchPayload::decode(bytes.clone()).map_err(|_| NOT_A_PAYLOAD)?;
        let Some(remains) = &payload.remains else {
            if payload.salt_seed.len() != 32 {
                return Err(BatchError::Payload("the salt seed is not 32 bytes"));
            }
            return Ok(Self {
                payload,
                erased: Vec::new(),
                salts: Vec::new(),
            });
        };
        // Nobody signed these bytes: nothing but what is known may be in them.
        if payload.encode_to_vec() != bytes || !payload.salt_seed.is_empty() {
            return Err(BROKEN);
        }
        let (hashes, rest) = remains.leaves.as_chunks::<{ size_of::<Hash>() }>();
        let (salts, left) = remains.salts.as_chunks::<SALT_BYTES>();
        let count = payload.events.len() + payload.definitions.len();
        let ascending = remains.erased.is_sorted_by(|one, next| one < next);
        let in_range = remains.erased.last().is_some_and(|last| (*last as usize) < count);
        let each_has_its_own = hashes.len() == remains.erased.len() && salts.len() + hashes.len() == count;
        if !ascending || !in_range || !each_has_its_own || !rest.is_empty() || !left.is_empty() {
            return Err(BROKEN);
        }
        let leaves = Self {
            erased: remains
                .erased
                .iter()
                .copied()
                .zip(hashes.iter().copied())
                .collect(),
            salts: salts.to_vec(),
            payload,
        };
        let nothing_in_them = |(place, _): &(u32, Hash)| leaves.message(*place).is_some_and(Bytes::is_empty);
        match leaves.erased.iter().all(nothing_in_them) {
            true => Ok(leaves),
            false => Err(BROKEN),
        }
    }

    /// Places of the erased leaves.
    pub(crate) fn erased(&self) -> Vec<u32> {
        self.erased.iter().map(|(place, _)| *place).collect()
    }

    /// The message of a leaf; nothing at a place that there is not.
    pub(crate) fn message(&self, place: u32) -> Option<&Bytes> {
        self.payload
            .events
            .iter()
            .chain(&self.payload.definitions)
            .nth(place as usize)
    }

    /// Each leaf: its hash, and its salt where it was not erased.
    pub(crate) fn each(&self) -> Vec<(Hash, Option<[u8; SALT_BYTES]>)> {
        let (mut erased, mut left) = (self.erased.iter().peekable(), self.salts.iter());
        let mut derived = batch::salts(&self.payload.salt_seed);
        let messages = self.payload.events.iter().chain(&self.payload.definitions);
        let leaf = |(place, message): (u32, &Bytes)| {
            if let Some((_, hash)) = erased.next_if(|(gone, _)| *gone == place) {
                return (*hash, None);
            }
            let salt = match self.payload.remains {
                Some(_) => left.next().copied(),
                None => derived.next(),
            };
            // There are as many as leaves that have one: it was counted.
            let salt = salt.unwrap_or_default();
            (batch::leaf(&salt, message), Some(salt))
        };
        (0..).zip(messages).map(leaf).collect()
    }

    fn root(&self) -> Hash {
        let mut tree = Frontier::default();
        self.each().into_iter().for_each(|(hash, _)| tree.push(hash));
        tree.root()
    }

    /// The batch, where the leaves are those that its header's root is over.
    pub(crate) fn opened(self, seal: Seal) -> Result<OpenedBatch, BatchError> {
        let Seal { header, header_hash } = seal;
        check_counts(&header, &self.payload)?;
        if self.root().as_slice() != header.events_root {
            return Err(BatchError::Root);
        }
        Ok(OpenedBatch {
            erased: self.erased(),
            header,
            header_hash,
            events: self.payload.events,
            definitions: self.payload.definitions,
        })
    }
}

/// Checks the payload of a batch that lost leaves, under a header that was checked: what is left are leaves of the header's root.
/// Whether they were allowed to go, the log says.
pub fn check_erased(batch: &SignedBatch, seal: Seal, limits: &Limits) -> Result<OpenedBatch, BatchError> {
    let leaves = Leaves::unpack(&batch.payload, limits)?;
    if leaves.erased.is_empty() {
        // It is as an agent makes one, and not the one that the agent made.
        return Err(BatchError::Digest);
    }
    leaves.opened(seal)
}

/// A payload without the leaves at these places, which ascend: events, and definitions counted on behind them. What was erased
/// before stays so. The same leaves of the same payload always give the same bytes.
pub fn erase(payload: &[u8], places: &[u32], limits: &Limits) -> Result<Vec<u8>, BatchError> {
    let leaves = Leaves::unpack(payload, limits)?;
    let mut remains = Remains::default();
    let (mut hashes, mut salts) = (Vec::new(), Vec::new());
    for (place, (hash, salt)) in (0..).zip(leaves.each()) {
        match salt.filter(|_| places.binary_search(&place).is_err()) {
            Some(salt) => salts.extend(salt),
            None => {
                remains.erased.push(place);
                hashes.extend(hash);
            }
        }
    }
    let known = |place: &u32| leaves.message(*place).is_some();
    if remains.erased.is_empty() || !places.iter().all(known) {
        return Err(BatchError::Payload("it has no such place"));
    }
    (remains.leaves, remains.salts) = (hashes, salts);
    let mut rest = leaves.payload;
    let behind = u32::try_from(rest.events.len()).unwrap_or(u32::MAX);
    let (of_events, of_definitions) = remains
        .erased
        .split_at(remains.erased.partition_point(|place| *place < behind));
    of_events.iter().for_each(|place| clear(&mut rest.events, *place));
    of_definitions
        .iter()
        .for_each(|place| clear(&mut rest.definitions, place - behind));
    rest.salt_seed = Bytes::new();
    rest.remains = Some(remains);
    Ok(batch::compress(&rest.encode_to_vec()))
}

fn clear(messages: &mut [Bytes], place: u32) {
    if let Some(message) = messages.get_mut(place as usize) {
        *message = Bytes::new();
    }
}

const NOT_A_PAYLOAD: BatchError = BatchError::Payload("not a BatchPayload");
