//! Making a batch: salts and leaves of what it holds, its header, its signature, its place in the agent's chain.
//!
//! Owns the agent's side. Checking what somebody else made is `open`, which shares the functions here and nothing
//! else, so that a sealed batch is never trusted for having been sealed by this code.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;
use proto::v1::{BatchHeader, Counters, GivenUp, SignedBatch};
use sha2::{Digest, Sha256};

use crate::{contents::Contents, merkle::Frontier, sha};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// What the signature covers in front of the header bytes, so that it can never be taken for one over anything else.
pub const BATCH_SIGNATURE_CONTEXT: &[u8] = b"pgwitness batch v1\n";

/// Length of a leaf's salt: 128 bits cannot be guessed, so that a leaf reveals nothing of a short event.
pub const SALT_BYTES: usize = 16;

const SALT_CONTEXT: &[u8] = b"pgwitness salt v1";
const COMPRESSION_LEVEL: i32 = 1;

/// Where an agent's chain of batches stands: what the next header must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The agent whose chain this is.
    pub agent_id: String,
    /// Sequence of the next batch, from 1.
    pub next_sequence: u64,
    /// Hash of the newest batch's header; 32 zero bytes before the first.
    pub previous: Hash,
    /// The key by which batches behind the next one are signed; that one says so, and ends the announcement.
    pub next_key: Option<[u8; 32]>,
    /// Batches before the next one that exist no more; that one says so, and ends the announcement.
    pub given_up: Vec<GivenUp>,
}

impl Chain {
    /// The chain of an agent that has sealed nothing yet.
    #[must_use]
    pub fn new(agent_id: impl Into<String>) -> Self {
        Self::behind(agent_id, 0, [0; 32])
    }

    /// The chain behind batch `sequence`, whose header hashes to `header_hash`.
    #[must_use]
    pub fn behind(agent_id: impl Into<String>, sequence: u64, header_hash: Hash) -> Self {
        Self {
            agent_id: agent_id.into(),
            next_sequence: sequence.saturating_add(1),
            previous: header_hash,
            next_key: None,
            given_up: Vec::new(),
        }
    }
}

/// Seals encoded `Event`s, and the `Definition`s that they name, into the chain's next batch and advances the chain.
///
/// `first_event_seq` is the `seq` of the first event; times are nanoseconds since the Unix epoch, from the first
/// event's start to the last one's end. `salt_seed` must be fresh and unpredictable for every batch: whoever can guess
/// it can guess what a leaf hides.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a field of the header; a struct would repeat it"
)]
pub fn seal(
    chain: &mut Chain,
    key: &SigningKey,
    contents: impl Into<Contents>,
    first_event_seq: u64,
    first_ns: u64,
    last_ns: u64,
    counters: impl Into<Option<Counters>>,
    salt_seed: [u8; 32],
) -> SignedBatch {
    let contents = contents.into();
    let root = root(&salt_seed, contents.leaves());
    let (event_count, definition_count) = contents.counts();
    let payload = compress(&contents.payload(&salt_seed));
    let header = BatchHeader {
        agent_id: chain.agent_id.clone(),
        sequence: chain.next_sequence,
        previous: chain.previous.to_vec(),
        event_count,
        events_root: root.to_vec(),
        first_ns,
        last_ns,
        payload_digest: Sha256::digest(&payload).to_vec(),
        first_event_seq,
        counters: counters.into(),
        definition_count,
        next_key: chain.next_key.take().map_or_else(Vec::new, Vec::from),
        given_up: std::mem::take(&mut chain.given_up),
    }
    .encode_to_vec();
    let signature = key.sign(&signed_bytes(&header)).to_bytes();
    chain.next_sequence = chain.next_sequence.saturating_add(1);
    chain.previous = header_hash(&header);
    SignedBatch {
        header: header.into(),
        signature: Bytes::copy_from_slice(&signature),
        payload: payload.into(),
    }
}

/// Gives a batch that was sealed, and that no collector took, another place: behind `chain`, with `first_event_seq` as the `seq` of its
/// first event. What it holds stays as it is, with its root and its digest; that batches behind `held` were given up it says no more,
/// because these numbers are given anew. `None` if its header does not parse.
#[must_use]
pub fn reseal(
    chain: &mut Chain,
    key: &SigningKey,
    batch: &SignedBatch,
    first_event_seq: u64,
    held: u64,
) -> Option<(SignedBatch, BatchHeader)> {
    let mut header = BatchHeader {
        sequence: chain.next_sequence,
        previous: chain.previous.to_vec(),
        first_event_seq,
        ..BatchHeader::decode(batch.header.clone()).ok()?
    };
    header.given_up.retain(|given_up| given_up.to <= held);
    let bytes = header.encode_to_vec();
    let signature = key.sign(&signed_bytes(&bytes)).to_bytes();
    chain.next_sequence = chain.next_sequence.saturating_add(1);
    chain.previous = header_hash(&bytes);
    let resealed = SignedBatch {
        header: bytes.into(),
        signature: Bytes::copy_from_slice(&signature),
        payload: batch.payload.clone(),
    };
    Some((resealed, header))
}

/// The salt of leaf `index` of a batch: an event's place, or that of a definition counted on behind the events. Half a digest: the
/// first one of an even leaf, the second one of the odd leaf behind it. Neither tells anything of the other.
#[must_use]
pub fn salt(seed: &[u8], index: u32) -> [u8; SALT_BYTES] {
    let [even, odd] = salts_of_pair(seed, index / 2);
    if index.is_multiple_of(2) { even } else { odd }
}

/// The salts of a batch's leaves, one behind the other.
pub(crate) fn salts(seed: &[u8]) -> impl Iterator<Item = [u8; SALT_BYTES]> {
    (0..=u32::MAX / 2).flat_map(move |pair| salts_of_pair(seed, pair))
}

fn salts_of_pair(seed: &[u8], pair: u32) -> [[u8; SALT_BYTES]; 2] {
    let digest = sha::digest([SALT_CONTEXT, seed, &pair.to_be_bytes()]);
    let mut salts = [[0; SALT_BYTES]; 2];
    for (to, from) in salts.as_flattened_mut().iter_mut().zip(digest) {
        *to = from;
    }
    salts
}

/// The leaf of one event or definition in its batch's tree: SHA-256 of a zero byte, the salt and the encoded message.
#[must_use]
pub fn leaf(salt: &[u8; SALT_BYTES], message: &[u8]) -> Hash {
    sha::digest([&[0], salt, message])
}

/// What the next header names as `previous`: SHA-256 of the header bytes as signed.
#[must_use]
pub fn header_hash(header: &[u8]) -> Hash {
    Sha256::digest(header).into()
}

/// The log's entry for a batch: the batch without its payload, which the header's digest stands for.
#[must_use]
pub fn log_entry(batch: &SignedBatch) -> Vec<u8> {
    SignedBatch {
        header: batch.header.clone(),
        signature: batch.signature.clone(),
        payload: Bytes::new(),
    }
    .encode_to_vec()
}

/// RFC 6962 root over the leaves of these messages.
pub(crate) fn root<'a>(seed: &[u8], messages: impl Iterator<Item = &'a [u8]>) -> Hash {
    let mut tree = Frontier::default();
    for (salt, message) in salts(seed).zip(messages) {
        tree.push(leaf(&salt, message));
    }
    tree.root()
}

/// Whether the signature over a header is this key's.
#[must_use]
pub fn check_signature(header: &[u8], signature: &[u8], key: &VerifyingKey) -> bool {
    Signature::from_slice(signature)
        .is_ok_and(|signature| key.verify_strict(&signed_bytes(header), &signature).is_ok())
}

fn signed_bytes(header: &[u8]) -> Vec<u8> {
    [BATCH_SIGNATURE_CONTEXT, header].concat()
}

#[expect(
    clippy::expect_used,
    reason = "the buffer is as large as zstd's own bound, its only way to fail"
)]
pub(crate) fn compress(payload: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(payload, COMPRESSION_LEVEL).expect("zstd's bound holds")
}
