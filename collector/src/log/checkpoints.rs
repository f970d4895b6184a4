//! A folder's checkpoints: the log's newest one, the newest that witnesses cosigned, and who those are.
//!
//! Owns `evidence/witnesses`, and reading the notes while a collector may be writing them.

use std::path::Path;

use anyhow::Context;
use ed25519_dalek::{Signer, SigningKey};
use evidence::{Checkpoint, WitnessKey};
use serde::{Deserialize, Serialize};

use super::{
    folder::Folder,
    identity::{Origin, canonical, check_signature, read_canonical, read_small},
};

/// The checkpoints of a folder.
pub(crate) struct Known {
    pub(crate) origin: Origin,
    witnesses: Vec<WitnessKey>,
    newest: (Vec<u8>, Checkpoint),
    cosigned: Option<(Vec<u8>, Checkpoint)>,
}

/// Reads and checks a folder's checkpoints, which a collector may be writing.
pub(crate) fn folder_checkpoint(evidence: &Path) -> anyhow::Result<Known> {
    let origin = Origin::read(evidence).context("origin")?;
    let witnesses = read_witnesses(evidence, &origin).context("witnesses")?;
    let read = |name: &str| -> anyhow::Result<(Vec<u8>, Checkpoint)> {
        let note = read_small(&evidence.join(name)).context(name.to_owned())?;
        let opened = Checkpoint::open_cosigned(&note, &origin.verifier_key, &witnesses);
        let (checkpoint, _) = opened.context(name.to_owned())?;
        Ok((note, checkpoint))
    };
    let cosigned = evidence.join("cosigned").exists();
    Ok(Known {
        cosigned: cosigned.then(|| read("cosigned")).transpose()?,
        newest: read("checkpoint")?,
        witnesses,
        origin,
    })
}

impl Known {
    /// The log's newest.
    pub(crate) fn newest(&self) -> (&Vec<u8>, &Checkpoint) {
        (&self.newest.0, &self.newest.1)
    }

    /// The newest that witnesses cosigned, if there is one.
    pub(crate) fn cosigned(&self) -> Option<(&Vec<u8>, &Checkpoint)> {
        self.cosigned
            .as_ref()
            .map(|(note, checkpoint)| (note, checkpoint))
    }

    /// The checkpoint that an entry is best proven under: a cosigned one, if one is over it.
    pub(crate) fn newest_over(&self, entry: u64) -> (&Vec<u8>, &Checkpoint) {
        let cosigned = self
            .cosigned
            .as_ref()
            .filter(|(_, checkpoint)| entry < checkpoint.size);
        let (note, checkpoint) = cosigned.unwrap_or(&self.newest);
        (note, checkpoint)
    }

    /// The keys of the witnesses that are on a note of this folder.
    pub(crate) fn witnesses_on(&self, note: &[u8]) -> Vec<String> {
        let opened = |witness: &WitnessKey| {
            let alone = std::slice::from_ref(witness);
            Checkpoint::open_kept(note, &self.origin.verifier_key, alone)
        };
        let on = |witness: &&WitnessKey| opened(witness).is_ok_and(|(_, cosigned)| !cosigned.is_empty());
        self.witnesses.iter().filter(on).map(WitnessKey::text).collect()
    }
}

/// The witnesses that a folder names; none where it has no such file.
pub(crate) fn read_witnesses(evidence: &Path, origin: &Origin) -> anyhow::Result<Vec<WitnessKey>> {
    let path = evidence.join("witnesses");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let file: Witnesses = read_canonical(&path)?;
    check_signature(&file.signed_text(), &file.signature, &origin.key()?)?;
    let parsed = file.witnesses.iter().map(|text| Ok(WitnessKey::parse(text)?));
    parsed.collect()
}

/// Writes the list of witnesses.
pub(crate) fn write_witnesses(
    folder: &Folder,
    key: &SigningKey,
    witnesses: &[WitnessKey],
) -> anyhow::Result<()> {
    let mut file = Witnesses {
        witnesses: witnesses.iter().map(WitnessKey::text).collect(),
        signature: String::new(),
    };
    file.signature = hex::encode(key.sign(file.signed_text().as_bytes()).to_bytes());
    folder.write(&folder.evidence().join("witnesses"), &canonical(&file)?)
}

impl Witnesses {
    fn signed_text(&self) -> String {
        format!("{WITNESSES_SIGNATURE_CONTEXT}\n{}\n", self.witnesses.join("\n"))
    }
}

/// `evidence/witnesses`: whose cosignatures may stand on the checkpoints of this folder. It only ever grows. That makes
/// every byte of the folder count; whom to trust the reader decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Witnesses {
    /// `<name>+<key id>+<key>` each.
    witnesses: Vec<String>,
    /// The collector's, over the list, in hexadecimal.
    signature: String,
}

/// What the signature over the list of witnesses covers in front of it.
const WITNESSES_SIGNATURE_CONTEXT: &str = "pgwitness witnesses v1";
