//! Whether an image runs: its layer is unpacked, and its program started by runc in the security context that the manifests give it.
//!
//! Takes root and runc. The container has no network and no mounts of the host's: the program says its version, and does nothing
//! else.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{Which, layout, read};
use crate::step::root;

/// Where the program is in its image.
pub(super) fn program(which: Which) -> PathBuf {
    Path::new("/usr/bin").join(which.name())
}

/// Runs an image's program, and believes what it says of its version.
pub(super) fn run(which: Which, image: &Path) -> anyhow::Result<()> {
    let bundle = Bundle::new(which)?;
    unpack(image, &bundle.0.join("rootfs"))?;
    let context = Context::of(which)?;
    let configuration = bundle.0.join("config.json");
    fs::write(&configuration, serde_json::to_vec_pretty(&context.bundle(which))?)?;
    let name = format!("pgwitness-image-{}-{}", which.name(), std::process::id());
    let said = Command::new("runc")
        .arg("--root")
        .arg(bundle.0.join("state"))
        .args(["run", "--bundle"])
        .arg(&bundle.0)
        .arg(&name)
        .output()
        .context("cannot start runc (apt install runc)")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(
        said.status.success(),
        "{} does not run in its image: {}{}",
        which.name(),
        text,
        String::from_utf8_lossy(&said.stderr)
    );
    let expected = format!("{} {}", which.name(), env!("CARGO_PKG_VERSION"));
    ensure!(text.trim() == expected, "it said {text:?}, and not {expected:?}");
    println!(
        "{}: runs under runc as the manifests say: {}",
        which.name(),
        text.trim()
    );
    Ok(())
}

/// A folder for runc that goes away.
struct Bundle(PathBuf);

impl Bundle {
    fn new(which: Which) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("{}-{}", which.name(), std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks the image of a layout, and checks on the way that everything has the digest that it is known by.
fn unpack(image: &Path, to: &Path) -> anyhow::Result<()> {
    let index: Value = serde_json::from_slice(&read(&image.join("index.json"))?)?;
    let manifest = blob(image, index.pointer("/manifests/0"))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let configuration = blob(image, manifest.get("config"))?;
    let configuration: Value = serde_json::from_slice(&configuration)?;
    let layer = blob(image, manifest.pointer("/layers/0"))?;
    let mut plain = Vec::new();
    io::copy(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut plain)?;
    let diff_id = configuration
        .pointer("/rootfs/diff_ids/0")
        .and_then(Value::as_str);
    ensure!(
        diff_id == Some(layout::digest(&plain).as_str()),
        "the layer is not the one that the configuration names"
    );
    tar::Archive::new(plain.as_slice()).unpack(to)?;
    Ok(())
}

fn blob(image: &Path, descriptor: Option<&Value>) -> anyhow::Result<Vec<u8>> {
    let digest = layout::named(descriptor.context("the layout lacks a descriptor")?);
    let bytes = read(&image.join(layout::blob(&digest)))?;
    ensure!(layout::digest(&bytes) == digest, "{digest} has other contents");
    Ok(bytes)
}

/// What a manifest says a container may do.
struct Context {
    user: (u64, u64),
    capabilities: Vec<String>,
}

impl Context {
    /// Read from the manifests themselves, so that what is tried is what is deployed.
    fn of(which: Which) -> anyhow::Result<Self> {
        let file = match which {
            Which::Agent => "deploy/kubernetes/base/agent.yaml",
            Which::Collector => "deploy/kubernetes/base/collector.yaml",
        };
        let text = fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
        for document in serde_norway::Deserializer::from_str(&text) {
            let object: Value =
                serde::Deserialize::deserialize(document).with_context(|| format!("{file} is no YAML"))?;
            if let Some(pod) = object.pointer("/spec/template/spec") {
                return Self::of_pod(pod).with_context(|| file.to_owned());
            }
        }
        bail!("{file} has no pods")
    }

    fn of_pod(pod: &Value) -> anyhow::Result<Self> {
        let container = pod
            .pointer("/containers/0/securityContext")
            .context("no security context")?;
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
        let added = container.pointer("/capabilities/add").and_then(Value::as_array);
        let names = added.into_iter().flatten().filter_map(Value::as_str);
        let number = |key: &str| {
            let of_pod = pod
                .pointer("/securityContext")
                .and_then(|context| context.get(key));
            let found = container.get(key).or(of_pod).and_then(Value::as_u64);
            found.with_context(|| format!("{key} is not set"))
        };
        Ok(Self {
            user: (number("runAsUser")?, number("runAsGroup")?),
            capabilities: names.map(|name| format!("CAP_{name}")).collect(),
        })
    }

    /// As runc takes it (<https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md>).
    fn bundle(&self, which: Which) -> Value {
        let (user, group) = self.user;
        // What root holds by itself; another user holds nothing, as with Kubernetes.
        let held: &[String] = if user == 0 { &self.capabilities } else { &[] };
        let bounding = &self.capabilities;
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": [program(which), "--version"],
                "env": ["PATH=/usr/bin"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {"bounding": bounding, "permitted": held, "effective": held},
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            },
        })
    }
}
