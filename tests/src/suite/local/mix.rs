//! The dozen programs of the suite.
//!
//! Owns who they are and how much each does: half of them live long, half are many processes of a few milliseconds;
//! simple and extended protocol, prepared and not.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::program::Program;
use crate::route::Route;

/// The programs, each in its unit.
#[derive(Debug)]
pub(super) struct Mix {
    programs: Vec<Program>,
}

impl Mix {
    /// Each of them by one of the ways, in turns.
    pub(super) fn new(slice: &str, cluster: &Cluster, routes: &[Route]) -> Result<Self> {
        let programs = PROGRAMS
            .iter()
            .zip(routes.iter().cycle())
            .map(|(name, route)| Program::new(slice, name, cluster, *route));
        Ok(Self {
            programs: programs.collect::<Result<_>>()?,
        })
    }

    pub(super) fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// Programs whose every process is short-lived.
    pub(super) fn short_lived(&self) -> usize {
        self.programs.len() / 2
    }

    /// Runs all of them at once, `times` the short form's work; returns the lives of the short-lived processes.
    pub(super) async fn run(&self, times: u64) -> Result<Vec<Duration>> {
        let [
            ledger,
            search,
            reports,
            orders,
            nightly,
            migration,
            probe,
            metrics,
            checkout,
            mailer,
            badge,
            stock,
        ] = self.programs.as_slice()
        else {
            anyhow::bail!("the mix has twelve programs");
        };
        let lives = tokio::try_join!(
            async {
                tokio::try_join!(
                    bench(ledger, "simple", 1000 * times),
                    bench(search, "extended", 1000 * times),
                    bench(reports, "prepared", 1200 * times),
                    python(orders, 120 * times),
                    job(nightly, 40 * times),
                    script(migration, 150 * times),
                )
            },
            probe.repeat(60 * times, |turn| Ok(probe.psql(&format!(
                "SELECT id, email FROM customers WHERE id = {} {}",
                turn % 900,
                probe.tag()
            )))),
            metrics.repeat(60 * times, |turn| Ok(metrics.psql(&format!(
                "SELECT count(*) FROM orders {tag}; SELECT region FROM customers WHERE id <= {}; \
                 UPDATE orders SET note = 'it''s; \"seen\"' WHERE id = {turn} {tag};",
                turn % 7,
                tag = metrics.tag()
            )))),
            checkout.repeat(60 * times, |_| checkout.oneshot("extended")),
            mailer.repeat(60 * times, |_| mailer.oneshot("extended")),
            badge.repeat(60 * times, |_| badge.oneshot("simple")),
            stock.repeat(60 * times, |_| stock.oneshot("simple")),
        )?;
        Ok([lives.1, lives.2, lives.3, lives.4, lives.5, lives.6].concat())
    }
}

/// Two clients, three statements a transaction.
async fn bench(program: &Program, protocol: &str, transactions: u64) -> Result<()> {
    let tag = program.tag();
    let script = format!(
        "\\set id random(1, 1000)\n\\set n random(1, 20)\n\
         SELECT id, email FROM customers {tag} WHERE id = :id;\n\
         INSERT INTO orders {tag} (customer, amount) VALUES (:id, :n);\n\
         SELECT id, region FROM customers {tag} WHERE id <= :n;\n"
    );
    let transactions = (transactions / 2).to_string();
    // Paced, so that all programs overlap in time.
    let arguments = ["-M", protocol, "-c", "2", "-t", &transactions, "-R", BENCH_RATE];
    let run = program.start(program.pgbench(&script, &arguments)?)?;
    program.finish(run, PATIENCE).await.map(drop)
}

async fn python(program: &Program, rounds: u64) -> Result<()> {
    let run = program.start(program.python(PATIENCE.as_secs(), Duration::from_millis(20), rounds)?)?;
    program.finish(run, PATIENCE).await.map(drop)
}

async fn job(program: &Program, rounds: u64) -> Result<()> {
    let statement = format!(
        "SELECT region, count(*) FROM customers {} GROUP BY region",
        program.tag()
    );
    let command = program.shell_job(&statement, PATIENCE.as_secs(), Duration::from_millis(20), rounds)?;
    program.finish(program.start(command)?, PATIENCE).await.map(drop)
}

/// One long session with what people write: several statements in a string, quotes, errors of every stage.
async fn script(program: &Program, rounds: u64) -> Result<()> {
    let tag = program.tag();
    let round = format!(
        "SELECT 'a;b' AS \"x;y\" {tag};\n\
         BEGIN {tag};\nDELETE FROM orders {tag} WHERE id = 0;\nSELECT 1/0 {tag};\nROLLBACK {tag};\n\
         SELECT nothing FROM nowhere {tag};\nSELEC {tag};\n\
         SELECT $$it's; here$$ {tag} \\; SELECT 2 {tag};\n"
    );
    let text = round.repeat(usize::try_from(rounds)?);
    program
        .finish(program.start(program.psql_script(&text)?)?, PATIENCE)
        .await
        .map(drop)
}

/// First the long-lived, then the short-lived.
const PROGRAMS: [&str; 12] = [
    "ledger-bench",
    "search-bench",
    "report-bench",
    "orders-api",
    "nightly-job",
    "migration",
    "probe",
    "metrics",
    "checkout",
    "mailer",
    "badge",
    "stock",
];

/// Transactions per second of each pgbench.
const BENCH_RATE: &str = "60";
const PATIENCE: Duration = Duration::from_secs(240);
