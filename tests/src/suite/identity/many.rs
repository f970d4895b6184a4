//! Very many clients that live a few milliseconds, many at once, of several principals under one role.

use anyhow::Result;

use super::judge::{Expected, Findings};
use super::scene::{Scene, WAYS};

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let mut scene = Scene::open().await?;
    let each = if full { EACH } else { SHORT_EACH };
    let (client, other) = (scene.program("client")?, scene.program("other")?);
    let mut commands = Vec::new();
    for (crowd, (name, group, login, program)) in [false, true]
        .into_iter()
        .flat_map(|crowd| PRINCIPALS.map(|one| (crowd, one)))
    {
        let program = if program == "other" { &other } else { &client };
        let who = match name {
            "plain" | "tool" => format!("/exe{}", program.display()),
            "person" => "/login/daemon".to_owned(),
            _ => format!("/unit/{name}.service"),
        };
        for way in WAYS {
            for protocol in ["say", "ask"] {
                let case = format!(
                    "{name}-{}-{protocol}{}",
                    way.name(),
                    if crowd { "-crowd" } else { "" }
                );
                scene.expect(&case, each, Expected::named(&who));
                let count = each.to_string();
                let at_once = if crowd { IN_A_CROWD } else { "1" };
                let mut steps = vec!["repeat", &count, at_once, "connect", protocol, "1"];
                if login {
                    steps.splice(0..0, ["login", "1"]);
                }
                commands.push(scene.client((&case, way), program, group, steps)?);
            }
        }
    }
    // A few launchers at a time, so that a life is as short as the client makes it; then all of them at once.
    let crowd = commands.split_off(commands.len() / 2);
    scene.run(commands, FEW).await?;
    let launchers = crowd.len();
    scene.run(crowd, launchers).await?;
    scene.finish(keep).await
}

/// Name, cgroup, whether a person logged in, and which program it is.
const PRINCIPALS: [(&str, &str, bool, &str); 6] = [
    ("orders", "system.slice/orders.service", false, "client"),
    ("billing", "system.slice/billing.service", false, "client"),
    (
        "worker@1",
        "system.slice/system-worker.slice/worker@1.service",
        false,
        "client",
    ),
    (
        "person",
        "user.slice/user-1.slice/session-1.scope",
        true,
        "client",
    ),
    ("plain", "plain", false, "client"),
    ("tool", "plain", false, "other"),
];
/// Times 48 is more than 20,000.
const EACH: usize = 420;
const SHORT_EACH: usize = 42;
const FEW: usize = 4;
/// Of each launcher: 24 of them stay below the server's connections.
const IN_A_CROWD: &str = "4";
