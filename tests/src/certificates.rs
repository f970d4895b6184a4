//! Certificates for one cluster: an authority, the server's, and one for its clients.
//!
//! Owns files that `openssl` made in the cluster's folder. It refuses to be an authority for anything else: the key is
//! gone with the folder. Separate from `cluster`, which only points at the files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Uid};

/// Files of one authority.
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
        let made = Self { folder };
        openssl(
            &made.folder,
            &[
                "req",
                "-x509",
                "-subj",
                "/CN=pgwitness truth authority",
                "-days",
                DAYS,
                "-keyout",
                "ca.key",
                "-out",
                "ca.crt",
            ],
        )?;
        for (name, subject, extension) in [
            (
                "server",
                "/CN=localhost",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ),
            ("client", CLIENT_SUBJECT, "extendedKeyUsage=clientAuth"),
        ] {
            let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
            openssl(
                &made.folder,
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
            // libpq and the server refuse a key that others can read (manual, 19.9.1 and 34.19.1).
            fs::set_permissions(made.folder.join(&key), fs::Permissions::from_mode(0o600))?;
        }
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
