//! One server's run: the parts one after the other under one tap, then the comparison.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::Result;
use tokio_postgres::Client;

use super::compare::{self, Doubts};
use super::events::{self, Record};
use super::figures::Figures;
use super::journal::{self, Entry};
use super::plan::Part;
use super::servers::{Programs, Server};
use super::site::{Ran, Site, role_of};
use super::state::PartResult;
use super::{Plan, doubt, witness};
use crate::cluster::{Cluster, Witness, server_binaries};
use crate::csvlog;
use crate::route::Route;
use crate::screen::progress;
use crate::suite::settle;
use crate::tap::{Settings, Tap};

/// The journals of a run, by role.
type Journals = BTreeMap<String, Vec<Entry>>;

/// Runs parts against one tapped server and compares.
///
/// # Errors
/// When server, agent or collector fail, or what they wrote cannot be read. A part that fails is a result.
pub(super) async fn run(plan: &Plan, server: &Server, parts: &[&Part]) -> Result<Vec<PartResult>> {
    progress(&format!("PostgreSQL {}: {} parts", server.label, parts.len()));
    let programs = Programs::readable(server)?;
    let routes: Vec<_> = plan.transport.into_iter().collect();
    let mut cluster = Cluster::init_for(programs.binaries.clone(), Witness::Statements, &routes)?;
    let mut tap = Tap::start(&cluster.data(), Settings::clear(plan.tier)).await?;
    cluster.start().await?;
    let (mut results, mut journals) = (Vec::new(), Journals::new());
    for part in parts {
        results.push(run_part(plan, server, &cluster, part, &mut journals).await?);
    }
    settle(&tap).await?;
    cluster.stop().await?;
    settle(&tap).await?;
    tap.stop().await?;

    let logged = witness::sessions(csvlog::lines(&fs::read(cluster.csvlog())?)?);
    if let Some(route) = plan.transport.filter(|route| route.is_encrypted()) {
        for result in &mut results {
            came_by(route, &logged, result);
        }
    }
    let record = events::read(tap.collector_binary(), &tap.collector_data())?;
    let (mut by_role, mut doubts) = compare::compare(&logged, &record.sessions);
    for (role, entries) in &journals {
        let sessions = record.sessions.iter().filter(|session| session.role == *role);
        let figures = by_role.entry(role.clone()).or_default();
        journal::compare(entries, &sessions.collect::<Vec<_>>(), figures, &mut doubts);
    }
    cluster.start().await?;
    resolve(&cluster, doubts, &mut by_role).await?;
    cluster.stop().await?;
    assign(&mut results, by_role, &record);
    if plan.keep {
        fs::copy(cluster.csvlog(), tap.folder().join("server.csv"))?;
        progress(&format!("kept: {}", tap.keep().display()));
    }
    Ok(results)
}

async fn run_part(
    plan: &Plan,
    server: &Server,
    cluster: &Cluster,
    part: &Part,
    journals: &mut Journals,
) -> Result<PartResult> {
    let began = Instant::now();
    let site = Site::prepare(plan, cluster, &part.name, &server_binaries()?).await?;
    let mut result = PartResult::new(&server.label, &part.name);
    let how = match part.run(&site).await {
        Ok(Ran::Done) => String::new(),
        Ok(Ran::Unavailable(reason)) => {
            result.unavailable = Some(reason.clone());
            format!(", cannot run here: {reason}")
        }
        Err(error) => {
            result.failed = Some(format!("{error:#}"));
            format!(", FAILED: {error:#}")
        }
    };
    journals.insert(site.role.clone(), journal::parse(&site.journal_text()?)?);
    let seconds = began.elapsed().as_secs_f64();
    progress(&format!("  {}: {seconds:.1} s{how}", part.name));
    Ok(result)
}

/// A program that was asked to encrypt and does not would prove nothing. The suite itself comes by the Unix socket.
fn came_by(route: Route, logged: &[witness::Session], result: &mut PartResult) {
    let role = role_of(&result.part);
    let theirs = logged.iter().filter(|session| session.role == role);
    let others: Vec<_> = theirs
        .filter_map(|session| session.route)
        .filter(|way| *way != route)
        .collect();
    let others = others.iter().filter(|way| **way != Route::Unix).count();
    if others > 0 && result.failed.is_none() {
        result.failed = Some(format!(
            "{others} of its sessions did not come by {}",
            route.name()
        ));
    }
}

/// Gives each part the figures of its role.
fn assign(results: &mut [PartResult], mut by_role: BTreeMap<String, Figures>, record: &Record) {
    for gap in &record.gaps {
        by_role.entry(gap.role.clone()).or_default().gap(gap);
    }
    for result in results.iter_mut() {
        if let Some(figures) = by_role.remove(&role_of(&result.part)) {
            result.figures = figures;
        }
        let is_vacuous = result.unavailable.is_none() && result.figures.statements == 0;
        if is_vacuous && result.failed.is_none() {
            result.failed = Some("the server's log has nothing of it".to_owned());
        }
    }
    // The suite's own sessions, and whoever else came: with the first part.
    if let Some(first) = results.first_mut() {
        for (role, figures) in by_role {
            for example in &figures.examples {
                first.figures.note(|| format!("{role:?}: {example}"));
            }
            first.figures.add(&figures);
        }
    }
    for result in results {
        result.report();
    }
}

/// Asks the server about parameter texts that differ.
async fn resolve(cluster: &Cluster, doubts: Doubts, by_role: &mut BTreeMap<String, Figures>) -> Result<()> {
    let mut asked: Option<(String, Client)> = None;
    for ((role, doubt), times) in doubts {
        let client = match asked.take().filter(|(database, _)| *database == role) {
            Some((_, client)) => client,
            // A part's database has its role's name.
            None => cluster.superuser(&role).await?,
        };
        let figures = by_role.entry(role.clone()).or_default();
        if doubt::same_value(&client, &doubt).await? {
            *figures
                .rules
                .entry("same_value_by_server".to_owned())
                .or_default() += times;
        } else {
            figures.wrong_params += times;
            figures.note(|| format!("params: {times} times {doubt:?}"));
        }
        asked = Some((role, client));
    }
    Ok(())
}
