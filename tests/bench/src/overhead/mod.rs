//! What the tap costs a database: throughput, latency and processor time, against no audit, pgAudit and the server's
//! own log.
//!
//! All ways to audit ("arms") are measured once in every round, in random order, so that whatever the machine does to
//! them hits all; a figure is the median over the rounds of the ratio within a round. No audit is measured twice in a
//! round: the mean of both is what the others are held against, and the ratio of the two (`aa_ratio`), which must be
//! one, says how much to believe of the rest. Clients, server, agent and collector share the machine's cores.

mod account;
pub(crate) mod kernel;
mod load;
mod pooler;
mod report;
mod server;
mod watch;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use pgwitness_tests::{cluster::APP_ROLE, route::Route, screen::progress};
use rand::seq::SliceRandom as _;
use serde_json::{Map, json};

use crate::figures::machine;
pub(crate) use account::{Account, Parties};
use kernel::{Kernel, between};
use load::Told;
pub(crate) use load::{Clients, Workload};
pub(crate) use pooler::{Pool, Pooler};
use report::Results;
use server::LOGGED_ROLE;
pub(crate) use server::{Access, Server};
pub(crate) use watch::{Attached, Programs, Watch, losses};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How they were built; stands in the output
    #[arg(long, default_value = "not said")]
    build: String,
    /// Only this workload (can be given several times)
    #[arg(long, value_enum)]
    workload: Vec<Workload>,
    /// How often each arm is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of one measurement
    #[arg(long)]
    seconds: Option<u64>,
    /// Give agent and collector a processor of their own, instead of sharing all with server and clients
    #[arg(long)]
    pinned: bool,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

/// With two seconds a measurement, all workloads take about a quarter of an hour.
const ROUNDS: usize = 7;
const SECONDS: u64 = 2;

/// A connection for each client.
const SESSIONS: Pool = Pool {
    mode: "session",
    size: 150,
};

/// A way to audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arm {
    None,
    NoneAgain,
    Pgwitness,
    Pgaudit,
    LogStatement,
    Pgbouncer,
}

const ARMS: [Arm; 6] = [
    Arm::None,
    Arm::NoneAgain,
    Arm::Pgwitness,
    Arm::Pgaudit,
    Arm::LogStatement,
    Arm::Pgbouncer,
];

/// One measurement.
#[derive(Debug)]
struct Measured {
    told: Told,
    /// Processor time a statement, in microseconds.
    server_us: f64,
    clients_us: f64,
    agent: Option<Agent>,
}

/// What the agent used and said in one measurement.
#[derive(Debug)]
struct Agent {
    cpu_us: f64,
    threads_us: Vec<(String, f64)>,
    resident_mib: Option<f64>,
    lost: std::collections::BTreeMap<String, u64>,
}

/// Everything that lives through a run.
struct Bench {
    plain: Server,
    audited: Server,
    clients: Clients,
    pooler: Option<Pooler>,
    seconds: u64,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let (rounds, seconds) = if args.quick { (1, 1) } else { (ROUNDS, SECONDS) };
    let rounds = args.rounds.unwrap_or(rounds).max(1);
    let parties = Parties::new(args.pinned);
    progress(&machine());
    progress("two servers with the same data, one of them with pgAudit");
    let plain = Server::start(parties.watched("server")?, false).await?;
    let pooler = match Pooler::program() {
        Some(program) => Some(Pooler::start(&program, parties.watched("pooler")?, &plain, SESSIONS).await?),
        None => None,
    };
    let bench = Bench {
        plain,
        pooler,
        audited: Server::start(parties.watched("server-pgaudit")?, true).await?,
        clients: Clients::new(parties.watched("clients")?)?,
        seconds: args.seconds.unwrap_or(seconds).max(1),
    };
    let workloads = match args.workload.as_slice() {
        [] => Workload::value_variants(),
        some => some,
    };
    let (mut figures, mut complete) = (Map::new(), true);
    for workload in workloads {
        let results = bench
            .measure(*workload, rounds, &parties, &args.programs)
            .await
            .with_context(|| workload.name())?;
        let figure = results.figures();
        complete &= results.complete();
        progress(&format!("{}: {figure}", workload.name()));
        figures.insert(workload.name(), figure);
    }
    if !args.json {
        report::print(&figures);
    }
    figures.insert("machine".to_owned(), json!(machine()));
    figures.insert("server".to_owned(), json!(bench.plain.cluster().version()));
    figures.insert("build".to_owned(), json!(args.build));
    figures.insert("seconds".to_owned(), json!(bench.seconds));
    figures.insert("pinned".to_owned(), json!(args.pinned));
    figures.insert("quick".to_owned(), json!(args.quick));
    let unavailable: &[&str] = match bench.pooler {
        Some(_) => &["tls_prepared: pgbouncer, which would end the encryption"],
        None => &["pgbouncer: it is not installed"],
    };
    figures.insert("unavailable".to_owned(), json!(unavailable));
    bench.plain.stop().await?;
    bench.audited.stop().await?;
    if args.json {
        println!("{}", serde_json::Value::Object(figures));
    }
    ensure!(
        complete,
        "something was lost: see `lost_by_reason`, and `recorded` against `statements`"
    );
    Ok(())
}

impl Bench {
    async fn measure(
        &self,
        workload: Workload,
        rounds: usize,
        parties: &Parties,
        programs: &Programs,
    ) -> Result<Results> {
        let name = workload.name();
        progress(&format!("{name}: warming up"));
        for arm in [Arm::None, Arm::Pgaudit] {
            self.load(workload, arm).await?;
        }
        let mut watch = Watch::begin(parties, programs).await?;
        let begun = watch.collector_account.used()?;
        let mut results = Results::default();
        for round in 0..rounds {
            let mut arms = self.arms(workload);
            arms.shuffle(&mut rand::thread_rng());
            let mut measured = Vec::new();
            for arm in arms {
                if arm != Arm::Pgwitness {
                    watch.halt()?;
                }
                measured.push((arm, self.arm(workload, arm, &mut watch).await?));
            }
            results.rounds.push(measured.into_iter().collect());
            progress(&format!(
                "{name}: round {} of {rounds}: {}",
                round + 1,
                results.last_round()
            ));
        }
        results.kernel = self.kernel(workload, &mut watch).await?;
        // The agent is gone: what the collector still does with the events is a part of its cost.
        tokio::time::sleep(Duration::from_millis(500)).await;
        results.collector = watch.collector_account.used()? - begun;
        results.recorded = recorded(&watch)?;
        watch.end().await?;
        Ok(results)
    }

    /// Where there is a pooler it is measured, but not with TLS, which it would end.
    fn arms(&self, workload: Workload) -> Vec<Arm> {
        let pools = self.pooler.is_some() && workload.route() == Route::Tcp;
        let measured = |arm: &Arm| *arm != Arm::Pgbouncer || pools;
        ARMS.into_iter().filter(measured).collect()
    }

    async fn arm(&self, workload: Workload, arm: Arm, watch: &mut Watch) -> Result<Measured> {
        let server = self.server(arm);
        let attached = match arm {
            Arm::Pgwitness => Some(watch.attach(&server.cluster().data(), None).await?),
            _ => None,
        };
        let before = (
            server.account.used()?,
            self.clients.account.used()?,
            watch.agent_account.used()?,
            watch.agent_account.threads()?,
        );
        let told = self.load(workload, arm).await?;
        let each = |used: Duration| used.as_secs_f64() * 1e6 / told.statements.max(1) as f64;
        let server_us = each(server.account.used()? - before.0);
        let clients_us = each(self.clients.account.used()? - before.1);
        let mut agent = None;
        if let Some(attached) = attached {
            let metrics = attached.drained().await?;
            let threads = watch.agent_account.threads()?.into_iter();
            agent = Some(Agent {
                cpu_us: each(watch.agent_account.used()? - before.2),
                threads_us: threads
                    .map(|(name, used)| {
                        let earlier = before.3.get(&name).copied().unwrap_or_default();
                        (name, each(used.saturating_sub(earlier)))
                    })
                    .collect(),
                resident_mib: attached.resident_mib(),
                lost: losses(&metrics),
            });
            attached.end().await?;
        }
        Ok(Measured {
            told,
            server_us,
            clients_us,
            agent,
        })
    }

    /// Runs of their own, in which the kernel counts what its programs take: against the server that is tapped, and against
    /// the one that is not.
    async fn kernel(&self, workload: Workload, watch: &mut Watch) -> Result<Kernel> {
        let attached = watch.attach(&self.plain.cluster().data(), None).await?;
        let processes = watch.agent_account.processes()?;
        let segments = |metrics: &watch::Metrics| metrics.get("segments").copied().unwrap_or(0.0) as u64;
        let counting = kernel::Counting::begin()?;
        let mut looks = vec![(kernel::programs_of(&processes)?, attached.metrics()?)];
        let mut told = Vec::new();
        for arm in [Arm::Pgwitness, Arm::Pgaudit] {
            told.push(self.load(workload, arm).await?);
            looks.push((kernel::programs_of(&processes)?, attached.drained().await?));
        }
        let rested = kernel::programs_of(&processes)?;
        kernel::nothing_to_receive()?;
        let idle = between(&rested, &kernel::programs_of(&processes)?);
        drop(counting);
        attached.end().await?;
        let [(before, none), (tapped, some), (elsewhere, _)] = looks.as_slice() else {
            anyhow::bail!("two runs have three ends");
        };
        Ok(Kernel {
            programs: between(before, tapped),
            statements: told.first().map_or(0, |told| told.statements),
            captured: segments(some) - segments(none),
            elsewhere: between(tapped, elsewhere),
            idle,
        })
    }

    async fn load(&self, workload: Workload, arm: Arm) -> Result<Told> {
        let server = self.server(arm);
        let role = match arm {
            Arm::LogStatement => LOGGED_ROLE,
            _ => APP_ROLE,
        };
        let port = match (arm, &self.pooler) {
            (Arm::Pgbouncer, Some(pooler)) => pooler.port,
            _ => server.cluster().port(),
        };
        let access = Access {
            port,
            role,
            route: workload.route(),
        };
        self.clients.run(workload, self.seconds, server, access).await
    }

    fn server(&self, arm: Arm) -> &Server {
        match arm {
            Arm::Pgaudit => &self.audited,
            _ => &self.plain,
        }
    }
}

/// Execution requests that the collector holds.
pub(crate) fn recorded(watch: &Watch) -> Result<u64> {
    let rows = watch.ask("SELECT count(*) AS n FROM events WHERE kind = 'query'")?;
    let first = rows.first().context("no row")?;
    first
        .get("n")
        .and_then(serde_json::Value::as_u64)
        .context("no count")
}
