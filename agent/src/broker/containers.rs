//! What container runtimes keep on disk of a container: what it is called, and the image that it was made from.
//!
//! Owns where each runtime keeps it (Docker's `config.v2.json`, the OCI `config.json` of containerd's and CRI-O's bundles,
//! `containers.json` of Podman's and CRI-O's storage). Nothing here is required: a container that is not found keeps its id.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::protocol::Container;

/// Bytes that are read of a file: a bundle's configuration takes some tens of KiB, the list of a full node's storage some
/// hundreds.
const FILE_MAX: u64 = 4 << 20;

/// Bytes kept of a name.
const NAME_MAX: usize = 256;

/// The state folders of the task service of containerd: its own, and the one that k3s brings.
const TASKS: [&str; 2] = [
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
];

/// Where Podman and CRI-O keep containers: what outlives a boot, and what does not.
const STORAGE: [&str; 2] = ["var/lib/containers/storage", "run/containers/storage"];

/// Looks for a container below a root, which is the host's.
pub(super) fn container(root: &Path, id: &str) -> Option<Container> {
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return None;
    }
    docker(root, id)
        .or_else(|| bundle(root, id))
        .or_else(|| storage(root, id))
}

fn docker(root: &Path, id: &str) -> Option<Container> {
    #[derive(Deserialize)]
    struct Kept {
        #[serde(rename = "Name")]
        name: Option<String>,
        #[serde(rename = "Config")]
        config: Option<Config>,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Image")]
        image: Option<String>,
    }
    let kept: Kept = read(
        &root
            .join("var/lib/docker/containers")
            .join(id)
            .join("config.v2.json"),
    )?;
    Some(shortened(Container {
        // Written as a path of links, of which there are none any more.
        name: kept.name.map(|name| name.trim_start_matches('/').to_owned()),
        image: kept.config.and_then(|config| config.image),
        runtime: "docker".to_owned(),
        ..Container::default()
    }))
}

/// A bundle of the OCI runtime, whose annotations the manager above it wrote.
fn bundle(root: &Path, id: &str) -> Option<Container> {
    let of_tasks = TASKS.iter().flat_map(|tasks| {
        let spaces = fs::read_dir(root.join(tasks)).into_iter().flatten().flatten();
        spaces.map(|space| ("containerd", space.path().join(id).join("config.json")))
    });
    let of_storage = STORAGE.iter().map(|storage| {
        let folder = root.join(storage).join("overlay-containers").join(id);
        ("cri-o", folder.join("userdata/config.json"))
    });
    of_tasks
        .chain(of_storage)
        .find_map(|(runtime, path)| {
            let spec: Value = read(&path)?;
            let annotation = |names: &[&str]| {
                names
                    .iter()
                    .find_map(|name| spec.get("annotations")?.get(name)?.as_str())
                    .map(str::to_owned)
            };
            let found = Container {
                name: annotation(&[
                    "io.kubernetes.cri.container-name",
                    "io.kubernetes.container.name",
                    "nerdctl/name",
                ]),
                image: annotation(&[
                    "io.kubernetes.cri.image-name",
                    "io.kubernetes.cri-o.ImageName",
                    "nerdctl/image-ref",
                ]),
                runtime: runtime.to_owned(),
                pod: annotation(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
                namespace: annotation(&[
                    "io.kubernetes.cri.sandbox-namespace",
                    "io.kubernetes.pod.namespace",
                ]),
            };
            // Podman writes bundles in the same place, and no names into them.
            (found.name.is_some() || found.image.is_some()).then_some(found)
        })
        .map(shortened)
}

fn storage(root: &Path, id: &str) -> Option<Container> {
    #[derive(Deserialize)]
    struct Kept {
        id: String,
        #[serde(default)]
        names: Vec<String>,
        metadata: Option<String>,
    }
    STORAGE
        .iter()
        .find_map(|storage| {
            let folder = root.join(storage).join("overlay-containers");
            let lists = ["containers.json", "volatile-containers.json"];
            lists.iter().find_map(|list| {
                let all: Vec<Kept> = read(&folder.join(list))?;
                let kept = all.into_iter().find(|kept| kept.id == id)?;
                let metadata: Value = kept
                    .metadata
                    .and_then(|text| serde_json::from_str(&text).ok())
                    .unwrap_or_default();
                let image = metadata.get("image-name").and_then(Value::as_str);
                Some(Container {
                    name: kept.names.into_iter().next(),
                    image: image.map(str::to_owned),
                    runtime: "podman".to_owned(),
                    ..Container::default()
                })
            })
        })
        .map(shortened)
}

fn read<T: for<'de> Deserialize<'de>>(path: &PathBuf) -> Option<T> {
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(FILE_MAX)
        .read_to_end(&mut text)
        .ok()?;
    serde_json::from_slice(&text).ok()
}

fn shortened(mut container: Container) -> Container {
    let texts = [
        &mut container.name,
        &mut container.image,
        &mut container.pod,
        &mut container.namespace,
    ];
    for text in texts.into_iter().flatten() {
        let mut end = text.len().min(NAME_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn written(path: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join(path.replace("ID", ID));
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text.replace("ID", ID)).expect("a file");
        root
    }

    #[test]
    fn each_runtime_is_asked_in_its_own_form() {
        let root = written(
            "var/lib/docker/containers/ID/config.v2.json",
            r#"{"ID":"ID","Name":"/orders-api","Config":{"Image":"registry/orders:7","Env":["PGPASSWORD=x"]}}"#,
        );
        let found = container(root.path(), ID).expect("Docker's");
        assert_eq!(
            (
                found.name.as_deref(),
                found.image.as_deref(),
                found.runtime.as_str()
            ),
            (Some("orders-api"), Some("registry/orders:7"), "docker")
        );
        for state in TASKS {
            let root = written(
                &format!("{state}/k8s.io/ID/config.json"),
                r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-name":"api",
                    "io.kubernetes.cri.image-name":"registry/api:1","io.kubernetes.cri.sandbox-name":"api-7d9f",
                    "io.kubernetes.cri.sandbox-namespace":"shop"}}"#,
            );
            let found = container(root.path(), ID).expect("containerd's");
            assert_eq!(
                (
                    found.name.as_deref(),
                    found.pod.as_deref(),
                    found.namespace.as_deref()
                ),
                (Some("api"), Some("api-7d9f"), Some("shop"))
            );
        }
        let root = written(
            "run/containers/storage/overlay-containers/ID/userdata/config.json",
            r#"{"annotations":{"io.kubernetes.container.name":"api","io.kubernetes.pod.name":"api-1"}}"#,
        );
        assert_eq!(container(root.path(), ID).expect("CRI-O's").runtime, "cri-o");
        let root = written(
            "var/lib/containers/storage/overlay-containers/containers.json",
            r#"[{"id":"other"},{"id":"ID","names":["web"],"metadata":"{\"image-name\":\"docker.io/nginx\"}"}]"#,
        );
        let found = container(root.path(), ID).expect("Podman's");
        assert_eq!(
            (
                found.name.as_deref(),
                found.image.as_deref(),
                found.runtime.as_str()
            ),
            (Some("web"), Some("docker.io/nginx"), "podman")
        );
    }

    #[test]
    fn nothing_is_made_up_and_no_other_place_is_read() {
        let root = written("var/lib/docker/containers/ID/config.v2.json", "{");
        assert_eq!(container(root.path(), ID), None, "half a file");
        let root = written("var/lib/docker/containers/x/config.v2.json", r#"{"Name":"/x"}"#);
        assert_eq!(container(root.path(), "x"), None);
        assert_eq!(container(root.path(), "../containers/x"), None);
        assert_eq!(container(root.path(), ID), None);
    }
}
