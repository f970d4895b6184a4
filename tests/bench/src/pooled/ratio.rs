//! pgbench through PgBouncer in transaction mode, tapped and untapped in turns, and what each party takes for a statement.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use pgwitness_tests::{cluster::APP_ROLE, route::Route, screen::progress};
use rand::seq::SliceRandom as _;
use serde_json::{Map, Value, json};

use crate::{
    figures::{median, rounded},
    overhead::{
        Access, Account, Clients, Parties, Pool, Pooler, Programs, Server, Watch, Workload, kernel, losses,
    },
};

/// One value a round.
#[derive(Default)]
pub(super) struct Ratio {
    /// Throughput while tapped, against the mean of both measurements without.
    pub(super) tapped: Vec<f64>,
    /// The one without against the other, which must be one.
    pub(super) again: Vec<f64>,
    /// Transactions a second without.
    pub(super) untapped: Vec<f64>,
    /// What the agent lost, by reason.
    pub(super) lost: BTreeMap<String, u64>,
    /// Microseconds of processor time a statement, by party: without, and while tapped.
    parties: BTreeMap<&'static str, [Vec<f64>; 2]>,
    /// The agent's, by thread.
    threads: BTreeMap<String, Vec<f64>>,
    /// The collector's, over all its turns.
    collector: f64,
    /// The programs in the kernel, in a run of their own; they are a part of the server's, the pooler's and the clients' time.
    programs: kernel::ByProgram,
    /// Statements of that run.
    counted: u64,
}

impl Ratio {
    /// What a statement takes, in microseconds of processor time, by part.
    pub(super) fn parts(&self) -> Value {
        let micros = |values: &[f64]| rounded(median(values), 2);
        let mut parts = Map::new();
        for (party, [without, tapped]) in &self.parties {
            parts.insert((*party).to_owned(), json!([micros(without), micros(tapped)]));
        }
        let threads = self.threads.iter();
        let threads: Map<_, _> = threads.map(|(name, used)| (name.clone(), micros(used))).collect();
        parts.insert("agent_threads".to_owned(), Value::Object(threads));
        parts.insert("collector".to_owned(), rounded(self.collector, 2));
        let programs = kernel::micros_each(&self.programs, self.counted);
        parts.insert("kernel_programs".to_owned(), rounded(programs, 2));
        Value::Object(parts)
    }

    /// What the programs in the kernel take, one by one.
    pub(super) fn programs(&self) -> Value {
        kernel::by_program(&self.programs, self.counted)
    }
}

/// The outer error is the machine's, the inner one says why there is nothing to measure.
pub(super) async fn measure(
    programs: &Programs,
    rounds: usize,
    seconds: u64,
) -> Result<Result<Ratio, &'static str>> {
    let Some(program) = Pooler::program() else {
        return Ok(Err("PgBouncer is not installed"));
    };
    let accounts = Parties::new(false);
    let server = Server::start(accounts.watched("server")?, false).await?;
    // Four clients over two connections: there is always one that waits.
    let pool = Pool {
        mode: "transaction",
        size: 2,
    };
    let pooler = Pooler::start(&program, accounts.watched("pooler")?, &server, pool).await?;
    let clients = Clients::new(accounts.watched("clients")?)?;
    let access = Access {
        port: pooler.port,
        role: APP_ROLE,
        route: Route::Tcp,
    };
    let parties = [
        ("server", &server.account),
        ("pooler", &pooler.account),
        ("clients", &clients.account),
    ];
    let load = async || clients.run(Workload::Simple, seconds, &server, access).await;
    load().await?;
    let mut watch = Watch::begin(&accounts, programs).await?;
    let mut ratio = Ratio::default();
    let (begun, mut statements) = (watch.collector_account.used()?, 0);
    for round in 0..rounds {
        let mut arms = [None, None, Some(())];
        arms.shuffle(&mut rand::thread_rng());
        let (mut without, mut with) = (Vec::new(), 0.0);
        for arm in arms {
            let attached = match arm {
                None => {
                    watch.halt()?;
                    None
                }
                Some(()) => Some(watch.attach(&server.cluster().data(), None).await?),
            };
            let before = (used(parties)?, watch.agent_account.threads()?);
            let told = load().await?;
            let each = |used: Duration| used.as_secs_f64() * 1e6 / told.statements.max(1) as f64;
            for ((party, _), (now, before)) in parties.iter().zip(used(parties)?.iter().zip(before.0)) {
                let [without, tapped] = ratio.parties.entry(party).or_default();
                let values = if attached.is_some() { tapped } else { without };
                values.push(each(now.saturating_sub(before)));
            }
            let Some(attached) = attached else {
                without.push(told.per_second);
                continue;
            };
            (with, statements) = (told.per_second, statements + told.statements);
            for (reason, count) in losses(&attached.drained().await?) {
                *ratio.lost.entry(reason).or_default() += count;
            }
            for (name, now) in watch.agent_account.threads()? {
                let earlier = before.1.get(&name).copied().unwrap_or_default();
                let values = ratio.threads.entry(name).or_default();
                values.push(each(now.saturating_sub(earlier)));
            }
            attached.end().await?;
        }
        let [one, other] = without.as_slice() else {
            continue;
        };
        let mean = f64::midpoint(*one, *other);
        ratio.tapped.push(with / mean);
        ratio.again.push(one / other);
        ratio.untapped.push(mean);
        progress(&format!(
            "round {} of {rounds}: {with:.0} of {mean:.0} a second",
            round + 1
        ));
    }
    let attached = watch.attach(&server.cluster().data(), None).await?;
    let processes = watch.agent_account.processes()?;
    let counting = kernel::Counting::begin()?;
    let before = kernel::programs_of(&processes)?;
    ratio.counted = load().await?.statements;
    ratio.programs = kernel::between(&before, &kernel::programs_of(&processes)?);
    drop(counting);
    attached.drained().await?;
    attached.end().await?;
    // What the collector still does with the events is a part of its cost.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let collector = watch.collector_account.used()?.saturating_sub(begun);
    ratio.collector = collector.as_secs_f64() * 1e6 / (statements + ratio.counted) as f64;
    watch.end().await?;
    server.stop().await?;
    Ok(Ok(ratio))
}

/// What each party has used until now.
fn used<const N: usize>(parties: [(&str, &Account); N]) -> Result<Vec<Duration>> {
    parties.iter().map(|(_, account)| account.used()).collect()
}
