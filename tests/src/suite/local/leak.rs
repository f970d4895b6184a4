//! Whether a secret is anywhere in what agent and collector wrote.
//!
//! Owns the search: through every byte of every file as it lies there, and through every recorded event as the
//! collector tells it, because files may be compressed.

use std::path::Path;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::record::query_folder;
use crate::screen::progress;
use crate::tap::Tap;

/// A literal that occurs in no other text.
pub(super) fn marker() -> String {
    format!(
        "literal-marker-{:08x}",
        std::process::id().wrapping_mul(2_654_435_761)
    )
}

/// Places that hold the shared role's password.
pub(super) fn of_password(tap: &Tap, cluster: &Cluster) -> Result<u64> {
    of(tap, cluster.password())
}

/// Places that hold `secret`: files, and recorded events.
pub(super) fn of(tap: &Tap, secret: &str) -> Result<u64> {
    let mut places = in_files(tap.folder(), secret.as_bytes())?;
    let events = query_folder(
        tap.collector_binary(),
        &tap.collector_data(),
        "SELECT * FROM events ORDER BY agent, seq",
    )?;
    anyhow::ensure!(
        !events.is_empty(),
        "nothing was recorded, so nothing can be said about leaks"
    );
    for event in events.iter().filter(|event| event.to_string().contains(secret)) {
        let kind = event.get("kind").map(ToString::to_string).unwrap_or_default();
        let text = event
            .get("statement")
            .map(ToString::to_string)
            .unwrap_or_default();
        places.push(format!("an event of kind {kind}: {text}"));
    }
    for place in places.iter().take(10) {
        progress(&format!("LEAK in {place}"));
    }
    Ok(places.len() as u64)
}

fn in_files(folder: &Path, secret: &[u8]) -> Result<Vec<String>> {
    let mut places = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            places.extend(in_files(&path, secret)?);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            if bytes.windows(secret.len()).any(|window| window == secret) {
                places.push(path.display().to_string());
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_secret_in_a_deep_file() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), b"\0\0secret\0").unwrap();
        std::fs::write(folder.path().join("c"), b"secre").unwrap();
        assert_eq!(in_files(folder.path(), b"secret").unwrap().len(), 1);
    }
}
