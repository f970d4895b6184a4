//! A real Kubernetes cluster for tests: its control plane, and if wanted nodes, each of which is a part of this machine.
//!
//! Owns everything of it: folder, ports, certificates, tokens, processes, namespaces, cgroups; all of that ends with the value. It
//! refuses to listen anywhere but on loopback or in the nodes' own networks, to ask a registry for an image, and to touch another
//! cluster that may run here. The programs are Kubernetes' own (`cargo xtask setup --kubernetes`); what is as elsewhere and what is not: `docs/truth.md`.

mod access;
mod control_plane;
pub mod image;
mod machine;
mod names;
mod node;
mod programs;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

pub use access::User;
use control_plane::{ControlPlane, Place};
use image::Image;
use machine::{Machine, Pods};
use names::{Ask, Names};
pub use node::Node;
pub use programs::Programs;

/// A cluster that runs.
#[derive(Debug)]
pub struct Kubernetes {
    // Dropped from the top: who asks before who answers, and the folder last.
    nodes: Vec<Node>,
    /// Where there are nodes.
    _names: Option<Names>,
    control_plane: ControlPlane,
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
        let control_plane = ControlPlane::start(programs, folder.path(), Place::Here, 0).await?;
        let mut cluster = Self {
            nodes: Vec::new(),
            _names: None,
            control_plane,
            folder,
            programs: programs.clone(),
        };
        cluster.await_account("default").await?;
        Ok(cluster)
    }

    /// The control plane and so many nodes that are ready for pods, one at least, all in namespaces of their own. The control plane is on
    /// the first one.
    ///
    /// # Errors
    /// As [`Kubernetes::without_node`]; without root; and when this machine lacks something that a node needs.
    pub async fn with_nodes(programs: &Programs, count: usize) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-kubernetes-").context("a folder for the cluster")?;
        let mut machines: Vec<(PathBuf, Pods, Machine)> = Vec::new();
        for number in 0..count {
            let own = folder.path().join(node_name(number));
            fs::create_dir(&own)?;
            let pods = Pods(u8::try_from(number).context("too many nodes")?);
            let machine = Machine::make(&own, pods)?;
            for (_, others, other) in &machines {
                machine.join(pods, other, *others)?;
            }
            machines.push((own, pods, machine));
        }
        let (_, _, first) = machines.first().context("a cluster of no nodes")?;
        let control_plane = ControlPlane::start(programs, folder.path(), Place::Node(first), count).await?;
        let ask = Ask {
            kubectl: programs.program("kubectl"),
            configuration: control_plane.access().configuration(User::Admin),
            home: folder.path().to_owned(),
        };
        let name_server = first.gateway();
        let names = Names::start(name_server, ask)?;
        let pause = Image::pause()?;
        let pause_archive = pause.pack_pause()?;
        let mut nodes = Vec::new();
        for (number, (own, pods, machine)) in machines.into_iter().enumerate() {
            let place = (own.as_path(), number, machine);
            let networks = (pods, name_server);
            nodes.push(Node::start(programs, place, networks, &control_plane, &pause_archive).await?);
        }
        let mut cluster = Self {
            nodes,
            _names: Some(names),
            control_plane,
            folder,
            programs: programs.clone(),
        };
        cluster.await_account("default").await?;
        for number in 0..count {
            let node = format!("node/{}", node_name(number));
            let ready = ["wait", "--for=condition=Ready", &node, "--timeout=1s"];
            cluster
                .until("a node is not ready", &ready)
                .await
                .with_context(|| cluster.nodes.get(number).map(Node::said).unwrap_or_default())?;
        }
        Ok(cluster)
    }

    /// The nodes, the first of which has the control plane.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
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

    /// Gives every node an image; pods name it by its tags.
    ///
    /// # Errors
    /// When it is no image.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.import(archive))
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
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// Ends the API server as a crash would. What runs on the nodes goes on, and nobody is answered.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill_server(&mut self) -> Result<()> {
        self.control_plane.kill_server().await
    }

    /// Starts it again, at the same place and over the same store, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up; the message carries what it said.
    pub async fn start_server(&mut self) -> Result<()> {
        self.control_plane.start_server(&self.programs).await
    }

    /// A file to which the API server itself writes each pod, replica set and job that it made, and each word of a kubelet on a pod
    /// (Kubernetes, "Auditing"): one JSON object a line, deleted ones too.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.control_plane.audit()
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

/// What the node with this number is called, the first being 0.
fn node_name(number: usize) -> String {
    format!("node-{}", number + 1)
}

/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(120);
