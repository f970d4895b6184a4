//! What the manifests say of a pod's main container, as runc takes it
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md>).
//!
//! Read from the manifests themselves, so that what is tried is what is deployed. What containerd adds by itself, it has, too: mounts, hidden
//! paths, the filter of system calls. Of a pod it lacks limits of resources, and what kubelet writes for it (`/etc/hosts`, tokens).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{Which, seccomp};
use crate::step::root;

/// Where the program is in its image.
pub(super) fn program(which: Which) -> PathBuf {
    Path::new("/usr/bin").join(which.name())
}

/// A pod of a manifest.
pub(super) struct Pod {
    which: Which,
    spec: Value,
    user: (u64, u64),
    capabilities: Vec<String>,
}

impl Pod {
    /// That of the agent's or the collector's workload.
    pub(super) fn of(which: Which) -> anyhow::Result<Self> {
        let file = match which {
            Which::Agent => "deploy/kubernetes/base/agent.yaml",
            Which::Collector => "deploy/kubernetes/base/collector.yaml",
        };
        let text = fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
        for document in serde_norway::Deserializer::from_str(&text) {
            let object: Value =
                serde::Deserialize::deserialize(document).with_context(|| format!("{file} is no YAML"))?;
            if let Some(spec) = object.pointer("/spec/template/spec") {
                return Self::new(which, spec.clone()).with_context(|| file.to_owned());
            }
        }
        bail!("{file} has no pods")
    }

    fn new(which: Which, spec: Value) -> anyhow::Result<Self> {
        let of_pod = spec.get("securityContext").context("no security context")?;
        let container = spec
            .pointer("/containers/0/securityContext")
            .context("no security context of the container")?;
        let is = |key: &str, expected: bool| container.get(key) == Some(&Value::Bool(expected));
        ensure!(
            is("readOnlyRootFilesystem", true) && is("allowPrivilegeEscalation", false),
            "the root must be read-only, and nothing may get more rights"
        );
        let dropped = container.pointer("/capabilities/drop");
        ensure!(
            dropped == Some(&json!(["ALL"])),
            "all capabilities must be dropped first"
        );
        let either = |key: &str| container.get(key).or_else(|| of_pod.get(key));
        ensure!(
            either("seccompProfile") == Some(&json!({"type": "RuntimeDefault"})),
            "system calls must be filtered as the runtime does it"
        );
        let added = container.pointer("/capabilities/add").and_then(Value::as_array);
        let names = added.into_iter().flatten().filter_map(Value::as_str);
        let capabilities = names.map(|name| format!("CAP_{name}")).collect();
        let number = |key: &str| {
            let found = either(key).and_then(Value::as_u64);
            found.with_context(|| format!("{key} is not set"))
        };
        let user = (number("runAsUser")?, number("runAsGroup")?);
        Ok(Self {
            which,
            spec,
            user,
            capabilities,
        })
    }

    /// The program with these arguments, on its own: no volumes, and no processes but its own in sight.
    pub(super) fn alone(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.bundle(arguments, vec!["PATH=/usr/bin".to_owned()], false, &[])
    }

    /// The program with its environment and volumes, and the processes that the manifest lets it see. Values that are the cluster's to
    /// give (the node's name) are their keys; volumes lie where the manifest says.
    pub(super) fn deployed(&self) -> anyhow::Result<Value> {
        let sees_host = self.spec.get("hostPID") == Some(&Value::Bool(true));
        self.bundle(&["run"], self.environment()?, sees_host, &self.volumes()?)
    }

    fn environment(&self) -> anyhow::Result<Vec<String>> {
        let list = self
            .spec
            .pointer("/containers/0/env")
            .and_then(Value::as_array)
            .context("no environment")?;
        let mut environment = vec!["PATH=/usr/bin".to_owned()];
        for variable in list {
            let name = variable
                .get("name")
                .and_then(Value::as_str)
                .context("a variable's name")?;
            let value = variable.get("value").and_then(Value::as_str);
            let value = value.map_or_else(|| name.to_lowercase(), given);
            environment.push(format!("{name}={value}"));
        }
        Ok(environment)
    }

    fn volumes(&self) -> anyhow::Result<Vec<Value>> {
        let mounts = self.spec.pointer("/containers/0/volumeMounts");
        let volumes = self.spec.get("volumes").and_then(Value::as_array);
        let mut found = Vec::new();
        for mount in mounts.and_then(Value::as_array).into_iter().flatten() {
            let name = mount.get("name");
            let volume = volumes
                .into_iter()
                .flatten()
                .find(|volume| volume.get("name") == name)
                .with_context(|| format!("there is no volume {name:?}"))?;
            let to = mount.get("mountPath").context("a mount has a place")?;
            let access = match mount.get("readOnly") {
                Some(Value::Bool(true)) => "ro",
                _ => "rw",
            };
            found.push(if let Some(path) = volume.pointer("/hostPath/path") {
                json!({"destination": to, "type": "bind", "source": path, "options": ["rbind", "rprivate", access]})
            } else if volume.pointer("/emptyDir/medium") == Some(&json!("Memory")) {
                json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": [access, "size=1m"]})
            } else {
                bail!("volumes such as {volume} are not known here")
            });
        }
        Ok(found)
    }

    fn bundle(
        &self,
        arguments: &[&str],
        environment: Vec<String>,
        sees_host: bool,
        volumes: &[Value],
    ) -> anyhow::Result<Value> {
        let (user, group) = self.user;
        // What root holds by itself; another user holds nothing, as with Kubernetes.
        let held: &[String] = if user == 0 { &self.capabilities } else { &[] };
        let bounding = &self.capabilities;
        let mut words = vec![json!(program(self.which))];
        words.extend(arguments.iter().map(|word| json!(word)));
        let mut namespaces = vec!["network", "ipc", "uts", "mount"];
        if !sees_host {
            namespaces.push("pid");
        }
        // containerd gives one where that is the only hierarchy.
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            namespaces.push("cgroup");
        }
        let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
        let mut mounts = of_every_container();
        mounts.extend_from_slice(volumes);
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": words,
                "env": environment,
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {"bounding": bounding, "permitted": held, "effective": held},
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "seccomp": seccomp::filter(&self.capabilities)?,
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
            },
        }))
    }
}

/// `$(NODE)` is what the variable of that name has.
fn given(value: &str) -> String {
    value
        .replace("$(NODE)", "node")
        .replace("$(NAMESPACE)", "namespace")
}

/// What containerd mounts for everybody.
fn of_every_container() -> Vec<Value> {
    const PROTECTED: &str = "nosuid,noexec,nodev";
    let mounts = [
        ("/proc", "proc", PROTECTED.to_owned()),
        (
            "/dev",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k".to_owned(),
        ),
        (
            "/dev/pts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5".to_owned(),
        ),
        ("/dev/mqueue", "mqueue", PROTECTED.to_owned()),
        ("/sys", "sysfs", format!("{PROTECTED},ro")),
    ];
    let mount = |(place, kind, options): (&str, &str, String)| {
        let options: Vec<&str> = options.split(',').collect();
        json!({"destination": place, "type": kind, "source": kind, "options": options})
    };
    mounts.into_iter().map(mount).collect()
}

/// What a node hides, as kubelet 1.34 asks for.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What nobody may write.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
