//! The parts: which pooler in which mode, with which clients, and what happens to it meanwhile.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::Plan;
use super::judge::{Expected, Findings};
use super::poolers::{Poolers, Program, Setup};
use super::scene::{INNER, Load, POOLER, Scene, Way};
use crate::suite::pooled::{Kind, SAME};

/// One part.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) short: bool,
    pub(super) setup: Setup,
    kind: Kind,
    /// Units of work of each client: short, full.
    units: (u64, u64),
    per_connection: u64,
    named: bool,
    doomed: u64,
    pub(super) event: Event,
    /// Of the clients' statements that has to be linked.
    share: Option<f64>,
}

/// What happens under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    /// The tap comes later than the clients.
    Attach,
    /// Pooler and agent are reloaded, paused, replaced, killed and started.
    Restarts,
}

const BOUNCER: Setup = Setup {
    program: Program::Bouncer,
    mode: "transaction",
    logged: true,
    checks: false,
    tls: false,
    chained: false,
    apart: false,
    way: Way::Tcp,
};

const TRANSACTION: Part = Part {
    name: "transaction",
    short: true,
    setup: BOUNCER,
    kind: Kind::Transaction,
    units: (10, 280),
    per_connection: 0,
    named: false,
    doomed: 0,
    event: Event::Nothing,
    share: Some(LINKED),
};

pub(super) const PARTS: [Part; 12] = [
    TRANSACTION,
    // No log that changes its pace; names that it has to set; clients that come, go and die.
    Part {
        name: "transaction-plain",
        setup: Setup {
            logged: false,
            checks: true,
            way: Way::Unix,
            ..BOUNCER
        },
        units: (10, 280),
        per_connection: 5,
        named: true,
        doomed: 4,
        ..TRANSACTION
    },
    Part {
        name: "session",
        short: false,
        setup: Setup {
            mode: "session",
            ..BOUNCER
        },
        kind: Kind::Session,
        per_connection: 4,
        units: (8, 80),
        ..TRANSACTION
    },
    Part {
        name: "statement",
        short: false,
        setup: Setup {
            mode: "statement",
            way: Way::Unix,
            ..BOUNCER
        },
        kind: Kind::Statement,
        units: (10, 200),
        ..TRANSACTION
    },
    Part {
        name: "prepared",
        setup: Setup {
            program: Program::NewBouncer,
            ..BOUNCER
        },
        kind: Kind::Prepared,
        ..TRANSACTION
    },
    Part {
        name: "prepared-plain",
        short: false,
        setup: Setup {
            program: Program::NewBouncer,
            logged: false,
            way: Way::Unix,
            ..BOUNCER
        },
        kind: Kind::Prepared,
        units: (10, 200),
        per_connection: 25,
        named: true,
        doomed: 4,
        ..TRANSACTION
    },
    Part {
        name: "pgpool",
        short: false,
        setup: Setup {
            program: Program::Pgpool,
            mode: "session",
            logged: false,
            ..BOUNCER
        },
        kind: Kind::Session,
        units: (6, 40),
        per_connection: 3,
        share: None,
        ..TRANSACTION
    },
    Part {
        name: "tls",
        short: false,
        setup: Setup {
            logged: false,
            tls: true,
            ..BOUNCER
        },
        units: (10, 120),
        ..TRANSACTION
    },
    Part {
        name: "chain",
        short: false,
        setup: Setup {
            logged: false,
            chained: true,
            ..BOUNCER
        },
        units: (10, 120),
        named: true,
        ..TRANSACTION
    },
    Part {
        name: "hosts",
        short: false,
        setup: Setup {
            logged: false,
            apart: true,
            ..BOUNCER
        },
        units: (10, 60),
        ..TRANSACTION
    },
    Part {
        name: "attach",
        short: false,
        setup: Setup {
            logged: false,
            ..BOUNCER
        },
        units: (0, 0),
        event: Event::Attach,
        share: Some(LINKED),
        ..TRANSACTION
    },
    Part {
        name: "restarts",
        short: false,
        setup: Setup {
            logged: false,
            ..BOUNCER
        },
        units: (0, 0),
        event: Event::Restarts,
        share: None,
        ..TRANSACTION
    },
];

/// Runs one.
pub(super) async fn run(part: &Part, plan: &Plan, poolers: &Poolers) -> Result<(Findings, Expected, String)> {
    let mut scene = Scene::open(part.setup, poolers, plan.contained.as_deref()).await?;
    let mut expected = Expected {
        poolers: [POOLER, INNER].map(|name| format!("/unit/{name}.service")).into(),
        lossy: part.event != Event::Nothing,
        relayed: part.setup.tls,
        share: part.share,
        from_ns: 0,
    };
    if part.event != Event::Attach {
        scene.start_tap().await?;
    }
    scene.start_pooler().await?;
    if part.setup.tls {
        // A pooler's encryption is probed some 50 ms after it began; who connects before is not named.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let load = load(part, plan.full);
    scene.start_clients(&load).await?;
    if part.setup.program != Program::Pgpool && !part.setup.tls && !part.setup.apart {
        programs(&mut scene, part, plan.full)?;
    }
    match part.event {
        Event::Nothing => {}
        Event::Attach => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            scene.start_tap().await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            expected.from_ns = i64::try_from(now.as_nanos())?;
        }
        Event::Restarts => restarts(&mut scene, plan.full)
            .await
            .with_context(|| scene.said())?,
    }
    let (found, note) = scene.finish(expected.clone(), plan.keep).await?;
    Ok((found, expected, note))
}

fn load(part: &Part, full: bool) -> Load {
    let load = Load {
        kind: part.kind,
        tcp: (3, 5),
        unix: 10,
        units: if full { part.units.1 } else { part.units.0 },
        seconds: 0,
        per_connection: part.per_connection,
        named: part.named,
        doomed: part.doomed,
    };
    match part.event {
        Event::Attach => Load {
            seconds: if full { 40 } else { 8 },
            ..load
        },
        Event::Restarts => Load {
            seconds: if full { 90 } else { 20 },
            tcp: (2, 2),
            unix: 2,
            ..load
        },
        _ if part.setup.tls => Load {
            tcp: (1, 5),
            unix: 0,
            ..load
        },
        _ => load,
    }
}

/// pgbench and psql, whose texts carry their marks.
fn programs(scene: &mut Scene, part: &Part, full: bool) -> Result<()> {
    if part.event != Event::Nothing {
        return Ok(());
    }
    let script = scene.home().join("script.sql");
    std::fs::write(&script, format!("{SAME} /* m=pgbench.; */;\n"))?;
    let protocol = if part.kind == Kind::Prepared {
        "prepared"
    } else {
        "extended"
    };
    let file = script.display().to_string();
    let times = if full { "400" } else { "25" };
    let pgbench = scene.client_binary("pgbench");
    scene.start_program(
        "pgbench",
        &pgbench,
        &["-n", "-M", protocol, "-c", "1", "-t", times, "-f", &file],
    )?;
    let (psql, text) = (scene.client_binary("psql"), format!("{SAME} /* m=psql.; */"));
    scene.start_program("psql", Path::new(&psql), &["-XAtq", "-c", &text, "-c", &text])
}

/// What operators do, and what happens to them.
async fn restarts(scene: &mut Scene, full: bool) -> Result<()> {
    for round in 0..if full { 20_u32 } else { 5 } {
        tokio::time::sleep(Duration::from_millis(u64::from(900 + 137 * (round % 5)))).await;
        if !scene.busy() {
            break;
        }
        match round % 5 {
            0 => {
                // Reload, then the pooler dies and is started again.
                let pooler = scene.pooler.as_mut().context("no pooler is running")?;
                pooler.signal(Signal::SIGHUP)?;
                tokio::time::sleep(Duration::from_millis(300)).await;
                pooler.stop(Signal::SIGKILL, Duration::from_secs(10)).await?;
                scene.start_pooler().await?;
            }
            1 => {
                let tap = scene.tap.as_mut().context("there is no tap")?;
                tap.agent.kill().await?;
                tokio::time::sleep(Duration::from_millis(400)).await;
                tap.agent.start().await?;
            }
            2 => scene.succeed().await?,
            3 => {
                for command in ["PAUSE", "RELOAD", "RESUME"] {
                    scene.console(command)?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            _ => {
                let tap = scene.tap.as_mut().context("there is no tap")?;
                tap.agent.stop().await?;
                tap.agent.start().await?;
            }
        }
    }
    Ok(())
}

/// Of the clients' statements through PgBouncer.
const LINKED: f64 = 0.999;
