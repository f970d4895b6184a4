//! Programs that pass on what somebody else says: whoever they are, they are never the one who said it. Behind a pooler it is
//! known who was.
//!
//! Owns a proxy, a tunnel, a pooler and another server's backend in between, each in a unit of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::group::command_in;
use super::judge::{Expected, Findings, Who};
use super::scene::{Scene, WAYS, Way};
use crate::cluster::{APP_ROLE, DATABASE, free_port};

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let mut scene = Scene::open().await?;
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    let (mut running, mut commands, mut unavailable) = (Vec::new(), Vec::new(), Vec::new());
    for relay in RELAYS {
        let Some(program) = relay
            .program
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
        else {
            unavailable.push((
                format!("relays/{}", relay.name),
                format!("{} is not installed", relay.program.join(" or ")),
            ));
            continue;
        };
        for way in WAYS {
            let port = free_port()?;
            let Some(command) = (relay.command)(&scene, &program, way, port)? else {
                continue;
            };
            running.push(scene.listening(relay.name, command, port).await?);
            let case = format!("{}-{}", relay.name, way.name());
            let pooled = relay.kind == "pooler";
            let who = match pooled {
                true => Who::Pooled("/unit/behind.service".to_owned()),
                false => Who::BehindRelay(relay.kind),
            };
            let expected = Expected {
                pooled,
                ..Expected::of(who)
            };
            scene.expect(&case, rounds, expected);
            let client = scene.program("client")?;
            for _ in 0..rounds {
                let steps = ["connect", "say", "1", "ask", "1"];
                let mut command =
                    scene.client((&case, Way::Tcp), &client, "system.slice/behind.service", steps)?;
                command.env("PGPORT", port.to_string());
                commands.push(command);
            }
        }
    }
    // Beside them, the same clients without a relay.
    scene.expect("direct", rounds, Expected::named("/unit/behind.service"));
    for _ in 0..rounds {
        let steps = ["connect", "say", "2"];
        let client = scene.program("client")?;
        commands.push(scene.client(
            ("direct", Way::Tcp),
            &client,
            "system.slice/behind.service",
            steps,
        )?);
    }
    scene.run(commands, AT_ONCE).await?;
    foreign(&mut scene, rounds).await?;
    drop(running);
    let mut findings = scene.finish(keep).await?;
    findings.unavailable.extend(unavailable);
    Ok(findings)
}

/// A program that relays.
struct Relay {
    name: &'static str,
    /// What the record calls its kind.
    kind: &'static str,
    /// Where it may be installed.
    program: &'static [&'static str],
    /// How it is started, to listen on a port of loopback; `None` if it cannot reach the server by this way.
    command: fn(&Scene, &Path, Way, u16) -> Result<Option<Command>>,
}

const RELAYS: [Relay; 3] = [
    Relay {
        name: "haproxy",
        kind: "proxy",
        program: &["/usr/sbin/haproxy"],
        command: haproxy,
    },
    Relay {
        name: "socat",
        kind: "tunnel",
        program: &["/usr/bin/socat"],
        command: socat,
    },
    Relay {
        name: "pgbouncer",
        kind: "pooler",
        program: &["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"],
        command: pgbouncer,
    },
];

fn unit(scene: &Scene, name: &str, program: &Path) -> Result<Command> {
    let folder = scene.groups.folder(&format!("system.slice/{name}.service"))?;
    let mut command = command_in(&folder, program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null());
    Ok(command)
}

fn configuration(scene: &Scene, name: &str, text: &str) -> Result<PathBuf> {
    let path = scene.home().join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn socket(scene: &Scene) -> String {
    scene
        .place(&format!(".s.PGSQL.{}", scene.cluster.port()))
        .display()
        .to_string()
}

fn haproxy(scene: &Scene, program: &Path, way: Way, port: u16) -> Result<Option<Command>> {
    let to = match way {
        Way::Unix => format!("unix@{}", socket(scene)),
        Way::Tcp => format!("127.0.0.1:{}", scene.cluster.port()),
    };
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen postgresql\n  bind 127.0.0.1:{port}\n  server one {to}\n"
    );
    let path = configuration(scene, &format!("haproxy-{}.cfg", way.name()), &text)?;
    let mut command = unit(scene, "haproxy", program)?;
    command.arg("-db").arg("-f").arg(path);
    Ok(Some(command))
}

fn socat(scene: &Scene, program: &Path, way: Way, port: u16) -> Result<Option<Command>> {
    let to = match way {
        Way::Unix => format!("UNIX-CONNECT:{}", socket(scene)),
        Way::Tcp => format!("TCP:127.0.0.1:{}", scene.cluster.port()),
    };
    let mut command = unit(scene, "socat", program)?;
    command
        .arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"))
        .arg(to);
    Ok(Some(command))
}

fn pgbouncer(scene: &Scene, program: &Path, way: Way, port: u16) -> Result<Option<Command>> {
    let host = match way {
        Way::Unix => scene.home().join("run").display().to_string(),
        Way::Tcp => "127.0.0.1".to_owned(),
    };
    let text = format!(
        "[databases]\n{DATABASE} = host={host} port={} dbname={DATABASE} user={APP_ROLE}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
         user = postgres\n",
        scene.cluster.port()
    );
    let path = configuration(scene, &format!("pgbouncer-{}.ini", way.name()), &text)?;
    let mut command = unit(scene, "pgbouncer", program)?;
    command.arg(path);
    Ok(Some(command))
}

/// The server's own backend as a client: dblink passes a text on as it is.
async fn foreign(scene: &mut Scene, rounds: usize) -> Result<()> {
    let admin = scene.cluster.superuser(DATABASE).await?;
    admin
        .batch_execute("CREATE EXTENSION dblink")
        .await
        .context("dblink")?;
    for way in WAYS {
        let case = format!("dblink-{}", way.name());
        let expected = Expected {
            pooled: true,
            ..Expected::of(Who::BehindRelay("postgresql"))
        };
        scene.expect(&case, rounds, expected);
        let host = match way {
            Way::Unix => scene.home().join("run").display().to_string(),
            Way::Tcp => "127.0.0.1".to_owned(),
        };
        for round in 0..rounds {
            let mark = format!("{case}.{round}");
            let sql = format!(
                "SELECT * FROM dblink('host={host} port={} dbname={DATABASE} user={APP_ROLE}', \
                 'SELECT 1 /* mark={mark} */') AS t(i int)",
                scene.cluster.port()
            );
            let rows = admin.query(&sql, &[]).await.context("asking through dblink")?;
            ensure!(rows.len() == 1, "dblink gave {} rows", rows.len());
            scene.note(&json!({ "case": case, "mark": mark, "said": 1 }))?;
        }
    }
    Ok(())
}

const ROUNDS: usize = 100;
const SHORT_ROUNDS: usize = 5;
const AT_ONCE: usize = 16;
