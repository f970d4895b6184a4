//! Network namespaces, and the wires between them.
//!
//! Owns what it made: it goes with the value. Addresses are of one namespace or another of its own; the host gets none.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

/// Namespaces with names of this run.
#[derive(Debug)]
pub(in crate::suite) struct Networks {
    prefix: String,
    made: Vec<String>,
}

impl Networks {
    /// None yet.
    pub(in crate::suite) fn new() -> Self {
        Self {
            prefix: format!("pgwi{}", std::process::id()),
            made: Vec::new(),
        }
    }

    /// Makes one, with nothing but loopback in it.
    pub(in crate::suite) fn add(&mut self, name: &str) -> Result<()> {
        let full = self.name(name);
        ip(&["netns", "add", &full])?;
        self.made.push(full);
        self.ip(name, &["link", "set", "lo", "up"])
    }

    /// Its name for `ip netns`.
    pub(in crate::suite) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The file that stands for it (ip-netns(8)).
    pub(in crate::suite) fn path(&self, name: &str) -> PathBuf {
        Path::new("/run/netns").join(self.name(name))
    }

    /// `ip` within one.
    pub(in crate::suite) fn ip(&self, name: &str, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name(name)], arguments].concat())
    }

    /// Any command within one.
    pub(in crate::suite) fn run(&self, name: &str, arguments: &[&str]) -> Result<()> {
        ip(&[&["netns", "exec", &self.name(name)], arguments].concat())
    }

    /// Makes one a router.
    pub(in crate::suite) fn forward(&self, name: &str) -> Result<()> {
        self.run(name, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    }

    /// A wire from one to the other. Its ends are called as where they lead to; each gets an address, if one is given.
    pub(in crate::suite) fn wire(
        &self,
        one: (&str, Option<&str>),
        other: (&str, Option<&str>),
    ) -> Result<()> {
        let (here, there) = (self.name(one.0), self.name(other.0));
        ip(&[
            "-n", &here, "link", "add", other.0, "type", "veth", "peer", "name", one.0, "netns", &there,
        ])?;
        for ((name, address), end) in [(one, other.0), (other, one.0)] {
            if let Some(address) = address {
                self.ip(name, &["addr", "add", address, "dev", end])?;
            }
            self.ip(name, &["link", "set", end, "up"])?;
        }
        Ok(())
    }

    /// Does something as a thread of that namespace. What is started there stays there.
    pub(in crate::suite) async fn within<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let own = File::open("/proc/thread-self/ns/net").context("opening the own network namespace")?;
        let other = File::open(self.path(name)).with_context(|| format!("opening the namespace {name}"))?;
        // One thread runs the suite: nothing else can run elsewhere meanwhile by mistake, or move away.
        setns(&other, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        let done = work().await;
        setns(&own, CloneFlags::CLONE_NEWNET).context("coming back from a network namespace")?;
        done
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for name in &self.made {
            // The wires go with the ends of them.
            drop(ip(&["netns", "del", name]));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("running ip (package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
