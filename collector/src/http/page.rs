//! The page's files, embedded: the collector is one binary, and the page loads nothing from elsewhere.
//!
//! They are built from `collector/page`, which takes Node, and committed, so that building the collector takes none; `built.json` says what they
//! were built from, and a test holds it against what is there.

use axum::{http::header, response::IntoResponse};

pub(super) async fn index() -> impl IntoResponse {
    file("text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("page/app.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("page/style.css"))
}

pub(super) async fn icon() -> impl IntoResponse {
    file("image/svg+xml", include_str!("page/icon.svg"))
}

fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type)], text)
}

#[cfg(test)]
pub(super) use tests::sources;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        path::{Path, PathBuf},
    };

    use serde_json::Value;
    use sha2::{Digest, Sha256};

    /// What the page is built from, by paths.
    pub(in super::super) fn sources() -> BTreeMap<String, Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut found: Vec<PathBuf> = [".npmrc", "package-lock.json", "package.json", "tsconfig.json"]
            .iter()
            .map(|name| root.join(name))
            .collect();
        files(&root.join("build"), &mut found);
        files(&root.join("src"), &mut found);
        let by_path = found.iter().map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            (name.to_owned(), fs::read(path).unwrap())
        });
        by_path.collect()
    }

    fn files(under: &Path, found: &mut Vec<PathBuf>) {
        for file in fs::read_dir(under).unwrap() {
            let path = file.unwrap().path();
            match path.is_dir() {
                true => files(&path, found),
                false => found.push(path),
            }
        }
    }

    /// As `collector/page/README.md` has it.
    #[test]
    fn what_is_embedded_was_built_from_what_is_there() {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
        let said: Value = serde_json::from_slice(&fs::read(built.join("built.json")).unwrap()).unwrap();
        let mut hash = Sha256::new();
        for (name, content) in sources() {
            hash.update(format!("{name}\0{}\0", content.len()));
            hash.update(content);
        }
        assert_eq!(
            said["sources"],
            hex::encode(hash.finalize()),
            "the page's sources were changed: npm run build in collector/page"
        );
        for (name, digest) in said["files"].as_object().unwrap() {
            let content = fs::read(built.join(name)).unwrap();
            assert_eq!(
                *digest,
                hex::encode(Sha256::digest(content)),
                "{name} was changed by hand"
            );
        }
    }
}
