//! The key of the fleet: agents that have the same one give a connection the same fingerprint, and nobody without it can tell
//! the sequence numbers of a connection from that, or make one.
//!
//! Owns what stands in events in place of a connection's first sequence numbers. Without a key those are told as they are. It is
//! changed with an overlap: while a file has more than one key no fingerprint is told, and connections between hosts are joined by
//! addresses and times alone, with agents of either key.

use std::{
    fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf, process::ExitCode, sync::OnceLock,
};

use anyhow::Context as _;
use clap::Subcommand;
use subjects::{Family, Key};

use crate::{config::IdentityConfig, sensitive, token_key};

/// Makes the key by which agents tell the same connection, and changes it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a new file with one key, readable by you alone
    New(token_key::Place),
    /// Begin a change: agents with both keys tell no fingerprints, and their connections are joined by addresses and times
    Add(token_key::Place),
    /// End a change: keep the newest key alone
    Retire {
        /// The key file
        file: PathBuf,
    },
}

const HEAD: &str = "# Key of the fleet, for identity.fleet_key of all agents whose hosts' connections are to be joined.
# To change it: `fleet-key add FILE`, give the file to all agents and start them again; `fleet-key retire FILE`, and once more.
";

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let id = match &args.what {
        What::New(place) => token_key::make(place, HEAD)?,
        What::Add(place) => token_key::add(place, SETTING)?,
        What::Retire { file } => retire(file)?,
    };
    println!("{id}");
    Ok(ExitCode::SUCCESS)
}

const SETTING: &str = "identity.fleet_key";

fn retire(file: &std::path::Path) -> anyhow::Result<String> {
    let id = sensitive::keys_of(SETTING, file)?.active().id().to_owned();
    let text = fs::read_to_string(file)?;
    let is_newest = |line: &&str| line.split_whitespace().next() == Some(id.as_str());
    let line = text
        .lines()
        .rfind(is_newest)
        .context("the newest key is not in the file")?;
    let beside = file.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut written = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&beside)?;
        writeln!(written, "{HEAD}{line}")?;
        written.sync_all()?;
        fs::rename(&beside, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))?;
    Ok(id)
}

/// What the key is made over, in front of the numbers: nothing else is.
const CONTEXT: &[u8] = b"pgwitness connection\n";

/// How connections are told.
#[derive(Clone, Debug)]
pub enum Fleet {
    /// By the kernel's numbers.
    Open,
    /// By what this key makes of them.
    Keyed(Box<Key>),
    /// Not at all: the key is being changed.
    Changing,
}

/// Of this process. Set once, before anything is told.
static FLEET: OnceLock<Fleet> = OnceLock::new();

impl Fleet {
    /// As the configuration says.
    ///
    /// # Errors
    ///
    /// If the file is not there, others can read it, or a line is no key.
    pub fn read(config: &IdentityConfig) -> anyhow::Result<Self> {
        let Some(path) = &config.fleet_key else {
            return Ok(Self::Open);
        };
        let keys = sensitive::keys_of(SETTING, path)?;
        Ok(match keys.iter().count() {
            1 => Self::Keyed(Box::new(keys.active().clone())),
            _ => Self::Changing,
        })
    }

    /// Is in effect from here on.
    pub fn announce(self) {
        match &self {
            Self::Open => {}
            Self::Keyed(key) => tracing::info!(key = key.id(), "connections are told by a key of the fleet"),
            Self::Changing => tracing::info!(
                "the key of the fleet is being changed: connections are told without a fingerprint until its file has one key again"
            ),
        }
        // Only a second agent in one process would find another one.
        let _ = FLEET.set(self);
    }

    fn tell(&self, numbers: u64) -> Option<u64> {
        match self {
            Self::Open => Some(numbers),
            Self::Keyed(key) => {
                let covered = [CONTEXT, &numbers.to_be_bytes()].concat();
                let token = key.token(Family::Bytea, &covered).0;
                token.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
            }
            Self::Changing => None,
        }
    }
}

/// What is told of a connection with these numbers.
pub fn fingerprint(numbers: Option<u64>) -> Option<u64> {
    FLEET.get_or_init(|| Fleet::Open).tell(numbers?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_three_steps() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fleet.key");
        let place = |id: &str| token_key::Place {
            file: file.clone(),
            id: Some(id.to_owned()),
        };
        let read = || {
            let config = IdentityConfig {
                run_variables: Vec::new(),
                fleet_key: Some(file.clone()),
            };
            Fleet::read(&config).expect("read")
        };
        token_key::make(&place("k1"), HEAD).expect("made");
        assert!(matches!(read(), Fleet::Keyed(key) if key.id() == "k1"));
        token_key::add(&place("k2"), SETTING).expect("added");
        assert!(matches!(read(), Fleet::Changing));
        assert_eq!(retire(&file).expect("retired"), "k2");
        assert!(matches!(read(), Fleet::Keyed(key) if key.id() == "k2"));
        assert_eq!(retire(&file).expect("nothing more to do"), "k2");
    }

    #[test]
    fn both_ends_tell_the_same_under_one_key_alone() {
        let key = |first: u8| {
            let bytes: Vec<u8> = (first..first + 32).collect();
            Key::new("k", &bytes.try_into().expect("32")).expect("random enough")
        };
        let keyed = |first| Fleet::Keyed(Box::new(key(first)));
        let told = keyed(1).tell(0x1234_5678_9abc_def0);
        assert_eq!(told, keyed(1).tell(0x1234_5678_9abc_def0));
        assert_ne!(told, keyed(2).tell(0x1234_5678_9abc_def0));
        assert_ne!(told, keyed(1).tell(0x1234_5678_9abc_def1));
        assert_ne!(told, Some(0x1234_5678_9abc_def0));
        assert_eq!(Fleet::Open.tell(7), Some(7));
        assert_eq!(Fleet::Changing.tell(7), None);
    }
}
