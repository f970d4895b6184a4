//! People who log in over SSH: whoever's program connects, it is the person; and a port that they forward is a tunnel.
//!
//! Owns a server of OpenSSH on loopback with keys of its own. What it does at a login is the distribution's PAM
//! configuration: `pam_loginuid` sets the audit login uid.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::group::command_in;
use super::judge::{Expected, Findings, Who};
use super::scene::{Scene, WAYS, Way};
use crate::cluster::free_port;
use crate::process::Process;

/// Runs the part.
pub(super) async fn run(full: bool, keep: bool) -> Result<Findings> {
    let mut scene = Scene::open().await?;
    if !Path::new(SERVER).is_file() {
        let mut findings = Findings::default();
        let why = format!("{SERVER} is not installed (package openssh-server)");
        findings.unavailable.push(("logins".to_owned(), why));
        return Ok(findings);
    }
    let rounds = if full { ROUNDS } else { SHORT_ROUNDS };
    let door = Door::open(&scene).await?;
    let client = scene.program("client")?.display().to_string();
    let mut commands = Vec::new();
    for way in WAYS {
        for person in PEOPLE {
            for (what, steps) in [
                ("direct", "connect say 1"),
                ("program", "fork fork connect say 1"),
            ] {
                let case = format!("{person}-{what}-{}", way.name());
                scene.expect(&case, rounds, Expected::named(format!("/login/{person}")));
                for _ in 0..rounds {
                    commands.push(door.enter(&scene, person, (&case, way), &client, steps)?);
                }
            }
        }
        // Whoever becomes somebody else is still who logged in.
        let case = format!("becomes-{}", way.name());
        scene.expect(&case, rounds, Expected::named("/login/root"));
        for _ in 0..rounds {
            commands.push(door.enter(&scene, "root", (&case, way), &client, "uid 1 connect say 1")?);
        }
    }
    scene.run(commands, AT_ONCE).await?;
    let forwarded = door.forward(&scene).await?;
    scene.expect("forwarded", rounds, Expected::of(Who::BehindRelay("tunnel")));
    let mut commands = Vec::new();
    for _ in 0..rounds {
        let (program, steps) = (PathBuf::from(&client), ["connect", "say", "1"]);
        let mut command = scene.client(
            ("forwarded", Way::Tcp),
            &program,
            "system.slice/behind.service",
            steps,
        )?;
        command.env("PGPORT", forwarded.port.to_string());
        commands.push(command);
    }
    scene.run(commands, AT_ONCE).await?;
    drop((forwarded, door));
    scene.finish(keep).await
}

/// A running server, and the key to it.
struct Door {
    _server: Process,
    port: u16,
    key: PathBuf,
}

/// A port of this host that leads through a login to the database's.
struct Forwarded {
    _client: Process,
    port: u16,
}

impl Door {
    async fn open(scene: &Scene) -> Result<Self> {
        // Where its children change their root to (sshd(8)).
        fs::create_dir_all("/run/sshd").context("making /run/sshd")?;
        let (host_key, key) = (scene.home().join("host-key"), scene.home().join("key"));
        for path in [&host_key, &key] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
            let output = command.output().context("running ssh-keygen")?;
            ensure!(
                output.status.success(),
                "ssh-keygen: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let public = key.with_extension("pub");
        fs::set_permissions(&public, fs::Permissions::from_mode(0o644))?;
        let port = free_port()?;
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM yes\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nMaxStartups 100\n",
            host_key.display(),
            public.display()
        );
        let configuration = scene.home().join("sshd.conf");
        fs::write(&configuration, text)?;
        let folder = scene.groups.folder("system.slice/ssh.service")?;
        let mut command = command_in(&folder, Path::new(SERVER));
        command.env_clear().args(["-D", "-e", "-f"]).arg(configuration);
        let server = scene.listening("sshd", command, port).await?;
        Ok(Self {
            _server: server,
            port,
            key,
        })
    }

    fn ssh(&self, person: &str) -> Command {
        let mut command = Command::new("ssh");
        command.env_clear().args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
        ]);
        command.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ]);
        command
            .arg("-i")
            .arg(&self.key)
            .args(["-p", &self.port.to_string()]);
        command.args(["-l", person, "127.0.0.1"]);
        command
    }

    /// A client that a person runs over there.
    fn enter(
        &self,
        scene: &Scene,
        person: &str,
        (case, way): (&str, Way),
        program: &str,
        steps: &str,
    ) -> Result<Command> {
        let settings = scene
            .environment(case, way)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut command = self.ssh(person);
        command
            .args(["exec", "env"])
            .args(settings)
            .arg(program)
            .args(steps.split(' '));
        command.stdin(std::process::Stdio::null());
        Ok(command)
    }

    async fn forward(&self, scene: &Scene) -> Result<Forwarded> {
        let port = free_port()?;
        let mut command = self.ssh("root");
        command.args([
            "-N",
            "-L",
            &format!("127.0.0.1:{port}:127.0.0.1:{}", scene.cluster.port()),
        ]);
        let client = scene.listening("ssh", command, port).await?;
        Ok(Forwarded {
            _client: client,
            port,
        })
    }
}

const SERVER: &str = "/usr/sbin/sshd";
/// Accounts of every Debian that has the server's packages, with a shell.
const PEOPLE: [&str; 2] = ["root", "postgres"];
const ROUNDS: usize = 60;
const SHORT_ROUNDS: usize = 3;
const AT_ONCE: usize = 8;
