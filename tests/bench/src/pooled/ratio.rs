//! pgbench through PgBouncer in transaction mode, tapped and untapped in turns.

use std::collections::BTreeMap;

use anyhow::Result;
use pgwitness_tests::{cluster::APP_ROLE, route::Route, screen::progress};
use rand::seq::SliceRandom as _;

use crate::overhead::{Access, Clients, Parties, Pool, Pooler, Programs, Server, Watch, Workload, losses};

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
    let parties = Parties::new(false);
    let server = Server::start(parties.watched("server")?, false).await?;
    // Four clients over two connections: there is always one that waits.
    let pool = Pool {
        mode: "transaction",
        size: 2,
    };
    let pooler = Pooler::start(&program, parties.watched("pooler")?, &server, pool).await?;
    let clients = Clients::new(parties.watched("clients")?)?;
    let access = Access {
        port: pooler.port,
        role: APP_ROLE,
        route: Route::Tcp,
    };
    let load = async || clients.run(Workload::Simple, seconds, &server, access).await;
    load().await?;
    let mut watch = Watch::begin(&parties, programs).await?;
    let mut ratio = Ratio::default();
    for round in 0..rounds {
        let mut arms = [None, None, Some(())];
        arms.shuffle(&mut rand::thread_rng());
        let (mut without, mut with) = (Vec::new(), 0.0);
        for arm in arms {
            if arm.is_none() {
                watch.halt()?;
                without.push(load().await?.per_second);
                continue;
            }
            let attached = watch.attach(&server.cluster().data(), None).await?;
            with = load().await?.per_second;
            for (reason, count) in losses(&attached.drained().await?) {
                *ratio.lost.entry(reason).or_default() += count;
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
    watch.end().await?;
    server.stop().await?;
    Ok(Ok(ratio))
}
