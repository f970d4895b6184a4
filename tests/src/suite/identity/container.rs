//! Real containers, by `runc`, under the cgroup paths that other runtimes give theirs.
//!
//! Owns one root file system with the clients' program in it, and the bundles. What runs in a container ends with the
//! scene's cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::group::command_in;
use super::scene::Scene;

/// How to run containers of one scene.
#[derive(Debug)]
pub(super) struct Runtime {
    program: PathBuf,
    home: PathBuf,
}

/// One container.
#[derive(Clone, Debug)]
pub(super) struct Container {
    /// 64 hexadecimal digits, as the runtimes have it.
    pub(super) id: String,
    /// Cgroup, below the suite's own.
    pub(super) group: String,
    pub(super) network: Network,
    /// Whether its user 0 is one of the host's without rights.
    pub(super) user_namespace: bool,
    /// Whether it sees its own cgroup as the root.
    pub(super) cgroup_namespace: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Network {
    Host,
    Own,
    /// One that is there already: a pod's, another container's.
    Shared(PathBuf),
}

/// The host's user id of user 0 in a container with a user namespace.
pub(super) const FIRST_UID: u32 = 100_000;

/// An id that is the same for the same name within one run.
pub(super) fn id(name: &str) -> String {
    let digest = Sha256::digest(format!("{name} {}", std::process::id()));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pod's uid, likewise.
pub(super) fn uid(name: &str) -> String {
    let id = id(name);
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

impl Runtime {
    /// The clients' program alone in a root file system.
    ///
    /// # Errors
    /// When it cannot be made, or `runc` is not installed.
    pub(super) fn prepare(scene: &Scene) -> Result<Self> {
        let program = ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().map(PathBuf::from);
        let program = program
            .into_iter()
            .find(|path| path.is_file())
            .context("runc is not installed")?;
        let home = scene.home().to_owned();
        let root = home.join("rootfs");
        let inner = home.strip_prefix("/").unwrap_or(&home);
        for folder in ["bin", "proc", "host-proc", "dev", "tmp"]
            .map(Path::new)
            .into_iter()
            .chain([inner])
        {
            fs::create_dir_all(root.join(folder)).context("making a root file system")?;
        }
        fs::copy(scene.program("client")?, root.join("bin/client"))?;
        Ok(Self { program, home })
    }

    /// A container whose first process takes these steps, with these settings.
    pub(super) fn run(
        &self,
        scene: &Scene,
        container: &Container,
        environment: &[(&str, String)],
        steps: &[&str],
    ) -> Result<Command> {
        let bundle = self.home.join("bundles").join(&container.id);
        fs::create_dir_all(&bundle)?;
        let configuration = self.configuration(scene, container, environment, steps);
        fs::write(bundle.join("config.json"), configuration.to_string())?;
        let mut command = self.command(scene)?;
        command.arg("run").arg("--bundle").arg(&bundle).arg(&container.id);
        Ok(command)
    }

    /// Another process, put into a container that runs.
    pub(super) fn exec(
        &self,
        scene: &Scene,
        container: &Container,
        environment: &[(&str, String)],
        steps: &[&str],
    ) -> Result<Command> {
        let mut command = self.command(scene)?;
        command.arg("exec");
        for (name, value) in settings(environment) {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.arg(&container.id).arg("/bin/client").args(steps);
        Ok(command)
    }

    /// Waits until its first process runs its program.
    pub(super) async fn running(&self, container: &Container) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = Command::new(&self.program)
                .arg("--root")
                .arg(self.home.join("runc"))
                .arg("state")
                .arg(&container.id)
                .output()
                .context("running runc")?;
            let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if state.get("status").and_then(Value::as_str) == Some("running") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the container does not start: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The runtime itself is a service of the host.
    fn command(&self, scene: &Scene) -> Result<Command> {
        let mut command = command_in(
            &scene.groups.folder("system.slice/runtime.service")?,
            &self.program,
        );
        command
            .arg("--root")
            .arg(self.home.join("runc"))
            .stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }

    /// The runtime specification's `config.json`.
    fn configuration(
        &self,
        scene: &Scene,
        container: &Container,
        environment: &[(&str, String)],
        steps: &[&str],
    ) -> Value {
        let arguments: Vec<&str> = std::iter::once("/bin/client")
            .chain(steps.iter().copied())
            .collect();
        let environment: Vec<String> = settings(environment)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut namespaces = vec![
            json!({"type": "pid"}),
            json!({"type": "mount"}),
            json!({"type": "ipc"}),
            json!({"type": "uts"}),
        ];
        match &container.network {
            Network::Host => {}
            Network::Own => namespaces.push(json!({"type": "network"})),
            Network::Shared(path) => namespaces.push(json!({"type": "network", "path": path})),
        }
        if container.cgroup_namespace {
            namespaces.push(json!({"type": "cgroup"}));
        }
        let mut linux =
            json!({ "cgroupsPath": scene.groups.path(&container.group), "namespaces": namespaces });
        if container.user_namespace
            && let Some(linux) = linux.as_object_mut()
        {
            let map = json!([{"containerID": 0, "hostID": FIRST_UID, "size": 65536}]);
            linux.insert("uidMappings".to_owned(), map.clone());
            linux.insert("gidMappings".to_owned(), map);
            if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
                namespaces.push(json!({"type": "user"}));
            }
        }
        let seen = ["rbind", "ro", "nosuid", "nodev", "noexec"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "noNewPrivileges": true,
                "args": arguments, "env": environment,
            },
            "root": {"path": self.home.join("rootfs"), "readonly": true},
            "hostname": "container",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/host-proc", "type": "none", "source": "/proc", "options": seen},
                {"destination": self.home, "type": "none", "source": self.home, "options": ["bind"]},
            ],
            "linux": linux,
        })
    }
}

/// The host's `/proc` is where the client looks itself up: the container's own does not know the host's pids.
fn settings<'a>(environment: &'a [(&str, String)]) -> impl Iterator<Item = (&'a str, String)> {
    environment
        .iter()
        .map(|(name, value)| (*name, value.clone()))
        .chain([("HOST_PROC", "/host-proc".to_owned())])
}

const PATIENCE: Duration = Duration::from_secs(20);
