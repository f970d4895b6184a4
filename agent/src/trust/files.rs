//! What the agent knows its collector by, and is known by, on disk: its own, from enrolling, or an operator's.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use ::trust::{
    COLLECTOR_NAME, Identity, client, from_pem,
    rustls::{
        ClientConfig,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
    to_pem,
};
use anyhow::{Context as _, ensure};

use super::Place;
use crate::config::Config;

/// Permissions that a key may not have: to be changed by the group, or anything by others.
const TOO_OPEN: u32 = 0o027;

/// Where the certificates for one collector are.
#[derive(Clone, Debug)]
pub enum Files {
    /// In the state folder: made by enrolling and renewed by the agent.
    Enrolled {
        /// Of this collector alone.
        folder: PathBuf,
        /// The collector, for what is said.
        collector: String,
    },
    /// An operator's.
    Given {
        /// The authorities of the collector's certificate.
        authorities: PathBuf,
        /// The agent's certificate, and those behind it.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

impl Files {
    /// As the configuration says.
    pub fn of(config: &Config, place: &Place) -> Self {
        let tls = &config.delivery.tls;
        if let (Some(authorities), Some(certificate), Some(key)) =
            (&tls.authorities, &tls.certificate, &tls.key)
        {
            return Self::Given {
                authorities: authorities.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            };
        }
        Self::enrolled(&config.state_dir, place)
    }

    /// Of an enrolment.
    pub fn enrolled(state: &Path, place: &Place) -> Self {
        Self::Enrolled {
            folder: state.join("trust").join(format!("{}_{}", place.host, place.port)),
            collector: format!("https://{}:{}", place.host, place.port),
        }
    }

    /// What connections are made with.
    ///
    /// # Errors
    ///
    /// If this host is not enrolled, or a file cannot be used.
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        let (authorities, certificate, key) = match self {
            Self::Enrolled { folder, collector } => {
                let identity = folder.join("identity.pem");
                ensure!(
                    identity.exists(),
                    "this host is not enrolled with {collector}: on the collector's host run `pgwitness-collector agent add NAME`, \
                     and here, as the agent's user, the command that it prints"
                );
                (folder.join("authorities.pem"), identity.clone(), identity)
            }
            Self::Given {
                authorities,
                certificate,
                key,
            } => (authorities.clone(), certificate.clone(), key.clone()),
        };
        let private = private(&key)?;
        let key = PrivateKeyDer::from_pem_slice(private.as_bytes())
            .with_context(|| format!("{} holds no key", key.display()))?;
        let identity = Identity {
            certificates: certificates(&certificate)?,
            key,
        };
        Ok(client(&certificates(&authorities)?, Some(identity))?)
    }

    /// The name that the collector's certificate must be of.
    ///
    /// # Errors
    ///
    /// If it cannot be one.
    pub fn name(&self, place: &Place) -> anyhow::Result<ServerName<'static>> {
        let name = match self {
            Self::Enrolled { .. } => COLLECTOR_NAME.to_owned(),
            Self::Given { .. } => place.host.clone(),
        };
        Ok(ServerName::try_from(name)?)
    }

    /// Agents that the certificate names.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn agents(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.facts()?.agents)
    }

    /// What the agent's own certificate says.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn facts(&self) -> anyhow::Result<::trust::Facts> {
        let path = match self {
            Self::Enrolled { folder, .. } => folder.join("identity.pem"),
            Self::Given { certificate, .. } => certificate.clone(),
        };
        let certificates = certificates(&path)?;
        let own = certificates.first().context("there is no certificate")?;
        Ok(::trust::facts(own)?)
    }

    /// Keeps what a collector gave out; key and certificate in one file, so that they never belong to different ones.
    ///
    /// # Errors
    ///
    /// If it is no certificate, is for another key than this, or cannot be written.
    pub fn keep(&self, key: &str, certificate: Vec<u8>, authorities: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let Self::Enrolled { folder, .. } = self else {
            return Ok(());
        };
        let certificate = CertificateDer::from(certificate);
        let authorities: Vec<_> = authorities.into_iter().map(CertificateDer::from).collect();
        let identity = Identity {
            certificates: vec![certificate.clone()],
            key: PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        };
        // Whether they belong together, and can be used, before anything that works is replaced.
        client(&authorities, Some(identity)).context("the collector gave out what cannot be used")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        // The authorities first: a newer one is needed with the certificate that it issued.
        put(&folder.join("authorities.pem"), &to_pem(&authorities))?;
        put(
            &folder.join("identity.pem"),
            &format!("{key}{}", to_pem([&certificate])),
        )
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    from_pem(&text).with_context(|| path.display().to_string())
}

/// Reads a key that nobody else may read.
fn private(path: &Path) -> anyhow::Result<String> {
    let describe = || format!("cannot read the key {}", path.display());
    let mode = fs::metadata(path).with_context(describe)?.permissions().mode() & 0o7777;
    ensure!(
        mode & TOO_OPEN == 0,
        "the key {path} can be read by others, or changed by its group (mode {mode:04o}): `chmod 600 {path}`, and enrol again, or \
         take another key, if anybody may have read it",
        path = path.display()
    );
    fs::read_to_string(path).with_context(describe)
}

/// Writes a file for this user alone: it is there whole, or as it was before.
pub(super) fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
