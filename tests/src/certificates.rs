//! Certificates for one test: an authority, and what it signs; for a PostgreSQL cluster the server's, and one for its clients.
//!
//! Owns files that `openssl` made in the test's folder. It refuses to be an authority for anything else: the key is
//! gone with the folder. Separate from `cluster` and `kubernetes`, which only point at the files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Uid};

/// What signs a test's certificates: all of its files are in one folder.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes its key and its certificate, `ca.key` and `ca.crt`, in a folder that is there.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn make(folder: &Path, subject: &str) -> Result<Self> {
        openssl(
            folder,
            &[
                "req", "-x509", "-subj", subject, "-days", DAYS, "-keyout", "ca.key", "-out", "ca.crt",
            ],
        )?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Issues `<name>.crt` with its key, `<name>.key`, which only its owner can read, and returns both.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn issue(&self, name: &str, subject: &str, extension: &str) -> Result<(PathBuf, PathBuf)> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        openssl(
            &self.folder,
            &[
                "req",
                "-x509",
                "-subj",
                subject,
                "-addext",
                extension,
                "-addext",
                "basicConstraints=CA:FALSE",
                "-days",
                DAYS,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        )?;
        let (certificate, key) = (self.folder.join(certificate), self.folder.join(key));
        // libpq and the server refuse a key that others can read (manual, 19.9.1 and 34.19.1).
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        Ok((certificate, key))
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }
}

/// Files of one authority for a server and its clients.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`; the server's key belongs to the account that runs the server, the client's to the caller.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn make(folder: &Path, server: Option<(Uid, Gid)>) -> Result<Self> {
        let folder = folder.join("tls");
        fs::create_dir(&folder).context("a folder for certificates")?;
        // Only the cluster's own folder keeps others out.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let authority = Authority::make(&folder, "/CN=pgwitness truth authority")?;
        for (name, subject, extension) in [
            (
                "server",
                "/CN=localhost",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ),
            ("client", CLIENT_SUBJECT, "extendedKeyUsage=clientAuth"),
        ] {
            authority.issue(name, subject, extension)?;
        }
        let made = Self { folder };
        if let Some((uid, gid)) = server {
            nix::unistd::chown(&made.folder.join("server.key"), Some(uid), Some(gid))
                .context("giving the server its key")?;
        }
        Ok(made)
    }

    /// What signs the others.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The server's certificate, for `localhost` and 127.0.0.1, and its key.
    #[must_use]
    pub fn server(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("server.crt"), self.folder.join("server.key"))
    }

    /// The client's certificate and key.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("client.crt"), self.folder.join("client.key"))
    }

    /// Lines for `postgresql.conf`.
    #[must_use]
    pub fn configuration(&self) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        format!(
            "ssl = on\nssl_ca_file = '{}'\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
            file("ca.crt"),
            file("server.crt"),
            file("server.key")
        )
    }
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl")
        .args(arguments)
        .args([
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .current_dir(folder)
        .output()
        .context("running openssl (package openssl)")?;
    ensure!(
        output.status.success(),
        "openssl failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Who every client of a suite is, as `pg_stat_ssl.client_dn` shows it.
pub const CLIENT_DN: &str = "/CN=truth-client";
const CLIENT_SUBJECT: &str = CLIENT_DN;
const DAYS: &str = "2";
