//! Tokens and agents, a small file each, so that a rename decides who was first and a look at one agent reads one file.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ::trust::{Digest, Token, digest};
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{folder, unix_s};

/// `<data>/trust`.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    folder: PathBuf,
}

/// An agent that was enrolled, or turned out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolled {
    pub(crate) agent_id: String,
    /// Seconds since the Unix epoch; 0: it was never enrolled here.
    pub(crate) enrolled_unix_s: u64,
    /// Digests of the certificates that are good, the newest last: with a renewal the one before stays until the new one is shown.
    pub(crate) certificates: Vec<String>,
    /// Of the newest certificate, seconds since the Unix epoch.
    pub(crate) not_after_unix_s: u64,
    /// Digest of the authority that issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<Revoked>,
    /// The node that it is the agent of, where the API server said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// The batch key, in hexadecimal, in whose place the agent is asked for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_key: Option<String>,
}

/// That an agent was turned out, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoked {
    /// Seconds since the Unix epoch.
    pub(crate) at_unix_s: u64,
    /// The operator's words.
    pub(crate) reason: String,
}

/// A token that was handed out, by the digest of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handed {
    pub(crate) agent_id: String,
    /// Seconds since the Unix epoch.
    pub(crate) expires_unix_s: u64,
}

/// Why a token opens nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unusable {
    #[error(
        "this enrolment token was used already: a token is for one enrolment (pgwitness-collector agent add)"
    )]
    Used { agent_id: String },
    #[error("this enrolment token has expired: make another one (pgwitness-collector agent add)")]
    Expired { agent_id: String },
    #[error("this enrolment token is not of this collector, or was withdrawn")]
    Unknown,
}

/// Certificates of one agent that are good at once.
const CERTIFICATES: usize = 2;

/// Files beyond this are not ours.
const MAX_FILE_BYTES: u64 = 64 << 10;

impl Enrolled {
    /// Whether this certificate is good.
    pub(crate) fn holds(&self, certificate: &Digest) -> bool {
        self.certificates.contains(&hex::encode(certificate))
    }

    /// Takes in a new certificate.
    pub(crate) fn issued(&mut self, certificate: &[u8], authority: &Digest, not_after_unix_s: u64) {
        self.certificates.push(hex::encode(digest(certificate)));
        let surplus = self.certificates.len().saturating_sub(CERTIFICATES);
        self.certificates.drain(..surplus);
        self.not_after_unix_s = not_after_unix_s;
        self.authority = Some(hex::encode(authority));
    }
}

impl Registry {
    pub(crate) fn in_data(data: &Path) -> Self {
        Self { folder: folder(data) }
    }

    /// Makes its folders, readable for this user alone.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for path in [self.agents(), self.used(), self.authorities()] {
            make_folder(&path, self.folder.parent())?;
        }
        for path in [self.folder.clone(), self.tokens()] {
            hand_over(&path, self.folder.parent())?;
        }
        Ok(())
    }

    pub(crate) fn authorities(&self) -> PathBuf {
        self.folder.join("authorities")
    }

    fn agents(&self) -> PathBuf {
        self.folder.join("agents")
    }

    fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    fn used(&self) -> PathBuf {
        self.tokens().join("used")
    }

    /// When agents and authorities last changed: their files are only ever replaced.
    pub(crate) fn changed(&self) -> [Option<SystemTime>; 2] {
        [self.agents(), self.authorities()]
            .map(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
    }

    /// Digest of the newest authority.
    pub(crate) fn newest_authority(&self) -> Option<Digest> {
        let (_, path) = super::authorities::numbered(&self.authorities()).ok()?.pop()?;
        let text = fs::read_to_string(path).ok()?;
        ::trust::from_pem(&text)
            .ok()?
            .first()
            .map(|certificate| digest(certificate))
    }

    /// An agent, if there is anything to say of it.
    pub(crate) fn agent(&self, agent_id: &str) -> anyhow::Result<Option<Enrolled>> {
        ensure!(
            evidence::is_agent_id(agent_id),
            "{agent_id:?} cannot be an agent's name"
        );
        read(&self.agents().join(format!("{agent_id}.json")))
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Enrolled>> {
        let all = read_all::<Enrolled>(&self.agents())?.into_iter();
        let mut all: Vec<_> = all.map(|(_, agent)| agent).collect();
        all.sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
        Ok(all)
    }

    /// Writes what is said of an agent.
    pub(crate) fn write(&self, agent: &Enrolled) -> anyhow::Result<()> {
        write(&self.agents().join(format!("{}.json", agent.agent_id)), agent)
    }

    /// Keeps a token's digest. Those that are over are forgotten.
    pub(crate) fn hand_out(&self, token: &Token, expires_unix_s: u64) -> anyhow::Result<()> {
        self.create()?;
        for folder in [self.tokens(), self.used()] {
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                let over = |handed: &Handed| handed.expires_unix_s.saturating_add(KEPT_S) < unix_s();
                if path.is_file()
                    && read::<Handed>(&path).is_ok_and(|handed| handed.is_some_and(|it| over(&it)))
                {
                    fs::remove_file(path)?;
                }
            }
        }
        let handed = Handed {
            agent_id: token.agent_id.clone(),
            expires_unix_s,
        };
        write(&self.tokens().join(name(&token.hash())), &handed)
    }

    /// Looks a token up, without using it.
    pub(crate) fn token(&self, secret: &[u8]) -> anyhow::Result<Result<Handed, Unusable>> {
        let name = name(&digest(secret));
        if let Some(Handed { agent_id, .. }) = read(&self.used().join(&name))? {
            return Ok(Err(Unusable::Used { agent_id }));
        }
        let Some(handed) = read::<Handed>(&self.tokens().join(&name))? else {
            return Ok(Err(Unusable::Unknown));
        };
        if handed.expires_unix_s < unix_s() {
            let agent_id = handed.agent_id;
            return Ok(Err(Unusable::Expired { agent_id }));
        }
        Ok(Ok(handed))
    }

    /// Uses a token up; of two at once one is first.
    pub(crate) fn use_up(&self, secret: &[u8]) -> anyhow::Result<bool> {
        let name = name(&digest(secret));
        match fs::rename(self.tokens().join(&name), self.used().join(&name)) {
            Ok(()) => {
                fs::File::open(self.used())?.sync_all()?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("a token cannot be used up"),
        }
    }
}

/// How long it is remembered that a token was there, behind its end: a month.
const KEPT_S: u64 = 30 * 86_400;

fn name(hash: &Digest) -> String {
    format!("{}.json", hex::encode(hash))
}

/// Makes a folder for this user alone, or for the owner of the folder that it is to be like.
pub(crate) fn make_folder(path: &Path, like: Option<&Path>) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| hand_over(path, like))
        .with_context(|| format!("cannot create {}", path.display()))
}

/// `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let describe = || format!("cannot read {}", path.display());
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.with_context(describe)?.len(),
    };
    if length > MAX_FILE_BYTES {
        bail!(
            "{} takes {length} bytes, more than any that is ours",
            path.display()
        );
    }
    let bytes = fs::read(path).with_context(describe)?;
    Ok(Some(serde_json::from_slice(&bytes).with_context(describe)?))
}

/// All such files of a folder; none if there is no folder.
pub(crate) fn read_all<T: DeserializeOwned>(folder: &Path) -> anyhow::Result<Vec<(PathBuf, T)>> {
    let mut all = Vec::new();
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        list => list.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    for file in list {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(one) = read(&path)?
        {
            all.push((path, one));
        }
    }
    Ok(all)
}

/// Writes a value as such a file: it is there whole, or as it was before.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    put(path, &text)
}

/// Removes such a file, durably.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::remove_file(path)
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .with_context(|| format!("cannot remove {}", path.display()))
}

/// What root makes for a collector of another user is that user's, who has to read it.
fn hand_over(path: &Path, like: Option<&Path>) -> io::Result<()> {
    let Some(like) = like.filter(|_| nix::unistd::geteuid().is_root()) else {
        return Ok(());
    };
    let owner = fs::metadata(like)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Writes a file for this user alone: it is there whole, or as it was before.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(format!(".{}.new", hex::encode(rand::random::<[u8; 6]>())));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        hand_over(&beside, Some(folder))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let data = tempfile::tempdir().expect("a folder");
        let registry = Registry::in_data(data.path());
        registry.create().expect("made");
        (data, registry)
    }

    #[test]
    fn a_token_opens_once_and_in_time() {
        let (_data, registry) = registry();
        let token = Token::new("db1", [1; 32]);
        assert_eq!(
            registry.token(&token.secret).expect("read"),
            Err(Unusable::Unknown)
        );
        registry.hand_out(&token, unix_s() + 60).expect("kept");
        let kept = fs::read_to_string(registry.tokens().join(name(&token.hash()))).expect("there");
        assert!(!kept.contains(&hex::encode(token.secret)), "the secret is kept");
        let handed = registry.token(&token.secret).expect("read").expect("good");
        assert_eq!(handed.agent_id, "db1");
        assert!(registry.use_up(&token.secret).expect("used"));
        assert!(!registry.use_up(&token.secret).expect("looked at"), "used twice");
        let again = registry.token(&token.secret).expect("read");
        assert!(matches!(again, Err(Unusable::Used { .. })), "{again:?}");
        let late = Token::new("db2", [1; 32]);
        registry.hand_out(&late, unix_s() - 2).expect("kept");
        let late = registry.token(&late.secret).expect("read");
        assert!(matches!(late, Err(Unusable::Expired { .. })), "{late:?}");
    }

    #[test]
    fn a_change_is_seen_and_old_certificates_go() {
        let (_data, registry) = registry();
        let before = registry.changed();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut agent = Enrolled {
            agent_id: "db1".to_owned(),
            ..Enrolled::default()
        };
        for certificate in [b"1", b"2", b"3"] {
            agent.issued(certificate, &[0; 32], 7);
        }
        registry.write(&agent).expect("written");
        assert_ne!(registry.changed(), before);
        let read = registry.agent("db1").expect("read").expect("there");
        assert_eq!(read, agent);
        assert!(!read.holds(&digest(b"1")) && read.holds(&digest(b"2")) && read.holds(&digest(b"3")));
        assert!(registry.agent("../x").is_err());
        assert_eq!(registry.all().expect("read"), [agent]);
    }
}
