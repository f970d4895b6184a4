//! Connections that are older than the agent, and an agent that dies and comes back while clients come and go.
//!
//! What is not known then has to be said; a name that changes to a wrong one never may be.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::judge::{Expected, Findings, Who};
use super::scene::{Scene, WAYS, Way};
use crate::process::Process;

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let mut scene = Scene::without_tap().await?;
    let began = scene.place("began").display().to_string();
    let mut older = Vec::new();
    for way in WAYS {
        for command in older_clients(&mut scene, way, &began)? {
            older.push(scene.start("an older client", command)?);
        }
    }
    // Long enough for all of them to have said their first statement.
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.start_tap().await?;
    fs::write(&began, "")?;
    for mut process in older {
        process.wait(PATIENCE).await?;
    }
    restarts(&mut scene, if full { RESTARTS } else { SHORT_RESTARTS }).await?;
    scene.finish(keep).await
}

/// Each says something, waits for the agent, and says more.
fn older_clients(scene: &mut Scene, way: Way, began: &str) -> Result<Vec<Command>> {
    let (client, other) = (scene.program("client")?, scene.program("other")?);
    let door = scene.place(&format!("door-{}", way.name())).display().to_string();
    let path = other.display().to_string();
    let plain = format!("/exe{}", client.display());
    // Over TCP nothing of who connected is left but who holds the socket.
    let holder = |opened: &str, holds: &str| match way {
        Way::Unix => format!("/unit/{opened}.service"),
        Way::Tcp => format!("/unit/{holds}.service"),
    };
    let talk = ["await", began, "say", "2"];
    let mut cases = vec![
        (
            "old",
            client.clone(),
            "system.slice/old.service",
            vec!["connect", "say", "1"],
            "/unit/old.service".to_owned(),
        ),
        (
            "old-silent",
            client.clone(),
            "system.slice/old.service",
            vec!["connect"],
            "/unit/old.service".to_owned(),
        ),
        (
            "old-plain",
            client.clone(),
            "plain",
            vec!["connect", "say", "1"],
            plain,
        ),
        (
            "old-forked",
            client.clone(),
            "system.slice/old.service",
            vec!["connect", "say", "1", "fork"],
            "/unit/old.service".to_owned(),
        ),
        (
            "old-exec",
            client.clone(),
            "system.slice/old.service",
            vec!["connect", "say", "1", "exec", &path],
            "/unit/old.service".to_owned(),
        ),
        (
            "old-orphan",
            client.clone(),
            "system.slice/old.service",
            vec!["connect", "say", "1", "orphan"],
            "/unit/old.service".to_owned(),
        ),
        (
            "old-passed",
            other.clone(),
            "system.slice/holds.service",
            vec!["receive", &door],
            holder("opened", "holds"),
        ),
    ];
    let mut commands = Vec::new();
    for (name, program, group, steps, who) in cases.drain(..) {
        let case = format!("{name}-{}", way.name());
        scene.expect(
            &case,
            1,
            Expected::of(Who::NamedOrUnknown(who))
                .lossy()
                .held(name == "old-passed"),
        );
        commands.push(scene.client((&case, way), &program, group, [steps, talk.to_vec()].concat())?);
    }
    let opens = ["connect", "say", "1", "send", &door];
    let case = format!("old-passed-{}", way.name());
    commands.push(scene.client((&case, way), &client, "system.slice/opened.service", opens)?);
    Ok(commands)
}

/// Clients of several units come all the time, short and long, while the agent is killed and started again.
async fn restarts(scene: &mut Scene, times: u32) -> Result<()> {
    let client = scene.program("client")?;
    let mut launchers: Vec<Process> = Vec::new();
    let runs = usize::try_from(times)? * RUNS_EACH;
    for way in WAYS {
        for (name, steps) in [
            ("short", vec!["connect", "say", "1"]),
            (
                "long",
                vec![
                    "connect", "say", "1", "sleep", "700", "ask", "1", "sleep", "700", "say", "1",
                ],
            ),
            ("silent", vec!["connect", "sleep", "900", "say", "1"]),
        ] {
            let case = format!("{name}-{}", way.name());
            let count = if name == "short" { 8 * runs } else { runs };
            scene.expect(
                &case,
                count,
                Expected::of(Who::NamedOrUnknown(format!("/unit/{name}.service"))).lossy(),
            );
            let count = count.to_string();
            let at_once = if name == "short" { "2" } else { "8" };
            let steps = [vec!["repeat", &count, at_once], steps].concat();
            let group = format!("system.slice/{name}.service");
            let command = scene.client((&case, way), &client, &group, steps)?;
            launchers.push(scene.start("a launcher", command)?);
        }
    }
    for _ in 0..times {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        scene.tap()?.agent.kill().await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.tap()?.agent.start().await?;
    }
    for mut launcher in launchers {
        launcher.wait(PATIENCE).await?;
    }
    Ok(())
}

const RESTARTS: u32 = 5;
const SHORT_RESTARTS: u32 = 2;
/// Times a restart, of those that live more than a second.
const RUNS_EACH: usize = 24;
const PATIENCE: Duration = Duration::from_secs(120);
