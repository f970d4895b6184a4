//! The bill of materials: the crates that a program is built from, the files of the image, and the packages that these were taken
//! from, as SPDX 2.3 (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! Crates are those that cargo would build into the program for this system: no build scripts' ones, and no tests'.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Source, Which, contents::Contents, layout::digest};
use crate::step::cargo;

/// Where nothing was looked into.
const UNKNOWN: &str = "NOASSERTION";

/// The bill of an image.
pub(super) fn of(which: Which, contents: &Contents, source: &Source) -> anyhow::Result<Value> {
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-image",
        "name": which.name(),
        "versionInfo": source.version,
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": "Apache-2.0",
        "copyrightText": UNKNOWN,
    })];
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")];
    for known in crates(which)? {
        let id = id("crate", &[&known.name, &known.version]);
        let purl = format!("pkg:cargo/{}@{}", known.name, known.version);
        let license = known.license.as_deref().unwrap_or(UNKNOWN);
        packages.push(package(&id, [&known.name, &known.version, license, &purl], None));
        relations.push(relation("SPDXRef-image", "CONTAINS", &id));
    }
    for known in &contents.packages {
        let id = id("deb", &[&known.name, &known.version]);
        let of = [known.name.as_str(), &known.version, UNKNOWN, &known.purl()];
        packages.push(package(&id, of, Some(&known.source)));
        relations.push(relation("SPDXRef-image", "CONTAINS", &id));
    }
    let mut files = Vec::new();
    for (path, file) in &contents.files {
        let place = path.display().to_string();
        let id = id("file", &[&place]);
        let sha256 = digest(&file.bytes).replace("sha256:", "");
        files.push(json!({
            "SPDXID": id,
            "fileName": format!(".{place}"),
            "checksums": [{"algorithm": "SHA256", "checksumValue": sha256}],
            "licenseConcluded": UNKNOWN,
            "copyrightText": UNKNOWN,
            "comment": contents.strangers.contains(path).then_some("of no package that is known here"),
        }));
        relations.push(relation("SPDXRef-image", "CONTAINS", &id));
    }
    for file in &mut files {
        if let Value::Object(file) = file {
            file.retain(|_, value| !value.is_null());
        }
    }
    // Names what the bill is of: other contents, another document.
    let own = digest(&serde_json::to_vec(&[json!(packages), json!(files)])?);
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", which.name(), source.version),
        "documentNamespace": format!("urn:pgwitness:{}:{own}", which.name()),
        "creationInfo": {"created": source.date(), "creators": ["Tool: cargo-xtask-image"]},
        "packages": packages,
        "files": files,
        "relationships": relations,
    }))
}

fn package(id: &str, [name, version, license, purl]: [&str; 4], source: Option<&str>) -> Value {
    let mut package = json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": license,
        "copyrightText": UNKNOWN,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl,
        }],
    });
    if let (Some(source), Value::Object(package)) = (source, &mut package) {
        package.insert(
            "sourceInfo".to_owned(),
            json!(format!("built from the source package {source}")),
        );
    }
    package
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

/// Letters, digits, dots and hyphens, as the specification has it.
fn id(kind: &str, parts: &[&str]) -> String {
    let text = parts.join("-");
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let short: String = text.chars().map(allowed).collect();
    // Two places that differ in other characters alone stay two.
    let sum: String = digest(text.as_bytes())
        .chars()
        .skip("sha256:".len())
        .take(8)
        .collect();
    format!("SPDXRef-{kind}-{short}-{sum}")
}

/// A crate that is in a program.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
}

fn crates(which: Which) -> anyhow::Result<BTreeSet<Crate>> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let said = cargo()
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &platform,
        ])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        said.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    let metadata = serde_json::from_slice(&said.stdout).context("cargo metadata said no JSON")?;
    reached(&metadata, which.name())
}

/// All that a package of the workspace depends on, by what cargo said.
fn reached(metadata: &Value, package: &str) -> anyhow::Result<BTreeSet<Crate>> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
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
        Some(Crate {
            name: text(one, "name")?,
            version: text(one, "version")?,
            license: text(one, "license").map(|terms| terms.replace('/', " OR ")),
        })
    });
    Ok(crates.collect())
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
}
