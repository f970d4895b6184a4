//! Users in `<data>/access/users`: a small file each, named by the digest of the token, so that a look at one reads one file and nothing
//! has to be kept in step with a running collector.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ::trust::Digest;
use anyhow::ensure;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Role, token::UserToken};
use crate::trust::{make_folder, read, read_all, remove, unix_s, write};

/// Somebody with a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) role: Role,
    /// Seconds since the Unix epoch.
    pub(super) added_unix_s: u64,
    /// Seconds since the Unix epoch; without it, the token does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_unix_s: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Users {
    data: PathBuf,
}

impl User {
    /// Whether the token opens anything now.
    pub(super) fn is_good(&self) -> bool {
        self.expires_unix_s.is_none_or(|expires| unix_s() < expires)
    }
}

impl Users {
    pub(super) fn in_data(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
        }
    }

    /// Whether there is one, expired or not.
    pub(super) fn any(&self) -> anyhow::Result<bool> {
        let mut files = match fs::read_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            files => files?,
        };
        let is_user = |file: &fs::DirEntry| file.path().extension().is_some_and(|of| of == "json");
        Ok(files.any(|file| file.is_ok_and(|file| is_user(&file))))
    }

    /// Whose token has this digest.
    pub(super) fn with(&self, digest: &Digest) -> anyhow::Result<Option<User>> {
        read(&self.file(digest))
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> anyhow::Result<Vec<User>> {
        let all = read_all::<User>(&self.folder())?.into_iter();
        let mut all: Vec<_> = all.map(|(_, user)| user).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Keeps a user with the digest of a token.
    pub(super) fn add(&self, user: &User, token: &UserToken) -> anyhow::Result<()> {
        for folder in [self.data.join(ACCESS), self.folder()] {
            make_folder(&folder, Some(&self.data))?;
        }
        let _lock = self.lock()?;
        let name = &user.name;
        ensure!(
            self.all()?.iter().all(|known| known.name != *name),
            "there is a user {name:?} already: remove it first (pgwitness-collector user remove {name})"
        );
        write(&self.file(&token.digest()), user)
    }

    /// Removes a user; whether others are left.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<bool> {
        let all = read_all::<User>(&self.folder())?.into_iter();
        let (removed, left): (Vec<_>, Vec<_>) = all.partition(|(_, user)| user.name == name);
        ensure!(
            !removed.is_empty(),
            "there is no user {name:?}: `pgwitness-collector user list` names them"
        );
        for (path, _) in removed {
            remove(&path)?;
        }
        Ok(!left.is_empty())
    }

    fn folder(&self) -> PathBuf {
        self.data.join(ACCESS).join("users")
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.folder().join(format!("{}.json", hex::encode(digest)))
    }

    /// One at a time is added, so that no name is given twice.
    fn lock(&self) -> anyhow::Result<Flock<fs::File>> {
        let folder = fs::File::open(self.folder())?;
        Ok(Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, error)| error)?)
    }
}

/// In the data folder.
const ACCESS: &str = "access";
