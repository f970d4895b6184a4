//! What makes the record tamper-evident: leaves and salts, signed and chained batches, the Merkle tree, its proofs,
//! its tiles and its checkpoints.
//!
//! Owns every byte string that is hashed or signed. Refuses files, sockets, clocks and randomness: seeds, keys and
//! times come in as arguments, so that agent, collector and an offline check compute the same thing from the same
//! bytes.

mod batch;
mod canonical;
mod chain;
mod checkpoint;
mod contents;
mod cosignature;
mod erasure;
mod merkle;
mod open;
mod path;
mod sha;
mod tile;

pub use batch::{
    BATCH_SIGNATURE_CONTEXT, Chain, Hash, SALT_BYTES, check_signature, header_hash, leaf, log_entry, reseal,
    salt, seal,
};
pub use chain::{ChainBreak, Tip};
pub use checkpoint::{Checkpoint, CheckpointError, ORIGIN_PREFIX, verifier_key};
pub use contents::Contents;
pub use cosignature::{Cosigned, WitnessKey, cosign};
pub use erasure::{check_erased, erase};
pub use merkle::{Frontier, leaf_hash, node_hash};
pub use open::{
    BatchError, Disclosed, Limits, MAX_EVENTS, MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, MAX_UNPACKED_BYTES,
    OpenedBatch, Seal, check_header, check_leaves, check_seal, disclose, is_agent_id, is_as_sealed, open,
    open_kept,
};
pub use path::{MAX_PATH, consistency, inclusion, inclusion_among, is_consistent, root_by};
pub use tile::{EntryTooLong, MAX_ENTRY_BYTES, NodePlace, TILE_WIDTH, Tile, Tiling, bundle_path};
