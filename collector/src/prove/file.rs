//! The form of a proof, version 1.
//!
//! A JSON object, written as `serde_json` and Python's `json.dumps(…, indent=2, ensure_ascii=False)` do, and a line feed:
//! the keys in this order, each once, so that there is one way to say it and every byte of the file counts. Bytes and
//! hashes are standard base64 with padding, but for `agent`, which is a file of the log as it stands there. SHA-256
//! throughout; `node(l, r)` is SHA-256 of byte 1, `l`, `r`, and a path is that of RFC 6962: the hashes beside the way from a
//! leaf to the root, the leaf's neighbour first.
//!
//! | key | what it is |
//! |---|---|
//! | `format` | `pgwitness proof v1` |
//! | `event_id` | the agent's id, a dash, and the event's number |
//! | `event` | `place` among the batch's events, from 0; `message`, an encoded `Event`; `salt`; `path` in the batch |
//! | `definitions` | the same of each `Definition` that the event names (`party`, `template`), by their places among the batch's definitions, ascending |
//! | `batch` | `header`, an encoded `BatchHeader`; `signature` |
//! | `agent` | `agents/<agent id>.json` of the log: the agent's key, in hexadecimal, and the collector's word for it |
//! | `log` | `verifier_key`; `index`, the entry's number from 0; `path` in the log; `checkpoint`, a signed note |
//! | `witnesses` | keys of the witnesses whose cosignatures are on the checkpoint, as the log names them |
//!
//! It holds if all of this does (messages are protobuf, `proto/pgwitness/v1`):
//!
//! 1. The note `checkpoint` is signed by `verifier_key`, is of the origin that this key names, and is of a tree of `size`
//!    entries with `root` (<https://c2sp.org/tlog-checkpoint>). Each key of `witnesses` cosigned it, and there is no other
//!    signature (<https://c2sp.org/tlog-cosignature>).
//! 2. `agent.signature` is the log's, by Ed25519, over the lines `pgwitness agent v1`, `agent_id`, `public_key`,
//!    `first_seen_unix_ns`, each ended by a line feed.
//! 3. `batch.signature` is the agent's over `pgwitness batch v1`, a line feed, and the header; the header's `agent_id` (field
//!    1) is the agent's.
//! 4. The log's entry is an encoded `SignedBatch` without payload: byte 0x0a, the header's length as a varint, the header,
//!    byte 0x12, byte 0x40, the signature. Its leaf, SHA-256 of byte 0 and the entry, leads at `index` of `size` by
//!    `log.path` to `root`.
//! 5. The batch has a tree of `event_count` (field 4) and `definition_count` (field 11) leaves, root `events_root` (field
//!    5). A leaf is SHA-256 of byte 0, the salt of 16 bytes, the message. The event's leads there at its place by its
//!    path, each definition's at `event_count` plus its place.
//! 6. `event_id` is the header's `agent_id`, a dash, and `first_event_seq` (field 9) plus the event's place. The event's
//!    fields 30 and 31 name the places of `definitions`, all of them and no other.
//!
//! What it does not say: that the log has no other history that it shows to others. That is what witnesses are for, and
//! checkpoints kept elsewhere.

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use evidence::{Disclosed, Hash};
use serde::{Deserialize, Serialize};

use crate::log::AgentRecord;

/// The first value of every proof.
pub(super) const FORMAT: &str = "pgwitness proof v1";

/// Longest file: an event and its definitions at the cap of an unpacked batch, in base64. Real ones take a few kilobytes.
pub(super) const MAX_BYTES: u64 = 128 << 20;

/// A proof of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Which form this is.
    pub format: String,
    /// What it proves.
    pub event_id: String,
    /// The event.
    pub event: Leaf,
    /// What it names.
    pub definitions: Vec<Leaf>,
    /// The batch that holds both.
    pub batch: Batch,
    /// Whose batch that is.
    pub agent: AgentRecord,
    /// Where the batch stands.
    pub log: LogPlace,
    /// Who else saw that log.
    pub witnesses: Vec<String>,
}

/// A leaf of a batch's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Among the events, or among the definitions.
    pub place: u32,
    /// Encoded.
    pub message: String,
    /// 16 bytes.
    pub salt: String,
    /// To the batch's root.
    pub path: Vec<String>,
}

/// A batch without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Encoded.
    pub header: String,
    /// The agent's.
    pub signature: String,
}

/// A place in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlace {
    /// `<origin>+<key id>+<key>`.
    pub verifier_key: String,
    /// The entry, from 0.
    pub index: u64,
    /// To the checkpoint's root.
    pub path: Vec<String>,
    /// A signed note.
    pub checkpoint: String,
}

impl Proof {
    /// The file.
    ///
    /// # Errors
    ///
    /// None that is known of.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Where it is not of this form, in the one way in which that is written.
    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let proof: Self = serde_json::from_slice(bytes).context("it is not a proof")?;
        ensure!(
            proof.format == FORMAT,
            "its format is {:?}, expected {FORMAT:?}",
            proof.format
        );
        ensure!(
            proof.to_bytes()? == bytes,
            "it is not in canonical form: expected what writing it again gives"
        );
        Ok(proof)
    }
}

impl Leaf {
    pub(super) fn of(place: u32, leaf: &Disclosed) -> Self {
        Self {
            place,
            message: BASE64_STANDARD.encode(&leaf.message),
            salt: BASE64_STANDARD.encode(leaf.salt),
            path: encode(&leaf.path),
        }
    }
}

pub(super) fn encode(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| BASE64_STANDARD.encode(hash)).collect()
}

/// Bytes that stand in a proof under this name.
pub(super) fn bytes(name: &str, text: &str) -> anyhow::Result<Vec<u8>> {
    BASE64_STANDARD
        .decode(text)
        .with_context(|| format!("{name} is not base64"))
}

/// The hashes of a path.
pub(super) fn path(name: &str, path: &[String]) -> anyhow::Result<Vec<Hash>> {
    ensure!(
        path.len() <= evidence::MAX_PATH,
        "{name} has {} hashes, expected at most {}",
        path.len(),
        evidence::MAX_PATH
    );
    let hash = |text: &String| {
        let bytes = bytes(name, text)?;
        let length = bytes.len();
        bytes
            .try_into()
            .map_err(|_| anyhow::anyhow!("a hash of {name} takes {length} bytes, expected 32"))
    };
    path.iter().map(hash).collect()
}
