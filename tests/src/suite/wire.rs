//! Every statement, exactly as the server executed it: clients of many kinds against servers of several versions, and
//! what was recorded of them against the servers' own logs and the clients' own journals.
//!
//! Owns the plan: which parts run against which servers, what is kept of them so that a run that was interrupted can be
//! resumed, and the sums. The rules of the comparison are in `docs/truth.md`.

mod compare;
mod doubt;
pub(in crate::suite) mod drivers;
mod events;
mod figures;
mod journal;
mod params;
mod pgbench;
mod plan;
mod psql;
mod redaction;
mod regress;
mod run;
mod servers;
mod site;
mod state;
mod subscription;
mod text;
mod tools;
mod witness;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::Outcome;
use crate::cluster::Cluster;
use crate::route::Route;
use crate::screen::progress;
use crate::tap::Tier;
use figures::Figures;
use plan::Part;
use servers::Server;
use state::{PartResult, State};

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every version and every program, not only what the distribution brings.
    pub full: bool,
    /// Leave what agent and collector wrote in place.
    pub keep: bool,
    /// Only these parts; all if it is empty.
    pub parts: Vec<String>,
    /// The way that every program takes; each its own if there is none.
    pub transport: Option<Route>,
    /// The agent's way into the kernel.
    pub tier: Tier,
    /// Leave out what an earlier run has finished.
    pub resume: bool,
    /// Folder in which finished parts are kept.
    pub state: PathBuf,
    /// Folder with other versions' servers, one folder a major version.
    pub servers: Option<PathBuf>,
    /// Why there is none.
    pub servers_missing: Option<String>,
    /// PostgreSQL's regression tests, as unpacked.
    pub regress: Option<PathBuf>,
    /// Why they are not there.
    pub regress_missing: Option<String>,
    /// The repository.
    pub sources: PathBuf,
}

impl Plan {
    /// What is kept of one form of the suite is not mixed with what is kept of another: `full-tls-a`.
    fn label(&self) -> String {
        let mut label = (if self.full { "full" } else { "short" }).to_owned();
        if let Some(transport) = self.transport {
            label = format!("{label}-{}", transport.name());
        }
        if self.tier != Tier::Auto {
            label = format!("{label}-{}", self.tier.name());
        }
        label
    }
}

/// Runs the suite.
///
/// # Errors
/// When something cannot be started or read; differences are figures.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let began = Instant::now();
    let all = plan::parts(&plan.sources)?;
    for name in &plan.parts {
        let mut names: Vec<_> = all.iter().map(|part| part.name.as_str()).collect();
        names.push(REDACTION);
        anyhow::ensure!(
            names.contains(&name.as_str()),
            "there is no part {name}; there are: {}",
            names.join(" ")
        );
    }
    let state = State::open(&plan.state.join(plan.label()), plan.resume)?;
    let mut unavailable = Vec::new();
    let servers = servers::servers(plan, &mut unavailable)?;
    for server in &servers {
        let wanted = |part: &&Part| match plan.parts.as_slice() {
            [] => plan.full || part.is_short,
            names => names.contains(&part.name),
        };
        let parts: Vec<&Part> = all
            .iter()
            .filter(wanted)
            .filter(|part| !state.has(&server.label, &part.name))
            .collect();
        if parts.is_empty() {
            progress(&format!("PostgreSQL {}: every part is done", server.label));
            continue;
        }
        let unavailable_here = plan
            .transport
            .and_then(|transport| Cluster::unavailable(&server.binaries, transport));
        if let Some(reason) = unavailable_here {
            unavailable.push(json!({ "version": server.label, "reason": reason }));
            continue;
        }
        for result in run::run(plan, server, &parts).await? {
            state.put(&result)?;
        }
    }
    redacted(plan, &servers, &state).await?;
    summed(plan, state.all()?, unavailable, began)
}

/// The scripts of psql once more, with the default redaction, against the distribution's server.
async fn redacted(plan: &Plan, servers: &[Server], state: &State) -> Result<()> {
    // It is about texts, not about ways: once, where no way is asked for.
    let wanted = match plan.parts.as_slice() {
        [] => plan.transport.is_none(),
        names => names.iter().any(|name| name == REDACTION),
    };
    let (Some(server), true) = (servers.first(), wanted) else {
        return Ok(());
    };
    if state.has(&server.label, REDACTION) {
        return Ok(());
    }
    progress(&format!(
        "PostgreSQL {}: once with the default redaction",
        server.label
    ));
    let mut result = PartResult::new(&server.label, REDACTION);
    match redaction::run(plan, server).await {
        Ok(figures) => result.figures = figures,
        Err(error) => result.failed = Some(format!("{error:#}")),
    }
    result.report();
    state.put(&result)
}

fn summed(
    plan: &Plan,
    results: Vec<PartResult>,
    mut unavailable: Vec<Value>,
    began: Instant,
) -> Result<Outcome> {
    let mut total = Figures::default();
    let (mut versions, mut drivers, mut parts) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut failed = Vec::new();
    for result in &results {
        if let Some(reason) = &result.failed {
            failed.push(json!({ "part": result.part, "version": result.version, "reason": reason }));
        }
        match &result.unavailable {
            Some(reason) => {
                unavailable.push(json!({ "part": result.part, "version": result.version, "reason": reason }));
            }
            None => {
                versions.insert(result.version.clone());
                drivers.insert(result.part.clone());
            }
        }
        total.add(&result.figures);
        parts.push(json!({
            "part": result.part,
            "version": result.version,
            "statements": result.figures.statements,
            "differences": result.figures.differences(),
            "journal_statements": result.figures.journal_statements,
        }));
    }
    let needed = if plan.full && plan.parts.is_empty() {
        MIN_FULL
    } else {
        1
    };
    let passed = failed.is_empty() && total.clean() && total.statements >= needed;
    let mut figures = super::figures(serde_json::to_value(&total)?)?;
    figures.remove("examples");
    figures.extend(super::figures(json!({
        "transport": plan.transport,
        "tier": plan.tier.name(),
        "versions": versions,
        "drivers": drivers,
        "unavailable": unavailable,
        "failed": failed,
        "parts": parts,
        "seconds": began.elapsed().as_secs(),
    }))?);
    Ok(Outcome { figures, passed })
}

/// The part that compares two records with each other.
const REDACTION: &str = "redaction";
const MIN_FULL: u64 = 200_000;
