//! Pids that are used again at once, by another program of another unit.
//!
//! Owns two programs that take turns at the same pid as fast as they can (clone3(2) with `set_tid`), and pid
//! namespaces so small that the same pids come up in them all the time.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::judge::{Expected, Findings};
use super::scene::{Scene, WAYS, Way};

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let mut scene = Scene::open().await?;
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    for way in WAYS {
        // One way after the other: all want the same pid.
        let commands = one_pid(&mut scene, way, rounds)?;
        let at_once = commands.len();
        scene.run(commands, at_once).await?;
    }
    if !spaces_have_limits()? {
        let mut findings = scene.finish(keep).await?;
        let why =
            "a limit for a pid namespace's pids is the whole host's here (before Linux 6.14)".to_owned();
        findings
            .unavailable
            .push(("reuse/small namespaces".to_owned(), why));
        return Ok(findings);
    }
    let mut commands = Vec::new();
    for way in WAYS {
        commands.extend(small_spaces(&mut scene, way, rounds)?);
    }
    let at_once = commands.len();
    scene.run(commands, at_once).await?;
    scene.finish(keep).await
}

/// Whether `pid_max` is each pid namespace's own.
fn spaces_have_limits() -> Result<bool> {
    let kernel = nix::sys::utsname::uname().context("uname")?;
    let release = kernel.release().to_string_lossy();
    let mut numbers = release.split(['.', '-', '+']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("no version of a kernel: {release}");
    };
    Ok((major, minor) >= (6, 14))
}

/// Some say goodbye, some run another program first, and some are gone before the server has read a byte.
fn one_pid(scene: &mut Scene, way: Way, rounds: usize) -> Result<Vec<Command>> {
    let pid = free_pid()?.to_string();
    let count = rounds.to_string();
    let (client, other) = (scene.program("client")?, scene.program("other")?);
    let path = other.display().to_string();
    let lives: [(&str, &Path, &str, Vec<&str>, bool); 5] = [
        (
            "first",
            &client,
            "/unit/first.service",
            vec!["connect", "say", "1"],
            false,
        ),
        (
            "second",
            &other,
            "/unit/second.service",
            vec!["connect", "ask", "1"],
            false,
        ),
        (
            "third",
            &client,
            "/unit/third.service",
            vec!["exec", &path, "connect", "say", "1"],
            false,
        ),
        (
            "fourth",
            &client,
            "/unit/fourth.service",
            vec!["connect", "shout", "1"],
            true,
        ),
        (
            "fifth",
            &other,
            "/unit/fifth.service",
            vec!["exec", &path, "connect", "shout", "1"],
            true,
        ),
    ];
    let mut commands = Vec::new();
    for (name, program, who, life, hasty) in lives {
        let case = format!("{name}-{}", way.name());
        // Who does not wait may be gone before anybody could look at it; it may be unknown then, and never somebody else.
        let expected = match hasty {
            true => Expected::of(super::judge::Who::NamedOrUnknown(who.to_owned())).lossy(),
            false => Expected::named(who),
        };
        scene.expect(&case, rounds, expected);
        let steps = [vec!["repeat", &count, "1", "as", &pid], life].concat();
        commands.push(scene.client(
            (&case, way),
            program,
            &format!("system.slice/{name}.service"),
            steps,
        )?);
    }
    Ok(commands)
}

/// Two namespaces, two units, the same few pids.
fn small_spaces(scene: &mut Scene, way: Way, rounds: usize) -> Result<Vec<Command>> {
    // Each run takes a second pid for the client: the first 300 are handed out once, and then the few come round.
    let runs = 4 * rounds;
    let count = runs.to_string();
    let mut commands = Vec::new();
    for name in ["left", "right"] {
        let case = format!("{name}-{}", way.name());
        scene.expect(&case, runs, Expected::named(format!("/unit/{name}.service")));
        let steps = [
            "space", FEW_PIDS, "repeat", &count, "4", "fork", "connect", "say", "1",
        ];
        let program = scene.program(name)?;
        commands.push(scene.client(
            (&case, way),
            &program,
            &format!("system.slice/{name}.service"),
            steps,
        )?);
    }
    Ok(commands)
}

/// One that nobody gets by chance: below 300 pids are handed out only once after boot (`RESERVED_PIDS`).
fn free_pid() -> Result<u32> {
    (100..300)
        .rev()
        .find(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        .context("every pid below 300 is taken")
}

const ROUNDS: usize = 400;
const SHORT_ROUNDS: usize = 40;
/// pid_max; 301 is the least. Once 300 pids were handed out, those from there on
/// are all that there is (`RESERVED_PIDS`): enough for four runs with a client each.
const FEW_PIDS: &str = "320";
