//! Which columns are sensitive, and the key of their tokens: two files, read when the agent starts.
//!
//! Refuses a key that others can read: whoever has it can look for every value that he can guess.

use std::{fs::File, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use subjects::{Classification, Keys};
use tap_core::Sensitive;
use tracing::{info, warn};

use crate::config::SubjectsConfig;

/// Files of either kind that are read at the most: 10,000 columns, or as many keys.
const FILE_BYTES: u64 = 4 << 20;

/// Permissions that a key may not have: to be changed by the group, or anything by others.
const TOO_OPEN: u32 = 0o027;

/// Reads both files; `None` if nothing is classified.
///
/// # Errors
///
/// One line that says which file, what is wrong in it, and what to do.
pub fn read(config: &SubjectsConfig) -> anyhow::Result<Option<Arc<Sensitive>>> {
    let (classification, key) = match (&config.classification, &config.token_key) {
        (None, None) => return Ok(None),
        (Some(classification), Some(key)) => (classification, key),
        (Some(_), None) => bail!(
            "subjects.classification is set and subjects.token_key is not: make a key with `pgwitness-agent token-key new \
             FILE`, and name the file there"
        ),
        (None, Some(_)) => bail!(
            "subjects.token_key is set and subjects.classification is not: name the file that says which columns are sensitive"
        ),
    };
    let text = text("subjects.classification", classification)?;
    let classification = Classification::parse(&text)
        .with_context(|| format!("subjects.classification: {}", classification.display()))?;
    let key = keys(key)?.active().clone();
    Ok(Some(Arc::new(Sensitive { classification, key })))
}

/// Reads a key file.
///
/// # Errors
///
/// If it is not there, others can read it, or a line is no key.
pub fn keys(path: &Path) -> anyhow::Result<Keys> {
    keys_of("subjects.token_key", path)
}

/// The same of the key file that another setting names.
///
/// # Errors
///
/// As [`keys`].
pub fn keys_of(setting: &str, path: &Path) -> anyhow::Result<Keys> {
    let text = text(setting, path)?;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & TOO_OPEN != 0 {
        bail!(
            "{setting}: {path} can be read by others, or changed by its group (mode {mode:04o}): `chmod 600 {path}`, \
             and take another key if anybody may have read it",
            path = path.display()
        );
    }
    Keys::parse(&text).with_context(|| format!("{setting}: {}", path.display()))
}

/// Says at the start what is in effect.
pub fn announce(sensitive: &Sensitive) {
    let columns = sensitive.classification.all_subjects().count();
    info!(
        columns,
        key = sensitive.key.id(),
        "values of identifying columns are recorded as tokens"
    );
    if columns == 0 {
        warn!(
            "the classification names no column with `subject = true`: whose records statements touch is not told"
        );
    }
}

fn text(name: &str, path: &Path) -> anyhow::Result<String> {
    let describe = || format!("{name}: cannot read {}", path.display());
    let file = File::open(path).with_context(describe)?;
    if !file.metadata().with_context(describe)?.is_file() {
        bail!("{name}: {} is no file", path.display());
    }
    let mut text = String::new();
    file.take(FILE_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(describe)?;
    if text.len() as u64 > FILE_BYTES {
        bail!("{name}: {} is longer than 4 MiB", path.display());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::OpenOptionsExt as _};

    use super::*;

    fn file(folder: &Path, name: &str, mode: u32, text: &str) -> std::path::PathBuf {
        let path = folder.join(name);
        fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&path)
            .expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        fs::write(&path, text).expect("its text");
        path
    }

    #[test]
    fn both_files_are_needed_and_the_key_is_nobody_elses() {
        let folder = std::env::temp_dir().join(format!("sensitive-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let columns = file(
            &folder,
            "columns.toml",
            0o644,
            "[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\n",
        );
        let digits: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
        let line = format!("k1 {digits}\n");
        let key = file(&folder, "key", 0o600, &line);
        let read = |classification: Option<&Path>, key: Option<&Path>| {
            read(&SubjectsConfig {
                classification: classification.map(Path::to_path_buf),
                token_key: key.map(Path::to_path_buf),
            })
        };
        assert!(read(None, None).expect("nothing").is_none());
        let both = read(Some(&columns), Some(&key))
            .expect("both")
            .expect("something");
        assert_eq!(both.key.id(), "k1");
        let wrong = |classification: Option<&Path>, key: Option<&Path>, words: &str| {
            let problem = format!("{:#}", read(classification, key).expect_err(words));
            assert!(problem.contains(words) && !problem.contains(&digits), "{problem}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        };
        wrong(Some(&columns), None, "token-key new");
        wrong(None, Some(&key), "subjects.classification");
        wrong(Some(&folder.join("none")), Some(&key), "cannot read");
        wrong(Some(&folder), Some(&key), "is no file");
        wrong(Some(&key), Some(&key), "line 1");
        wrong(Some(&columns), Some(&columns), "mode 0644");
        for mode in [0o604, 0o620, 0o601] {
            let open = file(&folder, "open", mode, &line);
            wrong(Some(&columns), Some(&open), "chmod 600");
        }
        let short = file(&folder, "short", 0o600, "k1 00\n");
        wrong(Some(&columns), Some(&short), "line 1");
        fs::remove_dir_all(folder).expect("it was there");
    }
}
