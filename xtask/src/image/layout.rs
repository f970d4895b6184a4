//! An image as the OCI's layout of files, and as an archive that `ctr images import` and `docker load` take.
//!
//! By the image specification 1.1: <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>. The layout also
//! holds the bill of materials, as a manifest that refers to the image; the archive holds the image alone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Source, Which, contents::Contents, layer, layer::Layer, pod};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const SBOM: &str = "application/spdx+json";

/// A finished image.
pub(super) struct Image {
    which: Which,
    version: &'static str,
    time: u64,
    /// By their digests.
    blobs: BTreeMap<String, Vec<u8>>,
    /// The image's manifest, as the index has it.
    manifest: Value,
    /// What refers to it.
    referrer: Value,
    configuration: String,
    layer: String,
    sbom: Vec<u8>,
}

impl Image {
    /// Puts it together.
    pub(super) fn of(
        which: Which,
        contents: &Contents,
        sbom: &Value,
        source: &Source,
    ) -> anyhow::Result<Self> {
        let layer = Layer::of(contents, source.time)?;
        let mut blobs = Blobs::default();
        let layers = blobs.keep(LAYER, layer.bytes);
        let configuration = json!({
            "created": source.date(),
            "architecture": contents.architecture,
            "os": "linux",
            "config": configuration(which, source),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": source.date(), "created_by": "cargo xtask image"}],
        });
        let configuration = blobs.keep(CONFIG, serde_json::to_vec(&configuration)?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configuration,
            "layers": [layers],
            "annotations": labels(which, source),
        });
        let mut manifest = blobs.keep(MANIFEST, serde_json::to_vec(&manifest)?);
        let sbom = serde_json::to_vec_pretty(sbom)?;
        let referrer = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SBOM,
            "config": blobs.keep(EMPTY, b"{}".to_vec()),
            "layers": [blobs.keep(SBOM, sbom.clone())],
            "subject": manifest,
            "annotations": {"org.opencontainers.image.created": source.date()},
        });
        let mut referrer = blobs.keep(MANIFEST, serde_json::to_vec(&referrer)?);
        set(&mut referrer, "artifactType", json!(SBOM));
        let platform = json!({"architecture": contents.architecture, "os": "linux"});
        set(&mut manifest, "platform", platform);
        Ok(Self {
            which,
            version: source.version,
            time: source.time,
            configuration: named(&configuration),
            layer: named(&layers),
            blobs: blobs.0,
            manifest,
            referrer,
            sbom,
        })
    }

    /// Of the manifest: what the image is pinned by.
    pub(super) fn digest(&self) -> String {
        named(&self.manifest)
    }

    /// Name and tag.
    pub(super) fn reference(&self) -> String {
        format!("{}:{}", self.which.name(), self.version)
    }

    /// Writes `NAME/` (the layout), `NAME.tar` (the archive), `NAME.spdx.json` and `NAME.digest` into a folder.
    pub(super) fn write(&self, to: &Path) -> anyhow::Result<()> {
        let name = self.which.name();
        let layout = to.join(name);
        if layout.exists() {
            fs::remove_dir_all(&layout).with_context(|| format!("cannot replace {}", layout.display()))?;
        }
        for (path, bytes) in self.files(&[self.named_manifest(), self.referrer.clone()], true)? {
            put(&layout.join(path), &bytes)?;
        }
        let mut files = self.files(&[self.named_manifest()], false)?;
        let docker = json!([{
            "Config": blob(&self.configuration),
            "RepoTags": [self.reference()],
            "Layers": [blob(&self.layer)],
        }]);
        files.push(("manifest.json".to_owned(), serde_json::to_vec(&docker)?));
        put(
            &to.join(format!("{name}.tar")),
            &layer::archive(&files, self.time)?,
        )?;
        put(&to.join(format!("{name}.spdx.json")), &self.sbom)?;
        put(
            &to.join(format!("{name}.digest")),
            format!("{}\n", self.digest()).as_bytes(),
        )
    }

    /// The manifest under the names that it is imported by: the specification's, and containerd's own, which is a full one.
    fn named_manifest(&self) -> Value {
        let mut manifest = self.manifest.clone();
        let annotations = json!({
            "org.opencontainers.image.ref.name": self.version,
            "io.containerd.image.name": format!("docker.io/library/{}", self.reference()),
        });
        set(&mut manifest, "annotations", annotations);
        manifest
    }

    /// A layout with these manifests; `all` blobs, or those of the image alone.
    fn files(&self, manifests: &[Value], all: bool) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let own = [&self.digest(), &self.configuration, &self.layer];
        let blobs = self
            .blobs
            .iter()
            .filter(|(digest, _)| all || own.contains(digest));
        let mut files: Vec<_> = blobs
            .map(|(digest, bytes)| (blob(digest), bytes.clone()))
            .collect();
        files.push(("index.json".to_owned(), serde_json::to_vec(&index)?));
        files.push((
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ));
        Ok(files)
    }
}

/// What a runtime is told of the program.
fn configuration(which: Which, source: &Source) -> Value {
    let (user, group) = which.user();
    let mut configuration = json!({
        "User": format!("{user}:{group}"),
        "Entrypoint": [pod::program(which)],
        "WorkingDir": "/",
        "Labels": labels(which, source),
        "StopSignal": "SIGTERM",
    });
    if which == Which::Collector {
        set(&mut configuration, "ExposedPorts", json!({"7433/tcp": {}}));
    }
    configuration
}

fn labels(which: Which, source: &Source) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": which.name(),
        "org.opencontainers.image.description": which.title(),
        "org.opencontainers.image.version": source.version,
        "org.opencontainers.image.created": source.date(),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.vendor": "pgwitness",
    });
    if let Some(revision) = &source.revision {
        set(&mut labels, "org.opencontainers.image.revision", json!(revision));
    }
    if let Some(url) = &source.url {
        set(&mut labels, "org.opencontainers.image.source", json!(url));
    }
    labels
}

/// Contents by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Keeps one; its descriptor.
    fn keep(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.0.insert(digest, bytes);
        descriptor
    }
}

/// SHA-256 as the OCI writes it.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Where a blob is in a layout.
pub(super) fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// The digest in a descriptor.
pub(super) fn named(descriptor: &Value) -> String {
    let digest = descriptor.get("digest").and_then(Value::as_str);
    digest.unwrap_or_default().to_owned()
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(key.to_owned(), value);
    }
}

fn put(path: &PathBuf, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
