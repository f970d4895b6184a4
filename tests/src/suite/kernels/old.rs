//! Sessions that are older than the agent, on the kernel that runs: what the tap knows of a socket that it did not see
//! begin comes from the kernel's own structures, which differ from one to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::ChildStdin;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{PATIENCE, ROUTES};
use crate::cluster::{APP_ROLE, Cluster};
use crate::ledger::{self, Expected, Ledger};
use crate::process::Process;
use crate::program::Program;
use crate::suite::{complete_log, settle};
use crate::tap::{Settings, Tap, Tier};

/// A psql a route speaks before and behind the agent's start; the ledger of the latter.
pub(super) async fn run(slice: &str, cluster: &Cluster, tier: Tier) -> Result<Ledger> {
    let mut sessions = ROUTES
        .iter()
        .map(|&route| {
            Session::open(Program::new(
                slice,
                &format!("old-{}", route.name()),
                cluster,
                route,
            )?)
        })
        .collect::<Result<Vec<_>>>()?;
    for (index, session) in sessions.iter_mut().enumerate() {
        session.say(index)?;
    }
    // The agent takes longer to start than psql to log in, but nothing says so.
    await_statements(cluster, sessions.len()).await?;
    let mut tap = Tap::start(&cluster.data(), Settings::clear(tier)).await?;
    let from_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let mut units = BTreeMap::new();
    for (index, mut session) in sessions.into_iter().enumerate() {
        for word in 1..=WORDS {
            session.say(word * 10 + index)?;
        }
        units.insert(
            session.program.name().to_owned(),
            session.program.unit().to_owned(),
        );
        session.close().await?;
    }
    let logged = complete_log(&cluster.csvlog()).await?;
    settle(&tap).await?;
    tap.stop().await?;
    let expected = Expected {
        role: APP_ROLE,
        units: &units,
        from_ns,
        counted: &BTreeSet::new(),
    };
    Ok(ledger::judge(&logged, &ledger::read(&tap)?, expected))
}

struct Session {
    program: Program,
    process: Process,
    stdin: ChildStdin,
}

impl Session {
    fn open(program: Program) -> Result<Self> {
        let mut process = program.start(program.psql_open())?;
        let stdin = process.stdin().context("psql's standard input")?;
        Ok(Self {
            program,
            process,
            stdin,
        })
    }

    /// One statement with a number of its own.
    fn say(&mut self, number: usize) -> Result<()> {
        writeln!(self.stdin, "SELECT {} {};", FIRST + number, self.program.tag()).context("telling psql")
    }

    async fn close(self) -> Result<()> {
        drop(self.stdin);
        self.program.finish(self.process, PATIENCE).await.map(drop)
    }
}

/// Until the server has logged what the old sessions said first.
async fn await_statements(cluster: &Cluster, count: usize) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let log = std::fs::read_to_string(cluster.csvlog())?;
        if log.matches("program=old-").count() >= count {
            return Ok(());
        }
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "the old sessions said nothing"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Statements a session, behind the agent's start.
const WORDS: usize = 5;
/// The ledger tells statements apart by twelve digits.
const FIRST: usize = 100_000_000_000;
