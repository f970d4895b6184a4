//! The servers of a run: the distribution's, and those of other versions.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Plan;
use crate::cluster::server_binaries;

/// One server's programs.
pub(super) struct Server {
    /// `15 Debian`, `18`.
    pub(super) label: String,
    pub(super) binaries: PathBuf,
}

/// The distribution's server, and in the full form the others.
///
/// # Errors
/// When the distribution has none.
pub(super) fn servers(plan: &Plan, unavailable: &mut Vec<Value>) -> Result<Vec<Server>> {
    let own = server_binaries()?;
    let mut servers = vec![Server {
        label: format!("{} packaged", major(&own)?),
        binaries: own,
    }];
    if !plan.full {
        return Ok(servers);
    }
    for version in VERSIONS {
        let folder = plan
            .servers
            .as_deref()
            .and_then(|folder| unpacked(folder, version));
        match folder {
            Some(folder) => servers.push(Server {
                label: version.to_string(),
                binaries: folder.join("bin"),
            }),
            None => unavailable.push(json!({
                "version": version.to_string(),
                "reason": plan.servers_missing.clone().unwrap_or_else(|| "its server is not there".to_owned()),
            })),
        }
    }
    Ok(servers)
}

/// A package's server programs: its folder is named by the full version.
fn unpacked(folder: &Path, version: u32) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let packages = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with(&format!("{version}.")))
    });
    let folders = packages.map(|entry| entry.path().join("native"));
    folders
        .filter(|folder| folder.join("bin/postgres").is_file())
        .max()
}

fn major(binaries: &Path) -> Result<u32> {
    let output = Command::new(binaries.join("postgres"))
        .arg("--version")
        .output()
        .context("asking the server for its version")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.split_whitespace().nth(2).context("a version")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().context("a version")
}

/// A server's programs where the server's account can read them: a cache in somebody's home usually cannot be.
pub(super) struct Programs {
    pub(super) binaries: PathBuf,
    /// Removed when the server is gone.
    _copy: Option<TempDir>,
}

impl Programs {
    pub(super) fn readable(server: &Server) -> Result<Self> {
        let folder = server.binaries.parent().context("the server's folder")?;
        if server.label.ends_with("packaged") {
            return Ok(Self {
                binaries: server.binaries.clone(),
                _copy: None,
            });
        }
        let copy = TempDir::with_prefix("pgwitness-server-")?;
        let status = Command::new("cp")
            .arg("-a")
            .arg(folder.join("."))
            .arg(copy.path())
            .status()?;
        ensure!(status.success(), "copying {} failed", folder.display());
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            binaries: copy.path().join("bin"),
            _copy: Some(copy),
        })
    }
}

/// Major versions that are supported or ended a short while ago.
const VERSIONS: [u32; 6] = [13, 14, 15, 16, 17, 18];
