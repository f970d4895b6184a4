//! What is in a program besides the image's files: crates, those of the kernel side, and the packages that the page is made of; and the
//! terms under which all that is handed on.
//!
//! Crates are those that cargo would build into the program for this system: no build scripts' ones, and no tests'. Terms are what their
//! sources have of them, word by word; nothing is judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Which, read};
use crate::step::{cargo, root};

/// What the kernel side is built for.
const KERNEL: &str = "bpfel-unknown-none";

/// What files with terms are called, whatever comes behind.
const TERMS: [&str; 6] = [
    "COPYING",
    "COPYRIGHT",
    "LICENCE",
    "LICENSE",
    "NOTICE",
    "UNLICENSE",
];

/// Something that is in a program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Whose registry knows it: "cargo", "npm".
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    /// Where its terms are, if it is not our own: the folder of its source, or the script that has them at its head.
    terms: Option<PathBuf>,
}

impl Part {
    /// As a package URL.
    pub(super) fn purl(&self) -> String {
        let (name, version) = (self.name.replace('@', "%40"), self.version.replace('+', "%2B"));
        format!("pkg:{}/{name}@{version}", self.kind)
    }
}

/// All that is in a program.
pub(super) fn of(which: Which) -> anyhow::Result<BTreeSet<Part>> {
    let system = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut parts = reached(&metadata("Cargo.toml", &system)?, which.name())?;
    match which {
        Which::Agent => parts.extend(reached(&metadata("ebpf/Cargo.toml", KERNEL)?, "pgwitness-ebpf")?),
        Which::Collector => parts.extend(page()?),
    }
    Ok(parts)
}

/// The terms of what is not our own: whose there are, and then each text once.
pub(super) fn terms(parts: &BTreeSet<Part>) -> anyhow::Result<String> {
    let mut said =
        "What is in this program besides its own code, and the terms that came with it.\n\n".to_owned();
    let mut by_text: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for part in parts {
        let Some(place) = &part.terms else { continue };
        let name = format!("{} {}", part.name, part.version);
        said += &format!("{name}: {}\n", part.license.as_deref().unwrap_or("as below"));
        for text in texts(place)? {
            by_text.entry(text).or_default().insert(name.clone());
        }
    }
    for (text, names) in by_text {
        let names: Vec<String> = names.into_iter().collect();
        said += &format!("\n{}\n{}\n\n{text}\n", "-".repeat(80), names.join(", "));
    }
    Ok(said)
}

/// The texts in a folder, those of what others put into it included; or the one at a script's head.
fn texts(place: &Path) -> anyhow::Result<Vec<String>> {
    if place.is_file() {
        let script = String::from_utf8_lossy(&read(place)?).into_owned();
        let head = script
            .strip_prefix("/*!")
            .and_then(|script| script.split_once("*/"));
        let (head, _) = head.with_context(|| format!("{} has no notices at its head", place.display()))?;
        return Ok(vec![head.trim().to_owned()]);
    }
    let (mut found, mut waiting) = (Vec::new(), vec![place.to_owned()]);
    while let Some(folder) = waiting.pop() {
        let unreadable = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let (path, kind) = (entry.path(), entry.file_type().with_context(unreadable)?);
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() && has_terms(&path) {
                found.push(String::from_utf8_lossy(&read(&path)?).trim().to_owned());
            }
        }
    }
    Ok(found)
}

/// By its name; programs about licences have none.
fn has_terms(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().to_uppercase();
    let is_program = path.extension().is_some_and(|kind| kind == "rs" || kind == "sh");
    !is_program && TERMS.iter().any(|beginning| name.starts_with(beginning))
}

/// Of npm's packages those that are built into the page.
fn page() -> anyhow::Result<BTreeSet<Part>> {
    let path = root().join("collector/page/package-lock.json");
    let unusable = || path.display().to_string();
    let lock = serde_json::from_slice(&read(&path)?).with_context(unusable)?;
    in_page(&lock).with_context(unusable)
}

fn in_page(lock: &Value) -> anyhow::Result<BTreeSet<Part>> {
    let packages = lock
        .get("packages")
        .and_then(Value::as_object)
        .context("it has no packages")?;
    let mut parts = BTreeSet::new();
    for (place, package) in packages {
        // The page itself has no such place.
        let Some((_, name)) = place.rsplit_once("node_modules/") else {
            continue;
        };
        if package.get("dev") == Some(&json!(true)) {
            continue;
        }
        parts.insert(Part {
            kind: "npm",
            name: name.to_owned(),
            version: text(package, "version").with_context(|| format!("{name} has no version"))?,
            license: text(package, "license"),
            terms: Some(root().join("collector/src/http/page/app.js")),
        });
    }
    Ok(parts)
}

/// What cargo says of a workspace, for a platform.
fn metadata(manifest: &str, platform: &str) -> anyhow::Result<Value> {
    let said = cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--manifest-path", manifest, "--filter-platform", platform])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        said.status.success(),
        "cargo metadata failed for {manifest}: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    serde_json::from_slice(&said.stdout).context("cargo metadata said no JSON")
}

/// All that a package of the workspace depends on, by what cargo said.
fn reached(metadata: &Value, package: &str) -> anyhow::Result<BTreeSet<Part>> {
    let list = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let packages: BTreeMap<String, Value> = list(metadata, "packages")
        .into_iter()
        .filter_map(|one| Some((text(&one, "id")?, one)))
        .collect();
    let resolve = metadata
        .get("resolve")
        .context("cargo metadata resolved nothing")?;
    let nodes: BTreeMap<String, Value> = list(resolve, "nodes")
        .into_iter()
        .filter_map(|one| Some((text(&one, "id")?, one)))
        .collect();
    let is_built_in = |dependency: &Value| {
        let kinds = list(dependency, "dep_kinds");
        kinds
            .iter()
            .any(|kind| kind.get("kind").is_none_or(Value::is_null))
    };
    // Macros run in the compiler: neither they nor what they need is in the program.
    let is_macro = |id: &String| {
        let targets = packages
            .get(id)
            .map(|one| list(one, "targets"))
            .unwrap_or_default();
        let kinds = targets.iter().flat_map(|target| list(target, "kind"));
        kinds.into_iter().any(|kind| kind == "proc-macro")
    };
    let root = packages.iter().find(|(_, one)| {
        text(one, "name").as_deref() == Some(package) && one.get("source").is_none_or(Value::is_null)
    });
    let mut waiting = vec![
        root.with_context(|| format!("there is no package {package}"))?
            .0
            .clone(),
    ];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if is_macro(&id) || !seen.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).with_context(|| format!("{id} was not resolved"))?;
        let dependencies = list(node, "deps");
        waiting.extend(
            dependencies
                .iter()
                .filter(|one| is_built_in(one))
                .filter_map(|one| text(one, "pkg")),
        );
    }
    let crates = seen.iter().filter_map(|id| {
        let one = packages.get(id)?;
        let is_own = one.get("source").is_none_or(Value::is_null);
        let manifest = text(one, "manifest_path").filter(|_| !is_own);
        Some(Part {
            kind: "cargo",
            name: text(one, "name")?,
            version: text(one, "version")?,
            license: text(one, "license").map(|terms| terms.replace('/', " OR ")),
            terms: manifest.and_then(|manifest| Some(Path::new(&manifest).parent()?.to_owned())),
        })
    });
    Ok(crates.collect())
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_built_in_counts() {
        let node = |id: &str, deps: &[(&str, Value)]| {
            let deps: Vec<_> = deps
                .iter()
                .map(|(id, kind)| json!({"pkg": id, "dep_kinds": [{"kind": kind}]}))
                .collect();
            json!({"id": id, "deps": deps})
        };
        let package = |id: &str, kind: &str, source: Value| {
            json!({"id": id, "name": id, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source,
                   "targets": [{"kind": [kind]}]})
        };
        let registry = json!("registry");
        let metadata = json!({
            "packages": [
                package("own", "bin", Value::Null), package("used", "lib", registry.clone()),
                package("deep", "lib", registry.clone()), package("build", "lib", registry.clone()),
                package("dev", "lib", registry.clone()), package("macro", "proc-macro", registry.clone()),
                package("of-macro", "lib", registry),
            ],
            "resolve": {"nodes": [
                node("own", &[("used", Value::Null), ("build", json!("build")), ("dev", json!("dev"))]),
                node("used", &[("deep", Value::Null), ("macro", Value::Null)]),
                node("deep", &[]), node("build", &[]), node("dev", &[]),
                node("macro", &[("of-macro", Value::Null)]), node("of-macro", &[]),
            ]},
        });
        let found = reached(&metadata, "own").expect("resolved");
        let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["deep", "own", "used"]);
        assert!(
            found
                .iter()
                .all(|one| one.license.as_deref() == Some("MIT OR Apache-2.0"))
        );
        assert!(reached(&metadata, "other").is_err());
    }

    #[test]
    fn tools_are_not_in_the_page() {
        let lock = json!({"packages": {
            "": {"version": "0.1.0"},
            "node_modules/@own/part": {"version": "1.0.0", "license": "MIT"},
            "node_modules/tool": {"version": "2.0.0", "dev": true},
            "node_modules/other/node_modules/deep": {"version": "3.0.0"},
        }});
        let parts = in_page(&lock).expect("packages");
        let purls: Vec<_> = parts.iter().map(Part::purl).collect();
        assert_eq!(purls, ["pkg:npm/%40own/part@1.0.0", "pkg:npm/deep@3.0.0"]);
        assert!(in_page(&json!({})).is_err());
    }

    #[test]
    fn the_page_has_the_terms_of_its_parts() {
        let parts = page().expect("the page's packages");
        assert!(parts.len() > 3, "{parts:?}");
        for part in &parts {
            let place = part.terms.as_ref().expect("it is another's");
            let texts = texts(place).expect("read").concat();
            assert!(texts.contains(&format!("{}: Copyright", part.name)), "{texts}");
        }
        let said = terms(&parts).expect("read");
        assert_eq!(said.matches("Permission is hereby granted").count(), 1);
    }

    #[test]
    fn programs_about_licences_have_no_terms() {
        for (name, expected) in [
            ("LICENSE", true),
            ("LICENSE-MIT", true),
            ("license.md", true),
            ("COPYING.0BSD", true),
            ("license-check.sh", false),
            ("license.rs", false),
            ("README.md", false),
        ] {
            assert_eq!(has_terms(&Path::new("/crate").join(name)), expected, "{name}");
        }
    }
}
