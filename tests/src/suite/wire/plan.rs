//! The parts: which program runs against which server, and in which form of the suite.

use std::path::Path;

use anyhow::Result;

use super::drivers::Driver;
use super::pgbench::{self, Mode};
use super::site::{Ran, Site};
use super::{drivers, psql, regress, subscription, tools};

/// One program.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    /// Whether the short form has it.
    pub(super) is_short: bool,
    program: Program,
}

#[derive(Clone, Debug)]
enum Program {
    Psql,
    PsqlEdges,
    PsqlReplication,
    Pgbench(Mode),
    TokioPostgres,
    Protocol,
    Driver(Driver),
    Dump,
    Basebackup,
    Recvlogical,
    Receivewal,
    Subscription,
    Regress,
}

impl Part {
    fn new(name: &str, is_short: bool, program: Program) -> Self {
        Self {
            name: name.to_owned(),
            is_short,
            program,
        }
    }

    /// Runs it. Differences are found later: an error is one of the machinery, or a program that failed.
    ///
    /// # Errors
    /// When a program that has to succeed does not.
    pub(super) async fn run(&self, site: &Site<'_>) -> Result<Ran> {
        match &self.program {
            Program::Psql => psql::script(site).await,
            Program::PsqlEdges => psql::edges(site).await,
            Program::PsqlReplication => psql::replication(site).await,
            Program::Pgbench(mode) => pgbench::run(site, *mode).await,
            Program::TokioPostgres => drivers::tokio_postgres(site).await,
            Program::Protocol => drivers::protocol(site).await,
            Program::Driver(driver) => drivers::run(site, driver).await,
            Program::Dump => tools::dump(site).await,
            Program::Basebackup => tools::basebackup(site).await,
            Program::Recvlogical => tools::logical(site).await,
            Program::Receivewal => tools::physical(site).await,
            Program::Subscription => subscription::run(site).await,
            Program::Regress => regress::run(site).await,
        }
    }
}

/// All of them, in the order in which they run against one server.
///
/// # Errors
/// When the list of driver programs cannot be read.
pub(super) fn parts(sources: &Path) -> Result<Vec<Part>> {
    let mut parts = vec![
        Part::new("psql", true, Program::Psql),
        Part::new("psql-edges", true, Program::PsqlEdges),
        Part::new("psql-replication", true, Program::PsqlReplication),
        Part::new("pgbench-simple", true, Program::Pgbench(Mode::Simple)),
        Part::new("pgbench-extended", true, Program::Pgbench(Mode::Extended)),
        Part::new("pgbench-prepared", true, Program::Pgbench(Mode::Prepared)),
        Part::new("pgbench-pipeline", true, Program::Pgbench(Mode::Pipeline)),
        Part::new("pgbench-retries", false, Program::Pgbench(Mode::Retries)),
        Part::new("tokio-postgres", true, Program::TokioPostgres),
        Part::new("protocol", true, Program::Protocol),
        Part::new("pg-dump", true, Program::Dump),
        Part::new("pg-basebackup", false, Program::Basebackup),
        Part::new("pg-recvlogical", true, Program::Recvlogical),
        Part::new("pg-receivewal", false, Program::Receivewal),
        Part::new("subscription", false, Program::Subscription),
        Part::new("pg-regress", false, Program::Regress),
    ];
    for driver in drivers::list(sources)? {
        let name = format!("driver-{}", driver.name);
        parts.push(Part::new(&name, driver.short, Program::Driver(driver)));
    }
    Ok(parts)
}
