//! A server with a log, an agent, and programs that say numbered statements: what most parts are played with.
//!
//! Owns what is said and the judgement at the end. What goes wrong in between is the part's own.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Found;
use crate::cluster::{APP_ROLE, Cluster, Witness, server_binaries};
use crate::ledger::{self, Expected, Ledger, Record};
use crate::process::Process;
use crate::program::Program;
use crate::route::Route;
use crate::screen::progress;
use crate::suite::{complete_log, settle};
use crate::tap::{Settings, Tap};

/// A psql that waits for what it is to say.
pub(super) type Open = (Process, ChildStdin);

/// A server, an agent, and a program for each way.
pub(super) struct Scene {
    pub(super) programs: Vec<Program>,
    pub(super) cluster: Cluster,
    pub(super) tap: Tap,
    said: u64,
    sure: BTreeSet<u64>,
}

impl Scene {
    pub(super) async fn open(settings: Settings, routes: &[Route]) -> Result<Self> {
        let mut cluster = Cluster::init_for(server_binaries()?, Witness::Statements, routes)?;
        cluster.start().await?;
        cluster.prepare().await?;
        let tap = Tap::start(&cluster.data(), settings).await?;
        let programs = routes
            .iter()
            .map(|route| Program::new(&slice(), &format!("loss-{}", route.name()), &cluster, *route));
        Ok(Self::of(programs.collect::<Result<_>>()?, cluster, tap))
    }

    pub(super) fn of(programs: Vec<Program>, cluster: Cluster, tap: Tap) -> Self {
        Self {
            programs,
            cluster,
            tap,
            said: 0,
            sure: BTreeSet::new(),
        }
    }

    /// Each program says so many statements of such a size, and gets as much back, in a session of its own.
    pub(super) async fn say(&mut self, count: u64, size: usize) -> Result<()> {
        for program in &self.programs {
            let script: String = (0..count)
                .map(|_| {
                    self.said += 1;
                    let filling = "z".repeat(size);
                    format!("SELECT {}, '{filling}' {};\n", FIRST + self.said, program.tag())
                })
                .collect();
            let run = program.start(program.psql_script(&script)?)?;
            program.finish(run, PATIENCE).await?;
        }
        Ok(())
    }

    /// Lets [`CLIENT`] in.
    pub(super) async fn let_in_client(&self) -> Result<()> {
        let admin = self.cluster.superuser("postgres").await?;
        admin
            .batch_execute(&format!("CREATE ROLE {CLIENT} LOGIN"))
            .await?;
        Ok(())
    }

    /// So many open sessions of each program.
    pub(super) fn sessions(&self, count: usize) -> Result<Vec<Open>> {
        let mut sessions = Vec::new();
        for _ in 0..count {
            for program in &self.programs {
                let mut process = program.start(program.psql_open())?;
                let stdin = process.stdin().context("psql's standard input")?;
                sessions.push((process, stdin));
            }
        }
        Ok(sessions)
    }

    /// Each open session says one.
    pub(super) async fn utter(&mut self, sessions: &mut [Open]) -> Result<()> {
        use std::io::Write as _;
        for ((_, stdin), program) in sessions.iter_mut().zip(self.programs.iter().cycle()) {
            self.said += 1;
            writeln!(stdin, "SELECT {} {};", FIRST + self.said, program.tag())?;
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// A number for what the part says by itself.
    pub(super) fn number(&mut self) -> u64 {
        self.said += 1;
        FIRST + self.said
    }

    /// How much was said until here, for [`Scene::is_sure`].
    pub(super) fn mark(&self) -> u64 {
        self.said
    }

    /// What was said since that mark has to be recorded: that it is told missing does not do.
    pub(super) fn is_sure(&mut self, mark: u64) {
        self.sure.extend((mark + 1..=self.said).map(|said| FIRST + said));
    }

    pub(super) async fn end(sessions: Vec<Open>) -> Result<()> {
        for (mut process, stdin) in sessions {
            drop(stdin);
            process.wait(PATIENCE).await?;
        }
        Ok(())
    }

    pub(super) async fn close(self, wanted: Vec<&'static str>, keep: bool) -> Result<Found> {
        Ok(self.close_with_record(wanted, keep).await?.0)
    }

    /// Ends everything, and holds the record against the server's log.
    pub(super) async fn close_with_record(
        mut self,
        wanted: Vec<&'static str>,
        keep: bool,
    ) -> Result<(Found, Record)> {
        let logged = complete_log(&self.cluster.csvlog()).await?;
        settle(&self.tap).await?;
        self.tap.stop().await?;
        let record = ledger::read(&self.tap)?;
        let units: BTreeMap<_, _> = self
            .programs
            .iter()
            .map(|program| (program.name().to_owned(), program.unit().to_owned()))
            .collect();
        let mut ledger = Ledger::default();
        for role in [APP_ROLE, CLIENT] {
            let expected = Expected {
                role,
                units: &units,
                from_ns: 0,
                counted: &BTreeSet::new(),
            };
            ledger.add_with_examples(ledger::judge(&logged, &record, expected));
        }
        let mut reasons = record.other_gaps.clone();
        for kind in ["agent_pause", "agent_resume", "opaque_session"] {
            if let Some(count) = record.kinds.get(kind) {
                reasons.insert(kind.to_owned(), *count);
            }
        }
        let wrong = self.unsure(&record);
        if keep {
            std::fs::copy(self.cluster.csvlog(), self.tap.folder().join("server.csv"))?;
            progress(&format!("  kept: {}", self.tap.keep().display()));
        }
        let found = Found {
            ledger,
            reasons,
            wanted,
            wrong,
            counters: record.counters.clone(),
            ..Found::default()
        };
        Ok((found, record))
    }

    /// What had to be recorded and is not.
    fn unsure(&self, record: &Record) -> Vec<String> {
        let recorded: BTreeSet<u64> = record
            .sessions
            .values()
            .flat_map(|seen| &seen.requests)
            .filter_map(|request| request.number)
            .collect();
        let lacking: Vec<_> = self.sure.difference(&recorded).collect();
        if lacking.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "{} statements that nothing kept from being recorded are not: {:?}",
            lacking.len(),
            lacking.iter().take(5).collect::<Vec<_>>()
        )]
    }
}

pub(super) fn slice() -> String {
    format!("pgwitness-loss-{}", std::process::id())
}

/// Needs no password (see the cluster's access rules).
pub(super) const CLIENT: &str = "w_protocol";
const FIRST: u64 = 300_000_000_000;
pub(super) const AWAKE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(400);
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
