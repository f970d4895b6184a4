//! `pgwitness-agent token-key`: makes the key by which values become tokens, and adds another one to go on with.
//!
//! Separate from reading it, because whoever makes the key need not be an agent.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use rand::{RngCore as _, rngs::OsRng};

use crate::sensitive;

/// Makes or adds a key.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a new file with one key, readable by you alone
    New(Place),
    /// Add a key to a file: it makes the tokens from the agents' next start on, the older ones go on finding
    Add(Place),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The key file
    pub(crate) file: PathBuf,
    /// Name of the key, as it stands in events: letters, digits, `.`, `_`, `-` [default: random]
    #[arg(long)]
    pub(crate) id: Option<String>,
}

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let id = match &args.what {
        What::New(place) => make(place, HEAD)?,
        What::Add(place) => add(place, "subjects.token_key")?,
    };
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}

/// Makes a file with one key, behind this head; the key's id.
pub(crate) fn make(Place { file, id }: &Place, head: &str) -> anyhow::Result<String> {
    let (id, line) = line(id.as_deref())?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let written = written.with_context(|| {
        format!(
            "cannot make {}: a file that is there is never written over; `add` adds a key to it",
            file.display()
        )
    })?;
    write(written, file, &format!("{head}{line}"))?;
    Ok(id)
}

/// Adds a key to the file of a setting; its id.
pub(crate) fn add(Place { file, id }: &Place, setting: &str) -> anyhow::Result<String> {
    // With what is wrong with it, before anything is added.
    let keys = sensitive::keys_of(setting, file)?;
    let (id, line) = line(id.as_deref())?;
    if keys.iter().any(|key| key.id() == id) {
        bail!("{} has a key {id:?} already: give another --id", file.display());
    }
    // A file whose last line was not ended would make one line of two keys.
    let text = std::fs::read_to_string(file)?;
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let opened = OpenOptions::new().append(true).open(file);
    let opened = opened.with_context(|| format!("cannot write to {}", file.display()))?;
    write(opened, file, &format!("{end}{line}"))?;
    Ok(id)
}

/// A new key as a line of the file, and its id.
fn line(id: Option<&str>) -> anyhow::Result<(String, String)> {
    let mut random = [0; 36];
    OsRng.fill_bytes(&mut random);
    let (name, key) = random.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
    let id = id.map_or_else(|| format!("k-{}", hex::encode(name)), str::to_owned);
    let line = format!("{id} {}\n", hex::encode(key));
    subjects::Keys::parse(&line).with_context(|| format!("{id:?} cannot be the name of a key"))?;
    Ok((id, line))
}

fn write(mut file: File, path: &Path, text: &str) -> anyhow::Result<()> {
    let describe = || format!("cannot write to {}", path.display());
    file.write_all(text.as_bytes()).with_context(describe)?;
    file.sync_all().with_context(describe)
}

const HEAD: &str = "# Keys of tokens: whoever reads this file can look for every value that he can guess.
# The last key makes tokens; those before it find what they made. `pgwitness-agent token-key add FILE` adds one.
";

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn keys_are_made_once_and_added() {
        let folder = std::env::temp_dir().join(format!("token-key-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("key");
        let place = |id: Option<&str>| Place {
            file: file.clone(),
            id: id.map(str::to_owned),
        };
        let first = make(&place(None), HEAD).expect("a new file");
        let mode = fs::metadata(&file).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(make(&place(None), HEAD).is_err(), "written over");
        assert_eq!(add(&place(Some("2026-12")), "t").expect("another key"), "2026-12");
        assert!(add(&place(Some("2026-12")), "t").is_err(), "the same id twice");
        assert!(add(&place(Some("no id")), "t").is_err());
        let keys = sensitive::keys(&file).expect("keys");
        assert_eq!(keys.active().id(), "2026-12");
        assert_eq!(keys.iter().next().map(subjects::Key::id), Some(first.as_str()));
        fs::remove_dir_all(folder).expect("it was there");
    }
}
