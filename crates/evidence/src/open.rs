//! Checking a batch that somebody else made.
//!
//! Owns every check that needs nothing but the batch and its agent's key; whether it follows its predecessor is
//! `chain`. In two halves: the seal (signature and digests, cheap) and the leaves (unpacking and hashing each event).

use std::{
    cell::RefCell,
    io::{self, Read},
};

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use prost::Message;
use proto::v1::{BatchHeader, BatchPayload, SignedBatch};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zstd::bulk::Decompressor;

use crate::{
    batch::{self, Hash, SALT_BYTES},
    canonical,
    erasure::{Leaves, check_erased},
    path::inclusion_among,
};

/// Longest header: far more than its fixed fields and counters need, and far below the 64 KiB that a log entry may
/// take (C2SP tlog-tiles).
pub const MAX_HEADER_BYTES: usize = 4 << 10;

/// Longest compressed payload: what one message can make the collector hold before anything is verified.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Longest payload once unpacked: a few kilobytes of zstd can claim gigabytes.
pub const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// Most events in a batch, and most definitions: each costs allocations of its own, even when empty.
pub const MAX_EVENTS: u32 = 65_536;

/// Largest window that a frame may ask the decoder to allocate; level 1 uses half a mebibyte.
const MAX_WINDOW_LOG: u32 = 23;

/// Caps on what a batch may make its reader do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an encoded header.
    pub header_bytes: usize,
    /// Bytes of a compressed payload.
    pub payload_bytes: usize,
    /// Bytes of an unpacked payload.
    pub unpacked_bytes: u64,
    /// Events of a batch, and definitions as well.
    pub events: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: MAX_HEADER_BYTES,
            payload_bytes: MAX_PAYLOAD_BYTES,
            unpacked_bytes: MAX_UNPACKED_BYTES,
            events: MAX_EVENTS,
        }
    }
}

/// A header whose signature and digest hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Seal {
    /// What was signed.
    pub header: BatchHeader,
    /// What the next header must name.
    pub header_hash: Hash,
}

/// A batch that holds in itself.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedBatch {
    /// What was signed.
    pub header: BatchHeader,
    /// The encoded events, as the agent hashed them; empty where they were erased.
    pub events: Vec<Bytes>,
    /// The encoded definitions that they name by their places; empty where they were erased.
    pub definitions: Vec<Bytes>,
    /// Places of what was erased, ascending: events, and definitions counted on behind them.
    pub erased: Vec<u32>,
    /// What the next header must name.
    pub header_hash: Hash,
}

impl OpenedBatch {
    /// Whether the event at this place was erased.
    #[must_use]
    pub fn is_event_erased(&self, place: usize) -> bool {
        place < self.events.len() && self.is_erased(place)
    }

    /// The same of a definition.
    #[must_use]
    pub fn is_definition_erased(&self, place: usize) -> bool {
        self.is_erased(self.events.len().saturating_add(place))
    }

    fn is_erased(&self, place: usize) -> bool {
        u32::try_from(place).is_ok_and(|place| self.erased.binary_search(&place).is_ok())
    }
}

/// Why a batch does not hold.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// Larger than a cap.
    #[error("{what} takes {found}, more than the {cap} allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size: bytes, or events.
        found: u64,
        /// The cap on it.
        cap: u64,
    },
    /// The signature is not the agent's over these header bytes.
    #[error("the signature does not hold under the agent's key")]
    Signature,
    /// The header does not parse, or is not encoded the one way that it is made.
    #[error("the header is malformed: {0}")]
    Header(&'static str),
    /// The payload is not the one that the header names.
    #[error("the payload's digest is not the header's")]
    Digest,
    /// The payload does not unpack.
    #[error("the payload is malformed: {0}")]
    Payload(&'static str),
    /// Another number of events than the header says.
    #[error("the header counts {expected} events, the payload holds {found}")]
    EventCount {
        /// The header's.
        expected: u32,
        /// The payload's.
        found: u64,
    },
    /// Another number of definitions than the header says.
    #[error("the header counts {expected} definitions, the payload holds {found}")]
    DefinitionCount {
        /// The header's.
        expected: u32,
        /// The payload's.
        found: u64,
    },
    /// An event, a definition or a salt is not the one that was signed.
    #[error("the events' root is not the header's")]
    Root,
    /// What is asked for is not there any more.
    #[error("it was erased: nothing but the hash of its leaf is left")]
    Erased,
}

/// Checks everything: the seal, then the leaves.
pub fn open(batch: &SignedBatch, key: &VerifyingKey, limits: &Limits) -> Result<OpenedBatch, BatchError> {
    check_leaves(batch, check_seal(batch, key, limits)?, limits)
}

/// The same of a batch that a log has kept, and that may have lost events since: its header is as it was signed, and what is left
/// are leaves of its root. Whether the log says that they had to go, its reader asks.
pub fn open_kept(
    batch: &SignedBatch,
    key: &VerifyingKey,
    limits: &Limits,
) -> Result<OpenedBatch, BatchError> {
    let seal = check_header(batch, key, limits)?;
    match is_as_sealed(batch, &seal.header) {
        true => check_leaves(batch, seal, limits),
        false => check_erased(batch, seal, limits),
    }
}

/// Checks sizes, signature, the header's form and the payload's digest. Costs one signature and one hash.
pub fn check_seal(batch: &SignedBatch, key: &VerifyingKey, limits: &Limits) -> Result<Seal, BatchError> {
    let seal = check_header(batch, key, limits)?;
    match is_as_sealed(batch, &seal.header) {
        true => Ok(seal),
        false => Err(BatchError::Digest),
    }
}

/// Whether the payload is the one that the header was signed with.
#[must_use]
pub fn is_as_sealed(batch: &SignedBatch, header: &BatchHeader) -> bool {
    Sha256::digest(&batch.payload).as_slice() == header.payload_digest
}

/// Checks sizes, signature, and the header's form.
pub fn check_header(batch: &SignedBatch, key: &VerifyingKey, limits: &Limits) -> Result<Seal, BatchError> {
    cap(
        "the header",
        batch.header.len() as u64,
        limits.header_bytes as u64,
    )?;
    cap(
        "the payload",
        batch.payload.len() as u64,
        limits.payload_bytes as u64,
    )?;
    if !batch::check_signature(&batch.header, &batch.signature, key) {
        return Err(BatchError::Signature);
    }
    let header =
        BatchHeader::decode(batch.header.clone()).map_err(|_| BatchError::Header("not a BatchHeader"))?;
    if !canonical::is_canonical(&batch.header) {
        return Err(BatchError::Header("not in canonical encoding"));
    }
    if !is_agent_id(&header.agent_id) {
        return Err(BatchError::Header(
            "the agent id is not 1 to 64 characters of [a-z0-9.-]",
        ));
    }
    Ok(Seal {
        header_hash: batch::header_hash(&batch.header),
        header,
    })
}

/// Unpacks the payload of a batch whose seal holds and checks every event and definition against the header's root.
pub fn check_leaves(batch: &SignedBatch, seal: Seal, limits: &Limits) -> Result<OpenedBatch, BatchError> {
    let header = &seal.header;
    cap("the event count", header.event_count.into(), limits.events.into())?;
    cap(
        "the definition count",
        header.definition_count.into(),
        limits.events.into(),
    )?;
    let leaves = Leaves::unpack(&batch.payload, limits)?;
    if !leaves.erased().is_empty() {
        return Err(BatchError::Payload("its agent kept leaves back"));
    }
    leaves.opened(seal)
}

/// Whether a payload holds as many messages as its header says.
pub(crate) fn check_counts(header: &BatchHeader, payload: &BatchPayload) -> Result<(), BatchError> {
    let found = payload.events.len() as u64;
    if found != u64::from(header.event_count) {
        return Err(BatchError::EventCount {
            expected: header.event_count,
            found,
        });
    }
    let found = payload.definitions.len() as u64;
    if found != u64::from(header.definition_count) {
        return Err(BatchError::DefinitionCount {
            expected: header.definition_count,
            found,
        });
    }
    Ok(())
}

/// One leaf of a batch, with what shows that it is one: nothing is told of the others but hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosed {
    /// The encoded event or definition.
    pub message: Bytes,
    /// Its salt.
    pub salt: [u8; SALT_BYTES],
    /// From its leaf to the header's `events_root`.
    pub path: Vec<Hash>,
}

/// The leaves at these places of a batch, which was checked: events first, definitions counted on behind them.
pub fn disclose(batch: &SignedBatch, places: &[u32], limits: &Limits) -> Result<Vec<Disclosed>, BatchError> {
    let leaves = Leaves::unpack(&batch.payload, limits)?;
    let each = leaves.each();
    let hashes: Vec<Hash> = each.iter().map(|(hash, _)| *hash).collect();
    let disclosed = places.iter().map(|place| {
        let at = usize::try_from(*place).unwrap_or(usize::MAX);
        let (message, (_, salt)) = leaves
            .message(*place)
            .zip(each.get(at))
            .ok_or(BatchError::Payload("it has no such place"))?;
        Ok(Disclosed {
            message: message.clone(),
            salt: salt.ok_or(BatchError::Erased)?,
            path: inclusion_among(&hashes, at),
        })
    });
    disclosed.collect()
}

/// Whether `id` can name an agent: 1 to 64 characters of `[a-z0-9.-]`. It becomes part of file names.
#[must_use]
pub fn is_agent_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

pub(crate) fn unpack(payload: &[u8], cap_bytes: u64) -> Result<Vec<u8>, BatchError> {
    const NOT_ZSTD: BatchError = BatchError::Payload("not a zstd frame");
    // An agent's frame says how long it is unpacked, and lies about that at its own cost: there is no room for more.
    if let Ok(Some(length)) = zstd::zstd_safe::get_frame_content_size(payload) {
        cap("the unpacked payload", length, cap_bytes)?;
        let length = usize::try_from(length).map_err(|_| NOT_ZSTD)?;
        return unpack_frame(payload, length).map_err(|_| NOT_ZSTD);
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(|_| NOT_ZSTD)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(|_| NOT_ZSTD)?;
    let mut unpacked = Vec::new();
    decoder
        .take(cap_bytes.saturating_add(1))
        .read_to_end(&mut unpacked)
        .map_err(|_| NOT_ZSTD)?;
    cap("the unpacked payload", unpacked.len() as u64, cap_bytes)?;
    Ok(unpacked)
}

/// What unpacks is kept by each thread: to make it takes memory that the kernel has to clear, for every batch.
fn unpack_frame(frame: &[u8], length: usize) -> io::Result<Vec<u8>> {
    thread_local! {
        static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(Decompressor::new()?),
        };
        unpacker.decompress(frame, length)
    })
}

fn cap(what: &'static str, found: u64, cap: u64) -> Result<(), BatchError> {
    if found > cap {
        Err(BatchError::TooLarge { what, found, cap })
    } else {
        Ok(())
    }
}
