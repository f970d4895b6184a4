//! Who signs: the collector's own key and origin, and the keys of the agents that it has met.
//!
//! Owns the small files of the evidence folder. Each has exactly one form, so that every byte of it counts: reading
//! writes it again and compares. An agent's record is signed by the collector, because nothing else would cover the
//! time in it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use evidence::ORIGIN_PREFIX;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::folder::Folder;

/// `evidence/origin`: which log this is, and the key that its checkpoints are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    pub(crate) origin: String,
    pub(crate) verifier_key: String,
}

/// `evidence/agents/<agent_id>.json`: the key that an agent showed at first contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentRecord {
    pub(crate) agent_id: String,
    /// Ed25519, in hexadecimal.
    pub(crate) public_key: String,
    /// Nanoseconds since the Unix epoch, by the collector's clock.
    pub(crate) first_seen_unix_ns: u64,
    /// The collector's, over the fields above, in hexadecimal.
    signature: String,
}

/// What an agent record's signature covers in front of its fields.
const AGENT_SIGNATURE_CONTEXT: &str = "pgwitness agent v1";

/// Longest of the small files; real ones take a few hundred bytes.
const MAX_SMALL_FILE_BYTES: u64 = 64 << 10;

impl Origin {
    fn new(origin: &str, key: &VerifyingKey) -> Self {
        Self {
            origin: origin.to_owned(),
            verifier_key: evidence::verifier_key(origin, key),
        }
    }

    pub(crate) fn read(evidence: &Path) -> anyhow::Result<Self> {
        let origin: Self = read_canonical(&evidence.join("origin"))?;
        let key = origin.key()?;
        ensure!(
            origin.origin.starts_with(ORIGIN_PREFIX) && origin == Self::new(&origin.origin, &key),
            "the key is not the origin's"
        );
        Ok(origin)
    }

    /// The public key that the log's checkpoints and agent records are signed with.
    pub(crate) fn key(&self) -> anyhow::Result<VerifyingKey> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let rest = self
            .verifier_key
            .strip_prefix(&self.origin)
            .and_then(|rest| rest.strip_prefix('+'));
        let Some((_id, key)) = rest.and_then(|rest| rest.split_once('+')) else {
            bail!("the verifier key is malformed")
        };
        let bytes = BASE64_STANDARD
            .decode(key)
            .context("the verifier key is malformed")?;
        let Some((1, key)) = bytes.split_first() else {
            bail!("the verifier key is not an Ed25519 key")
        };
        VerifyingKey::try_from(key).context("the verifier key is malformed")
    }
}

impl AgentRecord {
    pub(crate) fn new(
        agent_id: &str,
        agent: &VerifyingKey,
        first_seen_unix_ns: u64,
        key: &SigningKey,
    ) -> Self {
        let mut record = Self {
            agent_id: agent_id.to_owned(),
            public_key: hex::encode(agent.as_bytes()),
            first_seen_unix_ns,
            signature: String::new(),
        };
        record.signature = hex::encode(key.sign(record.signed_text().as_bytes()).to_bytes());
        record
    }

    /// Reads one record and checks it under the collector's key.
    fn read(path: &Path, collector: &VerifyingKey) -> anyhow::Result<(Self, VerifyingKey)> {
        let record: Self = read_canonical(path)?;
        let expected = format!("{}.json", record.agent_id);
        ensure!(
            path.file_name().is_some_and(|name| name == expected.as_str()),
            "the file has another agent's name"
        );
        ensure!(evidence::is_agent_id(&record.agent_id), "the agent id is not one");
        let signature = hex::decode(&record.signature).context("the signature is malformed")?;
        ensure!(
            hex::encode(&signature) == record.signature,
            "the signature is not in lower case"
        );
        let signature = Signature::from_slice(&signature).context("the signature is malformed")?;
        collector
            .verify_strict(record.signed_text().as_bytes(), &signature)
            .context("the signature is not the collector's")?;
        let bytes = hex::decode(&record.public_key).context("the public key is malformed")?;
        let key = VerifyingKey::try_from(bytes.as_slice()).context("the public key is malformed")?;
        Ok((record, key))
    }

    pub(crate) fn write(&self, folder: &Folder) -> anyhow::Result<()> {
        folder.write(
            &folder.agents().join(format!("{}.json", self.agent_id)),
            &canonical(self)?,
        )
    }

    fn signed_text(&self) -> String {
        format!(
            "{AGENT_SIGNATURE_CONTEXT}\n{}\n{}\n{}\n",
            self.agent_id, self.public_key, self.first_seen_unix_ns
        )
    }
}

/// The keys of all agents, by agent id; the error names the file.
pub(crate) fn read_agents(evidence: &Path) -> anyhow::Result<BTreeMap<String, VerifyingKey>> {
    let collector = Origin::read(evidence).context("origin")?.key()?;
    let mut agents = BTreeMap::new();
    for file in fs::read_dir(evidence.join("agents")).context("agents")? {
        let path = file?.path();
        let (record, key) = AgentRecord::read(&path, &collector).with_context(|| {
            format!(
                "agents/{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            )
        })?;
        agents.insert(record.agent_id, key);
    }
    Ok(agents)
}

/// Reads the collector's key and origin, or makes them for an empty folder.
pub(crate) fn read_or_create(folder: &Folder, name: Option<&str>) -> anyhow::Result<(SigningKey, Origin)> {
    let (evidence, key_path) = (folder.evidence(), folder.key());
    if evidence.join("origin").exists() {
        let text = fs::read_to_string(&key_path).with_context(|| {
            format!(
                "the evidence needs its signing key: put {} back, or name an empty folder",
                key_path.display()
            )
        })?;
        let bytes = hex::decode(text.trim_end())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let Some(bytes) = bytes else {
            bail!("{} does not hold a key: put it back", key_path.display())
        };
        let key = SigningKey::from_bytes(&bytes);
        let origin = Origin::read(&evidence)
            .with_context(|| format!("{} is not as it was written", evidence.join("origin").display()))?;
        ensure!(
            origin == Origin::new(&origin.origin, &key.verifying_key()),
            "{} is not the key that this evidence was signed with: put the right one back",
            key_path.display()
        );
        if let Some(name) = name.filter(|name| origin.origin != format!("{ORIGIN_PREFIX}{name}")) {
            bail!(
                "log.name is {name:?}, but the folder holds the log {:?}: set the same name",
                origin.origin
            );
        }
        return Ok((key, origin));
    }
    let has_files = |path: &Path| fs::read_dir(path).is_ok_and(|mut list| list.next().is_some());
    if has_files(&folder.payload()) || has_files(&folder.agents()) || evidence.join("checkpoint").exists() {
        bail!(
            "{} holds evidence but its file origin is gone: put it back",
            evidence.display()
        );
    }
    let key = match fs::read_to_string(&key_path) {
        // Left by a start that was cut short between the two writes.
        Ok(text) => hex::decode(text.trim_end())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()),
        Err(_) => None,
    };
    let key = SigningKey::from_bytes(&key.unwrap_or_else(rand::random));
    folder.write(&key_path, format!("{}\n", hex::encode(key.to_bytes())).as_bytes())?;
    let name = name.map_or_else(|| hex::encode(rand::random::<[u8; 4]>()), str::to_owned);
    let origin = Origin::new(&format!("{ORIGIN_PREFIX}{name}"), &key.verifying_key());
    folder.write(&evidence.join("origin"), &canonical(&origin)?)?;
    Ok((key, origin))
}

fn canonical<T: Serialize>(value: &T) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

fn read_canonical<T: Serialize + DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = read_small(path)?;
    let value = serde_json::from_slice(&bytes).context("not the expected JSON")?;
    ensure!(canonical(&value)? == bytes, "not in canonical form");
    Ok(value)
}

/// Reads a file that is small where nobody has touched it.
pub(crate) fn read_small(path: &Path) -> anyhow::Result<Vec<u8>> {
    let length = fs::metadata(path).context("cannot be read")?.len();
    ensure!(
        length <= MAX_SMALL_FILE_BYTES,
        "takes {length} bytes, more than {MAX_SMALL_FILE_BYTES}"
    );
    fs::read(path).context("cannot be read")
}
