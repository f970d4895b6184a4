//! The main job, to look at: one database, several unchanged programs that share one role, and who did what.
//!
//! Owns the order of things and the figures; `trail` owns how they look.

mod bouncer;
mod customers;
mod trail;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::{Outcome, await_delivery, complete_log, figures, recorded};
use crate::cluster::{APP_ROLE, Cluster, Witness};
use crate::compare::{Expected, Pooled, compare};
use crate::csvlog;
use crate::process::Process;
use crate::program::{Program, Route};
use crate::record::{Recorded, queries, query_live};
use crate::screen::progress;
use crate::tap::Tap;
use bouncer::Bouncer;
use customers::Customers;
use trail::Trail;

/// Runs the demo: until Ctrl-C, or with `once` until enough has happened. `quiet` prints the figures alone.
///
/// # Errors
/// When something cannot be started or read; anything missing or wrong is a figure.
pub async fn run(once: bool, quiet: bool) -> Result<Outcome> {
    let slice = format!("pgwitness-demo-{}", std::process::id());
    let mut cluster = Cluster::init(Witness::Full)?;
    cluster.start().await?;
    cluster.prepare().await?;
    progress(&format!(
        "{} on 127.0.0.1:{}, a throwaway",
        cluster.version(),
        cluster.port()
    ));
    let customers = Customers::new()?;
    let mut tap = Tap::start(&cluster.data(), customers.settings()).await?;
    progress(&format!(
        "collector and agent are up: http://127.0.0.1:{}/, or psql -h 127.0.0.1 -p {} pgwitness",
        tap.http_port(),
        tap.sql_port()
    ));

    let bouncer = Bouncer::start(&slice, &cluster).await?;
    progress(&format!(
        "PgBouncer in transaction mode on 127.0.0.1:{} (process {}): four of five programs come through it",
        bouncer.port(),
        bouncer.pid()
    ));
    let services = Services::new(&slice, &cluster, &bouncer)?;
    let trail = Trail::new();
    progress("five programs log in as app_user: the database cannot tell them apart, nor can pgAudit");
    let running = services.start(if once { RUN_SECONDS } else { A_DAY })?;
    if once {
        services.run_once(&cluster, running).await?;
    } else {
        watch(&tap, &cluster, &trail, &services, running).await?;
    }

    // The log is whole when all sessions are closed, the pooler's too.
    let pooler = bouncer.unit().to_owned();
    drop(bouncer);
    let logged = complete_log(&cluster.csvlog()).await?;
    let statements = logged
        .iter()
        .filter(|s| s.role == APP_ROLE)
        .map(|s| s.statements.len() as u64)
        .sum();
    progress(&format!(
        "{statements} statements in the server's own log; waiting for their delivery"
    ));
    await_delivery(&tap, statements).await;
    tap.stop().await?;
    let record = recorded(&tap)?;
    let units = services.units();
    let programs = services.pooled();
    let pooled = Some(Pooled {
        programs: &programs,
        pooler: &pooler,
    });
    // Literals are redacted, so texts are not compared here: that is what the suite `local` does.
    let found = compare(
        &logged,
        &record,
        Expected {
            role: APP_ROLE,
            units: &units,
            texts: false,
            pooled,
        },
    );
    let asked = customers.ask(&tap, &logged, &units)?;
    let (verified, verdict) = tap.verify()?;
    let known = record.iter().filter(|event| attributed(event)).count();
    let principals: BTreeSet<_> = record
        .iter()
        .filter(|event| attributed(event))
        .filter_map(|event| event.principal.as_deref())
        .collect();
    if !quiet {
        trail.side_by_side(&logged, &record);
        trail.pgaudit(&logged);
        trail.principals(&record);
        trail.customer(&asked);
        trail.verdict(&found, verified, &verdict);
    }

    // Extra or misaligned records would make "missing" look better than it is: they count as wrong.
    let wrong = found.wrong_principal + found.unwitnessed + found.extra + found.wrong_text;
    let unattributed = record.len() - known;
    let passed = wrong == 0
        && unattributed == 0
        && found.missing == 0
        && verified
        && statements >= MIN_STATEMENTS
        && principals.len() >= MIN_PRINCIPALS
        && asked.wrong.is_empty()
        && asked.touched.len() >= MIN_TOUCHED;
    let figures = figures(json!({
        "statements": statements,
        "attributed": known,
        "unattributed": unattributed,
        "wrong": wrong,
        "missing": found.missing,
        "principals": principals.len(),
        "verified": verified,
        "who_programs": asked.touched.len(),
        "who_statements": asked.touched.values().sum::<u64>(),
        "who_wrong": asked.wrong.len(),
    }))?;
    Ok(Outcome { figures, passed })
}

/// Shows the newest of the trail now and then, until the caller drops this (Ctrl-C).
async fn watch(
    tap: &Tap,
    cluster: &Cluster,
    trail: &Trail,
    services: &Services,
    running: Vec<Process>,
) -> Result<()> {
    let backup = async {
        loop {
            services.visit().await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let show = async {
        loop {
            tokio::time::sleep(REFRESH).await;
            let sql = queries(APP_ROLE).replace("ORDER BY agent, seq", "ORDER BY ts_start DESC LIMIT 200");
            let rows = query_live(tap.http_port(), &sql)?;
            let record = rows
                .into_iter()
                .map(Recorded::from_row)
                .collect::<Result<Vec<_>>>()?;
            trail.side_by_side(&csvlog::read(&cluster.csvlog())?, &record);
            println!(
                "  open http://127.0.0.1:{}/   Ctrl-C ends everything and leaves nothing",
                tap.http_port()
            );
        }
    };
    let ended: Result<()> = tokio::select! { ended = backup => ended, ended = show => ended };
    drop(running);
    ended
}

/// The programs that share the role.
#[derive(Debug)]
struct Services {
    orders: Program,
    ledger: Program,
    nightly: Program,
    backoffice: Program,
    probe: Program,
}

impl Services {
    fn new(slice: &str, cluster: &Cluster, bouncer: &Bouncer) -> Result<Self> {
        let program = |name, route| Program::new(slice, name, cluster, route);
        let pooled = |name, route| -> Result<Program> {
            Ok(program(name, route)?.through(&bouncer.folder(), bouncer.port()))
        };
        Ok(Self {
            orders: pooled("orders-api", Route::Tcp)?,
            ledger: pooled("ledger-bench", Route::Tcp)?,
            nightly: pooled("nightly-job", Route::Unix)?,
            backoffice: pooled("back-office", Route::Tcp)?,
            probe: program("health-probe", Route::Unix)?,
        })
    }

    fn all(&self) -> [&Program; 5] {
        [
            &self.orders,
            &self.ledger,
            &self.nightly,
            &self.backoffice,
            &self.probe,
        ]
    }

    fn units(&self) -> BTreeMap<String, String> {
        self.all()
            .iter()
            .map(|program| (program.name().to_owned(), program.unit().to_owned()))
            .collect()
    }

    /// Those that come through the pooler.
    fn pooled(&self) -> BTreeSet<String> {
        [&self.orders, &self.ledger, &self.nightly, &self.backoffice]
            .map(|program| program.name().to_owned())
            .into()
    }

    /// The three that live long, in the order of [`Services::all`].
    fn start(&self, seconds: u64) -> Result<Vec<Process>> {
        let script = format!(
            "\\set id random(1, 1000)\nSELECT id, amount FROM orders {tag} WHERE id = :id;\n\
             INSERT INTO orders {tag} (customer, amount) VALUES (:id, 12);\n",
            tag = self.ledger.tag()
        );
        let bench = self.ledger.pgbench(
            &script,
            &["-M", "extended", "-R", "30", "-T", &seconds.to_string()],
        )?;
        let report = format!(
            "SELECT region, count(*) FROM customers {} GROUP BY region",
            self.nightly.tag()
        );
        let pause = Duration::from_millis(60);
        Ok(vec![
            self.orders.start(self.orders.python(seconds, pause, NO_LIMIT)?)?,
            self.ledger.start(bench)?,
            self.nightly
                .start(self.nightly.shell_job(&report, seconds, pause, NO_LIMIT)?)?,
        ])
    }

    /// The two that come and go.
    async fn visit(&self) -> Result<()> {
        let text = format!("{} {}", customers::BY_EMAIL, self.backoffice.tag());
        self.backoffice
            .repeat(1, |_| Ok(self.backoffice.psql(&text)))
            .await?;
        self.probe.repeat(1, |_| self.probe.oneshot("extended")).await?;
        Ok(())
    }

    /// Until the long-lived ones end by themselves and enough has happened.
    async fn run_once(&self, cluster: &Cluster, running: Vec<Process>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(RUN_SECONDS);
        while Instant::now() < deadline {
            self.visit().await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for (program, process) in self.all().into_iter().zip(running) {
            program.finish(process, Duration::from_secs(30)).await?;
        }
        // A slow machine takes longer for its thousand.
        for _ in 0..100 {
            let sessions = csvlog::read(&cluster.csvlog())?;
            let done: usize = sessions
                .iter()
                .filter(|s| s.role == APP_ROLE)
                .map(|s| s.statements.len())
                .sum();
            if done as u64 >= MIN_STATEMENTS {
                break;
            }
            self.visit().await?;
        }
        Ok(())
    }
}

fn attributed(event: &Recorded) -> bool {
    let named = event
        .principal
        .as_deref()
        .is_some_and(|principal| principal != "unknown");
    named && event.confidence.as_deref() != Some("none")
}

const RUN_SECONDS: u64 = 10;
const A_DAY: u64 = 86_400;
/// Rounds: time alone ends it.
const NO_LIMIT: u64 = 1 << 31;
const REFRESH: Duration = Duration::from_secs(3);
const MIN_STATEMENTS: u64 = 1_000;
const MIN_PRINCIPALS: usize = 4;
/// One that names the customer, and one that gets its row.
const MIN_TOUCHED: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::program_of;

    /// A record made from the log itself: what a faultless tap would have written.
    fn mirror(
        logged: &[csvlog::LoggedSession],
        units: &BTreeMap<String, String>,
        pooled: &Pooled<'_>,
    ) -> Vec<Recorded> {
        let mut record = Vec::new();
        for session in logged.iter().filter(|session| session.role == APP_ROLE) {
            let mut of_transaction = None;
            // From behind, because COMMIT says nothing of its program and what is before it does.
            for (index, statement) in session.statements.iter().enumerate().rev() {
                let word = statement.text.split(' ').next().unwrap_or_default();
                let program = program_of(&statement.text).map(str::to_owned);
                let inherits = ["BEGIN", "COMMIT"].contains(&word);
                if word == "COMMIT" {
                    let before = session.statements[..index].iter().rev();
                    of_transaction = before.filter_map(|s| program_of(&s.text)).next();
                }
                let program = program.or_else(|| of_transaction.filter(|_| inherits).map(str::to_owned));
                let is_pooled = program.as_ref().is_none_or(|name| pooled.programs.contains(name));
                let unit = program
                    .as_ref()
                    .map_or(pooled.pooler, |name| units[name].as_str());
                let confidence = if is_pooled && program.is_some() {
                    "joined"
                } else {
                    "observed"
                };
                record.push(Recorded {
                    at_ns: statement.at_ns,
                    session_id: Some(session.id.clone()),
                    backend_pid: Some(session.backend_pid),
                    principal: Some(format!("spiffe://local/host/db1/unit/{unit}")),
                    confidence: Some(confidence.to_owned()),
                    method: Some("made up".to_owned()),
                    command: statement.audited.first().map(|audited| audited.command.clone()),
                    statement: Some(statement.text.clone()),
                    outcome: Some(
                        if statement.sqlstate.is_some() {
                            "error"
                        } else {
                            "ok"
                        }
                        .to_owned(),
                    ),
                    rows: statement.audited.first().map(|audited| audited.rows),
                    rows_affected: statement.audited.first().map(|audited| audited.rows),
                    sqlstate: statement.sqlstate.clone(),
                    ..Recorded::default()
                });
            }
        }
        record.reverse();
        record
    }

    #[tokio::test]
    async fn five_programs_share_a_role_and_a_mirror_of_the_log_equals_it() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let mut cluster = Cluster::init(Witness::Full).unwrap();
        cluster.start().await.unwrap();
        cluster.prepare().await.unwrap();
        let slice = format!("pgwitness-demo-test-{}", std::process::id());
        let bouncer = Bouncer::start(&slice, &cluster).await.unwrap();
        let services = Services::new(&slice, &cluster, &bouncer).unwrap();
        let running = services.start(2).unwrap();
        services.visit().await.unwrap();
        for (program, process) in services.all().into_iter().zip(running) {
            program.finish(process, Duration::from_secs(20)).await.unwrap();
        }
        let pooler = bouncer.unit().to_owned();
        drop(bouncer);
        let logged = complete_log(&cluster.csvlog()).await.unwrap();
        let units = services.units();
        let programs = services.pooled();
        let pooled = Pooled {
            programs: &programs,
            pooler: &pooler,
        };
        let record = mirror(&logged, &units, &pooled);
        let found = compare(
            &logged,
            &record,
            Expected {
                role: APP_ROLE,
                units: &units,
                texts: true,
                pooled: Some(pooled),
            },
        );
        assert!(found.none(), "{found:?}");
        assert!(found.statements > 50, "{found:?}");
        let trail = Trail::new();
        trail.side_by_side(&logged, &record);
        trail.pgaudit(&logged);
        trail.principals(&record);
        trail.verdict(&found, true, "OK: evidence verifies");
    }
}
