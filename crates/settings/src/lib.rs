//! How both programs read their configuration: defaults, then a TOML file, then environment variables.
//!
//! Owns the order and the errors. Refuses to know any key: a key that the given type does not have is an error that
//! names the nearest one, because a setting that silently does nothing is worse than none.

mod watched;

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};
pub use watched::Watched;

/// Why a configuration cannot be used; one line that says what to do.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// The file is not there or not readable.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key:?} in {source_name}{}", nearest.as_ref().map_or_else(String::new, |n| format!(": did you mean {n:?}?")))]
    UnknownKey {
        /// With its section.
        key: String,
        /// File or environment.
        source_name: String,
        /// The most similar key of the same section.
        nearest: Option<String>,
    },
    /// A value of the wrong type or form, or a file that is not TOML.
    #[error("{0}")]
    Malformed(String),
    /// A value out of its bounds.
    #[error("{key} is {value}: {expected}")]
    Value {
        /// With its section.
        key: &'static str,
        /// As given.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
}

/// Least similarity (Jaro-Winkler) of a key that is worth naming.
const SIMILAR: f64 = 0.75;

/// Reads a configuration. Variables are named `prefix`, then the key, with two underscores between sections.
///
/// # Errors
///
/// In one line, what is wrong and where.
pub fn load<T: Serialize + DeserializeOwned>(
    defaults: T,
    file: Option<&Path>,
    prefix: &str,
) -> Result<T, SettingsError> {
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| SettingsError::File {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        figment = figment.merge(Toml::string(&text));
    }
    figment
        .merge(Env::prefixed(prefix).split("__"))
        .extract()
        .map_err(|error| explain(error, file, prefix))
}

fn explain(error: figment::Error, file: Option<&Path>, prefix: &str) -> SettingsError {
    let from_environment = error
        .metadata
        .as_ref()
        .is_some_and(|metadata| metadata.name.contains("environment"));
    let source_name = match file {
        Some(path) if !from_environment => path.display().to_string(),
        _ => format!("the environment ({prefix}…)"),
    };
    let within = error.path.join(".");
    if let Kind::UnknownField(key, known) = &error.kind {
        let section = error
            .path
            .iter()
            .filter(|part| *part != key)
            .cloned()
            .collect::<Vec<_>>()
            .join(".");
        let full = |key: &str| {
            if section.is_empty() {
                key.to_owned()
            } else {
                format!("{section}.{key}")
            }
        };
        let nearest = known
            .iter()
            .map(|known| (strsim::jaro_winkler(key, known), *known))
            .filter(|(similarity, _)| *similarity >= SIMILAR)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        return SettingsError::UnknownKey {
            key: full(key),
            source_name,
            nearest: nearest.map(|(_, known)| full(known)),
        };
    }
    let kind = error.kind.to_string();
    // A parser's message draws the place over several lines; its first and last say it in one.
    let lines: Vec<&str> = kind
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let reason = match lines.as_slice() {
        [first, .., last] => format!("{first}: {last}"),
        _ => kind.trim().to_owned(),
    };
    let place = if within.is_empty() {
        source_name
    } else {
        format!("{within} in {source_name}")
    };
    SettingsError::Malformed(format!("{place} is malformed: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        listen: String,
        tap: Section,
    }

    #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        ring_mib: u32,
    }

    fn read(text: &str) -> Result<Example, SettingsError> {
        let file = std::env::temp_dir().join(format!("settings-{}-{:p}.toml", std::process::id(), text));
        std::fs::write(&file, text).expect("a temporary file");
        let result = load(Example::default(), Some(&file), "PGWITNESS_SETTINGS_TEST__");
        std::fs::remove_file(file).expect("it was there");
        result
    }

    #[test]
    fn known_keys_are_read() {
        let read = read("listen = \"here\"\n[tap]\nring_mib = 3\n").expect("a configuration");
        assert_eq!(
            read,
            Example {
                listen: "here".into(),
                tap: Section { ring_mib: 3 }
            }
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = read("[tap]\nring_mb = 3\n").expect_err("no such key").to_string();
        assert!(
            error.contains("tap.ring_mb") && error.contains("tap.ring_mib"),
            "{error}"
        );
    }

    #[test]
    fn other_faults_are_one_line() {
        for text in ["listen = 3", "this is not TOML", "[tap]\nring_mib = \"much\""] {
            let error = read(text).expect_err("malformed").to_string();
            assert!(
                error.lines().count() == 1 && error.contains("malformed"),
                "{error}"
            );
        }
    }
}
