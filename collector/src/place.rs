//! Where agents deliver: a loopback address, or a Unix socket for agents in another network namespace.
//!
//! Owns the file of that socket: it is made with mode 0660, and goes with the collector. Refuses to remove anything but a
//! socket of its own user at which nobody listens.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

/// What a place on a Unix socket begins with.
const UNIX: &str = "unix:";

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// A place to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// `127.0.0.1:7433`
    Tcp(SocketAddr),
    /// `unix:/run/pgwitness/grpc.sock`
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("behind unix: there must be an absolute path".to_owned())
            };
        }
        let address = text.parse().map(Self::Tcp);
        address.map_err(|_| "it must be an address with a port, or unix: and an absolute path".to_owned())
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The file of a socket that is listened on; dropping it removes the file, if it is still that one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

/// Listens on a Unix socket. What an earlier collector left there is taken over.
///
/// # Errors
///
/// If somebody listens there, if something else is there, or if the place cannot be written.
pub fn listen(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let advice = || {
        format!(
            "cannot listen on {}: set another place in grpc.listen (--grpc)",
            path.display()
        )
    };
    remove_stale(path).with_context(advice)?;
    let listener = UnixListener::bind(path).with_context(advice)?;
    // Until here the mask leaves it to the owner alone: connecting takes the right to write.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).with_context(advice)?;
    let id = identity(path).with_context(advice)?;
    Ok((
        listener,
        SocketFile {
            path: path.to_owned(),
            id,
        },
    ))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        bail!("there is something that is no socket");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        bail!("the socket that is there belongs to user {}", metadata.uid());
    }
    match UnixStream::connect(path) {
        Err(problem) if problem.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(problem) => Err(problem).context("it is not known whether somebody listens there"),
        Ok(_) => bail!("somebody listens there"),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|id| id == self.id) {
            // Left behind it is taken over by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["127.0.0.1:7433", "[::1]:7433", "unix:/run/a b/grpc.sock"] {
            assert_eq!(text.parse::<Place>().expect(text).to_string(), text);
        }
        for wrong in ["unix:run/grpc.sock", "unix:", "/run/grpc.sock", "localhost:1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_a_socket_where_nobody_listens_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("grpc.sock");
        fs::write(&path, "somebody's").expect("written");
        assert!(listen(&path).is_err(), "a file");
        assert_eq!(fs::read_to_string(&path).expect("left alone"), "somebody's");
        fs::remove_file(&path).expect("removed");

        let (listener, file) = listen(&path).expect("listens");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let problem = listen(&path).expect_err("in use");
        assert!(
            format!("{problem:#}").contains("somebody listens there"),
            "{problem:#}"
        );
        // As after a crash: the file stays.
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        let (listener, file) = listen(&path).expect("taken over");
        // Whatever else has come to stand there is not ours.
        fs::rename(&path, folder.path().join("aside")).expect("moved");
        fs::write(&path, "somebody's").expect("written");
        drop((listener, file));
        assert!(path.exists(), "another's file");
    }
}
