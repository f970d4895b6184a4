//! The collector's own authorities on disk, and what TLS is set to by them, or by an operator's certificates.
//!
//! Several authorities are trusted while one follows the other: the newest issues, all are believed, and the collector has a
//! certificate of each, of which it shows the one that the agent knows.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use ::trust::{
    Authority, Identity, Presented, facts, from_pem, readers,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server, to_pem,
};
use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::{registry::Registry, registry::put, unix_s};
use crate::config::{ReadersTls, TrustConfig};

/// What the collector shows itself by is good for so long, and made anew in half the time, and at each start: it is nowhere on disk.
const SHOWN_S: u64 = 30 * 86_400;

/// The collector's own authorities, the newest last; never empty.
pub(crate) struct Own(Vec<Authority>);

/// Where TLS is set from.
pub(crate) enum Authorities {
    /// The collector's own.
    Own(Registry),
    /// An operator's.
    Given(TrustConfig),
    /// An operator's, for those who ask: they show none themselves.
    Readers(ReadersTls),
}

/// What connections are accepted with, now.
pub(crate) struct Tls {
    authorities: Authorities,
    now: RwLock<Now>,
}

/// What is in effect.
#[derive(Clone)]
struct Now {
    config: Arc<ServerConfig>,
    hosts: Arc<[String]>,
}

impl Own {
    /// Reads them, or makes the first for a log of this name.
    pub(crate) fn open(registry: &Registry, log: &str) -> anyhow::Result<Self> {
        registry.create()?;
        let _lock = lock(registry)?;
        if numbered(&registry.authorities())?.is_empty() {
            add(registry, log)?;
        }
        Self::read(registry)
    }

    fn read(registry: &Registry) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for (_, path) in numbered(&registry.authorities())? {
            let describe = || format!("the authority {} cannot be used", path.display());
            let certificate = fs::read_to_string(&path).with_context(describe)?;
            let key = private("key", &path.with_extension("key"))?;
            all.push(Authority::load(&certificate, &key).with_context(describe)?);
        }
        ensure!(
            !all.is_empty(),
            "the collector has no authority yet: start it, or add an agent"
        );
        Ok(Self(all))
    }

    /// Makes another one, which issues from now on; the former ones stay trusted.
    pub(crate) fn rotate(registry: &Registry, log: &str) -> anyhow::Result<()> {
        let _lock = lock(registry)?;
        add(registry, log)
    }

    /// Ends the trust in all but the newest; how many those were.
    pub(crate) fn drop_former(registry: &Registry) -> anyhow::Result<usize> {
        let _lock = lock(registry)?;
        let mut all = numbered(&registry.authorities())?;
        all.pop();
        for (_, path) in &all {
            fs::remove_file(path)?;
            fs::remove_file(path.with_extension("key"))?;
        }
        Ok(all.len())
    }

    /// The one that issues.
    pub(crate) fn newest(&self) -> anyhow::Result<&Authority> {
        self.0.last().context("there is no authority")
    }

    /// The certificates of all.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0
            .iter()
            .map(|authority| authority.certificate().clone())
            .collect()
    }
}

impl Tls {
    pub(crate) fn new(authorities: Authorities) -> anyhow::Result<Self> {
        let now = RwLock::new(authorities.read()?);
        Ok(Self { authorities, now })
    }

    /// Reads everything again; what is in effect stays if it cannot be used.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        let now = self.authorities.read()?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.now().config
    }

    /// The hosts that the certificate for those who ask names.
    pub(crate) fn hosts(&self) -> Arc<[String]> {
        self.now().hosts
    }

    fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Authorities {
    fn read(&self) -> anyhow::Result<Now> {
        let (presented, trusted) = match self {
            Self::Readers(files) => {
                let identity = identity(
                    ["http.tls.certificate", "http.tls.key"],
                    &files.certificate,
                    &files.key,
                )?;
                let hosts = identity
                    .certificates
                    .first()
                    .map(|leaf| facts(leaf))
                    .transpose()?;
                return Ok(Now {
                    config: Arc::new(readers(identity)?),
                    hosts: hosts.map(|facts| facts.hosts).unwrap_or_default().into(),
                });
            }
            Self::Own(registry) => {
                let own = Own::read(registry)?;
                // The newest first: whoever does not say whom it trusts gets that.
                let presented = own.0.iter().rev().map(|authority| {
                    Ok(Presented {
                        identity: authority.collector(unix_s(), SHOWN_S)?,
                        authority: Some(authority.certificate().clone()),
                    })
                });
                (presented.collect::<anyhow::Result<_>>()?, own.certificates())
            }
            Self::Given(files) => {
                let (Some(certificate), Some(key), Some(authorities)) =
                    (&files.certificate, &files.key, &files.authorities)
                else {
                    bail!("trust.certificate, trust.key and trust.authorities go together");
                };
                let identity = identity(["trust.certificate", "trust.key"], certificate, key)?;
                let presented = Presented {
                    identity,
                    authority: None,
                };
                (vec![presented], certificates("trust.authorities", authorities)?)
            }
        };
        Ok(Now {
            config: Arc::new(server(presented, &trusted)?),
            hosts: Arc::default(),
        })
    }
}

/// An operator's certificate and key; `names` are the settings that say where they are.
fn identity(names: [&str; 2], certificate: &Path, key: &Path) -> anyhow::Result<Identity> {
    let [of_certificate, of_key] = names;
    let read = PrivateKeyDer::from_pem_slice(private("key", key)?.as_bytes());
    Ok(Identity {
        certificates: certificates(of_certificate, certificate)?,
        key: read.with_context(|| format!("{of_key}: {} holds no key", key.display()))?,
    })
}

/// The certificates in a folder, by number.
pub(crate) fn numbered(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "pem"))
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// One at a time makes or removes authorities.
fn lock(registry: &Registry) -> anyhow::Result<Flock<fs::File>> {
    let folder = fs::File::open(registry.authorities())?;
    Flock::lock(folder, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("the folder of authorities cannot be locked")
}

fn add(registry: &Registry, log: &str) -> anyhow::Result<()> {
    let folder = registry.authorities();
    let number = numbered(&folder)?.last().map_or(1, |(number, _)| number + 1);
    let authority = Authority::create(log, unix_s())?;
    let path = folder.join(format!("{number:04}.pem"));
    // The certificate last: with it the authority is there.
    put(&path.with_extension("key"), authority.key_pem().as_bytes())?;
    put(&path, to_pem([authority.certificate()]).as_bytes())
}

/// Certificates of a PEM file; `name` is the setting, or the flag, that says where it is.
pub(crate) fn certificates(name: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = fs::read_to_string(path).with_context(|| format!("{name}: cannot read {}", path.display()))?;
    from_pem(&text).with_context(|| format!("{name}: {}", path.display()))
}

/// Reads a file that nobody else may read. `what` it is: "key", "token".
pub(crate) fn private(what: &str, path: &Path) -> anyhow::Result<String> {
    let describe = || format!("cannot read the {what} {}", path.display());
    let metadata = fs::metadata(path).with_context(describe)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let shown = path.display();
    ensure!(
        mode & 0o027 == 0,
        "the {what} {shown} can be read by others, or changed by its group (mode {mode:04o}): `chmod 600 {shown}`, and take another one \
         if anybody may have read it"
    );
    let (owner, own) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    ensure!(
        owner == own || owner == 0 || own == 0,
        "the {what} {shown} belongs to user {owner}, who could change it: it must be this user's ({own}) or root's"
    );
    fs::read_to_string(path).with_context(describe)
}
