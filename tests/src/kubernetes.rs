//! A real Kubernetes cluster for tests: its control plane, and if wanted one node, which is a part of this machine.
//!
//! Owns everything of it: folder, ports, certificates, tokens, processes, namespaces, cgroups; all of that ends with the value. It
//! refuses to listen anywhere but on loopback or in the node's own network, to ask a registry for an image, and to touch another
//! cluster that may run here. The programs are Kubernetes' own (`cargo xtask setup --kubernetes`); on a node's pods see `docs/truth.md`.

mod access;
mod control_plane;
pub mod image;
mod machine;
mod node;
mod programs;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

pub use access::User;
use control_plane::{ControlPlane, Place};
use image::Image;
use machine::Machine;
use node::Node;
pub use programs::Programs;

/// A cluster that runs.
#[derive(Debug)]
pub struct Kubernetes {
    // Dropped from the top: who asks before who answers, and the folder last.
    node: Option<Node>,
    control_plane: ControlPlane,
    machine: Option<Machine>,
    folder: TempDir,
    programs: Programs,
}

impl Kubernetes {
    /// Only the control plane, on this machine's loopback: there is an API, and nothing ever runs. Takes no privileges.
    ///
    /// # Errors
    /// When a component does not come up; the message carries what it said.
    pub async fn without_node(programs: &Programs) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-kubernetes-").context("a folder for the cluster")?;
        let control_plane = ControlPlane::start(programs, folder.path(), Place::Here).await?;
        let mut cluster = Self {
            node: None,
            control_plane,
            machine: None,
            folder,
            programs: programs.clone(),
        };
        cluster.await_account("default").await?;
        Ok(cluster)
    }

    /// The control plane and a node that is ready for pods, both in namespaces of their own.
    ///
    /// # Errors
    /// As [`Kubernetes::without_node`]; without root; and when this machine lacks something that a node needs.
    pub async fn with_node(programs: &Programs) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-kubernetes-").context("a folder for the cluster")?;
        let machine = Machine::make(folder.path())?;
        let control_plane = ControlPlane::start(programs, folder.path(), Place::Node(&machine)).await?;
        let pause = Image::pause()?;
        let node = Node::start(
            programs,
            folder.path(),
            &machine,
            &control_plane,
            &pause.pack_pause()?,
        )
        .await?;
        let mut cluster = Self {
            node: Some(node),
            control_plane,
            machine: Some(machine),
            folder,
            programs: programs.clone(),
        };
        cluster.await_account("default").await?;
        cluster
            .until("the node is not ready", &READY)
            .await
            .with_context(|| tail(&cluster.folder.path().join("kubelet.log")))?;
        Ok(cluster)
    }

    /// `https://…` of the API, which this machine reaches.
    #[must_use]
    pub fn url(&self) -> &str {
        self.control_plane.access().url()
    }

    /// The certificate of the authority that signed the API's.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.control_plane.authority().certificate()
    }

    /// A file with a user's token alone.
    #[must_use]
    pub fn token_file(&self, user: User) -> PathBuf {
        self.control_plane.access().token_file(user)
    }

    /// A file for `KUBECONFIG`.
    #[must_use]
    pub fn configuration(&self, user: User) -> PathBuf {
        self.control_plane.access().configuration(user)
    }

    /// Where the node is: the API server, the kubelet (port 10250), node ports.
    #[must_use]
    pub fn node_address(&self) -> Option<Ipv4Addr> {
        self.machine.as_ref().map(Machine::address)
    }

    /// Where this machine is for the node and its pods, which come with the node's address.
    #[must_use]
    pub fn host_address(&self) -> Option<Ipv4Addr> {
        self.machine.as_ref().map(Machine::gateway)
    }

    /// The cgroup under which everything of the node is, in every hierarchy, as `/proc/self/cgroup` has it.
    #[must_use]
    pub fn node_cgroup(&self) -> Option<String> {
        self.machine.as_ref().map(Machine::cgroup)
    }

    /// What runs a program on the node, if it is put in front of it (`Settings::through` of an agent): as a service of that name, in the
    /// node's namespaces for mounts and networks, so that it finds containerd and the kubelet where they are on every node. Pids are
    /// this machine's.
    ///
    /// # Errors
    /// When there is no node.
    pub fn entry(&self, service: &str) -> Result<Vec<OsString>> {
        let machine = self.machine.as_ref().context("this cluster has no node")?;
        machine.entry(service)
    }

    /// A command that is run so.
    ///
    /// # Errors
    /// When there is no node.
    pub fn on_node(&self, service: &str, program: &Path) -> Result<Command> {
        let machine = self.machine.as_ref().context("this cluster has no node")?;
        machine.command(service, program)
    }

    /// `kubectl`, as somebody who may do everything.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        self.control_plane.kubectl(&self.programs, User::Admin)
    }

    /// `helm`, likewise.
    #[must_use]
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.programs.program("helm"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.configuration(User::Admin));
        command
    }

    /// What `kubectl` says to these arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .kubectl()
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("running kubectl")?;
        said(arguments, &output)
    }

    /// Makes what a manifest says, in that namespace, or changes it.
    ///
    /// # Errors
    /// When the API refuses.
    pub fn apply(&self, namespace: &str, manifest: &str) -> Result<()> {
        let mut kubectl = self
            .kubectl()
            .args(["apply", "--namespace", namespace, "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running kubectl")?;
        let mut input = kubectl.stdin.take().context("kubectl has no input")?;
        input.write_all(manifest.as_bytes())?;
        drop(input);
        said(&["apply"], &kubectl.wait_with_output()?).map(drop)
    }

    /// Gives the node an image; pods name it by its tags.
    ///
    /// # Errors
    /// When there is no node, or it is no image.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let machine = self.machine.as_ref().context("this cluster has no node")?;
        node::import(&self.programs, machine, archive)
    }

    /// Asks again and again until `kubectl` succeeds with these arguments: `wait` with `--timeout=1s`, for example.
    ///
    /// # Errors
    /// When it does not within two minutes, or a component ended.
    pub async fn until(&mut self, problem: &str, arguments: &[&str]) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check()?;
            match self.ask(arguments) {
                Ok(said) => return Ok(said),
                Err(error) if Instant::now() > deadline => return Err(error.context(problem.to_owned())),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Whether all components still run.
    ///
    /// # Errors
    /// When one ended; the message carries what it said last.
    pub fn check(&mut self) -> Result<()> {
        self.control_plane.check()?;
        self.node.as_mut().map_or(Ok(()), Node::check)
    }

    /// Makes a namespace that pods can be made in.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn namespace(&mut self, name: &str) -> Result<()> {
        self.ask(&["create", "namespace", name])?;
        self.await_account(name).await
    }

    /// The account that pods have if they name none: controllers make it in each namespace, and pods are refused before.
    async fn await_account(&mut self, namespace: &str) -> Result<()> {
        let arguments = ["get", "serviceaccount", "default", "--namespace", namespace];
        self.until("the controllers do not work", &arguments)
            .await
            .map(drop)
    }
}

fn said(arguments: &[&str], output: &std::process::Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "kubectl {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).context("kubectl says something that is no text")
}

/// The last lines of a component's log.
fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n")
}

/// What the node is called.
pub const NODE: &str = "node";

const READY: [&str; 4] = ["wait", "--for=condition=Ready", "node/node", "--timeout=1s"];
/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(120);
