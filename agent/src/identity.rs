//! The agent's own identity: its signing key, its id, and whether its last run ended well.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use nix::fcntl::{Flock, FlockArg};

/// What an agent is, on disk in its state folder.
#[derive(Debug)]
pub struct Identity {
    /// Signs batches.
    pub key: SigningKey,
    /// Names the agent.
    pub agent_id: String,
    /// Where the key is.
    pub key_file: PathBuf,
    /// The key was made now: nobody can hold anything that it signed.
    pub new_key: bool,
    /// The run before this one did not say goodbye.
    pub previous_run_unclean: bool,
    running: PathBuf,
    _lock: Flock<fs::File>,
}

impl Identity {
    /// Reads the state folder, or makes it with a new key.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written, is in use by another agent, or holds a key that is not one.
    pub fn open(folder: &Path, host: &str, agent_id: Option<&str>) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| {
                format!(
                    "cannot create the state folder {}: give another one with --state-dir",
                    folder.display()
                )
            })?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"));
        let lock = lock.with_context(|| {
            format!(
                "cannot write to the state folder {}: give another one with --state-dir",
                folder.display()
            )
        })?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::Error::EWOULDBLOCK)) => bail!(
                "another agent uses the state folder {}: stop it, or give another folder with --state-dir",
                folder.display()
            ),
            Err((_, error)) => {
                return Err(error)
                    .with_context(|| format!("cannot lock the state folder {}", folder.display()));
            }
        };
        let key_file = folder.join("agent.key");
        let (key, new_key) = read_or_make_key(&key_file)?;
        let running = folder.join("running");
        let previous_run_unclean = running.exists();
        let agent_id = agent_id.map_or_else(|| default_id(host, &key), str::to_owned);
        Ok(Self {
            key,
            agent_id,
            key_file,
            new_key,
            previous_run_unclean,
            running,
            _lock: lock,
        })
    }

    /// Recording begins: until [`Self::ended`], the folder says that a run is under way. A start that fails before
    /// has recorded nothing, and is no bad end.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn began(&self) -> anyhow::Result<()> {
        fs::write(&self.running, b"").with_context(|| {
            format!(
                "cannot write {}: make the state folder writable, or give another one with --state-dir",
                self.running.display()
            )
        })
    }

    /// The run ends well.
    pub fn ended(&self) {
        // Should it fail, the next run says that this one ended badly: a false alarm, not a silence.
        let _ = fs::remove_file(&self.running);
    }
}

/// The host's name, cut to what an id may hold.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

fn default_id(host: &str, key: &SigningKey) -> String {
    let digits = hex::encode(key.verifying_key().as_bytes());
    format!("{host}-{}", digits.get(..8).unwrap_or_default())
}

/// The key, and whether it is new.
fn read_or_make_key(path: &Path) -> anyhow::Result<(SigningKey, bool)> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let mut seed = [0; 32];
            if hex::decode_to_slice(text.trim(), &mut seed).is_err() {
                bail!(
                    "{} is not a key of 64 hexadecimal digits: restore it, or remove it to enrol anew",
                    path.display()
                );
            }
            Ok((SigningKey::from_bytes(&seed), false))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SigningKey::generate(&mut rand::rngs::OsRng);
            write_key(path, &key).with_context(|| {
                format!(
                    "cannot write {}: make the state folder writable, or give another one with --state-dir",
                    path.display()
                )
            })?;
            Ok((key, true))
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot read {}: restore it, or remove it to enrol anew",
                path.display()
            )
        }),
    }
}

fn write_key(path: &Path, key: &SigningKey) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{}", hex::encode(key.to_bytes()))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_tells_of_a_bad_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Identity::open(folder.path(), "db1", None).expect("a new one");
        assert!(first.new_key && !first.previous_run_unclean && first.agent_id.starts_with("db1-"));
        assert!(Identity::open(folder.path(), "db1", None).is_err(), "in use");
        first.began().expect("written");
        let id = first.agent_id.clone();
        drop(first);
        let second = Identity::open(folder.path(), "db1", None).expect("the same");
        assert!(second.previous_run_unclean && second.agent_id == id && !second.new_key);
        second.ended();
        drop(second);
        assert!(
            !Identity::open(folder.path(), "db1", None)
                .expect("the same")
                .previous_run_unclean
        );
    }

    #[test]
    fn a_broken_key_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("agent.key"), "not hexadecimal").expect("written");
        assert!(Identity::open(folder.path(), "db1", None).is_err());
    }
}
