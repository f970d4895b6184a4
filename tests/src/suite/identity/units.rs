//! Programs of one host: services, people, plain processes; and connections that do not stay with who opened them.
//!
//! Owns the list of what a client can be, each over a Unix socket and over TCP.

use std::process::Command;

use anyhow::Result;

use super::judge::{Expected, Findings, Who};
use super::scene::{Scene, WAYS, Way};

/// One thing that a client can be.
struct Case {
    name: &'static str,
    /// Cgroup, below the suite's own.
    group: &'static str,
    /// What it does.
    steps: String,
    /// How the principal ends.
    who: String,
}

/// Runs the part: every case so many times.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let mut scene = Scene::open().await?;
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    let mut commands = Vec::new();
    for way in WAYS {
        for case in cases(&scene)? {
            let name = format!("{}-{}", case.name, way.name());
            let who = if CHANGED.contains(&name.as_str()) {
                Who::NamedOrUnknown(case.who)
            } else {
                Who::Named(case.who)
            };
            scene.expect(&name, rounds, Expected::of(who));
            for _ in 0..rounds {
                let program = scene.program("client")?;
                commands.push(scene.client((&name, way), &program, case.group, case.steps.split(' '))?);
            }
        }
        commands.extend(passed_on(&mut scene, way, rounds)?);
    }
    scene.run(commands, AT_ONCE).await?;
    scene.finish(keep).await
}

fn cases(scene: &Scene) -> Result<Vec<Case>> {
    let client = scene.program("client")?.display().to_string();
    let other = scene.program("other")?.display().to_string();
    let into = scene
        .groups
        .folder("system.slice/moved.service")?
        .display()
        .to_string();
    let case = |name, group, steps: &str, who: &str| Case {
        name,
        group,
        steps: steps.to_owned(),
        who: who.to_owned(),
    };
    let exe = |program: &str| format!("/exe{program}");
    Ok(vec![
        case(
            "service",
            "system.slice/orders.service",
            "connect say 2",
            "/unit/orders.service",
        ),
        case(
            "extended",
            "system.slice/orders.service",
            "connect ask 2",
            "/unit/orders.service",
        ),
        case(
            "template",
            "system.slice/system-worker.slice/worker@7.service",
            "connect say 1",
            "/unit/worker@7.service",
        ),
        case(
            "inner",
            "system.slice/agent.service/worker.scope",
            "connect say 1",
            "/unit/agent.service",
        ),
        case(
            "session",
            "user.slice/user-1.slice/session-3.scope",
            "login 1 exec CLIENT connect say 1",
            "/login/daemon",
        ),
        case(
            "nameless-login",
            "user.slice/user-4242.slice/session-4.scope",
            "login 4242 exec CLIENT connect say 1",
            "/login/4242",
        ),
        case(
            "user-service",
            "user.slice/user-1.slice/user@1.service/app.slice/editor.service",
            "login 1 exec CLIENT connect say 1",
            "/login/daemon",
        ),
        case(
            "sshd",
            "system.slice/ssh.service",
            "login 1 fork exec CLIENT connect say 1",
            "/login/daemon",
        ),
        case(
            "sshd-itself",
            "system.slice/ssh.service",
            "connect say 1",
            "/unit/ssh.service",
        ),
        case(
            "service-with-login",
            "system.slice/orders.service",
            "login 1 exec CLIENT connect say 1",
            "/unit/orders.service",
        ),
        case(
            "late-login",
            "user.slice/user-1.slice/session-5.scope",
            "login 1 connect say 1",
            "/login/daemon",
        ),
        case("plain", "plain", "connect say 1", &exe(&client)),
        case(
            "uid",
            "plain",
            "uid 4242 exec CLIENT connect say 1",
            &exe(&client),
        ),
        case("late-uid", "plain", "uid 4242 connect say 1", &exe(&client)),
        case(
            "later-uid",
            "system.slice/orders.service",
            "connect uid 4242 say 1",
            "/unit/orders.service",
        ),
        case("title", "plain", "title postgres connect say 1", &exe(&client)),
        case("fork-connect", "plain", "fork connect say 1", &exe(&client)),
        case(
            "fork-exec",
            "plain",
            "fork exec OTHER connect say 1",
            &exe(&other),
        ),
        case(
            "double-fork",
            "plain",
            "orphan orphan connect say 1",
            &exe(&client),
        ),
        case(
            "orphan-exec",
            "system.slice/cron.service",
            "orphan orphan exec OTHER connect say 1",
            "/unit/cron.service",
        ),
        case("inherited", "plain", "connect fork say 2", &exe(&client)),
        case(
            "inherited-later",
            "plain",
            "connect say 1 fork ask 1",
            &exe(&client),
        ),
        case(
            "orphaned",
            "system.slice/orders.service",
            "connect orphan sleep 5 say 1",
            "/unit/orders.service",
        ),
        case("connect-exec", "plain", "connect exec OTHER say 2", &exe(&client)),
        case(
            "connect-say-exec",
            "plain",
            "connect say 1 exec OTHER say 1",
            &exe(&client),
        ),
        case(
            "connect-exec-service",
            "system.slice/orders.service",
            "connect exec OTHER say 1",
            "/unit/orders.service",
        ),
        case(
            "moved",
            "plain",
            "enter INTO connect say 1",
            "/unit/moved.service",
        ),
        case(
            "moved-later",
            "system.slice/orders.service",
            "connect enter INTO say 1",
            "/unit/orders.service",
        ),
        case(
            "moved-last",
            "system.slice/orders.service",
            "connect say 1 enter INTO say 1",
            "/unit/orders.service",
        ),
        case(
            "pid-namespace",
            "system.slice/orders.service",
            "space 0 fork connect say 1",
            "/unit/orders.service",
        ),
    ]
    .into_iter()
    .map(|mut case| {
        for (word, path) in [("CLIENT", &client), ("OTHER", &other), ("INTO", &into)] {
            case.steps = case.steps.replace(word, path);
        }
        case
    })
    .collect())
}

/// A process opens the connection, another one in another unit gets it and speaks: what counts is who opened it.
fn passed_on(scene: &mut Scene, way: Way, rounds: usize) -> Result<Vec<Command>> {
    let mut commands = Vec::new();
    let (opens, speaks) = (scene.program("client")?, scene.program("other")?);
    for (name, before) in [("passed", "connect"), ("passed-later", "connect say 1")] {
        let case = format!("{name}-{}", way.name());
        scene.expect(&case, rounds, Expected::named("/unit/opens.service"));
        for round in 0..rounds {
            let door = scene.place(&format!("{case}-{round}")).display().to_string();
            let to = [before.split(' ').collect(), vec!["send", &door]].concat();
            commands.push(scene.client((&case, way), &opens, "system.slice/opens.service", to)?);
            let from = ["receive", &door, "say", "2"];
            commands.push(scene.client((&case, way), &speaks, "system.slice/speaks.service", from)?);
        }
    }
    Ok(commands)
}

/// Who runs another program, changes its user or is moved to another cgroup between its connect over a Unix socket and
/// the server's first read is never named for what it became.
const CHANGED: [&str; 4] = [
    "connect-exec-unix",
    "connect-exec-service-unix",
    "later-uid-unix",
    "moved-later-unix",
];
const ROUNDS: usize = 40;
const SHORT_ROUNDS: usize = 3;
/// Two are one client where a connection is passed on.
const AT_ONCE: usize = 24;
