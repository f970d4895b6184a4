//! Who signs: the collector's own key and origin, and the keys of the agents that it has met.
//!
//! Owns the small files of the evidence folder. Each has exactly one form, so that every byte of it counts: reading
//! writes it again and compares. An agent's record is signed by the collector, because nothing else would cover the
//! time in it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use evidence::{Checkpoint, ORIGIN_PREFIX};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    folder::Folder,
    keys::{AgentKeys, Announced},
};

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
pub struct AgentRecord {
    /// Its id.
    pub agent_id: String,
    /// Ed25519, in hexadecimal.
    pub public_key: String,
    /// Nanoseconds since the Unix epoch, by the collector's clock.
    pub first_seen_unix_ns: u64,
    /// The keys that followed, each announced in a batch that the one before signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    later: Vec<LaterKey>,
    /// The collector's, over the fields above, in hexadecimal.
    signature: String,
}

/// A key that an agent went on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaterKey {
    /// The first batch that it signs.
    from_batch: u64,
    /// Ed25519, in hexadecimal.
    public_key: String,
    /// By what it was announced, where that batch is in another log. It vouches for itself: the key before it signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    announced: Option<Announced>,
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

    /// The origin that such a verifier key is of.
    pub(crate) fn of_key(verifier_key: &str) -> anyhow::Result<Self> {
        let (origin, _) = verifier_key
            .split_once('+')
            .context("the verifier key is malformed")?;
        let origin = Self {
            origin: origin.to_owned(),
            verifier_key: verifier_key.to_owned(),
        };
        let key = origin.key()?;
        ensure!(
            origin == Self::new(&origin.origin, &key),
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
            later: Vec::new(),
            signature: String::new(),
        };
        record.sign(key);
        record
    }

    fn sign(&mut self, key: &SigningKey) {
        self.signature = hex::encode(key.sign(self.signed_text().as_bytes()).to_bytes());
    }

    /// Reads one record and checks it under the collector's key.
    fn read(path: &Path, collector: &VerifyingKey) -> anyhow::Result<(Self, AgentKeys)> {
        let record: Self = read_canonical(path)?;
        let expected = format!("{}.json", record.agent_id);
        ensure!(
            path.file_name().is_some_and(|name| name == expected.as_str()),
            "the file has another agent's name"
        );
        ensure!(evidence::is_agent_id(&record.agent_id), "the agent id is not one");
        record.check(collector)?;
        let keys = record.keys()?;
        Ok((record, keys))
    }

    /// The agent's keys.
    pub(crate) fn keys(&self) -> anyhow::Result<AgentKeys> {
        let key = |digits: &str| {
            let bytes = hex::decode(digits).context("the public key is malformed")?;
            ensure!(
                hex::encode(&bytes) == digits,
                "the public key is not in lower case"
            );
            VerifyingKey::try_from(bytes.as_slice()).context("the public key is malformed")
        };
        let mut keys = AgentKeys::new(key(&self.public_key)?);
        for later in &self.later {
            let (from, public_key) = (later.from_batch, key(&later.public_key)?);
            ensure!(
                keys.later.last().is_none_or(|(before, _)| *before < from),
                "the keys are not in order"
            );
            let Some(announced) = &later.announced else {
                keys.later.push((from, public_key));
                continue;
            };
            let followed = keys.follow_shown(&self.agent_id, &announced.batch()?);
            followed.map_err(|why| anyhow::anyhow!("what is shown of a key does not hold: {why}"))?;
            ensure!(
                keys.later.last() == Some(&(from, public_key)),
                "what is shown of a key announces another one"
            );
        }
        Ok(keys)
    }

    /// Whether the log's key signed this.
    pub(crate) fn check(&self, collector: &VerifyingKey) -> anyhow::Result<()> {
        check_signature(&self.signed_text(), &self.signature, collector)
    }

    pub(crate) fn write(&self, folder: &Folder) -> anyhow::Result<()> {
        folder.write(
            &folder.agents().join(format!("{}.json", self.agent_id)),
            &canonical(self)?,
        )
    }

    fn signed_text(&self) -> String {
        let mut text = format!(
            "{AGENT_SIGNATURE_CONTEXT}\n{}\n{}\n{}\n",
            self.agent_id, self.public_key, self.first_seen_unix_ns
        );
        for later in &self.later {
            text += &format!("{} {}\n", later.from_batch, later.public_key);
        }
        text
    }
}

/// What a folder says of an agent, as it stands there.
pub(crate) fn agent_record(evidence: &Path, agent: &str) -> anyhow::Result<AgentRecord> {
    ensure!(evidence::is_agent_id(agent), "{agent:?} is no agent's id");
    let path = evidence.join("agents").join(format!("{agent}.json"));
    let collector = Origin::read(evidence).context("origin")?.key()?;
    let (record, _) = AgentRecord::read(&path, &collector).with_context(|| format!("agents/{agent}.json"))?;
    Ok(record)
}

pub(super) fn check_signature(text: &str, signature: &str, key: &VerifyingKey) -> anyhow::Result<()> {
    let bytes = hex::decode(signature).context("the signature is malformed")?;
    ensure!(
        hex::encode(&bytes) == signature,
        "the signature is not in lower case"
    );
    let signature = Signature::from_slice(&bytes).context("the signature is malformed")?;
    key.verify_strict(text.as_bytes(), &signature)
        .context("the signature is not the collector's")
}

/// Writes an agent's keys into its record, if they are not there yet.
pub(crate) fn write_keys(
    folder: &Folder,
    agent_id: &str,
    keys: &AgentKeys,
    collector: &SigningKey,
) -> anyhow::Result<()> {
    let path = folder.agents().join(format!("{agent_id}.json"));
    let (mut record, known) = AgentRecord::read(&path, &collector.verifying_key())
        .with_context(|| format!("cannot go by {}", path.display()))?;
    if known == *keys {
        return Ok(());
    }
    let later = keys.later.iter().map(|(from_batch, key)| LaterKey {
        from_batch: *from_batch,
        public_key: hex::encode(key.as_bytes()),
        announced: keys.shown.get(from_batch).cloned(),
    });
    record.later = later.collect();
    record.sign(collector);
    record.write(folder)
}

/// The keys of all agents, by agent id; the error names the file.
pub(crate) fn read_agents(evidence: &Path) -> anyhow::Result<BTreeMap<String, AgentKeys>> {
    let collector = Origin::read(evidence).context("origin")?.key()?;
    let mut agents = BTreeMap::new();
    for file in fs::read_dir(evidence.join("agents")).context("agents")? {
        let path = file?.path();
        let (record, keys) = AgentRecord::read(&path, &collector).with_context(|| {
            format!(
                "agents/{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            )
        })?;
        agents.insert(record.agent_id, keys);
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

/// Gives a folder that holds the entries of another log a name and a key of its own: what that log said of its agents is
/// said again, and so is its checkpoint.
pub(crate) fn adopt(folder: &Folder, from: &Path, name: &str, of: &Checkpoint) -> anyhow::Result<()> {
    ensure!(
        evidence::is_agent_id(name),
        "{name:?} cannot name a log: it must be 1 to 64 characters of [a-z0-9.-]"
    );
    let collector = Origin::read(from).context("origin")?.key()?;
    let key = SigningKey::from_bytes(&rand::random());
    folder.write(
        &folder.key(),
        format!("{}\n", hex::encode(key.to_bytes())).as_bytes(),
    )?;
    for file in fs::read_dir(from.join("agents")).context("agents")? {
        let (mut record, _) = AgentRecord::read(&file?.path(), &collector)?;
        record.sign(&key);
        record.write(folder)?;
    }
    let origin = Origin::new(&format!("{ORIGIN_PREFIX}{name}"), &key.verifying_key());
    let checkpoint = Checkpoint {
        origin: origin.origin.clone(),
        ..of.clone()
    };
    folder.write(&folder.evidence().join("checkpoint"), &checkpoint.sign(&key)?)?;
    // The last: with it the folder is a log.
    folder.write(&folder.evidence().join("origin"), &canonical(&origin)?)
}

pub(super) fn canonical<T: Serialize>(value: &T) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

pub(super) fn read_canonical<T: Serialize + DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
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
