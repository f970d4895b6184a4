//! An agent in its container: what runc makes of the image's bundle, as a node's runtime does of the DaemonSet's pod.
//!
//! Owns what is the agent's own of it: a configuration, the folder that stands for `/var/lib/pgwitness` of a node, and the container's end.
//! The bundle's configuration is taken as it is (`xtask/src/image/pod.rs`), but for arguments, further environment, and one more mount: the
//! collector's socket, because a pod has a network of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::bare;

/// A place for one container after the other.
#[derive(Debug)]
pub(super) struct Container {
    bundle: PathBuf,
    /// Its own files.
    folder: PathBuf,
    /// What is `/var/lib/pgwitness` in there.
    state: PathBuf,
    /// Where the collector's socket is, in there and outside.
    socket: PathBuf,
    /// Of the newest one.
    name: String,
}

impl Container {
    /// Files go into `folder`, which it makes.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub(super) fn new(bundle: &Path, folder: PathBuf, state: PathBuf, socket: &Path) -> Result<Self> {
        for folder in [&folder, &state] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self {
            bundle: bundle.to_owned(),
            folder,
            state,
            socket: socket.to_owned(),
            name: String::new(),
        })
    }

    /// What starts a container with the arguments and the environment of this command, under that name.
    ///
    /// # Errors
    /// When the bundle is not one of the agent's image.
    pub(super) fn command(&mut self, agent: &Command, name: &str) -> Result<Command> {
        let configuration = self.configuration(agent)?;
        let file = self.folder.join("config.json");
        fs::write(&file, configuration.to_string()).with_context(|| format!("writing {}", file.display()))?;
        self.name = format!("pgwitness-truth-{}-{name}", std::process::id());
        // One of an earlier container would be believed.
        drop(fs::remove_file(self.pid_file()));
        let mut command = self.runc();
        command
            .args(["run", "--bundle"])
            .arg(&self.folder)
            .arg("--pid-file")
            .arg(self.pid_file())
            .arg(&self.name);
        Ok(command)
    }

    /// The first process in it.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn first(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.pid_file()).context("the container has no process")?;
        Ok(Pid::from_raw(text.trim().parse().context("a process id")?))
    }

    /// What runs the agent's program in it, as the kubelet's probes do.
    pub(super) fn exec(&self) -> Command {
        let mut command = self.runc();
        command.args(["exec", &self.name, "/usr/bin/pgwitness-agent"]);
        command
    }

    fn configuration(&self, agent: &Command) -> Result<Value> {
        let file = self.bundle.join("config.json");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut all: Value = serde_json::from_str(&text).context("the bundle's configuration")?;
        let words = all
            .pointer_mut("/process/args")
            .and_then(Value::as_array_mut)
            .context("no arguments")?;
        words.truncate(1);
        words.extend(agent.get_args().map(|word| json!(word.to_string_lossy())));
        let variables = all.pointer_mut("/process/env").context("no environment")?;
        let given = variables.as_array().cloned().unwrap_or_default();
        let given = given
            .iter()
            .filter_map(|variable| variable.as_str()?.split_once('='));
        let mut environment: BTreeMap<String, String> =
            given.map(|(name, value)| (name.into(), value.into())).collect();
        for (name, value) in agent.get_envs() {
            let value = value.context("the agent's environment is said in full")?;
            environment.insert(
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            );
        }
        *variables = environment
            .iter()
            .map(|(name, value)| json!(format!("{name}={value}")))
            .collect();
        let root = all.pointer_mut("/root/path").context("no root")?;
        *root = json!(self.bundle.join("rootfs"));
        let mounts = all
            .pointer_mut("/mounts")
            .and_then(Value::as_array_mut)
            .context("no mounts")?;
        let state = mounts
            .iter_mut()
            .find(|mount| mount.get("destination") == Some(&json!(STATE)))
            .and_then(|mount| mount.get_mut("source"))
            .context("no state folder is mounted")?;
        *state = json!(self.state);
        mounts.push(json!({
            "destination": self.socket, "type": "bind", "source": self.socket, "options": ["bind", "rprivate", "rw"],
        }));
        Ok(all)
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        bare(&mut command).arg("--root").arg(self.folder.join("runc"));
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Whoever ended in order is gone already.
        let mut delete = self.runc();
        delete
            .args(["delete", "--force", &self.name])
            .stdin(Stdio::null());
        if !self.name.is_empty() {
            drop(delete.output());
        }
    }
}

/// As the manifest mounts it.
const STATE: &str = "/var/lib/pgwitness";
