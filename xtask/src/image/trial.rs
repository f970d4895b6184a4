//! Whether an image runs: its layer is unpacked, and its program started by runc in the security context that the manifests give it.
//!
//! Takes root and runc. The container has no network and no mounts of the host's: the program says its version, and does nothing
//! else.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Which, layout, pod::Pod, read};

/// Runs an image's program, and believes what it says of its version.
pub(super) fn run(which: Which, image: &Path) -> anyhow::Result<()> {
    let bundle = Bundle::new(which)?;
    unpack(image, &bundle.0.join("rootfs"))?;
    let configuration = Pod::of(which)?.alone(&["--version"])?;
    fs::write(
        bundle.0.join("config.json"),
        serde_json::to_vec_pretty(&configuration)?,
    )?;
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
pub(super) fn unpack(image: &Path, to: &Path) -> anyhow::Result<()> {
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
