//! The process that looks at catalogs: it holds connections to servers, and nothing else.
//!
//! Started by the broker, it gives up every capability, reads the passwords, confines itself as the process that parses does,
//! and then does one thing at a time: it is asked, asks a server, and tells what that said. One connection for each database,
//! kept open. It never reads a captured byte.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    os::{fd::AsFd as _, unix::process::parent_id},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    CatalogConfig,
    protocol::{Ask, SAID_BYTES, START_BYTES, Said, Start},
    questions,
};
use crate::{
    broker::{Channel, channel::Received},
    confine::{self, Reach},
};

/// The hidden command.
pub const CATALOG: &str = "catalog";

/// How long the broker may take to say what is looked at.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one look may take; the server ends each question after half of it.
const LOOK: Duration = Duration::from_secs(60);

/// What it takes to notice that a server has gone.
const NOTICE: Duration = Duration::from_millis(2);

/// Bytes of a password's file.
const PASSWORD_BYTES: u64 = 4096;

/// Runs the command.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub fn run() -> anyhow::Result<ExitCode> {
    let mut channel = Channel::new(std::io::stdin().as_fd().try_clone_to_owned()?, START_BYTES);
    let start = receive(&mut channel)?;
    SigSet::all().thread_unblock()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if parent_id() != start.broker {
        bail!("the broker has ended");
    }
    // For those who look at a list of processes.
    let _ = prctl::set_name(c"pgwitness-names");
    let bounding = confine::capabilities()?;
    let servers = start.catalogs.iter().map(server).collect::<Vec<_>>();
    let reach = Reach {
        ports: start.catalogs.iter().filter_map(CatalogConfig::port).collect(),
        unix: true,
        ..Reach::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    confine::parser(&reach, bounding)?;
    let mut looks = Looks {
        catalogs: start.catalogs,
        servers,
        open: HashMap::new(),
    };
    while let Some(ask) = next(&mut channel)? {
        let said = runtime.block_on(looks.answer(&ask));
        for part in said {
            tell(&channel, &part)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn receive(channel: &mut Channel) -> anyhow::Result<Start> {
    const NOT_BY_HAND: &str = "this command is for `pgwitness-agent run`, which starts it";
    let until = Instant::now() + PATIENCE;
    loop {
        match channel.receive::<Start>().context(NOT_BY_HAND)? {
            Received::Message(start, _) => return Ok(start),
            Received::End => bail!("the broker has ended"),
            Received::Nothing if Instant::now() > until => bail!(NOT_BY_HAND),
            Received::Nothing => {
                let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
                poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], patience)?;
            }
        }
    }
}

/// The next question; `None`: nobody asks any more.
fn next(channel: &mut Channel) -> anyhow::Result<Option<Ask>> {
    loop {
        match channel.receive::<Ask>()? {
            Received::Message(ask, _) => return Ok(Some(ask)),
            Received::End => return Ok(None),
            Received::Nothing => {
                poll(
                    &mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::NONE,
                )?;
            }
        }
    }
}

fn tell(channel: &Channel, said: &Said) -> anyhow::Result<()> {
    while let Err(problem) = channel.send(said, SAID_BYTES, &[]) {
        if problem.kind() != std::io::ErrorKind::WouldBlock {
            return Err(problem).context("cannot tell what a catalog says");
        }
        poll(
            &mut [PollFd::new(channel.as_fd(), PollFlags::POLLOUT)],
            PollTimeout::NONE,
        )?;
    }
    Ok(())
}

/// How a server is reached, or why it cannot be.
fn server(catalog: &CatalogConfig) -> Result<Config, String> {
    let mut config = catalog.server()?;
    if let Some(path) = &catalog.password_file {
        let mut password = String::new();
        let read = File::open(path).and_then(|file| file.take(PASSWORD_BYTES).read_to_string(&mut password));
        read.map_err(|error| format!("cannot read the password in {}: {error}", path.display()))?;
        config.password(password.trim_end_matches(['\r', '\n']));
    }
    config.connect_timeout(PATIENCE);
    config.options(format!(
        "-c statement_timeout={} -c lock_timeout=1s -c default_transaction_read_only=on -c jit=off",
        LOOK.as_millis() / 2
    ));
    Ok(config)
}

struct Looks {
    catalogs: Vec<CatalogConfig>,
    servers: Vec<Result<Config, String>>,
    open: HashMap<(usize, usize), Connected>,
}

/// A connection, and what was told over it last.
struct Connected {
    client: Client,
    application: String,
    told: Vec<u8>,
}

impl Looks {
    async fn answer(&mut self, ask: &Ask) -> Vec<Said> {
        let looked = match timeout(LOOK, self.look(ask)).await {
            Ok(looked) => looked,
            Err(_) => Err(anyhow::anyhow!("it took longer than {} s", LOOK.as_secs())),
        };
        looked.unwrap_or_else(|problem| {
            // What is left of a transaction, and of a server that has ended.
            self.open.remove(&(ask.entry, ask.database));
            let mut problem = format!("{problem:#}");
            problem.truncate(problem.floor_char_boundary(PROBLEM));
            vec![Said::Failed(problem)]
        })
    }

    async fn look(&mut self, ask: &Ask) -> anyhow::Result<Vec<Said>> {
        let key = (ask.entry, ask.database);
        // Connections are looked after only while somebody asks: whether one has ended is seen now.
        tokio::time::sleep(NOTICE).await;
        if self
            .open
            .get(&key)
            .is_none_or(|connected| connected.client.is_closed())
        {
            let connected = self.connect(ask).await?;
            self.open.insert(key, connected);
        }
        let connected = self.open.get_mut(&key).context("it is not connected")?;
        let (began, parts) = questions::look(&connected.client, &connected.application).await?;
        let mut digest = Sha256::new();
        let Said::Began { standby, path, .. } = &began else {
            bail!("it did not begin");
        };
        digest.update(serde_json::to_vec(&(standby, path))?);
        for part in &parts {
            digest.update(serde_json::to_vec(part)?);
        }
        let digest = digest.finalize().to_vec();
        let same = !ask.whole && connected.told == digest;
        connected.told = digest;
        let mut said = vec![began];
        if !same {
            said.extend(parts);
        }
        said.push(Said::Ended { same });
        Ok(said)
    }

    async fn connect(&self, ask: &Ask) -> anyhow::Result<Connected> {
        let database = self
            .catalogs
            .get(ask.entry)
            .and_then(|catalog| catalog.databases.get(ask.database));
        let (Some(Ok(config)), Some(database)) = (self.servers.get(ask.entry), database) else {
            let why = self
                .servers
                .get(ask.entry)
                .and_then(|server| server.as_ref().err());
            bail!("{}", why.map_or("there is no such entry", String::as_str));
        };
        // No secret: it tells connections of this process apart.
        let application = format!("pgwitness catalog {:016x}", rand::thread_rng().r#gen::<u64>());
        let mut config = config.clone();
        config.dbname(database).application_name(&application);
        let (client, connection) = config.connect(NoTls).await.context("cannot connect")?;
        ensure!(!client.is_closed(), "the connection ended at once");
        // Ends with the client; what it says then, the next question says too.
        tokio::spawn(connection);
        Ok(Connected {
            client,
            application,
            told: Vec::new(),
        })
    }
}

/// Characters of what is wrong.
const PROBLEM: usize = 500;
