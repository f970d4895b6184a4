//! What runs on a node beside the pods: containerd, the kubelet, and what makes services of pods.
//!
//! Owns the three processes and their configuration. What they start (shims, containers) is in the machine's cgroup and ends
//! with it. Pods get no names by DNS: services are reached by their addresses, which pods find in their environment.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::access::User;
use super::control_plane::{ControlPlane, Place};
use super::machine::{Machine, PODS, Pods};
use super::programs::Programs;
use super::{node_name, tail};
use crate::process::Process;

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    // Dropped from the top.
    kubelet: Process,
    proxy: Process,
    containerd: Process,
    machine: Machine,
    name: String,
    folder: PathBuf,
    programs: Programs,
}

impl Node {
    /// What the API calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is: the kubelet (port 10250), node ports; on the first one the API server.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.machine.address()
    }

    /// Where this machine is for the node and its pods, which come with the node's address.
    #[must_use]
    pub const fn host_address(&self) -> Ipv4Addr {
        self.machine.gateway()
    }

    /// The cgroup under which everything of the node is, in every hierarchy, as `/proc/self/cgroup` has it.
    #[must_use]
    pub fn cgroup(&self) -> String {
        self.machine.cgroup()
    }

    /// What runs a program on the node, if it is put in front of it (`Settings::through` of an agent): as a service of that name, in the
    /// node's namespaces for mounts and networks, so that it finds containerd and the kubelet where they are on every node. Pids are
    /// this machine's.
    ///
    /// # Errors
    /// When the service's cgroup cannot be made.
    pub fn entry(&self, service: &str) -> Result<Vec<OsString>> {
        self.machine.entry(service)
    }

    /// A command that is run so.
    ///
    /// # Errors
    /// As [`Node::entry`].
    pub fn command(&self, service: &str, program: &Path) -> Result<Command> {
        self.machine.command(service, program)
    }

    /// Gives it an image; pods name it by its tags.
    ///
    /// # Errors
    /// When it is no image.
    pub fn import(&self, archive: &Path) -> Result<()> {
        import(&self.programs, &self.machine, archive)
    }

    /// Starts what runs on a node. `folder` is its own.
    ///
    /// # Errors
    /// When one of the processes does not start; the message carries what it said.
    pub(super) async fn start(
        programs: &Programs,
        (folder, number, machine): (&Path, usize, Machine),
        (pods, name_server): (Pods, Ipv4Addr),
        control_plane: &ControlPlane,
        pause: &Path,
    ) -> Result<Self> {
        let name = node_name(number);
        let place = Place::Node(&machine);
        let configuration = folder.join("configuration");
        fs::create_dir_all(configuration.join("cni"))?;
        let write = |name: &str, text: &Value| -> Result<PathBuf> {
            let path = configuration.join(name);
            fs::write(&path, text.to_string()).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        write("cni/pods.conflist", &network(pods))?;
        let runtime = configuration.join("containerd.toml");
        fs::write(&runtime, of_runtime(programs, &configuration.join("cni"))?)?;
        let mut command = place.command(folder, "containerd", &programs.program("containerd"))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.binaries().display());
        command.env("PATH", path).arg("--config").arg(&runtime);
        let mut containerd = Process::start("containerd", &mut command, Signal::SIGKILL)?;
        let deadline = Instant::now() + PATIENCE;
        while !ctr(programs, &machine)?
            .arg("version")
            .output()
            .is_ok_and(|output| output.status.success())
        {
            if containerd.ended()?.is_some() || Instant::now() > deadline {
                bail!(
                    "containerd does not answer:\n{}",
                    tail(&folder.join("containerd.log"))
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // What every pod's namespaces hang on: there before the first pod.
        import(programs, &machine, pause)?;

        let names = format!("subjectAltName=DNS:{name},IP:{}", machine.address());
        let (certificate, key) = control_plane
            .authority()
            .issue(&name, &format!("/CN={name}"), &names)?;
        let authority = control_plane.authority().certificate();
        let keys = (certificate.as_path(), key.as_path());
        let of_kubelet = of_kubelet((&machine, name_server), folder, keys, &authority);
        let of_kubelet = write("kubelet.json", &of_kubelet)?;
        let mut command = place.command(folder, "kubelet", &programs.program("kubelet"))?;
        command
            .arg("--config")
            .arg(of_kubelet)
            .arg("--kubeconfig")
            .arg(control_plane.access().configuration(User::Kubelet(number)))
            .args(["--hostname-override", &name])
            .arg(format!("--node-ip={}", machine.address()));
        let kubelet = Process::start("kubelet", &mut command, Signal::SIGKILL)?;

        let of_proxy = write(
            "proxy.json",
            &of_proxy(&name, &control_plane.access().configuration(User::Proxy)),
        )?;
        let mut command = place.command(folder, "kube-proxy", &programs.program("kube-proxy"))?;
        command.arg("--config").arg(of_proxy);
        let proxy = Process::start("kube-proxy", &mut command, Signal::SIGKILL)?;
        Ok(Self {
            kubelet,
            proxy,
            containerd,
            machine,
            name,
            folder: folder.to_owned(),
            programs: programs.clone(),
        })
    }

    /// What the kubelet said last.
    pub(super) fn said(&self) -> String {
        tail(&self.folder.join("kubelet.log"))
    }

    /// Whether all of it still runs.
    ///
    /// # Errors
    /// When something ended; the message carries what it said last.
    pub(super) fn check(&mut self) -> Result<()> {
        for (name, process) in [
            ("containerd", &mut self.containerd),
            ("kubelet", &mut self.kubelet),
            ("kube-proxy", &mut self.proxy),
        ] {
            if process.ended()?.is_some() {
                bail!(
                    "{name} ended:\n{}",
                    tail(&self.folder.join(format!("{name}.log")))
                );
            }
        }
        Ok(())
    }
}

/// Takes an image's file in; pods name it by its tags then.
fn import(programs: &Programs, machine: &Machine, image: &Path) -> Result<()> {
    let output = ctr(programs, machine)?
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(image)
        .output()
        .context("running ctr")?;
    ensure!(
        output.status.success(),
        "ctr failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn ctr(programs: &Programs, machine: &Machine) -> Result<Command> {
    machine.command("ctr", &programs.program("ctr"))
}

/// Each pod has a wire of its own to the node, which passes packets on: so that also what goes from pod to pod is seen by
/// what makes services of pods (a bridge would take the way back past it).
fn network(pods: Pods) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipam": { "type": "host-local", "subnet": pods.to_string(), "routes": [{ "dst": "0.0.0.0/0" }] },
        }],
    })
}

/// containerd's own form is TOML.
fn of_runtime(programs: &Programs, networks: &Path) -> Result<String> {
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .context("runc is not installed")?;
    let cri = json!({
        "sandbox_image": PAUSE,
        "disable_apparmor": true,
        // Root may not lower it everywhere: not in a container, nor in some virtual machines.
        "restrict_oom_score_adj": true,
        "netns_mounts_under_state_dir": true,
        "cni": { "bin_dir": programs.plugins(), "conf_dir": networks },
        "containerd": {
            "snapshotter": "overlayfs",
            "runtimes": { "runc": {
                "runtime_type": "io.containerd.runc.v2",
                "options": { "BinaryName": runc, "SystemdCgroup": false },
            } },
        },
    });
    let all = json!({ "version": 2, "plugins": { "io.containerd.grpc.v1.cri": cri } });
    toml::to_string(&all).context("containerd's configuration")
}

fn of_kubelet(
    (machine, name_server): (&Machine, Ipv4Addr),
    folder: &Path,
    (certificate, key): (&Path, &Path),
    authority: &Path,
) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": machine.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        // This machine's disk is not the node's to judge.
        "evictionHard": {
            "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": [name_server.to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "volumePluginDir": folder.join("kubelet/plugins"),
    })
}

fn of_proxy(name: &str, configuration: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": configuration },
        "clusterCIDR": PODS,
        "hostnameOverride": name,
        // These are settings of the whole kernel.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(60);
