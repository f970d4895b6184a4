//! SHA-256 of executables, read once for each file, in a thread of its own, and waited for only as long as small ones take.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

/// A file that is certainly the same as long as these are: what a change of its bytes changes, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of contents, and of the inode.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Executables waiting to be read: a host runs some hundreds of different ones. What finds no room is asked for again.
const WAITING: usize = 256;

/// What a file of a few MiB takes, once: so that the first session of a program that lives for milliseconds has it.
const PATIENCE: Duration = Duration::from_millis(10);

/// Digests kept.
const KEPT: usize = 4096;

/// Bytes read of an executable at the most: the largest that are in use are some hundreds of MiB.
const LENGTH_MAX: u64 = 1 << 30;

/// The digests, and the thread that makes them.
pub(super) struct Digests {
    known: HashMap<Identity, Option<[u8; 32]>>,
    wanted: SyncSender<(Identity, File)>,
    made: Receiver<(Identity, Option<[u8; 32]>)>,
}

impl Digests {
    /// Starts the thread. It ends with the value.
    pub(super) fn start() -> io::Result<Self> {
        let (wanted, wants) = mpsc::sync_channel::<(Identity, File)>(WAITING);
        let (make, made) = mpsc::channel();
        thread::Builder::new().name("digests".to_owned()).spawn(move || {
            for (identity, file) in wants {
                let digest = digest(file, &identity);
                if make.send((identity, digest)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            known: HashMap::new(),
            wanted,
            made,
        })
    }

    /// The digest of what a process runs; `None` as long as it is not read, or if it cannot be.
    pub(super) fn of(&mut self, pid: u32) -> Option<[u8; 32]> {
        while let Ok((made, digest)) = self.made.try_recv() {
            self.keep(made, digest);
        }
        // The link leads to the very file, wherever its path leads by now.
        let file = File::open(format!("/proc/{pid}/exe")).ok()?;
        let identity = identity(&file).ok()?;
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        // What finds no room is asked for again.
        self.wanted.try_send((identity, file)).ok()?;
        let until = Instant::now() + PATIENCE;
        while let Ok((made, digest)) = self
            .made
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.keep(made, digest);
            if made == identity {
                return digest;
            }
        }
        None
    }

    fn keep(&mut self, identity: Identity, digest: Option<[u8; 32]>) {
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        self.known.insert(identity, digest);
    }
}

fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// `None` if it cannot be read, is too long, or changed meanwhile.
fn digest(file: File, identity_before: &Identity) -> Option<[u8; 32]> {
    if identity_before.size > LENGTH_MAX {
        return None;
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut reader = &file;
    loop {
        match reader.read(&mut buffer).ok()? {
            0 => break,
            length => hasher.update(buffer.get(..length)?),
        }
    }
    (identity(&file).ok()? == *identity_before).then(|| hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_runs_is_read_once_and_by_its_file() {
        let mut digests = Digests::start().expect("a thread");
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("sleeper");
        std::fs::copy("/bin/sleep", &program).expect("a copy");
        let expected: [u8; 32] = Sha256::digest(std::fs::read(&program).expect("the program")).into();
        let mut child = Command::new(&program)
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");
        // Replaced on disk: what runs is still the old one.
        std::fs::remove_file(&program).expect("removed");
        std::fs::write(&program, "something else").expect("another file");
        let deadline = Instant::now() + Duration::from_secs(20);
        let found = loop {
            if let Some(found) = digests.of(child.id()) {
                break found;
            }
            assert!(Instant::now() < deadline, "it is never read");
            thread::sleep(Duration::from_millis(5));
        };
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(found, expected);
        assert_eq!(digests.known.len(), 1);
        assert_eq!(digests.of(child.id()), None, "gone");
    }
}
