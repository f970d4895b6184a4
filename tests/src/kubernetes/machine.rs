//! A part of this machine that is a node of its own: namespaces for mounts and networks, and a cgroup under which everything of it is.
//!
//! Owns both, and all that runs in there: it ends with the value, and if whoever holds the value is killed. Pids are the
//! machine's, and so is the kernel, as on a node that agents watch. It refuses to change settings of the kernel, and to leave
//! folders outside of its own.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::process::Process;
use crate::unit::cgroup2_mount;

/// The namespaces and the cgroup, files below a folder of the node's.
#[derive(Debug)]
pub(super) struct Machine {
    first: Process,
    network: Network,
    /// The cgroup's name in every hierarchy.
    name: String,
    // Dropped last: what the first process started is in there.
    groups: Groups,
}

/// The wire between this machine and the node, and the node's pods.
#[derive(Clone, Copy, Debug)]
struct Network {
    number: u32,
}

/// The network of a node's pods.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pods(pub(super) u8);

impl Machine {
    /// Makes both; files go below `folder`.
    ///
    /// # Errors
    /// Without root, and when this kernel lacks something of it.
    pub(super) fn make(folder: &Path, pods: Pods) -> Result<Self> {
        let number = std::process::id().wrapping_mul(8) + COUNT.fetch_add(1, Ordering::Relaxed) % 8;
        let name = format!("pgwitness-kubernetes-{number}");
        let unified = cgroup2_mount()?.join(&name);
        let of_version_1 = hierarchies().into_iter().map(|mount| mount.join(&name));
        let groups = Groups(std::iter::once(unified.clone()).chain(of_version_1).collect());
        for group in &groups.0 {
            make_group(group)?;
        }
        let script = folder.join("node.sh");
        fs::write(&script, FIRST)?;
        let mut command = entering(groups.0.iter().map(|group| group.join("init.scope")))?;
        command
            .args(["unshare", "--mount", "--net", "sh"])
            .arg(&script)
            .arg(folder)
            .arg(&unified)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("node.log"))?);
        let (first, said) = Process::start_piped("the node's first process", &mut command, Signal::SIGKILL)?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(
            line.trim() == "ready",
            "the node's namespaces cannot be made: {}",
            fs::read_to_string(folder.join("node.log")).unwrap_or_default()
        );
        let machine = Self {
            first,
            network: Network { number },
            name,
            groups,
        };
        machine.wire(pods)?;
        Ok(machine)
    }

    /// The node's address, which this machine reaches, too.
    pub(super) const fn address(&self) -> Ipv4Addr {
        self.network.address(2)
    }

    /// This machine's, as the node reaches it.
    pub(super) const fn gateway(&self) -> Ipv4Addr {
        self.network.address(1)
    }

    /// The cgroup as `/proc/self/cgroup` has it.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    /// What runs a program in the node's namespaces, as a service of the node, if it is put in front of it.
    pub(super) fn entry(&self, service: &str) -> Result<Vec<OsString>> {
        let below = format!("system.slice/{service}.service");
        let mut command = entering(self.groups.0.iter().map(|group| group.join(&below)))?;
        command
            .args(["nsenter", "--mount", "--net", "--target"])
            .arg(self.first.pid().to_string())
            .arg("--");
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Ok(words.map(OsStr::to_owned).collect())
    }

    /// A command that is run so.
    pub(super) fn command(&self, service: &str, program: &Path) -> Result<Command> {
        let entry = self.entry(service)?;
        let (first, others) = entry.split_first().context("an entry of no words")?;
        let mut command = Command::new(first);
        command.args(others).arg(program);
        Ok(command)
    }

    /// A wire between both, and what leaves the node from a pod gets the node's address, as in most clouds.
    fn wire(&self, pods: Pods) -> Result<()> {
        let (pid, ours) = (self.first.pid().to_string(), self.network.name());
        run(Command::new("ip").args([
            "link", "add", &ours, "type", "veth", "peer", "name", UPLINK, "netns", &pid,
        ]))?;
        run(Command::new("ip").args(["addr", "add", &format!("{}/30", self.gateway()), "dev", &ours]))?;
        run(Command::new("ip").args(["link", "set", &ours, "up"]))?;
        let mut within = self.command("network", Path::new("/bin/sh"))?;
        run(within
            .args(["-ec", WIRE, "sh", UPLINK])
            .args([self.address(), self.gateway()].map(|address| address.to_string()))
            .arg(pods.to_string()))
    }

    /// A wire between two nodes: for whoever is on them, and for the pods of both.
    pub(super) fn join(&self, own: Pods, other: &Self, others: Pods) -> Result<()> {
        let ends = [(self, own, other, others), (other, others, self, own)];
        let name = |machine: &Self| format!("to{:x}", machine.network.number);
        let [first, second] = [self, other].map(|machine| machine.first.pid().to_string());
        run(Command::new("ip").args([
            "link",
            "add",
            &name(other),
            "netns",
            &first,
            "type",
            "veth",
            "peer",
            "name",
            &name(self),
            "netns",
            &second,
        ]))?;
        for (here, _, there, pods) in ends {
            let mut within = here.command("network", Path::new("/bin/sh"))?;
            run(within
                .args(["-ec", JOIN, "sh", &name(there)])
                .args([here.address(), there.address()].map(|address| address.to_string()))
                .arg(pods.to_string()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "10.244.{}.0/24", self.0)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The wire goes with the namespace, a moment later; another node may come before that.
        drop(run(Command::new("ip").args([
            "link",
            "del",
            &self.network.name(),
        ])));
    }
}

impl Network {
    /// `count` of a network of four addresses, in the range for measurements (RFC 2544), which nobody routes.
    const fn address(self, count: u8) -> Ipv4Addr {
        let [_, third, second, first] = self.number.wrapping_mul(4).to_be_bytes();
        Ipv4Addr::new(198, 18 | (third & 1), second, first | count)
    }

    /// A name that is not longer than the kernel allows (15 bytes).
    fn name(self) -> String {
        format!("pgwk{:x}", self.number)
    }
}

/// Cgroups that go, with everything in them. The first is in the hierarchy of version 2.
#[derive(Debug)]
struct Groups(Vec<PathBuf>);

impl Drop for Groups {
    fn drop(&mut self) {
        if let Some(unified) = self.0.first() {
            // Ends everything below, too (kernel 5.14).
            drop(fs::write(unified.join("cgroup.kill"), "1"));
        }
        for _ in 0..REMOVAL_ATTEMPTS {
            self.0.iter().for_each(|group| remove(group));
            if !self.0.iter().any(|group| group.exists()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// From the leaves up: a cgroup cannot go before those in it.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    drop(fs::remove_dir(folder));
}

/// A command that enters cgroups first, and then becomes what its further arguments say, under the same pid.
fn entering(groups: impl Iterator<Item = PathBuf>) -> Result<Command> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(ENTER).arg("sh");
    for group in groups {
        make_group(&group)?;
        command.arg(group);
    }
    command.arg("--");
    Ok(command)
}

/// In the hierarchy of `cpuset` (version 1) a group is of no use before it has processors and memory.
fn make_group(group: &Path) -> Result<()> {
    if group.exists() {
        return Ok(());
    }
    let above = group.parent().context("a cgroup below another")?;
    if !above.exists() {
        make_group(above)?;
    }
    fs::create_dir(group).with_context(|| format!("making {} (needs root)", group.display()))?;
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (file, of_above) = (group.join(name), above.join(name));
        if fs::read_to_string(&file).is_ok_and(|text| text.trim().is_empty())
            && let Ok(text) = fs::read_to_string(of_above)
            && !text.trim().is_empty()
        {
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(())
}

/// Where the hierarchies of version 1 are mounted, if there are any.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_line = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        (filesystem.split(' ').next()? == "cgroup").then_some(())?;
        mount.split(' ').nth(4).map(PathBuf::from)
    };
    mounts.lines().filter_map(of_line).collect()
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {name}"))?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Addresses of all pods.
pub(super) const PODS: &str = "10.244.0.0/16";

/// The node's end of the wire.
const UPLINK: &str = "uplink";
/// Clusters of one process.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// `$1` is the wire, `$2` the node's address, `$3` this machine's, `$4` the pods' network.
const WIRE: &str = r#"
ip addr add "$2/30" dev "$1"
ip link set "$1" up
ip route add default via "$3"
nft add table ip leaving
nft 'add chain ip leaving source { type nat hook postrouting priority srcnat; }'
nft add rule ip leaving source ip saddr "$4" oifname "$1" masquerade
"#;
/// `$1` is the wire, `$2` the address here, `$3` the one there, `$4` the network of the pods there. The wire has no addresses of its own: both
/// nodes have one already.
const JOIN: &str = r#"
ip link set "$1" up
ip route add "$3" dev "$1" src "$2"
ip route add "$4" via "$3" dev "$1" onlink src "$2"
"#;
const FIRST: &str = include_str!("../../programs/kubernetes_node.sh");
const ENTER: &str =
    r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@""#;
/// Times 20 ms: killed processes are reaped well within it.
const REMOVAL_ATTEMPTS: usize = 250;
