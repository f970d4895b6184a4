//! What runs on a node beside the pods: containerd, the kubelet, and what makes services of pods.
//!
//! Owns the three processes and their configuration. What they start (shims, containers) is in the machine's cgroup and ends
//! with it. Pods get no names by DNS: services are reached by their addresses, which pods find in their environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::access::User;
use super::control_plane::{ControlPlane, Place, node_certificate};
use super::machine::{Machine, PODS};
use super::programs::Programs;
use super::{NODE, tail};
use crate::process::Process;

/// The running processes.
#[derive(Debug)]
pub(super) struct Node {
    // Dropped from the top.
    kubelet: Process,
    proxy: Process,
    containerd: Process,
    folder: PathBuf,
}

impl Node {
    /// Starts them. `folder` is the cluster's own.
    ///
    /// # Errors
    /// When one of them does not start; the message carries what it said.
    pub(super) async fn start(
        programs: &Programs,
        folder: &Path,
        machine: &Machine,
        control_plane: &ControlPlane,
        pause: &Path,
    ) -> Result<Self> {
        let place = Place::Node(machine);
        let configuration = folder.join("configuration");
        fs::create_dir_all(configuration.join("cni"))?;
        let write = |name: &str, text: &Value| -> Result<PathBuf> {
            let path = configuration.join(name);
            fs::write(&path, text.to_string()).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        write("cni/pods.conflist", &network())?;
        let runtime = configuration.join("containerd.toml");
        fs::write(&runtime, of_runtime(programs, &configuration.join("cni"))?)?;
        let mut command = place.command(folder, "containerd", &programs.program("containerd"))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.binaries().display());
        command.env("PATH", path).arg("--config").arg(&runtime);
        let mut containerd = Process::start("containerd", &mut command, Signal::SIGKILL)?;
        let deadline = Instant::now() + PATIENCE;
        while !ctr(programs, machine)?
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
        import(programs, machine, pause)?;

        let (certificate, key) = node_certificate(control_plane.authority(), machine.address())?;
        let authority = control_plane.authority().certificate();
        let of_kubelet = of_kubelet(machine, folder, (&certificate, &key), &authority);
        let of_kubelet = write("kubelet.json", &of_kubelet)?;
        let mut command = place.command(folder, "kubelet", &programs.program("kubelet"))?;
        command
            .arg("--config")
            .arg(of_kubelet)
            .arg("--kubeconfig")
            .arg(control_plane.access().configuration(User::Kubelet))
            .args(["--hostname-override", NODE])
            .arg(format!("--node-ip={}", machine.address()));
        let kubelet = Process::start("kubelet", &mut command, Signal::SIGKILL)?;

        let of_proxy = write(
            "proxy.json",
            &of_proxy(&control_plane.access().configuration(User::Proxy)),
        )?;
        let mut command = place.command(folder, "kube-proxy", &programs.program("kube-proxy"))?;
        command.arg("--config").arg(of_proxy);
        let proxy = Process::start("kube-proxy", &mut command, Signal::SIGKILL)?;
        Ok(Self {
            kubelet,
            proxy,
            containerd,
            folder: folder.to_owned(),
        })
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
pub(super) fn import(programs: &Programs, machine: &Machine, image: &Path) -> Result<()> {
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
fn network() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipam": { "type": "host-local", "subnet": PODS, "routes": [{ "dst": "0.0.0.0/0" }] },
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
    machine: &Machine,
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
        "resolvConf": "",
        "volumePluginDir": folder.join("kubelet/plugins"),
    })
}

fn of_proxy(configuration: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": configuration },
        "clusterCIDR": PODS,
        "hostnameOverride": NODE,
        // These are settings of the whole kernel.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE: &str = "localhost/pause:1";
/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(60);
