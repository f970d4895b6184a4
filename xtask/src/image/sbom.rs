//! The bill of materials: what a program is built from, the files of the image, and the packages that these were taken
//! from, as SPDX 2.3 (<https://spdx.github.io/spdx-spec/v2.3/>).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Source, Which, contents::Contents, layout::digest, parts::Part};

/// Where nothing was looked into.
const UNKNOWN: &str = "NOASSERTION";

/// The bill of an image.
pub(super) fn of(
    which: Which,
    contents: &Contents,
    parts: &BTreeSet<Part>,
    source: &Source,
) -> anyhow::Result<Value> {
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
    for known in parts {
        let id = id(known.kind, &[&known.name, &known.version]);
        let license = known.license.as_deref().unwrap_or(UNKNOWN);
        let of = [known.name.as_str(), &known.version, license, &known.purl()];
        packages.push(package(&id, of, None));
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
